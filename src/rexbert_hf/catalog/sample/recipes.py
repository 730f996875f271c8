"""Pages for a second vertical, food recipes: recipes, and what is about food and yet none.

Reviews of restaurants, shop pages of food and kitchen goods, and stories about food share the words of recipes, so
that telling them apart is a task and not a lookup.
"""

from __future__ import annotations

import random
from typing import Any

from .vocabulary import with_article, words

RECIPES_A_PRODUCT = 0.5
REVIEWS_A_PRODUCT = 0.15

_DOMAIN_WEIGHT = {
    "food": 10, "health": 3, "parenting": 3, "gardening": 2, "hobby": 2, "travel": 1, "fashion": 0.2, "news": 0.2,
    "entertainment": 0.3,
}  # fmt: skip
_MAIN = words(
    "lentil;chickpea;leek;potato;pumpkin;mushroom;spinach;beetroot;carrot;aubergine;chicken;salmon;lamb;prawn;tofu;"
    "cauliflower;white bean;red cabbage;courgette;sweet potato;apple;plum;rhubarb;almond;walnut;barley"
)
_FORM = words("soup;stew;pie;salad;curry;gratin;risotto;tart;casserole;fritters;pancakes;loaf;dumplings;crumble;bake")
_STYLE = words("creamy;slow-cooked;smoky;quick;rustic;spiced;roasted;one-pot;crispy;Sunday;lemon;winter;grandmother's")
_PANTRY = words(
    "{n} tablespoons olive oil;{n} cloves garlic, crushed;1 large onion, finely chopped;{g} g plain flour;{g} g butter;"
    "{n} eggs;{n} sprigs thyme;1 teaspoon smoked paprika;{ml} ml vegetable stock;{ml} ml milk;salt and black pepper;"
    "1 bay leaf;{g} g grated cheese;{n} teaspoons sugar;1 lemon, juice and zest;a handful of parsley;{ml} ml cream;"
    "{n} tablespoons tomato puree;1/2 teaspoon cinnamon;{g} g breadcrumbs"
)
_STEPS = (
    "Heat the oil in a heavy pan and soften the onion for {m} minutes.",
    "Add the {main} and stir for {m} minutes until it begins to colour.",
    "Preheat the oven to {c} degrees.",
    "Pour in the stock, bring to the boil, then simmer for {mm} minutes.",
    "Whisk the eggs with the milk and season well.",
    "Fold the {main} into the mixture with a metal spoon.",
    "Transfer to a greased dish and bake for {mm} minutes until golden.",
    "Leave to rest for {m} minutes before you slice it.",
    "Rub the butter into the flour, add a little cold water and chill the dough.",
    "Drain the {main}, keeping a cup of the liquid.",
    "Taste, adjust the salt and serve the {form} warm.",
    "Scatter with parsley and a little of the cheese.",
)
_OPENINGS = (
    "We make this {form} whenever the {main} is in season.",
    "A {form} that forgives almost everything, and tastes better the next day.",
    "My neighbour gave me this recipe on the back of an envelope.",
    "",
)
_REVIEWS = (
    "We came to the {place} for {a_form} and left with a bill of ${price}.",
    "The waiter recommended the {main} {form}, which arrived lukewarm.",
    "At the next table somebody sent back the {main}.",
    "The kitchen closes at ten, the bar at midnight.",
    "The dining room is loud, the chairs are hard and the view is splendid.",
    "Book ahead: the {place} has only {n} tables.",
    "For pudding we shared {a_form2}, too sweet for my taste.",
    "Parking is difficult, but the tram stops outside.",
    "The chef used to work by the harbour, and one can tell.",
    "I would go back for the {main} {form}, not for the service.",
)
_PLACES = words("Blue Lantern;Harbour Table;Old Mill;Three Larks;Copper Pot;Corner Kitchen;Long Barn;Salt House")


def make_recipe_pages(seed: int, size: int) -> list[dict[str, Any]]:
    """Recipes and reviews of restaurants as `WEB_PAGE` rows, labelled "recipe" and "general".

    Args:
        seed: of the draws.
        size: products of the sample shop; the number of pages follows.
    """
    rng = random.Random(f"recipes {seed}")
    pages = []
    for i in range(max(2, int(RECIPES_A_PRODUCT * size))):
        domain = rng.choices(list(_DOMAIN_WEIGHT), list(_DOMAIN_WEIGHT.values()))[0]
        text = _recipe(rng)
        pages.append(_page(text, domain, "recipe", f"recipes/{_slug(text)}-{i + 1}", rng))
    for i in range(max(1, int(REVIEWS_A_PRODUCT * size))):
        text = _review(rng)
        domain = rng.choice(("food", "travel", "news"))
        pages.append(_page(text, domain, "general", f"restaurants/{_slug(text)}-{i + 1}", rng))
    return pages


def _page(text: str, domain: str, label: str, path: str, rng: random.Random) -> dict[str, Any]:
    site = f"{domain}{rng.choice(('table', 'kitchen', 'weekly', 'corner'))}"
    return {"text": text, "url": f"https://www.{site}.example/{path}", "domain": domain, "label": label}


def _slug(text: str) -> str:
    return "-".join(word for word in text.lower().split()[:4] if word.isalnum() and word.isascii())


def _recipe(rng: random.Random) -> str:
    """Title, servings, ingredients and method, each on lines of their own."""
    main, form = rng.choice(_MAIN), rng.choice(_FORM)
    title = f"{rng.choice(_STYLE)} {main} {form}"
    lines = [f"{title[0].upper()}{title[1:]}"]
    opening = rng.choice(_OPENINGS).format(main=main, form=form)
    lines += [opening] if opening else []
    lines.append(
        f"Serves {rng.choice((2, 4, 6, 8))}. Preparation {rng.randrange(10, 45, 5)} minutes,"
        f" cooking {rng.randrange(15, 120, 5)} minutes."
    )
    lines.append(rng.choice(("Ingredients", "You will need", "Ingredients:")))
    lines.append(f"{rng.randrange(200, 900, 50)} g {main}")
    lines += [_amount(rng, item) for item in rng.sample(_PANTRY, rng.randint(5, 9))]
    lines.append(rng.choice(("Method", "Directions", "How to make it")))
    chosen = sorted(rng.sample(range(len(_STEPS)), rng.randint(4, 7)))
    for number, step in enumerate((_STEPS[i] for i in chosen), 1):
        slots = {"m": rng.randint(2, 12), "mm": rng.randrange(15, 75, 5), "c": rng.randrange(160, 230, 10)}
        lines.append(f"{number}. {step.format(main=main, form=form, **slots)}")
    return "\n".join(lines)


def _amount(rng: random.Random, item: str) -> str:
    return item.format(n=rng.randint(2, 4), g=rng.randrange(50, 400, 25), ml=rng.randrange(100, 800, 50))


def _review(rng: random.Random) -> str:
    place = rng.choice(_PLACES)
    sentences = [f"{place}: a visit on a {rng.choice(('wet', 'quiet', 'crowded', 'warm'))} evening."]
    for pattern in rng.sample(_REVIEWS, rng.randint(5, len(_REVIEWS))):
        sentences.append(
            pattern.format(
                place=place, main=rng.choice(_MAIN), form=rng.choice(_FORM), price=rng.randint(18, 140),
                a_form=with_article(rng.choice(_FORM)), a_form2=with_article(rng.choice(_FORM)), n=rng.randint(5, 30),
            )
        )  # fmt: skip
    return " ".join(sentences)
