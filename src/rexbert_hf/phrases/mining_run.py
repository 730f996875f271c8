"""What `recipes/mine_phrases.py` does: read texts and known phrases, mine a pool, save and push it with its card.

Repeated texts are mined once (equal after `normalize_text`): an offer that stands in ten shops is one text.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import Dataset, Value

from rexbert_hf.catalog import load_sample, normalize_text, product_text, read_records
from rexbert_hf.catalog.mixed_sample import warn_of_sample
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.run_file import git_commit, hardware, versions
from rexbert_hf.phrases.mining import MiningOptions
from rexbert_hf.phrases.pool import PhrasePool, check_place
from rexbert_hf.phrases.pool_card import noun_phrase_overlap, top_phrases
from rexbert_hf.phrases.spool import make_work_dir
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least


@dataclass
class NameSource:
    """A list of known phrases: the built-in sample shop, files, or a Hub data set.

    Attributes:
        sample: kind of sample data; brands and categories are taken of `products`.
        path: file, folder, glob or Hub data set; several are a list.
        columns: our column names and theirs; `text` holds the names.
        pattern: regular expression; each match's first group (or the match) is a text, in place of the whole.
        format: of files whose name does not say it, such as text.
        encoding: of text formats.
        header: column names of a CSV or TSV that has no header line.
        limit: read at most so many rows.
    """

    sample: str | None = None
    path: str | list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    pattern: str | None = None
    format: str | None = None
    encoding: str = "utf-8"
    header: list[str] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if (self.sample is None) == (self.path is None):
            raise ValueError("give either 'sample' or 'path'")
        try:
            re.compile(self.pattern or "")
        except re.error as error:
            raise ValueError(f"pattern {self.pattern!r} is no regular expression: {error}") from None
        check_least(self, limit=1)

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"sample {self.sample}" if self.sample else str(self.path)

    def read(self, cache_dir: Path) -> Dataset:
        """Read the rows; they are mapped from disk, not held in memory.

        Args:
            cache_dir: where they are written.
        """
        if self.sample is not None:
            dataset = load_sample(self.sample)
            return dataset if self.limit is None else dataset.select(range(min(self.limit, len(dataset))))
        options: dict[str, Any] = {"format": self.format, "encoding": self.encoding, "header": self.header}
        return read_records(self.path or "", self.columns, limit=self.limit, cache_dir=cache_dir, **options)

    def texts_of(self, text: str) -> list[str]:
        """The text, or what `pattern` finds in it.

        Args:
            text: a row's.
        """
        if self.pattern is None:
            return [text]
        found = re.finditer(self.pattern, text)
        return [(match[1] or "") if match.re.groups else match[0] for match in found]


@dataclass
class TextSource(NameSource):
    """Texts to mine; all of `NameSource`, and categories.

    Attributes:
        category: of all texts of this source; else their column `category` counts, of a path its first level.
    """

    category: str | None = None


@dataclass
class CardSettings:
    """What the card says about the text; none of it is assumed.

    Attributes:
        license: of the pool.
        language: of the text.
        noun_phrase_texts: texts of a category read for the overlap with ordinary noun phrases; 0 leaves it out.
    """

    license: str | None = None
    language: str | None = None
    noun_phrase_texts: int = 5000

    def __post_init__(self) -> None:
        check_least(self, noun_phrase_texts=0)


@dataclass
class MineRun:
    """Mine a phrase pool.

    Attributes:
        texts: what is mined.
        positives: lists of known phrases, such as categories and brands; name your own with texts of your own.
        output_dir: folder of the pool, its card and `run.json`.
        mining: how to mine.
        max_size: most phrases kept.
        deduplicate: mine repeated texts once; takes some 60 bytes a text.
        card: what the card says.
        push_to_hub: "user/name" of a data set.
        private: whether a new repository is private.
    """

    texts: list[TextSource]
    positives: list[NameSource]
    output_dir: Path = Path("output/phrases")
    mining: MiningOptions = field(default_factory=MiningOptions)
    max_size: int | None = None
    deduplicate: bool = True
    card: CardSettings = field(default_factory=CardSettings)
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        check_least(self, max_size=1)


class MinedTexts:
    """All texts of a run with their categories, each once, as often as they are walked over.

    Args:
        run: the settings.
        cache_dir: where rows are kept while the run lasts.

    Attributes:
        dropped: repeated texts left out in the last walk.

    Raises:
        ValueError: if a source has no `text` column, or one of another type than text.
    """

    def __init__(self, run: MineRun, cache_dir: Path) -> None:
        self.sources = [(source, source.read(cache_dir)) for source in run.texts]
        self.deduplicate = run.deduplicate
        self.dropped = 0
        for source, dataset in self.sources:
            if source.sample != "products":
                _check_text(source, dataset)

    def __iter__(self) -> Iterator[dict[str, str | None]]:
        seen: set[bytes] = set()
        self.dropped = 0
        for source, dataset in self.sources:
            for row in _rows(dataset):
                whole = product_text(row) if source.sample == "products" else row["text"]
                category = source.category or _first_level(row.get("category") or row.get("category_path"))
                for text in source.texts_of(whole) if whole else ():
                    if self.deduplicate:
                        digest = hashlib.sha1(normalize_text(text).encode("utf-8", "surrogatepass")).digest()[:8]
                        if digest in seen:
                            self.dropped += 1
                            continue
                        seen.add(digest)
                    yield {"text": text, "category": category}


def _check_text(source: NameSource, dataset: Dataset) -> None:
    if "text" not in dataset.column_names:
        raise ValueError(f"no 'text' column in {source.name}: map one with 'columns'")
    if dataset.features["text"] != Value("string"):
        kind = dataset.features.arrow_schema.field("text").type
        raise ValueError(
            f"{source.name}: the column 'text' is of type {kind}, not text: map one of text with 'columns'"
        )


def _rows(dataset: Dataset) -> Iterator[Mapping[str, Any]]:
    for batch in dataset.iter(batch_size=1000):
        columns = list(batch)
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(columns, values, strict=True))


def _first_level(category: Any) -> str | None:
    if isinstance(category, list):
        category = category[0] if category else None
    return re.split(r"\s*[>|]\s*", category)[0] or None if isinstance(category, str) else None


def read_positives(run: MineRun, cache_dir: Path) -> list[str]:
    """All names that hold known phrases.

    Args:
        run: the settings.
        cache_dir: where rows are kept while the run lasts.

    Raises:
        ValueError: if a source has no `text` column, one of another type than text, or holds no name.
    """
    names: list[str] = []
    for source in run.positives:
        dataset, before = source.read(cache_dir), len(names)
        if source.sample == "products":
            for row in _rows(dataset):
                names += [*(row["category_path"] or []), *([row["brand"]] if row["brand"] else [])]
        else:
            _check_text(source, dataset)
            names += [name for row in _rows(dataset) if row["text"] for name in source.texts_of(row["text"])]
        if len(names) == before:
            raise ValueError(f"{source.name} holds no name: check its columns and pattern")
    return names


@sole_run(".rows-*", "data/.pool.partial")
def run_mining(run: MineRun) -> tuple[PhrasePool, dict[str, Any]]:
    """Mine, save and push as the settings say; the pool, and what was measured.

    Args:
        run: the settings.

    Raises:
        FileExistsError: if `data` of the output folder holds Parquet files that are no pool's.
        ValueError: if a source has no text to mine, or no phrase is found; if the folder holds another run or a model.
        OSError: if a folder cannot be written.
    """
    begun = time.perf_counter()
    check_own_folder(run.output_dir, "positives")
    check_place(run.output_dir)
    if run.mining.work_dir is not None:
        make_work_dir(run.mining.work_dir)
    if any(source.path is not None for source in run.texts) and all(source.sample for source in run.positives):
        way_out = "set --positives to your own categories and brands, which teach what a phrase is"
        warn_of_sample("positives", "texts", way_out)
    run.output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=run.output_dir, prefix=".rows-") as folder:
        cache = Path(folder)
        texts = MinedTexts(run, cache)
        names = read_positives(run, cache)
        options = to_dict(run.mining)
        pool = PhrasePool.mine(texts, names, **{**options, "work_dir": options["work_dir"] or cache})
        results: dict[str, Any] = {**pool.facts, "repeated_texts": texts.dropped}
        pool = pool.filter(max_size=run.max_size)
        overlap = None
        if run.card.noun_phrase_texts:
            overlap = noun_phrase_overlap(pool, texts, run.card.noun_phrase_texts)
            results["noun_phrase_overlap"] = overlap.as_dict()
    results |= {"pool_size": len(pool), "fingerprint": pool.fingerprint, "top_phrases": top_phrases(pool)}
    about: dict[str, Any] = {key: value for key in ("license", "language") if (value := getattr(run.card, key))}
    about |= {"cost": f"{time.perf_counter() - begun:,.0f} s; {hardware()}", "config": to_dict(run)}
    about |= {"sources": [{"name": source.name} for source in run.texts]}
    about |= {"git_commit": git_commit(), "versions": versions(), "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    pool.save(run.output_dir, overlap, **about)
    write_run(run.output_dir, config=to_dict(run), results=results)  # before the push: hours of mining are done
    if run.push_to_hub:
        results["url"] = pool.push_to_hub(run.push_to_hub, private=run.private, overlap=overlap, **about)
        write_run(run.output_dir, config=to_dict(run), results=results)
    return pool, results
