from __future__ import annotations

import math

import pytest

from rexbert_hf.training.schedules import SCHEDULES, one_minus_sqrt, schedule_factor, warmup_stable_decay


@pytest.mark.parametrize("progress", [0.0, 0.1, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("alpha_f", [0.0, 0.04, 0.5])
def test_one_minus_sqrt_is_the_published_formula(progress, alpha_f):
    assert one_minus_sqrt(progress, alpha_f) == alpha_f + (1 - alpha_f) * (1 - math.sqrt(progress))


def test_warmup_stable_decay_by_hand():
    factors = [warmup_stable_decay(t, 1000, warmup=100, decay=200, alpha_f=0.2) for t in (0, 25, 100, 800, 900, 1000)]
    assert factors == pytest.approx([0, 0.25, 1, 1, 0.6, 0.2])


def test_without_decay_it_stays_flat_to_the_end():
    assert warmup_stable_decay(1000, 1000, warmup=10) == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [1, 1, 1]),
        ("linear", [1, 0.55, 0.1]),
        ("cosine", [1, 0.55, 0.1]),
        ("one_minus_sqrt", [1, 0.1 + 0.9 * (1 - 0.5**0.5), 0.1]),
    ],
)
def test_decays_run_over_what_the_warmup_left(name, expected):
    assert schedule_factor(name, 10, 110, warmup=20, alpha_f=0.1) == 0.5
    assert [schedule_factor(name, t, 110, warmup=10, alpha_f=0.1) for t in (10, 60, 110)] == pytest.approx(expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors_never_leave_the_unit_interval(name):
    factors = [schedule_factor(name, t, 97, warmup=13, decay=20, alpha_f=0.02) for t in range(98)]
    assert min(factors) >= 0
    assert max(factors) <= 1


def test_unknown_schedule_names_the_known_ones():
    with pytest.raises(ValueError, match="unknown schedule 'wsd': use one of warmup_stable_decay, constant"):
        schedule_factor("wsd", 0, 1)
