"""The whole pipeline: the recipe end to end, stages alone, restarts after a kill, another vertical."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from chat_server import ChatServer

from rexbert_hf.catalog import load_sample
from rexbert_hf.corpus.documents import text_id
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.loading import load_corpus
from rexbert_hf.corpus.pipeline import curate
from rexbert_hf.corpus.settings import STAGES, CurateSettings
from rexbert_hf.settings import SettingsError, load_settings

pytest.importorskip("fasttext")

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "curate.py"
CONFIGS = ROOT / "recipes" / "configs"
SIZE = 700
TINY = {"sources.0.sample_size": SIZE, "audit.labeller.ready.sample_size": SIZE, "workers": 1}


def options(output, **changes):
    found = {**TINY, "output_dir": output, **{name.replace("__", "."): value for name, value in changes.items()}}
    return [(name, str(value)) for name, value in found.items()]


def settings(output, config="curate_sample", **changes):
    return load_settings(CurateSettings, CONFIGS / f"{config}.yaml", options(output, **changes))


def words(output, config="curate_sample", **changes):
    pairs = options(output, **changes)
    return [str(CONFIGS / f"{config}.yaml"), *(word for name, value in pairs for word in (f"--{name}", value))]


@pytest.fixture
def recipe(monkeypatch, capsys):
    """Run the recipe in this process; exit status, stdout, stderr."""

    def start(*arguments):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *arguments])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out"
    curate(settings(output))
    return output


def corpus_of(output):
    """Every document with its split, from the files."""
    rows = {}
    for path in sorted((output / "corpus").glob("*/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            rows[row["id"]] = (path.name.partition("-")[0], row["domain"], row["text"])
    return rows


def test_the_recipe_prints_a_line_a_stage_and_finds_the_shop_pages(recipe, whole):
    """On a finished run nothing is done again."""
    before = {
        path: os.stat(path).st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != "run.json"
    }
    status, out, _ = recipe(*words(whole))
    assert status == 0
    lines = out.strip().splitlines()
    assert [line.partition(":")[0] for line in lines[:-1]] == list(STAGES)
    assert all(" read, " in line and " written" in line for line in lines[:-1])
    assert "agreement 0." in lines[3]
    assert "F1 0." in lines[4]
    assert str(whole / "corpus") in lines[-1]
    after = {path: os.stat(path).st_mtime_ns for path in before}
    assert before == after
    run = json.loads((whole / "run.json").read_text())
    assert set(run["results"]["stages"]) == set(STAGES)
    for name, report in run["results"]["stages"].items():
        assert report["read"] >= report["written"] > 0, name


def test_what_is_kept_is_mostly_shop_pages_and_nothing_twice(whole):
    truth = {text_id(page["text"]): page["label"] for page in load_sample("crawl", size=SIZE)}
    kept = corpus_of(whole)
    texts = [text for _, _, text in kept.values()]
    assert len(set(texts)) == len(texts) > 100
    right = sum(truth[id] == "shop" for id in kept)
    assert right / len(kept) > 0.85
    shop = [id for id, label in truth.items() if label == "shop"]
    picked = json.loads((whole / "run.json").read_text())["results"]["stages"]["select"]["details"]["picked"]
    assert len(picked) < len({page["domain"] for page in load_sample("crawl", size=SIZE)}), "not every domain is taken"
    assert {domain for _, domain, _ in kept.values()} <= set(picked)
    assert right / len(shop) > 0.5


def test_the_card_shows_every_stage(whole):
    text = (whole / "corpus" / "README.md").read_text()
    for heading in ("### Domains", "### Labels", "### Audit", "### Classifier", "## Where it comes from"):
        assert heading in text, heading
    report = json.loads((whole / "filter" / "report.json").read_text())
    assert f"| filter | {report['read']:,} | {report['written']:,} |" in text
    f1 = json.loads((whole / "distil" / "report.json").read_text())["details"]["test"]["f1"]
    assert f"| F1 | {f1:.3f} |" in text
    assert "None" not in text.partition("<details>")[0]
    assert str(whole) not in text


def test_the_corpus_loads_by_the_folder_of_the_run(whole, tmp_path):
    found = load_corpus(whole, cache_dir=str(tmp_path))
    assert sorted(found["id"]) == sorted(id for id, (split, _, _) in corpus_of(whole).items() if split == "train")


class Killed(BaseException):
    """Stands for SIGKILL between two stages: nothing catches it."""


@pytest.mark.parametrize("last", ["sample", "distil", "filter"])
def test_killed_after_a_stage_and_started_again_it_ends_the_same(last, whole, tmp_path):
    def kill(report, line):
        if report.stage == last:
            raise Killed

    output = tmp_path / "out"
    with pytest.raises(Killed):
        curate(settings(output), kill)
    assert not (output / "run.json").exists()
    (output / "tokenizer.json").write_text("{}")  # a helper's, as of `build`: no other recipe's model
    times = {path: os.stat(path).st_mtime_ns for path in output.glob("*/report.json")}
    curate(settings(output))
    assert times == {path: os.stat(path).st_mtime_ns for path in times}
    assert corpus_of(output) == corpus_of(whole)


@pytest.mark.slow
def test_killed_by_a_signal_at_any_moment_it_ends_the_same(whole, tmp_path):
    output = tmp_path / "out"
    for reached in ("sample/documents.parquet", "distil/report.json", "filter/work/key.json"):
        process = subprocess.Popen([sys.executable, str(RECIPE), *words(output)], cwd=ROOT, stderr=subprocess.DEVNULL)
        while not (output / reached).exists():
            assert process.poll() is None, f"it ended before {reached} was there"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    done = subprocess.run([sys.executable, str(RECIPE), *words(output)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert corpus_of(output) == corpus_of(whole)


def test_a_selection_that_failed_is_not_all_domains(tmp_path, recipe):
    curate(settings(tmp_path / "out", stages="[select]"))
    with pytest.raises(ValueError, match="no domain reaches"):
        curate(settings(tmp_path / "out", stages="[select]", select__min_share=1.0))
    status, _, err = recipe(*words(tmp_path / "out", stages="[sample]"))
    assert status == 1
    assert "'sample' needs what the stage 'select' writes" in err


def test_stages_run_alone(whole, tmp_path):
    output = tmp_path / "out"
    left = ("sample/.documents.parquet.123", "distil/.model-0ab.bin.7", "corpus/.food.staged/train-00000", ".x.json.9")
    for name in left:  # by killed runs
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("half")
    curate(settings(output, stages="[sample, label]"))
    assert sorted(path.parent.name for path in output.glob("*/report.json")) == ["label", "sample"]
    assert not [path for path in output.rglob("*") if path.name.startswith(".")]
    domains = {row["domain"] for row in pq.read_table(output / "sample" / "documents.parquet").to_pylist()}
    assert len(domains) == 16, "without a selection all domains are taken"
    curate(settings(output, stages="[distil]"))
    assert (output / "distil" / "report.json").exists()


@pytest.mark.parametrize(
    ("stage", "needs"), [("label", "sample"), ("audit", "sample"), ("distil", "sample"), ("filter", "distil"),
                         ("build", "filter")]
)  # fmt: skip
def test_a_stage_without_its_input_says_what_to_run(stage, needs, recipe, tmp_path):
    status, _, err = recipe(*words(tmp_path / "out", stages=stage))
    assert status == 1
    assert f"'{stage}' needs what the stage '{needs}' writes" in err.splitlines()[-1]
    assert "Traceback" not in err


def test_a_changed_setting_runs_its_stage_and_no_earlier_one(whole):
    def times():
        return {path.parent.name: os.stat(path).st_mtime_ns for path in whole.glob("*/report.json")}

    before = times()
    curate(settings(whole, build__held_out=0.2))
    changed = {name for name, at in times().items() if at != before[name]}
    assert changed == {"corpus"}
    curate(settings(whole))


def test_kept_documents_of_another_job_are_built(whole, tmp_path):
    curate(settings(tmp_path / "out", stages="[build]", build__kept=whole / "filter" / "kept"))
    assert corpus_of(tmp_path / "out") == corpus_of(whole)
    assert "### Audit" not in (tmp_path / "out" / "corpus" / "README.md").read_text()


def test_corpus_and_classifier_are_pushed_where_the_settings_say(whole, monkeypatch, recipe):
    pushed = []
    monkeypatch.setattr("rexbert_hf.corpus.pipeline.push_corpus", lambda *a, **k: pushed.append((a, k)) or "URL-1")
    monkeypatch.setattr(FastTextClassifier, "push_to_hub", lambda _, *a, **k: pushed.append((a, k)) or "URL-2")
    wanted = {"push_to_hub": "me/corpus", "push_classifier_to_hub": "me/classifier", "private": "true"}
    status, out, _ = recipe(*words(whole, stages="[audit]", **wanted))
    assert status == 0
    (corpus, options_1), (classifier, options_2) = pushed
    assert corpus == (whole / "corpus", "me/corpus")
    assert classifier == ("me/classifier",)
    assert options_1["private"] is options_2["private"] is True
    assert "pushed to URL-1" in out
    assert "pushed to URL-2" in out


def test_an_audit_below_the_bar_stops_the_run(recipe, tmp_path):
    bar = {"audit__min_agreement": 1.0}
    status, _, err = recipe(*words(tmp_path / "out", stages="[sample, label, audit, distil]", **bar))
    assert status == 1
    assert "under min_agreement=1" in err.splitlines()[-1]
    assert (tmp_path / "out" / "label" / "report.json").exists()
    assert not (tmp_path / "out" / "distil").exists()
    assert (tmp_path / "out" / "audit" / "disagreements.csv").exists()


def test_an_endpoint_is_paid_once_by_select_and_label(tmp_path):
    pages = [{"text": f"page {i} {'has a price' if i % 3 else 'is a story'}", "domain": ("hobby", "news")[i % 2]}
             for i in range(60)]  # fmt: skip
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    with ChatServer() as server:
        endpoint = f"{{base_url: {server.url}, model: tiny, timeout: 5}}"
        source = f"[{{path: {tmp_path / 'pages.jsonl'}}}]"
        pairs = [("sources", source), ("label.kind", "llm"), ("label.endpoint", endpoint), ("select.per_domain", "20"),
                 ("output_dir", str(tmp_path / "out")), ("stages", "[select, sample, label]")]  # fmt: skip
        made = load_settings(CurateSettings, CONFIGS / "curate_sample.yaml", pairs)
        results = curate(made)
        assert results["stages"]["label"].details["labels"] == {"general": 20, "shop": 40}
        assert set(server.requests.values()) == {1}
        assert len(server.requests) == 60


def test_a_second_vertical_end_to_end(tmp_path):
    output = tmp_path / "out"
    curate(settings(output, "curate_recipes"))
    truth = {text_id(page["text"]): page["label"] for page in load_sample("food_crawl", size=SIZE)}
    kept = corpus_of(output)
    assert sum(truth[id] == "recipe" for id in kept) / len(kept) > 0.9
    recipes = sum(label == "recipe" for label in truth.values())
    assert len(kept) > 0.5 * recipes
    text = (output / "corpus" / "README.md").read_text()
    assert "# Recipes (sample)" in text
    assert "| recipe |" in text


def test_a_vertical_in_a_file_of_its_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: x\ndescription: d\nlabels: {a: b, c: d}\nin_domain: [a]\nfallback: c\n")
    made = load_settings(CurateSettings, CONFIGS / "curate_sample.yaml", [("vertical", str(path))])
    assert made.domain.name == "x"
    path.write_text("name: x\nlabel: {}\n")
    with pytest.raises(SettingsError, match="label"):
        _ = made.domain


@pytest.mark.parametrize("config", sorted(path.stem for path in CONFIGS.glob("curate_*.yaml")))
def test_every_configuration_can_be_read(config):
    made = load_settings(CurateSettings, CONFIGS / f"{config}.yaml", [])
    assert made.domain.in_domain
    assert all(stage in STAGES for stage in made.stages)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": "[]"}, "stages is empty"),
        ({"stages": "[label, polish]"}, "polish"),
        ({"sources": "[]"}, "sources is empty"),
        ({"workers": -1}, "workers is at least 0"),
        ({"push_to_hub": "not a name"}, "not a name"),
        ({"build__shard_mb": 0}, "shard_mb is above 0"),
        ({"build__held_out": 1}, "held_out is a share"),
    ],
)
def test_settings_that_cannot_be_used_are_one_line(changes, message, recipe, tmp_path):
    tiny = {"sources__0__sample_size": None} if "sources" in changes else {}
    pairs = [(name, value) for name, value in options(tmp_path, **{**tiny, **changes}) if value != "None"]
    status, _, err = recipe(str(CONFIGS / "curate_sample.yaml"), *(w for n, v in pairs for w in (f"--{n}", v)))
    assert status == 2, err
    assert message in err
    assert len(err.strip().splitlines()) == 1
