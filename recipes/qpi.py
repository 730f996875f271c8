"""Query-product interaction pre-finetuning of any masked-LM checkpoint, or of a new one on the sample shop.

    accelerate launch recipes/qpi.py [recipes/configs/qpi.yaml] [--phases.pairs.max_tokens 2M ...]
    accelerate launch recipes/qpi.py recipes/configs/qpi_pairs.yaml --model.init_from output/pretrain
    accelerate launch recipes/qpi.py recipes/configs/qpi_relevance.yaml [--model.init_from output/qpi ...]

Starting again on the same `--output_dir` resumes the run. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "qpi.yaml"


def main() -> None:
    """Parse, run, print."""
    first = start_logging()
    settings = parse_args(QPISettings, default_config=DEFAULT)
    results = run_qpi(settings)
    if first:
        report(results, settings)


def report(results: dict[str, Any], settings: QPISettings) -> None:
    """Print what was measured and where the result lies."""
    what = "masked accuracy" if settings.objective == "span" else "accuracy of relevance"
    for phase in results["phases"]:
        before = phase.get("masked_accuracy_before")
        if before is not None:
            print(f"{phase['name']}: held-out {what} before {before:.2%}")
    for name, value in results.get("held_out", {}).items():
        if name.endswith("accuracy"):
            print(f"held-out {what} of the saved weights ({name}): {value:.2%}")
    stopping = results.get("early_stopping", {})
    if stopping.get("best") is not None:
        print(f"best at step {stopping['best_step']}", end="")
        print(f", stopped at step {stopping['stopped_at']}" if stopping["stopped_at"] else ", the budget was spent")
    print(f"model, card and run.json in {settings.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
