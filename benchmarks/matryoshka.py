"""What a grid of layers x dimensions costs in a training step, beside a plain step and the released code's way.

A step is: forward and backward of a flat batch, clip, optimizer step; plain and grid take turns on one model. Each row
names size, mask share and grid. `expected` is the ratio of the FLOPs that the mathematics needs (`training.flops`), so
a grid that costs what its products cost has a time of 1 over it. The peer "full logits" has a head and full logits for
each cell, and autograd keeps them all, as in m3BERT's released code; it runs in a process of its own. It is milder than
that code, which takes the logits of all positions, where this peer takes the labelled ones alone (at a mask of .15 a
seventh); and it norms the states in between as our grid does, which that code does not.

    python benchmarks/matryoshka.py [--quick] [--size micro] [--tokens 5500]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

import report
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.training import StableAdamW, parameter_groups
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.flops import FlopCounter, visible_pairs

VOCABULARY, DOCUMENT = 50_368, 86
"""Tokens of a document: the mean of mixed product text."""
GRIDS: dict[str, tuple[list[int], list[int]]] = {
    "micro": ([3, 5, 7], [32, 64, 128, 256]),
    "base": ([8, 15, 22], [32, 64, 128, 768]),
}
MASKS = (0.15, 0.30)
GOAL_EXACT, GOAL_SAMPLED, GOAL_MEMORY = 1.1, 1.6, 1.2
WAYS = ("plain", "grid", "sampled", "full logits")


class Steps:
    """One model and one batch, trained in any of the ways."""

    def __init__(self, size: str, mask: float, tokens: int) -> None:
        tune_cpu()
        torch.manual_seed(0)
        ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
        self.layers, self.dims = GRIDS[size]
        self.model = RexBertForMaskedLM(RexBertConfig.from_size(size, vocab_size=VOCABULARY, **ids)).train()
        self.optimizer = StableAdamW(parameter_groups(self.model, 1e-5), lr=1e-4)
        count = max(1, tokens // DOCUMENT)
        self.borders = torch.arange(0, (count + 1) * DOCUMENT, DOCUMENT, dtype=torch.int32)
        self.ids = torch.randint(5, VOCABULARY, (1, count * DOCUMENT))
        self.labels = torch.where(torch.rand(self.ids.shape) < mask, self.ids, -100)

    def flops(self, way: str) -> int:
        """Forward and backward of a step."""
        self._set(way)
        lengths = self.borders.diff().numpy()
        counter = FlopCounter.from_config(self.model.config)
        pairs = visible_pairs(lengths), visible_pairs(lengths, counter.window)
        return counter.step(int(lengths.sum()), *pairs, int((self.labels != -100).sum()))

    def step(self, way: str) -> float:
        """Make a step; its seconds."""
        self._set(way)
        start = time.perf_counter()
        loss = self._full_logits() if way == "full logits" else self._loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - start

    def _set(self, way: str) -> None:
        config, wanted = self.model.config, way in ("grid", "sampled")
        config.matryoshka_layers = self.layers if wanted else None
        config.matryoshka_dims = self.dims if wanted else None
        config.matryoshka_sample = 3 if way == "sampled" else 0

    def _inputs(self) -> dict[str, Any]:
        return {"input_ids": self.ids, "cu_seq_lens_q": self.borders, "max_length_q": DOCUMENT}

    def _loss(self) -> torch.Tensor:
        return self.model(**self._inputs(), labels=self.labels).loss

    def _full_logits(self) -> torch.Tensor:
        """A head and logits for each cell, of the labelled positions (the released code: of all of them)."""
        encoder, head, decoder = self.model.model, self.model.head, self.model.decoder
        states = encoder(**self._inputs(), output_hidden_states=self.layers).hidden_states
        places = self.labels[0] != -100
        total = torch.zeros(())
        for depth in self.layers:
            hidden = states[depth][0] if depth == self.layers[-1] else encoder.final_norm(states[depth][0])
            for dim in self.dims:
                logits = F.linear(head(hidden[places], dim), decoder.weight[:, :dim], decoder.bias)
                total = total + F.cross_entropy(logits, self.labels[0][places])
        return total


def peak_memory(way: str, size: str, mask: float, tokens: int) -> tuple[float, float]:
    """Peak resident bytes of a process that makes three steps in one way, and the median of the last two's seconds."""
    command = [sys.executable, __file__, "--worker", way, "--size", size, "--mask", str(mask), "--tokens", str(tokens)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  '{way}' at mask {mask} did not end (status {done.returncode}; -9 is out of memory)")
        print(done.stderr[-400:])
        return float("nan"), float("nan")
    told = json.loads(done.stdout.splitlines()[-1])
    return told["memory"], told["seconds"]


def work(args: argparse.Namespace) -> None:
    """What such a process does."""
    steps = Steps(args.size, args.mask, args.tokens)
    seconds = [steps.step(args.worker) for _ in range(3)]
    print(json.dumps({"memory": _peak_bytes(), "seconds": statistics.median(seconds[1:])}))


def _peak_bytes() -> int:
    """Peak resident bytes of this process; `ru_maxrss` would count what its parent held when it was forked."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "three turns instead of seven, mask .30 only")
    parser.add_argument("--size", default="micro", choices=list(GRIDS))
    parser.add_argument("--tokens", type=int, default=5500, help="of a step")
    parser.add_argument("--mask", type=float, default=0.3, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(args)
        return
    layers, dims = GRIDS[args.size]
    report.header("matryoshka", f"{args.size}, layers {layers} x dims {dims}, {args.tokens} tokens a step")
    readings = []
    for mask in MASKS[1:] if args.quick else MASKS:
        readings += measure(args.size, mask, args.tokens, 3 if args.quick else 7)
    report.finish(readings)


def measure(size: str, mask: float, tokens: int, turns: int) -> list[report.Reading]:
    """Readings of one mask share."""
    steps = Steps(size, mask, tokens)
    flops = {way: steps.flops(way) for way in WAYS[:3]}
    seconds: dict[str, list[float]] = {way: [] for way in flops}
    for turn in range(turns + 1):
        for way, taken in seconds.items():
            taken += [steps.step(way)] * (turn > 0)
    # What three cells cost depends on the draw: a mean, where the others are medians.
    took = {way: statistics.median(taken) for way, taken in seconds.items()}
    took["sampled"] = statistics.mean(seconds["sampled"])
    del steps
    memory = {way: peak_memory(way, size, mask, tokens) for way in ("plain", "grid", "full logits")}
    expected = {way: flops[way] / flops["plain"] for way in flops}
    for way in flops:
        print(
            f"{size}, mask {mask:.2f}, {way:8}: {took[way]:.3f} s a step, {took[way] / took['plain']:.2f}x plain, "
            f"FLOPs {expected[way]:.2f}x"
        )
    print(f"  full logits: {memory['full logits'][1]:.3f} s a step in a process of its own")
    layers, dims = (",".join(map(str, side)) for side in GRIDS[size])
    name = f"matryoshka/{size}, mask {mask:.2f}, layers {layers} x dims {dims}"
    cost = took["grid"] / took["plain"]
    return [
        report.Reading(
            f"{name}/grid, time over FLOPs", cost, expected["grid"], GOAL_EXACT, "x a plain step", lower=True
        ),
        report.Reading(
            f"{name}/sampled 3", took["sampled"], took["plain"], GOAL_SAMPLED, "s, peer: plain step", lower=True
        ),
        report.Reading(
            f"{name}/memory", memory["grid"][0], memory["plain"][0], GOAL_MEMORY, "bytes, peer: plain", lower=True
        ),
        report.Reading(f"{name}/full logits, time", took["grid"], memory["full logits"][1], None, "s", lower=True),
        report.Reading(
            f"{name}/full logits, memory", memory["grid"][0], memory["full logits"][0], None, "bytes", lower=True
        ),
    ]


if __name__ == "__main__":
    main()
