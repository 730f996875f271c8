"""Product search: data and scales, figures with their gains, slices, baselines, fine-tuning, bad input."""

from __future__ import annotations

import csv
import zipfile

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.cache import cell_key
from rexbert_hf.evaluation.product_search import ProductSearch, figures_of
from rexbert_hf.evaluation.product_search_tuned import ProductSearchTuned, search_settings
from rexbert_hf.evaluation.runner import check_result
from rexbert_hf.evaluation.search_data import ESCI_SCALE, HOMEDEPOT_SCALE, LOG_SCALE, SearchProtocol, load_protocol
from rexbert_hf.evaluation.task import DataMissing, TaskOptions, TaskSource, Tuning, content_hash
from rexbert_hf.evaluation.tuning import TuningChanges
from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.pairs.events import QuerySplit
from rexbert_hf.retrieval.pairs.files import load_pairs
from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator, gain_name
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchDataSettings, load_search_data
from rexbert_hf.retrieval.training.search_finish import card_metrics
from rexbert_hf.settings import load_settings

HEADER = ["id", "product_uid", "product_title", "search_term", "relevance"]


def write_homedepot(folder, rows):
    """The layout of the published file."""
    (folder / "homedepot").mkdir(parents=True)
    lines = [HEADER, *([i, uid, title, query, rel] for i, (uid, title, query, rel) in enumerate(rows))]
    text = "\r\n".join(",".join(map(str, line)) for line in lines)
    with zipfile.ZipFile(folder / "homedepot" / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", text.encode("latin-1"))
    return TaskSource(data_dir=folder)


def query_in(buckets, seed=0):
    """A query of the test split (buckets 0 and 1), say."""
    split = "test" if 0 in buckets else "train"
    published = QuerySplit(rule="sha1_mod_10")
    return next(f"lamp {i}" for i in range(seed, 10_000) if published.of(f"lamp {i}") == split)


@pytest.fixture(scope="module")
def shop():
    return ProductSearch().load(TaskSource(sample=True))


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A tiny BERT without sentence-transformers' files, so without a pooling head."""
    folder = tmp_path_factory.mktemp("bare")
    tokenizer = train_tokenizer(load_sample("products", size=100)["title"], 512)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=512, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                        intermediate_size=32, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bm25(shop):
    pytest.importorskip("bm25s")
    return ProductSearch().run("bm25", shop, 0, TaskOptions())


def test_figures_name_their_gains_and_come_with_what_was_judged(shop, bm25):
    check_result(ProductSearch(), bm25)
    wanted = {"recall@10", "recall@100", "judged@10", "judged@100", "condensed_recall@10", "E@100", "S@100", "O@100"}
    wanted |= {"E+S@100", "judged_E@100", "ndcg@10[E1/S.1/C.01/I0]", "ndcg@10[E1/S.66/C.33/I0]"}
    wanted |= {"condensed_ndcg@10[E1/S.1/C.01/I0]", "E@16", "S@16", "judged@16"}
    assert wanted <= set(bm25.metrics)
    assert not [name for name in bm25.metrics if "ndcg@10" in name and "[" not in name]
    assert bm25.metrics["E@100"] + bm25.metrics["S@100"] + bm25.metrics["O@100"] == pytest.approx(1)
    assert bm25.counts["test_queries"] == len(bm25.examples) == len(shop.queries)
    assert bm25.counts["products"] == len(shop.data.texts)


def test_gains_and_shares_by_hand():
    judged = Judgements.from_pairs([0, 0, 0], [1, 2, 3], [0.66, 1.0, 0.33], 1)
    ranked = np.full((1, 200), -1)
    ranked[0, :4] = [1, 9, 2, 3]
    found = {name: float(value[0]) for name, value in figures_of(ranked, judged, ESCI_SCALE).items()}
    logs = 1 / np.log2(np.arange(2, 6))
    organisers = (0.1 * logs[0] + 1.0 * logs[2] + 0.01 * logs[3]) / (1.0 * logs[0] + 0.1 * logs[1] + 0.01 * logs[2])
    assert found["ndcg@10[E1/S.1/C.01/I0]"] == pytest.approx(organisers)
    script = (0.66 * logs[0] + logs[2] + 0.33 * logs[3]) / (logs[0] + 0.66 * logs[1] + 0.33 * logs[2])
    assert found["ndcg@10[E1/S.66/C.33/I0]"] == pytest.approx(script)
    assert (found["E@100"], found["S@100"], found["O@100"], found["judged@100"]) == (0.25, 0.25, 0.5, 0.75)
    ranked[0, 4:20] = np.arange(20, 36)
    found = {name: float(value[0]) for name, value in figures_of(ranked, judged, ESCI_SCALE).items()}
    assert (found["E@16"], found["judged@16"], found["judged@100"]) == (1 / 16, 3 / 16, 3 / 20)
    ranked[0, 4:] = -1
    graded = Judgements.from_pairs([0, 0, 0], [1, 2, 3], [2.0, 3.0, 2.67], 1)
    found = {name: float(value[0]) for name, value in figures_of(ranked, graded, HOMEDEPOT_SCALE).items()}
    best = 3 * logs[0] + (2**1.67 - 1) * logs[1] + logs[2]
    assert found["ndcg@10[2^(rel-1)-1]"] == pytest.approx((logs[0] + 3 * logs[2] + (2**1.67 - 1) * logs[3]) / best)
    assert (found["recall@10"], found["E@100"], found["S@100"]) == (1.0, 0.5, 0.25)


def test_baselines_are_in_order(shop, bm25):
    chance = ProductSearch().run("random", shop, 0, TaskOptions())
    assert bm25.metrics["recall@10"] > 5 * chance.metrics["recall@10"]
    expected = 10 / len(shop.products)
    assert chance.metrics["recall@10"] == pytest.approx(expected, abs=4 * np.sqrt(expected / len(chance.examples)))
    again = ProductSearch().run("random", shop, 0, TaskOptions())
    assert np.array_equal(again.examples, chance.examples)


def test_slices(bm25):
    assert {"typos", "casing", "word_order", "units"} <= set(bm25.slices)
    # BM25 knows neither case nor order, and no misspelt word.
    assert bm25.slices["casing"] == bm25.slices["word_order"] == bm25.metrics["recall@100"]
    assert bm25.slices["typos"] < bm25.metrics["recall@100"]


def test_dense_search_is_the_evaluators(shop, bare):
    result = ProductSearch().run(str(bare), shop, 0, TaskOptions())
    assert any("mean pooling" in note for note in result.notes)
    model = load_biencoder(BiEncoderSettings(base=str(bare), max_tokens=64))
    theirs = SearchEvaluator(shop.data, shop.queries)(model)
    for name in ("recall@10", "recall@100", "mrr@10", "condensed_recall@10"):
        assert result.metrics[name] == pytest.approx(theirs[name], abs=1e-9)
    other = ProductSearch().run(str(bare), shop, 0, TaskOptions(pooling="cls"))
    assert any("cls pooling" in note for note in other.notes)
    assert other.metrics["recall@100"] != result.metrics["recall@100"]


def small_shop():
    data = load_search_data(SearchDataSettings(sample_size=150))
    queries = data.of(TEST)
    counts = {"train_queries": len(data.of(TRAIN))}
    return SearchProtocol(data, ESCI_SCALE, queries, np.arange(len(data.texts)), counts)


def test_fine_tuning_learns_and_leaves_the_model(bare, tmp_path):
    shop = small_shop()
    before = ProductSearch().run(str(bare), shop, 0, TaskOptions(max_length=16))
    options = TaskOptions(max_length=16, tuning=Tuning((5e-3,), (2,), 8), keep=tmp_path / "kept", device="cpu")
    after = ProductSearchTuned().run(str(bare), shop, 0, options)
    assert after.metrics["recall@10"] > before.metrics["recall@10"] + 0.05
    bare_note = "mean pooling over token states: a model came without a pooling head"
    assert bare_note in before.notes
    assert bare_note in after.notes
    kept = ProductSearch().run(str(tmp_path / "kept"), shop, 0, TaskOptions(max_length=16))
    assert kept.metrics["recall@10"] == pytest.approx(after.metrics["recall@10"], abs=1e-9)
    assert bare_note not in kept.notes


def test_another_precision_or_training_is_another_cell(monkeypatch, tmp_path):
    """A cache that moves to a CPU with bfloat16 must not mix what both compute."""
    shop, task, options = small_shop(), ProductSearchTuned(), TaskOptions(device="cpu")

    def key(has_bf16):
        monkeypatch.setattr("rexbert_hf.retrieval.training.finetune.fast_bfloat16", lambda use_cpu: has_bf16)
        settings = search_settings("dssm", shop, 0, options, Tuning((1e-2,), (1,), 64), tmp_path)
        assert settings.trainer.bf16 is has_bf16
        return cell_key(task, "model", "data", 0, options)

    assert key(True) != key(False)
    former = content_hash(task.name, 1, "model", "data", 0, task.config(options))
    assert key(False) != former, "version 1 drew dropout otherwise"


def test_a_model_with_two_encoders_is_measured_as_it_is(bare, tmp_path):
    shop, folder = small_shop(), str(tmp_path / "two")
    load_biencoder(BiEncoderSettings(base=str(bare), shared=False, max_tokens=16)).save(folder)
    one, two = (ProductSearch().run(str(model), shop, 0, TaskOptions(max_length=16)) for model in (bare, folder))
    assert two.metrics == pytest.approx(one.metrics)
    options = TaskOptions(max_length=16, tuning=Tuning((5e-3,), (1,), 8), keep=tmp_path / "kept", device="cpu")
    tuned = ProductSearchTuned().run(folder, shop, 0, options)
    kept = ProductSearch().run(str(tmp_path / "kept"), shop, 0, TaskOptions(max_length=16))
    assert kept.metrics["recall@10"] == pytest.approx(tuned.metrics["recall@10"], abs=1e-9)
    assert tuned.metrics != two.metrics


def test_what_a_user_says_of_a_grid_leaves_dssm_the_rest_of_its_own():
    shop, task = small_shop(), ProductSearchTuned()
    seen = []
    task._fit_one = lambda model, data, seed, options, tuning: seen.append(tuning) or (model, 0.0)
    changes = TaskOptions(tuning=TuningChanges(batch_size=64))
    for model, options in (("dssm", TaskOptions()), ("dssm", changes), ("any", changes)):
        task.fit(model, shop, 0, options)
    assert seen == [Tuning((1e-2,), (6,), 256), Tuning((1e-2,), (6,), 64), Tuning((2e-4,), (2,), 64)]
    assert task.config(changes)["dssm"] == [[1e-2], [6], 64]
    assert "dssm" not in task.config(TaskOptions()), "results by the task's own grids stay in the cache"


@pytest.mark.parametrize("model", ["dssm", "bare"])
def test_a_batch_size_that_was_said_is_taken_and_another_noted(model, bare, tmp_path):
    """71 training queries: the task's own batches of 256 are cut, and the report says so."""
    shop, task, name = small_shop(), ProductSearchTuned(), "dssm" if model == "dssm" else str(bare)
    seen = []

    def fit_one(model, data, seed, options, tuning):
        seen.append(search_settings(model, data, seed, options, tuning, tmp_path).rows.batch_size)
        return model, 0.0

    task._fit_one = fit_one
    said = [TuningChanges(batch_size=64), TuningChanges(batch_size=256), Tuning((1e-3,), (1,), 4)]
    left = [None, TuningChanges(epochs=(1,))]
    notes = [task.fit(name, shop, 0, TaskOptions(tuning=tuning))[1] for tuning in (*said, *left)]
    assert seen == [64, 256, 4, 8, 8]
    assert notes == [(), (), (), *[("batches of 8 in place of 256: there are 71 training queries",)] * 2]


def test_a_result_whose_batches_were_cut_is_none_of_those_that_were_said():
    task = ProductSearchTuned()
    configs = [task.config(TaskOptions(tuning=TuningChanges(epochs=(2,), batch_size=size))) for size in (None, 256, 64)]
    assert configs[0]["tuning"] == configs[1]["tuning"]
    assert len({content_hash(config) for config in configs}) == 3
    assert "batch" not in configs[0], "results by the task's own batches stay in the cache"


def test_dssm_is_a_word():
    shop = small_shop()
    options = TaskOptions(tuning=Tuning((3e-2,), (2,), 8), device="cpu")
    result = ProductSearchTuned().run("dssm", shop, 0, options)
    chance = ProductSearchTuned().run("random", shop, 0, options)
    assert result.metrics["recall@10"] > chance.metrics["recall@10"] + 0.05


def test_home_depots_file(tmp_path):
    test, train = query_in((0, 1)), query_in((3, 4, 5))
    rows = [(1, "Acme lamp", test, 3), (2, "Acme rug", test, 2.33), (3, "Acme saw", test, 1), (4, "Nail", train, 2.67)]
    protocol = load_protocol(write_homedepot(tmp_path, rows))
    assert protocol.query_texts == [test]
    assert protocol.judged.count(HOMEDEPOT_SCALE.relevant).tolist() == [2]
    assert protocol.product_texts == ["Acme lamp", "Acme rug", "Acme saw", "Nail"]
    assert protocol.fingerprint != protocol.part(3).fingerprint
    assert set(protocol.judged.products.tolist()) <= set(range(3))
    for wrong in (7, 0):
        with pytest.raises(ValueError, match=rf"train.csv.zip, row 4: the relevance {wrong} is outside 1"):
            load_protocol(write_homedepot(tmp_path / str(wrong), [*rows, (5, "Hook", test, wrong)]))


def test_queries_without_a_relevant_product_are_left_out_and_counted(tmp_path):
    first, second = query_in((0, 1)), query_in((0, 1), seed=50)
    rows = [(1, "Acme lamp", first, 3), (2, "Acme rug", second, 2)]
    protocol = load_protocol(write_homedepot(tmp_path / "some", rows))
    assert (protocol.query_texts, protocol.counts["test_queries_without_relevant"]) == ([first], 1)
    with pytest.raises(ValueError, match=r"train.csv.zip: none of 1 test queries has a product of grade 2.33"):
        load_protocol(write_homedepot(tmp_path / "none", rows[1:]))
    with pytest.raises(ValueError, match="no training query"):
        ProductSearchTuned().run("dssm", protocol, 0, TaskOptions())


def test_pairs_of_a_dataset(tmp_path):
    def write(name, header, rows):
        with (tmp_path / name).open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return TaskSource(dataset=str(tmp_path / name))

    rows = [
        ("lamp", "a", "Red lamp", "E", "test"),
        ("lamp", "b", "Shade", "C", "test"),
        ("rug", "c", "Rug", "E", "train"),
    ]
    source = write("esci.csv", ["query", "product_id", "title", "label", "split"], rows)
    protocol = load_protocol(source)
    assert (protocol.query_texts, protocol.scale) == (["lamp"], ESCI_SCALE)
    rows = [(query, uid, title, {"E": 3, "C": 1.5}[label], split) for query, uid, title, label, split in rows]
    protocol = load_protocol(write("graded.csv", ["query", "product_id", "title", "relevance", "split"], rows))
    assert protocol.scale is HOMEDEPOT_SCALE
    words = [("lamp", "a", "Red lamp", "Exact", "test"), ("rug", "c", "Rug", "exact", "train")]
    protocol = load_protocol(write("words.csv", ["query", "product_id", "title", "label", "split"], words))
    assert protocol.judged.grades.tolist() == [1.0]
    words[1] = ("rug", "c", "Rug", "Excellent", "train")
    odd = write("odd.csv", ["query", "product_id", "title", "label", "split"], words)
    with pytest.raises(ValueError, match=r"odd.csv, row 1: the label 'Excellent' is outside the set"):
        load_protocol(odd)
    with pytest.raises(ValueError, match=r"bad.csv: no column title"):
        load_protocol(write("bad.csv", ["query", "product_id", "label"], [("lamp", "a", "E")]))


def test_the_log_of_a_shop_is_data_too(tmp_path):
    """What build_pairs.py wrote: its split, bought is relevant, shown is not, and no random product is a judgement."""
    words = ("red", "blue", "green", "white", "black")
    titles = {f"p{i}": f"{words[i % 5]} {('lamp', 'mug', 'desk', 'rug')[i // 5]}" for i in range(20)}
    ids = list(titles)
    shown = [[ids[i], ids[(i + 1) % 20], ids[(i + 7) % 20]] for i in range(20)]
    events = [f"{titles[row[0]]},{' '.join(row)},{row[0]} {row[1]},{row[0]}" for row in shown]
    (tmp_path / "clicks.csv").write_text("\n".join(["query,shown,clicked,bought", *events, ""]))
    products = [f"{name},{title}" for name, title in titles.items()]
    (tmp_path / "catalogue.csv").write_text("\n".join(["product_id,title", *products, ""]))
    settings = [("events.path", str(tmp_path / "clicks.csv")), ("products.path", str(tmp_path / "catalogue.csv"))]
    settings += [("output_dir", str(tmp_path / "pairs")), ("split.held_out", "0.6")]
    build_pairs(load_settings(BuildPairsRun, None, settings))
    protocol = load_protocol(TaskSource(dataset=str(tmp_path / "pairs")))
    assert protocol.scale is LOG_SCALE
    assert len(protocol.product_texts) == 20
    rows = load_pairs(str(tmp_path / "pairs"), "pairs", "test")
    asked = {row["query"] for row in rows}
    assert set(protocol.query_texts) == asked
    assert 1 < len(asked) < 20
    judged = sorted((row["query"], titles[row["product_id"]], row["label"]) for row in rows if row["label"] in (0, 1))
    found = protocol.judged
    queries = np.repeat(protocol.query_texts, np.diff(found.offsets)).tolist()
    texts = [protocol.product_texts[i] for i in found.products]
    assert sorted(zip(queries, texts, found.grades.tolist(), strict=True)) == judged
    assert {label for _, _, label in judged} == {0, 1}
    assert {row["label"] for row in rows} == {-2, -1, 0, 1}, "random products and clicked ones stand beside them"
    result = ProductSearch().run("bm25", protocol, 0, TaskOptions())
    assert result.metrics["recall@10"] == 1.0
    assert result.metrics["ndcg@10[bought1/shown0]"] == pytest.approx(1.0)
    assert result.metrics["S@100"] == 0


def test_cards_of_search_models_name_the_gain_of_ndcg():
    for grades, gain in (([1.0, 3.0], "2^(rel-1)-1"), ([0.0, 1.0], "the grade")):
        judged = Judgements.from_pairs([0, 0], [3, 5], grades, 1)
        found = card_metrics({"ndcg@10": 0.5, "recall@10": 0.1}, "shop", gain_name(judged))
        assert {(one["metric_name"], one["metric_type"]) for one in found} == {
            (f"ndcg@10[{gain}]", "ndcg_at_10"), ("recall@10", "recall_at_10"),
        }  # fmt: skip


def test_a_query_in_two_splits_is_told(tmp_path, caplog):
    rows = ["query,product_id,title,label,split", "lamp,a,Lamp,E,train", "Lamp,b,Shade,I,test", "rug,c,Rug,E,test"]
    path = tmp_path / "pairs.csv"
    path.write_text("\n".join(rows))
    protocol = load_protocol(TaskSource(dataset=str(path)))
    assert len(protocol.queries) == 2  # with all its pairs: nothing of it is trained on
    assert f"{path}: 1 queries stand in two splits, as that of row 1" in caplog.text
    path.write_text("\n".join([*rows, "mug,c,Rug,E,tset"]))
    with pytest.raises(ValueError, match=r"pairs.csv, row 3: the split 'tset': use train, validation, test"):
        load_protocol(TaskSource(dataset=str(path)))


def test_no_data(tmp_path):
    with pytest.raises(DataMissing, match=r"no homedepot/train.csv.zip"):
        ProductSearch().load(TaskSource(data_dir=tmp_path))
