"""Texts of an index: on disk while it is built, in groups where it is saved, in memory only when somebody asks."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from index_cases import HashModel, make_products

from rexbert_hf.retrieval.serving import filters, product_rows, text_column
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import DamagedIndexError, current_version
from rexbert_hf.retrieval.serving.text_column import TextColumn

LONG = 4_000
COUNT = 1_500
ALL_BYTES = LONG * COUNT


def long_products():
    return ({"product_id": f"p{i}", "title": f"{i} ".ljust(LONG, "x")} for i in range(COUNT))


def test_no_step_of_a_build_holds_all_texts(tmp_path, monkeypatch):
    """They lie in a mapped file; a save and a compaction copy them group by group."""
    monkeypatch.setattr(product_rows, "BATCH_PRODUCTS", 100)
    monkeypatch.setattr(text_column, "GROUP_BYTES", 10 * LONG)
    monkeypatch.setattr(text_column, "COPY_ROWS", 100)
    held, real = [], pq.ParquetWriter.write_table
    before = pa.total_allocated_bytes()

    def counting(writer, table, *rest, **options):
        held.append(pa.total_allocated_bytes() - before)
        return real(writer, table, *rest, **options)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", counting)
    index = ProductIndex.build(long_products(), HashModel(), "flat", work_dir=tmp_path)
    held.append(pa.total_allocated_bytes() - before)
    index.save(tmp_path / "index")
    held.append(pa.total_allocated_bytes() - before)
    index.delete([f"p{i}" for i in range(0, COUNT, 2)])
    index.compact(tmp_path)
    held.append(pa.total_allocated_bytes() - before)
    index.save(tmp_path / "index")
    assert len(held) > 2 * ALL_BYTES // (100 * LONG)  # the groups, in hundreds
    assert max(held) < ALL_BYTES / 3
    assert not list(tmp_path.glob(".index-*"))
    wanted = [f"{i} ".ljust(LONG, "x") for i in (1_499, 1, 77)]
    for found in (index, ProductIndex.load(tmp_path / "index", HashModel())):
        assert found.texts(["p1499", "p2", "p1", "p77"]) == [wanted[0], None, *wanted[1:]]


def test_an_index_is_changed_whose_texts_lie_on_disk(tmp_path):
    index = ProductIndex.build(make_products(50), HashModel(), "flat", lexical=True, work_dir=tmp_path)
    index.upsert([{"product_id": "p3", "title": "quite another"}, *make_products(3, first=900)])
    names = ["p901", "p3", "p4", "none", "p49"]
    texts = ["thing number 901", "quite another", "thing number 4", None, "thing number 49"]
    assert index.texts(names) == texts
    assert index.search("another", 2, mode="lexical")[0][0][0] == "p3"
    index.save(tmp_path / "index")
    index.upsert([{"product_id": "p4", "title": "new"}])  # before the saved ones were asked for
    again = ProductIndex.load(tmp_path / "index", HashModel())
    again.upsert([{"product_id": "p4", "title": "new"}])
    again.save(tmp_path / "copy")  # nor here
    texts[2] = "new"
    assert index.texts(names) == again.texts(names) == texts
    assert ProductIndex.load(tmp_path / "copy", HashModel()).texts(names) == texts


def test_damage_that_a_save_meets_is_named(tmp_path):
    """Texts that nobody has asked for are read when they are copied."""
    ProductIndex.build(long_products(), HashModel(), "flat").save(tmp_path / "index")
    path = current_version(tmp_path / "index") / "texts.parquet"
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * 64 + whole[164:])
    index = ProductIndex.load(tmp_path / "index", HashModel(), verify=False)
    with pytest.raises(DamagedIndexError, match=r"texts\.parquet is damaged \([^\n]*\): build the index again$"):
        index.save(tmp_path / "copy")
    assert not (tmp_path / "copy" / "CURRENT").exists()


def test_texts_are_found_in_any_order_wherever_they_lie(tmp_path):
    rng = np.random.default_rng(0)
    column, texts = TextColumn(tmp_path / "texts.arrow"), []
    for turn in range(40):
        if turn == 20:
            column.settle()
        new = [f"text {i}" for i in range(len(texts), len(texts) + int(rng.integers(0, 5)))]
        column.append(new)
        texts += new
    assert len(column) == len(texts)
    rows = rng.integers(0, len(texts), 300)
    assert column.take(rows) == [texts[row] for row in rows]
    assert column.take(np.zeros(0, np.int64)) == []
    assert [text for chunk in column.chunks() for text in chunk.to_pylist()] == texts
    assert len(list(column.chunks())) <= 20 + 6  # written ones as they are, later ones joined
    column.save(tmp_path)
    assert pq.read_table(tmp_path / "texts.parquet").column("text").to_pylist() == texts
    assert pq.ParquetFile(tmp_path / "texts.parquet").num_row_groups == 1


def test_texts_are_there_while_they_are_saved(tmp_path, monkeypatch):
    """A server that saved or pushed its index answered nobody meanwhile."""
    monkeypatch.setattr(text_column, "COPY_ROWS", 20)
    products = make_products(100)
    ProductIndex.build(products, HashModel(), "flat").save(tmp_path)
    index = ProductIndex.load(tmp_path, HashModel())
    index.upsert([{"product_id": "new", "title": "a new one"}])
    parts = index.state.rows.texts.chunks()
    found = next(parts).to_pylist()
    asked = threading.Thread(target=lambda: found.append(index.texts(["p5", "new"])), daemon=True)
    asked.start()
    asked.join(20)
    assert not asked.is_alive()
    assert found.pop() == ["thing number 5", "a new one"]
    found += [text for part in parts for text in part.to_pylist()]
    assert found == [product["title"] for product in products] + ["a new one"]


def test_fields_that_no_product_has_are_refused_when_an_index_is_built():
    rows = [{"product_id": f"p{n}", "name": f"thing {n}", "brand": "Acme", "description": "of tin"} for n in range(3)]
    for fields in (["title"], ["titel", "brnad"]):
        with pytest.raises(ValueError, match="all 3 products have none of the index's fields") as error:
            ProductIndex.build(rows, HashModel(), "flat", fields=fields)
        told = str(error.value)
        assert f"({', '.join(fields)}); the first has name, brand, description: " in told
        assert "\n" not in told
    index = ProductIndex.build(rows, HashModel(), "flat", fields=["name", "brand"])
    assert index.texts(["p1"]) == ["thing 1 . Acme"]
    # With vectors given nothing is encoded: the texts are for BM25 alone.
    assert len(ProductIndex.build(rows, None, "flat", vectors=np.eye(3, dtype=np.float32))) == 3


def test_a_first_batch_without_the_fields_is_told_of_before_anything_is_encoded(monkeypatch, caplog):
    class Encoding(HashModel):
        def encode(self, texts, **options):
            if "Acme" in texts:
                told.append(caplog.text.count("have none of the index's fields"))
            return super().encode(texts, **options)

    monkeypatch.setattr(product_rows, "BATCH_PRODUCTS", 3)
    told, rows = [], [{"product_id": f"p{n}", "name": f"thing {n}", "brand": "Acme"} for n in range(7)]
    with pytest.raises(ValueError, match="all 7 products have none of the index's fields"):
        ProductIndex.build(rows, Encoding(), "flat")
    assert set(told) == {1}
    so_far = "all 3 products so far have none of the index's fields (title); the first has name, brand: name some"
    assert so_far in caplog.text
    caplog.clear()
    ProductIndex.build([*rows[:2], {"product_id": "p9", "title": "mug"}, *rows[3:]], HashModel(), "flat")
    assert "so far" not in caplog.text


def test_products_without_the_fields_of_an_index_are_counted_once(caplog):
    rows = [{"product_id": f"p{n}", "title": f"thing {n}"} for n in range(3)]
    index = ProductIndex.build([*rows, {"product_id": "p9", "brand": "Acme"}], HashModel(), "flat")
    assert caplog.text.count("1 products of 4 have none of the index's fields (title): all else that they have") == 1
    caplog.clear()
    index.upsert([{"product_id": "p8", "brand": "Bolt"}])  # an upsert of a few may be of none but such
    assert "1 products of 1 have none of the index's fields (title)" in caplog.text
    assert index.texts(["p8", "p9"]) == ["Bolt", "Acme"]
    caplog.clear()
    index.upsert(rows)
    assert "none of the index's fields" not in caplog.text


def test_a_column_that_no_index_looks_at_may_hold_what_is_no_text():
    class Image:
        def __bool__(self):
            raise RuntimeError("ambiguous")

    others = {"crops": {(1, 2): 3}, "image": Image(), "price": 3, "sku": " ", "category_path": ["Home", "Mugs"]}
    row = {"product_id": "p1", "maker": "Bolt", **others, "brand": "Acme"}
    index = ProductIndex.build([{"product_id": "p0", "title": "mug"}, row], HashModel(), "flat")
    assert index.texts(["p1"]) == ["Acme . Home > Mugs"]
    with pytest.raises(ValueError, match="; the first has maker, category_path, brand: name some of these"):
        ProductIndex.build([row], HashModel(), "flat")


def test_ids_of_a_column_with_a_gap_are_those_of_the_index():
    frame = [{"product_id": float(n), "title": f"thing {n}", "brand": "Acme"} for n in range(100_001, 100_005)]
    index = ProductIndex.build(frame, HashModel(), "flat")
    assert index.ids()[0] == "100001"
    assert index.texts([100_001.0, 100_002, "100003"]) == ["thing 100001", "thing 100002", "thing 100003"]
    assert index.facts([100_001.0, 100_009.0]) == [{"brand": "Acme"}, {}]
    assert index.delete([100_001.0, np.int64(100_002), "100003", None, float("nan")]) == 3
    assert index.ids() == ["100004"]


def test_a_list_of_two_prices_is_no_range_and_says_so_once(caplog):
    filters._tell_of_ranges.cache_clear()
    rows = [{"product_id": f"p{n}", "title": f"thing {n}", "price": n, "in_stock": True} for n in range(5)]
    index = ProductIndex.build(rows, HashModel(), "flat")
    for _ in range(2):
        assert [name for name, _ in index.search("thing", 5, filter={"price": [1, 9]})[0]] == ["p1"]
    assert caplog.text.count("a list is these prices alone; a range is a tuple, or {'min': .., 'max': ..} in JSON") == 1
    assert len(index.search("thing", 5, filter={"price": {"min": 1, "max": 9}})[0]) == 4
    with pytest.raises(ValueError, match="filter in_stock: the column holds True and False, not 'yes'"):
        index.search("thing", 5, filter={"in_stock": "yes"})
