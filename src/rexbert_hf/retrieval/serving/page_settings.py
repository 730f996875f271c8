"""What the search page opens: a saved index, or the sample shop; and a masked language model for its second tab."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rexbert_hf.catalog import load_sample
from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.hashing_encoder import HASHING
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.page import SearchPage
from rexbert_hf.retrieval.serving.query_model import load_model

logger = logging.getLogger(__name__)


@dataclass
class PageSettings:
    """Show a search page.

    Attributes:
        index: folder or Hub data set of a saved index; without one, an index of the sample shop is built at start.
        model: what encodes queries, by default the model that the index names; of the sample shop, products too.
        masked_lm: folder or repository of a masked language model, for the fill-mask tab.
        sample_size: products of the sample shop.
        hits: products shown on each side.
        title: of the page.
        host: address to listen on; Gradio's own choice by default.
        port: likewise.
        screenshot: file to which a picture of the page is written (headless Chromium, playwright), instead of serving.
        push_to_hub: "user/name" of a Space to which the page goes with these settings, instead of serving.
        private: whether a new Space is private.
    """

    index: str | None = None
    model: str | None = None
    masked_lm: str | None = None
    sample_size: int = 2_400
    hits: int = 8
    title: str = "Product search"
    host: str | None = None
    port: int | None = None
    screenshot: Path | None = None
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.hits <= 100:
            raise ValueError(f"hits must be between 1 and 100, got {self.hits}")
        if self.sample_size < 2:
            raise ValueError(f"sample_size must be at least 2, got {self.sample_size}")
        if self.port is not None and not 0 <= self.port < 2**16:
            raise ValueError(f"port must lie between 0 and {2**16 - 1}, got {self.port}")


def open_page(settings: PageSettings) -> tuple[SearchPage, FillMask | None]:
    """The page that settings describe, ready to answer.

    Args:
        settings: see `PageSettings`.

    Raises:
        FileNotFoundError: if there is no such index.
        ValueError: if the index is damaged, or the model is not the one it was built with.
    """
    if settings.index is None:
        model = load_model(settings.model or HASHING)
        index = ProductIndex.build(sample_catalogue(settings.sample_size), model, "hnsw", lexical=True)
    else:
        index = ProductIndex.load(settings.index, settings.model)
    logger.info("%r", index)
    fill = None if settings.masked_lm is None else FillMask(settings.masked_lm)
    return SearchPage(index, settings.hits), fill


def sample_catalogue(size: int) -> list[dict[str, Any]]:
    """Products of the sample shop, four of five said to be in stock so that there is something to filter by.

    Args:
        size: products.
    """
    rows = [dict(row) for row in load_sample("products", size=size)]
    return [{**row, "in_stock": place % 5 != 0} for place, row in enumerate(rows)]
