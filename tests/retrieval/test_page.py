"""The search page's logic: right answers, bounded questions, nothing but text in its HTML, no traceback."""

from __future__ import annotations

import logging
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from page_cases import BROKEN, NASTY, Parsed, load_app, nasty_index, tiny_masked_lm

from rexbert_hf.retrieval.serving import page as page_module
from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.page import EMPTY, FAILED, MODES, MOST_CHARACTERS, UNREACHABLE, SearchPage
from rexbert_hf.retrieval.serving.page_html import answer_html, filled_html, shown
from rexbert_hf.retrieval.serving.page_settings import PageSettings, open_page
from rexbert_hf.retrieval.serving.texts import typed_text
from rexbert_hf.settings import SettingsError, parse_args

OURS = {"section", "h3", "span", "ol", "li", "bdi", "div", "p", "table", "caption", "tr", "td"}


@pytest.fixture(scope="module")
def index():
    return nasty_index()


@pytest.fixture
def page(index):
    return SearchPage(index, hits=6)


@pytest.fixture(scope="module")
def fill(tmp_path_factory):
    torch.manual_seed(0)
    return FillMask(str(tiny_masked_lm(tmp_path_factory.mktemp("masked_lm"))), words=4)


def texts_of(answer) -> str:
    return " ".join(Parsed(part).text for part in answer_html(answer))


def test_every_side_is_the_search_of_its_mode(page, index):
    answer = page.search("red lamp", category="Home", max_price=120)
    wanted = {"category": "Home", "price": (None, 120)}
    for side, mode in zip(answer.sides, MODES, strict=True):
        (expected,) = index.search("red lamp", 6, wanted, mode)
        assert side.mode == mode
        assert [(hit.product_id, hit.score) for hit in side.hits] == expected
        assert [hit.product_id for hit in side.hits] == ["plain"]
        assert side.milliseconds > 0
    assert answer.sides[1].hits[0].text == "expensive red lamp"
    assert answer.sides[1].hits[0].facts == {"category_path": "Home > Lamps", "price": 99.0}
    assert answer.note == ""
    for price in (3, 3.0, "3", " $3.00 "):
        cheap = page.search("red lamp", max_price=price).sides
        assert [[hit.product_id for hit in side.hits] for side in cheap] == [["<b>id</b>"]] * 3
    assert len(page.search("red lamp", max_price="").sides[1].hits) == 6
    stocked = {hit.product_id for side in page.search("lamp", in_stock=True).sides for hit in side.hits}
    assert stocked
    assert stocked <= set(NASTY)
    assert page.categories == ["A & B", "A & B > <i>", "Home", "Home > Lamps"]


@pytest.mark.parametrize("query", ["", "   ", None, "\x00\n\t\u2028", "\u202e\u200f"])
def test_an_empty_query_asks_for_one(page, query):
    answer = page.search(query)
    assert (answer.query, answer.note) == ("", EMPTY)
    assert all(side.milliseconds is None and not side.hits for side in answer.sides)
    assert EMPTY in texts_of(answer)


@pytest.mark.parametrize("many", ["lamp " * 10_000, "x" * 100_000, "\U0001f4a1" * 10_000, "\u05d0 " * 10_000])
def test_a_long_query_is_cut_and_says_so(page, index, monkeypatch, many):
    asked = []
    real = index.search
    monkeypatch.setattr(index, "search", lambda text, *rest: asked.append(text) or real(text, *rest))
    answer = page.search(many)
    assert len(asked) == 3
    assert all(0 < len(text) <= MOST_CHARACTERS for text in asked)
    assert "Only the first 1,000 characters" in answer.note
    assert not any(side.problem for side in answer.sides)
    assert all(len(part) < 30_000 for part in answer_html(answer))


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("\U0001f4a1 \U0001f9d1\u200d\U0001f33e lamp", None),
        ("\u05de\u05e0\u05d5\u05e8\u05d4", "hebrew"),
        ("lamp \ud83d", None),
        ("red\x00lamp\r\n", None),
        ("<script>alert(1)</script> expensive", None),
        ("' OR 1=1; -- {{7*7}} ${lamp}", None),
        ("\u202elamp", None),
        ("!!! ???", None),
    ],
)
def test_odd_queries_have_answers(page, query, first):
    answer = page.search(query)
    assert not any(side.problem for side in answer.sides)
    assert "\x00" not in answer.query
    assert "\u202e" not in answer.query
    if first:
        assert [side.hits[0].product_id for side in answer.sides] == [first] * 3
    texts_of(answer).encode("utf-8")


def test_nothing_found_says_so(page):
    assert "wider filter" in page.search("zzz", category="none such").note
    assert page.search("zzz", category="none such").sides[1].hits == []


@pytest.mark.parametrize("price", [float("nan"), float("inf"), -1, "cheap", "1e999", "-3"])
def test_a_price_that_is_none_is_left_out(page, price):
    answer = page.search("lamp", max_price=price)
    assert "it was left out" in answer.note
    assert answer.sides[0].hits


def test_titles_are_text_whatever_they_hold(page):
    for query in ("lamp", "cheap red lamp", "7 7 children", "very long lamp", "jpg exe lamp"):
        for part in answer_html(page.search(query)):
            parsed = Parsed(part)
            assert set(parsed.tags) <= OURS
            assert not re.search(r"[{}$`\\@]", part)
            assert "\u202e" not in part
    html = "".join(answer_html(page.search("script lamp document title broken")))
    assert BROKEN in Parsed(html).text
    assert len("".join(answer_html(page.search("very long lamp")))) < 20_000


@given(st.text(max_size=60))
def test_any_text_survives_as_text(text):
    html = shown(text)
    assert html.startswith("<bdi>")
    assert not re.search(r"[<>{}$`\\@\"']", html.removeprefix("<bdi>").removesuffix("</bdi>"))
    expected = "".join(sign if sign.isprintable() or sign in "\u200c\u200d" else " " for sign in text)
    assert Parsed(html).text == expected


@given(st.text(max_size=200), st.integers(1, 50))
def test_typed_text_is_short_plain_and_says_when_it_was_cut(text, limit):
    found, cut = typed_text(text, limit)
    assert len(found) <= limit
    assert found == " ".join(found.split())
    assert typed_text(found, limit) == (found, False)
    assert cut or found == typed_text(text, 1_000)[0]


@pytest.mark.parametrize(
    ("error", "shown_instead"),
    [
        (RuntimeError("secret /srv/index/vectors"), FAILED),
        (ValueError("secret"), FAILED),
        (ConnectionError("Qdrant at http://10.0.0.7:6333: secret"), UNREACHABLE),
        (MemoryError(), FAILED),
    ],
)
def test_trouble_is_told_without_a_traceback(page, index, monkeypatch, caplog, error, shown_instead):
    real = index.search

    def search(text, k, wanted, mode):
        if mode == "dense":
            raise error
        return real(text, k, wanted, mode)

    monkeypatch.setattr(index, "search", search)
    with caplog.at_level(logging.ERROR):
        answer = page.search("lamp")
    assert [side.problem for side in answer.sides] == ["", shown_instead, ""]
    assert answer.sides[0].hits
    html = "".join(answer_html(answer))
    assert shown_instead.split(".")[0] in Parsed(html).text
    assert "Traceback" not in html
    assert "secret" not in html
    assert caplog.records


def test_an_index_without_its_model_is_refused_at_the_start():
    import numpy as np

    bare = ProductIndex.build([{"product_id": "a", "title": "x"}], None, "flat", vectors=np.ones((1, 4), np.float32))
    with pytest.raises(ValueError, match="built from vectors"):
        SearchPage(bare)


def test_too_many_categories_leave_top_levels(monkeypatch):
    monkeypatch.setattr(page_module, "MOST_CATEGORIES", 3)
    assert page_module.categories_of(["A > B", "A > C", "D > E"]) == ["A", "D"]


def test_the_sample_shop_and_a_saved_index(tmp_path, index):
    page, fill = open_page(PageSettings(sample_size=60, hits=3))
    assert fill is None
    assert page.columns >= {"category_path", "price", "in_stock"}
    assert [len(side.hits) for side in page.search("steel lamp").sides[1:]] == [3, 3]
    index.save(tmp_path / "index")
    saved, _ = open_page(PageSettings(index=str(tmp_path / "index")))
    assert saved.search("expensive").sides[0].hits[0].product_id == "plain"
    with pytest.raises(FileNotFoundError, match="holds no index"):
        open_page(PageSettings(index=str(tmp_path)))


def test_an_index_that_was_saved_meanwhile_is_shown(tmp_path, monkeypatch, caplog):
    nasty_index().save(tmp_path)
    page, _ = open_page(PageSettings(index=str(tmp_path)))
    assert (page.columns, page.categories[0]) == ({"category_path", "brand", "price", "in_stock"}, "A & B")
    newer = [{"product_id": "new", "title": "zebra lamp", "category_path": ["Zoo"], "brand": "Acme"}]
    ProductIndex.build(newer, "hashing", "flat", lexical=True).save(tmp_path)
    assert page.search("zebra").sides[0].hits == []  # not yet looked at
    monkeypatch.setattr(page_module, "REFRESH_SECONDS", 0.0)
    started = []
    monkeypatch.setattr(page_module.threading, "Thread", lambda target, daemon: started.append(target) or Started())
    page.search("zebra")
    (refresh,) = started
    refresh()
    assert [hit.product_id for hit in page.search("zebra").sides[0].hits] == ["new"]
    assert (page.columns, page.categories) == ({"category_path", "brand"}, ["Zoo"])
    (tmp_path / "CURRENT").write_text("damaged")
    page.refresh()
    assert "CURRENT is damaged" in caplog.text
    assert page.search("zebra").sides[0].hits  # what was there stays


def test_nobody_leaves_files_with_the_page_and_its_queue_has_an_end(page):
    pytest.importorskip("gradio")
    httpx = pytest.importorskip("httpx")
    module = load_app()
    app = module.build_app(page, None, "Shop")
    address = module.serve(app, PageSettings(host="127.0.0.1"), wait=False)
    try:
        for size, status in ((10, 200), (5_000, 413)):
            answer = httpx.post(f"{address}gradio_api/upload", files={"files": ("a.txt", bytes(size))}, trust_env=False)
            assert answer.status_code == status
    finally:
        app.close()
    assert app._queue.max_size == module.MOST_WAITING


def test_the_boxes_take_no_more_than_is_read(page):
    """And enough for the page to notice that it was more than it searches for."""
    pytest.importorskip("gradio")
    app = load_app().build_app(page, None, "Shop")
    boxes = {block.elem_id: block.max_length for block in app.blocks.values() if hasattr(block, "max_length")}
    assert boxes == {"query": 4_000, "price": 40, "text": 16_000}
    assert "Only the first 1,000 characters" in page.search(("lamp " * 10_000)[: boxes["query"]]).note


class Started:
    def start(self) -> None:
        pass


@pytest.mark.parametrize(("words", "message"), [(["--hits", "0"], "hits must be between"), (["--inedx", "x"], "index")])
def test_wrong_settings_are_one_line(words, message):
    with pytest.raises(SettingsError, match=message) as error:
        parse_args(PageSettings, words)
    assert "\n" not in str(error.value)


def test_variables_and_the_command_line(monkeypatch):
    app, seen = load_app(), []
    monkeypatch.setattr(app, "open_page", lambda settings: seen.append(settings) or (_ for _ in ()).throw(OSError("x")))
    monkeypatch.setenv("REXBERT_INDEX", "user/shop")
    monkeypatch.setenv("REXBERT_MODEL", "user/a")
    with pytest.raises(OSError, match="x"):
        app.main(["--model", "user/b", "--hits", "5"])
    assert (seen[0].index, seen[0].model, seen[0].hits, seen[0].masked_lm) == ("user/shop", "user/b", 5, None)


def test_blanks_are_filled_as_the_model_says(fill):
    text = f"a red {fill.tokenizer.mask_token} lamp {fill.tokenizer.mask_token}"
    inputs = fill.tokenizer(text, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        logits = fill.model(**inputs).logits[0]
    shares = logits[inputs["input_ids"][0] == fill.tokenizer.mask_token_id].softmax(-1)
    filled = fill("a red [mask] lamp ___")
    assert [[share for _, share in words] for words in filled.blanks] == [
        pytest.approx(row.topk(4).values.tolist(), rel=1e-4) for row in shares
    ]
    assert len(filled.blanks) == 2
    assert filled.problem == ""
    assert set(Parsed(filled_html(filled)).tags) <= OURS


@pytest.mark.parametrize(
    ("text", "blanks", "note"),
    [
        ("", 0, "Write [MASK]"),
        (None, 0, "Write [MASK]"),
        ("no blank here", 0, "Write [MASK]"),
        ("word " * 10_000 + "[MASK]" + " word" * 10_000, 1, "Only the text around"),
        ("\U0001f4a1" * 3_000 + " <mask>", 1, "Only the text around"),
        ("[MASK] " * 50, 5, ""),
        ("\u05de\u05e0 \ud83d \x00 [MASK]", 1, ""),
    ],
)
def test_odd_texts_with_blanks(fill, text, blanks, note):
    filled = fill(text)
    assert filled.problem == ""
    assert len(filled.blanks) == blanks
    assert filled.note.startswith(note)
    filled_html(filled).encode("utf-8")


def test_a_model_that_fails_shows_no_traceback(fill, monkeypatch):
    monkeypatch.setattr(fill, "_fill", lambda text: 1 / 0)
    filled = fill("a [MASK]")
    assert filled.problem == FAILED
    assert "rx-problem" in filled_html(filled)


def test_what_is_no_masked_lm_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"masked_lm .*: no masked language model can be loaded from it") as error:
        FillMask(str(tmp_path))
    assert "\n" not in str(error.value)
