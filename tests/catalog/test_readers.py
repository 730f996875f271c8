from __future__ import annotations

import gzip
import io
import json
import os
import time
import zipfile
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value

from rexbert_hf.catalog import RECORDS, ReadReport, load_sample, read_label, read_records, record_types
from rexbert_hf.catalog.formats import _json_rows, rows_of
from rexbert_hf.catalog.sources import Source

ROWS = [
    {"uid": "7", "title": 'Pan, 24 cm "Ember"', "note": "caf\u00e9"},
    {"uid": "8", "title": "Two\nlines", "note": ""},
    {"uid": "9", "title": "Mug", "note": "blue"},
]
CSV = 'uid,title,note\n7,"Pan, 24 cm ""Ember""",caf\u00e9\n8,"Two\nlines",\n9,Mug,blue\n'
JSON_LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def write(path: Path, content: str | bytes) -> Path:
    """A file as its suffix says: .gz packed, and .zip with one member named as the file without .zip."""
    data = content.encode() if isinstance(content, str) else content
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(data))
    elif path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(path.stem, data)
    else:
        path.write_bytes(data)
    return path


def parquet_bytes(rows) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("packing", ["", ".gz", ".zip"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("shop.csv", CSV),
        ("shop.jsonl", JSON_LINES),
        ("shop.json", json.dumps(ROWS, indent=1)),
        ("shop.parquet", parquet_bytes(ROWS)),
    ],
)
def test_each_format_plain_and_packed(tmp_path, name, content, packing):
    path = write(tmp_path / (name + packing), content)
    assert read_records(path).to_list() == ROWS


def test_tsv_takes_quotes_literally(tmp_path):
    path = write(tmp_path / "pairs.tsv", 'q\tp\n5" pipe\t"a"\nx\t"\n')
    assert read_records(path).to_list() == [{"q": '5" pipe', "p": '"a"'}, {"q": "x", "p": '"'}]
    quoted = write(tmp_path / "quoted.tsv", 'q\tp\n"a\tb"\tc\n')
    assert read_records(quoted, quotechar='"').to_list() == [{"q": "a\tb", "p": "c"}]


def test_text_is_one_document_a_line(tmp_path):
    # Only \n ends a document: \u2028, form feeds and lone carriage returns occur inside real ones.
    path = write(tmp_path / "docs.txt", "first\u2028still first\r\n\n  \nsecond\rsame\x0csame\nlast")
    report = ReadReport()
    rows = read_records(path, report=report)
    assert rows["text"][:] == ["first\u2028still first", "second\rsame\x0csame", "last"]
    assert (report.rows, report.empty, report.bad) == (3, 2, 0)


def test_columns_are_renamed_joined_and_filled_in(tmp_path):
    path = write(tmp_path / "shop.csv", CSV)
    mapping = {"product_id": "uid", "text": ["title", "note"], "line": "{title} ({note}), {{{uid}}}"}
    assert read_records(path, mapping).to_list()[1:] == [
        {"product_id": "8", "text": "Two\nlines", "line": "Two\nlines (), {8}"},
        {"product_id": "9", "text": "Mug . blue", "line": "Mug (blue), {9}"},
    ]


def test_templates_look_up_names_and_nothing_else(tmp_path):
    path = write(tmp_path / "odd.csv", "a:b,c.real,d!r\n1,2,3\n")
    assert read_records(path, {"text": "{a:b}-{c.real}-{d!r}"})["text"][:] == ["1-2-3"]
    with pytest.raises(ValueError, match=r"no column 'a:b\.__class__'"):
        read_records(path, {"text": "{a:b.__class__}"})


def test_features_give_types_lists_and_nulls(tmp_path):
    path = write(
        tmp_path / "pairs.csv", 'q,id,grade,day,ok,ids,l1,l2\nred mug,7, 2.5 ,2026-01-02,yes,"[1, 2]",a,b\nx,,,,,,c,\n'
    )
    features = Features(
        {
            "query": Value("string"), "n": Value("int64"), "relevance": Value("float32"),
            "time": Value("timestamp[ms]"), "ok": Value("bool"), "ids": List(Value("int64")),
            "path": List(Value("string")), "more": Value("string"),
        }
    )  # fmt: skip
    names = {"query": "q", "n": "id", "relevance": "grade", "time": "day", "ok": "ok", "ids": "ids"}
    rows = read_records(path, names | {"path": ["l1", "l2"]}, features=features)
    assert rows.features == features
    assert rows.to_list() == [
        {"query": "red mug", "n": 7, "relevance": 2.5, "time": datetime(2026, 1, 2), "ok": True, "ids": [1, 2],
         "path": ["a", "b"], "more": None},
        {"query": "x", "n": None, "relevance": None, "time": None, "ok": None, "ids": None, "path": ["c"],
         "more": None},
    ]  # fmt: skip


def test_records_come_back_from_json_lines(tmp_path):
    for kind in ("products", "query_products", "reviews", "questions"):
        rows = load_sample(kind, size=5)
        path = tmp_path / f"{kind}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        back = read_records(path, features=RECORDS[kind])
        assert back.features == RECORDS[kind]
        assert back.to_list() == rows.to_list()


def test_json_values_become_text_without_features(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"a": 1, "b": ["x"], "c": true}\n{"a": "z", "b": {"k": "\u00e9"}}\n')
    assert read_records(path).to_list() == [
        {"a": "1", "b": '["x"]', "c": "True"},
        {"a": "z", "b": '{"k": "\u00e9"}', "c": ""},
    ]


def test_zst_is_read_like_gz(tmp_path):
    body = b'{"text": "a"}\n{"text": "b"}\n'
    table = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": ["a", "b"]}), table)
    contents = {"1.jsonl": body, "2.csv": b"text\na\nb\n", "3.parquet": table.getvalue().to_pybytes()}
    with zipfile.ZipFile(tmp_path / "4.zip", "w") as archive:
        for name, content in contents.items():
            packed = pa.compress(content, "zstd", asbytes=True)
            (tmp_path / f"{name}.zst").write_bytes(packed)
            archive.writestr(f"{name}.zst", packed)
    report = ReadReport()
    assert read_records(tmp_path, {"text": "text"}, report=report)["text"][:] == ["a", "b"] * 6
    assert len(report.files) == 6
    (tmp_path / "cut.jsonl.zst").write_bytes(pa.compress(body * 5_000, "zstd", asbytes=True)[:-20])
    with pytest.raises(ValueError, match=r"cut\.jsonl\.zst: cannot be read \(.*fetch or write it again$"):
        read_records(tmp_path / "cut.jsonl.zst")


def test_columns_of_json_are_those_of_many_objects(tmp_path, caplog):
    lines = [json.dumps({"id": i, "title": f"Mug {i}"} | ({"colour": "red"} if i == 3 else {})) for i in range(1_200)]
    path = write(tmp_path / "a.jsonl", "\n".join([*lines, '{"id": 9, "title": "Cup", "late": 1, "later": 2}']))
    rows = read_records(path)
    assert rows.column_names == ["id", "title", "colour"]
    assert rows["colour"][:5] == ["", "", "", "red", ""]
    assert len(rows) == 1_201
    assert caplog.messages == [
        f"{path} row 1201: no earlier row has 'late', 'later', which is left out; name the columns to keep"
    ]
    other = write(tmp_path / "b.jsonl", '{"id": 7, "title": "Pot"}\n')  # what some objects lack, a file may lack
    assert read_records([path, other])["title"][-1] == "Pot"
    nameless = write(tmp_path / "c.jsonl", '{"id": 7, "colour": "blue"}\n')
    with pytest.raises(ValueError, match=r"c\.jsonl: no column 'title'; it has id, colour: correct the column mapping"):
        read_records([path, nameless])


def test_a_key_that_only_a_later_file_has_is_told(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text('{"id": 1, "title": "Mug"}\n')
    (tmp_path / "b.jsonl").write_text('{"id": 2, "title": "Pan", "brand": "Ostwick"}\n')
    assert read_records(tmp_path).column_names == ["id", "title"]
    assert "b.jsonl row 1: no earlier row has 'brand', which is left out" in caplog.text
    caplog.clear()
    read_records(tmp_path, {"title": "title"})
    assert caplog.text == ""


@pytest.mark.parametrize("form", ["jsonl", "csv", "parquet"])
def test_a_column_that_all_later_files_have_is_told_once(tmp_path, caplog, form):
    for number, columns in enumerate((["id"], ["id", "brand"], ["id", "brand"], ["id", "brand", "size"])):
        path, row = tmp_path / f"{number}.{form}", dict.fromkeys(columns, "x")
        if form == "parquet":
            pq.write_table(pa.Table.from_pylist([row]), path)
        else:
            write(path, json.dumps(row) if form == "jsonl" else ",".join(columns) + "\n" + ",".join(row.values()))
    assert read_records(tmp_path).column_names == ["id"]
    where, unit = (" row 1", "row") if form == "jsonl" else ("", "file")
    assert caplog.messages == [
        f"{tmp_path / f'{number}.{form}'}{where}: no earlier {unit} has {name}, which is left out; name the columns to "
        "keep"
        for number, name in ((1, "'brand'"), (3, "'size'"))
    ]
    caplog.clear()
    read_records(tmp_path, {"id": "id"})
    assert caplog.messages == []


def test_json_array_larger_than_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.formats._CHUNK", 7)
    rows = [{"id": str(i), "text": 'a "]" , [{' * (i % 5)} for i in range(40)]
    rows[17]["text"] = "long " * 500
    path = write(tmp_path / "a.json", "\n [" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    assert read_records(path).to_list() == rows


def test_array_on_one_line_is_read_in_pieces(tmp_path, monkeypatch):
    """Neither the line nor what was read before is held: what waits is a chunk and the item at its end."""
    monkeypatch.setattr("rexbert_hf.catalog.formats._CHUNK", 1_000)
    rows = [{"id": i, "text": "x" * (5_000 if i == 3 else 20)} for i in range(2_000)]
    path = write(tmp_path / "a.json", json.dumps(rows))
    read: list[int] = []

    class Watched(io.TextIOWrapper):
        def read(self, size=-1):
            read.append(size)
            return super().read(size)

        def readline(self, *size):
            raise AssertionError("the file is one line")

    with Watched(path.open("rb")) as text:
        found = _json_rows(Source("a.json", "json", path.open), text)
        assert [row["id"] for _, row in found.rows] == list(range(2_000))
    assert max(read) <= 8_000  # doubled for the long item
    assert read[-5:] == [1_000] * 5  # and small again after it


def test_parquet_keeps_its_types(tmp_path):
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "name": pa.array(["a", None], pa.large_string()),
            "kind": pa.array(["x", "x"]).dictionary_encode(),
            "tags": pa.array([["u"], None]),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    rows = read_records(tmp_path / "a.parquet")
    assert rows.features == Features(
        {"id": Value("int32"), "name": Value("string"), "kind": Value("string"), "tags": List(Value("string"))}
    )
    assert rows.to_list()[0] == {"id": 1, "name": "a", "kind": "x", "tags": ["u"]}
    assert read_records(tmp_path / "a.parquet", {"t": "{name} {id}"})["t"][:] == ["a 1", "2"]


def test_identifiers_keep_their_form_whatever_stores_them(tmp_path):
    """pandas turns integers with a gap into floats, and some writers store text as bytes."""
    table = pa.table(
        {"id": pa.array([12345.0, None, 2.5]), "name": pa.array([b"Red mug", b"Caf\xc3\xa9", None], pa.binary())}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    features = Features({"product_id": Value("string"), "title": Value("string")})
    rows = read_records(tmp_path / "a.parquet", {"product_id": "id", "title": "name"}, features=features)
    assert rows["product_id"][:] == ["12345", None, "2.5"]
    assert rows["title"][:] == ["Red mug", "Caf\u00e9", None]
    assert read_records(tmp_path / "a.parquet", {"text": "{id}: {name}"})["text"][0] == "12345: Red mug"
    assert read_records(tmp_path / "a.parquet", {"text": "name"})["text"][:2] == ["Red mug", "Caf\u00e9"]
    assert read_records(tmp_path / "a.parquet")["name"][0] == b"Red mug"  # nobody said that it is text


def test_nan_is_no_value(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"title": "Mug", "note": NaN}\n{"title": NaN, "note": NaN}\n')
    report = ReadReport()
    assert read_records(path, {"text": ["title", "note"]}, report=report)["text"][:] == ["Mug"]
    assert report.empty == 1
    features = Features({"note": Value("string"), "title": Value("string")})
    assert read_records(path, features=features)[0] == {"note": None, "title": "Mug"}


def test_nan_is_an_empty_field_of_numbers_too(tmp_path):
    path = write(tmp_path / "a.jsonl", '{"id": 1, "count": 2.0}\n{"id": 2, "count": NaN}\n')
    report = ReadReport()
    features = Features({"id": Value("int64"), "count": Value("int32")})
    assert read_records(path, features=features, report=report)["count"][:] == [2, None]
    assert report.bad == 0


@pytest.mark.parametrize("narrow", [np.float16, np.float32])
def test_short_floats_are_written_as_they_were_meant(tmp_path, monkeypatch, narrow):
    table = pa.table({"title": ["Mug", "Pot", "Cup"], "price": pa.array([narrow(19.99), None, narrow(3)])})
    shown = "19.98" if narrow is np.float16 else "19.99"  # half precision has no 19.99
    pq.write_table(table, tmp_path / "a.parquet")
    monkeypatch.setattr("rexbert_hf.catalog.readers.load_dataset", lambda *_, **__: Dataset(table))
    for source in (tmp_path / "a.parquet", "shop/offers"):
        assert read_records(source, {"text": "{title} {price}"})["text"][:] == [f"Mug {shown}", "Pot", "Cup 3"]
        kept = read_records(source)
        assert kept.data.column("price").to_pylist() == table["price"].to_pylist()


def test_short_floats_within_lists_maps_and_structs_are_written_as_they_were_meant(tmp_path):
    number = pa.float32()
    table = pa.table(
        {
            "sizes": pa.array([[19.99, None], None], pa.list_(number)),
            "specs": pa.array([[("watts", 19.99), ("volts", None)], []], pa.map_(pa.string(), number)),
            "box": pa.array(
                [{"w": 0.1, "d": 0.1, "n": "x"}, None], pa.struct({"w": number, "d": pa.float64(), "n": pa.string()})
            ),
            "all": pa.array([[{"w": [0.3]}], []], pa.list_(pa.struct({"w": pa.list_(number)}))),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    read = read_records(tmp_path / "a.parquet", {name: f"{{{name}}}" for name in table.column_names})
    assert read[0] == {
        "sizes": "[19.99, null]",
        "specs": '[["watts", 19.99], ["volts", null]]',
        "box": '{"w": 0.1, "d": 0.1, "n": "x"}',
        "all": '[{"w": [0.3]}]',
    }


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 2), pa.list_view(pa.float32())],
    ids=str,
)
def test_vectors_are_made_short_without_a_call_for_each_number(monkeypatch, kind):
    """A column of 384 numbers a row took six times as long as the rest of the file."""
    monkeypatch.setattr("rexbert_hf.catalog.formats.np.float32", None)
    column = pa.array([[0.5, 0.5], [19.99, None], None, [float("inf"), 1e-45]], kind)
    table = pa.table({"id": [0, 1, 2, 3], "vector": column, "name": ["z", "a", "b", "c"]})
    rows = [
        {"id": 1, "vector": [19.99, None], "name": "a"},
        {"id": 2, "vector": None, "name": "b"},
        {"id": 3, "vector": [float("inf"), 1e-45], "name": "c"},
    ]
    assert rows_of(table.slice(1)) == rows
    assert rows_of(pa.concat_tables([table.slice(1, 1), table.slice(2)])) == rows
    assert rows_of(table.to_batches()[0].slice(1)) == rows
    assert rows_of(table.slice(0, 0)) == []


def test_a_parquet_file_with_a_map_is_read_without_a_mapping(tmp_path):
    specs = pa.array([[("colour", "red")], None], pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"title": ["Mug", "Pan"], "specs": specs}), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet").to_list() == [
        {"title": "Mug", "specs": '[["colour", "red"]]'},
        {"title": "Pan", "specs": ""},
    ]


def test_whole_numbers_that_pandas_wrote_with_a_point(tmp_path):
    rows = "mug,3.0\npan,\npot,-2.00\nlid,2.5\ncup,12345678901234567.0\njar,1.000\nbin,5.0000\nbox,1234.000\n"
    path = write(tmp_path / "q.csv", "query,frequency\n" + rows)
    report = ReadReport()
    mapping = {"query": "query", "frequency": "frequency"}
    read = read_records(path, mapping, features=RECORDS["queries"], report=report, max_bad_share=0.5)
    assert read["frequency"][:] == [3, None, -2, 12345678901234567, 5, 1234]
    assert report.bad == 2
    assert "'2.5'" in report.reasons[0]
    assert "'1.000'" in report.reasons[1]  # a thousand, where thousands have points


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_byte_order_marks(tmp_path, encoding):
    for name in ("a.csv", "a.jsonl", "a.txt"):
        content = {"a.csv": "text\ncaf\u00e9\n", "a.jsonl": '{"text": "caf\u00e9"}\n', "a.txt": "caf\u00e9\n"}[name]
        path = write(tmp_path / name, content.encode(encoding))
        told = "utf-8" if encoding == "utf-8-sig" else encoding
        assert read_records(path, encoding=told)["text"][:] == ["caf\u00e9"]


def test_header_delimiter_and_format_can_be_told(tmp_path):
    path = write(tmp_path / "offers.dat", "1;Mug\n2;Pan\n")
    rows = read_records(path, {"title": "name"}, format="csv", delimiter=";", header=["id", "name"])
    assert rows["title"][:] == ["Mug", "Pan"]


def test_long_fields_are_fine(tmp_path):
    path = write(tmp_path / "a.csv", f'id,text\n1,"{"x" * 300_000}"\n')
    assert len(read_records(path)[0]["text"]) == 300_000


def test_folders_globs_and_lists(tmp_path):
    folder = tmp_path / "many"
    (folder / "sub").mkdir(parents=True)
    write(folder / "b.txt", "b\n")
    write(folder / "sub" / "a.txt.gz", "a\n")
    write(folder / "c.zip", b"")
    with zipfile.ZipFile(folder / "c.zip", "w") as archive:
        archive.writestr("../../escape.txt", "c\n")
        archive.writestr("inner.txt.gz", gzip.compress(b"d\n"))
        archive.writestr("README", "not data")
        archive.writestr("__MACOSX/._x.txt", "not data")
    write(folder / ".hidden.txt", "no\n")
    write(folder / "notes.pdf", "no\n")
    report = ReadReport()
    assert read_records(folder, report=report)["text"][:] == ["b", "c", "d", "a"]
    assert len(report.files) == 4
    assert not (tmp_path.parent / "escape.txt").exists()
    assert sorted(path.name for path in folder.iterdir()) == [".hidden.txt", "b.txt", "c.zip", "notes.pdf", "sub"]
    assert read_records(str(tmp_path / "**" / "*.txt*"))["text"][:] == ["b", "a"]
    assert read_records([folder / "sub", folder / "b.txt"])["text"][:] == ["a", "b"]


def test_a_told_format_reads_files_of_a_folder_without_a_suffix(tmp_path):
    for name in ("part-00000", "month=1/part-00001", "_SUCCESS", ".part-00000.crc", "_log/0", "_c.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, json.dumps({"text": name}) + "\n")
    read = read_records(tmp_path, format="json")["text"][:]
    assert read == ["_c.jsonl", "month=1/part-00001", "part-00000"]
    assert read_records(tmp_path)["text"][:] == ["_c.jsonl"]


@pytest.mark.parametrize("name", ["README.md", "old.jsonl.bz2", "shop.PNG", "sub/notes.doc.gz"])
def test_a_told_format_leaves_foreign_files_of_a_folder_alone(tmp_path, name):
    write(tmp_path / "a.jsonl", '{"text": "a"}\n')
    (tmp_path / "part-0.gz").write_bytes(gzip.compress(b'{"text": "b"}\n'))
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"# no row\n")
    assert read_records(tmp_path, format="json")["text"][:] == ["a", "b"]


def test_names_with_brackets_are_files_first(tmp_path):
    path = write(tmp_path / "a[1].txt", "x\n")
    assert read_records(path)["text"][:] == ["x"]


def test_several_batches_keep_the_order_and_limit_stops(tmp_path):
    texts = [f"row {i}" for i in range(3_456)]
    path = write(tmp_path / "a.txt", "\n".join(texts))
    assert read_records(path)["text"][:] == texts
    for limit in (1, 1_000, 1_001, 3_456, 9_999):
        report = ReadReport()
        assert read_records(path, limit=limit, report=report)["text"][:] == texts[:limit]
        assert report.rows == min(limit, 3_456)


def test_cache_dir_maps_one_file_of_equal_rows_and_leaves_nothing_behind_on_failure(tmp_path):
    path = write(tmp_path / "shop.csv", CSV)
    rows = read_records(path, cache_dir=tmp_path / "cache")
    assert rows.to_list() == ROWS
    assert [Path(file["filename"]).parent for file in rows.cache_files] == [tmp_path / "cache"]
    (kept,) = (tmp_path / "cache").iterdir()
    written = kept.stat()
    again = read_records(path, cache_dir=tmp_path / "cache")
    assert (kept.stat().st_ino, kept.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)  # it is mapped
    assert again._fingerprint == rows._fingerprint
    assert again.cache_files == rows.cache_files
    assert again.to_list() == rows.to_list() == ROWS
    assert len(list((tmp_path / "cache").iterdir())) == 1
    del again, rows
    kept.write_bytes(b"cut")  # by a power cut
    assert read_records(path, cache_dir=tmp_path / "cache").to_list() == ROWS
    rows = read_records(path, cache_dir=tmp_path / "cache")
    other = read_records(path, {"title": "uid"}, cache_dir=tmp_path / "cache")
    assert other._fingerprint != rows._fingerprint
    bad = write(tmp_path / "bad.txt", "good\n" * 1_500 + "\0\n" * 1_500)
    with pytest.raises(ValueError, match="rows are bad"):
        read_records(bad, cache_dir=tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []


def test_what_a_killed_reading_left_in_cache_dir_goes_after_a_day(tmp_path):
    path = write(tmp_path / "shop.csv", CSV)
    cache = tmp_path / "cache"
    cache.mkdir()
    old, young = cache / "records-old.partial", cache / "records-young.partial"
    for left in (old, young):
        left.write_bytes(b"half")
    stays = cache / "records-0.partial"  # as another user's file in a shared folder: it cannot be removed
    stays.mkdir()
    day_ago = time.time() - 25 * 3_600
    for left in (stays, old):
        os.utime(left, (day_ago, day_ago))
    read_records(path, cache_dir=cache)
    assert not old.exists()
    assert young.exists()  # somebody may be writing it


@pytest.fixture
def hub(monkeypatch):
    """A Hub of one data set; tests against real HTTP live in tests/hub."""
    calls = []

    def load_dataset(name, config, revision, split):
        calls.append((name, config, revision, split))
        if name != "shop/offers":
            raise FileNotFoundError(f"Dataset '{name}' doesn't exist on the Hub")
        return DatasetDict({"train": Dataset.from_list(ROWS), "test": Dataset.from_list(ROWS[:1])})[split]

    monkeypatch.setattr("rexbert_hf.catalog.readers.load_dataset", load_dataset)
    return calls


def test_hub_names_with_configuration_and_revision(hub):
    assert read_records("shop/offers").to_list() == ROWS
    rows = read_records("shop/offers:small@v1.0", {"text": "{title}|{uid}"}, split="test")
    assert rows["text"][:] == ['Pan, 24 cm "Ember"|7']
    assert read_records("shop/offers@refs/pr/1", {"id": "uid"})["id"][:] == ["7", "8", "9"]
    assert hub == [
        ("shop/offers", None, None, "train"),
        ("shop/offers", "small", "v1.0", "test"),
        ("shop/offers", None, "refs/pr/1", "train"),
    ]


def test_classes_of_a_hub_dataset_are_their_names(monkeypatch):
    label = ClassLabel(names=["E", "I"])
    features = Features(
        {
            "query": Value("string"),
            "label": label,
            "tags": List(label),
            "pair": List(label, length=2),
            "judges": List({"who": Value("string"), "said": label}),
        }
    )
    rows = {
        "query": ["mug", "pan", "lid"],
        "label": [0, 1, -1],
        "tags": [[0, 1], [], None],
        "pair": [[0, 0], [1, 1], None],
        "judges": [[{"who": "a", "said": 1}], [], [{"who": "b", "said": None}]],
    }
    monkeypatch.setattr(
        "rexbert_hf.catalog.readers.load_dataset", lambda *_, **__: Dataset.from_dict(rows, features=features)
    )
    read = read_records("shop/judged", types=record_types("query_products"))
    assert [read_label(label) for label in read["label"]] == ["E", "I", None]
    assert read["tags"][:] == [["E", "I"], [], None]
    assert read["pair"][:] == [["E", "E"], ["I", "I"], None]
    assert read["judges"][:] == [[{"who": "a", "said": "I"}], [], [{"who": "b", "said": None}]]
    plain = read_records("shop/judged", {"q": "query", "grade": "label"})
    assert plain.to_list()[0] == {"q": "mug", "grade": "E"}


def test_hub_misses_are_explained(hub):
    with pytest.raises(FileNotFoundError, match=r"'data/shop' is neither a file or folder here nor a readable Hub"):
        read_records("data/shop")
    with pytest.raises(ValueError, match=r"shop/offers: no column 'name'; it has uid, title, note"):
        read_records("shop/offers", {"text": "name"})


def test_a_header_with_braces_is_a_name_and_not_a_template(tmp_path):
    """Found by fuzzing: such a file could not be read at all, and its message had a line break."""
    path = tmp_path / "a.csv"
    path.write_text('text,"size {cm}","1{x\ntwo"\na lamp,40,b\n')
    assert read_records(path)[:] == {"text": ["a lamp"], "size {cm}": ["40"], "1{x\ntwo": ["b"]}
    path.write_text('"a\nb","a\nb"\n1,2\n')
    with pytest.raises(ValueError, match="stands twice in the header") as caught:
        read_records(path)
    assert "\n" not in str(caught.value)
