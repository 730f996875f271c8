"""A grid of sub-models in the pre-training recipe: one line, with any masking, resumed and refused like the rest."""

from __future__ import annotations

import json
import math
import shutil

import pytest
import torch
from pretraining_cases import MODEL, assert_same_weights, run, settings
from test_pretrain_associations import EBERT
from test_pretrain_phrases import PHASE, TINY_RUN
from transformers import AutoModel, BertConfig, BertForMaskedLM

from rexbert_hf.hub.run_file import read_run
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.pretraining import pretrain
from rexbert_hf.pretraining.encoder import load_model, load_tokenizer

GRID = "{layers: [1, 2], dims: [8, 32]}"


def recipe(folder, kind="guided", **changes):
    return settings(folder, base={**TINY_RUN, "phases": f"[{PHASE % kind}]"}, model__matryoshka=GRID, **changes)


def losses(folder):
    return [phase["loss"] for phase in read_run(folder)["results"]["phases"]]


@pytest.mark.parametrize("kind", ["mlm", "guided", "span"])
def test_one_line_trains_all_cells_with_any_masking(tmp_path, kind):
    pretrain(recipe(tmp_path / "grid", kind))
    pretrain(settings(tmp_path / "plain", base={**TINY_RUN, "phases": f"[{PHASE % kind}]"}))
    # Four cells, each near log(vocabulary) so early in training.
    assert losses(tmp_path / "grid")[0] == pytest.approx(4 * losses(tmp_path / "plain")[0], rel=0.1)
    saved = RexBertForMaskedLM.from_pretrained(tmp_path / "grid")
    assert saved.config.matryoshka_grid() == [(1, 8), (1, 32), (2, 8), (2, 32)]
    small = AutoModel.from_pretrained(tmp_path / "grid", num_hidden_layers=1)
    assert len(small.layers) == 1
    results = read_run(tmp_path / "grid")["results"]
    assert list(results["cells"]) == ["1x8", "1x32", "2x8", "2x32"]
    assert results["cells"]["2x32"] == pytest.approx(results["phases"][-1]["masked_accuracy_after"])
    assert "cells" not in read_run(tmp_path / "plain")["results"]
    assert f"| 2 | {results['cells']['2x8']:.2%} | {results['cells']['2x32']:.2%} |" in (
        tmp_path / "grid" / "README.md"
    ).read_text(encoding="utf-8")


def test_beside_adaptive_masking_and_neighbours(tmp_path):
    """E-BERT's recipe with one line more: both objectives run, cells are trained and measured."""
    base = {key: value for key, value in EBERT.items() if key != "tokenizer.path"}
    base |= {"model.overrides": MODEL, "model.matryoshka": GRID.replace("}", ", sample: 3}"), "scale": "0.1"}
    results = run(tmp_path, "ebert", base)
    assert results["phases"][0]["loss"] == pytest.approx(4 * math.log(384), rel=0.05)  # four cells, hardly trained
    assert len(results["cells"]) == 4
    last = max(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    log = json.loads((last / "trainer_state.json").read_text())["log_history"]
    assert all("alpha" in entry for entry in log if "loss" in entry)
    joint = [entry for entry in log if entry.get("loss_npr")]
    assert joint
    for entry in joint:
        assert entry["loss"] == pytest.approx(entry["loss_mlm"] + entry["loss_npr"], rel=1e-3)
        assert entry["loss_mlm"] == pytest.approx(4 * math.log(384), rel=0.05)


def test_it_goes_on_from_a_plain_checkpoint(tmp_path):
    pretrain(settings(tmp_path / "plain", base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"}))
    base = {key: value for key, value in TINY_RUN.items() if key not in ("model.overrides", "tokenizer.vocab_size")}
    changes = {"model__size": "null", "model__init_from": tmp_path / "plain", "model__matryoshka": GRID}
    pretrain(settings(tmp_path / "grid", base={**base, "phases": f"[{PHASE % 'mlm'}]"}, **changes))
    assert RexBertForMaskedLM.from_pretrained(tmp_path / "grid").config.matryoshka_layers == [1, 2]


def test_a_checkpoint_that_was_cut_is_trained_over_the_grid(tmp_path):
    """Were it still cut to its dimensions, what is saved would be opened without its grid."""
    first = settings(tmp_path / "a", base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"})
    tokenizer = load_tokenizer(first, tmp_path)
    load_model(first, tokenizer).submodel(truncate_dim=8).save_pretrained(tmp_path / "cut")
    tokenizer.save_pretrained(tmp_path / "cut")
    base = {key: value for key, value in TINY_RUN.items() if key not in ("model.overrides", "tokenizer.vocab_size")}
    changes = {"model__size": "null", "model__init_from": tmp_path / "cut"}
    for grid, dim in (("null", 8), ("off", 8), (GRID, None)):
        second = settings(
            tmp_path / "b", base={**base, "phases": f"[{PHASE % 'mlm'}]"}, **changes, model__matryoshka=grid
        )
        assert load_model(second, tokenizer).config.truncate_dim == dim
    load_model(second, tokenizer).save_pretrained(tmp_path / "grid")
    again = RexBertForMaskedLM.from_pretrained(tmp_path / "grid")
    assert again.config.matryoshka_grid() == [(1, 8), (1, 32), (2, 8), (2, 32)]
    assert not (tmp_path / "grid" / "config_sentence_transformers.json").exists()


def test_a_grid_of_the_checkpoint_goes_on_with_a_word_and_can_be_switched_off(tmp_path, caplog):
    first = settings(tmp_path / "a", base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"}, model__matryoshka=GRID)
    tokenizer = load_tokenizer(first, tmp_path)
    load_model(first, tokenizer).save_pretrained(tmp_path / "grid")
    tokenizer.save_pretrained(tmp_path / "grid")
    base = {key: value for key, value in TINY_RUN.items() if key not in ("model.overrides", "tokenizer.vocab_size")}
    changes = {"model__size": "null", "model__init_from": tmp_path / "grid"}
    second = settings(tmp_path / "b", base={**base, "phases": f"[{PHASE % 'mlm'}]"}, **changes)
    assert not caplog.records
    with caplog.at_level("INFO", "rexbert_hf.pretraining"):
        assert load_model(second, tokenizer).config.matryoshka_layers == [1, 2]
    assert "brings a grid of sub-models, which is trained on: 1x8, 2x8, 1x32, 2x32" in caplog.text
    caplog.clear()
    second = settings(tmp_path / "b", base={**base, "phases": f"[{PHASE % 'mlm'}]"}, **changes, model__matryoshka="off")
    with caplog.at_level("INFO", "rexbert_hf.pretraining"):
        assert load_model(second, tokenizer).config.matryoshka_grid() == []
    assert "sub-models" not in caplog.text


@pytest.mark.parametrize("weights", ["null", "[1, 2, 3, 4]"])
def test_what_the_yaml_says_is_what_is_trained(tmp_path, weights):
    """Weights go by layers, then dims; the other fields arrive as they are written."""
    grid = f"{{layers: [1, 2], dims: [8, 32], weights: {weights}, kl_weight: 0.5, norm_intermediate: false}}"
    chosen = settings(tmp_path, base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"}, model__matryoshka=grid)
    config = load_model(chosen, load_tokenizer(chosen, tmp_path)).config
    assert (config.matryoshka_kl_weight, config.norm_intermediate) == (0.5, False)
    found = dict(zip(Grid.of(config).cells, Grid.of(config).weights, strict=True))
    expected = [1, 1, 1, 1] if weights == "null" else [1, 2, 3, 4]
    assert found == dict(zip([(1, 8), (1, 32), (2, 8), (2, 32)], expected, strict=True))
    chosen = settings(
        tmp_path, base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"}, model__matryoshka="{cells: [[2, 32], [1, 8]]}"
    )
    config = load_model(chosen, load_tokenizer(chosen, tmp_path)).config
    assert config.matryoshka_grid() == [(2, 32), (1, 8)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("{layers: [3]}", "model.matryoshka: Matryoshka cell of 3 layers"),
        ("{dims: [64]}", "x 64 dimensions: the model has 2 layers and 32"),
        ("{sample: 2}", "model.matryoshka: name layers, dims or cells"),
        ("{layers: [1, 2], sample: 1}", "model.matryoshka: sample=1 cells in a step"),
        ("{layers: [1], dims: [8, 32]}", "model.matryoshka: the whole model, 2 layers x 32 dimensions, is no cell"),
        ("{layers: [2], cells: [[2, 32]]}", "model.matryoshka: cells stand in place of layers and dims"),
        ("{cells: [[3]]}", "model.matryoshka: cells are pairs"),
        ("{layers: [1, 2], weights: [1, -1]}", "model.matryoshka: weights .* not negative"),
    ],
)
def test_a_grid_that_does_not_fit_is_refused(tmp_path, grid, message):
    chosen = settings(tmp_path, base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"}, model__matryoshka=grid)
    with pytest.raises(ValueError, match=message):
        load_model(chosen, load_tokenizer(chosen, tmp_path))


def test_another_architecture_has_no_grid(tmp_path):
    chosen = settings(tmp_path / "a", base={**TINY_RUN, "phases": f"[{PHASE % 'mlm'}]"})
    tokenizer = load_tokenizer(chosen, tmp_path)
    torch.manual_seed(0)
    tiny = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 16}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **tiny)).save_pretrained(tmp_path / "bert")
    tokenizer.save_pretrained(tmp_path / "bert")
    base = {key: value for key, value in TINY_RUN.items() if key not in ("model.overrides", "tokenizer.vocab_size")}
    changes = {"model__size": "null", "model__init_from": tmp_path / "bert", "model__matryoshka": GRID}
    with pytest.raises(ValueError, match="BertForMaskedLM has no sub-models"):
        pretrain(settings(tmp_path / "b", base={**base, "phases": f"[{PHASE % 'mlm'}]"}, **changes))


def test_sampled_cells_are_a_function_of_the_step(tmp_path):
    """A run that stopped between two phases ends as one that did not: draws follow the step, not the process."""
    grid = {"model__matryoshka": "{layers: [1, 2], dims: [8, 16, 32], sample: 2}"}
    phases = ", ".join(PHASE.replace("only", name) % "mlm" for name in ("one", "two"))
    base = {**TINY_RUN, "phases": f"[{phases}]", "trainer.save_steps": "2"}
    pretrain(settings(tmp_path / "whole", base=base, **grid))
    pretrain(settings(tmp_path / "stopped", base=base, **grid))
    for name in ("run.json", "model.safetensors", "checkpoint-6", "checkpoint-5", "checkpoint-4"):
        found = tmp_path / "stopped" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    pretrain(settings(tmp_path / "stopped", base=base, **grid))
    assert read_run(tmp_path / "stopped")["resumed_from_step"] in (1, 2, 3)
    assert_same_weights(tmp_path / "stopped", tmp_path / "whole")
