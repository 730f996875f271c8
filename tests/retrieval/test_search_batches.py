"""Rows of a training step: a pure function of (seed, step), with the right roles, ratios and numbers."""

from __future__ import annotations

import dataclasses
import tempfile
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from search_cases import TEXTS, tiny_data, tiny_model

from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.training import exact_search, mining
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.mining import MiningSettings, mine_negatives
from rexbert_hf.retrieval.training.mining_callback import Mining
from rexbert_hf.retrieval.training.search_batches import (
    RowSettings,
    SearchBatches,
    SearchCollator,
    Shuffled,
    made_up_query,
    misspelt,
)
from rexbert_hf.retrieval.training.search_data import SearchDataSettings, load_search_data, text_groups


@pytest.fixture(scope="module")
def shop():
    return load_search_data(SearchDataSettings(sample_size=120))


def test_steps_depend_on_seed_and_number_only(shop):
    settings = RowSettings(batch_size=16, made_up=0.25, typos=0.5)
    one, two = (SearchBatches(shop, "ranking", settings, 50, seed=3) for _ in range(2))
    for step in (40, 0, 7):
        assert one[step].columns == two[step].columns
    assert one[7].columns == SearchBatches(shop, "ranking", settings, 50, seed=3)[7].columns
    assert one[7].columns != SearchBatches(shop, "ranking", settings, 50, seed=4)[7].columns


def test_every_positive_comes_once_an_epoch(shop):
    batches = SearchBatches(shop, "ranking", RowSettings(batch_size=10), 99)
    size = len(batches.positives)
    numbers = np.concatenate([batches[step].label for step in range(batches.epoch_steps)])[:size]
    expected = np.stack([batches.queries, batches.products], axis=1)[batches.positives]
    assert sorted(map(tuple, numbers.tolist())) == sorted(map(tuple, expected.tolist()))
    assert (shop.splits[numbers[:, 0]] == 0).all()


def test_ranking_rows_hold_texts_of_their_numbers(shop):
    rows = SearchBatches(shop, "ranking", RowSettings(batch_size=12, made_up=0.5), 9)[2]
    real = rows.label[:, 0] < len(shop.queries)
    assert real.sum() == 6
    for (query, product), text, title in zip(rows.label, rows.columns["query"], rows.columns["product"], strict=True):
        assert title == shop.texts[product]
        if query < len(shop.queries):
            assert text == shop.queries[query]
        else:
            assert query - len(shop.queries) == product
            assert set(text.split()) <= set(title.lower().replace(",", " ").split()) | set(text.split("-"))


def test_hinge_rows_have_the_ratio_and_random_negatives_nobody_judged(shop):
    batches = SearchBatches(shop, "hinge", RowSettings(batch_size=22, hard=3, random=7), 400)
    roles, judged = [], {}
    for query, product, _ in zip(*shop.pairs(np.arange(len(shop.queries))), strict=True):
        judged.setdefault(shop.queries[query], set()).add(shop.texts[product])
    for step in range(60):
        rows = batches[step]
        roles.append(rows.label)
        for query, product, role in zip(rows.columns["query"], rows.columns["product"], rows.label, strict=True):
            assert role != -1 or product not in judged[query]
            assert role == -1 or product in judged[query]
    counts = np.bincount(np.concatenate(roles) + 1, minlength=3)
    assert counts[1] / counts[2] == pytest.approx(3, abs=0.05)
    # A random product is judged for the query now and then, and is left out.
    assert 6 < counts[0] / counts[2] <= 7


def test_a_product_with_the_text_of_a_positive_is_no_hard_negative():
    """Products 0 and 1 are the same text: one judged right and the other wrong must not contradict each other."""
    data = tiny_data()
    judged = Judgements.from_pairs([0, 0, 0, 1], [0, 1, 2, 1], [1.0, 0.0, 0.0, 0.0], 4)
    data = dataclasses.replace(data, judged=judged)
    batches = SearchBatches(data, "hinge", RowSettings(batch_size=8, hard=3, random=0), 20)
    seen = {tuple(pair) for step in range(20) for pair in zip(*batches[step].columns.values(), strict=True)}
    assert seen == {("mug", "red mug"), ("mug", "blue plate")}


def clicked():
    """Of the query "mug" the lamp shade was clicked and the desk bought in another period, the latter in two forms."""
    data = tiny_data()
    texts = [*TEXTS[:-1], "blue  PLATE"]
    return dataclasses.replace(data, texts=texts, groups=text_groups(texts), neither=np.array([[0, 3], [0, 5]]))


def test_what_was_clicked_is_never_a_negative_of_the_hinge():
    roles = {}
    batches = SearchBatches(clicked(), "hinge", RowSettings(batch_size=24, hard=3, random=8), 60)
    for step in range(60):
        for query, product, role in zip(*batches[step].columns.values(), batches[step].label, strict=True):
            roles.setdefault(query, set()).add((product, int(role)))
    # What was judged wrong has the text of what is neither.
    assert roles["mug"] == {("red mug", 1), ("steel pot with lid", -1)}
    assert {("green lamp shade", -1), ("blue  PLATE", -1)} <= roles["pot"], "others draw it"


def test_what_was_clicked_is_never_mined():
    settings = MiningSettings(keep=6, skip=0, depth=6, max_ratio=None)
    data = clicked()
    assert set(mine_negatives(tiny_model(), data, settings)[0].tolist()) == {4, -1}
    without = dataclasses.replace(data, neither=data.neither[:0])
    assert {3, 5} < set(mine_negatives(tiny_model(), without, settings)[0].tolist())


def test_graded_rows_carry_the_grades(shop):
    rows = SearchBatches(shop, "graded", RowSettings(batch_size=64), 3)[0]
    assert rows.label.dtype == np.float32
    assert set(np.unique(rows.label).tolist()) <= {0.0, np.float32(0.33), np.float32(0.66), 1.0}


def test_mined_negatives_are_seen_from_their_step_on():
    batches = SearchBatches(tiny_data(), "ranking", RowSettings(batch_size=4, mined=2), 20)
    assert list(batches[0].columns) == ["query", "product"]
    batches.set_negatives(np.full((4, 3), 5, dtype=np.int32), from_step=0)
    batches.set_negatives(np.full((4, 3), 4, dtype=np.int32), from_step=6)
    assert batches[5].label[:, 2:].tolist() == [[5, 5]] * 4
    assert batches[6].label[:, 2:].tolist() == [[4, 4]] * 4
    assert batches[6].columns["negative_2"] == [TEXTS[4]] * 4


def test_a_query_with_few_mined_negatives_sees_only_them_and_one_without_any_random_ones():
    data = tiny_data()
    batches = SearchBatches(data, "ranking", RowSettings(batch_size=8, mined=1), 60)
    table = np.full((len(data.queries), 20), -1, dtype=np.int32)
    table[0, :2] = 3, 5
    batches.set_negatives(table, from_step=0)
    drawn = np.concatenate([batches[step].label[:, [0, 2]] for step in range(60)])
    mine, others = drawn[drawn[:, 0] == 0, 1], drawn[drawn[:, 0] != 0, 1]
    # Each of the two is seen half the time, 4.5 standard deviations around it.
    assert set(mine.tolist()) == {3, 5}
    assert abs((mine == 3).mean() - 0.5) < 4.5 * 0.5 / np.sqrt(len(mine))
    assert set(others.tolist()) == set(range(len(TEXTS)))


def test_more_mined_negatives_than_ranks_are_refused():
    MiningSettings(keep=90)
    with pytest.raises(ValueError, match=r"mining\.keep 20 is more than the 5 ranks that mining\.depth 15 leaves"):
        MiningSettings(depth=15)


def test_mining_never_returns_an_answer_and_skips_the_first_ranks():
    data, model = tiny_data(), tiny_model()
    table = mine_negatives(model, data, MiningSettings(keep=4, skip=0, depth=6, max_ratio=None))
    assert table.shape == (4, 4)
    assert not set(table[0]) & {0, 1}
    assert 2 not in table[1]
    first = mine_negatives(model, data, MiningSettings(keep=1, skip=0, depth=1, max_ratio=None))
    skipped = mine_negatives(model, data, MiningSettings(keep=5, skip=1, depth=6, max_ratio=None))
    for query in range(4):
        assert not set(first[query][first[query] >= 0]) & set(skipped[query][skipped[query] >= 0])
    none = mine_negatives(model, data, MiningSettings(keep=4, skip=0, depth=6, max_ratio=-1.0))
    assert (none == -1).mean() > 0.9 or (none >= 0).sum() < 4


def test_vectors_of_a_mining_lie_where_the_next_start_finds_them(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen, stock = [], mining.encode_to

    def encode_to(path, *args):
        seen.append(path.parent)
        return stock(path, *args)

    monkeypatch.setattr(mining, "encode_to", encode_to)
    mine_negatives(tiny_model(), tiny_data(), MiningSettings(keep=1, skip=0, depth=1))
    (folder,) = seen
    assert folder.parent == tmp_path
    assert folder.name.startswith("rexbert-")
    assert not folder.exists()


def test_a_product_without_text_is_never_mined():
    data = dataclasses.replace(tiny_data(), texts=[*TEXTS[:-2], "", TEXTS[-1]])
    table = mine_negatives(tiny_model(), data, MiningSettings(keep=6, skip=0, depth=6, max_ratio=None))
    assert (table >= 0).any(axis=1).all()
    assert 4 not in table


def test_products_without_text_take_no_rank_of_a_mining():
    """As many ranks as there are products with text are all of these: what has none is not searched."""
    data = dataclasses.replace(tiny_data(), texts=[*TEXTS[:3], "", "", TEXTS[-1]])
    for skip, found in ((0, {0, 1, 5}), (1, {0, 1, 2, 5})):
        settings = MiningSettings(keep=4 - skip, skip=skip, depth=4, max_ratio=None)
        table = mine_negatives(tiny_model(), data, settings)
        mined = table[1][table[1] >= 0]  # of the plate, which is product 2
        assert set(mined.tolist()) <= found
        assert len(mined) >= 3 - skip


def test_negatives_are_seen_from_their_step_on_by_every_rank(tmp_path):
    data, settings = tiny_data(), FinetuneSettings(rows=RowSettings(batch_size=2, mined=1))
    batches = SearchBatches(data, "ranking", settings.rows, 99)
    state = SimpleNamespace(global_step=5, max_steps=9)
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=3), output_dir=tmp_path, model=tiny_model(), is_world_process_zero=lambda: True,
        accelerator=SimpleNamespace(wait_for_everyone=lambda: None),
    )  # fmt: skip
    Mining(trainer, batches, data, settings, 5, False).on_train_begin(None, SimpleNamespace(global_step=0), None)
    Mining(trainer, batches, data, settings, 5, False).on_step_end(None, state, None)
    again = SearchBatches(data, "ranking", settings.rows, 99)
    Mining(trainer, again, data, settings, 5, False).on_train_begin(None, state, None)
    for found in (batches, again):  # step 6 is the batches 18 to 20
        assert sorted(found._tables) == [0, 18]
        assert found.negatives(17) is found._tables[0]
        assert found.negatives(18) is found._tables[18]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["negatives-0.npy", "negatives-6.npy"]
    whole = (tmp_path / "negatives-6.npy").read_bytes()
    for damaged in (b"", whole[:40], whole[:-8], b"\x80\x04" + whole):
        (tmp_path / "negatives-6.npy").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"negatives-6\.npy is damaged .*new output_dir$"):
            Mining(trainer, again, data, settings, 5, False).on_train_begin(None, state, None)


@pytest.mark.parametrize(
    ("done", "there", "lost"),
    [
        (3, [], 0),
        (5, [0], 6),
        (5, [6], 0),
        (6, [0], 6),
        (10, [0, 6], 11),
        (12, [0, 6], 11),
        (3, [0], None),
        (5, [0, 6], None),
        (6, [6], None),  # what only earlier steps saw is not needed
        (10, [6, 11], None),
        (15, [11], None),  # after the last step none is mined
        (15, [], None),  # and nothing is left to train
    ],
)
def test_a_run_does_not_go_on_without_its_mined_negatives(tmp_path, done, there, lost):
    data, settings = tiny_data(), FinetuneSettings(rows=RowSettings(batch_size=2, mined=1))
    batches = SearchBatches(data, "ranking", settings.rows, 99)
    trainer = SimpleNamespace(
        args=SimpleNamespace(world_size=1), output_dir=tmp_path, is_world_process_zero=lambda: True,
        accelerator=SimpleNamespace(wait_for_everyone=lambda: None),
    )  # fmt: skip
    for step in there:
        np.save(tmp_path / f"negatives-{step}.npy", np.full((len(data.queries), 2), step))
    mining, state = (
        Mining(trainer, batches, data, settings, 5, False),
        SimpleNamespace(global_step=done, max_steps=15),
    )
    if lost is None:
        mining.on_train_begin(None, state, None)
        assert sorted(batches._tables) == there
    else:
        with pytest.raises(ValueError, match=rf"negatives-{lost}\.npy is not there, .*new output_dir$"):
            mining.on_train_begin(None, state, None)


def test_mining_in_blocks_and_from_a_file_finds_the_same_and_leaves_nothing(tmp_path, monkeypatch):
    data, model, settings = tiny_data(), tiny_model(), MiningSettings(keep=6, skip=0, depth=6, max_ratio=None)
    whole = mine_negatives(model, data, settings)
    asked = []
    stock = exact_search.encode
    monkeypatch.setattr(
        exact_search, "encode", lambda model, texts, *rest: asked.append(texts) or stock(model, texts, *rest)
    )
    monkeypatch.setattr(exact_search, "PRODUCT_BLOCK", 2)
    blocks = mine_negatives(model, data, settings, folder=tmp_path)
    assert [set(row) for row in blocks] == [set(row) for row in whole]
    assert max(map(len, asked)) == 2, "products are encoded a block at a time"
    assert not list(tmp_path.iterdir())


def test_search_in_a_mapped_file_does_not_read_it_into_memory(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "products.npy", rng.normal(size=(200_000, 16)).astype("f4"))
    products = np.load(tmp_path / "products.npy", mmap_mode="r")
    queries = rng.normal(size=(3, 16)).astype("f4")
    tracemalloc.start()
    try:
        found = exact_search.exact_top_k(queries, products, 5)[1]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < products.nbytes / 4
    assert found.tolist() == np.argsort(-(queries @ np.asarray(products).T), axis=1)[:, :5].tolist()


def test_a_mapped_file_of_which_all_rows_are_searched_is_read_by_slices(monkeypatch):
    vectors, read = np.eye(4, dtype="f4"), []
    stock = exact_search._rows
    monkeypatch.setattr(exact_search, "_rows", lambda *args: read.append(stock(*args)) or read[-1])
    assert exact_search.exact_top_k(vectors[:1], vectors, 1, np.arange(4))[1].tolist() == [[0]]
    assert {type(rows) for rows in read} == {slice}


def test_shuffled_is_endless_and_every_pass_is_whole():
    order = Shuffled(7, seed=1)
    passes = [sorted(order.take(7 * i, 7).tolist()) for i in (0, 3, 1)]
    assert passes == [list(range(7))] * 3
    assert order.take(0, 7).tolist() != order.take(7, 7).tolist()
    whole = order.take(3, 20)
    assert whole.tolist() == np.concatenate([order.take(3, 9), order.take(12, 11)]).tolist()


def test_made_up_queries_are_words_of_the_title():
    rng = np.random.default_rng(0)
    title = "Simpson Strong-Tie 12-Gauge Steel Angle, 1/2 in. with Screws (4-Pack)"
    drawn = [made_up_query(title, rng).split() for _ in range(400)]
    known = ["simpson", "strong-tie", "12-gauge", "steel", "angle", "1/2", "screws", "4-pack"]
    for words in drawn:
        assert 1 <= len(words) <= 5
        assert [known.index(word) for word in words] == sorted(known.index(word) for word in words)
    # What the thing is stands in seven of ten; three standard deviations of 400 draws are 7 %.
    assert np.mean(["angle" in words for words in drawn]) == pytest.approx(0.7, abs=0.07)
    assert made_up_query("Mug", rng) == "mug"
    assert made_up_query("!!!", rng) == "!!!"
    assert made_up_query("", rng) == ""
    assert made_up_query("of the and", rng)


def test_misspelt_changes_one_place():
    rng = np.random.default_rng(0)
    for text in ("angle bracket", "ab", "\u05e1\u05d9\u05e8 \U0001f600"):
        for _ in range(50):
            assert abs(len(misspelt(text, rng)) - len(text)) <= 1
    assert misspelt("1", rng) == "1"
    assert misspelt("", rng) == ""


def test_collator_names_what_losses_expect():
    model = tiny_model()
    batches = SearchBatches(tiny_data(), "ranking", RowSettings(batch_size=4), 5)
    batch = SearchCollator(model)([batches[0]])
    assert batch["label"].shape == (4, 2)
    assert batch["query_task"] == "query"
    assert batch["product_task"] == "document"
    assert len(batch["query_input_ids"]) == len(batch["product_attention_mask"]) == 4


def test_the_model_trains_with_the_prompts_that_it_serves_with():
    model = tiny_model(max_tokens=64)
    model.prompts = {"query": "pot lid ", "passage": "steel "}
    rows = SearchBatches(tiny_data(), "ranking", RowSettings(batch_size=4), 5)[0]
    batch = SearchCollator(model)([rows])
    for column, prompt, encode in (
        ("query", "pot lid ", model.encode_query), ("product", "steel ", model.encode_document)
    ):  # fmt: skip
        ids = model.tokenizer([prompt + text for text in rows.columns[column]], padding=True)["input_ids"]
        assert batch[f"{column}_input_ids"].tolist() == ids
        features = {name.removeprefix(f"{column}_"): value for name, value in batch.items() if column in name}
        np.testing.assert_allclose(
            model.eval()(features)["sentence_embedding"].detach(), encode(rows.columns[column]), atol=1e-5
        )


def test_settings_are_checked():
    with pytest.raises(ValueError, match="batch_size"):
        RowSettings(batch_size=1)
    with pytest.raises(ValueError, match="made_up"):
        RowSettings(made_up=1.0)
    with pytest.raises(ValueError, match="leaves no row for a judged pair"):
        RowSettings(batch_size=2, made_up=0.8)
    with pytest.raises(ValueError, match="no training query"):
        SearchBatches(tiny_data(splits=(2, 2, 2, 2)), "ranking", RowSettings(), 1)
