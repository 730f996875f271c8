"""Pieces of text with whole words masked, so that every tokenizer is asked for the same bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

PIECE_CHARACTERS = 240


@dataclass(frozen=True)
class MaskedPiece:
    """A piece with masked words.

    Attributes:
        ids: token ids with special tokens and masks.
        places: masked tokens, rising, `[M]`.
        targets: the tokens that were there, `[M]`.
        weights: bytes of the masked words that each of them stands for, float64 `[M]`.
        bytes: of the masked words, whatever tokens stand for them.
    """

    ids: list[int]
    places: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    bytes: int


def cut(text: str, most: int = PIECE_CHARACTERS) -> Iterator[str]:
    """Pieces of at most so many characters, cut between words; a longer word is a piece of its own.

    Args:
        text: any.
        most: characters of a piece.

    Example:
        >>> list(cut("a red mug and a desk", 9))
        ['a red mug', 'and a', 'desk']
    """
    piece = ""
    for word in text.split():
        if piece and len(piece) + 1 + len(word) > most:
            yield piece
            piece = ""
        piece = f"{piece} {word}" if piece else word
    if piece:
        yield piece


def drawn_words(piece: str, rate: float, seed: int) -> list[tuple[int, int]]:
    """First and one past the last character of the words that are masked: a function of the piece alone.

    Args:
        piece: text.
        rate: share of the words.
        seed: of the draw.

    Example:
        >>> drawn_words("a red mug", 1.0, 0)
        [(0, 1), (2, 5), (6, 9)]
    """
    digest = hashlib.sha1(f"{seed}\0{piece}".encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    words = [match.span() for match in re.finditer(r"\S+", piece)]
    return [span for span, draw in zip(words, rng.random(len(words)), strict=True) if draw < rate]


def pieces_of(texts: Sequence[str], rate: float, seed: int) -> list[tuple[int, str, list[tuple[int, int]]]]:
    """Number of the text, piece and drawn words of each piece that has a drawn word; the same for every tokenizer.

    Args:
        texts: to cut.
        rate: share of the words.
        seed: of the draw.

    Example:
        >>> [(number, piece) for number, piece, _ in pieces_of(["a red mug", "a desk"], 1.0, 0)]
        [(0, 'a red mug'), (1, 'a desk')]
    """
    pieces = ((number, piece) for number, text in enumerate(texts) for piece in cut(text))
    drawn = ((number, piece, drawn_words(piece, rate, seed)) for number, piece in pieces)
    return [one for one in drawn if one[2]]


def mask_pieces(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], rate: float, seed: int) -> list[MaskedPiece]:
    """Pieces of texts, all tokens of the drawn words masked; pieces without a drawn word are left out.

    A token that reaches over two words belongs to the drawn one, with the bytes that lie in it. A byte that several
    tokens stand for (a character in parts) is shared out among them.

    Args:
        tokenizer: fast, because it must tell offsets.
        texts: to cut.
        rate: share of the words.
        seed: of the draw.

    Raises:
        ValueError: if no word was drawn.
    """
    chosen = [(piece, spans) for _, piece, spans in pieces_of(texts, rate, seed)]
    if not chosen:
        raise ValueError(f"no word of {len(texts)} texts was drawn to be masked: give it more text")
    options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, "return_attention_mask": False}
    found = tokenizer([piece for piece, _ in chosen], truncation=False, **options)
    columns = zip(chosen, found["input_ids"], found["offset_mapping"], found["special_tokens_mask"], strict=True)
    return [
        _masked(piece, spans, ids, np.array(offsets), np.array(special), int(tokenizer.mask_token_id))
        for (piece, spans), ids, offsets, special in columns
    ]


def _masked(
    piece: str, spans: list[tuple[int, int]], ids: list[int], offsets: np.ndarray, special: np.ndarray, mask: int
) -> MaskedPiece:
    hidden = np.zeros(len(piece), dtype=bool)
    for start, end in spans:
        hidden[start:end] = True
    # Tokens that stand for each character, and the bytes of each hidden one.
    cover = np.zeros(len(piece) + 1)
    real = special == 0
    np.add.at(cover, offsets[real, 0], 1)
    np.add.at(cover, offsets[real, 1], -1)
    cover = np.cumsum(cover)[:-1]
    size = np.array([len(character.encode("utf-8", "surrogatepass")) for character in piece]) * hidden
    share = np.concatenate([[0.0], np.cumsum(np.divide(size, cover, out=np.zeros(len(piece)), where=cover > 0))])
    weights = (share[offsets[:, 1]] - share[offsets[:, 0]]) * real
    places = np.flatnonzero(weights > 0)
    targets = np.array(ids, dtype=np.int64)[places]
    masked = np.array(ids)
    masked[places] = mask
    return MaskedPiece(masked.tolist(), places, targets, weights[places], int(size.sum()))
