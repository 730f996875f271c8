"""From a web crawl to a domain corpus: select, sample, label, audit, distil, filter, build (RexBERT, Ecom-niverse)."""

from __future__ import annotations

from .audit import AuditSettings, audit
from .builder import EcomNiverse
from .distil import DistilSettings, distil
from .document_files import SCHEMA, parquet_files, read_parquet, write_documents
from .documents import Document, DocumentSource, read_documents, sources_key, text_id
from .duplicates import duplicates_of
from .ecommerce import ECOMMERCE
from .fasttext_model import FastTextClassifier
from .fasttext_train import FastTextOptions
from .filtering import filter_corpus
from .judging import FilterSettings, Judge
from .label import LabelSettings, label, make_labeller
from .labels import Failure, Label, Labeller, read_labels
from .language import LanguageSettings, detect_languages
from .llm_client import EndpointSettings
from .llm_labeller import LLMLabeller
from .loading import load_corpus
from .near_duplicates import NearDuplicateSettings, minhash
from .normalise import Normaliser, normalise_texts
from .offline_labellers import KeywordLabeller, ReadyLabels, ReadySettings
from .publish import push_corpus
from .quality import QualitySettings, quality_reasons
from .sample import SampleSettings, picked_domains, sample
from .select import SelectSettings, select
from .stages import StageReport, finished, stage_key
from .thresholds import Sweep, sweep
from .vertical import Example, Vertical

__all__ = [
    "ECOMMERCE",
    "SCHEMA",
    "AuditSettings",
    "DistilSettings",
    "Document",
    "DocumentSource",
    "EcomNiverse",
    "EndpointSettings",
    "Example",
    "Failure",
    "FastTextClassifier",
    "FastTextOptions",
    "FilterSettings",
    "Judge",
    "KeywordLabeller",
    "LLMLabeller",
    "Label",
    "LabelSettings",
    "Labeller",
    "LanguageSettings",
    "NearDuplicateSettings",
    "Normaliser",
    "QualitySettings",
    "ReadyLabels",
    "ReadySettings",
    "SampleSettings",
    "SelectSettings",
    "StageReport",
    "Sweep",
    "Vertical",
    "audit",
    "detect_languages",
    "distil",
    "duplicates_of",
    "filter_corpus",
    "finished",
    "label",
    "load_corpus",
    "make_labeller",
    "minhash",
    "normalise_texts",
    "parquet_files",
    "picked_domains",
    "push_corpus",
    "quality_reasons",
    "read_documents",
    "read_labels",
    "read_parquet",
    "sample",
    "select",
    "sources_key",
    "stage_key",
    "sweep",
    "text_id",
    "write_documents",
]
