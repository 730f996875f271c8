"""What an export says of its model, what is checked before it is kept, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx_cases import TEXTS, small_encoder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from rexbert_hf.retrieval.serving import onnx_export
from rexbert_hf.retrieval.serving.onnx_encoder import ENCODER_FILE, OnnxEncoder
from rexbert_hf.retrieval.serving.onnx_export import difference, export_onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Prompts of which the first that is there is empty; long texts lose their beginning."""
    model = small_encoder()
    model.prompts = {"other": "other: ", "passage": "text: ", "document": ""}
    model.default_prompt_name = "other"
    model.tokenizer.truncation_side = "left"
    folder = tmp_path_factory.mktemp("onnx")
    return model, folder, export_onnx(model, folder, ("int8",), texts=TEXTS, name="user/student")


def test_prompts_and_cutting_are_those_of_the_model(exported):
    model, folder, _ = exported
    encoder = OnnxEncoder(folder)
    assert encoder.prompts == model.prompts
    for method in ("encode", "encode_query", "encode_document"):
        expected = getattr(model, method)(TEXTS, show_progress_bar=False)
        assert difference(expected, getattr(encoder, method)(TEXTS)).least_cosine > 0.98, method
    begun, ended, plain = (encoder.encode(text) for text in ("red shoe " + TEXTS[2], TEXTS[2] + " red shoe", TEXTS[2]))
    np.testing.assert_array_equal(begun, plain)
    assert np.abs(ended - plain).max() > 0.02


def test_an_export_has_the_name_that_it_is_given_and_the_precisions_asked_for(exported):
    _, folder, differences = exported
    assert OnnxEncoder(folder).name == "user/student"
    assert list(differences) == ["int8"]
    assert [path.name for path in folder.glob("*.onnx")] == ["model_int8.onnx"]
    assert json.loads((folder / ENCODER_FILE).read_text())["graphs"] == {"int8": "model_int8.onnx"}


def test_the_graph_that_int8_is_made_of_is_checked_by_its_worst_text(tmp_path, monkeypatch):
    checked = []
    real = onnx_export.encode

    def one_is_wrong(model, texts, role):
        vectors = real(model, texts, role)
        if isinstance(model, OnnxEncoder) and model.precision == "fp32":
            checked.extend(texts)
            vectors[-1] = np.roll(vectors[-1], 1)
        return vectors

    monkeypatch.setattr(onnx_export, "encode", one_is_wrong)
    model = small_encoder()
    with pytest.raises(ValueError, match="the fp32 graph of SentenceTransformer is not the model: worst cosine"):
        export_onnx(model, tmp_path, ("int8",), texts=["red shoe"] * 40)
    assert any(text.isupper() for text in checked)
    assert max(len(model.tokenizer(text)["input_ids"]) for text in checked) > model.max_seq_length


def test_pooling_that_leaves_out_a_prompt_is_refused(tmp_path):
    model = small_encoder()
    model.prompts = {"query": "query: "}
    model[1].include_prompt = False
    with pytest.raises(ValueError, match="pooling leaves out the tokens of its prompt 'query'") as error:
        export_onnx(model, tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_vectors_that_are_both_nothing_are_alike():
    nothing = np.zeros((1, 3), np.float32)
    assert difference(nothing, nothing).least_cosine == 1
    assert difference(nothing, nothing + 1).least_cosine == 0
