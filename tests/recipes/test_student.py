"""The student of product search through its own stages: pre-training, pre-finetuning, distillation, by their YAMLs."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from safetensors.torch import load_file

from rexbert_hf.hub import read_run
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.training.biencoder import model_fingerprint
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.settings import load_settings, parse_args

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "configs"
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


STAGES = {"pretrain.py": (PretrainSettings, pretrain), "qpi.py": (QPISettings, run_qpi)}
STAGES["distil_search.py"] = (DistilSettings, distil_search)
SMALL = {
    "pretrain.py": {**PRETRAIN, "tokenizer.vocab_size": "512", "phases.catalogue.max_tokens": "4k"},
    "qpi.py": {**PRETRAIN, "phases.pairs.max_tokens": "4k", "phases.pairs.batch_tokens": "1k"},
    "distil_search.py": {**QUICK, "trainer.max_steps": "2"},
}
SMALL["pretrain.py"] |= {"phases.catalogue.batch_tokens": "1k", "phases.catalogue.schedule.warmup_tokens": "0"}
SMALL["qpi.py"] |= {"phases.pairs.schedule.warmup_tokens": "0"}


def test_the_documented_stages_of_a_student_read_ones_own_log_and_catalogue(tmp_path, monkeypatch):
    """The commands of docs/search.md as they stand, with small sizes behind them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    own = {"output_dir": "output/my-pairs", "products.sample_size": "60", "events.sample_size": "60"}
    build_pairs(read(BuildPairsRun, "build_pairs.yaml", **own, audit__size="0", split__held_out="0.3"))
    pairs = {"data.pairs": "output/my-pairs/pairs", "data.products": "output/my-pairs/products.parquet"}
    teacher = {**pairs, **QUICK, "trainer.max_steps": "2", "model.vocab_size": "512", "output_dir": "output/my-search"}
    finetune_search(read(FinetuneSettings, "finetune_search.yaml", **teacher))
    text = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
    (block,) = (found for found in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL) if "my-small" in found)
    made = {}
    for line in block.replace("\\\n", " ").splitlines():
        program, script, *words = shlex.split(line)
        name = Path(script).name
        words += [word for key, value in SMALL[name].items() for word in (f"--{key}", value)]
        kind, run = STAGES[name]
        assert program == "python"
        made[name] = parse_args(kind, words, default_config=CONFIGS / "distil_search.yaml")
        run(made[name])
    assert list(made) == list(STAGES)
    student = read_run(Path("output/my-student"))["results"]
    assert student["made_of"]["base"] == model_fingerprint(Path("output/my-small-qpi"))
    assert student["made_of"]["teacher"] == model_fingerprint(Path("output/my-search"))
    catalogue, queries = made["pretrain.py"].sources["catalogue"], made["qpi.py"].sources["pairs"]
    assert (catalogue.path, catalogue.sample, queries.sample) == ("output/my-pairs/products.parquet", None, None)
    assert (queries.path, queries.pairs.products) == ("output/my-pairs/qpi", "output/my-pairs/products.parquet")
