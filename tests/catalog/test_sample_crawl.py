"""The crawls of the sample web: what makes them worth curating is there, and the truth behind them is known."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

import pytest

from rexbert_hf.catalog import load_sample, normalize_text
from rexbert_hf.catalog.sample.foreign import LANGUAGES

CRAWLS = {"crawl": "shop", "food_crawl": "recipe"}


@pytest.fixture(scope="module", params=CRAWLS)
def crawl(request):
    return request.param, load_sample(request.param, size=600).to_list()


def test_addresses_are_unique_and_labels_known(crawl):
    name, pages = crawl
    urls = [page["url"] for page in pages]
    assert len(set(urls)) == len(urls)
    assert {page["label"] for page in pages} <= {CRAWLS[name], "general", "shop", None}
    assert all(page["label"] or len(page["text"]) < 200 for page in pages), "only frames have no label"


def test_domains_differ_in_their_share(crawl):
    name, pages = crawl
    counts = defaultdict(Counter)
    for page in pages:
        counts[page["domain"]][page["label"] == CRAWLS[name]] += 1
    shares = sorted(count[True] / count.total() for count in counts.values())
    assert len(shares) >= 12
    assert shares[-1] > 0.4
    assert shares[0] < 0.2


def test_copies_near_copies_and_empty_pages(crawl):
    _, pages = crawl
    texts = Counter(normalize_text(page["text"]) for page in pages)
    repeated = sum(count - 1 for text, count in texts.items() if text)
    assert 0.02 * len(pages) < repeated < 0.08 * len(pages)
    shingles = {page["url"]: _shingles(page["text"]) for page in pages if "?revised=" in page["url"]}
    originals = {page["url"].split("/", 3)[3]: page for page in pages if "?" not in page["url"]}
    overlaps = [
        len(found & other) / len(found | other)
        for url, found in shingles.items()
        if (other := _shingles(originals[url.split("/", 3)[3].removesuffix("?revised=1")]["text"]))
    ]
    assert len(overlaps) > 20
    assert sorted(overlaps)[len(overlaps) // 2] > 0.6, "most near copies are near"
    assert max(overlaps) < 1
    assert any(not page["text"] for page in pages)


def _shingles(text):
    words = text.lower().split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def test_frames_repeat_on_the_pages_of_a_site_and_nowhere_inside():
    pages = load_sample("crawl", size=600).to_list()
    lines = Counter(line for page in pages for line in page["text"].split("\n"))
    assert sum(count > 50 for count in lines.values()) >= 5, "navigation and footers"
    truth = {page["url"]: page["text"] for page in load_sample("web", size=600).to_list()}
    kept = [page for page in pages if page["url"] in truth and "revised" not in page["url"]]
    assert len(kept) == len(truth)
    for page in kept[:200]:
        sentences = re.split(r"(?<=[.!?])\s+", truth[page["url"]])
        assert all(sentence in page["text"] for sentence in sentences)


def test_other_languages_are_there(crawl):
    _, pages = crawl
    found = Counter(page["url"].split(".example")[0][-2:] for page in pages if ".example/shop/" in page["url"]
                    or ".example/general/" in page["url"])  # fmt: skip
    assert set(LANGUAGES) <= set(found)


def test_recipes_have_amounts_and_steps():
    pages = [page for page in load_sample("food_crawl", size=300).to_list() if page["label"] == "recipe"]
    assert len({page["text"] for page in pages}) > 140
    for page in pages:
        assert "{" not in page["text"]
        lines = page["text"].split("\n")
        assert sum(line.split(" ")[0].isdigit() for line in lines) >= 1
        assert sum(line[:1].isdigit() and ". " in line[:4] for line in lines) >= 3
