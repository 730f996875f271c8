"""Steps that spend a budget exactly, and a batch that grows with the tokens seen."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.steps import BatchWarmup, StepPlan


@pytest.mark.parametrize("warmup", [BatchWarmup(1000), BatchWarmup(1000, 20_000, 0.1), BatchWarmup(1000, 20_000, 1.0)])
def test_step_at_inverts_slots_before(warmup: BatchWarmup) -> None:
    for step in (0, 0.5, 7, 39.2, 51.1, 60, 1000):
        assert warmup.step_at(warmup.slots_before(step)) == pytest.approx(step, abs=1e-9)


def test_growth_solves_its_equation() -> None:
    warmup = BatchWarmup(1000, 20_000, 0.1)
    for step in (0.0, 5.0, 30.0, 51.0):
        slope = (warmup.slots_before(step + 1e-4) - warmup.slots_before(step)) / 1e-4
        assert slope == pytest.approx(1000 * (0.1 + 0.9 * warmup.slots_before(step) / 20_000), rel=1e-3)
    assert warmup.slots_before(warmup.steps) == pytest.approx(20_000)
    assert warmup.slots_of(52) == 1000


def test_bad_warmups_are_named() -> None:
    with pytest.raises(ValueError, match="batch_warmup_start"):
        BatchWarmup(1000, 10, 0.0)
    with pytest.raises(ValueError, match="batch_warmup_tokens"):
        BatchWarmup(1000, -1, 0.5)


def test_a_budget_of_whole_batches_is_whole_steps() -> None:
    for load in (1.0, 0.9995):
        plan = StepPlan.fit(BatchWarmup(800), 4, 50, 800 * 20, load)
        assert (plan.num_steps, plan.full_steps) == (20, 20)
        assert plan.slots_before(20) == 16_000
    plan = StepPlan.fit(BatchWarmup(800), 4, 50, 800 * 20, 0.9)
    assert plan.num_steps == 23
    assert plan.micro_capacity(20) == 200
    assert plan.micro_capacity(21) == plan.micro_capacity(22) == 150


plans = st.builds(
    StepPlan.fit,
    st.builds(BatchWarmup, st.just(1200), st.sampled_from([0, 3000, 10_000]), st.sampled_from([0.5, 1.0])),
    micro_batches=st.just(3),
    seq_length=st.sampled_from([20, 100, 200]),
    max_tokens=st.integers(1, 40_000),
    load=st.sampled_from([1.0, 0.9995, 0.97, 0.6]),
)


@settings(max_examples=200, deadline=None)
@given(plan=plans, data=st.data())
def test_capacities_hold_the_slots(plan: StepPlan, data: st.DataObject) -> None:
    assert plan.slots_before(0) == 0
    assert plan.slots_before(plan.num_steps) == pytest.approx(plan.slots)
    assert plan.num_steps - plan.full_steps in (0, 1, 2)
    for step in range(plan.num_steps):
        capacity = plan.micro_capacity(step)
        assert plan.seq_length <= capacity <= 400
        due = (plan.slots_before(step + 1) - plan.slots_before(step)) / 3
        if step < plan.full_steps:
            assert due - 1 <= capacity <= due + 1e-6 or plan.warmup.slots_of(step) == 1200
        else:
            assert min(400, due - 1e-6) <= capacity < due + plan.seq_length
        if step >= 1 and plan.num_steps > 2 and plan.warmup.start == 1.0:
            assert due >= 200 - 1e-6  # never less than half a step
    fraction = data.draw(st.floats(0, 1)) * plan.num_steps
    assert plan.slots_before(fraction) <= plan.slots_before(min(fraction + 0.5, plan.num_steps)) + 1e-9
