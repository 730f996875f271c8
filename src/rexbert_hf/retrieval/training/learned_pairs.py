"""Which pairs a model learned, as its run.json says: the sample shop's say nothing about a model of other ones."""

from __future__ import annotations

import logging
from pathlib import Path

from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.training.search_data import SearchDataSettings

logger = logging.getLogger(__name__)


def named_pairs(model: str) -> str | None:
    """The pairs that a model was trained on, where its run.json names some; whose they are it does not say.

    Args:
        model: folder or Hub id; of one without a run.json nothing is known.
    """
    if not Path(model).is_dir():
        return None
    try:
        config = read_run(model).get("config")
    except (OSError, ValueError):  # none, or a damaged one, which whoever opens the folder tells
        return None
    data = config.get("data") if isinstance(config, dict) else None
    pairs = data.get("pairs") if isinstance(data, dict) else None
    if isinstance(pairs, list):
        return ", ".join(map(str, pairs))
    return None if pairs is None else str(pairs)


def warn_of_sample_pairs(model: str | None, data: SearchDataSettings) -> None:
    """Say that a model of pairs that somebody named is about to meet the built-in ones of the sample shop.

    Args:
        model: that the recipe starts from, folder or Hub id; None of one that the recipe makes.
        data: of the recipe.
    """
    if model is not None and data.pairs is None and (pairs := named_pairs(model)) is not None:
        logger.warning(
            "queries and products are the built-in ones of the sample shop, and %s was trained on %s: set --data.pairs"
            " and --data.products as its run.json has them",
            model,
            pairs,
        )
