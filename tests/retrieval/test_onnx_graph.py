"""ModernBERT in onnxruntime's operators has stock ModernBERT's hidden states: windows, padding, biases, lengths."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from transformers import ModernBertConfig, ModernBertModel

from rexbert_hf.retrieval.serving.onnx_graph import FusedModernBert

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

LONGEST = 40


def stock(bias, **fields):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "num_hidden_layers": 4}
    biases = {"attention_bias": bias, "mlp_bias": bias, "norm_bias": bias}
    ids = dict.fromkeys(("pad_token_id", "cls_token_id", "sep_token_id", "bos_token_id", "eos_token_id"), 0)
    config = ModernBertConfig(vocab_size=90, **{**sizes, **biases, **ids, "local_attention": 8, **fields})
    model = ModernBertModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # wide enough that every part shows
            parameter.add_(torch.randn(parameter.shape) * (0.3 if parameter.dim() > 1 else 0.1))
    return model


def run(model, path, ids, mask, longest=LONGEST):
    """Hidden states of the graph, which was traced with two short rows."""
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1)
    sample = (torch.randint(1, 90, (2, 6)), torch.ones(2, 6, dtype=torch.int64))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            FusedModernBert(model, longest),
            sample,
            str(path),
            input_names=["ids", "mask"],
            dynamic_shapes=({0: batch, 1: tokens}, {0: batch, 1: tokens}),
            opset_version=20,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})[0]


@pytest.mark.parametrize(
    ("bias", "fields"),
    [
        (False, {}),
        (True, {}),
        (True, {"local_attention": 128}),  # no window shorter than the longest input
        (False, {"num_hidden_layers": 1}),  # a global layer alone
        (False, {"layer_types": ["sliding_attention", "full_attention"] * 2}),
    ],
)
def test_hidden_states_are_those_of_the_stock_encoder(tmp_path, bias, fields):
    model = stock(bias, **fields)
    ids, mask = torch.randint(1, 90, (5, LONGEST)), torch.ones(5, LONGEST, dtype=torch.int64)
    mask[1, 1:] = 0  # whole windows of padding
    mask[2, :20] = 0  # padding on the left
    mask[3, 7:30] = 0
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()
    found = run(model, tmp_path / "graph.onnx", ids, mask)
    real = mask.numpy().astype(bool)
    assert np.ptp(expected[real]) > 1
    np.testing.assert_allclose(found[real], expected[real], atol=2e-5)
    assert np.isfinite(found).all(), "padding is multiplied by zero later, which mends no NaN"


def test_the_window_reaches_as_far_as_the_stock_one(tmp_path):
    """A change of one token shows within the window of a local layer, and not beyond."""
    model = stock(False, num_hidden_layers=1, layer_types=["sliding_attention"])
    ids, mask = torch.randint(1, 80, (1, LONGEST)), torch.ones(1, LONGEST, dtype=torch.int64)
    other = ids.clone()
    other[0, 20] = 85
    before = run(model, tmp_path / "graph.onnx", ids, mask)
    after = run(model, tmp_path / "graph.onnx", other, mask)
    changed = np.flatnonzero(np.abs(before - after).max(axis=-1)[0])
    assert changed.tolist() == list(range(16, 25))


def test_one_node_an_attention(tmp_path):
    onnx = pytest.importorskip("onnx")
    ids, mask = torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3, dtype=torch.int64)
    run(stock(False), tmp_path / "graph.onnx", ids, mask)
    names = [node.op_type for node in onnx.load(tmp_path / "graph.onnx").graph.node]
    assert names.count("MultiHeadAttention") == 4
    assert names.count("RotaryEmbedding") == 8
    assert names.count("Range") == 1, "the window is made once for all local layers"


def test_an_input_longer_than_the_table_is_an_error(tmp_path):
    ids, mask = torch.ones(1, 9, dtype=torch.int64), torch.ones(1, 9, dtype=torch.int64)
    with pytest.raises(Exception, match="cos_cache"):
        run(stock(False), tmp_path / "graph.onnx", ids, mask, longest=8)
