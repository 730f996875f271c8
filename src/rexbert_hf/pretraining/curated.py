"""A curated corpus as a source: read by its name, with the split that it was built with.

What the corpus holds out is never trained on, whatever the recipe's own share; the recipe's share comes on top.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets

from rexbert_hf.corpus.loading import load_corpus
from rexbert_hf.corpus.manifest import SAMPLE, Manifest
from rexbert_hf.pretraining.source_settings import SourceSettings


def corpus_place(source: SourceSettings, data_dir: str | None) -> str:
    """Folder or name of a source's corpus; a folder below `data_dir` comes first.

    Args:
        source: one with a corpus.
        data_dir: relative folders start here.
    """
    name = os.path.expanduser(str(source.corpus))
    inside = os.path.join(data_dir, name) if data_dir else name
    return inside if os.path.isdir(inside) else name


def read_curated(
    source: SourceSettings, data_dir: str | None, work_dir: Path | None, split: str | None = None
) -> Dataset:
    """The documents of a source's corpus.

    Args:
        source: one with a corpus.
        data_dir: relative folders start here.
        work_dir: they are written there and mapped; None takes the cache of `datasets`.
        split: None for the source's.

    Raises:
        FileNotFoundError: if there is no such corpus.
        ValueError: if it lacks a domain, the split, or a `text` column.
    """
    cache = None if work_dir is None else str(work_dir / "corpus")
    dataset = load_corpus(corpus_place(source, data_dir), source.domains, split or source.split, cache_dir=cache)
    assert isinstance(dataset, Dataset)  # not streaming
    return dataset.select_columns(["text"])


def with_held_out(
    source: SourceSettings, data_dir: str | None, work_dir: Path | None, parts: DatasetDict
) -> DatasetDict:
    """Add the corpus' own validation documents to those that the recipe holds out.

    Args:
        source: one with a corpus.
        data_dir: relative folders start here.
        work_dir: as in `read_curated`.
        parts: the corpus' training documents, split.
    """
    try:
        held = read_curated(source, data_dir, work_dir, "validation")
    except ValueError:  # a corpus that holds nothing out
        return parts
    found = [part for part in (parts["validation"], held) if len(part)]
    return DatasetDict({**parts, "validation": concatenate_datasets(found)}) if found else parts


def curated_key(source: SourceSettings, data_dir: str | None) -> list[Any]:
    """What names a corpus' content without reading it: the key of the build, or the package's version for the sample.

    Args:
        source: one with a corpus.
        data_dir: relative folders start here.
    """
    place = corpus_place(source, data_dir)
    if os.path.isdir(place):
        return [Manifest.read(place).facts["key"]]
    return [importlib.metadata.version("rexbert-hf")] if place == SAMPLE else []
