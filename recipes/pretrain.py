"""Pre-train a RexBERT through its phases, or continue any masked-LM checkpoint on your own text.

    accelerate launch recipes/pretrain.py recipes/configs/quickstart.yaml [--phases.general.max_tokens 1e6 ...]
    accelerate launch recipes/pretrain.py recipes/configs/continue.yaml --sources.catalog.path my_catalogue.csv

Starting again on the same `--output_dir` resumes the run. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState

from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "quickstart.yaml"


def main() -> None:
    """Parse, run, print."""
    first = start_logging()
    settings = parse_args(PretrainSettings, default_config=DEFAULT)
    results = pretrain(settings)
    if first:
        report(results, settings.output_dir)
    # Left to the interpreter's end, the group's threads can outlive it, and a finished rank aborts (status -6).
    PartialState().destroy_process_group()


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print what was measured and where the result lies."""
    for phase in results["phases"]:
        before, after = phase.get("masked_accuracy_before"), phase.get("masked_accuracy_after")
        if before is not None and after is not None:
            print(f"{phase['name']}: held-out masked accuracy {before:.2%} -> {after:.2%}")
    for name, baseline in results.get("baselines", {}).items():
        model = results["phases"][-1].get(f"masked_accuracy_after_{name}", float("nan"))
        print(f"{name}: model {model:.2%}, neighbour counts {baseline['neighbours']:.2%}", end="")
        print(f", most frequent token {baseline['unigram']:.2%}")
    print(f"model, card and run.json in {output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
