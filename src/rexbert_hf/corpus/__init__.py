"""From a web crawl to a domain corpus: select, sample, label, audit, distil, filter, build (RexBERT, Ecom-niverse)."""

from __future__ import annotations

from .stages import StageReport, finished, stage_key

__all__ = ["StageReport", "finished", "stage_key"]
