"""Text to tokens to packed flat batches: tokenise, pack, mix, order."""

from __future__ import annotations
