"""What is saved opens in a process that has stock transformers only, and can be saved again from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch
import transformers
from tiny_models import build, documents, flat_batch, padded_batch
from transformers import PreTrainedModel

import rexbert_hf
from rexbert_hf import RexBertConfig, RexBertForMaskedLM, RexBertModel
from rexbert_hf.models.configuration_rexbert import AUTO_MAP
from rexbert_hf.models.modeling_rexbert import REMOTE_FILES

HEADS = {
    "AutoModel": "RexBertModel",
    "AutoModelForMaskedLM": "RexBertForMaskedLM",
    "AutoModelForPreTraining": "RexBertForPreTraining",
    "AutoModelForSequenceClassification": "RexBertForSequenceClassification",
    "AutoModelForTokenClassification": "RexBertForTokenClassification",
    "AutoModelForQuestionAnswering": "RexBertForQuestionAnswering",
    "AutoModelForMultipleChoice": "RexBertForMultipleChoice",
}

STRANGER = """
import sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rexbert_hf":
            raise ImportError("rexbert_hf is not installed in this process")


sys.meta_path.insert(0, NoPackage())

from pathlib import Path

import torch
import transformers

torch.set_num_threads(1)
root = Path(sys.argv[1])
results = {}
for auto in torch.load(root / "heads.pt"):
    batch = torch.load(root / f"{auto}.pt")
    model = getattr(transformers, auto).from_pretrained(root / auto, trust_remote_code=True).eval()
    assert "transformers_modules" in type(model).__module__, type(model).__module__
    model.save_pretrained(root / "again" / auto)
    again = getattr(transformers, auto).from_pretrained(root / "again" / auto, trust_remote_code=True).eval()
    with torch.no_grad():
        results[auto] = {"name": type(model).__name__, "first": model(**batch)[0], "again": again(**batch)[0]}
# Any head opens from any checkpoint, and the stock form can be written from remote code too.
encoder = transformers.AutoModel.from_pretrained(root / "AutoModelForMaskedLM", trust_remote_code=True).eval()
results["encoder"] = encoder(**torch.load(root / "AutoModel.pt")).last_hidden_state.detach()
encoder.save_modernbert(root / "stock")
results["submodel"] = encoder.submodel(2)(**torch.load(root / "AutoModel.pt")).last_hidden_state.detach()
assert "rexbert_hf" not in sys.modules
torch.save(results, root / "results.pt")
"""


def inputs_for(auto: str):
    if auto == "AutoModelForMultipleChoice":
        return {name: x.view(2, 2, -1) for name, x in padded_batch(documents([5, 9, 3, 7])).items()}
    if auto in ("AutoModelForQuestionAnswering", "AutoModelForSequenceClassification"):
        return padded_batch(documents([5, 9, 70]), "left")
    return flat_batch(documents([5, 9, 70]))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A checkpoint of every head, its outputs here, and what the stranger made of it."""
    root = tmp_path_factory.mktemp("remote")
    expected = {}
    torch.save(list(HEADS), root / "heads.pt")
    for auto, name in HEADS.items():
        model = build(getattr(rexbert_hf, name))
        model.save_pretrained(root / auto)
        batch = inputs_for(auto)
        torch.save(batch, root / f"{auto}.pt")
        with torch.no_grad():
            expected[auto] = model(**batch)[0]
    script = root / "stranger.py"
    script.write_text(STRANGER)
    environment = {**os.environ, "HF_HOME": str(root / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(root)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root, expected, torch.load(root / "results.pt"), done.stderr


@pytest.mark.parametrize("auto", HEADS)
def test_a_stranger_gets_the_same_outputs(saved, auto):
    _, expected, results, _ = saved
    assert results[auto]["name"] == HEADS[auto]
    assert torch.equal(results[auto]["first"], expected[auto])
    assert torch.equal(results[auto]["again"], expected[auto])


def test_the_stranger_saw_no_warning_about_weights(saved):
    *_, errors = saved
    assert "newly initialized" not in errors
    assert "not used when" not in errors
    assert "You are using a model of type" not in errors


def test_every_head_opens_from_every_checkpoint(saved):
    root, _, results, _ = saved
    batch = inputs_for("AutoModel")
    masked_lm = RexBertForMaskedLM.from_pretrained(root / "AutoModelForMaskedLM").eval()
    with torch.no_grad():
        assert torch.equal(results["encoder"], masked_lm.model(**batch).last_hidden_state)
        assert torch.equal(results["submodel"], masked_lm.model.submodel(2)(**batch).last_hidden_state)


def test_remote_code_writes_the_stock_form(saved):
    root, *_ = saved
    stock = transformers.AutoModel.from_pretrained(root / "stock")
    assert type(stock).__name__ == "ModernBertModel"


@pytest.mark.parametrize("auto", HEADS)
@pytest.mark.parametrize("where", [".", "again"])
def test_auto_map_names_every_class_plainly(saved, auto, where):
    root, *_ = saved
    folder = root / where / auto
    config = json.loads((folder / "config.json").read_text())
    assert config["auto_map"] == AUTO_MAP
    assert not any("--" in value for value in config["auto_map"].values())
    assert config["architectures"] == [HEADS[auto]]
    for name in REMOTE_FILES:
        assert (folder / name).read_bytes() == (root / auto / name).read_bytes()
    for value in AUTO_MAP.values():
        module, name = value.split(".")
        assert name in (folder / f"{module}.py").read_text()


def test_remote_files_are_those_of_the_package_and_import_only_each_other(saved):
    root, *_ = saved
    import rexbert_hf.models as models

    package = os.path.dirname(models.__file__)
    for name in REMOTE_FILES:
        text = (root / "AutoModel" / name).read_text()
        with open(os.path.join(package, name)) as file:
            assert file.read() == text
        assert "from rexbert_hf" not in text
        assert "import rexbert_hf" not in text


def test_saving_over_itself_and_without_the_package_classes(tmp_path):
    model = build(RexBertModel)
    model.save_pretrained(tmp_path)
    again = RexBertModel.from_pretrained(tmp_path)
    again.save_pretrained(tmp_path)
    assert torch.equal(again.final_norm.weight, model.final_norm.weight)
    assert not list(tmp_path.glob("*.bin"))


def test_only_the_main_process_writes(tmp_path):
    build(RexBertModel).save_pretrained(tmp_path, is_main_process=False)
    assert not list(tmp_path.glob("*.py"))


def test_auto_classes_use_the_package_when_it_is_imported(tmp_path):
    for auto, name in HEADS.items():
        config = build(RexBertModel).config
        assert type(getattr(transformers, auto).from_config(config)).__name__ == name
    build(RexBertModel).save_pretrained(tmp_path)
    loaded = transformers.AutoModel.from_pretrained(tmp_path)
    assert type(loaded) is RexBertModel
    assert isinstance(transformers.AutoConfig.from_pretrained(tmp_path), RexBertConfig)


def test_saved_weights_are_safetensors_with_the_tied_weight_once(tmp_path):
    from safetensors import safe_open

    build(RexBertForMaskedLM).save_pretrained(tmp_path)
    assert {p.suffix for p in tmp_path.iterdir()} <= {".safetensors", ".json", ".py"}
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert "decoder.weight" not in names
    assert {"model.embeddings.tok_embeddings.weight", "decoder.bias", "head.dense.weight"} <= names


def test_saving_passes_on_where_and_how_to_push(tmp_path, monkeypatch):
    """What is not passed on would be lost in silence: the branch, and with it the commit to main."""
    asked = {"revision": "dev", "tags": ["a"], "commit_message": "b", "commit_description": "c", "create_pr": True}
    pushed = {}
    monkeypatch.setattr(PreTrainedModel, "push_to_hub", lambda self, repo_id, **rest: pushed.update({repo_id: rest}))
    build(RexBertModel).save_pretrained(tmp_path / "a", push_to_hub=True, repo_id="me/a", **asked)
    assert pushed == {"me/a": asked}
