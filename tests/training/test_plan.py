from __future__ import annotations

import json
import re

import numpy as np
import pytest

from rexbert_hf.settings import from_dict
from rexbert_hf.training import Curriculum, MaskingConfig, Phase, ScheduleConfig, resolve
from rexbert_hf.training.plan import differences, fingerprint

LENGTHS = {"general": np.full(2000, 16), "shop": np.full(1000, 16), "empty": np.zeros(0, dtype=np.int64)}


def phase(name="one", mixture=None, **options):
    options = {"seq_length": 32, "batch_tokens": 512, **options}
    if "epochs" not in options:
        options.setdefault("max_tokens", 5120)
    return Phase(name, mixture or {"general": 1.0}, **options)


def two_phases(**options):
    return Curriculum(
        [
            phase("one", max_tokens=5120, learning_rate=1e-3),
            phase("two", max_tokens=2560, seq_length=64, learning_rate=5e-4),
        ],
        **{"micro_batch_tokens": 128, **options},
    )


def test_phases_follow_each_other_on_one_counter():
    plan = resolve(two_phases(), LENGTHS)
    first, second = plan.phases
    assert (first.first_step, first.last_step) == (0, 9)
    assert (second.first_step, second.last_step, plan.total_steps) == (10, 14, 15)
    assert [plan.phase_at(step).name for step in (0, 9, 10, 14, 99)] == ["one", "one", "two", "two", "two"]


def test_epochs_become_tokens_of_all_sources_of_the_mixture():
    plan = resolve(Curriculum([phase(mixture={"general": 1, "shop": 1}, epochs=0.5)]), LENGTHS)
    assert plan.phases[0].max_tokens == 3000 * 16 // 2


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_micro_batches_do_not_depend_on_ranks_that_divide_them(world_size):
    plan = resolve(two_phases(), LENGTHS, world_size)
    assert plan.micro_batches == 4
    assert plan.accumulation_steps == 4 // world_size
    micros = [micro for rank in range(world_size) for micro in plan.rank_micros(rank)]
    assert sorted(micros) == [0, 1, 2, 3]
    assert plan.description() == resolve(two_phases(), LENGTHS, 1).description()


def test_micro_batches_are_rounded_up_to_the_ranks():
    assert (
        resolve(Curriculum([phase(batch_tokens=480)], micro_batch_tokens=200), LENGTHS, world_size=2).micro_batches == 4
    )


def test_a_run_that_goes_on_keeps_its_micro_batches():
    """Begun on two ranks, where three micro-batches became four; one rank and four go on, three cannot."""
    curriculum = Curriculum([phase(batch_tokens=480)], micro_batch_tokens=200)
    begun = resolve(curriculum, LENGTHS, world_size=2)
    assert (begun.micro_batches, resolve(curriculum, LENGTHS).micro_batches) == (4, 3)
    for world_size in (1, 4):
        assert resolve(curriculum, LENGTHS, world_size, 4).description() == begun.description()
    with pytest.raises(
        ValueError, match="has 4 micro-batches a step, which 3 processes cannot share: start 1, 2, 4 of"
    ):
        resolve(curriculum, LENGTHS, 3, 4)
    smaller = Curriculum([phase(batch_tokens=480)], micro_batch_tokens=60)
    assert resolve(smaller, LENGTHS, 1, 4).micro_batches == 8, "what no longer fits is another plan"


def test_smaller_batches_split_into_as_many_micro_batches():
    curriculum = Curriculum([phase("big"), phase("small", batch_tokens=256)], micro_batch_tokens=128)
    plan = resolve(curriculum, LENGTHS)
    assert [p.micro_capacity(p.first_step) for p in plan.phases] == [128, 64]


def test_batch_warmup_grows_to_the_full_batch():
    growing = phase(max_tokens=51200, batch_warmup_tokens=10240, batch_warmup_start=0.5)
    one = resolve(Curriculum([growing], micro_batch_tokens=512), LENGTHS).phases[0]
    sizes = [one.micro_capacity(step) for step in range(one.num_steps)]
    growth, last_two = sizes[:-2], sizes[-2:]
    assert growth == sorted(growth)
    assert 256 <= growth[0] < 300
    assert growth[-1] == 512
    assert last_two[0] == last_two[1] <= 512  # they share what is left of the budget
    assert one.num_steps > resolve(Curriculum([phase(max_tokens=51200)]), LENGTHS).phases[0].num_steps
    assert one.tokens_before(one.num_steps) == pytest.approx(51200)


def test_learning_rate_composes_the_phases():
    curriculum = Curriculum(
        [
            phase("one", learning_rate=1e-3, schedule=ScheduleConfig(warmup_tokens=1024)),
            phase("two", max_tokens=2560, learning_rate=5e-4, schedule=ScheduleConfig("one_minus_sqrt", alpha_f=0.1)),
        ]
    )
    plan = resolve(curriculum, LENGTHS)
    rates = [plan.learning_rate(step) for step in range(plan.total_steps)]
    assert rates[:3] == pytest.approx([0.25e-3, 0.75e-3, 1e-3])  # the middle of each step, warm-up over two steps
    assert rates[9] == pytest.approx(1e-3)
    middle = (np.arange(5) + 0.5) / 5
    assert rates[10:] == pytest.approx(5e-4 * (0.1 + 0.9 * (1 - np.sqrt(middle))))
    assert plan.learning_rate(plan.total_steps) == rates[-1]  # the scheduler looks one step past the end
    assert plan.max_learning_rate == 1e-3


def test_warmup_and_decay_may_fill_the_phase():
    schedule = ScheduleConfig(warmup_tokens=1120, decay_tokens=4000)
    assert resolve(Curriculum([phase(schedule=schedule)]), LENGTHS).total_steps == 10


def test_scale_multiplies_every_token_budget():
    curriculum = Curriculum(
        [
            phase(
                max_tokens=8000, batch_warmup_tokens=400, schedule=ScheduleConfig(warmup_tokens=100, decay_tokens=200)
            ),
            phase("two", epochs=2.0),
        ]
    )
    half = curriculum.scaled(0.5)
    first = half.phases[0]
    assert (first.max_tokens, first.batch_warmup_tokens) == (4000, 200)
    assert (first.schedule.warmup_tokens, first.schedule.decay_tokens) == (50, 100)
    assert half.phases[1].epochs == 1.0
    assert curriculum.phases[0].max_tokens == 8000, "the original stays"
    assert first.batch_tokens == 512


def test_description_survives_json_and_names_differences():
    plan = resolve(two_phases(), LENGTHS)
    stored = json.loads(json.dumps(plan.description()))
    assert differences(stored, plan.description()) == []
    other = resolve(two_phases(seed=5), LENGTHS)
    changed = differences(stored, other.description())
    assert changed[0] == "seed: 0 -> 5"
    assert any(line.startswith("phases.0.samples: ") for line in changed)
    assert fingerprint(stored) == fingerprint(plan.description()) != fingerprint(other.description())


def test_other_data_is_another_plan():
    other = {**LENGTHS, "general": np.full(2000, 17)}
    changed = differences(resolve(two_phases(), LENGTHS).description(), resolve(two_phases(), other).description())
    assert any("phases.0.samples" in line for line in changed)


@pytest.mark.parametrize(
    ("curriculum", "message"),
    [
        (
            lambda: Curriculum([phase(mixture={"web": 1.0})]),
            "phase 'one': mixture names the source 'web', but .* empty, general, shop",
        ),
        (lambda: Curriculum([phase(mixture={"empty": 1.0})]), "phase 'one': the source 'empty' holds no documents"),
        (
            lambda: Curriculum([phase(batch_tokens=513)], micro_batch_tokens=128),
            "batch_tokens=513 does not divide into the 5 .*use 515",
        ),
        (
            lambda: Curriculum([phase(seq_length=256)], micro_batch_tokens=128),
            "seq_length=256 does not fit a .* of 128",
        ),
        (
            lambda: Curriculum([phase(schedule=ScheduleConfig("cosine", warmup_tokens=5120))]),
            "phase 'one': schedule.warmup_tokens=5120 do not fit its 5120 tokens: .*--scale",
        ),
        (
            lambda: Curriculum([phase(schedule=ScheduleConfig(warmup_tokens=3000, decay_tokens=4000))]),
            "schedule.warmup_tokens=3000 and decay_tokens=4000 do not fit its 5120 tokens",
        ),
        (
            lambda: Curriculum([phase(epochs=0.1, schedule=ScheduleConfig(warmup_tokens=4000))]),
            "warmup_tokens=4000 do not fit its 3200 tokens",
        ),
        (lambda: Curriculum([]), "at least one phase"),
        (lambda: Curriculum([phase(), phase()]), "phase names must differ; got one, one"),
        (lambda: phase(max_tokens=None), "set max_tokens or epochs"),
        (lambda: phase(max_tokens=100, epochs=1), "both set, .*: set the one that you do not mean to null"),
        (lambda: Phase("one", {}, max_tokens=1), "mixture needs a source"),
        (lambda: phase(mixture={"general": [1, 0]}), "positive weight at both ends"),
        (lambda: phase(mixture={"general": -1}), r"mixture.general must be a weight >= 0 or \[start, end\]; got -1"),
        (lambda: ScheduleConfig("wsd"), "unknown schedule 'wsd'"),
        (lambda: two_phases().scaled(0), "scale must be positive"),
    ],
)
def test_bad_curricula_get_one_line(curriculum, message):
    with pytest.raises(ValueError, match=message) as caught:
        resolve(curriculum(), LENGTHS)
    assert "\n" not in str(caught.value)


def test_a_recipe_file_can_hold_one():
    tree = {
        "seed": 1,
        "phases": [
            {"name": "general", "mixture": {"general": 1}, "max_tokens": "1e6", "masking": {"kind": "mlm"}},
            {
                "name": "anneal",
                "mixture": {"general": [1, 0], "shop": [0, 1]},
                "max_tokens": "2M",
                "schedule": {"name": "one_minus_sqrt", "alpha_f": 0.04},
                "masking": {"kind": "guided", "options": {"boost": 2.0, "kind_weights": {"brand": 2.0}}},
            },
        ],
    }
    curriculum = from_dict(Curriculum, tree)
    assert curriculum.phases[0].max_tokens == 1_000_000
    assert curriculum.phases[1].mixture == {"general": [1, 0], "shop": [0, 1]}
    assert curriculum.phases[1].masking.options == {"boost": 2.0, "kind_weights": {"brand": 2.0}}


def phase_with(**settings):
    return Phase("one", {"shop": 1.0}, max_tokens=1000, **settings)


@pytest.mark.parametrize(
    ("objectives", "problem"),
    [
        (["mlm", "nsp"], "unknown objective 'nsp': use mlm, ahm, npr"),
        (["npr"], "exactly one of mlm and ahm"),
        (["mlm", "ahm"], "exactly one of mlm and ahm"),
        (["mlm", "npr", "npr"], "each objective once"),
        ([], "exactly one of mlm and ahm"),
    ],
)
def test_objectives_that_make_no_sense(objectives, problem):
    with pytest.raises(ValueError, match=rf"phase 'one': objectives=.*{problem}"):
        phase_with(objectives=objectives)


def test_ahm_is_masked_lm_with_adaptive_masking():
    assert phase_with(objectives=["ahm", "npr"]).masking == MaskingConfig("ahm", mlm_probability=0.15)
    chosen = phase_with(objectives=["ahm"], masking=MaskingConfig(mlm_probability=0.2))
    assert chosen.masking == MaskingConfig("ahm", mlm_probability=0.2)
    written = MaskingConfig("ahm", options={"alpha_0": 0.8})
    assert phase_with(objectives=["ahm"], masking=written).masking == written
    assert phase_with(masking=written).masking == written
    with pytest.raises(ValueError, match=r"phase 'one': .*masking.kind is 'guided'"):
        phase_with(objectives=["ahm"], masking=MaskingConfig("guided"))


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize(
    ("length", "batch_tokens", "micro_batch_tokens"), [(256, 512, 128), (600, 1024, 512), (100, 512, 64), (50, 64, 32)]
)
def test_the_way_out_for_a_long_document_leads_out(length, batch_tokens, micro_batch_tokens, world_size):
    """The values of the message, taken as often as one comes, end with a plan, and no value is told twice."""
    told = []
    while True:
        chosen = phase(seq_length=length, batch_tokens=batch_tokens, max_tokens=51200)
        try:
            plan = resolve(Curriculum([chosen], micro_batch_tokens=micro_batch_tokens), LENGTHS, world_size)
            break
        except ValueError as error:
            if str(error) in told:
                pytest.fail(f"told twice: {error}")
            told.append(str(error))
            values = {name: int(value) for name, value in re.findall(r"(\w+_tokens) to (\d+)", str(error))}
            values |= {"batch_tokens": int(found[1])} if (found := re.search(r": use (\d+)$", str(error))) else {}
            batch_tokens = values.get("batch_tokens", batch_tokens)
            micro_batch_tokens = values.get("micro_batch_tokens", micro_batch_tokens)
    assert told
    assert plan.phases[0].order.seq_length == length
