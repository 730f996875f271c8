"""The sample web: shop pages and ordinary prose in every domain, and the long documents.

How many shop pages a domain has differs widely (hobby and fashion are full of them, science is not), and each kind has
a touch of the other, so that selecting the commercial part is a task and not a lookup.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from .products import SampleProduct
from .prose import DOMAINS, Writer
from .vocabulary import is_plural, with_article, words

GENERAL_PAGES_A_PRODUCT = 1.3
SHOP_PAGES_A_PRODUCT = 0.7
LONG_DOCUMENTS_A_PRODUCT = 1 / 24
LONG_WORDS = 3_000
"""Every long document has at least this many words."""

DEPARTMENTS = {
    "hobby": words("Toys;Office;Electronics"), "news": words("Electronics;Office"), "fashion": words("Fashion"),
    "beauty": words("Beauty"), "automotive": words("Electronics;Home Improvement"), "food": words("Grocery;Kitchen"),
    "sports": words("Sports"), "science": words("Electronics;Office"), "travel": words("Sports;Fashion"),
    "entertainment": words("Electronics;Toys"), "health": words("Beauty;Sports"), "gardening": words("Garden"),
    "technology": words("Electronics;Office"), "finance": words("Office"), "parenting": words("Toys;Pets"),
    "history": words("Toys;Office"),
}  # fmt: skip
"""Which departments the shop pages of a domain sell."""

_SHOP_WEIGHT = {
    "hobby": 6, "fashion": 6, "beauty": 5, "sports": 4, "gardening": 4, "food": 4, "technology": 4, "parenting": 3,
    "travel": 2, "health": 2, "entertainment": 2, "automotive": 2, "news": 1, "finance": 1, "science": 1, "history": 1,
}  # fmt: skip

_MENTIONS = (
    "The ticket cost {price}, which nobody minded.",
    "Someone had left {a_type} on the table.",
    "\"I bought my first {type} that year,\" {verb} an old neighbour.",
    "Sales of {brand} were discussed, and then forgotten.",
)  # fmt: skip


def make_pages(seed: int, products: Sequence[SampleProduct]) -> list[dict[str, Any]]:
    """The `WEB_PAGE` rows, shop and general mixed."""
    rng = random.Random(f"web {seed}")
    pages = [_general_page(rng, products) for _ in range(max(1, int(GENERAL_PAGES_A_PRODUCT * len(products))))]
    by_domain = {
        domain: [product for product in products if product.leaf.department in departments] or list(products)
        for domain, departments in DEPARTMENTS.items()
    }
    for _ in range(max(1, int(SHOP_PAGES_A_PRODUCT * len(products)))):
        domain = rng.choices(list(_SHOP_WEIGHT), list(_SHOP_WEIGHT.values()))[0]
        pages.append(_shop_page(rng, domain, by_domain[domain]))
    rng.shuffle(pages)
    for i, page in enumerate(pages):
        page["url"] += f"-{i + 1}"
    return pages


def make_long_documents(seed: int, size: int) -> list[str]:
    """Documents of at least `LONG_WORDS` words: chapters on changing matters with the same people in the same place."""
    rng = random.Random(f"long {seed}")
    documents = []
    for i in range(max(1, int(LONG_DOCUMENTS_A_PRODUCT * size))):
        writer = Writer(rng, DOMAINS[i % len(DOMAINS)])
        wanted = rng.randint(LONG_WORDS, LONG_WORDS * 4 // 3)
        chapters: list[str] = []
        count = 0
        while count < wanted:
            chapters.append(writer.document(rng.randint(10, 30)))
            count += len(chapters[-1].split())
            writer.change_subject()
        documents.append(" ".join(chapters))
    return documents


def _general_page(rng: random.Random, products: Sequence[SampleProduct]) -> dict[str, Any]:
    domain = rng.choice(DOMAINS)
    writer = Writer(rng, domain)
    text = writer.document(rng.choice((5, 7, 9, 12, 16, 20)))
    if rng.random() < 0.12:
        mention = rng.choice(_MENTIONS).format(
            verb=rng.choice(("said", "wrote")), **_product_slots(rng.choice(products))
        )
        text = f"{text} {mention}"
    return {"text": text, "url": _url(rng, domain, "stories", text), "domain": domain, "label": "general"}


def _shop_page(rng: random.Random, domain: str, products: Sequence[SampleProduct]) -> dict[str, Any]:
    page = rng.choices((_product_page, _listing, _guide, _offer), (4, 3, 2, 2))[0]
    text = page(rng, products)
    if rng.random() < 0.2:
        text = f"{Writer(rng, domain).paragraph('open', 1)} {text}"
    return {"text": text, "url": _url(rng, domain, "shop", text), "domain": domain, "label": "shop"}


def _url(rng: random.Random, domain: str, section: str, text: str) -> str:
    site = f"{domain}{rng.choice(('post', 'corner', 'weekly', 'mart', 'today', 'world'))}"
    slug = "-".join(word for word in text.lower().split()[:4] if word.isalnum() and word.isascii())
    return f"https://www.{site}.example/{section}/{slug or domain}"


def _product_slots(product: SampleProduct) -> dict[str, str]:
    return {
        "type": product.type,
        "a_type": with_article(product.type),
        "brand": product.brand.name,
        "price": f"${product.price:.2f}",
        "be": "are" if is_plural(product.type) else "is",
    }


def _product_page(rng: random.Random, products: Sequence[SampleProduct]) -> str:
    product = rng.choice(products)
    facts = ", ".join(f"{name}: {value}" for name, value in product.attributes.items())
    stock = rng.choice(("In stock", "Only 3 left", "Back in stock soon", "Ready for dispatch"))
    return (
        f"{' > '.join(product.leaf.path)}. {product.title}. ${product.price:.2f}. {stock}. Add to basket. "
        f"{product.description} Specification: {facts}."
    )


def _listing(rng: random.Random, products: Sequence[SampleProduct]) -> str:
    leaf = rng.choice(products).leaf
    shown = [product for product in products if product.leaf is leaf]
    shown = rng.sample(shown, min(len(shown), rng.randint(4, 8)))
    offers = " ".join(f"{product.title} ${product.price:.2f}." for product in shown)
    order = rng.choice(("price", "popularity", "newest", "customer rating"))
    return f"Shop {leaf.name.lower()} online. {len(shown)} results, sorted by {order}. {offers} Free returns."


def _guide(rng: random.Random, products: Sequence[SampleProduct]) -> str:
    product = rng.choice(products)
    leaf, slots = product.leaf, _product_slots(product)
    parts = ["How to choose {a_type}: a buying guide.".format(**slots)]
    for feature in rng.sample(leaf.features, 3):
        parts.append(rng.choice(("Look for {f}.", "We would pay extra for {f}.", "{F} will help with {u}.")).format(
            f=feature, F=feature[0].upper() + feature[1:], u=rng.choice(leaf.uses)
        ))  # fmt: skip
    name = rng.choice([name for name in leaf.attributes if name != "type"])
    values = leaf.attributes[name]
    parts.append(f"As for the {name}, you will find everything from {values[0]} to {values[-1]}.")
    parts.append(f"Buyers complain most about the {rng.choice(leaf.aspects)}.")
    parts.append("Our pick {be} the {title} at {price}.".format(title=product.title, **slots))
    return " ".join(parts)


def _offer(rng: random.Random, products: Sequence[SampleProduct]) -> str:
    product = rng.choice(products)
    percent = rng.choice((10, 20, 25, 30, 50))
    code = "".join(rng.choices("ABCDEFGHKLMNPRSTUVWXYZ", k=5))
    return (
        f"Deal of the day: {percent} % off {product.brand.name} {product.leaf.name.lower()} with code {code}{percent}. "
        f"{product.title}, was ${product.price / (1 - percent / 100):.2f}, now ${product.price:.2f}. "
        f"{product.description} Offer ends on Sunday while stocks last."
    )
