"""Manifests of strangers name files of their own folder, and no other: nothing else is read, or pushed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))

from filter_cases import tiny_classifier

from rexbert_hf.corpus.build import BuildSettings, build
from rexbert_hf.corpus.fasttext_model import METADATA, FastTextClassifier
from rexbert_hf.corpus.manifest import MANIFEST as CORPUS
from rexbert_hf.corpus.manifest import Manifest
from rexbert_hf.corpus.publish import push_corpus
from rexbert_hf.data.manifest import MANIFEST
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.retrieval.serving.onnx_encoder import read_export

OUTSIDE = ["{folder}/secret", "../secret", "inside/../../secret", "..", "", ".", "a\0b", None, 5, ["secret"], {}]


def outside(folder: Path) -> list[object]:
    """Names that lead out of a folder in this one, or are none; the file that some of them mean is there."""
    (folder / "secret").write_text("a secret")
    return [name.format(folder=folder) if isinstance(name, str) else name for name in OUTSIDE]


def change(path: Path, change) -> None:
    facts = json.loads(path.read_text(encoding="utf-8"))
    change(facts)
    path.write_text(json.dumps(facts), encoding="utf-8")


def refused(call, name) -> None:
    with pytest.raises(ValueError, match="again") as error:
        call()
    assert "\n" not in str(error.value), name
    assert "a secret" not in str(error.value)


def test_names_that_stay():
    assert all(map(stays_inside, ["a", "a.arrow", "a/b/c.parquet", "..a", "a..b", "\u5bb6/a", "a b"]))


def test_names_that_lead_out(tmp_path):
    assert not any(map(stays_inside, [*outside(tmp_path), "/", "//a/b", "a/.."]))


@pytest.mark.parametrize("place", ["shards", "files"])
def test_tokenised_rows(tmp_path, place):
    rows = TokenisedDataset.from_rows([{"input_ids": [1, 2, 3], "word_ids": [-1, 0, -1]}])
    for number, name in enumerate(name for name in outside(tmp_path) if place == "shards" or isinstance(name, str)):
        folder = tmp_path / str(number)
        rows.save(folder)

        def named(facts, name=name):
            facts.pop("manifest_crc32")
            if place == "shards":
                facts["shards"] = [name]
            else:
                facts["files"][name] = {"bytes": 8, "crc32": 0}

        change(folder / MANIFEST, named)
        refused(lambda folder=folder: TokenisedDataset.load(folder), name)


def test_tokenised_rows_elsewhere_are_not_opened(tmp_path):
    """The shard would fit: it is another's."""
    for name in ("theirs", "mine"):
        TokenisedDataset.from_rows([{"input_ids": [1, 2], "word_ids": [-1, -1]}]).save(tmp_path / name)

    def others(facts):
        facts.pop("manifest_crc32")
        facts.update(shards=[str(tmp_path / "mine" / facts["shards"][0])], files={})

    change(tmp_path / "theirs" / MANIFEST, others)
    with pytest.raises(ValueError, match=r"is damaged \(it names .* which is no file of the folder\): tokenise again"):
        TokenisedDataset.load(tmp_path / "theirs")


def test_classifiers(tmp_path):
    pytest.importorskip("fasttext")
    folder = tmp_path / "classifier"
    model = tiny_classifier().save(folder)
    content = model.read_bytes()
    for name in outside(tmp_path):
        (tmp_path / "secret").write_bytes(content)  # it would be taken
        change(folder / METADATA, lambda facts, name=name: facts.update(file=name))
        refused(lambda: FastTextClassifier.load(folder), name)


def test_exports(tmp_path):
    facts = {"source": "x", "fingerprint": "f", "dim": 8, "max_length": 16, "pad_id": 0, "prompts": {}}
    folder = tmp_path / "export"
    folder.mkdir()
    for name in [*outside(tmp_path), "below/model.onnx"]:
        (folder / "encoder.json").write_text(json.dumps(facts | {"graphs": {"fp32": name}}))
        refused(lambda: read_export(folder), name)


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "kept").mkdir()
    table = pa.table({"id": ["a"], "text": ["a lamp"], "url": [""], "domain": ["home"]})
    pq.write_table(table, tmp_path / "kept" / "a.parquet")
    build(BuildSettings(held_out=0.0), tmp_path / "kept", {}, tmp_path / "corpus")
    return tmp_path / "corpus"


def test_files_of_a_corpus_are_neither_read_nor_pushed(corpus, tmp_path):
    whole = (corpus / CORPUS).read_text(encoding="utf-8")
    for name in outside(tmp_path):

        def listed(facts, name=name):
            facts["domains"]["home"]["splits"]["train"]["files"].append(name)

        change(corpus / CORPUS, listed)
        refused(lambda: Manifest.read(corpus), name)
        refused(lambda: push_corpus(corpus, "tester/corpus", endpoint="http://127.0.0.1:9"), name)
        (corpus / CORPUS).write_text(whole, encoding="utf-8")
    assert Manifest.read(corpus).domains == ["home"]


@pytest.mark.parametrize("domain", ["../other", "{folder}/other"])
def test_domains_of_a_corpus_that_lie_elsewhere(corpus, tmp_path, domain):
    def moved(facts):
        facts["domains"][domain.format(folder=tmp_path)] = facts["domains"].pop("home")

    (corpus / "home").rename(tmp_path / "other")
    change(corpus / CORPUS, moved)
    refused(lambda: Manifest.read(corpus), domain)


@pytest.mark.parametrize("domains", [None, [], {"home": None}, {"home": {}}, {"home": {"splits": {"train": []}}}])
def test_a_corpus_of_another_shape(corpus, domains):
    change(corpus / CORPUS, lambda facts: facts.update(domains=domains))
    if domains == []:
        change(corpus / CORPUS, lambda facts: facts.update(domains=["home"]))
    refused(lambda: Manifest.read(corpus), domains)
