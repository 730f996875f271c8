"""Keys to batches: ranks, workers, phases, and evaluation batches."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from torch.utils.data import DataLoader

from rexbert_hf.data.loader import CurriculumDataset, CurriculumSampler, join
from rexbert_hf.data.order import PhaseOrder
from rexbert_hf.data.rows import RowBatch
from rexbert_hf.data.store import TokenisedDataset


def _store(n: int, base: int, spans: bool, words: bool = True) -> TokenisedDataset:
    rng = np.random.default_rng(base)
    rows = []
    for number in range(n):
        body = int(rng.integers(1, 30))
        row = {"input_ids": [1, *range(base + number, base + number + body), 2]}
        if words:
            row["word_ids"] = [-1, *range(body), -1]
        if spans:
            row |= {"span_start": [1], "span_end": [1 + body], "span_score": [0.5], "span_kind": [number % 10]}
        rows.append(row)
    return TokenisedDataset.from_rows(rows)


@pytest.fixture(scope="module")
def curriculum() -> tuple[list[PhaseOrder], dict[str, TokenisedDataset]]:
    stores = {"general": _store(200, 1000, spans=False), "shop": _store(150, 50_000, spans=True)}
    general = {"general": stores["general"]}
    orders = [
        PhaseOrder(general, {"general": 1}, 16, 256, 4, max_tokens=2000, phase=0),
        PhaseOrder(stores, {"general": (1, 0), "shop": (0, 1)}, 32, 512, 4, max_tokens=3000, phase=1),
    ]
    return orders, stores


def _equal(a: RowBatch, b: RowBatch) -> bool:
    names = RowBatch.__dataclass_fields__
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def _same(batch: RowBatch) -> RowBatch:
    return batch


def test_batches_hold_the_rows_of_the_order(curriculum) -> None:
    orders, stores = curriculum
    dataset = CurriculumDataset(orders, stores)
    first = orders[0].num_steps
    assert dataset.num_steps == first + orders[1].num_steps
    assert len(dataset) == 4 * dataset.num_steps
    for key, order, inside in [((3, 1), orders[0], 3), ((first, 0), orders[1], 0), ((first + 4, 2), orders[1], 4)]:
        batch = dataset[key]
        expected = [
            row
            for d in order.micro(inside, key[1])
            for row in stores[d.source].take(d.indices, d.starts, d.stops, step=key[0])
        ]
        assert (batch.step, batch.micro, batch.phase) == (*key, orders.index(order))
        assert len(batch) == len(expected)
        for got, want in zip(batch, expected, strict=True):
            assert got["input_ids"].tolist() == want["input_ids"].tolist()
            assert got["word_ids"].tolist() == want["word_ids"].tolist()
            if "span_start" in want:
                assert got["span_start"].tolist() == want["span_start"].tolist()
                assert got["span_kind"].tolist() == want["span_kind"].tolist()
            elif "span_start" in got:
                assert len(got["span_start"]) == 0
    with pytest.raises(IndexError, match="of a curriculum of"):
        dataset[dataset.num_steps, 0]


def test_ranks_together_see_what_one_process_sees(curriculum) -> None:
    orders, _ = curriculum
    alone = [key for keys in CurriculumSampler(orders) for key in keys]
    assert alone == sorted(alone)
    ranks = [list(CurriculumSampler(orders, rank, 2)) for rank in range(2)]
    assert sorted(key for rank in ranks for keys in rank for key in keys) == alone
    assert len(ranks[0]) == len(ranks[1]) == len(CurriculumSampler(orders, 0, 2)) == len(alone) // 2
    # The k-th accumulation step of a step is the same on all ranks, and dealt round robin.
    for a, b in zip(*ranks, strict=True):
        assert (a[0][0], a[0][1] + 1) == b[0]


def test_start_step_skips_exactly_what_came_before(curriculum) -> None:
    orders, _ = curriculum
    everything = list(CurriculumSampler(orders, 1, 2))
    for start in (0, 3, orders[0].num_steps, orders[0].num_steps + 2, 10_000):
        sampler = CurriculumSampler(orders, 1, 2, start_step=start)
        assert list(sampler) == [keys for keys in everything if keys[0][0] >= start]
        assert len(sampler) == len(list(sampler))


def test_workers_change_nothing(curriculum) -> None:
    orders, stores = curriculum
    dataset, sampler = CurriculumDataset(orders, stores), CurriculumSampler(orders, start_step=orders[0].num_steps - 2)
    alone = list(DataLoader(dataset, batch_sampler=sampler, collate_fn=_same))
    several = DataLoader(dataset, batch_sampler=sampler, collate_fn=_same, num_workers=2)
    sent = pickle.loads(pickle.dumps(dataset))  # what a spawned worker gets
    assert len(alone) == len(sampler)
    for keys, a, b in zip(sampler, alone, several, strict=True):
        assert _equal(a, b)
        assert _equal(a, sent[keys[0]])


def test_join_shifts_spans_and_refuses_mixed_word_ids() -> None:
    a, b = _store(3, 10, spans=False).take([0, 2]), _store(3, 10, spans=True).take([1, 0], step=4)
    both = join([a, b, b])
    assert len(both) == 6
    assert (both.span_start - len(a.input_ids))[:2].tolist() == b.span_start.tolist()
    assert both[5]["span_end"].tolist() == b[1]["span_end"].tolist()
    with pytest.raises(ValueError, match="some batches have word ids"):
        join([a, _store(3, 10, spans=False, words=False).take([0])])
    with pytest.raises(ValueError, match="nothing to join"):
        join([])


def test_bad_curricula_are_named(curriculum) -> None:
    orders, stores = curriculum
    with pytest.raises(ValueError, match=r"phase 1 draws from \['shop'\]"):
        CurriculumDataset(orders, {"general": stores["general"]})
    bare = {**stores, "shop": _store(150, 5, spans=False, words=False)}
    with pytest.raises(ValueError, match=r"sources \['shop'\] of phase 1 have no word ids"):
        CurriculumDataset(orders, bare)
    with pytest.raises(ValueError, match="not a multiple of 3 processes"):
        CurriculumSampler(orders, 0, 3)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        CurriculumSampler(orders, 2, 2)
    with pytest.raises(ValueError, match="at least one phase"):
        CurriculumDataset([], stores)
