from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from reproduction_cases import PAPER, paper, plan_ahead

from rexbert_hf.hub.run_file import read_run
from rexbert_hf.models.modeling_rexbert import RexBertModel
from rexbert_hf.reproduction import Ran, jobs, register_measure, register_run, reproduce
from rexbert_hf.reproduction.inputs import with_data, write_lexicons
from rexbert_hf.reproduction.settings import LexiconSettings
from rexbert_hf.settings import SettingsError
from rexbert_hf.training import CurriculumTrainer

sys.path.append(str(Path(__file__).resolve().parents[2] / "recipes"))


class KilledError(Exception):
    """Stands for SIGKILL: nothing in the runner may catch it."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """Tokenizer and tokenised sample of all tests."""
    return str(tmp_path_factory.mktemp("cache"))


class Finished(NamedTuple):
    """A reproduction with two seeds that ran to its end, and the tokens that each run sent through the encoder."""

    folder: Path
    results: dict
    encoder_tokens: list[int]


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    counted: list[int] = []
    forward, train = RexBertModel.forward, CurriculumTrainer.train

    @functools.wraps(forward)
    def counting(self, input_ids=None, *args, **kwargs):
        if self.training:
            counted[-1] += input_ids.numel()
        return forward(self, input_ids, *args, **kwargs)

    def start(self, *args, **kwargs):
        counted.append(0)
        return train(self, *args, **kwargs)

    folder = tmp_path_factory.mktemp("finished")
    settings = paper(folder, cache)
    plan_ahead(settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RexBertModel, "forward", counting)
        patch.setattr(CurriculumTrainer, "train", start)
        results = reproduce(settings, command="the command")
    return Finished(folder, results, counted)


def count_runs(monkeypatch):
    runs = []
    inner = jobs.RUNS["pretrain"]

    def run(job):
        runs.append((job.seed, job.stage.name))
        return inner(job)

    monkeypatch.setitem(jobs.RUNS, "pretrain", run)
    return runs


def test_rows_have_the_tokens_that_the_encoder_saw(finished):
    # Two seeds of common, plain, guided.
    rows, counted = finished.results["rows"], finished.encoder_tokens
    common, plain, guided = counted[:3]
    assert rows["plain"][0]["tokens"] == common + plain
    assert rows["guided"][0]["tokens"] == common + guided
    assert rows["guided"][1]["tokens"] == counted[3] + counted[5]
    assert plain == guided, "the same documents in the same order"
    assert common + plain == pytest.approx(2 * 6144, rel=0.03), "the plan's budget is met to the packing's rounding"
    assert finished.results["tokens_per_row"] == {"plain": 12288, "guided": 12288}


def test_claims_pair_the_seeds_and_the_table_says_it_all(finished):
    rows = finished.results["rows"]
    values = [rows[row][seed]["shop.accuracy_guided"] for row in ("guided", "plain") for seed in (0, 1)]
    [claim] = finished.results["claims"]
    assert claim["differences"] == pytest.approx([values[0] - values[2], values[1] - values[3]])
    assert claim["seeds"] == [0, 1]
    table = (finished.folder / "table.md").read_text()
    assert table == finished.results["table"]
    for part in ("the command", "| plain MLM | 2 |", "unpublished", "shop text 61.2", "seeds 0, 1", claim["verdict"]):
        assert part in table
    assert read_run(finished.folder)["results"]["rows"]["plain"]["0"] == rows["plain"][0]


def test_a_finished_reproduction_keeps_models_and_is_not_run_again(finished, cache, monkeypatch):
    assert not list(finished.folder.glob("seed-*/*/checkpoint-*")), "checkpoints of finished rows are deleted"
    assert (finished.folder / "seed-1" / "guided" / "model.safetensors").exists()
    runs = count_runs(monkeypatch)
    again = reproduce(paper(finished.folder, cache))
    assert runs == []
    assert again["rows"] == finished.results["rows"]
    more = reproduce(paper(finished.folder, cache, seeds=[0, 1, 2], rows=["plain"]))
    assert runs == [(2, "common"), (2, "plain")]
    assert more["rows"]["plain"][1] == finished.results["rows"]["plain"][1]
    assert more["claims"] == [], "a claim needs both of its rows"


def test_a_shared_stage_is_trained_once_and_may_be_a_row(tmp_path, cache, monkeypatch):
    changes = {"stages.0.shared": True, "stages.0.row": True, "stages.0.label": "no anneal", "base.seed": 7}
    changes |= {"claims.0.than": "common", "claims.0.value": "shop.accuracy", "claims.0.row": "plain"}
    settings = paper(tmp_path, cache, **changes)
    plan_ahead(settings)
    runs = count_runs(monkeypatch)
    results = reproduce(settings)
    assert runs == [(7, "common"), (0, "plain"), (0, "guided"), (1, "plain"), (1, "guided")]
    starts = [read_run(tmp_path / f"seed-{seed}" / row)["config"]["model"]["init_from"] for seed, row in runs[1:]]
    assert set(starts) == {str(tmp_path / "shared" / "common")}
    rows = results["rows"]
    assert rows["common"][0] == rows["common"][1]
    assert rows["plain"][0] != rows["plain"][1], "seeds vary what comes after"
    assert rows["common"][0]["tokens"] < rows["plain"][0]["tokens"]
    [claim] = results["claims"]
    assert claim["differences"] == pytest.approx(
        [rows["plain"][seed]["shop.accuracy"] - rows["common"][seed]["shop.accuracy"] for seed in (0, 1)]
    )
    assert "common: 6,144 of them, trained once (seed 7)" in results["table"]
    assert "| no anneal | shared | " in results["table"]
    reproduce(paper(tmp_path, cache, **changes, seeds=[2], rows=["guided"]))
    assert runs[5:] == [(2, "guided")], "other seeds start from the same model"


def test_a_killed_row_goes_on_where_it_was(tmp_path, cache, finished, monkeypatch):
    settings = paper(tmp_path, cache, seeds=[0])
    plan_ahead(settings)
    finish = CurriculumTrainer.finish_step

    def die(self, control):
        finish(self, control)
        if "guided" in self.args.output_dir and self.state.global_step == 5:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(CurriculumTrainer, "finish_step", die)
        with pytest.raises(KilledError):
            reproduce(settings)
    assert (tmp_path / "results" / "plain-seed0.json").exists()
    assert "| plain MLM | 1 |" in (tmp_path / "table.md").read_text(), "what is done is reported"

    runs = count_runs(monkeypatch)
    results = reproduce(settings)
    assert runs == [(0, "guided")]
    assert read_run(tmp_path / "seed-0" / "guided")["resumed_from_step"] == 4
    for row, found in results["rows"].items():
        assert found[0] == finished.results["rows"][row][0], "as if nothing had happened"


def test_a_row_that_was_trained_but_not_measured_is_only_measured(tmp_path, cache, monkeypatch):
    settings = paper(tmp_path, cache, seeds=[0], rows=["plain"])
    plan_ahead(settings)
    with monkeypatch.context() as patch:

        def fail(job, **options):
            raise KilledError

        patch.setitem(jobs.MEASURES, "spans", fail)
        with pytest.raises(KilledError):
            reproduce(settings)
    runs = count_runs(monkeypatch)
    assert "shop.accuracy" in reproduce(settings)["rows"]["plain"][0]
    assert runs == []


def test_calibration_tries_every_stage_and_a_small_budget_is_one_line(tmp_path, cache, monkeypatch):
    runs = count_runs(monkeypatch)
    # Warm-up and decay of the written phase are longer than what calibration trains.
    schedule = {"name": "warmup_stable_decay", "warmup_tokens": 3000, "decay_tokens": 2900}
    phases = {"base.phases.0.max_tokens": 6144, "base.phases.0.schedule": schedule}
    with pytest.raises(SettingsError, match=r"budget of 0.01 minutes allows 0 steps .* --budget \d+ is needed"):
        reproduce(paper(tmp_path, cache, budget=0.01, calibration_steps=2, **phases))
    assert runs == [(0, "common"), (0, "plain"), (0, "guided")]
    assert not (tmp_path / "plan.json").exists()
    with pytest.raises(SettingsError, match=r"budget of 0\.02 minutes"):
        reproduce(paper(tmp_path, cache, budget=0.02, calibration_steps=2, **phases))
    assert len(runs) == 3, "another budget needs no other calibration"
    assert not (tmp_path / "calibration").exists()


def test_a_value_that_no_measure_gives_is_refused_at_every_start_and_measured_once(
    tmp_path, cache, monkeypatch, caplog
):
    """What a run measured itself hangs on its length: it is told only."""
    runs = count_runs(monkeypatch)
    own = {"name": "own", "kind": "results"}
    few = {"calibration_steps": 2, "budget": 0.01, "measures": [*PAPER["measures"], own], "claims": []}
    for _ in range(2):
        with pytest.raises(ValueError, match=r"columns: measure 'shop' gives no 'acuracy'"):
            reproduce(paper(tmp_path, cache, **few, columns={"shop.acuracy": "shop text"}))
    assert len(runs) == 3
    with pytest.raises(SettingsError, match="budget of"):
        reproduce(paper(tmp_path, cache, **few, columns={"own.later": "own", "shop.accuracy": "shop"}))
    assert len(runs) == 3, "the values of the report are no part of what a stage costs"
    assert [line.partition(":")[2] for line in caplog.messages if "in the calibration" in line] == [
        " no row gave own.later in the calibration: without a longer run or another row that does, it stays empty"
    ]


def test_papers_bring_their_own_runs_and_measures(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(jobs, "RUNS", jobs.RUNS)
    monkeypatch.setitem(jobs.RUNS, "echo", None)
    monkeypatch.setitem(jobs.MEASURES, "length", None)

    def echo(job):
        job.folder.mkdir(parents=True)
        source = Path(job.recipe.model.init_from or "") / "text"
        (job.folder / "text").write_text((source.read_text() if job.stage.after else "") + job.stage.name)
        return Ran(amount=100, seconds=0.1, speed=0.0)

    register_run("echo", echo)
    register_measure("length", lambda job, factor: {"value": factor * len((job.folder / "text").read_text())})
    changes = {f"stages.{i}.run": "echo" for i in range(3)}
    changes |= {"measures": [{"name": "length", "kind": "length", "options": {"factor": 2}}], "claims": []}
    settings = paper(tmp_path, cache, **changes, columns={"length.value": "length"}, budget=1.0)
    results = reproduce(settings)
    assert results["rows"]["guided"][1] == {"length.value": 2 * len("commonguided"), "tokens": 200}
    plan = json.loads((tmp_path / "plan.json").read_text())["plan"]
    assert plan["costs"]["plain"]["speed"] == pytest.approx(1000)


def test_what_is_no_number_is_no_value_of_a_row(tmp_path, cache, monkeypatch):
    """A model that diverged has a loss of NaN, which no table and no JSON holds."""
    monkeypatch.setitem(jobs.RUNS, "echo", lambda job: job.folder.mkdir(parents=True) or Ran(100, 0.1, 0.0))
    monkeypatch.setitem(jobs.MEASURES, "spans", lambda job, **_: {"accuracy": 0.0, "loss": float("nan")})
    settings = paper(tmp_path, cache, **{f"stages.{i}.run": "echo" for i in range(3)}, seeds=[0])
    plan_ahead(settings)
    with pytest.raises(ValueError, match=r"plain, seed 0: shop is not a finite number \(loss\); did its training div"):
        reproduce(settings)
    assert not json.loads((tmp_path / "results" / "plain-seed0.json").read_text())["done"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages.1.run": "pretran"}, "stage 'plain': no way to run 'pretran'"),
        ({"measures.0.kind": "span"}, "measure 'shop': no kind 'span'"),
    ],
)
def test_unknown_functions_are_errors_before_anything_runs(tmp_path, cache, changes, message):
    with pytest.raises(SettingsError, match=message):
        reproduce(paper(tmp_path, cache, **changes))


def test_without_the_data_folder_the_sample_is_used(tmp_path, cache, caplog):
    changes = {"base.data_dir": str(tmp_path / "nowhere"), "base.sources.shop": {"path": "shop.txt"}}
    settings = paper(tmp_path / "out", cache, **changes, seeds=[0], rows=["plain"])
    settings.without_data = {"sources.shop": {"sample": "shop_text", "sample_size": 300}}
    plan_ahead(with_data(settings))
    assert "shop.accuracy" in reproduce(settings)["rows"]["plain"][0]
    assert "built-in sample" in caplog.text


def test_the_recipe_finds_the_paper(monkeypatch):
    from reproduce import config_of

    assert config_of(["--paper", "rexbert", "--budget", "3"]).name == "reproduce_rexbert.yaml"
    assert config_of(["--paper=rexbert"]).is_file()
    with pytest.raises(SettingsError, match=r"no paper 'bert': there is .*rexbert"):
        config_of(["--paper", "bert"])


def test_lexicons_come_from_a_taxonomy_or_a_catalogue(tmp_path):
    (tmp_path / "tree.txt").write_text("1 - Home\n2 - Home > Table Lamps & Mugs\n3 - Home > Cans\n")
    (tmp_path / "shop.csv").write_text("maker,place\nAcme,Home > Mugs\n")
    settings = paper(tmp_path, **{"base.data_dir": str(tmp_path)})
    tree = LexiconSettings("tree.txt", "text", format="text", exclude=["can", "cans"])
    found = write_lexicons(settings, tree)
    assert set(found) == {"types"}, "a taxonomy has no brands, and an empty list of terms guides nothing"
    terms = set(Path(found["types"]).read_text().splitlines())
    assert {"table lamp", "table lamps", "mug", "mugs"} <= terms
    assert not {"can", "cans"} & terms
    found = write_lexicons(settings, LexiconSettings("shop.csv", "place", brand="maker"))
    assert Path(found["brands"]).read_text() == "acme"
    assert Path(found["types"]).read_text().split() == ["mug", "mugs"]
