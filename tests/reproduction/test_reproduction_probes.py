from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from reproduction_cases import paper, plan_ahead

from rexbert_hf.reproduction import reproduce
from rexbert_hf.reproduction.budgets import stage_recipe
from rexbert_hf.reproduction.jobs import Job, load_job_model
from rexbert_hf.reproduction.probes import (
    in_test,
    measure_aspects,
    measure_classes,
    probe,
    softmax_regression,
    spans_of,
    text_features,
    word_features,
)

MEASURES = [
    {"name": "aspects", "kind": "aspects", "options": {"max_train": 60, "max_test": 40}},
    {"name": "classes", "kind": "classes", "options": {"max_rows": 80}},
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A reproduction whose rows are measured by the probes on the sample shop, and the job of one row."""
    folder = tmp_path_factory.mktemp("probes")
    changes = {"measures": MEASURES, "claims": [], "columns": {"aspects.f1": "F1"}, "rows": ["plain"], "seeds": [0]}
    settings = paper(folder, str(folder / "cache"), **changes)
    plan_ahead(settings)
    results = reproduce(settings)
    recipe = stage_recipe(settings, settings.stages[1])
    where = {"output_dir": str(folder / "seed-0" / "plain"), "cache_dir": str(folder / "cache")}
    return results, Job(settings.stages[1], 0, dataclasses.replace(recipe, **where))


def test_the_sample_shop_can_be_probed(finished):
    results, _ = finished
    values = results["rows"]["plain"][0]
    assert values["aspects.terms"] > 5
    assert 10 <= values["classes.rows"] <= 30  # a fourth of 80, by hash
    for key in ("aspects.precision", "aspects.recall", "aspects.f1", "classes.accuracy", "classes.macro_f1"):
        assert 0 <= values[key] <= 1
    assert "classes.accuracy" not in results["table"]


def test_a_title_measures_or_trains_wherever_it_stands():
    titles = [f"Mug number {i}" for i in range(2_000)]
    side = in_test(titles)
    assert np.array_equal(in_test([f" {title.upper()}" for title in titles]), side)
    assert abs(side.mean() - 0.25) < 5 * (0.25 * 0.75 / 2_000) ** 0.5


def test_word_features_are_the_states_of_first_tokens(finished):
    model, tokenizer = load_job_model(finished[1])
    sentences = [["lamp"], ["a", "Quixotic", "zyx-lamp,", "ok"]]
    with torch.no_grad():
        features, counts = word_features(model, tokenizer, sentences)
        assert counts == [1, 4]
        at = 0
        for words in sentences:
            text = " ".join(words)
            ids = tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
            states = model.base_model(ids["input_ids"]).last_hidden_state[0]
            offsets = ids["offset_mapping"][0].tolist()
            start = 0
            for word in words:
                first = next(i for i, (low, high) in enumerate(offsets) if low < high and high > start)
                assert torch.allclose(features[at], states[first], atol=1e-5)
                at, start = at + 1, start + len(word) + 1


def test_words_behind_the_longest_text_have_no_feature(finished):
    model, tokenizer = load_job_model(finished[1])
    features, counts = word_features(model, tokenizer, [["lamp"] * 50], max_length=12)
    assert len(features) == counts[0] < 50


def test_text_features_do_not_depend_on_padding(finished):
    model, tokenizer = load_job_model(finished[1])
    texts = ["a lamp", "a much longer text about a lamp with many words in it, and a price of $19.99"]
    together = text_features(model, tokenizer, texts)
    alone = torch.cat([text_features(model, tokenizer, [text]) for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)


def test_regression_reaches_the_minimum_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 4, generator=generator)
    y = (x @ torch.randn(4, 3, generator=generator)).argmax(1)
    layer = softmax_regression(x, y, 3, penalty=0.01)
    share = torch.softmax(layer(x).double(), 1) - torch.nn.functional.one_hot(y, 3)
    gradient = share.T @ x.double() / len(x) + 0.02 * layer.weight.double()
    assert gradient.abs().max() < 1e-4
    assert probe(x, y.tolist(), 5 * x, 3) != probe(x, y.tolist(), -5 * x, 3)
    assert np.mean(np.array(probe(x, y.tolist(), x, 3)) == y.numpy()) > 0.9


def test_broken_labels_still_give_spans():
    assert spans_of([]) == set()
    assert spans_of(["I", "I", "O", "B", "I"]) == {(0, 2), (3, 5)}


def test_files_of_a_data_folder_are_read(finished, tmp_path):
    job = finished[1]
    train = {str(i): {"sentence": ["the", "screen", "is", "fine"], "label": ["O", "B", "O", "O"]} for i in range(8)}
    (tmp_path / "ae").mkdir()
    for name in ("train", "test"):
        (tmp_path / "ae" / f"{name}.json").write_text(json.dumps(train))
    lines = [f"red shirt {i},Shirts\nold {i} lamp,Lamps" for i in range(20)]
    (tmp_path / "titles.csv").write_text("name,kind\n" + "\n".join(lines))
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, data_dir=str(tmp_path)))
    assert measure_aspects(job, "ae") == {"precision": 1.0, "recall": 1.0, "f1": 1.0, "terms": 8.0}
    found = measure_classes(job, "titles.csv", text="name", label="kind")
    titles = [title for i in range(20) for title in (f"red shirt {i}", f"old {i} lamp")]
    assert found["rows"] == in_test(titles).sum()
    assert found["accuracy"] > 0.8
