"""Texts, documents and a classifier that the tests of normalising, distilling and filtering share."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from rexbert_hf.corpus.documents import Document, DocumentSource
from rexbert_hf.corpus.fasttext_file import FastTextFile
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.fasttext_train import FastTextOptions

SHOP = ["basket", "delivery", "price", "stock", "order", "buy", "returns", "discount", "size", "colour", "warranty"]
GENERAL = ["war", "river", "king", "mountain", "history", "village", "church", "winter", "poem", "letter", "soldier"]
SHARED = ["the", "a", "of", "and", "to", "in", "it", "is", "on", "that", "for", "with", "was", "this", "at", "by"]


def text_of(shop: bool, rng: random.Random, words: int = 30) -> str:
    """Made-up text; a third of its words tell its side."""
    own = SHOP if shop else GENERAL
    chosen = [rng.choice(own if rng.random() < 0.35 else SHARED) for _ in range(words)]
    return " ".join(chosen).capitalize() + "."


def labelled_texts(count: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """`count` texts, every other one of a shop, with their labels."""
    rng = random.Random(seed)
    sides = [i % 2 == 0 for i in range(count)]
    return [text_of(side, rng) for side in sides], ["shop" if side else "general" for side in sides]


def tiny_classifier() -> FastTextClassifier:
    """Trained in a fraction of a second, nearly always right on `text_of`."""
    texts, labels = labelled_texts(400)
    options = FastTextOptions(word_ngrams=2, buckets=1_000, min_count=1)
    return FastTextClassifier.train(texts, labels, ["shop"], options=options)


def matrix_places(layout: FastTextFile) -> tuple[int, int, int]:
    """Where the input matrix' numbers begin, its rows, and where the output matrix' do; not of a quantised model.

    They end the file, each behind 17 bytes: whether it is compressed, and its shape.
    """
    rows = layout.words + layout.buckets
    output_at = layout.path.stat().st_size - 4 * len(layout.labels) * layout.dim
    return output_at - 17 - 4 * rows * layout.dim, rows, output_at


def read_matrices(layout: FastTextFile) -> tuple[np.ndarray, np.ndarray]:
    """The input matrix `[rows, dim]` and the output matrix `[labels, dim]` of a model that is not quantised."""

    def matrix(start: int, rows: int) -> np.ndarray:
        flat = np.fromfile(layout.path, dtype="<f4", count=rows * layout.dim, offset=start)
        return flat.reshape(rows, layout.dim)

    input_at, rows, output_at = matrix_places(layout)
    return matrix(input_at, rows), matrix(output_at, len(layout.labels))


def write_crawl(path: Path, documents: Iterable[tuple[str, str]]) -> DocumentSource:
    """JSON lines of (text, domain) as a source."""
    path.write_text("".join(json.dumps({"text": t, "domain": d}) + "\n" for t, d in documents), encoding="utf-8")
    return DocumentSource(str(path))


def mixed_crawl(count: int, seed: int = 1) -> list[tuple[str, str]]:
    """Shop and general texts with some repetitions, near repetitions and rubbish among them."""
    rng = random.Random(seed)
    rows: list[tuple[str, str]] = []
    for i in range(count):
        kind = rng.random()
        if rows and kind < 0.1:
            rows.append((rng.choice(rows)[0].upper(), "hobby"))
        elif rows and kind < 0.2:
            rows.append((f"{rng.choice(rows)[0]} again", "news"))
        elif kind < 0.25:
            rows.append((rng.choice(["%%% ### ((( ))) !!! ;;;", "basket", "Page not found, sorry about that"]), "news"))
        else:
            rows.append((text_of(i % 2 == 0, rng, rng.randint(12, 60)), rng.choice(["hobby", "news"])))
    return rows


def rows_of(folder: Path) -> list[dict[str, object]]:
    """All rows of a folder's Parquet files, in order."""
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def documents_of(texts: Iterable[str]) -> list[Document]:
    """Documents named by their place."""
    return [Document(f"d{i}", text, "", "hobby") for i, text in enumerate(texts)]
