"""fastText's model file: is it one, whole, and of one piece; and a classifier in a table as narrow as its answers.

One decision worth knowing: a supervised model is linear in its word and n-gram vectors, so each vector is only ever
seen through the output matrix. Storing that product instead gives the same probabilities from one number a row where
there are two labels (softmax sees differences only). A table of a million rows is then 4 MB, in a file that fastText
and everything built on it reads.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

MAGIC, VERSION = 793_712_314, 12
_HEAD = struct.Struct("<ii")
_ARGS = struct.Struct("<12id")
_DICTIONARY = struct.Struct("<iiiqq")
_SHAPE = struct.Struct("<qq")
_QUANTISED = struct.Struct("<qqi")  # rows, width, bytes of codes
_PRODUCT_QUANTISER = struct.Struct("<4i")  # width, parts, width of a part, of the last one
_CENTROIDS = 256
_ENTRY = struct.Struct("<bqb")
_ENTRY_TAIL = struct.Struct("<qb")  # after the zero that ends a word: how often it occurs, and its kind
_LONGEST = 100  # n-grams of words or characters that are believed
_MOST_IN_TREE = 10**15  # fastText's count of a node that is not made yet
_SUPERVISED, _LABEL = 3, 1
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}


@dataclass(frozen=True, slots=True)
class FastTextFile:
    """What a model file holds.

    Attributes:
        path: the file.
        dim: width of the vectors.
        words: in the vocabulary.
        labels: with their prefix, in the model's order.
        buckets: rows for n-grams.
        loss: softmax, ova, hs or ns.
        longest: characters of the longest part of a word that has a vector of its own; 0 where words are whole.
    """

    path: Path
    dim: int
    words: int
    labels: tuple[str, ...]
    buckets: int
    loss: str
    longest: int = 0


def _set_state(file: FastTextFile, state: Sequence[Any]) -> None:
    """Values of a pickle in the order of the fields; those of a queued Slurm job may lack `longest`."""
    for item, value in zip(fields(file), state, strict=False):
        object.__setattr__(file, item.name, value)
    if len(state) < len(fields(file)):
        object.__setattr__(file, "longest", read_layout(file.path).longest)


# Python up to 3.11.3 puts its own in place of a class' own one, where it is frozen and has slots.
FastTextFile.__setstate__ = _set_state  # type: ignore[attr-defined]


def read_layout(path: str | Path) -> FastTextFile:
    """Look through a model file without fastText, which ends the process on some broken files.

    Args:
        path: a .bin or .ftz file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no supervised fastText model, was made by another version, or is not whole.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; train a classifier first, or give the path of a fastText model")
    with path.open("rb") as file:
        head = file.read(_HEAD.size)
        if len(head) < _HEAD.size or _HEAD.unpack(head)[0] != MAGIC:
            raise ValueError(f"{path} is not a fastText model: it does not begin like one; give a .bin or .ftz file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:  # only the dictionary is read
            return _checked_layout(path, data)


def _checked_layout(path: Path, data: mmap.mmap) -> FastTextFile:
    version = _HEAD.unpack_from(data)[1]
    if version > VERSION:
        raise ValueError(f"{path}: fastText file version {version}, at most {VERSION} is known; save it again")
    try:
        return _layout(path, data)
    except (struct.error, IndexError, OverflowError, UnicodeDecodeError):
        raise ValueError(f"{path}: a fastText model that is cut off or damaged; train or download it again") from None


def _layout(path: Path, data: mmap.mmap) -> FastTextFile:
    """All that fastText takes on trust: what does not fit would have it read memory anywhere, or never come back."""
    dim, _, _, _, _, ngrams, loss, model, buckets, _, longest, *_ = _ARGS.unpack_from(data, _HEAD.size)
    if model != _SUPERVISED or not 0 < dim < 1 << 16 or loss not in _LOSSES:
        raise ValueError(f"{path}: a fastText model of word vectors, not of labels; train a supervised one")
    # Hashes of n-grams are divided by the buckets; all n-grams of a line and of a long word are made.
    _due(0 <= ngrams <= _LONGEST and longest <= _LONGEST and (buckets > 0 or (not buckets and ngrams < 2)))
    _due(buckets or longest <= 0)
    words, labels, pruned, place = _dictionary(data, hierarchical=_LOSSES[loss] == "hs")
    rows = words + (pruned if pruned >= 0 else buckets)
    quantised = data[place]
    _due(quantised <= 1 and (quantised or pruned < 0))
    if quantised:
        after = _quantised_end(data, place + 1, rows, dim)
        _due(data[after] <= 1)
        read_end = _quantised_end if data[after] else _plain_end
        _due(read_end(data, after + 1, len(labels), dim) == len(data))
    else:
        after = _plain_end(data, place + 1, rows, dim)
        _due(data[after] <= 1 and _plain_end(data, after + 1, len(labels), dim) == len(data))
    return FastTextFile(path, dim, words, labels, buckets, _LOSSES[loss], max(0, longest))


def _due(holds: object) -> None:
    if not holds:
        raise IndexError


def _dictionary(data: mmap.mmap, hierarchical: bool) -> tuple[int, tuple[str, ...], int, int]:
    """Number of words, labels, n-grams left by pruning (below 0: not pruned), and one past the dictionary."""
    place = _HEAD.size + _ARGS.size
    size, words, answers, _, pruned = _DICTIONARY.unpack_from(data, place)
    _due(words >= 0 and answers > 0 and size == words + answers)
    place += _DICTIONARY.size
    labels, counts = [], 0
    for row in range(size):
        end = data.find(b"\0", place)
        _due(end >= 0)
        count, kind = _ENTRY_TAIL.unpack_from(data, end + 1)
        _due(kind == (row >= words))  # a word's number is its row of the matrix, so words come first
        if kind:
            labels.append(data[place:end].decode("utf-8"))
            _due(labels[-1].splitlines() == labels[-1:] and count >= 0)
            counts += count
        place = end + 1 + _ENTRY_TAIL.size
    _due(not hierarchical or counts < _MOST_IN_TREE)
    if pruned > 0:
        _due(8 * pruned <= len(data) - place)
        low, high = _range_of_kept(data, place, pruned)
        _due(low >= 0 and high < pruned)
        place += 8 * pruned
    return words, tuple(labels), pruned, place


def _range_of_kept(data: mmap.mmap, place: int, pruned: int) -> tuple[int, int]:
    """Lowest and highest row that pruning gave to an n-gram; of pairs (hash, row)."""
    kept = np.frombuffer(data, "<i4", 2 * pruned, place)[1::2]
    return int(kept.min()), int(kept.max())


def _quantised_end(data: mmap.mmap, place: int, rows: int, dim: int) -> int:
    """One past a compressed matrix: shape, codes of the rows, the table of what they stand for; norms likewise."""
    has_norms = data[place]
    count, width, codes = _QUANTISED.unpack_from(data, place + 1)
    _due(has_norms <= 1 and count == rows > 0 and width == dim and codes > 0)
    parts, after = _table_end(data, place + 1 + _QUANTISED.size + codes, dim)
    _due(codes == rows * parts)
    return _table_end(data, after + rows, 1)[1] if has_norms else after


def _table_end(data: mmap.mmap, place: int, dim: int) -> tuple[int, int]:
    """Parts that a row is cut into, and one past the table of their centroids."""
    width, parts, part, last = _PRODUCT_QUANTISER.unpack_from(data, place)
    _due(width == dim and part > 0 and 0 < last <= part and dim == part * (parts - 1) + last)
    return parts, place + _PRODUCT_QUANTISER.size + 4 * _CENTROIDS * width


def _plain_end(data: mmap.mmap, place: int, rows: int, dim: int) -> int:
    _due(_SHAPE.unpack_from(data, place) == (rows, dim) and rows > 0)
    return place + _SHAPE.size + 4 * rows * dim


def predict_lines(model: Any, path: str | Path, lines: Sequence[str], k: int) -> tuple[list[Any], list[np.ndarray]]:
    """The likeliest labels of lines and their probabilities, as fastText gives them.

    Args:
        model: fastText's.
        path: its file.
        lines: texts without line breaks.
        k: labels wanted for each.

    Raises:
        ValueError: if the model's matrices hold what is no number, or give it.
    """
    try:
        labels, shares = model.predict(list(lines), k=k, threshold=0.0)
        if not shares or np.isfinite(np.concatenate(shares)).all():
            return list(labels), list(shares)
        reason = "a probability is no number"
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:100]
    raise ValueError(f"{path}: a fastText model that is damaged ({reason}); train or download it again")


def write_model(
    target: str | Path, words: Sequence[str], counts: Sequence[int], labels: Sequence[str], table: np.ndarray,
    word_ngrams: int,
) -> FastTextFile:  # fmt: skip
    """Write a softmax model of two labels from the score of each word and bucket.

    Args:
        target: the file to write.
        words: the vocabulary; fastText's own `</s>` stands for the end of each text.
        counts: of the words.
        labels: two, with their prefix: positive scores speak for the first.
        table: scores, `[words + buckets]`: the log-odds of a text are their mean over its words and n-grams.
        word_ngrams: longest n-gram in words.
    """
    buckets = len(table) - len(words)
    # dim, window, epochs, min count, negatives, n-grams, loss, model, buckets, minn, maxn, rate of updates; t.
    args = _ARGS.pack(1, 5, 1, 1, 5, word_ngrams, 3, _SUPERVISED, buckets, 0, 0, 100, 1e-4)
    size = _DICTIONARY.pack(len(words) + len(labels), len(words), len(labels), max(1, sum(counts)), -1)
    entries = [word.encode("utf-8") + _ENTRY.pack(0, count, 0) for word, count in zip(words, counts, strict=True)]
    entries += [label.encode("utf-8") + _ENTRY.pack(0, 1, _LABEL) for label in labels]
    head = _HEAD.pack(MAGIC, VERSION) + args + size + b"".join(entries)
    _write(Path(target), head, table[:, None] / 2, np.array([[1.0], [-1.0]]))
    return read_layout(target)


def _write(target: Path, head: bytes, table: np.ndarray, answers: np.ndarray) -> None:
    with target.open("wb") as file:
        for part, matrix in ((head, table), (b"", answers)):
            file.write(part + b"\0" + _SHAPE.pack(*matrix.shape))
            file.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())
