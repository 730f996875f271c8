"""The student of product search through its own stages: pre-training, pre-finetuning, distillation, by their YAMLs."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file

from rexbert_hf.hub import read_run
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.retrieval.training.biencoder import model_fingerprint
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.settings import load_settings

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
QUICK = {"trainer.use_cpu": "true", "trainer.bf16": "false", "trainer.cpu_threads": "1"}
PRETRAIN = {**QUICK, "trainer.extra": "{measure_mfu: false}", "evaluation.max_tokens": "500"}
SEARCH = {**QUICK, "data.sample_size": "60", "trainer.max_steps": "2", "validation.test": "false"}


def read(kind, name, **words):
    return load_settings(kind, CONFIGS / name, [(key.replace("__", "."), value) for key, value in words.items()])


def test_each_stage_starts_from_the_one_before(tmp_path, monkeypatch):
    """With the folders that the files name; only sizes and budgets are smaller."""
    monkeypatch.chdir(tmp_path)
    words = {**PRETRAIN, "phases.catalogue.max_tokens": "4k", "sources.catalogue.sample_size": "60"}
    words |= {"phases.catalogue.batch_tokens": "1k", "phases.catalogue.schedule.warmup_tokens": "0"}
    pretrain(read(PretrainSettings, "pretrain_student.yaml", **words, tokenizer__vocab_size="512"))
    words = {**PRETRAIN, "phases.pairs.max_tokens": "4k", "sources.pairs.sample_size": "60"}
    words |= {"phases.pairs.batch_tokens": "1k", "phases.pairs.schedule.warmup_tokens": "0"}
    run_qpi(read(QPISettings, "qpi_student.yaml", **words))
    teacher = read(FinetuneSettings, "finetune_search.yaml", **SEARCH, model__vocab_size="512")
    finetune_search(teacher)
    student = read(DistilSettings, "distil_search.yaml", **SEARCH)
    distil_search(student)
    run = read_run(Path(student.output_dir))
    assert run["results"]["made_of"]["base"] == model_fingerprint(Path("output/qpi_student"))
    assert run["results"]["made_of"]["teacher"] == model_fingerprint(Path("output/search"))
    weights = load_file(Path(student.output_dir) / "model.safetensors")
    layers = {name.split(".")[1] for name in weights if name.startswith("layers.")}
    assert (layers, weights["final_norm.weight"].shape) == ({"0", "1"}, (256,))
    before = load_file("output/qpi_student/model.safetensors")
    name = "layers.1.mlp.Wi.weight"
    moved = (weights[name] - before[f"model.{name}"]).abs().max()
    assert 0 < moved < 0.02, "two steps from the pre-finetuned weights"
