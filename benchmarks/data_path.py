"""Tokens a second from text to masked batches, by core and with two workers, and how fast a resumed run starts.

    python benchmarks/data_path.py [--quick]

Text is tokenised once (`tokenise`, rows of Arrow), then packed, gathered and masked at every step by loader workers.
Both parts are measured with one worker process and with two; what they come to on eight cores is extrapolated: each
doubling keeps the share that the step from one to two kept. What a loop that shares nothing gains by a second process
is measured beside it, because two processors of a rented machine may be one core. The peer is the stock way: the fast
tokenizer through `datasets.map`, then `DataCollatorForLanguageModeling` over padded batches. Beside it ours reads the
same texts, both in one process from the first text to the last batch.

Resuming is measured on a synthetic index of a billion tokens: from stores and settings to the first batch that a loader
worker hands over at a random step.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, disable_progress_bars
from torch.utils.data import DataLoader
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

import report
from product_text import documents, train_tokenizer
from rexbert_hf.data import tokenise
from rexbert_hf.data.loader import CurriculumDataset, CurriculumSampler
from rexbert_hf.data.order import PhaseOrder
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import MLMCollator

VOCABULARY, MASK, SEQ_LENGTH, MICRO_TOKENS = 30_000, 0.3, 1024, 16_384
CORES = 8
ALL, QUICK, STOCK = 10_000_000, 200_000, 40_000
"""Texts of a reading, of a quick one, and of ours beside the stock peer. With fewer than QUICK the start of a second
worker, half a second, hides what it adds."""
GOAL_TOKENS, GOAL_RESUME = 4e6, 2.0
BILLION = 1_000_000_000


def tokenise_rate(texts: list[str], tokenizer: PreTrainedTokenizerFast, workers: int, repeats: int) -> float:
    """Tokens a second from text to Arrow rows on disk; workers start within the time, and each has one thread."""
    rates = []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            store = tokenise(texts, tokenizer, folder, num_proc=workers, fingerprint="x")
            rates.append(store.num_tokens / (time.perf_counter() - start))
    return float(np.median(rates))


def batch_rate(store: TokenisedDataset, tokenizer: PreTrainedTokenizerFast, workers: int, tokens: int) -> float:
    """Tokens a second from rows to masked flat batches through a `DataLoader`; its start does not count."""
    order = PhaseOrder({"s": store}, None, SEQ_LENGTH, MICRO_TOKENS, 1, tokens)
    loader = DataLoader(
        CurriculumDataset([order], {"s": store}),  # type: ignore[arg-type]
        batch_sampler=CurriculumSampler([order]),
        collate_fn=MLMCollator(tokenizer, MASK, flat=True),
        num_workers=workers,
        prefetch_factor=8,
    )
    batches = iter(loader)
    for _ in range(1 + 8 * workers):  # what workers made before the clock started
        next(batches)
    done, start = 0, time.perf_counter()
    for batch in batches:
        done += batch["input_ids"].numel()
    return done / (time.perf_counter() - start)


def one_process_rate(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Tokens a second from text to masked flat batches without any worker; every token counts once."""
    with tempfile.TemporaryDirectory() as folder:
        start, done = time.perf_counter(), 0
        store = tokenise(texts, tokenizer, folder, num_proc=1, fingerprint="x")
        order = PhaseOrder({"s": store}, None, SEQ_LENGTH, MICRO_TOKENS, 1, store.num_tokens)
        rows = CurriculumDataset([order], {"s": store})
        sampler, collator = CurriculumSampler([order]), MLMCollator(tokenizer, MASK, flat=True)
        for batch in DataLoader(rows, batch_sampler=sampler, collate_fn=collator):  # type: ignore[arg-type]
            done += batch["input_ids"].numel()
        return done / (time.perf_counter() - start)


def stock_rate(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> float:
    """Real tokens a second of the stock way, one process."""
    tokenizer.model_max_length = SEQ_LENGTH
    start = time.perf_counter()
    rows = Dataset.from_dict({"text": texts}).map(
        lambda batch: tokenizer(batch["text"], truncation=True, return_special_tokens_mask=True),
        batched=True,
        remove_columns=["text"],
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MASK)
    tokens = 0
    for batch in DataLoader(rows, batch_size=64, shuffle=True, collate_fn=collator):  # type: ignore[arg-type]
        tokens += int(batch["attention_mask"].sum())
    return tokens / (time.perf_counter() - start)


def loop_rate(seconds: float) -> float:
    """Rounds a second of a loop in the processor's own cache."""
    rounds, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        sum(range(10_000))
        rounds += 1
    return rounds / passed


def machine_scaling(repeats: int, seconds: float = 1.0) -> report.Reading:
    """What a second process brings here at best: two that share nothing, beside one."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.map(loop_rate, [0.1, 0.1], chunksize=1)  # both have started
        ones, twos = [], []
        for _ in range(repeats):
            ones.append(pool.apply(loop_rate, (seconds,)))
            twos.append(sum(pool.map(loop_rate, [seconds, seconds], chunksize=1)))
    one, two = float(np.median(ones)), float(np.median(twos))
    print(f"the machine: a loop that shares nothing runs {two / one:.2f} times as often in two processes")
    return report.Reading("data_path/machine/2", two, one, None, "rounds/s")


def extrapolated(one: float, two: float, cores: int = CORES) -> tuple[float, float]:
    """Rate on so many cores, and the share of a doubling that is kept (at most all of it).

    Args:
        one: rate with one worker.
        two: rate with two.
        cores: a power of two.
    """
    kept = min(1.0, two / (2 * one))
    return one * (2 * kept) ** math.log2(cores), kept


def measure_rates(texts: list[str], tokenizer: PreTrainedTokenizerFast, quick: bool) -> list[report.Reading]:
    """Both parts and the whole path."""
    repeats, budget = (1 if quick else 5), 40_000_000
    store = tokenise(texts, tokenizer)
    parts: dict[str, Callable[[int], float]] = {
        "tokenise": lambda workers: tokenise_rate(texts, tokenizer, workers, repeats),
        "pack_and_mask": lambda workers: batch_rate(store, tokenizer, workers, budget),
    }
    readings, at_eight = [machine_scaling(5)], 0.0
    for name, rate in parts.items():
        one, two = rate(1), rate(2)
        many, kept = extrapolated(one, two)
        print(f"{name}: 1 worker {one / 1e6:.2f} M/s, 2 workers {two / 1e6:.2f} M/s ({kept:.0%} of a doubling kept)")
        readings.append(report.Reading(f"data_path/{name}/1", one, unit="tokens/s"))
        readings.append(report.Reading(f"data_path/{name}/2", two, one, None, "tokens/s"))
        readings.append(report.Reading(f"data_path/{name}/{CORES} extrapolated", many, unit="tokens/s"))
        at_eight += 1 / many
    same = texts[:STOCK]
    ours = float(np.median([one_process_rate(same, tokenizer) for _ in range(repeats)]))
    stock = float(np.median([stock_rate(same, tokenizer) for _ in range(repeats)]))
    readings.append(report.Reading("data_path/whole/one process", ours, stock, None, "tokens/s"))
    readings.append(
        report.Reading(f"data_path/whole/{CORES} extrapolated", 1 / at_eight, None, GOAL_TOKENS, "tokens/s", "ours")
    )
    return readings


def synthetic_index(tokens: int, folder: Path) -> TokenisedDataset:
    """Documents of product text's lengths over a sparse file: an index of the size, without the disk."""
    rng = np.random.default_rng(0)
    mean = 100
    lengths = np.clip(rng.lognormal(4.1, 1.0, tokens // mean * 11 // 10), 3, 20_000).astype(np.int64)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), tokens) + 1]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    sparse = np.memmap(folder / "tokens", np.int32, "w+", shape=int(offsets[-1]))
    rows = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(sparse))
    return TokenisedDataset(pa.table({"input_ids": rows}))


def measure_resume(tokenizer: PreTrainedTokenizerFast, tokens: int, repeats: int) -> report.Reading:
    """Seconds to the first batch at a random step, order, sampler and a loader worker made anew."""
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as name:
        table = synthetic_index(tokens, Path(name))._table
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            store = TokenisedDataset(table)
            order = PhaseOrder({"s": store}, None, SEQ_LENGTH, 8 * MICRO_TOKENS, 8, 3 * store.num_tokens)
            sampler = CurriculumSampler([order], start_step=int(rng.integers(order.num_steps)))
            loader = DataLoader(
                CurriculumDataset([order], {"s": store}),  # type: ignore[arg-type]
                batch_sampler=sampler,
                collate_fn=MLMCollator(tokenizer, MASK, flat=True),
                num_workers=1,
                prefetch_factor=1,
            )
            next(iter(loader))
            seconds.append(time.perf_counter() - start)
        print(f"resume: {len(store):,} documents, {store.num_tokens:,} tokens; first batch after {seconds[1:]} s")
    name = f"data_path/resume/{tokens // 10**6}M tokens"
    return report.Reading(name, float(np.median(seconds[1:])), None, GOAL_RESUME, "seconds", "ours", lower=True)


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a half of the text, a tenth of the index, once").parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()  # they would lie in the reading
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # else one worker takes all cores, and two are compared with that
    texts, source = documents(QUICK if args.quick else ALL)
    tokenizer = train_tokenizer(texts[:4_000], VOCABULARY)
    report.header("data_path", f"{source}: {len(texts)} documents", ["numpy", "tokenizers", "torch", "transformers"])
    readings = measure_rates(texts, tokenizer, args.quick)
    readings.append(measure_resume(tokenizer, BILLION // (10 if args.quick else 1), 2 if args.quick else 5))
    report.finish(readings)


if __name__ == "__main__":
    main()
