"""Train a byte-level BPE tokenizer on product text and compare it with a plain one of the same size.

python recipes/train_tokenizer.py [recipes/configs/tokenizer_sample.yaml] [--vocab_size 50368 ...]

The words of frequent brands and product types become single tokens; held-out text is never trained on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rexbert_hf.catalog import RECORDS, load_sample, read_records, split_of
from rexbert_hf.data.vocabulary import bytes_per_token, surface_counts, train_tokenizer, with_placeholders
from rexbert_hf.hub import write_run
from rexbert_hf.phrases import LexiconGuide, RegexGuide
from rexbert_hf.settings import parse_args, run_recipe, to_dict

DEFAULT = Path(__file__).parent / "configs" / "tokenizer_sample.yaml"


@dataclass
class Source:
    """Where records come from: the built-in sample shop, or files and Hub data sets.

    Attributes:
        sample: kind of sample data, such as shop_text or products.
        path: file, folder, glob or Hub data set; several are a list.
        columns: our column names and theirs, such as "text" and a list of their columns to join.
        limit: read at most so many rows.
    """

    sample: str | None = None
    path: str | list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if (self.sample is None) == (self.path is None):
            raise ValueError("give either 'sample' or 'path'")

    def load(self, kind: str) -> Any:
        """Read the records as a data set."""
        if self.sample is not None:
            dataset = load_sample(self.sample)
            return dataset if self.limit is None else dataset.select(range(min(self.limit, len(dataset))))
        return read_records(self.path or "", self.columns, features=RECORDS.get(kind), limit=self.limit)


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


@dataclass
class TokenizerRun:
    """Train a tokenizer.

    Attributes:
        texts: sources with a text column.
        products: source of brands and product types; none for no atoms.
        output_dir: folder of the tokenizer.
        vocab_size: entries in all, a multiple of 64; 50368 gives ModernBERT's special ids.
        atoms: words that are always one token.
        class_tokens: add <PRICE>, <PERCENT>, <SIZE>, <DIMENSION>, <MODEL> and <SKU>.
        placeholders: train on texts in which those classes are replaced by their tokens.
        split_digits: make each digit a token.
        min_frequency: rarer pairs are not merged.
        model_max_length: longest input of the model, in tokens.
        held_out_documents: held-out documents that are measured.
    """

    texts: list[Source]
    products: Source | None = None
    output_dir: Path = Path("runs/tokenizer")
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


def read_texts(run: TokenizerRun) -> tuple[list[str], list[str]]:
    """All texts, split into those to train on and the held-out ones."""
    train: list[str] = []
    held_out: list[str] = []
    for source in run.texts:
        dataset = source.load("text")
        if "text" not in dataset.column_names:
            raise ValueError(f"no 'text' column in {source.sample or source.path}: map one with 'columns'")
        for batch in dataset.iter(batch_size=1000):
            for text in batch["text"]:
                if text:
                    (train if split_of(text) == "train" else held_out).append(text)
    if not held_out:
        raise ValueError(f"none of {len(train)} texts is held out: give more text")
    return train, held_out


def find_atoms(run: TokenizerRun, texts: list[str]) -> tuple[list[str], list[str]]:
    """Brands and product types of the catalogue, as they are written in the texts."""
    brands, types = list(run.atoms.brands), list(run.atoms.types)
    if run.products is not None:
        guides = LexiconGuide.from_products(run.products.load("products"), max_brands=10**7, max_types=10**7)
        for found, guide, limit in zip(
            (brands, types), guides, (run.atoms.max_brands, run.atoms.max_types), strict=True
        ):
            counts = surface_counts(texts, guide).items()
            frequent = sorted((-count, term) for term, count in counts if count >= run.atoms.min_count)
            found += [term for _, term in islice(frequent, limit)]
    return brands, types


def main() -> None:
    """Train, save, compare, record."""
    run = parse_args(TokenizerRun, default_config=DEFAULT)
    started = time.perf_counter()
    train, held_out = read_texts(run)
    brands, types = find_atoms(run, train)
    print(f"{len(train):,} texts to train on, {len(held_out):,} held out; {len(brands)} brands, {len(types)} types")
    seen: Iterator[str] = with_placeholders(train, RegexGuide()) if run.placeholders else iter(train)
    options: dict[str, Any] = {"min_frequency": run.min_frequency, "model_max_length": run.model_max_length}
    tokenizer = train_tokenizer(
        seen, run.vocab_size, [*brands, *types], run.class_tokens, run.split_digits, **options
    )  # fmt: skip
    tokenizer.save_pretrained(run.output_dir)
    measured = held_out[: run.held_out_documents]
    is_plain = not (brands or types or run.class_tokens or run.split_digits)
    plain = tokenizer if is_plain else train_tokenizer(train, run.vocab_size, **options)
    results = {
        "vocab_size": len(tokenizer),
        "brands": len(brands),
        "types": len(types),
        "train_documents": len(train),
        "held_out_documents": len(measured),
        "bytes_per_token": bytes_per_token(tokenizer, measured),
        "bytes_per_token_plain": bytes_per_token(plain, measured),
        "seconds": time.perf_counter() - started,
    }
    print(f"vocabulary: {results['vocab_size']:,} entries, special ids {sorted(tokenizer.all_special_ids)}")
    print(
        f"bytes per token, held out: {results['bytes_per_token']:.3f} (plain: {results['bytes_per_token_plain']:.3f})"
    )
    write_run(run.output_dir, config=to_dict(run), results=results)
    print(f"saved to {run.output_dir}")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    run_recipe(main)
