"""The load factor of packing: how full groups may be planned so that next to nothing is left over.

It is measured, not modelled: groups of pieces are drawn at random from the sources as the mixture weighs them, and
packed. The same arguments give the same factor, so it is part of the order and never needs to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rexbert_hf.data.mixture import Mixture
from rexbert_hf.data.pack import pack
from rexbert_hf.data.pieces import CALIBRATION_STREAM, PieceIndex

MAX_DROPPED_SHARE = 0.0001
"""Well below the 0.1 % that a phase may drop: groups vary, and the shortest documents are those dropped."""
LOADS = (1.0, 0.9995, 0.999, 0.998, 0.997, 0.996, 0.995, 0.994, 0.992, 0.99, 0.985, *np.geomspace(0.98, 0.3, 40))
SPREAD = 0.9
"""Share of the tokens that is dealt out before best fit starts, unless pure best fit fills clearly more."""
_GOOD_LOAD = 0.99
_WORTH_LESS_SPREAD = 0.005
_GROUPS = 8


def calibrate(
    indexes: Sequence[PieceIndex], mixture: Mixture, num_bins: int, capacity: int, key: tuple[int, ...]
) -> tuple[float, float]:
    """Measure the largest load factor that drops next to nothing.

    Args:
        indexes: pieces of each source, in the order of the mixture.
        mixture: shares of the sources over the phase.
        num_bins: bins of a group.
        capacity: tokens of a bin.
        key: seed and phase.

    Returns:
        The load factor, and the `spread` to give to `pack`.
    """
    groups = [_random_group(indexes, mixture, num_bins * capacity, key, number) for number in range(_GROUPS)]
    load = _largest_load(groups, num_bins, capacity, SPREAD)
    if load >= _GOOD_LOAD:
        return load, SPREAD
    best_fit = _largest_load(groups, num_bins, capacity, 0.0)
    return (best_fit, 0.0) if best_fit > load + _WORTH_LESS_SPREAD else (load, SPREAD)


def _largest_load(groups: list[list[tuple[np.ndarray, np.ndarray]]], bins: int, capacity: int, spread: float) -> float:
    load, bound = LOADS[-1], 1.0
    for load in LOADS:
        if load > bound:
            continue
        placed = dropped = 0
        for group in groups:
            lengths = np.concatenate([drawn[starts < load] for drawn, starts in group])
            where = pack(lengths, capacity, bins, spread)
            placed += int(lengths[where >= 0].sum())
            dropped += int(lengths[where < 0].sum())
        share = dropped / max(placed + dropped, 1)
        if share <= MAX_DROPPED_SHARE:
            break
        # What did not fit now will not fit until the load is down by about as much.
        bound = load * (1 - share) + MAX_DROPPED_SHARE
    return float(load)


def _random_group(
    indexes: Sequence[PieceIndex], mixture: Mixture, slots: int, key: tuple[int, ...], number: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lengths of random pieces of each source, and the load from which on each piece belongs to the group.

    The first piece starts at a random point before the group, because a real group's border falls inside pieces too:
    its tokens differ from the plan by up to a piece a source.
    """
    shares = mixture.shares(number / (_GROUPS - 1))
    group = []
    for source, (index, share) in enumerate(zip(indexes, shares, strict=True)):
        rng = np.random.default_rng([CALIBRATION_STREAM, *key, source, number])
        due = max(share * slots, 1.0)
        draw = int(due * len(index) / index.num_tokens * 1.1) + 2
        lengths = np.zeros(0, dtype=np.int64)
        while not len(lengths) or lengths[1:].sum() < due:
            lengths = np.concatenate([lengths, index.lengths[rng.integers(0, len(index), draw)]])
        starts = np.cumsum(lengths) - lengths - rng.integers(0, lengths[0])
        group.append((lengths[starts >= 0], starts[starts >= 0] / due))
    return group
