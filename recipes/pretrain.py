"""Pre-train a RexBERT through its phases, or continue any masked-LM checkpoint on your own text.

    accelerate launch recipes/pretrain.py recipes/configs/quickstart.yaml [--phases.general.max_tokens 1e6 ...]
    accelerate launch recipes/pretrain.py recipes/configs/continue.yaml --model.init_from NAME
        --sources.catalog.path my_catalogue.csv
    accelerate launch recipes/pretrain.py recipes/configs/m3bert.yaml
        [--stages.multilingual.tokenizer '{path: NAME}' ...]

A recipe with `stages` is several runs, each of which starts from the folder of the one before. Starting again on the
same `--output_dir` resumes the run. `--help` lists every key.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.pretraining.chosen_sources import warn_of_sample_sources
from rexbert_hf.pretraining.stages import StagedSettings, pretrain_stages
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "quickstart.yaml"


def main() -> None:
    """Parse, run, print."""
    first = start_logging()
    runs = parse_args(StagedSettings, default_config=DEFAULT).runs()
    if first:
        warn_of_sample_sources(settings for _, settings in runs)
    results = pretrain_stages(runs)
    if first:
        report(results, runs[-1][1].output_dir)


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print what was measured and where the result lies."""
    for stage in [*results.get("stages", []), {**results, "name": results.get("stage", "")}]:
        for phase in stage["phases"]:
            report_phase(phase, f"{stage['name']}: " if stage["name"] else "")
    for name, baseline in results.get("baselines", {}).items():
        model = results["phases"][-1].get(f"masked_accuracy_after_{name}", float("nan"))
        print(f"{name}: model {model:.2%}, neighbour counts {baseline['neighbours']:.2%}", end="")
        print(f", most frequent token {baseline['unigram']:.2%}")
    print(f"model, card and run.json in {output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


def report_phase(phase: dict[str, Any], stage: str) -> None:
    """Print a phase's held-out masked accuracy, and the tokens and shares of its languages."""
    before, after = phase.get("masked_accuracy_before"), phase.get("masked_accuracy_after")
    if before is not None and after is not None:
        print(f"{stage}{phase['name']}: held-out masked accuracy {before:.2%} -> {after:.2%}")
    for code, of in phase.get("languages", {}).items():
        print(f"  {code}: {of['tokens']:,} tokens, share {of['share_start']:.1%} to {of['share_end']:.1%}", end="")
        print(f", its text {of['epochs']:.2g} times")


if __name__ == "__main__":
    run_recipe(main)
