"""Export a sentence encoder to ONNX, float32 and int8, and measure both beside torch.

    python recipes/export_onnx.py [recipes/configs/export_onnx.yaml] [--model DIR ...]

The output folder runs with onnxruntime and tokenizers alone (`onnx_encoder.py` lies in it).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun, run_export_onnx
from rexbert_hf.retrieval.training.evaluator import figure_text
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "export_onnx.yaml"


def main() -> None:
    """Parse, export, print."""
    start_logging(logging.WARNING)
    run = parse_args(ExportOnnxRun, default_config=DEFAULT)
    results = run_export_onnx(run)
    for name, far in results["difference"].items():
        size = results["bytes"][name] / 1e6
        print(
            f"{name}: {size:.1f} MB; on {results['queries']} queries cosine to torch {far['mean_cosine']:.5f}", end=""
        )
        print(f" (least {far['least_cosine']:.5f}), largest difference {far['largest']:.2g}")
    print("one query at a time, one thread, tokenising included:")
    for name, latency in results["latency_ms"].items():
        print(f"  {name:6} p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms")
    report(results.get("quality", {}), run.data.name)
    if run.model is None:
        print("no model was given: an untrained one was exported, its quality means nothing")
    print(f"graphs, tokenizer and run.json in {run.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


def report(quality: dict[str, Any], data: str) -> None:
    """Print what each precision finds in which data, and what that is beside torch."""
    for name in [key for key, found in quality.items() if isinstance(found, dict)]:
        figures = {figure.replace("_at_", "@"): value for figure, value in quality[name].items()}
        said = ", ".join(figure_text(figures, figure, quality["ndcg_gain"]) for figure in ("recall@100", "ndcg@10"))
        print(f"  {name:6} {said} among {quality['products']:,} products ({data})", end="")
        if name == "torch":
            print()
            continue
        print(f"; torch minus {name} {figures['points_lost']:+.2f} points of recall@100", end="")
        print(f", overlap with torch {figures['overlap_with_torch']:.4f}")


if __name__ == "__main__":
    run_recipe(main)
