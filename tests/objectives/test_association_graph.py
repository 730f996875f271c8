"""The association graph: what it keeps of its input, what it samples, how it is split, saved and pushed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import rexbert_hf
from rexbert_hf.catalog import load_sample
from rexbert_hf.objectives import AssociationGraph

LINE = [("a", "b"), ("b", "c"), ("c", "d")]


def edges(graph):
    return {frozenset((graph.product_ids[i], graph.product_ids[j])) for i, j in graph.pairs()}


def test_the_package_and_the_room_name_it():
    assert rexbert_hf.AssociationGraph is AssociationGraph


def test_pairs_are_undirected_and_counted_once():
    graph = AssociationGraph.from_pairs([("a", "b"), ("b", "a"), ("a", "b"), ("c", "c"), ("b", "c"), ("a", "d")])
    assert edges(graph) == {frozenset("ab"), frozenset("bc"), frozenset("ad")}
    assert (len(graph), graph.num_pairs) == (4, 3)
    assert graph.neighbors("b") == ["a", "c"]
    assert (graph.report.pairs, graph.report.repeated, graph.report.self_loops) == (6, 2, 1)


def test_lists_and_records_are_associations_too():
    lists = AssociationGraph.from_pairs([("a", ["b", "c"]), ("b", []), ("c", None)])
    assert edges(lists) == {frozenset("ab"), frozenset("ac")}
    sample = load_sample("associations", size=200)
    graph = AssociationGraph.from_pairs(sample, load_sample("products", size=200)["product_id"])
    assert graph.report.pairs == len(sample)
    assert graph.num_pairs + graph.report.repeated + graph.report.self_loops == len(sample)
    numbers = AssociationGraph.from_pairs([(1, 2), (2, 3)])
    assert numbers.neighbors(2) == [1, 3]


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=60))
@settings(max_examples=60, deadline=None)
def test_arrays_hold_what_sets_hold(pairs):
    wanted = {frozenset(pair) for pair in pairs if len(set(pair)) == 2}
    if not wanted:
        with pytest.raises(ValueError, match="no association"):
            AssociationGraph.from_pairs(pairs)
        return
    graph = AssociationGraph.from_pairs(pairs)
    assert edges(graph) == wanted
    for product in graph.product_ids:
        near = {next(iter(pair - {product})) for pair in wanted if product in pair}
        assert set(graph.neighbors(product)) == near
        assert graph.degrees[graph.index_of(product)] == len(near)


def test_baskets_give_every_pair_of_a_basket():
    baskets = [["a", "b", "c"], ["b", "a", "a"], ["c", "d"], ["e"]]
    graph = AssociationGraph.from_baskets(baskets)
    assert edges(graph) == {frozenset(pair) for pair in ("ab", "ac", "bc", "cd")}
    assert graph.report.repeated == 1
    often = AssociationGraph.from_baskets(baskets, min_count=2)
    assert edges(often) == {frozenset("ab")}
    assert often.report.rare == 3
    small = AssociationGraph.from_baskets(baskets, max_size=2)
    assert edges(small) == {frozenset("ab"), frozenset("cd")}
    assert small.report.large_baskets == 1


def test_counts_of_pairs_survive_merging(monkeypatch):
    from rexbert_hf.objectives import pair_counts

    rng = np.random.default_rng(0)
    baskets = [list(rng.choice(30, size=6, replace=False).tolist()) for _ in range(200)]
    whole = AssociationGraph.from_baskets(baskets, range(30), min_count=8)
    monkeypatch.setattr(pair_counts, "_MERGE_AT", 50)
    merged = AssociationGraph.from_baskets(baskets, range(30), min_count=8)
    assert np.array_equal(whole.pairs(), merged.pairs())
    assert whole.report == merged.report
    assert 0 < whole.num_pairs < 30 * 29 // 2


def test_unknown_products_are_counted_and_reported_or_an_error(caplog):
    pairs = [("a", "b"), ("a", "stranger"), ("stranger", "other"), ("b", "c")]
    graph = AssociationGraph.from_pairs(pairs, ["a", "b", "c", "d"])
    assert graph.report.unknown == 2
    assert "2 of 4 associations name unknown products" in caplog.text
    assert "stranger" not in graph
    assert graph.neighbors("d") == []
    with pytest.raises(ValueError, match="association 1: 'stranger' is not among the products"):
        AssociationGraph.from_pairs(pairs, ["a", "b", "c", "d"], unknown="raise")
    assert AssociationGraph.from_baskets([["a", "b", "x"]], ["a", "b"]).report.unknown == 1


# Sampling


def test_a_graph_that_cannot_be_written_leaves_the_one_before(tmp_path, monkeypatch):
    before = AssociationGraph.from_pairs([("a", "b"), ("b", "c")])
    before.save(tmp_path)

    def full(table, where, *args, **kwargs):
        Path(where).write_bytes(b"PAR1")
        raise OSError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("rexbert_hf.objectives.association_graph.pq.write_table", full)
        with pytest.raises(OSError, match="no room"):
            AssociationGraph.from_pairs([("x", "y")]).save(tmp_path)
    assert AssociationGraph.load(tmp_path).product_ids == before.product_ids
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2
    (tmp_path / "products" / "train-00001-of-00002.parquet").write_bytes(b"")  # of another layout
    AssociationGraph.from_pairs([("x", "y")]).save(tmp_path)
    assert AssociationGraph.load(tmp_path).product_ids == ["x", "y"]


def test_a_graph_with_columns_of_ones_own_is_read_and_its_columns_are_named_before_they_are_lost(tmp_path):
    AssociationGraph.from_pairs([("a", "b")]).save(tmp_path)
    (file,) = (tmp_path / "associations").glob("*.parquet")
    Dataset.from_dict({"product_a": ["a"], "product_b": ["b"], "bought": [3], "seen": [9]}).to_parquet(file)
    graph = AssociationGraph.load(tmp_path)
    assert graph.num_pairs == 1
    with pytest.raises(FileExistsError, match=r"or move it \(its columns bought, seen would be lost\)$"):
        graph.save(tmp_path)
    assert AssociationGraph.load(tmp_path).num_pairs == 1


@pytest.mark.parametrize("name", ["catalogue.parquet", "train-00000-of-00001.parquet"])
def test_a_folder_with_parquet_files_of_others_is_refused(tmp_path, name):
    (tmp_path / "products").mkdir()
    Dataset.from_dict({"product_id": ["a"], "price": [1.0]}).to_parquet(tmp_path / "products" / name)
    before = (tmp_path / "products" / name).read_bytes()
    with pytest.raises(FileExistsError, match=rf"products/{name} is no file of an association graph: choose another"):
        AssociationGraph.from_pairs([("x", "y")]).save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == {name: before}
    assert not (tmp_path / "associations").exists()


def test_samples_are_uniform_over_neighbours_and_over_unrelated_products():
    graph = AssociationGraph.from_pairs([("a", "b"), ("a", "e"), ("b", "c"), ("d", "f"), ("c", "g")])
    rng = np.random.default_rng(0)
    drawn = [graph.sample("a", rng) for _ in range(6000)]
    near, far = (np.unique([pair[i] for pair in drawn], return_counts=True) for i in range(2))
    assert near[0].tolist() == ["b", "e"]
    assert far[0].tolist() == ["c", "d", "f", "g"]
    # Five standard deviations of a binomial count.
    assert np.abs(near[1] - 3000).max() < 5 * np.sqrt(6000 / 4)
    assert np.abs(far[1] - 1500).max() < 5 * np.sqrt(6000 * 3 / 16)


@given(st.integers(0, 2**32), st.integers(3, 14), st.floats(0.1, 0.9))
@settings(max_examples=60, deadline=None)
def test_what_is_sampled_is_right_in_any_graph(seed, size, density):
    """Every rank leads to another unrelated product: the bisection neither repeats nor skips one."""
    rng = np.random.default_rng(seed)
    pairs = [(i, j) for i in range(size) for j in range(i) if rng.random() < density] or [(0, 1)]
    graph = AssociationGraph.from_pairs(pairs, range(size))

    class Counting:
        def __init__(self, at):
            self.at = at

        def integers(self, n, size=None):
            return self.at % n

    for product in range(size):
        unrelated = set(range(size)) - {product} - set(graph.neighbors(product))
        found = {graph.sample_unrelated(product, Counting(rank)) for rank in range(len(unrelated))}
        assert found == unrelated
        if not unrelated:
            with pytest.raises(ValueError, match="related to all"):
                graph.sample_unrelated(product, rng)


def test_negatives_by_degree_follow_the_neighbours():
    star = [("hub", f"leaf{i}") for i in range(8)] + [("a", "b")]
    graph = AssociationGraph.from_pairs(star, ["hub", *(f"leaf{i}" for i in range(8)), "a", "b", "alone"])
    rng = np.random.default_rng(1)
    far = [graph.sample("a", rng, negatives="degree")[1] for _ in range(4000)]
    assert "alone" not in far
    assert far.count("hub") == pytest.approx(2000, abs=5 * np.sqrt(1000))  # 8 of the 16 half-edges that are not a's
    dense = AssociationGraph.from_pairs([(i, j) for i in range(9) for j in range(i) if (i, j) != (8, 0)])
    assert {dense.sample(0, rng, "degree")[1] for _ in range(50)} == {8}


@pytest.mark.parametrize(
    ("pairs", "products", "product", "error", "message"),
    [
        (LINE, None, "x", KeyError, "'x' is not among the 4 products"),
        (LINE, ["a", "b", "c", "d", "e"], "e", ValueError, "'e' has no neighbours"),
        ([("a", "b"), ("b", "c"), ("a", "c")], None, "a", ValueError, "'a' is related to all 2 others"),
    ],
)
def test_what_cannot_be_sampled_says_so(pairs, products, product, error, message):
    graph = AssociationGraph.from_pairs(pairs, products)
    with pytest.raises(error, match=message):
        graph.sample(product, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([("a", "a")], r"no association of two of the 1 products is left \(1 pairs, 1 self loops\)"),
        ([], "no association of two of the 0 products is left"),
        ([("a",)], r"row 0: \('a',\) is no association"),
        ([("a", "b"), {"left": "a"}], "row 1: .* is no association"),
        ([("a", 1.5)], "row 0: .* is no association"),
        ([("a", [None])], "None is no product id"),
        ([("", "b")], "'' is no product id"),
    ],
)
def test_bad_associations_are_one_line_errors(pairs, message):
    with pytest.raises(ValueError, match=message):
        AssociationGraph.from_pairs(pairs)


def test_other_bad_input():
    with pytest.raises(ValueError, match="1 product ids are given twice"):
        AssociationGraph(["a", "b", "a"], np.array([[0, 1]]))
    with pytest.raises(ValueError, match="got the text 'a b': split it"):
        AssociationGraph.from_baskets(["a b"])
    with pytest.raises(ValueError, match="held_out is a share"):
        AssociationGraph.from_pairs(LINE).split(1.0)


# Parts


def test_split_by_product_keeps_groups_together_and_leaks_nothing():
    rng = np.random.default_rng(0)
    graph = AssociationGraph.from_pairs(
        (f"{a // 2}-{a % 2}", f"{b // 2}-{b % 2}") for a, b in rng.integers(0, 600, (4000, 2))
    )
    train, test = graph.split(0.25, group=lambda product: product.split("-")[0])
    assert not {p.split("-")[0] for p in train.product_ids} & {p.split("-")[0] for p in test.product_ids}
    assert len(train) + len(test) == len(graph)
    assert edges(train) | edges(test) < edges(graph)
    assert len(test) == pytest.approx(150, abs=5 * 2 * np.sqrt(300 * 3 / 16))  # five standard deviations, two a group
    again, _ = AssociationGraph.from_pairs(reversed([tuple(pair) for pair in map(sorted, edges(graph))])).split(
        0.25, group=lambda product: product.split("-")[0]
    )
    assert edges(again) == edges(train)  # whatever the order
    assert edges(graph.split(0.25, seed=1)[0]) != edges(graph.split(0.25)[0])


# Storage


@pytest.mark.parametrize(
    "ids", [["x1", "x2", "x3", "lone", "caf\u00e9"], [10, 20, 30, 40, 50]], ids=["texts", "numbers"]
)
def test_saved_and_loaded(tmp_path, ids):
    graph = AssociationGraph.from_pairs([(ids[0], ids[1]), (ids[1], ids[4]), (ids[4], ids[2])], ids)
    graph.save(tmp_path)
    graph.save(tmp_path)  # over itself
    again = AssociationGraph.load(tmp_path)
    assert again.product_ids == ids
    assert np.array_equal(again.pairs(), graph.pairs())
    rngs = np.random.default_rng(3), np.random.default_rng(3)
    assert [again.sample(ids[1], rngs[0]) for _ in range(5)] == [graph.sample(ids[1], rngs[1]) for _ in range(5)]


def test_a_folder_without_a_graph(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no association graph"):
        AssociationGraph.load(tmp_path)


STOCK_READER = """
import sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "associations", split="train")
assert rows.column_names == ["product_a", "product_b"], rows
print(sorted(rows["product_a"][:] + rows["product_b"][:]))
assert "rexbert_hf" not in sys.modules
"""


PUSH_AND_PULL = """
import sys
from rexbert_hf import AssociationGraph
AssociationGraph.load(sys.argv[1]).push_to_hub(sys.argv[2])
graph = AssociationGraph.load(sys.argv[2])
print(graph.product_ids, graph.pairs().tolist())
"""


def test_pushed_pulled_and_read_by_stock_datasets(hub, tmp_path):
    graph = AssociationGraph.from_pairs(LINE, ["a", "b", "c", "d", "lone"])
    graph.save(tmp_path / "graph")
    environment = hub.environment(tmp_path / "home")

    def run(code, *arguments):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout.strip()

    found = run(PUSH_AND_PULL, tmp_path / "graph", "tester/graph")
    assert found == f"{graph.product_ids} {graph.pairs().tolist()}"
    assert run(STOCK_READER, "tester/graph") == str(sorted("abbccd"))
