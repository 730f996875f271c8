"""The published formats of the shared data folder; skipped where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from datasets import Features, Value

from rexbert_hf.catalog import QUERY_PRODUCT, ReadReport, read_records

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

pytestmark = pytest.mark.real_data


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no {path}: the shared data is not on this machine")
    return path


def test_home_depot():
    mapping = {"query": "search_term", "product_id": "product_uid", "relevance": "relevance"}
    report = ReadReport()
    rows = read_records(
        real("homedepot/train.csv.zip"), mapping, features=QUERY_PRODUCT, encoding="latin-1", report=report
    )
    assert (len(rows), report.bad) == (74_067, 0)
    assert rows[0] == {"query": "angle bracket", "product_id": "100001", "label": None, "relevance": 3.0}
    assert len(set(rows["query"])) == 11_795


def test_fashion_styles_with_its_broken_rows():
    report = ReadReport()
    rows = read_records(
        real("fashion_styles/styles.csv.zip"), {"title": "productDisplayName", "kind": "articleType"}, report=report
    )
    assert len(rows) + report.bad == 44_446
    assert 0 < report.bad < 50
    assert "has 11 fields where 10 are expected" in report.reasons[0]


def test_text_documents():
    rows = read_records(real("text/general/gen_squad_wiki_reddit.txt.gz"), limit=2_000)
    assert rows.features == Features({"text": Value("string")})
    assert all(text.strip() for text in rows["text"])


def test_oa_mine():
    rows = read_records(real("oa_mine/train.jsonl"), {"title": "input", "category": "category"})
    assert len(rows) == 1_452
    assert rows[0]["category"] == "Shoes"


def test_hm_articles():
    rows = read_records(
        real("hm_baskets/articles.parquet"),
        {"product_id": "article_id", "text": ["prod_name", "detail_desc"]},
        limit=100,
    )
    assert rows[0] == {"product_id": "0108775015", "text": "Strap top . Jersey top with narrow shoulder straps."}


def test_recipes_in_one_array():
    assert len(read_records(real("algolia/recipes.json.gz"), {"text": ["recipe_name", "ingredients"]})) == 1_090
