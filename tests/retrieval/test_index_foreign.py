"""Index folders of strangers: every file says what it should not, sealed as if it had always been there."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest
from index_cases import HashModel, make_products, rewrite_facts

from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.lexical import LexicalIndex
from rexbert_hf.retrieval.serving.vector_store import HEADER_BYTES, read_segment


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    ProductIndex.build(make_products(30), HashModel(), "binary", lexical=True, storage="int8").save(folder)
    return current_version(folder)


@pytest.fixture
def version(built, tmp_path):
    return shutil.copytree(built, tmp_path / "stranger")


def seal(version):
    def sealed(facts):
        for name in facts["files"]:
            data = (version / name).read_bytes()
            facts["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    rewrite_facts(version / "index.json", sealed)


def refused(version, match):
    seal(version)
    with pytest.raises(ValueError, match=match) as error:
        ProductIndex.load(version, HashModel())
    assert "\n" not in str(error.value)
    assert "build the index again" in str(error.value)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("vectors", "data_offsets"), ["0", 1]),
        (("vectors", "data_offsets"), [0, 960.0]),
        (("vectors", "data_offsets"), [-8, 952]),
        (("vectors", "data_offsets"), 5),
        (("vectors", "shape"), [None, 32]),
        (("vectors", "shape"), [-30, -32]),
        (("vectors", "shape"), [30, 32, 1]),
        (("vectors", "shape"), [True, 960]),
        (("vectors", "dtype"), ["I8"]),
        (("vectors", "dtype"), "F32"),
        (("vectors",), []),
        (("scale",), None),
        (("scale",), "x"),
        (("scale", "data_offsets"), [960, None]),
        (("scale", "data_offsets"), [-120, 0]),
        (("scale", "dtype"), "F64"),
        ((), []),
        ((), None),
    ],
)
def test_headers_of_vectors(version, place, value):
    path = version / "vectors.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8:HEADER_BYTES])
    changed = header
    for key in place[:-1]:
        changed = changed[key]
    if place:
        changed[place[-1]] = value
    else:
        header = value
    path.write_bytes(data[:8] + json.dumps(header).encode().ljust(HEADER_BYTES - 8) + data[HEADER_BYTES:])
    with pytest.raises(ValueError, match=r"vectors\.safetensors is (damaged|cut off) ?.*: build the index again"):
        read_segment(path)
    refused(version, r"vectors\.safetensors is (damaged|cut off)")


@pytest.mark.parametrize("dim", [16, "32", 32.5, None, True, [32]])
def test_a_width_that_the_vectors_do_not_have(version, dim):
    rewrite_facts(version / "index.json", lambda facts: facts.update(dim=dim))
    refused(version, "build the index again")


@pytest.mark.parametrize("name", ["params.index.json", "lexical.json", "vocab.index.json"])
@pytest.mark.parametrize("content", ["null", "[]", "5", '"x"', "{}", "[" * 3000])
def test_words_in_json_of_another_shape(version, name, content):
    (version / "bm25" / name).write_text(content)
    if (name, content) == ("vocab.index.json", "{}"):  # no word is known: nothing is found
        seal(version)
        assert ProductIndex.load(version, HashModel()).search("thing", 3, mode="lexical") == [[]]
    else:
        refused(version, "bm25 holds no BM25 index")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("params.index.json", "num_docs", 10**12),  # so many scores would be made for each query
        ("params.index.json", "num_docs", None),
        ("params.index.json", "backend", "numba"),  # its loops compare no borders
        ("params.index.json", "dtype", "object"),
        ("params.index.json", "method", "bm25+"),
        ("params.index.json", "corpus", "x"),
        ("lexical.json", "rows", None),
        ("lexical.json", "rows", "30"),
        ("lexical.json", "rows", 3),
        ("lexical.json", "stem", "yes"),
        ("vocab.index.json", "thing", 10**9),
        ("vocab.index.json", "thing", -1),
        ("vocab.index.json", "thing", None),
        ("vocab.index.json", "thing", [1]),
    ],
)
def test_words_with_settings_that_do_not_fit(version, name, key, value):
    path = version / "bm25" / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    refused(version, "bm25 holds no BM25 index")


@pytest.mark.parametrize("name", ["data.csc", "indices.csc", "indptr.csc", "rows"])
@pytest.mark.parametrize("array", [np.zeros((2, 2), "i4"), np.array(["x"] * 30), np.full(30, -5), np.zeros(3), 5])
def test_words_with_arrays_that_do_not_fit(version, name, array):
    (path,) = (version / "bm25").glob(f"{name}*.npy")
    np.save(path, array)
    refused(version, "bm25 holds no BM25 index")


def test_words_that_name_products_that_are_not_there(version):
    """Found when they are looked up: the array is mapped, and reading all of it would undo that."""
    path = version / "bm25" / "indices.csc.index.npy"
    np.save(path, np.full_like(np.load(path), 10**6))
    seal(version)
    with pytest.raises(ValueError, match=r"BM25 index is damaged .*build the index again") as error:
        ProductIndex.load(version, HashModel()).search("thing", 3, mode="lexical")
    assert "\n" not in str(error.value)


def test_what_is_saved_is_read(tmp_path):
    for texts in (["red lamp", "blue lamp"], ["!?", "--"]):
        LexicalIndex.build(texts).save(tmp_path / texts[0][:3])
        assert LexicalIndex.load(tmp_path / texts[0][:3]).rows == 2
