"""The search page in headless Chromium: it works, shows titles as text, and asks no other host for anything."""

from __future__ import annotations

import shutil
from urllib.parse import urlsplit

import pytest
from page_cases import load_app, nasty_index, tiny_masked_lm

from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.page import EMPTY, FAILED, SearchPage
from rexbert_hf.retrieval.serving.page_settings import PageSettings

pytest.importorskip("gradio")
playwright_api = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUERY = "#query textarea, #query input"
WAIT = 60_000

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def search_page():
    return SearchPage(nasty_index(), hits=12)


@pytest.fixture(scope="module")
def address(search_page, tmp_path_factory):
    module = load_app()
    fill = FillMask(str(tiny_masked_lm(tmp_path_factory.mktemp("masked_lm"))))
    app = module.build_app(search_page, fill, "Shop <b>1</b>")
    yield module.serve(app, PageSettings(host="127.0.0.1"), wait=False)
    app.close()


@pytest.fixture(scope="module")
def browser(address):
    words = load_app().BROWSER_WORDS
    with playwright_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(words))
        yield chromium
        chromium.close()


@pytest.fixture
def view(browser, address):
    """A fresh page; afterwards: no script error, no dialog, no request to another host."""
    page = browser.new_page()
    page.set_default_timeout(WAIT)
    errors, hosts = [], set()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("dialog", lambda dialog: errors.append(dialog.message) or dialog.dismiss())
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.goto(address)
    page.locator(QUERY).first.wait_for()
    yield page
    assert page.title() == "Shop <b>1</b>"
    page.close()
    assert errors == []
    assert hosts <= {"127.0.0.1", None}  # None: data and blob addresses


def ask(view, text: str) -> None:
    view.locator(QUERY).first.fill(text)


def note_is(view, text: str) -> None:
    playwright_api.expect(view.locator("#note")).to_contain_text(text, timeout=WAIT)


def titles(view, mode: str) -> list[str]:
    return view.locator(f"#{mode} .rx-title").all_inner_texts()


def test_typing_answers_on_three_sides_with_their_time(view, search_page):
    note_is(view, EMPTY)
    ask(view, "expensive red lamp")
    for side in search_page.search("expensive red lamp").sides:
        first = view.locator(f"#{side.mode} li").first
        playwright_api.expect(first).to_contain_text("expensive red lamp", timeout=WAIT)
        assert len(titles(view, side.mode)) == len(side.hits)
        assert view.locator(f"#{side.mode} .rx-ms").inner_text().endswith(" ms")
    view.locator("#price textarea, #price input").first.fill("3")
    view.keyboard.press("Tab")
    playwright_api.expect(view.locator("#dense li")).to_have_count(1, timeout=WAIT)
    assert titles(view, "dense") == ["cheap red lamp"]
    assert view.locator("#dense").get_by_text("<b>id</b>").is_visible()
    ask(view, "")
    note_is(view, EMPTY)


def test_titles_with_markup_are_shown_as_they_are(view):
    ask(view, "lamp")
    playwright_api.expect(view.locator("#lexical li").nth(5)).to_be_visible(timeout=WAIT)
    found = " | ".join(titles(view, "lexical"))
    assert "<script>document.title = 'broken'</script> lamp" in found
    assert "<img src=x onerror=" in found
    assert "lamp {{7*7}} ${7*7} `x` @children {{#each x}} \\u003cb\\u003e" in found
    assert "</bdi></section></div><h1>lamp</h1><!--" in found
    assert view.locator("#lexical img, #lexical script, #lexical h1").count() == 0


def test_odd_queries(view, search_page, monkeypatch):
    ask(view, "lamp " * 10_000)
    note_is(view, "Only the first 1,000 characters")
    ask(view, "\u05de\u05e0\u05d5\u05e8\u05d4 \U0001f9d1\u200d\U0001f33e")
    playwright_api.expect(view.locator("#dense li").first).to_contain_text("\u05de\u05e0", timeout=WAIT)
    monkeypatch.setattr(search_page.index, "search", lambda *_: 1 / 0)
    ask(view, "anything")
    playwright_api.expect(view.locator("#dense")).to_contain_text(FAILED, timeout=WAIT)
    assert "Traceback" not in view.content()
    assert "ZeroDivisionError" not in view.content()


def test_fill_mask(view):
    view.get_by_role("tab", name="Fill mask").click()
    box = view.locator("#text textarea, #text input").first
    box.fill("")
    box.press_sequentially("a red [MASK] ___", delay=20)  # as a person types: the page hears of each letter
    playwright_api.expect(box).to_have_value("a red [MASK] ___")
    box.press("Tab")
    view.locator("button#fill, #fill button").first.click()
    playwright_api.expect(view.locator("#words table")).to_have_count(2, timeout=WAIT)
    assert "%" in view.locator("#words td").nth(1).inner_text()
