"""How often each language is seen: in proportion to its size to the power of a temperature, as mmBERT and XLM-R sample.

p_l = n_l ** tau / sum of n_k ** tau: 1 keeps the sizes, 0 makes all languages equal. mmBERT lowers tau from phase to
phase (.7, .5, .3), so that small languages come late, when the model can make the most of them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from transformers import PreTrainedTokenizerBase

UNKNOWN = "und"
"""The code of text whose language nobody told (BCP 47)."""
_CODE = re.compile(r"[A-Za-z]{2,8}(?:[-_][A-Za-z0-9]{1,8})*")
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")
_TEXTS = 1_000


def check_language(code: str) -> str:
    """The code itself, if it can be one.

    Args:
        code: as "en" or "zh-Hans".

    Raises:
        ValueError: if it cannot.

    Example:
        >>> check_language("zh-Hans")
        'zh-Hans'
    """
    if not _CODE.fullmatch(code):
        raise ValueError(f"{code!r} is no language: give a code such as en or zh-Hans")
    return code


def language_shares(sizes: Mapping[str, float], temperature: float) -> dict[str, float]:
    """Share of each language; one without text has none, whatever the temperature.

    Args:
        sizes: tokens (or characters) of each language.
        temperature: the exponent, at least 0.

    Raises:
        ValueError: if no language has text, a size is negative, or the temperature is.

    Example:
        >>> language_shares({"en": 900, "id": 100}, 0.5)
        {'en': 0.75, 'id': 0.25}
    """
    if temperature < 0:
        raise ValueError(f"temperature must be at least 0; got {temperature:g}")
    if min(sizes.values(), default=0) < 0 or not any(sizes.values()):
        raise ValueError(f"languages need text: sizes are {dict(sizes)}")
    largest = max(sizes.values())  # relative to it no power is too large to be a number
    powers = {name: (size / largest) ** temperature if size else 0.0 for name, size in sizes.items()}
    total = sum(powers.values())
    return {name: power / total for name, power in powers.items()}


def balanced_texts(texts: Mapping[str, Sequence[str]], temperature: float) -> Iterator[str]:
    """Texts of all languages, each with its share of the characters; small languages repeat, large ones are thinned.

    Texts of a language are taken at even distances, so equal inputs give equal texts in equal order.

    Args:
        texts: of each language.
        temperature: as in `language_shares`.

    Raises:
        ValueError: if no language has text.

    Example:
        >>> texts = {"en": ["abcd"] * 9, "id": ["efgh"]}
        >>> list(balanced_texts(texts, 0.0)).count("efgh")
        5
    """
    sizes = {name: sum(map(len, parts)) for name, parts in texts.items()}
    total = sum(sizes.values())
    for name, share in language_shares(sizes, temperature).items():
        if not share:
            continue
        times = share * total / sizes[name]
        count = max(1, round(times * len(texts[name])))
        for number in range(count):
            yield texts[name][int(number / times) % len(texts[name])]


def fertility(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> dict[str, float | None]:
    """How many tokens a tokenizer makes of a language: a character, a byte, a word; and the share it does not know.

    Args:
        tokenizer: any fast tokenizer.
        texts: held-out texts of one language.

    Returns:
        `tokens_per_character`, `bytes_per_token`, `tokens_per_word` (words are what spaces divide; None for scripts
        without spaces) and `unknown_share` of the tokens.

    Raises:
        ValueError: if there is no text.

    Example:
        >>> from rexbert_hf.data.vocabulary import train_tokenizer
        >>> found = fertility(train_tokenizer(["red lamp"] * 3, vocab_size=384), ["red lamp lamp"])
        >>> found["tokens_per_word"], found["unknown_share"]
        (1.0, 0.0)
    """
    tokens = unknown = 0
    for first in range(0, len(texts), _TEXTS):
        batch = list(texts[first : first + _TEXTS])
        for ids in tokenizer(batch, add_special_tokens=False)["input_ids"]:
            tokens += len(ids)
            unknown += ids.count(tokenizer.unk_token_id)
    characters = sum(map(len, texts))
    if not tokens or not characters:
        raise ValueError("fertility needs text; the texts are empty")
    words = sum(len(text.split()) for text in texts)
    return {
        "tokens_per_character": tokens / characters,
        "bytes_per_token": sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) / tokens,
        "tokens_per_word": None if _spaceless(texts) else tokens / max(words, 1),
        "unknown_share": unknown / tokens,
    }


def _spaceless(texts: Sequence[str]) -> bool:
    """Whether most letters belong to scripts that write no spaces between words."""
    letters = [c for text in texts[:_TEXTS] for c in text[:_TEXTS] if c.isalpha() and not c.isascii()]
    spaceless = sum(unicodedata.name(c, "").startswith(_WITHOUT_SPACES) for c in letters)
    ascii_letters = sum(c.isalpha() and c.isascii() for text in texts[:_TEXTS] for c in text[:_TEXTS])
    return 2 * spaceless > len(letters) + ascii_letters
