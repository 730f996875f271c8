"""Saving and loading: the same answers, one version at a time, whatever is killed, missing, damaged or not ours."""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_cases import HashModel, clustered, make_products, rewrite_facts

from rexbert_hf.retrieval.serving import index_folder, index_state, text_column
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.index_options import KINDS
from rexbert_hf.retrieval.serving.vector_store import VectorStore, VectorWriter, read_segment

PRODUCTS = make_products(300)
QUERIES = clustered(10, seed=2)
TEXTS = ["thing number 17", "lamps"]


@pytest.fixture(scope="module")
def model():
    return HashModel()


@pytest.fixture(params=KINDS)
def index(request, model):
    return ProductIndex.build(PRODUCTS, model, request.param, lexical=True)


@pytest.fixture
def saved(tmp_path, model):
    ProductIndex.build(PRODUCTS, model, "hnsw", lexical=True).save(tmp_path / "index")
    return tmp_path / "index"


def answers(index: ProductIndex) -> list:
    found = [index.search(QUERIES, 8, filter=wanted) for wanted in (None, {"brand": "Acme"}, {"price": (None, 20)})]
    return [*found, *(index.search(TEXTS, 8, mode=mode) for mode in ("dense", "lexical", "hybrid"))]


def test_round_trip(index, model, tmp_path):
    index.upsert([dict(PRODUCTS[5], title="quite another")])
    index.delete(["p7"])
    before = answers(index)
    version = index.save(tmp_path / "index")
    assert answers(index) == before  # from the saved files now
    again = ProductIndex.load(tmp_path / "index", model)
    assert answers(again) == before
    assert (len(again), again.options, again.texts(["p5"])) == (299, index.options, ["quite another"])
    assert again.upsert(PRODUCTS[:2]) == 0  # nothing has changed
    assert again.upsert([dict(PRODUCTS[9], title="more")]) == 1
    assert again.save(tmp_path / "index") != version
    assert len(ProductIndex.load(tmp_path / "index", model)) == 299


def test_the_home_of_an_unknown_user_is_no_folder(index):
    with pytest.raises(FileNotFoundError, match=r"^~nosuchuser/index: no such user here; write the folder out$"):
        index.save("~nosuchuser/index")


def test_files_are_safe_to_open(saved):
    """Formats that run no code; numpy arrays without pickled objects."""
    names = {path.suffix for path in current_version(saved).rglob("*") if path.is_file()}
    assert names <= {".json", ".parquet", ".safetensors", ".faiss", ".npy"}
    arrays = list(current_version(saved).rglob("*.npy"))
    assert arrays
    for path in arrays:
        np.load(path, allow_pickle=False)
    facts = json.loads((current_version(saved) / "index.json").read_text())
    assert facts["model"]["name"] == "hash"
    assert len(facts["model"]["fingerprint"]) == 64


def test_vectors_are_a_plain_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    rows = clustered(70)
    for dtype, atol in (("float32", 0), ("int8", 5e-3)):
        path = tmp_path / f"{dtype}.safetensors"
        with VectorWriter(path, rows.shape[1], dtype) as writer:
            writer.append(rows[:40])
            writer.append(rows[40:])
        tensors = load_file(path)
        found = tensors["vectors"].astype(np.float32)
        found = found * tensors["scale"][:, None] if "scale" in tensors else found
        np.testing.assert_allclose(found, rows, atol=atol)
        store = VectorStore(rows.shape[1], dtype, [read_segment(path)])
        store.append(rows[:3])
        np.testing.assert_array_equal(store.take(np.array([71, 3])), np.stack([found[1], found[3]]))


def test_a_pass_over_all_vectors_is_read_ahead_and_single_rows_are_not(tmp_path):
    """Page by page, a pass over a file that is not in the system's cache takes ten times as long."""

    class Map:
        def __init__(self):
            self.advice = []

        def madvise(self, advice):
            self.advice.append(advice)

    with VectorWriter(tmp_path / "v.safetensors", 4) as writer:
        writer.append(clustered(70, dim=4))
    segment = read_segment(tmp_path / "v.safetensors")
    segment.mapped = told = Map()
    store = VectorStore(4, segments=[segment])
    store.append(clustered(3, dim=4))
    for first, _ in store.blocks(32):
        assert told.advice[-1] == (mmap.MADV_NORMAL if first < 70 else mmap.MADV_RANDOM)
    assert told.advice[-1] == mmap.MADV_RANDOM
    passing = store.blocks(32)
    next(passing)
    assert told.advice[-1] == mmap.MADV_NORMAL
    passing.close()  # whoever stops half-way
    assert told.advice[-1] == mmap.MADV_RANDOM


def test_another_model_is_refused(saved, monkeypatch):
    with pytest.raises(ValueError, match=r"this index was built with hash \(\w{12}\), not with the model given"):
        ProductIndex.load(saved, HashModel("another"))
    with pytest.raises(ValueError, match="16 against 32 dimensions"):
        ProductIndex.load(saved, HashModel(dim=16))
    index = ProductIndex.load(saved)
    with pytest.raises(ValueError, match="not with the model given"):
        index.model = HashModel("another")

    def gone(name, revision=None):
        raise FileNotFoundError(f"there is no {name}")

    monkeypatch.setattr("rexbert_hf.retrieval.serving.search_index.load_model", gone)
    with pytest.raises(
        ValueError, match=r"hash, this index's model, cannot be loaded \(there is no hash\): give model="
    ):
        index.search(["thing"])
    assert index.search(QUERIES[:1], 1)[0]  # vectors need no model


def test_the_same_model_in_another_form_is_taken(saved, model):
    class Shifted(HashModel):
        def encode(self, texts):
            return super().encode(texts) * np.float32(1.0001) + np.float32(1e-4)

    assert ProductIndex.load(saved, Shifted()).search(TEXTS, 3)


@pytest.mark.parametrize(
    "name", ["vectors.safetensors", "index.faiss", "products.parquet", "texts.parquet", "index.json"]
)
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_damaged_files_are_named(saved, model, name, damage):
    path = current_version(saved) / name
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif damage == "flip":
        middle = len(data) // 2
        path.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    else:
        path.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=f"{name}.*again|CURRENT|is missing") as error:
        ProductIndex.load(saved, model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["vectors.safetensors", "index.faiss"])
def test_damage_is_found_without_checksums_too(saved, model, name):
    """Large indexes are not hashed; their files are still looked at."""
    path = current_version(saved) / name
    data = bytearray(path.read_bytes())
    data[:16] = b"\xff" * 16
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is damaged"):
        ProductIndex.load(saved, model, verify=False)


def lazily_read(saved: Path, model: HashModel) -> tuple:
    """Each part of the Parquet files, those too that are read when they are first asked for."""
    index = ProductIndex.load(saved, model, verify=False)
    return index.ids(), index.texts(["p5"]), index.facts(["p5"]), index.state.rows.digests.tolist()


@pytest.mark.parametrize("name", ["products.parquet", "texts.parquet"])
def test_a_bit_that_turned_is_found_without_checksums_of_files(saved, model, name):
    """Pages have their own: without them three of four such bits are wrong texts, ids and prices."""
    path = current_version(saved) / name
    whole, before = path.read_bytes(), lazily_read(saved, model)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    said = []
    for place in np.linspace(4, footer - 1, 60).astype(int):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert lazily_read(saved, model) == before  # in what nobody reads, such as statistics
        except ValueError as error:
            said.append(str(error))
    assert len(said) >= 50
    assert all(re.search(rf"{name} is damaged \([^\n]*\): build the index again$", line) for line in said)


@pytest.mark.parametrize("name", ["products.parquet", "texts.parquet"])
def test_parquet_of_earlier_versions_is_read_and_its_damage_named(saved, model, name):
    """They wrote no checksums of pages: what cannot be read is named, whenever it is read."""
    path = current_version(saved) / name
    before = lazily_read(saved, model)
    pq.write_table(pq.read_table(path), path, compression="zstd")
    rewrite_facts(path.parent / "index.json", lambda facts: facts["files"][name].update(bytes=path.stat().st_size))
    assert lazily_read(saved, model) == before
    whole = path.read_bytes()
    for place in (4, len(whole) - 72):
        path.write_bytes(whole[:place] + b"\xff" * 64 + whole[place + 64 :])
        with pytest.raises(ValueError, match=rf"{name} is damaged \([^\n]*\): build the index again$"):
            lazily_read(saved, model)


def test_a_column_that_the_index_does_not_keep_is_damage(saved, model):
    """Its name has changed, and the filter column that it was would be missed in silence."""
    path = current_version(saved) / "products.parquet"
    path.write_bytes(path.read_bytes().replace(b"brand", b"brald"))
    with pytest.raises(ValueError, match=r"products\.parquet is damaged \(a column 'brald'\): build the index again"):
        ProductIndex.load(saved, model, verify=False)


def test_an_error_of_the_system_is_no_damage(saved, model, monkeypatch):
    """pyarrow raises OSError for both; the system's have a number."""

    def failing(file):
        raise OSError(errno.EIO, "Error reading bytes from file")

    monkeypatch.setattr(text_column, "_stored_texts", failing)
    with pytest.raises(OSError, match=r"Input/output error: '.*texts\.parquet'"):
        ProductIndex.load(saved, model).texts(["p5"])


def test_what_is_no_index(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no index"):
        ProductIndex.load(tmp_path)
    (tmp_path / "CURRENT").write_text("../../etc")
    with pytest.raises(ValueError, match="CURRENT is damaged"):
        ProductIndex.load(tmp_path)


def test_a_later_format_is_refused(saved, model):
    path = current_version(saved) / "index.json"
    rewrite_facts(path, lambda facts: facts.update(format=2))
    with pytest.raises(ValueError, match="written by a later rexbert-hf"):
        ProductIndex.load(saved, model)


def test_readers_refresh(saved, model):
    reader, writer = ProductIndex.load(saved, model), ProductIndex.load(saved, model)
    assert not reader.refresh()
    writer.upsert(make_products(5, first=1000))
    writer.save(saved)
    assert len(reader) == 300
    assert reader.search(["thing number 1001"], 1)[0][0][0] != "p1001"
    assert reader.refresh()
    assert reader.search(["thing number 1001"], 1)[0][0][0] == "p1001"
    for _ in range(3):
        writer.save(saved)
    assert len(list((saved / "versions").iterdir())) == 2
    assert len(reader.search(QUERIES, 300)[0]) == 300  # what it has open stays readable


def test_a_search_reads_one_version_while_others_refresh(saved, model, monkeypatch):
    """Each version has its products in another order, so rows of one are other products in the next."""
    reader = ProductIndex.load(saved, model)
    real, stop, wrong = index_state.dense_search, threading.Event(), []

    def slow(*arguments):
        found = real(*arguments)
        time.sleep(0.005)  # a refresh comes in between
        return found

    def ask():
        while not stop.is_set():
            for mode in ("dense", "hybrid"):
                (hits,) = reader.search("thing number 17", 1, mode=mode)
                wrong.extend(name for name, _ in hits if name != "p17")

    monkeypatch.setattr(index_state, "dense_search", slow)
    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(8):
            shift = 37 * turn
            writer = ProductIndex.build(PRODUCTS[shift:] + PRODUCTS[:shift], model, "flat", lexical=True)
            writer.save(saved)
            assert reader.refresh()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


def test_texts_that_threads_ask_for_first_are_read_once(saved, model, monkeypatch):
    """Else each would put the column in again, and rows would have texts of other products."""
    index = ProductIndex.load(saved, model)
    index.upsert([{"product_id": "new", "title": "quite another"}])
    real, together = text_column._stored_texts, threading.Barrier(4)

    def slow(file):
        found = real(file)
        time.sleep(0.05)
        return found

    def ask():
        together.wait()
        return index.texts(["p5", "new"])

    monkeypatch.setattr(text_column, "_stored_texts", slow)
    with ThreadPoolExecutor(4) as pool:
        found = [answer.result() for answer in [pool.submit(ask) for _ in range(4)]]
    assert found == [["thing number 5", "quite another"]] * 4
    assert len(index.state.rows.texts) == len(index.state.rows)


def test_texts_of_other_rows_are_no_part_of_an_index(saved, model, tmp_path):
    ProductIndex.build(PRODUCTS[:20], model, "flat").save(tmp_path / "small")
    path = current_version(saved) / "texts.parquet"
    path.write_bytes((current_version(tmp_path / "small") / "texts.parquet").read_bytes())
    size = {"bytes": path.stat().st_size}
    rewrite_facts(path.parent / "index.json", lambda facts: facts["files"]["texts.parquet"].update(size))
    with pytest.raises(ValueError, match=r"texts\.parquet is damaged \(20 texts for 300 rows\): build the index again"):
        ProductIndex.load(saved, model, verify=False)


def test_texts_are_kept_in_an_array_of_any_size(saved, model):
    """More than 2 GiB of text overflow the offsets of a plain one; files of earlier versions hold that."""
    path = current_version(saved) / "texts.parquet"
    table = pq.read_table(path)
    pq.write_table(table.cast(pa.schema([("text", pa.string())])), path)
    size = {"bytes": path.stat().st_size}
    rewrite_facts(path.parent / "index.json", lambda facts: facts["files"]["texts.parquet"].update(size))
    index = ProductIndex.load(saved, model, verify=False)
    index.upsert([{"product_id": "new", "title": "quite another"}])
    assert {chunk.type for chunk in index.state.rows.texts.chunks()} == {pa.large_string()}
    assert index.texts(["p5", "new"]) == ["thing number 5", "quite another"]
    index.save(saved)
    assert pq.read_schema(current_version(saved) / "texts.parquet").field("text").type == pa.large_string()


def test_a_refresh_keeps_the_cache_and_loses_no_change(saved, model, tmp_path):
    reader, writer = ProductIndex.load(saved, model), ProductIndex.load(saved, model)
    reader.use_cache(tmp_path / "cache")
    writer.upsert(make_products(5, first=1000))
    writer.save(saved)
    assert reader.refresh()
    model.seen.clear()
    for _ in range(2):  # the second time from the cache
        reader.delete(["new"])
        assert reader.upsert([{"product_id": "new", "title": "kept in the cache"}]) == 1
    assert model.seen == ["kept in the cache"]
    writer.save(saved)
    with pytest.raises(ValueError, match="has a newer version, and this index changes that are not saved"):
        reader.refresh()
    assert reader.texts(["new"]) == ["kept in the cache"]


def test_a_refresh_refuses_what_is_no_longer_this_index(saved, model):
    reader = ProductIndex.load(saved, model)
    ProductIndex.build(PRODUCTS, HashModel("another"), "flat").save(saved)
    with pytest.raises(ValueError, match="this index was built with another"):
        reader.refresh()
    assert reader.search("thing number 17", 1)[0][0][0] == "p17"


def test_a_reader_between_two_saves_reads_the_new_version(saved, model, monkeypatch):
    """The version that it was about to open is removed under its hands."""
    writer = ProductIndex.load(saved, model)
    real, moved = ProductIndex._open.__func__, []

    def late(cls, folder, version, *rest):
        if not moved:
            moved.append(version)
            writer.upsert(make_products(1, first=2000))
            for _ in range(3):
                writer.save(saved)
            assert not version.exists()
        return real(cls, folder, version, *rest)

    monkeypatch.setattr(ProductIndex, "_open", classmethod(late))
    assert len(ProductIndex.load(saved, model)) == 301


def test_the_current_version_is_there_whoever_else_saves(saved, model, monkeypatch):
    """Another writer's two saves, begun between a version's name and `CURRENT`, would remove what that is to name."""
    ours, theirs = ProductIndex.load(saved, model), ProductIndex.load(saved, model)
    theirs.upsert(make_products(5, first=1000))
    real, lock, others, stopped = index_folder.write_whole, index_folder.fcntl.flock, [], threading.Event()

    def save_thrice():
        for _ in range(3):
            theirs.save(saved)
        stopped.set()

    def told(place, how):
        if threading.current_thread() in others:
            stopped.set()  # and waits, if it is locked
        lock(place, how)

    def slow(path, data):
        if not others:
            others.append(threading.Thread(target=save_thrice))
            others[0].start()
            stopped.wait(60)
        real(path, data)

    monkeypatch.setattr(index_folder.fcntl, "flock", told)
    monkeypatch.setattr(index_folder, "write_whole", slow)
    ours.save(saved)
    assert current_version(saved).is_dir()
    others[0].join()
    versions = sorted((saved / "versions").iterdir())
    assert current_version(saved) == versions[-1]
    assert len(versions) == 2
    assert len(ProductIndex.load(saved, model)) == 305


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from index_cases import HashModel, make_products
from rexbert_hf.retrieval.serving import index_state, product_rows
from rexbert_hf.retrieval.serving.index import ProductIndex
index = ProductIndex.load(sys.argv[1], HashModel())
print("ready", flush=True)
number = 5000
while True:
    index.upsert(make_products(20, first=number))
    index.save(sys.argv[1])
    number += 20
"""


def test_a_killed_save_leaves_a_whole_index(saved, model):
    """SIGKILL at a random moment of endless saving, while this process reads all the time."""
    wait = np.random.default_rng(int(os.environ.get("REXBERT_FAULTS_SEED") or 386)).uniform(0.3, 1.2)
    sizes = set()
    command = [sys.executable, "-c", WRITER, str(saved), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    end = time.monotonic() + wait
    while time.monotonic() < end or len(sizes) < 2:
        sizes.add(len(ProductIndex.load(saved, model, verify=True)))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    index = ProductIndex.load(saved, model, verify=True)
    sizes.add(len(index))
    assert len(index.search(QUERIES[:1], 10_000)[0]) == len(index)
    assert all((size - 300) % 20 == 0 for size in sizes)
    index.save(saved)
    assert not list((saved / "versions").glob(".staging-*"))  # what the killed one left is gone


def test_a_save_that_fails_changes_nothing(saved, model, monkeypatch):
    index = ProductIndex.load(saved, model)
    before = current_version(saved)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(index.state.codes), "save", full)
    with pytest.raises(OSError, match="No space left"):
        index.save(saved)
    assert current_version(saved) == before
    assert [path.name for path in (saved / "versions").iterdir()] == [before.name]
    assert len(ProductIndex.load(saved, model)) == 300


def test_a_copied_version_is_an_index(saved, model, tmp_path):
    """As a download from the Hub has it: no CURRENT, all files in one folder."""
    shutil.copytree(current_version(saved), tmp_path / "copy")
    assert answers(ProductIndex.load(tmp_path / "copy", model)) == answers(ProductIndex.load(saved, model))
