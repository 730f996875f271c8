"""Mine a phrase pool from product text, and save it with a card of its best phrases by category.

    python recipes/mine_phrases.py [recipes/configs/mine_phrases.yaml] [--mining.min_count 30 ...]
    python recipes/mine_phrases.py recipes/configs/mine_phrases_real.yaml --push_to_hub user/phrases
    python recipes/mine_phrases.py --texts '[{path: my.csv}]' --positives '[{path: brands.txt}]' --card.language en

Known phrases (categories, brands) teach what a phrase is: texts of your own need lists of your own, else the sample
shop's are taken, with a warning. Repeated texts are mined once. Needs scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.phrases.mining_run import MineRun, run_mining
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "mine_phrases.yaml"


def main() -> None:
    """Parse, mine, print."""
    start_logging()
    run = parse_args(MineRun, default_config=DEFAULT)
    pool, results = run_mining(run)
    seconds = sum(results["seconds"].values())
    megabytes = results["characters"] / 1e6
    print(f"{results['texts']:,} texts, {megabytes:.1f} M characters; {results['repeated_texts']:,} repeated texts")
    print(f"{results['candidates']:,} candidates, {results['known_candidates']:,} of them known phrases")
    print(f"{len(pool):,} phrases in {seconds:.0f} s ({megabytes / seconds * 60:.0f} M characters a minute)")
    for category, phrases in results["top_phrases"].items():
        print(f"{category}: {', '.join(phrases)}")
    print(f"pool, card and run.json in {run.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
