"""Search training that stops on a value that is no number keeps its rows, and the row at fault is found."""

from __future__ import annotations

import runpy
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from test_finetune_search import ROOT, reranker_of, settings_of

from rexbert_hf.retrieval.training.faulty_rows import FaultyRows, replay_rows
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.reranker import finetune_reranker
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer, StepTrainer
from rexbert_hf.training.reproducing import NonFiniteLossError

RECIPE = ROOT / "recipes" / "replay_batch.py"
AT = 2
"""Step that is spoilt, from 0."""


def stop_at(monkeypatch, spoil):
    """Call `spoil(trainer, rows)` before step `AT`."""
    step = StepTrainer.training_step

    def spoilt(self, *args, **kwargs):
        if self.state.global_step == AT:
            spoil(self, self.steps[AT])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(StepTrainer, "training_step", spoilt)


def overflow(trainer, rows):
    """One token that few rows hold gets weights that are numbers, but whose differences are none."""
    model = trainer.model
    seen = [set() for _ in rows.label]
    for texts in rows.columns.values():
        for ids, text in zip(seen, texts, strict=True):
            ids.update(model.preprocess([text])["input_ids"][0].tolist())
    count = Counter(token for ids in seen for token in ids)
    rare = min(count, key=lambda token: (count[token] != 2, token))
    with torch.no_grad():
        model[0].model.get_input_embeddings().weight[rare] = 3e38 * (-1.0) ** torch.arange(64)
    trainer.expected = [number for number, ids in enumerate(seen) if rare in ids]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Folder, message, weights and numbers of the bad rows of a run that stopped."""
    folder, found = tmp_path_factory.mktemp("rows") / "run", {}
    with pytest.MonkeyPatch.context() as patch:
        keep = SearchTrainer.stopped

        def stopped(self, *args):
            found.update(rows=self.expected, batch=self.steps[AT])
            found["weights"] = {name: value.clone() for name, value in self.model.state_dict().items()}
            return keep(self, *args)

        patch.setattr(SearchTrainer, "stopped", stopped)
        stop_at(patch, overflow)
        with pytest.raises(NonFiniteLossError) as caught:
            finetune_search(settings_of(folder))
    return folder, str(caught.value), found


def test_the_message_names_the_file(stopped):
    folder, message, _ = stopped
    assert "\n" not in message
    assert f"is nan at step {AT + 1}, " in message
    assert str(folder / "nonfinite-step-3-rank-0.parquet") in message
    assert "recipes/replay_batch.py" in message
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_the_file_holds_the_rows_of_the_step_and_the_folder_its_weights(stopped):
    folder, _, found = stopped
    table = pq.read_table(folder / "nonfinite-step-3-rank-0.parquet").to_pydict()
    label = table.pop("label")
    assert table == found["batch"].columns
    assert label == found["batch"].label.tolist()
    weights = load_file(folder / "nonfinite-step-3-model" / "model.safetensors")
    for name, value in weights.items():
        assert torch.equal(value, found["weights"][f"0.model.{name}"]), name


def test_the_rows_at_fault_are_found(stopped):
    folder, _, found = stopped
    replayed = replay_rows(folder / "nonfinite-step-3-rank-0.parquet")
    assert replayed.exact
    assert not replayed.bad_weights
    bad = [row.number for row in replayed.rows if not row.is_finite]
    assert 0 < len(bad) < len(replayed.rows)
    assert bad == found["rows"]
    assert f"{len(bad)} of 16 rows give values that are no numbers" in replayed.verdict()
    model = SentenceTransformer(str(folder / "nonfinite-step-3-model"))
    for row in replayed.rows[len(bad) :]:
        query, product = model.encode_query([row.texts["query"]])[0], model.encode_document([row.texts["product"]])[0]
        assert row.scores[0] == pytest.approx(float(query @ product), abs=1e-5)
    norms = [row.gradient_norm for row in replayed.rows[len(bad) :]]
    assert norms == sorted(norms, reverse=True)


def test_the_recipe_shows_them(stopped, capsys, monkeypatch):
    path = stopped[0] / "nonfinite-step-3-rank-0.parquet"
    monkeypatch.setattr(sys, "argv", [str(RECIPE), str(path), "--documents", "1"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(RECIPE), run_name="__main__")
    out = capsys.readouterr().out
    assert caught.value.code == 0, out
    assert "step 3: the run stopped on a loss of nan" in out
    assert "the step began with" in out
    assert out.count("  query: ") == 1
    assert "they are at fault" in out.splitlines()[-1]


def test_a_gradient_that_overflows_keeps_the_rows_too(monkeypatch, tmp_path):
    def spoil(trainer, rows):
        next(trainer.model.parameters()).register_hook(lambda gradient: gradient * float("inf"))

    stop_at(monkeypatch, spoil)
    with pytest.raises(NonFiniteLossError, match=r"the gradient's norm is \w+ at step 3"):
        finetune_search(settings_of(tmp_path / "run"))
    found = replay_rows(tmp_path / "run" / "nonfinite-step-3-rank-0.parquet")
    assert found.step.what == "gradient's norm"
    assert all(row.is_finite for row in found.rows)
    assert found.verdict().startswith("each row by itself gives numbers")


def test_a_cross_encoder_with_bad_weights(monkeypatch, tmp_path):
    base = tmp_path / "base"
    finetune_search(settings_of(base, trainer__max_steps="1"))

    def spoil(trainer, rows):
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    stop_at(monkeypatch, spoil)
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        finetune_reranker(reranker_of(tmp_path / "run", base))
    found = replay_rows(tmp_path / "run" / "nonfinite-step-3-rank-0.parquet")
    assert list(found.step.columns) == ["query", "product"]
    assert "the batch is not at fault" in found.verdict()


def test_a_cross_encoders_rows_have_its_scores(monkeypatch, tmp_path):
    base = tmp_path / "base"
    finetune_search(settings_of(base, trainer__max_steps="1"))

    def spoil(trainer, rows):
        trainer.model.register_forward_hook(lambda module, given, out: {**out, "scores": out["scores"] * float("nan")})

    stop_at(monkeypatch, spoil)
    with pytest.raises(NonFiniteLossError, match="at step 3"):
        finetune_reranker(reranker_of(tmp_path / "run", base))
    found = replay_rows(tmp_path / "run" / "nonfinite-step-3-rank-0.parquet")
    assert not found.bad_weights
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(str(found.weights))
    for row in found.rows[:4]:
        pair = [(row.texts["query"], row.texts["product"])]
        assert row.scores == pytest.approx([float(model.predict(pair, activation_fn=torch.nn.Identity())[0])], abs=1e-5)


def test_other_and_damaged_files_are_one_line(stopped, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        FaultyRows.load(tmp_path / "none.parquet")
    pq.write_table(pa.table({"query": ["a"]}), tmp_path / "other.parquet")
    data = (stopped[0] / "nonfinite-step-3-rank-0.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(data[: len(data) // 2])
    (tmp_path / "flipped.parquet").write_bytes(data[:200] + bytes([data[200] ^ 1]) + data[201:])
    for name in ("other", "cut", "flipped"):
        with pytest.raises(ValueError, match=rf"{name}.parquet: not the rows of a stopped step") as caught:
            FaultyRows.load(tmp_path / f"{name}.parquet")
        assert "\n" not in str(caught.value)


def test_without_its_weights_a_checkpoint_is_taken_or_asked_for(stopped, tmp_path):
    path = Path(tmp_path / "nonfinite-step-3-rank-0.parquet")
    path.write_bytes((stopped[0] / path.name).read_bytes())
    with pytest.raises(FileNotFoundError, match="give --model"):
        replay_rows(path)
    found = replay_rows(path, stopped[0] / "nonfinite-step-3-model")
    assert found.exact


def test_a_full_disk_does_not_hide_what_went_wrong(monkeypatch, tmp_path):
    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FaultyRows, "save", full)
    stop_at(monkeypatch, overflow)
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step 3.*could not be written.*No space left"):
        finetune_search(settings_of(tmp_path / "run"))
