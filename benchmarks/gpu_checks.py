"""What must hold before a rate counts: gradients on the device, the trainer's resume, the tests that need CUDA.

One check a process, which `gpu.py` starts: an error on the device spoils everything later in the same process. On the
CPU the checks themselves are tried, at toy sizes; the fused functions are then those that the eager attention and a
small vocabulary run, because the CPU has code of its own in their place.

    PYTHONPATH=src python benchmarks/gpu_checks.py gradients|fused|trainer|tests [--cpu]
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import report
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM, fused_rexbert
from rexbert_hf.models.fused_rexbert import fuse

ROOT = Path(__file__).resolve().parents[1]
CUDA_TESTS = ("tests/models/test_packed_equals_padded.py", "-k", "cuda")
CUDA_TEST_TAIL = 4_000
"""Characters of what failed tests said that are shown."""
COSINE, LOSS = 0.99, 0.01
"""Least cosine of the gradients, and largest relative difference of the losses, in bfloat16."""
LENGTHS = {"cuda": (1, 7, 64, 65, 129, 200, 513, 1024), "cpu": (1, 7, 64, 65, 129, 200)}
IDS = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
STEPS, RESUMED = 20, 10
"""Steps of the trainer, and the one after which its second run starts anew."""
SAME_LOSS = 0.02
"""Largest difference of a loss after the resume, on a device whose sums come in another order each time."""


def main() -> None:
    """Make one check; the last line is its readings as JSON, an error ends with a traceback."""
    parser = report.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=list(CHECKS))
    parser.add_argument("--cpu", action="store_true", help="toy sizes without a GPU")
    args = parser.parse_args()
    report.finish(CHECKS[args.check]("cpu" if args.cpu else "cuda"))


def same_gradients(device: str, fused: bool) -> list[report.Reading]:
    """Loss and gradient of one flat batch in bfloat16 on the device, against float32 on the CPU.

    Args:
        device: of the bfloat16 one.
        fused: with the functions that `trainer.torch_compile` fuses.

    Raises:
        AssertionError: if a fused function was not called.
    """
    model, batch = flat_model(device), flat_batch(device)
    expected, gradient = loss_and_gradient(model, batch, torch.float32)
    moved = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
    fuse(fused, backend="aot_eager" if device == "cpu" else "inductor")
    calls = counted()
    try:
        loss, found = loss_and_gradient(model.to(device), moved, torch.bfloat16)
    finally:
        fuse(False)
    if idle := [name for name, count in calls.items() if not count]:
        raise AssertionError(f"{idle[0]} was fused and not called: the check says nothing of it")
    cosine = float(torch.nn.functional.cosine_similarity(found.double(), gradient.double(), dim=0))
    name = "gpu/check/" + ("fused" if fused else "plain")
    return [
        report.Reading(f"{name}/gradient", cosine, None, COSINE, "cosine with float32 on the CPU", "ours"),
        report.Reading(f"{name}/loss", abs(loss / expected - 1), None, LOSS, "relative difference", "ours", lower=True),
    ]


def flat_model(device: str) -> RexBertForMaskedLM:
    """A micro model; off a GPU one that runs the functions that a GPU runs: whole rows of logits, plain rotation.

    Args:
        device: on "cpu" the vocabulary is within one tile of the loss in bfloat16, which is then whole rows.
    """
    torch.manual_seed(0)
    vocabulary, kernel = (5_003, "sdpa") if device == "cuda" else (1_003, "eager")
    config = RexBertConfig.from_size("micro", vocab_size=vocabulary, attn_implementation=kernel, **IDS)
    return RexBertForMaskedLM(config)


def counted() -> dict[str, int]:
    """Calls of each fused function from now on, empty if nothing is fused."""
    calls: dict[str, int] = dict.fromkeys(fused_rexbert._COMPILED, 0)

    def count(name: str, function: Callable, *args: object, **kwargs: object) -> object:
        calls[name] += 1
        return function(*args, **kwargs)

    for name, function in fused_rexbert._COMPILED.items():
        fused_rexbert._COMPILED[name] = functools.partial(count, name, function)
    return calls


def flat_batch(device: str) -> dict[str, torch.Tensor | int]:
    """Documents of all kinds of lengths, three tenths of the tokens labelled, on the CPU.

    Args:
        device: a key of `LENGTHS`.
    """
    generator = torch.Generator().manual_seed(1)
    lengths = LENGTHS[device]
    total = sum(lengths)
    ids = torch.randint(5, 1_000, (1, total), generator=generator)
    labels = torch.where(torch.rand(1, total, generator=generator) < 0.3, ids, -100)
    borders = torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in lengths])[None]
    flat = {"input_ids": ids, "labels": labels, "position_ids": positions, "cu_seq_lens_q": borders}
    return {**flat, "max_length_q": max(lengths)}


def loss_and_gradient(
    model: RexBertForMaskedLM, batch: dict[str, torch.Tensor | int], dtype: torch.dtype
) -> tuple[float, torch.Tensor]:
    """Loss and all gradients in one vector, on the CPU."""
    model.zero_grad()
    device = next(model.parameters()).device.type
    with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        loss = model(**batch).loss
    loss.backward()
    parts = [p.grad.flatten().float().cpu() for p in model.parameters() if p.grad is not None]
    return float(loss.detach()), torch.cat(parts)


def same_losses(device: str) -> list[report.Reading]:
    """`CurriculumTrainer` for 20 steps, and again with a stop and a resume in the middle: the losses of both.

    On CPU they are equal; on CUDA sums in another order each time make a rounding of difference.

    Args:
        device: "cuda" or "cpu".

    Raises:
        AssertionError: if the second run did not go on from its checkpoint, or a run has not all losses.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, _ = losses_of(Path(folder, "whole"), device)
        losses_of(Path(folder, "parts"), device, max_steps=RESUMED)
        parts, resumed = losses_of(Path(folder, "parts"), device)
    if resumed != RESUMED or len(whole) != STEPS or len(parts) != STEPS:
        raise AssertionError(f"{len(whole)} and {len(parts)} losses of {STEPS}, resumed from step {resumed}")
    far = max(abs(mine - theirs) for mine, theirs in zip(whole, parts, strict=True))
    goal = SAME_LOSS if device == "cuda" else 0.0
    return [
        report.Reading("gpu/check/resume", far, None, goal, "largest difference of a loss", "ours", lower=True),
        report.Reading("gpu/check/learns", whole[-1] / whole[0], None, 0.99, "last loss / first", "ours", lower=True),
    ]


def losses_of(folder: Path, device: str, **arguments: int) -> tuple[list[float], int | None]:
    """Losses of all steps of a run in a folder, and the step that it went on from.

    Args:
        folder: of the run.
        device: "cuda" (bfloat16, loader workers, micro-batches of 16,384 tokens) or "cpu" (toy sizes).
        arguments: of `CurriculumArguments`.
    """
    from rexbert_hf.data import CurriculumDataset, TokenisedDataset
    from rexbert_hf.training import Curriculum, CurriculumArguments, CurriculumTrainer, Phase, resolve

    cuda = device == "cuda"
    tokens, longest = (32_768, 1_024) if cuda else (1_024, 64)
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(STEPS * tokens // (longest // 2) + 1):  # each word follows from the one before
        words = 5 + (rng.integers(1_000) + np.arange(rng.integers(8, longest - 2))) % 1_000
        rows.append({"input_ids": [1, *words.tolist(), 2]})
    stores = {"words": TokenisedDataset.from_rows(rows)}
    phase = Phase("words", {"words": 1.0}, max_tokens=STEPS * tokens - tokens // 2, seq_length=longest,
                  batch_tokens=tokens, learning_rate=3e-3 if cuda else 1e-2)  # fmt: skip
    common = {"disable_tqdm": True, "measure_mfu": False, "logging_steps": 1, "save_steps": RESUMED}
    common |= {"bf16": True, "dataloader_num_workers": 2} if cuda else {"use_cpu": True}
    args = CurriculumArguments(output_dir=str(folder), **common, **arguments)
    plan = resolve(Curriculum([phase], seed=0, micro_batch_tokens=tokens // 2), stores, world_size=args.world_size)
    torch.manual_seed(0)
    shape = {} if cuda else {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96}
    shape |= {} if cuda else {"num_attention_heads": 2}
    config = RexBertConfig.from_size("micro", vocab_size=1_008, mask_token_id=3, **shape, **IDS)
    model, dataset = RexBertForMaskedLM(config), CurriculumDataset(plan.orders, stores)
    trainer = CurriculumTrainer(model=model, args=args, plan=plan, train_dataset=dataset, processing_class=words_only())
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry], trainer.resumed_from_step


def words_only() -> object:
    """A tokenizer of 1,000 words, for the ids of its special tokens."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    names = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", *(f"w{i}" for i in range(1_000))]
    words = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="[UNK]"))
    special = {f"{name.strip('[]').lower()}_token": name for name in names[:5]}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def cuda_tests() -> list[report.Reading]:
    """The project's tests that need CUDA, where pytest and hypothesis are installed.

    Raises:
        RuntimeError: if one of them fails.
    """
    if missing := [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]:
        print(f"{missing[0]} is not installed: the tests that need CUDA were left out")
        return []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CUDA_TESTS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = (done.stdout.strip() or done.stderr.strip() or "no word").splitlines()[-1]
    print(f"tests that need CUDA: {said}")
    if done.returncode:
        print(done.stdout[-CUDA_TEST_TAIL:])
        raise RuntimeError(said)
    return []


CHECKS: dict[str, Callable[[str], list[report.Reading]]] = {
    "gradients": lambda device: same_gradients(device, False),
    "fused": lambda device: same_gradients(device, True),
    "trainer": same_losses,
    "tests": lambda device: cuda_tests(),
}
"""Each takes "cuda", or "cpu" to try the check itself, and gives readings or raises."""

if __name__ == "__main__":
    main()
