"""The tokenised row and its columnar form, the one thing that `data`, `masking` and `training` hand each other.

A row is a dict (`input_ids`, optional `word_ids` and spans). A `RowBatch` holds many rows as flat numpy arrays, so
that a collator touches tokens with vectorised code only; it is also a sequence of row dicts, for whoever wants those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

SPAN_KINDS = (
    "phrase",
    "noun_phrase",
    "brand",
    "type",
    "price",
    "percent",
    "size",
    "dimension",
    "model",
    "sku",
    "field",
)
"""Names of `span_kind` values, by index; "field" marks the fields of a query-product pair, which no guide finds."""
FIELD = SPAN_KINDS.index("field")


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Cumulative offsets `[D + 1]` (int64, first 0) of row lengths `[D]`."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


@dataclass(slots=True)
class RowBatch(Sequence[dict[str, Any]]):
    """Rows as flat arrays: T tokens in D rows, with N spans.

    Attributes:
        input_ids: int32 `[T]`, rows one after the other, special tokens included.
        offsets: int64 `[D + 1]`; row d is `input_ids[offsets[d]:offsets[d + 1]]`.
        word_ids: int32 `[T]`, the word of each token within its row, -1 for special tokens; or None.
        span_start: int32 `[N]`, first token of each span, counted **in the batch** (row offset added); or None.
        span_end: int32 `[N]`, one past the last token, counted in the batch; or None.
        span_score: float32 `[N]` in [0, 1]; or None.
        span_kind: int8 `[N]`, an index into `SPAN_KINDS`; or None.
        step: the global step these rows belong to, or None when no sampler said so.
        micro: the micro-batch within the step.
        phase: the index of the training phase.

    Spans are sorted by row, then by start; they may overlap.

    Example:
        >>> batch = RowBatch.from_rows([{"input_ids": [1, 7, 2]}, {"input_ids": [1, 8, 9, 2]}])
        >>> len(batch), batch.input_ids.tolist(), batch.offsets.tolist()
        (2, [1, 7, 2, 1, 8, 9, 2], [0, 3, 7])
        >>> batch[1]["input_ids"].tolist()
        [1, 8, 9, 2]
    """

    input_ids: np.ndarray
    offsets: np.ndarray
    word_ids: np.ndarray | None = None
    span_start: np.ndarray | None = None
    span_end: np.ndarray | None = None
    span_score: np.ndarray | None = None
    span_kind: np.ndarray | None = None
    step: int | None = None
    micro: int = 0
    phase: int = 0

    @property
    def lengths(self) -> np.ndarray:
        """Row lengths in tokens, int64 `[D]`."""
        return np.diff(self.offsets)

    @property
    def position_ids(self) -> np.ndarray:
        """Position of each token in its row, int64 `[T]`."""
        return np.arange(len(self.input_ids)) - np.repeat(self.offsets[:-1], self.lengths)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"row {index} of a batch of {len(self)} rows")
        index %= len(self)
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        row: dict[str, Any] = {"input_ids": self.input_ids[start:end]}
        if self.word_ids is not None:
            row["word_ids"] = self.word_ids[start:end]
        if self.span_start is not None:
            first, last = np.searchsorted(self.span_start, [start, end])
            row["span_start"] = self.span_start[first:last] - start
            row["span_end"] = self.span_end[first:last] - start  # type: ignore[index]
            row["span_score"] = self.span_score[first:last]  # type: ignore[index]
            row["span_kind"] = self.span_kind[first:last]  # type: ignore[index]
        if self.step is not None:
            row["step"] = self.step
        return row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    @classmethod
    def from_rows(cls, rows: Sequence[Mapping[str, Any]]) -> RowBatch:
        """Columns from row dicts; a `RowBatch` is returned as it is.

        Args:
            rows: dicts with `input_ids` and optionally `word_ids`, the four span fields and `step`. A field counts
                when the first row has it, and then every row must.

        Raises:
            ValueError: if there is no row, or a row lacks a field that the first one has.
        """
        if isinstance(rows, RowBatch):
            return rows
        if not rows:
            raise ValueError("a batch needs at least one row; got an empty list")

        def column(name: str, dtype: Any) -> np.ndarray:
            try:
                return np.concatenate([np.asarray(row[name], dtype=dtype) for row in rows])
            except KeyError:
                missing = next(i for i, row in enumerate(rows) if name not in row)
                raise ValueError(f"row {missing} has no '{name}', but row 0 has: give it to all rows or none") from None

        first = rows[0]
        input_ids = column("input_ids", np.int32)
        batch = cls(input_ids, offsets_of(np.array([len(row["input_ids"]) for row in rows])))
        if first.get("word_ids") is not None:
            batch.word_ids = column("word_ids", np.int32)
        if first.get("span_start") is not None:
            counts = np.array([len(row["span_start"]) for row in rows])
            shift = np.repeat(batch.offsets[:-1], counts).astype(np.int32)
            batch.span_start = column("span_start", np.int32) + shift
            batch.span_end = column("span_end", np.int32) + shift
            batch.span_score = column("span_score", np.float32)
            batch.span_kind = column("span_kind", np.int8)
        if first.get("step") is not None:
            batch.step = int(first["step"])
        return batch
