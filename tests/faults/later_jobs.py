"""What comes after pre-training, killed: from distillation and re-ranking to evaluation, export and cell choice.

Each starts from one bi-encoder that is trained here, once a test process.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "reproduction"))

import yaml
from kill_jobs import SEARCH, at_work, digest, exists, last_weights, measured, results, said, search_weights
from killing import Job, Place, python
from pretraining_cases import CONFIGS, MODEL, TINY
from reproduction_cases import PAPER, paper, plan_ahead

from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.settings import from_dict

SAMPLE = {"data.sample_size": "120"}
TRAINER = {
    "trainer.epochs": "3",
    "trainer.save_epochs": "0.5",
    "trainer.bf16": "false",
    "trainer.cpu_threads": "1",
    "trainer.use_cpu": "true",
    "trainer.logging_steps": "1",
}
BASE = {
    "data": {"sample_size": 120},
    "model": {"preset": "tiny", "vocab_size": 512, "max_tokens": 16},
    "rows": {"batch_size": 16},
    "matryoshka": {"layers": [1, 2], "dims": [16, 64]},
    "trainer": {"max_steps": 6, "use_cpu": True, "bf16": False, "cpu_threads": 1, "learning_rate": 2e-3},
}


@cache
def base(root: Path) -> Path:
    """A bi-encoder with a grid of cells, beside the folders that are killed.

    Args:
        root: their parent.
    """
    folder = root / "base"
    finetune_search(from_dict(FinetuneSettings, {**BASE, "output_dir": str(folder)}))
    return folder


def trained_before(folder: Path) -> None:
    base(folder.parent)


def command(script: str, config: str | None = None, **fixed: str) -> Any:
    """The command line of a recipe as a function of its output folder; "BASE" in a value is the bi-encoder."""

    def of(folder: Path) -> list[str]:
        values = {"output_dir": str(folder), **{key.replace("__", "."): value for key, value in fixed.items()}}
        filled = {key: value.replace("BASE", str(folder.parent / "base")) for key, value in values.items()}
        words = [word for key, value in filled.items() for word in (f"--{key}", value)]
        return python(f"recipes/{script}", *([str(CONFIGS / config)] if config else []), *words)

    return of


def dotted(values: dict[str, str]) -> dict[str, str]:
    return {key.replace(".", "__"): value for key, value in values.items()}


def weights(folder: Path) -> dict[str, Any]:
    return {path.relative_to(folder).as_posix(): digest(path) for path in folder.glob("**/*.safetensors")}


# Search training that mines hard negatives before the first step and twice an epoch: the tables are part of the state.

MINED = {
    **SEARCH,
    "rows.mined": "1",
    "mining": "{keep: 4, skip: 1, depth: 20, refresh_epochs: 0.5}",
    "trainer.epochs": "3",
}


# Distillation: what the student is, and its figures.

STUDENT = {
    "teacher": "BASE",
    "student.base": "null",
    "student.preset": "tiny",
    "student.vocab_size": "512",
    "student.max_tokens": "16",
    "rows.batch_size": "16",
    "cached": "false",
    **SAMPLE,
    **TRAINER,
}


def student(folder: Path) -> dict[str, Any]:
    found = {path.name: digest(path) for path in folder.glob("*.safetensors")}
    figures = {name: results(folder).get(name) for name in ("test", "validation", "teacher_test", "pairs")}
    return found | figures | {"last checkpoint": last_weights(folder)}


# A re-ranker, and a tokenizer of its own.

RERANKER = {"base": "BASE", "batch_size": "16", "max_tokens": "32", **SAMPLE, **TRAINER}


def reranker(folder: Path) -> dict[str, Any]:
    found = {path.name: digest(path) for path in folder.glob("*.safetensors")}
    return found | {"results": results(folder), "last checkpoint": last_weights(folder)}


def tokenizer(folder: Path) -> dict[str, Any]:
    return {"tokenizer": digest(folder / "tokenizer.json"), "results": results(folder)}


# Fine-tuning on a task, and the evaluation of two models on two tasks.

TASK = {"model": "BASE", "task": "aspect_extraction", "tuning": "{epochs: [1]}", "device": "cpu"}
EVALUATION = {
    "models": "[BASE, random]",
    "tasks": "[aspect_extraction, query_category]",
    "tuning": "{epochs: [1]}",
    "seeds": "2",
    "device": "cpu",
    "resamples": "200",
}


def task(folder: Path) -> dict[str, Any]:
    return weights(folder) | {"results": results(folder)}


def evaluation(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "results.json").read_text())
    return {"table": measured(found["table"]), "comparisons": measured(found["comparisons"])}


# Reproduction: two rows after a common start, two seeds; the plan is there, so that no clock decides what is trained.


def planned(folder: Path) -> None:
    folder.mkdir()
    config = {**PAPER, "output_dir": str(folder)}
    folder.with_suffix(".yaml").write_text(yaml.safe_dump(config))
    plan_ahead(paper(folder))


def reproducing(folder: Path) -> list[str]:
    return python("recipes/reproduce.py", str(folder.with_suffix(".yaml")))


def reproduced(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "run.json").read_text())["results"]
    return weights(folder) | {"rows": found["rows"], "claims": measured(found["claims"])}


# E-BERT's two phases: the masking's switch is part of the state, and so are the triplets.

EBERT = {
    **TINY,
    "model.overrides": MODEL,
    "sources.products.sample_size": "60",
    "sources.reviews.sample_size": "40",
    "phases.words_and_phrases.epochs": "1",
    "phases.neighbors.epochs": "1",
    "phases.words_and_phrases.batch_tokens": "512",
    "phases.neighbors.batch_tokens": "512",
}


def ebert(folder: Path) -> dict[str, Any]:
    names = ("model.safetensors", "tokenizer.json")
    found = {name: digest(folder / name) for name in names}
    return found | {"phases": results(folder).get("phases"), "last checkpoint": last_weights(folder)}


# An export and a choice: their latencies differ from run to run, what they leave does not.


def exported(folder: Path) -> dict[str, Any]:
    found = {path.name: digest(path) for path in folder.glob("*.onnx")}
    return found | {name: results(folder)[name] for name in ("difference", "quality")}


def chosen(folder: Path) -> dict[str, Any]:
    return weights(folder) | {"chosen": results(folder)["chosen"]}


ANYWHERE = (Place("anywhere", at_work),)
TRAINING = (Place("training", exists("checkpoint-*")),)

LATER_JOBS = (
    Job(
        "search training with mining", command("finetune_search.py", **dotted(MINED)),
        (Place("first table", at_work), Place("next tables", exists("negatives-0.npy")),
         Place("mining", exists(".staging-vectors-*"), 0.05)),
        search_weights, steps=True,
    ),
    Job(
        "distillation", command("distil_search.py", **dotted(STUDENT)),
        (Place("teacher scores", at_work), *TRAINING), student, steps=True, prepare=trained_before,
    ),
    Job("re-ranker", command("finetune_reranker.py", **dotted(RERANKER)), TRAINING, reranker, steps=True,
        prepare=trained_before),
    Job("tokenizer", command("train_tokenizer.py", vocab_size="1024", held_out_documents="100"), ANYWHERE, tokenizer),
    Job("task fine-tuning", command("finetune_task.py", **TASK), ANYWHERE, task, prepare=trained_before),
    Job("evaluation", command("evaluate.py", **EVALUATION), ANYWHERE, evaluation, prepare=trained_before),
    Job("reproduction", reproducing, (Place("data", at_work), Place("rows", exists("results/*.json"))), reproduced,
        prepare=planned),
    Job("phases of E-BERT", command("pretrain.py", "ebert.yaml", cache_dir="BASE-cache", **dotted(EBERT)),
        (Place("masking", said(r"^step \d+/\d+ words")), Place("neighbours", said(r"^step \d+/\d+ neigh"))),
        ebert, steps=True),
    Job(
        "ONNX export",
        command("export_onnx.py", model="BASE", max_queries="20", latency__repeats="3", **dotted(SAMPLE)),
        ANYWHERE, exported, prepare=trained_before,
        environment=lambda folder: {"PYTHONHASHSEED": "0"},  # a set of the traced model decides the order of nodes
    ),
    Job(
        "cell choice",
        command("choose_submodel.py", model="BASE", latency_ms="10000", repeats="3", **dotted(SAMPLE)),
        ANYWHERE, chosen, prepare=trained_before,
    ),
)  # fmt: skip
