"""Fine-tune a bi-encoder for product search (stage 3 of "Web-scale Semantic Product Search").

    python recipes/finetune_search.py [recipes/configs/finetune_search.yaml] [--loss.name hinge ...]
    python recipes/finetune_search.py recipes/configs/finetune_homedepot.yaml --model.base answerdotai/ModernBERT-base

Any encoder is a base. Starting again on the same `--output_dir` resumes the run. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.retrieval import FinetuneSettings, finetune_search
from rexbert_hf.retrieval.training.evaluator import figure_text
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "finetune_search.yaml"
REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = ("recall@10", "recall@100", "ndcg@10")


def main() -> None:
    """Parse, run, print."""
    first = start_logging()
    settings = parse_args(FinetuneSettings, default_config=DEFAULT)
    settings.data.look_under(REPOSITORY)
    results = finetune_search(settings)
    if first:
        report(results, settings.output_dir)


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print what was measured and where the result lies."""
    if results.get("validation"):
        best = max(entry["recall@100"] for entry in results["validation"])
        of_cells = ", mean of the cells" if "cells" in results else ""
        part = f"{results['validation_queries']} queries, {results['validation_products']} products{of_cells}"
        print(f"validation R@100 ({part}): {results['validation_before']:.4f} -> {best:.4f}")
    test = results.get("test") or {}
    if test:
        print("test: " + ", ".join(figure_text(test, name, results["ndcg_gain"]) for name in SHOWN))
    for cell, figures in results.get("cells", {}).items():
        print(f"  {cell} (layers x dimensions): {figure_text(figures, 'recall@100', results['ndcg_gain'])}")
    minutes = results["training_seconds"] / 60
    print(f"{results['steps']} steps, {results['epochs']} epochs, {minutes:.1f} minutes of training")
    print(f"model, card and run.json in {output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
