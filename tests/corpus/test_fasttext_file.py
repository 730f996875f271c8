"""The model file: refused when it is none, the same classifier when it is made narrow, fastText's own hashing."""

from __future__ import annotations

import itertools
import math
import struct

import numpy as np
import pytest
from filter_cases import labelled_texts, matrix_places, read_matrices, tiny_classifier

from rexbert_hf.corpus.fasttext_file import _HEAD, _SHAPE, _write, read_layout
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.fasttext_train import FastTextOptions, word_hash
from rexbert_hf.corpus.language import detect_languages
from rexbert_hf.corpus.normalise import Normaliser, normalise_texts

fasttext = pytest.importorskip("fasttext")
HEAD = struct.pack("<ii", 793_712_314, 12)


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model of three labels that fastText itself trained, and its texts.

    Its matrices are set: with one thread fastText clears only the first tenth of its table.
    """
    folder = tmp_path_factory.mktemp("wide")
    texts, labels = labelled_texts(120)
    names = ["mixed" if i % 3 == 0 else label for i, label in enumerate(labels)]
    lines = [f"__label__{name} {text}\n" for name, text in zip(names, normalise_texts(texts), strict=True)]
    (folder / "train.txt").write_text("".join(lines))
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=4, wordNgrams=2, bucket=500, thread=1, verbose=0, epoch=0
    )
    rng = np.random.default_rng(0)
    words, output = model.get_input_matrix(), model.get_output_matrix()
    model.set_matrices(rng.normal(size=words.shape).astype("f4"), rng.normal(size=output.shape).astype("f4"))
    model.save_model(str(folder / "wide.bin"))
    return folder / "wide.bin", normalise_texts(texts)


def test_layout_of_fasttexts_own_file(wide):
    path, _ = wide
    layout, model = read_layout(path), fasttext.load_model(str(path))
    assert (layout.dim, layout.words, layout.buckets, layout.loss) == (4, len(model.words), 500, "softmax")
    assert list(layout.labels) == model.labels
    table, output = read_matrices(layout)
    assert (table == model.get_input_matrix()).all()
    assert (output == model.get_output_matrix()).all()


def collapse(path, target):
    """Write the same classifier with one number a row and answer; with two labels, one number a row.

    Softmax sees differences only, so with two labels the rows hold half the difference and the output is (+1, -1).
    """
    layout = read_layout(path)
    assert layout.loss == "softmax"
    table, output = read_matrices(layout)
    if len(layout.labels) == 2:
        projection, answers = (output[:1] - output[1:]) / 2, np.array([[1.0], [-1.0]])
    else:
        projection, answers = output, np.eye(len(output))
    head = bytearray(layout.path.read_bytes()[: matrix_places(layout)[0] - _SHAPE.size - 1])
    struct.pack_into("<i", head, _HEAD.size, projection.shape[0])
    _write(target, bytes(head), table @ projection.T, answers)
    return read_layout(target)


def test_collapsing_changes_no_probability(wide, tmp_path):
    path, texts = wide
    narrow = collapse(path, tmp_path / "narrow.bin")
    assert narrow.dim == len(narrow.labels) == 3
    before, after = (
        fasttext.load_model(str(p)).predict([*texts, "unknown words", ""], k=3) for p in (path, narrow.path)
    )
    assert before[0] == after[0]
    assert np.allclose(np.array(before[1]), np.array(after[1]), atol=1e-5)


def test_two_labels_need_one_number_a_row(tmp_path):
    classifier = tiny_classifier()
    assert classifier.file.dim == 1
    again = collapse(classifier.file.path, tmp_path / "again.bin")
    assert np.allclose(read_matrices(again)[0], read_matrices(classifier.file)[0])


def reference_score(classifier: FastTextClassifier, text: str) -> float:
    """Log-odds as fastText defines them, word by word, in plain Python."""
    layout = classifier.file
    table = read_matrices(layout)[0][:, 0].astype(float)
    vocabulary = {word: i for i, word in enumerate(fasttext.load_model(str(layout.path)).words)}
    words = [*Normaliser()(text).split(), "</s>"]
    rows = [vocabulary[word] for word in words if word in vocabulary]
    for first, second in itertools.pairwise(words):
        signed = [h - (1 << 32) if h >= 1 << 31 else h for h in map(word_hash, (first, second))]
        rows.append(layout.words + (signed[0] * 116049371 + signed[1]) % (1 << 64) % layout.buckets)
    return 2 * sum(table[row] for row in rows) / len(rows)


def test_fasttext_reads_our_file_as_we_meant_it():
    classifier = tiny_classifier()
    texts = [*labelled_texts(20, seed=5)[0], "caf\u00e9 \u4e2d\u6587 unknown basket", "king"]
    wanted = [1 / (1 + math.exp(-reference_score(classifier, text))) for text in texts]
    assert classifier.scores(texts) == pytest.approx(wanted, abs=3e-5)  # fastText adds 1e-5


def test_training_finds_the_minimum_of_the_penalised_loss():
    """The gradient in float64, written out: loss of 10,000 texts over C, plus half the squared weights."""
    texts, labels = labelled_texts(60)
    options = FastTextOptions(word_ngrams=1, min_count=1, buckets=1, strength=10.0, max_steps=1_000)
    classifier = FastTextClassifier.train(texts, labels, ["shop"], options=options)
    model = fasttext.load_model(str(classifier.file.path))
    vocabulary = {word: i for i, word in enumerate(model.words)}
    weights = 2 * read_matrices(classifier.file)[0][: len(vocabulary), 0].astype(float)
    features = np.zeros((60, len(vocabulary)))
    for row, text in zip(features, texts, strict=True):
        words = [*Normaliser()(text).split(), "</s>"]
        for word in words:
            row[vocabulary[word]] += 1 / len(words)
    truth = np.array([label == "shop" for label in labels])
    wrong = 1 / (1 + np.exp(-features @ weights)) - truth
    gradient = weights + 10.0 * (10_000 / 60) * features.T @ wrong
    assert np.abs(gradient).max() < 0.02 * np.abs(weights).max()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a fastText model"),
        (b"\x89PNG and so on, for a good while", "is not a fastText model"),
        (b"PK\x03\x04" + bytes(5_000), "is not a fastText model"),
        (struct.pack("<ii", 793_712_314, 99) + bytes(100), "version 99"),
        (HEAD + bytes(10), "cut off or damaged"),
        (HEAD + struct.pack("<12id", *[5] * 6, 3, 3, *[5] * 4, 0.1) + b"\xff" * 60, "cut off or damaged"),
        (HEAD + struct.pack("<12id", *[5] * 6, 2, 2, *[5] * 4, 0.1), "of word vectors"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        FastTextClassifier.from_file(path, ["shop"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_cut_anywhere_is_refused(tmp_path):
    classifier = tiny_classifier()
    content = classifier.file.path.read_bytes()
    path = tmp_path / "cut.bin"
    for size in [*range(0, 400, 13), len(content) // 2, len(content) - 1]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"cut\.bin"):
            read_layout(path)


def quantised_model(tmp_path, **options):
    lines = "".join(f"__label__l{i} word{i} word{i % 7} other\n" for i in range(300))
    (tmp_path / "train.txt").write_text(lines)
    given = {"input": str(tmp_path / "train.txt"), "verbose": 0}
    model = fasttext.train_supervised(dim=5, wordNgrams=2, bucket=400, thread=1, epoch=0, **given)
    shapes = (model.get_input_matrix().shape, model.get_output_matrix().shape)
    model.set_matrices(*(np.random.default_rng(0).normal(size=shape).astype("f4") for shape in shapes))
    model.quantize(**given, retrain=False, dsub=2, **options)
    model.save_model(str(tmp_path / "model.ftz"))
    return tmp_path / "model.ftz"


@pytest.mark.parametrize("options", [{"qnorm": True}, {"qout": True}, {"cutoff": 300, "qnorm": True}])
def test_a_quantised_model_is_whole_or_refused(tmp_path, options):
    path = quantised_model(tmp_path, **options)
    assert len(read_layout(path).labels) == 300
    content = path.read_bytes()
    for size in [len(content) - 1, len(content) - 40, len(content) // 2, 1_500]:
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match=r"model\.ftz: .* cut off or damaged"):
            read_layout(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_layout(path)


ARGS, SIZES = 8, 64
"""Where the settings begin, and the dictionary's sizes."""


def changed(classifier, tmp_path, form, place, value):
    content = bytearray(classifier.file.path.read_bytes())
    struct.pack_into(form, content, place, value)
    (tmp_path / "changed.bin").write_bytes(content)
    return tmp_path / "changed.bin"


@pytest.mark.parametrize(
    ("what", "form", "place", "value"),
    [
        ("words in an n-gram", "<i", ARGS + 20, 1 << 24),  # as many n-grams as a text has pairs of words
        ("buckets", "<i", ARGS + 32, 1_000 + (1 << 24)),  # one bit: n-grams beyond the end of the matrix
        ("no buckets", "<i", ARGS + 32, 0),  # n-grams are divided by it
        ("negative buckets", "<i", ARGS + 32, -1_000),
        ("characters in an n-gram", "<i", ARGS + 40, 1 << 30),
        ("words", "<i", SIZES + 4, 2),
        ("labels", "<i", SIZES + 8, 1),
        ("pruned n-grams", "<q", SIZES + 20, 1),
        ("pruned, but not quantised", "<q", SIZES + 20, 0),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, what, form, place, value):
    """fastText takes it on trust, and ends the process or never comes back."""
    path = changed(tiny_classifier(), tmp_path, form, place, value)
    with pytest.raises(ValueError, match=r"changed\.bin: .* cut off or damaged"):
        FastTextClassifier.from_file(path, ["shop"])


def test_matrices_of_other_shapes_are_refused(tmp_path):
    classifier = tiny_classifier()
    input_at, rows, output_at = matrix_places(classifier.file)
    for place, value in [
        (input_at - 17, 2),
        (input_at - 16, rows - 1),
        (input_at - 8, 2),
        (output_at - 17, 2),
        (output_at - 16, 1),
        (output_at - 8, 2),
    ]:
        form = "<B" if value == 2 and place in (input_at - 17, output_at - 17) else "<q"
        with pytest.raises(ValueError, match="cut off or damaged"):
            read_layout(changed(classifier, tmp_path, form, place, value))


def test_words_come_before_labels(tmp_path):
    classifier = tiny_classifier()
    content = classifier.file.path.read_bytes()
    kind = content.index(b"\0", SIZES + 28) + 9
    with pytest.raises(ValueError, match="cut off or damaged"):
        read_layout(changed(classifier, tmp_path, "<b", kind, 1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_matrices_that_give_no_numbers_are_told_in_one_line(tmp_path, value):
    classifier = tiny_classifier()
    at, rows, _ = matrix_places(classifier.file)
    content = bytearray(classifier.file.path.read_bytes())
    content[at : at + 4 * rows] = np.full(rows, value, "<f4").tobytes()
    path = tmp_path / "changed.bin"
    path.write_bytes(content)
    texts = ["the basket, the price, delivery and stock"] * 3
    with pytest.raises(ValueError, match=r"changed\.bin: a fastText model that is damaged \(.*again") as caught:
        FastTextClassifier.from_file(path, ["in_domain"]).scores(texts)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="that is damaged"):
        detect_languages(texts, path)


def test_a_pruned_model_whose_rows_are_elsewhere_is_refused(tmp_path):
    path = quantised_model(tmp_path, cutoff=400)
    content = path.read_bytes()
    size, _, _, _, pruned = struct.unpack_from("<iiiqq", content, SIZES)
    assert pruned > 0
    pairs = SIZES + 28
    for _ in range(size):
        pairs = content.index(b"\0", pairs) + 10
    for row in (pruned, -1, 1 << 30):
        path.write_bytes(content[: pairs + 4] + struct.pack("<i", row) + content[pairs + 8 :])
        with pytest.raises(ValueError, match="cut off or damaged"):
            read_layout(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bin"):
        read_layout(tmp_path / "nowhere.bin")


def test_word_vectors_of_fasttext_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text("a b c d e f g h i j\n" * 50)
    # Without a step: fastText's trainer reads a table that it has not filled, and may end in "NaN".
    model = fasttext.train_unsupervised(str(tmp_path / "text.txt"), dim=4, minCount=1, epoch=0, verbose=0, bucket=100)
    model.save_model(str(tmp_path / "vectors.bin"))
    with pytest.raises(ValueError, match="of word vectors"):
        read_layout(tmp_path / "vectors.bin")
