from __future__ import annotations

import json

import pytest
from reproduction_cases import paper, plan_ahead
from test_reproduction_settings import budgets_and_costs

from rexbert_hf.reproduction import CurveSettings, reproduce
from rexbert_hf.reproduction.budgets import stage_recipe
from rexbert_hf.reproduction.curves import keep_checkpoints
from rexbert_hf.reproduction.plan import Cost, fit
from rexbert_hf.settings import SettingsError

CURVES = {"values": {"shop.accuracy": "accuracy", "shop.loss": "loss"}, "points": 3}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curves")
    changes = {"curves": CURVES, "stages.0.shared": True, "stages.0.row": True}
    settings = paper(folder, str(folder / "cache"), **changes)
    plan_ahead(settings)
    return folder, reproduce(settings)


def test_a_curve_goes_from_the_shared_start_to_the_values_of_the_row(finished):
    _, results = finished
    assert set(results["curves"]) == {"plain", "guided"}, "the shared start has no curve, it is where all begin"
    for row, by_seed in results["curves"].items():
        assert list(by_seed) == [0], "one seed was asked for"
        points = by_seed[0]
        assert [point["step"] for point in points] == [0, 2, 4, 6, 7], "every second step and the end"
        for key in CURVES["values"]:
            assert points[0][key] == results["rows"]["common"][0][key]
            assert points[-1][key] == results["rows"][row][0][key], "the last checkpoint is the model"
        assert len({point["shop.loss"] for point in points}) == 5


def test_the_plot_and_the_losses_are_kept_and_the_checkpoints_are_not(finished):
    folder, results = finished
    assert results["plot"] == "curves.png"
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "![learning curves](curves.png)" in results["table"]
    assert not list(folder.glob("*/*/checkpoint-*"))
    losses = json.loads((folder / "results" / "plain-seed1.json").read_text())["losses"]
    assert [entry["step"] for entry in losses] == [2, 4, 6, 7]
    assert all(entry["loss"] > 0 for entry in losses)


def test_checkpoints_are_spaced_over_the_scaled_steps():
    settings = paper()
    recipe = stage_recipe(settings, settings.stages[1])
    recipe.scale = 3.0  # 18 steps
    assert keep_checkpoints(recipe, 4).trainer.save_steps == 5
    assert keep_checkpoints(recipe, 4).trainer.save_total_limit >= 4
    assert keep_checkpoints(recipe, 100).trainer.save_steps == 1


def test_curves_are_paid_from_the_budget():
    budgets, _ = budgets_and_costs(paper())
    costs = {"common": Cost(100.0, 2.0), "plain": Cost(200.0, 3.0, 4.0, 5.0), "guided": Cost(50.0, 3.0, 4.0, 5.0)}
    without = fit(paper(budget=100.0), budgets, costs)
    settings = paper(budget=100.0, curves=CURVES | {"points": 30})
    # 30 points of two rows of one seed, of 5 s each.
    step = 2 * 6144 / 6 * (1 / 100 + 1 / 200 + 1 / 50)
    assert without.steps - fit(settings, budgets, costs).steps == pytest.approx(300 / step, abs=1)


@pytest.mark.parametrize(
    ("curves", "message"),
    [
        ({"values": {}}, "at least one value"),
        ({"values": {"shop.loss": "x"}, "points": 0}, "at least one value, one point"),
        ({"values": {"shpo.loss": "x"}}, "did you mean 'shop'"),
    ],
)
def test_curves_that_make_no_sense_are_one_line(curves, message):
    with pytest.raises(SettingsError, match=message):
        paper(curves=curves)
    assert CurveSettings({"shop.loss": "x"}).measures == {"shop"}
