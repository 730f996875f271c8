"""The cross attention of two product texts, word by word (E-BERT's figure 8)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WORD = re.compile(r"\S+")


@dataclass(frozen=True)
class CrossAttention:
    """Attention of the words of one text on those of another.

    Attributes:
        left: words of the first text, N.
        right: words of the second, M.
        alpha: float `[N, M]`, how much each word of the first is rebuilt from each of the second; rows sum to 1.
        beta: float `[M, N]`, the other way round.
    """

    left: list[str]
    right: list[str]
    alpha: np.ndarray
    beta: np.ndarray

    def pairs(self, count: int = 10) -> list[tuple[str, str, float]]:
        """The word pairs with the highest attention, averaged over both ways."""
        both = (self.alpha + self.beta.T) / 2
        order = np.argsort(-both, axis=None)[:count]
        places = zip(*np.unravel_index(order, both.shape), strict=True)
        return [(self.left[i], self.right[j], float(both[i, j])) for i, j in places]


@torch.no_grad()
def cross_attention(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, left: str, right: str, normalize: bool | None = None
) -> CrossAttention:
    """Encode two texts and attend across them (equation 9), special tokens left out.

    Tokens become words: a word's attention on another is summed over the other's tokens and averaged over its own.

    Args:
        model: any encoder or masked-LM model.
        tokenizer: its fast tokenizer.
        left: a product's text.
        right: another's.
        normalize: divide the scores by the root of the width; None does what the model was trained with.

    Raises:
        ValueError: if a text has no word.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> from rexbert_hf.models import RexBertConfig, RexBertModel
        >>> backend = Tokenizer(models.WordLevel({"steel": 0, "mug": 1, "?": 2}, unk_token="?"))
        >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> model = RexBertModel(RexBertConfig.from_size("micro", vocab_size=64, pad_token_id=0))
        >>> found = cross_attention(model, PreTrainedTokenizerFast(tokenizer_object=backend), "steel mug", "mug")
        >>> found.left, found.right, found.alpha.shape, found.beta.sum(axis=1).round(3).tolist()
        (['steel', 'mug'], ['mug'], (2, 1), [1.0])
    """
    if normalize is None:
        normalize = bool(getattr(model.config, "npr_normalize", False))
    states, words, tokens = zip(*(_encode(model, tokenizer, text) for text in (left, right)), strict=True)
    scores = states[0] @ states[1].T
    if normalize:
        scores = scores * scores.new_tensor(states[0].shape[1]).rsqrt()
    alpha, beta = scores.softmax(1), scores.T.softmax(1)
    return CrossAttention(words[0], words[1], _by_word(alpha, *tokens), _by_word(beta, *reversed(tokens)))


def _encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, text: str
) -> tuple[torch.Tensor, list[str], np.ndarray]:
    """Hidden states `[T, H]` of the content tokens, the words, and which word each token is of."""
    encoding: Any = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, return_tensors="pt")
    starts = [match.start() for match in _WORD.finditer(text)]
    content = (encoding["special_tokens_mask"][0] == 0).nonzero()[:, 0]
    if not starts or not len(content):
        raise ValueError(f"the text {text!r} has no word: give a product's title or description")
    ends = encoding["offset_mapping"][0, content, 1].numpy()
    # The last character decides: a token may begin with the space before its word.
    of_word = np.searchsorted(starts, ends - 1, side="right") - 1
    was_training = model.training
    try:
        output = model.eval()(
            input_ids=encoding["input_ids"].to(model.device),
            attention_mask=torch.ones_like(encoding["input_ids"]).to(model.device),
            output_hidden_states=True,
        )
    finally:
        model.train(was_training)
    return output.hidden_states[-1][0, content.to(model.device)].float().cpu(), text.split(), np.maximum(of_word, 0)


def _by_word(attention: torch.Tensor, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sum over the tokens of each column's word, mean over those of each row's."""
    left = np.zeros((rows.max() + 1, len(rows)))
    left[rows, np.arange(len(rows))] = 1
    left /= np.maximum(left.sum(axis=1, keepdims=True), 1)
    right = np.zeros((len(columns), columns.max() + 1))
    right[np.arange(len(columns)), columns] = 1
    found: np.ndarray = left @ attention.double().numpy() @ right
    return found
