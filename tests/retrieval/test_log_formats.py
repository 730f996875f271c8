"""A click log in CSV, JSON lines and Parquet: the same counts and pairs, whatever its lists were written as."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rexbert_hf.retrieval.pairs.events import count_events
from rexbert_hf.retrieval.pairs.query_split import QuerySplit
from rexbert_hf.retrieval.pairs.settings import RecordSource

ALL = QuerySplit(held_out=0)
NEEDED = ("query", "shown", "clicked", "bought")
LISTS = NEEDED[1:]
CATALOGUE = ["1", "2", "3", "12", "B001", "B002"]
LOG = [
    {"query": "red lamp", "shown": ["12", "3", "B001"], "clicked": ["12", "B001"], "bought": ["12"]},
    {"query": "blue lamp", "shown": ["B002", "12"], "clicked": [], "bought": []},
    {"query": "kettle", "shown": ["B001"], "clicked": ["B001"], "bought": ["B001"]},
]
FORMS = {"json": json.dumps, "spaces": " ".join, "commas": ", ".join, "pipes": "|".join}


def write(path, form):
    """The log with its lists in one form; None for those of the format itself."""
    rows = LOG if form is None else [{**row, **{name: FORMS[form](row[name]) for name in LISTS}} for row in LOG]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, NEEDED)
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def counted(path, tmp_path, mapped=False):
    source = RecordSource(path=path, columns={name: name for name in NEEDED} if mapped else None)
    counts = count_events(source.read("events", NEEDED, tmp_path / "rows"), CATALOGUE, ALL)
    groups = [(g.query, g.positives.tolist(), g.hard.tolist(), g.known.tolist()) for g in counts.groups()]
    return groups, counts.position.tolist(), counts.report


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(
    ("suffix", "form"),
    [("parquet", None), ("jsonl", None), *((s, form) for s in ("csv", "jsonl", "parquet") for form in FORMS)],
)
def test_every_format_gives_the_same_counts(tmp_path, suffix, form, mapped):
    groups, positions, report = counted(write(tmp_path / f"log.{suffix}", form), tmp_path, mapped)
    assert groups == [
        ("red lamp", [3], [2], [2, 3, 4]),
        ("blue lamp", [], [3, 5], [3, 5]),
        ("kettle", [4], [], [4]),
    ]
    assert positions == [2, 1, 3, 2, 1, 1]
    assert report["unknown_mentions"] == 0


def test_ids_that_are_numbers_meet_those_of_a_catalogue_of_numbers(tmp_path):
    pq.write_table(
        pa.table({"query": ["lamp"], "shown": [[12, 3]], "clicked": [[12]], "bought": [[12]]}), tmp_path / "log.parquet"
    )
    pq.write_table(pa.table({"product_id": [3, 12], "title": ["Kettle", "Lamp"]}), tmp_path / "c.parquet")
    products = RecordSource(path=str(tmp_path / "c.parquet")).read("products", ("product_id",), tmp_path / "rows")
    log = RecordSource(path=str(tmp_path / "log.parquet")).read("events", NEEDED, tmp_path / "rows")
    (group,) = count_events(log, products["product_id"][:], ALL).groups()
    assert (group.positives.tolist(), group.hard.tolist()) == ([1], [0])


@pytest.mark.parametrize("mapped", [False, True])
def test_what_is_no_list_names_file_line_column_and_forms(tmp_path, mapped):
    (tmp_path / "log.csv").write_text("query,shown,clicked,bought\nlamp,\"['1', '2']\",1,1\n")
    with pytest.raises(ValueError, match="does not fit") as error:
        counted(str(tmp_path / "log.csv"), tmp_path, mapped)
    said = str(error.value)
    assert "log.csv:2 does not fit column 'shown' (\"['1', '2']\": a list of product ids is a JSON list, or ids" in said
    assert "\n" not in said


@pytest.mark.parametrize("name", LISTS)
def test_the_counter_takes_no_text_for_a_list(name):
    with pytest.raises(ValueError, match=f"event 0: TypeError: '{name}' is text .'12'.*lists of product ids"):
        count_events([{**LOG[0], name: "12"}], CATALOGUE, ALL)


def test_columns_beside_those_of_a_product_may_be_mapped(tmp_path):
    rows = [{"sku": 7, "name": "Mug", "cost": 3.5, "stock": True, "colour": "red"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    columns = {"product_id": "sku", "title": "name", "price": "cost", "in_stock": "stock", "colour": "colour"}
    source = RecordSource(path=str(tmp_path / "c.parquet"), columns=columns)
    found = source.read("products", ("product_id",), tmp_path / "rows")
    assert found[0] == {"product_id": "7", "title": "Mug", "price": 3.5, "in_stock": True, "colour": "red"}
    for wrong in ({**columns, "titel": "name"}, {"product_id": "sku", "titel": "name"}):
        source.columns = wrong
        with pytest.raises(ValueError, match=r"column 'titel' is not one of the record's: product_id, .*, price"):
            source.read("products", ("product_id",), tmp_path / "rows")
