"""What the search page gives a browser: products, queries and words as text, whatever markup they hold.

Gradio's HTML component reads its value as a template too (`${...}`, `{{...}}`, `@children`), so the signs that such a
template is made of are written as references, like those of markup.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from rexbert_hf.catalog.nested import PATH_SEPARATOR
from rexbert_hf.retrieval.serving.fill_mask import FilledText
from rexbert_hf.retrieval.serving.page import Answer, ShownHit, Side
from rexbert_hf.retrieval.serving.texts import valid_text

MOST_TITLE = 240
"""Characters of a product's text that are shown."""

TITLES = {"lexical": "Lexical (BM25)", "dense": "Dense (vectors)", "hybrid": "Hybrid (both, fused)"}

_TEMPLATE_SIGNS = {ord(sign): f"&#{ord(sign)};" for sign in "{}$`\\@"}

_JOINERS = "\u200c\u200d"  # emoji and several scripts need them

CSS = """
.rx-side h3 { display: flex; justify-content: space-between; align-items: baseline; margin: 0 0 .5rem; }
.rx-ms { font: 600 .8rem ui-monospace, monospace; color: #0a7a4b; }
.rx-side ol { list-style: none; margin: 0; padding: 0; }
.rx-side li { border-top: 1px solid rgba(128, 128, 128, .3); padding: .45rem 0; }
.rx-title { display: block; overflow-wrap: anywhere; }
.rx-facts { display: flex; flex-wrap: wrap; gap: .1rem .7rem; font-size: .78rem; opacity: .75; }
.rx-note { min-height: 1.2rem; font-size: .9rem; opacity: .85; }
.rx-problem { color: #b3261e; }
.rx-blanks table { border-collapse: collapse; margin: 0 0 1rem; }
.rx-blanks td { padding: .15rem .8rem .15rem 0; }
"""
"""For `launch(css=...)`."""


def shown(text: str, limit: int | None = None) -> str:
    """Any text as it may stand in the page, in an element that keeps its direction to itself.

    Args:
        text: any.
        limit: most characters.

    Example:
        >>> shown("<b>{{x}}</b>")
        '<bdi>&lt;b&gt;&#123;&#123;x&#125;&#125;&lt;/b&gt;</bdi>'
    """
    plain = "".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in valid_text(text))
    if limit is not None and len(plain) > limit:
        plain = plain[: limit - 1] + "\u2026"
    return f"<bdi>{html.escape(plain).translate(_TEMPLATE_SIGNS)}</bdi>"


def note_html(note: str, problem: bool = False) -> str:
    """A line above the answers.

    Args:
        note: of an answer; may be empty.
        problem: whether something is wrong.
    """
    return f'<div class="rx-note{" rx-problem" if problem else ""}" role="status">{shown(note) if note else ""}</div>'


def side_html(side: Side) -> str:
    """One column of the page.

    Args:
        side: the answer of a mode.
    """
    taken = "" if side.milliseconds is None else f'<span class="rx-ms">{side.milliseconds:.2f} ms</span>'
    head = f"<h3>{TITLES[side.mode]} {taken}</h3>"
    body = f'<p class="rx-problem">{shown(side.problem)}</p>' if side.problem else _list(side.hits)
    return f'<section class="rx-side" data-mode="{side.mode}">{head}{body}</section>'


def answer_html(answer: Answer) -> list[str]:
    """The note and a column for each mode.

    Args:
        answer: of a `SearchPage`.
    """
    return [note_html(answer.note), *(side_html(side) for side in answer.sides)]


def _list(hits: Sequence[ShownHit]) -> str:
    return f"<ol>{''.join(f'<li>{_hit(hit)}</li>' for hit in hits)}</ol>"


def _hit(hit: ShownHit) -> str:
    facts = [f"{hit.score:.3f}"]
    price, path, stock = (hit.facts.get(name) for name in ("price", "category_path", "in_stock"))
    if price is not None:
        facts.append(f"{price:,.2f}")
    if path:
        facts.append(shown(str(path).rsplit(PATH_SEPARATOR, 1)[-1], 60))
    if stock is not None:
        facts.append("in stock" if stock else "not in stock")
    facts.append(shown(hit.product_id, 40))
    cells = "".join(f"<span>{fact}</span>" for fact in facts)
    return (
        f'<span class="rx-title" dir="auto">{shown(hit.text, MOST_TITLE)}</span><span class="rx-facts">{cells}</span>'
    )


def filled_html(filled: FilledText) -> str:
    """Words for every blank, or why there are none.

    Args:
        filled: of a `FillMask`.
    """
    if filled.problem or not filled.blanks:
        return note_html(filled.problem or filled.note, bool(filled.problem))
    tables = []
    for number, words in enumerate(filled.blanks, start=1):
        rows = "".join(f"<tr><td>{shown(word, 60)}</td><td>{share:.1%}</td></tr>" for word, share in words)
        tables.append(f"<table><caption>Blank {number}</caption>{rows}</table>")
    taken = f'<span class="rx-ms">{filled.milliseconds:.1f} ms</span>'
    return f'<div class="rx-blanks">{note_html(filled.note)}{taken}{"".join(tables)}</div>'
