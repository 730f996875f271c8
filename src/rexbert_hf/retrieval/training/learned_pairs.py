"""Which pairs a model learned, as its run.json says: the sample shop's say nothing about a model of other ones."""

from __future__ import annotations

from pathlib import Path

from rexbert_hf.catalog.mixed_sample import warn_of_sample
from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.training.search_data import SearchDataSettings


def learned_own_pairs(model: str) -> bool:
    """Whether a model's run.json says that it was trained on pairs that somebody named.

    Args:
        model: folder or Hub id; of one without a run.json nothing is known.
    """
    if not Path(model).is_dir():
        return False
    try:
        config = read_run(model).get("config")
    except (OSError, ValueError):  # none, or a damaged one, which whoever opens the folder tells
        return False
    data = config.get("data") if isinstance(config, dict) else None
    return isinstance(data, dict) and data.get("pairs") is not None


def warn_of_sample_pairs(model: str | None, data: SearchDataSettings) -> None:
    """Say that a model of the user's own pairs is about to meet those of the sample shop.

    Args:
        model: that the recipe starts from, folder or Hub id; None of one that the recipe makes.
        data: of the recipe.
    """
    if model is not None and data.pairs is None and learned_own_pairs(model):
        way_out = "set --data.pairs and --data.products as its run.json has them"
        warn_of_sample("queries and products", f"those of {model}", way_out)
