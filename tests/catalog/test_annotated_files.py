"""Readers of annotated public formats: what they give, and what they say of a wrong file, row by row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from rexbert_hf.catalog.aspect_files import read_aspect_sentiments, read_tagged_sentences
from rexbert_hf.catalog.attribute_files import read_attributed_titles
from rexbert_hf.catalog.question_files import question_of_row, read_squad, read_subjqa
from rexbert_hf.catalog.taxonomy_files import read_taxonomy

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
CONTEXT = "The keys are fine but the fan is loud."


def squad_file(folder, answers, question="how is the fan ?", context=CONTEXT):
    entry = {"id": "q7", "question": question, "answers": answers}
    content = {"data": [{"title": "t", "paragraphs": [{"context": context, "qas": [entry]}]}], "version": "1.1"}
    path = folder / "part.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


# --- questions ---


def test_squad(tmp_path):
    path = squad_file(tmp_path, [{"answer_start": 33, "text": "loud"}, {"answer_start": 26, "text": "fan is loud"}])
    (found,) = read_squad(path)
    assert (found.question, found.answers, found.texts()) == (
        "how is the fan ?",
        ((33, 37), (26, 37)),
        ["loud", "fan is loud"],
    )
    assert found.where == f"{path} question q7"


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([{"answer_start": 32, "text": "loud"}], "question q7: the answer 'loud' does not stand at 32"),
        ([{"answer_start": 36, "text": "loud"}], "does not stand at 36"),
        ([{"answer_start": -4, "text": "loud"}], "does not stand at -4"),
        ([{"answer_start": 3, "text": " "}], "does not stand at 3"),
        ([], "has no answer"),
        ([{"text": "loud"}], "not in the form of SQuAD 1.1 .*answer_start"),
        ([{"answer_start": "x", "text": "loud"}], "question q7: not in the form of SQuAD 1.1 .*'x' is no place"),
        ([{"answer_start": 33, "text": None}], "question q7: question, context and answers are texts"),
        (["loud"], "question q7: not in the form of SQuAD"),
    ],
)
def test_answers_that_are_not_in_the_context(tmp_path, answers, message):
    with pytest.raises(ValueError, match=message):
        read_squad(squad_file(tmp_path, answers))


def test_squad_of_another_form(tmp_path):
    with pytest.raises(ValueError, match="question or its context is empty"):
        read_squad(squad_file(tmp_path, [{"answer_start": 33, "text": "loud"}], question=" "))
    path = tmp_path / "other.json"
    path.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json: not in the form of SQuAD"):
        read_squad(path)
    for content, message in ((b"{", "no JSON"), (b"[" * 100_000, "no JSON"), (b'{"a":\n"\xff"}', "2: not UTF-8")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"other\.json:? ?{message}"):
            read_squad(path)
    with pytest.raises(ValueError, match="question q7: question, context and answers are texts"):
        read_squad(squad_file(tmp_path, [{"answer_start": 33, "text": "loud"}], question=3))
    path.write_text('{"data": [{"paragraphs": [{"context": "a", "qas": ["q"]}]}]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json after 0 questions: not in the form"):
        read_squad(path)


def test_rows_of_a_dataset():
    row = {"question": "q ?", "context": "ab cd", "answers": [{"start": 3, "text": "cd"}]}
    assert question_of_row(row, "row 1").texts() == ["cd"]
    with pytest.raises(ValueError, match=r"row 1: no answers; the columns are"):
        question_of_row({"question": "q ?", "context": "ab"}, "row 1")
    for answers in ({"text": ["ab"], "answer_start": []}, {"text": ["ab"]}, ["ab"], [{"start": "x", "text": "ab"}], 3):
        with pytest.raises(ValueError, match="row 1: answers are texts with their places"):
            question_of_row({"question": "q ?", "context": "ab", "answers": answers}, "row 1")


SUBJQA = ["question", "review_id", "review", "human_ans_spans", "human_ans_indices"]


def subjqa_file(folder, *rows):
    path = folder / "train.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([SUBJQA, *rows])
    return path


def test_subjqa(tmp_path):
    review = f"{CONTEXT} ANSWERNOTFOUND"
    found = read_subjqa(
        subjqa_file(
            tmp_path,
            ["How is the fan?", "r1", review, "fan is loud .", "(26, 38)"],  # typed over tokenised text
            ["How is the fan?", "r1", review, "loud", "(33, 37)"],  # a second annotator
            ["How is the fan?", "r2", review, "ANSWERNOTFOUND", "(39, 53)"],
            ["How are the keys?", "r1", review, "keys were fine", "(4, 17)"],  # other letters: left out
            ["And the fan?", "r1", review, "loud. ANSWERNOTFOUND", "(33, 53)"],  # one word too far
        )
    )
    question, other = found.questions
    assert other.texts() == ["loud."]
    assert question.texts() == ["fan is loud.", "loud"]
    assert question.context == CONTEXT, "the word for 'no answer' must not stand in what the model reads"
    assert (found.unanswered, found.unmatched) == (2, 1)


def test_a_long_review_is_read_where_the_limit_has_32_bits_and_a_higher_limit_stays(tmp_path, monkeypatch):
    set_to, stock = [], csv.field_size_limit

    def on_windows(*limit):
        if limit and limit[0] >= 1 << 31:
            raise OverflowError("Python int too large to convert to C long")
        set_to.extend(limit)
        return stock(*limit)

    before = stock(128 << 10)
    monkeypatch.setattr(csv, "field_size_limit", on_windows)
    try:
        row = ["How is the fan?", "r1", f"{CONTEXT}{' and on' * 40_000}", "loud", "(33, 37)"]
        assert read_subjqa(subjqa_file(tmp_path, row)).questions[0].texts() == ["loud"]
        stock((1 << 31) - 1)
        read_subjqa(subjqa_file(tmp_path, row))
        assert set_to[-1] == stock() == (1 << 31) - 1
    finally:
        stock(before)


def test_subjqa_of_another_form(tmp_path):
    with pytest.raises(ValueError, match=r"train\.csv:2: human_ans_indices '26-38' is no pair"):
        read_subjqa(subjqa_file(tmp_path, ["q", "r", CONTEXT, "loud", "26-38"]))
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.csv:2: not a row of SubjQA"):
        read_subjqa(path)
    for places in ("('a', 'b')", "(1.5, 2)", "(1, 2, 3)", "3", ""):
        with pytest.raises(ValueError, match=r"train\.csv:2: human_ans_indices .* is no pair"):
            read_subjqa(subjqa_file(tmp_path, ["q", "r", CONTEXT, "loud", places]))
    with pytest.raises(ValueError, match=r"train\.csv:2: not a row of SubjQA"):
        read_subjqa(subjqa_file(tmp_path, ["q", "r", CONTEXT]))
    path.write_bytes(b"question,review\ncaf\xe9,x\n")
    with pytest.raises(ValueError, match=r"other\.csv:2: not UTF-8"):
        read_subjqa(path)


# --- aspects ---


def entries_file(folder, **entries):
    path = folder / "part.json"
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def test_tagged_sentences(tmp_path):
    path = entries_file(tmp_path, a={"sentence": ["Boot", "time", "ok"], "label": ["B", "I", "O"]})
    (found,) = read_tagged_sentences(path)
    assert found == (("Boot", "time", "ok"), ("B", "I", "O"), f"{path} entry a")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"sentence": ["ok", "time"], "label": ["O"]}, "entry a: 2 words but 1 tags"),
        ({"sentence": ["ok"], "label": ["B-x"]}, "entry a: word 0 has the tag 'B-x', which is outside B, I, O"),
        ({"sentence": ["ok", " "], "label": ["O", "O"]}, "entry a: word 1 is empty"),
        ({"sentence": ["Boot", "time"], "label": ["I", "I"]}, "entry a: word 0 has the tag 'I' after no B or I"),
        ({"sentence": ["ok", "time"], "label": ["O", "I"]}, "entry a: word 1 has the tag 'I' after no B or I"),
        ({"sentence": [], "label": []}, "entry a: 0 words"),
        ({"sentence": ["ok"]}, "entry a: no label"),
        ({"sentence": None, "label": ["O"]}, "entry a: words and tags are lists of texts"),
        ({"sentence": ["ok", None], "label": ["O", "O"]}, "entry a: words and tags are lists of texts"),
    ],
)
def test_bad_tags(tmp_path, entry, message):
    with pytest.raises(ValueError, match=message):
        read_tagged_sentences(entries_file(tmp_path, a=entry))


@pytest.mark.parametrize(
    ("polarity", "term", "message"),
    [
        ("conflict", "fan", "entry a: the polarity 'conflict' is outside positive, negative, neutral"),
        ("positive", "screen", "entry a: the sentence does not hold the term 'screen'"),
        ("positive", "", "entry a: the sentence does not hold the term ''"),
        ("positive", None, "entry a: sentence, term and polarity are texts"),
        (["positive"], "fan", "entry a: sentence, term and polarity are texts"),
    ],
)
def test_bad_aspects(tmp_path, polarity, term, message):
    path = entries_file(tmp_path, a={"sentence": CONTEXT, "term": term, "polarity": polarity})
    with pytest.raises(ValueError, match=message):
        read_aspect_sentiments(path)


# --- attribute values ---


def test_attributed_titles(tmp_path):
    path = tmp_path / "train.jsonl"
    scores = {"Brand": {"Ostwick": 1}, "Size": {" 10 D ": 1}, "Colour": {"n/a": 1}}
    path.write_text(json.dumps({"input": "Ostwick shoe, 10 D", "category": "Shoes", "target_scores": scores}) + "\n\n")
    (found,) = read_attributed_titles(path)
    assert found == ("Ostwick shoe, 10 D", (("Brand", "Ostwick"), ("Size", "10 D")), "Shoes", f"{path}:1")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"input": "mug", "target_scores": {"Brand": {"cup": 1}}}',
            r":1: the value 'cup' of 'Brand' is not in the title",
        ),
        ('{"input": "mug", "target_scores": {" ": {"mug": 1}}}', r":1: the value 'mug' has no attribute"),
        ('{"input": " ", "target_scores": {}}', r":1: the title is empty"),
        ('{"title": "mug"}', r":1: not \{input, target_scores"),
        ("{", ":1: no JSON"),
        ('{"input": "mug", "target_scores": {}, "n": ' + "9" * 5000 + "}", ":1: no JSON"),
        ("\udcff", ":1: not UTF-8"),
        ('{"input": 3, "target_scores": {}}', r":1: not \{input, target_scores"),
        ("[1]", r":1: not \{input, target_scores"),
    ],
)
def test_bad_titles(tmp_path, line, message):
    path = tmp_path / "train.jsonl"
    path.write_text(line, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=message):
        read_attributed_titles(path)


# --- taxonomies ---


def test_both_forms_of_a_taxonomy(tmp_path):
    full, nested = tmp_path / "full.txt", tmp_path / "nested.txt"
    full.write_text("# version\n1 - Home\n536 - Home > Kitchen\n638 - Home > Kitchen > Mugs\n7 - Toys\n")
    nested.write_text("# tree\n   1 | [  1-  6] | Home\n    12 | [  2-  5] | Kitchen\n     113 | [  3-  4] | Mugs\n"
                      "   7 | [  7-  8] | Toys\n")  # fmt: skip
    expected = [("Home",), ("Home", "Kitchen"), ("Home", "Kitchen", "Mugs"), ("Toys",)]
    assert read_taxonomy(full) == read_taxonomy(nested) == expected


def test_a_number_within_a_path_is_part_of_its_name(tmp_path):
    path = tmp_path / "tree.txt"
    path.write_text("Toys > Ages > 0 - 2 Years\n7 - Toys > 3 - 5 Years\n")
    assert read_taxonomy(path) == [("Toys", "Ages", "0 - 2 Years"), ("Toys", "3 - 5 Years")]


def test_taxonomy_of_another_form(tmp_path):
    path = tmp_path / "tree.txt"
    path.write_text("   1 | [ 1- 2] | Home\nKitchen\n")
    with pytest.raises(ValueError, match=r"tree\.txt:2: not 'number"):
        read_taxonomy(path)
    path.write_text("# nothing\n")
    with pytest.raises(ValueError, match="holds no category"):
        read_taxonomy(path)
    path.write_bytes(b"1 - Home\n2 - Caf\xe9\n")
    with pytest.raises(ValueError, match=r"tree\.txt:2: not UTF-8"):
        read_taxonomy(path)


# --- the published files ---


def real(name: str) -> Path:
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}: the shared data is not on this machine")
    return DATA / name


@pytest.mark.real_data
def test_published_questions():
    assert [len(read_squad(real("review_rc_laptop") / f"{part}.json")) for part in ("train", "dev", "test")] == [
        816,
        199,
        351,
    ]
    test = read_subjqa(real("subjqa_electronics/test.csv"))
    assert len(test.questions) + test.unanswered == 358
    assert test.unmatched == 10
    assert not any("ANSWERNOTFOUND" in one.context for one in test.questions)


@pytest.mark.real_data
def test_published_aspects_and_values():
    folder = real("semeval14_laptop")
    sizes = [len(read_tagged_sentences(folder / "ae" / f"{part}.json")) for part in ("train", "dev", "test")]
    assert sizes == [2_895, 150, 800]
    assert sum(one.tags.count("B") for one in read_tagged_sentences(folder / "ae/test.json")) == 654
    assert len(read_aspect_sentiments(folder / "asc/test.json")) == 638
    titles = read_attributed_titles(real("oa_mine/test.jsonl"))
    assert (len(titles), sum(len(one.values) for one in titles)) == (491, 2_451)
    tree = read_taxonomy(real("taxonomy/taxonomy-with-ids.en-US.txt"))
    assert (len(tree), len(set(tree))) == (5_595, 5_595)
    assert ("Electronics", "Communications", "Telephony", "Mobile Phones") in tree
