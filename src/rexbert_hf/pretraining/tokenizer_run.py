"""Making a tokenizer: trained on the texts of all languages with a temperature, or one of the Hub; and what it costs.

What it costs is said by language, on held-out text: a tokenizer that spells a language out letter by letter makes its
documents long and its masked tokens easy, and no loss will show it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from rexbert_hf.catalog import PRODUCT, load_sample, read_records, split_of
from rexbert_hf.catalog.mixed_sample import warn_of_sample
from rexbert_hf.data.languages import UNKNOWN, balanced_texts, fertility
from rexbert_hf.data.vocabulary import bytes_per_token, surface_counts, train_tokenizer, with_placeholders
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.take_place import take_place
from rexbert_hf.phrases import LexiconGuide, RegexGuide
from rexbert_hf.pretraining.encoder import open_tokenizer
from rexbert_hf.pretraining.languages import split_languages
from rexbert_hf.pretraining.source_settings import SourceSettings
from rexbert_hf.pretraining.sources import read_source, texts_of
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least, check_vocab_size

Texts = dict[str, list[str]]
"""Texts by language."""

STAGING = ".tokenizer-"
"""Beginning of the name of the folder that a tokenizer is written in.

It stays until `run.json` is there, through any number of kills: a tokenizer beside it is this recipe's.
"""

logger = logging.getLogger(__name__)


@dataclass
class TextSource:
    """Where records come from: the built-in sample shop, or files and Hub data sets.

    Attributes:
        sample: kind of sample data, such as shop_text or products.
        path: file, folder, glob or Hub data set; several are a list.
        columns: our column names and theirs, such as "text" and a list of their columns to join; "language" where rows
            say theirs.
        language: of all its texts, a code as en; or detect.
        unescape: texts hold characters as escapes that are to be read as such.
        limit: read at most so many rows.
    """

    sample: str | None = None
    path: str | list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    language: str | None = None
    unescape: bool = False
    limit: int | None = None

    def __post_init__(self) -> None:
        check_least(self, limit=1)
        if (self.sample is None) == (self.path is None):
            raise ValueError("give either 'sample' or 'path'")
        self.source()

    def source(self) -> SourceSettings:
        """The same, as a source of a pre-training recipe."""
        return SourceSettings(
            sample=self.sample,
            path=self.path,
            columns=self.columns,
            language=self.language,
            unescape=self.unescape,
            max_documents=self.limit,
        )

    def load_products(self) -> Any:
        """Read a catalogue as a data set; of columns that nobody mapped it needs those that atoms are made of."""
        if self.sample is not None:
            dataset = load_sample(self.sample)
            return dataset if self.limit is None else dataset.select(range(min(self.limit, len(dataset))))
        needed = ["brand", "category_path"] if self.columns is None else None
        return read_records(self.path or "", self.columns, features=PRODUCT, required=needed, limit=self.limit)


@dataclass
class Atoms:
    """Words that are always one token.

    Attributes:
        max_brands: most brands taken, the most frequent ones in the texts.
        max_types: most product types taken.
        min_count: a brand or type is taken from this many occurrences in the texts on.
        brands: further brands, taken whatever the texts hold.
        types: further product types.
    """

    max_brands: int = 15_000
    max_types: int = 5_000
    min_count: int = 5
    brands: list[str] = field(default_factory=list)
    types: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_least(self, max_brands=0, max_types=0, min_count=0)


@dataclass
class TokenizerRun:
    """Make a tokenizer and measure it.

    Attributes:
        texts: sources with a text column.
        temperature: so much text of each language as its characters to this power (1: as they are; 0: all equal); None
            takes the sources one after the other, as they are.
        path: take this tokenizer (folder or Hub id, as xlm-roberta-base) in place of training one.
        products: source of brands and product types; none for no atoms.
        output_dir: folder of the tokenizer.
        vocab_size: entries in all, a multiple of 64; 50368 gives ModernBERT's special ids.
        atoms: words that are always one token.
        class_tokens: add <PRICE>, <PERCENT>, <SIZE>, <DIMENSION>, <MODEL> and <SKU>.
        placeholders: train on texts in which those classes are replaced by their tokens.
        split_digits: make each digit a token.
        min_frequency: rarer pairs are not merged.
        model_max_length: longest input of the model, in tokens.
        held_out_documents: held-out documents that are measured, of each language.
    """

    texts: list[TextSource]
    temperature: float | None = None
    path: str | None = None
    products: TextSource | None = None
    output_dir: Path = Path("output/tokenizer")
    vocab_size: int = 50_368
    atoms: Atoms = field(default_factory=Atoms)
    class_tokens: bool = False
    placeholders: bool = False
    split_digits: bool = False
    min_frequency: int = 2
    model_max_length: int = 8192
    held_out_documents: int = 5000

    def __post_init__(self) -> None:
        if self.placeholders and not self.class_tokens:
            raise ValueError("placeholders need class_tokens: true")
        if self.temperature is not None and self.temperature < 0:
            raise ValueError(f"temperature must be at least 0; got {self.temperature:g}")
        if self.path is not None and (self.class_tokens or self.split_digits or self.products is not None):
            raise ValueError("path takes a tokenizer as it is: drop class_tokens, split_digits and products")
        if self.path is None:
            check_vocab_size(self.vocab_size)
        check_least(self, temperature=0, min_frequency=0, model_max_length=8, held_out_documents=1)


@sole_run()
def make_tokenizer(run: TokenizerRun) -> dict[str, Any]:
    """Train a tokenizer, or take one, save it, and measure it beside a plain one of the same size.

    Args:
        run: what is wanted.

    Returns:
        The `results` of `run.json`; `languages` holds tokens by character, byte and word, by language.

    Raises:
        ValueError: if a source has no text, a language none to train on, none is held out of any, or the tokenizer has
            no mask token, or the folder holds another run or a model.
        FileNotFoundError: if a path does not exist.
    """
    check_own_folder(run.output_dir, "vocab_size", makes_model=any(run.output_dir.glob(f"{STAGING}*")))
    started = time.perf_counter()
    if any(source.path is not None for source in run.texts) and run.products is not None and run.products.sample:
        way_out = "set --products to your own catalogue, or --products null for no brands and types as tokens"
        warn_of_sample("brands and types", "texts", way_out)
    train, held_out = read_texts(run)
    options: dict[str, Any] = {"min_frequency": run.min_frequency, "model_max_length": run.model_max_length}
    brands: list[str] = []
    types: list[str] = []
    plain: Any = None
    if run.path is not None:
        tokenizer: Any = open_tokenizer(run.path)
    else:
        brands, types = find_atoms(run, [*chain(*train.values())])
        texts = _mixed(train, run.temperature)
        seen = with_placeholders(texts, RegexGuide()) if run.placeholders else texts
        tokenizer = train_tokenizer(
            seen, run.vocab_size, [*brands, *types], run.class_tokens, run.split_digits, **options
        )  # fmt: skip
        if brands or types or run.class_tokens or run.split_digits:
            plain = train_tokenizer(_mixed(train, run.temperature), run.vocab_size, **options)
    measured = {code: texts[: run.held_out_documents] for code, texts in held_out.items()}
    everything = [*chain(*measured.values())]
    results = {
        "vocab_size": len(tokenizer),
        "brands": len(brands),
        "types": len(types),
        "train_documents": sum(map(len, train.values())),
        "held_out_documents": len(everything),
        "bytes_per_token": bytes_per_token(tokenizer, everything),
        "bytes_per_token_plain": bytes_per_token(plain or tokenizer, everything),
        "languages": {
            code: {"train_documents": len(train[code]), **fertility(tokenizer, texts)}
            for code, texts in sorted(measured.items())
        },
        "seconds": time.perf_counter() - started,
    }
    take_place(_saved(tokenizer, run.output_dir), run.output_dir)
    write_run(run.output_dir, config=to_dict(run), results=results)
    for left in run.output_dir.glob(f"{STAGING}*"):
        shutil.rmtree(left)
    return results


def _saved(tokenizer: Any, output: Path) -> Path:
    """A folder in `output` with the files of a tokenizer; of what a stopped run left there the folder itself stays."""
    staged = output / f"{STAGING}staged"
    new = not staged.exists()
    staged.mkdir(parents=True, exist_ok=True)
    for left in staged.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    try:
        tokenizer.save_pretrained(staged)
    except Exception:  # such as a full disk
        if new:
            shutil.rmtree(staged)
        raise
    return staged


def read_texts(run: TokenizerRun) -> tuple[Texts, Texts]:
    """All texts by language, those to train on and the held-out ones; sources that say no language count as "und".

    Args:
        run: names the sources.

    Raises:
        ValueError: if a source has no text, a language none to train on, or none is held out of any.
    """
    train: Texts = {}
    held_out: Texts = {}
    for number, given in enumerate(run.texts):
        source = given.source()
        dataset = read_source(source)
        name = f"texts.{number}"
        parts = split_languages(name, source, dataset) if source.splits_languages else None
        for code, part in (parts or {source.language or UNKNOWN: dataset}).items():
            for text in texts_of(part):
                if text:
                    (train if split_of(text) == "train" else held_out).setdefault(code, []).append(text)
    for code in sorted({*train, *held_out}):
        if code not in train:
            raise ValueError(f"all {len(held_out[code])} texts in '{code}' are held out: give more text of it")
        if code not in held_out:  # of a detected language a handful may be there
            logger.warning("none of the %d texts in '%s' is held out: it is not measured", len(train[code]), code)
    if not held_out:
        raise ValueError(f"none of {sum(map(len, train.values()))} texts is held out: give more text")
    return train, held_out


def _mixed(texts: Mapping[str, Sequence[str]], temperature: float | None) -> Any:
    return chain(*texts.values()) if temperature is None else balanced_texts(texts, temperature)


def find_atoms(run: TokenizerRun, texts: list[str]) -> tuple[list[str], list[str]]:
    """Brands and product types of the catalogue, as they are written in the texts.

    Args:
        run: names the catalogue.
        texts: to train on.
    """
    brands, types = list(run.atoms.brands), list(run.atoms.types)
    if run.products is not None:
        guides = LexiconGuide.from_products(run.products.load_products(), max_brands=10**7, max_types=10**7)
        for found, guide, limit in zip(
            (brands, types), guides, (run.atoms.max_brands, run.atoms.max_types), strict=True
        ):
            counts = surface_counts(texts, guide).items()
            frequent = sorted((-count, term) for term, count in counts if count >= run.atoms.min_count)
            found += [term for _, term in islice(frequent, limit)]
    return brands, types
