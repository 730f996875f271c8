"""Build a search index of a catalogue, or bring the one in `--output_dir` up to date, and try it.

    python recipes/build_index.py [recipes/configs/build_index.yaml] [--model DIR --index.kind int8 ...]
    python recipes/build_index.py --products.path shop.csv --products.columns '{product_id: id, title: name}'

Run again on a changed catalogue it encodes what has changed only; readers see the old index or the new one.
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, run_build_index
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "build_index.yaml"


def main() -> None:
    """Parse, build, print."""
    start_logging()
    run = parse_args(BuildIndexRun, default_config=DEFAULT)
    results = run_build_index(run)
    for search in results["searches"]:
        asked, searched = search["query"], search["searched_for"]
        spelt = "" if searched == asked else f", searched for: {searched}"
        print(f"\n{asked} ({search['mode']}, {search['milliseconds']:.1f} ms{spelt})")
        for hit in search["hits"]:
            print(f"  {hit['score']:.3f}  {hit['id']}  {hit['text']:.100}")
    what = "updated" if results["updated"] else "built"
    megabytes = sum(results["bytes"].values()) / 1e6
    print(
        f"\n{results['products']:,} products {what} in {results['seconds']:.1f} s, {results['encoded']:,} encoded",
        end="",
    )
    print(f", {results['deleted']:,} deleted; {megabytes:.1f} MB ({results['kind']}, {results['dim']} dimensions)")
    print(f"index and run.json in {run.output_dir}")
    if "url" in results:
        print(f"pushed to {results['url']}")


if __name__ == "__main__":
    run_recipe(main)
