"""Everything that a GPU is for, in one call: checks, then training steps of every size, long documents, encoding.

* checks: losses and gradients of flat bfloat16 batches on the device against float32 on the CPU, plain and fused, and
  the tests that need CUDA;
* steps of documents of 1,024 tokens, every size (goals for an H100), beside stock transformers padded;
* steps of product text, base, beside stock padded, sdpa and, where flash-attn is installed, flash attention 2;
* documents of 8,192 tokens beside the ratio that the FLOPs predict;
* encoding beside sentence-transformers.

A part that fails is named and the others go on; the exit status is then 1. Not yet run on a GPU: none was at hand.
`--cpu` runs the same parts at toy sizes without one, to see that they run.

    python benchmarks/gpu.py [--quick] [--cpu] [--only checks steps text long encode] [--sizes micro mini base large]
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import report
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.models.fused_rexbert import fuse

HERE = Path(__file__).resolve().parent
CUDA_TESTS = ("tests/models/test_packed_equals_padded.py", "-k", "cuda")
BATCHES = {"micro": 64, "mini": 32, "base": 16, "large": 8}
"""Documents of 1,024 tokens a batch."""
COSINE, LOSS = 0.99, 0.01
"""Least cosine of the gradients, and largest relative difference of the losses, in bfloat16."""
LENGTHS = (1, 7, 64, 65, 129, 200, 513, 1024)


@dataclass(frozen=True)
class Part:
    """A command with readings in its last line.

    Attributes:
        name: to choose it by, with `--only`.
        command: script of this folder, and its options.
    """

    name: str
    command: tuple[str, ...]


def main() -> None:
    """Check, measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "three steps a contender, few texts")
    parser.add_argument("--cpu", action="store_true", help="toy sizes without a GPU")
    names = ["checks", "steps", "text", "long", "encode"]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--sizes", nargs="+", choices=list(BATCHES), default=list(BATCHES))
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.cpu:
        sys.exit("error: torch sees no CUDA device: --cpu runs the parts at toy sizes")
    report.header("gpu", "flash-attn is installed" if flash_installed() else "flash-attn is not installed")
    found: list[report.Reading] = []
    failed: list[str] = []
    if "checks" in args.only:
        for name, check in checks("cpu" if args.cpu else "cuda"):
            try:
                found += check()
            except (AssertionError, RuntimeError) as error:
                failed.append(f"{name}: {str(error).strip().splitlines()[0]}")
    for part in parts(args.cpu, args.quick, args.sizes):
        if part.name in args.only:
            readings, said = run(part)
            found += readings
            failed += [said] if said else []
    report.finish(found)
    if failed:
        sys.exit("\n".join(f"FAILED {line}" for line in failed))


def flash_installed() -> bool:
    """Whether the peer with flash attention 2 can run."""
    return importlib.util.find_spec("flash_attn") is not None


def parts(cpu: bool, quick: bool, sizes: list[str]) -> Iterator[Part]:
    """The commands, in order of what matters most, so that a short loan measures that.

    Args:
        cpu: toy sizes.
        quick: few steps.
        sizes: of the models.
    """
    common = ("train_step.py", *(("--quick",) if quick or cpu else ()))
    compiled = () if cpu else ("--compile",)
    peers = ("padded", *(("flash",) if flash_installed() and not cpu else ()))
    for size in sizes:
        batch = "2" if cpu else str(BATCHES[size])
        length = ("--max_tokens", "128") if cpu else ()
        options = ("--size", size, "--whole", "--batch", batch, *length, *compiled, "--peers", *peers)
        yield Part("steps", (*common, *options))
    main_size = "micro" if cpu else "base"
    batch = "4" if cpu else "64"
    yield Part("text", (*common, "--size", main_size, "--batch", batch, *compiled, "--peers", *peers))
    batch, length = ("1", "512") if cpu else ("2", "8192")
    options = ("--size", main_size, "--whole", "--batch", batch, "--max_tokens", length, *compiled)
    yield Part("long", (*common, *options, "--peers", *peers))
    yield Part("encode", ("encode.py", *(("--quick", "--size", "micro") if cpu else ("--quick",) if quick else ())))


def run(part: Part) -> tuple[list[report.Reading], str]:
    """Readings of a command, and what went wrong or nothing."""
    shown, start = " ".join(part.command), time.monotonic()
    print(f"\n== {shown}", flush=True)
    done = subprocess.run(
        [sys.executable, str(HERE / part.command[0]), *part.command[1:]], capture_output=True, text=True
    )
    print(done.stdout, end="", flush=True)
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return [], f"{shown}: {(done.stderr.strip() or 'no word').splitlines()[-1][:200]}"
    return [read(entry) for entry in json.loads(lines[-1])], ""


def read(entry: dict) -> report.Reading:
    """A reading as its own script printed it."""
    names = ("name", "ours", "peer", "goal", "unit", "judged", "lower")
    return report.Reading(**{name: entry[name] for name in names})


def checks(device: str) -> Iterator[tuple[str, Callable[[], list[report.Reading]]]]:
    """What must hold before a rate counts.

    Args:
        device: "cuda", or "cpu" to try the checks themselves.
    """
    yield "gradients", lambda: same_gradients(device, False)
    yield "fused gradients", lambda: same_gradients(device, True)
    if device == "cuda":
        yield "tests", cuda_tests


def same_gradients(device: str, fused: bool) -> list[report.Reading]:
    """Loss and gradient of one flat batch in bfloat16 on the device, against float32 on the CPU.

    Args:
        device: of the bfloat16 one.
        fused: with the functions that `trainer.torch_compile` fuses.
    """
    torch.manual_seed(0)
    ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    model = RexBertForMaskedLM(RexBertConfig.from_size("micro", vocab_size=5_003, **ids))
    batch = flat_batch()
    expected, gradient = loss_and_gradient(model, batch, torch.float32)
    fuse(fused)
    try:
        moved = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in batch.items()}
        loss, found = loss_and_gradient(model.to(device), moved, torch.bfloat16)
    finally:
        fuse(False)
    cosine = float(torch.nn.functional.cosine_similarity(found, gradient, dim=0))
    name = "gpu/check/" + ("fused" if fused else "plain")
    return [
        report.Reading(f"{name}/gradient", cosine, None, COSINE, "cosine with float32 on the CPU", "ours"),
        report.Reading(f"{name}/loss", abs(loss / expected - 1), None, LOSS, "relative difference", "ours", lower=True),
    ]


def flat_batch() -> dict[str, torch.Tensor | int]:
    """Documents of all kinds of lengths, three tenths of the tokens labelled."""
    generator = torch.Generator().manual_seed(1)
    total = sum(LENGTHS)
    ids = torch.randint(5, 5_000, (1, total), generator=generator)
    labels = torch.where(torch.rand(1, total, generator=generator) < 0.3, ids, -100)
    borders = torch.tensor([0, *LENGTHS]).cumsum(0).to(torch.int32)
    positions = torch.cat([torch.arange(length) for length in LENGTHS])[None]
    flat = {"input_ids": ids, "labels": labels, "position_ids": positions, "cu_seq_lens_q": borders}
    return {**flat, "max_length_q": max(LENGTHS)}


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


def cuda_tests() -> list[report.Reading]:
    """The project's tests that need CUDA, where pytest is installed.

    Raises:
        RuntimeError: if one of them fails.
    """
    if importlib.util.find_spec("pytest") is None:
        print("pytest is not installed: the tests that need CUDA were left out")
        return []
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *CUDA_TESTS]
    done = subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True)
    said = (done.stdout.strip() or done.stderr.strip() or "no word").splitlines()[-1]
    print(f"tests that need CUDA: {said}")
    if done.returncode:
        raise RuntimeError(said)
    return []


if __name__ == "__main__":
    main()
