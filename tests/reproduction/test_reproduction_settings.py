from __future__ import annotations

import json
from pathlib import Path

import pytest
from reproduction_cases import PAPER, paper

from rexbert_hf.reproduction import ReproductionSettings, runner
from rexbert_hf.reproduction.budgets import stage_recipe, written_budget
from rexbert_hf.reproduction.inputs import with_data
from rexbert_hf.reproduction.overrides import with_overrides
from rexbert_hf.reproduction.plan import Cost, fit, load_costs, load_plan, save_costs, save_plan
from rexbert_hf.settings import SettingsError, load_settings

CONFIGS = Path(__file__).resolve().parents[2] / "recipes" / "configs"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.1.settings": {"phases.anneal.maskin.kind": "guided"}}, "stage 'plain'.*maskin.*did you mean"),
        ({"stages.1.settings": {"phases.anneal.learning_rate": "fast"}}, "stage 'plain'.*learning_rate: expected"),
        ({"stages.1.settings": {"phases.aneal.seq_length": 32}}, "stage 'plain'.*did you mean 'anneal'"),
        ({"stages.1.phases": ["aneal"]}, "stage 'plain': no phase 'aneal'; did you mean 'anneal'"),
        ({"base.phases.1.max_tokens": None, "base.phases.1.epochs": 1}, "phase 'anneal' needs max_tokens"),
    ],
)
def test_a_stage_that_does_not_fit_the_base_recipe_is_one_line(changes, message):
    settings = paper(**changes)
    with pytest.raises(SettingsError, match=message) as caught:
        stage_recipe(settings, settings.stages[1])
    assert "\n" not in str(caught.value)
    assert "command line" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.1.lable": "x"}, "unknown key 'stages.1.lable'.*did you mean 'stages.1.label'"),
        ({"stages.1.after": "comon"}, "'plain' comes after 'comon', which does not exist; did you mean 'common'"),
        ({"stages.0.after": "guided"}, "'common' comes after 'guided'"),
        ({"stages.1.name": "guided"}, "stages need different names"),
        ({"rows": ["plane"]}, "rows: names 'plane', which does not exist; did you mean 'plain'"),
        ({"rows": ["common"]}, "rows: names 'common'"),
        ({"claims.0.than": "common"}, "claims.helps: names the row 'common'"),
        ({"claims.0.value": "shpo.accuracy"}, "did you mean 'shop'"),
        ({"columns": {"general.accuracy": "x"}}, "name the measure 'general'"),
        ({"seeds": [1, 1]}, "seeds must be"),
        ({"seeds": []}, "seeds must be"),
        ({"budget": 0}, "budget must be positive"),
        ({"stages.0.share": 0.3}, "'common': share is for a shared stage"),
        ({"stages.0.shared": True, "stages.0.share": 1.5}, "'common': share .* between 0 and 1; got 1.5"),
        ({"stages.1.shared": True}, "'plain' is shared by all seeds, but 'common' is not"),
    ],
)
def test_names_that_do_not_fit_are_errors(changes, message):
    with pytest.raises(SettingsError, match=message):
        paper(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"columns": {"shop.acuracy": "shop"}}, "columns: measure 'shop' gives no 'acuracy'; it gives accuracy, accur"),
        ({"claims.0.value": "shop.acuracy"}, "claims.helps: measure 'shop' gives no 'acuracy'"),
    ],
)
def test_a_value_that_no_measure_gives_is_told_after_the_first_measuring(changes, message):
    settings = paper(**changes)
    with pytest.raises(ValueError, match=message):
        settings.check_values({"shop.accuracy", "shop.accuracy_guided"})
    settings.check_values({"other.accuracy"})  # of a measure whose data are missing nothing is known
    paper().check_values({"shop.accuracy", "shop.accuracy_guided"})


def test_an_override_replaces_a_mapping_and_leaves_the_base_alone():
    settings = paper(**{"stages.1.settings": {"phases.anneal.mixture": {"general": 2}, "seed": 7}})
    recipe = stage_recipe(settings, settings.stages[1])
    assert [phase.name for phase in recipe.phases] == ["anneal"]
    assert recipe.phases[0].mixture == {"general": 2}
    assert recipe.seed == 7
    assert settings.base.phases[1].mixture == {"shop": 1}
    assert with_overrides(settings.base, {}, "here") == settings.base


def test_rows_with_different_tokens_are_refused():
    settings = paper(**{"stages.2.settings": {"phases.anneal.max_tokens": 2000}})
    tokens = {name: budget.amount for name, budget in budgets_of(settings).items()}
    with pytest.raises(SettingsError, match=r"different token budgets \(plain 12,288, guided 8,144\)"):
        settings.check_budgets(tokens)
    paper(**{"equal_tokens": False}).check_budgets(tokens)
    paper(**{"stages.2.group": "another"}).check_budgets(tokens)


def test_where_the_others_begin_has_fewer_tokens():
    settings = paper(**{"stages.0.shared": True, "stages.0.row": True})
    settings.check_budgets({"common": 10, "plain": 20, "guided": 20})
    with pytest.raises(SettingsError, match="different token budgets"):
        settings.check_budgets({"common": 10, "plain": 20, "guided": 21})


def test_only_the_chosen_rows_and_what_they_start_from_are_needed():
    settings = paper(**{"rows": ["guided"]})
    assert [stage.name for stage in settings.needed_stages()] == ["common", "guided"]
    assert [stage.name for stage in settings.chain(settings.stages[2])] == ["common", "guided"]


def budgets_of(settings):
    stages = settings.needed_stages()
    return {stage.name: written_budget(settings, stage, stage_recipe(settings, stage)) for stage in stages}


def budgets_and_costs(settings):
    return budgets_of(settings), {
        "common": Cost(100.0, 2.0),
        "plain": Cost(200.0, 3.0, 4.0),
        "guided": Cost(50.0, 3.0, 4.0),
    }


def test_the_budget_is_spent_down_to_whole_steps():
    settings = paper(budget=100.0)
    budgets, costs = budgets_and_costs(settings)
    plan = fit(settings, budgets, costs, spent=100.0)
    # Two seeds of 6,144 tokens at 100, 200 and 50 tokens/s and of 16 fixed seconds; 5,400 s less 100 are there.
    training = 2 * (6144 / 100 + 6144 / 200 + 6144 / 50)
    exact = (5400 - 100 - 32) / training * 6
    assert plan.steps == int(exact)
    scale = plan.steps / 6
    assert plan.scales == pytest.approx(dict.fromkeys(budgets, scale))
    assert plan.amounts == dict.fromkeys(budgets, round(6144 * scale))
    assert plan.seconds <= 5300 < plan.seconds + training / 6
    more = fit(settings, budgets, costs, spent=0.0)
    assert more.steps > plan.steps


def test_a_shared_stage_is_paid_once_from_its_own_share():
    settings = paper(**{"budget": 100.0, "stages.0.shared": True, "stages.0.share": 0.25})
    budgets, costs = budgets_and_costs(settings)
    plan = fit(settings, budgets, costs, spent=100.0)
    # 5,400 s less 100, less 2 s once and 14 s for each of two seeds.
    left = 5400 - 100 - 2 - 28
    common = int(0.25 * left / (6144 / 100) * 6)
    rows = int(0.75 * left / (2 * (6144 / 200 + 6144 / 50)) * 6)
    assert plan.scales == pytest.approx({"common": common / 6, "plain": rows / 6, "guided": rows / 6})
    assert plan.amounts["common"] == round(6144 * common / 6)
    assert plan.steps == rows
    assert left + 30 - 6144 / 100 / 6 - 2 * (6144 / 200 + 6144 / 50) / 6 < plan.seconds <= left + 30
    assert "once for all seeds" in plan.lines(settings)[0]
    with pytest.raises(SettingsError, match=r"allows \d+ steps of phase 'general', but min_steps is 2000") as caught:
        fit(
            paper(**{"budget": 100.0, "stages.0.shared": True, "stages.0.share": 0.25, "min_steps": 2000}),
            budgets,
            costs,
        )
    assert "--budget" in str(caught.value)


def test_a_budget_too_small_says_which_one_is_needed():
    settings = paper(budget=1.0, min_steps=12)
    budgets, costs = budgets_and_costs(settings)
    with pytest.raises(SettingsError, match=r"1 minutes allows 0 steps of phase 'general'.*--budget 17 is") as caught:
        fit(settings, budgets, costs)
    assert "\n" not in str(caught.value)
    assert fit(paper(budget=17.0, min_steps=12), budgets, costs).steps >= 12


def test_a_plan_is_kept_and_belongs_to_its_settings(tmp_path):
    settings = paper(tmp_path, budget=100.0)
    assert load_plan(settings, ["common"]) is None
    plan = fit(settings, *budgets_and_costs(settings))
    save_plan(plan, settings, "a machine")
    assert load_plan(settings, list(plan.costs)) == plan
    assert load_plan(paper(tmp_path, budget=100.0, seeds=[0, 1, 2], title="New"), list(plan.costs)) == plan
    with pytest.raises(SettingsError, match=r"another plan \(budget: 100.0 -> 50.0\)"):
        load_plan(paper(tmp_path, budget=50.0), list(plan.costs))
    with pytest.raises(SettingsError, match="no stage late"):
        load_plan(settings, ["late"])


@pytest.mark.parametrize(
    "changes",
    [
        {"measures.0.options": {"source": "shop", "max_tokens": 2000, "label": "other"}},
        {"base.sources.shop": {"sample": "shop_text", "sample_size": 300, "columns": {"label": "stars"}}},
    ],
    ids=["option", "column"],
)
def test_a_label_that_is_no_rows_name_belongs_to_the_plan(tmp_path, changes):
    settings = paper(tmp_path, budget=100.0)
    plan = fit(settings, *budgets_and_costs(settings))
    save_plan(plan, settings, "here")
    assert load_plan(paper(tmp_path, budget=100.0, **{"stages.1.label": "other words"}), list(plan.costs)) == plan
    with pytest.raises(SettingsError, match=r"another plan \(.*label: "):
        load_plan(paper(tmp_path, budget=100.0, **changes), list(plan.costs))


def test_plans_from_before_labels_were_compared_go_on(tmp_path):
    """What was left out then says nothing about the settings of then."""
    measure = {"source": "shop", "max_tokens": 2000, "label": "other"}
    settings = paper(tmp_path, budget=100.0, **{"measures.0.options": measure})
    plan = fit(settings, *budgets_and_costs(settings))
    save_plan(plan, settings, "here")
    save_costs(plan.costs, settings, "here")
    for path in (tmp_path / "plan.json", tmp_path / "calibration.json"):
        content = json.loads(path.read_text())
        assert content.pop("with_labels")
        kept = {key: value for key, value in content["for"].items() if not key.endswith(".label")}
        assert len(kept) < len(content["for"])
        path.write_text(json.dumps(content | {"for": kept}))
    assert load_plan(settings, list(plan.costs)) == plan
    assert load_costs(settings, list(plan.costs), "here") == plan.costs
    with pytest.raises(SettingsError, match=r"another plan \(budget: 100.0 -> 50.0\)"):
        load_plan(paper(tmp_path, budget=50.0, **{"measures.0.options": measure}), list(plan.costs))


def test_plans_and_calibrations_hold_no_secret_and_are_found_again(tmp_path):
    """Nor do those of earlier versions, which wrote them, count as plans of other settings."""
    canary = "hf_" + "c0" * 15
    settings = paper(tmp_path, **{"base.trainer.extra.hub_token": canary, "base.data_dir": f"http://me:{canary}@host"})
    plan = fit(settings, *budgets_and_costs(settings))
    save_plan(plan, settings, "here")
    save_costs(plan.costs, settings, "here")
    for path in (tmp_path / "plan.json", tmp_path / "calibration.json"):
        assert canary not in path.read_text()
        path.write_text(path.read_text().replace("<redacted>@host", f"me:{canary}@host").replace("<redacted>", canary))
    assert load_plan(settings, list(plan.costs)) == plan
    assert load_costs(settings, list(plan.costs), "here") == plan.costs
    for path in (tmp_path / "plan.json", tmp_path / "calibration.json"):  # of a version that hid more
        content = json.loads(path.read_text())
        assert content["for"]["base.sources.shop.sample"]
        content["for"]["base.sources.shop.sample"] = "<redacted>"
        path.write_text(json.dumps(content))
    assert load_plan(settings, list(plan.costs)) == plan
    assert load_costs(settings, list(plan.costs), "here") == plan.costs


@pytest.mark.parametrize(
    ("text", "message"), [('{"for": ', "line 1: not JSON"), ("[]", "a mapping is expected"), ("{}", "no 'for' in it")]
)
def test_a_damaged_file_is_named_with_the_way_out(tmp_path, text, message):
    settings = paper(tmp_path)
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(ValueError, match=rf"plan\.json.*{message}.*restore it, or choose another output_dir"):
        load_plan(settings, [])
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(ValueError, match=rf"calibration\.json.*{message}.*delete it to measure again"):
        load_costs(settings, [], "here")


def test_a_damaged_result_is_named_with_the_way_out(tmp_path):
    settings = paper(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "plain-seed0.json").write_text("{")
    with pytest.raises(ValueError, match=r"plain-seed0\.json, line 1: not JSON .*; delete it and start again"):
        runner._read(settings, settings.stages[1], 0)


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("reproduce_*.yaml")), ids=lambda path: path.stem)
def test_the_papers_in_the_repository_fit_together(config):
    settings = load_settings(ReproductionSettings, config)
    settings.rows = None
    settings.base.data_dir = "nowhere"
    for chosen in (settings, with_data(settings)):
        chosen.check_budgets({name: budget.amount for name, budget in budgets_of(chosen).items()})
    assert chosen.base.sources["shop"].sample == "shop_text"
    assert len(settings.seeds) >= 3


def test_the_case_is_valid():
    assert paper().stages[2].settings == PAPER["stages"][2]["settings"]


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({"budget": 500, "spare": 0.2, "parts": {"half": 0.5}, "stages.0.share": 0.2}, True),
        ({"stages.2.label": "other words"}, True),
        ({"base.phases.1.seq_length": 32}, False),
        ({"stages.2.settings": {"phases.anneal.masking.kind": "mlm"}}, False),
    ],
)
def test_time_may_be_shared_out_anew_without_another_calibration(tmp_path, changes, kept):
    before = {"parts": {"half": 0.3}, "stages.0.shared": True, "stages.0.share": 0.3}
    costs = {"common": Cost(1000.0, 1.0), "plain": Cost(900.0, 2.0)}
    save_costs(costs, paper(tmp_path, **before), "here")
    found = load_costs(paper(tmp_path, **{**before, **changes}), list(costs), "here")
    assert found == (costs if kept else None)
    assert load_costs(paper(tmp_path, **before), list(costs), "another machine") is None
