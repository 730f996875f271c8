"""Texts to Arrow rows: token ids, word ids, and guide spans mapped from characters to tokens.

Everything that needs text happens here, once. Words are what the tokenizer's pre-tokenizer says; a tokenizer without
one (some SentencePiece conversions see a text as a single word) gets words from white space instead.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa
from tokenizers import Tokenizer

from rexbert_hf.data.piece_cache import PieceCache, Tokens
from rexbert_hf.data.rows import SPAN_KINDS, offsets_of
from rexbert_hf.data.span_counts import SpanCounts, count_spans

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CharSpan: TypeAlias = tuple[int, int, float, str]
Guide: TypeAlias = Callable[[list[str]], Sequence[Sequence[CharSpan]]]
"""Marks spans in texts: (first character, one past the last, score in [0, 1], kind)."""

_KIND_INDEX = {name: i for i, name in enumerate(SPAN_KINDS)}
_WORD = re.compile(r"\S+")


@dataclass
class TextEncoder:
    """What turns texts into rows; travels to worker processes.

    Attributes:
        tokenizer_json: the tokenizer without truncation and padding.
        special_ids: ids that get word id -1 wherever they stand.
        guides: callables that mark spans.
        min_tokens: shorter documents (special tokens included) are skipped.
        num_prefix: special tokens before the text.
        num_suffix: special tokens after it.
        unknown_id: the token of what the vocabulary cannot say; -1 where there is none.
    """

    tokenizer_json: str
    special_ids: tuple[int, ...]
    guides: tuple[Guide, ...] = ()
    min_tokens: int = 3
    num_prefix: int = 0
    num_suffix: int = 0
    unknown_id: int = -1
    _backend: Tokenizer | None = field(default=None, repr=False)
    _pieces: PieceCache | None = field(default=None, repr=False)

    @classmethod
    def from_tokenizer(
        cls, tokenizer: PreTrainedTokenizerBase, guides: Sequence[Guide] = (), min_tokens: int = 3
    ) -> TextEncoder:
        """Copy what is needed of a fast tokenizer.

        Raises:
            ValueError: if the tokenizer is a slow (Python) one.
        """
        if not getattr(tokenizer, "is_fast", False):
            raise ValueError(
                f"{type(tokenizer).__name__} is a slow (Python) tokenizer without word boundaries and offsets: load "
                "the fast one (a folder or repository with tokenizer.json)"
            )
        backend = plain_backend(tokenizer)
        prefix, suffix = _special_counts(backend)
        special = tuple(sorted(tokenizer.all_special_ids))
        unknown = -1 if tokenizer.unk_token_id is None else int(tokenizer.unk_token_id)
        return cls(backend.to_str(), special, tuple(guides), min_tokens, prefix, suffix, unknown)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_backend": None, "_pieces": None}

    @property
    def tokenizer_fingerprint(self) -> str:
        """A hash of the tokenizer."""
        return hashlib.sha256(self.tokenizer_json.encode()).hexdigest()[:16]

    @property
    def options(self) -> str:
        """What else decides the rows; a subclass with options of its own names them."""
        return ""

    @property
    def backend(self) -> Tokenizer:
        """The tokenizer, built on first use in each process."""
        if self._backend is None:
            self._backend = Tokenizer.from_str(self.tokenizer_json)
            self._pieces = PieceCache.for_tokenizer(self._backend)
        return self._backend

    def schema(self) -> pa.Schema:
        """Columns of the rows."""
        fields = [("input_ids", pa.list_(pa.int32())), ("word_ids", pa.list_(pa.int32()))]
        if self.guides:
            fields += [("span_start", pa.list_(pa.int32())), ("span_end", pa.list_(pa.int32()))]
            fields += [("span_score", pa.list_(pa.float32())), ("span_kind", pa.list_(pa.int8()))]
        return pa.schema(fields)

    def encode(self, texts: Sequence[Any]) -> tuple[pa.RecordBatch, Counter[str], SpanCounts]:
        """Rows of the texts that are kept, how many were skipped for which reason, and what was marked."""
        skipped: Counter[str] = Counter()
        kept: list[str] = []
        for text in texts:
            if not isinstance(text, str):
                skipped["not text"] += 1
            elif not text.strip():
                skipped["empty"] += 1
            else:
                kept.append(text)
        kept, tokens = self.tokens(kept)
        long = np.flatnonzero(np.diff(tokens.offsets) >= self.min_tokens)
        if len(long) < len(kept):
            skipped["too short"] += len(kept) - len(long)
            kept, tokens = [kept[row] for row in long.tolist()], tokens.select(long)
        rows, spans = self._rows(kept, tokens)
        return rows, +skipped, spans

    def tokens(self, texts: list[str], special: bool = True) -> tuple[list[str], Tokens]:
        """Texts as they were tokenised, and their tokens; words of special tokens are -1.

        Args:
            texts: any; a lone surrogate, which has no UTF-8 form, becomes "?", so that character positions stay.
            special: whether special tokens are put around each.
        """
        try:
            found = self._tokens(texts, special)
        except (UnicodeEncodeError, TypeError):
            texts = [text.encode("utf-8", "replace").decode("utf-8") for text in texts]
            found = self._tokens(texts, special)
        found.words[np.isin(found.ids, self.special_ids)] = -1
        return texts, found

    def _tokens(self, texts: list[str], special: bool) -> Tokens:
        backend = self.backend
        if self._pieces is not None:
            tokens = self._pieces.encode(texts)
            return tokens.framed(*self._frame()) if special else tokens
        tokens = Tokens.of(backend.encode_batch(texts, add_special_tokens=special))
        if backend.pre_tokenizer is None:
            tokens.words[:] = -1
            around = (self.num_prefix, self.num_suffix) if special else (0, 0)
            for text, first, end in zip(texts, tokens.offsets[:-1].tolist(), tokens.offsets[1:].tolist(), strict=True):
                body = slice(first + around[0], end - around[1])
                tokens.words[body] = white_space_words(text, tokens.chars[body, 1])
        return tokens

    def _frame(self) -> tuple[list[int], list[int]]:
        """Special tokens before and after a text."""
        ids = self.backend.encode("a").ids
        return ids[: self.num_prefix], ids[len(ids) - self.num_suffix :]

    def _rows(self, texts: list[str], tokens: Tokens) -> tuple[pa.RecordBatch, SpanCounts]:
        columns = [_lists(tokens.offsets, tokens.ids), _lists(tokens.offsets, tokens.words)]
        counts: SpanCounts = Counter()
        if self.guides:
            spans, counts = self._spans(texts, tokens.offsets, tokens.chars, tokens.ids)
            columns += spans
        return pa.RecordBatch.from_arrays(columns, schema=self.schema()), counts

    def _spans(
        self, texts: list[str], offsets: np.ndarray, chars: np.ndarray, ids: np.ndarray
    ) -> tuple[list[pa.Array], SpanCounts]:
        """The four span columns, and counts: each span covers every token that it touches.

        A span of unknown tokens alone says nothing that could be predicted: it is left out.
        """
        found = _guide_spans(texts, self.guides)
        document, begin, end, score, kind = found
        # One line of characters for all texts, so that all spans are looked up at once. Special tokens are left out.
        text_start = offsets_of(np.array([len(text) + 1 for text in texts], dtype=np.int64))[:-1]
        bodies = np.diff(offsets) - self.num_prefix - self.num_suffix
        owner = np.repeat(np.arange(len(texts)), bodies)
        body_offsets = offsets_of(bodies)
        position = np.arange(body_offsets[-1]) - body_offsets[owner] + self.num_prefix
        body = position + offsets[owner]
        token_begin = np.maximum.accumulate(chars[body, 0] + text_start[owner])
        token_end = np.maximum.accumulate(chars[body, 1] + text_start[owner])
        first = np.searchsorted(token_end, begin + text_start[document], side="right")
        last = np.searchsorted(token_begin, end + text_start[document], side="left")
        known = offsets_of(ids[body] != self.unknown_id)
        keep = np.flatnonzero(known[last] > known[first])
        counts = count_spans(kind[keep].astype(np.int64), document[keep], len(texts))
        counts["left out", "no token"] += int((first >= last).sum())
        counts["left out", "unknown tokens"] += int((first < last).sum()) - len(keep)
        keep = keep[np.lexsort((last[keep], first[keep]))]
        document, shift = document[keep], self.num_prefix - body_offsets[document[keep]]
        rows = offsets_of(np.bincount(document, minlength=len(texts)))
        columns = [
            _lists(rows, (first[keep] + shift).astype(np.int32)),
            _lists(rows, (last[keep] + shift).astype(np.int32)),
            _lists(rows, score[keep].astype(np.float32)),
            _lists(rows, kind[keep].astype(np.int8)),
        ]
        return columns, +counts


def white_space_words(text: str, ends: np.ndarray) -> np.ndarray:
    """Word of each token, words being what stands between white space; int64 `[T]`.

    The last character decides: a token like "_lamp" may begin with the space before its word.

    Args:
        text: the text.
        ends: one past the last character of each token.

    Example:
        >>> white_space_words("red lamp", np.array([3, 6, 8])).tolist()
        [0, 1, 1]
    """
    starts = np.array([match.start() for match in _WORD.finditer(text)])
    return np.maximum(np.searchsorted(starts, ends - 1, side="right") - 1, 0)


def _lists(offsets: np.ndarray, values: np.ndarray) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values))


def plain_backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """A copy of a fast tokenizer's backend that neither pads nor cuts, whatever its file or an earlier call set.

    Args:
        tokenizer: a fast one.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _special_counts(backend: Tokenizer) -> tuple[int, int]:
    """Special tokens that the post-processor puts before and after a text."""
    parts = backend.encode("a").sequence_ids
    inside = [i for i, sequence in enumerate(parts) if sequence is not None]
    if not inside:
        raise ValueError("the tokenizer makes no token of the text 'a'; is its vocabulary empty?")
    return inside[0], len(parts) - 1 - inside[-1]


def _guide_spans(texts: list[str], guides: Sequence[Guide]) -> tuple[np.ndarray, ...]:
    """Document, begin, end, score and kind of all spans, checked."""
    documents: list[int] = []
    spans: list[tuple[int, int, float, int]] = []
    for guide in guides:
        marked = guide(texts)
        name = type(guide).__name__
        if len(marked) != len(texts):
            raise ValueError(f"guide {name} answered {len(marked)} lists for {len(texts)} texts")
        for document, found in enumerate(marked):
            for begin, end, score, kind in found:
                if kind not in _KIND_INDEX:
                    raise ValueError(f"guide {name}: unknown kind '{kind}'; known are {', '.join(SPAN_KINDS)}")
                if not (0 <= begin < end <= len(texts[document]) and 0 <= score <= 1):
                    raise ValueError(
                        f"guide {name}: span {(begin, end, score)} needs 0 <= start < end <= {len(texts[document])} "
                        "and a score in [0, 1]"
                    )
                documents.append(document)
                spans.append((begin, end, score, _KIND_INDEX[kind]))
    table = np.array(spans, dtype=np.float64).reshape(-1, 4)
    where = np.array(documents, dtype=np.int64)
    return where, table[:, 0].astype(np.int64), table[:, 1].astype(np.int64), table[:, 2], table[:, 3]
