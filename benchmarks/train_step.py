"""Real tokens per second of a full pre-training step: ours against stock transformers.

A step is: collate 64 documents of up to 1,024 tokens (mask .30), forward, backward, clip, optimizer step. Peers:

* padded: stock ModernBERT (sdpa, `sparse_prediction`), DataCollatorForLanguageModeling, random batches;
* grouped: the same, batches of similar length;
* chunked: the same, documents concatenated and cut to 1,024 (run_mlm's way: leaks between documents);
* flash: padded, with flash attention 2; on CUDA where flash-attn is installed.

Each peer runs in a process of its own beside one of ours, and the two take turns step by step, so that both see the
same machine. On CUDA all batches are collated before the first step, as loader workers have them ready, and each one is
stepped over once before it is timed: its count of tokens is its own, and its memory comes from the system. On CPU the
micro size in float32, on CUDA the base size in bfloat16 (`--size`, `--dtype`). The useful FLOPs are those of
`rexbert_hf.training.flops`. `--profile` prints where a step of ours goes, and measures nothing else. With `--whole`
every document has `--max_tokens` tokens, so that nothing is padded: what the kernels themselves bring, and, beside it,
what the FLOPs of both say it should be (stock sdpa looks at whole documents in local layers too).

    python benchmarks/train_step.py [--quick] [--size micro] [--dtype float32|bfloat16] [--min_tokens 0] [--profile]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import product_text
import profiling
import report
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.training.compiling import compile_layers
from rexbert_hf.training.flops import FlopCounter, measure_matmul_peak, visible_pairs

VOCABULARY, MAX_TOKENS, BATCH, MASK = 50_368, 1_024, 64, 0.30
WARM_UP = 2
"""Steps that do not count: kernels are chosen, and memory is got from the system; on CUDA all batches once."""
PEERS = {"padded": 5.0, "grouped": 2.5, "chunked": None}
GPU_PEERS = {"padded": 3.0, "flash": 1.6, "grouped": None, "chunked": None}
WHOLE_GOAL = 0.9
"""Of the ratio that the FLOPs predict for documents of equal length."""
H100_RATES = {"micro": 2.0e6, "mini": 0.93e6, "base": 0.55e6, "large": 0.22e6}
"""Goals for an H100 in bfloat16, documents of 1,024 tokens in the batches of `gpu.py`, real tokens a second.

Clipping and StableAdamW pass over each parameter, gradient and moment several times, whatever the batch: counted, 51 GB
a step for large and 19 GB for base, 17 and 6 ms at 3 TB/s. With half as many documents a step large could not reach it.
"""


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, with the size and type of this machine where it names none.

    Args:
        words: of the command line; by default this process's.
    """
    parser = report.parser(__doc__, "three steps a contender instead of seven")
    parser.add_argument("--size")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="ours as trainer.torch_compile makes it")
    parser.add_argument("--batch", type=int, default=BATCH, help="documents a batch")
    parser.add_argument("--min_tokens", type=int, default=0, help="leave out shorter documents")
    parser.add_argument("--max_tokens", type=int, default=MAX_TOKENS, help="cut longer ones")
    parser.add_argument("--whole", action="store_true", help="documents of --max_tokens tokens each")
    parser.add_argument("--peers", nargs="+", choices=list(GPU_PEERS), default=list(PEERS), help="measure only these")
    parser.add_argument("--profile", action="store_true", help="where a step of ours goes")
    parser.add_argument("--data_dir", type=Path, default=product_text.DATA_DIR)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    cuda = torch.cuda.is_available()
    args.size = args.size or ("base" if cuda else "micro")
    args.dtype = args.dtype or ("bfloat16" if cuda else "float32")
    return args


def main() -> None:
    """Measure ours beside each peer and print the table and the JSON line."""
    args = arguments()
    if args.worker:
        serve(Worker(args))
        return
    with tempfile.TemporaryDirectory() as folder:
        args.rows, source = tokenise(args, Path(folder))
        lengths = "" if args.whole else f"{args.min_tokens or 1} to "
        mix = f"{source}, {args.size}, {args.dtype}, {args.batch} documents a batch of"
        report.header("train_step", f"{mix} {lengths}{args.max_tokens} tokens, mask {MASK}")
        if args.profile:
            print(f"\n{profile(args, 'train_step').markdown()}")
            return
        report.finish(readings(args))


def tokenise(args: argparse.Namespace, folder: Path) -> tuple[Path, str]:
    """Token ids of the documents of all batches, and a pool to group by length from, in one file."""
    count = 50 * args.batch
    texts, source = product_text.documents(count if not args.min_tokens else 20 * count, args.data_dir)
    tokenizer = product_text.train_tokenizer(texts[: 4 * count], VOCABULARY)
    tokenizer.save_pretrained(folder)
    most, rows = args.max_tokens, tokenizer(texts)["input_ids"]
    if args.whole:
        rows = whole_rows([token for row in rows for token in row], most, (WARM_UP + 7) * args.batch)
    else:
        rows = [ids[: most - 1] + ids[-1:] if len(ids) > most else ids for ids in rows]
        rows = [row for row in rows if len(row) >= args.min_tokens][:count]
    steps = WARM_UP + (3 if args.quick else 7)
    if len(rows) < steps * args.batch:
        sys.exit(f"error: {len(rows)} documents of {args.min_tokens} tokens or more: lower --min_tokens or --batch")
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "batches": steps}))
    return folder / "rows.json", source


def whole_rows(tokens: list[int], length: int, count: int) -> list[list[int]]:
    """`count` documents of `length` tokens out of a stream, which starts again where it ends."""
    return [[tokens[(i * length + j) % len(tokens)] for j in range(length)] for i in range(count)]


def readings(args: argparse.Namespace) -> list[report.Reading]:
    """Ours beside each peer in turn."""
    found: list[report.Reading] = []
    pairs = {name: _pair(args, name) for name in args.peers}
    goals = GPU_PEERS if torch.cuda.is_available() else PEERS
    label = f"train_step/{args.size}" + (f"/{args.max_tokens}" if args.whole else "")
    for name, (mine, theirs) in pairs.items():
        goal = goals.get(name)
        if args.whole:
            predicted = predicted_ratio(args, name)
            goal = WHOLE_GOAL * predicted
            print(f"{name}: the FLOPs say {predicted:.2f}x")
        found.append(report.Reading(f"{label}/{name}", mine["rate"], theirs["rate"], goal, "real tokens/s"))
        print(
            f"{name}: ours {mine['mfu']:.1%} of the peak of {mine['peak'] / 1e9:,.0f} GFLOP/s, the peer"
            f" {theirs['mfu']:.1%}; {theirs['fill']:.1%} of the peer's slots hold a token; peak memory"
            f" {mine['memory'] / 2**30:.2f} and {theirs['memory'] / 2**30:.2f} GiB"
        )
    shares = [mine["mfu"] for mine, _ in pairs.values()]
    goal = None if torch.cuda.is_available() else 0.5
    mine, theirs = next(iter(pairs.values()))
    found.append(
        report.Reading(f"{label}/mfu", statistics.median(shares), theirs["mfu"], goal, "share of peak", "ours")
    )
    if args.whole and args.max_tokens == MAX_TOKENS and "H100" in report.hardware():
        goal = H100_RATES.get(args.size)
        found.append(report.Reading(f"{label}/rate", mine["rate"], None, goal, "real tokens/s", "ours"))
    return [*found, report.Reading(f"{label}/memory", mine["memory"], theirs["memory"], 0.5, "bytes", lower=True)]


def predicted_ratio(args: argparse.Namespace, peer: str) -> float:
    """Stock's FLOPs over ours for documents of equal length: its sdpa sees whole documents in every layer."""
    counter = FlopCounter.from_config(RexBertConfig.from_size(args.size, vocab_size=VOCABULARY, pad_token_id=0))
    lengths, predicted = np.full(args.batch, args.max_tokens), round(MASK * args.batch * args.max_tokens)
    every, near = visible_pairs(lengths), visible_pairs(lengths, counter.window)
    tokens = int(lengths.sum())
    theirs = counter.step(tokens, every, near if peer == "flash" else every, predicted)
    return theirs / counter.step(tokens, every, near, predicted)


def _pair(args: argparse.Namespace, peer: str) -> tuple[dict, dict]:
    """Both contenders' results, from processes that step in turn."""
    both = [_start(args, name) for name in ("ours", peer)]
    results: dict[int, dict] = {}
    while len(results) < len(both):
        for i, process in enumerate(both):
            if i in results:
                continue
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("step\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                sys.exit(f"error: the worker '{('ours', peer)[i]}' failed (see above; without a word, out of memory)")
            if line.startswith("{"):
                results[i] = json.loads(line)
    for process in both:
        process.wait()
    return results[0], results[1]


def _start(args: argparse.Namespace, name: str) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--worker", name, "--rows", str(args.rows), "--size", args.size]
    command += ["--dtype", args.dtype, "--batch", str(args.batch), "--max_tokens", str(args.max_tokens)]
    command += ["--compile"] if args.compile else []
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def serve(worker: Worker) -> None:
    """Make one step for each line that comes in; after the last one print the result."""
    for turn in range(len(worker.turns)):
        input()
        worker.step(turn)
        print(json.dumps(worker.result()) if turn == len(worker.turns) - 1 else "done", flush=True)


def turns(steps: int, device: str) -> tuple[list[int], int]:
    """Numbers of the batches in the order of their steps, and how many of these warm up.

    Args:
        steps: batches that there are, the first `WARM_UP` never timed.
        device: type; "cuda" steps over all batches before it times any.
    """
    once = list(range(steps))
    return (once + once[WARM_UP:], steps) if device == "cuda" else (once, WARM_UP)


def profile(args: argparse.Namespace, name: str) -> profiling.Profile:
    """Where a step of ours goes.

    Args:
        args: with the rows that `tokenise` made.
        name: of the profile.
    """
    args.worker = "ours"
    worker = Worker(args)
    for turn in range(worker.uncounted):
        worker.step(turn)
    repeats = len(worker.turns) - worker.uncounted
    unit = f"a step over {args.batch} documents, {args.size}, {args.dtype}"
    return profiling.of_torch(name, unit, lambda i: worker.step(worker.uncounted + i), repeats, worker.device.type)


class Worker:
    """One contender: its model, its batches and the time of its steps."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.name = args, args.worker
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, args.dtype)
        torch.manual_seed(0)
        stored = json.loads(args.rows.read_text())
        self.rows, self.steps = stored["rows"], stored["batches"]
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(args.rows.parent, trust_remote_code=False)
        self._tune()
        self.model = self._model().to(self.device).train()
        self.flops = FlopCounter.from_config(self.model.config)
        self.optimizer = self._optimizer()
        self.collator = self._collator()
        self.batches = self._batches()
        self.turns, self.uncounted = turns(self.steps, self.device.type)
        self.ready = [self._collate(rows) for rows in self.batches] if self.device.type == "cuda" else []
        self.seconds: list[float] = []
        self.tokens: list[int] = []
        self.useful: list[float] = []
        self.slots = 0
        self.peaks = [measure_matmul_peak(self.dtype, self.device)]

    def _tune(self) -> None:
        """Ours: what our trainer does at its start. Stock: denormals are flushed, which its Trainer does not do."""
        if self.name == "ours":
            from rexbert_hf.training.cpu import tune_cpu

            tune_cpu()
        else:
            torch.set_flush_denormal(True)

    def _model(self) -> torch.nn.Module:
        ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
        config = RexBertConfig.from_size(self.args.size, vocab_size=VOCABULARY, **ids)
        if self.name == "ours":
            model = RexBertForMaskedLM(config)
            if self.args.compile and not compile_layers(model, self.device):
                raise SystemExit("error: --compile: nothing can be compiled here (see above)")
            return model
        from transformers import ModernBertForMaskedLM

        from rexbert_hf.models.modernbert import modernbert_config

        stock = modernbert_config(config)
        stock.sparse_prediction = True
        kernel = "flash_attention_2" if self.name == "flash" else "sdpa"
        return ModernBertForMaskedLM._from_config(stock, attn_implementation=kernel)

    def _optimizer(self) -> torch.optim.Optimizer:
        if self.name == "ours":
            from rexbert_hf.training import StableAdamW, parameter_groups

            return StableAdamW(parameter_groups(self.model, 1e-5), lr=1e-4)
        # Fused, which is the default of transformers' Trainer, on CPUs too.
        return torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-5, fused=True)

    def _collator(self) -> Any:
        if self.name == "ours":
            from rexbert_hf.masking import MLMCollator

            return MLMCollator(self.tokenizer, mlm_probability=MASK, flat=True)
        from transformers import DataCollatorForLanguageModeling

        return DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=MASK)

    def _batches(self) -> list[list[list[int]]]:
        """Rows of each step."""
        size, count = self.args.batch, self.steps
        if self.name in ("ours", "padded", "flash"):
            return [self.rows[i * size : (i + 1) * size] for i in range(count)]
        if self.name == "grouped":
            # Every so many-th of the batches that sorting by length makes; the longest one first, as the warm-up.
            ordered = sorted(self.rows, key=len)
            batches = [ordered[i : i + size] for i in range(0, len(ordered) - size + 1, size)]
            steps = count - WARM_UP
            return [*[batches[-1]] * WARM_UP, *(batches[int((i + 0.5) * len(batches) / steps)] for i in range(steps))]
        joined, most = [token for row in self.rows for token in row], self.args.max_tokens
        chunks = [joined[i : i + most] for i in range(0, len(joined) - most + 1, most)]
        per_step = max(sum(map(len, self.rows[:size])) // most, 1)
        return [chunks[i * per_step : (i + 1) * per_step] for i in range(count)]

    def step(self, turn: int) -> None:
        """Make the step of a turn and note its time, unless it warms up."""
        number = self.turns[turn]
        rows = self.batches[number]
        start = time.perf_counter()
        labelled, slots = self._train(rows, number)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        if turn < self.uncounted:
            return
        lengths = np.array([len(row) for row in rows])
        self.seconds.append(time.perf_counter() - start)
        self.tokens.append(int(lengths.sum()))
        self.slots += slots
        # A chunk counts as one document: what the peer's own model of the text needs.
        pairs = visible_pairs(lengths), visible_pairs(lengths, self.flops.window)
        self.useful.append(self.flops.step(self.tokens[-1], *pairs, labelled))

    def _collate(self, rows: list[list[int]]) -> dict[str, Any]:
        with torch.profiler.record_function("collate"):
            batch: dict[str, Any] = self.collator([{"input_ids": row} for row in rows])
        return batch

    def _train(self, rows: list[list[int]], number: int) -> tuple[int, int]:
        batch = self.ready[number] if self.ready else self._collate(rows)  # on CPU it takes the step's time
        batch = {k: v.to(self.device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return int((batch["labels"] != -100).sum()), batch["input_ids"].numel()

    def result(self) -> dict[str, float]:
        """Rate in real tokens a second, share of the matmul peak, peak memory, fill of the batches."""
        self.peaks.append(measure_matmul_peak(self.dtype, self.device))
        # Batches of similar length differ in size: their rate is all tokens over all seconds.
        if self.name == "grouped":
            rate = sum(self.tokens) / sum(self.seconds)
        else:
            rate = statistics.median(t / s for t, s in zip(self.tokens, self.seconds, strict=True))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated()
        peak = max(self.peaks)
        useful = rate * sum(self.useful) / sum(self.tokens)
        fill = sum(self.tokens) / self.slots
        return {"rate": rate, "mfu": useful / peak, "peak": peak, "memory": memory, "fill": fill}


if __name__ == "__main__":
    main()
