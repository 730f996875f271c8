"""A tiny run of the real recipe, in this process and in processes of its own, that the tests of the recipe share."""

from __future__ import annotations

import atexit
import functools
import os
import runpy
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.settings import load_settings

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "pretrain.py"
CONFIGS = ROOT / "recipes" / "configs"

MODEL = "{num_hidden_layers: 2, hidden_size: 32, intermediate_size: 32, num_attention_heads: 2}"
TINY = {
    "tokenizer.vocab_size": "384",
    "micro_batch_tokens": "512",
    "evaluation.held_out": "0.2",
    "evaluation.max_tokens": "1000",
    "evaluation.baselines": "false",
    "evaluation.position_edges": "[]",
    "trainer.logging_steps": "1",
    "trainer.save_steps": "4",
    "trainer.bf16": "false",
    "trainer.cpu_threads": "1",
    "trainer.use_cpu": "true",
    "trainer.extra": "{measure_mfu: false}",
}
"""What makes any configuration small."""
THREE_PHASES = {
    **TINY,
    "model.overrides": MODEL.replace("}", ", attention_output_dropout: 0.1}"),
    "sources.general.max_documents": "100",
    "sources.long.max_documents": "5",
    "sources.shop.max_documents": "60",
    "phases.general.max_tokens": "6k",
    "phases.extension.max_tokens": "2k",
    "phases.anneal.max_tokens": "6k",
    "phases.general.schedule.warmup_tokens": "1k",
    **{f"phases.{name}.batch_tokens": "1024" for name in ("general", "extension", "anneal")},
    "phases.general.seq_length": "64",
    "phases.extension.seq_length": "256",
    "phases.anneal.seq_length": "256",
}
"""The quickstart, with about 6 + 2 + 6 steps."""
THREE_STAGES = {
    **{key: value for key, value in TINY.items() if not key.startswith("tokenizer")},
    "model.overrides": MODEL,
    "model.matryoshka": "{layers: [1, 2], dims: [8, 32]}",
    "sources.english.max_documents": "80",
    "stages.monolingual.tokenizer.vocab_size": "384",
    "stages.multilingual.tokenizer.vocab_size": "512",
    "stages.multilingual.sources.others.sample_size": "60",
    "stages.commercial.sources.others.sample_size": "60",
    "stages.commercial.sources.shop.max_documents": "80",
    **{
        f"stages.{stage}.phases.{phase}.{key}": value
        for stage, phase in (("monolingual", "english"), ("multilingual", "adaptation"), ("commercial", "shop"))
        for key, value in {"max_tokens": "3k", "batch_tokens": "1024", "seq_length": "64"}.items()
    },
    "stages.monolingual.phases.english.schedule.warmup_tokens": "1k",
    "stages.multilingual.phases.adaptation.schedule.warmup_tokens": "0",
}
"""m3BERT's stages, with 3 steps each."""


@functools.cache
def scratch() -> Path:
    """A folder of this test process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="pretraining-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def options(output_dir: Path, base: dict[str, str], **changes: Any) -> list[tuple[str, str]]:
    """Dotted overrides; `__` in a keyword stands for a dot. Prepared data is shared by the tests of a process."""
    found = {"output_dir": str(output_dir), "cache_dir": str(scratch() / "cache"), **base}
    found |= {name.replace("__", "."): str(value) for name, value in changes.items()}
    return [(name, value) for name, value in found.items() if value != "None"]


def settings(
    output_dir: Path, config: str = "quickstart", base: dict[str, str] | None = None, **changes: Any
) -> PretrainSettings:
    pairs = options(output_dir, THREE_PHASES if base is None else base, **changes)
    return load_settings(PretrainSettings, CONFIGS / f"{config}.yaml", pairs)


def run(output_dir: Path, config: str = "quickstart", base: dict[str, str] | None = None, **changes: Any) -> Any:
    """Run the package's function in this process."""
    return pretrain(settings(output_dir, config, base, **changes))


def words(
    output_dir: Path, config: str = "quickstart", base: dict[str, str] | None = None, **changes: Any
) -> list[str]:
    """The recipe's command line."""
    pairs = options(output_dir, THREE_PHASES if base is None else base, **changes)
    return [str(CONFIGS / f"{config}.yaml"), *(word for name, value in pairs for word in (f"--{name}", value))]


def start(arguments: list[str], launcher: list[str] | None = None, **environment: str) -> subprocess.Popen[str]:
    """Start the recipe as a user does."""
    command = [*(launcher or [sys.executable]), str(RECIPE), *arguments]
    clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean | environment, cwd=ROOT
    )


def recipe(arguments: list[str], capsys: pytest.CaptureFixture[str], patch: pytest.MonkeyPatch) -> tuple[Any, str, str]:
    """The recipe's main in this process: exit status, stdout, stderr."""
    patch.setattr(sys, "argv", [str(RECIPE), *arguments])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(RECIPE), run_name="__main__")
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def error_line(err: str) -> str:
    """The one line that an error is: the last on stderr, with no other error and no traceback before it."""
    lines = err.strip().splitlines()
    assert "Traceback" not in err, err
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], err
    return lines[-1]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(folder: Path, expected: Path) -> None:
    found, wanted = weights(folder), weights(expected)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


@functools.cache
def whole_run() -> Path:
    """The folder of a run of three phases that nothing interrupted. Copy it before changing anything."""
    output = scratch() / "whole"
    run(output, evaluation__baselines="true", evaluation__position_edges="[0, 64, 256]")
    return output


def copy_of_whole_run(folder: Path) -> Path:
    return Path(shutil.copytree(whole_run(), folder))


def one_source(tmp_path: Path, path: Path | str, **changes: Any) -> PretrainSettings:
    """Settings of a run on one file."""
    phases = "[{name: only, mixture: {shop: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 512}]"
    base = {"tokenizer.vocab_size": "384", "evaluation.held_out": "0.2", "phases": phases}
    return settings(tmp_path / "out", "quickstart", {**base, "sources": f"{{shop: {{path: {path}}}}}"}, **changes)


def tokenizer() -> PreTrainedTokenizerBase:
    """That of the whole run."""
    return AutoTokenizer.from_pretrained(whole_run())
