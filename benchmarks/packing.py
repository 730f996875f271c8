"""How full batches are and how fast any step is found, beside the stock ways.

    python benchmarks/packing.py [--quick]

Fill: product text of ../shared/data (the same number of documents from each file; log-normal lengths when it is not
there), sequences of up to 1,024 tokens, micro-batches of 8k to 64k tokens. Peers on the same documents: random padded
batches of 64, batches of 64 grouped by length as the stock Trainer groups them, and concatenate-and-chunk as run_mlm
does it, which is full but cuts documents and lets them see each other.

Long documents: novels joined to about the sequence length of 8,192 tokens and a tenth of short texts, two sequences a
micro-batch of one, as the extension phase of recipes/configs/real_catalog.yaml has it, in phases of 50 to 500 steps.

Seek: from nothing but a tokenised table of 10 million documents (1.1 billion tokens, a sparse file) to the rows of a
micro-batch at a random step. The peer only finds its place again: torch's RandomSampler and BatchSampler, skipped to
the same share of an epoch.
"""

from __future__ import annotations

import statistics
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch.utils.data import BatchSampler, RandomSampler
from transformers.trainer_pt_utils import get_length_grouped_indices

import report
from product_text import DATA_DIR, documents, train_tokenizer
from rexbert_hf.data import CurriculumDataset, CurriculumSampler, PhaseOrder, TokenisedDataset, pack, tokenise
from rexbert_hf.pretraining import SourceSettings
from rexbert_hf.pretraining.sources import read_source

SEQ_LENGTH = 1024
MICRO_BATCHES = 8
BATCH_DOCUMENTS = 64
CAPACITIES = (8192, 16384, 32768, 65536)
REPEATS = 5
SEEDS = 12
LONG_BUDGETS = (800_000, 1_600_000, 3_200_000, 8_000_000)


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


def measure_fill(store: TokenisedDataset, steps: int) -> list[report.Reading]:
    """Fill and dropped share by micro-batch size, beside the stock ways."""
    lengths = store.lengths.astype(np.int64)
    peers = stock_fills(lengths)
    print(f"\n{'':32s}{'fill':>9s}{'lost':>10s}{'documents cut':>15s}")
    for name, (fill, lost, cut) in peers.items():
        print(f"{name:32s}{fill:9.2%}{lost:10.3%}{cut:15.2%}")
    readings = []
    for capacity in CAPACITIES:
        budget = steps * MICRO_BATCHES * capacity
        plans = []
        for seed in range(REPEATS):
            order = PhaseOrder(
                {"s": store}, None, SEQ_LENGTH, MICRO_BATCHES * capacity, MICRO_BATCHES, budget, seed=seed
            )
            plans.append(order.report())
        fill = statistics.median(plan.fill for plan in plans)
        lost = statistics.median(plan.dropped_share for plan in plans)
        cut = statistics.median(plan.split_documents / plan.documents for plan in plans)
        print(f"{f'packed, {capacity} tokens':32s}{fill:9.2%}{lost:10.4%}{cut:15.2%}   load {order.load:.4f}")
        for peer in ("random padded", "length-grouped padded"):
            title, unit = f"packing/fill/{capacity}/{peer}", "share of slots"
            readings.append(report.Reading(title, fill, peers[peer][0], 0.99, unit, judged="ours"))
        title, stock, unit = f"packing/dropped/{capacity}", peers["random padded"][1], "share of tokens"
        readings.append(report.Reading(title, lost, stock, 0.001, unit, judged="ours", lower=True))
    return readings


def long_sources(count: int) -> dict[str, np.ndarray]:
    """Lengths of joined novels and short texts; drawn at random where the text is not there."""
    general = DATA_DIR / "text" / "general"
    if not general.exists():
        rng = np.random.default_rng(0)
        joined = np.where(rng.random(count) < 0.75, rng.normal(8600, 300, count), rng.integers(8700, 14_000, count))
        return {"long": joined.astype(np.int32), "short": rng.lognormal(4.5, 0.9, 10 * count).astype(np.int32) + 3}
    novels = read_source(SourceSettings(path=str(general / "gen_novels.txt.gz"), join_words=6500))
    wiki = read_source(SourceSettings(path=str(general / "gen_squad_wiki_reddit.txt.gz")))
    texts = {"long": list(novels["text"])[:count], "short": list(wiki["text"])}
    tokenizer = train_tokenizer(texts["long"][:200] + texts["short"], 16_384)
    return {name: tokenise(found, tokenizer).lengths for name, found in texts.items()}


def measure_long(quick: bool) -> list[report.Reading]:
    """Fill and dropped share of phases of long documents, over 12 seeds."""
    sources, readings = long_sources(200 if quick else 800), []
    lengths = sources["long"]
    print(f"\nlong documents: {len(lengths)}, median {np.median(lengths):.0f} tokens; {SEEDS} seeds a phase")
    print(f"{'':32s}{'fill':>9s}{'lost':>10s}{'least fill':>15s}   (lost: the worst seed)")
    for budget in LONG_BUDGETS:
        plans = [
            PhaseOrder(sources, {"long": 0.9, "short": 0.1}, 8192, 16_384, 1, budget, seed=seed).report()
            for seed in range(SEEDS)
        ]
        fill, lost = statistics.median(plan.fill for plan in plans), max(plan.dropped_share for plan in plans)
        least = min(plan.fill for plan in plans)
        print(f"{f'{budget:,} tokens':32s}{fill:9.2%}{lost:10.4%}{least:15.2%}")
        name = f"packing/long/{budget}"
        readings.append(report.Reading(f"{name}/fill", fill, None, 0.99, "share of slots", judged="ours"))
        readings.append(report.Reading(f"{name}/dropped", lost, None, 0.001, "of tokens", judged="ours", lower=True))
    return readings


def measure_speed(store: TokenisedDataset) -> list[report.Reading]:
    """Documents packed a second, and tokens a second from keys to rows, order and packing included."""
    lengths = np.minimum(np.tile(store.lengths, -(-40_000 // len(store)))[:40_000], SEQ_LENGTH)
    bins = int(lengths.sum()) // 32768 + 1
    rate = len(lengths) / report.median_seconds(lambda: pack(lengths, 32768, bins, spread=0.9))
    tokens = 3_000_000

    def read() -> None:
        order = PhaseOrder({"s": store}, None, SEQ_LENGTH, 4 * 32768, 4, tokens)
        dataset = CurriculumDataset([order], {"s": store})
        for keys in CurriculumSampler([order]):
            dataset.__getitems__(keys)

    speed = tokens / report.median_seconds(read)
    print(f"\npack: {rate / 1e3:,.0f}k documents/s;  order + pack + gather: {speed / 1e6:.1f} M tokens/s")
    return [
        report.Reading("packing/pack", rate, goal=500_000, unit="documents/s", judged="ours"),
        report.Reading("packing/order_and_gather", speed, goal=10_000_000, unit="tokens/s", judged="ours"),
    ]


def measure_seek(num_documents: int) -> list[report.Reading]:
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

        seconds, stock = report.median_seconds(ours), report.median_seconds(peer)

        rows = Path(folder) / "rows"
        TokenisedDataset(_table(np.full(num_documents, 2), np.zeros(2 * num_documents, np.int32))).save(rows)
        opened = report.median_seconds(lambda: TokenisedDataset.load(rows).lengths)
    print(f"\n{num_documents:,} documents, {lengths.sum():,} tokens")
    print(f"opening a folder of as many rows and reading all lengths: {opened:.3f} s")
    return [report.Reading("packing/seek", seconds, stock, 2.0, "seconds", judged="ours", lower=True)]


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a fifth of the text and of the index").parse_args()
    torch.set_num_threads(1)
    store, source = product_store(6_000 if args.quick else 30_000)
    source = f"{source}: {len(store)} documents, {store.num_tokens} tokens, longest {store.lengths.max()}"
    report.header("packing", source, ["numpy", "pyarrow", "torch", "transformers"])
    readings = measure_fill(store, steps=50) + measure_long(args.quick) + measure_speed(store)
    readings += measure_seek(2_000_000 if args.quick else 10_000_000)
    report.finish(readings)


if __name__ == "__main__":
    main()
