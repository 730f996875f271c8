"""Neighbour product reconstruction: two contents of products that belong together rebuild each other (E-BERT).

Travels to the Hub as remote code: imports torch only.
"""

from __future__ import annotations

import torch


def neighbor_reconstruction_loss(
    anchor: torch.Tensor,
    neighbor: torch.Tensor,
    negative: torch.Tensor,
    anchor_mask: torch.Tensor,
    neighbor_mask: torch.Tensor,
    negative_mask: torch.Tensor,
    margin: float = 1.0,
    normalize: bool = False,
) -> torch.Tensor:
    """Triplet loss of neighbour product reconstruction (E-BERT, equations 9-12), mean over the batch.

    Args:
        anchor: hidden states `[B, N, H]` of the central products.
        neighbor: `[B, M, H]`, products associated with them.
        negative: `[B, K, H]`, unrelated products.
        anchor_mask: `[B, N]`, True on the tokens that count (no padding, no special tokens).
        neighbor_mask: `[B, M]`.
        negative_mask: `[B, K]`.
        margin: margin of the triplet loss.
        normalize: divide each distance by its number of elements, and the attention scores by sqrt(H), so that the
            loss does not grow with length and width; the paper does neither.

    Example:
        >>> a, b = torch.eye(2)[None], torch.ones(1, 1, 2)
        >>> masks = torch.ones(1, 2), torch.ones(1, 1), torch.ones(1, 1)
        >>> float(neighbor_reconstruction_loss(a, b, b, *masks))
        1.0
    """
    positive = reconstruction_distance(anchor, neighbor, anchor_mask, neighbor_mask, normalize)
    other = reconstruction_distance(anchor, negative, anchor_mask, negative_mask, normalize)
    return (margin + positive - other).clamp_min(0).mean()


def named_documents(
    hidden: torch.Tensor, mask: torch.Tensor, borders: torch.Tensor, triplets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of the documents that triplets name, as long as the longest of these: others may be far longer, and many.

    Args:
        hidden: `[T, H]` of a flat batch.
        mask: bool `[T]`.
        borders: `[D + 1]` of its documents.
        triplets: int64 `[P, 3]`, numbers of documents.

    Returns:
        Hidden states `[R, N, H]`, the mask `[R, N]`, False beyond a document's end, and triplets `[P, 3]` of rows.

    Example:
        >>> states, borders = torch.arange(6.0)[:, None], torch.tensor([0, 3, 4, 6])
        >>> rows, mask, triplets = named_documents(states, states[:, 0] >= 0, borders, torch.tensor([[2, 1, 1]]))
        >>> rows[:, :, 0].tolist(), mask.tolist(), triplets.tolist()
        ([[3.0, 4.0], [4.0, 5.0]], [[True, False], [True, True]], [[1, 0, 0]])
    """
    named, rows = triplets.unique(return_inverse=True)
    first, end = borders.long()[named], borders.long()[named + 1]
    longest = int((end - first).max()) if len(named) else 0
    place = first[:, None] + torch.arange(longest, device=hidden.device)[None, :]
    inside = place < end[:, None]
    place = place.clamp_max(len(hidden) - 1)
    return hidden[place], mask[place] & inside, rows


def reconstruction_distance(
    left: torch.Tensor, right: torch.Tensor, left_mask: torch.Tensor, right_mask: torch.Tensor, normalize: bool = False
) -> torch.Tensor:
    """Distance `[B]` of two contents that rebuild each other (E-BERT, equations 9-11).

    Args:
        left: `[B, N, H]`.
        right: `[B, M, H]`.
        left_mask: `[B, N]`.
        right_mask: `[B, M]`.
        normalize: as in `neighbor_reconstruction_loss`.
    """
    # Inside autocast products of float32 are bfloat16 again, whose steps are 2 to 4 where scores are H, 256 to 768.
    with torch.autocast(left.device.type, enabled=False):
        return _distance(left.float(), right.float(), left_mask.bool(), right_mask.bool(), normalize)


def _distance(
    left: torch.Tensor, right: torch.Tensor, left_mask: torch.Tensor, right_mask: torch.Tensor, normalize: bool
) -> torch.Tensor:
    scores = left @ right.transpose(1, 2)
    if normalize:
        scores = scores * left.shape[-1] ** -0.5
    lowest = torch.finfo(scores.dtype).min
    alpha = scores.masked_fill(~right_mask[:, None, :], lowest).softmax(2)
    beta = scores.masked_fill(~left_mask[:, :, None], lowest).softmax(1)
    left_error = ((left - alpha @ right) ** 2).sum(2) * left_mask
    right_error = ((right - beta.transpose(1, 2) @ left) ** 2).sum(2) * right_mask
    if normalize:
        left_error = left_error / (left_mask.sum(1, keepdim=True).clamp_min(1) * left.shape[-1])
        right_error = right_error / (right_mask.sum(1, keepdim=True).clamp_min(1) * right.shape[-1])
    return left_error.sum(1) + right_error.sum(1)
