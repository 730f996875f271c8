from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml

from rexbert_hf.masking import AdaptiveSwitch

RECIPE_FILE = Path(__file__).parents[2] / "recipes" / "configs" / "ebert.yaml"
RECIPE = {"ema": 0.99, "slope_ema": 0.99, "alpha_min": 0.05, "alpha_max": 0.95}
"""Smoothing of the E-BERT recipe."""


def transcription(series, alpha_0, initial_steps, ema=0.0, low=0.0, high=1.0):
    """Equations 2-5 written out from the whole history, in float64; alpha_2, alpha_3, ... of the steps that follow."""
    eps = 1e-8
    alphas = []
    for t in range(1, len(series) + 1):
        eta = {}
        for mode in ("word", "phrase"):
            losses = [loss for ran, loss in series[:t] if ran == mode]
            smooth = losses[:1]
            for loss in losses[1:]:
                smooth.append(ema * smooth[-1] + (1 - ema) * loss)
            if len(smooth) < 2 or smooth[0] - smooth[-1] <= 0:
                eta[mode] = 0.0
            else:
                eta[mode] = max(smooth[-2] - smooth[-1], 0.0) / (smooth[0] - smooth[-1])
        gamma = (eta["word"] + eps) / (eta["phrase"] + eps)
        alphas.append(alpha_0 if t + 1 <= initial_steps else min(max(math.tanh(gamma), low), high))
    return alphas


def alphas_of(switch, series):
    out = []
    for mode, loss in series:
        switch.update(mode, loss)
        out.append(switch.alpha)
    return out


W, P = "word", "phrase"
SERIES = {
    "alternating": [(W, 8.0), (P, 9.0), (W, 7.0), (P, 8.5), (W, 6.5), (P, 7.0), (W, 6.25), (P, 6.0)],
    "words only": [(W, 8.0), (W, 7.0), (W, 6.0), (W, 5.5)],
    "phrases only": [(P, 8.0), (P, 7.0), (P, 7.5), (P, 5.5)],
    "a loss that rises": [(W, 5.0), (P, 6.0), (W, 5.5), (P, 6.5), (W, 4.5), (P, 5.0), (W, 4.75), (P, 5.5), (P, 4.0)],
    "a loss that stands still": [(W, 5.0), (W, 5.0), (P, 6.0), (P, 6.0), (W, 5.0)],
    "runs of one mode": [(W, 8.0)] + [(W, 8.0 - 0.5 * i) for i in range(1, 5)] + [(P, 9.0), (P, 7.0), (W, 5.75)],
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("options", [{}, {"ema": 0.5}, {"ema": 0.9, "low": 0.1, "high": 0.9}])
@pytest.mark.parametrize("initial_steps", [0, 1, 4])
def test_alphas_are_those_of_the_equations(name, options, initial_steps):
    named = {"ema": "ema", "low": "alpha_min", "high": "alpha_max"}
    switch = AdaptiveSwitch(0.8, initial_steps, **{named[key]: value for key, value in options.items()})
    assert switch.alpha == 0.8
    expected = transcription(SERIES[name], 0.8, initial_steps, **options)
    assert alphas_of(switch, SERIES[name]) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_alphas_by_hand():
    """tanh(1) while neither mode has fallen, 1 where only words have, then by the ratio of the indexes."""
    got = alphas_of(AdaptiveSwitch(0.8, 0), SERIES["alternating"])
    expected = [
        math.tanh(1),  # both indexes 0
        math.tanh(1),
        1.0,  # eta_w = 1 / 1, eta_p = 0
        math.tanh(1.0),  # eta_p = .5 / .5
        math.tanh((0.5 / 1.5) / 1.0),
        math.tanh((0.5 / 1.5) / (1.5 / 2.0)),
        math.tanh((0.25 / 1.75) / (1.5 / 2.0)),
        math.tanh((0.25 / 1.75) / (1.0 / 3.0)),
    ]
    assert got == pytest.approx(expected, rel=1e-6)


def test_the_initial_stage_ends_with_step_t1():
    """alpha_t is alpha_0 for t = 1 ... T1, and alpha_{t + 1} is what is there after update t."""
    assert alphas_of(AdaptiveSwitch(0.6, 3), SERIES["words only"]) == pytest.approx([0.6, 0.6, 1.0, 1.0])


def test_the_index_of_the_mode_that_did_not_run_is_kept():
    switch = AdaptiveSwitch(0.5, 0)
    alphas_of(switch, [(W, 4.0), (W, 3.0), (P, 5.0), (P, 4.0)])
    kept = switch.eta_word
    alphas_of(switch, [(P, 3.0), (P, 3.5)])
    assert switch.eta_word == kept == 1.0
    assert switch.eta_phrase == 0.0


def test_slope_smoothing_by_hand():
    """A weighted mean of the reductions so far, each half as heavy as the next; the total one is not smoothed."""
    switch = AdaptiveSwitch(0.5, 0, slope_ema=0.5)
    losses = [10.0, 8.0, 8.0, 9.0, 6.0]
    got = []
    for loss in losses:
        switch.update(W, loss)
        got.append(switch.eta_word)
    means = [2.0, (1 * 2 + 2 * 0) / 3, (1 * 2 + 2 * 0 + 4 * -1) / 7, (1 * 2 + 2 * 0 + 4 * -1 + 8 * 3) / 15]
    assert got == pytest.approx([0.0, means[0] / 2, means[1] / 2, 0.0, means[3] / 4])


def test_both_losses_of_a_step_are_one_step():
    switch = AdaptiveSwitch(0.7, 2)
    switch.update_all({"word": 4.0, "phrase": 5.0})
    assert (switch.steps, switch.alpha) == (1, 0.7)
    switch.update_all({"word": 3.0, "phrase": 4.0})
    assert (switch.steps, switch.alpha) == (2, pytest.approx(math.tanh(1)))


def test_state_goes_through_json_bit_for_bit():
    rng = np.random.default_rng(0)
    series = [(str(rng.choice([W, P])), float(loss)) for loss in rng.random(40)]
    whole = AdaptiveSwitch(0.6, 5, ema=0.3, slope_ema=0.2)
    expected = alphas_of(whole, series)
    first = AdaptiveSwitch(0.6, 5, ema=0.3, slope_ema=0.2)
    got = alphas_of(first, series[:17])
    second = AdaptiveSwitch(0.6, 5, ema=0.3, slope_ema=0.2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert got + alphas_of(second, series[17:]) == expected
    assert second == whole


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"alpha_0": 1.1}, "alpha_0 is a probability"),
        ({"initial_steps": -1}, "initial_steps must not be negative"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"slope_ema": -0.1}, "slope_ema must lie in"),
        ({"alpha_min": 0.6, "alpha_max": 0.4}, "alpha_min <= alpha_max"),
    ],
)
def test_arguments_out_of_range(options, problem):
    with pytest.raises(ValueError, match=problem):
        AdaptiveSwitch(**{"alpha_0": 0.5, "initial_steps": 0} | options)


def test_unknown_modes_and_losses_that_are_no_numbers():
    switch = AdaptiveSwitch(0.5, 0)
    with pytest.raises(ValueError, match="unknown masking mode 'words': use one of word, phrase"):
        switch.update("words", 1.0)
    with pytest.raises(ValueError, match="the loss of a step in word mode is nan"):
        switch.update("word", float("nan"))
    assert switch.steps == 0


def test_the_recipe_smooths_as_the_simulations_below():
    phases = yaml.safe_load(RECIPE_FILE.read_text())["phases"]
    for phase in phases:
        options = phase["masking"]["options"]
        assert {name: options[name] for name in RECIPE} == RECIPE
        assert options["alpha_0"] == 0.75


def simulated(seed, initial_steps=1000, steps=10_000, deviation=0.1, **smoothing):
    """Alphas, and where word mode ran, on noisy losses that fall: words fast, phrases slowly."""
    rng = np.random.default_rng(seed)
    switch = AdaptiveSwitch(0.75, initial_steps, **smoothing)
    ran = {W: 0, P: 0}
    alphas, words = np.zeros(steps), np.zeros(steps, dtype=bool)
    for t in range(steps):
        alphas[t] = switch.alpha
        words[t] = rng.random() < alphas[t]
        mode, other = (W, P) if words[t] else (P, W)
        ran[mode] += 1
        scale = 1000 if mode == W else 4000
        loss = (2 if mode == W else 3) + 4 * math.exp(-(ran[mode] + 0.3 * ran[other]) / scale)
        switch.update(mode, loss + deviation * rng.standard_normal())
    return alphas[initial_steps:], words[initial_steps:]


def longest_absence(present):
    places = np.flatnonzero(np.concatenate([[True], present, [True]]))
    return int(np.diff(places).max()) - 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("deviation", [0.02, 0.1, 0.3])
def test_no_mode_is_absent_for_long_with_the_recipes_settings(seed, deviation):
    _, words = simulated(seed, deviation=deviation, **RECIPE)
    assert longest_absence(words) <= 500
    assert longest_absence(~words) <= 500


def test_without_smoothing_noise_makes_it_a_coin_of_tanh_1():
    for seed in range(3):
        quarters = simulated(seed)[0].reshape(4, -1).mean(axis=1)
        # 2,250 steps whose alphas vary by .3 and hang together over about ten: a deviation of .02.
        assert np.abs(quarters - math.tanh(1)).max() < 0.08


def test_smoothed_losses_alone_are_still_a_coin():
    quarters = simulated(0, ema=0.9)[0].reshape(4, -1).mean(axis=1)
    assert np.abs(quarters - math.tanh(1)).max() < 0.08


def test_smoothed_slopes_follow_progress():
    """Without noise the rule turns to phrases once the words are learnt; so it does with noise and the recipe."""
    clean = simulated(0, deviation=0.0, alpha_min=0.05, alpha_max=0.95)[0].reshape(4, -1).mean(axis=1)
    assert clean[-1] < 0.35
    for seed in range(3):
        quarters = simulated(seed, **RECIPE)[0].reshape(4, -1).mean(axis=1)
        assert quarters[0] > quarters[-1] + 0.1
        assert quarters[-1] < 0.35
