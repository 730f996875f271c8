"""Masked-token accuracy as sums and counts, so that batches, shards and ranks add up exactly.

A token's rank is the number of other vocabulary entries that do not score lower than its label: it is among the top k
when its rank is below k. So a tie counts against the label, or a model that says the same of all tokens would be right
every time. Everything else (positions, span kinds) only decides which rows of the table a token is added to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np


def masked_accuracy(correct: np.ndarray | float, count: np.ndarray | float) -> float:
    """Share of correct tokens over batches; every token weighs the same. NaN when nothing was masked.

    Args:
        correct: correct tokens of each batch.
        count: masked tokens of each batch.

    Raises:
        ValueError: if more tokens are correct than were masked.

    >>> masked_accuracy([1, 0], [1, 3])
    0.25
    """
    right, total = float(np.sum(correct)), float(np.sum(count))
    if right > total:
        raise ValueError(
            f"{right:g} correct tokens of {total:g} masked ones: the two were not counted over the same batches"
        )
    return right / total if total else float("nan")


def label_ranks(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Count the other entries that do not score lower than each label.

    A label comes last where its score or the highest one is no finite number: its cross entropy is none either.

    Args:
        logits: `[M, V]`.
        labels: `[M]`.

    >>> label_ranks(np.array([[0.1, 0.9, 0.5], [1.0, 1.0, 0.0], [9.0, 0.0, np.nan]]), np.array([2, 0, 0])).tolist()
    [1, 1, 2]
    """
    own, last = np.take_along_axis(logits, labels[:, None], axis=1), logits.shape[1] - 1
    finite = np.isfinite(own[:, 0]) & np.isfinite(logits.max(axis=1))
    return np.where(finite, last - (logits < own).sum(axis=1), last)


def token_kinds(num_tokens: int, start: np.ndarray, end: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """Kind of the span that each token lies in, -1 outside all spans; of overlapping spans the shortest decides.

    Args:
        num_tokens: T.
        start: first token of each span, `[N]`.
        end: one past its last token, `[N]`.
        kind: its kind, `[N]`.

    >>> token_kinds(6, np.array([0, 1]), np.array([4, 2]), np.array([0, 4])).tolist()
    [0, 4, 0, 0, -1, -1]
    """
    kinds = np.full(num_tokens, -1, dtype=np.int64)
    lengths = np.asarray(end, dtype=np.int64) - start
    order = np.argsort(-lengths, kind="stable")
    lengths = lengths[order]
    first = np.repeat(np.asarray(start, dtype=np.int64)[order], lengths)
    within = np.arange(len(first)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    kinds[first + within] = np.repeat(np.asarray(kind)[order], lengths)
    return kinds


@dataclass
class MaskedTokenCounts:
    """Accumulator of masked-token accuracy: over all, by position, and by kind of span.

    Attributes:
        top_k: the k of the top-k accuracies.
        position_edges: bucket i holds positions `edges[i] <= p < edges[i + 1]`.
        kinds: names of span kinds; kind index -1 is "rest", all others together are "guided".
        values: float64 `[1 + buckets + kinds + 1, 2 + len(top_k)]`; columns are the count, the summed loss, and the
            tokens within each top k. Sums of `values` over ranks are the values of all ranks.

    Example:
        >>> counts = MaskedTokenCounts(kinds=("price",))
        >>> ranks, positions, kinds = np.array([0, 2, 0, 9]), np.array([5, 6, 1500, 1501]), np.array([0, -1, -1, -1])
        >>> counts.update(ranks, positions, kinds)
        >>> report = counts.report()
        >>> report["accuracy"], report["accuracy@3"], report["accuracy_1024_8191"], report["accuracy_guided"]
        (0.5, 0.75, 0.5, 1.0)
    """

    top_k: tuple[int, ...] = (1, 3, 5)
    position_edges: tuple[int, ...] = (0, 1024, 8192)
    kinds: tuple[str, ...] = ()
    values: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        if list(self.position_edges) != sorted(set(self.position_edges)):
            raise ValueError(f"position edges must increase; got {self.position_edges}")
        shape = (len(self._rows()), 2 + len(self.top_k))
        if self.values.size == 0:
            self.values = np.zeros(shape)
        elif self.values.shape != shape:
            raise ValueError(f"values must have the shape {shape}; got {self.values.shape}")

    def _rows(self) -> list[str]:
        buckets = [f"_{low}_{high - 1}" for low, high in pairwise(self.position_edges)]
        return ["", *buckets, *(f"_{kind}" for kind in self.kinds), "_rest"]

    def update(
        self,
        ranks: np.ndarray,
        positions: np.ndarray | None = None,
        kinds: np.ndarray | None = None,
        losses: np.ndarray | None = None,
    ) -> None:
        """Add masked tokens.

        Args:
            ranks: rank of each label, `[M]`; with nothing but right or wrong at hand, `np.where(correct, 0, V)`.
            positions: position of each token in its document, `[M]`.
            kinds: index into `kinds`, or -1, `[M]`.
            losses: loss of each token in nats, `[M]`.

        Raises:
            ValueError: if the arrays differ in length or a kind is unknown.
        """
        ranks = np.asarray(ranks).ravel()
        for name, column in (("positions", positions), ("kinds", kinds), ("losses", losses)):
            if column is not None and np.size(column) != len(ranks):
                raise ValueError(f"{len(ranks)} ranks but {np.size(column)} {name}: give one a masked token")
        columns = np.empty((len(ranks), self.values.shape[1]))
        columns[:, 0] = 1.0
        columns[:, 1] = 0.0 if losses is None else np.ravel(losses)
        columns[:, 2:] = ranks[:, None] < np.asarray(self.top_k)
        self.values[0] += columns.sum(axis=0)
        if positions is not None:
            bucket = np.searchsorted(self.position_edges, np.ravel(positions), side="right") - 1
            inside = (bucket >= 0) & (bucket < len(self.position_edges) - 1)
            np.add.at(self.values, 1 + bucket[inside], columns[inside])
        if kinds is not None:
            kind = np.ravel(kinds)
            if len(kind) and not -1 <= kind.min() <= kind.max() < len(self.kinds):
                raise ValueError(f"span kinds must lie in -1..{len(self.kinds) - 1}; got {kind.min()}..{kind.max()}")
            row = np.where(kind < 0, len(self.values) - 1, max(1, len(self.position_edges)) + kind)
            np.add.at(self.values, row, columns)

    def merge(self, other: MaskedTokenCounts) -> MaskedTokenCounts:
        """Add the counts of another accumulator of the same layout to this one and return it."""
        if (self.top_k, self.position_edges, self.kinds) != (other.top_k, other.position_edges, other.kinds):
            raise ValueError("cannot merge masked-token counts with different top_k, position_edges or kinds")
        self.values = self.values + other.values
        return self

    def report(self) -> dict[str, float]:
        """Accuracies, top-k accuracies, mean losses and counts, of every row that holds a token.

        Keys are `accuracy`, `accuracy@k`, `loss` and `count` with the row's name behind: nothing for all tokens,
        `_0_1023` for positions, `_price` for a kind, `_guided` for all kinds together, `_rest` for the others.
        `loss` appears only if losses were given.
        """
        first = max(1, len(self.position_edges))
        rows = dict(zip(self._rows(), self.values, strict=True))
        rows["_guided"] = self.values[first : first + len(self.kinds)].sum(axis=0)
        out: dict[str, float] = {}
        for name, row in rows.items():
            if row[0]:
                for k, correct in zip(self.top_k, row[2:], strict=True):
                    out[f"accuracy{'' if k == 1 else f'@{k}'}{name}"] = float(correct / row[0])
                if self.values[0, 1]:
                    out[f"loss{name}"] = float(row[1] / row[0])
                out[f"count{name}"] = float(row[0])
        return out
