"""Sampling and selection: a function of seed and documents, uniform, and every document accounted for."""

from __future__ import annotations

import json
import math
import random

import numpy as np
import pytest

from rexbert_hf.corpus import (
    ECOMMERCE,
    Document,
    DocumentSource,
    Failure,
    KeywordLabeller,
    Label,
    SampleSettings,
    SelectSettings,
    picked_domains,
    read_parquet,
    sample,
    select,
)
from rexbert_hf.corpus.sample import StratifiedSample

DOMAINS = {"hobby": 40, "news": 300, "rare": 3}


def crawl(path, order: int = 0) -> DocumentSource:
    rows = [{"text": f"{name} page {i}", "domain": name} for name, count in DOMAINS.items() for i in range(count)]
    random.Random(order).shuffle(rows)
    path.mkdir(exist_ok=True)
    for part in range(3):
        (path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[part::3]))
    return DocumentSource(str(path))


def test_a_sample_does_not_depend_on_order_or_files(tmp_path):
    settings = SampleSettings(per_domain=20, seed=3)
    for order in (1, 2):
        report = sample(settings, [crawl(tmp_path / f"crawl{order}", order)], None, tmp_path / f"out{order}")
        assert (report.read, report.written, report.reasons) == (343, 43, {"not_drawn": 300})
        assert report.lost == 0
        assert report.details["domains"]["rare"] == {"seen": 3, "drawn": 3}
    first, second = (list(read_parquet(tmp_path / f"out{order}/documents.parquet")) for order in (1, 2))
    assert first == second
    sample(SampleSettings(per_domain=20, seed=4), [crawl(tmp_path / "crawl1", 1)], None, tmp_path / "out4")
    other = list(read_parquet(tmp_path / "out4/documents.parquet"))
    assert {document.id for document in other} != {document.id for document in first}


def test_a_larger_sample_holds_the_smaller(tmp_path):
    source = crawl(tmp_path / "crawl")
    drawn = []
    for size in (10, 30):
        sample(SampleSettings(per_domain=size), [source], ["news"], tmp_path / str(size))
        drawn.append([document.id for document in read_parquet(tmp_path / str(size) / "documents.parquet")])
    assert drawn[1][:10] == drawn[0]


def test_every_document_has_the_same_chance():
    """Over 400 seeds each of 60 documents is drawn Binomial(400, 1/4) times; a |z| of 4.5 has odds of 1 in 2,500."""
    documents = [Document(f"{i}", "text", "", "one") for i in range(60)]
    counts = np.zeros(60)
    for seed in range(400):
        drawn = StratifiedSample(15, seed)
        for document in documents:
            drawn.add(document)
        counts[[int(document.id) for document in drawn.documents()]] += 1
    assert counts.sum() == 400 * 15
    z = (counts - 100) / math.sqrt(400 * 0.25 * 0.75)
    assert np.abs(z).max() < 4.5
    # Drawing without replacement from 60 takes 1/60 off the variance.
    assert 0.6 < z.var() / (60 / 59) < 1.5


def test_repeated_documents_are_drawn_once(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "same", "domain": "x"}\n' * 5 + '{"text": "other", "domain": "x"}\n')
    report = sample(SampleSettings(), [DocumentSource(str(tmp_path / "a.jsonl"))], None, tmp_path / "out")
    assert (report.read, report.written, report.reasons) == (6, 2, {"repeated": 4})


def test_a_finished_stage_is_not_worked_on_again(tmp_path):
    source, settings = crawl(tmp_path / "crawl"), SampleSettings(per_domain=5)
    sample(settings, [source], None, tmp_path / "out")
    path = tmp_path / "out/documents.parquet"
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    assert sample(settings, [source], None, tmp_path / "out").written == 13
    assert path.stat().st_mtime_ns == written
    path.write_bytes(b"cut")
    assert sample(settings, [source], None, tmp_path / "out").written == 13
    assert path.read_bytes() == whole
    (tmp_path / "crawl/3.jsonl").write_text('{"text": "new page", "domain": "new"}\n')
    assert sample(settings, [source], None, tmp_path / "out").written == 14
    assert len(list(read_parquet(path))) == 14


def test_nothing_to_draw_from(tmp_path):
    told = r"selected are nowhere, the documents are of hobby, news, rare: delete the folder of the stage `select`"
    with pytest.raises(ValueError, match=told):
        sample(SampleSettings(), [crawl(tmp_path / "crawl")], ["nowhere"], tmp_path / "out")
    assert not (tmp_path / "out/report.json").exists()


class ByNumber:
    """Labels the pages of a domain "shop" up to a number, and fails on page 2."""

    name, key, trouble, max_failed_share = "by number", "by number", None, 1.0

    def __init__(self, **shop_pages: int) -> None:
        self.shop_pages = shop_pages

    def figures(self):
        return {"cost": 1}

    def label(self, documents):
        for document in documents:
            number = int(document.text.rpartition(" ")[2])
            if number == 2:
                yield Failure(document.id, "refusal", "no")
            else:
                label = "shop" if number < self.shop_pages.get(document.domain, 0) else "general"
                yield Label(document.id, label, 1.0, "", self.name)


def wilson(successes: int, total: int) -> tuple[float, float]:
    """Written out again, for the figures in the file."""
    z, p = 1.959963984540054, successes / total
    centre, reach = p + z * z / (2 * total), z * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return (centre - reach) / (1 + z * z / total), (centre + reach) / (1 + z * z / total)


def test_shares_are_counted_and_domains_picked(tmp_path):
    labeller = ByNumber(hobby=21, news=31)
    report = select(SelectSettings(per_domain=1000), ECOMMERCE, [crawl(tmp_path / "c")], labeller, tmp_path / "out")
    rows = {row["domain"]: row for row in json.loads((tmp_path / "out/domains.json").read_text())["domains"]}
    assert (report.read, report.written, report.reasons, report.lost) == (343, 340, {"refusal": 3}, 0)
    assert report.details["cost"] == 1
    for domain, in_domain, labelled in (("hobby", 20, 39), ("news", 30, 299), ("rare", 0, 2)):
        row = rows[domain]
        assert (row["seen"], row["sampled"], row["labelled"]) == (DOMAINS[domain], DOMAINS[domain], labelled)
        assert (row["in_domain"], row["share"]) == (in_domain, pytest.approx(in_domain / labelled, abs=1e-6))
        low, high = wilson(in_domain, labelled)
        assert (row["low"], row["high"]) == (pytest.approx(max(low, 0), abs=1e-6), pytest.approx(high, abs=1e-6))
    assert report.details["picked"] == ["hobby", "news"]
    assert picked_domains(tmp_path / "out") == ["hobby", "news"]


def test_the_sample_is_counted_once_for_all_domains(tmp_path, monkeypatch):
    """Counting it for each took 14 s with 4,000 domains."""
    counted, sizes = [], StratifiedSample.sizes
    monkeypatch.setattr(StratifiedSample, "sizes", lambda self: counted.append(self) or sizes(self))
    select(SelectSettings(), ECOMMERCE, [crawl(tmp_path / "c")], ByNumber(hobby=21, news=31), tmp_path / "out")
    assert len(counted) < len(DOMAINS)


def test_rules_of_picking(tmp_path):
    source, labeller = crawl(tmp_path / "crawl"), ByNumber(hobby=21, news=31, rare=2)
    for number, (changes, picked) in enumerate(
        [
            ({"min_share": 0.2}, ["rare", "hobby"]),
            ({"min_share": 0.2, "judge_by": "low"}, ["rare", "hobby"]),
            ({"min_share": 0.35, "judge_by": "low"}, ["hobby"]),  # two of two pages prove little
            ({"min_share": 0.2, "exclude": ["rare"]}, ["hobby"]),
            ({"min_share": 0.9, "include": ["news"]}, ["rare", "news"]),
        ]
    ):
        settings = SelectSettings(per_domain=1000, **changes)
        assert select(settings, ECOMMERCE, [source], labeller, tmp_path / f"{number}").details["picked"] == picked
    with pytest.raises(ValueError, match=r"no domain reaches min_share=0\.9"):
        select(SelectSettings(min_share=0.9), ECOMMERCE, [source], ByNumber(), tmp_path / "none")
    with pytest.raises(ValueError, match="include names 'sports'"):
        select(SelectSettings(include=["sports"]), ECOMMERCE, [source], labeller, tmp_path / "wrong")
    assert not (tmp_path / "none/report.json").exists()
    with pytest.raises(FileNotFoundError, match="run the stage `select` first"):
        picked_domains(tmp_path / "none")


def test_selection_samples_each_domain(tmp_path):
    report = select(
        SelectSettings(per_domain=7, min_share=0.0), ECOMMERCE, [crawl(tmp_path / "c")], KeywordLabeller(ECOMMERCE),
        tmp_path / "out",
    )  # fmt: skip
    assert (report.written, report.reasons) == (17, {"not_drawn": 326})
    assert report.lost == 0
