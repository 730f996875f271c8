from __future__ import annotations

import csv
import hashlib
import logging
import math

import pytest
from test_event_counts import ALL, PRODUCTS, event

from rexbert_hf.retrieval.pairs.events import count_events
from rexbert_hf.retrieval.pairs.graded import Grades, graded_groups, read_grades
from rexbert_hf.retrieval.pairs.query_split import QuerySplit
from rexbert_hf.retrieval.pairs.weak import (
    AuditSample,
    Rule,
    audit_pairs,
    csv_judge,
    graded_judge,
    label_weakly,
    thin_out,
    write_audit_sample,
)

LOG = [
    event("mug", "abcde", clicked="ab", bought="a"),
    event("mug", "bacde", clicked="b"),
    event("mug", "ecbda"),
]
# shown 3 each; clicks a 1, b 2; purchases a 1; best positions a 1, b 1, c 2, d 4, e 1


def labelled(relevant, irrelevant=()):
    return "".join(
        str(x) if x >= 0 else "." for x in label_weakly(count_events(LOG, PRODUCTS, ALL), relevant, irrelevant)
    )


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([Rule(min_purchases=1)], "1...."),
        ([Rule(min_clicks=2)], ".1..."),
        ([Rule(min_purchases=1), Rule(min_clicks=2)], "11..."),
        ([Rule(min_clicks=1, min_click_rate=0.5)], ".1..."),
        ([Rule(max_clicks=1, min_clicks=1)], "1...."),
        ([Rule(max_position=1)], "11..1"),
        ([Rule(min_shown=4)], "....."),
        ([Rule(max_click_rate=0.0)], "..111"),
        ([Rule(untouched=True, max_position=2)], "..1.1"),
    ],
)
def test_conditions_of_a_rule_hold_together_and_rules_apart(rules, expected):
    assert labelled(rules) == expected


def test_relevant_rules_overrule():
    assert labelled([Rule(min_purchases=1)], [Rule(max_position=2)]) == "100.0"


def test_a_rule_without_condition_and_no_rule():
    with pytest.raises(ValueError, match="without a condition"):
        Rule()
    with pytest.raises(ValueError, match="no rule says what is relevant"):
        labelled([])


def test_thinning_meets_the_share():
    log = [event(f"query {n}", "abcde", clicked="a", bought="a") for n in range(1000)]
    counts = count_events(log, PRODUCTS, ALL)
    label = label_weakly(counts, [Rule(min_purchases=1)], [Rule(untouched=True)])
    assert (label == 0).sum() == 4000
    thin = thin_out(counts, label, 0.2)
    assert ((thin == 1) == (label == 1)).all()
    # 250 of 4,000 are kept in expectation.
    assert abs((thin == 0).sum() - 250) < 5 * math.sqrt(250)
    assert (thin_out(counts, label, 0.2) == thin).all()
    assert (thin_out(counts, label, 0.9) == label).all(), "there are not that many"


def test_audit_estimates_and_warns(caplog):
    sample = [("mug", str(n)) for n in range(100)]
    with caplog.at_level(logging.WARNING):
        good = audit_pairs(sample, lambda query, product: int(product) < 85)
    assert (good.judged, good.relevant, good.share) == (100, 85, 0.85)
    assert good.low == pytest.approx(0.7672, abs=1e-4)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        poor = audit_pairs(sample, lambda query, product: None if int(product) < 50 else int(product) < 85)
    assert (poor.judged, poor.relevant) == (50, 35)
    assert "only 70.0% of 50 judged pairs are relevant" in caplog.text
    assert audit_pairs(sample, lambda query, product: None).share is None


@pytest.mark.parametrize("judge", [None, lambda query, product: None if product == "p3" else product == "p1"])
def test_the_sample_is_that_of_least_hashes_and_nothing_else_is_kept(judge):
    pairs = [(f"query {query}", f"p{product}", product) for query in range(50) for product in range(7)]
    sample = AuditSample(40, seed=5, judge=judge)
    for query, product, number in pairs:
        sample.add(query, product, number)
        assert len(sample.pairs) <= 40
    judged = [pair for pair in pairs if judge is None or judge(*pair[:2]) is not None]
    hashed = sorted(judged, key=lambda pair: hashlib.sha1(f"5 {pair[0]} {pair[1]}".encode()).digest())
    assert sample.pairs == hashed[:40]
    assert sample.passed == len(pairs)
    assert AuditSample(0, seed=5, judge=judge).pairs == []


def test_a_persons_file(tmp_path):
    path = tmp_path / "audit.csv"
    write_audit_sample(path, [("red mug", "a"), ("lamp", "b"), ("lamp", "c")], ["Mug, red", 'A "lamp"', "C"])
    lines = path.read_text().splitlines()
    assert lines[0] == "query,product_id,title,relevant"
    path.write_text("\n".join([lines[0], lines[1] + "yes", lines[2] + "0", lines[3]]))
    judge = csv_judge(path)
    assert [judge("Red  Mug", "a"), judge("lamp", "b"), judge("lamp", "c"), judge("x", "y")] == [
        True,
        False,
        None,
        None,
    ]
    path.write_text("query,product_id,relevant\nmug,a,maybe\n")
    with pytest.raises(ValueError, match=r"audit.csv, line 2: relevant is 1 or 0, got 'maybe'"):
        csv_judge(path)
    path.write_text("query,product\n")
    with pytest.raises(ValueError, match="no column product_id, relevant"):
        csv_judge(path)
    with pytest.raises(FileNotFoundError, match="no such audit file"):
        csv_judge(tmp_path / "absent.csv")
    path.write_bytes("query,product_id,relevant\ncaf\u00e9,a,1\n".encode("cp1252"))
    with pytest.raises(ValueError, match=r"audit.csv is not UTF-8: save it as UTF-8"):
        csv_judge(path)


def test_long_cells_of_a_persons_file_are_read_where_the_limit_has_32_bits(tmp_path, monkeypatch):
    stock = csv.field_size_limit

    def on_windows(*limit):
        if limit and limit[0] >= 1 << 31:
            raise OverflowError("Python int too large to convert to C long")
        return stock(*limit)

    before = stock(128 << 10)
    monkeypatch.setattr(csv, "field_size_limit", on_windows)
    path = tmp_path / "audit.csv"
    path.write_text(f"query,product_id,title,relevant\nmug,a,{'long ' * 40_000},1\n")
    try:
        assert csv_judge(path)("mug", "a") is True
    finally:
        stock(before)


def test_answers_of_an_earlier_sample_stay(tmp_path):
    path = tmp_path / "audit_sample.csv"
    write_audit_sample(path, [("red mug", "a"), ("lamp", "b"), ("pot", "c")], ["Mug", "Lamp", "Pot"])
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1] + "yes", lines[2], lines[3] + "0"]))
    write_audit_sample(path, [("lamp", "b"), ("Red  mug", "a"), ("pan", "d")], ["Lamp", "Mug", "Pan"])
    assert path.read_text().splitlines()[1:] == ["lamp,b,Lamp,", "Red  mug,a,Mug,yes", "pan,d,Pan,", "pot,c,Pot,0"]
    assert [other.name for other in tmp_path.iterdir()] == [path.name]
    path.write_text("query;product_id;title;relevant\nlamp;b;Lamp;1\n")
    with pytest.raises(
        ValueError, match=r"audit_sample.csv: an earlier sample that cannot be read .*move it or mend it"
    ):
        write_audit_sample(path, [("lamp", "b")], ["Lamp"])
    assert path.read_text().endswith("lamp;b;Lamp;1\n")


def test_no_answer_to_a_pair_of_several_rows_is_lost(tmp_path):
    path = tmp_path / "audit_sample.csv"
    header = "query,product_id,title,relevant,remark"
    answers = ["mug,a,Mug,0,", "mug,a,Mug,,why?", "pot,c,Pot,,", "Pot,c,Pot,1,", "lamp,b,Lamp,1,", "lamp,b,Lamp,0,dark"]
    path.write_text("\n".join([header, *answers]))
    judged = [("mug", "a", False), ("pot", "c", True), ("lamp", "b", False)]
    for query, product, answer in judged:
        assert csv_judge(path)(query, product) is answer
    for _ in range(2):
        write_audit_sample(path, [("lamp", "b"), ("mug", "a")], ["New lamp", "Mug"])
        lamp = [
            "lamp,b,Lamp,1,",
            "lamp,b,New lamp,0,dark",
        ]  # of two answers the last one counts: it is the sample's row
        assert path.read_text().splitlines() == [header, *lamp, "mug,a,Mug,0,why?", "Pot,c,Pot,1,"]
        for query, product, answer in judged:
            assert csv_judge(path)(query, product) is answer


def test_a_remark_below_an_answer_does_not_take_its_place(tmp_path):
    path = tmp_path / "audit_sample.csv"
    header = "query,product_id,title,relevant,remark"
    path.write_text("\n".join([header, "mug,a,Mug,1,sure", "mug,a,Mug,,later", "pot,c,Pot,,one", "pot,c,Pot,,two"]))
    for _ in range(2):
        write_audit_sample(path, [("mug", "a"), ("pot", "c")], ["New mug", "New pot"])
        rows = ["mug,a,Mug,,later", "mug,a,New mug,1,sure", "pot,c,Pot,,one", "pot,c,New pot,,two"]
        assert path.read_text().splitlines() == [header, *rows]
        assert csv_judge(path)("mug", "a") is True


HOME_DEPOT = [
    {"query": "angle bracket", "product_id": "a", "relevance": 3.0},
    {"query": "Angle  bracket", "product_id": "b", "relevance": 2.33},
    {"query": "angle bracket", "product_id": "c", "relevance": 1.0},
    {"query": "angle bracket", "product_id": "x", "relevance": 3.0},
    {"query": "", "product_id": "a", "relevance": 3.0},
    {"query": "deck", "product_id": "a", "relevance": 2.0},
]


def test_graded_files_become_the_same_groups():
    pairs, report = read_grades(HOME_DEPOT, PRODUCTS, Grades(), ALL)
    groups = {group.query: group for group in graded_groups(pairs)}
    bracket, deck = groups["angle bracket"], groups["deck"]
    assert (bracket.positives.tolist(), bracket.hard.tolist()) == ([0, 1], [2])
    assert (deck.positives.tolist(), deck.hard.tolist()) == ([], [0])
    assert (report["judgements"], report["unknown_mentions"], report["without_query"], report["pairs"]) == (6, 1, 1, 4)


def test_a_grade_between_the_two_is_neither():
    pairs, _ = read_grades(HOME_DEPOT, PRODUCTS, Grades(hard_below=1.5), ALL)
    groups = {group.query: group for group in graded_groups(pairs)}
    assert [groups["deck"].hard.tolist(), groups["deck"].neither.tolist()] == [[], [0]]
    assert (groups["angle bracket"].hard.tolist(), groups["angle bracket"].neither.tolist()) == ([2], [])


def test_graded_queries_that_are_pasted_pages_are_left_out(caplog):
    rows = [*HOME_DEPOT, {"query": "word " * 9, "product_id": "a", "relevance": 3.0}]
    assert read_grades(rows, PRODUCTS, Grades(), ALL)[1]["pairs"] == 5
    with caplog.at_level(logging.WARNING):
        pairs, report = read_grades(rows, PRODUCTS, Grades(), ALL, max_query_words=8)
    assert (report["too_long"], report["pairs"], len(pairs)) == (1, 4, 4)
    assert "too long" in caplog.text


def test_an_audit_with_odd_judgements_names_the_row(caplog):
    rows = [{"query": None, "product_id": "a", "label": "E"}, {"query": "mug", "product_id": "a", "label": "E"}]
    with caplog.at_level(logging.WARNING):
        judge = graded_judge(rows, Grades().is_relevant)
    assert judge("mug", "a") is True
    assert "1 judgements of the audit have no query" in caplog.text
    with pytest.raises(ValueError, match=r"judgement 2 \(query 'pot'\): unknown label 'Q'"):
        graded_judge([*rows, {"query": "pot", "product_id": "a", "label": "Q"}], Grades().is_relevant)


def test_a_query_in_two_forms_is_where_it_is_held_out_more():
    """By the hash of the text as it stands "deck" and "deck " differ; none of them may be trained on."""
    split = QuerySplit(rule="sha1_mod_10")
    query = next(f"deck {n}" for n in range(99) if {split.of(f"deck {n}"), split.of(f"deck {n} ")} == {"train", "test"})
    rows = [{"query": form, "product_id": p, "label": "E"} for form, p in ((query, "a"), (query + " ", "b"))]
    for order in (rows, rows[::-1]):
        pairs, _ = read_grades(order, PRODUCTS, Grades(), split)
        assert {pair.split for pair in pairs} == {"test"}
        log = [event(row["query"], row["product_id"]) for row in order]
        assert {group.split for group in count_events(log, PRODUCTS, split).groups()} == {"test"}


def test_letters():
    rows = [
        {"query": "mug", "product_id": p, "label": x}
        for p, x in zip("abcd", ("E", "Substitute", "C", "I"), strict=True)
    ]
    pairs, _ = read_grades(rows, PRODUCTS, Grades(positive=("E",), hard=("S", "I")), ALL)
    assert [pair.label for pair in pairs] == [1, 0, None, 0]
    assert [pair.relevant for pair in pairs] == [True, True, False, False]
    (group,) = graded_groups(pairs)
    assert (group.positives.tolist(), group.hard.tolist(), group.known.tolist()) == ([0], [1, 3], [0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"judgement 0 \(query 'mug'\): unknown label 'Q'"):
        read_grades([{"query": "mug", "product_id": "a", "label": "Q"}], PRODUCTS, Grades(), ALL)
    with pytest.raises(ValueError, match="neither a label nor a relevance"):
        read_grades([{"query": "mug", "product_id": "a"}], PRODUCTS, Grades(), ALL)
    with pytest.raises(ValueError, match="positive and a hard negative at once"):
        Grades(positive=("E", "S"), hard=("S",))
    judge = graded_judge(rows, Grades().is_relevant)
    assert judge("MUG", "b") is True


def test_columns_that_a_person_added_to_a_sample_stay(tmp_path):
    path = tmp_path / "audit_sample.csv"
    path.write_text(
        "remark,query,product_id,title,relevant,by\n"
        '"wrong, I think",red mug,a,Mug,0,Ann\n'
        ",lamp,b,Lamp,,\n"
        "ask,pot,c,Pot,\n"
        "which?,lid,e,Lid,,Bo,a cell without a header\n"
        ",pan,d,Pan,1,\n"
    )
    write_audit_sample(path, [("lamp", "b"), ("Red mug", "a"), ("lid", "e"), ("cup", "f")], ["Lamp", "Mug", "Lid", "C"])
    assert path.read_text().splitlines() == [
        "query,product_id,title,relevant,remark,by",
        "lamp,b,Lamp,,,",
        'Red mug,a,Mug,0,"wrong, I think",Ann',
        "lid,e,Lid,,which?,Bo,a cell without a header",
        "cup,f,C,,,",
        "pot,c,Pot,,ask,",
        "pan,d,Pan,1,,",
    ]
    before = path.read_bytes()
    write_audit_sample(path, [("lamp", "b"), ("Red mug", "a"), ("lid", "e"), ("cup", "f")], ["Lamp", "Mug", "Lid", "C"])
    assert path.read_bytes() == before
    assert csv_judge(path)("pan", "d") is True


@pytest.mark.parametrize("query", ["=1+1", "-5 freezer", "'=1", "'tis", "@home"])
def test_no_query_is_a_formula_in_the_sample_and_its_answer_is_found(tmp_path, query):
    path = tmp_path / "audit_sample.csv"
    write_audit_sample(path, [(query, "a")], ["=Mug"])
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not rows[0]["query"].startswith(("=", "+", "-", "@"))
    assert rows[0]["title"] == "'=Mug"
    path.write_text(path.read_text(encoding="utf-8").rstrip() + "1\n", encoding="utf-8")
    assert csv_judge(path)(query, "a") is True
    write_audit_sample(path, [(query, "a")], ["=Mug"])  # drawn again: the answer stays
    assert csv_judge(path)(query, "a") is True
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
