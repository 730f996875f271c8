"""The embedding cache: what was encoded is not encoded again, and nothing wrong is ever served."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path

import numpy as np
import pytest
from index_cases import HashModel, make_products
from onnx_cases import small_encoder

from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.query_model import encode, fingerprint


def test_one_changed_product_in_a_hundred_encodes_one_per_cent(tmp_path):
    model, products = HashModel(), make_products(1_000)
    ProductIndex.build(products, model, "flat", cache_dir=tmp_path)
    probes = len(model.seen) - 1_000
    model.seen.clear()
    changed = [dict(p, title=f"{p['title']} changed") if i % 100 == 0 else p for i, p in enumerate(products)]
    cached = ProductIndex.build(changed, model, "flat", cache_dir=tmp_path)
    assert {text for text in model.seen if text.startswith("thing")} == {p["title"] for p in changed[::100]}
    assert len(model.seen) - probes == 10
    plain = ProductIndex.build(changed, HashModel(), "flat")
    queries = model.encode(["a", "b", "c"])
    assert cached.search(queries, 50) == plain.search(queries, 50)


def test_repeated_texts_are_encoded_once(tmp_path):
    model = HashModel()
    cache = EmbeddingCache(tmp_path, model)
    model.seen.clear()
    first = cache.encode(["a", "b", "a"])
    assert model.seen == ["a", "b"]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first, HashModel().encode(["a", "b", "a"]))
    assert (cache.encoded, cache.served) == (2, 1)


def test_a_query_is_no_document(tmp_path):
    class Prompted(HashModel):
        def encode_query(self, texts):
            return self.encode([f"query: {text}" for text in texts])

    cache = EmbeddingCache(tmp_path, Prompted())
    assert not np.array_equal(cache.encode(["a"]), cache.encode(["a"], "query"))
    np.testing.assert_array_equal(cache.encode(["a"], "query"), HashModel().encode(["query: a"]))


def test_another_model_does_not_see_them(tmp_path):
    EmbeddingCache(tmp_path, HashModel()).encode(["a", "b"])
    other = HashModel("another")
    np.testing.assert_array_equal(EmbeddingCache(tmp_path, other).encode(["a"]), HashModel("another").encode(["a"]))
    assert "a" in other.seen


def test_vectors_in_bfloat16_have_a_cache_of_their_own(tmp_path):
    """Those in float32 lie where earlier versions of this package kept them."""
    model = small_encoder()
    products = make_products(3)
    built = [ProductIndex.build(products, model, "flat", cache_dir=tmp_path, bf16=wanted) for wanted in (False, True)]
    for index, name in zip(built, ("", "-bfloat16"), strict=True):
        assert index.cache.folder.name == fingerprint(model)[:32] + name
        assert (index.cache.encoded, index.cache.served) == (3, 0)
    assert ProductIndex.build(products, model, "flat", cache_dir=tmp_path).cache.served == 3
    assert built[0].search(["thing"], 3) == built[0].search(encode(model, ["thing"], "query"), 3)
    assert built[1].search(["thing"], 3) == built[1].search(encode(model, ["thing"], "query", bf16=True), 3)
    assert EmbeddingCache(tmp_path, HashModel(), bf16=True).folder.name == fingerprint(HashModel())[:32]


def test_processes_share_a_cache(tmp_path):
    """What another one wrote after this one opened the cache is found."""
    one, two = HashModel(), HashModel()
    mine, theirs = EmbeddingCache(tmp_path, one), EmbeddingCache(tmp_path, two)
    mine.encode(["a"])
    two.seen.clear()
    theirs.encode(["a"])
    assert two.seen == []


def test_a_vector_that_is_not_finite_is_not_kept_and_its_product_is_named(tmp_path):
    class Broken(HashModel):
        def encode(self, texts):
            vectors = super().encode(texts)
            vectors[[text == "thing number 7" for text in texts]] = np.nan
            return vectors

    products = make_products(20)
    for _ in range(2):
        with pytest.raises(ValueError, match="the vector of product p7 is not finite"):
            ProductIndex.build(products, Broken(), "flat", cache_dir=tmp_path)
    mended = HashModel()
    ProductIndex.build(products, mended, "flat", cache_dir=tmp_path)
    assert "thing number 7" in mended.seen
    assert "thing number 8" not in mended.seen


@pytest.mark.parametrize("other", ["encode_query", "encode_document"])
def test_a_model_of_two_encoders_is_known_by_both(tmp_path, other):
    class Towers(HashModel):
        def encode_query(self, texts):
            return self.encode([f"query: {text}" for text in texts])

        def encode_document(self, texts):
            return self.encode([f"text: {text}" for text in texts])

    class Another(Towers):
        pass

    setattr(Another, other, lambda self, texts: self.encode([f"otherwise: {text}" for text in texts]))
    expected = EmbeddingCache(tmp_path, Towers()).encode(["a"])
    cache = EmbeddingCache(tmp_path, Another())
    cache.encode(["a"])
    assert cache.encoded == 1
    assert np.array_equal(cache.encode(["a"]), expected) == (other == "encode_query")
    index = ProductIndex.build(make_products(3), Towers(), "flat")
    index.model = Towers()
    with pytest.raises(ValueError, match="this index was built with hash"):
        index.model = Another()


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_file_is_encoded_again(tmp_path, caplog, damage):
    cache = EmbeddingCache(tmp_path, HashModel())
    expected = cache.encode(["a", "b"])
    cache.encode(["c"])
    path = min(cache.folder.glob("vectors-*"), key=lambda file: -file.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"\xff" * len(data))
    again = EmbeddingCache(tmp_path, HashModel())
    np.testing.assert_array_equal(again.encode(["a", "b"]), expected)
    assert "left out of the cache" in caplog.text
    assert again.encoded == 2


def open_files() -> int:
    gc.collect()
    return len(os.listdir("/dev/fd"))


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="this system does not list open files")
def test_many_batches_hold_no_file_open(tmp_path):
    """Each batch with a new text is one more file, for good: every night, all of them were mapped."""
    cache, texts = EmbeddingCache(tmp_path, HashModel()), [f"text {number}" for number in range(100)]
    before = open_files()
    expected = np.concatenate([cache.encode([text, *texts[:1]])[:1] for text in texts])
    assert len(list(cache.folder.glob("vectors-*"))) == len(texts)
    again = EmbeddingCache(tmp_path, HashModel())
    np.testing.assert_array_equal(again.encode(texts), expected)
    assert (again.encoded, open_files() - before) == (0, 0)


def test_a_process_that_can_open_no_more_files_takes_none_for_damaged(tmp_path, monkeypatch, caplog):
    cache = EmbeddingCache(tmp_path, HashModel())
    cache.encode(["a"])
    with monkeypatch.context() as full:

        def refuse(*args, **options):
            raise OSError(errno.EMFILE, "Too many open files")

        full.setattr(Path, "open", refuse)
        for attempt in (lambda: cache.encode(["a"]), lambda: EmbeddingCache(tmp_path, HashModel())):
            with pytest.raises(OSError, match=r"vectors-.* cannot be read now \(Too many open files\)"):
                attempt()
    assert "left out of the cache" not in caplog.text
    cache.encode(["a"])
    assert cache.encoded == 1


def test_a_file_that_is_gone_or_damaged_since_is_encoded_again(tmp_path):
    cache = EmbeddingCache(tmp_path, HashModel())
    expected = np.concatenate([cache.encode([text]) for text in "ab"])
    first, second = cache.folder.glob("vectors-*")
    first.unlink()
    second.write_bytes(second.read_bytes()[:-8])
    np.testing.assert_array_equal(cache.encode(["a", "b"]), expected)
    np.testing.assert_array_equal(cache.encode(["a", "b"]), expected)
    assert (cache.encoded, cache.served) == (4, 2)


def test_what_a_killed_writer_left_is_not_read(tmp_path):
    cache = EmbeddingCache(tmp_path, HashModel())
    cache.encode(["a"])
    (path,) = cache.folder.glob("vectors-*")
    path.rename(path.with_name(f".{path.name}.123"))
    assert EmbeddingCache(tmp_path, HashModel()).encode(["a"]).shape == (1, 32)
    assert len(list(cache.folder.glob("vectors-*"))) == 1
