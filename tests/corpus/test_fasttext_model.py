from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from filter_cases import labelled_texts, tiny_classifier

from rexbert_hf.corpus.fasttext_file import FastTextFile
from rexbert_hf.corpus.fasttext_model import METADATA, FastTextClassifier
from rexbert_hf.corpus.fasttext_train import FastTextOptions
from rexbert_hf.corpus.normalise import Normaliser

fasttext = pytest.importorskip("fasttext")
SMALL = FastTextOptions(word_ngrams=2, buckets=1_000, min_count=1)


def test_unseen_texts_are_told_apart():
    texts, labels = labelled_texts(200, seed=9)
    kept = tiny_classifier().keeps(texts)
    assert np.mean(kept == (np.array(labels) == "shop")) > 0.95


def test_training_is_the_same_bytes_every_time():
    first, second = tiny_classifier(), tiny_classifier()
    assert first.file.path.read_bytes() == second.file.path.read_bytes()


def test_any_text_can_be_scored_and_texts_without_words_score_nothing():
    odd = ["", " ", "\n\n", "!!!", "line\nbreak\r\nbasket", "__label__out_of_domain basket", "\0nul", "\ud800", "</s>"]
    scores = tiny_classifier().scores(odd)
    assert scores.dtype == np.float32
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[:4].tolist() == [0.0] * 4
    assert tiny_classifier().scores([]).shape == (0,)


def test_texts_of_unknown_words_score_nothing_however_short_what_was_trained_on_is():
    """Titles against prose: the end of a text, which stands for shortness, speaks loudly for the domain."""
    texts, labels = labelled_texts(400)
    titles = [
        " ".join(text.split()[:3]) if label == "shop" else text for text, label in zip(texts, labels, strict=True)
    ]
    classifier = FastTextClassifier.train(titles, labels, ["shop"], options=SMALL)
    model = fasttext.load_model(str(classifier.file.path))
    found, shares = model.predict("", k=1)
    assert found[0] == "__label__in_domain"
    assert shares[0] > 0.9
    unknown = ["zzz qqq", "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "\u4e00\u4e8c", "qqq " * 50]
    assert classifier.scores(unknown).tolist() == [0.0] * 4
    assert (classifier.scores(["qqq basket", "qqq " * 50 + "basket delivery"]) > 0).all()


def test_a_text_of_unknown_words_costs_a_call_for_each_unlike_one(monkeypatch):
    classifier, asked = tiny_classifier(), []
    ask = FastTextClassifier._is_known
    monkeypatch.setattr(FastTextClassifier, "_is_known", lambda self, word: asked.append(word) or ask(self, word))
    assert classifier.scores(["zzz qqq " * 500]).tolist() == [0.0]
    assert len(asked) == 8 + 2  # the first ones are asked as they come


def test_parts_of_words_tell_of_unknown_words(tmp_path):
    texts, labels = labelled_texts(60)
    lines = [f"__label__{label} {text.lower()}" for text, label in zip(texts, labels, strict=True)]
    (tmp_path / "train.txt").write_text("\n".join(lines), encoding="utf-8")
    model = fasttext.train_supervised(
        str(tmp_path / "train.txt"), dim=4, minn=2, maxn=4, bucket=500, thread=1, verbose=0, epoch=0
    )
    rng = np.random.default_rng(0)  # with one thread fastText clears only the first tenth of its table
    words, output = model.get_input_matrix(), model.get_output_matrix()
    model.set_matrices(rng.normal(size=words.shape).astype("f4"), rng.normal(size=output.shape).astype("f4"))
    model.save_model(str(tmp_path / "model.bin"))
    classifier = FastTextClassifier.from_file(tmp_path / "model.bin", ["shop"])
    unknown, empty = classifier.scores(["baskets", " "])
    expected = dict(zip(*model.predict("baskets", k=2), strict=True))["__label__shop"]
    assert unknown == pytest.approx(expected, abs=1e-4)
    assert unknown > 0
    assert empty == 0


def test_labels_written_into_a_text_do_not_train():
    """A page of the other side that holds the label's name trains as what it was labelled."""
    texts, labels = labelled_texts(100)
    spiked = [
        f"__label__in_domain {text}" if label == "general" else text for text, label in zip(texts, labels, strict=True)
    ]
    classifier = FastTextClassifier.train(spiked, labels, ["shop"], options=SMALL)
    assert classifier.labels == ("in_domain", "out_of_domain")
    assert classifier.scores(["king war river winter"])[0] < 0.5


def test_scores_do_not_depend_on_the_batch():
    classifier, texts = tiny_classifier(), labelled_texts(1_100, seed=3)[0]
    together = classifier.scores(texts)
    alone = np.array([classifier.scores([text])[0] for text in texts[::97]])
    assert (together[::97] == alone).all()


def test_weights_move_the_border():
    texts, labels = labelled_texts(200)
    middle = ["basket king price war the of and"]
    heavy = [
        FastTextClassifier.train(
            texts, labels, ["shop"], options=SMALL, weights=[weight if x == "shop" else 1 for x in labels]
        ).scores(middle)[0]
        for weight in (0.02, 1, 50)
    ]
    assert heavy[0] < heavy[1] < heavy[2]


def test_a_repeated_text_is_a_text_of_double_weight():
    texts, labels = labelled_texts(40)
    options = FastTextOptions(buckets=1_000, min_count=1, max_steps=2_000)
    twice = FastTextClassifier.train([*texts, *texts[:10]], [*labels, *labels[:10]], ["shop"], options=options)
    weighed = FastTextClassifier.train(texts, labels, ["shop"], options=options, weights=[2] * 10 + [1] * 30)
    assert twice.scores(texts) == pytest.approx(weighed.scores(texts), abs=2e-3)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["a b", "c d"], ["shop", "shop"], "both sides are needed"),
        (["a b", "c d"], ["general", "other"], "both sides are needed"),
        (["a b", "!!"], ["shop", "general"], "out of the domain has a word"),
        (["a b"], ["shop", "general"], "1 texts with 2 labels"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(texts, labels, message):
    with pytest.raises(ValueError, match=message):
        FastTextClassifier.train(texts, labels, ["shop"], options=SMALL)


def test_saved_and_loaded_it_is_the_same_with_its_normaliser(tmp_path):
    texts, labels = labelled_texts(100)
    before = FastTextClassifier.train(texts, labels, ["shop"], Normaliser("keep", 50), SMALL)
    before.threshold = 0.625
    before.save(tmp_path)
    after = FastTextClassifier.load(tmp_path)
    assert (after.normaliser, after.threshold, after.facts) == (before.normaliser, 0.625, before.facts)
    assert (after.scores(texts) == before.scores(texts)).all()
    assert after.fingerprint == before.fingerprint
    # With the normaliser of another model the answers are others.
    other = FastTextClassifier.from_file(after.file.path, ["in_domain"], Normaliser(max_words=2))
    assert (other.scores(texts) != after.scores(texts)).any()


def test_another_model_gets_another_name_and_the_old_one_goes(tmp_path):
    first = tiny_classifier().save(tmp_path)
    texts, labels = labelled_texts(60, seed=4)
    second = FastTextClassifier.train(texts, labels, ["shop"], options=SMALL).save(tmp_path)
    assert first.name != second.name
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([METADATA, second.name])


def test_a_card_is_replaced_whole(tmp_path):
    """Whoever reads it, or whatever breaks, while it is written has the old one."""
    readme = tmp_path / "README.md"
    readme.write_text("# By a person\n")
    with readme.open() as reader:
        tiny_classifier().save(tmp_path, card="---\nlicense: mit\n---\n# A card\n")
        assert reader.read() == "# By a person\n"
    assert {"license: mit", "# By a person"} <= set(readme.read_text().splitlines())
    assert not list(tmp_path.glob(".*"))


def test_pickled_it_still_scores(tmp_path):
    tiny_classifier().save(tmp_path)
    classifier = FastTextClassifier.load(tmp_path)
    classifier.scores(["basket"])
    assert pickle.loads(pickle.dumps(classifier)).scores(["basket"]) == classifier.scores(["basket"])
    assert pickle.loads(pickle.dumps(classifier.file)) == classifier.file


def test_a_pickle_of_an_earlier_version_lacks_what_came_later():
    classifier = tiny_classifier()  # its file goes with it
    file = classifier.file
    queued = FastTextFile.__new__(FastTextFile)
    queued.__setstate__(file.__getstate__()[:-1])  # without `longest`
    assert queued == file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"normaliser": {"digits": "keep", "stemming": 1}}, "unknown setting stemming"),
        ({"sha256": "0" * 64}, "is not the file that was saved"),
        ({"format": 9}, "format 9"),
        ({"in_domain": ["shoes"]}, "has no label shoes"),
        ({"threshold": None}, METADATA),
    ],
)
def test_metadata_that_does_not_fit_is_refused(tmp_path, change, message):
    tiny_classifier().save(tmp_path)
    about = tmp_path / METADATA
    about.write_text(json.dumps(json.loads(about.read_text()) | change))
    with pytest.raises(ValueError, match=message):
        FastTextClassifier.load(tmp_path)


def test_a_folder_without_a_classifier_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="run the distil stage"):
        FastTextClassifier.load(tmp_path)
    tiny_classifier().save(tmp_path).unlink()
    with pytest.raises(FileNotFoundError, match=r"model-.*no such file"):
        FastTextClassifier.load(tmp_path)
