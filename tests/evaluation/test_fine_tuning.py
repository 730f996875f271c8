"""The engine learns what can be learnt with every head and kind of model, is deterministic, and refuses bad input."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import BertModel, pipeline
from tuning_cases import answer_rows, class_rows, save_tiny, tag_rows

from rexbert_hf.evaluation.fine_tuning import fine_tune
from rexbert_hf.evaluation.fine_tuning_model import POOLER_DRAWN
from rexbert_hf.evaluation.fine_tuning_rows import Row, check_rows
from rexbert_hf.evaluation.masked_recovery import MaskedScorer
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.metrics.binary import best_f1_cut

FAST = Tuning((3e-3,), (6,), batch_size=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("models")
    return {kind: save_tiny(base / kind, kind) for kind in ("rexbert", "bert")}


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_classes_are_learnt_and_the_saved_model_is_a_pipeline(folders, kind, tmp_path):
    train, test = class_rows(64), class_rows(16, seed=1)
    fitted = fine_tune(folders[kind], "sequence", train, test, tuning=FAST)
    answers = fitted.predict(test)
    assert answers.dtype == np.int64
    assert fitted.head.score(answers, test) > 0.9
    assert fitted.trials[0].best == pytest.approx(fitted.head.score(answers, test))
    fitted.save(tmp_path / "saved")
    said = pipeline("text-classification", str(tmp_path / "saved"))([row.text for row in test])
    assert [one["label"] for one in said] == [fitted.labels[i] for i in answers]


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_rare_matches_are_cut_where_the_dev_split_says(folders, kind, tmp_path):
    """One step that learns next to nothing: no row has even odds for the rare class, and yet some are found."""
    rows = [row._replace(label="cup" if row.label == "cup" else "none") for row in class_rows(64)]
    rare, others = ([row for row in rows if row.label == label] for label in ("cup", "none"))
    train = [*rare[:3], *others[:29]]
    dev, test = [*rare[3:9], *others[:10]], class_rows(16, seed=1)
    labels = ["none", "cup"]
    still = Tuning((1e-6,), (1,), batch_size=64)
    plain = fine_tune(folders[kind], "sequence", train, dev, labels=labels, tuning=still)
    fitted = fine_tune(folders[kind], "match", train, dev, labels=labels, tuning=still)
    margins = np.diff(np.stack(plain.logits(plain.head.encode(plain.tokenizer, dev, 128, learn=False))), axis=1)[:, 0]
    gold = np.array([row.label == "cup" for row in dev])
    answers = fitted.predict(dev)
    assert np.array_equal(answers, margins > best_f1_cut(margins, gold))
    assert fitted.head.score(answers, dev) == pytest.approx(fitted.trials[0].best)
    assert fitted.head.score(answers, dev) >= 2 * gold.mean() / (1 + gold.mean()) - 1e-9, (
        "at least as good as always yes"
    )
    fitted.save(tmp_path / "saved")
    said = pipeline("text-classification", str(tmp_path / "saved"))([row.text for row in test])
    assert [one["label"] for one in said] == [labels[i] for i in fitted.predict(test)]


def test_a_match_has_two_classes(folders):
    rows = [Row("a mug", label=label) for label in "abc"]
    with pytest.raises(ValueError, match="takes two classes, got 3"):
        fine_tune(folders["bert"], "match", rows, rows)


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_word_tags_are_learnt(folders, kind):
    train, test = tag_rows(48), tag_rows(12, seed=1)
    fitted = fine_tune(folders[kind], "token", train, test, tuning=FAST)
    answers = fitted.predict(test)
    assert [len(tags) for tags in answers] == [len(row.text) for row in test]
    assert fitted.head.score(answers, test) > 0.95


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_answers_are_learnt_over_windows(folders, kind):
    train, test = answer_rows(96), answer_rows(16, seed=1)
    # Windows of 16 tokens do not hold the longer contexts.
    fitted = fine_tune(folders[kind], "span", train, test, tuning=Tuning((3e-3,), (12,), batch_size=8), max_length=16)
    features = fitted.head.encode(fitted.tokenizer, test, 16, learn=False)
    assert len(features) > len(test)
    assert fitted.head.score(fitted.predict(test), test) > 0.8


def test_numbers_and_sets_are_learnt(folders):
    train = [Row(row.text, label=10.0 * (row.label == "cup") + 3.0) for row in class_rows(64)]
    fitted = fine_tune(folders["rexbert"], "regression", train, train[:16], tuning=replace(FAST, epochs=(12,)))
    assert np.abs(fitted.predict(train) - [row.label for row in train]).mean() < 1.0
    sets = [Row(row.text, label=[row.label, row.text.split()[0]]) for row in class_rows(64)]
    fitted = fine_tune(folders["bert"], "multi_label", sets, sets[:16], tuning=Tuning((5e-3,), (20,), batch_size=8))
    assert fitted.predict(sets).shape == (64, 7)
    assert fitted.head.score(fitted.predict(sets), sets) > 0.9


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_a_saved_regression_answers_in_the_numbers_of_its_data(folders, kind, tmp_path):
    train = [Row(row.text, label=100.0 * (row.label == "cup") + 30.0) for row in class_rows(32)]
    fitted = fine_tune(folders[kind], "regression", train, train[:8], tuning=replace(FAST, epochs=(1,)))
    told = fitted.predict(train[:4])
    fitted.save(tmp_path / "saved")
    said = pipeline("text-classification", str(tmp_path / "saved"))([row.text for row in train[:4]])
    np.testing.assert_allclose([one["score"] for one in said], told, rtol=1e-4)
    np.testing.assert_allclose(fitted.predict(train[:4]), told, rtol=1e-4)


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
def test_label_sets_begin_at_the_shares_of_their_classes(folders, kind):
    """So that training need not teach first that most classes are rare; a class without a row has half of one."""
    rows = [Row(row.text, label=["a", "b"] if i % 4 == 0 else ["a"]) for i, row in enumerate(class_rows(40))]
    rows[0] = rows[0]._replace(label=[])
    still = Tuning((1e-12,), (1,), batch_size=8)
    fitted = fine_tune(folders[kind], "multi_label", rows, rows[:4], labels=["a", "b", "c"], tuning=still)
    bias = fitted.model.classifier.bias.detach().numpy()
    assert 1 / (1 + np.exp(-bias)) == pytest.approx([39 / 40, 9 / 40, 0.5 / 40], abs=1e-5)


def test_equal_seeds_give_equal_models_and_others_do_not(folders):
    train = class_rows(24)
    one, same, other = (
        fine_tune(folders["rexbert"], "sequence", train, train[:8], tuning=Tuning((1e-3,), (1,), 8), seed=seed)
        for seed in (0, 0, 1)
    )
    weights = [dict(fitted.model.named_parameters())["classifier.weight"] for fitted in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_training_leaves_the_generators_of_the_caller_alone(folders):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fine_tune(folders["rexbert"], "sequence", class_rows(8), class_rows(8), tuning=Tuning((1e-3,), (1,), 8))
    assert torch.equal(torch.rand(1), expected)


def test_the_best_epoch_of_the_best_cell_is_kept(folders):
    rows = class_rows(24)
    order = iter([0.1, 0.6, 0.3, 0.2, 0.4])  # epochs of the cells 1 and 4 of rate 1e-3
    seen = []

    def metric(answers, dev):
        seen.append(answers)
        return next(order)

    tuning = Tuning((1e-3,), (1, 4), 8)
    fitted = fine_tune(folders["rexbert"], "sequence", rows, rows, tuning=tuning, metric=metric)
    assert [trial.scores for trial in fitted.trials] == [(0.1,), (0.6, 0.3, 0.2, 0.4)]
    features = fitted.head.encode(fitted.tokenizer, rows, fitted.max_length, learn=False)
    replayed = fine_tune(
        folders["rexbert"], "sequence", rows, rows, tuning=Tuning((1e-3,), (4,), 8), metric=lambda a, d: len(a) * 0.0
    )  # all epochs are equal: the first is kept
    np.testing.assert_array_equal(fitted.logits(features), replayed.logits(features))


def test_prediction_does_not_depend_on_batches_or_order(folders):
    rows = class_rows(20)
    for kind in folders:
        fitted = fine_tune(folders[kind], "sequence", rows, rows, tuning=Tuning((1e-3,), (1,), 8))
        features = fitted.head.encode(fitted.tokenizer, rows, 64, learn=False)
        together = np.stack(fitted.logits(features))
        fitted.batch_size = 1
        alone = np.stack(fitted.logits(features[::-1]))[::-1]
        np.testing.assert_allclose(together, alone, atol=2e-6)


def test_an_absent_answer_is_only_said_where_it_was_seen(folders):
    train = answer_rows(32, none_every=2)
    tuning = Tuning((3e-3,), (10,), 8)
    fitted = fine_tune(folders["rexbert"], "span", train, train, tuning=tuning, max_length=64)
    none = [answer is None for answer in fitted.predict(train)]
    assert np.mean([said == (row.label is None) for said, row in zip(none, train, strict=True)]) > 0.9
    fitted.head.may_be_none = False
    assert None not in fitted.predict(train)


def test_a_rate_that_diverges_is_one_line(folders):
    rows = class_rows(16)
    with pytest.raises(ValueError, match="lower the learning rates"):
        fine_tune(folders["bert"], "sequence", rows, rows, tuning=Tuning((1e30,), (1,), 4))


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("sequence", [], "the training split is empty"),
        ("sequence", [Row("a", label="x")] * 3, "all 3 rows of the training split have the label 'x'"),
        ("sequence", [Row("a", label="x"), Row("b", label="z", where="f.tsv, line 2")], "f.tsv, line 2: the label 'z'"),
        (
            "regression",
            [Row("a", label=1.0), Row("b", label=float("nan"))],
            "row 1: the label nan is no finite",
        ),
        ("multi_label", [Row("a", label=["x"]), Row("b", label="x")], "training row 1: the label 'x' is no collection"),
        ("token", [Row(["a", "b"], label=["x"])], "training row 0: 2 words but 1 tags"),
        ("token", [Row(["a", " "], label=["x", "y"])], "training row 0: a word is empty"),
        ("token", [Row(["a", "b"], label=["x", "I-z"])], "training row 0: the label 'I-z'"),
        ("span", [Row("who?", "he", (0, 3))], r"training row 0: the answer 0\.\.3 does not lie"),
        ("span", [Row("who?", None, (0, 3))], "training row 0: a question and its context"),
    ],
)
def test_bad_rows_are_one_line_with_their_place(folders, head, rows, message):
    with pytest.raises(ValueError, match=message):
        fine_tune(folders["rexbert"], head, rows, rows, labels=["x", "y"])


def test_a_label_of_dev_that_training_lacks_is_an_error(folders):
    with pytest.raises(ValueError, match=r"dev row 0: the label 'sofa' is outside the set \(cup"):
        fine_tune(folders["rexbert"], "sequence", class_rows(16), [Row("red sofa", label="sofa")])


def test_a_one_class_test_split_is_an_error():
    with pytest.raises(ValueError, match=r"^data/a\.tsv: all 2 rows of the test split have the label 'x'"):
        check_rows("sequence", [Row("a", label="x"), Row("b", label="x")], ["x", "y"], "test", source="data/a.tsv")
    with pytest.raises(ValueError, match=r"^data/a\.tsv: the dev split is empty"):
        check_rows("sequence", [], ["x", "y"], "dev", source="data/a.tsv")


def test_a_drawn_pooler_is_said(folders, tmp_path):
    """A masked-LM checkpoint of BERT has none, and a head of classes reads it."""
    shutil.copytree(folders["bert"], tmp_path / "whole")
    BertModel.from_pretrained(folders["bert"]).save_pretrained(tmp_path / "whole")
    rows, still = class_rows(8), Tuning((1e-12,), (1,), 8)
    found = {
        name: fine_tune(folder, "sequence", rows, rows, tuning=still).notes
        for name, folder in (*folders.items(), ("whole", tmp_path / "whole"))
    }
    assert found == {"rexbert": (), "bert": (POOLER_DRAWN,), "whole": ()}


def test_a_model_without_a_tokenizer_is_one_line(tmp_path):
    folder = save_tiny(tmp_path / "tiny")
    for path in (tmp_path / "tiny").glob("token*"):
        path.unlink()
    for load in (lambda: fine_tune(folder, "sequence", class_rows(), class_rows(8)), lambda: MaskedScorer.load(folder)):
        with pytest.raises(ValueError, match=r"tiny: its tokenizer cannot be loaded \([^\n]+\)$"):
            load()


def test_a_checkpoint_without_the_encoder_is_refused(tmp_path, folders):
    folder = save_tiny(tmp_path / "cut", "bert")
    from safetensors.torch import load_file, save_file

    weights = load_file(tmp_path / "cut" / "model.safetensors")
    kept = {name: weight for name, weight in weights.items() if "layer.1" not in name}
    save_file(kept, tmp_path / "cut" / "model.safetensors", metadata={"format": "pt"})
    rows = class_rows(8)
    with pytest.raises(ValueError, match="weights of the encoder are missing"):
        fine_tune(folder, "sequence", rows, rows)
    with pytest.raises(ValueError, match="bert pools in its own way"):
        fine_tune(folders["bert"], "sequence", rows, rows, pooling="mean")
