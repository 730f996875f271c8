"""Products of the sample shop: attributes with structure, then titles and descriptions that mention them.

What there is to learn: a brand stays in its department and has favourite values, a product type has favourite values,
price follows the attribute values and the brand's level, and title, description and specification agree.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from .vocabulary import Brand, Leaf, attribute_sentence, brands, favourite, is_plural, leaves, with_article

PRODUCTS_A_LEAF = 3
"""At least so many."""

BRAND_LOYALTY = 0.45
"""Chance that an attribute takes the brand's favourite value."""

TYPE_LOYALTY = 0.25
"""Chance that it takes the product type's favourite value instead."""


@dataclass(frozen=True, slots=True)
class SampleProduct:
    """A product before it becomes a record; the generators of behaviour and text read these fields."""

    product_id: str
    leaf: Leaf
    brand: Brand
    series: str
    model: str
    sku: str
    attributes: dict[str, str]
    features: tuple[str, ...]
    price: float
    title: str
    description: str

    @property
    def type(self) -> str:
        """The noun phrase of the product."""
        return self.attributes["type"]

    def record(self) -> dict[str, Any]:
        """The `PRODUCT` row."""
        attributes = [{"name": name, "value": value} for name, value in self.attributes.items()]
        attributes += [{"name": "model", "value": self.model}, {"name": "sku", "value": self.sku}]
        attributes.append({"name": "price", "value": f"${self.price:.2f}"})
        return {
            "product_id": self.product_id,
            "title": self.title,
            "description": self.description,
            "brand": self.brand.name,
            "category_path": list(self.leaf.path),
            "attributes": attributes,
            "language": "en",
        }


def make_products(seed: int, size: int) -> list[SampleProduct]:
    """Draw `size` products, at least three a leaf: a small shop has fewer leaves rather than nothing to compare."""
    rng = random.Random(f"products {seed}")
    tree = list(leaves().values())[: max(1, size // PRODUCTS_A_LEAF)]
    weights = [1 + favourite(leaf.name, "popularity", 4) for leaf in tree]
    sure = (tree * PRODUCTS_A_LEAF)[:size]
    chosen = sure + rng.choices(tree, weights, k=size - len(sure))
    rng.shuffle(chosen)
    return [_make_product(rng, leaf, f"P{i:06d}") for i, leaf in enumerate(chosen, 1)]


def _make_product(rng: random.Random, leaf: Leaf, product_id: str) -> SampleProduct:
    maker = _draw_brand(rng, leaf)
    attributes = {"type": rng.choice(leaf.attributes["type"])}
    ranks = []
    for name, values in leaf.attributes.items():
        if name != "type":
            index = _draw_value(rng, maker.name, attributes["type"], f"{leaf.name} {name}", len(values))
            attributes[name] = values[index]
            ranks.append(index / max(1, len(values) - 1))
    features = _draw_features(rng, leaf, maker.name)
    price = _draw_price(rng, leaf, 0.5 * sum(ranks) / len(ranks) + 0.4 * maker.level)
    series = rng.choice(maker.series)
    model = f"{maker.name[0]}{maker.name[-1].upper()}-{rng.randrange(10, 100) * 10}{rng.choice(('', '', 'S', 'X'))}"
    sku = f"{leaf.department[:2].upper()}{rng.randrange(10**6):06d}"
    facts = _Facts(maker, series, model, sku, attributes, features, price, leaf.uses)
    title, description = _title(rng, facts), _description(rng, facts)
    return SampleProduct(product_id, leaf, maker, series, model, sku, attributes, features, price, title, description)


def _draw_brand(rng: random.Random, leaf: Leaf) -> Brand:
    """Each brand is strong in some leaves of its department and absent from others."""
    makers = brands()[leaf.department]
    strength = (0, 1, 1, 4)
    weights = [strength[favourite(maker.name, leaf.name, 4)] for maker in makers]
    return rng.choices(makers, weights if any(weights) else None)[0]


def _draw_value(rng: random.Random, brand: str, kind: str, topic: str, count: int) -> int:
    draw = rng.random()
    if draw < BRAND_LOYALTY:
        return favourite(brand, topic, count)
    if draw < BRAND_LOYALTY + TYPE_LOYALTY:
        return favourite(kind, topic, count)
    return rng.randrange(count)


def _draw_features(rng: random.Random, leaf: Leaf, brand: str) -> tuple[str, ...]:
    signature = leaf.features[favourite(brand, f"{leaf.name} feature", len(leaf.features))]
    drawn = rng.sample(leaf.features, 3)
    return tuple(dict.fromkeys([signature, *drawn]))[:3] if rng.random() < 0.7 else tuple(drawn)


def _draw_price(rng: random.Random, leaf: Leaf, position: float) -> float:
    """Geometric between the ends of the leaf's range, ending in .99, .50 or .00."""
    low, high = leaf.price
    position = min(1.0, position + 0.15 * rng.random())
    return round(max(1, round(low * (high / low) ** position)) - rng.choice((0.01, 0.01, 0.5, 0.0)), 2)


@dataclass(frozen=True, slots=True)
class _Facts:
    brand: Brand
    series: str
    model: str
    sku: str
    attributes: dict[str, str]
    features: tuple[str, ...]
    price: float
    uses: tuple[str, ...]


_TITLES = (
    "{brand} {series} {type}, {a}, {b}",
    "{brand} {model} {type} with {f}, {a}",
    "{brand} {type} {a} {b} - {f}",
    "{brand} {series} {a} {type} ({model})",
    "{type} by {brand}, {a}, {b}, {f}",
    "{brand} {type} | {a} | {f} | {b}",
    "{brand} {series} {model} - {type} - {a}",
)


def _title(rng: random.Random, facts: _Facts) -> str:
    """A brand has its house style; colours, sizes and the like are drawn from the attributes."""
    values = [value for name, value in facts.attributes.items() if name != "type"]
    a, b = rng.sample(values, 2) if len(values) > 1 else (values[0], facts.series)
    house = favourite(facts.brand.name, "title", len(_TITLES))
    pattern = _TITLES[house] if rng.random() < 0.6 else rng.choice(_TITLES)
    kind = facts.attributes["type"]
    if favourite(facts.brand.name, "capitals", 2):
        kind = " ".join(word[0].upper() + word[1:] for word in kind.split())
    title = pattern.format(
        brand=facts.brand.name,
        series=facts.series,
        model=facts.model,
        type=kind,
        a=a,
        b=b,
        f=rng.choice(facts.features),
    )
    return title[0].upper() + title[1:]


_OPENINGS = (
    "The {brand} {series} {be} {a_type} for {use} and {use2}.",
    "Designed for {use}, {this} {type} from {brand} {come} with {f}.",
    "Looking for {a_type} for {use}? The {series} range by {brand} has you covered.",
    "{brand} built the {series} around one idea: {use} should be easy.",
    "Meet the {brand} {model}: {a_type} with {f} and {f2}.",
)
_FEATURES = (
    "You get {f}, {f2} and {f3}.",
    "Highlights include {f} and {f2}.",
    "{F} and {f3} come as standard.",
    "The {f} will make the difference for {use}.",
    "Thanks to the {f2}, you can forget the trouble with {use}.",
)
_CLOSINGS = (
    "Model {model}, SKU {sku}.",
    "Now {price}, {percent} % off the list price.",
    "Package size {x} x {y} x {z} in, two-year warranty.",
    "Backed by {brand} with a {years}-year warranty.",
    "Item {sku} ships within 24 hours and returns are free for 30 days.",
    "At {price} it is one of the {rank} in the {series} range.",
)


def _description(rng: random.Random, facts: _Facts) -> str:
    plural = is_plural(facts.attributes["type"])
    use, use2 = rng.sample(facts.uses, 2)
    f, f2, f3 = rng.sample(facts.features, 3)
    slots = {
        "brand": facts.brand.name, "series": facts.series, "model": facts.model, "sku": facts.sku,
        "type": facts.attributes["type"], "a_type": with_article(facts.attributes["type"]),
        "be": "are" if plural else "is", "this": "these" if plural else "this", "come": "come" if plural else "comes",
        "use": use, "use2": use2, "f": f, "f2": f2, "f3": f3, "F": f[0].upper() + f[1:],
        "price": f"${facts.price:.2f}", "percent": rng.choice((5, 10, 15, 20, 25, 30)),
        "x": rng.randrange(4, 40), "y": rng.randrange(3, 20), "z": rng.randrange(1, 15),
        "years": rng.choice((1, 2, 3, 5)),
        "rank": "best buys" if facts.brand.level < 0.5 else "premium picks",
    }  # fmt: skip
    sentences = [rng.choice(_OPENINGS), rng.choice(_FEATURES)]
    names = [name for name in facts.attributes if name != "type"]
    for name in rng.sample(names, rng.randint(min(2, len(names)), len(names))):
        before, after = attribute_sentence(rng, name)
        sentences.append(before + facts.attributes[name].replace("{", "") + after)
    sentences += rng.sample(_CLOSINGS, rng.randint(1, 2))
    return " ".join(sentences).format(**slots)
