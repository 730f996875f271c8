"""An index goes to the Hub in one commit and comes back the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import DatasetCard, HfApi, ModelCard, constants
from index_cases import HashModel, clustered, make_products
from onnx_cases import TEXTS, small_encoder

from rexbert_hf.hub import pull, trouble
from rexbert_hf.retrieval.serving import query_model
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_card import index_card
from rexbert_hf.retrieval.serving.index_folder import described, read_facts
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, ProductSource, run_build_index
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
from rexbert_hf.retrieval.serving.onnx_recipe import push_onnx
from rexbert_hf.retrieval.serving.query_model import load_model

HUB_TESTS = Path(__file__).parents[1] / "hub"
QUERIES = clustered(5, seed=4)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(HUB_TESTS))
    from hub_server import HubServer

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.01)
    with HubServer(tmp_path / "hub") as server:
        yield server


def test_round_trip(hub, tmp_path):
    from hub_server import TOKEN

    model, options = HashModel(), {"endpoint": hub.endpoint, "token": TOKEN}
    index = ProductIndex.build(make_products(200), model, "int8", lexical=True)
    index.delete(["p3"])
    assert index.push_to_hub("tester/shop-index", **options).endswith("tester/shop-index")
    folder = pull.resolve("tester/shop-index", repo_type="dataset", endpoint=hub.endpoint, token=TOKEN)
    again = ProductIndex.load(folder, model)
    for mode in ("lexical", "hybrid"):
        assert again.search(["thing number 8"], 9, mode=mode) == index.search(["thing number 8"], 9, mode=mode)
    assert again.search(QUERIES, 9) == index.search(QUERIES, 9)
    with pytest.raises(ValueError, match="this index was built with hash"):
        ProductIndex.load(folder, HashModel("another"))
    card = DatasetCard(hub.files("tester/shop-index", "dataset")["README.md"].decode())
    assert "199 products, 32 dimensions, kind `int8`" in card.text
    assert "product-search" in card.data.tags
    commits = HfApi(**options).list_repo_commits("tester/shop-index", repo_type="dataset")
    assert len(commits) == 2  # one commit, whatever the number of files


@pytest.fixture
def repos(hub, monkeypatch):
    """Names on the Hub reach the local one; returns how to push a folder there."""
    from hub_server import TOKEN

    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{repo_id}")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "".join(template[1:]))
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)

    def push(folder, name) -> str:
        api.create_repo(name, exist_ok=True)
        return str(api.upload_folder(repo_id=name, folder_path=folder).oid)

    return push


def test_an_index_loads_its_model_from_the_commit_that_it_was_built_with(hub, repos, tmp_path, monkeypatch):
    from hub_server import TOKEN

    model = small_encoder()
    model.save_pretrained(str(tmp_path / "model"))
    commit = repos(tmp_path / "model", "tester/model")
    products = make_products(20)
    index = ProductIndex.build(products, "tester/model", "flat", revision="main")
    assert (index.identity.name, index.identity.revision) == ("tester/model", commit)
    index.push_to_hub("tester/shop-index", endpoint=hub.endpoint, token=TOKEN)
    other = small_encoder("cls")
    other.save_pretrained(str(tmp_path / "other"))
    newer = repos(tmp_path / "other", "tester/model")
    again = ProductIndex.load("tester/shop-index")
    assert again.search("thing number 7", 5) == index.search("thing number 7", 5)  # not with what is in main now
    with pytest.raises(ValueError, match=f"this index was built with tester/model at {commit} "):
        again.model = "tester/model"
    run = BuildIndexRun(
        model="tester/model", products=ProductSource(sample_size=20), output_dir=tmp_path / "index",
        index=IndexOptions(kind="flat"),
    )  # fmt: skip
    for revision, known in ((commit, commit), (None, newer)):
        run.revision = revision
        assert run_build_index(run)["updated"] is False
        assert ProductIndex.load(tmp_path / "index").identity.revision == known
    with pytest.raises(ValueError, match="is a local folder and has no revision"):
        ProductIndex.build(products, tmp_path / "model", "flat", revision="main")
    with pytest.raises(ValueError, match="only a repository has one"):
        ProductIndex.build(products, "hashing", "flat", revision="main")


@pytest.mark.parametrize("first", [load_model, OnnxEncoder.from_pretrained])
def test_an_export_is_pulled_and_serves(repos, tmp_path, first):
    """Whichever pulls first: what one leaves in the cache must not be what the other lives on."""
    pytest.importorskip("onnxscript")
    from rexbert_hf.retrieval.serving.onnx_export import export_onnx

    export_onnx(small_encoder(), tmp_path / "export", ("fp32",), texts=TEXTS)
    commit = repos(tmp_path / "export", "tester/onnx")
    expected = OnnxEncoder(tmp_path / "export").encode(TEXTS)
    for pull_encoder in (first, OnnxEncoder.from_pretrained, load_model):
        np.testing.assert_array_equal(pull_encoder("tester/onnx", revision=commit).encode(TEXTS), expected)
    index = ProductIndex.build(make_products(20), "tester/onnx", "flat")
    index.save(tmp_path / "index")
    again = ProductIndex.load(tmp_path / "index")
    assert isinstance(again.model, OnnxEncoder)
    assert again.identity.revision == commit
    assert again.search("thing number 7", 1) == index.search("thing number 7", 1)


def test_a_second_push_removes_what_is_no_longer_there(hub):
    from hub_server import TOKEN

    options = {"endpoint": hub.endpoint, "token": TOKEN}
    ProductIndex.build(make_products(50), HashModel(), "hnsw", lexical=True).push_to_hub("tester/a", **options)
    before = set(hub.files("tester/a", "dataset"))
    ProductIndex.build(make_products(50), HashModel(), "flat").push_to_hub("tester/a", **options)
    gone = before - set(hub.files("tester/a", "dataset"))
    assert "index.faiss" in gone
    assert any(name.startswith("bm25/") for name in gone)


def test_a_push_that_is_refused_says_so(hub):
    index = ProductIndex.build(make_products(5), HashModel(), "flat")
    with pytest.raises(PermissionError, match="tester/a was not pushed"):
        index.push_to_hub("tester/a", endpoint=hub.endpoint, token="hf_" + "x" * 30)


def test_an_export_goes_up_with_what_serving_needs(hub, tmp_path):
    from hub_server import TOKEN

    graphs = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
    others = ("tokenizer.json", "onnx_encoder.py", "run.json", "x.pt", "model_of_another.onnx")
    facts = {"source": "user/student", "fingerprint": "", "dim": 8, "max_length": 48, "pad_id": 0, "prompts": {}}
    (tmp_path / "export").mkdir()
    for name in (*graphs.values(), *others):
        (tmp_path / "export" / name).write_text("{}")
    (tmp_path / "export" / "encoder.json").write_text(json.dumps({**facts, "graphs": graphs}))
    latency = {"int8": {"p50": 0.412, "p99": 0.9}, "torch": {"p50": 3.2, "p99": 4.0}}
    results = {"latency_ms": latency, "difference": {"int8": {"mean_cosine": 0.9987}}}
    push_onnx(tmp_path / "export", "tester/onnx", "user/student", results, endpoint=hub.endpoint, token=TOKEN)
    files = hub.files("tester/onnx")
    wanted = {"model.onnx", "model_int8.onnx", "tokenizer.json", "encoder.json", "onnx_encoder.py"}
    assert set(files) - {"README.md", ".gitattributes"} == wanted
    card = ModelCard(files["README.md"].decode())
    assert "| int8 | 0.41 | 0.90 | 0.9987 |" in card.text
    assert "| torch | 3.20 | 4.00 |  |" in card.text
    assert card.data.base_model == "user/student"
    assert "cuts texts to 48 tokens" in card.text
    assert "com.microsoft" not in card.text
    facts |= {"graphs": {"int8": "model_int8.onnx"}, "fused": True}
    (tmp_path / "export" / "encoder.json").write_text(json.dumps(facts))
    push_onnx(tmp_path / "export", "tester/onnx", "user/newer", results, endpoint=hub.endpoint, token=TOKEN)
    files = hub.files("tester/onnx")
    assert "model.onnx" not in files
    card = ModelCard(files["README.md"].decode())
    assert card.data.base_model == "user/newer"
    said = " ".join(card.text.split())
    assert "onnxruntime's own operators (`com.microsoft`), which other runtimes do not know" in said
    assert "it takes at most 48 tokens" in said
    push_onnx(tmp_path / "export", "tester/onnx", None, results, endpoint=hub.endpoint, token=TOKEN)
    assert ModelCard(hub.files("tester/onnx")["README.md"].decode()).data.base_model is None


def test_the_card_of_an_index_of_given_vectors_names_no_model(tmp_path):
    index = ProductIndex.build(make_products(5), None, "flat", vectors=clustered(5))
    card = index_card(read_facts(index.save(tmp_path)), index.filter_columns, "me/shop")
    assert DatasetCard(card).data.to_dict().get("base_model") is None
    assert 'index = ProductIndex.load("me/shop")' in card
    assert "index.search(vectors, k=10" in card
    assert "built from given vectors" in card
    assert "model=" not in card


def test_the_card_of_an_index_of_a_local_model_says_what_is_missing(tmp_path):
    index = ProductIndex.build(make_products(5), "hashing", "flat")
    facts = read_facts(index.save(tmp_path))
    assert 'load("me/shop", model="hashing")\n' in index_card(facts, [], "me/shop")
    facts["model"] |= {"name": "my-student", "local": True}
    card = index_card(facts, [], "me/shop")
    assert 'load("me/shop", model="...")  # push the encoder first and put its name here\n' in card
    assert "my-student" in card


@pytest.mark.parametrize(
    ("model", "load", "base"),
    [
        ({"name": "all-MiniLM-L6-v2", "revision": "a" * 40}, 'model="all-MiniLM-L6-v2")', "all-MiniLM-L6-v2"),
        ({"name": "bert-base-uncased", "local": False}, 'model="bert-base-uncased")', "bert-base-uncased"),
        ({"name": "user/student"}, 'model="user/student")', "user/student"),
        ({"name": "hashing", "local": False}, 'model="hashing")', None),
        ({"name": "student"}, 'model="...")', None),
        ({"name": "~/student"}, 'model="...")', None),
        ({"name": "../student"}, 'model="...")', None),
        ({"name": "./student", "revision": "a" * 40}, 'model="...")', None),
        ({"name": "output/student", "local": True}, 'model="...")', None),
        ({"name": "."}, 'model="...")', None),
    ],
)
def test_a_pushed_index_knows_a_folder_from_a_repository(tmp_path, monkeypatch, model, load, base):
    """Repositories without a user were taken for folders, and folders named from where the process stood were not."""
    monkeypatch.chdir(tmp_path)

    def pushed(files, repo_id, card, **options):
        return json.loads(files["index.json"].read_text())["model"], card

    monkeypatch.setattr("rexbert_hf.retrieval.serving.index_card.push_files", pushed)
    index = ProductIndex.build(make_products(5), HashModel(), "flat")
    index.identity.revision, index.identity.local = model.get("revision"), model.get("local")
    index.identity.name = model["name"]
    told, card = index.push_to_hub("me/shop")
    assert load in card
    assert DatasetCard(card).data.to_dict().get("base_model") == base
    folder = load == 'model="...")'
    assert told["name"] == (Path(model["name"]).absolute().name if folder else model["name"])
    assert told["local"] is (True if folder else model.get("local"))


@pytest.mark.parametrize("name", ["hashing", "output/student"])
def test_an_index_remembers_whether_its_model_was_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir(parents=True)
    monkeypatch.setattr(query_model, "open_model", lambda model, revision: (HashModel(), None))
    index = ProductIndex.build(make_products(5), name, "flat")
    index.save("index")
    assert ProductIndex.load("index").identity.local is (name != "hashing")
    facts = read_facts(index.save("index"))
    del facts["model"]["local"]  # as earlier versions wrote it
    assert described(tmp_path, facts)[1].local is None
