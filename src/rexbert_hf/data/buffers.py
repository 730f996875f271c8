"""List columns of an Arrow table as numpy views, gathered by row without a Python object per row.

The decision worth knowing: nothing of the size of the data set is built when a table is opened. A row is found through
its chunk and the Arrow offsets inside it, and chunks that lie in one memory-mapped file share one numpy view of that
file, so that a gather over thousands of record batches is still a single `take`.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

MIN_RANGES_PER_VIEW = 8
"""With fewer ranges than this per distinct buffer, slices are joined one by one: a `take` costs some ten of them."""


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Indexes of `[starts[i], starts[i] + lengths[i])`, one range after the other.

    Example:
        >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
        [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(starts - (ends - lengths), lengths)


def _root(buffer: pa.Buffer) -> pa.Buffer:
    while buffer.parent is not None:
        buffer = buffer.parent
    return buffer


class ChunkedVector:
    """Flat arrays of several Arrow chunks, addressed by (chunk, position), as few numpy views as possible."""

    def __init__(self, arrays: list[np.ndarray], buffers: list[pa.Buffer]) -> None:
        """Map each chunk to a view.

        Args:
            arrays: the values of each chunk, zero-copy over its buffer.
            buffers: the Arrow buffer each of them lies in.
        """
        self.views: list[np.ndarray] = []
        self.chunk_view = np.zeros(len(arrays), dtype=np.int64)
        self.chunk_base = np.zeros(len(arrays), dtype=np.int64)
        known: dict[tuple[int, str], int] = {}
        for chunk, (array, buffer) in enumerate(zip(arrays, buffers, strict=True)):
            root = _root(buffer)
            width = array.dtype.itemsize
            shift = array.__array_interface__["data"][0] - root.address
            if array.size == 0 or shift % width or not 0 <= shift <= root.size - array.nbytes:
                self.chunk_view[chunk] = len(self.views)
                self.views.append(array)
                continue
            key = (root.address, array.dtype.str)
            if key not in known:
                known[key] = len(self.views)
                self.views.append(np.frombuffer(root, dtype=array.dtype, count=root.size // width))
            self.chunk_view[chunk] = known[key]
            self.chunk_base[chunk] = shift // width

    def gather(self, chunks: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Values of the ranges `[starts, starts + lengths)` of `chunks`, joined in order."""
        if not len(chunks):
            return np.zeros(0, dtype=self.views[0].dtype if self.views else np.int32)
        views, starts = self.chunk_view[chunks], starts + self.chunk_base[chunks]
        first = int(views[0])
        if len(self.views) == 1 or (views == first).all():
            return self.views[first][ranges(starts, lengths)]
        present = np.unique(views)
        if len(chunks) < MIN_RANGES_PER_VIEW * len(present):
            rows = zip(views.tolist(), starts.tolist(), (starts + lengths).tolist(), strict=True)
            return np.concatenate([self.views[v][s:e] for v, s, e in rows])
        out = np.empty(int(lengths.sum()), dtype=self.views[first].dtype)
        places = np.cumsum(lengths) - lengths
        for view in present:
            rows_of = views == view
            out[ranges(places[rows_of], lengths[rows_of])] = self.views[view][ranges(starts[rows_of], lengths[rows_of])]
        return out


class ListColumn:
    """A (chunked, possibly sliced) `list` or `large_list` column of numbers.

    Example:
        >>> column = ListColumn(pa.chunked_array([pa.array([[1, 2], [3]]), pa.array([[4]])]), "x", np.int64)
        >>> values, lengths = column.gather(np.array([2, 0]))
        >>> values.tolist(), lengths.tolist()
        ([4, 1, 2], [1, 2])
    """

    def __init__(self, column: pa.ChunkedArray, name: str, dtype: type[np.generic]) -> None:
        """Read the chunk layout of `column` and cast its values to `dtype` where they are of another type.

        Raises:
            ValueError: if the column is no list of numbers or holds nulls.
        """
        if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
            raise ValueError(f"column '{name}' is {column.type}; a tokenised column must be a list of numbers")
        if column.null_count:
            raise ValueError(f"column '{name}' has {column.null_count} null rows; tokenise again without them")
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self.chunk_rows = np.array([0, *(len(chunk) for chunk in chunks)], dtype=np.int64).cumsum()
        offsets = [chunk.offsets for chunk in chunks]
        values = [self._values(chunk, name, dtype) for chunk in chunks]
        self._offsets = ChunkedVector(
            [o.to_numpy(zero_copy_only=True) for o in offsets], [o.buffers()[1] for o in offsets]
        )
        self._values_of = ChunkedVector(
            [v.to_numpy(zero_copy_only=True) for v in values],
            [v.buffers()[1] or pa.py_buffer(b"") for v in values],
        )
        self.dtype = np.dtype(dtype)

    @staticmethod
    def _values(chunk: pa.Array, name: str, dtype: type[np.generic]) -> pa.Array:
        values = chunk.values
        wanted = pa.from_numpy_dtype(dtype)
        if values.type == wanted:
            return values
        try:
            return values.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"column '{name}' cannot be read as {wanted}: {error}") from None

    def __len__(self) -> int:
        return int(self.chunk_rows[-1])

    def lengths(self) -> np.ndarray:
        """Values in each row, int32 `[N]`, from the offsets alone."""
        out = np.empty(len(self), dtype=np.int32)
        for chunk in range(len(self.chunk_rows) - 1):
            first, last = self.chunk_rows[chunk], self.chunk_rows[chunk + 1]
            base = self._offsets.chunk_base[chunk]
            view = self._offsets.views[self._offsets.chunk_view[chunk]]
            np.subtract(view[base + 1 : base + 1 + last - first], view[base : base + last - first], out=out[first:last])
        return out

    def locate(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Chunk, first value within the chunk and length of each row."""
        chunks = np.searchsorted(self.chunk_rows, rows, side="right") - 1
        inside = rows - self.chunk_rows[chunks]
        pairs = self._offsets.gather(chunks, inside, np.full_like(inside, 2)).reshape(-1, 2).astype(np.int64)
        return chunks, pairs[:, 0], pairs[:, 1] - pairs[:, 0]

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of `rows` joined in order, and their lengths."""
        chunks, starts, lengths = self.locate(rows)
        return self._values_of.gather(chunks, starts, lengths), lengths

    def gather_ranges(self, chunks: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Values of explicit ranges, as `locate` gives them."""
        return self._values_of.gather(chunks, starts, lengths)
