"""A search page: lexical, dense and hybrid side by side with the time that each took, filters, and a fill-mask tab.

    python recipes/space/app.py [CONFIG.yaml] [--index DIR_OR_REPO --model DIR_OR_REPO --masked_lm DIR_OR_REPO]
    python recipes/space/app.py --screenshot page.png
    python recipes/space/app.py --index user/shop-index --push_to_hub user/shop-search

Without an index it shows the sample shop. `space.yaml` beside this file and the variables REXBERT_INDEX, REXBERT_MODEL
and REXBERT_MASKED_LM say the same as the command line, which comes first. What is shown and when something goes wrong
is decided in `rexbert_hf.retrieval.serving.page`; this file draws it with Gradio, loading nothing from other hosts.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from rexbert_hf.retrieval.serving import fill_mask
from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.page import EMPTY, MODES, MOST_CHARACTERS, SearchPage, Side
from rexbert_hf.retrieval.serving.page_html import CSS, answer_html, filled_html, note_html, shown, side_html
from rexbert_hf.retrieval.serving.page_settings import PageSettings, open_page
from rexbert_hf.retrieval.serving.space_push import SETTINGS_FILE, push_space
from rexbert_hf.retrieval.serving.texts import READ_FOR_EACH
from rexbert_hf.settings import parse_args, run_recipe, start_logging

HERE = Path(__file__).parent
DEFAULT = HERE / SETTINGS_FILE
VARIABLES = {"REXBERT_INDEX": "--index", "REXBERT_MODEL": "--model", "REXBERT_MASKED_LM": "--masked_lm"}
NO_MODEL = "No masked language model is loaded: start the page with --masked_lm, or set REXBERT_MASKED_LM."
EXAMPLES = ["stainless steel ketle", "running shoes for women", "lamp for the desk"]
BLANK_EXAMPLE = "Stainless steel water [MASK], 750 ml"
MOST_WAITING = 64
"""Questions in the queue; who comes later is told to try again."""

# What a browser takes into the boxes: as much as is read, which is more than is searched for, so that the page can say
# that it left something out.
MOST_TYPED = READ_FOR_EACH * MOST_CHARACTERS
MOST_AROUND_BLANKS = READ_FOR_EACH * fill_mask.MOST_CHARACTERS
MOST_OF_A_PRICE = 40

BROWSER_WORDS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
BROWSER_WORDS += ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def gradio() -> Any:
    """Gradio, or an error that says how to get it."""
    try:
        import gradio
    except ImportError:
        raise ImportError("the search page needs Gradio: pip install rexbert-hf[search,demo]") from None
    return gradio


def build_app(page: SearchPage, fill: FillMask | None, title: str) -> Any:
    """The page in Gradio's blocks."""
    gr = gradio()
    with gr.Blocks(title=title, analytics_enabled=False, fill_width=True) as app:
        gr.HTML(f"<h1>{shown(title)}</h1>")
        with gr.Tab("Search"):
            search_tab(gr, app, page)
        with gr.Tab("Fill mask"):
            fill_tab(gr, fill)
    return app


def categories(page: SearchPage) -> list[tuple[str, str]]:
    """Choices of the category filter: what is shown, and what is searched for."""
    return [("any", ""), *((name, name) for name in page.categories)]


def search_tab(gr: Any, app: Any, page: SearchPage) -> None:
    """Search box, filters, and a column for each mode; it searches while one types."""
    with gr.Row():
        query = gr.Textbox(
            label="Search",
            placeholder="What are you looking for?",
            max_length=MOST_TYPED,
            autofocus=True,
            scale=4,
            elem_id="query",
        )
        button = gr.Button("Search", variant="primary", scale=1)
    with gr.Row():
        columns = page.columns
        category = gr.Dropdown(
            categories(page), value="", label="Category", visible=bool(page.categories), elem_id="category"
        )
        price = gr.Textbox(
            label="Highest price",
            placeholder="any",
            max_length=MOST_OF_A_PRICE,
            visible="price" in columns,
            elem_id="price",
        )
        stock = gr.Checkbox(label="In stock only", visible="in_stock" in columns, elem_id="stock")
    app.load(lambda: gr.Dropdown(categories(page)), None, category, show_progress="hidden")  # of a newer index
    note = gr.HTML(note_html(EMPTY), elem_id="note")
    with gr.Row():
        sides = [gr.HTML(side_html(Side(mode)), elem_id=mode) for mode in MODES]
    gr.Examples(EXAMPLES, inputs=query)
    inputs = [query, category, price, stock]
    gr.on(
        [query.change, query.submit, button.click, category.change, price.change, stock.change],
        lambda *asked: answer_html(page.search(*asked)),
        inputs, [note, *sides], show_progress="hidden", trigger_mode="always_last", api_name="search",
    )  # fmt: skip


def fill_tab(gr: Any, fill: FillMask | None) -> None:
    """A text with blanks, and words for them."""
    with gr.Row():
        there = fill is not None
        text = gr.Textbox(
            BLANK_EXAMPLE,
            label="Text with [MASK]",
            max_length=MOST_AROUND_BLANKS,
            scale=4,
            interactive=there,
            elem_id="text",
        )
        button = gr.Button("Fill", variant="primary", scale=1, interactive=there, elem_id="fill")
    words = gr.HTML(note_html("" if there else NO_MODEL), elem_id="words")
    if fill is not None:
        gr.on([button.click, text.submit], lambda t: filled_html(fill(t)), text, words, api_name="fill")


def serve(app: Any, settings: PageSettings, wait: bool = True) -> str:
    """Start serving; returns the address once it answers, or when the page is stopped."""
    gr = gradio()
    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app.queue(max_size=MOST_WAITING)
    _, address, _ = app.launch(
        server_name=settings.host,
        server_port=settings.port,
        prevent_thread_lock=not wait,
        show_error=False,
        quiet=not wait,
        footer_links=[],
        max_file_size="1kb",  # the page takes no files, yet Gradio serves an address that does
        ssr_mode=False,
        theme=theme,
        css=CSS,
    )
    return str(address)


def take_screenshot(address: str, path: Path) -> None:
    """Write a picture of the page with an answer in it, in few colours so that it stays small."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise FileNotFoundError("a screenshot needs Chromium: install it so that 'chromium' is on the path")
    path.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(BROWSER_WORDS))
        view = browser.new_page(viewport={"width": 1200, "height": 760}, color_scheme="light")
        view.goto(address)
        view.locator("#query textarea, #query input").first.fill(EXAMPLES[0])
        view.locator("#price textarea, #price input").first.fill("60")
        view.keyboard.press("Tab")
        view.locator("#hybrid li").first.wait_for()
        view.wait_for_timeout(1_000)  # until the last answer has been drawn
        view.screenshot(path=path)
        browser.close()
    with Image.open(path) as picture:
        picture.convert("RGB").quantize(64).save(path, optimize=True)


def main(words: list[str] | None = None) -> None:
    """Parse, open, and serve, push or take a picture."""
    start_logging()
    given = [word for name, key in VARIABLES.items() if os.environ.get(name) for word in (key, os.environ[name])]
    words = sys.argv[1:] if words is None else words
    settings = parse_args(PageSettings, [*given, *words], default_config=DEFAULT if DEFAULT.is_file() else None)
    if settings.push_to_hub:
        print(f"pushed to {push_space(settings, HERE)}")
        return
    app = build_app(*open_page(settings), settings.title)
    if settings.screenshot is None:
        serve(app, settings)
        return
    take_screenshot(serve(app, settings, wait=False), settings.screenshot)
    app.close()
    print(f"the page's picture is in {settings.screenshot}")


if __name__ == "__main__":
    run_recipe(main)
