"""Pre-training in two processes, and in m3BERT's stages, killed: one process or all, in each stage and between two."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from kill_jobs import at_work, exists, pretraining, said, weights_and_results, writes_a_checkpoint
from killing import Job, Place, python
from pretraining_cases import CONFIGS, THREE_STAGES

# Two processes: torchrun's, because on the CPU `accelerate launch` starts one only.

LAUNCHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def two_ranks(folder: Path) -> list[str]:
    return [sys.executable, *LAUNCHER, *pretraining(folder)[1:], "--trainer.num_processes", "2"]


def step_of(phase: str) -> Any:
    return said(rf"^step \d+/\d+ {phase}")


RANKS = (
    Place("data", at_work),
    Place("general", step_of("general")),
    Place("extension", step_of("extension")),
    Place("anneal", step_of("anneal")),
    Place("staging", writes_a_checkpoint, 0.06),
)


def ranks_job(name: str, *whom: str) -> Job:
    return Job(
        name, two_ranks, RANKS, weights_and_results, whole="two ranks", steps=True, whom=whom, launched=True,
    )  # fmt: skip


# Stages: each starts from the model of the one before, the second with another tokenizer.

STAGES = {
    **THREE_STAGES,
    **{
        f"stages.{stage}.phases.{phase}.max_tokens": "10k"
        for stage, phase in (("monolingual", "english"), ("multilingual", "adaptation"), ("commercial", "shop"))
    },
}


def stages(folder: Path) -> list[str]:
    found = {"output_dir": str(folder), "cache_dir": str(folder / "cache"), **STAGES}
    pairs = [word for name, value in found.items() for word in (f"--{name}", value)]
    return python("recipes/pretrain.py", str(CONFIGS / "m3bert.yaml"), *pairs)


def all_stages(folder: Path) -> dict[str, Any]:
    """What each stage has left."""
    folders = {"commercial": folder} | {path.name: path for path in sorted((folder / "stages").iterdir())}
    return {f"{name}: {key}": value for name, of in folders.items() for key, value in weights_and_results(of).items()}


def finished(stage: str) -> Any:
    return exists(f"stages/{stage}/run.json")


PRETRAINING_JOBS = (
    ranks_job("one of two ranks", "rank 0", "rank 1"),
    ranks_job("both ranks", "group", "process"),
    Job(
        "stages of m3BERT", stages,
        (
            Place("data of all stages", at_work),
            Place("monolingual", step_of("english")), Place("to multilingual", finished("monolingual")),
            Place("multilingual", step_of("adaptation")), Place("to commercial", finished("multilingual")),
            Place("commercial", step_of("shop")),
        ),
        all_stages,
        files=((r"^(stages/\w+)/checkpoint-\d+/", r"\1/checkpoint/"),),  # signals write some of their own steps
    ),
)  # fmt: skip
