"""Span masking of query-product pairs, one side at a time: stage 2 of "Web-scale Semantic Product Search" (2.2).

Spans are masked in the query or in the product, never in both, so that what is hidden on one side can be read off the
other. The paper names neither the share nor the lengths; the defaults are SpanBERT's (.15, geometric with .2 up to ten
words). It does not say how the side is drawn either: here by a fair coin, because in proportion to length the query,
whose words say most about the match, would hardly ever be predicted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.batch import Batch
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.base import MaskingCollator, Selection
from rexbert_hf.masking.draws import open_uniform
from rexbert_hf.masking.pair_rows import PairJoiner, first_separators, permute_fields, relevances, sides
from rexbert_hf.masking.span_budget import geometric_table, spread_spans
from rexbert_hf.masking.units import number_units, row_starts, word_starts


class PairCollator(MaskingCollator):
    """What collators of pairs share: rows of two parts, fields in random order, segment ids.

    Args:
        tokenizer: as in `MaskingCollator`, with a separator token.
        mlm_probability: as in `MaskingCollator`.
        permute_fields: put the marked fields of each side in random order, anew at every step.
        token_type_ids: emit segment ids (0 query, 1 product), which BERT's pre-training knows; padded batches only.
        **options: the options of `MaskingCollator`.

    Raises:
        ValueError: if the tokenizer has no separator token, or segment ids are asked of a flat batch.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        permute_fields: bool = True,
        token_type_ids: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        if token_type_ids and self.flat:
            raise ValueError("token_type_ids belong to padded batches: flat ones are for models without segments")
        self.joiner = PairJoiner(tokenizer)
        self.separator = self.joiner.separator
        self.permute_fields = permute_fields
        self.token_type_ids = token_type_ids

    def prepare(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> tuple[RowBatch, np.random.Generator]:
        """Columns of the rows, fields in their new order, and the generator of this call."""
        batch, rng = super().prepare(self.joiner.whole(rows))
        return (permute_fields(batch, self.separator, rng) if self.permute_fields else batch), rng

    def emit(self, batch: RowBatch, input_ids: np.ndarray, labels: np.ndarray) -> Batch:
        """Tensors of the batch, flat or padded as asked, with segment ids where asked."""
        out = super().emit(batch, input_ids, labels)
        if self.token_type_ids:
            segments = torch.zeros_like(out["input_ids"])
            # The separator was never masked, so the batch still shows the sides.
            segments[out["attention_mask"].bool()] = torch.from_numpy(sides(batch, self.separator)).long()
            out["token_type_ids"] = segments
        return out


class QueryProductCollator(PairCollator):
    """Mask geometric spans of whole words on one side of each query-product pair.

    Rows are pairs as `tokenizer(query, product)` makes them (`masking.pair_rows` says more), or dicts with `query_ids`
    and `product_ids`. Each row draws its side; a row with one side only takes that one. Of the words of the chosen side
    the share is met in expectation, row by row; every word of it has the same probability.

    `stats` counts `query_rows` (rows masked on the query's side) and `rows_without_labels`: with a share of .15 half of
    all queries of three words get no mask. `query_probability` of about .35 is what "until 15 %, at least one word"
    comes to on short queries.

    Args:
        tokenizer: as in `MaskingCollator`, with a separator token.
        mlm_probability: expected share of the chosen side's tokens that is masked.
        query_probability: of the query's side; None for the same.
        query_share: probability that the query is the chosen side; "length" for its share of the pair's words.
        geometric_p: of the geometric distribution of lengths, in words.
        max_words: longest span.
        permute_fields: put the marked fields of each side in random order.
        token_type_ids: emit segment ids, in padded batches.
        **options: the options of `MaskingCollator`; with `per_span=True` the draw between mask, random and kept is one
            a span.

    Raises:
        ValueError: if an option is out of its range, or the tokenizer has no separator token.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = WordLevel({"[PAD]": 0, "[MASK]": 1, "[CLS]": 2, "[SEP]": 3, "red": 4, "mug": 5}, "[MASK]")
        >>> names = {"pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), **names)
        >>> collator = QueryProductCollator(tokenizer, 0.5, query_share=1.0)
        >>> batch = collator([{"query_ids": [4, 5], "product_ids": [5, 4, 4]}])
        >>> (batch["labels"] != -100).nonzero()[:, 1].tolist() in ([1], [2])
        True
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        query_probability: float | None = None,
        query_share: float | Literal["length"] = 0.5,
        geometric_p: float = 0.2,
        max_words: int = 10,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        query_probability = self.mlm_probability if query_probability is None else query_probability
        if not 0 < query_probability <= 1:
            raise ValueError(f"query_probability must lie in (0, 1], got {query_probability}")
        if query_share != "length" and (isinstance(query_share, str) or not 0 <= query_share <= 1):
            raise ValueError(f"query_share is a probability, or 'length'; got {query_share!r}")
        self.query_probability, self.query_share = float(query_probability), query_share
        self._lengths = geometric_table(geometric_p, max_words)

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose a side of each row, and spans of its words."""
        starts = word_starts(batch, eligible)
        first = np.flatnonzero(starts & eligible)  # of each word
        row = np.searchsorted(batch.offsets, first, side="right") - 1
        of_product = first > first_separators(batch, self.separator)[row]
        # A text without a second side is a product's (a plain document, or the rest of a pair that was cut).
        of_product |= np.bincount(row[of_product], minlength=len(batch))[row] == 0
        in_query = self._choose_sides(
            np.bincount(row[~of_product], minlength=len(batch)), np.bincount(row[of_product], minlength=len(batch)), rng
        )
        chosen = of_product != in_query[row]
        share = np.where(in_query, self.query_probability, self.mlm_probability)
        words = np.bincount(row[chosen], minlength=len(batch))
        inside = np.zeros(len(first), dtype=bool)
        inside[chosen] = spread_spans(words, share, self._lengths, rng)
        units = number_units(starts)
        of_unit = np.zeros(int(units[-1]) + 1, dtype=bool)
        of_unit[units[first]] = inside
        labelled = np.bincount(row[inside], minlength=len(batch)) > 0
        self.stats = {"query_rows": int(in_query.sum()), "rows_without_labels": int((~labelled).sum())}
        masked = of_unit[units]
        if not self.per_span:
            return Selection(masked)
        changes = np.ones(len(starts), dtype=bool)
        changes[1:] = ~(masked[1:] & masked[:-1])
        return Selection(masked, number_units(changes | row_starts(batch)))

    def _choose_sides(self, query: np.ndarray, product: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Rows masked in the query, bool `[D]`, from the words of both sides."""
        share = query / np.maximum(query + product, 1) if self.query_share == "length" else self.query_share
        return ((open_uniform(rng, len(query)) < share) & (query > 0)) | (product == 0)


class QueryProductRelevanceCollator(PairCollator):
    """Whole pairs with their relevance as the label, nothing masked: the paper's FT* variant (section 3.1).

    `labels` is int64 `[D]`, 1 where the relevance of the row's fields is at least `relevant_from`.

    Args:
        tokenizer: as in `MaskingCollator`, with a separator token.
        mlm_probability: not used.
        relevant_from: least relevance of a relevant pair.
        **options: the options of `PairCollator`.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        relevant_from: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, **options)
        self.relevant_from = relevant_from

    def __call__(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> dict[str, Any]:
        """Batch pairs.

        Args:
            rows: row dicts or a `RowBatch`, with spans of the kind "field".

        Raises:
            ValueError: if a row has no field, hence no relevance.
        """
        labels = relevances(RowBatch.from_rows(rows)) >= self.relevant_from
        batch, _ = self.prepare(rows)
        input_ids = batch.input_ids.astype(np.int64)
        out = self.emit(batch, input_ids, np.full_like(input_ids, -100))
        return out | {"labels": torch.from_numpy(labels).long()}
