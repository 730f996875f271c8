"""The audit: a second look at a stratified sample, and a gate that does not open by accident."""

from __future__ import annotations

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rexbert_hf.corpus import (
    AuditSettings,
    Document,
    Label,
    LabelSettings,
    ReadySettings,
    Vertical,
    audit,
    label,
    text_id,
    write_documents,
)
from rexbert_hf.corpus.audit import _Pair, _write_disagreements
from rexbert_hf.corpus.audit_sheet import read_sheet, write_sheet
from rexbert_hf.corpus.label import make_labeller
from rexbert_hf.metrics.agreement import cohen_kappa

FOOD = Vertical(
    "food", "Recipes.", {"recipe": "how to cook", "menu": "what to order", "other": "anything else"},
    ["recipe", "menu"], "other",
)  # fmt: skip
SIZES = {("hobby", "recipe"): 200, ("hobby", "other"): 50, ("news", "other"): 900, ("news", "menu"): 12}
"""Documents of each domain and first label."""
OTHERWISE = {"recipe": "menu", "menu": "other", "other": "recipe"}
"""What the second labeller says when the two differ."""


@pytest.fixture
def labelled(tmp_path) -> Path:
    """A labelled corpus; the second opinion of each document stands in second.csv."""
    documents, first, second, generator = [], [], [], random.Random(4)
    for (domain, name), size in SIZES.items():
        for i in range(size):
            document = Document(text_id(f"{domain} {name} {i}"), f"{domain} {name} {i}", "", domain)
            documents.append(document)
            first.append((document.id, name))
            wrong = generator.random() < {"recipe": 0.1, "menu": 0.5, "other": 0.05}[name]
            second.append(
                (document.id, {"recipe": "menu", "menu": "other", "other": "recipe"}[name] if wrong else name)
            )
    generator.shuffle(documents)
    write_documents(tmp_path / "documents.parquet", documents)
    for file, rows in (("first.csv", first), ("second.csv", second)):
        with (tmp_path / file).open("w", newline="") as out:
            csv.writer(out).writerows([("id", "label"), *rows])
    label(ready(tmp_path / "first.csv"), FOOD, tmp_path / "documents.parquet", tmp_path / "labels")
    return tmp_path


def ready(path: Path) -> LabelSettings:
    return LabelSettings("ready", ReadySettings(str(path)))


def run(folder: Path, settings: AuditSettings, output: str = "audit"):
    return audit(settings, FOOD, folder / "documents.parquet", folder / "labels", folder / output)


def table_of(folder: Path) -> dict[tuple[str, str], dict[str, int]]:
    """Stratum -> second label -> documents, of the whole corpus."""
    seconds = dict(list(csv.reader((folder / "second.csv").open()))[1:])
    found: dict[tuple[str, str], dict[str, int]] = {}
    for stratum, size in SIZES.items():
        for i in range(size):
            second = seconds[text_id(f"{stratum[0]} {stratum[1]} {i}")]
            found.setdefault(stratum, dict.fromkeys(FOOD.labels, 0))[second] += 1
    return found


def test_looking_at_everything_gives_the_corpus_itself(labelled):
    """With strata drawn whole the weighted figures are plain counts over all documents."""
    settings = AuditSettings(labeller=ready(labelled / "second.csv"), per_stratum=10_000, compare="label")
    report = run(labelled, settings)
    whole = table_of(labelled)
    names = list(FOOD.labels)
    table = np.zeros((3, 3))
    for (_, first), seconds in whole.items():
        for second, count in seconds.items():
            table[names.index(first), names.index(second)] += count
    found = json.loads((labelled / "audit/audit.json").read_text())
    assert found == report.details["audit"]
    assert found["table"] == table.astype(int).tolist()
    assert found["all"]["agreement"]["value"] == pytest.approx(np.trace(table) / table.sum(), abs=1e-6)
    assert found["all"]["kappa"]["value"] == pytest.approx(cohen_kappa(table), abs=1e-6)
    news = whole["news", "other"]["other"] + whole["news", "menu"]["menu"]
    assert found["by_domain"]["news"]["agreement"]["value"] == pytest.approx(news / 912, abs=1e-6)
    assert found["by_label"]["menu"]["agreement"]["value"] == pytest.approx(
        whole["news", "menu"]["menu"] / 12, abs=1e-6
    )
    assert (report.read, report.written, report.lost) == (1162, 1162, 0)
    rows = list(csv.DictReader((labelled / "audit/disagreements.csv").open()))
    assert len(rows) == table.sum() - np.trace(table)
    assert all(row["first"] != row["second"] and row["text"].startswith(row["domain"]) for row in rows)


def test_a_small_audit_looks_at_every_stratum_and_weights_it(labelled):
    settings = AuditSettings(
        labeller=ready(labelled / "second.csv"), per_stratum=25, compare="label", min_agreement=0.5
    )
    report = run(labelled, settings)
    assert (report.written, report.reasons) == (25 * 3 + 12, {"not_drawn": 1162 - 87})
    assert report.lost == 0
    found, whole = report.details["audit"]["all"], table_of(labelled)
    true = sum(counts[name] for (_, name), counts in whole.items()) / 1162
    assert found["agreement"]["low"] < true < found["agreement"]["high"]
    # Strata count for their size: "menu", wrong half of the time, is 14 % of the sample and 1 % of the corpus.
    assert found["unweighted_agreement"]["value"] < found["agreement"]["value"]


def test_two_wanted_labels_agree_in_domain(labelled):
    """A recipe taken for a menu is wanted by both: that is what the corpus depends on."""
    settings = AuditSettings(labeller=ready(labelled / "second.csv"), per_stratum=10_000)
    found = run(labelled, settings).details["audit"]
    assert found["labels"] == ["in_domain", "other"]
    assert found["by_label"]["recipe"]["agreement"]["value"] == 1.0
    assert found["by_label"]["recipe"]["kappa"]["value"] is None  # nothing for chance to get wrong


def test_under_the_bar_the_run_stops_and_keeps_the_findings(labelled):
    settings = AuditSettings(labeller=ready(labelled / "second.csv"), per_stratum=10_000, min_agreement=0.99)
    for _ in range(2):  # the gate stays shut on a second try
        with pytest.raises(
            ValueError, match=r"audit: agreement is 0\.\d+ .*under min_agreement=0.99: read .*csv"
        ) as found:
            run(labelled, settings)
        assert "\n" not in str(found.value)
    assert sorted(path.name for path in (labelled / "audit").iterdir()) == ["audit.json", "disagreements.csv"]
    with pytest.raises(ValueError, match=r"audit: kappa is 0\.\d+, under min_kappa=0.99"):
        run(labelled, replace(settings, min_agreement=0.5, min_kappa=0.99))
    assert run(labelled, replace(settings, min_agreement=0.5)).written == 1162
    assert (labelled / "audit/report.json").exists()


def test_a_person_fills_in_a_sheet(labelled):
    settings = AuditSettings(by="person", per_stratum=5)
    with pytest.raises(ValueError, match=r"sheet.csv: 20 documents wait for a person's labels \(recipe, menu, other\)"):
        run(labelled, settings)
    sheet = labelled / "audit/sheet.csv"
    rows = list(csv.DictReader(sheet.open(encoding="utf-8-sig")))
    assert list(rows[0]) == ["id", "label", "domain", "url", "text"]  # nothing tells what the first labeller said
    assert {row["label"] for row in rows} == {""}
    assert "recipe: how to cook" in (labelled / "audit/sheet.txt").read_text()
    with pytest.raises(ValueError, match="column 'label' is empty"):
        run(labelled, settings)
    seconds = dict(list(csv.reader((labelled / "second.csv").open()))[1:])

    def fill(label_of) -> None:
        with sheet.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows({**row, "label": label_of(row)} for row in rows)

    fill(lambda row: "soup")
    with pytest.raises(ValueError, match=r"sheet.csv:2: 'soup' is not one of the labels"):
        run(labelled, settings)
    changed = rows[0]["id"]
    rows[0]["id"] = "7"  # as spreadsheets do with 007
    fill(lambda row: "recipe")
    with pytest.raises(ValueError, match=r"sheet.csv:2: no document has the id '7': a spreadsheet may have changed it"):
        run(labelled, settings)
    rows[0]["id"] = changed
    assert all(not row["id"][0].isdigit() for row in rows)  # nothing that a spreadsheet takes for a number
    last = rows[-1]["id"]
    fill(lambda row: "" if row["id"] == last else seconds[row["id"].removeprefix("id:")])
    lenient = LabelSettings(max_failed_share=0.05)
    assert run(labelled, replace(settings, min_agreement=0.3, labeller=lenient)).written == 19
    (labelled / "audit/report.json").unlink()
    fill(lambda row: "" if row["id"] in (last, changed) else seconds[row["id"].removeprefix("id:")])
    with pytest.raises(ValueError, match=r"sheet\.csv: 2 of 20 documents have no label yet: fill them in .*share"):
        run(labelled, replace(settings, min_agreement=0.0))
    assert not (labelled / "audit/report.json").exists()
    fill(lambda row: seconds[row["id"].removeprefix("id:")])
    report = run(labelled, replace(settings, min_agreement=0.3))
    assert (report.written, report.details["second"]) == (20, "ready")


@pytest.mark.parametrize("change", [{"per_stratum": 7}, {"seed": 2}], ids=["larger", "other"])
def test_a_sample_that_is_drawn_anew_adds_its_rows_to_the_sheet(labelled, change):
    """Its documents stand in no row of the old sheet, so nobody could give them a label."""
    settings = AuditSettings(by="person", per_stratum=5, min_agreement=0.0)
    sheet, seconds = labelled / "audit/sheet.csv", dict(list(csv.reader((labelled / "second.csv").open()))[1:])

    def fill() -> None:
        with sheet.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        lines = [",".join((row["id"], seconds[row["id"].removeprefix("id:")], "mine")) for row in rows]
        sheet.write_bytes("\n".join(["id,label,note", *lines]).encode("utf-8-sig"))  # as a person may leave it

    with pytest.raises(ValueError, match="20 documents wait"):
        run(labelled, settings)
    fill()
    assert run(labelled, settings).written == 20
    kept = sheet.read_bytes()
    (labelled / "audit/report.json").unlink()
    again = replace(settings, **change)
    with pytest.raises(ValueError, match=r"sheet\.csv: \d+ of 2\d documents had no row.* keeps all labels;") as told:
        run(labelled, again)
    assert "\n" not in str(told.value)
    assert sheet.read_bytes().startswith(kept + b"\r\n")
    with pytest.raises(ValueError, match=r"\d+ of 2\d documents have no label yet: fill them in"):
        run(labelled, again)
    fill()
    found = run(labelled, again)
    assert (found.written, found.reasons.get("no_label")) == (4 * again.per_stratum, None)


def test_every_row_that_was_checked_gives_its_label(tmp_path):
    """Texts of thousands of lines, and rows that a person cut short behind the label."""
    sheet, documents = tmp_path / "sheet.csv", [Document("a", "soup\n" * 2_400), Document("b", "\n" * 2_400 + "bread")]
    write_sheet(sheet, documents, FOOD)
    filled = sheet.read_text(encoding="utf-8-sig").replace("id:a,,", "id:a,recipe,").replace("id:b,,", "id:b,menu,")
    sheet.write_text(f"{filled}id:c,other\n", encoding="utf-8")
    documents.append(Document("c", "rain"))
    found = read_sheet(sheet, FOOD, {"a", "b", "c"}, documents).label(documents)
    assert [(one.id, one.label) for one in found] == [("a", "recipe"), ("b", "menu"), ("c", "other")]


def test_a_sheet_or_cache_of_an_unknown_user_is_one_line(labelled):
    with pytest.raises(FileNotFoundError, match=r"^~nosuchuser/sheet\.csv: no such user here"):
        run(labelled, AuditSettings(by="person", sheet="~nosuchuser/sheet.csv"))
    with pytest.raises(FileNotFoundError, match=r"^~nosuchuser/answers: no such user here"):
        make_labeller(LabelSettings("llm", cache="~nosuchuser/answers"), FOOD, labelled)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("id,label,text\nid:a,recipe,soup\nid:b,other,caf\u00e9\n".encode("cp1252"), 3, "not UTF-8"),
        ("id\tlabel\nid:a\trecipe\n".encode("utf-16"), 1, "not UTF-8"),
        (b'id,label,text\nid:a,recipe,soup\nid:b,other,"' + b"open\n" * 30, 3, "unexpected end of data"),
        (b'id,label,text\nid:a,recipe,soup\nid:b,other,"' + b"open\n" * 30_000, 3, "field larger|unexpected end"),
    ],
    ids=["cp1252", "utf-16", "open quote", "long open quote"],
)
def test_a_sheet_that_a_spreadsheet_saved_otherwise_is_one_line(tmp_path, content, line, reason):
    (tmp_path / "sheet.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"sheet\.csv:{line}: ({reason}).*: save the sheet as 'CSV UTF-8'") as told:
        read_sheet(tmp_path / "sheet.csv", FOOD, {"a", "b"})
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_a_crawl_is_a_spreadsheets_formula(tmp_path, start):
    run_by_it = f'{start}HYPERLINK("http://a")'
    document = Document(run_by_it, run_by_it, run_by_it, run_by_it)
    write_sheet(tmp_path / "sheet.csv", [document], FOOD)
    pairs = [
        _Pair(document, Label(document.id, "menu", 1.0, run_by_it, "m"), Label(document.id, "other", 1.0, "", "n"))
    ]
    _write_disagreements(tmp_path / "disagreements.csv", AuditSettings(), FOOD, pairs)
    for name, places in (("sheet.csv", 3), ("disagreements.csv", 5)):
        with (tmp_path / name).open(encoding="utf-8-sig", newline="") as file:
            [row] = csv.DictReader(file)
        cells = [cell for cell in row.values() if run_by_it in cell]
        assert cells.count(f"'{run_by_it}") == places
        assert not any(cell.startswith(start) for cell in cells)


def test_a_labeller_beside_itself_is_pointed_out(labelled, caplog):
    run(labelled, AuditSettings(labeller=ready(labelled / "first.csv")))
    assert "'ready' is compared with itself" in caplog.text


def test_labels_that_are_missing(labelled):
    with pytest.raises(FileNotFoundError, match="run the stage `label` first"):
        audit(AuditSettings(), FOOD, labelled / "documents.parquet", labelled / "nowhere.jsonl", labelled / "audit")
    (labelled / "second.csv").write_text("id,label\nother,menu\n")
    with pytest.raises(ValueError, match="ready labelled none of 102 documents"):
        run(labelled, AuditSettings(labeller=ready(labelled / "second.csv")))
