from __future__ import annotations

import gzip
import json
import logging
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Features, Value

from rexbert_hf.catalog import PRODUCT, ReadReport, read_records
from rexbert_hf.catalog.delimited import _Lines
from rexbert_hf.catalog.formats import _array_items


def lines(count, form="{}"):
    return [form.format(i) for i in range(count)]


def read(path, **kwargs):
    report = ReadReport()
    return read_records(path, report=report, **kwargs), report


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        read_records(tmp_path / "none.csv")
    with pytest.raises(FileNotFoundError, match=r"none\.csv\.gz: no such file"):
        read_records("none.csv.gz")
    with pytest.raises(FileNotFoundError, match=r"\*\.csv: no file matches"):
        read_records(str(tmp_path / "*.csv"))
    for source in ("~nobody-here/x.csv", "~nobody-here", ["~nobody-here/*.csv"]):
        with pytest.raises(FileNotFoundError, match=r"~nobody-here.*: no such user here; write the folder out"):
            read_records(source)
    with pytest.raises(ValueError, match="holds no file to read"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="name at least one"):
        read_records([])


def test_unknown_formats(tmp_path):
    (tmp_path / "a.xyz").write_text("x")
    with pytest.raises(ValueError, match=r"a\.xyz: cannot tell the format .* pass format="):
        read_records(tmp_path / "a.xyz")
    with pytest.raises(ValueError, match="unknown format 'xlsx'"):
        read_records(tmp_path / "a.xyz", format="xlsx")
    with pytest.raises(ValueError, match="unknown encoding 'utf-9'"):
        read_records(tmp_path / "a.xyz", format="text", encoding="utf-9")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.xyz", "x")
    with pytest.raises(ValueError, match=r"a\.zip: nothing readable inside \(it holds a\.xyz\)"):
        read_records(tmp_path / "a.zip")
    for name, message in (
        ("-\ncsv", r"nothing readable inside \(it holds '-\\ncsv'\)"),
        ("-\n.csv", r"a\.zip!'-\\n\.csv'"),
    ):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(name, "x,y\n1\n")
        with pytest.raises(ValueError, match=message) as told:
            read_records(tmp_path / "a.zip")
        assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt", "a.parquet", "a.txt.gz"])
def test_empty_files(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"") if name.endswith(".gz") else b"")
    with pytest.raises(ValueError, match=rf"{name}: the file is empty"):
        read_records(tmp_path / name)


EMPTY = [("a.csv", "x,y\n"), ("a.txt", "\n \n"), ("a.csv", "x\n\n"), ("a.json", "[]")]


@pytest.mark.parametrize(("name", "content"), EMPTY)
def test_files_without_rows(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=r"a\.\w+: (no row to read|holds no JSON objects)"):
        read_records(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.csv", "id,title\n1,x\n"), ("a.jsonl", '{"id": 1, "title": "x"}\n'), ("a.tsv", "id\ttitle\n1\tx\n")],
)
def test_missing_columns_name_the_file_and_what_there_is(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    for spec in ("name", ["title", "name"], "{title} {name}"):
        with pytest.raises(ValueError, match=rf"{name}: no column 'name'; it has id, title"):
            read_records(tmp_path / name, {"text": spec})


def test_second_file_without_the_column(tmp_path):
    (tmp_path / "a.csv").write_text("id,title\n1,x\n")
    (tmp_path / "b.csv").write_text("id,name\n1,x\n")
    with pytest.raises(ValueError, match=r"b\.csv: no column 'title'; it has id, name"):
        read_records(tmp_path)


def test_json_keys_may_be_absent_here_and_there(tmp_path):
    rows = [{"id": i} for i in range(50)] + [{"id": 50, "title": "x"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    table = read_records(tmp_path / "a.jsonl", {"id": "id", "title": "title"})
    assert table["title"][:] == [""] * 50 + ["x"]


def test_json_column_that_no_row_has_is_found_before_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.batches._COLUMNS_SEEN_BY", 3)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"b": 1}\n{"a": 1}\n{"title": "late"}\n')
    with pytest.raises(ValueError, match="no column 'title'; it has a, b"):
        read_records(tmp_path / "a.jsonl", {"text": "title", "a": "a"})


def test_column_outside_the_record(tmp_path):
    with pytest.raises(ValueError, match="'titel' is not one of the record's: product_id, title"):
        read_records(tmp_path / "a.csv", {"titel": "t"}, features=PRODUCT)


@pytest.mark.parametrize("mapping", [{}, {"text": []}, {"text": "{title"}, {"text": "a {} b"}, {"text": [1]}])
def test_malformed_mappings(tmp_path, mapping):
    (tmp_path / "a.csv").write_text("title\nx\n")
    with pytest.raises(ValueError, match="column"):
        read_records(tmp_path / "a.csv", mapping)


CSV, TSV, JSON, TEXT = (b"a,b\n", b"1,2\n"), (b"a\tb\n", b"1\t2\n"), (b"", b'{"a": "1"}\n'), (b"", b"x\n")
"""Head and good row of each format."""

BAD_ROWS = {
    "csv, fields": ("a.csv", CSV, b"1,2,3\n", "has 3 fields where 2 are expected"),
    "csv, bytes": ("a.csv", CSV, b"1,caf\xe9\n", r"is not utf-8 \(byte 0xe9 at character 4\)"),
    "csv, NUL": ("a.csv", CSV, b"1,\0\n", "holds a NUL byte"),
    "csv, quote": ("a.csv", CSV, b'1,"2\n', "opens a quote that is never closed"),
    "tsv, fields": ("a.tsv", TSV, b"1\n", "has 1 fields where 2 are expected"),
    "json, cut": ("a.jsonl", JSON, b'{"a": "1\n', r"is not JSON \(Invalid control character at column 9\)"),
    "json, list": ("a.jsonl", JSON, b"[1]\n", "holds list, not an object"),
    "json, bytes": ("a.jsonl", JSON, b'{"a": "\xff"}\n', r"is not utf-8 \(byte 0xff at character 1\)"),
    "json, NUL": ("a.jsonl", JSON, b'{"a": "\\u0000"}\n', "holds a NUL byte"),
    "json, surrogate": ("a.jsonl", JSON, b'{"a": "\\ud800"}\n', "holds half a surrogate pair"),
    "json, deep": ("a.jsonl", JSON, b"[" * 99_999 + b"\n", "is not JSON"),
    "text, bytes": ("a.txt", TEXT, b"\xc3\x28\n", r"is not utf-8 \(byte 0xc3 at character 1\)"),
    "text, NUL": ("a.txt", TEXT, b"a\0b\n", "holds a NUL byte"),
}


@pytest.mark.parametrize(("name", "kind", "bad", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_one_bad_row_costs_one_row(tmp_path, caplog, name, kind, bad, reason):
    head, good = kind
    (tmp_path / name).write_bytes(head + good * 20 + bad + good * 9)
    number = 22 if head else 21
    with caplog.at_level(logging.WARNING, logger="rexbert_hf"):
        table, report = read(tmp_path / name)
    assert len(table) == report.rows == 29
    assert report.bad == 1
    [why] = report.reasons
    assert why.startswith(f"{tmp_path / name}:{number} ")
    [warning] = caplog.messages
    assert why in warning
    with pytest.raises(ValueError, match=f"{name}:{number} .*{reason}"):
        read(tmp_path / name, errors="raise")


def test_quote_that_swallows_lines_and_closes(tmp_path):
    """The quote of line 3 closes at line 6: only line 3 is lost, and line 6 if its own quote is not balanced."""
    (tmp_path / "a.csv").write_text('a,b\n1,2\n3,"4\n5,6\n7,8\n9,10",x\n' + "11,12\n" * 30)
    table, report = read(tmp_path / "a.csv")
    assert table["a"][:4] == ["1", "5", "7", "11"]
    assert [reason.split()[0] for reason in report.reasons] == [f"{tmp_path / 'a.csv'}:{line}" for line in (3, 6)]


def test_quote_is_given_up_after_too_many_lines(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.delimited.MAX_RECORD_CHARS", 40)
    monkeypatch.setattr("rexbert_hf.catalog.delimited.MAX_RECORD_LINES", 10)
    (tmp_path / "a.csv").write_text('a,b\n1,"2\n' + "3,4\n" * 60 + '5,"6\nseven\nlines"\n')
    table, report = read(tmp_path / "a.csv")
    assert len(table) == 61
    assert table[60] == {"a": "5", "b": "6\nseven\nlines"}
    where = f"{tmp_path / 'a.csv'}:2"
    assert report.reasons == [f"{where} opens a quote that is not closed within 10 lines and 40 characters"]


def test_stray_quotes_in_every_hundredth_line_cost_a_few_readings_of_the_file(tmp_path, monkeypatch):
    """A quote that opens again on the line that would close it hides the end from every line before it."""
    monkeypatch.setattr("rexbert_hf.catalog.delimited._VAIN_CHARS", 1 << 10)
    taken = 0
    step = _Lines.__next__

    def counted(self):
        nonlocal taken
        taken += 1
        return step(self)

    monkeypatch.setattr(_Lines, "__next__", counted)
    stray = '7" lamp,"8\n'
    (tmp_path / "a.csv").write_text("a,b\n" + ("1,2\n" * 99 + stray) * 200)
    table, report = read(tmp_path / "a.csv")
    assert (len(table), report.bad) == (19_800, 200)
    assert taken < 50 * 20_000  # each to the end of the file would be 100 times


def test_long_records_survive_stray_quotes_in_every_hundredth_line(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.delimited._VAIN_CHARS", 1 << 10)
    page = "a line of a page, with words and yet more words, quoted as one does\n" * 300
    rows = "1,some usual title of a product\n" * 99 + '7" lamp,"8\n'
    (tmp_path / "a.csv").write_text("a,b\n" + rows * 100 + f'9,"{page}"\n' * 2)
    table, report = read(tmp_path / "a.csv")
    assert (len(table), report.bad) == (9_902, 100)
    assert table["b"][-2:] == [page, page]


def test_a_quote_among_long_lines_is_given_up_by_its_characters(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.delimited._MOST_CHARS", 1_000)
    page = "x" * 2_000
    (tmp_path / "a.csv").write_text('a,b\n1,"2\n' + "3,4\n" * 400 + f'5,"{page}"\n')
    table, report = read(tmp_path / "a.csv")
    assert (len(table), table["b"][-1]) == (401, page)
    assert report.reasons == [f"{tmp_path / 'a.csv'}:2 opens a quote that is not closed within 1,000 characters"]


@pytest.mark.parametrize(("line", "count"), [("a", 5_000), ("text " * 400, 2_500), ("x" * 100_000, 40)])
def test_a_record_of_many_lines_is_one_row(tmp_path, line, count):
    text = (line + "\n") * count
    (tmp_path / "a.csv").write_text(f'a,b\n1,"{text}"\n3,4\n')
    assert read_records(tmp_path / "a.csv", errors="raise")[:] == {"a": ["1", "3"], "b": [text, "4"]}


def test_a_file_that_is_refused_before_its_end_says_so(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b\n" + "bad\n" * 1_000 + "1,2\n" * 20_000)
    with pytest.raises(ValueError, match=r"1,000 of the first 1,000 rows are bad"):
        read_records(path)
    path.write_text("a,b\n" + "bad\n" * 300 + "1,2\n" * 20)
    with pytest.raises(ValueError, match=r"300 of 320 rows are bad"):
        read_records(path)


@pytest.mark.parametrize(
    "column",
    [pa.array([3_000_000], pa.int32()).cast(pa.date32()), pa.array([0], pa.timestamp("us", tz="Mars/Base"))],
    ids=["year 10183", "time zone"],
)
def test_dates_that_python_does_not_know_cost_nothing_where_nobody_asks_for_them(tmp_path, column):
    pq.write_table(pa.table({"title": ["Mug"], "seen": column}), tmp_path / "a.parquet")
    assert read_records(tmp_path / "a.parquet", {"text": "title"})[:] == {"text": ["Mug"]}
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read \(\w+Error: ") as told:
        read_records(tmp_path / "a.parquet")
    assert "\n" not in str(told.value)


def test_line_numbers_count_lines_of_quoted_fields(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n"1\n1",2\n' + "3,4\n" * 20 + "bad\n" + "5,6\n")
    assert read(tmp_path / "a.csv")[1].reasons[0].startswith(f"{tmp_path / 'a.csv'}:24 ")


def test_bad_bytes_in_unused_columns_do_no_harm(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n1,\xff\n")
    assert read_records(tmp_path / "a.csv", {"a": "a"}).to_list() == [{"a": "1"}]


def test_values_that_do_not_convert(tmp_path):
    (tmp_path / "a.csv").write_text("a\n" + "1\n" * 20 + "one\n2\n")
    table, report = read(tmp_path / "a.csv", features=Features({"a": Value("int64")}))
    assert table["a"][:] == [1] * 20 + [2]
    assert "a.csv:22 does not fit column 'a'" in report.reasons[0]
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n' * 20 + '{"a": [1]}\n{"a": 12345678901234567890}\n{"a": 2}\n')
    table, report = read(tmp_path / "b.jsonl", features=Features({"a": Value("int64")}))
    assert table["a"][:] == [1] * 20 + [2]
    assert report.bad == 2


def test_too_many_bad_rows(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 8 + "bad\n" * 2)
    with pytest.raises(ValueError, match=r"a\.csv: 2 of 10 rows are bad \(.*a\.csv:10 has 1 fields.*max_bad_share=0.1"):
        read_records(tmp_path / "a.csv")
    table, report = read(tmp_path / "a.csv", max_bad_share=0.2)
    assert (len(table), report.bad) == (8, 2)


def test_empty_rows_do_not_dilute_the_bad_ones(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\n" * 100 + b"good\n" * 5 + b"\xff\n")
    with pytest.raises(ValueError, match="1 of 6 rows are bad"):
        read_records(tmp_path / "a.txt")


def test_the_share_is_judged_file_by_file(tmp_path):
    (tmp_path / "a.txt").write_text("good\n" * 1_000)
    (tmp_path / "b.txt").write_bytes(b"\0\n" * 20)
    with pytest.raises(ValueError, match=r"b\.txt: 20 of 20 rows are bad"):
        read_records(tmp_path)


def test_another_encoding_is_told_from_damaged_rows(tmp_path):
    """A catalogue in cp1252 loses its rows with accents and no others: here less than the tenth that may be bad."""
    titles = [f"caf\u00e9 {i}" if i % 12 == 0 else f"mug {i}" for i in range(1_000)]
    (tmp_path / "a.csv").write_text("title\n" + "\n".join(titles), encoding="cp1252")
    with pytest.raises(ValueError, match=r"a\.csv: 84 of 1,000 rows do not decode \(.*a\.csv:2 .*encoding='cp1252'"):
        read(tmp_path / "a.csv")
    assert read_records(tmp_path / "a.csv", encoding="cp1252")["title"][:] == titles
    # In UTF-8 a few damaged rows stand among more that have accents and decode.
    rows = [title.encode() for title in titles]
    rows[7:900:40] = [b"dam\xff"] * len(rows[7:900:40])
    (tmp_path / "b.csv").write_bytes(b"title\n" + b"\n".join(rows))
    table, report = read(tmp_path / "b.csv")
    assert (len(table), report.bad) == (977, 23)


def test_a_hopeless_file_is_not_read_to_its_end(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xff\n" * 5_000)
    with pytest.raises(ValueError, match=r"1,000 of the first 1,000 rows"):
        read_records(tmp_path / "a.txt")


def test_only_the_first_reasons_are_kept(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n" * 200 + b"\0\n" * 12)
    report = read(tmp_path / "a.txt")[1]
    assert (report.bad, len(report.reasons)) == (12, 5)


def test_utf16_without_being_told(tmp_path):
    (tmp_path / "a.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"a\.csv: .*pass encoding='utf-16'"):
        read_records(tmp_path / "a.csv")


def test_repeated_column(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match="column 'a' stands twice"):
        read_records(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'a,"b\n1,2\n', "opens a quote that is never closed; this line must name the columns"),
        (b"\xe9,b\n1,2\n", "is not utf-8; pass encoding="),
    ],
)
def test_a_bad_header_is_not_skipped(tmp_path, content, why):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=f"a.csv:1 {why}"):
        read_records(tmp_path / "a.csv")


def test_truncated_and_corrupt_packings(tmp_path):
    data = gzip.compress("\n".join(lines(5_000)).encode())
    (tmp_path / "cut.txt.gz").write_bytes(data[: len(data) // 2])
    (tmp_path / "fake.txt.gz").write_text("not gzip at all")
    (tmp_path / "fake.zip").write_text("not zip at all")
    (tmp_path / "fake.parquet").write_text("not parquet at all")
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    (tmp_path / "flipped.txt.gz").write_bytes(flipped)
    for name in ("cut.txt.gz", "fake.txt.gz", "fake.parquet", "flipped.txt.gz"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read \(.*fetch or write it again$"):
            read_records(tmp_path / name)
    with pytest.raises(ValueError, match=r"fake\.zip: not a readable zip file"):
        read_records(tmp_path / "fake.zip")


def test_truncated_parquet_and_bad_zip_member(tmp_path):
    pq.write_table(pa.table({"a": lines(5_000)}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"a\.parquet: cannot be read"):
        read_records(tmp_path / "a.parquet")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "some text\n" * 100)
    packed = bytearray((tmp_path / "a.zip").read_bytes())
    packed[60] ^= 0xFF  # inside the stored member: its checksum fails
    (tmp_path / "a.zip").write_bytes(packed)
    with pytest.raises(ValueError, match=r"a\.zip!a\.txt: cannot be read \(BadZipFile"):
        read_records(tmp_path / "a.zip")


def test_a_file_without_a_name_in_a_zip_is_one_line(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "id\n1\n")
        archive.writestr("x", "id\n2\n")
    data = bytearray(path.read_bytes())
    last = data.rindex(b"PK\x01\x02")  # the directory's entry of x: its name becomes a byte of "extra"
    data[last + 28 : last + 32] = b"\0\0\1\0"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a.zip: a file in it has no name: pack it again"):
        read_records(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, text in (("notes.pdf", ""), ("notes.pdf", ""), ("a.csv", "id\n1\n")):
            archive.writestr(name, text)
    assert read_records(tmp_path / "a.zip")["id"][:] == ["1"]
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.writestr("a.csv", "id\n2\n")
    with pytest.raises(ValueError, match=r"a.zip: two files in it are named a.csv: pack it again"):
        read_records(tmp_path / "a.zip")


def test_a_zip_in_capitals_is_found_in_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "A.ZIP", "w") as archive:
        archive.writestr("a.csv", "text\nmug\n")
    assert read_records(tmp_path)["text"][:] == ["mug"]


def test_a_broken_item_of_an_array_is_told_before_the_rest_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("rexbert_hf.catalog.formats._CHUNK", 1 << 10)
    path = tmp_path / "a.json"
    rest = json.dumps([{"text": f"item {i} " + "x" * 200} for i in range(2_000)])[1:]
    path.write_text('[{"text": "a"}, {"text": "b" "c"}, ' + rest)
    with path.open(encoding="utf-8") as text:
        text.read(1)
        items = _array_items("a.json", text)
        assert next(items) == (1, {"text": "a"})
        with pytest.raises(ValueError, match=r"a\.json item 2 ends inside the array or breaks it"):
            next(items)
        assert len(text.read()) > path.stat().st_size // 2


@pytest.mark.parametrize("tail", [', {"a": "2', ', {"a" "2"}]', ", {'a': '2'}, {}]", ""])
def test_array_that_is_cut_off_or_breaks(tmp_path, tail):
    """What follows cannot be found again: a warning would hide that most of the file is missing."""
    (tmp_path / "a.json").write_text("[" + ",".join('{"a": "1"}' for _ in range(30)) + tail)
    with pytest.raises(ValueError, match=r"a\.json item 31 ends inside the array .*fetch or write it again"):
        read(tmp_path / "a.json")


def test_lines_of_json_are_counted_from_the_top(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n \n" + '{"a": "1"}\n' * 20 + "bad\n")
    assert "a.jsonl:23 is not JSON" in read(tmp_path / "a.jsonl")[1].reasons[0]


def test_pretty_printed_object_is_not_json_lines(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"data": [1, 2]}, indent=2))
    for columns in (None, {"text": "data"}):
        with pytest.raises(ValueError, match=r"a\.json: .*is not JSON"):
            read_records(tmp_path / "a.json", columns)


def test_bad_options(tmp_path):
    (tmp_path / "a.txt").write_text("x\n")
    for option in (
        {"errors": "ignore"},
        {"max_bad_share": 1.5},
        {"limit": 0},
        {"delimiter": "::"},
        {"quotechar": "ab"},
    ):
        with pytest.raises(ValueError, match=next(iter(option)).split("_")[0]):
            read_records(tmp_path / "a.txt", **option)
