"""Masking of noun phrases, whatever their worth to the domain: the BERT-NP row of the E-BERT paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from rexbert_hf.masking.phrase_mode import PhraseMaskingCollator


class NounPhraseCollator(PhraseMaskingCollator):
    """`PhraseMaskingCollator` over noun phrases only.

    Where rows were tokenised with a phrase pool, their noun phrases are only those that no pool phrase overlaps; for
    the paper's row, tokenise with the noun-phrase guide alone. A chunker gives all noun phrases the same score, so the
    softmax is uniform.

    Args:
        tokenizer: as in `MaskingCollator`.
        mlm_probability: expected share of the non-special tokens that is masked.
        kinds: the kinds of spans that are noun phrases.
        **options: the options of `PhraseMaskingCollator`.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import WordLevel
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = Tokenizer(WordLevel({"[PAD]": 0, "[MASK]": 1, "red": 2, "shoe": 3}, "[MASK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", mask_token="[MASK]")
        >>> row = {"input_ids": [2, 3, 2, 3], "span_start": [0, 2], "span_end": [2, 4], "span_score": [0.5, 0.9]}
        >>> NounPhraseCollator(tokenizer, 0.5)([row | {"span_kind": [1, 0]}])["labels"].tolist()
        [[2, 3, -100, -100]]
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.15,
        *,
        kinds: Sequence[str] = ("noun_phrase",),
        **options: Any,
    ) -> None:
        super().__init__(tokenizer, mlm_probability, kinds=kinds, **options)
