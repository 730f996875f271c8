"""The guides that a recipe asks for: regular expressions, lexicons, a phrase pool and noun phrases."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from rexbert_hf.catalog import load_sample, read_records
from rexbert_hf.phrases import Guide, LexiconGuide, NounPhraseGuide, PhraseGuide, PhrasePool, RegexGuide
from rexbert_hf.pretraining.settings import GuideSettings

logger = logging.getLogger(__name__)

_HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+$")


def make_guides(settings: GuideSettings, data_dir: str | None = None) -> list[Guide]:
    """The guides that a recipe asks for.

    Args:
        settings: which.
        data_dir: relative paths of lexicons and pools start here.

    Raises:
        FileNotFoundError: if a lexicon or pool does not exist.
        ValueError: if a lexicon is empty, a pool is none, or spaCy is asked for and not there.
    """
    guides: list[Guide] = []
    if settings.regex:
        guides.append(RegexGuide(tuple(settings.regex)))
    if settings.sample_lexicons:
        guides += LexiconGuide.from_products(load_sample("products"))
    for kind, path in (("brand", settings.brands), ("type", settings.types)):
        if path is None:
            continue
        with _named(f"guides.{kind}s"):
            terms = read_records(os.path.join(data_dir or "", path), format="text")["text"]
            guides.append(LexiconGuide(list(terms), kind))
    return guides + _phrase_guides(settings, data_dir)


def _phrase_guides(settings: GuideSettings, data_dir: str | None) -> list[Guide]:
    if settings.phrases is not None:
        with _named("guides.phrases"):
            pool = load_pool(settings.phrases, data_dir)
        logger.info("%s: %r", settings.phrases, pool)
        with _named("guides"):
            return [
                PhraseGuide(
                    pool,
                    noun_phrases=settings.noun_phrases,
                    min_phrases=settings.min_phrases,
                    min_share=settings.min_phrase_share,
                )
            ]
    if settings.noun_phrases in ("spacy", "light"):
        with _named("guides.noun_phrases"):
            return [NounPhraseGuide(settings.noun_phrases)]
    return []


def load_pool(path: str, data_dir: str | None = None) -> PhrasePool:
    """Read a pool: a folder that `PhrasePool.save` wrote, a score file of AutoPhrase, or a data set on the Hub.

    Args:
        path: which; what does not exist as a file or folder is a name on the Hub.
        data_dir: relative paths start here.

    Raises:
        FileNotFoundError: if there is nothing of that name.
        ValueError: if it is no pool.
    """
    local = os.path.join(data_dir or "", os.path.expanduser(path))
    if os.path.isdir(local):
        return PhrasePool.load(local)
    if os.path.isfile(local):
        if local.endswith(".parquet"):
            raise ValueError(f"{local}: give the pool's folder, not its file")
        return PhrasePool.from_autophrase(local)
    if not _HUB_NAME.match(path):
        raise FileNotFoundError(f"no folder, file or data set on the Hub ('user/name') is called {path}")
    return PhrasePool.load(path)


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Put the key of the recipe before what went wrong."""
    try:
        yield
    except (OSError, ValueError) as error:
        kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
        raise kind(f"{key}: {error}") from error
