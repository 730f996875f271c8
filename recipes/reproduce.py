"""Reproduce a paper's effects within a budget of minutes: our table beside the paper's, each claim with a verdict.

    python recipes/reproduce.py --paper rexbert --budget 100 [--seeds 0,1,2,3,4] [--rows general_only,plain] ...
    python recipes/reproduce.py my_paper.yaml --budget 60

Tokens follow from the measured speed and are printed before training. Starting again on the same `--output_dir`
resumes; finished rows are not run again. `--help` lists every key.
"""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path

from rexbert_hf.reproduction import ReproductionSettings, reproduce
from rexbert_hf.settings import SettingsError, parse_args, run_recipe, start_logging

CONFIGS = Path(__file__).parent / "configs"
REPOSITORY = Path(__file__).resolve().parents[1]


def config_of(words: list[str]) -> Path:
    """The configuration of the paper that a command line names; the first paper without one."""
    known = sorted(path.stem.removeprefix("reproduce_") for path in CONFIGS.glob("reproduce_*.yaml"))
    paper = "rexbert"
    for i, word in enumerate(words):
        if word == "--paper" and i + 1 < len(words):
            paper = words[i + 1]
        elif word.startswith("--paper="):
            paper = word.partition("=")[2]
    if paper not in known:
        raise SettingsError(f"no paper '{paper}': there is {', '.join(known)}")
    return CONFIGS / f"reproduce_{paper}.yaml"


def main() -> None:
    """Parse, run, print."""
    start_logging()
    logging.getLogger("rexbert_hf.pretraining.corpora").setLevel(logging.WARNING)  # it speaks up in every run
    settings = parse_args(ReproductionSettings, default_config=config_of(sys.argv[1:]))
    data = settings.base.data_dir
    if data is not None and not Path(data).is_dir() and (REPOSITORY / data).is_dir():
        settings.base.data_dir = str(REPOSITORY / data)
    results = reproduce(settings, command=shlex.join(["python", *sys.argv]))
    print(results["table"])
    print(f"table.md, run.json and the models in {settings.output_dir} ({results['seconds'] / 60:.1f} minutes)")


if __name__ == "__main__":
    run_recipe(main)
