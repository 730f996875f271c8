"""English words that join others and name nothing themselves, by what they say of their neighbours.

A phrase seldom begins or ends with one, and what stands beside one is often a whole phrase: "the hard drive is".
In text of other languages they hardly occur, and the features that need no list carry the scores alone.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


DETERMINERS = _words("""
    a an the this that these those my your his her its our their every each any some no another all both which what
    whose such other own either neither one
""")
"""What stands before a noun phrase."""

VERBAL = _words("""
    i you he she we they it to not can could will would shall should may might must do does did don't doesn't didn't
    can't couldn't won't wouldn't i'm i've i'd i'll you'll it's that's there's you're they're we're who please never
    just always also let let's cannot dont didnt doesnt cant wont im ive isn't wasn't aren't
""")
"""What stands before a verb."""

COPULAS = _words("""
    is are was were be been being am has have had having does comes came works worked looks looked feels felt
""")
"""What follows a subject."""

DEGREES = _words("very so too more most less least quite really pretty extremely super much even as")
"""What stands before an adjective or adverb."""

LINKS = _words("""
    of in on at by for with from into onto over under about after before between through during without within against
    around near off out up down than like per via and or but nor if then because while when where how why though
    although since until unless whether so yet once there here
""")
"""Prepositions and conjunctions."""

OTHERS = _words("""
    only still again ever now well however me him us them myself itself themselves many few lot lots someone something
    anything nothing everything everyone get got getting go goes going went come make makes made say said says etc s t
    re ve ll d m
""")
"""The rest: adverbs, pronouns as objects, light verbs, pieces of contractions."""

FUNCTION_WORDS = DETERMINERS | VERBAL | COPULAS | DEGREES | LINKS | OTHERS
"""All of them."""

CLASSES: dict[str, frozenset[str]] = {
    "determiner": DETERMINERS,
    "verbal": VERBAL,
    "copula": COPULAS,
    "degree": DEGREES,
    "link": LINKS | OTHERS,
}
"""Classes that neighbours are counted by; a word of two classes counts in each."""
