"""From a click log, or a file of graded judgements, to training pairs."""

from __future__ import annotations
