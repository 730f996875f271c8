"""`load_corpus`: a corpus by the name of the sample, of a folder, or of a Hub repository, with a `text` column."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

import datasets

from ..catalog.dataset_errors import DATASET_ERRORS, reason_of
from ..catalog.escapes import listed
from ..catalog.split import SPLITS
from ..hub.trouble import read_hub
from .builder import EcomNiverse
from .manifest import ALL, SAMPLE, Manifest, known_domains

_HUB_NAME = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def load_corpus(
    name_or_path: str | os.PathLike[str],
    domains: str | Sequence[str] | None = None,
    split: str = "train",
    streaming: bool = False,
    *,
    cache_dir: str | None = None,
) -> datasets.Dataset | datasets.IterableDataset:
    """Load a curated corpus.

    Args:
        name_or_path: "sample" (shop pages of the built-in sample web), a folder that `recipes/curate.py` wrote, or
            "user/name" or "user/name@revision" on the Hub.
        domains: one or some of its domains; None for all.
        split: "train", "validation" or "test"; or what `datasets` understands, such as "train+validation".
        streaming: read as it is iterated over, with nothing copied to the cache.
        cache_dir: of `datasets`.

    Raises:
        FileNotFoundError: if there is no such corpus.
        ConnectionError: if the Hub cannot be reached.
        ValueError: if it lacks a domain, the split, or the `text` column; the message lists what there is.

    Example:
        >>> shop = load_corpus("sample", domains="fashion", streaming=True)
        >>> sorted(next(iter(shop)))
        ['domain', 'id', 'text', 'url']
    """
    name = os.fspath(name_or_path)
    wanted = [domains] if isinstance(domains, str) else None if domains is None else list(domains)
    if wanted == []:
        raise ValueError("domains is an empty list: name at least one, or None for all")
    options: dict[str, Any] = {"cache_dir": cache_dir}
    if name == SAMPLE or os.path.isdir(name):
        _check_split(split, list(SPLITS) if name == SAMPLE else _splits(name, wanted), name)
        if name == SAMPLE:
            builder = EcomNiverse(config_name=SAMPLE, domains=wanted, **options)
        else:
            builder = EcomNiverse(data_dir=Manifest.read(name).folder, domains=wanted, **options)
        if streaming:
            return builder.as_streaming_dataset(split=split)
        builder.download_and_prepare()
        return builder.as_dataset(split=split)
    found = _HUB_NAME.fullmatch(name)
    if found is None or os.path.exists(name):
        raise FileNotFoundError(f"{name}: no such corpus; give '{SAMPLE}', a folder of recipes/curate.py, or user/name")
    return _from_hub(found["name"], wanted, split, streaming, {**options, "revision": found["revision"]})


def _splits(folder: str, domains: list[str] | None) -> list[str]:
    manifest = Manifest.read(folder)
    chosen = None if domains is None else known_domains(domains, manifest.domains, folder)
    return [split for split in manifest.splits if manifest.files(split, chosen)]


def _check_split(split: str, there: Sequence[str], name: str) -> None:
    parts = [part.partition("[")[0].strip() for part in split.split("+")]
    if unknown := [part for part in parts if part not in there and part != "all"]:
        raise ValueError(f"{name} has no split '{unknown[0]}': it has {', '.join(there)}")


def _from_hub(
    name: str, domains: list[str] | None, split: str, streaming: bool, options: dict[str, Any]
) -> datasets.Dataset | datasets.IterableDataset:
    """Parquet through plain `load_dataset`: one configuration a domain, as `publish` pushes it."""

    def load() -> list[Any]:
        if domains is None:
            return [datasets.load_dataset(name, split=split, streaming=streaming, **options)]
        names = datasets.get_dataset_config_names(name, revision=options["revision"])
        there = [config for config in names if config != ALL]
        return [
            datasets.load_dataset(name, domain, split=split, streaming=streaming, **options)
            for domain in known_domains(domains, there, name)
        ]

    try:
        parts = read_hub(load, name)
    except DATASET_ERRORS as error:
        message = reason_of(error)
        if isinstance(error, ConnectionError):
            raise ConnectionError(f"{name}: the Hub cannot be reached ({message}); try again later") from error
        if message.startswith(name):  # says what there is
            raise
        if not isinstance(error, (OSError, ValueError)):
            raise ValueError(f"{name} cannot be read ({message}): publish it again, or name another one") from error
        if "split" in message.lower():
            raise ValueError(f"{name} has no split '{split}' ({message})") from error
        raise FileNotFoundError(f"{name}: no such corpus here or on the Hub ({message})") from error
    for part in parts:
        if part.column_names is not None and "text" not in part.column_names:
            raise ValueError(f"{name} has no column 'text': it has {listed(part.column_names)}")
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts)
