"""Words for the blanks of a text, from any masked language model: the second tab of the search page."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import Any

from rexbert_hf.hub import resolve_model
from rexbert_hf.hub.loading import loading
from rexbert_hf.retrieval.serving.page import answered
from rexbert_hf.retrieval.serving.texts import typed_text

BLANK = re.compile(r"\[mask\]|<mask>|_{3,}", re.IGNORECASE)
"""What stands for a missing word, whatever the model's own token."""

MOST_CHARACTERS = 4_000
MOST_BLANKS = 5
MOST_TOKENS = 512

_AROUND = (1_000, 400, 150, 40, 10)  # characters on either side of the first blank, tried until the tokens fit
_HINT = "Write [MASK] or ___ where a word is missing."


@dataclass(frozen=True)
class FilledText:
    """What a model puts into the blanks.

    Attributes:
        blanks: for each, words and their probabilities, likeliest first.
        milliseconds: that the model took, tokenising included.
        note: what the person should know.
        problem: why there is no answer.
    """

    blanks: list[list[tuple[str, float]]] = field(default_factory=list)
    milliseconds: float = 0.0
    note: str = ""
    problem: str = ""


class FillMask:
    """A masked language model and its tokenizer.

    Args:
        name: folder or repository.
        words: that are shown for each blank.

    Raises:
        ValueError: if it is no masked language model, or its tokenizer has no mask token.
    """

    def __init__(self, name: str, words: int = 8) -> None:
        from transformers import AutoModelForMaskedLM, AutoTokenizer

        import rexbert_hf.models  # noqa: F401 - RexBERT is known to transformers from now on
        from rexbert_hf.models.padded_positions import longest_text

        with loading("masked language model", f"masked_lm {name}", "give a masked language model"):
            folder = resolve_model(name)  # with retries, and the hash of what arrives is checked
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            self.model: Any = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=False).eval()
        if self.tokenizer.mask_token is None:
            raise ValueError(f"masked_lm {name} has no mask token: give a masked language model")
        self.words = words
        positions = longest_text(self.model)
        self.limit = min(MOST_TOKENS, int(self.tokenizer.model_max_length), positions or MOST_TOKENS)

    def __call__(self, text: str | None) -> FilledText:
        """Fill the blanks of a text.

        Args:
            text: anything; a long one is read around its first blank.
        """
        filled, problem = answered(lambda: self._fill(text or ""))
        return FilledText(problem=problem) if filled is None else filled

    def _fill(self, text: str) -> FilledText:
        import torch

        first = BLANK.search(text)
        if first is None:
            return FilledText(note=_HINT)
        start = time.perf_counter()
        inputs, cut = self._tokens(text, first.start())
        ids = inputs["input_ids"][0]
        places = (ids == self.tokenizer.mask_token_id).nonzero()[:MOST_BLANKS, 0]
        if not len(places):
            return FilledText(note="The text around the blank is too long for the model: shorten it.")
        with torch.inference_mode():
            shares = self.model(**inputs).logits[0, places].float().softmax(-1)
        best = shares.topk(min(self.words, shares.shape[-1]))
        milliseconds = (time.perf_counter() - start) * 1e3
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        blanks = [[(self._word(i), share) for i, share in zip(*pair, strict=True)] for pair in pairs]
        return FilledText(blanks, milliseconds, "Only the text around the first blank was read." if cut else "")

    def _tokens(self, text: str, place: int) -> tuple[Any, bool]:
        """Inputs of the model, and whether they are a part of the text."""
        inputs, cut = None, False
        for around in _AROUND:
            begin, end = max(0, place - around), place + around
            part, _ = typed_text(text[begin:end], MOST_CHARACTERS)
            cut = begin > 0 or end < len(text)
            masked = BLANK.sub(lambda _: str(self.tokenizer.mask_token), part)
            inputs = self.tokenizer(
                masked, truncation=True, max_length=self.limit, return_tensors="pt", return_token_type_ids=False
            )
            ids = inputs["input_ids"][0]
            if len(ids) < self.limit and (ids == self.tokenizer.mask_token_id).any():
                break
        return inputs, cut

    def _word(self, token: int) -> str:
        return str(self.tokenizer.decode([token])).strip() or repr(self.tokenizer.convert_ids_to_tokens(token))
