"""`load_corpus` and `EcomNiverse`: the same rows streamed and not, domains chosen, errors that say what there is."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rexbert_hf
from rexbert_hf.catalog import split_of
from rexbert_hf.corpus.build import BuildSettings, build
from rexbert_hf.corpus.builder import EcomNiverse
from rexbert_hf.corpus.loading import load_corpus

DOMAINS = ("fashion", "hobby", "news")
ROWS = [
    {"id": f"d{i}", "text": f"page {i} about a lamp", "url": f"https://a.example/{i}", "domain": DOMAINS[i % 3]}
    for i in range(400)
]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    (folder / "kept").mkdir()
    pq.write_table(pa.Table.from_pylist(ROWS), folder / "kept" / "a.parquet")
    build(BuildSettings(held_out=0.2, shard_mb=0.001), folder / "kept", {}, folder / "corpus")
    return folder / "corpus"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def wanted(split="train", domains=DOMAINS):
    found = [row for row in ROWS if row["domain"] in domains and split_of(row["text"], 0.2) == split]
    return sorted(row["id"] for row in found)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("domains", [None, "news", ["news", "fashion"]])
def test_streaming_and_not_give_the_same_rows(corpus, split, domains):
    chosen = DOMAINS if domains is None else [domains] if isinstance(domains, str) else domains
    here = load_corpus(corpus, domains, split).to_list()
    streamed = list(load_corpus(corpus, domains, split, streaming=True))
    assert here == streamed
    assert sorted(row["id"] for row in here) == wanted(split, chosen)
    assert {row["domain"] for row in here} == set(chosen)


def test_the_run_folder_is_as_good_as_the_corpus_in_it(corpus):
    assert load_corpus(str(corpus.parent)).to_list() == load_corpus(str(corpus)).to_list()


def test_splits_can_be_joined(corpus):
    found = load_corpus(corpus, split="train+validation")
    assert sorted(found["id"]) == sorted(wanted("train") + wanted("validation"))


@pytest.mark.parametrize("config", ["default", "hobby"])
def test_keys_are_unique(corpus, config):
    builder = EcomNiverse(config_name=config, data_dir=corpus)
    keys = []
    for generator in builder._split_generators(None):
        keys += [key for key, _ in builder._generate_examples(**generator.gen_kwargs)]
    assert len(keys) == len(set(keys)) == (400 if config == "default" else sum(r["domain"] == "hobby" for r in ROWS))


def test_streams_are_sharded_by_file(corpus):
    stream = load_corpus(corpus, streaming=True)
    files = sorted(corpus.glob("*/train-*.parquet"))
    assert stream.num_shards == len(files) > 3
    parts = [list(stream.shard(num_shards=2, index=i)) for i in range(2)]
    assert sorted(row["id"] for part in parts for row in part) == wanted()


def test_a_corpus_built_anew_in_the_same_folder_is_another_one(tmp_path):
    for count in (50, 80):
        (tmp_path / "kept").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pylist(ROWS[:count]), tmp_path / "kept" / "a.parquet")
        build(BuildSettings(held_out=0.0), tmp_path / "kept", {}, tmp_path / "corpus")
        assert len(load_corpus(tmp_path / "corpus")) == count


def test_the_sample_needs_nothing():
    pages = rexbert_hf.load_corpus("sample", domains=["hobby", "fashion"])
    assert set(pages.unique("domain")) == {"hobby", "fashion"}
    assert len(pages) > 100
    assert pages.to_list() == list(load_corpus("sample", ["hobby", "fashion"], streaming=True))


def test_builders_have_their_configurations():
    names = [config.name for config in EcomNiverse.BUILDER_CONFIGS]
    assert names[:2] == ["default", "sample"]
    assert {"hobby", "news", "fashion"} <= set(names)
    with pytest.raises(ValueError, match="needs data_dir"):
        EcomNiverse(config_name="hobby").as_streaming_dataset(split="train")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"domains": "toys"}, ValueError, "has no domain 'toys': it has fashion, hobby, news"),
        ({"domains": ["news", "toys"], "streaming": True}, ValueError, "it has fashion, hobby, news"),
        ({"domains": []}, ValueError, "empty list"),
        ({"split": "dev"}, ValueError, "has no split 'dev': it has train, validation, test"),
    ],
)
def test_what_is_not_there_is_one_line(corpus, arguments, error, message):
    with pytest.raises(error, match=message) as caught:
        load_corpus(corpus, **arguments)
    assert "\n" not in str(caught.value)


def test_unknown_domains_of_the_sample_and_of_a_builder(corpus):
    with pytest.raises(ValueError, match="the sample has no domain 'toys': it has hobby, news"):
        load_corpus("sample", "toys")
    with pytest.raises(ValueError, match="has no domain 'toys': it has fashion, hobby, news"):
        EcomNiverse(config_name="toys", data_dir=corpus).as_streaming_dataset(split="train")


def test_a_folder_without_a_corpus(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished corpus"):
        load_corpus(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such corpus"):
        load_corpus(tmp_path / "gone" / "for" / "ever")
    (tmp_path / "file").touch()
    with pytest.raises(FileNotFoundError, match="no such corpus"):
        load_corpus(tmp_path / "file")


def test_a_hub_that_does_not_answer_is_not_a_missing_corpus(monkeypatch):
    def silent(*_, **__):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr("datasets.load_dataset", silent)
    with pytest.raises(ConnectionError, match="user/corpus: the Hub cannot be reached"):
        load_corpus("user/corpus")


def test_a_lost_file_is_named(tmp_path, corpus):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(corpus, copy)
    lost = sorted(copy.glob("news/train-*.parquet"))[0]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=f"{lost.name} is gone"):
        load_corpus(copy)
