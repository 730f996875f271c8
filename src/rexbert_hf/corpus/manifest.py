"""What a built corpus' folder holds: `corpus.json`, the list of its domains, splits and files, and what made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexbert_hf.hub.manifest_names import stays_inside

MANIFEST = "corpus.json"
ALL = "default"
"""The configuration of all domains."""
SAMPLE = "sample"
"""The configuration of the built-in sample web."""
RESERVED = (ALL, SAMPLE)


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished corpus in a folder.

    Attributes:
        folder: where it lies.
        facts: the content of `corpus.json`.
    """

    folder: Path
    facts: dict[str, Any]

    @classmethod
    def read(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a corpus' folder, or of the output folder of `recipes/curate.py`.

        Raises:
            FileNotFoundError: if neither holds a finished corpus, or a file that it lists is gone.
            ValueError: if it lists a file that lies elsewhere, or is damaged.
        """
        for place in (Path(folder), Path(folder) / "corpus"):
            facts = read_json(place / MANIFEST)
            if facts is not None and "domains" in facts:
                manifest = cls(place, facts)
                manifest.check()
                return manifest
        raise FileNotFoundError(f"{folder} holds no finished corpus (no {MANIFEST}): run the build stage to its end")

    @property
    def domains(self) -> list[str]:
        """Names of the domains' folders, sorted."""
        return sorted(self.facts["domains"])

    @property
    def splits(self) -> list[str]:
        """Splits that some domain has."""
        found = {split for domain in self.facts["domains"].values() for split in domain["splits"]}
        return [split for split in ("train", "validation", "test") if split in found]

    def files(self, split: str, domains: list[str] | None = None) -> list[Path]:
        """Files of a split, domain after domain.

        Args:
            split: its name; one that no domain has gives no file.
            domains: None for all.
        """
        chosen = self.domains if domains is None else domains
        parts = [(name, self.facts["domains"][name]["splits"].get(split, {})) for name in chosen]
        return [self.folder / name / file for name, part in parts for file in part.get("files", ())]

    def check(self) -> None:
        """Look for all files.

        Raises:
            FileNotFoundError: for the first that is gone.
            ValueError: for the first that is none of the folder's.
        """
        path = self.folder / MANIFEST
        try:
            parts = [
                (name, part) for name, domain in self.facts["domains"].items() for part in domain["splits"].values()
            ]
            names = [(name, file) for name, part in parts for file in part.get("files", ())]
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{path} is damaged (no splits and files of domains): run the build stage again") from None
        if outside := [pair for pair in names if not all(map(stays_inside, pair))]:
            told = f"it lists {'/'.join(map(str, outside[0]))!r:.200}, which is no file of the folder"
            raise ValueError(f"{path} is damaged ({told}): run the build stage again")
        for split in self.splits:
            for path in self.files(split):
                if not path.is_file():
                    raise FileNotFoundError(f"{path} is gone, but {MANIFEST} lists it: run the build stage again")


def totals(domain: Mapping[str, Any]) -> dict[str, int]:
    """Documents, tokens and bytes of a domain's splits together.

    Example:
        >>> part = {"documents": 2, "tokens": 30, "bytes": 99}
        >>> totals({"splits": {"train": part, "test": part}})
        {'documents': 4, 'tokens': 60, 'bytes': 198}
    """
    return {key: sum(part[key] for part in domain["splits"].values()) for key in ("documents", "tokens", "bytes")}


def known_domains(wanted: list[str], there: list[str], name: str) -> list[str]:
    """The wanted domains, checked.

    Raises:
        ValueError: if one is not there; the message lists those that are.
    """
    if unknown := [domain for domain in wanted if domain not in there]:
        raise ValueError(f"{name} has no domain '{unknown[0]}': it has {', '.join(there)}")
    return list(dict.fromkeys(wanted))


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None if there is none or it is something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
