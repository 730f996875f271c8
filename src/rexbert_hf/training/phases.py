"""What a curriculum is, as plain dataclasses that a recipe's YAML fills; `plan.py` turns one into steps.

Budgets are in real tokens, special ones included (epochs are accepted and become tokens once the data is known). The
defaults of a phase follow Ettin's first one.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from rexbert_hf.settings.ranges import check_above_zero, check_least, check_share
from rexbert_hf.training.adaptive_settings import scaled_options, split_options
from rexbert_hf.training.neighbor_settings import NeighborConfig
from rexbert_hf.training.schedules import SCHEDULES

OBJECTIVES = ("mlm", "ahm", "npr")
"""Names that `Phase.objectives` may hold."""
AHM_PROBABILITY = 0.15
"""Share of the tokens that E-BERT masks."""


@dataclass
class MaskingConfig:
    """How a phase masks.

    Attributes:
        kind: "mlm", "guided", "ahm" (adaptive hybrid masking), "phrase" (its phrase mode alone), "noun_phrase", "span"
            (random spans), "query_product" (spans on one side of a pair), "relevance" (of pairs, nothing is masked), or
            a name registered with `collation.register_masking`.
        mlm_probability: expected share of the non-special tokens that is predicted.
        whole_word: mask all tokens of a word together (guided masking always does).
        guidance_start: strength of the guide at the first step of the phase (guided masking).
        guidance_end: strength at the end.
        guidance_tokens: tokens over which it rises; None for the whole phase.
        options: further keyword arguments of the collator; for "ahm" also the keys of `AdaptiveSettings`.
    """

    kind: str = "mlm"
    mlm_probability: float = 0.30
    whole_word: bool = False
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    guidance_tokens: int | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability must lie between 0 and 1; got {self.mlm_probability}")
        check_share(self, "guidance_start", "guidance_end")
        check_least(self, guidance_tokens=0)


@dataclass
class ScheduleConfig:
    """How a phase's learning rate moves.

    Attributes:
        name: one of `schedules.SCHEDULES`.
        warmup_tokens: tokens of linear warm-up.
        decay_tokens: tokens of the final decay, for warmup_stable_decay; the other names decay all the way.
        alpha_f: factor on the learning rate at the end of the decay.
    """

    name: str = "warmup_stable_decay"
    warmup_tokens: int = 0
    decay_tokens: int = 0
    alpha_f: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise ValueError(f"unknown schedule '{self.name}': use one of {', '.join(SCHEDULES)}")
        if self.warmup_tokens < 0 or self.decay_tokens < 0:
            raise ValueError("warmup_tokens and decay_tokens must not be negative")
        check_least(self, alpha_f=0)


@dataclass
class LanguageSampling:
    """How a phase weighs languages, whatever the sources that their text comes from.

    Attributes:
        temperature: each language has a share in proportion to its tokens to this power: 1 as they are, 0 all equal;
            [start, end] moves over the phase. Weights of the mixture then multiply the tokens of a source. None: the
            mixture's weights are shares, as without languages.
        only: the languages of this phase; None for all that its sources have.
    """

    temperature: float | list[float] | None = None
    only: list[str] | None = None

    def __post_init__(self) -> None:
        ends = self.ends()
        if self.temperature is not None and not (len(ends) == 2 and all(0 <= end < math.inf for end in ends)):
            raise ValueError(f"temperature must be a number >= 0 or [start, end]; got {self.temperature}")
        if self.only is not None and not self.only:
            raise ValueError("only names no language: leave it out for all of them")

    def ends(self) -> tuple[float, ...]:
        """Temperature at the start and at the end of the phase; nothing if there is none."""
        if self.temperature is None:
            return ()
        return tuple(self.temperature) if isinstance(self.temperature, list) else (self.temperature,) * 2


@dataclass
class Phase:
    """One stretch of a run with its own data, masking, length and learning rate.

    Attributes:
        name: shown in logs and results.
        mixture: weight of each source of tokens, or [start, end]: the weight then moves linearly over the phase.
        max_tokens: budget; exactly one of this and `epochs` is set.
        languages: how the languages of the sources are weighed; None as the mixture weighs their sources.
        epochs: passes over the tokens of all sources of the mixture together; "npr" encodes more on top.
        seq_length: longest piece of a document.
        batch_tokens: tokens of a global step, over all ranks and all accumulation.
        batch_warmup_tokens: tokens over which the batch grows to `batch_tokens`.
        batch_warmup_start: share of `batch_tokens` that it starts with (ModernBERT: 768 of 4,608).
        learning_rate: peak of the phase.
        schedule: how the rate moves.
        masking: how tokens are chosen for prediction.
        neighbors: how neighbour product reconstruction is trained, with the objective "npr".
        global_rope_theta: RoPE base of the global layers from this phase on; None keeps the model's.
        local_rope_theta: RoPE base of the local layers.
        objectives: names of the losses: "mlm" or "ahm", and beside it "npr" where the model and the trainer have it.
            "ahm" is masked LM with `masking.kind: ahm`; a masking left at its defaults becomes that, at the paper's
            15 %.
    """

    name: str
    mixture: dict[str, float | list[float]]
    max_tokens: int | None = None
    epochs: float | None = None
    seq_length: int = 1024
    batch_tokens: int = 4608 * 1024
    batch_warmup_tokens: int = 0
    batch_warmup_start: float = 1 / 6
    learning_rate: float = 8e-4
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    neighbors: NeighborConfig = field(default_factory=NeighborConfig)
    global_rope_theta: float | None = None
    local_rope_theta: float | None = None
    objectives: list[str] = field(default_factory=lambda: ["mlm"])
    languages: LanguageSampling | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.epochs is not None:
            raise ValueError(
                f"phase '{self.name}': max_tokens and epochs are both set, and say the same in two ways: set the one "
                "that you do not mean to null"
            )
        if self.max_tokens is None and self.epochs is None:
            raise ValueError(f"phase '{self.name}': set max_tokens or epochs")
        if (self.max_tokens or self.epochs or 0) <= 0:
            raise ValueError(f"phase '{self.name}': max_tokens and epochs must be positive")
        if self.seq_length < 8:
            raise ValueError(f"phase '{self.name}': seq_length must be at least 8; got {self.seq_length}")
        self._check_objectives()
        if self.learning_rate <= 0:
            raise ValueError(f"phase '{self.name}': learning_rate must be positive; got {self.learning_rate}")
        try:
            check_least(self, batch_tokens=1, batch_warmup_tokens=0)
            check_above_zero(self, "epochs", "learning_rate", "global_rope_theta", "local_rope_theta")
        except ValueError as error:
            raise ValueError(f"phase '{self.name}': {error}") from None
        if not 0 < self.batch_warmup_start <= 1:
            raise ValueError(f"phase '{self.name}': batch_warmup_start must lie in (0, 1]")
        self.weights()

    def _check_objectives(self) -> None:
        shown = f"phase '{self.name}': objectives={self.objectives}"
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown:
            raise ValueError(f"{shown}: unknown objective '{unknown[0]}': use {', '.join(OBJECTIVES)}")
        if len(set(self.objectives)) < len(self.objectives) or ("mlm" in self.objectives) == ("ahm" in self.objectives):
            raise ValueError(f"{shown}: name exactly one of mlm and ahm, and each objective once")
        if "ahm" not in self.objectives or self.masking.kind == "ahm":
            self._check_adaptive()
            return
        if self.masking.kind != MaskingConfig.kind:
            raise ValueError(f"{shown}: 'ahm' masks adaptively, but masking.kind is '{self.masking.kind}': drop one")
        untouched = self.masking == MaskingConfig()
        share = AHM_PROBABILITY if untouched else self.masking.mlm_probability
        self.masking = dataclasses.replace(self.masking, kind="ahm", mlm_probability=share)
        self._check_adaptive()

    def _check_adaptive(self) -> None:
        if self.masking.kind != "ahm":
            return
        try:
            split_options(self.masking.options)
        except ValueError as error:
            raise ValueError(f"phase '{self.name}': masking.options: {error}") from None

    def weights(self) -> dict[str, tuple[float, float]]:
        """Weight of each source at the first and at the last step.

        Raises:
            ValueError: if there is no source, a weight is negative, or all are zero at one end.

        Example:
            >>> Phase("anneal", {"general": [1, 0], "shop": [0, 1]}, max_tokens=1000).weights()
            {'general': (1.0, 0.0), 'shop': (0.0, 1.0)}
        """
        ends: dict[str, tuple[float, float]] = {}
        for source, weight in self.mixture.items():
            pair = weight if isinstance(weight, list | tuple) else [weight, weight]
            if len(pair) != 2 or not all(0 <= end < math.inf for end in pair):
                raise ValueError(
                    f"phase '{self.name}': mixture.{source} must be a weight >= 0 or [start, end]; got {weight}"
                )
            ends[source] = (float(pair[0]), float(pair[1]))
        if any(sum(pair[end] for pair in ends.values()) <= 0 for end in (0, 1)):
            raise ValueError(f"phase '{self.name}': mixture needs a source with a positive weight at both ends")
        return ends

    @property
    def row_share(self) -> float:
        """Share of the tokens that are rows of the mixture; "npr" encodes more than those."""
        return self.neighbors.row_share if "npr" in self.objectives else 1.0

    def scaled(self, scale: float) -> Phase:
        """The phase with its budget and all warm-ups and decays multiplied; batch and rates stay."""
        phase = copy.deepcopy(self)
        if phase.max_tokens is not None:
            phase.max_tokens = max(1, round(phase.max_tokens * scale))
        if phase.epochs is not None:
            phase.epochs *= scale
        phase.batch_warmup_tokens = round(phase.batch_warmup_tokens * scale)
        phase.schedule.warmup_tokens = round(phase.schedule.warmup_tokens * scale)
        phase.schedule.decay_tokens = round(phase.schedule.decay_tokens * scale)
        if phase.masking.guidance_tokens is not None:
            phase.masking.guidance_tokens = round(phase.masking.guidance_tokens * scale)
        if phase.masking.kind == "ahm":
            phase.masking.options = scaled_options(phase.masking.options, scale)
        return phase


@dataclass
class Curriculum:
    """Phases that one run goes through, with one step counter.

    Attributes:
        phases: in order.
        seed: of the order of samples, masks and dropout.
        micro_batch_tokens: most tokens that one forward pass on one device may hold.

    Example:
        >>> half = Curriculum([Phase("one", {"shop": 1.0}, max_tokens=1000)]).scaled(0.5)
        >>> half.phases[0].max_tokens
        500
    """

    phases: list[Phase]
    seed: int = 0
    micro_batch_tokens: int = 16384

    def __post_init__(self) -> None:
        if not self.phases:
            raise ValueError("a curriculum needs at least one phase")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"phase names must differ; got {', '.join(names)}")
        check_least(self, micro_batch_tokens=1)

    def scaled(self, scale: float) -> Curriculum:
        """The curriculum with all token budgets, warm-ups and decays multiplied by `scale`.

        Raises:
            ValueError: if the scale is not positive, or infinite.
        """
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive and finite; got {scale}")
        try:
            phases = [phase.scaled(scale) for phase in self.phases]
        except OverflowError:
            raise ValueError(f"scale must leave budgets finite; got {scale}") from None
        return dataclasses.replace(self, phases=phases)
