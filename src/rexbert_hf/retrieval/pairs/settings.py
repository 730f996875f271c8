"""What `recipes/build_pairs.py` may be told: log, judgements, products, the ratio, rules, the audit, splits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset, Features, Value
from huggingface_hub.utils import validate_repo_id

from rexbert_hf.catalog import RECORDS, load_sample, read_records, record_types
from rexbert_hf.catalog.sources import FileOptions, find_sources
from rexbert_hf.retrieval.pairs.draw import Ratio
from rexbert_hf.retrieval.pairs.graded import Grades
from rexbert_hf.retrieval.pairs.query_split import QuerySplit
from rexbert_hf.retrieval.pairs.weak import RELEVANT_SHARE, Rule
from rexbert_hf.retrieval.serving.filters import FILTER_COLUMNS
from rexbert_hf.settings.ranges import check_least, check_share
from rexbert_hf.settings.tree import Node


@dataclass
class RecordSource:
    """Records of one kind: of the sample shop, of files, or of a Hub data set; exactly one of `sample` and `path`.

    Attributes:
        sample: kind of the sample shop: events, query_products or products.
        sample_size: products of the sample shop.
        path: file, folder, glob or Hub data set; several are a list.
        columns: our column names and theirs, such as {query: search_term}; of products also those that a search may be
            filtered by, as price, and any under its own name ({colour: colour}).
        format: of files whose name does not say it.
        encoding: of text formats.
        delimiter: of CSV and TSV.
        split: of a Hub data set.
        limit: read at most so many rows.
    """

    sample: str | None = None
    sample_size: int | None = None
    path: str | list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    split: str = "train"
    limit: int | None = None

    def __post_init__(self) -> None:
        if (self.sample is None) == (self.path is None):
            raise ValueError("give either 'sample' or 'path'")
        FileOptions(self.format, self.encoding, self.delimiter)  # of these it says what is wrong
        check_least(self, sample_size=2, limit=1)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"sample {self.sample}" if self.sample else str(self.path)

    def files(self) -> list[Path]:
        """Files that are read, those of folders and globs too; none where reading will say what is wrong."""
        options = FileOptions(self.format, self.encoding, self.delimiter)
        with suppress(FileNotFoundError, ValueError):  # a Hub data set is no file either
            found = [] if self.path is None else find_sources(self.path, options)
            return [Path(one.name) for one in found if os.path.exists(one.name)]  # members of archives are not
        return []

    def read(self, kind: str, needed: Sequence[str], cache_dir: Path) -> Dataset:
        """Read the rows as records of a kind; they are mapped from disk, not held in memory.

        Args:
            kind: of `catalog.RECORDS`.
            needed: columns that must be there.
            cache_dir: where they are written.

        Raises:
            ValueError: if a needed column is missing.
        """
        if self.sample is not None:
            dataset = load_sample(self.sample, size=self.sample_size)
            dataset = dataset if self.limit is None else dataset.select(range(min(self.limit, len(dataset))))
        else:
            options: dict[str, Any] = {"format": self.format, "encoding": self.encoding, "delimiter": self.delimiter}
            if self.columns is None or (kind == "products" and _keeps_more(self.columns)):
                options["types"] = record_types(kind)  # the others stay as they are
            else:  # a time stays as it was written: `moment_of` reads what logs have
                time = {"time": Value("string")} if kind == "events" else {}
                options["features"] = Features({**RECORDS[kind], **time})
            dataset = read_records(
                self.path or "", self.columns, split=self.split, limit=self.limit, cache_dir=cache_dir, **options
            )
        missing = [name for name in needed if name not in dataset.column_names]
        if missing:
            raise ValueError(f"{self.name}: no column '{missing[0]}' for {kind}: map it with 'columns'")
        return dataset


def _keeps_more(columns: dict[str, str | list[str]]) -> bool:
    """Whether a mapping names columns beside those of a product; one that may be a slip of the pen is refused."""
    more = [ours for ours in columns if ours not in RECORDS["products"]]
    for ours in more:
        if ours not in FILTER_COLUMNS and columns[ours] != ours:
            known = ", ".join(dict.fromkeys((*RECORDS["products"], *FILTER_COLUMNS)))
            raise ValueError(f"column '{ours}' is not one of the record's: {known}; others keep their own name")
    return bool(more)


@dataclass
class SplitSettings:
    """How queries and time are split.

    Attributes:
        held_out: share of the queries that training never sees, half validation and half test.
        rule: "text" as all recipes, or "sha1_mod_10" (the published Home Depot split).
        train_until: ISO date; training takes events before it, validation and test later ones only.
    """

    held_out: float = 0.1
    rule: Literal["text", "sha1_mod_10"] = "text"
    train_until: str | None = None

    def __post_init__(self) -> None:
        self.resolved()

    def resolved(self) -> QuerySplit:
        """The split itself."""
        until = None
        if self.train_until is not None:
            try:
                until = datetime.fromisoformat(self.train_until)
            except ValueError:
                raise ValueError(f"train_until is an ISO date, as 2026-05-01; got {self.train_until!r}") from None
        return QuerySplit(self.held_out, self.rule, until)


@dataclass
class WeakSettings:
    """Rules for stage 2's pairs; a log only (judgements say themselves what is relevant).

    Attributes:
        relevant: a pair that matches any of these is relevant.
        irrelevant: another pair that matches any of these is irrelevant.
        irrelevant_share: irrelevant pairs kept, as a share of all; null keeps all.
    """

    relevant: list[Rule] = field(
        default_factory=lambda: [Rule(min_purchases=1), Rule(min_clicks=2, min_click_rate=0.3)]
    )
    irrelevant: list[Rule] = field(default_factory=lambda: [Rule(min_shown=3, untouched=True)])
    irrelevant_share: float | None = 0.2

    def __post_init__(self) -> None:
        if self.irrelevant_share is not None and not 0 <= self.irrelevant_share < 1:
            raise ValueError(f"irrelevant_share must be at least 0 and below 1; got {self.irrelevant_share}")


@dataclass
class AuditSettings:
    """Who judges a sample of the pairs that the rules call relevant.

    Attributes:
        size: pairs of the sample; 0 for no audit.
        judgements: graded pairs that judge them.
        csv: a person's file (audit_sample.csv, its column `relevant` filled in).
        least: warn when the estimated share is below this.
    """

    size: int = 300
    judgements: RecordSource | None = None
    csv: str | None = None
    least: float = RELEVANT_SHARE

    def __post_init__(self) -> None:
        if self.judgements is not None and self.csv is not None:
            raise ValueError("judgements and csv both judge the audit: give one")
        check_least(self, size=0)
        check_share(self, "least")


@dataclass
class CardSettings:
    """What the card says about the data; none of it is assumed.

    Attributes:
        license: of the pairs.
        language: of queries and products.
    """

    license: str | None = None
    language: str | None = None


_TYPED = "command line"


def _part(items: Any, name: str) -> dict[str, Node]:
    """A mapping below a mapping, empty where there is none."""
    value = items[name].value if isinstance(items, dict) and name in items else None
    return value if isinstance(value, dict) else {}


def _place(node: Node) -> str:
    """The file that a value was written in, or the command line."""
    return _TYPED if node.origin.startswith(_TYPED) else node.origin.rpartition(":")[0]


@dataclass
class BuildPairsRun:
    """Build training pairs from a click log or from graded judgements.

    Attributes:
        products: the catalogue.
        events: a click log.
        graded: judged pairs, in place of a log.
        output_dir: folder of the pairs, the products, the card and run.json.
        ratio: positives to hard negatives to random negatives.
        split: how queries and time are split.
        weak: rules for stage 2.
        grades: what a judgement means.
        audit: of the weakly labelled pairs.
        max_query_words: longer queries are left out.
        seed: of all draws.
        card: what the card says.
        push_to_hub: "user/name" of a data set.
        private: whether a new repository is private.
    """

    products: RecordSource
    events: RecordSource | None = None
    graded: RecordSource | None = None
    output_dir: Path = Path("output/pairs")
    ratio: str = "1:10:11"
    split: SplitSettings = field(default_factory=SplitSettings)
    weak: WeakSettings = field(default_factory=WeakSettings)
    grades: Grades = field(default_factory=Grades)
    audit: AuditSettings = field(default_factory=AuditSettings)
    max_query_words: int = 64
    seed: int = 0
    card: CardSettings = field(default_factory=CardSettings)
    push_to_hub: str | None = None
    private: bool | None = None

    @classmethod
    def arrange_tree(cls, root: Node) -> Node:
        """Lay a given path over the sample that another file names; the sample shop's judgements go with its log.

        Args:
            root: what was written.
        """
        audit, events = _part(root.value, "audit"), _part(root.value, "events")
        judges = _part(audit, "judgements")
        for source in (_part(root.value, "products"), events, _part(root.value, "graded"), judges):
            if {"path", "sample"} <= source.keys() and _place(source["path"]) != _place(source["sample"]):
                del source["path" if _place(source["sample"]) == _TYPED else "sample"]
        if "sample" not in events and "sample" in judges and _place(judges["sample"]) != _TYPED:
            del audit["judgements"]
        return root

    def __post_init__(self) -> None:
        if (self.events is None) == (self.graded is None):
            raise ValueError("give either 'events' (a click log) or 'graded' (judged pairs)")
        if self.graded is not None and self.split.train_until is not None:
            raise ValueError("split.train_until needs a log: judgements have no time")
        Ratio.parse(self.ratio)
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)
        check_least(self, max_query_words=1)
