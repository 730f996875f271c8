"""Cutting long documents, and the endless shuffled stream of a source."""

from __future__ import annotations

import pickle
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.pieces import PieceIndex, ShuffledStream


def test_cuts_by_hand() -> None:
    # Bodies of 3, 10 and 20 tokens; a piece holds 8 of them.
    index = PieceIndex(np.array([5, 12, 22]), seq_length=10, num_special=2)
    documents, starts, stops = index.resolve(np.arange(len(index)))
    assert documents.tolist() == [0, 1, 2, 1, 2, 2]
    assert starts.tolist() == [0, 0, 0, 8, 8, 16]
    assert stops.tolist() == [3, 8, 8, 10, 16, 20]
    assert index.lengths.tolist() == [5, 10, 10, 4, 10, 6]
    assert (index.split_documents, index.num_tokens) == (2, 45)
    assert index.split_among(np.array([0, 3, 2])) == 1


def test_a_tiny_tail_takes_half_of_the_piece_before_it() -> None:
    # A piece holds 32; a tail of 1 is below 32 / 16, one of 2 is not.
    index = PieceIndex(np.array([33, 34, 65, 66]), seq_length=32, num_special=0)
    documents, starts, stops = index.resolve(np.arange(len(index)))
    cuts: dict[int, list] = {}
    for document, start, stop in sorted(zip(documents.tolist(), starts.tolist(), stops.tolist(), strict=True)):
        cuts.setdefault(document, []).append((start, stop))
    assert cuts == {
        0: [(0, 17), (17, 33)],
        1: [(0, 32), (32, 34)],
        2: [(0, 32), (32, 49), (49, 65)],
        3: [(0, 32), (32, 64), (64, 66)],
    }


@settings(max_examples=100, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 200), min_size=1, max_size=30), seq=st.integers(3, 64), special=st.integers(0, 2)
)
def test_pieces_cover_each_body_once(lengths: list[int], seq: int, special: int) -> None:
    index = PieceIndex(np.array(lengths), seq, special)
    documents, starts, stops = index.resolve(np.arange(len(index)))
    assert index.lengths.max() <= seq
    assert (stops - starts + special == index.lengths).all()
    assert index.num_tokens == index.lengths.sum()
    for document, length in enumerate(lengths):
        own = np.flatnonzero(documents == document)
        own = own[np.argsort(starts[own])]
        sizes = stops[own] - starts[own]
        assert own[0] == document
        assert starts[own[0]] == 0
        assert stops[own[-1]] == length - special
        assert (starts[own[1:]] == stops[own[:-1]]).all()
        assert len(own) == max(1, -(-(length - special) // (seq - special)))
        assert (sizes[:-2] == seq - special).all()
        if len(own) > 1:
            assert sizes.min() >= (seq - special) // 16


def test_bad_sources_are_named() -> None:
    with pytest.raises(ValueError, match="source 'shop' has no documents"):
        PieceIndex(np.zeros(0, int), 8, 2, "shop")
    with pytest.raises(ValueError, match="source 'shop', row 1: 1 tokens"):
        PieceIndex(np.array([3, 1]), 8, 2, "shop")
    with pytest.raises(ValueError, match="seq_length 2 leaves no room"):
        PieceIndex(np.array([3]), 2, 2)


def _stream(seed: int = 0) -> ShuffledStream:
    return ShuffledStream(PieceIndex(np.arange(2, 40), 16), seed, 0, 0)


def test_a_pass_holds_every_piece_once_and_passes_differ() -> None:
    stream = _stream()
    total, count = stream.index.num_tokens, len(stream.index)
    passes = [stream.draw(e * total, (e + 1) * total) for e in range(4)]
    for one in passes:
        assert sorted(one.tolist()) == list(range(count))
    assert len({tuple(one.tolist()) for one in passes}) == 4
    assert passes[0].tolist() != _stream(seed=1).draw(0, total).tolist()


@settings(max_examples=50, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), min_size=2, max_size=12))
def test_consecutive_draws_are_one_draw(cuts: list[int]) -> None:
    cuts = sorted(cuts)
    stream = _stream()
    parts = [stream.draw(low, high) for low, high in pairwise(cuts)]
    assert np.concatenate(parts).tolist() == _stream().draw(cuts[0], cuts[-1]).tolist()


def test_permutation_is_uniform() -> None:
    # Where piece 0 lands in 2,000 passes over 8 pieces: chi-square with 7 degrees of freedom, p = 1e-4 at 29.9.
    stream = ShuffledStream(PieceIndex(np.full(8, 3), 8), 5)
    places = [int(np.flatnonzero(stream.draw(24 * e, 24 * e + 24) == 0)[0]) for e in range(2000)]
    counts = np.bincount(places, minlength=8)
    assert ((counts - 250) ** 2 / 250).sum() < 29.9


def test_a_stream_travels_without_its_cache() -> None:
    stream = _stream()
    expected = stream.draw(100, 900).tolist()
    copy = pickle.loads(pickle.dumps(stream))
    assert not copy._epochs
    assert copy.draw(100, 900).tolist() == expected
