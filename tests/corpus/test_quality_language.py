from __future__ import annotations

import numpy as np
import pytest

from rexbert_hf.corpus.fasttext_file import write_model
from rexbert_hf.corpus.language import LanguageSettings, detect_languages, language_reasons
from rexbert_hf.corpus.quality import QualitySettings, quality_reasons

ENGLISH = "This is the best kettle that we have ever had, and it was not expensive at all."


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", ENGLISH),
        ("de", "Das ist der beste Kessel, den wir je hatten, und er war nicht teuer."),
        ("fr", "C'est la meilleure bouilloire que nous avons eue, et elle est pas dans le sac."),
        ("es", "Es la mejor tetera que hemos tenido y no fue muy cara para lo que es."),
        ("id", "Barang bagus dan sesuai dengan yang di gambar, tapi pengiriman sangat lama."),
        ("ja", "\u3053\u306e\u3084\u304b\u3093\u306f\u3068\u3066\u3082\u826f\u3044\u5546\u54c1\u3067\u3059\u3002"),
        ("zh", "\u8fd9\u4e2a\u624b\u673a\u5f88\u597d\uff0c\u901f\u5ea6\u5feb"),
        ("ru", "\u041e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u0438\u0439"),
        ("und", "Ostwick Mug 0.5 l stainless 2-pack"),
        ("und", ""),
        ("und", "12345 67890"),
    ],
)
def test_languages_are_told(language, text):
    (code,), share = detect_languages([text])
    assert code == language
    assert 0.0 <= share[0] <= 1.0


def test_what_gives_no_evidence_is_not_foreign():
    texts = [ENGLISH, "Ostwick Mug 0.5 l", "Das ist nicht der beste Kessel, und er war teuer."]
    assert language_reasons(texts, LanguageSettings(keep=("en",))) == ["", "", "language"]
    strict = LanguageSettings(keep=("en",), keep_unknown=False)
    assert language_reasons(texts, strict) == ["", "language", "language"]
    assert language_reasons(texts, LanguageSettings()) == ["", "", ""]


CZECH = (
    "Konvice m\u00e1 dr\u017eadlo ze d\u0159eva, pojme dva litry vody a hod\u00ed se pro plynov\u00e9 i "
    "induk\u010dn\u00ed spor\u00e1ky. Mus\u00edte ji um\u00fdvat ru\u010dn\u011b, proto\u017ee my\u010dka by "
    "p\u016fsobila na povrch. Z\u00e1ruka trv\u00e1 dva roky, doru\u010d\u00edme b\u011bhem t\u00fddne."
)
FINNISH = (
    "Kattilassa on puinen kahva, siihen mahtuu kaksi litraa vett\u00e4, ja se sopii kaasuliedelle sek\u00e4 "
    "induktioliedelle. Pese se k\u00e4sin, sill\u00e4 astianpesukone vahingoittaisi pintaa. Takuu on voimassa kaksi "
    "vuotta, toimitamme l\u00e4hetyksen viikossa, palautus onnistuu helposti my\u00f6s verkossa."
)
SPECS = "Ostwick\u2122 Kettle . Colour: steel, Capacity: 2 L, Width: 20 cm, Height: 25 cm, Power: 1500 W, " * 3


def test_long_texts_in_languages_that_nothing_tells_go_where_english_is_wanted():
    """What no little words tell is kept: specifications. Letters that English lacks tell the rest."""
    texts = [CZECH, FINNISH, SPECS, CZECH[:60]]
    assert detect_languages(texts)[0] == ["und"] * 4
    assert language_reasons(texts, LanguageSettings(keep=("en",))) == ["language", "language", "", ""]
    assert language_reasons([CZECH], LanguageSettings(keep=("en", "fr"))) == [""]  # French has such letters


def test_a_language_without_a_model_is_refused_at_once():
    with pytest.raises(ValueError, match="xx needs a model"):
        LanguageSettings(keep=("en", "xx"))


def test_a_language_model_that_is_none_is_refused(tmp_path):
    path = tmp_path / "lid.ftz"
    path.write_bytes(b"no model")
    with pytest.raises(ValueError, match=r"lid\.ftz is not a fastText model"):
        detect_languages([ENGLISH], path)


def test_a_fasttext_language_model_is_used(tmp_path):
    """The model is written, not trained: fastText's own trainer starts from memory as it finds it."""
    pytest.importorskip("fasttext")
    words = ["</s>", *["der", "die", "das", "und", "ist"], *["the", "of", "and", "is", "that"]]
    table = np.array([0.0] + [9.0] * 5 + [-9.0] * 5)
    write_model(tmp_path / "lid.bin", words, [1] * len(words), ["__label__de", "__label__en"], table, word_ngrams=1)
    settings = LanguageSettings(keep=("de",), model=str(tmp_path / "lid.bin"), min_share=0.9)
    assert language_reasons(["the that of", "die und der", "die\nund der"], settings) == ["language", "", ""]
    # A title of which the model is not sure is unknown, a page is not.
    assert language_reasons(["die of", "die of " * 20, "the"], settings) == ["", "language", "language"]


WORDS = ENGLISH.split()


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        ("", ENGLISH),
        ("", "DeWalt 20V MAX Cordless Drill, 1/2-Inch (DCD771C2) - $99.00"),
        ("", "\u8fd9\u4e2a\u624b\u673a\u5f88\u597d\uff0c\u901f\u5ea6\u5feb\u3002\u5c4f\u5e55\u6e05\u6670"),
        ("short", "a mug"),
        ("short", ""),
        ("word_length", "a b c d e f g h i j"),
        ("word_length", "supercalifragilistic" * 3 + " donaudampfschifffahrt" * 5),
        ("signs", "--- *** ||| ### $$$ mug mug"),
        ("digits", "12 345 6789 1234 5678 mug"),
        ("repeated_lines", "\n".join(["Add to basket now"] * 5 + ["A mug"])),
        ("repeated_words", " ".join(["cheap"] * 40 + WORDS)),
        ("boilerplate", "Please ENABLE JavaScript to see this page of ours"),
    ],
)
def test_each_rule_has_its_reason(reason, text):
    assert quality_reasons([text]) == [reason]


def test_limits_hold_at_their_edge_and_not_past_it():
    settings = QualitySettings(min_words=3, max_words=5)
    texts = [" ".join(WORDS[:n]) for n in (2, 3, 5, 6)]
    assert quality_reasons(texts, settings) == ["short", "", "", "long"]
    # 10 of 30 characters that are no spaces are signs: a third.
    text = "abcdefghij klmnopqrst --- --- -- -- a b c"
    solid = len(text.replace(" ", ""))
    share = text.count("-") / solid
    limits = {"min_word_length": 0.0, "min_words": 1}
    assert quality_reasons([text], QualitySettings(max_sign_share=share, **limits)) == [""]
    assert quality_reasons([text], QualitySettings(max_sign_share=share - 0.01, **limits)) == ["signs"]


def test_boilerplate_in_a_long_page_is_forgiven():
    assert quality_reasons([" ".join(WORDS * 8) + " please enable JavaScript"]) == [""]


def test_phrases_of_ones_own_may_have_capital_letters():
    settings = QualitySettings(boilerplate=("Seite nicht gefunden",))
    texts = ["Seite nicht gefunden, bitte zur Startseite", "SEITE NICHT GEFUNDEN, bitte zur Startseite", ENGLISH]
    assert quality_reasons(texts, settings) == ["boilerplate", "boilerplate", ""]


def test_text_without_words_is_short_whatever_the_limit():
    settings = QualitySettings(min_words=0)
    assert quality_reasons(["", " \n", "mug", "\u3000" * 9], settings) == ["short", "short", "", "short"]


def test_rules_can_be_switched_off():
    assert quality_reasons(["", "a"], QualitySettings(enabled=False)) == ["", ""]


@pytest.mark.parametrize("wrong", [{"max_words": 3}, {"max_word_length": 1.0}])
def test_limits_that_contradict_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        QualitySettings(**wrong)
