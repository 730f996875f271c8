"""Neighbour product reconstruction, equations 9-12 of E-BERT, against loops in float64."""

from __future__ import annotations

import math

import pytest
import torch

from rexbert_hf.models import neighbor_reconstruction_loss, reconstruction_distance
from rexbert_hf.models.reconstruction_rexbert import named_documents


def one_way(rebuilt: list[list[float]], source: list[list[float]], scale: float) -> float:
    """Squared distance of each vector of `rebuilt` to its softmax-weighted mean of `source` (equations 9 and 10)."""
    total = 0.0
    for target in rebuilt:
        scores = [scale * sum(a * b for a, b in zip(target, s, strict=True)) for s in source]
        peak = max(scores)
        weights = [math.exp(s - peak) for s in scores]
        mixed = [sum(w * s[d] for w, s in zip(weights, source, strict=True)) / sum(weights) for d in range(len(target))]
        total += sum((t - m) ** 2 for t, m in zip(target, mixed, strict=True))
    return total


def distance(left: torch.Tensor, right: torch.Tensor, normalize: bool) -> float:
    """Equation 11: both directions."""
    a, b = left.tolist(), right.tolist()
    width = left.shape[1]
    scale = width**-0.5 if normalize else 1.0
    there, back = one_way(a, b, scale), one_way(b, a, scale)
    if normalize:
        there, back = there / (len(a) * width), back / (len(b) * width)
    return there + back


def batch(seed=0):
    """Three triplets of different lengths, padded with numbers that must not matter."""
    generator = torch.Generator().manual_seed(seed)
    contents, masks = [], []
    for lengths, size in (((4, 2, 5), 6), ((3, 3, 1), 4), ((1, 5, 2), 5)):
        rows = torch.randn(3, size, 3, generator=generator, dtype=torch.float64)
        mask = torch.arange(size)[None, :] < torch.tensor(lengths)[:, None]
        contents.append(rows)
        masks.append(mask)
    return contents, masks


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("margin", [0.0, 1.0, 20.0])
def test_equals_the_loops(normalize, margin):
    contents, masks = batch()
    expected = []
    for i in range(3):
        anchor, neighbor, negative = (c[i][m[i]] for c, m in zip(contents, masks, strict=True))
        near, far = distance(anchor, neighbor, normalize), distance(anchor, negative, normalize)
        expected.append(max(margin + near - far, 0.0))
    found = neighbor_reconstruction_loss(*contents, *masks, margin=margin, normalize=normalize)
    assert float(found) == pytest.approx(sum(expected) / 3, rel=1e-5)


def test_a_margin_hides_far_negatives_only():
    contents, masks = batch()
    near = reconstruction_distance(contents[0], contents[1], masks[0], masks[1])
    far = reconstruction_distance(contents[0], contents[2], masks[0], masks[2])
    assert bool((near > far).any())
    assert bool((near < far).any())  # the cases of the test above cover both sides of the hinge
    assert float(neighbor_reconstruction_loss(*contents, *masks, margin=-1e3)) == 0.0


@pytest.mark.parametrize("normalize", [False, True])
def test_padding_and_special_tokens_do_not_matter(normalize):
    contents, masks = batch()
    changed = [c.where(m[:, :, None], torch.full_like(c, 9.0)) for c, m in zip(contents, masks, strict=True)]
    plain = neighbor_reconstruction_loss(*contents, *masks, margin=5.0, normalize=normalize)
    assert torch.equal(plain, neighbor_reconstruction_loss(*changed, *masks, margin=5.0, normalize=normalize))


def test_masked_tokens_get_no_gradient_and_the_others_do():
    contents, masks = batch()
    contents = [c.requires_grad_() for c in contents]
    neighbor_reconstruction_loss(*contents, *masks, margin=50.0).backward()
    for content, mask in zip(contents, masks, strict=True):
        touched = content.grad.abs().sum(2) > 0
        assert torch.equal(touched, mask)


@pytest.mark.parametrize("normalize", [False, True])
def test_gradients_equal_finite_differences(normalize):
    contents, masks = batch()
    contents = [c.float().requires_grad_() for c in contents]

    def loss(*rows):
        return neighbor_reconstruction_loss(*rows, *masks, margin=50.0, normalize=normalize)

    loss(*contents).backward()
    generator = torch.Generator().manual_seed(5)
    step = 1e-2
    for i, content in enumerate(contents):
        direction = torch.randn(content.shape, generator=generator)
        with torch.no_grad():
            up = [c + step * direction if j == i else c for j, c in enumerate(contents)]
            down = [c - step * direction if j == i else c for j, c in enumerate(contents)]
            slope = float(loss(*up) - loss(*down)) / (2 * step)
        assert float((content.grad * direction).sum()) == pytest.approx(slope, rel=2e-2, abs=1e-2)


def test_a_product_without_content_gives_a_finite_loss():
    contents, masks = batch()
    masks[1][0] = False
    contents = [c.requires_grad_() for c in contents]
    loss = neighbor_reconstruction_loss(*contents, *masks, margin=50.0)
    loss.backward()
    assert math.isfinite(loss.item())
    assert all(torch.isfinite(c.grad).all() for c in contents)


def test_normalised_loss_does_not_grow_with_length():
    torch.manual_seed(0)
    short, long = (torch.randn(1, n, 16) for n in (8, 64))
    sizes = {}
    for name, x in (("short", short), ("long", long)):
        mask = torch.ones(1, x.shape[1])
        other = torch.randn_like(x)
        sizes[name] = [float(reconstruction_distance(x, other, mask, mask, flag)) for flag in (False, True)]
    assert sizes["long"][0] > 4 * sizes["short"][0]
    assert sizes["long"][1] == pytest.approx(sizes["short"][1], rel=0.5)


@pytest.mark.parametrize("normalize", [False, True])
def test_autocast_does_not_make_it_bfloat16(normalize):
    torch.manual_seed(0)
    states = torch.nn.functional.layer_norm(torch.randn(3, 2, 6, 64), (64,)).requires_grad_()
    masks = torch.ones(3, 2, 6)
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = neighbor_reconstruction_loss(*states, *masks, normalize=normalize)
        gradients.append(torch.autograd.grad(loss, states)[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("normalize", [False, True])
def test_documents_that_no_triplet_names_take_no_room(normalize):
    """Loss and gradient of rows padded to the longest document of all, without a copy of that document."""
    torch.manual_seed(0)
    borders = torch.tensor([0, 3, 43, 43, 48, 52])
    triplets = torch.tensor([[0, 3, 4], [4, 3, 0], [3, 0, 4]])
    states = torch.randn(52, 8, dtype=torch.float64, requires_grad=True)
    content = torch.rand(52) < 0.8
    content[borders[[0, 3, 4]]] = True  # of a document without content the attention is over padding
    rows, mask, numbers = named_documents(states, content, borders, triplets)
    assert rows.shape == (3, 5, 8)
    place = torch.arange(40)[None, :] + borders[:-1, None]
    inside = place < borders[1:, None]
    place = place.clamp_max(51)
    found = []
    for hidden, seen, (a, b, c) in (
        (rows, mask, numbers.unbind(1)),
        (states[place], content[place] & inside, triplets.unbind(1)),
    ):
        loss = neighbor_reconstruction_loss(
            hidden[a], hidden[b], hidden[c], seen[a], seen[b], seen[c], normalize=normalize
        )
        found.append((loss, torch.autograd.grad(loss, states, retain_graph=True)[0]))
    torch.testing.assert_close(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)  # distances are sums in float32
    empty = named_documents(states, content, borders, triplets[:0])
    assert [len(part) for part in empty] == [0, 0, 0]
