"""Query-product pairs to Arrow rows: `[CLS] query [SEP] product [SEP]`, with word ids and the fields of both sides.

A long side is cut at its own limit, so that a row always shows both: a pair is never cut into pieces. The fields are
spans of the kind "field", whose score is the pair's relevance; collators permute them (`masking.pair_rows`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from rexbert_hf.data.encode import TextEncoder, plain_backend
from rexbert_hf.data.piece_cache import PieceCache
from rexbert_hf.data.rows import FIELD
from rexbert_hf.data.span_counts import SpanCounts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BETWEEN_FIELDS = " . "
"""Stands between two fields of a side."""


@dataclass
class PairEncoder(TextEncoder):
    """What turns pairs into rows; a pair is {"query": fields, "product": fields, "relevance": number or None}.

    Attributes:
        before: special tokens before the query.
        between: special tokens between query and product.
        after: special tokens after the product.
        max_query_tokens: the query is cut there.
        max_tokens: the row is cut there, at the end of the product.
    """

    before: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    max_query_tokens: int = 64
    max_tokens: int = 256

    @classmethod
    def of_pairs(
        cls, tokenizer: PreTrainedTokenizerBase, max_query_tokens: int = 64, max_tokens: int = 256
    ) -> PairEncoder:
        """Copy what is needed of a fast tokenizer.

        Args:
            tokenizer: with a separator token.
            max_query_tokens: longest query, in tokens.
            max_tokens: longest row, special tokens included.

        Raises:
            ValueError: if the tokenizer is slow or has no separator token, or the limits leave no token for a product.

        Example:
            >>> from tokenizers import Tokenizer, models, pre_tokenizers
            >>> from transformers import PreTrainedTokenizerFast
            >>> words = models.WordLevel({"[CLS]": 0, "[SEP]": 1, "red": 2, "mug": 3, ".": 4, "[UNK]": 5}, "[UNK]")
            >>> backend = Tokenizer(words)
            >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
            >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]")
            >>> rows, _, _ = PairEncoder.of_pairs(tokenizer).encode([{"query": ["mug"], "product": ["red", "mug"]}])
            >>> row = rows.to_pylist()[0]
            >>> row["input_ids"], row["word_ids"], row["span_start"]
            ([0, 3, 1, 2, 4, 3, 1], [-1, 0, -1, 1, 2, 3, -1], [1, 3, 5])
        """
        plain = TextEncoder.from_tokenizer(tokenizer)
        before, between, after = pair_specials(tokenizer)
        if max_query_tokens < 1 or max_tokens < max_query_tokens + len(before) + len(between) + len(after) + 8:
            raise ValueError(
                f"max_tokens={max_tokens} leaves less than 8 tokens for a product beside a query of"
                f" {max_query_tokens} tokens: raise it, or lower max_query_tokens"
            )
        return cls(
            plain.tokenizer_json,
            plain.special_ids,
            (),
            plain.min_tokens,
            len(before),
            len(after),
            plain.unknown_id,
            before=before,
            between=between,
            after=after,
            max_query_tokens=max_query_tokens,
            max_tokens=max_tokens,
        )

    @property
    def options(self) -> str:
        """Limits and special tokens."""
        return repr((self.before, self.between, self.after, self.max_query_tokens, self.max_tokens))

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer, built on first use in each process; text that looks like a special token stays text."""
        if self._backend is None:
            self._backend = Tokenizer.from_str(self.tokenizer_json)
            self._backend.encode_special_tokens = True
            self._pieces = PieceCache.for_tokenizer(self._backend)
        return self._backend

    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        fields = [(name, pa.list_(pa.int32())) for name in ("input_ids", "word_ids", "span_start", "span_end")]
        return pa.schema([*fields, ("span_score", pa.list_(pa.float32())), ("span_kind", pa.list_(pa.int8()))])

    def encode(self, texts: Sequence[Any]) -> tuple[pa.RecordBatch, Counter[str], SpanCounts]:
        """Rows of the pairs that have both sides, how many were skipped, and how many fields were marked."""
        skipped: Counter[str] = Counter()
        counts: SpanCounts = Counter()
        pairs = [(_fields(pair, "query"), _fields(pair, "product"), pair) for pair in texts]
        queries = self._sides([query for query, _, _ in pairs])
        products = self._sides([product for _, product, _ in pairs])
        columns: dict[str, list[Any]] = {name: [] for name in self.schema().names}
        for query, product, (_, _, pair) in zip(queries, products, pairs, strict=True):
            if not len(query.ids) or not len(product.ids):
                skipped["without query" if not len(query.ids) else "without product"] += 1
                continue
            room = self.max_tokens - len(self.before) - len(self.between) - len(self.after)
            counts["pairs", "cut queries"] += len(query.ids) > self.max_query_tokens
            query = query.cut(self.max_query_tokens)
            counts["pairs", "cut products"] += len(product.ids) > room - len(query.ids)
            self._add(columns, query, product.cut(room - len(query.ids)), pair.get("relevance"))
        batch = pa.RecordBatch.from_arrays(
            [pa.array(columns[field.name], field.type) for field in self.schema()], schema=self.schema()
        )
        counts["spans", "field"] = sum(len(starts) for starts in columns["span_start"])
        counts["rows", "field"] = len(columns["input_ids"])
        return batch, +skipped, +counts

    def _sides(self, fields: Sequence[list[str]]) -> list[_Side]:
        _, tokens = self.tokens([BETWEEN_FIELDS.join(parts) for parts in fields], special=False)
        found = []
        for parts, begin, end in zip(fields, tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
            ids, words, offsets = tokens.ids[begin:end], tokens.words[begin:end], tokens.chars[begin:end]
            ends = np.cumsum([len(part) + len(BETWEEN_FIELDS) for part in parts]) - len(BETWEEN_FIELDS)
            begins = ends - [len(part) for part in parts]
            # A token that begins with the space before its word lies where its last character does.
            last = np.maximum(offsets[:, 1] - 1, offsets[:, 0])
            first = np.searchsorted(last, begins, side="left")
            stop = np.searchsorted(last, ends, side="left")
            keep = first < stop
            found.append(_Side(ids, words, first[keep], stop[keep]))
        return found

    def _add(self, columns: dict[str, list[Any]], query: _Side, product: _Side, relevance: float | None) -> None:
        after_query = len(self.before) + len(query.ids)
        shift = after_query + len(self.between)
        next_word = int(query.words.max(initial=-1)) + 1
        product_words = np.where(product.words < 0, -1, product.words + next_word)
        specials = [np.full(len(part), -1) for part in (self.before, self.between, self.after)]
        columns["input_ids"].append(
            np.concatenate([self.before, query.ids, self.between, product.ids, self.after]).astype(np.int32)
        )
        columns["word_ids"].append(
            np.concatenate([specials[0], query.words, specials[1], product_words, specials[2]]).astype(np.int32)
        )
        start = np.concatenate([query.first + len(self.before), product.first + shift])
        columns["span_start"].append(start.astype(np.int32))
        stop = np.concatenate([query.stop + len(self.before), product.stop + shift])
        columns["span_end"].append(stop.astype(np.int32))
        columns["span_score"].append(np.full(len(start), 1.0 if relevance is None else relevance, dtype=np.float32))
        columns["span_kind"].append(np.full(len(start), FIELD, dtype=np.int8))


@dataclass
class _Side:
    """Tokens of one side, their words, and its fields as token ranges."""

    ids: np.ndarray
    words: np.ndarray
    first: np.ndarray
    stop: np.ndarray

    def cut(self, length: int) -> _Side:
        if len(self.ids) <= length:
            return self
        keep = self.first < length
        return _Side(self.ids[:length], self.words[:length], self.first[keep], np.minimum(self.stop[keep], length))


def _fields(pair: Mapping[str, Any], side: str) -> list[str]:
    texts = pair.get(side) or ()
    return [" ".join(text.split()) for text in texts if isinstance(text, str) and text.strip()]


def pair_specials(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Special tokens before, between and after a pair of texts, as the tokenizer's own template has them.

    Without a template that parts two texts it is [CLS] first [SEP] second [SEP].

    Args:
        tokenizer: any tokenizer; a fast one shows its template.

    Raises:
        ValueError: if it has no separator token.
    """
    if tokenizer.sep_token_id is None:
        raise ValueError(
            "the tokenizer has no separator token, which stands between query and product: "
            "tokenizer.add_special_tokens({'sep_token': '[SEP]'}), then resize the model's embeddings"
        )
    separator = int(tokenizer.sep_token_id)
    if getattr(tokenizer, "is_fast", False):
        encoding = plain_backend(tokenizer).encode("a", "a")
        parts: list[int | None] = list(encoding.sequence_ids)
        if 0 in parts and 1 in parts:
            ends = parts.index(0), len(parts) - parts[::-1].index(0), parts.index(1), len(parts) - parts[::-1].index(1)
            between = tuple(encoding.ids[ends[1] : ends[2]])
            if separator in between:
                return tuple(encoding.ids[: ends[0]]), between, tuple(encoding.ids[ends[3] :])
    start = () if tokenizer.cls_token_id is None else (int(tokenizer.cls_token_id),)
    return start, (separator,), (separator,)
