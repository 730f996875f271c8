"""An index in a Qdrant that is asked over HTTP: what is sent, and that the answers are those of exact search."""

from __future__ import annotations

import pytest
from index_cases import DIM, HashModel, clustered, make_products

from rexbert_hf.retrieval.serving.index import ProductIndex

pytest.importorskip("qdrant_client")

from qdrant_server import QdrantServer

from rexbert_hf.retrieval.serving.qdrant_points import point_id

PRODUCTS = make_products(30)
WANTED = {"brand": ["Acme", "Bolt"], "price": (2, None), "in_stock": True}
SENT = {
    "must": [
        {"key": "brand", "match": {"any": ["Acme", "Bolt"]}},
        {"key": "price", "range": {"gte": 2.0}},
        {"should": [{"key": "in_stock", "match": {"value": True}}]},
    ]
}


@pytest.fixture
def server():
    with QdrantServer() as running:
        yield running


def build(server: QdrantServer, model: HashModel, kind: str = "flat", **options) -> ProductIndex:
    return ProductIndex.build(PRODUCTS, model, kind, backend="qdrant", url=server.url, collection="shop", **options)


@pytest.mark.parametrize(
    ("kind", "metric", "distance", "quantisation"),
    [
        ("flat", "cosine", "Cosine", None),
        ("hnsw", "dot", "Dot", None),
        ("int8", "cosine", "Cosine", {"scalar": {"type": "int8", "always_ram": True}}),
        ("binary", "cosine", "Cosine", {"binary": {"always_ram": True}}),
    ],
)
def test_a_build_makes_the_collection_that_it_describes(server, kind, metric, distance, quantisation):
    build(server, HashModel(), kind, metric=metric, links=9, ef_construction=70)
    ((alias, collection),) = [
        (found.alias_name, found.collection_name) for found in server.points.get_aliases().aliases
    ]
    assert alias == "shop"
    put = [(path, body) for method, path, body, _ in server.asked if method == "PUT"]
    path, made = put[0]
    assert path == f"/collections/{collection}"
    assert made["vectors"] == {"size": DIM, "distance": distance, "on_disk": quantisation is not None}
    assert made.get("hnsw_config") == (None if kind == "flat" else {"m": 9, "ef_construct": 70})
    assert made.get("quantization_config") == quantisation
    columns = {
        "category_path": "keyword",
        "brand": "keyword",
        "locale": "keyword",
        "price": "float",
        "in_stock": "bool",
    }
    assert {body["field_name"]: body["field_schema"] for path, body in put if path.endswith("/index")} == columns
    points = [point for path, body in put if path.endswith("/points") for point in body["points"]]
    assert [point["id"] for point in points] == [point_id(f"p{i}") for i in range(30)]
    assert {len(point["vector"]) for point in points} == {DIM}
    payload = points[1]["payload"]
    assert payload.pop("digest")
    assert payload == {
        **{
            "product_id": "p1",
            "text": "thing number 1",
            "brand": "Bolt",
            "locale": "en",
            "price": 0.5,
            "in_stock": False,
        },
        "category_path": ["Sport", "Shoes", "Running", "Sport > Shoes", "Sport > Shoes > Running"],
    }


def test_searches_ask_for_what_is_wanted_and_no_more(server):
    model, queries = HashModel(), clustered(3, seed=4)
    index, exact = build(server, model, "hnsw"), ProductIndex.build(PRODUCTS, model, "flat")
    server.asked.clear()
    found = index.search(queries, 4, WANTED)
    (body,) = server.bodies("POST", "/points/query/batch")
    assert [search["limit"] for search in body["searches"]] == [4, 4, 4]
    assert [search["with_payload"] for search in body["searches"]] == [["product_id"]] * 3
    assert [search["filter"] for search in body["searches"]] == [SENT] * 3
    assert [search["params"]["exact"] for search in body["searches"]] == [False] * 3
    for search, query in zip(body["searches"], queries, strict=True):
        assert search["query"]["nearest"] == pytest.approx(query.tolist(), abs=1e-6)
    for ours, theirs in zip(found, exact.search(queries, 4, WANTED), strict=True):
        assert dict(ours) == pytest.approx(dict(theirs), abs=1e-5)
    assert [name for name, _ in index.search("10", 3, WANTED, "lexical")[0]] == ["p10"]
    assert SENT in [body.get("filter") for body in server.bodies("POST", "/points/scroll")]


def test_changes_and_what_is_read_back(server):
    model = HashModel()
    index = build(server, model)
    server.asked.clear()
    model.seen.clear()
    assert index.upsert([dict(PRODUCTS[3], title="another"), dict(PRODUCTS[4], price=99)]) == 1
    assert model.seen == ["another"]
    (body,) = server.bodies("PUT", "/points")
    assert [point["id"] for point in body["points"]] == [point_id("p3"), point_id("p4")]
    assert index.delete(["p5", "unknown"]) == 1
    assert server.bodies("POST", "/points/delete") == [{"points": [point_id("p5")]}]
    assert (len(index), len(index.ids())) == (29, 29)
    assert index.texts(["p3", "p5"]) == ["another", None]
    assert index.facts(["p4"])[0]["price"] == 99
    assert index.choices("brand") == ["Acme", "Bolt", "Cord"]


def test_a_new_build_takes_the_old_ones_place_and_its_readers_follow(server, tmp_path):
    model = HashModel()
    index = build(server, model)
    index.save(tmp_path)
    reader = ProductIndex.load(tmp_path, model)
    ProductIndex.build(PRODUCTS[:7], model, "flat", backend="qdrant", url=server.url, collection="shop")
    assert len(server.points.get_collections().collections) == 1
    assert len(reader) == len(index) == 7  # told by the server's 404
    build(server, HashModel("another"))
    with pytest.raises(ValueError, match="built again with another model"):
        reader.search("thing", 1)


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
def test_the_key_goes_along_with_each_request(server):
    build(server, HashModel(), api_key="secret").search("thing", 1)
    assert {key for *_, key in server.asked} == {"secret"}
