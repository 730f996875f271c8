"""A run that stops on a spike keeps what gives the same loss again, and the document at fault is found."""

from __future__ import annotations

import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from neighbor_cases import make_neighbor_trainer, make_phases
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from training_cases import (
    make_bert,
    make_curriculum,
    make_model,
    make_padded_curriculum,
    make_trainer,
    weights_of,
)

from rexbert_hf.training import CurriculumArguments, FaultyStep, LossSpikeError, NonFiniteLossError
from rexbert_hf.training.replay import document_losses, replay

RECIPE = Path(__file__).parents[2] / "recipes" / "replay_batch.py"
NEVER = 63
"""A token that no document holds; the model gives it next to no probability."""
BAD_STEP, BAD_MICRO, BAD_DOCUMENT = 8, 1, 2


def trainer_with_a_bad_document(folder, bias=-60.0, **options):
    """In step 9 the labels of one document are a token that cannot be."""
    model = make_model()
    with torch.no_grad():
        model.decoder.bias[NEVER] = bias
    chosen = {"spike_factor": 1.3, "spike_window": 10, "save_steps": 3, **options}
    trainer = make_trainer(folder, make_curriculum(steps=(12, 2)), model, **chosen)
    choose = trainer.choose_inputs

    def poisoned(batches):
        batches = choose(batches)
        if trainer.state.global_step == BAD_STEP:
            batch = batches[BAD_MICRO]
            start, stop = batch["cu_seq_lens_q"][BAD_DOCUMENT : BAD_DOCUMENT + 2].tolist()
            labels = batch["labels"][0, start:stop]
            labels[labels != -100] = NEVER
            labels[1] = NEVER  # one at least
        return batches

    trainer.choose_inputs = poisoned
    return trainer


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Folder, message and weights of a run that a spike stopped."""
    folder = tmp_path_factory.mktemp("spike")
    trainer = trainer_with_a_bad_document(folder)
    with pytest.raises(LossSpikeError) as caught:
        trainer.train()
    return folder, str(caught.value), weights_of(trainer.model)


def test_a_spike_stops_the_run_in_one_line(stopped):
    folder, message, _ = stopped
    assert "\n" not in message
    assert f"step {BAD_STEP + 1} (phase 'general')" in message
    assert "above 1.3 times the median" in message
    assert str(folder / "spike-step-9-rank-0.safetensors") in message
    assert "spike_factor" in message
    assert not list(folder.glob(".*"))


def test_the_loss_is_the_runs_bit_for_bit_and_the_document_is_found(stopped):
    folder, _, weights = stopped
    found = replay(folder / "spike-step-9-rank-0.safetensors")
    assert found.exact
    assert found.loss == found.step.loss
    assert found.parts == {"mlm": pytest.approx(found.loss)}
    assert (found.documents[0].micro, found.documents[0].number) == (BAD_MICRO, BAD_DOCUMENT)
    assert f"document {BAD_DOCUMENT} of micro-batch {BAD_MICRO}" in found.verdict()
    assert found.documents[0].mean > 40
    assert found.documents[1].mean < 10
    kept = load_file(folder / "spike-step-9-model" / "model.safetensors")
    for name, value in kept.items():
        assert torch.equal(value, weights[name]), name
    assert found.gradient_norm > 0


CASES = {
    "adaptive, one mode": lambda folder: make_trainer(folder, make_curriculum((1, 6), adaptive={"initial_steps": 2})),
    "adaptive, both modes": lambda folder: make_trainer(
        folder, make_curriculum((1, 6), adaptive={"alpha_0": 0.7, "initial_steps": 9, "mode": "weighted"})
    ),
    "neighbours": lambda folder: make_neighbor_trainer(folder, make_phases(kind="ahm", weight=0.4)),
    "another architecture": lambda folder: make_trainer(folder, make_padded_curriculum((6, 1)), make_bert()),
    "bfloat16": lambda folder: make_trainer(folder, make_curriculum((6, 1)), bf16=True),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_step_gives_its_loss_again(case, tmp_path):
    """Kept at a step that nothing is wrong with, and compared with the loss that was logged."""
    trainer, at = CASES[case](tmp_path), 4
    check = trainer.check_finite

    def keep_too():
        check()
        if trainer.state.global_step == at:
            trainer._keep("spike", "loss", 0.0, float(trainer._step_loss))

    trainer.check_finite = keep_too
    trainer.train()
    found = replay(tmp_path / f"spike-step-{at + 1}-rank-0.safetensors")
    (logged,) = [log["loss"] for log in trainer.state.log_history if log["step"] == at + 1 and "loss" in log]
    assert found.exact
    assert found.loss == pytest.approx(found.step.loss, rel=2e-6)
    assert found.loss == pytest.approx(logged, rel=1e-3)  # the log is rounded
    assert ("npr" in found.parts) == (case == "neighbours")
    assert ("mlm_phrase" in found.parts) == (case == "adaptive, both modes")
    norms = [log["grad_norm"] for log in trainer.state.log_history if log["step"] == at + 1 and "grad_norm" in log]
    assert found.gradient_norm == pytest.approx(norms[0], rel=2e-2 if case == "bfloat16" else 1e-3)
    assert found.documents


def test_documents_are_those_of_the_batch(stopped):
    """Each document's loss against the model on it, and all labels are accounted for."""
    folder, _, _ = stopped
    found = replay(folder / "spike-step-9-rank-0.safetensors")
    labelled = sum(int((batch["labels"] != -100).sum()) for batch in found.step.batches.values())
    assert sum(document.num_labels for document in found.documents) == labelled == found.step.counts["mlm"]
    from rexbert_hf.training.replay import load_model, token_losses

    model = load_model(found.weights).eval()
    for document in found.documents[:5]:
        each = token_losses(model, document)
        assert len(each) == document.num_labels
        assert float(each.sum()) == pytest.approx(document.loss, rel=1e-4)


def test_a_resumed_run_stops_at_the_same_place(stopped, tmp_path):
    _, message, _ = stopped
    first = trainer_with_a_bad_document(tmp_path, max_steps=6)
    first.train()
    second = trainer_with_a_bad_document(tmp_path)
    with pytest.raises(LossSpikeError) as caught:
        second.train()
    assert second.resumed_from_step == 6
    assert str(caught.value).replace(str(tmp_path), "") == message.replace(str(stopped[0]), "")


def test_a_run_stops_at_spikes_unless_told_otherwise(tmp_path):
    """Nothing said of `spike_factor`: three times the median of the last steps."""
    trainer = trainer_with_a_bad_document(tmp_path, bias=-600.0, spike_factor=CurriculumArguments.spike_factor)
    with pytest.raises(LossSpikeError, match=r"above 3 times the median .* spike_factor \(null: never\)"):
        trainer.train()


def test_kinds_of_steps_are_watched_apart_and_triplets_not_at_all(tmp_path):
    """Words and phrases have a median each; the loss of few triplets, and wild, is left out."""
    trainer = make_neighbor_trainer(tmp_path, make_phases(kind="ahm", weight=0.4))
    check, seen = trainer.check_finite, []

    def look():
        mode = trainer.adaptive.modes[0] if trainer.adaptive else ""
        seen.append((mode, float(trainer._masked_loss), float(trainer._step_loss)))
        check()

    trainer.check_finite = look
    trainer.train()
    kept = trainer.state.stateful_callbacks["LossSpikes"]["losses"]
    last = trainer.plan.phases[-1].first_step
    for kind, losses in kept.items():
        assert losses == pytest.approx([masked for mode, masked, _ in seen[last:] if mode == kind])
    assert set(kept) == {mode for mode, _, _ in seen[last:]}
    assert any(whole > masked for _, masked, whole in seen)


def test_without_the_factor_the_same_run_goes_on(tmp_path):
    trainer = trainer_with_a_bad_document(tmp_path, spike_factor=None)
    trainer.train()
    assert trainer.state.global_step == trainer.state.max_steps


def test_without_its_weights_the_last_checkpoint_is_taken_and_that_is_said(stopped, tmp_path):
    import shutil

    folder = Path(shutil.copytree(stopped[0], tmp_path / "run"))
    shutil.rmtree(folder / "spike-step-9-model")
    found = replay(folder / "spike-step-9-rank-0.safetensors")
    assert found.weights.name == "checkpoint-6"
    assert not found.exact
    assert found.loss != found.step.loss
    assert found.documents[0].number == BAD_DOCUMENT


def test_the_recipe_names_the_document(stopped, capsys, monkeypatch):
    path = stopped[0] / "spike-step-9-rank-0.safetensors"
    monkeypatch.setattr(sys, "argv", [str(RECIPE), str(path), "--documents", "2"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(RECIPE), run_name="__main__")
    out = capsys.readouterr().out
    assert caught.value.code == 0, out
    assert "step 9, phase 'general'" in out
    assert "worst labels: " in out
    assert out.count("micro-batch ") == 3  # two documents, and the verdict
    assert out.strip().splitlines()[-1].startswith("document 2 of micro-batch 1 has the highest loss")


def test_a_foreign_tokenizer_leaves_the_ids_to_be_read(stopped, tmp_path, capsys, monkeypatch):
    path = stopped[0] / "spike-step-9-rank-0.safetensors"
    weights = shutil.copytree(replay(path).weights, tmp_path / "weights")
    (weights / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    (weights / "tokenizer.json").write_text('{"version": "1.0", "added_tokens": [], "model": {"type": "Foreign"}}')
    monkeypatch.setattr(sys, "argv", [str(RECIPE), str(path), "--documents", "1", "--model", str(weights)])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(RECIPE), run_name="__main__")
    assert caught.value.code == 0
    assert "worst labels: " in capsys.readouterr().out


def test_diverged_weights_are_told_from_a_bad_batch(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(2, 2)))
    with torch.no_grad():
        trainer.model.head.dense.weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteLossError, match="replay_batch"):
        trainer.train()
    found = replay(tmp_path / "nonfinite-step-1-rank-0.safetensors")
    assert found.bad_weights == ["head.dense.weight"]
    assert "the batch is not at fault" in found.verdict()


def test_the_file_is_plain_safetensors(stopped):
    with safe_open(stopped[0] / "spike-step-9-rank-0.safetensors", "pt") as file:
        assert {"micro0.input_ids", "micro1.labels"} <= set(file.keys())
        assert '"seed": 3' in file.metadata()["faulty_step"]


def test_other_and_damaged_files_are_one_line(stopped, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        FaultyStep.load(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    data = (stopped[0] / "spike-step-9-rank-0.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[: len(data) // 2])
    for name in ("other", "cut"):
        with pytest.raises(ValueError, match=rf"{name}.safetensors: not the batch of a stopped step") as caught:
            FaultyStep.load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(caught.value)


def test_labels_of_pairs_belong_to_no_document():
    """Relevance has a label a pair, not a token: its documents cannot be computed one by one."""
    batch = {"input_ids": torch.ones(1, 4, dtype=torch.long), "labels": torch.tensor([1, 0])}
    step = SimpleNamespace(batches={0: batch}, modes=("mlm",))
    assert list(document_losses(torch.nn.Linear(1, 1), step)) == []


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_read(device, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(RECIPE), "nowhere.safetensors", "--device", device])
    with pytest.raises(SystemExit):
        runpy.run_path(str(RECIPE), run_name="__main__")
    assert f"argument --device: '{device}' cannot be used (" in capsys.readouterr().err.splitlines()[-1]
