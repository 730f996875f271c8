"""Product search: training pairs, bi-encoders and their losses, distillation, indexes.

Names are loaded when they are first used, because the parts need different packages (faiss, onnxruntime, ...).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

# One line a name, sorted by module: name -> module of this room.
_LAZY = {
    "BiEncoderSettings": "training.biencoder",
    "load_biencoder": "training.biencoder",
    "DistilSettings": "training.distil_settings",
    "distil_search": "training.distil",
    "DSSM": "training.dssm",
    "EmbeddingCache": "serving.embedding_cache",
    "encode_flat": "serving.encoding",
    "SearchEvaluator": "training.evaluator",
    "QuerySplit": "pairs.events",
    "count_events": "pairs.events",
    "FinetuneSettings": "training.finetune_settings",
    "finetune_search": "training.finetune",
    "ChooseRun": "training.grid_choice",
    "choose_submodel": "training.grid_choice",
    "GridEvaluator": "training.grid_evaluator",
    "GridLoss": "training.grid_losses",
    "GridSettings": "training.grid_settings",
    "cut_biencoder": "training.grid_submodel",
    "HashingEncoder": "serving.hashing_encoder",
    "ProductIndex": "serving.index",
    "IndexOptions": "serving.index_options",
    "BuildIndexRun": "serving.index_recipe",
    "run_build_index": "serving.index_recipe",
    "MaskedRankingLoss": "training.losses",
    "ThreePartHingeLoss": "training.losses",
    "OnnxEncoder": "serving.onnx_encoder",
    "export_onnx": "serving.onnx_export",
    "ExportOnnxRun": "serving.onnx_recipe",
    "run_export_onnx": "serving.onnx_recipe",
    "load_pairs": "pairs.files",
    "BuildPairsRun": "pairs.settings",
    "Ratio": "pairs.draw",
    "draw_pairs": "pairs.draw",
    "build_pairs": "pairs.run",
    "QdrantIndex": "serving.qdrant_index",
    "run_qpi": "training.qpi",
    "QPISettings": "training.qpi_settings",
    "RerankerSettings": "training.reranker",
    "finetune_reranker": "training.reranker",
    "SearchData": "training.search_data",
    "SearchDataSettings": "training.search_data",
    "load_search_data": "training.search_data",
    "Rule": "pairs.weak",
    "audit_pairs": "pairs.weak",
    "label_weakly": "pairs.weak",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


__all__ = list(_LAZY)
