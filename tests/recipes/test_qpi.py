"""The recipe on the sample shop with a tiny model: both objectives, early stopping, kills, other architectures."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import pytest
import torch
from huggingface_hub import ModelCard
from pretraining_cases import CONFIGS, MODEL, TINY, assert_same_weights, options, scratch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForMaskedLM

from rexbert_hf.catalog import normalize_text
from rexbert_hf.hub import read_run
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer
from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.training import qpi_trainer
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.retrieval.training.search_data import SearchDataSettings, load_search_data
from rexbert_hf.settings import load_settings

BASE = {
    **TINY,
    "model.overrides": MODEL,
    "sources.pairs.sample_size": "60",
    "sources.pairs.pairs.max_query_tokens": "16",
    "sources.pairs.pairs.max_tokens": "64",
    "phases.pairs.max_tokens": "8k",
    "phases.pairs.seq_length": "64",
    "phases.pairs.batch_tokens": "512",
    "phases.pairs.schedule.warmup_tokens": "1k",
    "early_stopping.every_steps": "4",
}


def settings(output_dir, **changes):
    return load_settings(QPISettings, CONFIGS / "qpi.yaml", options(output_dir, BASE, **changes))


def run(output_dir, **changes):
    return run_qpi(settings(output_dir, **changes))


@pytest.fixture(scope="module")
def whole():
    folder = scratch() / "qpi"
    return folder, run(folder)


def test_a_run_from_end_to_end(whole):
    folder, results = whole
    done = read_run(folder)
    assert done["results"]["held_out"] == results["held_out"]
    assert results["held_out"]["pairs_masked_tokens"] > 20
    assert results["phases"][0]["masked_accuracy_before"] <= results["early_stopping"]["best"]
    assert results["held_out"]["pairs_accuracy"] == pytest.approx(results["early_stopping"]["best"])
    log = json.loads((folder / "checkpoint-16" / "trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in log if "loss" in entry] == [*range(1, 17)]
    assert done["data"][0]["spans"]["train"]["spans"]["field"] > 100
    assert {"model.safetensors", "README.md", "tokenizer.json", "modernbert"} <= {
        path.name for path in folder.iterdir()
    }
    assert ModelCard.load(folder / "README.md").data.pipeline_tag == "fill-mask"
    model = AutoModel.from_pretrained(folder)
    out = model(**AutoTokenizer.from_pretrained(folder)("red mug", return_tensors="pt"))
    assert torch.isfinite(out.last_hidden_state).all()


def test_a_grid_of_sub_models_over_pairs(tmp_path):
    results = run(tmp_path, model__matryoshka="{layers: [1, 2], dims: [8, 32]}", phases__pairs__max_tokens="2k")
    assert list(results["cells"]) == ["1x8", "1x32", "2x8", "2x32"]
    assert results["phases"][0]["loss"] > 3 * 5  # four cells, each near log(384) so early
    assert AutoModel.from_pretrained(tmp_path).config.matryoshka_layers == [1, 2]


def test_starting_a_finished_run_again_trains_nothing(whole, monkeypatch):
    folder, results = whole
    monkeypatch.setattr(qpi_trainer.PairTrainer, "train", lambda *_, **__: pytest.fail("trained again"))
    assert run(folder)["held_out"] == results["held_out"]


def test_killed_and_started_again(whole, tmp_path, monkeypatch):
    """Stopped after its first checkpoint, gone on with, ends as the run that nothing stopped."""
    folder, _ = whole
    keep = qpi_trainer.PairTrainer.check_best

    def die(self, step, control):
        if step > 8:
            raise KeyboardInterrupt
        keep(self, step, control)

    monkeypatch.setattr(qpi_trainer.PairTrainer, "check_best", die)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    monkeypatch.undo()
    results = run(tmp_path)
    assert read_run(tmp_path)["resumed_from_step"] == 8
    assert_same_weights(tmp_path, folder)
    assert results["early_stopping"] == read_run(folder)["results"]["early_stopping"]


def accuracies(monkeypatch, values):
    """The held-out accuracy is what `values` says, one a check."""
    left = iter(values)

    def held_out(self, phase, eval_dataset=None, prefix="eval"):
        value = next(left) if prefix == "eval" and self.state.global_step % 4 == 0 and self.state.global_step else 0.5
        return {f"{prefix}_pairs_loss": 1.0, f"{prefix}_pairs_accuracy": value, f"{prefix}_pairs_masked_tokens": 10.0}

    monkeypatch.setattr(qpi_trainer.PairTrainer, "_held_out", held_out)


def test_early_stopping_keeps_the_best_weights(tmp_path, monkeypatch):
    """Best at step 8 of 16: two checks without gain end the run, and step 8's weights are saved."""
    short = {"phases__pairs__max_tokens": "32k", "early_stopping__patience": "2", "trainer__save_steps": "8"}
    accuracies(monkeypatch, [0.1, 0.3, 0.3, 0.2])
    results = run(tmp_path / "early", **short, trainer__save_total_limit="9")
    assert results["early_stopping"] == {"best": 0.3, "best_step": 8, "without_gain": 2, "stopped_at": 16}
    at_best = tmp_path / "early" / "checkpoint-8" / "model.safetensors"
    shutil.copytree(tmp_path / "early", tmp_path / "kept")
    shutil.copy(at_best, tmp_path / "kept" / "model.safetensors")
    assert_same_weights(tmp_path / "early", tmp_path / "kept")
    # A kill between the stop and the end of the run changes nothing.
    (tmp_path / "early" / "run.json").unlink()
    accuracies(monkeypatch, [])
    again = run(tmp_path / "early", **short, trainer__save_total_limit="9")
    for name in ("early_stopping", "phases", "held_out"):  # no step is taken that was not taken before
        assert again[name] == results[name]
    assert_same_weights(tmp_path / "early", tmp_path / "kept")
    (tmp_path / "early" / "run.json").unlink()
    shutil.rmtree(tmp_path / "early" / "best")
    with pytest.raises(ValueError, match=r"the best by evaluation: .* another output_dir; what is in this one stays"):
        run(tmp_path / "early", **short, trainer__save_total_limit="9")
    assert_same_weights(tmp_path / "early", tmp_path / "kept")


def test_weights_of_steps_that_a_kill_undid_are_not_the_best(tmp_path, monkeypatch, caplog):
    """Best at step 12, killed before its checkpoint; gone on with from 8, the same step is not as good."""
    short = {"phases__pairs__max_tokens": "32k", "early_stopping__patience": "2", "trainer__save_steps": "8"}
    check = qpi_trainer.PairTrainer.check_best

    def die(self, step, control):
        check(self, step, control)
        if step == 12:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(qpi_trainer.PairTrainer, "check_best", die)
        accuracies(patch, [0.1, 0.3, 0.9])
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", **short)
    accuracies(monkeypatch, [0.2, 0.2])
    results = run(tmp_path / "run", **short)
    assert results["early_stopping"] == {"best": 0.3, "best_step": 8, "without_gain": 2, "stopped_at": 16}
    assert "is not of step 8, the best by evaluation (0.3)" in caplog.text
    shutil.copytree(tmp_path / "run", tmp_path / "last")
    shutil.copy(tmp_path / "run" / "checkpoint-16" / "model.safetensors", tmp_path / "last")
    assert_same_weights(tmp_path / "run", tmp_path / "last")


def test_another_rule_is_another_run(whole, tmp_path):
    folder = Path(shutil.copytree(whole[0], tmp_path / "run"))
    with pytest.raises(ValueError, match=r"early_stopping\.patience: 3 -> 5"):
        run(folder, early_stopping__patience="5")


def test_relevance_on_the_same_pairs(tmp_path):
    results = run(tmp_path, objective="relevance")
    done = read_run(tmp_path)
    assert done["config"]["phases"][0]["masking"]["kind"] == "relevance"
    assert done["config"]["sources"]["pairs"]["pairs"]["min_relevance"] is None
    assert 0 <= results["held_out"]["pairs_accuracy"] <= 1
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "text-classification"
    (measured,) = card.data.eval_results
    assert (measured.task_type, measured.metric_value) == (
        "text-classification", round(results["held_out"]["pairs_accuracy"], 4)
    )  # fmt: skip
    assert "fill-mask" not in card.content
    assert "AutoModelForSequenceClassification" in card.text
    assert results["held_out"]["pairs_masked_tokens"] > 10, "pairs"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.id2label == {0: "irrelevant", 1: "relevant"}
    assert AutoModel.from_pretrained(tmp_path).config.hidden_size == 32


def test_relevance_starts_from_the_masked_model_and_counts_pairs(whole, tmp_path, monkeypatch):
    """All encoder weights are those of the checkpoint, and the loss is the mean over the pairs of a step."""
    from rexbert_hf.retrieval.training.qpi import make_classifier

    folder = Path(shutil.copytree(whole[0], tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "matryoshka_layers": [1, 2]}))
    chosen = settings(tmp_path / "out", objective="relevance", model__init_from=folder, model__overrides="{}")
    tokenizer = AutoTokenizer.from_pretrained(whole[0])
    classifier, encoder = make_classifier(chosen, tokenizer), AutoModel.from_pretrained(whole[0])
    assert classifier.config.matryoshka_grid() == []  # a classifier trains no cells, so it claims none
    for name, value in encoder.state_dict().items():
        assert torch.equal(classifier.base_model.state_dict()[name], value), name


@pytest.mark.parametrize("objective", ["span", "relevance"])
def test_any_masked_model_trains_on_padded_batches(whole, tmp_path, objective):
    tokenizer = AutoTokenizer.from_pretrained(whole[0])
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    bert = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **shape))
    bert.save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    changes = {"model__size": "null", "model__init_from": tmp_path / "bert", "model__overrides": "{}"}
    results = run(tmp_path / "out", objective=objective, phases__pairs__max_tokens="3k", **changes)
    assert results["held_out"]["pairs_masked_tokens"] > 10
    assert read_run(tmp_path / "out")["config"]["phases"][0]["masking"]["options"]["token_type_ids"] is True


PAIR_PHASE = {"mixture": {"pairs": 1}, "masking": {"kind": "query_product", "mlm_probability": 0.15}}


def curriculum(output_dir, *phases, **changes):
    """A run of several phases, each of four steps."""
    short = {"max_tokens": 2000, "seq_length": 64, "batch_tokens": 512}
    base = {name: value for name, value in BASE.items() if not name.startswith("phases.")}
    base |= {"phases": json.dumps([short | phase for phase in phases])}
    base |= {"sources.shop": "{sample: shop_text, sample_size: 60}"}
    return run_qpi(load_settings(QPISettings, CONFIGS / "qpi.yaml", options(output_dir, base, **changes)))


def test_pairs_and_documents_in_one_phase_list(tmp_path):
    """QPI is one phase of a curriculum: whatever pre-training has stands beside it."""
    both = {"name": "both", **PAIR_PHASE, "mixture": {"shop": 1, "pairs": 1}}
    results = curriculum(tmp_path, {"name": "text", "mixture": {"shop": 1}}, both)
    assert [phase["name"] for phase in results["phases"]] == ["text", "both"]
    assert results["held_out"]["shop_masked_tokens"] > 0
    first = results["phases"][0]["steps"]
    assert results["early_stopping"]["best_step"] > first, "a phase of documents is not judged by pairs"


def test_the_phases_after_one_over_pairs_are_kept(tmp_path, caplog):
    results = curriculum(tmp_path / "run", {"name": "pairs", **PAIR_PHASE}, {"name": "text", "mixture": {"shop": 1}})
    assert [phase["steps"] for phase in results["phases"]] == [4, 4]
    assert results["early_stopping"]["best"] is None
    assert "phase 'pairs': trained to the end of the budget, as early stopping is for the last phase, 'text'" in (
        caplog.text
    )
    shutil.copytree(tmp_path / "run", tmp_path / "last")
    shutil.copy(tmp_path / "run" / "checkpoint-8" / "model.safetensors", tmp_path / "last")
    assert_same_weights(tmp_path / "run", tmp_path / "last")


def test_patience_and_the_best_weights_are_those_of_the_last_phase(tmp_path, monkeypatch):
    """The first phase has the best figure and no gain after it; the second is trained, judged by its own, and ends."""
    accuracies(monkeypatch, [0.9, 0.2, 0.2, 0.2, 0.3, 0.1, 0.1])  # step 8: after a phase and before one
    two = [{"name": name, **PAIR_PHASE, "max_tokens": 4000} for name in ("first", "second")]
    rule = {"early_stopping__patience": "1", "trainer__save_total_limit": "9"}
    results = curriculum(tmp_path / "run", *two, **rule, trainer__save_steps="4")
    assert [phase["steps"] for phase in results["phases"]] == [8, 8]
    assert results["early_stopping"] == {"best": 0.3, "best_step": 12, "without_gain": 1, "stopped_at": None}
    shutil.copytree(tmp_path / "run", tmp_path / "best")
    shutil.copy(tmp_path / "run" / "checkpoint-12" / "model.safetensors", tmp_path / "best")
    assert_same_weights(tmp_path / "run", tmp_path / "best")


def test_a_run_that_an_earlier_version_stopped_in_an_earlier_phase(tmp_path, monkeypatch):
    """It judged all phases by early stopping. Finished so it stays; what was stopped on the way goes on to the end."""
    two = [{"name": name, **PAIR_PHASE, "max_tokens": 4000} for name in ("first", "second")]
    rule = {"early_stopping__patience": "1", "trainer__save_total_limit": "9", "trainer__save_steps": "4"}
    with monkeypatch.context() as patch:
        patch.setattr(qpi_trainer.PairTrainer, "_in_last_phase", lambda self, step: True)
        accuracies(patch, [0.9, 0.2, 0.2, 0.2])
        before = curriculum(tmp_path / "run", *two, **rule)
    assert before["early_stopping"] == {"best": 0.9, "best_step": 4, "without_gain": 1, "stopped_at": 8}
    shutil.copytree(tmp_path / "run", tmp_path / "old")
    accuracies(monkeypatch, [])
    assert curriculum(tmp_path / "run", *two, **rule) == before
    (tmp_path / "run" / "model.safetensors").unlink()
    again = curriculum(tmp_path / "run", *two, **rule)
    assert again["early_stopping"] == before["early_stopping"]
    assert_same_weights(tmp_path / "run", tmp_path / "old")
    (tmp_path / "run" / "run.json").unlink()
    accuracies(monkeypatch, [0.3, 0.3, 0.4, 0.4])
    assert curriculum(tmp_path / "run", *two, **rule)["early_stopping"]["best_step"] == 16


def test_without_held_out_pairs_the_budget_decides(tmp_path, caplog):
    results = run(tmp_path, evaluation__held_out="0", phases__pairs__max_tokens="2k")
    assert results["early_stopping"]["best"] is None
    assert "held_out" not in results


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"sources__pairs__pairs": "null"}, "needs query-product pairs"),
        ({"phases__pairs__masking__kind": "mlm", "phases__pairs__masking__options": "{}"}, "no phase trains on pairs"),
        ({"sources__pairs__pairs__max_tokens": "128"}, "would cut the pairs"),
        ({"early_stopping__patience": "0"}, "patience is at least 1"),
        ({"phases__pairs__masking__kind": "relevance"}, "'relevance' trains a classifier of pairs: .*--objective"),
        ({"objective": "ranking"}, "expected one of span, relevance"),
        ({"objective": "relevance", "model__matryoshka": "{layers: [1, 2]}"}, "a classifier, which has no sub-models"),
    ],
)
def test_bad_settings(tmp_path, changes, problem):
    with pytest.raises(ValueError, match=problem):
        settings(tmp_path, **changes)


def test_the_configuration_of_relevance_takes_many_small_steps():
    found = load_settings(QPISettings, CONFIGS / "qpi_relevance.yaml")
    assert (found.objective, found.phases[0].masking.kind) == ("relevance", "relevance")
    assert found.phases[0].max_tokens / found.phases[0].batch_tokens > 1000
    assert found.early_stopping.every_steps * found.early_stopping.patience > 300, "it waits for the plateau's end"


def test_the_configuration_for_built_pairs_can_be_read():
    found = load_settings(QPISettings, CONFIGS / "qpi_pairs.yaml", [("model.init_from", "x")])
    assert found.sources["pairs"].path == "output/pairs/qpi"
    assert found.phases[0].masking.options == {"query_probability": 0.35}


WHOLE = {
    "sources.pairs.pairs.max_query_tokens": "64",
    "sources.pairs.pairs.max_tokens": "160",
    "phases.pairs.seq_length": "160",
}
"""Queries are not cut, so they can be read back."""


def queries_seen(chosen, folder):
    """Normalised queries of all rows that a QPI run trains on, read back from their tokens."""
    tokenizer = load_tokenizer(chosen, folder)
    store = prepare(chosen, tokenizer, folder)["pairs"].train
    found = set()
    for row in range(len(store)):
        ids = list(store[row]["input_ids"])
        found.add(normalize_text(tokenizer.decode(ids[1 : ids.index(tokenizer.sep_token_id)])))
    return found


def held_out(chosen):
    """Normalised queries that fine-tuning tests or validates on, and those that it trains on."""
    data = load_search_data(chosen)
    forms = [[normalize_text(data.queries[i]) for i in data.of(split, with_relevant=False)] for split in range(3)]
    return {*forms[1], *forms[2]}, set(forms[0])


def test_no_query_that_is_held_out_is_pre_finetuned_on_the_sample_shop(tmp_path):
    uncut = {name.replace(".", "__"): value for name, value in WHOLE.items()}
    seen = queries_seen(settings(tmp_path, **uncut), tmp_path)
    never, trained = held_out(SearchDataSettings(sample_size=60))
    assert len(never) > 5
    assert len(seen & trained) > 20
    assert not seen & never


@pytest.mark.parametrize("rule", ["text", "sha1_mod_10"])
def test_no_query_that_is_held_out_is_pre_finetuned_on_built_pairs(tmp_path, rule):
    """The chain of the README: build_pairs, qpi_pairs.yaml, finetune_pairs.yaml; and Home Depot's split through it."""
    sample = {"products": "{sample: products, sample_size: 60}", "split.rule": rule, "split.held_out": "0.4"}
    if rule == "text":
        sample |= {"events": "{sample: events, sample_size: 60}"}
    else:
        sample |= {"graded": "{sample: query_products, sample_size: 60}"}
    build_pairs(load_settings(BuildPairsRun, None, [("output_dir", str(tmp_path / "pairs")), *sample.items()]))
    base = {name: value for name, value in BASE.items() if name != "sources.pairs.sample_size"} | WHOLE
    base |= {"sources.pairs.path": str(tmp_path / "pairs" / "qpi"), "model.size": "micro"}
    base |= {
        "evaluation.held_out": "0.02",
        "sources.pairs.pairs.products": str(tmp_path / "pairs" / "products.parquet"),
    }
    seen = queries_seen(load_settings(QPISettings, CONFIGS / "qpi_pairs.yaml", options(tmp_path, base)), tmp_path)
    places = {"pairs": "pairs/pairs", "products": "pairs/products.parquet", "data_dir": str(tmp_path)}
    stage_3 = load_settings(FinetuneSettings, CONFIGS / "finetune_pairs.yaml").data
    assert (stage_3.pairs, stage_3.pair_columns) == ("output/pairs/pairs", None)
    never, trained = held_out(dataclasses.replace(stage_3, **places))
    assert len(never) > 5
    assert len(seen & trained) > 5
    assert not seen & never


def test_a_split_that_is_none_is_named(tmp_path):
    rows = tmp_path / "pairs.csv"
    rows.write_text("query,product_id,title,split\nmug,a,Mug,dev\n")
    base = {name: value for name, value in BASE.items() if name != "sources.pairs.sample_size"}
    chosen = load_settings(
        QPISettings, CONFIGS / "qpi.yaml",
        options(tmp_path, {**base, "sources.pairs.sample": "null", "sources.pairs.path": str(rows)}),
    )  # fmt: skip
    with pytest.raises(ValueError, match="pair 0 has the split 'dev': use train, validation, test"):
        prepare(chosen, load_tokenizer(settings(tmp_path), tmp_path), tmp_path)
