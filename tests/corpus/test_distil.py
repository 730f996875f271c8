from __future__ import annotations

import json

import numpy as np
import pytest
from filter_cases import labelled_texts

from rexbert_hf.catalog import split_of
from rexbert_hf.corpus.distil import MISTAKES, PLOT, SWEEP, DistilSettings, balance_weights, distil
from rexbert_hf.corpus.document_files import write_documents
from rexbert_hf.corpus.documents import Document
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.vertical import Vertical

pytest.importorskip("fasttext")
VERTICAL = Vertical("shop", "Shop pages.", {"shop": "a shop page", "general": "anything else"}, ["shop"], "general")
SETTINGS = DistilSettings(buckets=1_000, min_count=1)


def prepare(folder, texts, labels, **changes):
    """Documents and labels on disk; `changes` maps a document's number to another line."""
    folder.mkdir(exist_ok=True)
    documents = [Document(f"d{i}", text, "", "hobby" if i % 3 else "news") for i, text in enumerate(texts)]
    write_documents(folder / "documents.parquet", documents)
    lines = [
        {"id": f"d{i}", "label": label, "confidence": 0.9, "reason": "", "labeller": "test"}
        for i, label in enumerate(labels)
    ]
    for i, change in changes.items():
        lines[int(i.removeprefix("d"))] |= change
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "documents.parquet", folder / "labels.jsonl"


def test_from_labels_to_a_classifier(tmp_path):
    report = distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", *labelled_texts(600)), tmp_path / "out")
    assert (report.read, report.written, report.lost) == (600, 600, 0)
    parts = report.details["documents"]
    assert sum(parts.values()) == 600
    # Shares of 0.15, by hash: 90 documents, give or take 5 sigma of a binomial.
    assert all(abs(parts[name] - 90) < 45 for name in ("dev", "test"))
    assert report.details["test"]["f1"] > 0.9
    classifier = FastTextClassifier.load(tmp_path / "out")
    assert classifier.threshold == report.details["threshold"] == report.details["dev"]["threshold"]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {SWEEP, MISTAKES, PLOT, "README.md", "report.json", "classifier.json"} <= names
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{report.details['test']['f1']:.3f}" in card
    assert PLOT in card


def test_a_damaged_classifier_is_made_again(tmp_path, caplog):
    inputs = prepare(tmp_path / "in", *labelled_texts(300))
    distil(SETTINGS, VERTICAL, *inputs, tmp_path / "out")
    model = FastTextClassifier.load(tmp_path / "out").file.path
    whole = model.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        model.write_bytes(damaged)
        distil(SETTINGS, VERTICAL, *inputs, tmp_path / "out")
        assert model.read_bytes() == whole
        assert model.name in caplog.text
        caplog.clear()


def test_figures_are_those_of_scoring_the_test_part_again(tmp_path):
    texts, labels = labelled_texts(400)
    report = distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", texts, labels), tmp_path / "out")
    classifier = FastTextClassifier.load(tmp_path / "out")
    wrong = [json.loads(line)["id"] for line in (tmp_path / "out" / MISTAKES).read_text().splitlines()]
    kept = classifier.keeps(texts)
    for name in wrong:
        number = int(name[1:])
        assert kept[number] != (labels[number] == "shop")
    test = report.details["test"]
    missed = round(test["positives"] * (1 - test["recall"]))
    false = round(test["positives"] * test["recall"] / test["precision"]) - (test["positives"] - missed)
    assert len(wrong) == missed + false


def test_texts_that_differ_in_case_and_spaces_are_one_document(tmp_path):
    texts, labels = labelled_texts(200)
    doubled = [*texts, *(f"  {text.upper()} " for text in texts)]
    report = distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", doubled, labels * 2), tmp_path / "out")
    assert (report.written, report.reasons) == (200, {"repeated_text": 200})


def test_what_measures_is_no_near_copy_of_what_trains(tmp_path):
    """Pages that differ in a number are on both sides by their hashes, and would be known by heart."""
    texts, labels = labelled_texts(400)
    texts += [f"{texts[i]} Page {n}" for i in range(0, 20) for n in range(5)]
    labels += [labels[i] for i in range(0, 20) for _ in range(5)]
    report = distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", texts, labels), tmp_path / "out")
    parts = {text: split_of(text, 2 * 0.15) for text in texts}
    families = [[texts[i], *(f"{texts[i]} Page {n}" for n in range(5))] for i in range(20)]
    leaked = [
        text
        for family in families
        if any(parts[text] == "train" for text in family)
        for text in family
        if parts[text] != "train"
    ]
    assert len(leaked) > 10
    assert report.reasons == {"near_copy_of_training": len(leaked)}
    assert report.details["documents"]["train"] == list(parts.values()).count("train")
    assert (report.written, report.lost) == (500 - len(leaked), 0)


def test_what_is_left_out_is_counted(tmp_path):
    texts, labels = labelled_texts(200)
    texts[7] = "..."
    changes = {"d3": {"id": "nobody"}, "d4": {"label": "what"}, "d5": {"confidence": 0.1}, "d6": {"id": "d8"}}
    files = prepare(tmp_path / "in", texts, labels, **changes)
    report = distil(DistilSettings(buckets=1_000, min_confidence=0.5), VERTICAL, *files, tmp_path / "out")
    assert report.reasons == {
        "no_document": 1,
        "unknown_label": 1,
        "low_confidence": 1,
        "repeated_id": 1,
        "no_words": 1,
    }
    assert report.lost == 0


def test_labels_on_one_side_are_refused(tmp_path):
    texts, _ = labelled_texts(100)
    with pytest.raises(ValueError, match=r"0 of 100 labelled documents are out of it, at least 20"):
        distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", texts, ["shop"] * 100), tmp_path / "out")
    assert not (tmp_path / "out" / "report.json").exists()


def test_too_few_documents_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least 20 are needed: label more"):
        distil(SETTINGS, VERTICAL, *prepare(tmp_path / "in", *labelled_texts(30)), tmp_path / "out")
    few = DistilSettings(buckets=1_000, min_documents=1, test_share=0.01)
    with pytest.raises(ValueError, match="fell into the"):
        distil(few, VERTICAL, *prepare(tmp_path / "in", *labelled_texts(4)), tmp_path / "out")


def test_a_precision_out_of_reach_stops_the_stage(tmp_path):
    texts, labels = labelled_texts(200)
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    settings = DistilSettings(buckets=1_000, threshold_rule="precision", target_precision=0.99)
    with pytest.raises(ValueError, match="lower target_precision or label more"):
        distil(settings, VERTICAL, *prepare(tmp_path / "in", texts, shuffled), tmp_path / "out")


def test_a_finished_stage_is_not_done_again(tmp_path):
    files = prepare(tmp_path / "in", *labelled_texts(200))
    first = distil(SETTINGS, VERTICAL, *files, tmp_path / "out")
    model = next((tmp_path / "out").glob("model-*"))
    changed = model.stat().st_mtime_ns
    assert distil(SETTINGS, VERTICAL, *files, tmp_path / "out").details == first.details
    assert model.stat().st_mtime_ns == changed
    distil(DistilSettings(buckets=1_000, min_count=1, seed=1), VERTICAL, *files, tmp_path / "out")
    assert FastTextClassifier.load(tmp_path / "out").facts["test"]


def test_a_rare_side_is_found_all_the_same(tmp_path):
    """One document in ten is of a shop; balanced, most of them are found at the default threshold."""
    texts, labels = labelled_texts(1_200)
    kept = [i for i in range(1_200) if labels[i] == "general" or i % 18 == 0]
    files = prepare(tmp_path / "in", [texts[i] for i in kept], [labels[i] for i in kept])
    report = distil(SETTINGS, VERTICAL, *files, tmp_path / "out")
    assert report.details["test"]["recall"] > 0.7


def test_groups_weigh_the_same_up_to_a_limit():
    groups = [(True, "a")] * 4 + [(True, "b")] + [(False, "a")] * 8
    weights = balance_weights(groups, 100.0)
    by_group = {group: weights[[g == group for g in groups]].sum() for group in set(groups)}
    assert by_group[True, "a"] == pytest.approx(by_group[True, "b"])
    assert by_group[True, "a"] + by_group[True, "b"] == pytest.approx(by_group[False, "a"])
    assert balance_weights(groups, 2.0).max() == 2.0


@pytest.mark.parametrize(
    "wrong", [{"dev_share": 0.6, "test_share": 0.5}, {"test_share": 0.0}, {"min_count": 0}, {"min_confidence": 2.0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DistilSettings(**wrong)
