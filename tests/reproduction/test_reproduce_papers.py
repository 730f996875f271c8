from __future__ import annotations

from pathlib import Path

import pytest

from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.reproduction import ReproductionSettings, reproduce
from rexbert_hf.reproduction.budgets import stage_recipe, written_budget
from rexbert_hf.reproduction.inputs import with_data
from rexbert_hf.reproduction.overrides import with_overrides
from rexbert_hf.reproduction.plan import Cost, RunPlan, save_plan
from rexbert_hf.settings import load_settings

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"
TINY = {
    "model.overrides": {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
    },
    "tokenizer.vocab_size": 512,
    "trainer.use_cpu": True,
}
CELLS = {"num_hidden_layers": 7, "hidden_size": 256, "num_attention_heads": 4}
"""What the grid of m3bert needs."""
ROWS = {
    "ebert": ["raw", "word", "noun_phrase", "ahm", "npr"],
    "m3bert": ["plain", "grid", "grid_grid"],
    "qpi": ["relevance_ft", "teacher_shared", "small_ft_avg", "distilled", "distilled_layers", "dssm"],
}
"""Rows that show each kind of step, where all would take too long."""

WITHOUT_SAMPLE = {"sst2", "stsb"}
"""Measures for which the sample shop has no data."""


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("reproduce_*.yaml")), ids=lambda path: path.stem)
def test_every_paper_runs_on_the_sample_shop(config, tmp_path):
    settings = load_settings(ReproductionSettings, config)
    _shrink(settings, tmp_path)
    _plan_few_steps(with_data(settings))
    results = reproduce(settings)
    shown = set(settings.columns).union(*settings.further.values())
    for row in settings.chosen_rows():
        stages = [row, *settings.branches_of(row)]
        taken = {measure.name for measure in settings.measures if any(measure.applies(stage) for stage in stages)}
        wanted = {value for value in shown if value.split(".")[0] in taken - WITHOUT_SAMPLE}
        assert wanted <= set(results["rows"][row.name][0]), f"{row.name} has a value for every column"
        assert wanted
    groups = {}
    for row in settings.chosen_rows():
        if not row.shared and results["rows"][row.name][0]["tokens"]:
            groups.setdefault(row.group, []).append(results["rows"][row.name][0]["tokens"])
    for tokens in groups.values():
        assert max(tokens) <= 1.15 * min(tokens), "to the rounding of two steps, and triplets that did not fit"
    chosen = {row.name for row in settings.chosen_rows()}
    wanted = [claim.name for claim in settings.claims if {claim.row, claim.than} <= chosen]
    assert [claim["name"] for claim in results["claims"]] == wanted
    assert all(len(claim["differences"]) == 1 for claim in results["claims"])
    assert bool(results["plot"]) == (settings.curves is not None)
    if any(row.recipe for row in settings.chosen_rows()):
        assert {results["rows"][row.name][0]["steps"] for row in settings.chosen_rows() if row.recipe} == {2}
        groups = [f"**{row.group}**" for row in settings.chosen_rows() if row.group]
        assert all(heading in results["table"] for heading in (*settings.further, *groups))
    of_cells = [measure for measure in settings.measures if measure.kind.endswith("_cells")]
    maps = {measure.name for measure in of_cells if "layers" in measure.options}  # else one cell
    assert {path.name for path in settings.output_dir.glob("*_cells.png")} == {f"{name}_cells.png" for name in maps}


def _shrink(settings, folder):
    """Two-layer models, little of the sample shop, one seed."""
    small = {f"sources.{name}.sample_size": 300 for name in settings.base.sources}
    settings.without_data |= small | ({"associations.sample_size": 300} if settings.base.associations else {})
    tiny = TINY | {"model.overrides": TINY["model.overrides"] | (CELLS if settings.paper == "m3bert" else {})}
    settings.base = with_overrides(settings.base, tiny | {"data_dir": str(folder / "nowhere")}, "tiny")
    settings.without_data["tokenizer.vocab_size"] = 512
    settings.seeds, settings.output_dir = [0], folder / "out"
    settings.rows = ROWS.get(settings.paper)
    for recipe in settings.recipes.values():
        recipe.without_data["data"]["sample_size"] = 120
    for stage in settings.stages:
        if "teacher_layers" in stage.settings:
            stage.settings["teacher_layers"] = [0, 1]
        if "model" in stage.settings:
            stage.settings["model"]["vocab_size"] = 512
    for measure in settings.measures:
        if measure.kind in ("spans", "masked_cells"):
            measure.options["max_tokens"] = 3000
        if measure.kind == "aspects":
            measure.options |= {"max_train": 60, "max_test": 40}
        if measure.kind == "classes":
            measure.options["max_rows"] = 80
        if measure.kind == "task" and make_task(measure.options["task"]).trains:
            measure.options |= {"caps": [24, 8, 16], "tuning": {"epochs": [1]}}
    if settings.curves:
        settings.curves.points = 2
    if settings.phrases:
        settings.phrases.options |= {"trees": 10, "min_count": 3}


def _plan_few_steps(settings):
    """Put a plan into the folder: two steps of each phase, and of what comes after."""
    stages = settings.needed_stages()
    budgets = {stage.name: written_budget(settings, stage, stage_recipe(settings, stage)) for stage in stages}
    scales = {name: 2 / budget.steps for name, budget in budgets.items()}
    amounts = {name: round(budget.amount * scales[name]) for name, budget in budgets.items()}
    units = {name: budget.unit for name, budget in budgets.items()}
    settings.output_dir.mkdir(parents=True)
    costs = {name: Cost(1000.0, 1.0) for name in budgets}
    save_plan(RunPlan(scales, amounts, units, 2, costs, 60.0), settings, "test")
