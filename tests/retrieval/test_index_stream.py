"""Products that come one by one: what finds an id, and where their vectors lie, stays small work."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pytest
from index_cases import HashModel, clustered, make_products

from rexbert_hf.retrieval.serving import id_lookup, text_column, vector_store
from rexbert_hf.retrieval.serving.id_lookup import IdLookup
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.product_rows import batches
from rexbert_hf.retrieval.serving.text_column import TextColumn
from rexbert_hf.retrieval.serving.vector_store import VectorStore, VectorWriter, read_segment


@pytest.mark.parametrize("hashed", [hash, len, lambda name: 7], ids=["different", "some equal", "all equal"])
def test_the_last_row_of_an_id_is_found_whatever_the_hashes(monkeypatch, hashed):
    monkeypatch.setattr(id_lookup, "hash", hashed, raising=False)
    monkeypatch.setattr(id_lookup, "LEAST_TAIL", 8)
    monkeypatch.setattr(id_lookup, "LOOKS", 3)
    rng = np.random.default_rng(0)
    lookup, names = IdLookup(), []
    for _ in range(60):
        names += [f"p{i}" for i in rng.integers(0, 150, rng.integers(0, 12))]
        last = {name: row for row, name in enumerate(names)}
        for size in (0, 1, 5, 200):  # single ones by their hash, many by a look through all
            asked = [f"p{i}" for i in rng.integers(0, 170, size)]
            found = lookup.latest(pa.array(names, pa.string()), asked)
            assert found.tolist() == [last.get(name, -1) for name in asked]


def test_a_few_ids_are_not_looked_up_among_all(monkeypatch):
    seen = []
    real = id_lookup._latest_of_all
    monkeypatch.setattr(id_lookup, "_latest_of_all", lambda ids, asked: seen.append(len(ids)) or real(ids, asked))
    ids = pa.array([f"p{i}" for i in range(20_000)], pa.string())
    lookup = IdLookup()
    for _ in range(id_lookup.LOOKS + 1):
        assert lookup.latest(ids, ["p7", "none", "p19999"]).tolist() == [7, -1, 19_999]
    ids = pa.concat_arrays([ids, pa.array(["new", "p7"], pa.string())])
    assert lookup.latest(ids, ["p7", "new"]).tolist() == [20_001, 20_000]
    assert seen == [20_000] * id_lookup.LOOKS + [0, 2]  # to hash them costs as much


def test_ids_are_hashed_by_one_thread_while_others_look_through_them(monkeypatch):
    """Each request after a start or a refresh hashed all ids, for seconds, and none of them was answered."""
    ids, real, hashed, meanwhile = pa.array([f"p{i}" for i in range(20_000)], pa.string()), id_lookup._hashes_of, [], []
    lookup = IdLookup()

    def another():
        meanwhile.append(lookup.latest(ids, ["p7", "none"]).tolist())

    def hashes_of(some):
        hashed.append(len(some))
        if hashed.count(len(ids)) == 1 and not meanwhile:
            thread = threading.Thread(target=another)
            thread.start()
            thread.join()
        return real(some)

    monkeypatch.setattr(id_lookup, "_hashes_of", hashes_of)
    for _ in range(30):
        assert lookup.latest(ids, ["p7", "none"]).tolist() == [7, -1]
    assert meanwhile == [[7, -1]]
    assert hashed.count(len(ids)) == 1


def test_an_empty_index_finds_nothing():
    index = ProductIndex.build(make_products(3), HashModel(), "flat")
    index.delete(["p0", "p1", "p2"])
    index.compact()
    assert index.facts(["p0"]) == [{}]
    assert index.upsert(make_products(1)) == 1
    assert index.texts(["p0", "p1"]) == ["thing number 0", None]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
@pytest.mark.parametrize("first", [0, 50])
def test_vectors_that_come_singly_lie_in_few_segments(tmp_path, dtype, first):
    """Each segment is a product of matrices of its own in a search: 3,000 made it fifty times as slow."""
    vectors = clustered(1_000, dim=4)
    with VectorWriter(tmp_path / "v.safetensors", 4, dtype) as writer:
        writer.append(vectors[:first])
    store = VectorStore(4, dtype, [read_segment(tmp_path / "v.safetensors")])
    mapped = store.segments[0]
    for row in vectors[first:]:
        store.append(row[None])
    assert len(store) == 1_000
    assert len(store.segments) <= 11  # one for each binary digit of 1,000, and the file
    assert not first or store.segments[0] is mapped  # a mapped file is not read into memory
    atol = 0 if dtype == "float32" else 2e-2
    np.testing.assert_allclose(store.take(np.arange(1_000)), vectors, atol=atol)
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in store.blocks(64)]), store.take(np.arange(1_000)))


@pytest.mark.parametrize("kind", [VectorStore, TextColumn])
def test_a_large_part_is_copied_no_more(monkeypatch, kind):
    """128 batches were copied five times as often as they are now, and the last joins took twice the memory."""
    monkeypatch.setattr(vector_store, "JOINED_ROWS", 16)
    monkeypatch.setattr(text_column, "JOINED_ROWS", 16)
    parts = [np.full((5, 2), number, np.float32) for number in range(40)]
    if kind is VectorStore:
        store = VectorStore(2)
        for part in parts:
            store.append(part)
        sizes = [len(segment.data) for segment in store.segments]
        np.testing.assert_array_equal(store.take(np.arange(200)), np.concatenate(parts))
    else:
        column, texts = TextColumn(), [str(number) for number in range(200)]
        for start in range(0, 200, 5):
            column.append(texts[start : start + 5])
        sizes = [len(chunk) for chunk in column._chunks]
        assert column.take(np.arange(200)) == texts
    assert sizes == [20] * 10


def test_an_upsert_that_finds_no_memory_changes_nothing(monkeypatch):
    """Rows were there, and vectors not: what came later was found under the ids of others."""
    index = ProductIndex.build(make_products(20), HashModel(), "hnsw")
    changed = [dict(product, title="another title") for product in make_products(25)[5:]]
    before, texts = index.search(["thing number 7"], 20), index.texts(["p7", "p24"])

    def none_left(*args):
        raise MemoryError("Unable to allocate 14.6 GiB")

    for place in ("rexbert_hf.retrieval.serving.vector_store.Segment", "numpy.concatenate"):
        with monkeypatch.context() as short:
            short.setattr(place, none_left)
            with pytest.raises(MemoryError):
                index.state.upsert(next(batches(changed, index.options)), index._encoded)
        assert len(index.state.rows) == len(index.state.store) == len(index.state.rows.texts) == len(index) == 20
        assert index.search(["thing number 7"], 20) == before
        assert index.texts(["p7", "p24"]) == texts
    assert index.upsert(changed) == 20
    assert index.texts(["p7", "p24"]) == ["another title"] * 2
