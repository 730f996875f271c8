"""Reviews with aspect spans and questions with answer spans; offsets are recorded while the text is written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from .products import SampleProduct
from .vocabulary import attribute_sentence, is_plural, words

REVIEWS_A_PRODUCT = 2
QUESTIONS_A_PRODUCT = 1

_VERDICTS = {
    "positive": words(
        "excellent;great;better than expected;spot on;impressive;superb;really good;worth every penny;flawless;"
        "surprisingly good;a joy;exactly as I hoped;first class"
    ),
    "negative": words(
        "poor;disappointing;worse than expected;a let-down;not good enough;frustrating;really bad;below average;"
        "a big problem;the reason I sent it back;awful;far from what was promised"
    ),
    "neutral": words("average;fine;nothing special;as described;okay for the price;neither good nor bad;acceptable"),
}
_ASPECT_SENTENCES = (
    "The {aspect} {be} {verdict}.",
    "I found the {aspect} {verdict}.",
    "For me the {aspect} {be} {verdict}.",
    "After {weeks} weeks the {aspect} {be} still {verdict}.",
    "My {person} says the {aspect} {be} {verdict}.",
    "Compared with my old {brand2}, the {aspect} {be} {verdict}.",
    "As for the {aspect}, {verdict} would be my word.",
)
_OPENINGS = (
    "Bought {this} {type} for {use}.",
    "We needed something for {use} and picked the {brand} {series}.",
    "Ordered the {model} in {value} last month.",
    "This is my {nth} {brand}.",
    "My {person} gave me {this} {type}.",
    "I use it for {use}, mostly {often}.",
    "Arrived {soon} and well packed.",
)
_MIDDLES = (
    "The {feature} did what the page says.",
    "It says {value} on the box and that is what you get.",
    "I like that it has {feature}.",
    "For {price} you cannot ask for more.",
    "Perfect size for {use}.",
    "Setup took about {minutes} minutes.",
)
_CLOSINGS = {
    "positive": ("Highly recommended.", "Would buy again.", "Five stars from me.", "My {person} wants one too."),
    "negative": ("I sent it back.", "Would not buy again.", "Save your money.", "Asked for a refund."),
    "neutral": ("It does the job.", "Three stars.", "You get what you pay for.", "Maybe wait for a sale."),
}
_PEOPLE = words("wife;husband;daughter;son;neighbour;mother;flatmate;boss;brother;sister;colleague;grandfather")
_RATINGS = {"positive": (4.0, 5.0, 5.0), "neutral": (3.0, 3.0, 4.0), "negative": (1.0, 2.0, 2.0)}


def _slots(rng: random.Random, product: SampleProduct) -> dict[str, Any]:
    return {
        "type": product.type,
        "this": "these" if is_plural(product.type) else "this",
        "brand": product.brand.name,
        "series": product.series,
        "model": product.model,
        "value": rng.choice([value for name, value in product.attributes.items() if name != "type"]),
        "feature": rng.choice(product.features),
        "use": rng.choice(product.leaf.uses),
        "price": f"${product.price:.2f}",
        "person": rng.choice(_PEOPLE),
        "nth": rng.choice(("first", "second", "third")),
        "often": rng.choice(("at weekends", "every day", "in the evening", "twice a week")),
        "soon": rng.choice(("in two days", "a day early", "late", "on time")),
        "minutes": rng.choice((5, 10, 20, 45)),
        "weeks": rng.choice((2, 3, 6, 8)),
        "brand2": rng.choice(("one", "model", "set")),
    }


def make_reviews(seed: int, products: Sequence[SampleProduct]) -> list[dict[str, Any]]:
    """The `REVIEW` rows: the mood of a review tilts its aspects and decides its rating."""
    rng = random.Random(f"reviews {seed}")
    rows = []
    for i in range(REVIEWS_A_PRODUCT * len(products)):
        # Each product has some quality of its own; hence its reviews agree more often than not.
        product = products[i % len(products)]
        quality = random.Random(f"quality {product.product_id}").random()
        mood = rng.choices(("positive", "neutral", "negative"), (0.3 + 0.6 * quality, 0.2, 0.6 - 0.5 * quality))[0]
        text, aspects = _write_review(rng, product, mood)
        rating = rng.choice(_RATINGS[mood])
        rows.append(
            {
                "review_id": f"R{i + 1:06d}",
                "product_id": product.product_id,
                "text": text,
                "rating": rating,
                "aspects": aspects,
            }
        )
    return rows


def _write_review(rng: random.Random, product: SampleProduct, mood: str) -> tuple[str, list[dict[str, Any]]]:
    slots = _slots(rng, product)
    text = rng.choice(_OPENINGS).format(**slots)
    aspects: list[dict[str, Any]] = []
    for term in rng.sample(product.leaf.aspects, rng.randint(1, 3)):
        sentiment = mood if rng.random() < 0.75 else rng.choice(("positive", "negative", "neutral"))
        verdict = rng.choice(_VERDICTS[sentiment])
        slots.update(be="are" if is_plural(term) else "is", verdict=verdict, person=rng.choice(_PEOPLE))
        pattern = rng.choice(_ASPECT_SENTENCES)
        before, _, after = pattern.partition("{aspect}")
        start = len(text) + 1 + len(before.format(**slots))
        text = f"{text} {before.format(**slots)}{term}{after.format(**slots)}"
        aspects.append({"start": start, "end": start + len(term), "term": term, "sentiment": sentiment})
        if rng.random() < 0.35:
            text = f"{text} {rng.choice(_MIDDLES).format(**slots)}"
    return f"{text} {rng.choice(_CLOSINGS[mood]).format(**slots)}", aspects


_QUESTIONS = (
    "What {be} the {name} of {this} {type}?",
    "Which {name} does the {brand} {series} have?",
    "Can you tell me the {name}?",
    "I need to know the {name} before ordering, what is it?",
    "{Name}?",
)
_PADDING = (
    "It ships with {feature}.",
    "{brand} recommends it for {use}.",
    "The price was {price} when I bought it.",
    "My {person} has the same {type}.",
    "It belongs to the {series} range.",
    "Setup took about {minutes} minutes.",
)


def make_questions(seed: int, products: Sequence[SampleProduct]) -> list[dict[str, Any]]:
    """The `QUESTION` rows: each asks for one attribute, and its context says that one and others."""
    rng = random.Random(f"questions {seed}")
    return [
        _make_question(rng, products[i % len(products)], f"A{i + 1:06d}")
        for i in range(QUESTIONS_A_PRODUCT * len(products))
    ]


def _make_question(rng: random.Random, product: SampleProduct, question_id: str) -> dict[str, Any]:
    slots = _slots(rng, product)
    names = [name for name in product.attributes if name != "type"]
    stated = rng.sample(names, min(len(names), 3))
    asked = stated[0]
    sentences: list[str | None] = [rng.choice(_PADDING).format(**slots) for _ in range(2)]
    for name in stated[1:]:
        before, after = attribute_sentence(rng, name)
        sentences.append(f"{before}{product.attributes[name]}{after}")
    sentences.append(None)  # the place of the answer
    rng.shuffle(sentences)
    context, start = "", 0
    value = product.attributes[asked]
    for sentence in sentences:
        context += " " if context else ""
        if sentence is None:
            before, after = attribute_sentence(rng, asked)
            start = len(context) + len(before)
            sentence = f"{before}{value}{after}"
        context += sentence
    return {
        "question_id": question_id,
        "product_id": product.product_id,
        "question": rng.choice(_QUESTIONS).format(
            name=asked, Name=asked.capitalize(), be="are" if is_plural(asked) else "is", **slots
        ),
        "context": context,
        "answers": [{"start": start, "text": value}],
    }
