"""The search page goes to the Hub as a Space that holds all it needs."""

from __future__ import annotations

import json
import sys
from configparser import ConfigParser
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from huggingface_hub import HfApi, constants
from page_cases import SPACE, tiny_masked_lm

from rexbert_hf.hub import split_card, trouble
from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.page_settings import PageSettings
from rexbert_hf.retrieval.serving.space_push import package_files, push_space
from rexbert_hf.settings import load_settings

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_server import TOKEN, HubServer


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.01)
    with HubServer(tmp_path / "hub") as server:
        yield server


def test_a_space_holds_the_page_its_settings_and_the_package(hub, tmp_path):
    settings = PageSettings(index="me/shop", masked_lm="me/rexbert", push_to_hub="tester/search", title="My <shop>")
    for _ in range(2):
        assert push_space(settings, SPACE, endpoint=hub.endpoint, token=TOKEN).endswith("spaces/tester/search")
    files = hub.files("tester/search", "space")
    assert {"app.py", "requirements.txt", "README.md", "space.yaml", "rexbert_hf/__init__.py"} <= set(files)
    assert any(name.startswith("rexbert_hf/hub/templates/") for name in files)
    assert not any("__pycache__" in name for name in files)
    (tmp_path / "space.yaml").write_bytes(files["space.yaml"])
    again = load_settings(PageSettings, tmp_path / "space.yaml")
    assert (again.index, again.model, again.masked_lm, again.title) == ("me/shop", None, "me/rexbert", "My <shop>")
    metadata, body = split_card(files["README.md"].decode())
    assert (metadata["sdk"], metadata["app_file"], metadata["title"]) == ("gradio", "app.py", "My <shop>")
    assert (metadata["datasets"], metadata["models"]) == (["me/shop"], ["me/rexbert"])
    assert "REXBERT_INDEX" in body


def test_a_masked_language_model_that_arrives_damaged_is_not_served(hub, tmp_path, monkeypatch):
    for name, value in {"ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setattr(constants, name, value)
    template = f"{hub.endpoint}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo("tester/lm")
    api.upload_folder(repo_id="tester/lm", folder_path=tiny_masked_lm(tmp_path / "lm"))
    hub.fail("corrupt", method="GET", path="/cdn/")
    with pytest.raises(ValueError, match=r"masked_lm tester/lm: no masked language model can .*arrived damaged"):
        FillMask("tester/lm")
    assert FillMask("tester/lm")("a [MASK] lamp").blanks


def test_an_index_whose_model_was_a_folder_makes_no_space(hub, tmp_path):
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo("tester/shop", repo_type="dataset")
    for name, refused in (("my-student", True), ("tester/student", False), ("hashing", False)):
        facts = json.dumps({"model": {"name": name}}).encode()
        api.upload_file(path_or_fileobj=facts, path_in_repo="index.json", repo_id="tester/shop", repo_type="dataset")
        settings = PageSettings(index="tester/shop", push_to_hub="tester/search")
        with pytest.raises(ValueError, match=r"names its model as 'my-student'.*--model") if refused else nullcontext():
            push_space(settings, SPACE, endpoint=hub.endpoint, token=TOKEN)
        if refused:
            settings.model = "tester/student"
            push_space(settings, SPACE, endpoint=hub.endpoint, token=TOKEN)


def test_what_lies_here_only_is_not_named_there(hub, tmp_path):
    settings = PageSettings(index=str(tmp_path), push_to_hub="tester/search")
    with pytest.raises(ValueError, match="is a folder of this machine: push it"):
        push_space(settings, SPACE, endpoint=hub.endpoint, token=TOKEN)


def test_the_source_that_travels_is_the_whole_package():
    files = package_files()
    assert {"rexbert_hf/py.typed", "rexbert_hf/retrieval/serving/page.py"} <= set(files)
    assert sum(path.stat().st_size for path in files.values()) < 10 << 20


def test_the_space_says_what_a_space_must():
    metadata, _ = split_card((SPACE / "README.md").read_text(encoding="utf-8"))
    assert metadata["app_file"] == "app.py"
    assert len(metadata["short_description"]) <= 60
    assert yaml.safe_load(yaml.safe_dump(metadata)) == metadata


def test_a_space_installs_whatever_an_index_may_need_with_the_bounds_of_the_package():
    """Spelling, Qdrant, an exported model: an index says at its first search that they are missing."""
    settings = ConfigParser()
    settings.read(SPACE.parents[1] / "setup.cfg")
    extras = settings["options.extras_require"]
    parts = [settings["options"]["install_requires"], *(extras[name] for name in ("search", "onnx", "demo"))]
    bounds = [line for part in parts for line in part.splitlines() if line and line[0] != "#"]
    written = [line for line in (SPACE / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert set(written) <= set(bounds)
    runs = {line.split(">=")[0] for line in extras["search"].split()} | {"onnxruntime", "gradio"}
    needed = {line.split(">=")[0] for line in written}
    assert runs | {"torch", "transformers", "sentence-transformers"} <= needed
