"""A source in several languages, divided into one set of documents a language.

Rows that do not say their language, and texts that give no evidence of it, become the language "und": nothing is lost.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

import numpy as np
from datasets import Dataset

from rexbert_hf.corpus.language import detect_languages
from rexbert_hf.data.languages import UNKNOWN, check_language
from rexbert_hf.pretraining.source_settings import DETECT, SourceSettings

logger = logging.getLogger(__name__)

_ROWS = 1_000
_FEW = 20
"""A language found in fewer documents is more likely a mistake of the detection than a language of the source."""


def split_languages(name: str, source: SourceSettings, documents: Dataset) -> dict[str, Dataset]:
    """The documents of a source by language, in the order of their codes.

    Args:
        name: of the source.
        source: its settings.
        documents: with `text`, and `language` where the source's columns name it.

    Raises:
        ValueError: if a row's language is no code.

    Example:
        >>> documents = Dataset.from_dict({"text": ["mug", "taza", "cup"], "language": ["en", "es", "en"]})
        >>> columns = {"text": "text", "language": "language"}
        >>> parts = split_languages("shop", SourceSettings(path="x.csv", columns=columns), documents)
        >>> {code: part["text"][:] for code, part in parts.items()}
        {'en': ['mug', 'cup'], 'es': ['taza']}
    """
    known: dict[str, int] = {}
    numbers = np.empty(len(documents), dtype=np.int32)
    for row, code in enumerate(_codes(name, source, documents)):
        numbers[row] = known.setdefault(code, len(known))
    counts = Counter({code: int((numbers == number).sum()) for code, number in known.items()})
    rare = [code for code, count in counts.items() if source.language == DETECT and count < _FEW and code != UNKNOWN]
    if rare:
        numbers[np.isin(numbers, [known[code] for code in rare])] = known.setdefault(UNKNOWN, len(known))
        counts[UNKNOWN] += sum(counts.pop(code) for code in rare)
    if UNKNOWN in counts:
        said = "gives little evidence of its language" if source.language == DETECT else "does not say its language"
        logger.warning("source '%s': text that %s (%d documents) counts as '%s'", name, said, counts[UNKNOWN], UNKNOWN)
    shown = ", ".join(f"{code} {count}" for code, count in counts.most_common(20))
    logger.info("source %s: %d languages, documents: %s", name, len(counts), shown)
    return {code: documents.select(np.flatnonzero(numbers == known[code])) for code in sorted(counts)}


def _codes(name: str, source: SourceSettings, documents: Dataset) -> Iterator[str]:
    column = "text" if source.language == DETECT else "language"
    row = 0
    for batch in documents.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS):
        values = batch[column].to_pylist()
        if source.language == DETECT:
            values = detect_languages(values)[0]
        for value in values:
            code = str(value).strip() if value is not None else ""
            try:
                yield check_language(code) if code else UNKNOWN
            except ValueError as error:
                raise ValueError(f"source '{name}', row {row}: column 'language': {error}") from None
            row += 1
