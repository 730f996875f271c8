"""Distil a bi-encoder into a small student (stage 4 of "Web-scale Semantic Product Search").

    python recipes/distil_search.py [recipes/configs/distil_search.yaml] --teacher output/search
    python recipes/distil_search.py recipes/configs/distil_from_scratch.yaml --data.pairs ...

The teacher's vectors are computed once and kept in `cache_dir`. Starting again on the same `--output_dir` resumes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.retrieval import DistilSettings, distil_search
from rexbert_hf.retrieval.training.evaluator import figure_text
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "distil_search.yaml"
REPOSITORY = Path(__file__).resolve().parents[1]
SHOWN = ("recall@10", "recall@100", "ndcg@10")


def main() -> None:
    """Parse, run, print."""
    start_logging()
    settings = parse_args(DistilSettings, default_config=DEFAULT)
    settings.data.look_under(REPOSITORY)
    results = distil_search(settings)
    report(results, settings.output_dir)


def report(results: dict[str, Any], output_dir: str) -> None:
    """Print what was measured and where the result lies."""
    if results["first_loss"] is not None:  # fewer steps than trainer.logging_steps log none
        print(f"loss {results['first_loss']:.4f} -> {results['last_loss']:.4f} over {results['pairs']} pairs")
    if "test" in results:
        for who, test in (("student", results["test"]), ("teacher", results["teacher_test"])):
            print(f"test, {who}: " + ", ".join(figure_text(test, name, results["ndcg_gain"]) for name in SHOWN))
        print(f"the student keeps {results['kept_recall@100']:.1%} of its teacher's R@100")
    print(f"model, card and run.json in {output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
