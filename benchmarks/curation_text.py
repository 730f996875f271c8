"""Real text by source, shop and general, for the curation benchmarks: what is in ../shared/data of each kind.

A source is one publisher's file or family of files; files that share products or authors are one source, so that
leaving a source out leaves all of it out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@dataclass(frozen=True)
class TextSource:
    """Documents of one source.

    Attributes:
        name: of the source.
        kind: as titles or reviews; news or addresses.
        shop: which side.
        texts: the documents, in a fixed random order.
    """

    name: str
    kind: str
    shop: bool
    texts: list[str]


def read_sources(limit: int, data: Path = DATA) -> list[TextSource]:
    """Up to `limit` documents of each source, without repetitions; none where the folder is not there."""
    if not data.is_dir():
        return []
    found = []
    for name, kind, shop, reader in SOURCES:
        texts = sorted({" ".join(text.split()) for text in reader(data)} - {""})
        random.Random(name).shuffle(texts)
        found.append(TextSource(name, kind, shop, texts[:limit]))
    return found


def _lines(*parts: str) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        for part in parts:
            with gzip.open(data / "text" / part, "rt", encoding="utf-8") as file:
                yield from file

    return read


def _csv(file: Iterable[str], *columns: str, delimiter: str = ",") -> Iterator[str]:
    csv.field_size_limit(1 << 24)
    for row in csv.DictReader(file, delimiter=delimiter):
        yield " . ".join(row[column] or "" for column in columns)


def _zipped(path: Path, member: str, encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(zipfile.ZipFile(path).open(member), encoding=encoding, errors="replace", newline="")


def _json(path: Path) -> Any:
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        return json.load(file)


def homedepot(data: Path) -> Iterator[str]:
    """Product titles."""
    return _csv(_zipped(data / "homedepot" / "train.csv.zip", "train.csv", "latin-1"), "product_title")


def pricerunner(data: Path) -> Iterator[str]:
    """Titles of offers."""
    with gzip.open(data / "pricerunner" / "pricerunner_aggregate.csv.gz", "rt", encoding="utf-8") as file:
        for row in csv.reader(file):
            yield row[1]


def fashion_styles(data: Path) -> Iterator[str]:
    """Names of clothes."""
    file = _zipped(data / "fashion_styles" / "styles.csv.zip", "styles.csv")
    for row in csv.reader(file):
        yield ",".join(row[9:])


def amazon_titles(data: Path) -> Iterator[str]:
    """Titles of products with attributes to extract."""
    with (data / "oa_mine" / "train.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["input"]


def gift_cards(data: Path) -> Iterator[str]:
    """Reviews of gift cards."""
    with gzip.open(data / "amazon_gift_cards" / "Gift_Cards_5.json.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line).get("reviewText", "")


def amazon_polarity(data: Path) -> Iterator[str]:
    """Reviews of products of all kinds."""
    with gzip.open(data / "amazon_polarity" / "amazon.train.dat.gz", "rt", encoding="utf-8") as file:
        for line in file:
            yield line.partition("$LABEL$")[0]


def product_questions(data: Path) -> Iterator[str]:
    """Questions that customers asked about products."""
    with gzip.open(data / "contextual_pqa" / "ePQA" / "dev.csv.gz", "rt", encoding="utf-8", newline="") as file:
        yield from _csv(file, "question")
    for part in ("train", "dev", "test"):
        path = data / "contextual_pqa" / "hetPQA" / "answer_generation" / f"{part}.csv"
        with path.open(encoding="utf-8", newline="") as file:
            for line in file:
                yield line.split("\t")[1]


def electronics(data: Path) -> Iterator[str]:
    """Reviews of electronics, of which people asked questions."""
    for part in ("train", "dev", "test"):
        with (data / "subjqa_electronics" / f"{part}.csv").open(encoding="utf-8", newline="") as file:
            for text in _csv(file, "review"):
                yield text.replace("ANSWERNOTFOUND", "")


def laptop_questions(data: Path) -> Iterator[str]:
    """Questions about laptops, and the reviews that answer them."""
    for part in ("train", "dev", "test"):
        for article in _json(data / "review_rc_laptop" / f"{part}.json")["data"]:
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    yield question["question"]


def ag_news(data: Path) -> Iterator[str]:
    """News: titles with their first sentences."""
    with (data / "ag_news" / "test.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            yield " . ".join(row[1:]).replace("\\", " ")


def sentence_news(data: Path) -> Iterator[str]:
    """News: pairs of sentences on one event (MRPC) and passages (RTE)."""
    for part in ("train", "test"):
        with (data / "glue" / "MRPC" / f"msr_paraphrase_{part}.txt").open(encoding="utf-8-sig") as file:
            for line in list(file)[1:]:
                yield line.split("\t")[3]
    with (data / "glue" / "RTE" / "train.tsv").open(encoding="utf-8") as file:
        for line in list(file)[1:]:
            yield line.split("\t")[1]


def talks(data: Path) -> Iterator[str]:
    """Talks: names with descriptions."""
    for talk in _json(data / "algolia" / "talks.json.gz"):
        yield f"{talk['name']} . {talk['description']}"


def recipes(data: Path) -> Iterator[str]:
    """Recipes: name, ingredients, directions."""
    for recipe in _json(data / "algolia" / "recipes.json.gz"):
        yield " . ".join(str(recipe.get(key) or "") for key in ("recipe_name", "ingredients", "directions"))


def sample_recipes(_: Path) -> Iterator[str]:
    """Generated recipes of the built-in sample."""
    from rexbert_hf.catalog import load_sample

    return (page["text"] for page in load_sample("food_crawl") if page["label"] == "recipe")


def captions(data: Path) -> Iterator[str]:
    """Sentences of STS-B: captions of pictures and films, forums, news."""
    for part in ("train", "dev", "test"):
        with (data / "glue" / "STS-B" / f"stsb-en-{part}.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                yield from row[:2]


def linguistics(data: Path) -> Iterator[str]:
    """Examples of linguists (CoLA)."""
    with (data / "glue" / "CoLA" / "train.tsv").open(encoding="utf-8") as file:
        for line in file:
            yield line.split("\t")[3]


def _web(name: str) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        path = data / "nltk_text" / f"webtext_{name}.txt.gz"
        return iter(gzip.decompress(path.read_bytes()).decode("latin-1").splitlines())

    return read


def wikitext(data: Path) -> Iterator[str]:
    """Paragraphs of Wikipedia's good articles, with tokens put back together."""
    for part in ("valid", "test"):
        for line in (data / "wikitext2" / f"wiki.{part}.tokens").read_text(encoding="utf-8").splitlines():
            if line.strip() and not line.startswith(" = "):
                text = re.sub(r" @(.)@ ", r"\1", line.replace("<unk>", " "))
                yield re.sub(r" ([,.;:!?)'])", r"\1", text)


def _paragraphs(archive: str, keep: Callable[[str], bool]) -> Callable[[Path], Iterator[str]]:
    def read(data: Path) -> Iterator[str]:
        with zipfile.ZipFile(data / "nltk_text" / archive) as file:
            for name in sorted(file.namelist()):
                if name.endswith(".txt") and keep(name):
                    words = file.read(name).decode("latin-1").split()
                    yield from (" ".join(words[i : i + 150]) for i in range(0, len(words), 150))

    return read


SOURCES: list[tuple[str, str, bool, Callable[[Path], Iterable[str]]]] = [
    ("homedepot", "titles", True, homedepot),
    ("pricerunner", "titles", True, pricerunner),
    ("fashion_styles", "titles", True, fashion_styles),
    ("amazon_titles", "titles", True, amazon_titles),
    ("instacart", "titles", True, _lines("shop/instacart_products.txt.gz")),
    ("goodbooks", "titles", True, _lines("shop/goodbooks.txt.gz")),
    ("homedepot_desc", "descriptions", True, _lines("shop/homedepot_desc_sample.txt.gz")),
    ("hm_articles", "descriptions", True, _lines("shop/hm_articles.txt.gz")),
    ("amazon_rag1000", "descriptions", True, _lines("shop/amazon_rag1000.txt.gz")),
    ("fashion_open", "descriptions", True, _lines("shop/fashion_open.txt.gz")),
    ("flipkart_1050", "descriptions", True, _lines("shop/flipkart_1050.txt.gz")),
    ("retail_demo", "descriptions", True, _lines("shop/retail_demo_store.txt.gz")),
    ("smart_shop", "descriptions", True, _lines("shop/smart_shop.txt.gz")),
    ("wine", "descriptions", True, _lines("shop/wine.txt.gz")),
    ("amazon_polarity", "reviews", True, amazon_polarity),
    ("blitzer", "reviews", True, _lines("shop/blitzer_reviews.txt.gz")),
    ("hatn", "reviews", True, _lines("shop/hatn_reviews.txt.gz")),
    ("womens_clothing", "reviews", True, _lines("shop/womens_clothing.txt.gz")),
    ("amazon_consumer", "reviews", True, _lines("shop/amazon_consumer_1429.txt.gz")),
    ("squadshifts", "reviews", True, _lines("shop/squadshifts_amazon.txt.gz")),
    ("gift_cards", "reviews", True, gift_cards),
    ("electronics", "reviews", True, electronics),
    ("rajesh_flipkart", "reviews", True, _lines("shop/rajesh_flipkart.txt.gz")),
    ("flipkart_sa", "reviews", True, _lines("shop/flipkart_reviews_sa.txt.gz")),
    ("iphone", "reviews", True, _lines("shop/iphone_reviews.txt.gz")),
    ("product_questions", "questions", True, product_questions),
    ("laptop_questions", "questions", True, laptop_questions),
    ("webshop_queries", "requests", True, _lines("shop/webshop_queries.txt.gz")),
    ("ag_news", "news", False, ag_news),
    ("sentence_news", "news", False, sentence_news),
    ("talks", "talks", False, talks),
    ("recipes", "recipes", False, recipes),
    ("wikitext", "wikipedia", False, wikitext),
    ("squad_reddit", "mixed", False, _lines("general/gen_squad_wiki_reddit.txt.gz")),
    ("state_union", "addresses", False, _paragraphs("state_union.zip", lambda name: True)),
    ("inaugural", "addresses", False, _paragraphs("inaugural.zip", lambda name: True)),
    ("genesis", "prose", False, _paragraphs("genesis.zip", lambda name: "english-web" in name)),
    ("novels", "prose", False, _lines("general/gen_novels.txt.gz")),
    ("captions", "sentences", False, captions),
    ("linguistics", "sentences", False, linguistics),
    ("firefox", "web", False, _web("firefox")),
    ("overheard", "web", False, _web("overheard")),
    ("pirates", "scripts", False, _web("pirates")),
    ("grail", "scripts", False, _web("grail")),
    ("sample_recipes", "generated", False, sample_recipes),
]
"""Name, kind, side and reader of each source."""
