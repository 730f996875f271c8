"""Packing against a slow best-fit decreasing written out, and properties that hold for any lengths."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.pack import PackingReport, pack


def _slow_best_fit(lengths: list[int], rooms: list[int]) -> list[int]:
    rooms, out = list(rooms), [-1] * len(lengths)
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fitting = [b for b in range(len(rooms)) if rooms[b] >= lengths[item]]
        if fitting:
            best = min(fitting, key=lambda b: (rooms[b], b))
            rooms[best] -= lengths[item]
            out[item] = best
    return out


def _slow_deal(lengths: list[int], rooms: list[int], share: float) -> list[int]:
    """The longest items each to the emptiest bin, the rest best fit."""
    rooms, out, dealt = list(rooms), [-1] * len(lengths), 0
    budget = share * min(sum(lengths), sum(rooms))
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order and dealt + lengths[order[0]] <= budget:
        emptiest = max(range(len(rooms)), key=lambda b: (rooms[b], -b))
        if rooms[emptiest] < lengths[order[0]]:
            break
        item = order.pop(0)
        rooms[emptiest] -= lengths[item]
        dealt += lengths[item]
        out[item] = emptiest
    rest = _slow_best_fit([lengths[i] for i in order], rooms)
    for item, where in zip(order, rest, strict=True):
        out[item] = where
    return out


items = st.lists(st.integers(1, 30), max_size=60)
bins = st.lists(st.integers(30, 60), min_size=1, max_size=6)


@settings(max_examples=200, deadline=None)
@given(lengths=items, rooms=bins)
def test_equals_slow_best_fit_decreasing(lengths: list[int], rooms: list[int]) -> None:
    assert pack(np.array(lengths, int), np.array(rooms), len(rooms)).tolist() == _slow_best_fit(lengths, rooms)


@settings(max_examples=200, deadline=None)
@given(lengths=items, rooms=bins, share=st.sampled_from([0.3, 0.9, 1.0]))
def test_spread_equals_slow_dealing(lengths: list[int], rooms: list[int], share: float) -> None:
    got = pack(np.array(lengths, int), np.array(rooms), len(rooms), spread=share)
    assert got.tolist() == _slow_deal(lengths, rooms, share)


@settings(max_examples=200, deadline=None)
@given(lengths=items, rooms=bins, share=st.floats(0, 1))
def test_no_bin_overflows_and_what_is_left_fits_nowhere(lengths: list[int], rooms: list[int], share: float) -> None:
    sizes = np.array(lengths, int)
    where = pack(sizes, np.array(rooms), len(rooms), share)
    assert where.shape == sizes.shape
    assert where.dtype == np.int32
    left = np.array(rooms) - np.bincount(where[where >= 0], sizes[where >= 0], len(rooms))
    assert (left >= 0).all()
    if (where < 0).any():
        assert sizes[where < 0].min() > left.max()


def test_realistic_lengths_fill_the_bins() -> None:
    # Log-normal lengths like product text; a load of 99.9 % leaves no excuse.
    lengths = np.clip(np.random.default_rng(0).lognormal(3.8, 1, 40_000).astype(int), 3, 1024)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), 0.999 * 64 * 16384)]
    for share in (0.0, 0.9):
        where = pack(lengths, 16384, 64, share)
        assert (where >= 0).all()


def test_spread_makes_bins_alike() -> None:
    lengths = np.clip(np.random.default_rng(0).lognormal(3.8, 1, 40_000).astype(int), 3, 1024)
    lengths = lengths[: np.searchsorted(np.cumsum(lengths), 0.999 * 64 * 16384)]

    def documents(share: float) -> np.ndarray:
        return np.bincount(pack(lengths, 16384, 64, share), minlength=64)

    assert documents(0.0).max() > 20 * documents(0.0).min()  # a bin of reviews and a bin of titles
    assert documents(0.9).max() < 4 * documents(0.9).min()


def test_bad_items_are_named() -> None:
    with pytest.raises(ValueError, match="item 1 has 11 tokens"):
        pack(np.array([3, 11]), 10, 2)
    with pytest.raises(ValueError, match="item 0 has 0 tokens"):
        pack(np.array([0]), 10, 2)
    with pytest.raises(ValueError, match="at least one bin"):
        pack(np.array([1]), 10, 0)
    assert len(pack(np.zeros(0, int), 10, 2)) == 0


def test_reports_add_up() -> None:
    total = PackingReport(100, 99, 1, 5, 1) + PackingReport(100, 100, 0, 7, 0, 2)
    assert total == PackingReport(200, 199, 1, 12, 1, 2)
    assert (total.fill, total.dropped_share) == (0.995, 0.005)
    assert PackingReport().fill == PackingReport().dropped_share == 0.0
    assert "99.50% of 200 slots" in str(total)
