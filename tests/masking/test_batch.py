"""Batches pass from loader workers by value and arrive as they left."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from rexbert_hf.data.batch import Batch
from rexbert_hf.masking import MLMCollator


def equal(one, two):
    if isinstance(one, torch.Tensor | np.ndarray):
        assert type(one) is type(two)
        assert one.dtype == two.dtype
        assert one.shape == two.shape
        assert np.array_equal(np.asarray(one), np.asarray(two))
    elif isinstance(one, dict):
        assert type(one) is type(two)
        assert list(one) == list(two)
        [equal(one[name], two[name]) for name in one]
    elif isinstance(one, list | tuple):
        assert type(one) is type(two)
        assert len(one) == len(two)
        [equal(*pair) for pair in zip(one, two, strict=True)]
    else:
        assert type(one) is type(two)
        assert one == two


CONTENT = {
    "ids": torch.arange(6).reshape(2, 3),
    "turned": torch.arange(6, dtype=torch.int32).reshape(2, 3).T,
    "none": torch.zeros(0, 4),
    "flag": torch.tensor([True, False]),
    "scalar": torch.tensor(3),
    "array": np.arange(3, dtype=np.int16),
    "nested": {"parts": [torch.ones(2), (torch.zeros(1), "word")], "count": 7},
}


def test_what_is_pickled_comes_back():
    equal(pickle.loads(pickle.dumps(Batch(CONTENT))), Batch(CONTENT))
    assert isinstance(copy.copy(Batch(CONTENT)), Batch)
    half = Batch(half=torch.ones(3, dtype=torch.bfloat16))
    assert torch.equal(pickle.loads(pickle.dumps(half))["half"], half["half"])


def test_a_batch_that_came_can_be_written_to_and_added_to():
    came = pickle.loads(pickle.dumps(Batch(CONTENT)))
    came["ids"] += 1
    assert came["ids"].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert CONTENT["ids"][0, 0] == 0
    more = came | {"labels": torch.ones(1)}
    more |= {"weight": 2}
    assert type(more) is Batch
    assert {"labels", "weight"} <= set(more)
    assert "labels" not in came


@pytest.mark.parametrize("flat", [True, False])
def test_a_stock_loader_s_workers_send_no_shared_memory(tokenizer, flat):
    rows = [{"input_ids": list(range(5, 5 + n))} for n in (3, 9, 4, 7, 5, 6)]
    collator = MLMCollator(tokenizer, 0.5, flat=flat, seed=3)
    found = [list(DataLoader(rows, 2, collate_fn=collator, num_workers=workers)) for workers in (0, 2)]
    for here, there in zip(*found, strict=True):
        assert type(there) is Batch
        assert set(here) == set(there)
        assert not any(value.is_shared() for value in there.values() if isinstance(value, torch.Tensor))
        for name in ("cu_seq_lens_q", "position_ids") if flat else ("attention_mask",):
            equal(here[name], there[name])
