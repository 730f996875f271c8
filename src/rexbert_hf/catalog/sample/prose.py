"""A little grammar that writes ordinary prose: people, places and topic words that recur within a document.

Every document has a topic, two people and a place of its own, so a model gains from reading further back than the
sentence it stands in; that is what the context-extension phase needs to have something to learn.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import cache

from . import topics
from .vocabulary import with_article, words

DOMAINS = tuple(topics.TOPICS)
"""The topics of the sample web."""


@cache
def _lexicon(domain: str) -> dict[str, tuple[str, ...]]:
    _, *parts = re.split(r"^([nvat]):", topics.TOPICS[domain], flags=re.MULTILINE)
    return {key: words(text.replace("\n", " "), ",") for key, text in zip(parts[::2], parts[1::2], strict=True)}


@cache
def _shared(name: str) -> tuple[str, ...]:
    return words(getattr(topics, name).replace("\n", " "), ",")


def past_tense(verb: str) -> str:
    """Past tense of a verb of the lexicon; the four irregular ones look alike as participles.

    Example:
        >>> past_tense("bake"), past_tense("vary"), past_tense("stop"), past_tense("visit"), past_tense("dig")
        ('baked', 'varied', 'stopped', 'visited', 'dug')
    """
    return _inflect(verb, "ed")


def present_participle(verb: str) -> str:
    """The -ing form of a verb.

    Example:
        >>> present_participle("bake"), present_participle("dig"), present_participle("dye")
        ('baking', 'digging', 'dyeing')
    """
    return _inflect(verb, "ing")


_IRREGULAR = {"dig": "dug", "babysit": "babysat", "teach": "taught", "repay": "repaid"}
# The last letter doubles in these: stress decides, so it is a list and not a rule.
_DOUBLING = frozenset(
    words("trim;stop;rev;dab;chop;stir;plan;scrub;hem;dig;babysit;thin;swap;rebel;trek;marvel;debug;program;scan;nap")
)


def _inflect(verb: str, ending: str) -> str:
    if ending == "ed" and verb in _IRREGULAR:
        return _IRREGULAR[verb]
    if verb in _DOUBLING:
        return f"{verb}{verb[-1]}{ending}"
    if verb.endswith("e") and not (ending == "ing" and verb.endswith(("ee", "oe", "ye"))):
        return verb[:-1] + ending
    if ending == "ed" and verb.endswith("y") and verb[-2] not in "aeiou":
        return f"{verb[:-1]}ied"
    return verb + ending


def plural_of(noun: str) -> str:
    """Plural of a regular noun phrase.

    Example:
        >>> plural_of("gallery"), plural_of("coach"), plural_of("knife"), plural_of("model railway")
        ('galleries', 'coaches', 'knives', 'model railways')
    """
    if noun.endswith("knife"):
        return f"{noun[:-2]}ves"
    if noun.endswith("bacterium"):
        return f"{noun[:-2]}a"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh", "z")) else f"{noun}s"


_SENTENCES = {
    "open": (
        "{Time}, {person} arrived in {place} with {a_n} and {a_adj} {s}.",
        "Nobody in {place} expected the {n} to matter as much as it did.",
        "The {t} in {place} has always been about more than {ns}.",
        "{person} still remembers the first {n}.",
        "Ask anyone at the {t} and they will {sv} the {a} {n}.",
        "There is {a_adj} {n} in {place}, and {person} knows why.",
        "What makes {a_n} {a}? {person} has spent {number} years on that {s}.",
        "It began with {a_n}, {a_adj} {s} and very little money.",
    ),
    "story": (
        "{first} {ved} the {n} {adv}, and {first2} {ved} it again {time}.",
        "{Time}, the {n} was {adv} {ved} by {a_adj} {s}.",
        "{first} {svd} {a_adj} {n} near the {t}.",
        "The {ns} were {a}, but the {s} was not.",
        "\"{quote},\" said {first2}, who had {svd} the {s} before.",
        "They {ved} {number} {ns} and {svd} the rest.",
        "{first2} preferred {ving} to {ving2}, at least {time}.",
        "Then the {s} changed: {a_adj} {n} was {svd} at the {t}.",
        "While {first} was {ving} the {n}, {first2} {svd} the {a} {n2}.",
        "It took {number} days to {v} the {n}, and {number2} more to {v2} the {n2}.",
        "Neither the {n} nor the {n2} looked {a} in the light of that {s}.",
        "Back in {place}, {first} {svd} every {s} that had anything to do with {ns}.",
        "The {a} {n} stood {adv} beside {a_n2}.",
        "{Time}, {first} and {first2} {svd} the {s} {adv}.",
    ),
    "explain": (
        "{a_N} is only as good as the {n2} that comes with it.",
        "Most {ns} are {a}; the {a2} ones are {adj}.",
        "To {v} {a_n}, you first {sv} the {n2}.",
        "Experts distinguish {adj} {ns} from {a} ones.",
        "About {percent} percent of all {ns} in {place} are {a}.",
        "The difference between {a_n} and {a_n2} is {adj} but real.",
        "If the {n} is too {a}, {v} it {adv} and {sv} the {s}.",
        "A good rule is to {v} early and {v2} {adv}.",
        "Between {year} and {year2} the number of {ns} grew from {number} to {big}.",
        "That is why {ving} matters more than {ving2}.",
        "{a_Adj} {s} can make even the most {a} {n} {adj}.",
        "No {n} is {adj} for ever, and no {n2} should be.",
    ),
    "close": (
        "{first} smiled and {svd} the {n} once more.",
        "For now, the {n} stays in {place}.",
        "As {first2} put it: \"{quote}.\"",
        "The {t} opens again {time}.",
        "Perhaps the {s} was never about the {n} at all.",
        "{person2} hopes that others will {v} their own {ns}.",
        "By {year2} the {a} {n} may well be {adj} again.",
    ),
}  # fmt: skip
_QUOTES = (
    "You cannot {v} {a_n} and {sv} the {s} as well",
    "Every {n} has {a_adj} {s} in it",
    "We {ved} until the {ns} were {a}",
    "I would rather {v} than {v2}",
    "The {n2} was {a}, so we {svd} it",
    "Nothing about {place} is {adj}",
)
_SLOT = re.compile(r"\{(\w+)\}")


class Writer:
    """Writes documents of one domain; the cast (people, place, a handful of topic words) lasts for a document.

    Example:
        >>> writer = Writer(random.Random(3), "science")
        >>> text = writer.paragraph("explain", 2)
        >>> text == Writer(random.Random(3), "science").paragraph("explain", 2)
        True
    """

    def __init__(self, rng: random.Random, domain: str) -> None:
        self.rng = rng
        self.lexicon = _lexicon(domain)
        self.new_cast()

    def new_cast(self) -> None:
        """Draw other people, another place and other words: the next document."""
        rng = self.rng
        firsts, lasts = rng.sample(_shared("FIRST_NAMES"), 2), rng.sample(_shared("LAST_NAMES"), 2)
        self._cast = {
            "first": firsts[0], "first2": firsts[1], "place": rng.choice(_shared("PLACES")),
            "person": f"{firsts[0]} {lasts[0]}", "person2": f"{firsts[1]} {lasts[1]}",
            "t": rng.choice(self.lexicon["t"]),
        }  # fmt: skip
        self.change_subject()

    def change_subject(self) -> None:
        """Draw other topic words for the same people and place: the next chapter."""
        rng = self.rng
        self._nouns = rng.sample(self.lexicon["n"], 6)
        self._verbs = rng.sample(self.lexicon["v"], 6)
        self._adjectives = rng.sample(self.lexicon["a"], 5)

    def document(self, sentences: int) -> str:
        """An opening, story and explanation in turn, and an ending; about ten words a sentence."""
        parts = [self.paragraph("open", 1)]
        left = sentences - 2
        while left > 0:
            length = min(left, self.rng.randint(2, 5))
            parts.append(self.paragraph(self.rng.choice(("story", "story", "explain")), length))
            left -= length
        parts.append(self.paragraph("close", 1))
        return " ".join(parts)

    def paragraph(self, kind: str, sentences: int) -> str:
        """Sentences of one kind ("open", "story", "explain", "close"), no two of the same form in a row."""
        patterns = _SENTENCES[kind]
        chosen = [patterns[i] for i in self.rng.sample(range(len(patterns)), min(sentences, len(patterns)))]
        return " ".join(self._fill(pattern) for pattern in chosen)

    def _fill(self, pattern: str) -> str:
        filled = _SLOT.sub(self._slot, pattern)
        return filled[0].upper() + filled[1:]

    def _slot(self, match: re.Match[str]) -> str:
        name = match[1]
        if name in self._cast:
            return self._cast[name]
        return _FILLERS[name](self)


def _noun(writer: Writer) -> str:
    return writer.rng.choice(writer._nouns if writer.rng.random() < 0.7 else writer.lexicon["n"])


def _verb(writer: Writer) -> str:
    return writer.rng.choice(writer._verbs if writer.rng.random() < 0.7 else writer.lexicon["v"])


def _adjective(writer: Writer) -> str:
    return writer.rng.choice(writer._adjectives if writer.rng.random() < 0.6 else writer.lexicon["a"])


def _pick(name: str) -> Callable[[Writer], str]:
    return lambda writer: writer.rng.choice(_shared(name))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _time(writer: Writer) -> str:
    return writer._fill(writer.rng.choice(_shared("TIMES")))


def _lower_first(text: str) -> str:
    # A weekday or month keeps its capital; "In the spring" inside a sentence does not.
    return text[0].lower() + text[1:]


_FILLERS: dict[str, Callable[[Writer], str]] = {
    "n": _noun,
    "n2": _noun,
    "ns": lambda writer: plural_of(_noun(writer)),
    "a_n": lambda writer: with_article(_noun(writer)),
    "a_n2": lambda writer: with_article(_noun(writer)),
    "a_N": lambda writer: _capital(with_article(_noun(writer))),
    "v": _verb,
    "v2": _verb,
    "ved": lambda writer: past_tense(_verb(writer)),
    "ving": lambda writer: present_participle(_verb(writer)),
    "ving2": lambda writer: present_participle(_verb(writer)),
    "a": _adjective,
    "a2": _adjective,
    "adj": _pick("SHARED_ADJECTIVES"),
    "a_adj": lambda writer: with_article(_pick("SHARED_ADJECTIVES")(writer)),
    "a_Adj": lambda writer: _capital(with_article(_pick("SHARED_ADJECTIVES")(writer))),
    "s": _pick("SHARED_NOUNS"),
    "sv": _pick("SHARED_VERBS"),
    "svd": lambda writer: past_tense(_pick("SHARED_VERBS")(writer)),
    "adv": _pick("SHARED_ADVERBS"),
    "time": lambda writer: _lower_first(_time(writer)),
    "Time": _time,
    "day": _pick("DAYS"),
    "month": _pick("MONTHS"),
    "year": lambda writer: str(writer.rng.randrange(1890, 2015)),
    "year2": lambda writer: str(writer.rng.randrange(2015, 2031)),
    "number": lambda writer: writer.rng.choice(
        ("two", "three", "four", "five", "six", "seven", "ten", "twelve", "20", "30")
    ),
    "number2": lambda writer: writer.rng.choice(("two", "three", "four", "eight", "15", "40")),
    "big": lambda writer: f"{writer.rng.randrange(2, 90)},{writer.rng.randrange(0, 10)}00",
    "percent": lambda writer: str(writer.rng.randrange(5, 95)),
    "quote": lambda writer: writer._fill(writer.rng.choice(_QUOTES)),
}
