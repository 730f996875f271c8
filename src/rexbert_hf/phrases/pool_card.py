"""The card of a phrase pool: best phrases by category, and how few of them are ordinary noun phrases.

E-BERT's table 1 and figure 6: an entry of the overlap is the share of the pool phrases typical of one category that
also occur among the noun phrases of a category's texts.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rexbert_hf.hub import render_dataset_card
from rexbert_hf.phrases.spool import Texts, read_rows
from rexbert_hf.phrases.words import normalise

if TYPE_CHECKING:
    from rexbert_hf.phrases.pool import PhrasePool

_SHOWN_CATEGORIES = 12
_ALL = "all"
_USE = """```python
from rexbert_hf import PhrasePool

pool = PhrasePool.load("{}")
print(pool.match(["stainless steel water bottle"]))
```"""


@dataclass(frozen=True)
class Overlap:
    """Share of pool phrases that are ordinary noun phrases too.

    Attributes:
        categories: of phrases (rows) and of texts (columns), most phrases first.
        shares: `[K, K]`, NaN where a category has no text.
        phrases: pool phrases of each category, `[K]`.
        texts: texts read.
    """

    categories: list[str]
    shares: np.ndarray
    phrases: list[int]
    texts: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for `run.json`."""
        rows = {
            name: dict(zip(self.categories, row.tolist(), strict=True))
            for name, row in zip(self.categories, self.shares, strict=True)
        }
        return {"texts": self.texts, "shares": rows}


def top_phrases(pool: PhrasePool, count: int = 8, categories: int = _SHOWN_CATEGORIES) -> dict[str, list[str]]:
    """Best phrases by category, categories with most phrases first; "all" for a pool without categories.

    Args:
        pool: the pool.
        count: phrases of a category.
        categories: how many.
    """
    names = _largest(pool, categories)
    found: dict[str, list[str]] = {name: [] for name in names}
    for phrase, category in zip(pool.phrases, pool.categories or [_ALL] * len(pool), strict=True):
        if category in found and len(found[category]) < count:
            found[category].append(phrase)
    return found


def _largest(pool: PhrasePool, count: int) -> list[str]:
    sizes = Counter(category for category in pool.categories or [] if category is not None)
    return [name for name, _ in sizes.most_common(count)] or [_ALL]


def noun_phrase_overlap(pool: PhrasePool, texts: Texts, max_texts: int = 5000, categories: int = 6) -> Overlap:
    """Measure how many phrases of the pool also are noun phrases of ordinary text, by category.

    Args:
        pool: the pool.
        texts: rows with `text` and `category`; without categories all of it is one.
        max_texts: texts of each category that are read, drawn from all of its texts.
        categories: the largest ones that are compared.
    """
    from rexbert_hf.phrases.noun_phrases import noun_phrases

    names = _largest(pool, categories)
    drawn = _drawn(texts, names, max_texts)
    seen = {
        name: {normalise(text[start:end]) for text in found for start, end in noun_phrases(text)}
        for name, found in drawn.items()
    }
    members: dict[str, list[str]] = {name: [] for name in names}
    for phrase, category in zip(pool.phrases, pool.categories or [_ALL] * len(pool), strict=True):
        if category in members:
            members[category].append(phrase)
    shares = np.full((len(names), len(names)), np.nan)
    for row, name in enumerate(names):
        for column, other in enumerate(names):
            if seen[other] and members[name]:
                shares[row, column] = np.mean([phrase in seen[other] for phrase in members[name]])
    return Overlap(names, shares, [len(members[name]) for name in names], sum(map(len, drawn.values())))


def _drawn(texts: Texts, names: list[str], size: int) -> dict[str, list[str]]:
    """As many texts of each category, every one as probable (Vitter 1985, algorithm R): the first are of one shop."""
    draw = random.Random(0)
    kept: dict[str, list[str]] = {name: [] for name in names}
    met: Counter[str] = Counter()
    for text, category in read_rows(texts):
        name = _ALL if names == [_ALL] else category
        if name is None or name not in kept:
            continue
        met[name] += 1
        if len(kept[name]) < size:
            kept[name].append(text)
        elif (place := draw.randrange(met[name])) < size:
            kept[name][place] = text
    return kept


def pool_card(pool: PhrasePool, repo_id: str | None = None, overlap: Overlap | None = None, **fields: Any) -> str:
    """Render the card of a pool.

    Args:
        pool: the pool.
        repo_id: what the copy-paste block loads.
        overlap: what `noun_phrase_overlap` measured; left out without.
        fields: further fields of `render_dataset_card`, such as `license`, `language`, `sources`.
    """
    sections = [
        {"title": "With rexbert_hf", "text": _USE.format(repo_id or "path/to/this/folder")},
        {"title": "Best phrases by category", "text": _phrase_table(pool)},
    ]
    if overlap is not None:
        sections.append({"title": "Overlap with ordinary noun phrases", "text": _overlap_table(overlap)})
    columns = {
        "phrase": "normalised words with one space between",
        "score": "quality in [0, 1]",
        "count": "occurrences in the mined text, 0 where unknown",
        "category": "the category that the phrase is most typical of, where texts had categories",
    }
    given: dict[str, Any] = {
        "dataset_name": None if repo_id else "Phrase pool",
        "summary": f"{len(pool):,} scored phrases of product text, for phrase masking and matching with rexbert_hf.",
        "configs": [{"name": "default", "rows": len(pool), "fingerprint": pool.fingerprint}],
        "columns": [{"name": name, "meaning": meaning} for name, meaning in columns.items()],
        "tags": ["rexbert", "e-commerce", "phrases"],
        "limits": ["Phrases were not read one by one: among those with low scores are fragments."],
        "sections": sections,
    }
    return render_dataset_card(repo_id=repo_id, **(given | fields))


def _phrase_table(pool: PhrasePool) -> str:
    rows = ["| category | best phrases |", "| --- | --- |"]
    rows += [f"| {_cell(name)} | {_cell(', '.join(phrases))} |" for name, phrases in top_phrases(pool).items()]
    return "\n".join(rows)


def _overlap_table(overlap: Overlap) -> str:
    def share(value: float) -> str:
        return "" if np.isnan(value) else f"{100 * value:.1f}"

    rows = [
        f"Per cent of the phrases of a category (rows) among the noun phrases of a category's texts (columns), "
        f"{overlap.texts:,} texts.",
        "",
        "| phrases | of | " + " | ".join(map(_cell, overlap.categories)) + " |",
        "| --- " * (len(overlap.categories) + 2) + "|",
    ]
    for name, size, values in zip(overlap.categories, overlap.phrases, overlap.shares, strict=True):
        rows.append(f"| {_cell(name)} | {size:,} | " + " | ".join(map(share, values)) + " |")
    return "\n".join(rows)


def _cell(value: str) -> str:
    return " ".join(value.split()).replace("|", "\\|").replace("<", "&lt;")
