"""The collator that all masking schemes share: rows in, corrupted tokens and labels out, flat or padded.

A scheme is a subclass with one method, `select`. The base finds the tokens that may be masked, seeds the generator,
corrupts (80/10/10 as in BERT) and emits. Selections are a pure function of the rows and of (seed, phase, step,
micro), so they do not depend on the number of loader workers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.batch import Batch
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking.draws import threshold, uniform_bits

logger = logging.getLogger(__name__)

IGNORED = -100
"""Label of a token that is not predicted, as in torch's cross entropy."""


class Selection(NamedTuple):
    """What a scheme selected.

    Attributes:
        masked: bool `[T]`, the tokens to predict.
        units: int64 `[T]`, ascending number of the unit (word or span) of each token; None where each token is one.
    """

    masked: np.ndarray
    units: np.ndarray | None = None


class MaskingCollator:
    """Mask tokenised rows for masked language modelling; subclasses say which tokens.

    With `flat=True` the batch has no padding: `input_ids`, `labels` and `position_ids` `[1, T]`, `cu_seq_lens_q` and
    `cu_seq_lens_k` int32 `[D + 1]`, `max_length_q` and `max_length_k` int. With `flat=False` (the default: a flat
    batch leaks between documents in most stock models) it is `input_ids`, `attention_mask` and `labels` `[B, S]`.

    Special tokens are never masked and never used as a random replacement: those that the tokenizer lists and, where
    rows have `word_ids`, those with -1. Rows carry `step`; without it the collator counts its own calls, so that two
    epochs see different masks. In loader workers the count alone would start again each epoch, so there the loader's
    own seed, new each epoch, joins it: give rows a `step` when masks must not depend on workers at all.

    Attributes:
        stats: what a scheme counted in the last call, by name.

    Args:
        tokenizer: any Hugging Face tokenizer with a mask token; only its vocabulary is read, once.
        mlm_probability: expected share of the non-special tokens that is masked, in (0, 1).
        flat: emit a flat batch in place of a padded one.
        seed: selections depend on it, and on the rows' phase, step and micro-batch.
        mask_replace_prob: share of the masked tokens that become the mask token.
        random_replace_prob: share that becomes a random token; the rest stays as it is.
        per_span: draw once for each unit (word or span) what happens to it, in place of once a token.
        pad_to_multiple_of: round the padded length up to a multiple of this.

    Raises:
        ValueError: if the tokenizer has no mask token (or, for padded batches, no pad token), or an option is out of
            its range.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        mlm_probability: float = 0.3,
        *,
        flat: bool = False,
        seed: int = 0,
        mask_replace_prob: float = 0.8,
        random_replace_prob: float = 0.1,
        per_span: bool = False,
        pad_to_multiple_of: int | None = None,
    ) -> None:
        if not 0 < mlm_probability < 1:
            raise ValueError(f"mlm_probability must lie between 0 and 1, got {mlm_probability}")
        if min(mask_replace_prob, random_replace_prob) < 0 or mask_replace_prob + random_replace_prob > 1 + 1e-9:
            raise ValueError(
                "mask_replace_prob and random_replace_prob must be shares with a sum of at most 1, "
                f"got {mask_replace_prob} and {random_replace_prob}"
            )
        if seed < 0:
            raise ValueError(f"seed must not be negative, got {seed}")
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}")
        self.mlm_probability = float(mlm_probability)
        self.flat = flat
        self.seed = int(seed)
        self.per_span = per_span
        self.pad_to_multiple_of = pad_to_multiple_of
        self._mask_below = threshold(mask_replace_prob)
        self._random_below = threshold(min(mask_replace_prob + random_replace_prob, 1.0))
        self._read_tokenizer(tokenizer)
        self.stats: dict[str, int] = {}
        self._calls = 0
        self._said: set[str] = set()

    def _read_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "the tokenizer has no mask token, which masked language modelling needs: "
                "tokenizer.add_special_tokens({'mask_token': '[MASK]'}), then resize the model's embeddings"
            )
        if tokenizer.pad_token_id is None and not self.flat:
            raise ValueError("the tokenizer has no pad token: set tokenizer.pad_token, or take flat=True (no padding)")
        self._mask_id = int(tokenizer.mask_token_id)
        self._pad_id = tokenizer.pad_token_id
        self._pad_left = tokenizer.padding_side == "left"
        vocabulary = np.unique(np.fromiter(tokenizer.get_vocab().values(), dtype=np.int64))
        # One entry past the vocabulary, not special: ids that no tokenizer knows are the model's to refuse.
        self._special = np.zeros(int(vocabulary[-1]) + 2, dtype=bool)
        self._special[tokenizer.all_special_ids] = True
        # Added tokens flagged special but without a role (<|padding|>, <|endoftext|>) are no replacement either.
        roleless = [i for i, token in tokenizer.added_tokens_decoder.items() if token.special]
        self._replacements = np.setdiff1d(vocabulary, [*tokenizer.all_special_ids, *roleless])
        if not len(self._replacements):
            raise ValueError("the tokenizer's vocabulary holds special tokens only: nothing can replace a token")

    def __call__(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> dict[str, Any]:
        """Mask and batch tokenised rows.

        Args:
            rows: row dicts or a `RowBatch`.

        Returns:
            The tensors of a flat or padded batch, as the class says.

        Raises:
            ValueError: if there is no token, or a field that the scheme needs is missing.
        """
        batch, rng = self.prepare(rows)
        input_ids = batch.input_ids.astype(np.int64)
        selection = self.select(batch, self.eligible(batch, input_ids), rng)
        return self.emit(batch, *self.corrupt(input_ids, selection, rng))

    def select(self, batch: RowBatch, eligible: np.ndarray, rng: np.random.Generator) -> Selection:
        """Choose the tokens to predict; the one method of a masking scheme.

        Args:
            batch: the rows, with `step` set.
            eligible: bool `[T]`, False for the tokens that must not be chosen.
            rng: the generator of this call.
        """
        raise NotImplementedError

    def prepare(self, rows: Sequence[Mapping[str, Any]] | RowBatch) -> tuple[RowBatch, np.random.Generator]:
        """Columns of the rows with their step filled in, and the generator of this call."""
        batch = RowBatch.from_rows(rows)
        if not isinstance(rows, RowBatch):
            batch.micro, batch.phase = int(rows[0].get("micro", 0)), int(rows[0].get("phase", 0))
        if not len(batch.input_ids):
            raise ValueError(f"all {len(batch)} rows of the batch are empty: drop rows without tokens when tokenising")
        source: list[int] = []
        if batch.step is None:
            call, *source = self._count_call()
            batch = replace(batch, step=call)  # the caller's own may be collated again
        words = [self.seed, batch.phase, batch.step or 0, batch.micro, *source]
        return batch, np.random.Generator(np.random.SFC64(words))

    def _count_call(self) -> list[int]:
        """Number of this call on rows without a step; in a loader worker, the loader's seed as well."""
        call = self._calls
        self._calls += 1
        worker = get_worker_info()
        if worker is None:
            return [call]
        # The loader deals batches to its workers in turn, so this is the batch's number in the epoch.
        return [call * worker.num_workers + worker.id, worker.seed - worker.id]

    def warn_once(self, message: str, *args: object) -> None:
        """Log a warning the first time it is given, in this process."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message, *args)

    def warn_without_words(self, batch: RowBatch) -> None:
        """Say once that rows bring neither words nor spans, which nobody sees from the batches."""
        if batch.word_ids is None and batch.span_start is None:
            self.warn_once(_NO_WORDS)

    def eligible(self, batch: RowBatch, input_ids: np.ndarray) -> np.ndarray:
        """Tokens that may be masked, bool `[T]`: all but the special ones.

        Args:
            batch: the rows.
            input_ids: its ids as int64 `[T]`, which numpy looks up four times faster than int32.
        """
        # Clipped lookup: faster than a checked one, and an unknown id falls on the last entry.
        eligible = self._special.take(input_ids, mode="clip")
        np.logical_not(eligible, out=eligible)
        if batch.word_ids is not None:
            eligible &= batch.word_ids >= 0
        return eligible

    def corrupt(
        self, input_ids: np.ndarray, selection: Selection, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Replace the selected tokens (80/10/10) and make their labels.

        Args:
            input_ids: int64 `[T]`; changed in place.
            selection: what `select` returned.
            rng: the generator of this call.

        Returns:
            The corrupted ids and the labels, both int64 `[T]`.
        """
        picked = np.flatnonzero(selection.masked)
        tokens = input_ids[picked]
        labels = np.full(len(input_ids), IGNORED)
        labels[picked] = tokens
        fate = self._draw_fates(picked, selection.units, rng)
        random = np.flatnonzero((fate >= self._mask_below) & (fate < self._random_below))
        np.putmask(tokens, fate < self._mask_below, self._mask_id)
        tokens[random] = self._replacements[rng.integers(len(self._replacements), size=len(random))]
        input_ids[picked] = tokens
        return input_ids, labels

    def _draw_fates(self, picked: np.ndarray, units: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        """32 random bits for each picked token, the same for all tokens of a unit with `per_span`."""
        if not self.per_span or units is None or not len(picked):
            return uniform_bits(rng, len(picked))
        changes = np.diff(units[picked], prepend=-1) != 0
        group = np.cumsum(changes) - 1
        return uniform_bits(rng, int(group[-1]) + 1)[group]

    def emit(self, batch: RowBatch, input_ids: np.ndarray, labels: np.ndarray) -> Batch:
        """Tensors of the batch, flat or padded as asked.

        Args:
            batch: the rows, for their borders.
            input_ids: int64 `[T]`.
            labels: int64 `[T]`.
        """
        if self.flat:
            return _flat(batch, input_ids, labels)
        lengths = batch.lengths
        width = int(lengths.max())
        if self.pad_to_multiple_of:
            width = -(-width // self.pad_to_multiple_of) * self.pad_to_multiple_of
        # Row by row this mask holds as many places as the flat batch has tokens, in the same order.
        empty = width - lengths[:, None]
        real = np.arange(width) >= empty if self._pad_left else np.arange(width)[::-1] >= empty
        return Batch(
            input_ids=_scatter(input_ids, real, self._pad_id),
            attention_mask=torch.from_numpy(real).long(),
            labels=_scatter(labels, real, IGNORED),
        )


_NO_WORDS = (
    "rows have no word_ids and no spans, so tokens are masked one by one (said once; tokenise with them; the stock "
    "Trainer removes them unless remove_unused_columns=False)"
)


def _scatter(values: np.ndarray, real: np.ndarray, fill: int) -> torch.Tensor:
    padded = np.full(real.shape, fill, dtype=np.int64)
    padded[real] = values
    return torch.from_numpy(padded)


def _flat(batch: RowBatch, input_ids: np.ndarray, labels: np.ndarray) -> Batch:
    borders = torch.from_numpy(batch.offsets.astype(np.int32))
    longest = int(batch.lengths.max())
    return Batch(
        input_ids=torch.from_numpy(input_ids)[None],
        labels=torch.from_numpy(labels)[None],
        position_ids=torch.from_numpy(batch.position_ids)[None],
        cu_seq_lens_q=borders,
        cu_seq_lens_k=borders.clone(),
        max_length_q=longest,
        max_length_k=longest,
    )
