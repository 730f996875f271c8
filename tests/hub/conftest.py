"""A local Hub for each test, clients in processes of their own, and a tiny finished run to push."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import HubServer
from huggingface_hub import constants

from rexbert_hf.hub import trouble, write_run

WITHOUT_PACKAGE = """
import sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rexbert_hf":
            raise ImportError("rexbert_hf is not installed in this process")


sys.meta_path.insert(0, NoPackage())
try:
    import rexbert_hf
except ImportError:
    pass
else:
    raise SystemExit("the block does not block")
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub of this test's own; clients in this process reach it by `endpoint=`, and don't wait long."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.01)
    with HubServer(tmp_path / "hub") as server:
        yield server


def run_client(name: str, hub: HubServer, home: Path, *arguments: str, package: bool) -> None:
    """Run a script of this folder against a Hub in a process of its own, with or without rexbert_hf."""
    script = str(Path(__file__).with_name(name))
    start = f"import runpy, sys\nsys.argv[0] = {script!r}\nrunpy.run_path({script!r}, run_name='__main__')\n"
    command = [sys.executable, "-c", start if package else WITHOUT_PACKAGE + start, *arguments]
    done = subprocess.run(command, env=hub.environment(home), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-6000:]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: stock ModernBERT weights at the root and in `modernbert/`, and a lot of litter."""
    import torch
    from transformers import ModernBertConfig, ModernBertForMaskedLM

    folder = tmp_path_factory.mktemp("run") / "tiny"
    torch.manual_seed(0)
    config = ModernBertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
    )
    model = ModernBertForMaskedLM(config)
    for place in (folder, folder / "modernbert"):
        model.save_pretrained(place)
    save_tokenizer(folder)
    phase = {"name": "general", "tokens": 1000, "steps": 5, "masked_accuracy_before": 0.01, "loss": 3.25}
    phases = [{**phase, "masked_accuracy_after": 0.125}]
    write_run(
        folder,
        config={"output_dir": str(folder), "hub_token": "hf_" + "a" * 30, "max_tokens": 1000},
        results={"phases": phases, "seconds": 12.5},
        data=[{"name": "shop", "fingerprint": "f00", "documents": 7, "tokens": 1000}],
    )
    for litter in (
        "checkpoint-5/model.safetensors",
        "checkpoint-5/optimizer.pt",
        ".staging/model.safetensors",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state.pth",
        "training_args.bin",
        "trainer_state.json",
        "run.log",
        "logs/events.out.tfevents.1",
        ".env",
        "token",
        "notes.txt",
        "spike-step-5-rank-0.safetensors",
        "nonfinite-step-7-rank-1.safetensors",
        "nonfinite-step-8-rank-0.parquet",
        "spike-step-5-model/model.safetensors",
        "modernbert/optimizer.pt",
    ):
        path = folder / litter
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not for the Hub")
    return folder


def save_tokenizer(folder: Path) -> None:
    """A word-level tokenizer of 13 words, without any download."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "usb", "c", "cable", "wireless", "headphones", "red", "shoe"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, **special).save_pretrained(folder)


@pytest.fixture
def copy_of_run(tiny_run: Path, tmp_path: Path) -> Callable[[], Path]:
    """Copies of the finished run, for tests that change it."""
    return lambda: Path(shutil.copytree(tiny_run, tmp_path / "copy"))
