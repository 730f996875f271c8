"""The world of the sample shop: its category tree, brands and how an attribute is said.

The world is fixed; a seed only draws products, people and pages from it. So shops of different seeds are samples of one
distribution, and a model trained on one can be judged on another.

Notation of the `leaves_*` modules, one block a leaf: `# path > of > leaf | price range in $ | leaves bought with it`,
then `attribute: values` (ordered from the cheap to the dear end), `+` features, `~` aspects that reviews talk about,
`@` uses. `type` is an attribute like the others, and the one that every product has a noun for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from . import leaves_home, leaves_style, leaves_tech


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf of the category tree and the words that its products are made of."""

    path: tuple[str, ...]
    price: tuple[int, int]
    complements: tuple[str, ...]
    attributes: dict[str, tuple[str, ...]]
    features: tuple[str, ...]
    aspects: tuple[str, ...]
    uses: tuple[str, ...]

    @property
    def name(self) -> str:
        """Last part of the path, unique in the shop."""
        return self.path[-1]

    @property
    def department(self) -> str:
        """First part of the path."""
        return self.path[0]


@dataclass(frozen=True, slots=True)
class Brand:
    """An invented maker: its price level and what it likes to build."""

    name: str
    department: str
    level: float  # 0 cheap to 1 dear
    series: tuple[str, ...]


def words(text: str, separator: str = ";") -> tuple[str, ...]:
    """Split a list of words or phrases, ignoring blanks around them."""
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def _parse_leaf(block: str) -> Leaf:
    heading, *lines = block.strip().splitlines()
    path, price, complements = words(heading, "|")
    low, high = price.split("-")
    listed: dict[str, tuple[str, ...]] = {"+": (), "~": (), "@": ()}
    attributes: dict[str, tuple[str, ...]] = {}
    for line in filter(None, lines):
        if line[0] in listed:
            listed[line[0]] = words(line[1:])
        else:
            name, _, values = line.partition(":")
            attributes[name] = words(values)
    return Leaf(
        words(path, ">"), (int(low), int(high)), words(complements), attributes, listed["+"], listed["~"], listed["@"]
    )


@cache
def leaves() -> dict[str, Leaf]:
    """All leaves by name, in a fixed order."""
    text = leaves_home.LEAVES + leaves_style.LEAVES + leaves_tech.LEAVES
    parsed = [_parse_leaf(block) for block in text.split("\n# ")[1:]]
    return {leaf.name: leaf for leaf in parsed}


_HEADS = words(
    "Bram;Cald;Drun;Eskel;Fenn;Gorr;Hald;Jolv;Kest;Lorr;Mund;Nark;Osk;Pell;Quor;Rund;Sabb;Tarn;Ulv;Vark;Yarr"
)
_TAILS = words("wick;ova;mere;stad;ette;ique;holm;ano;arden;ivo;brook;entra;ux;ild;ford;isto;una;eck")
_SERIES = words(
    "Harbour;Summit;Cinder;Willow;Orbit;Marlin;Pebble;Juniper;Drift;Ember;Lark;Quarry;Meadow;Saffron;Beacon;Thistle;"
    "Granite;Ripple;Hollow;Copper;Lantern;Bramble;Compass;Velvet;Timber;Comet;Anchor;Clover;Prairie;Glacier;Onyx;Tempo"
)
BRANDS_A_DEPARTMENT = 9


@cache
def brands() -> dict[str, tuple[Brand, ...]]:
    """Brands by department; none works in two."""
    rng = random.Random("brands of the sample shop")
    names = [head + tail for head in _HEADS for tail in _TAILS]
    rng.shuffle(names)
    made: dict[str, tuple[Brand, ...]] = {}
    for department in dict.fromkeys(leaf.department for leaf in leaves().values()):
        made[department] = tuple(
            Brand(names.pop(), department, i / (BRANDS_A_DEPARTMENT - 1), tuple(rng.sample(_SERIES, 4)))
            for i in range(BRANDS_A_DEPARTMENT)
        )
    return made


@cache
def favourite(owner: str, topic: str, count: int) -> int:
    """The index, below `count`, that an owner (a brand, a product type) prefers for a topic: a fact of the world."""
    return random.Random(f"{owner} likes {topic}").randrange(count)


def is_plural(noun: str) -> bool:
    """Whether a noun phrase of the vocabulary takes "are"."""
    return noun.endswith("s") and not noun.endswith("ss")


def with_article(noun: str) -> str:
    """Put "a" or "an" before a singular noun phrase; plurals stay bare.

    Example:
        >>> with_article("electric kettle"), with_article("LED bulb"), with_article("jeans")
        ('an electric kettle', 'an LED bulb', 'jeans')
    """
    if is_plural(noun):
        return noun
    return f"{'an' if noun[0] in 'aeiouAEIOU' or noun.startswith('LED') else 'a'} {noun}"


ATTRIBUTE_SENTENCES = {
    "colour": ("Comes in {}.", "The colour is {}.", "Finished in {}."),
    "material": ("Made of {}.", "The material is {}.", "Built from {} throughout."),
    "finish": ("The finish is {}.", "Finished in {}."),
    "size": ("The size is {}.", "This one is size {}."),
    "capacity": ("The capacity is {}.", "Holds {}.", "Room for {}."),
    "weight": ("The weight is {}.", "Weighs {}."),
    "pack": ("Sold as {}.", "The pack holds {}."),
    "origin": ("Sourced {}.", "It comes {}."),
    "age": ("Suitable from {}.", "The recommended age is {}."),
    "power": ("Runs at {}.", "The power is {}."),
    "voltage": ("Works on {}.", "The voltage is {}."),
    "battery": ("Up to {} on one charge.", "The battery lasts {}."),
    "fits": ("Fits {}.", "Made to fit {}."),
    "length": ("The length is {}.", "Measures {} from end to end."),
    "height": ("The height is {}.", "Stands {} tall."),
    "gender": ("Cut for {} sizes.", "A {} model."),
    "pattern": ("The pattern is {}.", "A {} print."),
}
_PLAIN_SENTENCES = ("The {name} {be} {{}}.", "{Name}: {{}}.", "With {{}} as its {name}.")


def attribute_sentence(rng: random.Random, name: str) -> tuple[str, str]:
    """Draw how to say an attribute: the text before and after its value."""
    patterns = ATTRIBUTE_SENTENCES.get(name)
    if patterns is None:
        pattern = rng.choice(_PLAIN_SENTENCES).format(
            name=name, Name=name.capitalize(), be="are" if is_plural(name) else "is"
        )
    else:
        pattern = rng.choice(patterns)
    before, _, after = pattern.partition("{}")
    return before, after
