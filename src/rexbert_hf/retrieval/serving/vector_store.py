"""Document vectors on disk: written in batches, mapped into memory, read by row.

A file is a safetensors file like any other; its header has spare room, so that it can be written before the number of
rows is known. With "int8" each row is divided by its own largest element, which keeps scores within about 1e-3.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

VECTORS_FILE = "vectors.safetensors"
"""In the folder of an index."""

HEADER_BYTES = 512
"""Length prefix and JSON of a file, spaces included; keeps rows aligned."""

DTYPES: dict[str, tuple[np.dtype[Any], str]] = {"float32": (np.dtype("<f4"), "F32"), "int8": (np.dtype("i1"), "I8")}
"""What vectors may be stored as: numpy's type and safetensors' name."""

JOINED_ROWS = 16_384
"""A segment in memory of so many rows is joined with no other: all that is added would be copied again and again."""

RESIDENT_BYTES = 16 << 20
"""About so much of a mapped file is left in the process by rescoring; the rest stays in the system's cache."""

_FAULT_BYTES = 64 << 10  # the system maps up to so much around a page that is touched


def quantise_rows(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 rows and the scale of each: `rows * scale[:, None]` is close to `vectors`.

    Args:
        vectors: float32 `[N, D]`.

    Example:
        >>> rows, scale = quantise_rows(np.array([[0.5, -1.0]], dtype=np.float32))
        >>> rows.tolist(), round(float(scale[0]) * 127, 3)
        ([[64, -127]], 1.0)
    """
    scale = np.abs(vectors).max(axis=1) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.rint(vectors / scale[:, None]).astype(np.int8), scale


@dataclass
class Segment:
    """Rows that lie together: an array in memory or a mapped file.

    Attributes:
        data: `[N, D]`, float32 or int8.
        scale: `[N]` for int8 rows, else None.
        mapped: the file's map, None for rows in memory.
    """

    data: np.ndarray
    scale: np.ndarray | None = None
    mapped: mmap.mmap | None = None

    def take(self, rows: np.ndarray | slice) -> np.ndarray:
        """float32 rows."""
        chosen = self.data[rows]
        if self.scale is None:
            return chosen
        return chosen.astype(np.float32) * self.scale[rows][:, None]

    def expect(self, in_order: bool) -> None:
        """Tell the system how rows are read from now on: it reads ahead, or just the pages that are touched.

        Args:
            in_order: one after another; else here and there.
        """
        if self.mapped is not None and hasattr(self.mapped, "madvise"):
            self.mapped.madvise(mmap.MADV_NORMAL if in_order else mmap.MADV_RANDOM)


class VectorWriter:
    """Write a file of vectors batch by batch; a context manager.

    Args:
        path: the file, written anew.
        dim: width of the vectors.
        dtype: "float32" or "int8".
    """

    def __init__(self, path: Path, dim: int, dtype: str = "float32") -> None:
        self.path, self.dim, self.dtype = path, dim, dtype
        self.count = 0
        self._scales: list[np.ndarray] = []
        self._file = path.open("wb")
        self._file.write(b" " * HEADER_BYTES)

    def append(self, vectors: np.ndarray) -> None:
        """Add rows.

        Args:
            vectors: float32 `[N, D]`.
        """
        if self.dtype == "int8":
            rows, scale = quantise_rows(vectors)
            self._scales.append(scale)
        else:
            rows = np.ascontiguousarray(vectors, dtype=np.float32)
        if rows.size:
            self._file.write(rows.data.cast("B"))
        self.count += len(vectors)

    def close(self) -> None:
        """Write scales and header; the file is whole from now on."""
        if self._file.closed:
            return
        kind, name = DTYPES[self.dtype]
        size = self.count * self.dim * kind.itemsize
        tensors = {"vectors": {"dtype": name, "shape": [self.count, self.dim], "data_offsets": [0, size]}}
        if self.dtype == "int8":
            scales = np.concatenate(self._scales) if self._scales else np.zeros(0, np.float32)
            self._file.write(scales.astype("<f4").tobytes())
            tensors["scale"] = {"dtype": "F32", "shape": [self.count], "data_offsets": [size, size + 4 * self.count]}
        text = json.dumps(tensors).encode().ljust(HEADER_BYTES - 8)
        self._file.seek(0)
        self._file.write((HEADER_BYTES - 8).to_bytes(8, "little") + text)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def __enter__(self) -> VectorWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_segment(path: Path, in_order: bool = False) -> Segment:
    """Map a file that `VectorWriter` wrote (or any safetensors file with a tensor `vectors`).

    Args:
        path: the file.
        in_order: whether its rows will be read one after another; see `Segment.expect`.

    Raises:
        ValueError: if the file is cut off or no such file.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        total = os.fstat(file.fileno()).st_size
        if not 2 <= length <= min(total - 8, 1 << 20):
            raise ValueError(f"{path} is damaged: its header does not fit; build the index again")
        try:
            tensors = json.loads(file.read(length))
            dtype, (count, dim), begin, end = _entry(tensors["vectors"], 2)
            scaled = dtype == DTYPES["int8"][0]
            scales = _entry(tensors["scale"], 1) if scaled else None
            if scaled and (scales is None or scales[0] != DTYPES["float32"][0] or scales[1] != [count]):
                raise ValueError("its scales do not fit its vectors")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path} is damaged or holds no vectors: build the index again") from None
        start = 8 + length
        needed = start + max(end, scales[3] if scales else 0)
        if needed > total:
            raise ValueError(f"{path} is cut off ({total:,} bytes, {needed:,} needed): build the index again")
        if count == 0:
            return Segment(np.zeros((0, dim), np.float32))
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    data = np.frombuffer(mapped, dtype, count * dim, start + begin).reshape(count, dim)
    scale = None
    if scales:
        scale = np.frombuffer(mapped, "<f4", count, start + scales[2]).copy()
    segment = Segment(data, scale, mapped)
    segment.expect(in_order)
    return segment


def _entry(entry: Any, axes: int) -> tuple[np.dtype[Any], list[int], int, int]:
    """Type, shape, first byte and one past the last of a tensor, as the header of its file says.

    Raises:
        ValueError: if they do not fit one another.
    """
    shape, offsets = entry["shape"], entry["data_offsets"]
    dtype = next((kind for kind, name in DTYPES.values() if name == entry["dtype"]), None)
    if not (isinstance(shape, list) and isinstance(offsets, list) and len(shape) == axes and len(offsets) == 2):
        raise ValueError("no shape and place")
    if dtype is None or any(type(number) is not int or number < 0 for number in (*shape, *offsets)):
        raise ValueError("no shape and place")
    if offsets[1] - offsets[0] != math.prod(shape) * dtype.itemsize:
        raise ValueError("a place of another size")
    return dtype, shape, offsets[0], offsets[1]


def _joined(first: Segment, second: Segment) -> Segment:
    if not len(first.data):  # an empty file, whatever it was to hold
        return second
    scale = None if first.scale is None or second.scale is None else np.concatenate([first.scale, second.scale])
    return Segment(np.concatenate([first.data, second.data]), scale)


class VectorStore:
    """All vectors of an index, a row each, in segments.

    Args:
        dim: width of the vectors.
        dtype: how new rows are kept: "float32" or "int8".
        segments: rows that are there already.

    Example:
        >>> store = VectorStore(2)
        >>> store.append(np.eye(2, dtype=np.float32))
        >>> store.take(np.array([1, 0, 1])).tolist()
        [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    """

    def __init__(self, dim: int, dtype: str = "float32", segments: Sequence[Segment] = ()) -> None:
        self.dim, self.dtype = dim, dtype
        self.segments = list(segments)
        self._touched = 0

    def __len__(self) -> int:
        return sum(len(segment.data) for segment in self.segments)

    def append(self, vectors: np.ndarray) -> None:
        """Add rows in memory, see `with_rows`.

        Args:
            vectors: float32 `[N, D]`.
        """
        self.segments = self.with_rows(vectors)

    def with_rows(self, vectors: np.ndarray) -> list[Segment]:
        """The segments with more rows behind them; nothing is changed.

        Segments in memory that are no longer than the one behind them are joined with it: single rows, one by one, come
        to as many segments as their number has binary digits, and each is copied as often. What has `JOINED_ROWS` stays
        as it is.

        Args:
            vectors: float32 `[N, D]`.
        """
        if self.dtype == "int8":
            last = Segment(*quantise_rows(vectors))
        else:
            last = Segment(np.array(vectors, dtype=np.float32))
        kept = self.segments
        while kept and kept[-1].mapped is None and len(kept[-1].data) <= min(len(last.data), JOINED_ROWS - 1):
            last = _joined(kept[-1], last)
            kept = kept[:-1]
        return [*kept, last]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows in the order asked for, float32 `[n, D]`.

        Args:
            rows: int64 `[n]`.
        """
        if len(self.segments) == 1:
            return self.segments[0].take(rows)
        out = np.empty((len(rows), self.dim), dtype=np.float32)
        first = 0
        for segment in self.segments:
            here = (rows >= first) & (rows < first + len(segment.data))
            out[here] = segment.take(rows[here] - first)
            first += len(segment.data)
        return out

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        """All rows in order: the first row of a block, and the block as float32.

        The system reads ahead meanwhile: page by page a file that is not in its cache takes many times as long.

        Args:
            size: most rows in a block.
        """
        first = 0
        for segment in self.segments:
            try:
                for start in range(0, len(segment.data), size):
                    segment.expect(in_order=True)  # each time: another pass over it may have ended
                    yield first + start, segment.take(slice(start, start + size))
            finally:
                segment.expect(in_order=False)
            first += len(segment.data)

    def release(self, rows: int) -> None:
        """Give touched pages back to the system's cache now and then, where few rows are read of a large file.

        Args:
            rows: that were read since the last call.
        """
        self._touched += rows * _FAULT_BYTES
        if self._touched < RESIDENT_BYTES:
            return
        self._touched = 0
        for segment in self.segments:
            if segment.mapped is not None and hasattr(segment.mapped, "madvise"):
                segment.mapped.madvise(mmap.MADV_DONTNEED)
