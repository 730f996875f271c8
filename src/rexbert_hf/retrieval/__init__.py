"""Product search: training pairs, bi-encoders and their losses, distillation, indexes.

Names are loaded when they are first used, because the parts need different packages (faiss, onnxruntime, ...).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# One line a name, sorted by module: name -> module of this room.
_LAZY = {
    "BiEncoderSettings": "biencoder",
    "load_biencoder": "biencoder",
    "DistilSettings": "distil_settings",
    "distil_search": "distil",
    "DSSM": "dssm",
    "EmbeddingCache": "embedding_cache",
    "encode_flat": "encoding",
    "SearchEvaluator": "evaluator",
    "QuerySplit": "events",
    "count_events": "events",
    "FinetuneSettings": "finetune_settings",
    "finetune_search": "finetune",
    "HashingEncoder": "hashing_encoder",
    "ProductIndex": "index",
    "IndexOptions": "index_options",
    "BuildIndexRun": "index_recipe",
    "run_build_index": "index_recipe",
    "MaskedRankingLoss": "losses",
    "ThreePartHingeLoss": "losses",
    "OnnxEncoder": "onnx_encoder",
    "export_onnx": "onnx_export",
    "ExportOnnxRun": "onnx_recipe",
    "run_export_onnx": "onnx_recipe",
    "load_pairs": "pair_files",
    "BuildPairsRun": "pair_settings",
    "Ratio": "pairs",
    "draw_pairs": "pairs",
    "build_pairs": "pairs_run",
    "QdrantIndex": "qdrant_index",
    "run_qpi": "qpi",
    "QPISettings": "qpi_settings",
    "RerankerSettings": "reranker",
    "finetune_reranker": "reranker",
    "SearchData": "search_data",
    "SearchDataSettings": "search_data",
    "load_search_data": "search_data",
    "Rule": "weak_pairs",
    "audit_pairs": "weak_pairs",
    "label_weakly": "weak_pairs",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = list(_LAZY)
