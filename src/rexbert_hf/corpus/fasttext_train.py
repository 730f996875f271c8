"""Training a fastText model of two labels, in domain and out of it.

A fastText classifier of two labels is a linear model: the log-odds of a text are the mean of one score for each of its
words and hashed n-grams. So its weights are found as those of a logistic regression, and written as fastText's file.

One decision worth knowing: fastText's own trainer is not used. With one thread it leaves nine tenths of its table as
the memory happened to be (results differ from run to run, or are not numbers), with several it races. The regression is
convex: it has one solution, takes weights of documents, and its L2 penalty keeps words of one source from deciding.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .fasttext_file import write_model
from .normalise import Normaliser, normalise_texts

IN_DOMAIN, OUT_OF_DOMAIN = "in_domain", "out_of_domain"
PREFIX = "__label__"
_END = "</s>"
"""What fastText reads at the end of each text: a word like any other."""

_SCALE, _TOLERANCE = 30.0, 1e-5
"""Features are shares of a text, small numbers; the solver's steps and tolerance want them near 1."""

_FNV_START, _FNV_FACTOR, _NGRAM_FACTOR = 2166136261, 16777619, 116049371


@dataclass(frozen=True, slots=True)
class FastTextOptions:
    """How a model is trained.

    Attributes:
        word_ngrams: 1 for words alone, which generalises best to unseen sources; 2 for pairs of neighbours too.
        buckets: rows of the table of n-grams, 4 bytes each.
        min_count: words of fewer texts are known by their n-grams only.
        strength: inverse of the L2 penalty: higher follows the texts more closely.
        max_steps: of the solver.
    """

    word_ngrams: int = 1
    buckets: int = 200_000
    min_count: int = 2
    strength: float = 300.0
    max_steps: int = 200


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
    texts: Sequence[str],
    inside: Sequence[bool],
    normaliser: Normaliser,
    options: FastTextOptions,
    target: Path,
    weights: Sequence[float] | np.ndarray | None = None,
) -> None:
    """Train a model and write it.

    Args:
        texts: documents, as they are.
        inside: whether each is in the domain.
        normaliser: what they go through.
        options: of training.
        target: the file to write.
        weights: of the documents; equal ones if None. Their mean does not matter.

    Raises:
        ImportError: without scikit-learn.
        ValueError: if no text of a side has a word.
    """
    try:
        from scipy.sparse import csr_matrix
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise ImportError("scikit-learn is needed to train a classifier: pip install rexbert-hf[corpus]") from None
    lines, side = normalise_texts(texts, normaliser), np.asarray(inside, dtype=bool)
    _check_words(lines, side)
    words, buckets = _Words(lines, options.min_count), options.buckets if options.word_ngrams > 1 else 0
    columns, counts = words.features(options.word_ngrams, buckets)
    used, compact = np.unique(columns, return_inverse=True)
    values = np.repeat(_SCALE / counts, counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    matrix = csr_matrix((values, compact.astype(np.int32), starts), shape=(len(lines), len(used)))
    share = np.ones(len(lines)) if weights is None else np.asarray(weights, dtype=np.float64)
    model = LogisticRegression(
        C=options.strength / _SCALE**2, fit_intercept=False, max_iter=options.max_steps, tol=_TOLERANCE
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped at max_steps: early stopping is a penalty too
        # The penalty is weighed against 10,000 texts, however many there are.
        model.fit(matrix, side, sample_weight=share * (10_000 / share.sum()))
    table = np.zeros(len(words.names) + buckets, dtype=np.float64)
    table[used] = _SCALE * model.coef_[0]
    labels = [PREFIX + IN_DOMAIN, PREFIX + OUT_OF_DOMAIN]
    write_model(target, words.names, words.counts, labels, table, options.word_ngrams)


class _Words:
    """Words of the texts as numbers, the end of a text being one, and which of them are the vocabulary."""

    def __init__(self, lines: Sequence[str], min_count: int) -> None:
        index: dict[str, int] = {_END: 0}
        split = [[index.setdefault(word, len(index)) for word in line.split()] + [0] for line in lines]
        self.lengths = np.array([len(words) for words in split])
        self.ids = np.fromiter((i for words in split for i in words), dtype=np.int32, count=self.lengths.sum())
        spread: Counter[int] = Counter()
        for words_of_text in split:
            spread.update(set(words_of_text))
        names = list(index)
        kept = sorted((i for i, count in spread.items() if count >= min_count or not i), key=lambda i: (-spread[i], i))
        self.names, self.counts = [names[i] for i in kept], [spread[i] for i in kept]
        self.rows = np.full(len(index), -1, dtype=np.int64)
        self.rows[kept] = np.arange(len(kept))
        self.hashes = np.array([word_hash(name) for name in names], dtype=np.uint32)

    def features(self, word_ngrams: int, buckets: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the table for each text, one after the other, and how many each has."""
        text = np.repeat(np.arange(len(self.lengths)), self.lengths)
        rows = self.rows[self.ids]
        parts, owners = [rows[rows >= 0]], [text[rows >= 0]]
        signed = self.hashes[self.ids].astype(np.int32).astype(np.int64).astype(np.uint64)
        grams = signed.copy()
        for reach in range(1, word_ngrams):
            # fastText extends the n-gram that begins at a word by one word after the other, modulo 2**64.
            grams = grams[:-1] * np.uint64(_NGRAM_FACTOR) + signed[reach:]
            whole = text[reach:] == text[: len(grams)]
            parts.append(len(self.names) + (grams[whole] % np.uint64(buckets)).astype(np.int64))
            owners.append(text[: len(grams)][whole])
        owner = np.concatenate(owners)
        order = np.argsort(owner, kind="stable")
        return np.concatenate(parts)[order], np.bincount(owner, minlength=len(self.lengths))


def word_hash(word: str) -> int:
    """What fastText hashes a word to: FNV-1a over its bytes, which it takes for signed ones.

    Args:
        word: without spaces.

    Example:
        >>> word_hash("mug")
        3766803504
    """
    value = _FNV_START
    for byte in word.encode("utf-8"):
        value = ((value ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * _FNV_FACTOR) & 0xFFFFFFFF
    return value


def _check_words(lines: Sequence[str], side: np.ndarray) -> None:
    filled = np.array([bool(line) and not line.isspace() for line in lines], dtype=bool)
    for wanted in (True, False):
        if not (filled & (side == wanted)).any():
            raise ValueError(f"no text that is {'in' if wanted else 'out of'} the domain has a word")
