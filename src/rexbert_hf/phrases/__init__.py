"""Guides: what in a text is worth predicting. Later also the mined phrase pool and its matcher."""

from __future__ import annotations

from rexbert_hf.phrases.guides import Guide, GuideSet, Span
from rexbert_hf.phrases.idf import InverseDocumentFrequency
from rexbert_hf.phrases.lexicon_guide import LexiconGuide
from rexbert_hf.phrases.matcher import Matches, PhraseMatcher
from rexbert_hf.phrases.regex_guide import RegexGuide

__all__ = [
    "Guide",
    "GuideSet",
    "InverseDocumentFrequency",
    "LexiconGuide",
    "Matches",
    "PhraseMatcher",
    "RegexGuide",
    "Span",
]
