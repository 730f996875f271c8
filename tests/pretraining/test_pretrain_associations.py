"""Associations of a recipe: forms they come in, products that are merged, held out or unknown, and E-BERT's recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from pretraining_cases import CONFIGS, TINY, assert_same_weights, run, whole_run
from test_pretrain_configs import stock

from rexbert_hf.hub import read_run
from rexbert_hf.objectives import AssociationGraph
from rexbert_hf.pretraining import AssociationSettings, PretrainSettings
from rexbert_hf.pretraining.associations import load_associations, save_product_rows
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer
from rexbert_hf.settings import SettingsError, load_settings

NAMES = ["steel kettle", "copper kettle", "tea pot", "tea cup", "garden hose", "hose reel", "Steel  Kettle", "x"]
TEXTS = [f"{name} for the home, model {i // 7}" for i, name in enumerate(NAMES[:-1])] + [""]
TEXTS[6] = TEXTS[0].upper()
"""Product p6 has the text of p0 in other letters; p7 has none."""

EBERT = {
    **TINY,
    "tokenizer.path": "null",
    "sources.products.sample_size": "60",
    "sources.reviews.sample_size": "60",
    "associations.sample_size": "60",
    "scale": "0.2",
    "micro_batch_tokens": "1536",
    **{f"phases.{name}.seq_length": "48" for name in ("words_and_phrases", "neighbors")},
    **{f"phases.{name}.batch_tokens": "1536" for name in ("words_and_phrases", "neighbors")},
}


def catalogue(folder, **columns):
    path = folder / "products.jsonl"
    rows = [{"id": f"p{i}", "text": text, **{k: v[i] for k, v in columns.items()}} for i, text in enumerate(TEXTS)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(path), "columns": {"text": "text", "product_id": "id"}}


def stores(folder, source, held_out=0.0, **sources):
    settings = load_settings(
        PretrainSettings,
        CONFIGS / "quickstart.yaml",
        [
            ("sources", json.dumps({"shop": source, **sources})),
            ("phases", json.dumps([{"name": "a", "mixture": {"shop": 1}, "max_tokens": 100, "seq_length": 32}])),
            ("evaluation.held_out", str(held_out)),
            ("tokenizer.path", str(whole_run())),
            ("guides.sample_lexicons", "false"),
        ],
    )
    tokenizer = load_tokenizer(settings, folder)
    corpora = prepare(settings, tokenizer, folder / "cache")
    return {name: corpus.train for name, corpus in corpora.items()}, tokenizer


def pairs_of(found, tokenizer, store):
    """Associations as pairs of texts."""
    contents = found.contents

    def text(content):
        return tokenizer.decode(store[int(contents.row[content])]["input_ids"], skip_special_tokens=True)

    return {frozenset((text(i), text(j))) for i, j in contents.graph.pairs()}


WANTED = {frozenset((TEXTS[a], TEXTS[b])) for a, b in ((0, 2), (1, 2), (2, 3), (4, 5))}
ALSO = [["p2", "stranger"], ["p2"], ["p3"], [], ["p5", "p4"], None, ["p2", "p0"], ["p1"]]
"""p6 is p0 by its text: with p2 it is the association of p0, with p0 a loop; p7 has no content."""


def forms(folder):
    """The same associations in each form: settings by name."""
    lists = folder / "lists.jsonl"
    lists.write_text("".join(json.dumps({"asin": f"p{i}", "also": ids}) + "\n" for i, ids in enumerate(ALSO)))
    flat = [(f"p{i}", other) for i, ids in enumerate(ALSO) for other in ids or []]
    (folder / "pairs.csv").write_text("left,right,how\n" + "".join(f"{a},{b},also_buy\n" for a, b in flat))
    (folder / "pairs.csv").open("a").write("p0,p5,also_view\n")
    (folder / "blanks.csv").write_text(
        "left,right\n" + "".join(f"p{i},{' '.join(ids or [])}\n" for i, ids in enumerate(ALSO))
    )
    (folder / "baskets.txt").write_text("".join(f"{a} {b}\n" for a, b in flat))
    lines = [{"invoice": number, "code": product} for number, pair in enumerate(flat) for product in pair]
    pq.write_table(pa.Table.from_pylist(lines), folder / "lines.parquet")
    ends = {"product_a": "left", "product_b": "right"}
    return {
        "lists": AssociationSettings(path=str(lists), columns={"product_a": "asin", "product_b": "also"}),
        "pairs": AssociationSettings(path="pairs.csv", columns={**ends, "kind": "how"}, kinds=["also_buy"]),
        "blanks": AssociationSettings(path=str(folder / "blanks.csv"), columns=ends, separator=" "),
        "baskets": AssociationSettings(path=str(folder / "baskets.txt"), columns={"basket": "text"}),
        "lines": AssociationSettings(
            path=str(folder / "lines.parquet"), columns={"basket": "invoice", "product_id": "code"}
        ),
    }


def test_every_form_gives_the_same_associations(tmp_path):
    found_stores, tokenizer = stores(tmp_path, catalogue(tmp_path))
    for name, settings in forms(tmp_path).items():
        found = load_associations(settings, found_stores, str(tmp_path))
        assert pairs_of(found, tokenizer, found_stores["shop"]) == WANTED, name
        assert found.report["products"] == 7, "p7 has no text, so no content"
        assert found.report["products_with_equal_text"] == 1
        assert found.report["associated_documents"] == 6
        assert found.report["unknown"] == 2, name  # the stranger, and what p7 is associated with


def test_a_graph_that_was_pushed_as_records_is_one_too(tmp_path):
    found_stores, tokenizer = stores(tmp_path, catalogue(tmp_path))
    AssociationGraph.from_pairs([("p0", "p2"), ("p4", "p5")]).save(tmp_path / "graph")
    settings = AssociationSettings(path=str(tmp_path / "graph" / "associations"))
    found = load_associations(settings, found_stores)
    assert len(pairs_of(found, tokenizer, found_stores["shop"])) == 2


def test_held_out_products_are_no_contents(tmp_path):
    rows = [f"product number {i} of the shop, in steel" for i in range(200)]
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": text, "product_id": i}) + "\n" for i, text in enumerate(rows)))
    (tmp_path / "pairs.csv").write_text("product_a,product_b\n" + "".join(f"{i},{i + 1}\n" for i in range(199)))
    source = {"path": str(path), "columns": {"text": "text", "product_id": "product_id"}}
    found_stores, tokenizer = stores(tmp_path, source, held_out=0.3)
    found = load_associations(AssociationSettings(path=str(tmp_path / "pairs.csv")), found_stores)
    store = found_stores["shop"]
    assert 0.5 * 200 < len(store) < 0.9 * 200
    assert found.report["products"] == len(store)
    texts = {tokenizer.decode(store[i]["input_ids"], skip_special_tokens=True) for i in range(len(store))}
    pairs = pairs_of(found, tokenizer, store)
    assert set().union(*pairs) <= texts
    assert pairs == {frozenset(rows[i : i + 2]) for i in range(199) if {rows[i], rows[i + 1]} <= texts}


def test_products_of_a_source_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    """Runs that share a cache write one path; one that dies leaves what the other reads."""
    found_stores, _ = stores(tmp_path, catalogue(tmp_path))
    path = found_stores["shop"].path.parent / "products.parquet"
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    documents = Dataset.from_dict({"text": TEXTS[:3], "product_id": ["a", "b", "c"]})
    with pytest.raises(OSError, match="No space left"):
        save_product_rows(documents, documents, documents, None, path.parent)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".products*"))


def test_numbers_as_identifiers_meet_whatever_column_holds_them(tmp_path):
    """A gap makes floats of integers; 7.0 is still product 7."""
    path = tmp_path / "many.jsonl"
    path.write_text("".join(json.dumps({"text": text, "product_id": i}) + "\n" for i, text in enumerate(TEXTS[:6])))
    source = {"path": str(path), "columns": {"text": "text", "product_id": "product_id"}}
    found_stores, _ = stores(tmp_path, source)
    ends = {"product_a": pa.array([0.0, 2.0, None]), "product_b": pa.array([1.0, 3.0, 4.0])}
    pq.write_table(pa.table(ends), tmp_path / "pairs.parquet")
    found = load_associations(AssociationSettings(path=str(tmp_path / "pairs.parquet")), found_stores)
    assert found.contents.graph.num_pairs == 2
    assert found.report["unknown"] == 0


def test_products_of_several_sources(tmp_path):
    first = catalogue(tmp_path)
    more = tmp_path / "more.csv"
    more.write_text("name,sku\ngarden glove for the home,p9\nsteel kettle again,p0\n")
    other = {"path": str(more), "columns": {"text": "name", "product_id": "sku"}}
    found_stores, _ = stores(tmp_path, first, more=other)
    (tmp_path / "pairs.csv").write_text("product_a,product_b\np0,p9\np2,p9\n")
    found = load_associations(AssociationSettings(path=str(tmp_path / "pairs.csv")), found_stores).contents
    assert found.graph.num_pairs == 2
    assert sorted(np.bincount(found.source).tolist()) == [1, 6], "p0 has the content of the first source"


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "exactly one of 'path'"),
        ({"path": "x", "sample": True}, "exactly one of 'path'"),
        ({"path": "x", "columns": {"product_a": "a"}}, "columns names product_a: give product_a and product_b"),
        ({"path": "x", "min_count": 0}, "min_count starts at 1"),
        ({"path": "x", "max_basket": 1}, "max_basket at 2"),
    ],
)
def test_settings_that_make_no_sense(settings, problem):
    with pytest.raises(ValueError, match=problem):
        AssociationSettings(**settings)


def test_bad_associations(tmp_path):
    found_stores, _ = stores(tmp_path, catalogue(tmp_path))
    path = tmp_path / "pairs.csv"
    ends = {"product_a": "a", "product_b": "b"}

    def load(text, **options):
        path.write_text(text)
        options.setdefault("columns", ends)
        return load_associations(AssociationSettings(path=str(path), **options), found_stores)

    with pytest.raises(
        ValueError, match=r"associations: no association of two of the 7 products is left \(1 pairs, 1 unknown\)"
    ):
        load("a,b\nq1,q2\n")
    with pytest.raises(ValueError, match=r"associations: .* is no JSON list of product ids"):
        load('a,b\np0,"[1, x]"\n')
    with pytest.raises(ValueError, match="associations: kinds needs a column 'kind'"):
        load("a,b\np0,p1\n", kinds=["also_buy"])
    with pytest.raises(
        ValueError, match="associations: no product_a and product_b, and no basket, among the columns a, b"
    ):
        load("a,b\np0,p1\n", columns=None)
    with pytest.raises(FileNotFoundError):
        load_associations(AssociationSettings(path=str(tmp_path / "none.csv"), columns=ends), found_stores)
    (tmp_path / "plain").mkdir()
    plain, _ = stores(tmp_path / "plain", {"path": str(path), "columns": {"text": "a"}})
    with pytest.raises(ValueError, match="associations: no source names its products: add product_id to the columns"):
        load_associations(AssociationSettings(path=str(path), columns=ends), plain)


def test_an_objective_without_associations_is_refused_at_once():
    with pytest.raises(SettingsError, match=r"phase 'neighbors': the objective 'npr' needs associations: set --associ"):
        load_settings(PretrainSettings, CONFIGS / "ebert.yaml", [("associations", "null")])


# The recipe


def test_the_papers_numbers():
    found = load_settings(PretrainSettings, CONFIGS / "ebert.yaml")
    assert found.model.init_from is None
    first, second = found.phases
    assert (first.epochs, second.epochs) == (5, 5)
    assert (first.objectives, second.objectives) == (["ahm"], ["ahm", "npr"])
    assert set(first.mixture) == set(found.sources) == {"products", "reviews"}
    assert list(second.mixture) == ["products"], "reviews say little about products"
    assert (first.learning_rate, second.learning_rate) == (1e-5, 1e-5)
    assert {phase.batch_tokens for phase in found.phases} == {32 * 128}
    assert first.masking.options["initial_epochs"] == 1
    assert {phase.masking.mlm_probability for phase in found.phases} == {0.15}
    assert found.trainer.weight_decay == 0


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_the_recipe_trains_from_a_checkpoint_and_resumes(tmp_path, kind):
    source = whole_run() if kind == "rexbert" else tmp_path / "start"
    if kind == "bert":
        stock(source, "bert")
    base = {**EBERT, "model.init_from": str(source)}
    results = run(tmp_path / "out", "ebert", base)
    joint = results["phases"][1]
    assert joint["loss_npr"] > 0
    assert joint["loss"] == pytest.approx(joint["loss_mlm"] + joint["loss_npr"], rel=0.02)
    assert results["associations"]["associations"] > 50
    assert read_run(tmp_path / "out")["config"]["associations"]["sample"] is True
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["model_type"] == ("bert" if kind == "bert" else "rexbert")
    if kind == "bert":
        return
    last = max(int(path.name.split("-")[1]) for path in (tmp_path / "out").glob("checkpoint-*"))
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "out", again)
    shutil.rmtree(again / f"checkpoint-{last}")
    (again / "run.json").unlink()
    run(again, "ebert", base)
    assert read_run(again)["resumed_from_step"] < last
    assert_same_weights(again, tmp_path / "out")
    changed = {**base, "phases.neighbors.neighbors.negatives": "degree"}
    with pytest.raises(ValueError, match=r"phases\.1\.neighbors.negatives: uniform -> degree"):
        run(again, "ebert", changed)


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [cut, flipped, Path.unlink])
def test_damaged_products_beside_the_tokens_are_made_again(tmp_path, caplog, damage):
    source = catalogue(tmp_path)
    stores(tmp_path, source)
    (path,) = (tmp_path / "cache").glob("shop-*/products.parquet")
    whole = path.read_bytes()
    damage(path)
    stores(tmp_path, source)
    assert "preparing the source again" in caplog.text
    assert str(path) in caplog.text
    assert path.read_bytes() == whole
    assert not list(path.parent.glob(".products*"))


def test_damaged_products_of_an_earlier_version_are_named_with_the_way_out(tmp_path):
    source = catalogue(tmp_path)
    stores(tmp_path, source)
    (path,) = (tmp_path / "cache").glob("shop-*/products.parquet")
    manifest = path.with_name("prepared.json")
    report = json.loads(manifest.read_text())
    assert report.pop("product_rows")["bytes"] == path.stat().st_size
    manifest.write_text(json.dumps(report))
    cut(path)
    found, _ = stores(tmp_path, source)
    (tmp_path / "pairs.csv").write_text("product_a,product_b\np0,p2\n")
    chosen = AssociationSettings(path=str(tmp_path / "pairs.csv"))
    with pytest.raises(
        ValueError, match=r"products\.parquet is damaged .*: remove the folder .*prepared again"
    ) as error:
        load_associations(chosen, found)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pattern", ["pairs?.csv", "pairs[0-9].csv", "pairs*.csv", "**/pairs1.csv"])
def test_patterns_of_associations_are_looked_for_in_data_dir(tmp_path, pattern):
    source = catalogue(tmp_path)
    found, _ = stores(tmp_path, source)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs1.csv").write_text("product_a,product_b\np0,p2\n")
    assert (
        load_associations(AssociationSettings(path=pattern), found, str(tmp_path / "data")).report["associations"] == 1
    )
