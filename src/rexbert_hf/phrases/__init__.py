"""Guides: what in a text is worth predicting. The mined phrase pool and its matcher."""

from __future__ import annotations

from rexbert_hf.phrases.guides import Guide, GuideSet, Span
from rexbert_hf.phrases.idf import InverseDocumentFrequency
from rexbert_hf.phrases.lexicon_guide import LexiconGuide
from rexbert_hf.phrases.matcher import Matches, PhraseMatcher
from rexbert_hf.phrases.mining import MiningOptions
from rexbert_hf.phrases.noun_phrases import NounPhraseFinder
from rexbert_hf.phrases.phrase_guide import NounPhraseGuide, PhraseGuide
from rexbert_hf.phrases.pool import PhrasePool
from rexbert_hf.phrases.pool_card import Overlap, noun_phrase_overlap
from rexbert_hf.phrases.regex_guide import RegexGuide

__all__ = [
    "Guide",
    "GuideSet",
    "InverseDocumentFrequency",
    "LexiconGuide",
    "Matches",
    "MiningOptions",
    "NounPhraseFinder",
    "NounPhraseGuide",
    "Overlap",
    "PhraseGuide",
    "PhraseMatcher",
    "PhrasePool",
    "RegexGuide",
    "Span",
    "noun_phrase_overlap",
]
