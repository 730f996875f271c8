"""Everything that a GPU is for, in one call: checks, then training steps of every size, long documents, encoding.

* checks (`gpu_checks.py`): losses and gradients of flat bfloat16 batches on the device against float32 on the CPU,
  plain and fused; 20 steps of the trainer, with and without a resume; the tests that need CUDA, where pytest is;
* steps of documents of 1,024 tokens, every size (goals for an H100), beside stock transformers padded;
* steps of product text, base, beside stock padded, sdpa and, where flash-attn is installed, flash attention 2;
* documents of 8,192 tokens beside the ratio that the FLOPs predict;
* encoding beside sentence-transformers.

Each check and each part is a process of its own, and gets at most `--seconds` and what is left of `--total`, less a
share for each kind still to come, so that a call of ten minutes has readings of every kind. What fails, is stopped or
finds no time is named, the others go on, and the table and `--out` tell what is known, also after a signal to end.
The exit status is 1 if a part has no readings or a check misses its goal.

Needs torch, transformers, accelerate, pyarrow, numpy and, to encode, sentence-transformers. Texts come from
`--data_dir`, or the data folder beside the checkout, or else the sample shop. Not yet run on a GPU: none was at hand.
`--cpu` runs the same parts at toy sizes without one, to see that they run.

    make bench-gpu GPU_OPTIONS="--out FILE.json"
    PYTHONPATH=src python benchmarks/gpu.py [--quick] [--cpu] [--only checks steps text long encode] [--total 540]
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import torch

import product_text
import report
from processes import run_group

HERE = Path(__file__).resolve().parent
KINDS = ("checks", "steps", "text", "long", "encode")
"""What can be chosen with `--only`, in order of what matters most."""
CHECKS = ("gradients", "fused", "trainer")
"""Of `gpu_checks.py`, wherever they run; "tests" too on a GPU."""
BATCHES = {"micro": 64, "mini": 32, "base": 32, "large": 16}
"""Documents of 1,024 tokens a batch."""
ENCODE = ("--texts", "3000", "--rounds", "3")
"""Fewer than that benchmark's own 20,000 and 5, which would take minutes: stock goes through batches of 32."""
RESERVED, LEAST = 1 / 12, 1 / 36
"""Shares of the total: kept for each kind still to come, and with less than that nothing begins."""
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
TAIL = 20
"""Lines of a failed part's complaint that are shown."""


@dataclass(frozen=True)
class Part:
    """A command with readings in its last line.

    Attributes:
        name: one of `KINDS`.
        command: script of this folder, and its options.
    """

    name: str
    command: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The command as it is named in what is printed."""
        return " ".join(self.command)


def main() -> None:
    """Check, measure and print; the last line on standard output is the readings as JSON."""
    start = time.monotonic()
    parser = report.parser(__doc__, "three steps a contender, few texts")
    parser.add_argument("--cpu", action="store_true", help="toy sizes without a GPU")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--seconds", type=float, default=150.0, help="most for one check or part")
    parser.add_argument("--total", type=float, default=540.0, help="most for all, in seconds")
    parser.add_argument("--out", type=Path, help="a JSON file, written again after each part")
    parser.add_argument("--sizes", nargs="+", choices=list(BATCHES), help="all on a GPU, micro with --cpu")
    parser.add_argument("--data_dir", type=Path, help="with texts in text/shop; carry it, or leave it out")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.cpu:
        sys.exit("error: torch sees no CUDA device: --cpu runs the parts at toy sizes")
    if args.data_dir and not product_text.text_files(args.data_dir):
        sys.exit(f"error: --data_dir {args.data_dir} has no text/shop/*.txt.gz: leave it out for the sample shop")
    known = Known(args.out)
    if trouble := known.keep():
        sys.exit(f"error: --out {trouble}")
    report.header("gpu", "flash-attn is installed" if flash_installed() else "flash-attn is not installed")
    todo = [part for part in parts(args.cpu, args.quick, args.sizes, args.data_dir) if part.name in args.only]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}  # all is made here, and a machine without a network waits for none
    env |= {"CUDA_VISIBLE_DEVICES": ""} if args.cpu else {}
    with interruptible():
        try:
            measure(todo, known, Clock(args.seconds, args.total, start), env)
        finally:
            known.keep()
            report.finish(known.found)
    if known.failed:
        sys.exit("\n".join(f"FAILED {line}" for line in known.failed))


@dataclass
class Known:
    """What a call has found so far.

    Attributes:
        out: a JSON file of it, or None.
        found: readings.
        failed: what went wrong, a line each.
    """

    out: Path | None = None
    found: list[report.Reading] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def keep(self) -> str:
        """Write it, so that a session that ends early loses nothing; what went wrong then, or nothing."""
        if self.out is None:
            return ""
        known = {"readings": [reading.entry() for reading in self.found], "failed": self.failed}
        staged = self.out.with_name(self.out.name + ".part")
        try:
            staged.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
            staged.replace(self.out)
        except OSError as error:
            return f"{self.out}: {error.strerror}"
        return ""


@dataclass(frozen=True)
class Clock:
    """The time that a call has, in seconds.

    Attributes:
        seconds: most for one part.
        total: most for all.
        start: of `time.monotonic`.
    """

    seconds: float
    total: float
    start: float

    def share(self, waiting: Sequence[Part]) -> float:
        """Time for the first of the parts that wait, 0 if too little is left.

        Args:
            waiting: all that are to come.
        """
        later = len({part.name for part in waiting} - {waiting[0].name})
        left = self.start + self.total - time.monotonic() - later * RESERVED * self.total
        return 0.0 if left < LEAST * self.total else min(self.seconds, left)


def measure(todo: Sequence[Part], known: Known, clock: Clock, env: Mapping[str, str] | None = None) -> None:
    """Run the parts, and note readings and what went wrong.

    Args:
        todo: what to run, in order.
        known: gets what comes of it, and is kept after each part.
        clock: what has no share of it is not begun; nor is what comes after a signal.
        env: environment of the parts; by default this script's.
    """
    waiting = list(todo)
    try:
        while waiting:
            if seconds := clock.share(waiting):
                readings, said = run(waiting[0], seconds, env)
                known.found += readings
                known.failed += [said] if said else []
                if waiting[0].name == "checks":
                    known.failed += [f"{one.name}: misses its goal" for one in readings if one.holds is False]
            else:
                known.failed.append(f"{waiting[0].shown}: not begun, no time was left")
            del waiting[0]
            if trouble := known.keep():
                print(f"not written: {trouble}", flush=True)
    except KeyboardInterrupt as error:
        reasons = [f"stopped by {error}", *["not begun"] * len(waiting)]
        known.failed += [f"{part.shown}: {reason}" for part, reason in zip(waiting, reasons, strict=False)]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first signal to end is a KeyboardInterrupt with its name; what comes after it is ignored."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt(signal.Signals(number).name)

    heard = {each: handler for each in ENDING if (handler := signal.getsignal(each)) is not signal.SIG_IGN}
    for each in heard:
        signal.signal(each, interrupt)
    try:
        yield
    finally:
        for each, handler in heard.items():
            signal.signal(each, handler)


def flash_installed() -> bool:
    """Whether the peer with flash attention 2 can run."""
    return importlib.util.find_spec("flash_attn") is not None


def parts(cpu: bool, quick: bool, sizes: Sequence[str] | None, data_dir: Path | None = None) -> Iterator[Part]:
    """The commands, in order of what matters most, so that a short loan measures that.

    Args:
        cpu: toy sizes.
        quick: few steps.
        sizes: of the models; by default all, on a CPU the smallest.
        data_dir: where the text comes from, if not from where the scripts look for it.
    """
    for check in (*CHECKS, *(() if cpu else ("tests",))):
        yield Part("checks", ("gpu_checks.py", check, *(("--cpu",) if cpu else ())))
    short = ("--quick",) if quick or cpu else ()
    texts = ("--data_dir", str(data_dir)) if data_dir else ()
    compiled = () if cpu else ("--compile",)
    peers = ("--peers", "padded", *(("flash",) if flash_installed() and not cpu else ()))
    step = ("train_step.py", *short, *texts, *compiled, *peers)
    for size in sizes or (["micro"] if cpu else BATCHES):
        batch = "2" if cpu else str(BATCHES[size])
        length = ("--max_tokens", "128") if cpu else ()
        yield Part("steps", (*step, "--size", size, "--whole", "--batch", batch, *length))
    main_size = "micro" if cpu else "base"
    mixed = ("--batch", "4", "--max_tokens", "128") if cpu else ("--batch", "64")
    yield Part("text", (*step, "--size", main_size, *mixed))
    batch, length = ("1", "256") if cpu else ("2", "8192")
    yield Part("long", (*step, "--size", main_size, "--whole", "--batch", batch, "--max_tokens", length))
    shape = ("--quick", "--size", "micro", "--texts", "32") if cpu else short or ENCODE
    yield Part("encode", ("encode.py", *shape, *texts))


def run(part: Part, seconds: float, env: Mapping[str, str] | None = None) -> tuple[list[report.Reading], str]:
    """Readings of a command, and what went wrong or nothing; the end of what it said is printed then.

    Args:
        part: the command.
        seconds: after which it is stopped, its workers too.
        env: its environment; by default this script's.
    """
    start = time.monotonic()
    print(f"\n== {part.shown}", flush=True)
    ended = run_group([sys.executable, str(HERE / part.command[0]), *part.command[1:]], seconds, env)
    failure = f"stopped after {seconds:.0f} s" if ended.status is None else ""
    print(ended.said, end="", flush=True)
    print(f"{time.monotonic() - start:.0f} s", flush=True)
    if ended.status:
        failure = (ended.complaint.strip() or f"no word, status {ended.status}").splitlines()[-1][:200]
    found: list[report.Reading] = []
    if not failure:
        try:
            found = [read(entry) for entry in json.loads(ended.said.strip().splitlines()[-1])]
        except (IndexError, KeyError, TypeError, ValueError):
            failure = "its last line is no list of readings"
    if failure:
        print("\n".join(ended.complaint.strip().splitlines()[-TAIL:]), flush=True)
        return [], f"{part.shown}: {failure}"
    return found, ""


def read(entry: dict) -> report.Reading:
    """A reading as its own script printed it."""
    names = ("name", "ours", "peer", "goal", "unit", "judged", "lower")
    return report.Reading(**{name: entry[name] for name in names})


if __name__ == "__main__":
    main()
