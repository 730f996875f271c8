"""Fine-tune a cross-encoder that orders what the index found.

python recipes/finetune_reranker.py --base output/qpi [--data.pairs ... --data.relevant 2.33]

Grades become targets between 0 and 1; random products of the catalogue are added as zeros.
"""

from __future__ import annotations

import logging
from pathlib import Path

from rexbert_hf.retrieval import RerankerSettings, finetune_reranker
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "finetune_reranker.yaml"
REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> None:
    """Parse, run, print."""
    start_logging(logging.WARNING)
    settings = parse_args(RerankerSettings, default_config=DEFAULT)
    settings.data.look_under(REPOSITORY)
    results = finetune_reranker(settings)
    before, after = results["ndcg@10_of_judged_before"], results["ndcg@10_of_judged"]
    print(f"nDCG@10 of the judged products of test queries: {before:.4f} -> {after:.4f}")
    print(f"model, card and run.json in {settings.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
