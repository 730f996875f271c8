"""Sub-models stand alone: folders, Auto classes, sentence-transformers, the stock form, ONNX; what does not exist."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
import torch
from search_cases import QUERIES, TEXTS, tiny_model
from sentence_transformers import SentenceTransformer
from transformers import AutoConfig, AutoModel, ModernBertModel

from rexbert_hf.hub.push import files_of_run
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM, RexBertModel
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_settings import make_grid, note_cells, trained_cells
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder
from rexbert_hf.settings import from_dict

SHAPE = {"preset": "tiny", "overrides": {"num_hidden_layers": 3}}
CELLS = [(1, 16), (3, 16), (1, 64), (3, 64)]


def with_other_weights(model):
    """Its layers and dimensions differ."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 2 / parameter.shape[-1] ** 0.5)
    return model.eval()


@pytest.fixture(scope="module")
def model():
    """A bi-encoder that was trained over a grid."""
    found = with_other_weights(tiny_model(**SHAPE))
    note_cells(found, make_grid(CELLS, None, (3, 64)))
    return found


@pytest.fixture(scope="module")
def cut(model, tmp_path_factory):
    """One layer, 16 dimensions, saved; model and folder."""
    found, folder = cut_biencoder(model, 1, 16), tmp_path_factory.mktemp("cut")
    found.save_pretrained(str(folder), create_model_card=False)
    return found, folder


def vectors_of(model, texts=tuple(TEXTS)):
    return model.encode(list(texts), normalize_embeddings=True)


def pooled(states, mask):
    mean = (states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return torch.nn.functional.normalize(mean[:, :16], dim=-1).numpy()


def test_it_is_the_parents_layer_and_first_dimensions(model, cut):
    batch = {k: v for k, v in model.preprocess(TEXTS).items() if k in ("input_ids", "attention_mask")}
    encoder = model[0].model
    with torch.no_grad():
        states = encoder.final_norm(encoder(**batch, output_hidden_states=True).hidden_states[1])
    np.testing.assert_allclose(vectors_of(cut[0]), pooled(states, batch["attention_mask"]), atol=1e-5)
    assert len(cut[0][0].model.layers) == 1
    assert len(encoder.layers) == 3
    assert trained_cells(cut[0]) == []
    assert trained_cells(model) == CELLS


def test_it_loads_as_a_sentence_transformer_with_its_dimensions(cut):
    again = SentenceTransformer(str(cut[1]))
    assert again.truncate_dim == again.get_embedding_dimension() == 16
    np.testing.assert_allclose(vectors_of(again), vectors_of(cut[0]), atol=1e-6)
    there = {path.relative_to(cut[1]).as_posix() for path in cut[1].rglob("*") if path.is_file()}
    assert set(files_of_run(cut[1])) == there  # all of it goes to the Hub


def test_it_loads_with_auto_classes(cut):
    config = AutoConfig.from_pretrained(cut[1])
    assert (config.num_hidden_layers, config.truncate_dim, config.matryoshka_grid()) == (1, 16, [])
    encoder = AutoModel.from_pretrained(cut[1]).eval()
    assert isinstance(encoder, RexBertModel)
    batch = {k: v for k, v in cut[0].preprocess(TEXTS).items() if k in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = encoder(**batch).last_hidden_state
    np.testing.assert_allclose(pooled(states, batch["attention_mask"]), vectors_of(cut[0]), atol=1e-5)


@pytest.mark.parametrize("form", ["rexbert", "modernbert"])
def test_the_encoder_alone_opens_in_sentence_transformers_with_its_dimensions(model, cut, tmp_path, form):
    """`submodel(...).save_pretrained` and the stock form: truncation after pooling."""
    encoder = model[0].model.submodel(1, 16)
    save = encoder.save_pretrained if form == "rexbert" else encoder.save_modernbert
    save(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = SentenceTransformer(str(tmp_path))
    assert isinstance(again[0].model, RexBertModel if form == "rexbert" else ModernBertModel)
    assert again.truncate_dim == 16
    again.max_seq_length = model.max_seq_length
    np.testing.assert_allclose(vectors_of(again), vectors_of(cut[0]), atol=2e-5)
    if form == "rexbert":  # into the same folder: what it says follows
        model[0].model.submodel(2, 32).save_pretrained(tmp_path)
        assert SentenceTransformer(str(tmp_path)).get_embedding_dimension() == 32


def test_the_stock_form_of_a_cut_head_is_told(tmp_path, caplog):
    config = RexBertConfig(
        num_hidden_layers=2, hidden_size=16, intermediate_size=8, num_attention_heads=2, vocab_size=64, pad_token_id=0
    )
    model = RexBertForMaskedLM(config)
    logger = logging.getLogger("rexbert_hf.models.modernbert")
    logger.addHandler(caplog.handler)
    try:
        model.submodel(1).save_modernbert(tmp_path / "layers")
        assert "dimensions" not in caplog.text
        model.submodel(1, 8).save_modernbert(tmp_path / "dims")
    finally:
        logger.removeHandler(caplog.handler)
    assert "ModernBertForMaskedLM reads all 16 dimensions, not the first 8" in caplog.text
    assert not (tmp_path / "layers" / "modules.json").exists()
    assert json.loads((tmp_path / "dims" / "config_sentence_transformers.json").read_text())["truncate_dim"] == 8


@pytest.mark.parametrize("layers", [1, 2])
def test_onnx_gives_the_same_vectors(layers, tmp_path):
    """Also of a layer with a window, and texts that are longer than it."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
    from rexbert_hf.retrieval.serving.onnx_export import export_onnx

    shape = {"preset": "tiny", "overrides": {"num_hidden_layers": 3, "local_attention": 8}, "max_tokens": 40}
    cut = cut_biencoder(with_other_weights(tiny_model(**shape)), layers, 16)
    assert [*cut[0].model.config.layer_types] == ["full_attention", "sliding_attention"][:layers]
    texts = [*TEXTS, " ".join(TEXTS)]
    export_onnx(cut, tmp_path, ("fp32",), texts=texts)
    encoder = OnnxEncoder(tmp_path)
    assert encoder.dim == 16
    np.testing.assert_allclose(encoder.encode(texts), cut.encode(texts), atol=2e-5)


def test_separate_encoders_are_both_cut(tmp_path):
    model = tiny_model(**SHAPE, shared=False)
    cut = cut_biencoder(model, 2, 8)
    for route in ("query", "document"):
        assert len(cut[0].sub_modules[route][0].model.layers) == 2
    cut.save_pretrained(str(tmp_path), create_model_card=False)
    again = SentenceTransformer(str(tmp_path))
    assert again.truncate_dim == 8
    np.testing.assert_allclose(again.encode_query(QUERIES), cut.encode_query(QUERIES), atol=1e-6)


def test_an_untrained_cell_is_told_with_its_nearest_and_a_larger_one_refused(model, caplog, tmp_path):
    logger = logging.getLogger("rexbert_hf.models.encoder_rexbert")
    logger.addHandler(caplog.handler)
    try:
        cut_biencoder(model, 1, 16)
        assert not caplog.records
        cut_biencoder(model, 2, 20)
        assert "2 layers x 20 dimensions is no cell that was trained; the nearest one is 1 x 16" in caplog.text
    finally:
        logger.removeHandler(caplog.handler)
    with pytest.raises(ValueError, match="cell of 4 layers x 64 dimensions: the model has 3 layers"):
        cut_biencoder(model, 4)
    with pytest.raises(ValueError, match="cell of 0 layers x 64 dimensions"):
        cut_biencoder(model, 0)
    with pytest.raises(ValueError, match="cell of 3 layers x 0 dimensions"):
        cut_biencoder(model, truncate_dim=0)
    with pytest.raises(ValueError, match="cell of 3 layers x 65 dimensions"):
        cut_biencoder(model, truncate_dim=65)
    model[0].model.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_hidden_layers=4 must be an integer between 1 and 3"):
        RexBertModel.from_pretrained(tmp_path, num_hidden_layers=4)


def test_a_cut_encoder_may_be_fine_tuned_over_a_grid_again(model):
    again = cut_biencoder(model, 1, 16)
    note_cells(again, make_grid([(1, 8), (1, 64)], None, (1, 64)))
    assert again[0].model.config.truncate_dim is None
    assert trained_cells(again) == [(1, 8), (1, 64)]


def test_a_cut_encoder_is_fine_tuned_in_its_dimensions(cut, tmp_path):
    """Else a dimension that nobody reads would be trained, and those that are read would not be."""
    settings = {
        "output_dir": str(tmp_path / "run"),
        "data": {"sample_size": 60},
        "model": {"base": str(cut[1]), "max_tokens": 16},
        "rows": {"batch_size": 8},
        "trainer": {"max_steps": 2, "use_cpu": True, "bf16": False, "cpu_threads": 1, "learning_rate": 0.01},
    }
    results = finetune_search(from_dict(FinetuneSettings, settings))
    found = SentenceTransformer(str(tmp_path / "run"))
    assert found.truncate_dim == 16
    assert "cells" not in results
    before, after = cut[0][0].model, found[0].model
    assert not torch.equal(before.final_norm.weight[:16], after.final_norm.weight[:16])
    # Weight decay leaves norms alone, and no gradient reaches the others.
    assert torch.equal(before.final_norm.weight[16:], after.final_norm.weight[16:])


def test_the_recipe_cuts_its_base(model, cut, tmp_path):
    """`num_hidden_layers` and `truncate_dim` of the base give what fine-tuning the saved cut gives."""
    model.save_pretrained(str(tmp_path / "whole"), create_model_card=False)
    settings = {
        "data": {"sample_size": 60},
        "rows": {"batch_size": 8},
        "trainer": {"max_steps": 2, "use_cpu": True, "bf16": False, "cpu_threads": 1, "learning_rate": 0.01},
    }
    bases = {
        "cut": {"base": str(cut[1])},
        "whole": {"base": str(tmp_path / "whole"), "num_hidden_layers": 1, "truncate_dim": 16},
    }
    found = {}
    for name, base in bases.items():
        run = {**settings, "output_dir": str(tmp_path / f"of-{name}"), "model": {**base, "max_tokens": 16}}
        results = finetune_search(from_dict(FinetuneSettings, run))
        assert "cells" not in results
        found[name] = SentenceTransformer(str(tmp_path / f"of-{name}"))
    assert len(found["whole"][0].model.layers) == 1
    assert found["whole"].truncate_dim == 16
    np.testing.assert_array_equal(found["whole"].encode(TEXTS), found["cut"].encode(TEXTS))


def test_a_cut_is_of_a_base(model, tmp_path):
    with pytest.raises(ValueError, match="num_hidden_layers and truncate_dim cut a base: give a new model overrides"):
        BiEncoderSettings(num_hidden_layers=1)
    model.save_pretrained(str(tmp_path), create_model_card=False)
    with pytest.raises(ValueError, match="cell of 4 layers x 64 dimensions: the model has 3 layers"):
        load_biencoder(BiEncoderSettings(base=str(tmp_path), num_hidden_layers=4))
