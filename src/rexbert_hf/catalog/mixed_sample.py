"""The one warning of all recipes where data of the built-in sample shop stand beside the user's own."""

from __future__ import annotations

import logging

logger = logging.getLogger(__name__)


def warn_of_sample(sample: str, own: str, way_out: str) -> None:
    """Say what is still the sample shop's, so that no figure or model is taken for one of the user's own data.

    Args:
        sample: what is the sample shop's, a plural.
        own: what is the user's own.
        way_out: the keys to set, and to what.

    Example:
        >>> warn_of_sample("positives", "texts", "set --positives to your own categories and brands")
    """
    logger.warning("%s are those of the sample shop, and %s your own: %s", sample, own, way_out)
