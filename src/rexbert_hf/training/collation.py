"""One collator for the whole run: it hands each micro-batch to the collator of its phase and counts what is in it.

The counts travel beside the tensors under `STATS` and are taken out again by the trainer before the model sees the
batch. Counting here keeps it in the loader's workers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data.batch import Batch
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.masking import (
    AdaptiveHybridMaskingCollator,
    GuidedMLMCollator,
    MaskingCollator,
    MLMCollator,
    NounPhraseCollator,
    PhraseMaskingCollator,
    QueryProductCollator,
    QueryProductRelevanceCollator,
    SpanMaskingCollator,
)
from rexbert_hf.objectives.triplets import TripletRows
from rexbert_hf.training.adaptive_settings import split_options
from rexbert_hf.training.flops import visible_pairs
from rexbert_hf.training.padded_parts import cut_by_length, slots_of
from rexbert_hf.training.phases import MaskingConfig, Phase
from rexbert_hf.training.plan import PhasePlan, Plan
from rexbert_hf.training.triplet_inputs import triplet_inputs

STATS = "batch_stats"
"""Key of the counts in a collated batch."""

Collator = Callable[[RowBatch], dict[str, Any]]
Builder = Callable[[MaskingConfig, PhasePlan, PreTrainedTokenizerBase, bool, int], Collator]


def _mlm(
    masking: MaskingConfig, phase: PhasePlan, tokenizer: PreTrainedTokenizerBase, flat: bool, seed: int
) -> Collator:
    return MLMCollator(
        tokenizer,
        mlm_probability=masking.mlm_probability,
        whole_word=masking.whole_word,
        flat=flat,
        seed=seed,
        **masking.options,
    )


def _guided(
    masking: MaskingConfig, phase: PhasePlan, tokenizer: PreTrainedTokenizerBase, flat: bool, seed: int
) -> Collator:
    tokens = masking.guidance_tokens
    return GuidedMLMCollator(
        tokenizer,
        mlm_probability=masking.mlm_probability,
        flat=flat,
        seed=seed,
        first_step=phase.first_step,
        guidance_start=masking.guidance_start,
        guidance_end=masking.guidance_end,
        guidance_steps=phase.num_steps if tokens is None else max(1, phase.steps_for(tokens)),
        **masking.options,
    )


def _builder_of(cls: Callable[..., Collator]) -> Builder:
    """Builder of a collator that needs nothing of its phase but the probability and the options."""

    def build(
        masking: MaskingConfig, phase: PhasePlan, tokenizer: PreTrainedTokenizerBase, flat: bool, seed: int
    ) -> Collator:
        options = split_options(masking.options)[1] if masking.kind == "ahm" else masking.options
        return cls(tokenizer, mlm_probability=masking.mlm_probability, flat=flat, seed=seed, **options)

    return build


MASKINGS: dict[str, Builder] = {
    "mlm": _mlm,
    "guided": _guided,
    "ahm": _builder_of(AdaptiveHybridMaskingCollator),
    "phrase": _builder_of(PhraseMaskingCollator),
    "noun_phrase": _builder_of(NounPhraseCollator),
    "span": _builder_of(SpanMaskingCollator),
    "query_product": _builder_of(QueryProductCollator),
    "relevance": _builder_of(QueryProductRelevanceCollator),
}


_OWN = dict(MASKINGS)


@dataclass(frozen=True)
class _Unplanned:
    """What builders ask of the plan of a phase, before there is one."""

    first_step: int = 0
    num_steps: int = 1

    def steps_for(self, tokens: int) -> int:
        return 1


def check_maskings(phases: Iterable[Phase], tokenizer: PreTrainedTokenizerBase, flat: bool = True) -> None:
    """Refuse masking that a run would stop at, before any text is tokenised; kinds of one's own are not looked at.

    Args:
        phases: to train.
        tokenizer: of the run.
        flat: whether the model takes flat batches; padded ones need a padding token.

    Raises:
        ValueError: if a value or an option of the masking of a phase cannot be, or the tokenizer lacks a token.
    """
    for phase in phases:
        kind = phase.masking.kind
        if kind in _OWN and MASKINGS[kind] is _OWN[kind]:
            _collator(phase, cast(PhasePlan, _Unplanned()), tokenizer, flat, 0)


def _collator(phase: Phase, plan: PhasePlan, tokenizer: PreTrainedTokenizerBase, flat: bool, seed: int) -> Collator:
    """The collator of one phase."""
    masking = phase.masking
    if masking.kind not in MASKINGS:
        raise ValueError(f"phase '{phase.name}': unknown masking '{masking.kind}': use one of {', '.join(MASKINGS)}")
    try:
        return MASKINGS[masking.kind](masking, plan, tokenizer, flat, seed)
    except TypeError as error:  # an option that the collator does not have
        raise ValueError(f"phase '{phase.name}': masking.options: {error}") from error
    except ValueError as error:
        raise ValueError(f"phase '{phase.name}': masking: {error}") from error


def register_masking(kind: str, build: Builder) -> None:
    """Make a masking scheme available to `MaskingConfig.kind`.

    Args:
        kind: its name.
        build: `(masking, phase, tokenizer, flat, seed) -> collator`.
    """
    MASKINGS[kind] = build


class PhaseCollator:
    """Dispatch a `RowBatch` to the collator of its phase; add counts of its tokens.

    Args:
        plan: gives each phase's masking, and the capacity that `slots` reports.
        tokenizer: of the run.
        flat: emit flat batches; False for models that take padded ones only, which come in parts (`padded_parts`)
            that hold no more slots than a micro-batch holds tokens.
        window: largest distance of a query-key pair in a local layer, for the count of local pairs; None for none.

    Raises:
        ValueError: if a phase asks for an unknown kind of masking, or its options are not those of the collator.
    """

    def __init__(
        self, plan: Plan, tokenizer: PreTrainedTokenizerBase, flat: bool = True, window: int | None = None
    ) -> None:
        self.plan = plan
        self.flat = flat
        self.window = window
        self.collators = [_collator(phase.phase, phase, tokenizer, flat, plan.seed) for phase in plan.phases]
        self._padding = tokenizer.pad_token_id, tokenizer.padding_side == "left"
        self._special_ids = np.array(sorted(tokenizer.all_special_ids), dtype=np.int64)

    def __call__(self, rows: RowBatch | Sequence[RowBatch]) -> dict[str, Any]:
        """Mask and batch one micro-batch.

        Args:
            rows: what the data set's `__getitems__` returned.
        """
        batch = rows if isinstance(rows, RowBatch) else rows[0]
        collator = self.collators[batch.phase]
        out = collator(batch)
        out[STATS] = self._count(batch)
        if isinstance(collator, MaskingCollator):
            out[STATS] |= collator.stats
        if isinstance(batch, TripletRows):  # its documents meet in the loss, so they stay together
            out = self._with_triplets(out, batch)
        elif "attention_mask" in out and not self.flat:
            out = self._in_parts(out, batch, collator)
        if "attention_mask" in out:
            out[STATS]["slots"] = slots_of(out)
        return out

    def _in_parts(self, out: dict[str, Any], batch: RowBatch, collator: Collator) -> dict[str, Any]:
        most = self.plan.phases[batch.phase].order.capacity
        return cut_by_length(out, most, self._padding[1], getattr(collator, "pad_to_multiple_of", None) or 1)

    def _with_triplets(self, out: dict[str, Any], batch: TripletRows) -> dict[str, Any]:
        stats = out.pop(STATS)
        if batch.clean is not None:
            further = self._count(batch.clean)
            stats |= {name: stats[name] + further[name] for name in further if name != "slots"}
        stats["products_left_out"] = batch.left_out
        pad_id, left = self._padding
        return Batch({**triplet_inputs(out, batch, self._special_ids, pad_id, left), STATS: stats})

    def _count(self, batch: RowBatch) -> dict[str, int]:
        lengths = batch.lengths
        special = (
            int((batch.word_ids < 0).sum())
            if batch.word_ids is not None
            else int(np.isin(batch.input_ids, self._special_ids).sum())
        )
        step = batch.step or 0
        return {
            "tokens": len(batch.input_ids),
            "real_tokens": len(batch.input_ids) - special,
            "documents": len(lengths),
            "slots": self.plan.phases[batch.phase].micro_capacity(step),
            "global_pairs": visible_pairs(lengths),
            "local_pairs": visible_pairs(lengths, self.window) if self.window is not None else 0,
        }
