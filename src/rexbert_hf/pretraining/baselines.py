"""What a masked token can be guessed from without a network: the figures that a model's accuracy stands beside."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.data import RowBatch, TokenisedDataset
from rexbert_hf.masking import MLMCollator
from rexbert_hf.metrics.counts import NeighbourCountBaseline, UnigramBaseline


def batches_of(
    store: TokenisedDataset, max_tokens: int | None = None, rows: int = 4096, cut: bool = False
) -> Iterator[RowBatch]:
    """Documents of a store in order, up to `max_tokens`.

    Args:
        store: the documents.
        max_tokens: stop when so many tokens were given.
        rows: documents a batch.
        cut: end with the last document that fits `max_tokens`, if not the first, and not with a whole batch.
    """
    seen, end = 0, len(store)
    if cut and max_tokens is not None:
        totals = np.cumsum(store.lengths, dtype=np.int64)
        end = min(end, max(1, int(np.searchsorted(totals, max_tokens, side="right"))))
    for start in range(0, end, rows):
        batch = store.take(np.arange(start, min(start + rows, end)))
        yield batch
        seen += len(batch.input_ids)
        if max_tokens is not None and seen >= max_tokens:
            return


def count_baselines(
    train: list[TokenisedDataset],
    held_out: dict[str, TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
    mlm_probability: float,
    train_tokens: int,
    held_out_tokens: int | None,
) -> dict[str, dict[str, float]]:
    """Masked accuracy of the most frequent token and of a left/right-neighbour count model, by held-out set.

    Args:
        train: stores to count on, an equal share of `train_tokens` each.
        held_out: stores to mask.
        tokenizer: of the stores.
        mlm_probability: share of tokens that is masked.
        train_tokens: tokens to count.
        held_out_tokens: tokens of each held-out set to mask; None for all.
    """
    vocabulary, special = len(tokenizer), list(tokenizer.all_special_ids)
    share = max(1, train_tokens // len(train))

    def counted() -> Iterator[RowBatch]:
        return (batch for store in train for batch in batches_of(store, share))

    unigram = UnigramBaseline.fit(counted(), vocabulary, special)
    neighbour = NeighbourCountBaseline.fit(counted(), vocabulary, special)
    collator = MLMCollator(tokenizer, mlm_probability=mlm_probability, flat=True)
    results = {}
    for name, store in held_out.items():
        right = {"unigram": 0, "neighbours": 0}
        total = 0
        for number, batch in enumerate(batches_of(store, held_out_tokens, rows=256, cut=True)):
            batch.step = number
            masked = collator(batch)
            ids, labels = masked["input_ids"][0].numpy(), masked["labels"][0].numpy()
            places = labels != -100
            right["unigram"] += int(unigram.correct(labels).sum())
            predicted = neighbour.correct(ids, labels, tokenizer.mask_token_id, offsets=batch.offsets)
            right["neighbours"] += int(predicted.sum())
            total += int(places.sum())
        results[name] = {key: value / max(total, 1) for key, value in right.items()}
    return results
