"""A catalogue that tries to break the search page, a page over it, and a tiny masked language model."""

from __future__ import annotations

import importlib.util
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

from rexbert_hf import RexBertConfig, RexBertForMaskedLM, load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.retrieval.serving.index import ProductIndex

SPACE = Path(__file__).parents[2] / "recipes" / "space"
BROKEN = "document.title = 'broken'"
NASTY = {
    "script": f"<script>{BROKEN}</script> lamp",
    "image": f'<img src=x onerror="{BROKEN}"> lamp',
    "template": "lamp {{7*7}} ${7*7} `x` @children {{#each x}} \\u003cb\\u003e",
    "closing": "</bdi></section></div><h1>lamp</h1><!-- ",
    "hebrew": "\u05de\u05e0\u05d5\u05e8\u05d4 lamp \u05d0\u05d3\u05d5\u05de\u05d4",
    "emoji": "lamp \U0001f9d1\u200d\U0001f33e \U0001f4a1",
    "spoof": "lamp \u202egpj.exe",
    "long": "lamp " + "very " * 2_000 + "long",
    "half": "lamp \ud83d",
}
"""Product id -> title."""


def nasty_products() -> list[dict[str, Any]]:
    """All of the above, products that are plain, and one without title."""
    products: list[dict[str, Any]] = [
        {"product_id": name, "title": title, "price": 10.0, "in_stock": True, "category_path": ["A & B", "<i>"]}
        for name, title in NASTY.items()
    ]
    products += [
        {"product_id": "<b>id</b>", "title": "cheap red lamp", "price": 2.5, "in_stock": False},
        {"product_id": "plain", "title": "expensive red lamp", "price": 99.0, "category_path": ["Home", "Lamps"]},
        {"product_id": "untitled", "title": None, "brand": "Ostwick", "price": 5},
    ]
    return products


def nasty_index(**options: Any) -> Any:
    return ProductIndex.build(nasty_products(), "hashing", kind="flat", lexical=True, **options)


def tiny_masked_lm(folder: Path) -> Path:
    """A RexBERT of one layer and a tokenizer of 384 tokens, saved."""
    tokenizer = train_tokenizer(load_sample("shop_text", size=40)["text"], 384, model_max_length=128)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    ids = {name: getattr(tokenizer, name) or 0 for name in names}
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    RexBertForMaskedLM(RexBertConfig(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_app() -> ModuleType:
    """`recipes/space/app.py` as a module."""
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Parsed(HTMLParser):
    """Tags and text of a piece of HTML, as a browser reads it."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.parts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_comment(self, data: str) -> None:
        self.tags.append("!--")

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts)
