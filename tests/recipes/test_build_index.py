"""The recipes of serving: an index that is built, brought up to date and searched; an export that is measured."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rexbert_hf.catalog import load_sample
from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.serving import search_index
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, ProductSource, QdrantSettings, run_build_index
from rexbert_hf.settings import SettingsError, parse_args

ROOT = Path(__file__).parents[2]


def small_run(folder: Path, **options) -> BuildIndexRun:
    products = options.pop("products", ProductSource(sample_size=200))
    index = options.pop("index", IndexOptions(kind="flat"))
    return BuildIndexRun(products=products, output_dir=folder, index=index, **options)


def test_the_default_prints_searches(tmp_path):
    command = [sys.executable, str(ROOT / "recipes" / "build_index.py"), "--output_dir", str(tmp_path / "index")]
    done = subprocess.run([*command, "--products.sample_size", "300"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "300 products built" in done.stdout
    assert done.stdout.count("(hybrid, ") == 3
    run = json.loads((tmp_path / "index" / "run.json").read_text())
    assert run["results"]["products"] == run["results"]["encoded"] == 300
    assert run["config"]["model"] == "hashing"
    index = ProductIndex.load(tmp_path / "index")  # finds the model by its name
    assert index.search("lamp", 2)[0]


def test_again_it_encodes_what_has_changed(tmp_path):
    rows = [dict(row) for row in load_sample("products", size=200)]
    file = tmp_path / "shop.jsonl"

    def write(products):
        file.write_text(
            "".join(json.dumps({k: p[k] for k in ("product_id", "title", "brand")}) + "\n" for p in products)
        )

    write(rows)
    run = small_run(tmp_path / "index", products=ProductSource(path=str(file)), cache_dir=tmp_path / "cache")
    assert run_build_index(run)["encoded"] == 200
    changed = [dict(row, title=row["title"] + " new") if i < 2 else row for i, row in enumerate(rows[:198])]
    write([*changed, dict(rows[0], product_id="added", title="quite another")])
    results = run_build_index(run)
    assert (results["updated"], results["encoded"], results["deleted"], results["products"]) == (True, 3, 2, 199)
    assert ProductIndex.load(tmp_path / "index").search("quite another", 1)[0][0][0] == "added"
    run.index = IndexOptions(kind="flat", fields=["title", "brand"])
    results = run_build_index(run)  # other settings: all of it
    assert (results["updated"], results["encoded"]) == (False, 199)


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_the_type_that_texts_are_encoded_in_reaches_the_index(tmp_path, monkeypatch, backend):
    """When it is built and when it is brought up to date: it is no setting of the index, which may go on in another."""
    seen, encode = [], search_index.encode
    monkeypatch.setattr(
        search_index, "encode", lambda *args, bf16, **options: seen.append(bf16) or encode(*args, bf16=bf16, **options)
    )
    run = small_run(tmp_path / "index", products=ProductSource(sample_size=20), backend=backend)
    run.bf16 = True
    run_build_index(run)
    assert set(seen) == {True}
    seen.clear()
    run.bf16, run.products = False, ProductSource(sample_size=30)
    assert run_build_index(run)["updated"] is (backend == "faiss")
    assert set(seen) == {False}


def test_an_index_whose_push_fails_keeps_what_was_measured(tmp_path, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("no token")

    monkeypatch.setattr(ProductIndex, "push_to_hub", refused)
    with pytest.raises(PermissionError, match="no token"):
        run_build_index(small_run(tmp_path / "index", push_to_hub="tester/shop"))
    assert read_run(tmp_path / "index")["results"]["products"] == 200
    monkeypatch.setattr(ProductIndex, "push_to_hub", lambda *_, **__: "https://hub/tester/shop")
    results = run_build_index(small_run(tmp_path / "index", push_to_hub="tester/shop"))
    assert read_run(tmp_path / "index")["results"]["url"] == results["url"] == "https://hub/tester/shop"


def test_a_new_index_has_no_run_file_of_the_one_before(tmp_path):
    run_build_index(small_run(tmp_path / "index"))
    run = small_run(
        tmp_path / "index", products=ProductSource(sample_size=90), queries=["mug"], filter={"colour": "red"}
    )
    with pytest.raises(ValueError, match="no column 'colour'"):  # once the new one is saved
        run_build_index(run)
    assert len(ProductIndex.load(tmp_path / "index")) == 90
    assert not (tmp_path / "index" / "run.json").exists()


@pytest.mark.parametrize("name", ["index.faiss", "vectors.safetensors", "products.parquet", "texts.parquet"])
def test_a_damaged_index_that_is_too_large_to_hash_is_built_anew(tmp_path, monkeypatch, caplog, name):
    """Its message says to build it again, which is what this recipe does."""
    monkeypatch.setattr("rexbert_hf.retrieval.serving.index_folder.VERIFIED_BYTES", 10)
    run = small_run(tmp_path / "index", index=IndexOptions(kind="hnsw"))
    run_build_index(run)
    assert run_build_index(run)["updated"] is True
    path = current_version(tmp_path / "index") / name
    whole = path.read_bytes()
    half = min(len(whole) // 2, 4_096)
    path.write_bytes(b"\xff" * half + whole[half:])
    caplog.clear()
    results = run_build_index(run)
    assert (results["updated"], results["encoded"], results["products"]) == (False, 200, 200)
    (warning,) = [record.getMessage() for record in caplog.records if "built anew" in record.getMessage()]
    assert name in warning
    assert "\n" not in warning
    assert run_build_index(run)["updated"] is True


def test_a_damaged_index_hides_no_other_error(tmp_path, monkeypatch):
    """The index of a later version is whole: nothing is built over it."""
    run = small_run(tmp_path / "index")
    run_build_index(run)
    version = current_version(tmp_path / "index")
    rewrite = json.loads((version / "index.json").read_text()) | {"format": 99}
    rewrite.pop("crc32")
    (version / "index.json").write_text(json.dumps(rewrite))
    with pytest.raises(ValueError, match="written by a later rexbert-hf"):
        run_build_index(run)
    assert current_version(tmp_path / "index") == version


def test_vectors_that_a_killed_run_left_are_removed(tmp_path):
    folder = tmp_path / "index"
    run_build_index(small_run(folder))
    whole = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    left = folder / ".index-killed"
    left.mkdir()
    (left / "vectors.safetensors").write_bytes(bytes(8))
    run_build_index(small_run(folder))
    assert not left.exists()
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} >= whole


def test_columns_of_a_file_can_be_filtered_by(tmp_path):
    file = tmp_path / "shop.csv"
    file.write_text("id,name,cost,left\n1,red lamp,$5.00,yes\n2,blue lamp,$9.00,no\n3,lamp,$7.00,yes\n")
    columns = {"product_id": "id", "title": "name", "price": "cost", "in_stock": "left"}
    source = ProductSource(path=str(file), columns=columns)
    wanted = {"price": {"max": 8}, "in_stock": True}
    run = small_run(tmp_path / "index", products=source, queries=["lamp"], filter=wanted, k=5)
    results = run_build_index(run)
    assert [{hit["id"] for hit in search["hits"]} for search in results["searches"]] == [{"1", "3"}] * 3


def shop(path: Path, names: dict[str, str]) -> ProductSource:
    path.write_text("product_id,title\n" + "".join(f"{name},{title}\n" for name, title in names.items()))
    return ProductSource(path=str(path))


def test_rows_of_the_catalogue_do_not_stay(tmp_path):
    folder = tmp_path / "index"
    (folder / ".rows").mkdir(parents=True)  # of an earlier version
    (folder / ".rows" / "records-0.arrow").write_bytes(bytes(8))
    for title in ("red lamp", "blue lamp"):
        run_build_index(small_run(folder, products=shop(tmp_path / "shop.csv", {"a": title, "b": "chair"})))
    assert not list(folder.glob(".*rows*"))
    assert ProductIndex.load(folder).texts(["a"]) == ["blue lamp"]


def test_a_product_whose_title_is_gone_is_deleted(tmp_path):
    run_build_index(small_run(tmp_path, products=shop(tmp_path / "shop.csv", {"a": "lamp", "b": "chair"})))
    results = run_build_index(small_run(tmp_path, products=shop(tmp_path / "shop.csv", {"a": "lamp", "b": ""})))
    assert (results["updated"], results["deleted"], results["products"]) == (True, 1, 1)


@pytest.mark.parametrize("backend", ["faiss", "qdrant"])
def test_a_feed_without_any_text_leaves_the_index_as_it_is(tmp_path, monkeypatch, backend):
    server = QdrantSettings(url="http://qdrant.test") if backend == "qdrant" else QdrantSettings()
    if backend == "qdrant":
        keep_qdrant(monkeypatch)
    names = {"a": "lamp", "b": "chair"}
    run = small_run(tmp_path / "index", products=shop(tmp_path / "shop.csv", names), backend=backend, qdrant=server)
    run_build_index(run)
    before = (tmp_path / "index" / "CURRENT").read_text()
    shop(tmp_path / "shop.csv", dict.fromkeys(names, ""))
    with pytest.raises(ValueError, match="no product of the catalogue has any text: the index stays as it is") as error:
        run_build_index(run)
    assert "\n" not in str(error.value)
    assert (tmp_path / "index" / "CURRENT").read_text() == before
    assert sorted(ProductIndex.load(tmp_path / "index").ids()) == ["a", "b"]


def test_dead_rows_are_dropped_beside_the_index(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))  # a small one, in life
    for name in ("lamp", "chair"):
        names = {f"{name}{i}": f"{name} {i}" for i in range(5)}
        run_build_index(small_run(tmp_path / "index", products=shop(tmp_path / "shop.csv", names)))
    index = ProductIndex.load(tmp_path / "index")
    assert (len(index), index.dead_share) == (5, 0)


def keep_qdrant(monkeypatch) -> None:
    """A Qdrant that outlives its indexes, as a server does."""
    qdrant_client = pytest.importorskip("qdrant_client")
    client = qdrant_client.QdrantClient(location=":memory:")
    monkeypatch.setattr(qdrant_client, "QdrantClient", lambda **options: client)
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(client, "create_payload_index", lambda *args, **kwargs: None)


def test_qdrant(tmp_path, monkeypatch):
    keep_qdrant(monkeypatch)
    server = QdrantSettings(url="http://qdrant.test")
    run = small_run(tmp_path / "index", backend="qdrant", qdrant=server, queries=["lamp"], modes=["dense"])
    results = run_build_index(run)
    assert (results["products"], results["updated"]) == (200, False)
    assert len(results["searches"][0]["hits"]) == 3
    run.products.limit = 150
    results = run_build_index(run)
    assert (results["products"], results["updated"], results["encoded"], results["deleted"]) == (150, True, 0, 50)
    run.qdrant = QdrantSettings(url="http://qdrant.test", collection="others")
    assert run_build_index(run)["updated"] is False


def test_back_ends_may_take_turns_in_a_folder(tmp_path):
    pytest.importorskip("qdrant_client")
    for backend in ("qdrant", "faiss", "qdrant", "qdrant"):  # in memory: nothing to update
        results = run_build_index(small_run(tmp_path, backend=backend))
        assert (results["products"], results["updated"]) == (200, False)
    assert run_build_index(small_run(tmp_path, backend="faiss"))["updated"] is False
    assert run_build_index(small_run(tmp_path, backend="faiss"))["updated"] is True


def test_an_index_of_given_vectors_is_built_anew(tmp_path):
    products = [{"product_id": "a", "title": "lamp"}]
    ProductIndex.build(products, None, "flat", vectors=np.eye(1, 8, dtype=np.float32)).save(tmp_path)
    assert run_build_index(small_run(tmp_path))["updated"] is False


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--index.kind", "ivf"], "index.kind"),
        (["--index.oversample", "0.5"], "oversample must be at least 1"),
        (["--modes", "[fast]"], "modes: 'fast' is unknown"),
        (["--backend", "qdrant", "--push_to_hub", "user/index"], "an index in Qdrant stays there"),
    ],
)
def test_wrong_settings_are_one_line(words, message):
    with pytest.raises(SettingsError, match=message) as error:
        parse_args(BuildIndexRun, words, default_config=ROOT / "recipes" / "configs" / "build_index.yaml")
    assert "\n" not in str(error.value)


def test_wrong_paths_are_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        run_build_index(small_run(tmp_path, model=str(tmp_path / "none")))
    with pytest.raises(FileNotFoundError, match=r"none\.csv"):
        run_build_index(small_run(tmp_path, products=ProductSource(path=str(tmp_path / "none.csv"))))
    file = tmp_path / "shop.csv"
    file.write_text("id,title\n1,lamp\n")
    with pytest.raises(ValueError, match=r"no column .product_id.: map it with products\.columns"):
        run_build_index(small_run(tmp_path, products=ProductSource(path=str(file))))


def refuse(error):
    def failing(*args, **options):
        raise error

    return failing


@pytest.mark.parametrize(
    ("kind", "where", "error", "told"),
    [
        ("hnsw", "faiss.read_index", RuntimeError("could not open x: Too many open files"), "Too many open"),
        ("hnsw", "faiss.read_index", MemoryError("std::bad_alloc"), r"index\.faiss: no memory to read its"),
        ("binary", "rexbert_hf.retrieval.serving.codes.safe_open", FileNotFoundError("No such file"), "is there and"),
        ("flat", "bm25s.BM25.load", OSError(errno.EMFILE, "Too many open files", "x"), "Too many open files"),
        ("flat", "pyarrow.parquet.ParquetFile.read", pa.ArrowMemoryError("malloc of size 8 failed"), "malloc of size"),
    ],
)
def test_an_error_of_the_system_replaces_no_index(tmp_path, monkeypatch, kind, where, error, told):
    """Files and memory were short for a moment: the whole catalogue was encoded anew."""
    run = small_run(tmp_path / "index", index=IndexOptions(kind=kind, lexical=True))
    run_build_index(run)
    before = current_version(tmp_path / "index")
    with monkeypatch.context() as short:
        short.setattr(where, refuse(error))
        with pytest.raises((OSError, MemoryError), match=told) as caught:
            run_build_index(run)
    assert "\n" not in str(caught.value)
    assert current_version(tmp_path / "index") == before
    assert run_build_index(run)["updated"] is True
