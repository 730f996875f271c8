"""The order of samples: a pure function with O(1) seek that uses every document equally and keeps its promises."""

from __future__ import annotations

import logging
import pickle
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rexbert_hf.data.order import Draw, PhaseOrder, source_tokens
from rexbert_hf.data.pieces import PieceIndex


def _lengths(n: int, seed: int = 0, mean: float = 3.0) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).lognormal(mean, 0.9, n), 3, 400).astype(np.int32)


def _order(**changes) -> PhaseOrder:
    arguments = {
        "sources": {"general": _lengths(3000), "shop": _lengths(900, 1)},
        "mixture": {"general": (1.0, 0.2), "shop": (0.2, 1.0)},
        "seq_length": 64,
        "batch_tokens": 2048,
        "micro_batches": 4,
        "max_tokens": 150_000,
        "seed": 3,
        "phase": 1,
    }
    return PhaseOrder(**(arguments | changes))


def _plain(draws: list[Draw]) -> list[tuple]:
    return [(d.source, d.indices.tolist(), d.starts.tolist(), d.stops.tolist()) for d in draws]


def _all(order: PhaseOrder) -> dict[tuple[int, int], list[Draw]]:
    return {(s, i): order.micro(s, i) for s in range(order.num_steps) for i in range(order.micro_batches)}


def _tokens(draws: list[Draw], special: int = 2) -> int:
    return sum(int((d.stops - d.starts + special).sum()) for d in draws)


def test_seek_equals_reading_in_sequence() -> None:
    sequence = {key: _plain(draws) for key, draws in _all(_order()).items()}
    keys = list(sequence)
    for place in np.random.default_rng(0).permutation(len(keys))[:20]:
        assert _plain(_order().micro(*keys[place])) == sequence[keys[place]]
    backwards = _order()
    for key in reversed(keys):
        assert _plain(backwards.micro(*key)) == sequence[key]


def test_seed_and_phase_change_the_order_and_nothing_else_does() -> None:
    order = _order()
    copy = pickle.loads(pickle.dumps(order))
    assert _plain(copy.micro(7, 2)) == _plain(order.micro(7, 2))
    assert copy.fingerprint == _order().fingerprint
    for change in ({"seed": 4}, {"phase": 2}):
        other = _order(**change)
        assert _plain(other.micro(7, 2)) != _plain(order.micro(7, 2))
        assert other.fingerprint != order.fingerprint
    assert _order(sources={"general": _lengths(3000), "shop": _lengths(900, 2)}).fingerprint != order.fingerprint


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_epoch_uses_every_document_equally_often(epochs: int) -> None:
    lengths = _lengths(2000, mean=3.5)
    assert lengths.max() > 64  # some are cut
    tokens = source_tokens(lengths, 64)
    order = PhaseOrder({"s": lengths}, None, 64, 4096, 4, max_tokens=epochs * tokens)
    seen, covered = Counter(), np.zeros(len(lengths), dtype=int)
    for draws in _all(order).values():
        for draw in draws:
            seen.update(zip(draw.indices.tolist(), draw.starts.tolist(), strict=True))
            np.add.at(covered, draw.indices, draw.stops - draw.starts)
    report = order.report()
    assert report.repeated_documents == 0
    missing = epochs * (lengths - 2) - covered
    assert (missing >= 0).all()
    # What is missing is what the report says was dropped, and that is nearly nothing.
    lost = epochs * len(PieceIndex(lengths, 64)) - seen.total()
    assert set(seen.values()) <= {epochs, epochs - 1}
    assert missing.sum() + 2 * lost == report.dropped_tokens
    assert report.dropped_share <= 0.001
    assert report.tokens + report.dropped_tokens == epochs * tokens
    assert report.documents == sum(seen.values())
    assert report.split_documents == pytest.approx(epochs * (lengths > 64).sum(), abs=lost)


def test_two_sources_without_a_mixture_end_their_epoch_together() -> None:
    sources = {"a": _lengths(700), "b": _lengths(1900, 1)}
    tokens = sum(source_tokens(lengths, 64) for lengths in sources.values())
    order = PhaseOrder(sources, None, 64, 2048, 2, max_tokens=tokens)
    seen = Counter()
    for draws in _all(order).values():
        for d in draws:
            seen.update((d.source, i) for i in d.indices[d.starts == 0].tolist())
    assert set(seen.values()) == {1}
    assert len(seen) >= 2590


def test_mixture_follows_its_integral() -> None:
    order = _order(max_tokens=400_000)
    given_tokens = {name: np.zeros(order.num_steps) for name in order.names}
    for (step, _), draws in _all(order).items():
        for draw in draws:
            given_tokens[draw.source][step] += _tokens([draw])
    for t in (0.25, 0.5, 1.0):
        end = int(t * order.num_steps)
        planned = order.mixture.integral(order.tokens_before(end) / order.max_tokens) * order.max_tokens
        for name, plan in zip(order.names, planned, strict=True):
            # Exact at a group's border up to a piece; inside a group bins are shuffled: up to a group's tokens apart.
            slack = 65 + (0 if t == 1.0 else order.group_bins * order.capacity)
            assert abs(given_tokens[name][:end].sum() - plan) <= slack + 0.001 * plan
    shop = given_tokens["shop"] / (given_tokens["shop"] + given_tokens["general"])
    quarter = order.num_steps // 4
    assert shop[:quarter].mean() < 0.35 < 0.65 < shop[-quarter:].mean()


def test_realistic_text_fills_99_percent_and_drops_a_thousandth_at_most() -> None:
    titles = np.clip(np.random.default_rng(0).lognormal(2.7, 0.5, 60_000), 4, 80).astype(np.int32)
    reviews = np.clip(np.random.default_rng(1).lognormal(4.8, 0.9, 15_000), 8, 5000).astype(np.int32)
    order = PhaseOrder({"titles": titles, "reviews": reviews}, {"titles": 1, "reviews": 3}, 1024, 32768, 4, 4e6)
    report = order.report()
    assert report.fill >= 0.99
    assert report.dropped_share <= 0.001


def test_awkward_lengths_lower_the_load_instead_of_dropping_text() -> None:
    # Two documents of 600 never share a bin of 1,024: 58.6 % is all there is.
    order = PhaseOrder({"s": np.full(3000, 600)}, {"s": 1}, 1024, 4096, 4, max_tokens=500_000)
    report = order.report()
    assert report.dropped_share <= 0.001
    assert 0.55 < report.fill <= 600 / 1024


def test_full_length_documents_fill_every_slot() -> None:
    report = PhaseOrder({"s": np.full(500, 128)}, {"s": 1}, 128, 1024, 8, max_tokens=128 * 8 * 100).report()
    assert report.fill == 1.0
    assert report.dropped_tokens == report.repeated_documents == 0


@pytest.mark.parametrize("room", [1, 2, 8])
def test_long_documents_fill_the_bins_too(room: int) -> None:
    long = np.clip(np.random.default_rng(0).lognormal(8, 1.2, 3000), 100, 60_000).astype(np.int32)
    report = PhaseOrder({"s": long}, {"s": 1}, 1024, 4 * 1024 * room, 4, max_tokens=6e6).report()
    assert report.dropped_share <= 0.001
    assert report.fill >= (0.97 if room == 1 else 0.99)


order_arguments = st.fixed_dictionaries(
    {
        "seq_length": st.integers(8, 40),
        "micro_batches": st.integers(1, 5),
        "max_tokens": st.integers(1, 6000),
        "seed": st.integers(0, 3),
        "batch_warmup_tokens": st.sampled_from([0, 500, 20_000]),
        "num_special": st.integers(0, 2),
    }
)


@pytest.mark.parametrize("seed", range(12))
def test_a_short_phase_of_long_documents_drops_a_thousandth_at_most(seed: int) -> None:
    """50 bins of two pieces each: one piece that begins before the budget's end and does not fit is a percent."""
    rng = np.random.default_rng(0)
    just_over = rng.random(800) < 0.75
    novels = np.where(just_over, rng.normal(8600, 300, 800), rng.integers(8700, 14000, 800)).astype(np.int32)
    sources = {"novels": novels, "wiki": _lengths(7000, 1, 4.5)}
    order = PhaseOrder(sources, {"novels": 0.9, "wiki": 0.1}, 8192, 16384, 1, 800_000, seed=seed, phase=1)
    report = order.report()
    assert order.num_steps in (49, 50)
    assert report.dropped_share <= 0.001
    assert report.fill >= 0.97


def test_a_handful_of_documents_is_laid_out_as_calibrated() -> None:
    order = PhaseOrder({"s": np.full(40, 60)}, None, 64, 128, 1, 2000)
    assert order.num_steps <= 2000 // 120 + 3


@settings(max_examples=60, deadline=None)
@given(
    arguments=order_arguments,
    room=st.floats(1, 6),
    lengths=st.lists(st.integers(2, 90), min_size=1, max_size=80),
)
def test_no_micro_batch_is_empty_or_over_capacity(arguments: dict, room: float, lengths: list[int]) -> None:
    batch = int(arguments["seq_length"] * room) * arguments["micro_batches"]
    order = PhaseOrder(
        {"a": np.array(lengths), "b": np.array([5, 9])},
        {"a": (1, 0.1), "b": 0.3},
        batch_tokens=batch,
        batch_warmup_start=0.5,
        **arguments,
    )
    total = 0
    for (step, _), draws in _all(order).items():
        tokens = _tokens(draws, arguments["num_special"])
        assert 0 < tokens <= order.micro_capacity(step) <= order.capacity
        assert all(((d.stops - d.starts) >= 0).all() for d in draws)
        total += tokens
    assert total == order.report().tokens


def test_batch_warmup_grows_linearly_in_tokens() -> None:
    order = _order(batch_warmup_tokens=60_000, batch_warmup_start=0.25)
    seen, sizes = 0.0, []
    for step in range(order.num_steps - 2):  # the last two share the remainder
        assert order.tokens_before(step) == pytest.approx(seen * order.load, rel=0.02, abs=300)
        due = 512 * min(1.0, 0.25 + 0.75 * (seen / 60_000))
        sizes.append(order.micro_capacity(step))
        # A step's batch is the mean over the tokens it covers, so up to one step's growth above its start.
        assert due - 1 <= sizes[-1] <= min(due * 1.03 + 1, 512)
        seen += sizes[-1] * 4
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (129, 512)
    assert order.report().fill > 0.97


def test_batch_warmup_never_goes_below_a_full_sequence(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        order = _order(batch_warmup_tokens=50_000, batch_warmup_start=0.01)
    assert "must hold a full sequence of 64 tokens" in caplog.text
    assert order.micro_capacity(0) >= 64
    assert max(_tokens(draws) for (step, _), draws in _all(order).items() if step == 0) <= order.micro_capacity(0)


def test_bad_plans_are_named() -> None:
    with pytest.raises(ValueError, match="a micro-batch holds 32 tokens"):
        _order(batch_tokens=128)
    with pytest.raises(ValueError, match=r"the mixture weighs \['general'\], the sources are \['general', 'shop'\]"):
        _order(mixture={"general": 1.0})
    with pytest.raises(ValueError, match="must be positive"):
        _order(max_tokens=0)
    with pytest.raises(ValueError, match="at least one source"):
        _order(sources={})
    order = _order()
    with pytest.raises(IndexError, match=f"phase 1 has {order.num_steps} steps of 4"):
        order.micro(order.num_steps, 0)
    with pytest.raises(IndexError):
        order.micro(0, 4)


def test_a_micro_batch_draws_from_the_sources_that_it_has_in_their_order() -> None:
    order = _order(
        sources={name: _lengths(700, i) for i, name in enumerate("abc")}, mixture={"a": 1, "b": 1, "c": 0.02}
    )
    seen = set()
    for draws in _all(order).values():
        names = [draw.source for draw in draws]
        assert names == sorted(set(names))
        assert all(len(draw.indices) for draw in draws)
        seen.add("".join(names))
    assert {"ab", "abc"} <= seen


def test_the_report_counts_repeats_and_what_was_dropped_once() -> None:
    order = PhaseOrder({"s": np.array([60, 50, 40])}, None, 64, 512, 8, max_tokens=150)
    draws = [draw for draws in _all(order).values() for draw in draws]
    rows = Counter(row for draw in draws for row in draw.indices.tolist())
    report = order.report()
    assert report.documents == rows.total() == 8, "a document for each bin"
    assert report.repeated_documents == rows.total() - len(rows) > 0
    assert report.dropped_tokens == 150 - sum([60, 50, 40][row] for row in rows)
