"""Cards hold what was measured and nothing else, and their metadata is what the Hub reads."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from rexbert_hf.hub import (
    card_of_run,
    merge_card,
    render_dataset_card,
    render_model_card,
    split_card,
    write_card,
    write_run,
)
from rexbert_hf.hub.__main__ import main
from rexbert_hf.hub.card import DATASET_FIELDS, MODEL_FIELDS
from rexbert_hf.hub.evaluated import write_evaluation
from rexbert_hf.hub.readme import BEGIN, END, overruled

RUN: dict[str, Any] = {
    "config": {"model": {"size": "micro"}, "hub_token": "s3cr3t", "max_tokens": 10},
    "results": {
        "phases": [
            {"name": "general", "tokens": 20_000_000, "steps": 250, "masked_accuracy_before": 0.001, "loss": 3.51234}
            | {"masked_accuracy_after": 0.28, "tokens_per_second": 3312.4},
            {"name": "anneal", "tokens": 8_000_000, "steps": 100, "masked_accuracy_before": 0.28}
            | {"masked_accuracy_after": 0.371, "tokens_per_second": 3300},
        ],
        "seconds": 8484,
        "num_parameters": 16_913_600,
    },
    "data": [
        {"name": "text/shop", "fingerprint": "f00d", "documents": 1234, "tokens": 5000},
        {"name": "reviews", "repo_id": "me/reviews", "revision": "abc123"},
    ],
    "versions": {"python": "3.11.7", "torch": "2.13.0"},
    "hardware": "Some CPU, 2 cores",
    "date": "2026-11-20T00:00:00Z",
    "git_commit": "c0ffee",
    "resumed_from_step": 120,
}


def test_the_whole_card():
    card = ModelCard(
        render_model_card(RUN, repo_id="me/shop-bert", loss_plot="loss.png", license="mit", language=["en"])
    )
    assert card.validate is not None
    data = card.data
    assert (data.license, data.language, data.library_name) == ("mit", ["en"], "transformers")
    assert (data.pipeline_tag, data.datasets) == ("fill-mask", ["me/reviews"])
    assert {"rexbert", "e-commerce", "modernbert"} <= set(data.tags)
    assert data.model_name == "shop-bert"
    (result,) = data.eval_results
    assert (result.task_type, result.metric_value) == ("fill-mask", 0.371)
    assert result.dataset_name == "held-out text of text/shop, reviews"
    for expected in (
        "# shop-bert",
        "16,913,600 parameters",
        "| phase | tokens | steps | held-out accuracy before | held-out accuracy after | training loss | tokens/s |",
        "| general | 20,000,000 | 250 | 0.1 % | 28.0 % | 3.512 | 3,312 |",
        "| anneal | 8,000,000 | 100 | 28.0 % | 37.1 % |  | 3,300 |",
        "![Training loss and held-out accuracy over tokens](loss.png)",
        "Cost: 28,000,000 tokens; 2.4 h; Some CPU, 2 cores.",
        "Date: 2026-11-20T00:00:00Z.",
        "git commit `c0ffee`",
        "Resumed from step 120",
        "python 3.11.7, torch 2.13.0.",
        "| text/shop | f00d | 1,234 | 5,000 |",
        "| reviews | abc123 |  |  |",
        'AutoModel.from_pretrained("me/shop-bert", trust_remote_code=True)',
        'AutoModelForMaskedLM.from_pretrained("me/shop-bert", subfolder="modernbert")',
        'pipeline("fill-mask", model="me/shop-bert", trust_remote_code=True)',
        'SentenceTransformer("me/shop-bert", trust_remote_code=True)',
        "## Intended use and limits",
    ):
        assert expected in card.text, expected
    config = yaml.safe_load(re.search(r"<details>.*?```yaml\n(.*?)```", card.text, re.DOTALL)[1])
    assert config == {"model": {"size": "micro"}, "hub_token": "<redacted>", "max_tokens": 10}


def test_absent_numbers_are_left_out_not_invented():
    card = ModelCard(render_model_card({}))
    assert card.data.eval_results is None
    for key in ("license", "language", "datasets", "base_model"):
        assert getattr(card.data, key, None) is None, key
    for absent in ("## Measured", "| phase", "![", "Cost:", "parameters", "<details>", "Versions", "None", "| ---"):
        assert absent not in card.text, absent
    partial = render_model_card({"results": {"phases": [{"name": "a", "tokens": 5, "loss": 1.0}, {"name": "b"}]}})
    assert "| phase | tokens | training loss |" in partial
    assert "| b |  |  |" in partial
    assert "Cost" not in partial  # the tokens of one phase are not those of the run
    assert "model-index" not in partial


def test_code_blocks_are_python():
    blocks = re.findall(r"```python\n(.*?)```", render_model_card(RUN, repo_id="a/b"), re.DOTALL)
    assert len(blocks) == 5
    for block in [*blocks, *re.findall(r"```python\n(.*?)```", render_dataset_card(repo_id="a/b"), re.DOTALL)]:
        compile(block, "card", "exec")


def test_only_what_is_on_the_hub_is_linked(tmp_path):
    assert ModelCard(render_model_card({}, base_model="org/base")).data.base_model == "org/base"
    for local in (str(tmp_path), "./here", "C:\\models\\x", "runs"):
        assert ModelCard(render_model_card({}, base_model=local)).data.base_model is None
    assert ModelCard(render_model_card({"data": [{"name": "text/shop"}]})).data.datasets is None


def test_a_folder_that_was_the_base_is_no_name_on_the_hub_wherever_the_card_is_rendered(tmp_path, monkeypatch):
    (tmp_path / "runs" / "base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for base, linked in (("runs/base", None), ("org/base", "org/base")):
        write_run(tmp_path / "out", config={"base": base}, results={}, card={"base_model": base, "summary": "Mine."})
        monkeypatch.chdir(tmp_path / "out")
        rendered = ModelCard(card_of_run("."))
        assert rendered.data.base_model == linked
        assert "Mine." in rendered.text
        monkeypatch.chdir(tmp_path)


def test_metrics_of_a_run_reach_the_model_index():
    metric = {"task_type": "text-classification", "dataset_type": "glue", "dataset_name": "SST-2"}
    metric |= {"metric_type": "accuracy", "metric_value": 0.9}
    text = render_model_card({"results": {"metrics": [metric]}})
    assert ModelCard(text).data.eval_results[0].dataset_name == "SST-2"
    assert "| text-classification | SST-2 | accuracy | 0.9 |" in text
    with pytest.raises(ValueError, match=r"results.metrics has an entry"):
        render_model_card({"results": {"metrics": [{**metric, "bleu": 1}]}})


def test_figures_that_an_evaluation_left_in_the_folder_reach_the_card(tmp_path):
    own = {"task_type": "retrieval", "dataset_type": "shop", "dataset_name": "Shop", "metric_type": "recall"}
    write_run(tmp_path, config={}, results={"metrics": [{**own, "metric_value": 0.1}]})
    assert "No figures measured" not in card_of_run(tmp_path)
    other = {**own, "metric_type": "mrr", "metric_value": 0.7, "metric_args": {"seeds": 3}}
    figures = {"metrics": [{**own, "metric_value": 0.2}, other]}
    (tmp_path / "evaluation.json").write_text(json.dumps(figures), encoding="utf-8")
    card = ModelCard(card_of_run(tmp_path))
    assert sorted(result.metric_value for result in card.data.eval_results) == [0.2, 0.7]
    (tmp_path / "evaluation.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"evaluation.json: cannot be read"):
        card_of_run(tmp_path)


def test_a_licence_that_was_said_once_stands_in_metadata_and_text(tmp_path):
    write_run(tmp_path, config={}, results={})
    (tmp_path / "config.json").write_text("{}")
    write_card(tmp_path, license="apache-2.0", language=["en"])
    text = card_of_run(tmp_path, "user/x")
    card = ModelCard(text)
    assert (card.data.license, card.data.language) == ("apache-2.0", ["en"])
    assert "Not stated" not in text
    assert "apache-2.0" in card.text.partition("## Licence")[2]
    assert "mit" in ModelCard(card_of_run(tmp_path, license="mit")).text.partition("## Licence")[2]


def test_figures_of_one_task_on_two_data_sets_keep_their_names():
    metric = {"task_type": "retrieval", "task_name": "Search", "dataset_type": "search", "metric_type": "recall"}
    metrics = [{**metric, "dataset_name": name, "metric_value": value} for name, value in (("A b", 0.1), ("C", 0.2))]
    found = ModelCard(render_model_card({"results": {"metrics": metrics}})).data.eval_results
    assert {(one.dataset_name, one.dataset_config): one.metric_value for one in found} == {
        ("A b", "a-b"): 0.1, ("C", "c"): 0.2,
    }  # fmt: skip


def test_figures_of_another_model_are_left_out(tmp_path, caplog):
    own = {"task_type": "retrieval", "dataset_type": "shop", "dataset_name": "Shop", "metric_type": "recall"}
    measured = {"date": "2026-01-02T03:04:05Z", "hardware": "one | core", "versions": {"torch": "9"}}
    write_run(tmp_path, config={}, results={})
    (tmp_path / "model.safetensors").write_bytes(b"first")
    write_evaluation(tmp_path, [{**own, "metric_value": 0.7, **measured}])
    write_evaluation(tmp_path, [{**own, "metric_type": "mrr", "metric_value": 0.6}])
    text = card_of_run(tmp_path)
    assert sorted(result.metric_value for result in ModelCard(text).data.eval_results) == [0.6, 0.7]
    assert "Evaluated 2026-01-02; one \\| core; torch 9." in text
    (tmp_path / "spike-step-3-rank-0.safetensors").write_bytes(b"a batch, no model")
    assert len(ModelCard(card_of_run(tmp_path)).data.eval_results) == 2
    (tmp_path / "model.safetensors").write_bytes(b"second")
    assert not ModelCard(card_of_run(tmp_path)).data.eval_results
    assert "of another model" in caplog.text
    write_evaluation(tmp_path, [{**own, "metric_type": "mrr", "metric_value": 0.5}])
    (result,) = ModelCard(card_of_run(tmp_path)).data.eval_results
    assert result.metric_value == 0.5


def test_a_card_without_figures_says_so():
    for template in ("model_card.md", "search_card.md"):
        text = render_model_card({}, template=template, repo_id="a/b")
        assert "No figures measured." in text
        assert "Not stated" in text
        told = render_model_card({"results": {"seconds": 60}, "hardware": "CPU"}, template=template, license="mit")
        assert "mit, as whoever trained" in told
        assert "Cost: 60 s; CPU. Energy and carbon were not measured." in told


def test_a_run_brings_fields_of_its_own_and_unknown_ones_are_errors():
    run = {"card": {"license": "mit", "summary": "Shoes."}}
    assert ModelCard(render_model_card(run)).data.license == "mit"
    assert ModelCard(render_model_card(run, license="gpl-3.0")).data.license == "gpl-3.0"
    assert "Shoes." in render_model_card(run)
    with pytest.raises(ValueError, match="does not know licence; it takes repo_id"):
        render_model_card({}, licence="mit")
    with pytest.raises(ValueError, match="does not know rows"):
        render_dataset_card(rows=1)


def test_no_field_of_a_card_names_a_folder_of_this_machine(tmp_path, monkeypatch):
    """A run's own card fields, and those of the caller, are what a recipe made of its settings."""
    monkeypatch.setenv("HOME", "/home/me")
    text = f"`load('{tmp_path}/a.txt')`, from '/home/me' with hf_{'Ab1' * 10}"
    own = {"summary": text, "limits": [text], "sections": [{"title": "How to use", "text": text}]}
    write_run(tmp_path, config={}, results={}, card=own)
    for card in (card_of_run(tmp_path), render_model_card({}, folder=tmp_path, **own)):
        assert str(tmp_path) not in card
        assert "/home/me" not in card
        assert "hf_Ab1" not in card
        assert card.count("`load('./a.txt')`, from '~' with") == 3


def test_hostile_names_do_not_break_the_card():
    name = "a|b\n<script>\n---\n"
    run = {
        "results": {"phases": [{"name": name, "tokens": 1}]},
        "data": [{"name": name}],
        "config": {"x": "```\n{{ 1 }}"},
    }
    card = ModelCard(render_model_card(run, repo_id="a/b"))
    assert "| a\\|b &lt;script> --- | 1 |" in card.text
    assert "<script>" not in card.text
    fenced = re.search(r"^(`{4,})yaml\n(.*?)^\1$", card.text, re.DOTALL | re.MULTILINE)
    assert yaml.safe_load(fenced[2]) == {"x": "```\n{{ 1 }}"}


def test_every_field_has_its_place():
    """A field that no template reads would be a dead option."""
    for render, fields in ((render_model_card, MODEL_FIELDS), (render_dataset_card, DATASET_FIELDS)):
        run = () if render is render_dataset_card else (RUN,)
        rows = [{"name": "zzz", "rows": 1, "meaning": "m"}]
        values: dict[str, Any] = {
            **dict.fromkeys(fields, "zzz"),
            "base_model": "z/z",
            "example": "zzz {mask}",
            "stock_subfolder": "zzz",
            "remote_code": False,
            "config": {"zzz": 1},
            "versions": {"zzz": "1"},
            **{key: ["zzz"] for key in ("limits", "tags", "language", "task_categories")},
            **dict.fromkeys(("configs", "columns", "sources", "steps"), rows),
            "sections": [{"title": "zzz", "text": "zzz"}],
            "data_files": [{"config_name": "zzz", "data_files": "*.parquet"}],
        }
        for key in set(fields) - {"folder", "facts"}:  # facts are for templates of their own, as the corpus card
            others = {"configs": rows} if key == "unit" else {}
            assert render(*run, **others, **{key: values[key]}) != render(*run, **others), key


def test_the_dataset_card():
    text = render_dataset_card(
        repo_id="me/corpus",
        summary="Shop pages.",
        license="odc-by",
        configs=[{"name": "hobby", "rows": 1200, "fingerprint": "f1"}],
        columns=[{"name": "text", "meaning": "the page"}],
        sources=[{"name": "web", "revision": "r1", "license": "odc-by"}],
        steps=[{"name": "dedup", "kept": 5, "dropped": 2}],
        config={"api_key": "s3cr3t"},
    )
    card = DatasetCard(text)
    assert (card.data.license, card.data.pretty_name) == ("odc-by", "corpus")
    for expected in (
        'load_dataset("me/corpus", "hobby"',
        "| hobby | 1,200 |  | f1 |",
        "| dedup | 5 | 2 |",
        "Shop pages.",
    ):
        assert expected in card.text
    assert "s3cr3t" not in text


def card(metadata: str, body: str) -> str:
    return f"---\n{metadata}\n---\n{body}"


def test_merging_keeps_what_people_wrote():
    ours = card("license: x\ntags: [a, b]\nlibrary_name: t", f"{BEGIN}\nnew \\1\n{END}\n")
    assert merge_card(None, ours) == ours
    assert merge_card(" \n", ours) == ours
    merged, body = split_card(merge_card(card("license: mit\ntags: [c, a]\nmine: 1", "# Theirs\n"), ours))
    assert merged == {"license": "mit", "tags": ["c", "a", "b"], "library_name": "t", "mine": 1}
    assert body == "# Theirs\n"
    _, body = split_card(merge_card(card("a: 1", f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n"), ours))
    assert body == f"Before.\n{BEGIN}\nnew \\1\n{END}\nAfter.\n"
    assert split_card(merge_card("No metadata.\n", ours))[1] == "No metadata.\n"
    assert split_card(merge_card(card("a: 1", ""), ours))[1] == f"{BEGIN}\nnew \\1\n{END}\n"


def test_merging_replaces_our_results_and_keeps_others():
    def index(name: str, *results: tuple[str, float]) -> str:
        rows = [
            {"task": {"type": t}, "dataset": {"type": "d", "name": "D"}, "metrics": [{"type": "accuracy", "value": v}]}
            for t, v in results
        ]
        return card(yaml.safe_dump({"model-index": [{"name": name, "results": rows}]}).rstrip(), "x\n")

    merged, _ = split_card(merge_card(index("m", ("fill-mask", 0.1), ("other", 0.5)), index("m", ("fill-mask", 0.2))))
    found = {r["task"]["type"]: r["metrics"][0]["value"] for r in merged["model-index"][0]["results"]}
    assert found == {"fill-mask": 0.2, "other": 0.5}


def test_merging_drops_results_that_only_our_old_card_showed():
    metric = {"task_type": "t", "task_name": "T", "dataset_type": "d", "metric_type": "accuracy"}

    def ours(name: str, value: float) -> str:
        return render_model_card({"results": {"metrics": [{**metric, "dataset_name": name, "metric_value": value}]}})

    theirs = {"task": {"type": "t", "name": "T"}, "dataset": {"type": "x", "name": "Theirs"},
              "metrics": [{"type": "accuracy", "value": 0.4}]}  # fmt: skip
    metadata, body = split_card(ours("Old", 0.1))
    metadata["model-index"][0]["results"].append(theirs)
    merged, _ = split_card(merge_card(card(yaml.safe_dump(metadata).rstrip(), body), ours("New", 0.2)))
    found = {r["dataset"]["name"]: r["metrics"][0]["value"] for r in merged["model-index"][0]["results"]}
    assert found == {"New": 0.2, "Theirs": 0.4}


def test_merging_drops_results_that_nothing_measures_any_more():
    """The new card has no results at all: those that only our old card showed go, whoever else's stay."""
    unmeasured = render_model_card({**RUN, "results": {}})
    merged, body = split_card(merge_card(render_model_card(RUN), unmeasured))
    assert "model-index" not in merged
    assert "No figures measured." in body
    metadata, old_body = split_card(render_model_card(RUN))
    theirs = {"task": {"type": "t", "name": "T"}, "dataset": {"type": "x", "name": "Theirs"},
              "metrics": [{"type": "accuracy", "value": 0.4}]}  # fmt: skip
    metadata["model-index"][0]["results"].append(theirs)
    old = card(yaml.safe_dump(metadata).rstrip(), old_body)
    kept, _ = split_card(merge_card(old, unmeasured))
    assert [result["dataset"]["name"] for result in kept["model-index"][0]["results"]] == ["Theirs"]
    # Text without our part leaves the old figures where they stand, and their metadata with them.
    assert split_card(merge_card(old, ""))[0]["model-index"] == metadata["model-index"]


def test_merging_replaces_the_base_model_that_our_old_card_showed():
    def ours(base: str | None) -> str:
        return render_model_card({}, base_model=base, template="plain_card.md")

    def merged(old: str, base: str | None) -> object:
        return split_card(merge_card(old, ours(base)))[0].get("base_model")

    assert merged(ours("org/old"), "org/new") == "org/new"
    assert merged(ours("org/old"), None) is None
    assert merged(ours("org/old-2").replace("base_model: org/old-2", "base_model: org/old"), "org/new") == "org/old"
    theirs = ours("org/old").replace("base_model: org/old", "base_model: [me/mine, org/old]")
    assert merged(theirs, "org/new") == ["me/mine", "org/old"]
    assert merged(card("base_model: me/mine", "Mine.\n"), "org/new") == "me/mine"


@pytest.mark.parametrize(
    ("theirs", "mine", "kept"),
    [
        (("", ""), ("Mine.", "After."), ("Mine.", "After.")),  # nobody wrote there
        (("Mine.", ""), ("Mine. And more.", "After."), ("Mine. And more.", "After.")),
        (("Mine. And theirs.", ""), ("Mine.", ""), ("Mine. And theirs.", "")),
        (("Theirs.", ""), ("Mine.", ""), ("Theirs.", "")),
        (("Theirs.", "After."), ("", ""), ("Theirs.", "After.")),
    ],
)
def test_text_outside_the_marks_comes_along_where_it_takes_nobodys_place(
    theirs: tuple[str, str], mine: tuple[str, str], kept: tuple[str, str]
):
    def written(words: tuple[str, str], figure: str) -> str:
        return card("a: 1", f"{words[0]}\n{BEGIN}\n{figure}\n{END}\n{words[1]}\n")

    merged = merge_card(written(theirs, "old"), written(mine, "new"))
    assert split_card(merged) == split_card(written(kept, "new"))
    assert overruled(written(mine, "new"), merged) == (["text"] if mine[0] and kept[0] == "Theirs." else [])


@pytest.mark.parametrize("body", ["Own words.\n", "Own words. And more.\n"])
@pytest.mark.parametrize("theirs", ["", "Own words."])
def test_a_card_without_marks_removes_no_marked_part(body: str, theirs: str):
    old = card("a: 1", f"{theirs}\n{BEGIN}\nfigure\n{END}\n")
    assert split_card(merge_card(old, card("b: 2", body))) == ({"b": 2, "a": 1}, split_card(old)[1])
    assert overruled(card("b: 2", body), merge_card(old, card("b: 2", body))) == (
        [] if body == f"{theirs}\n" else ["text"]
    )


def test_merging_twice_is_merging_once():
    ours = render_model_card(RUN, repo_id="a/b")
    once = merge_card(card("license: mit", "Mine.\n"), ours)
    assert merge_card(once, ours) == once
    again = merge_card(ours, ours)
    assert split_card(again) == split_card(ours)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("---\na: 1\nb: [\n---\nx", r"README.md, line \d: the metadata block is not valid YAML"),
        ("---\njust text\n---\nx", "is not a mapping"),
    ],
)
def test_unreadable_metadata_is_named(text: str, message: str):
    with pytest.raises(ValueError, match=message):
        split_card(text)


@pytest.mark.parametrize(
    "text", ["", "no block", "---\n---\nx", "--- \nno end", "\ufeff---\na: 1\n---\nx", "a\n---\nb: 1\n---\n"]
)
def test_odd_readmes_are_read(text: str):
    metadata, body = split_card(text)
    assert metadata in ({}, {"a": 1})
    assert body in (text, "x")


def test_no_models_card_is_rendered_of_a_data_set(tmp_path, caplog):
    write_run(tmp_path, config={}, results={})
    (tmp_path / "README.md").write_text("# Phrases\n")
    assert main(["card", str(tmp_path)]) == 1
    assert f"{tmp_path} holds no model (no config.json or modules.json) and gets no model's card: its " in caplog.text
    with pytest.raises(ValueError, match=r"with --push_to_hub USER/NAME$"):
        write_card(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Phrases\n"
    (tmp_path / "config.json").write_text("{}")
    assert main(["card", str(tmp_path)]) == 0
