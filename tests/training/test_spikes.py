"""Loss spikes against a written-out running median."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from rexbert_hf.training.arguments import CurriculumArguments
from rexbert_hf.training.spikes import SpikeWatch


def test_against_the_written_out_median():
    rng = np.random.default_rng(0)
    losses = (2 + 0.1 * rng.standard_normal(200)).tolist()
    losses[80], losses[81], losses[150] = 5.0, 4.5, 3.9
    watch, found = SpikeWatch(2.0, window=20), []
    for step, loss in enumerate(losses):
        if watch.median_exceeded(loss) is not None:
            found.append(step)
        else:
            watch.add(loss)
    kept: list[float] = []
    expected = []
    for step, loss in enumerate(losses):
        median = statistics.median(kept[-20:]) if kept else 0.0
        if len(kept) >= 5 and loss > 2 * median and loss > 1 + median:
            expected.append(step)
        else:
            kept.append(loss)
    assert found == expected == [80, 81]


def test_text_known_by_heart_has_no_spikes():
    """Near a loss of zero, batches differ by multiples of it; a nat above it is a spike there too."""
    watch = SpikeWatch(window=10)
    for loss in (0.01, 0.02, 0.01, 0.05, 0.02, 0.3, 0.01, 0.9):
        assert watch.median_exceeded(loss) is None
        watch.add(loss)
    assert watch.median_exceeded(1.03) == pytest.approx(0.02)


def test_a_slow_rise_is_none_and_a_phase_starts_anew():
    watch = SpikeWatch(1.5, window=10)
    for step in range(300):
        loss = 1.02**step
        assert watch.median_exceeded(loss) is None
        watch.add(loss)
    watch.enter(1)
    assert watch.median_exceeded(1e9) is None


def test_the_state_comes_back_as_it_was():
    watch = SpikeWatch(2.0, window=5)
    watch.enter(0)
    for loss in (1.0, 1.1, 0.9, 1.2, 1.3, 0.7):
        watch.add(loss)
    other = SpikeWatch(2.0, window=5)
    other.load_state_dict(watch.state_dict())
    other.enter(0)
    assert other.state_dict() == watch.state_dict() == {"phase": 0, "losses": {"": [1.1, 0.9, 1.2, 1.3, 0.7]}}
    other.load_state_dict({"phase": 0, "losses": [1.0, 1.0]})  # of an earlier version, which knew no kinds
    assert not other.losses


def test_steps_of_two_kinds_have_a_median_each():
    """Phrases masked whole cost four times what words do; a word step that costs as much is a spike."""
    watch = SpikeWatch(3.0, window=10)
    for _ in range(6):
        for kind, loss in (("word", 1.5), ("phrase", 6.0)):
            watch.enter(0, kind)
            assert watch.median_exceeded(loss) is None
            watch.add(loss)
    watch.enter(0, "word")
    assert watch.median_exceeded(6.0) == 1.5
    other = SpikeWatch(3.0, window=10)
    other.load_state_dict(watch.state_dict())
    other.enter(0, "phrase")
    assert other.median_exceeded(6.1) is None
    assert other.median_exceeded(18.1) == 6.0
    other.enter(1, "phrase")
    assert other.median_exceeded(1e9) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [({"spike_factor": 1.0}, "above 1"), ({"spike_factor": 3.0, "spike_window": 4}, "at least 5")],
)
def test_settings_that_make_no_sense(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CurriculumArguments(output_dir=str(tmp_path), use_cpu=True, **options)
