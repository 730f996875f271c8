"""Rows of query-product pairs: where the query ends, fields in another order, and rows that come in two parts.

A pair is a row as `tokenizer(query, product)` makes it: `[CLS] query [SEP] product [SEP]`, with `word_ids` where words
shall stay whole. The first separator is the border of the sides, so no further column is needed, and any such row of
any tokenizer will do. A row with one text only is all product. Optional spans of the kind "field" mark the fields whose
order may change; their score is the pair's relevance (`data.encode_pairs` makes such rows).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.encode_pairs import pair_specials
from rexbert_hf.data.rows import FIELD, RowBatch
from rexbert_hf.masking.units import row_starts


def first_separators(batch: RowBatch, separator: int) -> np.ndarray:
    """Index in the batch of the first separator of each row, int64 `[D]`; the row's end where it has none.

    Args:
        batch: the rows.
        separator: its token id.

    Example:
        >>> batch = RowBatch.from_rows([{"input_ids": [1, 7, 2, 8, 2]}, {"input_ids": [1, 9]}])
        >>> first_separators(batch, 2).tolist()
        [2, 7]
    """
    # One that begins a row (a tokenizer whose first special token is the same) separates nothing.
    found = np.flatnonzero((batch.input_ids == separator) & ~row_starts(batch))
    at = np.searchsorted(found, batch.offsets[:-1])
    first = np.append(found, len(batch.input_ids))[at]
    return np.minimum(first, batch.offsets[1:])


def sides(batch: RowBatch, separator: int) -> np.ndarray:
    """Side of each token, int8 `[T]`: 0 up to the first separator of its row, 1 after it.

    Args:
        batch: the rows.
        separator: its token id.

    Example:
        >>> sides(RowBatch.from_rows([{"input_ids": [1, 7, 2, 8, 2]}]), 2).tolist()
        [0, 0, 0, 1, 1]
    """
    border = np.repeat(first_separators(batch, separator), batch.lengths)
    return (np.arange(len(border)) > border).astype(np.int8)


def permute_fields(batch: RowBatch, separator: int, rng: np.random.Generator) -> RowBatch:
    """Put the marked fields of each side in random order; what stands between them stays in its place.

    Lengths of rows and of sides do not change, and no token is lost. Spans are not carried over.

    Args:
        batch: rows, with spans of the kind "field" or without.
        separator: its token id.
        rng: the generator.
    """
    if batch.span_start is None or batch.span_end is None or batch.span_kind is None:
        return batch
    marked = np.flatnonzero(batch.span_kind == FIELD)
    if not len(marked):
        return batch
    start, end = batch.span_start[marked].astype(np.int64), batch.span_end[marked].astype(np.int64)
    row = np.searchsorted(batch.offsets, start, side="right") - 1
    side = 2 * row + (start > first_separators(batch, separator)[row])
    order = np.lexsort((rng.random(len(start)), side))
    gaps = np.append(start, len(batch.input_ids)) - np.append(0, end)
    if (gaps < 0).any():
        bad = max(int(np.flatnonzero(gaps < 0)[0]) - 1, 0)
        raise ValueError(f"row {int(row[bad])} of the batch: its fields overlap or end outside the batch")
    # Between, field, between, field, ..., between: fields in their new order.
    first, count = np.empty(2 * len(start) + 1, dtype=np.int64), np.empty(2 * len(start) + 1, dtype=np.int64)
    first[0::2], count[0::2] = np.append(0, end), gaps
    first[1::2], count[1::2] = start[order], (end - start)[order]
    index = ranges(first, count)
    words = None if batch.word_ids is None else batch.word_ids[index]
    return replace(
        batch, input_ids=batch.input_ids[index], word_ids=words,
        span_start=None, span_end=None, span_score=None, span_kind=None,
    )  # fmt: skip


def relevances(batch: RowBatch) -> np.ndarray:
    """Relevance of each row, float32 `[D]`, from the score of its fields.

    Args:
        batch: rows with spans of the kind "field".

    Raises:
        ValueError: if a row has no field.
    """
    if batch.span_start is None or batch.span_score is None or batch.span_kind is None:
        raise ValueError("the rows have no fields, hence no relevance: tokenise pairs with data.encode_pairs")
    marked = np.flatnonzero(batch.span_kind == FIELD)
    row = np.searchsorted(batch.offsets, batch.span_start[marked], side="right") - 1
    found = np.full(len(batch), np.nan, dtype=np.float32)
    found[row] = batch.span_score[marked]
    if np.isnan(found).any():
        raise ValueError(f"row {int(np.flatnonzero(np.isnan(found))[0])} of the batch has no field, hence no relevance")
    return found


class PairJoiner:
    """Joins rows of two parts, `query_ids` and `product_ids`, to whole rows.

    Each part may come with `query_word_ids` and `product_word_ids`; without, each token is a word. Special tokens stand
    where the tokenizer puts them around a pair of texts.

    Args:
        tokenizer: any Hugging Face tokenizer.

    Raises:
        ValueError: if it has no separator token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.before, self.between, self.after = pair_specials(tokenizer)
        assert tokenizer.sep_token_id is not None  # pair_specials asked for it
        self.separator = int(tokenizer.sep_token_id)

    def joined(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """One row of two parts as a whole row, with its other columns.

        Args:
            row: with `query_ids` and `product_ids`.
        """
        others = {name: value for name, value in row.items() if not name.startswith(("query_", "product_"))}
        ids, words, number = [*self.before], [-1] * len(self.before), 0
        for part, special in (("query", self.between), ("product", self.after)):
            tokens = np.asarray(row[f"{part}_ids"], dtype=np.int64).tolist()
            own = row.get(f"{part}_word_ids")
            own = list(range(len(tokens))) if own is None else np.asarray(own).tolist()
            ids += [*tokens, *special]
            words += [-1 if word < 0 else word + number for word in own] + [-1] * len(special)
            number += max(own, default=-1) + 1
        return {"input_ids": ids, "word_ids": words, **others}

    def whole(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> Sequence[Mapping[str, Any]] | RowBatch:
        """The rows with those of two parts joined; all are of one kind.

        Args:
            rows: row dicts or a `RowBatch`.

        Raises:
            ValueError: if some have one part only.
        """
        if isinstance(rows, RowBatch) or not rows or not {"query_ids", "product_ids"} & rows[0].keys():
            return rows
        for number, row in enumerate(rows):
            for name in ("query_ids", "product_ids"):
                if name not in row:
                    raise ValueError(f"row {number} has no '{name}', but row 0 has: give it to all rows or none")
        return [self.joined(row) for row in rows]
