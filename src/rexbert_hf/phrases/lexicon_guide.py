"""Lexicons of brands and product types as guides: longest match on whole words, whatever the case.

Matching walks a trie of words, in pure Python: its cost does not depend on the number of terms. Hyphens between words
count as spaces ("coca-cola" finds "Coca Cola"), other punctuation is part of a term ("AT&T", "Levi's").
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rexbert_hf.catalog.escapes import listed
from rexbert_hf.phrases.guides import Span, fingerprint_of

_WORD = re.compile(r"\w+|[^\w\s-]|(?<!\w)-|-(?!\w)")
_END = ""
_PATH = re.compile(r"\s*(?:>|\||/|::|\u203a)\s*")
_LIST = re.compile(r"\s*(?:,|&|\band\b|/)\s*")
PLACEHOLDERS = frozenset(
    ["", "-", "brand", "does not apply", "generic", "misc", "n/a", "na", "nan", "no brand", "none", "null", "other",
     "others", "unbranded", "unknown", "various"]
)  # fmt: skip
"""Values of a brand or category column that name nothing."""


def _lower(text: str) -> str:
    """Lower case of the same length, so that character positions stay true."""
    lowered = text.lower()
    if len(lowered) != len(text):
        lowered = "".join(low if len(low := c.lower()) == 1 else c for c in text)
    return lowered


def _variants(term: str) -> Iterator[str]:
    """Yield an English term and its other number."""
    yield term
    if term.endswith("ies") and len(term) > 4:
        yield term[:-3] + "y"
    elif term.endswith(("ches", "shes", "xes", "sses")):
        yield term[:-2]
    elif term.endswith("s") and not term.endswith("ss"):
        yield term[:-1]
    elif term.endswith("y") and term[-2:-1] not in "aeiou":
        yield term[:-1] + "ies"
    else:
        yield term + ("es" if term.endswith(("ch", "sh", "x", "ss")) else "s")


def _columns(products: Any, names: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of some columns of a `datasets` data set or of an iterable of mappings."""
    if hasattr(products, "iter") and getattr(products, "column_names", None):
        absent = [name for name in names if name not in products.column_names]
        if absent:
            raise ValueError(f"no column '{absent[0]}' in the products; columns: {listed(products.column_names)}")
        for batch in products.select_columns(list(names)).iter(batch_size=1000):
            yield from zip(*(batch[name] for name in names), strict=True)
        return
    for index, row in enumerate(products):
        absent = [name for name in names if name not in row]
        if absent:
            raise ValueError(f"product {index} has no '{absent[0]}'; it has: {listed(row)}")
        yield tuple(row[name] for name in names)


def _most_frequent(counts: Counter[str], limit: int, min_count: int) -> list[str]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [term for term, count in ranked if count >= min_count and term not in PLACEHOLDERS][:limit]


class LexiconGuide:
    """Mark the terms of a list wherever they stand as whole words; the longest term at a place wins.

    Args:
        terms: words or phrases; case, spacing and hyphens do not matter. Those without a letter or digit are left out.
        kind: the kind of the spans, such as `brand` or `type`.
        score: their score, in [0, 1].

    Raises:
        ValueError: if the score is outside [0, 1].

    Example:
        >>> guide = LexiconGuide(["Black & Decker", "decker"], "brand")
        >>> guide(["BLACK & DECKER drill; upper-decker; deckers"])
        [[(0, 14, 1.0, 'brand'), (28, 34, 1.0, 'brand')]]
    """

    def __init__(self, terms: Iterable[str], kind: str, score: float = 1.0) -> None:
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"the score of a lexicon must lie in [0, 1]; got {score}")
        self.kind, self.score = kind, float(score)
        self.terms = tuple(sorted({words for term in terms if any(map(str.isalnum, words := _words(term)))}))
        self._trie: dict[str, Any] = {}
        for term in self.terms:
            node = self._trie
            for word in term.split(" "):
                node = node.setdefault(word, {})
            node[_END] = True
        self.fingerprint = fingerprint_of("lexicon", 1, kind, self.score, self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text; spans do not overlap and are sorted."""
        return [self._spans(text) for text in texts]

    def _spans(self, text: str) -> list[Span]:
        lowered = _lower(text)
        matches = list(_WORD.finditer(lowered))
        words = [match[0] for match in matches]
        trie, found, free = self._trie, [], 0
        for position, word in enumerate(words):
            if word in trie and position >= free:
                end = self._longest(words, position)
                if end:
                    found.append((matches[position].start(), matches[end - 1].end(), self.score, self.kind))
                    free = end
        return found

    def _longest(self, words: list[str], position: int) -> int:
        """One past the last word of the longest term that starts here; 0 when none does."""
        node, end = self._trie, 0
        while position < len(words) and words[position] in node:
            node = node[words[position]]
            position += 1
            if _END in node:
                end = position
        return end

    @classmethod
    def from_products(
        cls,
        products: Iterable[Mapping[str, Any]] | Any,
        brand_column: str = "brand",
        category_column: str = "category_path",
        max_brands: int = 15_000,
        max_types: int = 5_000,
        min_count: int = 1,
    ) -> tuple[LexiconGuide, LexiconGuide]:
        """Build the brand guide and the product-type guide of a catalogue.

        A product type is the last part of the category path (a list, or a text with `>`, `|` or `/`); "Tops & Shirts"
        gives two types, and each type is known in singular and plural. The limits are those of the RexBERT authors'
        tokenizer script.

        Args:
            products: a `datasets` data set or mappings with the two columns.
            brand_column: name of the brand column.
            category_column: name of the category column.
            max_brands: keep this many brands, the most frequent ones.
            max_types: keep this many types, before their plurals.
            min_count: a brand or type counts from this many products on.

        Raises:
            ValueError: if a column is missing.

        >>> brands, types = LexiconGuide.from_products([{"brand": "Acme", "category_path": ["Home", "Table Lamps"]}])
        >>> brands.terms, types.terms
        (('acme',), ('table lamp', 'table lamps'))
        """
        brands: Counter[str] = Counter()
        types: Counter[str] = Counter()
        for brand, path in _columns(products, [brand_column, category_column]):
            brands[str(brand or "").strip().lower()] += 1
            parts = _PATH.split(path) if isinstance(path, str) else list(path or ())
            leaf = str(parts[-1]).strip().lower() if parts else ""
            types.update({term for term in _LIST.split(leaf) if len(term) > 2})
        kept = _most_frequent(types, max_types, min_count)
        return (
            cls(_most_frequent(brands, max_brands, min_count), "brand"),
            cls((variant for term in kept for variant in _variants(term)), "type"),
        )


def _words(term: str) -> str:
    """Normalise a term to its words, separated by single spaces."""
    return " ".join(_WORD.findall(_lower(str(term))))
