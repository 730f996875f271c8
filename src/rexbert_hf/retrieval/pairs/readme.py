"""The README of a folder of pairs: what people wrote into it stays, and which files there are is said anew."""

from __future__ import annotations

import logging
from pathlib import Path

import yaml

from rexbert_hf.hub import merge_card
from rexbert_hf.hub.readme import overruled, split_card

logger = logging.getLogger(__name__)

_OWNED = ("configs", "dataset_info")
"""Metadata that says which files there are: replaced, never merged, since a rebuild may have others."""
_SAID = ("license", "language")
"""What the settings say and a README may say otherwise."""


def read_readme(folder: Path) -> str | None:
    """The README of a folder, which a card can be merged into; None where there is none.

    Args:
        folder: `output_dir`; it may be missing.

    Raises:
        ValueError: if it is not UTF-8, or its metadata cannot be read; it is named.
    """
    path = folder / "README.md"
    if not path.is_file():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        split_card(text)
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8: save it as UTF-8, or move it") from None
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    return text


def merge_pairs_card(folder: Path, card: str) -> str:
    """Bring a fresh card into the README of a folder; one line says where it goes against the settings.

    The list of files is the card's own; the rest is merged as for every card.

    Args:
        folder: `output_dir`.
        card: the new one.

    Raises:
        ValueError: as `read_readme`.
    """
    there = read_readme(folder)
    if there is None or not there.strip():
        return card
    metadata, body = split_card(there)
    kept = {key: value for key, value in metadata.items() if key not in _OWNED}
    head = f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n" if kept else ""
    merged = merge_card(head + body, card)
    if kept_own := [name for name in overruled(card, merged) if name in _SAID]:
        told = "%s keeps its own %s, not what the settings say: edit it there"
        logger.warning(told, folder / "README.md", " and ".join(kept_own))
    return merged
