"""What shoppers of the sample shop do: queries with E/S/C/I labels, search events, associations.

A query is drawn as an intent (a leaf, wished attribute values, maybe a brand), so a label is a rule and not an opinion:
Exact fulfils the whole intent, Substitute is another product of the same leaf, Complement is of a leaf that is bought
with it, everything else is Irrelevant.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from .products import SampleProduct
from .vocabulary import Leaf

QUERIES_A_PRODUCT = 0.6
EVENTS_A_PRODUCT = 4
SHOWN = 12
"""Results on a page."""

CLICK_CHANCE = {"E": 0.45, "S": 0.16, "C": 0.05, "I": 0.01}
BUY_CHANCE = {"E": 0.35, "S": 0.15, "C": 0.08, "I": 0.02}
"""Chance of a click at position 1, and of a purchase after a click, by label."""

JUDGED = {"E": 5, "S": 5, "C": 3, "I": 4}
"""At most this many judged products a query, by label."""

_FIRST_DAY = datetime(2026, 3, 2, tzinfo=UTC).replace(tzinfo=None)
_COUNTRIES = ("US", "GB", "CA", "AU", "IE")


@dataclass(frozen=True, slots=True)
class Intent:
    """A query and what it asks for."""

    query_id: str
    query: str
    leaf: Leaf
    wishes: dict[str, str]  # attribute -> value, "type" included
    brand: str | None
    frequency: int
    source: SampleProduct  # the product that the query was modelled on: an exact answer

    def record(self) -> dict[str, Any]:
        """The `QUERY` row."""
        return {
            "query_id": self.query_id,
            "query": self.query,
            "category_path": list(self.leaf.path),
            "frequency": self.frequency,
            "language": "en",
        }


def label_of(intent: Intent, product: SampleProduct) -> str:
    """Judge a product for an intent: "E", "S", "C" or "I"."""
    if product.leaf.name == intent.leaf.name:
        is_brand = intent.brand in (None, product.brand.name)
        has_all = all(product.attributes.get(name) == value for name, value in intent.wishes.items())
        return "E" if is_brand and has_all else "S"
    return "C" if product.leaf.name in intent.leaf.complements else "I"


_QUERY_ORDERS = (
    "{brand} {values} {type}",
    "{brand} {type} {values}",
    "{values} {type} {brand}",
    "{type} {values} {brand}",
)


def make_queries(seed: int, products: Sequence[SampleProduct]) -> list[Intent]:
    """Draw distinct queries; each is modelled on a product, so it has at least one exact answer."""
    rng = random.Random(f"queries {seed}")
    intents: dict[str, Intent] = {}
    wanted = max(1, int(QUERIES_A_PRODUCT * len(products)))
    for rank in range(wanted * 3):
        if len(intents) == wanted:
            break
        product = rng.choice(products)
        names = [name for name in product.attributes if name != "type"]
        chosen = rng.sample(names, min(len(names), rng.choice((0, 1, 1, 1, 2, 2))))
        brand = product.brand.name if rng.random() < 0.3 else None
        values = " ".join(product.attributes[name] for name in chosen)
        text = rng.choice(_QUERY_ORDERS).format(brand=brand or "", values=values, type=product.type)
        text = " ".join(_as_typed(rng, text).split())
        if text not in intents:
            wishes = {name: product.attributes[name] for name in ("type", *chosen)}
            frequency = 1 + int(200 / (1 + rank) ** 0.6 * rng.random() * 4)
            intents[text] = Intent(f"Q{len(intents) + 1:06d}", text, product.leaf, wishes, brand, frequency, product)
    return list(intents.values())


def _as_typed(rng: random.Random, text: str) -> str:
    """What people type: mostly lower case, units glued to numbers now and then, a swapped pair of letters rarely."""
    if rng.random() < 0.85:
        text = text.lower()
    if rng.random() < 0.25:
        text = text.replace(",", "").replace(" gb", "gb").replace(" cm", "cm").replace(" v", "v", 1)
    if rng.random() < 0.04:
        i = rng.randrange(len(text) - 1)
        if text[i : i + 2].isalpha():
            text = text[:i] + text[i + 1] + text[i] + text[i + 2 :]
    return text


class Shelves:
    """Products by leaf, type and department, to draw results and neighbours at a cost that the shop does not raise."""

    def __init__(self, products: Sequence[SampleProduct]) -> None:
        self.products = products
        self.by_leaf: dict[str, list[SampleProduct]] = defaultdict(list)
        self.by_type: dict[str, list[SampleProduct]] = defaultdict(list)
        self.by_department: dict[str, list[SampleProduct]] = defaultdict(list)
        for product in products:
            self.by_leaf[product.leaf.name].append(product)
            self.by_type[product.type].append(product)
            self.by_department[product.leaf.department].append(product)

    def draw_complements(self, rng: random.Random, leaf: Leaf, count: int) -> list[SampleProduct]:
        """At most `count` products of each leaf that is bought with this one."""
        return [product for name in leaf.complements for product in _draw(rng, self.by_leaf[name], count)]

    def candidates(self, rng: random.Random, intent: Intent, limits: dict[str, int]) -> list[tuple[SampleProduct, str]]:
        """Products with labels, at most `limits[label]` of each; some of the irrelevant ones share the department."""
        pool = [
            intent.source,
            *_draw(rng, self.by_type[intent.wishes["type"]], 60),
            *_draw(rng, self.by_leaf[intent.leaf.name], 40),
            *self.draw_complements(rng, intent.leaf, 6),
            *_draw(rng, self.by_department[intent.leaf.department], 6),
            *_draw(rng, self.products, 8),
        ]
        by_label: dict[str, dict[str, SampleProduct]] = defaultdict(dict)
        for product in pool:
            by_label[label_of(intent, product)][product.product_id] = product
        return [
            (product, label)
            for label, limit in limits.items()
            for product in _draw(rng, [*by_label[label].values()], limit)
        ]


def _draw(rng: random.Random, pool: Sequence[SampleProduct], count: int) -> list[SampleProduct]:
    return rng.sample(pool, min(count, len(pool)))


def make_query_products(seed: int, shelves: Shelves, intents: Sequence[Intent]) -> list[dict[str, Any]]:
    """Judged pairs: the `QUERY_PRODUCT` rows."""
    rng = random.Random(f"query products {seed}")
    return [
        {"query": intent.query, "product_id": product.product_id, "label": label, "relevance": None}
        for intent in intents
        for product, label in shelves.candidates(rng, intent, JUDGED)
    ]


def make_events(seed: int, shelves: Shelves, intents: Sequence[Intent]) -> list[dict[str, Any]]:
    """Search events with position bias (a click's chance falls with the position), in the order of time."""
    rng = random.Random(f"events {seed}")
    frequencies = [intent.frequency for intent in intents]
    pages = {intent.query: shelves.candidates(rng, intent, {"E": 6, "S": 8, "C": 3, "I": 4}) for intent in intents}
    count = EVENTS_A_PRODUCT * len(shelves.products)
    seconds = sorted(rng.randrange(90 * 86_400) for _ in range(count))
    return [
        _make_event(rng, intent, pages[intent.query], _FIRST_DAY + timedelta(seconds=second))
        for intent, second in zip(rng.choices(intents, frequencies, k=count), seconds, strict=True)
    ]


_RANKING = {"E": 3.0, "S": 2.0, "C": 1.0, "I": 0.4}


def _make_event(
    rng: random.Random, intent: Intent, page: list[tuple[SampleProduct, str]], time: datetime
) -> dict[str, Any]:
    # An engine of middling quality: better labels tend to stand higher, with noise.
    ranked = sorted(page, key=lambda pair: _RANKING[pair[1]] + rng.gauss(0, 1.1), reverse=True)[:SHOWN]
    clicked, bought = [], []
    for position, (product, label) in enumerate(ranked, 1):
        if rng.random() < CLICK_CHANCE[label] / position**0.7:
            clicked.append(product.product_id)
            if rng.random() < BUY_CHANCE[label]:
                bought.append(product.product_id)
    return {
        "query": intent.query,
        "shown": [product.product_id for product, _ in ranked],
        "clicked": clicked,
        "bought": bought,
        "language": "en",
        "country": rng.choices(_COUNTRIES, (60, 18, 10, 8, 4))[0],
        "time": time,
    }


def make_associations(seed: int, shelves: Shelves) -> list[dict[str, Any]]:
    """also_buy (a complement, with the same colour or brand level if there is one) and also_view (the most alike)."""
    rng = random.Random(f"associations {seed}")
    rows = []
    for product in shelves.products:
        pools = {
            "also_buy": shelves.draw_complements(rng, product.leaf, 6),
            "also_view": _draw(rng, shelves.by_leaf[product.leaf.name], 11),
        }
        for kind, pool in pools.items():
            others = [other for other in pool if other is not product]
            if not others:  # a tiny shop
                others = [other for other in _draw(rng, shelves.products, 2) if other is not product]
            others.sort(key=lambda other: _alike(product, other), reverse=True)
            rows += [
                {"product_a": product.product_id, "product_b": other.product_id, "kind": kind} for other in others[:3]
            ]
    return rows


def _alike(a: SampleProduct, b: SampleProduct) -> float:
    shared = sum(b.attributes.get(name) == value for name, value in a.attributes.items())
    return shared + 2 * (a.brand is b.brand) - abs(a.brand.level - b.brand.level)
