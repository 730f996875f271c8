"""Regular-expression classes of product text: PRICE, PERCENT, DIMENSION, SIZE, SKU and MODEL.

The classes are those that the RexBERT authors' tokenizer script treats as atoms. Where they overlap the earlier kind
of `PRIORITY` wins ("10 x 12 x 3 in." is a dimension, not a size; "16GB" is a size, not a model). Every repetition is
bounded and starts at a word border, so matching is linear in the text whatever the text is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rexbert_hf.phrases.guides import Span, fingerprint_of, resolve_overlaps

PRIORITY = ("price", "percent", "dimension", "size", "sku", "model")
"""Kinds, strongest first."""

VERSION = 1
"""Raise it when a pattern changes: it is part of the fingerprint."""

_GAP = r"[ \u00a0]?"
_DASH = rf"{_GAP}(?:-|\u2013|to){_GAP}"
# A number starts a new word. The look-behind comes after the first character so that the search can skip to it.
_FIRST = r"[.0-9](?<![\w.,].)(?:(?<=[0-9])|(?=[0-9]))"
_AMOUNT = r"(?:[0-9]{0,2}(?:[.,][0-9]{3}){1,4}|[0-9]{0,11})(?:[.,][0-9]{1,2}(?![0-9]))?"
_FRACTION = r"(?:[ -]?[1-9]/[0-9]{1,2}|/[0-9]{1,2})?[\u00bc-\u00be\u2150-\u215e]?"
_DECIMAL = rf"(?:[0-9]{{0,2}}(?:,[0-9]{{3}}){{1,2}}|[0-9]{{0,6}})(?:[.,][0-9]{{1,3}})?{_FRACTION}"
_NUMBER = rf"(?:[0-9]{_DECIMAL}|\.[0-9]{{1,3}})"
_RANGE = rf"(?:{_DASH}{_NUMBER})?"

_CURRENCY = (
    r"(?:(?:US ?|CA|AU|NZ|HK|C|A|R)?\$|[\u20ac\u00a3\u00a5\u20b9\u20a9]|R[sp]\.?"
    r"|(?:USD|EUR|GBP|INR|JPY|CNY|CAD|AUD|CHF|IDR|MRP):?)"
)
_CURRENCY_AFTER = (
    r"(?:[\u20ac\u00a3\u00a5\u20b9\u20a9\u00a2]|\$(?! ?[0-9])"
    r"|(?:USD|EUR|GBP|INR|CAD|AUD|CHF|euros?|dollars?|rupees?|cents?|bucks|yen|yuan)\b)"
)
_PRICE = rf"(?<!\w){_CURRENCY}{_GAP}[0-9]{_AMOUNT}(?:{_DASH}{_CURRENCY}?{_GAP}[0-9]{_AMOUNT})?k?(?!\w)"

_FEET = r"(?:''|[\"\u201d\u2033'\u2019\u2032])"
_METRES = r"mm|cm|km|inch(?:es)?|in\.|feet|foot|ft\.?|yards?|yds?\.?|meters?|metres?"
_LENGTH = rf"(?:{_GAP}-?(?:{_METRES}|in(?![-\w])|m(?![\w'])|{_FEET}))?"
_SIDE = r"(?:[ \u00a0]?(?:wide|high|tall|deep|long|[whdl])\b)?"
_BY = r"[ \u00a0]?(?:[x\u00d7*]|by)[ \u00a0]?"
_SIDES = "(?:wide|tall|long|high|deep|dia|thick|screen)"
_UNITS = (
    rf"(?:{_METRES}|m|[kmgt]i?b(?:ytes?)?|[mg]bps|gauge|awg"
    r"|fl\.?[ -]?oz\.?|oz\.?|ounces?|lbs?\.?|pounds?|kgs?|kilograms?|kilos?|grams?|gms?|g|mg|mcg|iu"
    r"|ml|cl|liters?|litres?|ltrs?|l|gal\.?|gallons?|qts?\.?|quarts?|pints?|cups?"
    r"|mah|ah|kwh|wh|kw|watts?|w|volts?|v|amps?|[kmg]?hz|db|lumens?|lm|mp|megapixels?|fps|rpm|dpi|btu|psi|hp"
    r"|sq\.?[ -]?(?:ft|feet|in|m|yd)\.?|cu\.?[ -]?(?:ft|feet|in)\.?"
    r"|packs?|pk|counts?|ct|pieces?|pcs?|sheets?|tablets?|capsules?|servings?|pairs?|dozens?)"
)
_WORN = r"(?:[0-9]{1,3}(?:\.5|[ab]{1,2}|[c-k])?|[2-6]?x{0,3}[sl]|m|small|medium|large)"
_NAMED = r"(?:king|queen|twin|full|travel|family|plus|one|bite|pocket|small|large|regular|medium)"
_COUNT = r"(?:[0-9]{1,4}|two|three|four|five|six|eight|ten|twelve)"


def _compile(*patterns: tuple[str, float, str]) -> tuple[tuple[re.Pattern[str], float, str], ...]:
    return tuple((re.compile(pattern, re.IGNORECASE), score, gate) for pattern, score, gate in patterns)


# Pattern, score, and what a text must contain for the pattern to be tried ("0": any digit).
PATTERNS = {
    "price": _compile((_PRICE, 1.0, "0"), (rf"{_FIRST}{_AMOUNT}{_GAP}{_CURRENCY_AFTER}", 1.0, "0")),
    "percent": _compile(
        (rf"{_FIRST}{_DECIMAL}{_RANGE}{_GAP}(?:%|percent\b|per cent\b|pct\b)(?:{_GAP}off\b)?", 1.0, "0")
    ),
    "dimension": _compile(
        (rf"{_FIRST}{_DECIMAL}{_LENGTH}{_SIDE}(?:{_BY}{_NUMBER}{_LENGTH}{_SIDE}){{1,2}}(?!\w)", 1.0, "0")
    ),
    "size": _compile(
        (rf"{_FIRST}{_DECIMAL}{_RANGE}{_GAP}-?{_UNITS}(?!\w)", 1.0, "0"),
        # "in" alone is mostly a preposition.
        (rf"{_FIRST}{_DECIMAL}(?:-?in(?![-\w])(?! [a-z])| in(?= {_SIDES}|[,;:)]|$))", 0.9, "0"),
        (rf"{_FIRST}{_DECIMAL}{_FEET}(?!\w)", 0.8, "0"),
        (rf"\b(?:pack|set|box|case|lot|bundle|bag) of {_COUNT}\b", 1.0, " of "),
        (rf"\bsizes?:?{_GAP}(?:(?:US|UK|EU){_GAP})?{_WORN}\b", 1.0, "size"),
        (rf"\b(?:x-|extra[ -])?{_NAMED}[ -]sized?\b", 0.8, "size"),
        # Letters alone mean a size only as capitals.
        (rf"(?-i:\b(?:US|UK|EU){_GAP}[0-9]{{1,2}}(?:[.,]5)?(?![\w.,-]?[0-9])\b)", 0.8, "0"),
        (r"(?-i:\b(?:[2-6]X[LS]|X{1,4}[LS])\b)", 0.8, "x"),
        (r"[124789](?<!\w.)(?:(?<=4)80p|(?<=7)20p|(?<=1)080[pi]|(?<=1)440p|(?<=2)160p|(?<=[48])k)\b", 0.9, "0"),
    ),
}

_CODE_TEXT = r"(?=[A-Za-z/-]{0,20}[0-9])[A-Za-z0-9]{1,24}(?:[-/][A-Za-z0-9]{1,24}){0,5}(?!-?\w|\.[0-9])"
_LABEL = re.compile(
    r"\b(?:(?:sku|upc|ean|asin|isbn(?:-1[03])?|gtin|mpn)|(?:item|part|style|product)[ -](?:no\b\.?|number|code|#|id)"
    rf"|(model)(?:[ -](?:no\b\.?|number|#))?){_GAP}[:#]?{_GAP}({_CODE_TEXT})",
    re.IGNORECASE,
)
_CODE = re.compile(rf"\b(?<!\w[-./'])(?<!\$){_CODE_TEXT}")
_NOT_CODE = re.compile(
    r"(?:[0-9]+(?:st|nd|rd|th)(?:-?[a-z]+)?|[0-9]{1,3}[a-z]{1,2}|[0-9]{4}s|[0-9]+(?:am|pm|hrs?|mins?|secs?|yrs?|yo|[kmgt]b)"
    r"|[0-9]+(?:-in-|to|-to-|x)[0-9]+.*|[0-9]+(?:-[a-z]{3,})+|[0-9]+-[0-9]+[a-z]|[0-9]+/[0-9].*|[0-9]+[a-z]{4,}"
    r"|w/[0-9]+.*|(?-i:[a-z]{4,}(?:-[a-z]+)*-[0-9]{1,2}|[a-z]{4,}[0-9].*|[a-z]+[0-9]))\Z",
    re.IGNORECASE,
)
_LETTERS = re.compile(r"[A-Za-z]+")
_DIGIT = re.compile(r"[0-9]")


def _code_kind(code: str) -> tuple[str, float] | None:
    """Tell a stock number from a model number from neither, by letters, digits and length."""
    digits = sum(c.isdigit() for c in code)
    runs = _LETTERS.findall(code)
    letters = sum(map(len, runs))
    plain = "-" not in code and "/" not in code
    if not letters:
        return ("sku", 0.9) if digits >= (8 if plain else 10) and "/" not in code else None
    if max(map(len, runs)) > 6 or not 3 <= digits + letters <= 24 or _NOT_CODE.match(code):
        return None
    capital = any(c.isupper() for c in code)
    if plain and digits + letters >= 10 and digits >= 4 and (capital or digits >= letters):
        return "sku", 0.9
    if capital:
        return "model", 1.0 if digits >= 2 else 0.7
    return ("model", 0.8) if digits >= 2 else None


def _codes(text: str) -> Iterator[Span]:
    for match in _LABEL.finditer(text):
        yield match.start(2), match.end(2), 1.0, "model" if match[1] else "sku"
    for match in _CODE.finditer(text):
        found = _code_kind(match[0])
        if found is not None:
            yield match.start(), match.end(), found[1], found[0]


class RegexGuide:
    """Mark prices, percentages, dimensions, sizes, stock numbers and model numbers.

    Args:
        kinds: the kinds to report. Stronger kinds still claim their text, so `kinds=("model",)` does not report "16GB".

    Raises:
        ValueError: if a kind is unknown.

    Example:
        >>> text = "Sony WH-1000XM4, 30 mm drivers, $19.99"
        >>> [(text[start:end], kind) for start, end, _, kind in RegexGuide()([text])[0]]
        [('WH-1000XM4', 'model'), ('30 mm', 'size'), ('$19.99', 'price')]
    """

    def __init__(self, kinds: Sequence[str] = ("price", "percent", "size", "dimension", "model", "sku")) -> None:
        unknown = [kind for kind in kinds if kind not in PRIORITY]
        if unknown:
            raise ValueError(f"unknown kind '{unknown[0]}' of regular expression; known: {', '.join(PRIORITY)}")
        self.kinds = tuple(sorted(set(kinds), key=PRIORITY.index))

    @property
    def fingerprint(self) -> str:
        """Changes with the kinds and with the version of the patterns."""
        return fingerprint_of("regex", VERSION, self.kinds)

    def __call__(self, texts: Sequence[str]) -> list[list[Span]]:
        """Mark each text; spans do not overlap and are sorted."""
        return [self._spans(text) for text in texts]

    def _spans(self, text: str) -> list[Span]:
        if not self.kinds:
            return []
        needed = PRIORITY[: PRIORITY.index(self.kinds[-1]) + 1]
        lowered = text.lower()
        # Most texts are free of most classes; a substring test is far cheaper than a pattern.
        there = {gate: gate in lowered for gate in ("size", " of ", "x")} | {"0": bool(_DIGIT.search(text))}
        found = [
            (match.start(), match.end(), score, kind)
            for kind in needed
            for pattern, score, gate in PATTERNS.get(kind, ())
            if there[gate]
            for match in pattern.finditer(text)
        ]
        if there["0"] and "sku" in needed:
            found.extend(span for span in _codes(text) if span[3] in needed)
        return [span for span in resolve_overlaps(found, PRIORITY) if span[3] in self.kinds]
