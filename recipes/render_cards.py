"""Render the cards of model_cards/ from measured figures.

    python recipes/render_cards.py [recipes/configs/render_cards.yaml]
    python recipes/render_cards.py --runs.rexbert-micro output/rexbert-micro
    python recipes/render_cards.py --runs.ecom-niverse output/my-corpus --runs.domain-classifier output/my-corpus

A run named with `--runs.CARD FOLDER` gives its `run.json` and `evaluation.json` (`recipes/evaluate.py --update_cards`)
to the card's folder, and the card shows them from then on. Of a curation the cards of the corpus and of the classifier
are taken. A card without figures says so.
"""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.evaluation.project_cards import RenderCardsSettings, render_cards
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "render_cards.yaml"


def main() -> None:
    """Parse, render, print."""
    start_logging()
    for path in render_cards(parse_args(RenderCardsSettings, default_config=DEFAULT)):
        print(path)


if __name__ == "__main__":
    run_recipe(main)
