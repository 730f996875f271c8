"""Domain encoders for product search, in Hugging Face idioms."""

from __future__ import annotations

__version__ = "0.1.0"
