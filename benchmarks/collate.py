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

import gzip
import time
import warnings
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

import report
from product_text import DATA_DIR, train_tokenizer
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import GuidedMLMCollator, MaskingCollator, MLMCollator

MASK_SHARE = 0.3
BATCH_TOKENS = 16_384
LONG = 1_024
SPANS_PER_TOKEN = 0.08
GOAL_TOKENS, GOAL_RATIO = 10.0, 25.0


def read_texts(count: int) -> tuple[list[str], str]:
    """`count` product texts of 80 to 700 characters, evenly over the files, and where they are from."""
    files = sorted((DATA_DIR / "text" / "shop").glob("*.txt.gz"))
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
    return tokens / report.median_seconds(run, repeats, time.process_time) / 1e6


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
        pad = tokenizer.pad_token_id
        ready = [
            [stock_row(rows[i], whole_word, padded_width(rows, indices), pad) for i in indices] for indices in batches
        ]

        def run(collator: Any = collator, ready: Any = ready) -> None:
            for features in ready:
                collator([dict(row) for row in features])

        speeds.append(tokens / report.median_seconds(run, repeats, time.process_time) / 1e6)
    return max(speeds)


def padded_width(rows: list[dict[str, Any]], indices: np.ndarray) -> int:
    """Length of the longest row of a batch."""
    return max(len(rows[i]["input_ids"]) for i in indices)


def stock_row(row: dict[str, Any], whole_word: bool, width: int, pad: int) -> dict[str, list[Any]]:
    """A row as transformers' collator takes it, padded beforehand for whole words."""
    ids, special = row["input_ids"].tolist(), row["special_tokens_mask"]
    if not whole_word:
        return {"input_ids": ids, "special_tokens_mask": special}
    missing = width - len(ids)
    return {
        "input_ids": ids + [pad] * missing,
        "attention_mask": [1] * len(ids) + [0] * missing,
        "special_tokens_mask": special + [1] * missing,
        "offset_mapping": row["offset_mapping"] + [(0, 0)] * missing,
    }


def measure(name: str, rows: list[dict[str, Any]], tokenizer: Any, quick: bool) -> list[report.Reading]:
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
    print(f"gather only: {our_speed(store, None, batches, 7):.1f} M tokens/s")
    readings = []
    for scheme, collator in collators.items():
        ours, peer = our_speed(store, collator, batches, 7), stock_plain if scheme == "plain" else stock_words
        title, unit = f"collate/{scheme}/{name}", "M tokens/s"
        readings.append(report.Reading(title, ours, peer, None if scheme == "plain" else GOAL_RATIO, unit))
        if scheme != "plain":
            readings.append(report.Reading(f"{title}/speed", ours, peer, GOAL_TOKENS, unit, judged="ours"))
    return readings


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a fifth of the text and one peer batch").parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Random token replacement is not supported")
    texts, source = read_texts(4_000 if args.quick else 20_000)
    tokenizer = train_tokenizer(texts[:10_000], 8_192)
    report.header("collate", source)
    readings = measure("short", tokenised_rows(tokenizer, texts), tokenizer, args.quick)
    # Neighbouring texts joined, about 30 a document, and cut at 1,024 tokens.
    joined = [" ".join(texts[i : i + 30]) for i in range(0, len(texts), 30)]
    readings += measure("long", tokenised_rows(tokenizer, joined), tokenizer, args.quick)
    report.finish(readings)


if __name__ == "__main__":
    main()
