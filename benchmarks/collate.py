"""Tokens a second from Arrow rows to a masked batch, one thread, beside transformers' own collators.

Ours is the whole path: `TokenisedDataset.take` on an Arrow table, then the collator, to a flat batch of tensors. The
peer gets its best case: rows ready as Python objects and, for `whole_word_mask` (which raises on unequal lengths),
padded beforehand; the faster of its torch and numpy forms counts. Only real tokens count on either side.
Times are processor time of the process (one thread), so that other jobs on the machine stay out of them.

    python benchmarks/collate.py [--quick]

Text is the product text of ../shared/data when it is there, else generated. Spans are drawn at random on word
borders, about 8 for 100 tokens, so they overlap as a dense phrase pool's would.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import GuidedMLMCollator, MaskingCollator, MLMCollator

SHOP_TEXT = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "text" / "shop"
MASK_SHARE = 0.3
BATCH_TOKENS = 16_384
LONG = 1_024
SPANS_PER_TOKEN = 0.08
GOAL_TOKENS, GOAL_RATIO = 10.0, 25.0
SPECIAL = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}


def read_texts(count: int) -> tuple[list[str], str]:
    """`count` product texts of 80 to 700 characters, evenly over the files, and where they are from."""
    files = sorted(SHOP_TEXT.glob("*.txt.gz"))
    if not files:
        return generate_texts(count), "generated text"
    texts: list[str] = []
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            fitting = (line.strip() for line in lines if 80 <= len(line) <= 700)
            texts += [text for text, _ in zip(fitting, range(-(-count // len(files))), strict=False)]
    order = np.random.default_rng(0).permutation(len(texts))[:count]
    return [texts[i] for i in order], f"shared/data/text/shop, {len(files)} files"


def generate_texts(count: int) -> list[str]:
    """Texts of Zipf-distributed made-up words."""
    rng = np.random.default_rng(0)
    syllables = ["ba", "co", "den", "fi", "gor", "hu", "lam", "mi", "nor", "pe", "ras", "stu", "ti", "vel"]
    words = ["".join(rng.choice(syllables, rng.integers(1, 5))) for _ in range(20_000)]
    return [" ".join(words[i % 20_000] for i in rng.zipf(1.3, rng.integers(20, 100))) for _ in range(count)]


def train_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE with 8,192 entries, so that the benchmark needs no download."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = list(SPECIAL.values())
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=special, show_progress=False)
    backend.train_from_iterator(texts[:10_000], trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


def tokenised_rows(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[dict[str, Any]]:
    """Rows with word ids and random spans, and the offsets that the peer's whole-word mode reads."""
    rng = np.random.default_rng(1)
    rows = []
    for encoding in tokenizer.backend_tokenizer.encode_batch(texts):
        encoding.truncate(LONG)
        words = np.array([-1 if word is None else word for word in encoding.word_ids], dtype=np.int32)
        starts = np.flatnonzero(np.diff(words, prepend=-1, append=-1))  # word borders, the end of the text included
        first = np.sort(rng.integers(0, len(starts) - 1, size=rng.poisson(SPANS_PER_TOKEN * len(words))))
        last = np.minimum(first + rng.integers(1, 5, size=len(first)), len(starts) - 1)
        rows.append(
            {
                "input_ids": np.array(encoding.ids, dtype=np.int32),
                "word_ids": words,
                "span_start": starts[first].astype(np.int32),
                "span_end": starts[last].astype(np.int32),
                "span_score": rng.random(len(first), dtype=np.float32),
                "span_kind": rng.integers(0, 10, size=len(first)).astype(np.int8),
                "offset_mapping": list(encoding.offsets),
                "special_tokens_mask": list(encoding.special_tokens_mask),
            }
        )
    return rows


def median_seconds(run: Callable[[], None], repeats: int) -> float:
    """Median processor time of `repeats` runs after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def our_speed(
    store: TokenisedDataset, collator: MaskingCollator | None, batches: list[np.ndarray], repeats: int
) -> float:
    """Million tokens a second from the Arrow table to tensors; the gather alone without a collator."""

    def run() -> None:
        for step, indices in enumerate(batches):
            batch = store.take(indices, step=step)
            if collator is not None:
                collator(batch)

    tokens = sum(int(store.lengths[indices].sum()) for indices in batches)
    return tokens / median_seconds(run, repeats) / 1e6


def stock_speed(
    rows: list[dict[str, Any]], batches: list[np.ndarray], tokenizer: Any, whole_word: bool, repeats: int
) -> float:
    """Million real tokens a second of transformers' collator, the faster of its torch and numpy forms."""
    tokens = sum(len(rows[i]["input_ids"]) for indices in batches for i in indices)
    speeds = []
    for form in ("pt", "np"):
        collator = DataCollatorForLanguageModeling(
            tokenizer, mlm_probability=MASK_SHARE, whole_word_mask=whole_word, return_tensors=form, seed=0
        )
        ready = [[stock_row(rows[i], whole_word, padded_width(rows, indices)) for i in indices] for indices in batches]

        def run(collator: Any = collator, ready: Any = ready) -> None:
            for features in ready:
                collator([dict(row) for row in features])

        speeds.append(tokens / median_seconds(run, repeats) / 1e6)
    return max(speeds)


def padded_width(rows: list[dict[str, Any]], indices: np.ndarray) -> int:
    """Length of the longest row of a batch."""
    return max(len(rows[i]["input_ids"]) for i in indices)


def stock_row(row: dict[str, Any], whole_word: bool, width: int) -> dict[str, list[Any]]:
    """A row as transformers' collator takes it, padded beforehand for whole words."""
    ids, special = row["input_ids"].tolist(), row["special_tokens_mask"]
    if not whole_word:
        return {"input_ids": ids, "special_tokens_mask": special}
    missing = width - len(ids)
    return {
        "input_ids": ids + [3] * missing,
        "attention_mask": [1] * len(ids) + [0] * missing,
        "special_tokens_mask": special + [1] * missing,
        "offset_mapping": row["offset_mapping"] + [(0, 0)] * missing,
    }


def measure(name: str, rows: list[dict[str, Any]], tokenizer: Any, quick: bool) -> list[dict[str, Any]]:
    """Readings of one length profile; prints its part of the table."""
    columns = ("input_ids", "word_ids", "span_start", "span_end", "span_score", "span_kind")
    store = TokenisedDataset.from_rows([{c: row[c] for c in columns} for row in rows])
    mean = store.num_tokens / len(store)
    order = np.random.default_rng(2).permutation(len(store))
    batches = np.array_split(order, max(1, round(store.num_tokens / BATCH_TOKENS)))
    few = batches[: 1 if quick else 4]
    spans = sum(len(row["span_start"]) for row in rows) / store.num_tokens * 100
    print(
        f"\n{name}: {len(store)} rows, mean {mean:.0f} tokens, {spans:.1f} spans per 100 tokens, {len(batches)} batches"
    )
    collators = {
        "plain": MLMCollator(tokenizer, MASK_SHARE, flat=True),
        "whole_word": MLMCollator(tokenizer, MASK_SHARE, flat=True, whole_word=True),
        "guided": GuidedMLMCollator(tokenizer, MASK_SHARE, flat=True),
    }
    stock_plain = stock_speed(rows, few, tokenizer, False, 5)
    stock_words = stock_speed(rows, few, tokenizer, True, 5)
    print(f"{'':12s} {'ours':>8s} {'peer':>8s} {'ratio':>8s}   (M tokens/s)")
    print(f"{'gather only':12s} {our_speed(store, None, batches, 7):8.1f}")
    readings = []
    for scheme, collator in collators.items():
        ours, peer = our_speed(store, collator, batches, 7), stock_plain if scheme == "plain" else stock_words
        print(f"{scheme:12s} {ours:8.1f} {peer:8.3f} {ours / peer:7.0f}x")
        reading = {"name": f"collate/{scheme}/{name}", "ours": round(ours, 2), "peer": round(peer, 3)}
        reading |= {"ratio": round(ours / peer, 1)}
        if scheme != "plain":
            readings.append({**reading, "goal": GOAL_RATIO, "unit": "ratio", "holds": ours / peer >= GOAL_RATIO})
            reading = {**reading, "goal": GOAL_TOKENS, "unit": "M tokens/s", "holds": ours >= GOAL_TOKENS}
            readings.append({**reading, "name": f"{reading['name']}/speed"})
    return readings


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
    parser.add_argument("--quick", action="store_true", help="a fifth of the text and one peer batch")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Random token replacement is not supported")
    texts, source = read_texts(4_000 if args.quick else 20_000)
    tokenizer = train_tokenizer(texts)
    print(
        f"{datetime.date.today()}  {processor()}, 1 thread\n"
        f"python {platform.python_version()}, numpy {np.__version__}, "
        f"torch {torch.__version__}, transformers {transformers.__version__}; {source}"
    )
    readings = measure("short", tokenised_rows(tokenizer, texts), tokenizer, args.quick)
    # Neighbouring texts joined, about 30 a document, and cut at 1,024 tokens.
    joined = [" ".join(texts[i : i + 30]) for i in range(0, len(texts), 30)]
    readings += measure("long", tokenised_rows(tokenizer, joined), tokenizer, args.quick)
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
