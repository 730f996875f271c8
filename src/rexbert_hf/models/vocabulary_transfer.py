"""Give a trained model another tokenizer: tokens that both know keep their rows, new ones start from their pieces.

Between the stages of a multilingual curriculum the tokenizer changes (m3BERT). A token is the same in both if it stands
for the same text, whatever marks a space in its spelling, so byte-level and SentencePiece vocabularies meet. A new
token gets the mean of the rows that the old tokenizer splits its text into; special tokens go by their roles. A token
that is part of a character has no text: it goes by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rexbert_hf.models.padded_positions import check_padding, move_positions

ROLES = ("pad", "cls", "sep", "mask", "unk", "bos", "eos")
MULTIPLE = 64
"""A model has a multiple of so many rows: products over the vocabulary are faster for it."""

ANCHORS = ("x", "0", ")")
"""What a text within a word is given behind: a letter, a digit, a mark; merges cross one of them only."""


@dataclass(frozen=True)
class TransferReport:
    """Where the rows of the new vocabulary come from.

    Attributes:
        kept: rows of a token that the old tokenizer has too.
        composed: rows that are the mean of several old ones.
        unknown: rows of tokens whose text the old tokenizer cannot spell: the mean of all old rows.
    """

    kept: int
    composed: int
    unknown: int


def transfer_vocabulary(
    model: PreTrainedModel, old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase
) -> TransferReport:
    """Replace a masked-LM model's vocabulary in place: input rows, output rows where they are not tied, output bias.

    It gets as many rows as tokens, rounded up to a multiple of 64; those beyond belong to no token.

    Args:
        model: a masked-LM model, of any architecture, whose rows belong to `old`.
        old: the fast tokenizer that the model was trained with.
        new: the fast tokenizer that it goes on with.

    Raises:
        ValueError: if `new` has no mask token, or a padding id that the model's positions cannot begin behind, or `old`
            has more tokens than the model has rows.

    Example:
        >>> from rexbert_hf.catalog import load_sample
        >>> from rexbert_hf.data.vocabulary import train_tokenizer
        >>> from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
        >>> texts = load_sample("shop_text", size=60)["text"]
        >>> old, new = train_tokenizer(texts, 384), train_tokenizer(texts, 512)
        >>> model = RexBertForMaskedLM(RexBertConfig.from_size("micro", vocab_size=384, pad_token_id=0))
        >>> report = transfer_vocabulary(model, old, new)
        >>> report.kept + report.composed, model.config.vocab_size
        (512, 512)
    """
    if new.mask_token_id is None:
        raise ValueError("the new tokenizer has no mask token: add one, or take the tokenizer of a masked-LM model")
    rows = model.get_input_embeddings().weight
    assert isinstance(rows, torch.Tensor)
    if len(old) > len(rows):
        raise ValueError(f"the old tokenizer has {len(old)} tokens, the model {len(rows)} rows: they do not belong")
    check_padding(model, new.pad_token_id)
    sources = row_sources(old, new)
    counts = [len(part) for part in sources]
    report = TransferReport(counts.count(1), sum(n > 1 for n in counts), counts.count(0))
    rounded = -(-len(new) // MULTIPLE) * MULTIPLE
    sources += [[] for _ in range(rounded - len(new))]
    output: Any = model.get_output_embeddings()
    tied = output is None or output.weight is rows
    made = [_combined(rows.data, sources, len(old))]
    if not tied:
        made.append(_combined(output.weight.data, sources, len(old)))
    bias = None if output is None or output.bias is None else _combined(output.bias.data, sources, len(old))
    model.resize_token_embeddings(rounded, mean_resizing=False)
    with torch.no_grad():
        grown: Any = model.get_input_embeddings()
        grown.weight.copy_(made[0])
        grown.padding_idx = new.pad_token_id  # the old one is an ordinary token now, and would get no gradient
        output = model.get_output_embeddings()
        if not tied:
            output.weight.copy_(made[1])
        if bias is not None:
            output.bias.copy_(bias)
    move_positions(model, new.pad_token_id)
    model.tie_weights()
    model.config.vocab_size = rounded
    for role in ROLES:
        token = getattr(new, f"{role}_token_id")
        if token is not None and hasattr(model.config, f"{role}_token_id"):
            setattr(model.config, f"{role}_token_id", token)
    return report


def row_sources(old: PreTrainedTokenizerBase, new: PreTrainedTokenizerBase) -> list[list[int]]:
    """For each token of `new` the rows of `old` that it starts from; one row where both know it, none if it has none.

    Args:
        old: a fast tokenizer.
        new: another.
    """
    theirs, ours = _Spelling(old), _Spelling(new)
    known: dict[str | bytes, int] = {}
    for token, number in sorted(old.get_vocab().items(), key=lambda item: item[1]):
        known.setdefault(theirs.meaning(token), number)
    roles: dict[int, int] = {}
    for role in ROLES:
        here, there = getattr(new, f"{role}_token_id"), getattr(old, f"{role}_token_id")
        if here is not None and there is not None:
            roles.setdefault(here, there)
    sources: list[list[int]] = [[] for _ in range(len(new))]
    for token, number in new.get_vocab().items():
        meaning = ours.meaning(token)
        if number in roles:
            sources[number] = [roles[number]]
        elif meaning in known:
            sources[number] = [known[meaning]]
        else:
            pieces = _pieces(old, theirs, token, ours)
            sources[number] = [piece for piece in pieces if piece != old.unk_token_id]
    return sources


def _pieces(old: PreTrainedTokenizerBase, theirs: _Spelling, token: str, ours: _Spelling) -> list[int]:
    """What the old tokenizer makes of a token of the new one."""
    meaning = ours.meaning(token)
    if isinstance(meaning, bytes):
        return theirs.pieces_of_bytes(meaning)
    text = token if token in ours.special else meaning
    # Of WordPiece a token without a mark begins a word; elsewhere such a token goes on with one.
    inside = not text.startswith(" ") and (token.startswith("##") or not ours.starts_words)
    if inside and token not in ours.special:
        return _pieces_inside(old, text) if text.strip() else []
    pieces: list[int] = old(text, add_special_tokens=False)["input_ids"] if text.strip() else []
    return pieces


def _pieces_inside(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Pieces of a text within a word: many tokenizers put a space before whatever they are given.

    So it is given behind a character, whose own pieces are dropped; where the two merge, behind another.
    """
    for anchor in ANCHORS:
        before = tokenizer(anchor, add_special_tokens=False)["input_ids"]
        found: list[int] = tokenizer(anchor + text, add_special_tokens=False)["input_ids"]
        if found[: len(before)] == before and len(found) > len(before):
            return found[len(before) :]
    pieces: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return pieces


def _combined(rows: torch.Tensor, sources: Sequence[Sequence[int]], count: int) -> torch.Tensor:
    """Means of rows `[N, ...]`, as many as sources; where there is no source, the mean of the first `count`."""
    usual = rows[:count].float().mean(0)
    found = [rows[list(part)].float().mean(0) if part else usual for part in sources]
    return torch.stack(found).to(rows.dtype)


_CHARACTERS = bytes_to_unicode()
_BYTES = {character: byte for byte, character in _CHARACTERS.items()}
_BYTE = re.compile(r"<0x([89A-Fa-f][0-9A-Fa-f])>")
"""How SentencePiece spells a byte that is no character by itself."""


class _Spelling:
    """How a tokenizer spells its tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        model = tokenizer.backend_tokenizer.model
        self.model, self.vocabulary = model, tokenizer.get_vocab()
        self.special = set(tokenizer.all_special_tokens)
        self.is_byte_level = "ByteLevel" in repr(tokenizer.backend_tokenizer.pre_tokenizer)
        self.falls_back = "<0xFF>" in self.vocabulary
        self.starts_words = type(model).__name__ == "WordPiece"

    def meaning(self, token: str) -> str | bytes:
        """The text that a token stands for, a leading space included; of part of a character, its bytes."""
        if token in self.special:
            return f"\0{token}"  # not the text of any other token
        if self.is_byte_level:
            data = bytes(_BYTES[c] for c in token) if all(c in _BYTES for c in token) else token.encode()
            try:
                return data.decode("utf-8")
            except UnicodeDecodeError:
                return data
        byte = _BYTE.fullmatch(token) if self.falls_back else None
        if byte is not None:
            return bytes.fromhex(byte[1])
        if token.startswith("##"):
            return token[2:]
        return token.replace("\u2581", " ")

    def pieces_of_bytes(self, data: bytes) -> list[int]:
        """Tokens that part of a character is made of; none where this tokenizer has no tokens for bytes."""
        if self.is_byte_level:  # its model alone: a tokenizer reads text, which these bytes are not
            return [piece.id for piece in self.model.tokenize("".join(_CHARACTERS[byte] for byte in data))]
        if self.falls_back:
            names = (f"<0x{byte:02X}>" for byte in data)
            return [self.vocabulary[name] for name in names if name in self.vocabulary]
        return []
