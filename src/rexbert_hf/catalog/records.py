"""The records that the rooms exchange, each one a `datasets.Features`: they go to and come from the Hub as Parquet.

One decision worth knowing: a judged pair carries `label` (E/S/C/I) **or** `relevance` (a grade in its source's own
scale), the other one is null. What a label or a grade is worth is decided by the task that reads it, not here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Features, List, Value

from .columns import as_text
from .nested import PATH_SEPARATOR, attribute_pairs, path_levels

LABELS = ("E", "S", "C", "I")
"""Exact, Substitute, Complement, Irrelevant: the values of `QUERY_PRODUCT["label"]`."""

_READ = {name: name[0].upper() for name in ("exact", "substitute", "complement", "irrelevant")}
_READ |= {label.lower(): label for label in LABELS} | {label: label for label in ("1", "0", "-1", "-2")}

SENTIMENTS = ("positive", "negative", "neutral")
"""The values of an aspect's `sentiment`."""

_TEXT = Value("string")

PRODUCT = Features(
    {
        "product_id": _TEXT,
        "title": _TEXT,
        "description": _TEXT,
        "brand": _TEXT,
        "category_path": List(_TEXT),  # from the department down to the leaf
        "attributes": List({"name": _TEXT, "value": _TEXT}),
        "language": _TEXT,  # BCP 47, as "en"
    }
)

QUERY = Features(
    {
        "query_id": _TEXT,
        "query": _TEXT,
        "category_path": List(_TEXT),  # what the query asks for; empty when unknown
        "frequency": Value("int64"),  # times it was searched
        "language": _TEXT,
    }
)

QUERY_PRODUCT = Features(
    {
        "query": _TEXT,
        "product_id": _TEXT,
        "label": _TEXT,  # one of LABELS, or null when the source grades by number
        "relevance": Value("float32"),  # the source's own scale (Home Depot: 1 to 3), or null
    }
)

SEARCH_EVENT = Features(
    {
        "query": _TEXT,
        "shown": List(_TEXT),  # product ids from the first position down
        "clicked": List(_TEXT),  # a part of shown
        "bought": List(_TEXT),  # a part of clicked
        "language": _TEXT,
        "country": _TEXT,  # ISO 3166 alpha-2
        "time": Value("timestamp[ms]"),
    }
)

ASSOCIATION = Features({"product_a": _TEXT, "product_b": _TEXT, "kind": _TEXT})  # kind: also_buy or also_view

REVIEW = Features(
    {
        "review_id": _TEXT,
        "product_id": _TEXT,
        "text": _TEXT,
        "rating": Value("float32"),  # 1 to 5
        # text[start:end] == term, in characters
        "aspects": List({"start": Value("int32"), "end": Value("int32"), "term": _TEXT, "sentiment": _TEXT}),
    }
)

QUESTION = Features(
    {
        "question_id": _TEXT,
        "product_id": _TEXT,
        "question": _TEXT,
        "context": _TEXT,
        "answers": List({"start": Value("int32"), "text": _TEXT}),  # context[start:start + len(text)] == text
    }
)

WEB_PAGE = Features(
    {
        "text": _TEXT,
        "url": _TEXT,
        "domain": _TEXT,  # a topic, as "hobby"
        "label": _TEXT,  # as "shop" or "general" where somebody labelled the page, else null
    }
)

RECORDS: dict[str, Features] = {
    "products": PRODUCT,
    "queries": QUERY,
    "query_products": QUERY_PRODUCT,
    "events": SEARCH_EVENT,
    "associations": ASSOCIATION,
    "reviews": REVIEW,
    "questions": QUESTION,
    "web": WEB_PAGE,
}
"""The features of each kind of record, by the name that `load_sample` uses."""

PRODUCT_FIELDS = ("title", "brand", "category_path", "attributes", "description")
"""What `product_text` joins unless told otherwise, in this order."""


def record_types(kind: str) -> Features:
    """Types of those columns of a kind of record that hold texts and lists, which formats write differently.

    Numbers and times are left to the source.

    Args:
        kind: of `RECORDS`.

    Example:
        >>> list(record_types("query_products"))
        ['query', 'product_id', 'label']
    """
    record = RECORDS[kind].items()
    return Features({name: given for name, given in record if given == _TEXT or isinstance(given, List)})


def read_label(value: object) -> str | None:
    """The label of a judged pair as every recipe reads it: one of `LABELS`, or a click log's "1", "0", "-1", "-2".

    Args:
        value: the letter, its word ("Exact") or the number; None and empty text are no label.

    Raises:
        ValueError: if it is none of these.

    Example:
        >>> read_label("Exact"), read_label("s"), read_label(-1), read_label("")
        ('E', 'S', '-1', None)
    """
    text = "" if value is None else str(value).strip()
    if text and text.lower() not in _READ:
        raise ValueError(
            f"unknown label {value!r}: labels are {', '.join(LABELS)} (or Exact, ...), or 1, 0, -1, -2; classes of "
            "`datasets` are read by name: rename them to these"
        )
    return _READ[text.lower()] if text else None


def labels_by_number(names: Sequence[str]) -> bool:
    """Whether classes of judged pairs are labels by their numbers, the click log's 0 and 1, and not by their names.

    Args:
        names: of the classes, in the order of their numbers.

    Example:
        >>> labels_by_number(["irrelevant", "relevant"]), labels_by_number(["relevant", "irrelevant"])
        (True, False)
    """
    known = [name.strip().lower() in _READ for name in names]
    return not all(known) and not any(known[1:]) and all(str(number) in _READ for number in range(len(names)))


def product_text(
    product: Mapping[str, Any],
    fields: Sequence[str] = PRODUCT_FIELDS,
    field_names: bool = False,
    separator: str = " . ",
) -> str:
    """Join the fields of a product record into one training text.

    Empty and absent fields leave nothing behind, so products of any completeness can be mixed.

    Args:
        product: a `PRODUCT` row, or any mapping with some of its fields.
        fields: which fields, in which order; the name of an attribute (as "colour") is a field too.
        field_names: put "title: " and so on before each field, as query-product pre-finetuning does.
        separator: what stands between two fields.

    Example:
        >>> product = {"title": "Mug", "brand": "Ostwick", "attributes": [{"name": "colour", "value": "red"}]}
        >>> product_text(product)
        'Mug . Ostwick . colour red'
        >>> product_text(product, fields=["colour", "title"], field_names=True)
        'colour: red . title: Mug'
    """
    parts = ((name, _field_text(product, name)) for name in fields)
    return separator.join(f"{name}: {text}" if field_names else text for name, text in parts if text)


def _field_text(product: Mapping[str, Any], name: str) -> str:
    if name == "attributes":
        return ", ".join(f"{key or ''} {as_text(value)}".strip() for key, value in _attributes(product))
    if name not in PRODUCT and name not in product:
        return ", ".join(as_text(value) for key, value in _attributes(product) if key == name)
    if name == "category_path":
        return PATH_SEPARATOR.join(path_levels(product.get(name)))
    value = product.get(name)
    if isinstance(value, (list, tuple)):
        return PATH_SEPARATOR.join(text for part in value if (text := as_text(part)))
    return as_text(value).strip()


def _attributes(product: Mapping[str, Any]) -> list[tuple[str | None, Any]]:
    return attribute_pairs(product.get("attributes"))
