"""Train, dev and test examples of a fine-tuned task: from published files, `datasets` columns, or a split by hash.

Published splits are kept. Where there is none, or it is asked for, a hash of each example's key divides 7:1:2, as
E-BERT does: examples with one key (the same title, the same product, the same review) never stand on two sides.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, load_dataset, load_from_disk

from rexbert_hf.catalog.class_labels import named_classes, with_names
from rexbert_hf.catalog.dataset_errors import DATASET_ERRORS, reason_of
from rexbert_hf.catalog.split import text_digests
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task import DataMissing, content_hash
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.hub.trouble import read_hub

logger = logging.getLogger(__name__)

SHARES = (0.7, 0.1, 0.2)
"""Train, dev and test in E-BERT."""

NO_TEST = (0.9, 0.1, 0.0)
"""Where the test split is published and the dev split is not."""


class Example(NamedTuple):
    """One example of a task.

    Attributes:
        row: what the model reads and learns.
        gold: what the metric compares predictions with, plain values.
        key: examples of one key stand in one split when the hash decides.
    """

    row: Row
    gold: Any
    key: str


@dataclass(frozen=True)
class TaskData:
    """The examples of a task.

    Args:
        train: to learn from.
        dev: to choose hyper-parameters by.
        test: to measure on.
        labels: classes or tags that exist, in the order of their numbers; none for answers in a context.
        counts: what was left out, by reason.
        notes: what a reader of the figures must know.
    """

    train: list[Example]
    dev: list[Example]
    test: list[Example]
    labels: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def named(self) -> dict[str, list[Example]]:
        """The splits by name."""
        return {"train": self.train, "dev": self.dev, "test": self.test}

    def resplit(self) -> TaskData:
        """All examples, divided 7:1:2 by the hash of their keys."""
        parts = hash_split([*self.train, *self.dev, *self.test])
        return replace(self, train=parts[0], dev=parts[1], test=parts[2], notes=(*self.notes, "split 7:1:2 by hash"))

    def capped(self, train: int, dev: int, test: int) -> TaskData:
        """At most so many examples of each split, drawn by hash, in the order that they had."""
        parts = [
            drawn(part, cap) for part, cap in zip((self.train, self.dev, self.test), (train, dev, test), strict=True)
        ]
        return replace(self, train=parts[0], dev=parts[1], test=parts[2])

    def fingerprint(self) -> str:
        """Hash of all examples and labels."""
        splits = [[[*row[:3], gold] for row, gold, _ in part] for part in self.named().values()]
        return content_hash(splits, list(self.labels))


Parts = tuple[list[Example], list[Example], list[Example]]
"""Train, dev and test."""


def hash_split(examples: Sequence[Example], shares: Sequence[float] = SHARES) -> Parts:
    """Divide examples by the hash of their keys; the order within a split stays.

    Args:
        examples: all.
        shares: of train, dev and test.

    Example:
        >>> examples = [Example(Row(str(i), label="a"), "a", str(i // 2)) for i in range(2000)]
        >>> [round(len(part) / 2000, 1) for part in hash_split(examples)]
        [0.7, 0.1, 0.2]
    """
    if not examples:
        return [], [], []
    # As in catalog/split.py: test takes the low end, dev the high one.
    position = (text_digests(one.key for one in examples)[:, 0] >> np.uint64(11)) / float(1 << 53)
    side = np.where(position < shares[2], 2, np.where(position >= shares[2] + shares[0], 1, 0))
    train, dev, test = ([examples[i] for i in np.flatnonzero(side == part).tolist()] for part in range(3))
    return train, dev, test


def drawn(examples: Sequence[Example], most: int) -> list[Example]:
    """At most `most` examples, the same ones in every run, in the order that they had.

    Args:
        examples: of one split.
        most: how many.
    """
    if len(examples) <= most:
        return list(examples)
    digests = text_digests(f"{one.key}\n{one.row.text}\n{one.row.pair}" for one in examples)
    chosen = np.lexsort((digests[:, 0], digests[:, 1]))[:most]  # not by the column that split them
    return [examples[i] for i in np.sort(chosen).tolist()]


_SPLITS = {"train": "train", "validation": "dev", "valid": "dev", "dev": "dev", "test": "test"}
_HUB_NAME = re.compile(r"(?P<name>[^:@]+)(?::(?P<config>[^@]+))?(?:@(?P<revision>.+))?")


def dataset_examples(
    name: str,
    read: Callable[[Mapping[str, Any], str], Example],
    splits: Mapping[str, str] | None = None,
    keyed: Callable[[list[Example]], list[Example]] = list,
) -> dict[str, list[Example]]:
    """Examples of a `datasets` dataset, by split.

    Without a test split everything is divided 7:1:2 by hash; without a dev split a tenth of train becomes it.

    Args:
        name: a Hub name (`name`, `name:config`, `name@revision`), a folder of files, or one of `save_to_disk`.
        read: makes an example of a row; class numbers come as names, those of no class (-1) as None.
        splits: which of its splits is train, dev or test; others are not read. By default their usual names.
        keyed: gives the examples that are divided keys that need all of them.

    Raises:
        DataMissing: if it cannot be loaded.
        ValueError: of `read` or `keyed`, or if one of these splits is there and has no row.
    """
    parts: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    names = _SPLITS if splits is None else splits
    # A cache of its own: that of `datasets` knows a local file by its time alone, and a changed file may keep its time.
    with temporary_folder() as cache_dir:
        loaded = _loaded(name, cache_dir)
        for split, dataset in loaded.items():
            if split in names and not len(dataset):
                raise ValueError(f"{name}: the {split} split is empty: give it rows, or leave it out")
            if split in names:
                _, classes = named_classes(dataset.features)
                rows = enumerate(with_names(row, classes) for row in dataset)
                parts[names[split]] += [read(row, f"{name} {split} row {number}") for number, row in rows]
    unread = ", ".join(split for split in loaded if split not in names)
    if unread and any(parts.values()) and not parts["test"]:
        logger.warning("%s: it has no test split, so its rows are divided by hash; %s is not read", name, unread)
    if not parts["test"]:
        parts["train"], parts["dev"], parts["test"] = hash_split(keyed([*parts["train"], *parts["dev"]]))
    elif not parts["dev"]:
        try:
            rows_to_divide = keyed(parts["train"])
        except ValueError as reason:  # nothing of it reaches the test split: only the choice of an epoch is kinder
            logger.warning("%s: its validation rows are like some of training (%s)", name, reason)
            rows_to_divide = parts["train"]
        parts["train"], parts["dev"], _ = hash_split(rows_to_divide, NO_TEST)
    return parts


def _loaded(name: str, cache_dir: str) -> Mapping[str, Dataset]:
    try:
        if Path(name).is_file():
            raise ValueError("it is a file: give its folder")
        if (Path(name) / "dataset_dict.json").exists() or (Path(name) / "dataset_info.json").exists():
            found = _saved(name)
        elif Path(name).exists():
            found = load_dataset(name, cache_dir=cache_dir)
        else:
            match = _HUB_NAME.fullmatch(name)
            if match is None:
                raise ValueError("no name")
            names = match["name"], match["config"]
            found = read_hub(lambda: load_dataset(*names, revision=match["revision"]), name)
    except DATASET_ERRORS as error:
        raise DataMissing(f"the dataset {name} cannot be loaded ({reason_of(error)})") from error
    return found if isinstance(found, DatasetDict) else {"train": found}


def _saved(name: str) -> Any:
    try:
        return load_from_disk(name)
    except IndexError:  # what `datasets` raises for a split that was saved without a row
        raise ValueError("one of its splits is empty: give it rows, or leave it out") from None
