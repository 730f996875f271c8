"""What one process pushes, another one that has only stock libraries pulls, and gets the same numbers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import run_client
from filelock import FileLock
from hub_server import TOKEN, HubServer
from huggingface_hub import DatasetCard, HfApi, ModelCard


@pytest.fixture(scope="module")
def trip(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    # Two processes that import everything: once a test run, however many workers share it.
    base = tmp_path_factory.getbasetemp()
    work = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "trip"
    work.mkdir(exist_ok=True)
    with FileLock(work / "lock"), HubServer(work / "hub") as hub:
        if not (work / "found.json").exists():
            run_client("client_push.py", hub, work / "pusher", str(tiny_run), str(work), package=True)
            run_client("client_pull.py", hub, work / "puller", str(work), package=False)
    with HubServer(work / "hub") as hub:
        yield SimpleNamespace(
            hub=hub,
            expected=dict(np.load(work / "expected.npz")),
            found=dict(np.load(work / "found.npz")),
            report=json.loads((work / "found.json").read_text(encoding="utf-8")),
            home=work / "puller",
        )


def test_remote_code_gives_the_same_numbers_in_every_class(trip: Any):
    expected, found = trip.expected, trip.found
    assert expected["logits"].std() > 0.1  # else equality would say little
    np.testing.assert_array_equal(found["logits"], expected["logits"])
    np.testing.assert_array_equal(found["tagged_logits"], expected["logits"])
    np.testing.assert_array_equal(found["hidden"], expected["hidden"])
    np.testing.assert_array_equal(found["classifier_hidden"], expected["hidden"])
    np.testing.assert_allclose(found["loss"], expected["loss"], rtol=1e-6)
    assert found["scores"].shape == (3, 3)


def test_the_stock_form_gives_the_same_numbers_to_rounding(trip: Any):
    # Another order of sums (padded against flat); padding positions hold no prediction.
    token = trip.found["logits"] != 0
    assert token.any(axis=(1, 2)).all()
    np.testing.assert_allclose(trip.found["stock_form_logits"][token], trip.expected["logits"][token], atol=1e-4)


def test_stock_models_and_encoders_survive_the_server(trip: Any):
    np.testing.assert_array_equal(trip.found["stock_logits"], trip.expected["stock_logits"])
    np.testing.assert_allclose(trip.found["vectors"], trip.expected["vectors"], atol=1e-6)


def test_a_sub_model_is_pulled_with_its_layers_and_dimensions(trip: Any):
    np.testing.assert_array_equal(trip.found["cut_hidden"], trip.expected["cut_hidden"])
    assert trip.found["cut_vectors"].shape == (3, 8)
    np.testing.assert_allclose(trip.found["cut_vectors"], trip.expected["cut_vectors"], atol=1e-6)


def test_datasets_come_back_row_for_row(trip: Any):
    data = trip.report["data"]
    assert data["rows"] == {"text": [f"text {i}" for i in range(10)], "label": list(range(10))}
    assert data["columns"] == {"text": "string", "label": "int64"}
    assert data["stream"] == data["rows"]["text"]
    assert (data["small"], data["streamed"]) == (3, [0, 1, 2, 3])
    assert (data["configs"], data["hobby"], data["news"]) == (["hobby", "news"], 10, [0, 1])


def test_streaming_reads_through_the_server_and_not_from_the_cache(trip: Any):
    # "news" was loaded by streaming alone: its file must not lie in the puller's cache.
    assert [p for p in trip.home.rglob("*.parquet") if "news" in str(p)] == []
    assert [p for p in trip.home.rglob("*.parquet") if "hobby" in str(p)] != []


def test_the_blocks_of_the_card_run_as_they_stand(trip: Any):
    said = trip.report["card"]
    assert len(said) == 4
    assert "'sequence': 'wireless" in said[2]


def test_the_pushed_run_holds_the_form_for_everyone_and_no_litter(trip: Any):
    files = trip.hub.files("tester/rex")
    assert {"modeling_rexbert.py", "configuration_rexbert.py", "model.safetensors", "modernbert/config.json"} <= set(
        files
    )
    assert {"loss.png", "run.json", "README.md", "tokenizer.json"} <= set(files)
    assert not any(name.startswith("checkpoint") or name.endswith((".pt", ".bin", ".pkl")) for name in files)
    assert json.loads(files["config.json"])["model_type"] == "rexbert"
    assert json.loads(files["modernbert/config.json"])["model_type"] == "modernbert"
    assert "auto_map" not in json.loads(files["modernbert/config.json"])
    card = ModelCard(files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert "![" in card.text
    assert TOKEN not in card.content


def test_a_pushed_dataset_keeps_both_the_card_and_what_datasets_wrote(trip: Any):
    text = trip.hub.files("tester/shop", "dataset")["README.md"].decode()
    card = DatasetCard(text)
    assert card.data.license == "odc-by"
    assert {config["config_name"] for config in card.data.configs} == {"hobby", "news"}
    assert "| hobby | 10 |" in card.text
    assert {info["config_name"] for info in card.data.dataset_info} == {"hobby", "news"}


def test_readers_see_only_whole_pushes(trip: Any):
    api = HfApi(endpoint=trip.hub.endpoint, token=TOKEN)
    titles = [commit.title for commit in api.list_repo_commits("tester/rex")]
    assert titles == ["Push rex from rexbert_hf", "initial commit"]
    assert api.list_repo_refs("tester/rex").tags[0].target_commit == api.model_info("tester/rex").sha
