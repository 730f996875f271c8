"""A curriculum resolved to steps: which phase a step belongs to, its samples, its learning rate; and its fingerprint.

Every phase has the same number of micro-batches a step (the Trainer's gradient accumulation is constant), so phases
differ in how much a micro-batch holds. The number of micro-batches does not depend on how many ranks share them,
hence neither do the batches: accumulation step a of rank r of R is micro-batch `a * R + r`.
"""

from __future__ import annotations

import bisect
import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rexbert_hf.data.order import PhaseOrder, Source, source_tokens
from rexbert_hf.training.languages import language_of, weigh_stores
from rexbert_hf.training.phases import Curriculum, Phase
from rexbert_hf.training.schedules import schedule_factor

_SHOWN_DIFFERENCES = 8


@dataclass(frozen=True)
class PhasePlan:
    """A phase with its place in the run.

    Attributes:
        phase: as written, with `max_tokens` resolved.
        index: place among the phases.
        first_step: global step (from 0) it begins with.
        order: its samples, and how many steps they make.
        row_share: share of the tokens that `order` draws; below one where an objective encodes more than the rows.
        languages: language of each store that `order` draws from, where it is known.
    """

    phase: Phase
    index: int
    first_step: int
    order: PhaseOrder
    row_share: float = 1.0
    languages: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the phase."""
        return self.phase.name

    @property
    def num_steps(self) -> int:
        """Global steps of the phase."""
        return self.order.num_steps

    @property
    def last_step(self) -> int:
        """Global step it ends with, inclusive."""
        return self.first_step + self.num_steps - 1

    @property
    def max_tokens(self) -> int:
        """Budget in tokens, further encodings included."""
        return self.phase.max_tokens or self.order.max_tokens

    def micro_capacity(self, step: int) -> int:
        """Tokens that a micro-batch of global step `step` may hold."""
        return int(self.order.micro_capacity(step - self.first_step) / self.row_share + 1e-6)

    def tokens_before(self, step: int) -> float:
        """Tokens of the phase before global step `step`."""
        return self.order.tokens_before(step - self.first_step) / self.row_share

    def steps_for(self, tokens: float) -> int:
        """Steps of the phase until `tokens` have passed."""
        return bisect.bisect_left(range(self.num_steps), tokens * self.row_share, key=self.order.tokens_before)

    def learning_rate(self, step: int) -> float:
        """Learning rate of global step `step`, taken at the middle of its tokens."""
        schedule = self.phase.schedule
        t = (self.tokens_before(step) + self.tokens_before(step + 1)) / 2
        factor = schedule_factor(
            schedule.name, t, self.max_tokens, schedule.warmup_tokens, schedule.decay_tokens, schedule.alpha_f
        )
        return self.phase.learning_rate * factor


@dataclass(frozen=True)
class Plan:
    """All phases resolved; what the sampler, the scheduler and the trainer read.

    Attributes:
        phases: in order.
        seed: of the order of samples, masks and dropout.
        micro_batches: micro-batches of a global step, over all ranks.
        world_size: ranks that share them.
    """

    phases: tuple[PhasePlan, ...]
    seed: int
    micro_batches: int
    world_size: int = 1

    @property
    def orders(self) -> list[PhaseOrder]:
        """Sample orders of the phases, for `CurriculumDataset` and `CurriculumSampler`."""
        return [phase.order for phase in self.phases]

    @property
    def sources(self) -> list[str]:
        """Names of the sources that some phase mixes, sorted."""
        return sorted({name for phase in self.phases for name in phase.order.names})

    @property
    def total_steps(self) -> int:
        """Global steps of the run."""
        return self.phases[-1].last_step + 1

    @property
    def accumulation_steps(self) -> int:
        """Micro-batches of one rank in a global step."""
        return self.micro_batches // self.world_size

    @property
    def max_learning_rate(self) -> float:
        """The highest peak of all phases."""
        return max(phase.phase.learning_rate for phase in self.phases)

    def phase_at(self, step: int) -> PhasePlan:
        """The phase of global step `step` (counted from 0); steps past the end belong to the last phase."""
        at = bisect.bisect_right(self.phases, step, key=lambda phase: phase.first_step) - 1
        return self.phases[at]

    def learning_rate(self, step: int) -> float:
        """Learning rate of global step `step`."""
        phase = self.phase_at(step)
        return phase.learning_rate(min(step, phase.last_step))

    def rope_thetas(self, step: int) -> tuple[float | None, float | None]:
        """RoPE bases of the global and the local layers at global step `step`; None where the model's own still holds.

        A phase that sets none keeps that of the phase before, so a resumed run must look further back than its phase.
        """
        found: list[float | None] = [None, None]
        for plan in self.phases[: self.phase_at(step).index + 1]:
            for at, theta in enumerate((plan.phase.global_rope_theta, plan.phase.local_rope_theta)):
                found[at] = found[at] if theta is None else theta
        return found[0], found[1]

    def rank_micros(self, rank: int) -> list[int]:
        """Micro-batches of each step that rank `rank` computes.

        Example:
            >>> Plan((), seed=0, micro_batches=4, world_size=2).rank_micros(1)
            [1, 3]
        """
        return list(range(rank, self.micro_batches, self.world_size))

    def description(self) -> dict[str, Any]:
        """What decides the weights, as dotted keys: two runs with equal descriptions do the same work.

        The number of ranks is not part of it: the batches do not depend on it.
        """
        phases = []
        for phase in self.phases:
            found = dataclasses.asdict(phase.phase) | {"steps": phase.num_steps, "samples": phase.order.fingerprint}
            if found["languages"] is None:
                del found["languages"]  # runs from before there was the key go on
            phases.append(found)
        return flatten({"seed": self.seed, "micro_batches": self.micro_batches, "phases": phases})


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of a tree of dicts and lists.

    Example:
        >>> flatten({"a": {"b": 1}, "c": [2, {"d": None}]})
        {'a.b': 1, 'c.0': 2, 'c.1.d': None}
    """
    if isinstance(tree, Mapping):
        items = [(str(key), value) for key, value in tree.items()]
    elif isinstance(tree, list | tuple):
        items = [(str(i), value) for i, value in enumerate(tree)]
    else:
        return {prefix: tree}
    out: dict[str, Any] = {}
    for key, value in items:
        out |= flatten(value, f"{prefix}.{key}" if prefix else key)
    return out


def fingerprint(description: Mapping[str, Any]) -> str:
    """Stable short hash of a description, the same in every process and Python version.

    Example:
        >>> fingerprint({"a": 1, "b": 2.0}) == fingerprint({"b": 2.0, "a": 1})
        True
    """
    return hashlib.sha256(json.dumps(description, sort_keys=True, default=str).encode()).hexdigest()[:16]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Readable differences, one a key.

    Example:
        >>> differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
        ['b: 2 -> 3', 'c: (absent) -> 4']
    """
    keys = [*old, *(key for key in new if key not in old)]
    return [
        f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
        for key in keys
        if old.get(key, "(absent)") != new.get(key, "(absent)")
    ]


def listed_differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The first differences in one line, and how many more there are; empty where there are none.

    Example:
        >>> listed_differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4})
        'b: 2 -> 3; c: (absent) -> 4'
    """
    changed = differences(old, new)
    more = len(changed) - _SHOWN_DIFFERENCES
    return "; ".join(changed[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def resolve(
    curriculum: Curriculum, sources: Mapping[str, Source], world_size: int = 1, micro_batches: int | None = None
) -> Plan:
    """Turn a curriculum into steps.

    The number of micro-batches is the smallest multiple of `world_size` for which the largest batch fits
    `micro_batch_tokens`; every phase splits its batch into that many. A run that goes on keeps the number that it began
    with, where that fits too.

    Args:
        curriculum: the phases.
        sources: each source that a mixture may name: a `TokenisedDataset`, or an array of document lengths. A source in
            several languages is a store for each, whose metadata name `source` and `language`.
        world_size: ranks that will train.
        micro_batches: of a run that goes on, as `checkpoint.micro_batches_of` tells; None for a new one.

    Raises:
        ValueError: if these ranks cannot share the micro-batches of the run that goes on, a mixture names an unknown
            or empty source, a batch does not divide into the micro-batches, a document of `seq_length` would not fit
            one, or a phase is too short for its warm-up and decay.

    Example:
        >>> import numpy as np
        >>> phase = Phase("one", {"shop": 1.0}, epochs=2, seq_length=64, batch_tokens=512)
        >>> plan = resolve(Curriculum([phase], micro_batch_tokens=128), {"shop": np.full(1000, 32)})
        >>> plan.total_steps, plan.micro_batches, plan.phases[0].max_tokens
        (125, 4, 64000)
    """
    largest = max(phase.batch_tokens for phase in curriculum.phases)
    micros = math.ceil(largest / curriculum.micro_batch_tokens)
    if micro_batches is not None and micro_batches % world_size:
        fitting = [str(count) for count in range(1, micro_batches + 1) if micro_batches % count == 0]
        raise ValueError(
            f"the run in this output_dir has {micro_batches} micro-batches a step, which {world_size} processes cannot "
            f"share: start {', '.join(fitting)} of them, or choose another output_dir"
        )
    if micro_batches is not None and micro_batches >= micros:
        micros = micro_batches
    micros = math.ceil(micros / world_size) * world_size
    plans: list[PhasePlan] = []
    first_step = 0
    for index, phase in enumerate(curriculum.phases):
        _check_batch(phase, micros, curriculum, world_size)
        plan = _resolve_phase(phase, index, first_step, micros, sources, curriculum.seed)
        plans.append(plan)
        first_step += plan.num_steps
    return Plan(tuple(plans), curriculum.seed, micros, world_size)


def _check_batch(phase: Phase, micros: int, curriculum: Curriculum, world_size: int) -> None:
    capacity = int(phase.batch_tokens // micros * phase.row_share + 1e-6)
    if phase.batch_tokens % micros:
        near = max(1, round(phase.batch_tokens / micros)) * micros
        raise ValueError(
            f"phase '{phase.name}': batch_tokens={phase.batch_tokens} does not divide into the {micros} micro-batches "
            f"of a step on {world_size} rank(s): use {near}"
        )
    if phase.seq_length > capacity:
        held = "tokens" if phase.row_share == 1 else "tokens beside what its objective 'npr' encodes"
        raise ValueError(
            f"phase '{phase.name}': seq_length={phase.seq_length} does not fit a micro-batch of {capacity} {held}: "
            f"{_way_to_fit(phase, micros, curriculum, world_size)} (now {phase.batch_tokens} and "
            f"{curriculum.micro_batch_tokens}), or lower seq_length"
        )


def _way_to_fit(phase: Phase, micros: int, curriculum: Curriculum, world_size: int) -> str:
    """Values with which the documents of a phase fit; a larger batch alone may only make more micro-batches."""
    needed = math.ceil(phase.seq_length / phase.row_share)
    if needed <= curriculum.micro_batch_tokens:
        return f"raise batch_tokens to {needed * micros}, or micro_batch_tokens"
    fitting = phase.batch_tokens // needed // world_size * world_size  # micro-batches of which each holds a document
    if fitting:
        largest = max(other.batch_tokens for other in curriculum.phases)
        return f"keep batch_tokens and raise micro_batch_tokens to {math.ceil(largest / fitting)}"
    return f"raise batch_tokens to {needed * world_size} and micro_batch_tokens to {needed}"


def _check_schedule(phase: Phase, total: int) -> None:
    """A warm-up that does not end leaves the rate near zero, and a decay that begins within it makes it jump."""
    schedule = phase.schedule
    decay = schedule.decay_tokens if schedule.name == "warmup_stable_decay" else 0
    if 0 < schedule.warmup_tokens >= total or schedule.warmup_tokens + decay > total:
        parts = f"schedule.warmup_tokens={schedule.warmup_tokens}" + (f" and decay_tokens={decay}" if decay else "")
        raise ValueError(
            f"phase '{phase.name}': {parts} do not fit its {total} tokens: lower them, or keep max_tokens and shorten "
            "the run with --scale, which multiplies budgets, warm-ups and decays alike"
        )


def _resolve_phase(
    phase: Phase, index: int, first_step: int, micros: int, sources: Mapping[str, Source], seed: int
) -> PhasePlan:
    weights = weigh_stores(phase, sources)
    used = {name: sources[name] for name in weights}
    share = phase.row_share
    if phase.max_tokens is not None:
        tokens = max(1, round(phase.max_tokens * share))
    else:
        assert phase.epochs is not None
        tokens = math.ceil(phase.epochs * sum(source_tokens(source, phase.seq_length) for source in used.values()))
    order = PhaseOrder(
        used,
        weights,
        phase.seq_length,
        int(phase.batch_tokens // micros * share + 1e-6) * micros,
        micros,
        tokens,
        seed=seed,
        phase=index,
        batch_warmup_tokens=phase.batch_warmup_tokens * share,
        batch_warmup_start=phase.batch_warmup_start,
    )
    total = phase.max_tokens if phase.max_tokens is not None else math.ceil(tokens / share)
    _check_schedule(phase, total)
    languages = {name: code for name, source in used.items() if (code := language_of(source)) is not None}
    resolved = dataclasses.replace(phase, max_tokens=total, epochs=None)
    return PhasePlan(resolved, index, first_step, order, share, languages)
