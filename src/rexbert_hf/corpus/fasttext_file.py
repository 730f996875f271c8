"""fastText's model file: is it one, is it whole, and a classifier in a table as narrow as its answers.

One decision worth knowing: a supervised model is linear in its word and n-gram vectors, so each vector is only ever
seen through the output matrix. Storing that product instead gives the same probabilities from one number a row where
there are two labels (softmax sees differences only). A table of a million rows is then 4 MB, in a file that fastText
and everything built on it reads.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
_SUPERVISED, _LABEL = 3, 1
_LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}


@dataclass(frozen=True, slots=True)
class FastTextFile:
    """What stands where in a model file.

    Attributes:
        path: the file.
        dim: width of the vectors.
        words: in the vocabulary.
        labels: with their prefix, in the model's order.
        buckets: rows for n-grams.
        loss: softmax, ova, hs or ns.
        quantised: whether the input matrix is compressed; the fields below are then 0.
        input_at: byte where the input matrix' numbers begin.
        rows: of the input matrix.
        output_at: byte where the output matrix' numbers begin.
    """

    path: Path
    dim: int
    words: int
    labels: tuple[str, ...]
    buckets: int
    loss: str
    quantised: bool
    input_at: int = 0
    rows: int = 0
    output_at: int = 0


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
    args = _ARGS.unpack_from(data, _HEAD.size)
    dim, loss, model, buckets = args[0], args[6], args[7], args[8]
    if model != _SUPERVISED or not 0 < dim < 1 << 16 or loss not in _LOSSES:
        raise ValueError(f"{path}: a fastText model of word vectors, not of labels; train a supervised one")
    place = _HEAD.size + _ARGS.size
    size, words, answers, _, pruned = _DICTIONARY.unpack_from(data, place)
    place += _DICTIONARY.size
    labels = []
    for _ in range(size):
        end = data.find(b"\0", place)
        if end < 0:
            raise IndexError
        if data[end + 9] == _LABEL:
            labels.append(data[place:end].decode("utf-8"))
        place = end + 10
    if not answers or len(labels) != answers or size != words + answers:
        raise IndexError
    place += 8 * max(0, pruned)
    if data[place]:
        after = _quantised_end(data, place + 1, dim)
        after = _quantised_end(data, after + 1, dim) if data[after] else _plain_end(data, after + 1, dim)
        if after != len(data):
            raise IndexError
        return FastTextFile(path, dim, words, tuple(labels), buckets, _LOSSES[loss], quantised=True)
    rows, width = _SHAPE.unpack_from(data, place + 1)
    input_at = place + 1 + _SHAPE.size
    after = input_at + 4 * rows * width
    answers, _ = _SHAPE.unpack_from(data, after + 1)
    output_at = after + 1 + _SHAPE.size
    if width != dim or answers != len(labels) or len(data) != output_at + 4 * answers * width:
        raise IndexError
    return FastTextFile(path, dim, words, tuple(labels), buckets, _LOSSES[loss], False, input_at, rows, output_at)


def _quantised_end(data: mmap.mmap, place: int, dim: int) -> int:
    """One past a compressed matrix: shape, codes of the rows, the table of what they stand for; norms likewise."""
    has_norms = data[place]
    rows, width, codes = _QUANTISED.unpack_from(data, place + 1)
    after = _table_end(data, place + 1 + _QUANTISED.size + codes)
    if has_norms > 1 or rows < 1 or width != dim or codes < 1:
        raise IndexError
    return _table_end(data, after + rows) if has_norms else after


def _table_end(data: mmap.mmap, place: int) -> int:
    width = _PRODUCT_QUANTISER.unpack_from(data, place)[0]
    if width < 1:
        raise IndexError
    return place + _PRODUCT_QUANTISER.size + 4 * _CENTROIDS * width


def _plain_end(data: mmap.mmap, place: int, dim: int) -> int:
    rows, width = _SHAPE.unpack_from(data, place)
    if rows < 1 or width != dim:
        raise IndexError
    return place + _SHAPE.size + 4 * rows * width


def read_matrices(layout: FastTextFile) -> tuple[np.ndarray, np.ndarray]:
    """The input matrix `[rows, dim]` and the output matrix `[labels, dim]`, float32.

    Args:
        layout: of a model that is not quantised.

    Raises:
        ValueError: for a quantised model.
    """
    if layout.quantised:
        raise ValueError(f"{layout.path} is quantised: its matrices cannot be read; give the .bin file")

    def matrix(start: int, rows: int) -> np.ndarray:
        flat = np.fromfile(layout.path, dtype="<f4", count=rows * layout.dim, offset=start)
        return flat.reshape(rows, layout.dim)

    return matrix(layout.input_at, layout.rows), matrix(layout.output_at, len(layout.labels))


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
