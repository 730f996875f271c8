"""Training a fastText model of two labels, in domain and out of it.

One thread, a seed and a fixed order of texts: the same texts give the same bytes. The small tables (16 wide, 200,000
buckets, 13 MB while training) lose nothing on two labels against fastText's defaults (100 wide, 2 million, 0.9 GB).
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .fasttext_file import collapse
from .normalise import Normaliser, normalise_texts

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
PREFIX = "__label__"


@dataclass(frozen=True, slots=True)
class FastTextOptions:
    """How a model is trained; the tables are small ones, as everything about two labels fits there.

    Attributes:
        dim: width while training; what is saved has one number a row.
        epochs: passes over the texts.
        lr: learning rate at the start; it falls to 0.
        word_ngrams: 1 for words alone, 2 for pairs of neighbours too.
        buckets: rows of the table of n-grams, at 4 bytes saved and `4 * dim` while training.
        min_count: rarer words are known by their n-grams only.
        seed: of the initial vectors and of the order of texts.
    """

    dim: int = 16
    epochs: int = 5
    lr: float = 0.5
    word_ngrams: int = 2
    buckets: int = 200_000
    min_count: int = 2
    seed: int = 0


def fasttext_module() -> Any:
    """The module `fasttext`, whichever distribution brought it.

    Raises:
        ImportError: if there is none.
    """
    try:
        import fasttext
    except ImportError:
        raise ImportError("fastText is needed for classifiers: pip install rexbert-hf[corpus]") from None
    # Older versions warn on standard error about a changed interface at each load.
    fasttext.FastText.eprint = lambda *_, **__: None
    return fasttext


def train_model(
    texts: Sequence[str], inside: Sequence[bool], normaliser: Normaliser, options: FastTextOptions, target: Path
) -> None:
    """Train a model and write it collapsed.

    Args:
        texts: documents, as they are.
        inside: whether each is in the domain.
        normaliser: what they go through.
        options: of training.
        target: the file to write.

    Raises:
        ImportError: without fastText.
        ValueError: if no text of a side has a word, or training fails.
    """
    lines = _lines(texts, inside, normaliser)
    fasttext = fasttext_module()
    with tempfile.TemporaryDirectory(prefix="rexbert-classifier-") as folder:
        text, wide = Path(folder) / "train.txt", Path(folder) / "wide.bin"
        # fastText reads texts in the order of the file.
        order = np.random.default_rng(options.seed).permutation(len(lines))
        with text.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines[i] + "\n" for i in order)
        given: dict[str, Any] = {
            **{"input": str(text), "dim": options.dim, "lr": options.lr, "wordNgrams": options.word_ngrams},
            **{"bucket": options.buckets, "minCount": options.min_count, "seed": options.seed},
            **{"thread": 1, "verbose": 0, "minn": 0, "maxn": 0, "loss": "softmax"},
        }
        try:
            initial = fasttext.train_supervised(**given, epoch=0).get_input_matrix()
            fasttext.train_supervised(**given, epoch=options.epochs).save_model(str(wide))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"fastText cannot train on these texts: {error}; lower lr or min_count") from None
        collapse(wide, target, initial)


def _lines(texts: Sequence[str], inside: Sequence[bool], normaliser: Normaliser) -> list[str]:
    names = {True: f"{PREFIX}{IN_DOMAIN} ", False: f"{PREFIX}{OUT_OF_DOMAIN} "}
    lines, with_words = [], set()
    for line, side in zip(normalise_texts(texts, normaliser), inside, strict=True):
        lines.append(names[bool(side)] + line)
        if line and not line.isspace():
            with_words.add(bool(side))
    for side in (True, False):
        if side not in with_words:
            raise ValueError(f"no text that is {'in' if side else 'out of'} the domain has a word")
    return lines
