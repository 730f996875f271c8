from __future__ import annotations

from pathlib import Path

import pytest

from rexbert_hf.reproduction import ReproductionSettings, reproduce
from rexbert_hf.reproduction.inputs import with_data
from rexbert_hf.reproduction.plan import Cost, RunPlan, save_plan
from rexbert_hf.reproduction.settings import stage_recipe, with_overrides, written_tokens
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


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("reproduce_*.yaml")), ids=lambda path: path.stem)
def test_every_paper_runs_on_the_sample_shop(config, tmp_path):
    settings = load_settings(ReproductionSettings, config)
    small = {f"sources.{name}.sample_size": 300 for name in settings.base.sources}
    settings.without_data |= small | ({"associations.sample_size": 300} if settings.base.associations else {})
    settings.base = with_overrides(settings.base, TINY | {"data_dir": str(tmp_path / "nowhere")}, "tiny")
    settings.without_data["tokenizer.vocab_size"] = 512
    settings.seeds, settings.output_dir = [0], tmp_path / "out"
    for measure in settings.measures:
        if measure.kind == "spans":
            measure.options["max_tokens"] = 3000
        if measure.kind == "aspects":
            measure.options |= {"max_train": 60, "max_test": 40}
        if measure.kind == "classes":
            measure.options["max_rows"] = 80
    if settings.curves:
        settings.curves.points = 2
    if settings.phrases:
        settings.phrases.options |= {"trees": 10, "min_count": 3}
    _plan_few_steps(with_data(settings))
    results = reproduce(settings)
    for row, found in results["rows"].items():
        assert set(settings.columns) <= set(found[0]), f"{row} has a value for every column"
    tokens = [results["rows"][stage.name][0]["tokens"] for stage in settings.chosen_rows() if not stage.shared]
    assert max(tokens) <= 1.15 * min(tokens), "to the rounding of two steps, and triplets that did not fit"
    assert [claim["name"] for claim in results["claims"]] == [claim.name for claim in settings.claims]
    assert all(len(claim["differences"]) == 1 for claim in results["claims"])
    assert bool(results["plot"]) == (settings.curves is not None)


def _plan_few_steps(settings):
    """Put a plan into the folder: two steps of each phase."""
    recipes = {stage.name: stage_recipe(settings, stage) for stage in settings.needed_stages()}
    scales = {name: min(2 * p.batch_tokens / p.max_tokens for p in r.phases) for name, r in recipes.items()}
    tokens = {name: round(written_tokens(recipe) * scales[name]) for name, recipe in recipes.items()}
    settings.output_dir.mkdir(parents=True)
    costs = {name: Cost(1000.0, 1.0) for name in recipes}
    save_plan(RunPlan(scales, tokens, 2, costs, 60.0), settings, "test")
