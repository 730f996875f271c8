"""A whole run: what its folder holds, that the result loads, and what starting again does."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise

import pytest
import torch
from pretraining_cases import assert_same_weights, copy_of_whole_run, run, whole_run
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from rexbert_hf import RexBertForMaskedLM
from rexbert_hf.data import TokenisedDataset
from rexbert_hf.hub import read_run
from rexbert_hf.models.modeling_rexbert import RexBertModel
from rexbert_hf.pretraining import corpora, encoder, finish, sources
from rexbert_hf.pretraining.baselines import batches_of


def test_the_folder_holds_the_model_in_both_forms():
    folder = whole_run()
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "rexbert"
    assert config["auto_map"]["AutoModelForMaskedLM"] == "modeling_rexbert.RexBertForMaskedLM"
    for code in ("modeling", "attention", "configuration", "losses"):
        assert (folder / f"{code}_rexbert.py").is_file()
    stock = json.loads((folder / "modernbert" / "config.json").read_text())
    assert stock["model_type"] == "modernbert"
    assert "auto_map" not in stock
    assert len(AutoTokenizer.from_pretrained(folder)) == len(AutoTokenizer.from_pretrained(folder / "modernbert"))
    assert not list(folder.rglob("*.bin")) + list(folder.rglob("*.pkl"))


def test_both_forms_give_the_same_numbers():
    folder = whole_run()
    encoder_alone = AutoModel.from_pretrained(folder)
    assert type(encoder_alone) is RexBertModel
    ours = AutoModelForMaskedLM.from_pretrained(folder).eval()
    assert type(ours) is RexBertForMaskedLM
    stock = AutoModelForMaskedLM.from_pretrained(folder / "modernbert").eval()
    assert type(stock).__module__.startswith("transformers.")
    batch = AutoTokenizer.from_pretrained(folder)(
        ["red steel kettle", "a [MASK] lamp"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        token = batch["attention_mask"].bool()
        a, b = ours(**batch).logits[token], stock(**batch).logits[token]
    assert a.std() > 0.01
    torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_run_json_says_what_was_done():
    done = read_run(whole_run())
    assert {"config", "results", "resumed_from_step", "versions", "git_commit", "data", "hardware"} <= done.keys()
    assert done["resumed_from_step"] is None
    assert done["config"]["phases"][0]["max_tokens"] == 6000
    assert done["versions"]["torch"] == torch.__version__
    phases = done["results"]["phases"]
    assert [phase["name"] for phase in phases] == ["general", "extension", "anneal"]
    assert [phase["tokens"] for phase in phases] == [6000, 2000, 6000]
    for phase in phases:
        assert phase["steps"] >= 2
        assert 0 < phase["loss"] < 10
        assert 0.8 < phase["fill"] <= 1
        for when in ("before", "after"):
            assert 0 <= phase[f"masked_accuracy_{when}"] <= 1
            assert {f"masked_accuracy_{when}_{name}" for name in ("general", "shop")} <= phase.keys()
            depths = [phase[f"masked_accuracy_{when}{depth}"] for depth in ("", "@3", "@5")]
            assert depths == sorted(depths)
            assert f"masked_accuracy_{when}_shop@5" in phase
    for earlier, later in pairwise(phases):
        assert later["masked_accuracy_before"] == earlier["masked_accuracy_after"]
    assert phases[-1]["masked_accuracy_after"] > phases[0]["masked_accuracy_before"]
    held_out = {source["name"] for source in done["data"] if source["held_out_documents"]}
    assert held_out >= {"general", "shop"}
    assert done["results"]["baselines"].keys() == held_out
    low_positions = {f"masked_accuracy_{name}_0_64" for name in held_out}
    assert all(low_positions <= phase.keys() for phase in phases)
    for source in done["data"]:
        assert source["documents"] > 0
        assert source["tokens"] > 0
        assert source["fingerprint"]
    assert {source["name"] for source in done["data"]} == {"general", "long", "shop"}
    assert done["num_parameters"] == sum(
        p.numel() for p in RexBertForMaskedLM.from_pretrained(whole_run()).parameters()
    )


def test_the_card_holds_the_measured_numbers():
    folder = whole_run()
    card = (folder / "README.md").read_text()
    for phase in read_run(folder)["results"]["phases"]:
        assert f"{100 * phase['masked_accuracy_after']:.1f} %" in card
        assert phase["name"] in card
    assert read_run(folder)["git_commit"][:12] in card
    assert str(folder) not in card
    assert [line for line in card.splitlines() if line.startswith("# ")] == ["# RexBERT model"]
    assert 'from_pretrained("path/to/this/folder"' in card


def test_the_plot_is_there_where_matplotlib_is():
    pytest.importorskip("matplotlib")
    assert (whole_run() / "loss.png").read_bytes()[:4] == b"\x89PNG"
    assert "loss.png" in (whole_run() / "README.md").read_text()


def test_starting_a_finished_run_again_changes_nothing(tmp_path, monkeypatch):
    folder = copy_of_whole_run(tmp_path / "again")
    # The copy has another path than the run: the configuration must say so, as it would for a user.
    text = (folder / "run.json").read_text().replace(str(whole_run()), str(folder))
    (folder / "run.json").write_text(text)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(corpora, "read_source", None)  # no source may be read
    monkeypatch.setattr(encoder, "read_source", None)
    results = run(
        folder, evaluation__baselines="true", evaluation__position_edges="[0, 64, 256]", trainer__num_workers=1
    )
    assert results == read_run(whole_run())["results"]
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()} == before


def test_other_evaluation_of_a_finished_run_is_measured_without_training(tmp_path):
    folder = copy_of_whole_run(tmp_path / "again")
    results = run(folder, evaluation__baselines="true", evaluation__baseline_tokens="5000")
    assert results["baselines"]["shop"]["neighbours"] >= 0
    assert read_run(folder)["resumed_from_step"] == sum(phase["steps"] for phase in results["phases"])
    assert "seconds" not in results  # of the training it would be wrong
    assert results["phases"] == read_run(whole_run())["results"]["phases"]
    assert_same_weights(folder, whole_run())


def test_figures_of_an_earlier_evaluation_say_what_they_were_measured_on(tmp_path, caplog):
    folder = copy_of_whole_run(tmp_path / "again")
    results = run(
        folder, evaluation__baselines="true", evaluation__position_edges="[0, 64, 256]", evaluation__max_tokens="64"
    )
    for phase, was in zip(results["phases"], read_run(whole_run())["results"]["phases"], strict=True):
        said = {key: phase.pop(key) for key in ("evaluated_before", "evaluated_after")}
        assert said["evaluated_before"] == said["evaluated_after"]
        assert said["evaluated_after"]["max_tokens"] > 64
        assert phase == was
    assert "phase 'anneal': held-out accuracy after was measured with" in caplog.text


def test_readings_of_other_documents_are_not_compared_without_a_word(caplog):
    """A run of an earlier version goes on, and another rule holds out fewer of the same source."""
    both = [{"phase": "anneal", "when": when, "eval_shop_masked_tokens": 140} for when in ("before", "after")]
    assert finish._other_documents(both) == finish._other_documents(both[1:]) == finish._other_documents([]) == {}
    assert not caplog.text
    later = {**both[1], "eval_shop_masked_tokens": 40}
    assert finish._other_documents([both[0], later]) == {"masked_tokens_before": 140, "masked_tokens_after": 40}
    assert "phase 'anneal': held-out accuracy before and after are not of the same documents (140 and" in caplog.text


def test_a_run_that_goes_on_keeps_its_micro_batches(tmp_path):
    """Larger micro-batches, or fewer processes, would make fewer of them: the steps are still those of the run."""
    folder = copy_of_whole_run(tmp_path / "again")
    run(folder, micro_batch_tokens="1024", evaluation__baselines="true", evaluation__position_edges="[0, 64, 256]")
    assert read_run(folder)["resumed_from_step"] == sum(p["steps"] for p in read_run(whole_run())["results"]["phases"])
    assert_same_weights(folder, whole_run())


def test_another_plan_is_refused_and_named(tmp_path):
    folder = copy_of_whole_run(tmp_path / "again")
    with pytest.raises(ValueError, match="another plan") as caught:
        run(folder, phases__anneal__learning_rate="1e-4", seed=3)
    message = str(caught.value)
    assert "\n" not in message
    assert "seed: 0 -> 3" in message
    assert "phases.2.learning_rate: 0.0015 -> 0.0001" in message
    assert "output_dir" in message
    assert_same_weights(folder, whole_run())


def test_a_resumed_run_reads_no_source(tmp_path, monkeypatch):
    """Everything up to the checkpoint is found, not made again; the first checkpoint after it is trained anew."""
    folder = copy_of_whole_run(tmp_path / "again")
    for name in ("run.json", "model.safetensors"):
        (folder / name).unlink()
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for path in last.iterdir():
        path.unlink()
    last.rmdir()

    def refuse(*_, **__):
        raise AssertionError("a source is read again")

    monkeypatch.setattr(corpora, "read_source", refuse)
    monkeypatch.setattr(encoder, "read_source", refuse)
    monkeypatch.setattr(corpora, "tokenise", refuse)
    run(folder)
    assert 0 < read_run(folder)["resumed_from_step"] < int(last.name.split("-")[1])
    assert_same_weights(folder, whole_run())


def test_touched_files_do_not_make_another_plan(tmp_path):
    """The identity of the data is its content: a moved or touched file is read again, and the run goes on."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"a red steel lamp number {i} for the kitchen table\n" for i in range(300)))
    base = {"sources.general": f"{{path: {text}}}", "phases.extension.mixture": "{general: 1}"}
    base |= {"phases.anneal.mixture": "{general: 1}"}
    changes = {name.replace(".", "__"): value for name, value in base.items()}
    changes |= {"sources__general__max_documents": 300, "sources__general__evaluate": "false"}
    changes |= {"tokenizer__path": whole_run()}
    run(tmp_path / "out", **changes)
    first = read_run(tmp_path / "out")
    text.touch()
    run(tmp_path / "out", evaluation__position_edges="[0, 8]", **changes)
    second = read_run(tmp_path / "out")
    assert second["resumed_from_step"] == sum(phase["steps"] for phase in first["results"]["phases"])


@pytest.mark.parametrize("older", [None, 2])
def test_what_an_older_version_prepared_is_prepared_anew(tmp_path, monkeypatch, older):
    """Version 2 left padding tokens in pairs and long floats in texts; a run whose data stay the same goes on."""
    folder = copy_of_whole_run(tmp_path / "again")
    (folder / "run.json").unlink()
    read = []
    reader = corpora.read_source
    monkeypatch.setattr(corpora, "read_source", lambda *given: read.append(given) or reader(*given))
    monkeypatch.setattr(sources, "_FORMAT", older or sources._FORMAT)
    run(folder)
    assert bool(read) == (older is not None)
    assert read_run(folder)["resumed_from_step"] == sum(p["steps"] for p in read_run(whole_run())["results"]["phases"])
    assert_same_weights(folder, whole_run())


def test_a_run_whose_data_are_read_otherwise_by_now_says_so(tmp_path, monkeypatch):
    folder = copy_of_whole_run(tmp_path / "again")
    monkeypatch.setattr(sources, "_FORMAT", 99)
    reader = corpora.read_source
    monkeypatch.setattr(corpora, "read_source", lambda *given: (rows := reader(*given)).select(range(1, len(rows))))
    with pytest.raises(ValueError, match=r"another plan \(.*go on with the version of rexbert-hf that it is of"):
        run(folder)
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    with pytest.raises(ValueError, match=r"finished run of another recipe \(.*go on with the version of rexbert-hf"):
        run(folder)


def test_tensorboard_gets_events(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    results = run(tmp_path / "out", trainer__report_to="tensorboard")
    folder = next((tmp_path / "out").rglob("events.out.tfevents.*")).parent
    events = EventAccumulator(str(folder)).Reload()
    steps = sum(phase["steps"] for phase in results["phases"])
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, steps + 1))
    assert "eval/shop_accuracy" in events.Tags()["scalars"]


def test_document_frequencies_checkpointing_and_workers(tmp_path):
    """Options that change how a run is done: the first also what is masked, the others nothing but rounding."""
    base = read_run(whole_run())["results"]
    other = run(tmp_path / "other", trainer__gradient_checkpointing="true", trainer__num_workers=1)
    guided = run(tmp_path / "guided", guides__idf="true")
    losses = [[phase["loss"] for phase in results["phases"]] for results in (base, other, guided)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-3)
    assert losses[2][:2] == losses[0][:2]  # phases without guidance
    assert losses[2][2] != losses[0][2]


@pytest.fixture
def without_checkpoints(tmp_path):
    """A finished run whose checkpoints were removed to save disk, moved to another folder."""
    folder = copy_of_whole_run(tmp_path / "out")
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    return folder


SAME = {"evaluation__baselines": "true", "evaluation__position_edges": "[0, 64, 256]"}
"""What `whole_run` says beside its base."""


@pytest.mark.parametrize("version", ["this", "older", "hides more"])
def test_a_finished_run_without_checkpoints_is_still_finished(without_checkpoints, version):
    folder = without_checkpoints
    if version == "older":
        written = json.loads((folder / "run.json").read_text())
        del written["plan"]
        (folder / "run.json").write_text(json.dumps(written))
    if version == "hides more":
        written = json.loads((folder / "run.json").read_text())
        written["config"]["sources"] = dict.fromkeys(written["config"]["sources"], "<redacted>")
        (folder / "run.json").write_text(json.dumps(written))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert run(folder, **SAME) == read_run(whole_run())["results"]
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert not list(folder.glob("checkpoint-*"))


@pytest.mark.parametrize("checkpoints", ["kept", "removed"])
def test_a_finished_run_whose_card_is_gone_gets_it_again(tmp_path, checkpoints):
    folder = copy_of_whole_run(tmp_path / "out")
    for path in folder.glob("checkpoint-*") if checkpoints == "removed" else ():
        shutil.rmtree(path)
    written = (folder / "run.json").read_text()
    (folder / "run.json").write_text(written.replace(str(whole_run()), str(folder)))  # as if made here
    (folder / "README.md").unlink()
    before = (folder / "model.safetensors").stat().st_mtime_ns
    refused = "finished run of another recipe" if checkpoints == "removed" else "a run with another plan"
    with pytest.raises(ValueError, match=refused):
        run(folder, **SAME, seed=7)
    assert not (folder / "README.md").exists()
    assert run(folder, **SAME) == read_run(whole_run())["results"]
    assert (folder / "README.md").read_text() == (whole_run() / "README.md").read_text()
    assert (folder / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_without_checkpoints_may_be_started_on_fewer_processes(tmp_path, monkeypatch):
    """Four of them would have made four micro-batches a step, of which this one would make two."""
    with monkeypatch.context() as four:
        four.setattr("rexbert_hf.pretraining.run.micro_batches_of", lambda _: 4)
        results = run(tmp_path / "out")
    for path in (tmp_path / "out").glob("checkpoint-*"):
        shutil.rmtree(path)
    assert run(tmp_path / "out") == results
    assert not list((tmp_path / "out").glob("checkpoint-*"))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 3}, "config.seed: 0 -> 3"),
        ({"trainer__max_grad_norm": 2}, "plan.optimizer.max_grad_norm: 1.0 -> 2.0"),
        ({"evaluation__max_tokens": 900}, "config.evaluation.max_tokens: 1000 -> 900"),
    ],
)
def test_a_finished_run_of_another_recipe_is_not_trained_over(without_checkpoints, changes, named):
    """Without checkpoints there is nothing to compare the plan with, and the only copy of the weights to lose."""
    with pytest.raises(ValueError, match="holds a finished run of another recipe") as caught:
        run(without_checkpoints, **SAME | changes)
    message = str(caught.value)
    assert "\n" not in message
    assert named in message
    assert "choose another output_dir" in message
    assert_same_weights(without_checkpoints, whole_run())


def test_weights_that_were_cut_and_have_no_checkpoint_are_trained_again(without_checkpoints):
    weights = without_checkpoints / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    run(without_checkpoints, **SAME)
    assert_same_weights(without_checkpoints, whole_run())


def test_baselines_are_measured_on_as_many_tokens_as_asked_for():
    """Those of the model's own figures: not on a whole batch of 256 documents."""
    store = TokenisedDataset.from_rows([{"input_ids": [1] * 10} for _ in range(600)])
    counts = [
        [len(batch.lengths) for batch in batches_of(store, tokens, rows=256, cut=True)]
        for tokens in (5, 305, 2565, None)
    ]
    assert counts == [[1], [30], [256], [256, 256, 88]]
