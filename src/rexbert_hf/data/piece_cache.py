"""Tokens of white-space pieces: each piece meets the tokenizer once and is looked up from then on.

A model of tokens sees one pre-token at a time, and no pre-token of the common pre-tokenizers crosses a single space
between two words. So the tokens of " lamp" are the same in every text, and shop text repeats itself: the tokenizer is
asked for the pieces that are new, numpy joins the rest. The answer is the tokenizer's own, ids, words and characters;
tokenizers for which that cannot be told from their parts are not served (`splits_at_spaces`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer

from rexbert_hf.data.buffers import ranges
from rexbert_hf.data.rows import offsets_of

_SPLITTERS = ("BertPreTokenizer", "Whitespace", "WhitespaceSplit")
_AFTER_SPLITTERS = (*_SPLITTERS, "ByteLevel", "Digits", "Punctuation")
_NORMALISERS = ("NFC", "NFD", "Lowercase")
_SPACING_NORMALISERS = (*_NORMALISERS, "NFKC", "NFKD", "StripAccents", "BertNormalizer", "Precompiled")
"""These may make a piece begin or end with white space, or vanish: harmless where white space is dropped."""
_MODELS = ("BPE", "WordPiece", "WordLevel", "Unigram")
_BEFORE_A_WORD = re.compile(r"(?<=\S)(?= \S)")
_ANCHOR = "x"
"""A word before pieces that do not begin their text, because some tokenizers treat the beginning in their own way."""
_JOINED = 64
MAX_TOKENS = 2_000_000
"""Beyond so many tokens (64 MB, and the pieces' strings) everything is forgotten."""


@dataclass
class Tokens:
    """Tokens of N texts, one text after the other.

    Attributes:
        offsets: first token of each text, and the end; int64 `[N + 1]`.
        ids: `[T]`.
        words: word of each token, counted in its text, -1 for special tokens; `[T]`.
        chars: first character, and one past the last; `[T, 2]`.
    """

    offsets: np.ndarray
    ids: np.ndarray
    words: np.ndarray
    chars: np.ndarray

    @classmethod
    def of(cls, encodings: list[Encoding]) -> Tokens:
        """Copy what a tokenizer answered.

        Args:
            encodings: of the texts.
        """
        offsets = offsets_of(np.array([len(encoding) for encoding in encodings], dtype=np.int64))
        total = int(offsets[-1])
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.int32, count=total)
        flat = (-1 if word is None else word for word in chain.from_iterable(e.word_ids for e in encodings))
        words = np.fromiter(flat, dtype=np.int32, count=total)
        pairs = chain.from_iterable(chain.from_iterable(e.offsets for e in encodings))
        return cls(offsets, ids, words, np.fromiter(pairs, dtype=np.int64, count=2 * total).reshape(-1, 2))

    def select(self, rows: np.ndarray) -> Tokens:
        """Some of the texts.

        Args:
            rows: their numbers.
        """
        lengths = np.diff(self.offsets)[rows]
        at = ranges(self.offsets[rows], lengths)
        return Tokens(offsets_of(lengths), self.ids[at], self.words[at], self.chars[at])

    def framed(self, prefix: list[int], suffix: list[int]) -> Tokens:
        """Special tokens around each text.

        Args:
            prefix: ids before it.
            suffix: ids after it.
        """
        extra = len(prefix) + len(suffix)
        lengths = np.diff(self.offsets) + extra
        offsets = offsets_of(lengths)
        body = ranges(offsets[:-1] + len(prefix), lengths - extra)
        ids = np.empty(int(offsets[-1]), dtype=np.int32)
        words = np.full(len(ids), -1, dtype=np.int32)
        chars = np.zeros((len(ids), 2), dtype=np.int64)
        ids[body], words[body], chars[body] = self.ids, self.words, self.chars
        for i, token in enumerate(prefix):
            ids[offsets[:-1] + i] = token
        for i, token in enumerate(reversed(suffix)):
            ids[offsets[1:] - 1 - i] = token
        return Tokens(offsets, ids, words, chars)


def splits_at_spaces(tokenizer: Mapping[str, Any]) -> bool:
    """Whether the tokens of " word" do not depend on the words around it.

    Args:
        tokenizer: the content of a tokenizer.json.

    Example:
        >>> whitespace = {"type": "Whitespace"}
        >>> splits_at_spaces({"model": {"type": "BPE"}, "pre_tokenizer": whitespace, "normalizer": {"type": "NFC"}})
        True
        >>> splits_at_spaces({"model": {"type": "BPE"}, "pre_tokenizer": whitespace, "normalizer": {"type": "Replace"}})
        False
    """
    model = tokenizer.get("model") or {}
    if model.get("type") not in _MODELS or model.get("dropout"):
        return False
    if any(_crosses(token) and token.get("normalized") for token in tokenizer.get("added_tokens") or ()):
        return False
    first, *rest = _sequence(tokenizer.get("pre_tokenizer"), "pretokenizers") or [{}]
    keeps_spaces = first.get("type") == "ByteLevel" and first.get("use_regex", True)
    if not keeps_spaces and first.get("type") not in _SPLITTERS:
        return False
    harmless = _NORMALISERS if keeps_spaces else _SPACING_NORMALISERS
    if any(part["type"] not in harmless for part in _sequence(tokenizer.get("normalizer"), "normalizers")):
        return False
    return all(part["type"] in _AFTER_SPLITTERS or _is_plain_metaspace(part) for part in rest)


def _sequence(part: Mapping[str, Any] | None, name: str) -> list[dict[str, Any]]:
    if not part:
        return []
    if part.get("type") != "Sequence":
        return [dict(part)]
    return [inner for each in part[name] for inner in _sequence(each, name)]


def _is_plain_metaspace(part: Mapping[str, Any]) -> bool:
    return part["type"] == "Metaspace" and part.get("prepend_scheme", "always") != "first"


def _crosses(token: Mapping[str, Any]) -> bool:
    """Whether an added token may take the space before or after it, or has words of its own."""
    content = token["content"]
    inside = bool(content.strip()) and " " in content
    return bool(token.get("lstrip") or token.get("rstrip") or inside)


class PieceCache:
    """A tokenizer that remembers pieces.

    Args:
        tokenizer: without truncation and padding, for which `splits_at_spaces`.

    Example:
        >>> from tokenizers import models, pre_tokenizers
        >>> tokenizer = Tokenizer(models.WordLevel({"red": 0, "lamp": 1, "?": 2}, "?"))
        >>> tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokens = PieceCache(tokenizer).encode(["red lamp", "lamp"])
        >>> tokens.ids.tolist(), tokens.words.tolist(), tokens.chars.tolist()
        ([0, 1, 1], [0, 1, 0], [[0, 3], [4, 8], [0, 4]])
    """

    @classmethod
    def for_tokenizer(cls, tokenizer: Tokenizer) -> PieceCache | None:
        """A cache, or None where a tokenizer must see texts whole.

        Args:
            tokenizer: without truncation and padding.
        """
        fits = splits_at_spaces(json.loads(tokenizer.to_str())) and all(_anchor_tokens(tokenizer))
        return cls(tokenizer) if fits else None

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        added = json.loads(tokenizer.to_str()).get("added_tokens") or ()
        self._crossing = tuple(token["content"] for token in added if _crosses(token))
        self._anchors = _anchor_tokens(tokenizer)
        self._forget()

    def _forget(self) -> None:
        self._heads: dict[str, int] = {}
        self._tails: dict[str, int] = {}
        self._tokens = _Table()
        """Id, word in the piece, first character in the piece, one past the last."""
        self._pieces = _Table()
        """First token, number of tokens, of words, of characters."""

    def encode(self, texts: list[str]) -> Tokens:
        """What the tokenizer answers for these texts, without special tokens.

        Args:
            texts: any.

        Raises:
            UnicodeEncodeError, TypeError: for lone surrogates, as the tokenizer itself.
        """
        if self._tokens.size > MAX_TOKENS:
            self._forget()
        split = [self._split(text) for text in texts]
        counts = np.fromiter(map(len, split), dtype=np.int64, count=len(split))
        first = offsets_of(counts)
        is_tail = np.ones(int(first[-1]), dtype=bool)
        is_tail[first[:-1]] = False
        piece = np.empty(len(is_tail), dtype=np.int64)
        piece[~is_tail] = self._find([parts[0] for parts in split], self._heads, tail=False)
        piece[is_tail] = self._find(list(chain.from_iterable(parts[1:] for parts in split)), self._tails, tail=True)
        start, length, words, chars = self._pieces.rows[piece].T
        lengths = offsets_of(length)
        tokens = self._tokens.rows[ranges(start, length)]
        of_piece = np.repeat(np.arange(len(piece)), length)
        word_base, char_base = _counted_within(words, first, counts), _counted_within(chars, first, counts)
        return Tokens(
            lengths[first],
            tokens[:, 0].astype(np.int32),
            (tokens[:, 1] + word_base[of_piece]).astype(np.int32),
            tokens[:, 2:] + char_base[of_piece, None],
        )

    def _split(self, text: str) -> list[str]:
        """Pieces of a text, without the space that all but the first begin with."""
        if self._crosses(text):
            return [text]
        if text.isprintable() and "  " not in text and text[:1] != " " and text[-1:] != " ":
            return text.split(" ")  # no other white space, and a word on both sides of each space
        head, *tails = _BEFORE_A_WORD.split(text)
        return [head, *(tail[1:] for tail in tails)]

    def _crosses(self, text: str) -> bool:
        return any(token in text for token in self._crossing)

    def _find(self, pieces: list[str], known: dict[str, int], *, tail: bool) -> np.ndarray:
        """Numbers of pieces, those that are new learned first."""
        new = set(pieces) - known.keys()
        # Only before a word may a text be cut: a piece that ends in white space (a text's last one) is asked for alone.
        joined = [piece for piece in new if tail and not piece[-1].isspace()]
        alone = [[piece] for piece in new.difference(joined)]
        self._learn([joined[i : i + _JOINED] for i in range(0, len(joined), _JOINED)] + alone, known, tail)
        return np.fromiter(map(known.__getitem__, pieces), dtype=np.int64, count=len(pieces))

    def _learn(self, groups: list[list[str]], known: dict[str, int], tail: bool) -> None:
        """Ask the tokenizer for pieces, those of a group in one text, because each answer costs as much as many tokens.

        A word that the vocabulary cannot say has no token, and nothing tells which piece of a group it was in: pieces
        of a group that lacks one are asked for alone.
        """
        if not groups:
            return
        # A text may go on after them.
        closed = np.array([not group[-1][-1:].isspace() and not self._crosses(group[-1]) for group in groups])
        asked = [
            " ".join([*[_ANCHOR][: int(tail)], *group, *[_ANCHOR][: int(close)]])
            for group, close in zip(groups, closed.tolist(), strict=True)
        ]
        tokens = Tokens.of(self.tokenizer.encode_batch(asked, add_special_tokens=False))
        front, back = np.full(len(groups), self._anchors[0] * tail), self._anchors[1] * closed
        body = ranges(tokens.offsets[:-1] + front, np.diff(tokens.offsets) - front - back)
        of_group = np.repeat(np.arange(len(groups)), np.diff(tokens.offsets))[body]
        ids, words, chars = tokens.ids[body], tokens.words[body].astype(np.int64) - tail, tokens.chars[body]
        # Words of a group: what the word after it is numbered.
        after = np.zeros(len(groups), dtype=np.int64)
        after[closed] = tokens.words[(tokens.offsets[1:] - back)[closed]] - tail

        sizes = np.fromiter(map(len, groups), dtype=np.int64, count=len(groups))
        piece_group = np.repeat(np.arange(len(groups)), sizes)
        lengths = np.fromiter(map(len, chain.from_iterable(groups)), dtype=np.int64) + tail
        line = offsets_of(np.fromiter(map(len, asked), dtype=np.int64, count=len(asked)))[:-1]
        first_piece = offsets_of(sizes)
        start = _counted_within(lengths, first_piece, sizes) + line[piece_group] + len(_ANCHOR) * tail
        chars = chars + line[of_group, None]
        # A token that begins with the space before its word lies where its last character does; one of white space at
        # the end of a text may have no character.
        owner = np.searchsorted(start, np.maximum(chars[:, 1] - 1, chars[:, 0]), side="right") - 1
        owner = np.minimum(owner, first_piece[1:][of_group] - 1)
        counts = np.bincount(owner, minlength=len(start))
        first = offsets_of(counts)[:-1]
        word_counts = np.zeros(len(start), dtype=np.int64)
        np.maximum.at(word_counts, owner, words - words[first[owner]] + 1)
        alone = np.repeat((sizes == 1) & closed, sizes)
        word_counts[alone] = after[piece_group[alone]]
        base = _counted_within(word_counts, first_piece, sizes)
        whole = (np.add.reduceat(word_counts, first_piece[:-1]) == after) | (sizes == 1)

        keep = whole[piece_group]
        self._tokens.add(np.column_stack([ids, words - base[owner], chars - start[owner, None]])[keep[owner]])
        learned = np.column_stack([counts, word_counts, lengths])[keep]
        begin = self._tokens.size - int(learned[:, 0].sum()) + offsets_of(learned[:, 0])[:-1]
        pieces = [piece for group, good in zip(groups, whole.tolist(), strict=True) if good for piece in group]
        known.update(zip(pieces, range(self._pieces.size, self._pieces.size + len(pieces)), strict=True))
        self._pieces.add(np.column_stack([begin, learned]))
        lacking = [group for group, good in zip(groups, whole.tolist(), strict=True) if not good]
        self._learn([[piece] for group in lacking for piece in group], known, tail)


def _anchor_tokens(tokenizer: Tokenizer) -> tuple[int, int]:
    """Tokens of the anchor at the beginning of a text, and after another word."""
    one, two = (len(tokenizer.encode(text, add_special_tokens=False)) for text in (_ANCHOR, f"{_ANCHOR} {_ANCHOR}"))
    return one, two - one


def _counted_within(values: np.ndarray, first: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sum of the values before each piece in its own text."""
    before = offsets_of(values)
    return before[:-1] - np.repeat(before[first[:-1]], counts)


class _Table:
    """Rows of four int64 that grow in place."""

    def __init__(self) -> None:
        self._data = np.empty((1024, 4), dtype=np.int64)
        self.size = 0

    @property
    def rows(self) -> np.ndarray:
        return self._data[: self.size]

    def add(self, rows: np.ndarray) -> None:
        if self.size + len(rows) > len(self._data):
            grown = np.empty((max(2 * len(self._data), self.size + len(rows)), 4), dtype=np.int64)
            grown[: self.size] = self.rows
            self._data = grown
        self._data[self.size : self.size + len(rows)] = rows
        self.size += len(rows)
