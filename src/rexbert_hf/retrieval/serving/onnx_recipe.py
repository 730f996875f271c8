"""What `recipes/export_onnx.py` does: export an encoder, then measure each precision beside torch.

Quality is measured as it is served: products encoded by torch, as an index holds them, queries by the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.push_files import push_files
from rexbert_hf.hub.readme import BEGIN, END
from rexbert_hf.retrieval.serving.exact import exact_search
from rexbert_hf.retrieval.serving.latency import measure_latency
from rexbert_hf.retrieval.serving.onnx_encoder import ENCODER_FILE, PRECISIONS, TOKENIZER_FILE, OnnxEncoder, read_export
from rexbert_hf.retrieval.serving.onnx_export import GRAPHS
from rexbert_hf.retrieval.serving.onnx_publish import STAGING, export_in_place
from rexbert_hf.retrieval.serving.query_model import encode, load_model, normalised
from rexbert_hf.retrieval.serving.vector_store import VectorStore
from rexbert_hf.retrieval.training.evaluator import (
    DEPTH,
    gain_name,
    search_metrics,
    searched_products,
    validation_queries,
)
from rexbert_hf.retrieval.training.learned_pairs import warn_of_sample_pairs
from rexbert_hf.retrieval.training.search_data import TEST, SearchData, SearchDataSettings, load_search_data
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least

TOP = 100
"""Hits that overlap with torch is measured at."""
SHOWN = ("recall@100", "judged@100", "condensed_recall@100", "ndcg@10", "judged@10", "condensed_ndcg@10")
"""Figures of each precision, judged shares and condensed lists beside them."""


@dataclass
class LatencySettings:
    """How latency is measured: one query at a time, one thread.

    Attributes:
        repeats: calls of each precision.
        torch: measure torch too.
    """

    repeats: int = 200
    torch: bool = True

    def __post_init__(self) -> None:
        check_least(self, repeats=1)


@dataclass
class ExportOnnxRun:
    """Export a sentence encoder to ONNX and measure it.

    Attributes:
        model: folder or Hub id of a sentence encoder; None makes an untrained student, of which only the latency means
            anything.
        output_dir: of the graphs, tokenizer, `onnx_encoder.py` and `run.json`.
        precisions: fp32, int8 or both.
        role: of a model with separate encoders, the one to export: query or document.
        fused: write attention as onnxruntime's own operators; without it other runtimes read the graph too.
        data: queries and products that quality is measured on.
        max_queries: test queries that are used, drawn at random.
        max_products: products of the catalogue that are used: all judged ones, others drawn at random; None uses all.
        latency: how it is measured.
        push_to_hub: "user/name".
        private: whether a new repository is private.
    """

    model: str | None = None
    output_dir: Path = Path("output/onnx")
    precisions: list[str] = field(default_factory=lambda: ["fp32", "int8"])
    role: str = "query"
    fused: bool = True
    data: SearchDataSettings = field(default_factory=SearchDataSettings)
    max_queries: int = 500
    max_products: int | None = 5000
    latency: LatencySettings = field(default_factory=LatencySettings)
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if not self.precisions or set(self.precisions) - set(PRECISIONS):
            raise ValueError(f"precisions: choose of {', '.join(PRECISIONS)}, at least one")
        if self.role not in ("query", "document"):
            raise ValueError(f"role {self.role!r}: query or document")
        check_least(self, max_queries=1, max_products=1)


@sole_run(f"{STAGING}*")
def run_export_onnx(run: ExportOnnxRun) -> dict[str, Any]:
    """Export, check, measure, push as the settings say; what was measured.

    Args:
        run: the settings.

    Raises:
        ValueError: if the folder holds another run or a model, or what `export_onnx` and the data raise.
    """
    own = [TOKENIZER_FILE] if (run.output_dir / ENCODER_FILE).is_file() else []  # of an export that was stopped
    check_own_folder(run.output_dir, "precisions", model=run.model, writes=own)
    run.output_dir.mkdir(parents=True, exist_ok=True)
    warn_of_sample_pairs(run.model, run.data)
    data = load_search_data(run.data)
    model: Any = _untrained(data) if run.model is None else load_model(run.model)
    numbers = validation_queries(data, run.max_queries, TEST)
    queries = [data.queries[i] for i in numbers] or data.queries[: run.max_queries]
    found = export_in_place(model, run.output_dir, tuple(run.precisions), run.role, queries, run.model, run.fused)
    encoders = {precision: OnnxEncoder(run.output_dir, precision) for precision in run.precisions}
    results: dict[str, Any] = {
        "queries": len(queries),
        "difference": {precision: asdict(far) for precision, far in found.items()},
        "bytes": {p: (run.output_dir / GRAPHS[p]).stat().st_size for p in encoders},
        "latency_ms": _latencies(run, model, encoders, queries),
    }
    if run.role == "query" and len(numbers):
        results["quality"] = _quality(run, model, encoders, data, numbers)
    write_run(run.output_dir, config=to_dict(run), results=results)  # before the push, which may fail
    if run.push_to_hub:
        results["url"] = push_onnx(run.output_dir, run.push_to_hub, run.model, results, private=run.private)
        write_run(run.output_dir, config=to_dict(run), results=results)
    return results


def _untrained(data: SearchData) -> Any:
    from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder

    return load_biencoder(BiEncoderSettings(preset="student", vocab_size=4096), [*data.texts, *data.queries])


def _latencies(run: ExportOnnxRun, model: Any, encoders: dict[str, OnnxEncoder], queries: list[str]) -> dict[str, Any]:
    """Median and 99th percentile of one query at a time, tokenising included, in milliseconds."""
    import torch

    method = f"encode_{run.role}"
    calls: dict[str, Any] = {name: getattr(encoder, method) for name, encoder in encoders.items()}
    if run.latency.torch:
        calls["torch"] = lambda texts: getattr(model, method)(texts, show_progress_bar=False)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = {
            name: measure_latency(partial(_one, call), queries, run.latency.repeats) for name, call in calls.items()
        }
    finally:
        torch.set_num_threads(threads)
    return {name: asdict(latency) for name, latency in found.items()}


def _one(call: Callable[[list[str]], Any], text: str) -> Any:
    return call([text])


def _quality(
    run: ExportOnnxRun, model: Any, encoders: dict[str, OnnxEncoder], data: SearchData, numbers: np.ndarray
) -> dict[str, Any]:
    """Figures of each precision, the points of R@100 that it loses, and the overlap of its hits with torch's."""
    judged = data.judged.select(numbers)
    chosen = searched_products(data, judged, run.max_products)
    store = VectorStore(0)
    store.append(normalised(encode(model, [data.texts[i] for i in chosen], "document")))
    queries = [data.queries[i] for i in numbers]
    vectors = {"torch": encode(model, queries, "query")}
    vectors |= {name: encoder.encode_query(queries) for name, encoder in encoders.items()}
    quality: dict[str, Any] = {"products": len(chosen), "ndcg_gain": gain_name(judged)}
    reference: np.ndarray | None = None
    for name, found in vectors.items():
        ranked = exact_search(store, normalised(found), min(DEPTH, len(chosen)))[1]
        values = search_metrics(chosen[ranked], judged, data.relevant)
        figures = {figure.replace("@", "_at_"): float(np.nanmean(values[figure])) for figure in SHOWN}
        rows = ranked[:, :TOP]
        reference = rows if reference is None else reference
        overlap = [
            len(np.intersect1d(mine, theirs)) / rows.shape[1] for mine, theirs in zip(rows, reference, strict=True)
        ]
        quality[name] = {**figures, "overlap_with_torch": float(np.mean(overlap))}
        quality[name]["points_lost"] = 100 * (quality["torch"]["recall_at_100"] - figures["recall_at_100"])
    return quality


def push_onnx(
    folder: Path, repo_id: str, source: str | None, results: dict[str, Any], private: bool | None = None, **options: Any
) -> str:
    """Push an export in one commit, with a card that shows what was measured.

    Args:
        folder: of the export.
        repo_id: "user/name"; made when missing.
        source: the model that was exported.
        results: what `run_export_onnx` measured.
        private: whether a new repository is private.
        options: of `push_files`.
    """
    facts = read_export(folder)
    names = (*facts["graphs"].values(), "tokenizer.json", "encoder.json", "onnx_encoder.py")
    files = {name: folder / name for name in names}
    metadata = ["tags: [rexbert, e-commerce, onnx, sentence-similarity]"]
    if source and source.count("/") == 1 and not Path(source).exists():
        metadata.append(f"base_model: {source}")
    rows = ["| | p50 ms | p99 ms | cosine to torch |", "|---|---|---|---|"]
    for name, latency in results["latency_ms"].items():
        cosine = results["difference"].get(name, {}).get("mean_cosine")
        rows.append(
            f"| {name} | {latency['p50']:.2f} | {latency['p99']:.2f} | {'' if cosine is None else f'{cosine:.4f}'} |"
        )
    body = [BEGIN, f"# {repo_id.rsplit('/', 1)[-1]}", "", "A sentence encoder for onnxruntime: no torch needed.", ""]
    body += [f"Exported from `{source}`.", ""] if len(metadata) > 1 else []  # `merge_card` knows its base_model by it
    body += ["```python", "from onnx_encoder import OnnxEncoder  # a file of this repository", ""]
    body += [
        'OnnxEncoder("folder").encode(["usb c cable"])',
        "```",
        "",
        *rows,
        "",
        "One query at a time, one thread.",
        "",
        *_what_the_graph_takes(facts),
        END,
        "",
    ]
    card = "\n".join(["---", *metadata, "---", *body])
    return push_files(files, repo_id, card=card, stale=("*.onnx", "*.onnx_data"), private=private, **options)


def _what_the_graph_takes(facts: dict[str, Any]) -> list[str]:
    """For who runs the graph without `onnx_encoder.py`, in another runtime or on longer texts."""
    length = facts["max_length"]
    if facts.get("fused"):  # exports of earlier versions do not say it
        return [
            "The graph's attention is of onnxruntime's own operators (`com.microsoft`), which other runtimes do not",
            f"know, and it takes at most {length} tokens, to which `onnx_encoder.py` cuts texts.",
        ]
    return [f"`onnx_encoder.py` cuts texts to {length} tokens."]
