"""Choose a sub-model of a bi-encoder that was fine-tuned over a grid of layers x dimensions (m3BERT).

    python recipes/choose_submodel.py --latency_ms 5 --metric recall@100 --model output/search
    python recipes/choose_submodel.py [recipes/configs/choose_submodel.yaml] [--memory_mb 100 --runtime int8 ...]

Measures every cell on this machine (one thread, the validation queries) and saves the best one within the budget.
Without `--model` it trains a tiny one on the sample shop. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.retrieval import ChooseRun, choose_submodel
from rexbert_hf.retrieval.training.grid_measure import NoCellFitsError
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "choose_submodel.yaml"
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse, run, print."""
    start_logging()
    run = parse_args(ChooseRun, default_config=DEFAULT)
    run.data.look_under(REPOSITORY)
    try:
        results = choose_submodel(run)
    except NoCellFitsError as error:
        report(error.results, run)  # what there is shows what budget could be met
        raise
    report(results, run)
    print(f"{results['chosen']} (model, card, cells.png and run.json) in {run.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


def report(results: dict[str, Any], run: ChooseRun) -> None:
    """Print the cells, and of the chosen one its mark and its test figure."""
    median = results["query_tokens"]["median"]
    searched = f"{results['products']} products ({run.data.name})"
    print(f"{results['queries']} validation queries (median {median:.0f} tokens), {searched}")
    print(
        f"one query on {run.threads} thread, {run.runtime}, tokenising included; the vectors of all products in float32"
    )
    print(f"{'layers x dims':>14} {'p50 ms':>8} {'p99 ms':>8} {'model MB':>9} {'vectors MB':>11} {run.metric:>12}")
    for name, cell in results["cells"].items():
        mark = " <" if name == results.get("chosen") else ""
        sizes = f"{cell['model_bytes'] / 1e6:9.2f} {cell['vector_bytes'] / 1e6:11.2f}"
        print(f"{name:>14} {cell['p50']:8.2f} {cell['p99']:8.2f} {sizes} {cell['quality'][run.metric]:12.4f}{mark}")
    if results.get("test"):
        print(f"test queries ({results['test_runtime']}): {run.metric} {results['test'][run.metric]:.4f}")


if __name__ == "__main__":
    run_recipe(main)
