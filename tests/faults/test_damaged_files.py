"""Each kind of file, cut or with one bit flipped anywhere: one line that names it and the way out, never wrong data."""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval"))

from filter_cases import tiny_classifier
from index_cases import HashModel, make_products

from rexbert_hf.corpus import Document, read_parquet, write_documents
from rexbert_hf.corpus.fasttext_file import read_layout
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
from rexbert_hf.training import FaultyStep, checkpoint, last_complete_checkpoint

WAYS_OUT = ("again", "restore", "take the file", "will be resumed", "download", "CURRENT")
SEED = 20261121


def checkpoint_folder(folder):
    folder = folder / "checkpoint-7"
    folder.mkdir(parents=True)
    save_file({"w": torch.arange(2000.0)}, folder / "model.safetensors")
    torch.save({"m": torch.arange(500.0)}, folder / "optimizer.pt")
    (folder / "trainer_state.json").write_text('{"global_step": 7}')
    checkpoint.seal(folder, 7)
    return folder


def tokenised_folder(folder):
    rng = np.random.default_rng(0)
    rows = [{"input_ids": rng.integers(0, 99, n), "word_ids": np.arange(n)} for n in rng.integers(3, 60, 80)]
    TokenisedDataset.from_rows(rows).save(folder)
    return folder


def pool_folder(folder):
    PhrasePool([f"tea pot {i}" for i in range(400)], np.linspace(0.1, 0.9, 400)).save(folder)
    return folder


def classifier_folder(folder):
    pytest.importorskip("fasttext")
    tiny_classifier().save(folder)
    return folder


def index_folder(folder):
    pytest.importorskip("faiss")
    ProductIndex.build(make_products(200), HashModel(), "hnsw", lexical=True).save(folder)
    return folder


def onnx_folder(folder):
    """A graph that sums embeddings, in the layout of an export."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir(parents=True)
    table = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    ids, mask = (
        helper.make_tensor_value_info(n, TensorProto.INT64, ["b", "s"]) for n in ("input_ids", "attention_mask")
    )
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["b", 8])
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", ["attention_mask"], ["float_mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["float_mask", "last"], ["wide"]),
        helper.make_node("Mul", ["rows", "wide"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "middle"], ["out"], keepdims=0),
    ]
    constants = [numpy_helper.from_array(table, "table")]
    constants += [numpy_helper.from_array(np.array([i], np.int64), n) for i, n in ((2, "last"), (1, "middle"))]
    graph = helper.make_graph(nodes, "sum", [ids, mask], [out], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), folder / "m.onnx")
    words = Tokenizer(models.WordLevel({"[UNK]": 0, **{f"w{i}": i for i in range(1, 50)}}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.save(str(folder / "tokenizer.json"))
    facts = {"graphs": {"fp32": "m.onnx"}, "source": "x", "fingerprint": "f", "dim": 8, "max_length": 16, "pad_id": 0}
    facts["crc32"] = {name: zlib.crc32((folder / name).read_bytes()) for name in ("m.onnx", "tokenizer.json")}
    (folder / "encoder.json").write_text(json.dumps(facts | {"prompts": {}}))
    return folder


def batch_file(folder):
    batches = {0: {"input_ids": torch.arange(60)[None], "labels": torch.arange(60)[None], "max_length_q": 60}}
    FaultyStep("spike", "loss", 9.0, 9.0, 4, "general", 1, batches=batches).save(folder / "batch.safetensors")
    return folder


def open_index(folder):
    return ProductIndex.load(folder, HashModel(), verify=True)


KINDS = {
    "checkpoint": (checkpoint_folder, checkpoint.verify, "*"),
    "tokenised": (tokenised_folder, TokenisedDataset.load, "*.arrow"),
    "pool": (pool_folder, PhrasePool.load, "data/*.parquet"),
    "classifier": (classifier_folder, FastTextClassifier.load, "model-*"),
    "index": (index_folder, open_index, "versions/**/*"),
    "onnx": (onnx_folder, OnnxEncoder, "*.onnx"),
    "onnx tokenizer": (onnx_folder, OnnxEncoder, "tokenizer.json"),
}


def damages(data: bytes, rng: np.random.Generator, count: int):
    """Cut copies and copies with one bit flipped, of some bytes."""
    for _ in range(count):
        yield f"cut at {(at := int(rng.integers(0, len(data))))}", data[:at]
        at, bit = int(rng.integers(0, len(data))), int(rng.integers(8))
        yield f"bit {bit} of byte {at}", data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def refusal(load, path):
    """What a loader says of a damaged file; None if it takes it."""
    try:
        load(path)
    except (ValueError, FileNotFoundError) as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_one_line_that_names_the_file(kind, tmp_path):
    make, load, pattern = KINDS[kind]
    folder = make(tmp_path / "whole")
    whole_data = load(folder)
    rng = np.random.default_rng([SEED, zlib.crc32(kind.encode())])
    paths = [path for path in sorted(folder.glob(pattern)) if path.is_file() and path.stat().st_size]
    assert paths
    for path in paths:
        whole = path.read_bytes()
        for what, data in damages(whole, rng, 12 if len(paths) == 1 else 4):
            path.write_bytes(data)
            said = refusal(load, folder)
            if said is None and kind == "pool":  # statistics at the end of a Parquet file, which nobody reads
                assert list(load(folder)) == list(whole_data), what
                continue
            assert said is not None, f"{path.name}, {what}: was not noticed"
            assert "\n" not in said, what
            assert path.name in said or path.parent.name in said, (what, said)
            if kind != "checkpoint":  # which is passed over, with a warning
                assert any(way in said for way in WAYS_OUT), (what, said)
        path.write_bytes(whole)
    load(folder)


def documents_file(folder):
    write_documents(folder / "documents.parquet", [Document(f"d{i}", f"a mug {i} " * 9, "", "food") for i in range(90)])
    return folder


def quantised_file(folder):
    """A model of fastText's own, compressed; its trainer is not run, which reads a table that it has not filled."""
    fasttext = pytest.importorskip("fasttext")
    folder.mkdir(parents=True)
    (folder / "train.txt").write_text("".join(f"__label__{'ab'[i % 2]} word{i} other\n" for i in range(300)))
    given = {"input": str(folder / "train.txt"), "verbose": 0}
    model = fasttext.train_supervised(dim=4, minCount=1, thread=1, epoch=0, bucket=0, **given)
    shapes = (model.get_input_matrix().shape, model.get_output_matrix().shape)
    model.set_matrices(*(np.random.default_rng(0).normal(size=shape).astype("f4") for shape in shapes))
    model.quantize(**given, retrain=False)
    model.save_model(str(folder / "model.ftz"))
    return folder


CUT = {
    "tokenised manifest": (tokenised_folder, TokenisedDataset.load, "tokenised.json"),
    "classifier.json": (classifier_folder, FastTextClassifier.load, "classifier.json"),
    "encoder.json": (onnx_folder, OnnxEncoder, "encoder.json"),
    "quantised": (quantised_file, lambda folder: read_layout(folder / "model.ftz"), "model.ftz"),
    "documents": (documents_file, lambda folder: list(read_parquet(folder)), "documents.parquet"),
}
"""Files in which a cut is always noticed; a flipped bit may only change one value, but never ends in a traceback."""


@pytest.mark.parametrize("kind", CUT)
def test_a_cut_file_is_named_and_a_flipped_bit_is_at_most_one_line(kind, tmp_path):
    make, load, name = CUT[kind]
    folder = make(tmp_path / "whole")
    load(folder)
    path = folder / name
    whole = path.read_bytes()
    for what, data in damages(whole, np.random.default_rng([SEED, zlib.crc32(kind.encode())]), 15):
        path.write_bytes(data)
        said = refusal(load, folder)
        cut = what.startswith("cut") and data.strip() != whole.strip()  # but for the line end
        assert said is not None or not cut, f"{name}, {what}: was not noticed"
        assert said is None or ("\n" not in said and str(folder) in said), (what, said)


DESCRIPTIONS = {
    "checkpoint": (checkpoint_folder, checkpoint.verify, checkpoint.MARKER),
    "tokenised": (tokenised_folder, TokenisedDataset.load, "tokenised.json"),
    "classifier": (classifier_folder, FastTextClassifier.load, "classifier.json"),
    "index": (index_folder, open_index, "versions/v000001/index.json"),
    "onnx": (onnx_folder, OnnxEncoder, "encoder.json"),
}
"""What says of a folder what lies in it."""
ODD_JSON = ["[" * 100_000, '{"a":' * 50_000, "9" * 5_000, "null", "[]", '"text"', "", "\0", '{"format": NaN}']


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_what_is_no_description_is_one_line(kind, tmp_path):
    make, load, name = DESCRIPTIONS[kind]
    folder = make(tmp_path / "whole")
    for text in ODD_JSON:
        (folder / name).write_text(text, encoding="utf-8")
        said = refusal(load, folder)
        assert said is not None, text[:20]
        assert "\n" not in said, text[:20]
        assert Path(name).name in said, (text[:20], said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"graphs": {"fp32": "../whole/m.onnx"}}, "no file of the folder"),
        ({"graphs": {"int8": 5, "fp32": "m.onnx"}}, "no file of the folder"),
        ({"crc32": [1]}, "crc32"),
        ({"prompts": {"query": 5}}, "prompts"),
        ({"pad_id": 10**30}, "pad_id"),
        ({"max_length": 10**30}, "max_length"),
        ({"truncation_side": "up"}, "truncation_side"),
    ],
)
def test_a_description_of_an_export_that_cannot_be_is_one_line(change, said, tmp_path):
    folder = onnx_folder(tmp_path / "whole")
    facts = json.loads((folder / "encoder.json").read_text())
    (folder / "encoder.json").write_text(json.dumps({**facts, **change}))
    with pytest.raises(ValueError, match=rf"encoder\.json is damaged \(.*{said}.*export the model again$"):
        OnnxEncoder(folder)


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tmp_path, caplog):
    folder = checkpoint_folder(tmp_path)
    before = Path(shutil.copytree(folder, tmp_path / "checkpoint-3"))
    checkpoint.seal(before, 3)
    data = bytearray((folder / "optimizer.pt").read_bytes())
    data[len(data) // 2] ^= 4
    (folder / "optimizer.pt").write_bytes(bytes(data))
    assert last_complete_checkpoint(tmp_path).step == 3
    (warning,) = [record.message for record in caplog.records]
    assert "checkpoint-7/optimizer.pt" in warning
    assert "passed over" in warning


def test_larger_sets_are_checked_by_size_unless_asked_otherwise(tmp_path, monkeypatch):
    folder = tokenised_folder(tmp_path / "rows")
    path = next(folder.glob("*.arrow"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    monkeypatch.setattr("rexbert_hf.data.manifest.VERIFIED_BYTES", 10)
    TokenisedDataset.load(folder)
    with pytest.raises(ValueError, match="contents changed"):
        TokenisedDataset.load(folder, verify=True)
    path.write_bytes(bytes(data[:-8]))
    with pytest.raises(ValueError, match="bytes"):
        TokenisedDataset.load(folder)


def test_a_saved_batch_is_whole_or_refused(tmp_path):
    """Cuts are always noticed; the header is JSON, so a flip is noticed there or changes one number."""
    path = batch_file(tmp_path) / "batch.safetensors"
    whole = path.read_bytes()
    rng = np.random.default_rng(SEED)
    for at in rng.integers(0, len(whole), 30):
        path.write_bytes(whole[: int(at)])
        with pytest.raises(ValueError, match=r"batch\.safetensors"):
            FaultyStep.load(path)
    for what, data in damages(whole, rng, 40):
        path.write_bytes(data)
        assert "\n" not in (refusal(FaultyStep.load, path) or ""), what
    for tensors, header in (({"other": torch.ones(1)}, "{}"), ({}, '{"numbers": 5}'), ({}, "[" * 50_000)):
        save_file(tensors or {"micro0.ids": torch.ones(1)}, path, metadata={"faulty_step": header})
        with pytest.raises(ValueError, match=r"batch\.safetensors: not the batch"):
            FaultyStep.load(path)
