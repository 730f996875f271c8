"""Product matching: do two offers show the same product? On published pairs, and on pairs made from clusters."""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from datasets import Features, Value

from rexbert_hf.catalog import ReadReport, load_sample, read_records
from rexbert_hf.catalog.escapes import listed
from rexbert_hf.catalog.split import normalize_text
from rexbert_hf.catalog.whole_files import csv_rows, text_of
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.matching_pairs import Offer, make_pairs
from rexbert_hf.evaluation.robustness import perturb
from rexbert_hf.evaluation.task import DataMissing, TaskOptions, TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData, hash_split
from rexbert_hf.evaluation.tuned_task import TunedTask, rare_brand_slice
from rexbert_hf.metrics.binary import accuracy_of_sums, binary_counts, f1_of_sums

CLASSES = ("different", "same")
_ESCAPES = re.compile(r"(?:\\x[0-9a-f]{2})+")
_COLUMN = re.compile(r"COL \S+ VAL ")


class ProductMatching(TunedTask):
    """Product matching on the WDC products benchmark, all four categories: F1 of the matching pairs.

    Protocol (Ditto, Li et al. 2020): a cross-encoder over the two titles with a linear head, the published train,
    validation and gold test pairs of computers, cameras, shoes and watches together; validation chooses the epoch and
    the odds from which a pair is a match.
    Published F1 with the medium training sets of all categories: DeepMatcher .80, Ditto .89.
    Always saying "same" gives .42.

    `datasets` columns: left, right, label (0 or 1). Without a test split, chains of pairs that share titles are divided
    by hash, so that no title stands on two sides; where one chain holds most pairs, that is refused.
    """

    name, title, paper = "product_matching", "Product matching (WDC)", "beyond"
    data = "WDC products: computers, cameras, shoes, watches"
    dataset_name = "any with the columns left, right, label"
    split = "published train (medium), validation and gold test pairs"
    metric = "f1"
    comparable = "yes, with Ditto's medium sets (full budget)"
    head = "match"
    max_length = 128
    folder = "wdc_products"
    caps = (1_000, 150, 600)
    small = Tuning((1e-4,), (3,), 16)
    full = Tuning((3e-5,), (5,), 32)
    slice_kinds = ("typos", "casing", "word_order", "units")
    categories: ClassVar[tuple[str, ...]] = ("computers", "cameras", "shoes", "watches")

    def read_folder(self, folder: Path) -> TaskData:
        """The published pairs."""
        parts: list[list[Example]] = [[], [], []]
        for category in self.categories:
            for part, name in zip(parts, ("train.txt.medium.gz", "valid.txt.medium.gz", "test.txt.gz"), strict=True):
                path = folder / category / name
                if not path.is_file():
                    raise DataMissing(f"{self.name}: no {category}/{name} in {folder}")
                pairs = list(wdc_pairs(path))
                if not pairs:
                    raise ValueError(f"{path}: no pair, the file is empty; fetch it again")
                part += pairs
        return TaskData(parts[0], parts[1], parts[2], CLASSES)

    def read_row(self, row: Mapping[str, Any], where: str) -> Example:
        """Make an example of a row with the columns left, right and label."""
        missing = [name for name in ("left", "right", "label") if name not in row]
        if missing:
            raise ValueError(f"{where}: no column '{missing[0]}', only {listed(row)}")
        return pair_example(row["left"], row["right"], row["label"], where)

    def read_sample(self) -> list[Example]:
        """Products of the sample shop beside their own words in another order, and beside their likes."""
        rows = load_sample("products")
        offers = [Offer(row["title"], row["product_id"], row["category_path"][-1]) for row in rows]
        changed = perturb([offer.title for offer in offers], "word_order")
        twins = [offer._replace(title=title) for offer, title in zip(offers, changed, strict=True)]
        return [pair_example(*pair, "sample shop") for pair in make_pairs([*offers, *twins])]

    def keyed(self, examples: list[Example]) -> list[Example]:
        """Pairs with the key of their chain; refuse to divide them where one chain holds more than half."""
        found = chained(examples)
        largest = max(Counter(one.key for one in found).values(), default=0)
        if 2 * largest > len(found):
            raise ValueError(
                f"{self.name}: {largest} of {len(found)} pairs are one chain of shared titles, which no split may "
                "divide: give the data splits of its own (train, validation, test)"
            )
        return found

    def resplit(self, data: TaskData, source: TaskSource) -> TaskData:
        """Refuse to divide published pairs: one offer stands in many, and chains of pairs join most offers."""
        if source.dataset is None and source.data_dir is None:
            return data  # the sample shop has no published splits
        raise ValueError(f"{self.name}: resplit would put pairs of one offer on two sides: leave it out")

    def labels_of(self, examples: Sequence[Example]) -> tuple[str, ...]:
        """Different, same."""
        return CLASSES

    def measure(
        self, examples: Sequence[Example], predictions: Sequence[Any], data: TaskData
    ) -> tuple[np.ndarray, dict[str, float]]:
        """Counts of the matches."""
        counts = binary_counts([one.gold for one in examples], predictions)
        sums = counts.sum(axis=0)
        figures = {"f1": float(f1_of_sums(sums)), "accuracy": float(accuracy_of_sums(sums))}
        shares = {"precision": (sums[0], sums[0] + sums[1]), "recall": (sums[0], sums[0] + sums[2])}
        return counts, {**figures, **{name: float(a / b) if b else 0.0 for name, (a, b) in shares.items()}}

    def config(self, options: TaskOptions) -> dict[str, Any]:
        """As for other tasks; the head by name, because its cut is part of the protocol."""
        return {**super().config(options), "head": self.head}

    def score_sums(self, sums: np.ndarray, n: np.ndarray | int) -> np.ndarray:
        """F1 of the matches."""
        return f1_of_sums(sums)

    def guess(self, examples: Sequence[Example], data: TaskData, rng: np.random.Generator) -> Sequence[Any]:
        """Matches at the share that they have among the training pairs."""
        gold = [one.gold for one in data.train]
        return [gold[i] for i in rng.integers(0, len(gold), len(examples))]

    def perturbed(self, example: Example, kind: str) -> Example:
        """Both titles changed."""
        left, right = perturb([str(example.row.text), str(example.row.pair)], kind)
        return example._replace(row=example.row._replace(text=left, pair=right))

    def subsets(self, data: TaskData) -> dict[str, list[int]]:
        """Pairs whose left title names a rare brand."""
        return rare_brand_slice(data)


def pair_example(left: Any, right: Any, label: Any, where: str) -> Example:
    """One pair of offers.

    Args:
        left: a title.
        right: another.
        label: 0, 1, or one of `CLASSES`.
        where: file and row.

    Raises:
        ValueError: if the label is something else, or a title is empty or no text.

    Example:
        >>> pair_example("red mug", "mug, red", 1, "row 0").row.label
        'same'
    """
    name = CLASSES[int(label)] if str(label) in ("0", "1") else str(label)
    if name not in CLASSES:
        raise ValueError(f"{where}: the label {label!r} is outside the set (0, 1)")
    if not all(isinstance(title, str) and title.strip() for title in (left, right)):
        raise ValueError(f"{where}: both titles must be texts that are not empty")
    return Example(Row(left, right, name, where), CLASSES.index(name), left)


def chained(examples: Sequence[Example]) -> list[Example]:
    """Pairs, the key of each the first title of all that chains of pairs join it with.

    By the hash of one title a pair would stand on one side and its mirror image, or another pair of one of its offers,
    on the other.

    Args:
        examples: pairs.

    Example:
        >>> pairs = [("pan", "mug", 0), ("lamp", "Lamp 2", 1), ("mug", "cup", 1)]
        >>> [one.key for one in chained([pair_example(*pair, "") for pair in pairs])]
        ['cup', 'lamp', 'cup']
    """
    above: dict[str, str] = {}

    def first(title: str) -> str:
        while (one := above.setdefault(title, title)) != title:
            above[title] = above[one]
            title = above[title]
        return title

    ends = [(normalize_text(str(one.row.text)), normalize_text(str(one.row.pair))) for one in examples]
    for pair in ends:
        low, high = sorted(map(first, pair))
        above[high] = low
    return [one._replace(key=first(left)) for one, (left, _) in zip(examples, ends, strict=True)]


def wdc_pairs(path: Path) -> Iterator[Example]:
    """Pairs of a file of the WDC benchmark, in the form that Ditto reads.

    Args:
        path: gzip of lines "COL title VAL ...", twice, and 0 or 1, separated by tabs.

    Raises:
        ValueError: if a line has another form, or the file cannot be unpacked.
    """
    for number, line in enumerate(io.StringIO(text_of(path), newline=None), start=1):
        fields = line.rstrip("\n").split("\t")
        if len(fields) != 3:
            raise ValueError(f"{path}, line {number}: {len(fields)} fields where two offers and a label are wanted")
        left, right = (" ".join(_COLUMN.sub(" ", field).split()) for field in fields[:2])
        yield pair_example(left, right, fields[2], f"{path}, line {number}")


class ClusterMatching(ProductMatching):
    """Product matching on offers that are clustered by product; the pairs are made here."""

    split = "7:1:2 by hash of the cluster; pairs within a split, negatives of like titles"
    comparable = "no: the pairs are ours"

    def resplit(self, data: TaskData, source: TaskSource) -> TaskData:
        """Offers are divided by the hash of their cluster already."""
        return data if source.dataset is None else super().resplit(data, source)

    def of_offers(self, offers: Sequence[Offer]) -> TaskData:
        """Split by cluster, then make pairs.

        Args:
            offers: all.
        """
        keyed = [Example(Row(one.title), list(one), one.cluster) for one in offers]
        parts = []
        for part in hash_split(keyed):
            pairs = make_pairs([Offer(*one.gold) for one in part])
            parts.append([pair_example(*pair, self.name) for pair in pairs])
        return TaskData(parts[0], parts[1], parts[2], CLASSES)


class PriceRunnerMatching(ClusterMatching):
    """Product matching on PriceRunner's offers of ten categories: F1 of the matching pairs.

    One positive pair a cluster, and for it three negatives: the offers of other products of the category whose titles
    share most with it. Clusters are split 7:1:2 by hash. The pairs are ours, so no published figure compares.
    """

    name, title, data = "offer_matching_pricerunner", "Offer matching (PriceRunner)", "PriceRunner aggregate (UCI)"
    folder = "pricerunner"
    max_length = 64

    def read_folder(self, folder: Path) -> TaskData:
        """Offers with their clusters: id, title, merchant, cluster, its label, category id, category; no header."""
        path = folder / "pricerunner_aggregate.csv.gz"
        if not path.is_file():
            raise DataMissing(f"{self.name}: no {path.name} in {folder}")
        offers = []
        for number, row in csv_rows(io.StringIO(text_of(path), newline=""), path):
            if len(row) != 7:
                raise ValueError(f"{path}, line {number}: {len(row)} fields where 7 are wanted")
            if not row[1].strip() or not row[3].strip():
                raise ValueError(f"{path}, line {number}: the title or the cluster is empty")
            offers.append(Offer(row[1], row[3], row[5]))
        return self.of_offers(offers)


class ShopeeMatching(ClusterMatching):
    """Product matching on Indonesian and English listings of Shopee: F1 of the matching pairs, titles alone.

    Pairs as for PriceRunner, from the published groups. The competition searched with images too, so no published
    figure compares.
    """

    name, title, data = "offer_matching_shopee", "Offer matching (Shopee)", "Shopee price match guarantee"
    folder = "shopee"
    max_length = 96

    def read_folder(self, folder: Path) -> TaskData:
        """Listings with their groups; 671 titles hold bytes written as escapes, which become characters."""
        path = folder / "train.csv.zip"
        if not path.is_file():
            raise DataMissing(f"{self.name}: no train.csv.zip in {folder}")
        columns = {"title": "title", "group": "label_group"}
        report, kinds = ReadReport(), Features(dict.fromkeys(columns, Value("string")))
        rows = read_records(str(path), columns, features=kinds, report=report)
        offers = []
        for number, row in enumerate(rows):
            title = unescaped(row["title"] or "")
            if not title.strip() or not row["group"]:
                raise ValueError(f"{path}, row {number}: the title or the label_group is empty")
            offers.append(Offer(title, row["group"]))
        counts = {"left_out": report.bad} if report.bad else {}
        return replace(self.of_offers(offers), counts=counts)


def unescaped(text: str) -> str:
    r"""Characters in place of their bytes written as `\xNN`.

    Args:
        text: any; other text stays as it is.

    Example:
        >>> unescaped(r"Nescafe \xc3\x89clair 220ml") == "Nescafe \u00c9clair 220ml"
        True
    """
    return _ESCAPES.sub(lambda match: bytes.fromhex(match[0].replace("\\x", "")).decode("utf-8", "replace"), text)
