"""The sample web as a crawler finds it: lines, navigation and footers, copies, other languages, empty pages.

What `web` holds is the clean truth; this is what a curation has to work on. Nothing here is labelled by chance: a page
keeps the label of the clean page that it was made from, and what has no text of its own has none.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import Any

from .foreign import foreign_page
from .vocabulary import words

COPIES = 0.04
"""Pages that occur again word by word on another site, as a share of the clean ones."""
NEAR_COPIES = 0.06
"""Pages that occur again with a line on top, and of longer ones a line less."""
FOREIGN = 0.06
"""Pages in other languages."""
EMPTY = 0.02
"""Pages of which nothing but the frame, or nothing at all, is left."""
ADVERTS = 0.08
"""Ordinary pages with an advertisement between their lines."""

Page = dict[str, Any]

_NAVIGATION = words(
    "Home | News | About us | Contact;Skip to main content;Menu;Search this site;Log in | Register | My account;"
    "Accept all cookies to continue reading.;Subscribe to our newsletter"
)
_FOOTERS = words(
    "Share this page on social media;All rights reserved.;Privacy policy | Terms of use | Imprint;Back to top;"
    "Copyright {year} {site}. All rights reserved.;Leave a comment;Read more;You may also like"
)
_ADVERTS = (
    "Advertisement: {percent} % off all {noun} this week only. Shop now!",
    "Sponsored: {noun} at low prices, delivered to your door.",
)
_ROLES = words("guest;moderator;editor;reader")
_SENTENCE = re.compile(r"(?<=[.!?])\s+")


def make_crawl(name: str, seed: int, pages: Sequence[Page], nouns: Sequence[str]) -> list[Page]:
    """The `WEB_PAGE` rows of a crawl.

    Args:
        name: of the crawl; two with different names draw differently.
        seed: of the draws.
        pages: clean pages.
        nouns: what advertisements offer.
    """
    rng = random.Random(f"{name} {seed}")
    crawl = [_framed(rng, page, _lines(rng, page, nouns)) for page in pages]
    crawl += [_copy(rng, crawl[i]) for i in _some(rng, len(pages), COPIES)]
    crawl += [_near_copy(rng, crawl[i]) for i in _some(rng, len(pages), NEAR_COPIES)]
    for i in range(max(1, int(FOREIGN * len(pages)))):
        page = foreign_page(rng, rng.choice(pages)["domain"], i + 1)
        crawl.append(_framed(rng, page, page["text"].split("\n")))
    crawl += [_empty(rng, pages[i]) for i in _some(rng, len(pages), EMPTY)]
    rng.shuffle(crawl)
    return crawl


def _some(rng: random.Random, count: int, share: float) -> list[int]:
    return rng.sample(range(count), min(count, max(1, int(share * count))))


def _lines(rng: random.Random, page: Page, nouns: Sequence[str]) -> list[str]:
    """A text cut into lines of one to three sentences; a text that has lines keeps them."""
    if "\n" in page["text"]:
        lines = page["text"].split("\n")
    else:
        sentences, lines = _SENTENCE.split(page["text"]), []
        while sentences:
            length = rng.randint(1, 3)
            lines.append(" ".join(sentences[:length]))
            sentences = sentences[length:]
    if page["label"] == "general" and rng.random() < ADVERTS:
        advert = rng.choice(_ADVERTS).format(percent=rng.choice((10, 20, 30, 50)), noun=rng.choice(nouns))
        lines.insert(rng.randint(1, len(lines)), advert)
    return lines


def _framed(rng: random.Random, page: Page, lines: Sequence[str]) -> Page:
    """The lines between those that all pages of a site share."""
    site = page["url"].split("/")[2]
    own = random.Random(f"frame of {site}")
    above = own.sample(_NAVIGATION, own.randint(0, 3))
    below = [line.format(year=own.randint(2008, 2024), site=site) for line in own.sample(_FOOTERS, own.randint(0, 3))]
    kept = above if rng.random() < 0.8 else []
    return {**page, "text": "\n".join([*kept, *lines, *below])}


def _copy(rng: random.Random, page: Page) -> Page:
    return {**page, "url": _elsewhere(rng, page["url"], "copy")}


def _near_copy(rng: random.Random, page: Page) -> Page:
    """The same page with a line on top, and of longer ones a line without numbers less: numbers make another page."""
    lines = page["text"].split("\n")
    plain = [i for i, line in enumerate(lines) if not any(sign.isdigit() for sign in line)]
    if len(lines) > 6 and plain:
        del lines[rng.choice(plain)]
    note = (
        f"Posted on a {rng.choice(('Monday', 'Tuesday', 'Friday', 'Sunday'))}, last edited by a {rng.choice(_ROLES)}."
    )
    return {**page, "text": "\n".join([note, *lines]), "url": _elsewhere(rng, page["url"], "revised")}


def _elsewhere(rng: random.Random, url: str, what: str) -> str:
    _, _, site, path = url.split("/", 3)
    return f"https://{rng.choice(('mirror', 'archive', 'm', 'amp'))}.{site.removeprefix('www.')}/{path}?{what}=1"


def _empty(rng: random.Random, page: Page) -> Page:
    kept = rng.sample(_NAVIGATION, rng.randint(0, 3))
    return {**page, "text": "\n".join(kept), "url": f"{page['url']}/print", "label": None}
