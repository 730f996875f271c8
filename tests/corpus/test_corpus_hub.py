"""A corpus pushed to a Hub, and read from it by a process that has only `datasets`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_server import TOKEN, HubServer
from huggingface_hub import DatasetCard, HfApi, constants

from rexbert_hf.corpus.build import BuildSettings, CorpusFacts, build
from rexbert_hf.corpus.publish import push_corpus
from rexbert_hf.hub import trouble

PULL = """
import json, sys


class NoPackage:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "rexbert_hf":
            raise ImportError("not here")


sys.meta_path.insert(0, NoPackage())
from datasets import get_dataset_config_names, load_dataset

found = {"configs": get_dataset_config_names("tester/corpus")}
for config in found["configs"]:
    for split in ("train", "validation"):
        stream = [row["id"] for row in load_dataset("tester/corpus", config, split=split, streaming=True)]
        found[f"{config} {split}"] = load_dataset("tester/corpus", config, split=split)["id"][:]
        assert stream == found[f"{config} {split}"]
found["without a name"] = load_dataset("tester/corpus", split="train")["id"][:]
assert "rexbert_hf" not in sys.modules
print(json.dumps(found))
"""
LOAD = """
import json, sys
from rexbert_hf import load_corpus

found = {}
for streaming in (False, True):
    rows = load_corpus("tester/corpus", ["news", "hobby"], streaming=streaming)
    found[str(streaming)] = [row["id"] for row in rows]
found["all"] = load_corpus("tester/corpus@main", split="validation")["id"][:]
for arguments in ({"domains": "toys"}, {"split": "dev"}):
    try:
        load_corpus("tester/corpus", **arguments)
    except ValueError as error:
        found[str(arguments)] = str(error)
try:
    load_corpus("tester/nothing")
except FileNotFoundError as error:
    found["nothing"] = str(error)
print(json.dumps(found))
"""


def build_corpus(folder, domains, count=120):
    rows = [
        {"id": f"d{i}", "text": f"page {i} of lamps", "url": "", "domain": domains[i % len(domains)]}
        for i in range(count)
    ]
    (folder / "kept").mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "kept" / "a.parquet")
    settings = BuildSettings(held_out=0.3, shard_mb=0.0005, card=CorpusFacts(name="Lamps", license="odc-by"))
    build(settings, folder / "kept", {}, folder / "corpus")
    return folder / "corpus", {row["id"]: row["domain"] for row in rows}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.01)
    with HubServer(tmp_path / "hub") as server:
        yield server


def commits(api):
    return len(api.list_repo_commits("tester/corpus", repo_type="dataset"))


def ask(code, hub, home):
    done = subprocess.run(
        [sys.executable, "-c", code], env=hub.environment(home), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_a_process_with_only_datasets_reads_every_configuration(hub, tmp_path):
    folder, domains = build_corpus(tmp_path, ["fashion", "hobby", "news"])
    url = push_corpus(folder, "tester/corpus", endpoint=hub.endpoint, token=TOKEN)
    assert url == f"{hub.endpoint}/datasets/tester/corpus"
    found = ask(PULL, hub, tmp_path / "puller")
    assert sorted(found["configs"]) == ["default", "fashion", "hobby", "news"]
    for name in ("fashion", "hobby", "news"):
        ids = found[f"{name} train"] + found[f"{name} validation"]
        assert len(ids) == len(set(ids)) > 20
        assert {domains[id] for id in ids} == {name}
    parts = [id for name in ("fashion", "hobby", "news") for id in found[f"{name} train"]]
    assert sorted(found["default train"]) == sorted(parts)
    assert found["without a name"] == found["default train"]
    loaded = ask(LOAD, hub, tmp_path / "loader")
    assert loaded["False"] == loaded["True"] == found["news train"] + found["hobby train"]
    assert loaded["all"] == found["default validation"]
    assert "has no domain 'toys': it has fashion, hobby, news" in loaded["{'domains': 'toys'}"]
    assert "no split 'dev'" in loaded["{'split': 'dev'}"]
    assert "no such corpus" in loaded["nothing"]


def test_a_second_push_replaces_files_and_keeps_what_people_wrote(hub, tmp_path):
    folder, _ = build_corpus(tmp_path, ["fashion", "hobby", "news"])
    push_corpus(folder, "tester/corpus", endpoint=hub.endpoint, token=TOKEN)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    text = hub.files("tester/corpus", "dataset")["README.md"].decode().replace("license: odc-by", "license: mit")
    api.upload_file(
        path_or_fileobj=(text + "\nMine.\n").encode(), path_in_repo="README.md", repo_id="tester/corpus",
        repo_type="dataset",
    )  # fmt: skip
    own = {"mine.parquet", "notes/mine.parquet", "notes/old/train-00000-of-00001.parquet"}
    for name in own:
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="tester/corpus", repo_type="dataset")
    folder, _ = build_corpus(tmp_path, ["hobby", "toys"], count=40)
    before = commits(api)
    push_corpus(folder, "tester/corpus", endpoint=hub.endpoint, token=TOKEN)
    assert len(api.list_repo_commits("tester/corpus", repo_type="dataset")) == before + 1, (
        "one commit, never half of it"
    )
    files = hub.files("tester/corpus", "dataset")
    local = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.parquet")}
    assert {name for name in files if name.endswith(".parquet")} == local | own
    assert {"corpus.json", "domains.svg"} <= set(files)
    card = DatasetCard(files["README.md"].decode())
    assert [config["config_name"] for config in card.data.configs] == ["default", "hobby", "toys"]
    assert card.data.license == "mit"
    assert "Mine." in card.text
    assert 'load_dataset("tester/corpus"' in card.text
    assert str(tmp_path) not in card.content


def test_a_failing_hub_is_explained_and_nothing_is_lost(hub, tmp_path):
    folder, _ = build_corpus(tmp_path, ["hobby"])
    hub.fail(times=2, status=503, path="commit")
    push_corpus(folder, "tester/corpus", endpoint=hub.endpoint, token=TOKEN)
    hub.fail(times=1000, status=503)
    with pytest.raises(ConnectionError, match="the corpus is safe in") as caught:
        push_corpus(folder, "tester/corpus", endpoint=hub.endpoint, token=TOKEN)
    assert "\n" not in str(caught.value)
