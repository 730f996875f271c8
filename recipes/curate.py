"""Curate a domain corpus from web text: select, sample, label, audit, distil, filter, build.

    python recipes/curate.py [recipes/configs/curate_sample.yaml] [--select.min_share 0.3 ...]
    python recipes/curate.py recipes/configs/curate_recipes.yaml --push_to_hub user/recipes
    python recipes/curate.py my_vertical.yaml --stages label,audit

Starting again on the same `--output_dir` goes on where the last run stopped; finished stages are not run again.
docs/corpus.md tells what each stage reads and writes. Needs fastText (`pip install -e ".[corpus]"`).
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.corpus.pipeline import curate
from rexbert_hf.corpus.settings import CurateSettings
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "curate_sample.yaml"


def main() -> None:
    """Parse, curate, print."""
    start_logging()
    settings = parse_args(CurateSettings, default_config=DEFAULT)
    try:
        results = curate(settings, on_report=lambda _, line: print(line, flush=True))
    except ImportError as error:  # a package that is not installed
        raise ValueError(error) from error
    if "corpus" in results:
        print(f"corpus and card in {results['corpus']}, run.json in {settings.output_dir}")
    for name in ("url", "classifier_url"):
        if name in results:
            print(f"pushed to {results[name]}")


if __name__ == "__main__":
    run_recipe(main)
