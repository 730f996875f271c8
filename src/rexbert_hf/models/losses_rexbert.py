"""Masked cross entropy from bounded slices of the logits.

The full logits of a batch are never built. `masked_cross_entropy` walks over rows and vocabulary in tiles that fit
the cache (CPU) or one slice (GPU), and computes the gradients in the same walk, while the exponentials are at hand.

Travels to the Hub as remote code: imports torch and its siblings only.
"""

from __future__ import annotations

from typing import Any

import torch

from .fused_rexbert import softmax_parts
from .products_rexbert import linear, prefers_onednn

CPU_ROWS, CPU_COLUMNS = 1024, 4096
"""Tile of logits on CPU: rows x vocabulary columns. Larger tiles fall out of the cache between passes."""

FAST_COLUMNS = 1024
"""Columns of a tile where products are so fast (bfloat16, oneDNN) that all else has to stay in the inner cache."""

GPU_SLICE_ELEMENTS = 1 << 28
"""Logits held at once on an accelerator (rows x vocabulary): 1 GiB in float32."""


@torch.compiler.disable  # torch 2.11 would compile it to zero gradients; tiles give a compiler nothing to do
def masked_cross_entropy(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    return_ranks: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Sum of cross entropies of `hidden @ weight.T + bias` against `labels`, without the full logits.

    Args:
        hidden: `[M, H]`, one row a labelled position.
        weight: `[V, H]` decoder weight.
        bias: `[V]` decoder bias, or None.
        labels: `[M]` token ids; rows with a negative one count for nothing.
        return_ranks: also return how many others do not score lower than each label; logits are float32 then at least.

    Returns:
        The summed loss (float32 scalar; divide by the count of the whole global step), the number of rows whose
        label alone has the highest logit (int64 scalar), and the ranks `[M]` (0 = the best) or None.

    Example:
        >>> hidden, weight = torch.eye(3), torch.eye(3) * 9
        >>> loss, correct, _ = masked_cross_entropy(hidden, weight, None, torch.tensor([0, 1, 0]))
        >>> round(float(loss), 3), int(correct)
        (9.001, 2)
    """
    if return_ranks:  # in half precision worse tokens tie with the label, which counts as wrong
        dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        hidden, weight, bias = hidden.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    elif torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    with torch.autocast(hidden.device.type, enabled=False):
        loss, correct, ranks = _LinearCrossEntropy.apply(hidden, weight, bias, labels, return_ranks)
    return loss, correct, ranks


class _LinearCrossEntropy(torch.autograd.Function):
    """Forward and gradients in one walk; `backward` only scales them.

    With E the exponentials of a tile and f = 1 / (row sum), the softmax is f * E. The row factor moves out of both
    products, (f E) W = f (E W) and (f E)' H = E' (f H), so that the tile is written once and never rescaled.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        return_ranks: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        needs_grad = any(ctx.needs_input_grad[:3])
        walk = VocabularyWalk(hidden, weight, bias, labels, needs_grad, return_ranks)
        walk.run()
        if needs_grad:
            grad_bias = None if bias is None else walk.grad_bias.to(bias.dtype)
            ctx.save_for_backward(walk.grad_hidden, walk.grad_weight.to(weight.dtype), grad_bias)
        correct, ranks = walk.hits.sum(), walk.ranks
        ctx.mark_non_differentiable(*(found for found in (correct, ranks) if found is not None))
        return walk.loss, correct, ranks

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return (*scaled_gradients(ctx, grads[0]), None, None)


def scaled_gradients(ctx: Any, scale: torch.Tensor) -> list[torch.Tensor | None]:
    """The gradients that forward computed times the loss's own; autograd takes them for constants.

    Raises:
        RuntimeError: if they are to be differentiated again, with `create_graph=True`.
    """
    if torch.is_grad_enabled():
        raise RuntimeError("the masked-LM loss has no second derivative (create_graph=True): take it from the logits")
    return [None if saved is None else saved.mul_(scale.to(saved.dtype)) for saved in ctx.saved_tensors]


class VocabularyWalk:
    """One pass over rows x vocabulary tiles, accumulating loss, hits, ranks and gradients."""

    def __init__(
        self,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        labels: torch.Tensor,
        needs_grad: bool,
        return_ranks: bool,
        row_weights: torch.Tensor | None = None,
        grads: tuple[torch.Tensor, torch.Tensor] | None = None,
        hits_from: int = 0,
    ) -> None:
        """Prepare the walk.

        Args:
            hidden: as in `masked_cross_entropy`, like the next three.
            weight: `widened` by the bias and 1 where the products shall add bias and shift
                (to train in bfloat16 on CPU the walk does that itself).
            bias: or None.
            labels: negative ones count for nothing.
            needs_grad: whether gradients are computed.
            return_ranks: whether ranks are.
            row_weights: of the rows, `[M]`, or None.
            grads: gradients of weight and bias to add to, or None for new ones.
            hits_from: rows before this one get no hits, which saves a pass over their logits.
        """
        width = hidden.shape[1]
        # A pass that turns a tile into float32 and back takes as long as the product that makes it: here a tile stays
        # in bfloat16 from the product, which sums bias and shift in float32, to the gradient. Not to compare tokens by:
        # close logits are equal there.
        self.narrow = hidden.dtype == torch.bfloat16 and hidden.device.type == "cpu" and needs_grad and not return_ranks
        if self.narrow:
            high = torch.zeros(len(weight)) if bias is None else bias.float()
            weight = widened(weight, high, high - high.bfloat16().float(), 1.0, dtype=hidden.dtype)
        self.onednn = hidden.dtype == torch.float32 and hidden.device.type == "cpu" and prefers_onednn()
        weight = weight.to(hidden.dtype)
        self.wide = weight if weight.shape[1] > width else None
        self.hidden, self.weight, self.labels, self.hits_from = hidden, weight[:, :width], labels, hits_from
        self.needs_grad, self.return_ranks, self.row_weights = needs_grad, return_ranks, row_weights
        count, vocabulary = len(hidden), len(weight)
        if hidden.device.type == "cpu":
            self.rows = min(CPU_ROWS, max(count, 1))
            columns = FAST_COLUMNS if self.narrow or self.onednn else CPU_COLUMNS
        else:
            self.rows, columns = max(min(GPU_SLICE_ELEMENTS // vocabulary, count), 1), vocabulary
        self.tiles = [slice(a, min(a + columns, vocabulary)) for a in range(0, vocabulary, columns)]
        self.buffers: dict[int, torch.Tensor] = {}
        self.accumulate = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        self.bias = None if bias is None else bias.to(self.accumulate)
        self.loss = torch.zeros((), dtype=self.accumulate, device=hidden.device)
        self.hits = torch.zeros(count, dtype=torch.bool, device=hidden.device)
        self.ranks = torch.zeros(count, dtype=torch.long, device=hidden.device) if return_ranks else None
        if needs_grad:
            self.grad_hidden = torch.empty_like(hidden)
            self.adds = grads is not None
            if grads is not None:
                self.grad_weight, self.grad_bias = grads
            else:
                make = torch.empty if count else torch.zeros  # the first rows write, the others add
                self.grad_weight = make(self.weight.shape, dtype=self.accumulate, device=hidden.device)
                self.grad_bias = make(vocabulary, dtype=self.accumulate, device=hidden.device)

    def run(self) -> None:
        """Walk over all rows."""
        for start in range(0, len(self.hidden), self.rows):
            self._walk_rows(slice(start, min(start + self.rows, len(self.hidden))))

    def _walk_rows(self, rows: slice) -> None:
        hidden, labels = self.hidden[rows], self.labels[rows]
        peaks = rows.stop > self.hits_from
        if len(self.tiles) == 1:
            sweep = _Sweep(self, hidden, labels, None, peaks)
        else:
            # One shift for all rows joins the bias, which saves a pass. It is a guess: rows that it does not fit
            # (their sum runs over, or to zero) are done again, each with its own peak.
            guess = hidden.dtype != torch.float16
            sweep = _Sweep(self, hidden, labels, self._guess(hidden) if guess else self._peaks(hidden), peaks)
            if guess and not sweep.fits():
                sweep = _Sweep(self, hidden, labels, self._peaks(hidden), peaks)
        counted = labels >= 0
        losses = torch.where(counted, sweep.total.log() - sweep.target, 0)
        self.loss += losses.sum() if self.row_weights is None else losses.dot(self.row_weights[rows])
        if sweep.best is not None:
            self.hits[rows] = sweep.best & counted
        if self.ranks is not None:
            self.ranks[rows] = sweep.ranks
        if self.needs_grad:
            self._gradients(rows, sweep, counted)

    def _guess(self, hidden: torch.Tensor) -> torch.Tensor:
        """Mean over the rows of the largest of the first logits, a scalar."""
        logits = torch.mm(hidden, self.weight[:256].t()).to(self.accumulate)
        return (logits if self.bias is None else logits.add_(self.bias[:256])).amax(1).mean()

    def _peaks(self, hidden: torch.Tensor) -> torch.Tensor:
        """Largest logit of each row, `[R, 1]`."""
        inputs = self.inputs(hidden, hidden.new_zeros(()))
        peaks = [self.logits(inputs, i).amax(1, keepdim=True) for i in range(len(self.tiles))]
        return torch.cat(peaks, dim=1).amax(1, keepdim=True)

    def inputs(self, hidden: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """What `logits` multiplies: the rows, and where the product does it the shift (scalar or `[R, 1]`)."""
        if self.wide is None:
            return hidden
        ones = [1.0] * (self.wide.shape[1] - hidden.shape[1] - 1)
        return widened(hidden, *ones, -shift.expand(len(hidden), 1)[:, 0])

    def logits(self, inputs: torch.Tensor, i: int, shift: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of tile i less a shift (scalar or `[R, 1]`), in the accumulation dtype unless the walk is narrow."""
        part = self.product(inputs, i)
        if self.narrow:
            return part
        part = part.to(self.accumulate)
        if self.wide is not None:
            return part
        bias = None if self.bias is None else self.bias[self.tiles[i]]
        if bias is not None and shift is not None and shift.dim() == 0:
            return part.add_(bias - shift)
        if bias is not None:
            part.add_(bias)
        return part if shift is None else part.sub_(shift)

    def product(self, inputs: torch.Tensor, i: int) -> torch.Tensor:
        """`inputs @ weight.T` of tile i, in its buffer if it can; with bias and shift where the product adds them."""
        weight = self.weight if self.wide is None else self.wide
        if self.onednn:  # which brings memory of its own
            return linear(inputs, weight[self.tiles[i]])
        return torch.mm(inputs, weight[self.tiles[i]].t(), out=self.buffer(len(inputs), i))

    def times(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """`a @ b`."""
        return linear(a, b.t()) if self.onednn else torch.mm(a, b)

    def buffer(self, rows: int, i: int) -> torch.Tensor:
        """Memory of tile i, which the next rows use again; one for all tiles where nobody comes back to them."""
        columns = self.tiles[i].stop - self.tiles[i].start
        key = i if self.needs_grad or self.return_ranks else 0
        if key not in self.buffers:
            self.buffers[key] = self.hidden.new_empty(self.rows * columns)
        return self.buffers[key][: rows * columns].view(rows, columns)

    def _gradients(self, rows: slice, sweep: _Sweep, counted: torch.Tensor) -> None:
        hidden, ones = self.hidden[rows], counted.to(self.accumulate)
        if self.row_weights is not None:
            ones = ones * self.row_weights[rows]
        factor = sweep.label_less(ones)
        scaled, column = hidden * factor[:, None].to(hidden.dtype), factor.to(hidden.dtype)
        beta = 1 if rows.start or self.adds else 0
        # This order reads a tile as it lies; the other has it rearranged, which takes longer than the product.
        turned = torch.cat([scaled.t(), column[None]]) if self.narrow or self.onednn else None
        weighted = torch.zeros(hidden.shape, dtype=self.accumulate, device=hidden.device)
        for tile, part in zip(self.tiles, sweep.parts, strict=True):
            if hidden.dtype == self.accumulate and not self.onednn:
                weighted.addmm_(part, self.weight[tile])
                torch.addmm(self.grad_weight[tile], part.t(), scaled, beta=beta, out=self.grad_weight[tile])
                torch.addmv(self.grad_bias[tile], part.t(), column, beta=beta, out=self.grad_bias[tile])
                continue
            weighted += self.times(part, self.weight[tile])
            if turned is not None:
                found = self.times(turned, part)
                for_weight, for_bias = found[:-1].t(), found[-1]
            else:
                for_weight, for_bias = torch.mm(part.t(), scaled), torch.mv(part.t(), column)
            for target, x in ((self.grad_weight[tile], for_weight), (self.grad_bias[tile], for_bias)):
                target.add_(x) if beta else target.copy_(x)
        self.grad_hidden[rows] = weighted.mul_(factor[:, None])


def widened(rows: torch.Tensor, *columns: torch.Tensor | float, dtype: torch.dtype | None = None) -> torch.Tensor:
    """`[N, D + C]`: C columns more, rows of memory at multiples of 64 bytes.

    [hidden, 1, -shift] times [weight, bias, 1] are the shifted logits: no pass over them adds bias and shift.
    In bfloat16 the bias takes two columns, its value and what rounding left of it.

    Args:
        rows: `[N, D]`.
        columns: each `[N]`, or one value for all rows.
        dtype: of the result; None takes that of the rows.
    """
    count, width = rows.shape
    dtype = dtype or rows.dtype
    total, line = width + len(columns), 64 // dtype.itemsize
    wide = rows.new_empty(count, -(-total // line) * line, dtype=dtype)
    wide[:, :width], wide[:, total:] = rows, 0  # bfloat16 products read pairs: what follows must be finite
    for i, column in enumerate(columns):
        wide[:, width + i] = column
    return wide[:, :total]


def _row_sums(x: torch.Tensor) -> torch.Tensor:
    """Sums over columns, in float32 at least; in bfloat16 32 numbers at a time are rounded together, not all."""
    if x.dtype != torch.bfloat16 or x.shape[1] % 32:
        return x.sum(1, dtype=torch.promote_types(x.dtype, torch.float32))
    return x.unflatten(1, (32, -1)).sum(1).sum(1, dtype=torch.float32)


def _row_peaks(x: torch.Tensor) -> torch.Tensor:
    """Largest of each row of numbers that are not negative: in bfloat16 their bits compare as they do, faster."""
    return x.view(torch.int16).amax(1).view(x.dtype) if x.dtype == torch.bfloat16 else x.amax(1)


class _Sweep:
    """All tiles of a block of R rows, once: exponentials of shifted logits and what can be summed on the way.

    Attributes:
        parts: exponentials of each tile, in the dtype of `hidden`; empty without gradients.
        others: `[R]`, their sums without the label's.
        total: `[R]`, their sums.
        target: `[R]`, shifted logit of the label.
        best: `[R]`, whether the label's logit is above all others: ties and NaN are wrong; None if not asked for.
        ranks: `[R]`, other tokens that are not below the label, if asked for.
        places: for each tile, rows whose label it holds, and the label's column there.
    """

    def __init__(
        self, walk: VocabularyWalk, hidden: torch.Tensor, labels: torch.Tensor, shift: torch.Tensor | None, peaks: bool
    ) -> None:
        self.walk, self.hidden = walk, hidden
        self.parts: list[torch.Tensor] = []
        self.others, self.total, self.target = torch.zeros(3, len(hidden), dtype=walk.accumulate, device=hidden.device)
        self.ranks = torch.full((len(hidden),), len(walk.weight) - 1, device=hidden.device)
        self.best: torch.Tensor | None = None
        self.places: list[tuple[torch.Tensor, torch.Tensor]] = []
        if shift is None:
            self._whole_rows(labels)
        else:
            self._tile_by_tile(labels, shift, peaks)

    def _whole_rows(self, labels: torch.Tensor) -> None:
        """All logits of a row are here at once: one product, its peak as the shift, and no wait for the device."""
        walk, column = self.walk, labels.clamp_min(0)
        product = walk.product(walk.inputs(self.hidden, self.total.new_zeros(())), 0)
        bias = walk.bias if walk.wide is None else None
        own = product.gather(1, column[:, None])[:, 0].to(walk.accumulate) + (0 if bias is None else bias[column])
        product.scatter_(1, column[:, None], -torch.inf)  # the peak of the others says whether one ties with the label
        part, self.others, self.target, highest, ranks = softmax_parts(product, bias, own, walk.return_ranks)
        self.best, self.total = self.target > highest, self.others + self.target.exp()
        self.ranks = self.ranks if ranks is None else ranks
        self.parts, self.places = [part], [(torch.arange(len(labels), device=labels.device), column)]

    def _tile_by_tile(self, labels: torch.Tensor, shift: torch.Tensor, peaks: bool) -> None:
        walk, inputs = self.walk, self.walk.inputs(self.hidden, shift)
        order = labels.argsort()
        borders = torch.searchsorted(
            labels[order], torch.tensor([0, *(t.stop for t in walk.tiles)]).to(labels)
        ).tolist()
        logits, own, highest = [], torch.zeros_like(self.target), torch.zeros_like(self.target)
        for i, tile in enumerate(walk.tiles):
            part = walk.logits(inputs, i, shift)
            here = order[borders[i] : borders[i + 1]]
            place = here, labels[here] - tile.start
            self.places.append(place)
            self.target[here] = part[place].to(self.target.dtype)
            if walk.return_ranks:
                logits.append(part.clone())
            exponential = part.exp_()
            if peaks:
                own[here] = exponential[place].to(own.dtype)
            exponential[place] = 0
            self.others += _row_sums(exponential)
            if peaks:
                torch.maximum(highest, _row_peaks(exponential).to(own.dtype), out=highest)
            if walk.needs_grad:
                low = exponential.dtype != self.hidden.dtype
                self.parts.append(walk.buffer(len(part), i).copy_(exponential) if low else exponential)
        self.total = self.others + self.target.exp()
        for part in logits:
            self.ranks -= (part < self.target[:, None]).sum(1)
        self.best = (own > highest) & (self.total < torch.inf) if peaks else None

    def label_less(self, row_weights: torch.Tensor) -> torch.Tensor:
        """Make `parts` the gradient of the logits but for a factor of each row, which is returned, `[R]`.

        The gradient at the label, its probability less one, is less the sum of all others: what is left of a sure
        label is not lost in the rounding of a one.

        Args:
            row_weights: `[R]`, 0 where a row does not count.
        """
        low = self.hidden.dtype == torch.float16  # whose range a sum over a vocabulary leaves
        label = -self.others / self.total if low else -self.others
        for part, place in zip(self.parts, self.places, strict=True):
            if low:
                part.div_(self.total[:, None])
            part[place] = label[place[0]].to(part.dtype)
        return row_weights if low else row_weights / self.total

    def fits(self) -> bool:
        """Whether no row's sum ran over or vanished."""
        return bool(((self.total > 1e-20) & (self.total < 1e30)).all())
