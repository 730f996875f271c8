"""Steps after pre-training: folders, budgets, branches, resuming. The steps write what they were told into a file."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from reproduction_cases import paper

from rexbert_hf.hub.run_file import read_run
from rexbert_hf.reproduction import Kind, Ran, jobs, register_kind, register_measure, reproduce
from rexbert_hf.reproduction.budgets import STEPS, Budget, stage_recipe, written_budget
from rexbert_hf.reproduction.downstream import KINDS, _filled
from rexbert_hf.reproduction.plan import Cost, fit
from rexbert_hf.settings import SettingsError, to_dict


@dataclass
class NoteTrainer:
    max_steps: int | None = None
    use_cpu: bool = False


@dataclass
class NoteSettings:
    output_dir: str = "unused"
    seed: int = 0
    start: str = ""
    teacher: str = ""
    size: int = 1
    trainer: NoteTrainer = field(default_factory=NoteTrainer)


INHERITED = {"trainer.use_cpu": "trainer.use_cpu"}


def step(name: str, **changes: Any) -> dict[str, Any]:
    return {"name": name, "after": "plain", "recipe": "note", **changes}


CHANGES = {
    "stages.1.row": False,
    "stages.2.row": False,
    "recipes": {"note": {"run": "note", "settings": {"start": "{after}", "trainer": {"max_steps": 12}}}},
    "claims": [],
    "measures": [{"name": "note", "kind": "note", "options": {"factor": 2}}],
    "columns": {"note.size": "size"},
    "calibration_steps": 3,
}


def further_stages(*steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Changes of the tiny paper: downstream rows behind its stages."""
    stages = paper().stages
    return {
        **copy.deepcopy(CHANGES),
        "stages": [*(to_dict(stage) | {"row": False} for stage in stages), *steps],
        **changes,
    }


@pytest.fixture
def notes(monkeypatch):
    """Pre-training that writes a word, and a kind of step that notes its settings; returns what ran."""
    ran: list[NoteSettings] = []

    def pretrain(job):
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / "note.json").write_text(json.dumps({"name": job.stage.name, "seed": job.seed}))
        return Ran(amount=100, seconds=1.0, speed=100.0)

    def run(settings):
        ran.append(settings)
        Path(settings.output_dir).mkdir(parents=True, exist_ok=True)
        (Path(settings.output_dir) / "note.json").write_text(json.dumps(to_dict(settings)))
        return {"steps": settings.trainer.max_steps, "steps_per_second": 50.0, "num_parameters": 7}

    def size(job, factor=1):
        assert job.downstream.output_dir == str(job.folder)
        return {"size": factor * json.loads((job.folder / "note.json").read_text())["size"]}

    monkeypatch.setitem(jobs.RUNS, "pretrain", pretrain)
    monkeypatch.setitem(jobs.MEASURES, "note", None)
    monkeypatch.setitem(KINDS, "note", None)
    register_kind("note", Kind(NoteSettings, run, inherits=INHERITED))
    register_measure("note", size)
    return ran


def prepared(tmp_path, cache, **changes):
    return paper(tmp_path, cache, **{"seeds": [0], "budget": 10.0, **changes})


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


def test_a_step_gets_its_folders_its_seed_its_device_and_its_steps(tmp_path, cache, notes):
    stages = further_stages(
        step("teacher", settings={"size": 5}, facts={"size": "five"}),
        step("student", after="guided", needs=["teacher"], settings={"teacher": "{teacher}/x {output} {tokenizer}"}),
    )
    results = reproduce(prepared(tmp_path, cache, **stages, seeds=[0, 1]))
    calibrated, done = notes[:2], notes[2:]
    assert [Path(one.output_dir).parent.name for one in calibrated] == ["calibration", "calibration"]
    assert [one.trainer.max_steps for one in calibrated] == [3, 3]
    assert [one.output_dir for one in done] == [
        str(tmp_path / f"seed-{seed}" / name) for seed in (0, 1) for name in ("teacher", "student")
    ]
    teacher, student = done[2:]
    assert (teacher.seed, teacher.size, teacher.trainer.use_cpu) == (1, 5, True)
    assert teacher.start == str(tmp_path / "seed-1" / "plain")
    assert student.start == str(tmp_path / "seed-1" / "guided")
    assert student.teacher == f"{tmp_path}/seed-1/teacher/x {tmp_path} {tmp_path}/tokenizer"
    # Tokens at 100 a second, steps at 50: what is written takes 2 x (184 + 2 x .24) s of 540.
    assert teacher.trainer.max_steps == student.trainer.max_steps > 12
    row = results["rows"]["student"][1]
    assert row == {"tokens": 200, "steps": student.trainer.max_steps, "parameters": 7, "note.size": 2}
    assert results["rows"]["teacher"][0]["note.size"] == 10
    for part in ("| teacher | 2 | 200 |", "| row | weights | size |", "| teacher | 0.00M | five |"):
        assert part in results["table"]
    assert read_run(tmp_path)["config"]["recipes"]["note"]["run"] == "note"


def test_a_misspelt_value_stops_behind_the_calibration(tmp_path, cache, notes):
    stages = further_stages(step("teacher"), columns={"note.sise": "size"})
    with pytest.raises(ValueError, match="columns: measure 'note' gives no 'sise'; it gives size"):
        reproduce(prepared(tmp_path, cache, **stages))
    assert len(notes) == 1, "the calibration alone"


def test_templates_of_columns_are_no_folders():
    written = {"data": {"product_columns": {"title": "{title} {note}"}, "pairs": "{after}/pairs"}}
    found = {"data": {"product_columns": {"title": "{title} {note}"}, "pairs": "there/pairs"}}
    assert _filled(written, {"after": "there"}) == found


def test_branches_add_values_to_the_line_of_their_row(tmp_path, cache, notes):
    measures = [
        {"name": "note", "kind": "note", "rows": ["teacher"]},
        {"name": "cut", "kind": "note", "branch": "cut"},
        {"name": "other", "kind": "note", "branch": "other", "options": {"factor": 10}},
    ]
    branches = [
        {"name": "cut", "recipe": "note", "settings": {"size": 3}},
        {"name": "other", "recipe": "note", "settings": {"size": 4}, "rows": ["teacher"]},
    ]
    stages = further_stages(step("teacher"), step("second"), branches=branches, measures=measures)
    stages["columns"] = {"cut.size": "cut", "other.size": "other"}
    results = reproduce(prepared(tmp_path, cache, **stages))
    rows = results["rows"]
    assert {name: rows["teacher"][0][name] for name in ("note.size", "cut.size", "other.size")} == {
        "note.size": 1, "cut.size": 3, "other.size": 40,
    }  # fmt: skip
    assert rows["second"][0]["cut.size"] == 3
    assert not {"note.size", "other.size"} & set(rows["second"][0])
    cut = next(one for one in notes if one.output_dir.endswith("seed-0/second-cut"))
    assert cut.start == str(tmp_path / "seed-0" / "second")
    assert "| second | 1 | " in results["table"]
    assert "300.00 | - |" in results["table"], "a row without the branch has no value"


def test_a_step_that_died_is_run_again_and_no_other(tmp_path, cache, notes, monkeypatch):
    settings = prepared(tmp_path, cache, **further_stages(step("teacher"), step("second")))
    run = KINDS["note"]().run

    def die(placed):
        if "second" in placed.output_dir and "calibration" not in placed.output_dir:
            raise KeyboardInterrupt
        return run(placed)

    register_kind("note", Kind(NoteSettings, die, inherits=INHERITED))
    with pytest.raises(KeyboardInterrupt):
        reproduce(settings)
    register_kind("note", Kind(NoteSettings, run, inherits=INHERITED))
    notes.clear()
    results = reproduce(settings)
    assert [Path(one.output_dir).name for one in notes] == ["second"]
    assert set(results["rows"]["second"]) == {0}


def test_parts_share_the_training_time(notes):
    stages = further_stages(step("teacher", part="late"), step("second", part="late"), parts={"late": 0.75})
    settings = paper(**stages, budget=100.0, rows=["teacher"], spare=0.0)
    needed = [stage.name for stage in settings.needed_stages()]
    assert needed == ["common", "plain", "teacher"], "what no chosen row needs is not run"
    by_name = {stage.name: stage for stage in settings.needed_stages()}
    budgets = {name: written_budget(settings, by_name[name], stage_recipe(settings, by_name[name])) for name in needed}
    assert budgets["teacher"] == Budget(12, STEPS, 12, "stage 'teacher'")
    plan = fit(settings, budgets, {name: Cost(2.0 if name == "teacher" else 512.0, 0.0) for name in needed})
    # 6,000 s and two seeds: a quarter for two stages of tokens, three quarters for steps at two a second.
    assert plan.amounts["teacher"] == 0.75 * 6000 / 2 * 2
    assert plan.amounts["plain"] == pytest.approx(0.25 * 6000 / 4 * 512, rel=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "nte"}, "'late' names the recipe 'nte', which does not exist; did you mean 'note'"),
        ({"needs": ["techer"]}, "'late' needs 'techer', which does not exist; did you mean 'teacher'"),
        ({"part": "x"}, "'late' names the part 'x', which does not exist"),
        ({"phases": ["anneal"]}, "stage 'late': give it phases .* or a recipe"),
        ({"shared": True, "after": None, "needs": ["teacher"]}, "'late' is shared by all seeds, but 'teacher' is not"),
    ],
)
def test_steps_that_do_not_fit_are_one_line(changes, message):
    with pytest.raises(SettingsError, match=message):
        paper(**further_stages(step("teacher"), step("late", **changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": {"siez": 2}}, "stage 'late'.*siez.*did you mean"),
        ({"settings": {"teacher": "{teacher}"}}, "no folder 'teacher' here: there is tokenizer, output, after; see 'n"),
        ({"settings": {"trainer.max_steps": None}}, "stage 'late': its recipe needs trainer.max_steps"),
        ({"settings": {"trainer.max_steps": 13}}, r"different budgets of steps of 'note' \(teacher 12, late 13\)"),
    ],
)
def test_settings_of_steps_that_do_not_fit_are_one_line(tmp_path, cache, notes, changes, message):
    stages = further_stages(step("teacher"), step("late", **changes))
    with pytest.raises(SettingsError, match=message) as caught:
        reproduce(prepared(tmp_path, cache, **stages))
    assert "\n" not in str(caught.value)


def test_unknown_kinds_and_branches_are_errors(tmp_path, cache, notes):
    stages = further_stages(step("teacher"))
    stages["recipes"]["note"] = {"run": "nobody"}
    with pytest.raises(SettingsError, match=r"recipe 'note': no kind of step 'nobody': use one of finetune_search"):
        reproduce(prepared(tmp_path, cache, **stages))
    with pytest.raises(SettingsError, match=r"measures.note: names the branch 'cut'"):
        paper(**further_stages(step("teacher"), measures=[{"name": "note", "kind": "note", "branch": "cut"}]))


def test_a_relative_claim_is_a_share_of_the_other_row(tmp_path, cache, notes):
    claims = [
        {"name": name, "text": "kept", "value": "note.size", "row": "second", "than": "teacher", "at_least": bound,
         "relative": True}
        for name, bound in (("most", -0.03), ("all", -0.01))
    ]  # fmt: skip
    stages = further_stages(
        step("teacher", settings={"size": 100}), step("second", settings={"size": 98}), claims=claims
    )
    results = reproduce(prepared(tmp_path, cache, **stages, seeds=[0, 1]))
    assert [claim["verdict"] for claim in results["claims"]] == ["held", "not held"]
    assert results["claims"][0]["differences"] == pytest.approx([-0.02, -0.02])
    assert "| -2.00 % |" in results["table"]
    assert "| -3.0 % |" in results["table"]
