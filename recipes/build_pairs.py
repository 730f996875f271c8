"""Build training pairs for product search from a click log, or from graded judgements.

    python recipes/build_pairs.py [recipes/configs/build_pairs.yaml] [--ratio 1:10:11 ...]
    python recipes/build_pairs.py --events.path log.parquet --products.path catalogue.parquet
    python recipes/build_pairs.py recipes/configs/build_pairs_homedepot.yaml

`--help` lists every key; docs/search.md says what the files hold.
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.retrieval.pairs.run import build_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "build_pairs.yaml"


def main() -> None:
    """Parse, build, print."""
    start_logging()
    run = parse_args(BuildPairsRun, default_config=DEFAULT)
    results = build_pairs(run)
    source = results.get("log") or results.get("judgements") or {}
    print(f"{results['products']:,} products; " + ", ".join(f"{n:,} {name}" for name, n in source.items() if n))
    for split, counts in results["pairs"].items():
        drawn = counts.get("positives", 0) + counts.get("hard_negatives", 0) + counts.get("random_negatives", 0)
        at, neither = f"at {counts['ratio']} ({run.ratio})", counts.get("neither", 0)
        print(f"{split}: {counts.get('queries', 0):,} queries, {drawn:,} pairs {at}, {neither:,} that are neither")
    for split, counts in results["qpi"].items():
        print(f"qpi {split}: {counts['relevant']:,} relevant, {counts['irrelevant']:,} irrelevant pairs")
    audit = results.get("audit")
    if audit and audit["share"] is not None:
        print(f"audit: {audit['share']:.1%} of {audit['judged']} judged pairs are relevant", end="")
        print(f" (95 % interval {audit['low']:.1%} to {audit['high']:.1%})")
    elif audit:
        place = run.output_dir / "audit_sample.csv"
        print(f"audit: not judged yet; fill in 'relevant' in {place} and pass --audit.csv")
    print(f"pairs, products, card and run.json in {run.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")
    if not any(counts.get("positives") for counts in results["pairs"].values()):
        print("no query has a positive (a purchase of a known product): stage 3 has nothing to be trained on")


if __name__ == "__main__":
    run_recipe(main)
