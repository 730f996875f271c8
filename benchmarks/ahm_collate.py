"""Tokens a second of adaptive hybrid masking, both selections together, one thread, beside transformers' whole words.

    python benchmarks/ahm_collate.py [--quick]

Ours is the whole path: `TokenisedDataset.take` on an Arrow table, then the collator, to a flat batch with a word and a
phrase selection. The peer masks whole words once, from rows ready as Python objects and padded beforehand. Phrases are
what a pool of the most frequent 2- and 3-grams marks in the texts, with noun phrases where those are few, so they are
as dense as a mined pool's. Random spans and the padded form are printed beside it. Times are processor time.
"""

from __future__ import annotations

import warnings
from collections import Counter
from itertools import pairwise

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

import report
from collate import BATCH_TOKENS, our_speed, read_texts, stock_speed, tokenised_rows
from product_text import train_tokenizer
from rexbert_hf.data import tokenise
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.masking import (
    AdaptiveHybridMaskingCollator,
    MaskingCollator,
    MLMCollator,
    PhraseMaskingCollator,
    SpanMaskingCollator,
)
from rexbert_hf.phrases import PhraseGuide, PhraseMatcher

GOAL = 5.0
POOL_SIZE, REPEATS = 50_000, 7


def frequent_phrases(texts: list[str], count: int) -> list[str]:
    """The `count` most frequent runs of two or three words without punctuation between them."""
    found: Counter[str] = Counter()
    for text in texts:
        words = text.lower().split()
        plain = [word.isalnum() for word in words]
        found.update(f"{a} {b}" for i, (a, b) in enumerate(pairwise(words)) if all(plain[i : i + 2]))
        found.update(" ".join(words[i : i + 3]) for i in range(len(words) - 2) if all(plain[i : i + 3]))
    return [phrase for phrase, _ in found.most_common(count)]


def phrase_store(texts: list[str], tokenizer: PreTrainedTokenizerFast) -> TokenisedDataset:
    """The texts tokenised, with the spans of their most frequent phrases."""
    pool = frequent_phrases(texts, POOL_SIZE)
    guide = PhraseGuide(PhraseMatcher(pool, np.linspace(1.0, 0.5, len(pool))), noun_phrases="light")
    return tokenise(texts, tokenizer, guides=[guide])


def batches_of(store: TokenisedDataset) -> list[np.ndarray]:
    """Rows of batches of about `BATCH_TOKENS` tokens, drawn at random."""
    order = np.random.default_rng(2).permutation(len(store))
    return np.array_split(order, max(1, round(store.num_tokens / BATCH_TOKENS)))


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a fifth of the text and one peer batch").parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Random token replacement is not supported")
    texts, source = read_texts(4_000 if args.quick else 20_000)
    tokenizer = train_tokenizer(texts[:10_000], 8_192)
    store = phrase_store(texts, tokenizer)
    batches = batches_of(store)
    few = batches[: 1 if args.quick else 4]
    peer = stock_speed(tokenised_rows(tokenizer, texts), few, tokenizer, True, 5)
    collators: dict[str, MaskingCollator] = {
        "whole words": MLMCollator(tokenizer, 0.15, flat=True, whole_word=True),
        "phrases": PhraseMaskingCollator(tokenizer, flat=True),
        "random spans": SpanMaskingCollator(tokenizer, flat=True),
        "adaptive, padded": AdaptiveHybridMaskingCollator(tokenizer),
        "adaptive": AdaptiveHybridMaskingCollator(tokenizer, flat=True),
    }
    spans = sum(len(row["span_start"]) for row in store.take(np.arange(len(store)))) / store.num_tokens * 100
    print(f"\n{len(store)} rows, mean {store.num_tokens / len(store):.0f} tokens, {spans:.1f} spans per 100 tokens")
    speeds = {name: our_speed(store, collator, batches, REPEATS) for name, collator in collators.items()}
    for name, speed in speeds.items():
        print(f"{name:17s} {speed:6.1f} M tokens/s   {collators[name].stats or ''}")
    report.header("ahm_collate", source)
    report.finish([report.Reading("phrases/ahm_collator", speeds["adaptive"], peer, GOAL, "M tokens/s", judged="ours")])


if __name__ == "__main__":
    main()
