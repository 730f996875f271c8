"""Real tokens per second of a full pre-training step: ours against stock transformers, in one run.

A step is: collate 64 documents of up to 1,024 tokens (mask .30), forward, backward, clip, optimizer step. Peers, each
in a process of its own and in turn with ours:

* padded: stock ModernBERT (sdpa, `sparse_prediction`), DataCollatorForLanguageModeling, random batches;
* grouped: the same, batches of similar length;
* chunked: the same, documents concatenated and cut to 1,024 (run_mlm's way: leaks between documents).

On CPU the micro size in float32, on CUDA the base size in bfloat16 (`--size`, `--dtype`). Useful FLOPs: 6 a parameter
and token in the layers, attention over the keys a token may see, the head at masked positions only.

    python benchmarks/train_step.py [--quick] [--size micro] [--dtype float32|bfloat16] [--compile]
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

VOCABULARY, MAX_TOKENS, BATCH, MASK = 50_368, 1_024, 64, 0.30
PEERS = {"padded": 5.0, "grouped": 2.5, "chunked": None}


def main() -> None:
    """Measure all contenders in turn and print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two steps a contender instead of seven")
    parser.add_argument("--size")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile for ours")
    parser.add_argument("--batch", type=int, default=BATCH, help="documents a batch")
    parser.add_argument("--data_dir", type=Path)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    args = parser.parse_args()
    import torch

    cuda = torch.cuda.is_available()
    args.size = args.size or ("base" if cuda else "micro")
    args.dtype = args.dtype or ("bfloat16" if cuda else "float32")
    if args.worker:
        print(json.dumps(Worker(args).run()))
        return
    steps = 2 if args.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        rows, source = _tokenise(args, steps + 1, Path(folder))
        readings = {name: _measure(args, name, rows) for name in ("ours", *PEERS)}
    _report(args, readings, source)


def _tokenise(args: argparse.Namespace, batches: int, folder: Path) -> tuple[Path, str]:
    """Token ids of the documents of all batches, and a pool to group by length from, in one file."""
    import product_text

    count = 50 * args.batch
    texts, source = product_text.documents(count, args.data_dir or product_text.DATA_DIR)
    tokenizer = product_text.train_tokenizer(texts, VOCABULARY)
    tokenizer.save_pretrained(folder)
    rows = [ids[: MAX_TOKENS - 1] + ids[-1:] if len(ids) > MAX_TOKENS else ids for ids in tokenizer(texts)["input_ids"]]
    (folder / "rows.json").write_text(json.dumps({"rows": rows, "batches": batches}))
    return folder / "rows.json", source


def _measure(args: argparse.Namespace, name: str, rows: Path) -> dict:
    command = [sys.executable, __file__, "--worker", name, "--rows", str(rows), "--size", args.size]
    command += ["--dtype", args.dtype, "--batch", str(args.batch)] + (["--compile"] if args.compile else [])
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: the worker '{name}' failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _report(args: argparse.Namespace, readings: dict[str, dict], source: str) -> None:
    import torch
    import transformers

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    print(f"train_step: {args.size}, {args.dtype}, {device} ({platform.processor() or platform.machine()})")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    print(f"{args.batch} documents a batch of up to {MAX_TOKENS} tokens, {source}; mask {MASK}; median of the steps")
    for name, reading in readings.items():
        print(
            f"  {name:8s} {reading['tokens_per_second']:12,.0f} real tokens/s   {reading['mfu']:6.1%} of the peak"
            f" ({reading['peak'] / 1e9:,.0f} GFLOP/s)   peak memory {reading['memory'] / 2**30:6.2f} GiB"
            f"   {reading['tokens']:,.0f} tokens a step"
        )
    ours, table = readings["ours"], []

    def row(
        name: str, mine: float, peer: float, ratio: float, goal: float | None, unit: str, below: bool = False
    ) -> None:
        holds = None if goal is None else (ratio <= goal if below else ratio >= goal)
        entry = {"name": name, "ours": mine, "peer": peer, "ratio": ratio, "goal": goal, "unit": unit, "holds": holds}
        table.append({key: round(value, 4) if isinstance(value, float) else value for key, value in entry.items()})

    goals = {**PEERS, "padded": 3.0} if torch.cuda.is_available() else PEERS
    for name in PEERS:
        mine, peer = ours["tokens_per_second"], readings[name]["tokens_per_second"]
        row(f"train_step/{args.size}/{name}", mine, peer, mine / peer, goals[name], "real tokens/s")
    goal = None if torch.cuda.is_available() else 0.5
    row(f"train_step/{args.size}/mfu", ours["mfu"], readings["padded"]["mfu"], ours["mfu"], goal, "share of peak")
    memory = ours["memory"] / readings["padded"]["memory"]
    row(
        f"train_step/{args.size}/memory", ours["memory"], readings["padded"]["memory"], memory, 0.5, "bytes", below=True
    )
    print(json.dumps(table))


class Worker:
    """One contender: builds its model and batches, times its steps."""

    def __init__(self, args: argparse.Namespace) -> None:
        import torch

        self.args, self.torch = args, torch
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = getattr(torch, args.dtype)
        torch.manual_seed(0)
        stored = json.loads(Path(args.rows).read_text())
        self.rows, self.batches = stored["rows"], stored["batches"]
        from transformers import AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(Path(args.rows).parent)
        self.model = self._model().to(self.device).train()
        self.optimizer = self._optimizer()

    def _model(self):
        from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM

        ids = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
        config = RexBertConfig.from_size(self.args.size, vocab_size=VOCABULARY, **ids)
        if self.args.worker == "ours":
            model = RexBertForMaskedLM(config)
            if self.args.compile:
                model.model.layers.compile(dynamic=True)
            return model
        from transformers import ModernBertForMaskedLM

        from rexbert_hf.models.modernbert import modernbert_config

        stock = modernbert_config(config)
        stock.sparse_prediction = True
        return ModernBertForMaskedLM._from_config(stock, attn_implementation="sdpa")

    def _optimizer(self):
        if self.args.worker == "ours":
            from rexbert_hf.training import StableAdamW, parameter_groups

            return StableAdamW(parameter_groups(self.model, 1e-5), lr=1e-4)
        fused = self.device.type == "cuda"
        return self.torch.optim.AdamW(self.model.parameters(), lr=1e-4, weight_decay=1e-5, fused=fused)

    def _batches(self) -> list[list[list[int]]]:
        """Rows of each step."""
        size, count = self.args.batch, self.batches
        if self.args.worker in ("ours", "padded"):
            return [self.rows[i * size : (i + 1) * size] for i in range(count)]
        if self.args.worker == "grouped":
            # Every so many-th of the batches that sorting by length makes; the longest one first, as the warm-up.
            ordered = sorted(self.rows, key=len)
            batches = [ordered[i : i + size] for i in range(0, len(ordered) - size + 1, size)]
            steps = count - 1
            return [batches[-1], *(batches[int((i + 0.5) * len(batches) / steps)] for i in range(steps))]
        joined = [token for row in self.rows for token in row]
        chunks = [joined[i : i + MAX_TOKENS] for i in range(0, len(joined) - MAX_TOKENS + 1, MAX_TOKENS)]
        per_step = max(sum(map(len, self.rows[:size])) // MAX_TOKENS, 1)
        return [chunks[i * per_step : (i + 1) * per_step] for i in range(count)]

    def run(self) -> dict:
        """Time every step but the first; tokens over seconds, summed for the peers whose batches differ in length."""
        torch = self.torch
        if self.device.type == "cpu":
            self._tune(torch)
        collator = self._collator()
        peaks, seconds, tokens, labelled, attended = [matmul_peak(self.device, self.dtype)], [], [], [], []
        for number, rows in enumerate(self._batches()):
            start = time.perf_counter()
            count = self._step(collator, rows)
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            if number:
                seconds.append(time.perf_counter() - start)
                tokens.append(sum(len(row) for row in rows))
                labelled.append(count)
                attended.append(self._attention_flops(rows))
        peaks.append(matmul_peak(self.device, self.dtype))
        # Batches of similar length differ in size: their rate is all tokens over all seconds.
        if self.args.worker == "grouped":
            rate = sum(tokens) / sum(seconds)
        else:
            rate = statistics.median(t / s for t, s in zip(tokens, seconds, strict=True))
        flops = sum(self._flops(t, m) + a for t, m, a in zip(tokens, labelled, attended, strict=True)) / sum(tokens)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated()
        peak = statistics.median(peaks)
        return {
            "tokens_per_second": rate,
            "mfu": rate * flops / peak,
            "peak": peak,
            "memory": memory,
            "tokens": statistics.mean(tokens),
        }

    def _tune(self, torch):
        """Ours: what our trainer does at its start. Stock: denormals are flushed, which its Trainer does not do."""
        if self.args.worker == "ours":
            from rexbert_hf.training.cpu import tune_cpu

            tune_cpu()
        else:
            torch.set_flush_denormal(True)

    def _collator(self):
        if self.args.worker == "ours":
            from rexbert_hf.masking import MLMCollator

            return MLMCollator(self.tokenizer, mlm_probability=MASK, flat=True)
        from transformers import DataCollatorForLanguageModeling

        return DataCollatorForLanguageModeling(self.tokenizer, mlm_probability=MASK)

    def _step(self, collator, rows: list[list[int]]) -> int:
        torch = self.torch
        batch = collator([{"input_ids": row} for row in rows])
        batch = {k: v.to(self.device, non_blocking=True) if hasattr(v, "to") else v for k, v in batch.items()}
        autocast = self.dtype is not torch.float32
        with torch.autocast(self.device.type, self.dtype, enabled=autocast):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return int((batch["labels"] != -100).sum())

    def _flops(self, tokens: int, labelled: int) -> float:
        layers = sum(p.numel() for name, p in self.model.named_parameters() if ".layers." in name and p.dim() == 2)
        hidden = self.model.config.hidden_size
        return 6.0 * (layers * tokens + hidden * (hidden + VOCABULARY) * labelled)

    def _attention_flops(self, rows: list[list[int]]) -> float:
        """12 H a query and visible key (scores and values, forward and backward)."""
        config = self.model.config
        half = config.local_attention // 2
        pairs = 0.0
        for length in map(len, rows):
            local = length * min(2 * half + 1, length)
            if length > half:
                edge = min(half, length - 1)
                local = sum(min(i + half, length - 1) - max(i - half, 0) + 1 for i in range(length)) if edge else 1
            full = sum(kind == "full_attention" for kind in config.layer_types)
            pairs += full * length * length + (len(config.layer_types) - full) * local
        return 12.0 * config.hidden_size * pairs


def matmul_peak(device, dtype, size: int = 0) -> float:
    """FLOP/s of a large square product, median of 15."""
    import torch

    size = size or (8192 if device.type == "cuda" else 2048)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(17):
        if device.type == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / statistics.median(seconds[2:])


if __name__ == "__main__":
    main()
