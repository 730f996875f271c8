"""What is written in any format comes back as it was, whatever the text: hypothesis draws it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rexbert_hf.catalog import ReadReport, read_records

# No surrogates (no UTF-8 form) and no zero bytes; blank fields are nulls, so each has a letter.
plain = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff")
words = st.text(plain, max_size=30).map(lambda text: f"a{text}z")
in_a_line = words.map(lambda text: " ".join(text.split()))
tables = st.lists(st.tuples(words, words), min_size=1, max_size=6)
quiet = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


def as_csv(rows):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("id", "text"), *rows])
    return buffer.getvalue().encode("utf-8")


def as_json_lines(rows):
    return "".join(json.dumps({"id": a, "text": b}, ensure_ascii=len(a) % 2 == 0) + "\n" for a, b in rows).encode()


def as_json_array(rows):
    return json.dumps([{"id": a, "text": b} for a, b in rows], indent=1).encode()


def as_parquet(rows):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"id": [a for a, _ in rows], "text": [b for _, b in rows]}), buffer)
    return buffer.getvalue()


FORMS = {"a.csv": as_csv, "a.jsonl": as_json_lines, "a.json": as_json_array, "a.parquet": as_parquet}


def read_back(path):
    report = ReadReport()
    found = read_records(path, report=report, max_bad_share=0.0)
    assert report.bad == 0, str(report)
    return list(zip(found["id"], found["text"], strict=True))


@pytest.mark.parametrize("name", FORMS)
@quiet
@given(rows=tables)
@example(rows=[("a" + "x" * (1 << 20) + "z", "a\u2028\x85\x0b\x1c\nz")])
@example(rows=[('a"",\r\n"z', "a\tz")])
def test_round_trip(name, rows, tmp_path):
    content = FORMS[name](rows)
    (tmp_path / name).write_bytes(content)
    assert read_back(tmp_path / name) == rows
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))
    assert read_back(tmp_path / f"{name}.gz") == rows
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr(f"deep/{name}", content)
    assert read_back(tmp_path / "all.zip") == rows


@quiet
@given(rows=st.lists(st.tuples(in_a_line, in_a_line), min_size=1, max_size=6))
def test_tsv_has_no_quotes_by_default(rows, tmp_path):
    lines = ["id\ttext", *("\t".join(row) for row in rows)]
    (tmp_path / "a.tsv").write_bytes("".join(line + "\n" for line in lines).encode())
    assert read_back(tmp_path / "a.tsv") == rows


@quiet
@given(lines=st.lists(in_a_line, min_size=1, max_size=8))
def test_a_text_file_is_a_document_a_line(lines, tmp_path):
    (tmp_path / "a.txt").write_bytes("".join(f"{line}\n" for line in lines).encode())
    assert list(read_records(tmp_path / "a.txt")["text"]) == lines
