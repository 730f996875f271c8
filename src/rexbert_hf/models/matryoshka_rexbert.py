"""Masked-LM loss over a grid of layers x dimensions: one encoder whose sub-models all predict (m3BERT, section 3).

Cell (l, d) is the encoder cut after layer l, read in its first d dimensions, under the one sliced head: dense[:d, :d],
norm[:d], decoder[:, :d] and the whole bias. All cells come from one encoder pass; of a layer in between only the
labelled positions are kept, and logits exist in tiles only. Cells of equal width share one walk over the vocabulary.

Shape letters: T tokens of the flat batch; H width; M labelled tokens; V vocabulary. Travels to the Hub as remote code:
imports torch and its siblings only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .configuration_rexbert import RexBertConfig
from .layout_rexbert import Layout
from .logits_rexbert import grid_logits_cross_entropy, is_its_weight
from .losses_rexbert import VocabularyWalk, scaled_gradients, widened
from .products_rexbert import linear, project_cut

TEACHER_ELEMENTS = 1 << 24
"""Logits of the teacher held at once (rows x vocabulary): 64 MiB in float32."""

Cell = tuple[int, int]


@dataclass(frozen=True)
class Grid:
    """The cells that a step trains.

    Attributes:
        cells: (layers, dimensions), the largest one last.
        weights: of each cell in the sum.
    """

    cells: tuple[Cell, ...]
    weights: tuple[float, ...]

    @classmethod
    def of(cls, config: RexBertConfig) -> Grid | None:
        """The grid that a configuration asks for, all cells; None if it asks for none.

        Raises:
            ValueError: if the whole model is not among the cells: parts of it would never be trained.
        """
        cells = config.matryoshka_grid()
        if not cells:
            return None
        check_whole(cells, (config.num_hidden_layers, config.hidden_size))
        weights = config.matryoshka_weights or [1.0] * len(cells)
        # By width, then depth: widths are walked one after the other, and the largest cell comes last.
        order = sorted(range(len(cells)), key=lambda i: (cells[i][1], cells[i][0]))
        return cls(tuple(cells[i] for i in order), tuple(float(weights[i]) for i in order))

    def sample(self, count: int) -> Grid:
        """The last cell and `count - 1` others, drawn without replacement; their weights keep the sum unbiased.

        The draw comes from torch's generator of the CPU, which `CurriculumTrainer` seeds before each micro-batch.

        Args:
            count: cells to keep, 2 or more; 0, or as many as there are, keeps all.

        Example:
            >>> Grid(((1, 4), (1, 8), (2, 8)), (1.0, 1.0, 1.0)).sample(2).weights
            (2.0, 1.0)
        """
        others = len(self.cells) - 1
        if not 1 < count <= others:
            return self
        drawn = sorted(torch.randperm(others)[: count - 1].tolist())
        factor = others / (count - 1)
        cells = [self.cells[i] for i in drawn]
        weights = [self.weights[i] * factor for i in drawn]
        return Grid((*cells, self.cells[-1]), (*weights, self.weights[-1]))

    @property
    def layers(self) -> set[int]:
        """Layers after which a cell is read."""
        return {layers for layers, _ in self.cells}

    def by_width(self) -> dict[int, list[int]]:
        """Indexes of the cells of each width."""
        found: dict[int, list[int]] = {}
        for index, (_, dim) in enumerate(self.cells):
            found.setdefault(dim, []).append(index)
        return found


def check_whole(cells: Sequence[Cell], whole: Cell) -> None:
    """Refuse to train cells without the whole model: its last layers, or dimensions of its head, would stay random.

    Args:
        cells: (layers, dimensions).
        whole: layers and width of the model.

    Raises:
        ValueError: with the way out.
    """
    if whole not in cells:
        raise ValueError(
            f"the whole model, {whole[0]} layers x {whole[1]} dimensions, is no cell of the grid and would not be"
            " trained: add it, or make the model smaller"
        )


class LabelledStates:
    """Gathers the hidden states of labelled positions while the encoder runs: `[M, H]` for each layer asked for.

    Args:
        layers: after which layers.
        places: of the labels in `[B * S]`, `[M]`.
    """

    def __init__(self, layers: set[int], places: torch.Tensor) -> None:
        self.layers, self.places = layers, places
        self.states: dict[int, torch.Tensor] = {}
        self._index: torch.Tensor | None = None

    def __call__(self, depth: int, hidden: torch.Tensor, layout: Layout) -> None:
        """Take the output `[T, H]` of layer number `depth` (1 is the first)."""
        if depth not in self.layers:
            return
        if self._index is None:
            # A label on padding has no place; the head refuses it with a message of its own.
            self._index = layout.flat_index(self.places).clamp_min(0)
        self.states[depth] = hidden.index_select(0, self._index)


def grid_loss(
    model: Any, grid: Grid, gathered: LabelledStates, last: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum of a masked-LM model's loss over the cells, and the largest cell's hits.

    Args:
        model: with an encoder `model`, a `head` and a `decoder`.
        grid: the cells of this step.
        gathered: states of the layers in between.
        last: states of the last layer, normed, `[M, H]`, spare rows included.
        targets: `[M]`, negative for spare rows.
    """
    config = model.config
    states = {config.num_hidden_layers: last}
    for depth, rows in gathered.states.items():
        rows = model.model.normed(rows, depth)
        states[depth] = F.pad(rows, (0, 0, 0, len(targets) - len(rows)))
    hidden, weights = [], []
    for dim, cells in grid.by_width().items():
        hidden.append(model.head(torch.cat([states[grid.cells[i][0]] for i in cells]), dim))
        weights.append([grid.weights[i] for i in cells])
    decoder, kl_weight = model.decoder, float(config.matryoshka_kl_weight)
    if not is_its_weight(decoder):
        logits = [project_cut(decoder, part, config.hidden_size) for part in hidden]
        return grid_logits_cross_entropy(logits, targets, weights, kl_weight)
    return grid_cross_entropy(hidden, decoder.weight, decoder.bias, targets, weights, kl_weight)


@torch.compiler.disable
def grid_cross_entropy(
    hidden: Sequence[torch.Tensor],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    row_weights: Sequence[Sequence[float]],
    kl_weight: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted sum of the cross entropies of many cells, without the logits of any.

    Args:
        hidden: for each width d, by rising d, head outputs `[C * M, d]`: the rows of its C cells one cell after the
            other. The last M rows of all are the largest cell's.
        weight: `[V, H]` decoder weight, of which a cell reads `[:, :d]`.
        bias: `[V]`, or None.
        labels: `[M]`; rows with a negative one count for nothing.
        row_weights: for each width the weight of each of its cells.
        kl_weight: adds, for each cell but the largest, so many times KL(largest || cell), with the largest cell as a
            detached teacher (as 2DMSE does, whose divergence is between embeddings; this one is between predictions,
            at temperature 1). The weight of a cell multiplies it too, and so does the factor of `Grid.sample`.

    Returns:
        The sum (scalar; divide by the count of labelled tokens of the global step), and how many labels the largest
        cell ranks first.

    Example:
        >>> hidden = [torch.eye(4)[:2, :2], torch.eye(4)[:2]]
        >>> loss, correct = grid_cross_entropy(hidden, torch.eye(4) * 9, None, torch.tensor([0, 1]), [[1.0], [1.0]])
        >>> round(float(loss), 4), int(correct)
        (0.0015, 2)
    """
    device = weight.device.type
    if torch.is_autocast_enabled(device):
        hidden = [part.to(torch.get_autocast_dtype(device)) for part in hidden]
    options = (labels, row_weights, kl_weight)
    with torch.autocast(device, enabled=False):
        loss, correct = _GridCrossEntropy.apply(options, weight, bias, *hidden)
    return loss, correct


class _GridCrossEntropy(torch.autograd.Function):
    """All widths into one gradient of the decoder; `backward` only scales."""

    @staticmethod
    def forward(
        ctx: Any, options: tuple[Any, ...], weight: torch.Tensor, bias: torch.Tensor | None, *hidden: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        labels, row_weights, kl_weight = options
        needs_grad = any(ctx.needs_input_grad[1:])
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        grad_weight = torch.zeros(weight.shape if needs_grad else (0,), dtype=dtype, device=weight.device)
        grad_bias = torch.zeros(len(weight) if needs_grad else 0, dtype=dtype, device=weight.device)
        loss = torch.zeros((), dtype=dtype, device=weight.device)
        teacher = (hidden[-1][len(hidden[-1]) - len(labels) :], weight.to(hidden[-1].dtype), bias)
        grads, correct = [], torch.zeros((), dtype=torch.long, device=weight.device)
        for part, weights in zip(hidden, row_weights, strict=True):
            dim, cells = part.shape[1], len(weights)
            sliced = weight[:, :dim].to(part.dtype)  # to be copied: a slice read in place wastes its cache lines
            exact = part.dtype == dtype and part.device.type == "cpu"
            wide = widened(sliced, 0.0 if bias is None else bias, 1.0) if exact else sliced.contiguous()
            rows = torch.tensor(weights, dtype=dtype, device=part.device).repeat_interleave(len(labels))
            grad = (grad_weight[:, :dim], grad_bias) if needs_grad else None
            largest = len(part) - len(labels) if part is hidden[-1] else len(part)
            walk = VocabularyWalk(part, wide, bias, labels.repeat(cells), needs_grad, False, rows, grad, largest)
            walk.run()
            loss, correct = loss + walk.loss, walk.hits[largest:].sum()
            if kl_weight:
                students = part if part is not hidden[-1] else part[: len(part) - len(labels)]
                found = _distil(students, wide[:, :dim], bias, teacher, labels, rows * kl_weight, needs_grad)
                loss = loss + found.loss
                if needs_grad:
                    walk.grad_hidden[: len(students)] += found.grad_hidden.to(part.dtype)
                    grad_weight[:, :dim] += found.grad_weight
                    grad_bias += found.grad_bias
            grads.append(walk.grad_hidden if needs_grad else None)
        if needs_grad:
            ctx.save_for_backward(
                grad_weight.to(weight.dtype), None if bias is None else grad_bias.to(bias.dtype), *grads
            )
        ctx.mark_non_differentiable(correct)
        return loss, correct

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (None, *scaled_gradients(ctx, grads[0]))


@dataclass
class _Distilled:
    """Loss and gradients of the students, in the accumulation dtype."""

    loss: torch.Tensor
    grad_hidden: torch.Tensor
    grad_weight: torch.Tensor
    grad_bias: torch.Tensor


def _distil(
    students: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    teacher: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None],
    labels: torch.Tensor,
    row_weights: torch.Tensor,
    needs_grad: bool,
) -> _Distilled:
    """KL(teacher || student) of all students of a width, a few rows at a time: the teacher's logits once each."""
    dtype, count = row_weights.dtype, len(labels)
    cells = len(students) // max(count, 1)
    found = _Distilled(
        torch.zeros((), dtype=dtype, device=students.device),
        torch.zeros(students.shape, dtype=dtype, device=students.device),
        torch.zeros(weight.shape, dtype=dtype, device=students.device),
        torch.zeros(len(weight), dtype=dtype, device=students.device),
    )
    step = max(1, TEACHER_ELEMENTS // len(weight))
    for start in range(0, count if cells else 0, step):
        rows = slice(start, min(start + step, count))
        wanted = _log_softmax(teacher[0][rows], teacher[1], teacher[2], dtype)
        target = wanted.exp()
        for cell in range(cells):
            place = slice(cell * count + rows.start, cell * count + rows.stop)
            factor = row_weights[place] * (labels[rows] >= 0)
            logs = _log_softmax(students[place], weight, bias, dtype)
            found.loss += ((target * (wanted - logs)).sum(1) * factor).sum()
            if needs_grad:
                difference = logs.exp_().sub_(target).mul_(factor[:, None])
                plain = difference.to(students.dtype)
                found.grad_hidden[place] = linear(plain, weight.t()).to(dtype)
                found.grad_weight += linear(plain.t(), students[place].t())
                found.grad_bias += difference.sum(0)
    return found


def _log_softmax(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    logits = linear(hidden, weight).to(dtype)
    if bias is not None:
        logits += bias.to(dtype)
    return logits.log_softmax(1)
