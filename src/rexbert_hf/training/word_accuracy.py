"""Masked accuracy that can be compared across tokenizers: the same words of the same texts are hidden whole.

A share of masked tokens cannot be: a tokenizer that spells Chinese out byte by byte has two easy tokens for each hard
one. Here the words are chosen in the text (in scripts without spaces a character is a word), every token that touches
one becomes the mask token, and a word counts, by its bytes in UTF-8, if all of its tokens are guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog.split import text_digests
from rexbert_hf.training.heldout import length_batches, predict_masked

_SINGLE = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that write no spaces: Thai, Lao, Burmese, Khmer, Japanese, Chinese."""
_FEWER = 3
"""Characters of such scripts are hidden so much more rarely: their tokens are longer, and hide their neighbours too."""
_SINGLE_CHARACTER = re.compile(f"[{_SINGLE}]")
_WORD = re.compile(f"[{_SINGLE}]|[^\\W{_SINGLE}]+")


@dataclass
class _Masked:
    """One text as tokens, with the tokens that are hidden.

    Attributes:
        ids: tokens, special ones included.
        hidden: places of the hidden tokens.
        words: bytes of each hidden word, and where its tokens are in `hidden`.
    """

    ids: list[int]
    hidden: list[int]
    words: list[tuple[int, list[int]]]


@torch.no_grad()
def evaluate_words(
    model: nn.Module,
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    word_probability: float = 0.15,
    seed: int = 0,
    max_bytes: int = 240,
    batch_tokens: int = 8192,
) -> dict[str, float]:
    """Evaluate a masked-LM model on words that do not depend on its tokenizer.

    Args:
        model: any Hugging Face masked-LM model; left in the mode (train or eval) it came in.
        texts: held-out documents.
        tokenizer: of the model, a fast one.
        word_probability: share of the words that are hidden (of single characters a third of it); which ones follows
            from text and seed alone.
        seed: of the words.
        max_bytes: each text is cut to so many bytes, so that no tokenizer makes it longer than the model was trained.
        batch_tokens: most tokens of a batch, padding counted.

    Returns:
        `accuracy`, by bytes of the hidden words; `bits_per_byte`, of the hidden tokens over the bytes of the hidden
        words; `words` and `bytes` hidden.

    Raises:
        ValueError: if there is no word to hide.
    """
    rows = list(_masked_rows(texts, tokenizer, word_probability, seed, max_bytes))
    if not rows:
        raise ValueError("no word of the texts is hidden: give more text")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    right = nats = 0.0
    try:
        for at in length_batches(np.array([len(row.ids) for row in rows]), batch_tokens):
            chosen = [rows[i] for i in at]
            batch = {name: value.to(device) for name, value in _padded(chosen, tokenizer).items()}
            if not (batch["labels"] != -100).any():
                continue
            loss, ranks = predict_masked(model, batch, batch["labels"] != -100)
            nats += loss
            right += _bytes_right(chosen, (ranks == 0).cpu().numpy())
    finally:
        model.train(was_training)
    sizes = [size for row in rows for size, _ in row.words]
    total = sum(sizes)
    return {
        "accuracy": right / total,
        "bits_per_byte": nats / total / float(np.log(2)),
        "words": float(len(sizes)),
        "bytes": float(total),
    }


def cut_bytes(text: str, most: int) -> str:
    r"""The beginning of a text, of at most so many bytes in UTF-8.

    Args:
        text: any.
        most: bytes.

    Example:
        >>> cut_bytes("caf\u00e9s", 4), cut_bytes("caf\u00e9s", 5) == "caf\u00e9"
        ('caf', True)
    """
    return text.encode("utf-8", "replace")[:most].decode("utf-8", "ignore")


def _masked_rows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, probability: float, seed: int, max_bytes: int
) -> Iterator[_Masked]:
    for whole in texts:
        text = cut_bytes(whole, max_bytes)
        words = [match.span() for match in _WORD.finditer(text)]
        if not words:
            continue
        rng = np.random.default_rng([seed, *text_digests([text])[0].tolist()])
        single = np.array([_SINGLE_CHARACTER.match(text[start]) is not None for start, _ in words])
        chosen = [words[i] for i in np.flatnonzero(rng.random(len(words)) < probability / np.where(single, _FEWER, 1))]
        if not chosen:
            continue
        encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        special = np.array(encoded["special_tokens_mask"], dtype=bool)
        unknown = np.array(encoded["input_ids"]) == tokenizer.unk_token_id
        yield _hide(text, chosen, encoded["input_ids"], encoded["offset_mapping"], special & ~unknown, unknown)


def _hide(
    text: str,
    chosen: Sequence[tuple[int, int]],
    ids: list[int],
    offsets: Sequence[tuple[int, int]],
    special: np.ndarray,
    unknown: np.ndarray,
) -> _Masked:
    tokens = [
        [i for i, (low, high) in enumerate(offsets) if low < end and start < high and not special[i]]
        for start, end in chosen
    ]
    hidden = sorted({i for places in tokens for i in places})
    place = {token: i for i, token in enumerate(hidden)}
    # Nobody can guess a word of which the tokenizer keeps nothing, or of which it knows a part only.
    words = [
        (len(text[start:end].encode("utf-8")), [] if unknown[places].any() else [place[i] for i in places])
        for (start, end), places in zip(chosen, tokens, strict=True)
    ]
    return _Masked(ids, hidden, words)


def _padded(rows: Sequence[_Masked], tokenizer: PreTrainedTokenizerBase) -> dict[str, Tensor]:
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), int(tokenizer.pad_token_id))
    labels, attention = torch.full_like(ids, -100), torch.zeros_like(ids)
    for number, row in enumerate(rows):
        found = torch.tensor(row.ids)
        ids[number, : len(found)] = found
        attention[number, : len(found)] = 1
        labels[number, row.hidden] = found[row.hidden]
        ids[number, row.hidden] = int(tokenizer.mask_token_id)
    return {"input_ids": ids, "attention_mask": attention, "labels": labels}


def _bytes_right(rows: Sequence[_Masked], guessed: np.ndarray) -> int:
    """Bytes of the words whose tokens were all guessed; `guessed` holds the hidden tokens row by row."""
    right = first = 0
    for row in rows:
        mine = guessed[first : first + len(row.hidden)]
        right += sum(size for size, places in row.words if places and mine[places].all())
        first += len(row.hidden)
    return right
