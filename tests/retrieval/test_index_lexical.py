"""BM25 beside the vectors, and the fusion of both."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from index_cases import HashModel, make_products

from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.lexical import LexicalIndex, fuse, words_of
from rexbert_hf.retrieval.serving.stemming import porter_stem

TEXTS = ["red lamp red", "blue lamps for the garden", "garden chair", "chairs and a table", "desk"]


STEMS = """
caresses caress  ponies poni  ties ti  caress caress  cats cat  feed feed  agreed agre  plastered plaster
bled bled  motoring motor  sing sing  conflated conflat  troubled troubl  sized size  hopping hop
tanned tan  falling fall  hissing hiss  fizzed fizz  failing fail  filing file  happy happi  sky sky
relational relat  conditional condit  rational ration  valenci valenc  digitizer digit
conformabli conform  radicalli radic  differentli differ  vileli vile  analogousli analog
vietnamization vietnam  predication predic  operator oper  feudalism feudal  decisiveness decis
hopefulness hope  callousness callous  formaliti formal  sensitiviti sensit  sensibiliti sensibl
triplicate triplic  formative form  formalize formal  electriciti electr  electrical electr  hopeful hope
goodness good  revival reviv  allowance allow  inference infer  airliner airlin  gyroscopic gyroscop
adjustable adjust  defensible defens  irritant irrit  replacement replac  adjustment adjust
dependent depend  adoption adopt  homologou homolog  communism commun  activate activ  angulariti angular
homologous homolog  effective effect  bowdlerize bowdler  probate probat  rate rate  cease ceas
controll control  roll roll
"""
"""Examples of Porter's paper, step by step: a word, its stem."""


def bm25(texts: list[str], query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25, written out; every word of the query counts as often as it stands there."""
    documents = [words_of(text) for text in texts]
    mean = sum(map(len, documents)) / len(documents)
    scores = []
    for words in documents:
        score = 0.0
        for word in words_of(query):
            having = sum(word in other for other in documents)
            tf = words.count(word)
            idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
            score += idf * tf / (tf + k1 * (1 - b + b * len(words) / mean))
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["lamp", "garden chairs", "red red table", "a garden lamp"])
def test_scores_are_those_of_the_formula(query):
    expected = bm25(TEXTS, query)
    scores, rows = LexicalIndex.build(TEXTS).search([query], 5)
    found = {int(row): float(score) for row, score in zip(rows[0], scores[0], strict=True) if row >= 0}
    assert found.keys() == {i for i, score in enumerate(expected) if score > 0}
    for row, score in found.items():
        assert score == pytest.approx(expected[row], rel=1e-5)
    assert list(found) == sorted(found, key=lambda row: -expected[row])


def test_masked_rows_and_unknown_words():
    index = LexicalIndex.build(TEXTS)
    assert index.search(["garden"], 5, np.array([True, False, True, True, True]))[1][0].tolist() == [2, -1, -1, -1, -1]
    assert (index.search(["zebra", ""], 3)[1] == -1).all()
    assert (LexicalIndex.build(["", "..."]).search(["lamp"], 2)[1] == -1).all()


def test_stems():
    pairs = STEMS.split()
    words, stems = pairs[::2], pairs[1::2]
    assert [porter_stem(word) for word in words] == stems
    assert [porter_stem(word) for word in ("is", "12v", "\u00e9t\u00e9s")] == ["is", "12v", "\u00e9t\u00e9s"]


def test_fusion_is_the_sum_of_inverted_ranks():
    one = [("a", 0.9), ("b", 0.8), ("c", 0.7)]
    two = [("c", 12.0), ("d", 11.0)]
    expected = {"a": 1 / 61, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62}
    found = fuse([one, two], 10)
    assert dict(found) == pytest.approx(expected)
    assert [name for name, _ in found] == ["c", "a", "b", "d"]
    assert fuse([[], []], 3) == []


def test_modes_of_an_index():
    products = make_products(200)
    index = ProductIndex.build(products, HashModel(), "hnsw")
    lexical = index.search("number 42", 10, mode="lexical")[0]
    assert lexical[0][0] == "p42"
    dense = index.search("number 42", 100)[0]
    hybrid = index.search("number 42", 10, mode="hybrid")[0]
    assert hybrid == fuse([dense, index.search("number 42", 100, mode="lexical")[0]], 10)
    wanted = {"brand": "Acme"}
    for mode in ("lexical", "hybrid"):
        assert all(int(name[1:]) % 3 == 0 for name, _ in index.search("number 42", 10, filter=wanted, mode=mode)[0])


def test_words_follow_changes():
    index = ProductIndex.build(make_products(50), HashModel(), "flat", lexical=True)
    index.upsert([{"product_id": "p3", "title": "zebra"}, {"product_id": "new", "title": "zebra crossing"}])
    assert {name for name, _ in index.search("zebra", 5, mode="lexical")[0]} == {"p3", "new"}
    assert "p3" not in {name for name, _ in index.search("number 3", 50, mode="lexical")[0]}
    index.delete(["new"])
    assert [name for name, _ in index.search("zebra", 5, mode="lexical")[0]] == ["p3"]


def test_what_is_deleted_is_known_no_longer(tmp_path):
    """Neither its words nor its brand are offered."""
    lamps = [{"product_id": f"l{i}", "title": "lantern", "brand": "Acme"} for i in range(3)]
    others = [{"product_id": f"c{i}", "title": "chair", "brand": "Bolt"} for i in range(3)]
    index = ProductIndex.build([*lamps, *others], HashModel(), "flat", lexical=True, spelling=True)
    assert (index.corrected("lanterm"), index.choices("brand")) == ("lantern", ["Acme", "Bolt"])
    index.delete(["l0", "l1", "l2"])
    index.upsert([dict(others[0], brand="Cord")])
    assert (index.corrected("lanterm"), index.choices("brand")) == ("lanterm", ["Bolt", "Cord"])
    index.save(tmp_path)
    assert ProductIndex.load(tmp_path, HashModel()).corrected("lanterm") == "lanterm"


def test_words_are_built_by_one_thread(monkeypatch):
    index = ProductIndex.build(make_products(50), HashModel(), "flat")
    real, built, together = LexicalIndex.build, [], threading.Barrier(4)

    def slow(*arguments):
        built.append(1)
        time.sleep(0.05)
        return real(*arguments)

    def ask():
        together.wait()
        return index.search("number 42", 1, mode="lexical")[0][0][0]

    monkeypatch.setattr(LexicalIndex, "build", slow)
    with ThreadPoolExecutor(4) as pool:
        assert [answer.result() for answer in [pool.submit(ask) for _ in range(4)]] == ["p42"] * 4
    assert len(built) == 1
