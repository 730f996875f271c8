"""Masked cross entropy from tiles, against the full logits in float64."""

from __future__ import annotations

import pytest
import torch

from rexbert_hf.metrics import label_ranks
from rexbert_hf.models import losses_rexbert, masked_cross_entropy

ROWS, COLUMNS = 4, 8
"""Tiles of the tests, small enough to cross every border."""


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(losses_rexbert, "CPU_ROWS", ROWS)
    monkeypatch.setattr(losses_rexbert, "CPU_COLUMNS", COLUMNS)


def reference(hidden, weight, bias, labels):
    """Loss, hits and ranks written out over the full logits; gradients come from autograd."""
    logits = hidden @ weight.T if bias is None else hidden @ weight.T + bias
    chosen = logits[torch.arange(len(labels)), labels]
    loss = (logits.exp().sum(1).log() - chosen).sum()
    return loss, (chosen >= logits.amax(1)).sum(), (logits > chosen[:, None]).sum(1)


def problem(rows, vocabulary, width=5, bias=True, seed=0, dtype=torch.float64, scale=1.0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype)

    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    return draw(rows, width), draw(vocabulary, width), draw(vocabulary) if bias else None, labels


def leaves(*tensors):
    return [None if x is None else x.detach().clone().requires_grad_() for x in tensors]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("vocabulary", [1, 7, 8, 9, 16, 21])
@pytest.mark.parametrize("rows", [0, 1, 3, 4, 5, 8, 11])
def test_float64_equals_the_transcription(rows, vocabulary, bias):
    hidden, weight, offset, labels = problem(rows, vocabulary, bias=bias)
    ours, theirs = leaves(hidden, weight, offset), leaves(hidden, weight, offset)
    loss, correct, ranks = masked_cross_entropy(*ours, labels, return_ranks=True)
    expected, hits, expected_ranks = reference(*theirs, labels)
    torch.testing.assert_close(loss, expected, atol=1e-11, rtol=1e-11)
    assert int(correct) == int(hits)
    assert torch.equal(ranks, expected_ranks)
    (3.0 * loss).backward()
    (3.0 * expected).backward()
    for mine, other in zip(ours, theirs, strict=True):
        if mine is not None:
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-11, rtol=1e-11)


def test_gradients_equal_finite_differences():
    """Without the transcription: slopes of the loss itself (gradcheck would need a second backward)."""
    hidden, weight, bias, labels = problem(6, 19)
    arguments = leaves(hidden, weight, bias)
    masked_cross_entropy(*arguments, labels)[0].backward()
    generator = torch.Generator().manual_seed(7)
    for i, argument in enumerate(arguments):
        step = 1e-6 * torch.randn(argument.shape, generator=generator, dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            moved = [x.detach() + sign * step if j == i else x.detach() for j, x in enumerate(arguments)]
            sides.append(masked_cross_entropy(*moved, labels)[0])
        slope = float(sides[0] - sides[1]) / 2
        assert float((argument.grad * step).sum()) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("trained", [(True, False), (False, True)], ids=["hidden_only", "weight_only"])
def test_one_side_frozen(trained):
    hidden, weight, bias, labels = problem(6, 19)
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    for arguments in (ours, theirs):
        for tensor, flag in zip(arguments, trained, strict=False):
            tensor.requires_grad_(flag)
    masked_cross_entropy(*ours, labels)[0].backward()
    reference(*theirs, labels)[0].backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.grad is None) == (other.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, other.grad, atol=1e-11, rtol=1e-11)


def test_only_the_bias_trains():
    hidden, weight, bias, labels = problem(6, 19)
    mine, other = leaves(bias), leaves(bias)
    loss, _, _ = masked_cross_entropy(hidden, weight, mine[0], labels)
    loss.backward()
    reference(hidden, weight, other[0], labels)[0].backward()
    torch.testing.assert_close(mine[0].grad, other[0].grad, atol=1e-11, rtol=1e-11)


def test_without_gradients():
    hidden, weight, bias, labels = problem(6, 19)
    loss, correct, ranks = masked_cross_entropy(hidden, weight, bias, labels)
    expected, hits, _ = reference(hidden, weight, bias, labels)
    torch.testing.assert_close(loss, expected)
    assert int(correct) == int(hits)
    assert ranks is None
    assert not loss.requires_grad


def test_large_logits_do_not_overflow():
    hidden, weight, bias, labels = problem(9, 21, scale=30.0, dtype=torch.float32)
    ours = leaves(hidden, weight, bias)
    loss, _, _ = masked_cross_entropy(*ours, labels)
    loss.backward()
    theirs = leaves(hidden.double(), weight.double(), bias.double())
    expected = torch.nn.functional.cross_entropy(theirs[0] @ theirs[1].T + theirs[2], labels, reduction="sum")
    expected.backward()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.isfinite(mine.grad).all()
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lower_precision_is_near_float64(dtype):
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    hidden, weight, bias, labels = problem(37, 50, width=16, dtype=dtype)
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden.double(), weight.double(), bias.double())
    loss, correct, _ = masked_cross_entropy(*ours, labels)
    expected, hits, _ = reference(*theirs, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert abs(int(correct) - int(hits)) <= (0 if dtype == torch.float32 else 2)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.grad.dtype == dtype
        error = (mine.grad.double() - other.grad).norm() / other.grad.norm()
        assert float(error) < tolerance


def test_autocast_computes_in_bfloat16_and_returns_full_precision_gradients():
    hidden, weight, bias, labels = problem(37, 50, width=16, dtype=torch.float32)
    inside, plain = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        loss, _, _ = masked_cross_entropy(*inside, labels)
    loss.backward()
    expected, _, _ = masked_cross_entropy(*plain, labels)
    expected.backward()
    assert loss.dtype == torch.float32
    assert loss.item() != expected.item()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    for mine, other in zip(inside, plain, strict=True):
        assert mine.grad.dtype == torch.float32
        assert float((mine.grad - other.grad).norm() / other.grad.norm()) < 2e-2


def test_a_second_backward_is_refused():
    """The saved gradients are scaled in place; scaling them again unnoticed would be wrong."""
    hidden, weight, bias, labels = problem(6, 19)
    loss, _, _ = masked_cross_entropy(*leaves(hidden, weight, bias), labels)
    (2.0 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="inplace"):
        (2.0 * loss).backward()


@pytest.mark.parametrize("vocabulary", [7, 19], ids=["whole_rows", "tiles"])
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ties_and_what_is_no_number_count_against_the_label(vocabulary, learn, dtype):
    """A head that says the same of all tokens, or NaN of one, guesses nothing; `label_ranks` says the same."""
    weight = torch.eye(vocabulary)
    hidden = torch.zeros(7, vocabulary)
    labels = torch.tensor([0, vocabulary - 1, 2, 2, 2, 2, -100])
    hidden[2, [2, 5]] = 3.0  # a tie at the top
    hidden[3, 2], hidden[3, 5] = 3.0, 2.0  # right
    hidden[4, 2], hidden[4, 5] = 3.0, torch.nan
    hidden[5, 2] = torch.inf
    bias = torch.zeros(vocabulary)
    given = [x.to(dtype, copy=True).requires_grad_(learn) for x in (hidden, weight, bias)]
    assert int(masked_cross_entropy(*given, labels)[1]) == 1
    _, correct, ranks = masked_cross_entropy(*given, labels, return_ranks=True)
    assert int(correct) == 1
    last = vocabulary - 1  # NaN and infinity spread over a row's logits in the product
    assert ranks[:6].tolist() == [last, last, 1, 0, last, last]
    counted = labels >= 0
    assert ranks[counted].tolist() == label_ranks((hidden @ weight)[counted].numpy(), labels[counted].numpy()).tolist()


@pytest.mark.parametrize("vocabulary", [7, 19], ids=["whole_rows", "tiles"])
@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
@pytest.mark.parametrize("learn", [False, True])
def test_no_label_is_right_beside_a_token_that_is_broken(vocabulary, broken, learn):
    """Broken by its bias, it reaches no other logit: the label's is a finite number, but its loss is none."""
    hidden, weight, bias, _ = problem(5, vocabulary, dtype=torch.float32)
    best = (hidden @ weight.T + bias - 1e9 * torch.eye(vocabulary)[3]).argmax(1)
    bias[3] = broken
    given = leaves(hidden, weight, bias) if learn else (hidden, weight, bias)
    assert int(masked_cross_entropy(*given, best)[1]) == 0
    _, correct, ranks = masked_cross_entropy(*given, best, return_ranks=True)
    assert int(correct) == 0
    expected = label_ranks((hidden @ weight.T + bias).numpy(), best.numpy())
    assert ranks.tolist() == expected.tolist() == [vocabulary - 1] * 5


def test_the_published_tiles_give_the_same(monkeypatch):
    """With the shipped tile sizes and a vocabulary over one tile."""
    monkeypatch.undo()
    assert losses_rexbert.CPU_COLUMNS > COLUMNS
    vocabulary = losses_rexbert.CPU_COLUMNS + 100
    hidden, weight, bias, labels = problem(30, vocabulary, width=8)
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden, weight, bias)
    loss, _, _ = masked_cross_entropy(*ours, labels)
    expected, _, _ = reference(*theirs, labels)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_rows_far_from_the_common_shift_are_done_again():
    """Peaks of rows 250 apart: whatever one shift is guessed, some row's sum would run over or vanish."""
    hidden = torch.tensor([[250.0], [0.5], [-250.0], [1.0]])
    weight = torch.linspace(-1, 1, 21)[:, None]
    labels = torch.tensor([0, 3, 0, 20])
    ours, theirs = leaves(hidden, weight), leaves(hidden.double(), weight.double())
    loss, correct, ranks = masked_cross_entropy(*ours, None, labels, return_ranks=True)
    expected, hits, expected_ranks = reference(*theirs, None, labels)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert int(correct) == int(hits)
    assert torch.equal(ranks, expected_ranks)
    loss.backward()
    expected.backward()
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_bfloat16_tiles_add_up(monkeypatch):
    """Bias and shift go through the products; several tiles and blocks of rows make one gradient."""
    monkeypatch.setattr(losses_rexbert, "FAST_COLUMNS", 32)
    monkeypatch.setattr(losses_rexbert, "CPU_ROWS", 16)
    hidden, weight, bias, labels = problem(37, 100, width=15, dtype=torch.bfloat16)
    ours, theirs = leaves(hidden, weight, bias), leaves(hidden.double(), weight.double(), bias.double())
    loss, correct, _ = masked_cross_entropy(*ours, labels)
    expected, hits, _ = reference(*theirs, labels)
    loss.backward()
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
    assert abs(int(correct) - int(hits)) <= 2
    for mine, other in zip(ours, theirs, strict=True):
        assert float((mine.grad.double() - other.grad).norm() / other.grad.norm()) < 1e-2


@pytest.mark.parametrize("vocabulary", [300, 3000])
@pytest.mark.parametrize("scale", [0.22, 0.3])
def test_sure_labels_keep_their_gradient_in_bfloat16(vocabulary, scale, monkeypatch):
    """What is left of 1 - .999 is not lost in the rounding of the 1: as near to float64 as logits in bfloat16 allow."""
    monkeypatch.setattr(losses_rexbert, "CPU_ROWS", 64)
    width, rows = 64, 200
    generator = torch.Generator().manual_seed(5)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator)
    hidden = weight[labels] * scale + 0.05 * torch.randn(rows, width, generator=generator)
    inputs = [x.bfloat16() for x in (hidden, weight)]
    ours, exact, stock = leaves(*inputs), leaves(*(x.double() for x in inputs)), leaves(*inputs)
    loss, correct, _ = masked_cross_entropy(*ours, None, labels)
    expected, _, _ = reference(*exact, None, labels)
    rounded = torch.nn.functional.cross_entropy((stock[0] @ stock[1].T).float(), labels, reduction="sum")
    for x in (loss, expected, rounded):
        x.backward()
    assert 0.001 < expected.item() / rows < 0.1
    assert int(correct) >= rows - 5
    for mine, truth, other in zip(ours, exact, stock, strict=True):
        error, limit = ((x.grad.double() - truth.grad).norm() / truth.grad.norm() for x in (mine, other))
        assert float(error) < 1.5 * float(limit)


def test_rows_of_memory_are_filled_behind_added_columns():
    """Products in bfloat16 read elements in pairs, so one behind the last column."""
    torch.use_deterministic_algorithms(True)  # fills new memory with NaN
    try:
        wide = losses_rexbert.widened(torch.ones(3, 5, dtype=torch.bfloat16), 2.0, torch.arange(3.0))
    finally:
        torch.use_deterministic_algorithms(False)
    assert wide.tolist() == [[1.0] * 5 + [2.0, i] for i in (0.0, 1.0, 2.0)]
    assert wide.stride() == (32, 1)
    assert not wide.as_strided((3, 25), (32, 1), 7).any()


@pytest.mark.parametrize("autocast", [False, True])
def test_ranks_of_half_precision_states_have_no_ties_of_half_precision(autocast):
    """Every label is the second best by little: none is right, but rounded to bfloat16 many tie with the best."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(512, 32, generator=generator).bfloat16()
    weight = (torch.randn(1, 32, generator=generator) + torch.randn(300, 32, generator=generator) / 100).bfloat16()
    logits = hidden.double() @ weight.double().t()
    best = logits.topk(2)
    labels = best.indices[:, 1]
    assert (best.values.diff() < -1e-5).all()  # far more than float32 rounds
    assert (best.values[:, 0].bfloat16() == best.values[:, 1].bfloat16()).float().mean() > 0.2
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, correct, ranks = masked_cross_entropy(hidden, weight, None, labels, return_ranks=True)
    assert (ranks == 1).all()
    assert int(correct) == 0
    expected = reference(hidden.double(), weight.double(), None, labels)[0]
    torch.testing.assert_close(loss.double(), expected, atol=0, rtol=1e-5)
