"""Everything that a GPU is for, in one call: checks, then training steps of every size, long documents, encoding.

* checks (`gpu_checks.py`): losses and gradients of flat bfloat16 batches on the device against float32 on the CPU,
  plain and fused; 20 steps of the trainer, with and without a resume; the tests that need CUDA;
* steps of documents of 1,024 tokens, every size (goals for an H100), beside stock transformers padded;
* steps of product text, base, beside stock padded, sdpa and, where flash-attn is installed, flash attention 2;
* documents of 8,192 tokens beside the ratio that the FLOPs predict;
* encoding beside sentence-transformers.

A part that fails or takes too long is named and the others go on; the exit status is then 1. Needs torch, transformers,
accelerate, pyarrow and, to encode, sentence-transformers; product text without a folder of it needs datasets too. Not
yet run on a GPU: none was at hand. `--cpu` runs the same parts at toy sizes without one, to see that they run.

    PYTHONPATH=src python benchmarks/gpu.py [--quick] [--cpu] [--only checks steps text long encode] [--out FILE.json]
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import report
from gpu_checks import checks
from processes import run_group

HERE = Path(__file__).resolve().parent
BATCHES = {"micro": 64, "mini": 32, "base": 16, "large": 8}
"""Documents of 1,024 tokens a batch."""
TAIL = 20
"""Lines of a failed part's complaint that are shown."""


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
    parser.add_argument("--seconds", type=float, default=420.0, help="most for one part")
    parser.add_argument("--out", type=Path, help="a JSON file, written again after each part")
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
            except Exception as error:  # whatever it is, the other parts go on
                traceback.print_exc()
                failed.append(f"{name}: {(str(error).strip() or type(error).__name__).splitlines()[0]}")
            keep(found, failed, args.out)
    for part in parts(args.cpu, args.quick, args.sizes):
        if part.name in args.only:
            readings, said = run(part, args.seconds)
            found += readings
            failed += [said] if said else []
            keep(found, failed, args.out)
    report.finish(found)
    if failed:
        sys.exit("\n".join(f"FAILED {line}" for line in failed))


def keep(found: list[report.Reading], failed: list[str], path: Path | None) -> None:
    """Write what is known so far, so that a session that ends early loses nothing.

    Args:
        found: readings.
        failed: what went wrong.
        path: of the file; None writes nothing.
    """
    if path is not None:
        known = {"readings": [reading.entry() for reading in found], "failed": failed}
        path.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")


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


def run(part: Part, seconds: float) -> tuple[list[report.Reading], str]:
    """Readings of a command, and what went wrong or nothing; the end of what it said is printed then.

    Args:
        part: the command.
        seconds: after which it is stopped, its workers too.
    """
    shown, start = " ".join(part.command), time.monotonic()
    print(f"\n== {shown}", flush=True)
    command = [sys.executable, str(HERE / part.command[0]), *part.command[1:]]
    ended = run_group(command, seconds)
    failure = f"stopped after {seconds:.0f} s" if ended.status is None else ""
    print(ended.said, end="", flush=True)
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    if ended.status:
        failure = (ended.complaint.strip() or "no word").splitlines()[-1][:200]
    found: list[report.Reading] = []
    if not failure:
        try:
            found = [read(entry) for entry in json.loads(ended.said.strip().splitlines()[-1])]
        except (IndexError, KeyError, TypeError, ValueError):
            failure = "its last line is no list of readings"
    if failure:
        print("\n".join(ended.complaint.strip().splitlines()[-TAIL:]), flush=True)
        return [], f"{shown}: {failure}"
    return found, ""


def read(entry: dict) -> report.Reading:
    """A reading as its own script printed it."""
    names = ("name", "ours", "peer", "goal", "unit", "judged", "lower")
    return report.Reading(**{name: entry[name] for name in names})


if __name__ == "__main__":
    main()
