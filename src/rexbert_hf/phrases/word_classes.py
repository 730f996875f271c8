"""A guess at what an English word does in its sentence, from closed lists and its ending, without a model.

Function words come from `function_words.py`; frequent verbs, adjectives and adverbs are listed here; endings decide of
the rest, and what no rule knows is a noun: in the text of shops most of it is.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rexbert_hf.phrases.function_words import COPULAS, DETERMINERS, FUNCTION_WORDS, VERBAL

OTHER, DETERMINER, SUBJECT, ADJECTIVE, NOUN, NUMBER, PAST, GERUND, VERB = range(9)
"""Classes. SUBJECT: pronouns and auxiliaries, after which a participle is a verb. VERB: a noun after an article."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_POSSESSIVE = _set("her his its my our their your")
_VERBS = _set(
    """accept add admire agree allow appear apply appreciate approve arrive ask assume attach avoid beat became become
    began begin begun believe belong bought break bring broke broken brought build built buy call came cancel
    care carry catch cause change charge charged charges check choose chose chosen claim clean close come comes
    compare complain connect consider contain contains continue cost costs count cover cracked create cut deal
    decide decided deliver delivered depend describe deserve did die died disappoint do does done drain drop
    dropped eat enjoy enjoyed ensure enter exceed exceeds exchange expect expected explain express fail failed
    fails fall feature features feel feels fell felt figure fill find fit fits fix fixed follow forget found
    gave get gets give given gives go goes gone got grew guess had handle happen happened hate have hear heard
    heat help helps hit hold holds hope hurt imagine improve include included includes install installed intend
    is issue jump keep keeps kept kill knew know known knows lack lacks last lasted lasts learn leave leaves
    left let lets like liked likes listen live lives load loads look looked looking looks lose loses lost love
    loved loves made make makes making manage matter mean means meant measure meet mention met mind miss missed
    missing move need needed needs notice noticed offer offers open opens order ordered own owned paid pay
    perform performs pick play plays plug point prefer prepare press prevent prevents produce produces protect
    protects prove provide provides pull purchase purchased push put puts ran rate reach read realize receive
    received recharge recommend recommended reduce refuse regret remain remember remove removed replace replaced
    require requires return returned returning run runs said sat save saves saw say says see seem seemed seems
    seen sell send sends sent serve set sets shake ship shipped show shows shut sit sits sold sound sounds speak
    spend spent stand stands start started starts stay stays stick stop stopped stops store stores struggle suck
    sucks suggest suit support supports suppose switch take taken takes talk taste tell tells test tested thank
    thanks think thought told took touch travel tried tries trust try trying turn turned turns understand
    understood update upgraded use used uses using wait waited walk want wanted wants warn was wash washed waste
    watch wear wears went were win wish wonder wore work worked working works worry would wrap write wrote"""
)
_ADJECTIVES = _set(
    """able amazing available awesome bad beautiful best better big black blue brand bright broad brown cheap clean
    clear cold comfortable compact complete cool cute damp dark deep different difficult double dry dual due
    durable easy elegant empty entire excellent expensive extra fair fast fine first flat free fresh friendly
    full gold golden good gorgeous gray great green grey half happy hard heavy high hot huge ideal large last
    late latest less light little long loose loud low main major mini minor modern multi narrow natural new next
    nice old only open orange original outdoor overall pale perfect pink plain poor portable possible premium
    pretty previous prime proper purple quick quiet rapid ready real rear red regular rich right rigid rough
    round sad safe same second separate several sharp shiny short silent silver simple single slight slim slow
    small smart smooth soft solid special square stable standard steep stiff straight strong stylish super sure
    sweet tall thick thin third tight tiny tough triple true typical ugly ultra unique upper usual warm weak
    weird wet white whole wide wireless wonderful worse worst worth wrong yellow young"""
)
_ADVERBS = _set(
    """ago almost alone already altogether anymore anyway anywhere apart aside away back besides both eight else enough
    especially everywhere far fast five forever four further hello hence hi indeed inside instead later long
    maybe moreover nearly nine no not often oh ok okay otherwise outside overall perhaps right seldom seven six
    somehow sometimes somewhat soon straight ten therefore three thus today together tomorrow tonight twice two
    unfortunately upon usually whenever wherever wow yes yesterday"""
)
# Endings that a noun or verb seldom has, and words that have them all the same.
_ADJECTIVE_ENDING = re.compile(r".{2,}(?:ous|ful|less|able|ible|ical|ish|ive|ary|est|proof|friendly|sized)$")
_NOT_ADJECTIVES = _set(
    """archive boundary breakfast cable chest debris diary dictionary dish drive finish fish five forest glove guest
    handful harvest hive interest library live nest olive polish radish request rest table test varnish
    vegetable vest west"""
)
_NOT_ADVERBS = _set("assembly belly butterfly family fly friendly italy jelly july monthly reply supply weekly")
_NOT_GERUNDS = _set(
    """anything bearing bedding building ceiling clothing coating cooling decking earring evening everything fitting
    flooring heating king lightning lining morning nothing painting rating ring roofing setting sibling
    something spring string thing tubing wedding wing wiring"""
)
_NOT_PAST = _set("bed bleed breed embed feed hundred indeed led need red reed seed shed sled speed thread weed")
_PLAIN_NUMBER = re.compile(r"[\d.,/]+$")


@lru_cache(maxsize=1 << 17)
def word_class(word: str) -> int:
    """Class of a lower-case word or symbol.

    Args:
        word: as the word splitter gives it.

    >>> [word_class(word) for word in ["the", "waterproof", "cable", "16gb", "12", "quickly", ","]]
    [1, 3, 4, 3, 5, 0, 0]
    """
    if word in DETERMINERS or word in _POSSESSIVE:
        return DETERMINER
    if word in VERBAL or word in COPULAS:
        return SUBJECT
    if word in _ADJECTIVES:
        return ADJECTIVE
    if word in FUNCTION_WORDS or word in _ADVERBS:
        return OTHER
    if word in _VERBS:
        return VERB
    return _by_form(word)


def _by_form(word: str) -> int:
    """Class of a word that no list knows."""
    if not word[:1].isalnum():
        return OTHER
    if _PLAIN_NUMBER.match(word):
        return NUMBER
    if any(char.isdigit() for char in word):
        return ADJECTIVE  # "16gb", "3m", "s21": they go before nouns.
    if not _is_latin(word) or (len(word) == 1 and word != "x"):
        return OTHER
    if word.endswith("'s"):
        return ADJECTIVE
    if word.endswith("ly") and word not in _NOT_ADVERBS:
        return OTHER
    if word.endswith("ing") and len(word) > 4 and word not in _NOT_GERUNDS:
        return GERUND
    if word.endswith("ed") and len(word) > 3 and word not in _NOT_PAST:
        return PAST
    if _ADJECTIVE_ENDING.match(word) and word not in _NOT_ADJECTIVES:
        return ADJECTIVE
    return NOUN


def _is_latin(word: str) -> bool:
    """Whether rules for English can say anything of a word: Latin letters up to U+024F."""
    return all(char < "\u0250" or not char.isalpha() for char in word)
