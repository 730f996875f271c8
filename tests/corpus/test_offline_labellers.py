"""Keywords and ready labels, and the label stage with them."""

from __future__ import annotations

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value

from rexbert_hf import load_sample
from rexbert_hf.corpus import (
    ECOMMERCE,
    Document,
    Failure,
    KeywordLabeller,
    Label,
    LabelSettings,
    ReadyLabels,
    ReadySettings,
    Vertical,
    label,
    read_labels,
    text_id,
    write_documents,
)
from rexbert_hf.corpus.stages import stage_key

TINY = Vertical(
    "food", "Recipes.", {"recipe": "r", "menu": "m", "sport": "s", "other": "o"}, ["recipe", "menu"], "other",
    {"recipe": {"boil": 1.0, r"re:\d+ grams": 0.5}, "menu": {"dessert": 0.6}, "sport": {"goal": 0.9}},
)  # fmt: skip


def one(text: str, vertical: Vertical = TINY) -> Label:
    (found,) = KeywordLabeller(vertical).label([Document("d", text)])
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Boil the rice.", "recipe"),  # 1.0 reaches the threshold
        ("BOIL it", "recipe"),
        ("The parboiled rice and boilers", "other"),  # whole words only
        ("20 grams", "other"),  # 0.5 does not
        ("20 grams and 30 grams", "recipe"),
        ("dessert, 5 grams", "menu"),  # together they do, and menu is the larger
        ("goal", "other"),
        ("goal goal", "sport"),
        ("boil goal goal", "sport"),  # 1.0 against 1.8
        ("boil " * 10 + "goal goal goal goal", "recipe"),  # each counts three times: 3.0 against 2.7
        ("boil " + "word " * 49, "recipe"),
        ("boil " + "word " * 50, "other"),  # 51 words dilute it
    ],
)
def test_keyword_scores(text, expected):
    assert one(text).label == expected


def test_keywords_say_why_and_how_sure():
    found = one("Boil the rice, 20 grams. Boil it again, then boil.")
    assert (found.reason, found.labeller) == ("boil, re:\\d+ grams", "keywords")
    assert 0.5 <= one("boil").confidence < found.confidence < 1
    assert one("rain").confidence > 0.8


def test_keywords_on_the_sample_web():
    """Precision and recall of the default vertical on pages whose kind is known; chance is at 0.35."""
    pages = load_sample("web", size=400)
    documents = [Document(str(i), text) for i, text in enumerate(pages["text"])]
    found = [ECOMMERCE.is_in_domain(label.label) for label in KeywordLabeller(ECOMMERCE).label(documents)]
    true = [label == "shop" for label in pages["label"]]
    both = sum(a and b for a, b in zip(found, true, strict=True))
    assert both / sum(found) > 0.95
    assert both / sum(true) > 0.95


def test_bad_keywords():
    with pytest.raises(ValueError, match=r"keywords.recipe: 're:\(' is not a regular expression"):
        KeywordLabeller(Vertical("f", "", TINY.labels, ["recipe"], "other", {"recipe": {"re:(": 1.0}}))
    with pytest.raises(ValueError, match="vertical 'f' has no keywords for recipe"):
        KeywordLabeller(Vertical("f", "", TINY.labels, ["recipe"], "other", {"sport": {"goal": 1.0}}))


DOCUMENTS = [Document(text_id(text), text, "", "food") for text in ("soup", "goals", "stew", "fog", "rain")]
WORDS = ("recipe", "football", "recipe", "", "weather")


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet", "by_text"])
def test_ready_labels(tmp_path, form):
    rows = [{"key": one.id, "kind": word} for one, word in zip(DOCUMENTS, WORDS, strict=True)]
    if form == "by_text":
        rows = [{"page": one.text, "kind": row["kind"]} for one, row in zip(DOCUMENTS, rows, strict=True)]
    path = tmp_path / f"labels.{'jsonl' if form == 'by_text' else form}"
    if form == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif form == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ("key", "kind"))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ReadySettings(
        str(path), id_field="key", text_field="page", label_field="kind", labels={"football": "sport"}
    )
    found = list(ReadyLabels(settings, TINY).label([*DOCUMENTS, Document("new", "new")]))
    assert [getattr(outcome, "label", None) or outcome.reason for outcome in found] == [
        "recipe", "sport", "recipe", "no_label", "unknown_label", "no_label",
    ]  # fmt: skip
    assert isinstance(found[3], Failure)


def test_ready_labels_of_a_folder_or_pattern_that_change_are_noticed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "labels"
    folder.mkdir()
    first, second = folder / "1.csv", folder / "2.csv"
    first.write_text("id,label\na,recipe\n")
    second.write_text("id,label\nb,sport\n")
    paths = [str(folder), str(folder / "*.csv"), "~/labels", "~/labels/2.csv"]

    def keys():
        return [stage_key(ReadyLabels(ReadySettings(path), TINY).key) for path in paths]

    before, changed = keys(), folder.stat().st_mtime_ns
    assert keys() == before
    second.write_text("id,label\nb,recipe\n")
    assert folder.stat().st_mtime_ns == changed
    assert all(new != old for new, old in zip(keys(), before, strict=True))


def test_ready_labels_of_numbers_with_a_gap(tmp_path):
    """pandas stores integers with a gap as floats; documents have the integers."""
    pq.write_table(pa.table({"id": pa.array([12345.0, None]), "label": ["recipe", "sport"]}), tmp_path / "a.parquet")
    labeller = ReadyLabels(ReadySettings(str(tmp_path / "a.parquet")), TINY)
    [found] = labeller.label([Document("12345", "soup")])
    assert getattr(found, "label", None) == "recipe"


def test_ready_labels_of_classes_go_by_name_or_by_number(tmp_path):
    path = tmp_path / "a.parquet"
    kinds = Features({"id": Value("string"), "label": ClassLabel(names=["cooking", "football"])})
    Dataset.from_dict({"id": ["a", "b"], "label": [0, 1]}, features=kinds).to_parquet(path)
    asked = [Document("a", "soup"), Document("b", "goals")]
    by_name, by_number = {"cooking": "recipe", "football": "sport"}, {"0": "recipe", "1": "sport"}
    labellers = [ReadyLabels(ReadySettings(str(path), labels=labels), TINY) for labels in (by_name, by_number)]
    found = [[getattr(one, "label", None) for one in labeller.label(asked)] for labeller in labellers]
    assert found == [["recipe", "sport"]] * 2
    plain = pa.table({"id": ["a", "b"], "label": [0, 1]})
    assert labellers[1].key[2] == labellers[0].key[2]
    pq.write_table(plain, path)  # as before classes were read by name
    assert ReadyLabels(ReadySettings(str(path), labels=by_number), TINY).key == labellers[1].key
    with pytest.raises(ValueError, match="field 'label' holds 0, 1, none of the labels"):
        ReadyLabels(ReadySettings(str(path), labels=by_name), TINY)


def test_ready_labels_of_rows_with_and_without_identifier(tmp_path):
    """The field's name looks like a template, and one file holds no label at all."""
    rows = [{"{id}": "a", "label": "recipe"}, {"text": "goals", "label": "sport"}, {"{id}": None, "text": "fog"}]
    (tmp_path / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "0.jsonl").write_text('{"{id}": "c", "text": "not labelled yet"}\n')
    labeller = ReadyLabels(ReadySettings(str(tmp_path), id_field="{id}"), TINY)
    asked = [Document("a", "soup"), Document(text_id("goals"), "goals"), Document(text_id("fog"), "fog")]
    assert [getattr(one, "label", None) for one in labeller.label(asked)] == ["recipe", "sport", None]
    (tmp_path / "1.jsonl").unlink()
    with pytest.raises(ValueError, match=r"0\.jsonl: no column 'label'; it has \{id\}, text"):
        ReadyLabels(ReadySettings(str(tmp_path), id_field="{id}"), TINY)


def test_of_ready_labels_only_their_columns_are_read(tmp_path):
    seen = pa.array([3_000_000], pa.int32()).cast(pa.date32())  # the year 10183, which Python has no date for
    pq.write_table(pa.table({"id": ["a"], "label": ["recipe"], "seen": seen}), tmp_path / "a.parquet")
    labeller = ReadyLabels(ReadySettings(str(tmp_path / "a.parquet")), TINY)
    [found] = labeller.label([Document("a", "soup")])
    assert getattr(found, "label", None) == "recipe"


def test_ready_labels_that_are_of_no_use(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("id,label\na,banana\n")
    with pytest.raises(ValueError, match=r"field 'label' holds banana, none of the labels recipe, .*ready.labels"):
        ReadyLabels(ReadySettings(str(path)), TINY)
    with pytest.raises(ValueError, match="no column 'kind'; it has id, label"):
        ReadyLabels(ReadySettings(str(path), label_field="kind"), TINY)
    with pytest.raises(ValueError, match=r"no row has a field 'key' or 'text': set ready\.id_field or ready\.text"):
        ReadyLabels(ReadySettings(str(path), id_field="key"), TINY)
    with pytest.raises(ValueError, match=r"sample crawl: no field 'kind'; it has "):
        ReadyLabels(ReadySettings(sample="crawl", label_field="kind"), TINY)
    with pytest.raises(FileNotFoundError):
        ReadyLabels(ReadySettings(str(tmp_path / "none.csv")), TINY)
    with pytest.raises(ValueError, match=r"need ready\.path"):
        ReadyLabels(ReadySettings(), TINY)


def test_the_stage_accounts_for_every_document(tmp_path):
    path = tmp_path / "ready.csv"
    path.write_text("id,label\n" + "".join(f"{one.id},recipe\n" for one in DOCUMENTS[:3]))
    documents = write_documents(tmp_path / "documents.parquet", [*DOCUMENTS, DOCUMENTS[0]])[0]
    settings = LabelSettings("ready", ReadySettings(str(path)))
    report = label(settings, TINY, documents, tmp_path / "out")
    assert (report.read, report.written, report.reasons) == (6, 3, {"no_label": 2, "repeated_id": 1})
    assert report.lost == 0
    assert report.details["by_domain"] == {"food": {"recipe": 3}}
    assert [found.id for found in read_labels(tmp_path / "out/labels.jsonl")] == [one.id for one in DOCUMENTS[:3]]
    assert len((tmp_path / "out/failed.jsonl").read_text().splitlines()) == 2
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == ["failed.jsonl", "labels.jsonl", "report.json"]


def test_no_label_at_all_is_an_error(tmp_path):
    (tmp_path / "ready.csv").write_text("id,label\nother,recipe\n")
    documents = write_documents(tmp_path / "documents.parquet", DOCUMENTS)[0]
    with pytest.raises(ValueError, match=r"none of 5 documents got a label \(5 no_label\)"):
        label(LabelSettings("ready", ReadySettings(str(tmp_path / "ready.csv"))), TINY, documents, tmp_path / "out")
    (tmp_path / "out/labels.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(ValueError, match=r"labels.jsonl:1: not a label"):
        list(read_labels(tmp_path / "out/labels.jsonl"))


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (b'"confidence": null, "label": "recipe"', "confidence is NoneType, not a float"),
        (b'"confidence": true, "label": "recipe"', "confidence is bool, not a float"),
        (b'"confidence": "high", "label": "recipe"', "confidence is str, not a float"),
        (b'"confidence": 1, "label": 3', "label is int, not a str"),
        (b'"confidence": 1, "label": "caf\xe9"', "'utf-8' codec can't decode byte 0xe9"),
    ],
)
def test_labels_of_another_type_are_told_with_their_line(tmp_path, wrong, reason):
    path = tmp_path / "labels.jsonl"
    good = b'{"id": "a", "label": "recipe", "confidence": 1, "reason": "", "labeller": "me"}\n'
    path.write_bytes(good + b'{"id": "b", ' + wrong + b', "reason": "", "labeller": "me"}\n')
    with pytest.raises(ValueError, match=rf"labels\.jsonl:2: not a label \({reason}"):
        list(read_labels(path))
    path.write_bytes(good)
    assert [found.id for found in read_labels(path)] == ["a"]
