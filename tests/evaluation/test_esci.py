"""Similarity on graded pairs: grades, batches, cosines, training that helps, and bad rows."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from tuning_cases import COLOURS, THINGS, save_tiny

from rexbert_hf.evaluation.esci import EsciSimilarity, cosines, grade_of, no_duplicates
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task import TaskOptions, TaskSource, Tuning
from rexbert_hf.evaluation.task_splits import Example, TaskData
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder


def pairs(colours=COLOURS):
    """Query and title: 1 where the thing is the same, else 0; the colour says nothing."""
    rows = [(f"{a} {x}", f"{b} {y} for the kitchen", float(THINGS[x] == THINGS[y]))
            for a in colours for x in THINGS for b in colours for y in THINGS]  # fmt: skip
    return [Example(Row(query, title, grade), grade, query) for query, title, grade in rows]


def test_grades_are_the_authors():
    labels = ["E", "Exact", "s", "Substitute", "C", "I"]
    assert [grade_of({"esci_label": label}, "") for label in labels] == [1.0, 1.0, 0.66, 0.66, 0.33, 0.0]
    assert [grade_of({"relevance": value}, "") for value in (1, 2.0, 3)] == [0.0, 0.5, 1.0]
    wrong = [{"label": label} for label in ("1", "X", "Excellent", " ")]
    for row in (*wrong, {"relevance": 4.0}, {"relevance": None}, {}):
        with pytest.raises(ValueError, match="row 3: "):
            grade_of(row, "row 3")


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 20)), min_size=1, max_size=80), st.integers(1, 9))
def test_no_text_is_twice_in_a_batch(numbers, size):
    rows = [Example(Row(f"q{a}", f"t{b}"), 0.0, "") for a, b in numbers]
    batches = no_duplicates(rows, size, np.random.default_rng(0))
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        texts = [text for i in batch for text in rows[i].row[:2]]
        assert len(texts) == len(set(texts))
        assert len(batch) <= size


def test_cosines_are_in_the_order_of_the_rows(tmp_path):
    model = load_biencoder(BiEncoderSettings(base=save_tiny(tmp_path)))
    rows = pairs()[:20]
    one_by_one = [cosines(model, [row])[0] for row in rows]
    np.testing.assert_allclose(cosines(model, rows), one_by_one, atol=1e-5)


def test_training_helps_and_is_the_same_again(tmp_path):
    folder, task = save_tiny(tmp_path / "model"), EsciSimilarity()
    data = TaskData(pairs(COLOURS[:2]), pairs(COLOURS[2:3])[:20], pairs(COLOURS[3:]))
    options = TaskOptions(tuning=Tuning((3e-3,), (4,), 16), keep=tmp_path / "kept")
    one, again = (task.run(folder, data, 0, options) for _ in range(2))
    np.testing.assert_array_equal(one.examples, again.examples)
    assert one.metrics["spearman"] > one.metrics["zero_shot_spearman"] + 0.2
    assert one.metrics["spearman"] == pytest.approx(stats.spearmanr(*one.examples.T).statistic, abs=1e-9)
    assert one.metrics["pearson"] == pytest.approx(stats.pearsonr(*one.examples.T).statistic, abs=1e-9)
    assert set(one.slices) == {"typos", "casing", "word_order", "units"}
    assert one.notes == ("mean pooling over token states: a model came without a pooling head",)
    kept = load_biencoder(BiEncoderSettings(base=str(tmp_path / "kept"), max_tokens=64))
    np.testing.assert_allclose(cosines(kept, data.test), one.examples[:, 1], atol=1e-5)


def test_a_rate_that_diverges_is_one_line(tmp_path):
    data = TaskData(pairs(COLOURS[:1]), pairs(COLOURS[1:2]), pairs(COLOURS[2:3]))
    folder = save_tiny(tmp_path)
    with pytest.raises(ValueError, match="no number in any of 1 runs: lower the learning rates"):
        EsciSimilarity().run(folder, data, 0, TaskOptions(tuning=Tuning((1e30,), (2,), 8)))
    # A grid has other cells.
    EsciSimilarity().run(folder, data, 0, TaskOptions(tuning=Tuning((1e30, 1e-3), (1,), 8)))


def test_home_depot_is_read_and_split_by_query(tmp_path):
    folder = tmp_path / "homedepot"
    folder.mkdir()
    lines = ['"id","product_uid","product_title","search_term","relevance"']
    lines += [f'{i},{i},"Mug {i} \u00bc in.","query {i // 4}",{1 + i % 3}' for i in range(800)]
    with zipfile.ZipFile(folder / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", "\n".join(lines).encode("latin-1"))
    data = EsciSimilarity().load(TaskSource(data_dir=tmp_path, budget="full"))
    parts = list(data.named().values())
    assert sum(map(len, parts)) == 800
    queries = [{one.row.text for one in part} for part in parts]
    assert len(set.union(*queries)) == sum(map(len, queries)) == 200
    assert data.test[0].row.pair.endswith("\u00bc in.")
    assert {one.gold for one in data.train} == {0.0, 0.5, 1.0}


def test_the_sample_shop_has_grades():
    data = EsciSimilarity().load(TaskSource(sample=True))
    assert {one.gold for one in data.test} == {0.0, 0.33, 0.66, 1.0}
