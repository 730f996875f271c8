"""How full batches are and how fast any step is found, beside the stock ways.

    python benchmarks/packing.py [--quick]

Fill: product text of ../shared/data (the same number of documents from each file; log-normal lengths when it is not
there), sequences of up to 1,024 tokens, micro-batches of 8k to 64k tokens. Peers on the same documents: random padded
batches of 64, batches of 64 grouped by length as the stock Trainer groups them, and concatenate-and-chunk as run_mlm
does it, which is full but cuts documents and lets them see each other.

Seek: from nothing but a tokenised table of 10 million documents (1.1 billion tokens, a sparse file) to the rows of a
micro-batch at a random step. The peer only finds its place again: torch's RandomSampler and BatchSampler, skipped to
the same share of an epoch.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import transformers
from torch.utils.data import BatchSampler, RandomSampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from product_text import DATA_DIR, documents, train_tokenizer
from rexbert_hf.data import CurriculumDataset, CurriculumSampler, PhaseOrder, TokenisedDataset, pack, tokenise

SEQ_LENGTH = 1024
MICRO_BATCHES = 8
BATCH_DOCUMENTS = 64
CAPACITIES = (8192, 16384, 32768, 65536)
REPEATS = 5
Reading = dict[str, Any]


def product_store(count: int) -> tuple[TokenisedDataset, str]:
    """Tokenised product text, or token-less rows of log-normal lengths."""
    if not (DATA_DIR / "text" / "shop").exists():
        rng = np.random.default_rng(0)
        lengths = np.clip(rng.lognormal(3.8, 1.0, count), 3, 5000).astype(np.int32)
        return TokenisedDataset(_table(lengths, np.zeros(int(lengths.sum()), np.int32))), "log-normal lengths"
    texts, source = documents(count)
    return tokenise(texts, train_tokenizer(texts[:4000], 16_384)), source


def _table(lengths: np.ndarray, values: np.ndarray) -> pa.Table:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=offsets[1:])
    return pa.table({"input_ids": pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))})


def median_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median time of `work` after one call that does not count."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def padded(lengths: np.ndarray, order: np.ndarray) -> float:
    """Fill of padded batches of 64 documents in `order`."""
    batches = [lengths[order[i : i + BATCH_DOCUMENTS]] for i in range(0, len(order), BATCH_DOCUMENTS)]
    return sum(int(b.sum()) for b in batches) / sum(len(b) * int(b.max()) for b in batches)


def stock_fills(lengths: np.ndarray) -> dict[str, tuple[float, float, float]]:
    """(fill, share of tokens lost, share of documents cut) of the stock ways."""
    short = np.minimum(lengths, SEQ_LENGTH)
    lost = float((lengths - short).sum() / lengths.sum())
    cut = float((lengths > SEQ_LENGTH).mean())
    rng = np.random.default_rng(0)
    random_fill = statistics.median(padded(short, rng.permutation(len(short))) for _ in range(REPEATS))
    generator = torch.Generator().manual_seed(0)
    grouped_fill = statistics.median(
        padded(short, np.array(get_length_grouped_indices(short.tolist(), BATCH_DOCUMENTS, generator=generator)))
        for _ in range(REPEATS)
    )
    # run_mlm joins 1,000 documents at a time and drops what is left of each thousand.
    tails = cuts = 0
    for first in range(0, len(lengths), 1000):
        ends = np.cumsum(lengths[first : first + 1000])
        tails += int(ends[-1] % SEQ_LENGTH)
        cuts += int(((ends - lengths[first : first + 1000]) // SEQ_LENGTH != (ends - 1) // SEQ_LENGTH).sum())
    return {
        "random padded": (random_fill, lost, cut),
        "length-grouped padded": (grouped_fill, lost, cut),
        "concatenate and chunk": (1.0, tails / float(lengths.sum()), cuts / len(lengths)),
    }


def measure_fill(store: TokenisedDataset, steps: int) -> list[Reading]:
    """Fill and dropped share by micro-batch size, beside the stock ways."""
    lengths = store.lengths.astype(np.int64)
    peers = stock_fills(lengths)
    print(f"\n{'':32s}{'fill':>9s}{'lost':>10s}{'documents cut':>15s}")
    for name, (fill, lost, cut) in peers.items():
        print(f"{name:32s}{fill:9.2%}{lost:10.3%}{cut:15.2%}")
    readings = []
    for capacity in CAPACITIES:
        budget = steps * MICRO_BATCHES * capacity
        reports = []
        for seed in range(REPEATS):
            order = PhaseOrder(
                {"s": store}, None, SEQ_LENGTH, MICRO_BATCHES * capacity, MICRO_BATCHES, budget, seed=seed
            )
            reports.append(order.report())
        fill = statistics.median(report.fill for report in reports)
        lost = statistics.median(report.dropped_share for report in reports)
        cut = statistics.median(report.split_documents / report.documents for report in reports)
        print(f"{f'packed, {capacity} tokens':32s}{fill:9.2%}{lost:10.4%}{cut:15.2%}   load {order.load:.4f}")
        for peer in ("random padded", "length-grouped padded"):
            readings.append(reading(f"packing/fill/{capacity}/{peer}", fill, peers[peer][0], 0.99, "share of slots"))
        lost_reading = reading(f"packing/dropped/{capacity}", lost, peers["random padded"][1], 0.001, "share of tokens")
        readings.append({**lost_reading, "ratio": None, "holds": lost <= 0.001})
    return readings


def reading(name: str, ours: float, peer: float | None, goal: float, unit: str) -> Reading:
    """One line of the result; holds when ours is at least the goal."""
    ratio = None if not peer else round(ours / peer, 2)
    peer = None if peer is None else round(peer, 5)
    return {"name": name, "ours": round(ours, 5), "peer": peer, "ratio": ratio, "goal": goal, "unit": unit} | {
        "holds": ours >= goal
    }


def measure_speed(store: TokenisedDataset) -> list[Reading]:
    """Documents packed a second, and tokens a second from keys to rows, order and packing included."""
    lengths = np.minimum(np.tile(store.lengths, -(-40_000 // len(store)))[:40_000], SEQ_LENGTH)
    bins = int(lengths.sum()) // 32768 + 1
    rate = len(lengths) / median_seconds(lambda: pack(lengths, 32768, bins, spread=0.9))
    tokens = 3_000_000

    def read() -> None:
        order = PhaseOrder({"s": store}, None, SEQ_LENGTH, 4 * 32768, 4, tokens)
        dataset = CurriculumDataset([order], {"s": store})
        for keys in CurriculumSampler([order]):
            dataset.__getitems__(keys)

    speed = tokens / median_seconds(read)
    print(f"\npack: {rate / 1e3:,.0f}k documents/s;  order + pack + gather: {speed / 1e6:.1f} M tokens/s")
    return [
        reading("packing/pack", rate, None, 500_000, "documents/s"),
        reading("packing/order_and_gather", speed, None, 10_000_000, "tokens/s"),
    ]


def measure_seek(num_documents: int) -> list[Reading]:
    """Seconds from a table of `num_documents` to the rows of a micro-batch at a random step."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.1, 1.1, num_documents), 3, 20_000).astype(np.int32)
    with tempfile.TemporaryDirectory() as folder:
        sparse = np.memmap(Path(folder) / "tokens", np.int32, "w+", shape=int(lengths.sum()))
        table = _table(lengths, sparse)
        spots = iter(rng.random(2 * REPEATS + 2))

        def ours() -> None:
            store = TokenisedDataset(table)
            order = PhaseOrder({"s": store}, None, SEQ_LENGTH, 8 * 32768, 8, 3 * store.num_tokens)
            dataset = CurriculumDataset([order], {"s": store})
            dataset[int(next(spots) * order.num_steps), 3]

        def peer() -> None:
            skip = int(next(spots) * num_documents / BATCH_DOCUMENTS)
            next(islice(BatchSampler(RandomSampler(range(num_documents)), BATCH_DOCUMENTS, False), skip, None))

        seconds, stock = median_seconds(ours), median_seconds(peer)

        rows = Path(folder) / "rows"
        TokenisedDataset(_table(np.full(num_documents, 2), np.zeros(2 * num_documents, np.int32))).save(rows)
        opened = median_seconds(lambda: TokenisedDataset.load(rows).lengths)
    print(f"\n{num_documents:,} documents, {lengths.sum():,} tokens")
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    print(
        f"to the first batch at a random step: {seconds:.2f} s; stock samplers skipped to it: {stock:.2f} s "
        f"(load average {load})"
    )
    print(f"opening a folder of as many rows and reading all lengths: {opened:.3f} s")
    result = {"name": "packing/seek", "ours": round(seconds, 3), "peer": round(stock, 3)}
    result |= {"ratio": round(stock / seconds, 2), "goal": 2.0, "unit": "seconds", "holds": seconds < 2.0}
    return [result]


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the text and of the index")
    args = parser.parse_args()
    torch.set_num_threads(1)
    store, source = product_store(6_000 if args.quick else 30_000)
    print(
        f"{datetime.date.today()}  {processor()}, 1 thread\n"
        f"python {platform.python_version()}, numpy {np.__version__}, pyarrow {pa.__version__}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}\n"
        f"{source}: {len(store)} documents, {store.num_tokens} tokens, longest {store.lengths.max()}"
    )
    readings = measure_fill(store, steps=50) + measure_speed(store)
    readings += measure_seek(2_000_000 if args.quick else 10_000_000)
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
