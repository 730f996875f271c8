from __future__ import annotations

import logging
import math
from datetime import UTC, datetime

import pytest
from datasets import Dataset

from rexbert_hf.catalog import SEARCH_EVENT, load_sample, split_of
from rexbert_hf.retrieval.pairs.events import _Counter, count_events
from rexbert_hf.retrieval.pairs.graded import Grades, read_grades
from rexbert_hf.retrieval.pairs.query_split import QuerySplit, moment_of
from rexbert_hf.retrieval.pairs.settings import RecordSource, SplitSettings
from rexbert_hf.retrieval.pairs.weak import Rule, label_weakly

ALL = QuerySplit(held_out=0)
PRODUCTS = ["a", "b", "c", "d", "e"]
NEVER = 2**31 - 1
"""The position of what was not shown."""


def event(query, shown, clicked="", bought="", day=1):
    """Products are single letters; `x` and `y` are in no catalogue."""
    lists = {"shown": list(shown), "clicked": list(clicked), "bought": list(bought)}
    return {"query": query, **lists, "language": "en", "country": "US", "time": datetime(2026, 3, day)}


LOG = [
    event("Red Mug", "abc", clicked="b", bought="b"),
    event("red  mug", "bcd", clicked="d"),
    event("RED MUG", "cab"),  # c at position 1
    event("red mug", "xc"),
    event("lamp", "axe", clicked="xe", bought="x"),
    event("lamp", "aa"),
    event("  ", "abc"),
    event("lamp", ""),
]


def table(counts):
    rows = zip(
        counts.query.tolist(), counts.product.tolist(), counts.shown.tolist(), counts.clicks.tolist(),
        counts.purchases.tolist(), counts.position.tolist(), counts.touched.tolist(), strict=True,
    )  # fmt: skip
    return {(counts.queries[q], PRODUCTS[p]): tuple(rest) for q, p, *rest in rows}


def test_every_count_of_a_small_log():
    counts = count_events(LOG, PRODUCTS, ALL)
    assert table(counts) == {
        # shown, clicks, purchases, best position, ever touched
        ("Red Mug", "a"): (2, 0, 0, 1, False),
        ("Red Mug", "b"): (3, 1, 1, 1, True),
        ("Red Mug", "c"): (4, 0, 0, 1, False),
        ("Red Mug", "d"): (1, 1, 0, 3, True),
        ("lamp", "a"): (2, 0, 0, 1, False),
        ("lamp", "e"): (1, 1, 0, 3, True),
    }
    assert counts.report == {
        "events": 8,
        "events_without_query": 1,
        "events_too_long": 0,
        "events_without_time": 0,
        "events_outside_period": 0,
        "unknown_mentions": 2,
        "unknown_products": 1,
        "queries": 2,
        "pairs": 6,
    }


def test_groups_of_a_small_log():
    groups = {group.query: group for group in count_events(LOG, PRODUCTS, ALL).groups()}
    mug, lamp = groups["Red Mug"], groups["lamp"]
    assert (mug.positives.tolist(), mug.hard.tolist(), mug.known.tolist()) == ([1], [0, 2], [0, 1, 2, 3])
    assert (lamp.positives.tolist(), lamp.hard.tolist(), lamp.known.tolist()) == ([], [0], [0, 4])
    assert (mug.neither.tolist(), lamp.neither.tolist()) == ([3], [4]), "clicked and not bought"


def test_adding_up_in_parts_changes_nothing(monkeypatch):
    whole = count_events(LOG * 5, PRODUCTS, ALL)
    monkeypatch.setattr("rexbert_hf.retrieval.pairs.events._BUFFERED", 3)
    parts = count_events(LOG * 5, PRODUCTS, ALL)
    assert table(whole) == table(parts)
    assert whole.shown.sum() == 5 * 13


def test_a_product_bought_once_is_never_a_negative():
    log = [event("mug", "ab", clicked="a", bought="a"), *[event("mug", "ab")] * 50]
    (group,) = count_events(log, PRODUCTS, ALL).groups()
    assert (group.positives.tolist(), group.hard.tolist()) == ([0], [1])


def test_time_parts_training_from_the_rest():
    queries = [f"query {n}" for n in range(200)]
    split = QuerySplit(held_out=0.4, train_until=datetime(2026, 3, 10))
    early = [event(query, "ab", clicked="a", bought="a", day=2) for query in queries]
    late = [event(query, "abc", clicked="c", bought="c", day=20) for query in queries]
    counts = count_events([*early, *late], PRODUCTS, split)
    seen = set()
    for group in counts.groups():
        assert group.split == split_of(group.query, 0.4)
        seen.add(group.split)
        # What was bought outside the period is no positive, and no negative either.
        wanted = ([0], [1]) if group.split == "train" else ([2], [1])
        assert (group.positives.tolist(), group.hard.tolist()) == wanted
        assert group.neither.tolist() == [2 if group.split == "train" else 0]
    assert seen == {"train", "validation", "test"}
    assert counts.report["events_outside_period"] == 200


def test_events_without_time_count_only_where_time_decides():
    log = [{**event("mug", "ab"), "time": None}]
    assert len(count_events(log, PRODUCTS, ALL)) == 2
    with pytest.raises(ValueError, match="no pair of a query and a known product"):
        count_events(log, PRODUCTS, QuerySplit(0, train_until=datetime(2026, 3, 10)))


def test_what_was_shown_outside_the_period_only_is_known_and_labelled_by_no_rule():
    split = QuerySplit(held_out=0, train_until=datetime(2026, 3, 10))
    log = [event("mug", "ab", clicked="a", bought="a", day=2), event("mug", "ac", clicked="a", day=20)]
    counts = count_events(log, PRODUCTS, split)
    (group,) = counts.groups()
    assert (group.positives.tolist(), group.hard.tolist(), group.known.tolist()) == ([0], [1], [0, 1, 2])
    assert table(counts)["mug", "c"][:3] == (0, 0, 0)
    assert table(counts)["mug", "a"][:3] == (1, 1, 1)
    label = label_weakly(counts, [Rule(min_purchases=1)], [Rule(untouched=True), Rule(max_click_rate=0.0)])
    assert label.tolist() == [1, 0, -1]


def forms_by_split():
    """Two forms of one query: by the published rule training sees the first, and the second is a test query."""
    split = QuerySplit(rule="sha1_mod_10", train_until=datetime(2026, 3, 10))
    forms = [f"red{' ' * n}mug" for n in range(1, 30)]
    parts = [split.of(form) for form in forms]
    return split, forms[parts.index("train")], forms[parts.index("test")]


@pytest.mark.parametrize("buffered", [1, 1 << 20])
@pytest.mark.parametrize("held_out_at", [0, 2, 4])
def test_a_form_that_is_held_out_moves_what_was_counted_before(held_out_at, buffered, monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.pairs.events._BUFFERED", buffered)
    split, first, second = forms_by_split()
    log = [
        event(first, "ab", clicked="a", bought="a", day=2),
        event(first, "cb", clicked="c", bought="c", day=20),
        event(first, "cd", clicked="c", day=21),
        event(first, "ad", day=3),
    ]
    log.insert(held_out_at, event(second, "e", day=4))
    other = [event("lamp", "ab", clicked="a", bought="a", day=2), event("lamp", "ac", clicked="c", day=20)]
    assert split.of("lamp") == "train", "another example is needed"
    counts = count_events(iter([other[0], *log, other[1]]), PRODUCTS, split)
    found = {key[1]: rest for key, rest in table(counts).items() if key[0] != "lamp"}
    assert found == {  # what happened from March 10 on, whenever it was read
        "a": (0, 0, 0, NEVER, True),
        "b": (1, 0, 0, 2, False),
        "c": (2, 2, 1, 1, True),
        "d": (1, 0, 0, 2, False),
        "e": (0, 0, 0, NEVER, False),
    }
    assert {key[1]: rest for key, rest in table(counts).items() if key[0] == "lamp"} == {
        "a": (1, 1, 1, 1, True),
        "b": (1, 0, 0, 2, False),
        "c": (0, 0, 0, NEVER, True),
    }
    mug = next(group for group in counts.groups() if group.query != "lamp")
    assert (mug.split, mug.positives.tolist(), mug.hard.tolist()) == ("test", [2], [1, 3])
    assert counts.report["events_outside_period"] == 3 + 1
    assert counts.nbytes - counts.splits.nbytes == 25 * len(counts)


def test_a_count_waits_in_a_few_bytes():
    counter = _Counter(PRODUCTS, ALL, 64)
    for _ in range(10):
        counter.add(event("mug", "abcde", clicked="b", bought="b"))
    assert sum(len(column) * column.itemsize for column in (counter.keys, counter.positions, counter.marks)) == 50 * 13


EARLY, LATE = (datetime(2026, month, 1, tzinfo=UTC) for month in (4, 6))
TIMES = {
    "datetime": lambda time: time.replace(tzinfo=None),
    "zone": lambda time: time,
    "ISO text": lambda time: time.isoformat(),
    "ISO date": lambda time: f"{time:%Y%m%d}",
    "date": lambda time: time.date(),
    "seconds": lambda time: int(time.timestamp()),
    "milliseconds": lambda time: int(time.timestamp() * 1000),
    "digits": lambda time: int(f"{time:%Y%m%d%H%M%S}"),
}


@pytest.mark.parametrize("until", ["2026-05-01", "2026-05-01T00:00:00+02:00"])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", TIMES)
def test_a_log_may_write_its_times_in_any_of_these_ways(tmp_path, kind, mapped, until):
    rows = [{**event("mug", p, bought=p), "time": TIMES[kind](time)} for p, time in (("a", EARLY), ("b", LATE))]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "log.parquet"))
    columns = {name: name for name in ("query", "shown", "clicked", "bought", "time")} if mapped else None
    log = RecordSource(path=str(tmp_path / "log.parquet"), columns=columns).read("events", ("query",), tmp_path)
    split = SplitSettings(held_out=0.0, train_until=until).resolved()
    (group,) = count_events(log, PRODUCTS, split).groups()
    assert group.positives.tolist() == [0], "what was bought later is for other splits"


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("write", [str, int, float, lambda number: f" {number} ", lambda number: f"{number}.0"])
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (20260501120000, NOON),
        (202605011200, NOON),
        (20260501, NOON.replace(hour=0)),
        *((int(NOON.timestamp()) * 1000**finer, NOON) for finer in range(4)),
        (915148800000, datetime(1999, 1, 1, tzinfo=UTC)),  # twelve digits, in milliseconds
        (2026, datetime(1970, 1, 1, 0, 33, 46, tzinfo=UTC)),
    ],
)
def test_digits_are_a_date_where_they_say_one_and_else_a_unix_time(number, expected, write):
    assert moment_of(write(number)) == expected


@pytest.mark.parametrize("number", [20261301120000, "20260501996000", 7_300_000_000, 99991231235959, math.inf])
def test_digits_of_no_log_are_refused(number):
    with pytest.raises(ValueError, match=f"time '?{number}'? is no moment: give ISO text, a date or a Unix time"):
        moment_of(number)


def test_a_time_that_is_none_is_named():
    split = QuerySplit(0, train_until=EARLY)
    with pytest.raises(ValueError, match="event 1: time 'yesterday' is no moment: give ISO text"):
        count_events([event("mug", "a"), {**event("mug", "a"), "time": "yesterday"}], PRODUCTS, split)


def test_the_published_split_of_home_depot():
    import hashlib

    split = QuerySplit(rule="sha1_mod_10")
    for query in ("angle bracket", "Angle bracket", "l bracket", "deck over", "shower only faucet"):
        digit = int(hashlib.sha1(query.encode()).hexdigest(), 16) % 10
        assert split.of(query) == ("test" if digit < 2 else "validation" if digit == 2 else "train")


def test_unknown_products_and_long_queries_are_reported_once(caplog):
    log = [event("mug", "axy"), event("mug", "ax"), event("word " * 10_000, "ab"), event("mug", "a")]
    with caplog.at_level(logging.WARNING):
        counts = count_events(log, PRODUCTS, ALL)
    assert counts.report["unknown_mentions"] == 3
    assert counts.report["unknown_products"] == 2
    assert counts.report["events_too_long"] == 1
    assert len(caplog.records) == 1
    assert "3 unknown mentions" in caplog.text


def test_a_dataset_gives_what_its_rows_give():
    rows = [event("mug", "ab", "a", "a"), event("lamp", "cd")]
    dataset = Dataset.from_list(rows, features=SEARCH_EVENT)
    assert table(count_events(dataset, PRODUCTS, ALL)) == table(count_events(rows, PRODUCTS, ALL))


def test_the_sample_log_against_plain_python():
    events, ids = load_sample("events", size=100), load_sample("products", size=100)["product_id"][:]
    counts = count_events(events, ids, ALL)
    expected = {}
    for row in events:
        for product in row["shown"]:
            entry = expected.setdefault((" ".join(row["query"].split()).casefold(), product), [0, 0, 0])
            for i, name in enumerate(("shown", "clicked", "bought")):
                entry[i] += product in row[name]
    found = {
        (counts.queries[q].casefold(), ids[p]): [s, c, b]
        for q, p, s, c, b in zip(
            counts.query.tolist(), counts.product.tolist(), counts.shown.tolist(), counts.clicks.tolist(),
            counts.purchases.tolist(), strict=True,
        )
    }  # fmt: skip
    assert found == expected
    assert counts.nbytes - counts.splits.nbytes == 25 * len(counts)


@pytest.mark.parametrize(
    ("log", "ids", "problem"),
    [
        ([event("mug", "xy")], PRODUCTS, r"no pair .* \(1 events, 2 unknown mentions, 2 unknown products such as 'x'"),
        ([], PRODUCTS, "no pair of a query and a known product"),
        ([{"query": "mug", "shown": 3}], PRODUCTS, "event 0: TypeError"),
        ([event("mug", "a"), {"query": "mug"}], PRODUCTS, "event 1: KeyError: 'shown'"),
        ([event("mug", "a")], ["a", "b", "a"], "row 2 of the products: the id 'a' stands in row 0 already"),
    ],
)
def test_bad_logs(log, ids, problem):
    with pytest.raises(ValueError, match=problem):
        count_events(log, ids, ALL)


def test_bad_split():
    with pytest.raises(ValueError, match="held_out is a share"):
        QuerySplit(held_out=1.0)


def test_ids_that_pandas_wrote_as_floats_meet_those_of_the_catalogue(caplog):
    log = [
        {"query": "mug", "shown": ["1", "2", "3"], "clicked": ["2.0"], "bought": ["2.0"]},
        {"query": "mug", "shown": ["2.0", "9.0", "4.0"], "clicked": [], "bought": []},
    ]
    counts = count_events(log, ["1", "2", "3", "4", "4.0"], ALL)
    assert list(zip(counts.product, counts.shown, counts.clicks, counts.purchases, strict=True)) == [
        (0, 1, 0, 0),
        (1, 2, 1, 1),
        (2, 1, 0, 0),
        (4, 1, 0, 0),  # an id of the catalogue stays what it is
    ]
    assert counts.position.tolist() == [1, 1, 3, 3]
    assert "1 unknown products such as '9.0' where the catalogue has '1'" in caplog.text


def test_an_id_that_is_no_number_is_an_unknown_product():
    log = [{"query": "mug", "shown": ["1", math.nan, "2.0"], "clicked": [], "bought": []}]
    counts = count_events(log, ["1", "2"], ALL)
    assert counts.product.tolist() == [0, 1]
    assert counts.report["unknown_mentions"] == 1


def test_only_a_number_loses_the_end_that_pandas_wrote():
    log = [{"query": "mug", "shown": ["2.0", "v1.0", "MODEL-2.0"], "clicked": [], "bought": []}]
    counts = count_events(log, ["2", "v1", "MODEL-2"], ALL)
    assert counts.product.tolist() == [0]
    assert counts.report["unknown_products"] == 2


def test_unknown_ids_are_named_beside_one_of_the_catalogue():
    log = [{"query": "mug", "shown": ["116309", "116310", "116311"], "clicked": [], "bought": []}]
    with pytest.raises(ValueError, match="no pair of a query and a known product") as error:
        count_events(log, ["00116309", "00116310"], ALL)
    assert "3 unknown products such as '116309', '116310' where the catalogue has '00116309')" in str(error.value)
    judged = [{"query": "mug", "product_id": name, "relevance": 3.0} for name in ("7.0", "8", "9", "10")]
    with pytest.raises(ValueError, match="no judgement") as error:
        read_grades(judged, ["007", "008"], Grades(), ALL)
    assert "products such as '7.0', '8' where the catalogue has '007'" in str(error.value)
    pairs, _ = read_grades(judged, ["7"], Grades(), ALL)
    assert [pair.product for pair in pairs] == [0]
