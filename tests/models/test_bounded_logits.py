"""Never more than a bounded slice of the logits at once: every tensor of a training step is looked at."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM, losses_rexbert, matryoshka_rexbert

ROWS, COLUMNS, VOCABULARY, WIDTH = 20, 64, 521, 16
"""A tile; the vocabulary is no multiple of its columns, and the width (with bias and shift) is below its rows."""
GRID = {"matryoshka_layers": [1, 2], "matryoshka_dims": [4, 12, 16]}


class Spy(TorchDispatchMode):
    """Rows of the largest floating tensor that is as wide as the vocabulary, and numbers in the largest of any."""

    def __init__(self):
        super().__init__()
        self.rows, self.numbers = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.is_floating_point() and tensor.numel():
                self.numbers = max(self.numbers, tensor.numel())
                if tensor.shape[-1:] == (VOCABULARY,):
                    self.rows = max(self.rows, tensor.numel() // VOCABULARY)
        return found


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(losses_rexbert, "CPU_ROWS", ROWS)
    monkeypatch.setattr(losses_rexbert, "CPU_COLUMNS", COLUMNS)
    monkeypatch.setattr(losses_rexbert, "FAST_COLUMNS", COLUMNS)
    monkeypatch.setattr(matryoshka_rexbert, "TEACHER_ELEMENTS", ROWS * VOCABULARY)


def step(dtype=torch.float32, asked=None, **fields):
    """Forward and backward of some hundred labelled tokens; what the spy saw, and how many labels there were."""
    torch.manual_seed(0)
    base = {"num_hidden_layers": 2, "hidden_size": WIDTH, "intermediate_size": 24, "num_attention_heads": 2}
    model = RexBertForMaskedLM(RexBertConfig(**base, vocab_size=VOCABULARY, pad_token_id=0, **fields)).train()
    model.to(dtype)
    ids = torch.randint(5, VOCABULARY, (2, 170))
    with Spy() as spy:
        model(ids, labels=ids, **(asked or {})).loss.backward()
    return spy, ids.numel()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(
    "fields",
    [{}, GRID, {**GRID, "matryoshka_kl_weight": 0.5}, {**GRID, "matryoshka_sample": 2}],
    ids=["plain", "grid", "kl", "sample"],
)
def test_no_tensor_holds_more_rows_of_logits_than_a_tile(fields, dtype):
    spy, labels = step(dtype, **fields)
    assert spy.rows <= ROWS
    # Nor is there one of another shape: the logits of all labels would be the largest by far.
    assert spy.numbers < labels * VOCABULARY / 4


@pytest.mark.parametrize("fields", [{}, GRID], ids=["plain", "grid"])
def test_the_ranks_of_all_labels_need_no_more(fields):
    assert step(asked={"return_ranks": True}, **fields)[0].rows <= ROWS


def test_the_teacher_is_held_for_so_many_rows_as_are_allowed(monkeypatch):
    """The bound is what is bounded: of a larger one more is held."""
    monkeypatch.setattr(matryoshka_rexbert, "TEACHER_ELEMENTS", 3 * ROWS * VOCABULARY)
    spy, _ = step(**GRID, matryoshka_kl_weight=0.5)
    assert spy.rows == 3 * ROWS


def test_the_spy_sees_logits_that_are_asked_for():
    spy, labels = step(asked={"return_logits": "masked"})
    assert spy.rows == labels
    assert spy.numbers >= labels * VOCABULARY
