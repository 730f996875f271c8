"""From a web crawl to a domain corpus: select, sample, label, audit, distil, filter, build (RexBERT, Ecom-niverse)."""

from __future__ import annotations

from .document_files import SCHEMA, parquet_files, read_parquet, write_documents
from .documents import Document, DocumentSource, read_documents, sources_key, text_id
from .stages import StageReport, finished, stage_key

__all__ = [
    "SCHEMA",
    "Document",
    "DocumentSource",
    "StageReport",
    "finished",
    "parquet_files",
    "read_documents",
    "read_parquet",
    "sources_key",
    "stage_key",
    "text_id",
    "write_documents",
]
