"""Which language a text is in, offline: by its script, and for Latin letters by the little words of a language.

One decision worth knowing: a text that gives no evidence (titles and lists of specifications have no little words) is
"und", undetermined, and is not taken for a foreign one, unless it is long and has letters that the wanted languages
lack: so Czech, Finnish and Hungarian go where English is wanted. Where that is not enough, a fastText language model
(as lid.176) can be given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rexbert_hf.settings.ranges import check_share

UNKNOWN = "und"

_LITTLE_WORDS = {
    "en": "the and of to is in it that for with was this on are you have not be as but they from or had at we an "
    "been has were which will would there their what when who your my all can if out one about so his her she "
    "he a i do no me",
    "de": "der die das und ist nicht ein eine zu mit den von auf f\u00fcr sich auch es im dem wird an als sind wie "
    "ich aus bei oder nach nur noch aber man kann sehr wenn werden haben hat war habe mich mir sie wir zum "
    "zur \u00fcber",
    "fr": "le la les et est des une du que pour dans pas qui sur au avec ce il je ne se plus mais nous vous sont "
    "cette ou elle aux par ont tr\u00e8s c'est j'ai ses son leur tout bien comme fait \u00eatre",
    "es": "el la los las y es que en un una por para con no se del al lo como m\u00e1s pero su muy me ha este esta "
    "son mi sus fue hay todo cuando tiene si ya porque est\u00e1 sin sobre",
    "it": "il la che di e \u00e8 un una per non con del della sono ho mi si come pi\u00f9 ma questo anche molto nel "
    "lo gli dei alla al da ha le i questa solo stato perch\u00e9 prodotto",
    "pt": "o a os as e que de do da em um uma para n\u00e3o com por mais se na no mas como muito foi \u00e9 ao "
    "s\u00e3o eu meu minha tem esse isso ele j\u00e1 dos das produto",
    "nl": "de het een en van is niet dat op te voor met zijn er aan ook maar als bij dit die was heeft wel naar dan "
    "nog goed ik wij uit zeer door",
    "id": "yang dan di untuk dengan tidak ini itu dari ada saya nya tapi sudah juga bisa karena barang sangat lebih "
    "akan pada tdk yg kurang sesuai bagus cepat dalam banget",
    "vi": "v\u00e0 l\u00e0 kh\u00f4ng c\u00f3 c\u1ee7a cho m\u00e1y nh\u01b0ng \u0111\u01b0\u1ee3c m\u00ecnh "
    "n\u00e0y th\u00ec r\u1ea5t d\u00f9ng mua h\u01a1n m\u1ed9t v\u1edbi \u0111\u00e3 c\u0169ng h\u00e0ng",
    "pl": "nie jest to na si\u0119 z do w i jak ale za po co tak od dla tylko przez bardzo ju\u017c czy ma mo\u017cna",
    "sv": "och att det som en \u00e4r p\u00e5 av f\u00f6r med inte den har jag till ett om men var kan mycket "
    "fr\u00e5n",
    "tr": "ve bir bu \u00e7ok i\u00e7in ile de da ama ne daha gibi kadar olarak var g\u00fczel \u00fcr\u00fcn ben",
}
_SCRIPTS = (
    ("ja", "[\u3040-\u30ff]"),
    ("ko", "[\u1100-\u11ff\uac00-\ud7af]"),
    ("zh", "[\u4e00-\u9fff]"),
    ("ru", "[\u0400-\u04ff]"),
    ("ar", "[\u0600-\u06ff]"),
    ("hi", "[\u0900-\u097f]"),
    ("th", "[\u0e00-\u0e7f]"),
    ("el", "[\u0370-\u03ff]"),
    ("he", "[\u0590-\u05ff]"),
)
_PATTERNS = [(language, re.compile(pattern)) for language, pattern in _SCRIPTS]
_ANY_SCRIPT = re.compile(
    "[\u0370-\u06ff\u0900-\u097f\u0e00-\u0e7f\u1100-\u11ff\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7af]"
)
_OF_WORD = {
    word: [language for language, words in _LITTLE_WORDS.items() if word in words.split()]
    for words in _LITTLE_WORDS.values()
    for word in words.split()
}
_WORDS_READ, _CHARS_READ = 200, 2_000
_EVIDENCE, _EVIDENCE_SHARE = 2.0, 0.08
"""So many little words, and so many of all words, are the least that a language shows itself by."""

_ASCII_LANGUAGES = frozenset(("en", "id", "nl"))
_LONG_WORDS, _FOREIGN_LETTERS = 25, 0.02
"""A text of so many words, of whose letters more than this share is not ASCII, is in none of those languages."""

_STRIPPED = ".,;:!?()\"'"

LANGUAGES = (*_LITTLE_WORDS, *(language for language, _ in _SCRIPTS))
"""What `detect_languages` tells apart without a model."""


@dataclass(frozen=True)
class LanguageSettings:
    """Which languages are wanted.

    Attributes:
        keep: codes as "en"; empty for all.
        keep_unknown: keep texts that give no evidence, such as titles; of a model, short ones below `min_share`.
        min_share: share of the evidence that the language must have.
        model: path of a fastText language model (`lid.176.ftz`), instead of scripts and little words.

    Raises:
        ValueError: for a language that cannot be told without a model.
    """

    keep: tuple[str, ...] = ()
    keep_unknown: bool = True
    min_share: float = 0.5
    model: str | None = None

    def __post_init__(self) -> None:
        if not self.model and (unknown := [code for code in self.keep if code not in LANGUAGES]):
            raise ValueError(f"{', '.join(unknown)} needs a model; without one: {', '.join(LANGUAGES)}")
        check_share(self, "min_share")


def detect_languages(texts: Sequence[str], model: str | Path | None = None) -> tuple[list[str], np.ndarray]:
    """The likeliest language of each text, and its share of the evidence.

    Args:
        texts: documents; the first 200 words count.
        model: a fastText language model, instead.

    Returns:
        Codes ("und" where nothing tells) and shares, float32 `[N]`.

    Raises:
        FileNotFoundError: if the model is not there.
        ValueError: if it is no fastText model.

    Example:
        >>> detect_languages(["This is the best of them", "Das ist nicht der Tisch", "Ostwick mug 0.5 l"])[0]
        ['en', 'de', 'und']
    """
    if model is not None:
        return _by_model(texts, str(model))
    found = [_by_words(text[:_CHARS_READ]) for text in texts]
    return [code for code, _ in found], np.array([share for _, share in found], dtype=np.float32)


def language_reasons(texts: Sequence[str], settings: LanguageSettings) -> list[str]:
    """Name the reason "language" for each text in a language that is not wanted, "" for the others.

    Args:
        texts: documents.
        settings: what is wanted.
    """
    if not settings.keep:
        return [""] * len(texts)
    keep = set(settings.keep)

    def is_wanted(text: str, code: str, share: float) -> bool:
        if code in keep and share >= settings.min_share:
            return True
        if not settings.keep_unknown:
            return False
        if settings.model is not None:
            return share < settings.min_share and _is_short(text)
        return code == UNKNOWN and not (keep <= _ASCII_LANGUAGES and _is_foreign(text))

    found = zip(texts, *detect_languages(texts, settings.model), strict=True)
    return ["" if is_wanted(*one) else "language" for one in found]


def _is_short(text: str) -> bool:
    return len(text.split(None, _LONG_WORDS)) < _LONG_WORDS


def _is_foreign(text: str) -> bool:
    """Whether a text without evidence has many letters that English has not."""
    text = text[:_CHARS_READ]
    if text.isascii() or _is_short(text):
        return False
    letters = [char for char in text if char.isalpha()]
    return sum(not char.isascii() for char in letters) > _FOREIGN_LETTERS * len(letters)


def _by_words(text: str) -> tuple[str, float]:
    if not text.isascii() and _ANY_SCRIPT.search(text):
        letters = sum(map(str.isalpha, text)) or 1
        counts = {language: len(pattern.findall(text)) for language, pattern in _PATTERNS}
        if counts["ja"] > 0.05 * (counts["ja"] + counts["zh"]):
            counts["ja"] += counts.pop("zh")  # Japanese is written with Chinese characters too
        language = max(counts, key=lambda code: counts[code])
        if counts[language] > 0.3 * letters:
            return language, min(1.0, counts[language] / letters)
    evidence: dict[str, float] = {}
    total = 0.0
    words = text.lower().split(None, _WORDS_READ)[:_WORDS_READ]
    for word in words:
        languages = _OF_WORD.get(word) or _OF_WORD.get(word.strip(_STRIPPED), [])
        if languages:
            total += 1.0
            for language in languages:
                evidence[language] = evidence.get(language, 0.0) + 1.0 / len(languages)
    if not evidence:
        return UNKNOWN, 0.0
    language = max(evidence, key=lambda code: evidence[code])
    if evidence[language] < max(_EVIDENCE, _EVIDENCE_SHARE * len(words)):
        return UNKNOWN, 0.0
    return language, evidence[language] / total


_MODELS: dict[str, object] = {}


def _by_model(texts: Sequence[str], path: str) -> tuple[list[str], np.ndarray]:
    from .fasttext_file import predict_lines, read_layout
    from .fasttext_train import PREFIX, fasttext_module

    if path not in _MODELS:
        read_layout(path)
        _MODELS[path] = fasttext_module().load_model(path)
    lines = [" ".join(text[:_CHARS_READ].split()) for text in texts]
    labels, shares = predict_lines(_MODELS[path], path, lines, 1)
    codes = [found[0].removeprefix(PREFIX) if found else UNKNOWN for found in labels]
    return codes, np.array([share[0] if len(share) else 0.0 for share in shares], dtype=np.float32).clip(0, 1)
