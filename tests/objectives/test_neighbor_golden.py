"""Equations 9-12 of E-BERT written out in float64: the loss and its gradients, for inputs of hand size."""

from __future__ import annotations

import math

import pytest
import torch

from rexbert_hf.objectives import neighbor_reconstruction_loss, reconstruction_distance

LENGTHS = ((3, 2, 4), (1, 1, 1), (4, 5, 2), (2, 2, 2))
"""Tokens of product, neighbour and unrelated product of each triplet."""
WIDTH = 3
MARGIN = 6.0


def dot(x, y):
    return sum(a * b for a, b in zip(x, y, strict=True))


def cross_attention(w, o, scale):
    """Equation 9: alpha [n, m] sums to one over j, beta [m, n] over i."""
    e = [[math.exp(scale * dot(w_i, o_j)) for o_j in o] for w_i in w]
    alpha = [[e[i][j] / sum(e[i]) for j in range(len(o))] for i in range(len(w))]
    beta = [[e[i][j] / sum(e[k][j] for k in range(len(w))) for i in range(len(w))] for j in range(len(o))]
    return alpha, beta


def rebuilt(weights, vectors):
    """Equation 10: weighted sums of vectors, one a row of weights."""
    return [[sum(a * v[d] for a, v in zip(row, vectors, strict=True)) for d in range(WIDTH)] for row in weights]


def squared_errors(vectors, others):
    return sum((a - b) ** 2 for x, y in zip(vectors, others, strict=True) for a, b in zip(x, y, strict=True))


def distance(w, o, normalize):
    """Equation 11."""
    alpha, beta = cross_attention(w, o, WIDTH**-0.5 if normalize else 1.0)
    there, back = squared_errors(w, rebuilt(alpha, o)), squared_errors(o, rebuilt(beta, w))
    if normalize:
        there, back = there / (len(w) * WIDTH), back / (len(o) * WIDTH)
    return there + back


def loss(triplets, margin, normalize):
    """Equation 12, mean over the triplets."""
    parts = [max(0.0, margin + distance(a, b, normalize) - distance(a, c, normalize)) for a, b, c in triplets]
    return sum(parts) / len(parts)


def case(seed=3, spread=0.8):
    """Contents `[P, 3]` as nested lists of floats."""
    generator = torch.Generator().manual_seed(seed)
    draw = [[spread * torch.randn(n, WIDTH, generator=generator, dtype=torch.float64) for n in row] for row in LENGTHS]
    return [[content.tolist() for content in row] for row in draw]


def padded(triplets, place):
    """Contents number `place` of all triplets as a padded batch and its mask; padding holds sevens."""
    contents = [torch.tensor(row[place]) for row in triplets]
    longest = max(map(len, contents)) + 1
    batch = torch.stack([torch.cat([c, torch.full((longest - len(c), WIDTH), 7.0)]) for c in contents])
    mask = torch.arange(longest) < torch.tensor([len(c) for c in contents])[:, None]
    return batch.requires_grad_(), mask


def tensors(triplets):
    batches, masks = zip(*(padded(triplets, place) for place in range(3)), strict=True)
    return list(batches), list(masks)


@pytest.mark.parametrize("normalize", [False, True])
def test_loss_as_the_equations_say(normalize):
    triplets = case()
    batches, masks = tensors(triplets)
    found = neighbor_reconstruction_loss(*batches, *masks, margin=MARGIN, normalize=normalize)
    assert found.item() == pytest.approx(loss(triplets, MARGIN, normalize), rel=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("margin", [1.0, MARGIN])
def test_gradients_as_the_equations_say(normalize, margin):
    """Against central differences of the float64 transcription, number by number (error about 1e-9)."""
    triplets, step = case(), 1e-5
    batches, masks = tensors(triplets)
    neighbor_reconstruction_loss(*batches, *masks, margin=margin, normalize=normalize).backward()
    hinges = [margin + distance(a, b, normalize) - distance(a, c, normalize) for a, b, c in triplets]
    assert min(map(abs, hinges)) > 1e-3, "no triplet at the kink, where the derivative jumps"
    largest = 0.0
    for t, row in enumerate(triplets):
        for place, content in enumerate(row):
            for i, vector in enumerate(content):
                for d in range(WIDTH):
                    kept = vector[d]
                    vector[d] = kept + step
                    up = loss(triplets, margin, normalize)
                    vector[d] = kept - step
                    down = loss(triplets, margin, normalize)
                    vector[d] = kept
                    expected = (up - down) / (2 * step)
                    assert float(batches[place].grad[t, i, d]) == pytest.approx(expected, rel=1e-4, abs=2e-6)
                    largest = max(largest, abs(expected))
    assert largest > (0.01 if normalize else 0.1)
    for batch, mask in zip(batches, masks, strict=True):
        assert not batch.grad[~mask].any(), "padding takes no part"


def test_numbers_worked_out_by_hand():
    """One word each: whatever the attention, it is 1, so each side rebuilds the other as itself."""
    one = torch.ones(1, 1)
    a, b, c = (torch.tensor([[x]]) for x in ([1.0, 0.0], [1.0, 1.0], [0.0, 0.0]))
    assert float(reconstruction_distance(a, b, one, one)) == 2.0  # |(0, 1)|^2 both ways
    assert float(reconstruction_distance(a, c, one, one)) == 2.0
    assert float(neighbor_reconstruction_loss(a, b, c, one, one, one)) == 1.0
    assert float(neighbor_reconstruction_loss(a, a, c, one, one, one)) == 0.0  # 1 + 0 - 2 is below zero
    assert float(neighbor_reconstruction_loss(a, c, a, one, one, one)) == 3.0  # 1 + 2 - 0
    assert float(reconstruction_distance(a, b, one, one, normalize=True)) == 1.0  # a mean over 2 numbers, both ways


def test_attention_weighs_two_words_as_the_softmax_does():
    """Product (ln 3, 0); neighbour (1, 0) and (0, 1): weights 3/4 and 1/4, and the neighbour's words rebuild as it."""
    w, o = torch.tensor([[[math.log(3), 0.0]]]), torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    there = (math.log(3) - 0.75) ** 2 + 0.25**2
    back = (1 - math.log(3)) ** 2 + (math.log(3) ** 2 + 1)
    found = reconstruction_distance(w, o, torch.ones(1, 1), torch.ones(1, 2))
    assert float(found) == pytest.approx(there + back, rel=1e-6)


def test_distance_is_the_same_from_both_sides():
    (a, b, _), _ = case()[2], None
    left, right = torch.tensor([a]), torch.tensor([b])
    ones = torch.ones(1, len(a)), torch.ones(1, len(b))
    for normalize in (False, True):
        there = reconstruction_distance(left, right, *ones, normalize)
        back = reconstruction_distance(right, left, *reversed(ones), normalize)
        torch.testing.assert_close(there, back, rtol=1e-5, atol=1e-6)
