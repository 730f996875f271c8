"""What killed jobs leave, what is gone when it is read, and an index that was empty for a while."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

import numpy as np
import pytest
from disks import file_limit
from index_cases import HashModel, clustered, make_products, rewrite_facts

from rexbert_hf.hub import left_over
from rexbert_hf.hub.left_over import LEFT_SECONDS, staged_name
from rexbert_hf.retrieval.serving import embedding_cache, index_state
from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version, read_facts
from rexbert_hf.retrieval.serving.index_options import KINDS

PRODUCTS = make_products(120)
QUERIES = clustered(5, seed=2)


@pytest.fixture
def model():
    return HashModel()


def make_old(*paths: Path) -> None:
    then = time.time() - LEFT_SECONDS - 60
    for path in paths:
        os.utime(path, (then, then))


def test_staging_folders_of_other_machines_go_when_they_are_old(model, tmp_path):
    index = ProductIndex.build(PRODUCTS, model, "flat")
    index.save(tmp_path)
    old, busy, new = (tmp_path / "versions" / f".staging-elsewhere-{number}-0123abcd" for number in (1, 2, 3))
    for folder in (old, busy, new):
        folder.mkdir()
        (folder / "vectors.safetensors").write_bytes(bytes(8))
    make_old(old / "vectors.safetensors", old, busy)
    index.save(tmp_path)
    assert [folder.exists() for folder in (old, busy, new)] == [False, True, True]


def test_a_cache_keeps_no_half_written_file(model, tmp_path, monkeypatch):
    cache = EmbeddingCache(tmp_path, model)
    cache.encode(["a"])
    old, new = (cache.folder / f".vectors-{name}.safetensors.1" for name in ("old", "new"))
    for path in (old, new):
        path.write_bytes(bytes(8))
    make_old(old)
    cache = EmbeddingCache(tmp_path, model)
    assert (old.exists(), new.exists()) == (False, True)

    def full(tensors, path):
        path.write_bytes(bytes(8))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(embedding_cache, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        cache.encode(["b"])
    assert list(cache.folder.glob(".vectors-*")) == [new]


@pytest.mark.parametrize("gone", ["index.faiss", "bm25"])
def test_a_version_that_is_removed_while_it_is_read_is_not_half_an_index(model, tmp_path, monkeypatch, gone):
    """Codes and words were left out without a word; now the reader takes the newer version."""
    writer = ProductIndex.build(PRODUCTS, model, "hnsw", lexical=True)
    writer.save(tmp_path)
    stale = current_version(tmp_path)
    real, moved = index_state.read_segment, []

    def late(path):
        if not moved and path.parent == stale:
            moved.append(path)
            writer.delete(["p1"])
            writer.save(tmp_path)
            for file in sorted((stale / gone).rglob("*")) if gone == "bm25" else [stale / gone]:
                file.unlink()
        return real(path)

    monkeypatch.setattr(index_state, "read_segment", late)
    index = ProductIndex.load(tmp_path, model)
    assert moved
    assert len(index) == 119
    assert index.state.codes is not None
    assert index.state.lexical is not None


def test_a_small_index_of_another_machine_opens_without_faiss(model, tmp_path, monkeypatch, caplog):
    index = ProductIndex.build(PRODUCTS, model, "hnsw")
    for folder in (tmp_path, tmp_path / "large"):
        index.save(folder)
    monkeypatch.setitem(sys.modules, "faiss", None)
    again = ProductIndex.load(tmp_path, model)
    assert "120 products are searched exactly" in caplog.text
    assert again.search(QUERIES, 5) == index.search(QUERIES, 5)
    again.upsert([{"product_id": "new", "title": "quite another"}])
    again.save(tmp_path)
    assert ProductIndex.load(tmp_path, model).search("quite another", 1)[0][0][0] == "new"
    monkeypatch.setattr(index_state, "SMALL_CATALOGUE", 100)
    with pytest.raises(ImportError, match="needs faiss"):
        ProductIndex.load(tmp_path / "large", model)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "flat"])
def test_an_index_that_was_empty_has_codes_again(model, kind, tmp_path):
    index = ProductIndex.build(PRODUCTS, model, kind)
    index.delete(index.ids())
    index.compact()
    assert index.search(QUERIES, 5) == [[]] * 5
    index.save(tmp_path)
    for refilled in (index, ProductIndex.load(tmp_path, model)):
        assert refilled.upsert(PRODUCTS[:60]) == 60
        assert refilled.upsert(PRODUCTS[60:]) == 60
        assert len(refilled.state.codes) == 120
        flat = ProductIndex.build(PRODUCTS, model, "flat")
        assert refilled.search("thing number 7", 1)[0][0][0] == flat.search("thing number 7", 1)[0][0][0] == "p7"


def test_of_equal_scores_the_first_rows_count(model, monkeypatch):
    """At the cut too, in every block."""
    monkeypatch.setattr("rexbert_hf.retrieval.serving.exact.BLOCK_ROWS", 50)
    vectors = np.zeros((120, 4), np.float32)
    vectors[:, 0] = 1
    vectors[70:75, 1] = 1
    alike = [dict(product, title="lamp") for product in PRODUCTS]
    index = ProductIndex.build(alike, None, "flat", vectors=vectors, metric="dot", lexical=True)
    expected = [f"p{row}" for row in [*range(70, 75), *range(5)]]
    assert [name for name, _ in index.search(np.array([[1, 1, 0, 0]], np.float32), 10)[0]] == expected
    bolts = [f"p{row}" for row in range(1, 30, 3)]
    wanted = {"brand": "Bolt"}
    assert [name for name, _ in index.search(np.array([[1, 0, 0, 0]], np.float32), 10, wanted)[0]] == bolts
    found = index.search(["lamp"], 10, mode="lexical")[0]
    assert [name for name, _ in found] == [f"p{row}" for row in range(10)]


def test_index_json_is_checked_by_a_sum_of_its_own(model, tmp_path):
    ProductIndex.build(PRODUCTS, model, "flat").save(tmp_path)
    path = current_version(tmp_path) / "index.json"
    text = path.read_text()
    path.write_text(text.replace('"cosine"', '"dot"'))
    with pytest.raises(ValueError, match=r"index\.json is damaged \(its checksum differs\): build the index again"):
        ProductIndex.load(tmp_path, model)
    rewrite_facts(path, lambda facts: None)  # as earlier versions wrote it
    assert len(ProductIndex.load(tmp_path, model)) == 120


def test_every_byte_of_index_json_counts(model, tmp_path):
    """Also the name of the sum itself, the line end, and digits of a number beyond what it can hold."""
    ProductIndex.build(PRODUCTS, model, "flat").save(tmp_path)
    version = current_version(tmp_path)
    path = version / "index.json"
    whole = path.read_bytes()
    unnoticed = []
    for at in range(len(whole)):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            path.write_bytes(damaged)
            try:
                read_facts(version, verify=False)
            except (ValueError, FileNotFoundError):
                continue
            unnoticed.append((at, damaged[at - 20 :][:40]))
    assert not unnoticed
    path.write_bytes(whole)
    read_facts(version)


def test_a_home_folder_is_understood(model, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    index = ProductIndex.build(PRODUCTS, model, "flat")
    assert index.save("~/shop").is_relative_to(tmp_path / "shop")
    assert len(ProductIndex.load("~/shop", model)) == 120


def test_a_lookup_knows_living_rows_only(model):
    rows = ProductIndex.build(PRODUCTS, model, "flat").state.rows
    rows.kill(np.array([3, 5]))
    assert rows.find(["p4", "p3", "none", "p4", "p119", "p5"]).tolist() == [4, -1, -1, 4, 119, -1]
    assert rows.find([]).tolist() == []


def dead_number() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_what_a_dead_process_of_this_machine_left_goes_at_once(model, tmp_path):
    here, number = socket.gethostname(), dead_number()
    cache = EmbeddingCache(tmp_path, model)
    dead, lives, elsewhere = (
        cache.folder / f".vectors-{name}-0123abcd"
        for name in (f"{here}-{number}", f"{here}-{os.getppid()}", f"{here}-0-9")
    )
    for path in (dead, lives, elsewhere):
        path.write_bytes(bytes(8))
    EmbeddingCache(tmp_path, model)
    assert [path.exists() for path in (dead, lives, elsewhere)] == [False, True, True]


def test_what_a_killed_process_of_the_same_number_left_goes_at_once(model, tmp_path, monkeypatch):
    """A container that is started again has the same name and process number."""
    index = ProductIndex.build(PRODUCTS, model, "flat")
    index.save(tmp_path)
    versions = tmp_path / "versions"
    with monkeypatch.context() as before:
        before.setattr(left_over, "_START", "0" * 8)
        killed = versions / staged_name(".staging-")
    own, earlier = (
        versions / staged_name(".staging-"),
        versions / f".staging-{socket.gethostname()}-{os.getpid()}-0a1b2c3d",
    )
    for folder in (killed, own, earlier):
        folder.mkdir()
    index.save(tmp_path)
    assert [folder.exists() for folder in (killed, own, earlier)] == [False, True, False]


def test_what_processes_of_a_machine_with_a_longer_name_write_stays(model, tmp_path, monkeypatch):
    cache, number = EmbeddingCache(tmp_path, model), dead_number()
    names = (f"node-0-{number}-0a1b2c3d-0a1b2c3d", f"node-{number}-7-0a1b2c3d", f"node-{number}-0a1b2c3d-0a1b2c3d")
    paths = [cache.folder / f".vectors-{name}" for name in names]
    for path in paths:
        path.write_bytes(bytes(8))
    monkeypatch.setattr(left_over.socket, "gethostname", lambda: "node")
    EmbeddingCache(tmp_path, model)
    assert [path.exists() for path in paths] == [True, True, False]


def test_a_graph_that_finds_no_room_is_one_line(model, tmp_path):
    """FAISS has an exception of its own."""
    pytest.importorskip("faiss")
    index = ProductIndex.build(PRODUCTS, model, "hnsw")
    with file_limit(4 << 10), pytest.raises(OSError, match=r"index\.faiss cannot be written: .*too large") as caught:
        index.state.codes.save(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("work_dir", [False, True])
def test_vectors_of_an_index_lie_where_the_next_start_finds_them(model, tmp_path, monkeypatch, work_dir):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    where = {"work_dir": tmp_path} if work_dir else {}
    index = ProductIndex.build(PRODUCTS, model, "flat", **where)
    index.delete([PRODUCTS[0]["product_id"]])
    index.compact(*where.values())
    names = [path.name.removeprefix(".index-" if work_dir else "") for path in tmp_path.iterdir()]
    own = f"rexbert-{socket.gethostname()}-{os.getpid()}-"
    assert names
    assert all(name.startswith(own) for name in names)
