"""Exported graphs give the vectors of torch, run without it, and serve an index."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx_cases import TEXTS, WITHOUT_TORCH, small_encoder
from search_cases import stock_encoder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder, read_export
from rexbert_hf.retrieval.serving.onnx_export import difference, export_onnx
from rexbert_hf.retrieval.serving.query_model import ModelIdentity, load_model


@pytest.fixture(scope="module")
def model():
    return small_encoder()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    export_onnx(model, folder, texts=TEXTS)
    return folder


def encoded(model, texts):
    return model.encode(texts, show_progress_bar=False)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_batch_gives_the_vectors_of_torch(model, exported, count):
    """Padding, one text alone, a text longer than the model takes, no text at all."""
    expected = encoded(model, TEXTS[:count])
    assert np.abs(expected[0] - encoded(model, ["blue table"])[0]).max() > 0.05  # else equality would say little
    found = OnnxEncoder(exported, "fp32").encode(TEXTS[:count])
    np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    int8 = difference(expected, OnnxEncoder(exported, "int8").encode(TEXTS[:count]))
    assert 0.98 < int8.least_cosine < 1


@pytest.mark.parametrize("fused", [True, False])
def test_operators_of_onnxruntime_or_standard_ones(model, exported, tmp_path, fused):
    onnx = pytest.importorskip("onnx")
    folder = exported
    if not fused:
        folder = tmp_path
        export_onnx(model, folder, ("fp32",), texts=TEXTS, fused=False)
        np.testing.assert_allclose(OnnxEncoder(folder, "fp32").encode(TEXTS), encoded(model, TEXTS), atol=2e-5)
    domains = {node.domain for node in onnx.load(folder / "model.onnx").graph.node}
    assert domains == ({"", "com.microsoft"} if fused else {""})
    assert read_export(folder)["fused"] == fused


def test_no_file_names_a_folder_or_a_source_line_of_this_machine(model, tmp_path):
    saved = tmp_path / "private" / "my-encoder"
    model.save(str(saved))
    export_onnx(saved, tmp_path / "exported", texts=TEXTS)
    for path in (tmp_path / "exported").iterdir():
        content = path.read_bytes()
        for word in (str(tmp_path), str(Path(__file__).parents[2]), str(Path(np.__file__).parents[1])):
            assert word.encode() not in content, f"{path.name} holds {word}"
        if path.suffix == ".onnx":
            assert b"stack_trace" not in content
            assert b"self.encoder(" not in content
    assert json.loads((tmp_path / "exported" / "encoder.json").read_text())["source"] == "my-encoder"


def test_batches_do_not_matter(exported):
    encoder = OnnxEncoder(exported, "fp32")
    together = encoder.encode(TEXTS, batch_size=2)
    np.testing.assert_allclose(together, np.stack([encoder.encode(text) for text in TEXTS]), atol=1e-5)
    assert encoder.encode(TEXTS[0]).shape == (encoder.dim,)
    assert encoder.encode([]).shape == (0, encoder.dim)


def test_it_runs_without_torch(model, exported, tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(exported), json.dumps(TEXTS), str(tmp_path / "vectors.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    vectors = np.load(tmp_path / "vectors.npz")
    np.testing.assert_allclose(vectors["fp32"], encoded(model, TEXTS), atol=2e-5)
    np.testing.assert_array_equal(vectors["int8"], OnnxEncoder(exported, "int8").encode(TEXTS))


def test_an_index_of_the_model_takes_its_export(model, exported):
    products = [
        {"product_id": f"p{i}", "title": f"{colour} thing {i}"} for i, colour in enumerate(["red", "blue"] * 20)
    ]
    index = ProductIndex.build(products, model, "flat")
    before = index.search(["red thing 4"], 5)[0]
    for precision, atol in (("fp32", 1e-5), ("int8", 0.05)):
        index.model = OnnxEncoder(exported, precision)
        found = dict(index.search(["red thing 4"], 40)[0])
        for name, score in before:
            assert found[name] == pytest.approx(score, abs=atol)
    served = ProductIndex.build(products, OnnxEncoder(exported), "flat")
    served.model = model  # and the other way round
    assert served.identity.fingerprint == index.identity.fingerprint
    assert isinstance(load_model(exported), OnnxEncoder)
    with pytest.raises(ValueError, match="this index was built with"):
        index.model = small_encoder("cls")


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_stock_encoder(tmp_path, kind):
    """As transformers has them: MiniLM's kind, and the one of multilingual models."""
    from sentence_transformers import SentenceTransformer

    folder = stock_encoder(kind, tmp_path / "stock", small_encoder().tokenizer)
    model = SentenceTransformer(folder, device="cpu")
    model.max_seq_length = 48
    export_onnx(model, tmp_path / "onnx", texts=TEXTS)
    assert not read_export(tmp_path / "onnx")["fused"]  # only ModernBERT's attention is
    expected = encoded(model, TEXTS)
    assert difference(expected[:1].repeat(5, axis=0), expected).least_cosine < 0.95
    assert difference(expected, OnnxEncoder(tmp_path / "onnx", "fp32").encode(TEXTS)).least_cosine > 0.99999


def test_prompts_pooling_dimensions_and_the_encoder_of_a_role(tmp_path):
    import torch

    model = small_encoder("cls", shared=False)
    with torch.no_grad():
        next(model[0].sub_modules["query"].parameters()).mul_(1.5)
    model.truncate_dim = 16
    model.prompts = {"query": "query: ", "document": ""}
    export_onnx(model, tmp_path, ("fp32",), "query", TEXTS)
    expected = model.encode_query(TEXTS, show_progress_bar=False)
    assert expected.shape == (5, 16)
    assert difference(expected, model.encode_document(TEXTS, show_progress_bar=False)).mean_cosine < 0.999
    found = OnnxEncoder(tmp_path)
    assert difference(expected, found.encode_query(TEXTS)).least_cosine > 0.9999
    assert difference(expected, found.encode(TEXTS)).mean_cosine < 0.9999  # no prompt
    with pytest.raises(FileNotFoundError, match="holds no int8 graph: it has fp32"):
        OnnxEncoder(tmp_path, "int8")


def test_an_export_of_one_of_two_encoders_does_not_stand_in_for_the_other(tmp_path):
    """A query encoder of products would fill an index, and the cache of the whole model, with wrong vectors."""
    model = small_encoder(shared=False)
    products = [{"product_id": f"p{i}", "title": f"red thing {i}"} for i in range(5)]
    index = ProductIndex.build(products, model, "flat", cache_dir=tmp_path / "cache")
    export_onnx(model, tmp_path / "query", ("fp32",), "query", TEXTS)
    index.model = OnnxEncoder(tmp_path / "query")
    assert index.search("red thing 4", 3)[0]
    problem = "encoder for role 'query' alone: export role 'document' too, or use the whole model"
    with pytest.raises(ValueError, match=problem):
        index.upsert([{"product_id": "new", "title": "blue thing"}])
    with pytest.raises(ValueError, match=problem):
        ProductIndex.build(products, tmp_path / "query", "flat", cache_dir=tmp_path / "cache")
    export_onnx(model, tmp_path / "document", ("fp32",), "document", TEXTS)
    document = OnnxEncoder(tmp_path / "document")
    assert difference(model.encode_document(TEXTS), document.encode_document(TEXTS)).least_cosine > 0.9999
    index.model = document
    with pytest.raises(ValueError, match="encoder for role 'document' alone"):
        index.search("red thing 4", 3)


def test_each_precision_has_vectors_of_its_own_in_a_cache(model, exported, tmp_path):
    for encoder in (model, OnnxEncoder(exported, "int8"), OnnxEncoder(exported, "fp32")):
        cache = EmbeddingCache(tmp_path, encoder)
        np.testing.assert_allclose(cache.encode(TEXTS), encoder.encode(TEXTS), atol=1e-5)
        assert cache.served == 0


def test_damaged_and_missing_files_are_one_line(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no exported encoder"):
        OnnxEncoder(tmp_path)
    for name, sums, message in (
        ("model_int8.onnx", True, "is damaged"),
        ("model_int8.onnx", False, "cannot be loaded"),  # exports of earlier versions have no checksums
        ("tokenizer.json", True, "is damaged"),
        ("tokenizer.json", False, "cannot be read"),
        ("encoder.json", True, "is damaged"),
    ):
        copy = shutil.copytree(exported, tmp_path / f"{name}-{sums}")
        if not sums:
            facts = json.loads((copy / "encoder.json").read_text())
            facts.pop("crc32")
            (copy / "encoder.json").write_text(json.dumps(facts))
        (copy / name).write_bytes((copy / name).read_bytes()[:1000][::-1])
        with pytest.raises(ValueError, match=f"{name} {message}") as error:
            OnnxEncoder(copy)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"graphs": {}}, "graphs names none in int8 or fp32"),
        ({"graphs": {"int4": "model.onnx"}}, "graphs names none in int8 or fp32"),
        ({"graphs": {"int8": None}}, "graphs names none in int8 or fp32"),
        ({"graphs": ["int8"]}, "graphs names none in int8 or fp32"),
        ({"dim": "x"}, "dim is 'x', a whole number from 1 on is due"),
        ({"dim": None}, "dim is None, a whole number from 1 on is due"),
        ({"max_length": 0}, "max_length is 0, a whole number from 1 on is due"),
        ({"pad_id": -1}, "pad_id is -1, a whole number from 0 on is due"),
        ({"prompts": ["query"]}, "prompts is no table of names and texts"),
        ({"dim": 63}, "does not belong to model_int8.onnx: it says 63 dimensions, the graph gives 64"),
    ],
)
def test_a_description_that_does_not_fit_is_named(exported, tmp_path, change, message):
    copy = shutil.copytree(exported, tmp_path / "copy")
    facts = json.loads((copy / "encoder.json").read_text())
    (copy / "encoder.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ValueError, match=rf"copy/encoder\.json .*{message}.*: export the model again$") as error:
        OnnxEncoder(copy)
    assert "\n" not in str(error.value)


def test_odd_texts(exported):
    encoder = OnnxEncoder(exported)
    for method in (encoder.encode, encoder.encode_query, encoder.encode_document):
        np.testing.assert_array_equal(method("lamp \ud83d"), method("lamp ?"))
        np.testing.assert_array_equal(method(["\udfff", "lamp"]), method(["?", "lamp"]))
    assert np.isfinite(encoder.encode(["word " * 10_000])).all()
    with pytest.raises(TypeError, match="encode takes texts, not NoneType"):
        encoder.encode(["a", None])


def test_what_cannot_be_exported(tmp_path):
    class Plain:
        def encode(self, texts):
            return np.zeros((len(texts), 3))

    with pytest.raises(ValueError, match="Plain is no transformer with pooling"):
        export_onnx(Plain(), tmp_path)


def test_identity(model, exported):
    identity = ModelIdentity.of(model)
    identity.check(OnnxEncoder(exported, "int8"))
    assert identity.fingerprint == OnnxEncoder(exported).fingerprint
