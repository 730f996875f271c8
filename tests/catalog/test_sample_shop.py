from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter, defaultdict

import pytest

from rexbert_hf.catalog import LABELS, SAMPLE_KINDS, SENTIMENTS, load_sample
from rexbert_hf.catalog.sample.behaviour import Shelves, label_of, make_queries
from rexbert_hf.catalog.sample.products import make_products
from rexbert_hf.catalog.sample.prose import past_tense, plural_of
from rexbert_hf.catalog.sample.vocabulary import brands, leaves

SIZE = 400


def rows(kind, seed=0, size=SIZE):
    return load_sample(kind, seed, size).to_list()


@pytest.fixture(scope="module")
def products():
    return {row["product_id"]: row for row in rows("products")}


# --- determinism ---

DIGEST = """
import hashlib, json
from rexbert_hf.catalog import SAMPLE_KINDS, load_sample
digest = hashlib.sha1()
for kind in SAMPLE_KINDS:
    digest.update(json.dumps(load_sample(kind, seed=3, size=90).to_list(), default=str).encode())
digest = digest.hexdigest()
"""


def test_a_process_with_another_hash_seed_agrees():
    here: dict[str, str] = {}
    exec(DIGEST, here)
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    there = subprocess.run(
        [sys.executable, "-c", DIGEST + "print(digest)"],
        env=os.environ | {"PYTHONHASHSEED": other},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert len(here["digest"]) == 40
    assert there.stdout.split() == [here["digest"]]


def test_loading_touches_no_global_random_state():
    random.seed(5)
    expected = random.random()
    random.seed(5)
    load_sample("products", seed=77, size=30)
    assert random.random() == expected


def test_order_of_loading_does_not_matter():
    from rexbert_hf.catalog import sample

    def everything(kinds):
        for cached in (sample._products, sample._intents, sample._pages, sample._load):
            cached.cache_clear()
        return {kind: load_sample(kind, 1, 40).to_list() for kind in kinds}

    assert everything(SAMPLE_KINDS) == everything(SAMPLE_KINDS[::-1])


@pytest.mark.parametrize("kind", SAMPLE_KINDS)
def test_seeds_differ_and_sizes_scale(kind):
    few, many = load_sample(kind, 0, 200), load_sample(kind, 0, 2_000)
    assert few.to_list() != load_sample(kind, 1, 200).to_list()
    # Leaves of a small shop run out of substitutes and complements, hence up to half more than ten times as many.
    assert 8 * len(few) <= len(many) <= 15 * len(few)


def test_unknown_kind_lists_the_kinds():
    with pytest.raises(ValueError, match=r"'product'.*products, queries.*long_text"):
        load_sample("product")
    with pytest.raises(ValueError, match="size=1"):
        load_sample("products", size=1)


# --- the shop ---


def test_default_shop_is_as_large_as_promised():
    shop = load_sample("products")
    assert len(shop) >= 2_000
    paths = {tuple(path) for path in shop["category_path"]}
    assert len(paths) >= 40
    assert len({path[0] for path in paths}) >= 8
    assert len(set(shop["title"])) > 0.99 * len(shop)
    assert len(load_sample("general_text")) >= 3_000


def test_tree_is_sound():
    tree = leaves()
    types = Counter(kind for leaf in tree.values() for kind in leaf.attributes["type"])
    assert max(types.values()) == 1, "a product type belongs to one leaf"
    for leaf in tree.values():
        assert set(leaf.complements) <= set(tree) - {leaf.name}
        assert leaf.price[0] < leaf.price[1]
        for values in (*leaf.attributes.values(), leaf.features, leaf.aspects, leaf.uses):
            assert len(values) == len(set(values)) >= 2, leaf.name
        assert len(leaf.features) >= 3
    names = [brand.name for makers in brands().values() for brand in makers]
    assert len(names) == len(set(names))


def test_products_agree_with_themselves(products):
    departments = defaultdict(set)
    for row in products.values():
        attributes = {attribute["name"]: attribute["value"] for attribute in row["attributes"]}
        leaf = leaves()[row["category_path"][-1]]
        assert tuple(row["category_path"]) == leaf.path
        for name, values in leaf.attributes.items():
            assert attributes[name] in values
        assert attributes["type"].lower() in row["title"].lower()
        assert row["brand"] in row["title"]
        assert row["brand"] in row["description"]
        price = float(attributes["price"].removeprefix("$"))
        assert leaf.price[0] - 1 <= price <= leaf.price[1]
        stated = [value for name, value in attributes.items() if name in leaf.attributes and name != "type"]
        assert any(value in row["title"] for value in stated)
        assert sum(value in row["description"] for value in stated) >= 2
        assert "{" not in row["title"] + row["description"]
        departments[row["brand"]].add(row["category_path"][0])
    assert all(len(places) == 1 for places in departments.values()), "a brand stays in its department"


def test_brands_have_habits():
    """Knowing the brand must help to guess a value; without habits both shares would be equal."""
    chosen = defaultdict(Counter)
    overall = defaultdict(Counter)
    for product in make_products(0, 3_000):
        for name, value in product.attributes.items():
            if name != "type":
                chosen[product.leaf.name, name, product.brand.name][value] += 1
                overall[product.leaf.name, name][value] += 1
    groups = {key: counts for key, counts in chosen.items() if counts.total() >= 8}
    by_brand = sum(max(counts.values()) for counts in groups.values()) / sum(map(Counter.total, groups.values()))
    by_leaf = sum(max(counts.values()) for counts in overall.values()) / sum(map(Counter.total, overall.values()))
    assert by_brand > by_leaf + 0.1


def test_brands_are_strong_in_some_leaves_and_absent_from_others():
    shares = defaultdict(Counter)
    for product in make_products(0, 3_000):
        shares[product.leaf.name][product.brand.name] += 1
    # With nine equal brands and some 45 products a leaf, nearly every brand would be in every leaf.
    absent = sum(9 - len(counts) for counts in shares.values())
    assert absent > len(shares)


def test_dearer_brands_and_values_cost_more():
    prices = defaultdict(list)
    for product in make_products(0, 3_000):
        low, high = product.leaf.price
        prices[product.brand.level >= 0.5].append((product.price - low) / (high - low))
    assert sum(prices[True]) / len(prices[True]) > 1.3 * sum(prices[False]) / len(prices[False])


# --- behaviour ---


def by_hand(intent, product):
    """The rules of the module's docstring, said differently."""
    same_leaf = intent.leaf.path == product.leaf.path
    met = all(product.attributes.get(key) == value for key, value in intent.wishes.items())
    met = met and (intent.brand is None or intent.brand == product.brand.name)
    table = {(True, True): "E", (True, False): "S"}
    if same_leaf:
        return table[same_leaf, met]
    return "C" if product.leaf.name in intent.leaf.complements else "I"


def test_labels_follow_the_rules():
    shop = make_products(0, SIZE)
    intents = {intent.query: intent for intent in make_queries(0, shop)}
    by_id = {product.product_id: product for product in shop}
    judged = rows("query_products")
    for row in judged:
        assert row["label"] == by_hand(intents[row["query"]], by_id[row["product_id"]])
        assert row["relevance"] is None
    assert set(Counter(row["label"] for row in judged)) == set(LABELS)
    assert {row["query"] for row in judged if row["label"] == "E"} == set(intents), "every query has an exact answer"
    assert len({(row["query"], row["product_id"]) for row in judged}) == len(judged)


def test_a_substitute_misses_one_wish_only():
    shop = make_products(0, SIZE)
    intent = next(intent for intent in make_queries(0, shop) if len(intent.wishes) > 1 and intent.brand)
    source = intent.source
    assert label_of(intent, source) == "E"
    rival = next(p for p in shop if p.leaf is source.leaf and p.brand is not source.brand)
    assert label_of(intent, rival) == "S"
    complement = next(p for p in shop if p.leaf.name in source.leaf.complements)
    assert label_of(intent, complement) == "C"
    stranger = next(p for p in shop if p.leaf.department not in {source.leaf.department, complement.leaf.department})
    assert (label_of(intent, stranger) == "I") == (stranger.leaf.name not in source.leaf.complements)


def test_queries_are_distinct_and_known_to_events(products):
    queries = rows("queries")
    texts = [row["query"] for row in queries]
    assert len(set(texts)) == len(texts) == len({row["query_id"] for row in queries})
    assert all(text == " ".join(text.split()) and text for text in texts)
    assert all(row["frequency"] >= 1 for row in queries)
    assert {tuple(row["category_path"]) for row in queries} <= {
        tuple(row["category_path"]) for row in products.values()
    }
    assert {row["query"] for row in rows("events")} <= set(texts)


def test_events_are_possible_and_biased_by_position(products):
    shown, clicked, last = Counter(), Counter(), None
    for event in rows("events"):
        assert set(event["bought"]) <= set(event["clicked"]) <= set(event["shown"]) <= set(products)
        assert len(set(event["shown"])) == len(event["shown"]) > 0
        assert last is None or event["time"] >= last
        last = event["time"]
        for position, product_id in enumerate(event["shown"]):
            shown[position] += 1
            clicked[position] += product_id in event["clicked"]
    assert clicked[0] / shown[0] > 2 * clicked[5] / shown[5] > 0


def test_position_bias_is_not_only_quality():
    """The same product is clicked less often for the same query when it stands lower."""
    seen = defaultdict(lambda: [0, 0, 0, 0])
    for event in rows("events", size=800):
        for position, product_id in enumerate(event["shown"]):
            counts = seen[event["query"], product_id]
            low = position >= 5
            counts[2 * low] += product_id in event["clicked"]
            counts[2 * low + 1] += 1
    both = [counts for counts in seen.values() if counts[1] >= 3 and counts[3] >= 3]
    assert len(both) > 100
    high = sum(counts[0] / counts[1] for counts in both) / len(both)
    low = sum(counts[2] / counts[3] for counts in both) / len(both)
    assert high > 1.3 * low


def test_associations_join_known_products_to_others(products):
    pairs = rows("associations")
    kinds = defaultdict(set)
    for pair in pairs:
        assert pair["product_a"] != pair["product_b"]
        assert {pair["product_a"], pair["product_b"]} <= set(products)
        kinds[pair["kind"]].add(pair["product_a"])
    assert kinds["also_buy"] == kinds["also_view"] == set(products), "no product without neighbours"
    assert set(kinds) == {"also_buy", "also_view"}
    for pair in pairs:
        a, b = (products[pair[side]]["category_path"][-1] for side in ("product_a", "product_b"))
        assert (a == b) if pair["kind"] == "also_view" else (b in leaves()[a].complements)


def test_small_shops_have_substitutes_and_complements():
    for size in (6, 20, 60):
        assert set(LABELS) - {"I", "C"} <= {row["label"] for row in rows("query_products", size=size)}, size
    assert {row["label"] for row in rows("query_products", size=20)} == set(LABELS)


def test_a_tiny_shop_still_has_neighbours():
    ids = {row["product_id"] for row in rows("products", size=2)}
    for pair in rows("associations", size=2):
        assert {pair["product_a"], pair["product_b"]} == ids


def test_shelves_draw_what_a_label_says():
    shop = make_products(0, SIZE)
    shelves = Shelves(shop)
    intent = make_queries(0, shop)[0]
    drawn = shelves.candidates(random.Random(0), intent, {"S": 2, "I": 3})
    assert Counter(label for _, label in drawn) == {"S": 2, "I": 3}
    assert all(label_of(intent, product) == label for product, label in drawn)


def test_the_product_behind_a_query_is_always_judged():
    shop = make_products(0, SIZE)
    intent = make_queries(0, shop)[0]
    rest = Shelves([product for product in shop if product is not intent.source])
    drawn = rest.candidates(random.Random(0), intent, {"E": 99})
    assert (intent.source, "E") in drawn


# --- text ---


def test_review_spans_are_exact(products):
    sentiments = Counter()
    for review in rows("reviews"):
        assert review["product_id"] in products
        assert 1 <= review["rating"] <= 5
        assert review["aspects"]
        aspects = leaves()[products[review["product_id"]]["category_path"][-1]].aspects
        for aspect in review["aspects"]:
            assert review["text"][aspect["start"] : aspect["end"]] == aspect["term"]
            assert aspect["term"] in aspects
            sentiments[aspect["sentiment"]] += 1
        assert "{" not in review["text"]
    assert set(sentiments) == set(SENTIMENTS)


def test_rating_and_sentiment_agree_more_often_than_not():
    ratings = defaultdict(list)
    for review in rows("reviews"):
        for aspect in review["aspects"]:
            ratings[aspect["sentiment"]].append(review["rating"])
    means = {sentiment: sum(values) / len(values) for sentiment, values in ratings.items()}
    assert means["positive"] > means["neutral"] > means["negative"]


def test_answers_are_exact_and_true(products):
    for question in rows("questions"):
        attributes = {item["name"]: item["value"] for item in products[question["product_id"]]["attributes"]}
        [answer] = question["answers"]
        start, text = answer["start"], answer["text"]
        assert question["context"][start : start + len(text)] == text
        asked = [name for name, value in attributes.items() if value == text and name in question["question"].lower()]
        assert asked, question


def test_ids_are_unique():
    for kind, key in {
        "products": "product_id",
        "reviews": "review_id",
        "questions": "question_id",
        "web": "url",
    }.items():
        ids = [row[key] for row in rows(kind)]
        assert len(set(ids)) == len(ids), kind


def test_web_mixes_shop_and_prose_in_every_domain():
    pages = rows("web", size=2_400)
    shares = defaultdict(Counter)
    for page in pages:
        shares[page["domain"]][page["label"]] += 1
        assert page["text"].strip()
        assert "{" not in page["text"]
    assert len(shares) >= 12
    assert all(set(counts) == {"shop", "general"} for counts in shares.values())
    assert shares["hobby"]["shop"] > 4 * shares["science"]["shop"]


def test_texts_are_varied():
    general, shop = load_sample("general_text")["text"][:], load_sample("shop_text")["text"][:]
    assert len(set(general)) == len(general)
    assert len(set(shop)) > 0.99 * len(shop)
    vocabulary = {word.strip('.,:;?!"()').lower() for text in (*general, *shop) for word in text.split()}
    assert len({word for word in vocabulary if word.isalpha()}) > 3_000
    sentences = Counter(sentence for text in general for sentence in text.split(". "))
    assert sentences.most_common(1)[0][1] < 0.01 * len(general), "no sentence stands in every page"


def test_general_text_is_the_general_part_of_the_web():
    general = [page["text"] for page in rows("web") if page["label"] == "general"]
    assert [row["text"] for row in rows("general_text")] == general


def test_shop_text_holds_titles_reviews_and_queries(products):
    texts = {row["text"] for row in rows("shop_text")}
    assert {row["title"] for row in products.values()} <= texts
    assert {row["text"] for row in rows("reviews")} <= texts
    assert {row["query"] for row in rows("queries")} <= texts


def test_long_documents_are_long_and_keep_their_people():
    documents = [row["text"] for row in rows("long_text")]
    for text in documents:
        assert len(text.split()) >= 3_000
    # Names of the first hundred words come back in the last thousand, unlike those of another document.
    names = [{word for word in text.split()[:100] if word.istitle() and len(word) > 3} for text in documents]
    tails = [set(text.split()[-1000:]) for text in documents]
    own = sum(len(names[i] & tails[i]) for i in range(len(documents)))
    other = sum(len(names[i] & tails[i - 1]) for i in range(len(documents)))
    assert own > 1.5 * other


@pytest.mark.parametrize(
    ("verb", "past"), [("sow", "sowed"), ("dig", "dug"), ("trim", "trimmed"), ("apply", "applied"), ("dye", "dyed")]
)
def test_past_tense(verb, past):
    assert past_tense(verb) == past


@pytest.mark.parametrize(("one", "many"), [("bench", "benches"), ("fox", "foxes"), ("day", "days"), ("city", "cities")])
def test_plural(one, many):
    assert plural_of(one) == many
