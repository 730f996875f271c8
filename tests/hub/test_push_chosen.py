"""Which files a push takes along and which it removes: a model's own, and nobody else's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi

from rexbert_hf.hub import push_run
from rexbert_hf.hub.push import STALE, files_of_run
from rexbert_hf.hub.push_files import lies_at

OWN = {
    *("models/b/w.safetensors", "model-8bit/x/y.safetensors", "pytorch_model_old/a.bin", "onnx/int8/model.onnx"),
    *("modernbert/model-8bit/a.safetensors", "1_Pooling/old/config.json", "notes/config.json"),
}


def push(folder: Path, hub: HubServer) -> set[str]:
    push_run(folder, "tester/tiny", token=TOKEN, endpoint=hub.endpoint)
    return set(hub.files("tester/tiny"))


def test_what_lies_in_folders_of_others_stays(hub: HubServer, tiny_run: Path):
    """A star that crossed a slash would take whole folders for weights of an earlier push."""
    left = {"model-00001-of-00002.safetensors", "pytorch_model.bin", "1_Pooling/config.json"}
    left |= {"onnx/model.onnx", "onnx/encoder.json"}  # an export of ours
    before = push(tiny_run, hub)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    for name in OWN | left:
        api.upload_file(path_or_fileobj=b"mine", path_in_repo=name, repo_id="tester/tiny")
    assert push(tiny_run, hub) == before | OWN


def test_a_pattern_means_as_many_folders_as_it_names():
    assert not [name for name in OWN if any(lies_at(name, pattern) for pattern in STALE)]
    assert lies_at("bm25/data.npy", "bm25/*")
    assert not lies_at("bm25/more/data.npy", "bm25/*")
    assert not lies_at("Model.safetensors", "model*.safetensors")
    assert lies_at("package/a/b.py", "package/**")
    assert not lies_at("package", "package/**")
    assert not lies_at("package", "package/*/**")


def test_folders_of_modules_are_those_that_the_model_names(copy_of_run: Callable[[], Path]):
    """A folder that begins with a number may hold whatever somebody keeps beside a run."""
    folder = copy_of_run()
    without = set(files_of_run(folder))
    private = {"2026_customers/customers.json", "3_old_runs/secret.json", "1_Notes/config.json", "query_2_x/run.json"}
    private |= {"encoder/2026_a/b.json", "modernbert/2026_a/b.json"}
    modules = [{"path": ""}, {"path": "10_Pooling"}, {"path": "encoder"}, {"path": "11_Router/"}]
    own = {"modules.json": json.dumps(modules), "10_Pooling/config.json": "{}", "encoder/vocab.txt": ""}
    own |= {"11_Router/router_config.json": json.dumps({"types": {"query_0_Dense": "", "plain": ""}})}
    own |= {"11_Router/query_0_Dense/config.json": "{}", "11_Router/plain/config.json": "{}"}
    for name, text in {**own, **dict.fromkeys(private, "{}")}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    assert set(files_of_run(folder)) == without | set(own)


@pytest.mark.parametrize("name", ["modules.json", "router_config.json"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("7", "cannot be read"),
        ('[{"path": "../other"}]', "lies outside|names no types"),
        ('{"types": {"/etc": ""}}', "lies outside|no list of modules"),
        ('[{"path": "link"}]', "lies outside|names no types"),
    ],
)
def test_modules_that_lie_elsewhere_are_refused(copy_of_run: Callable[[], Path], name: str, text: str, message: str):
    folder = copy_of_run()
    (folder.parent / "other").mkdir()
    (folder / "link").symlink_to(folder.parent / "other")
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=rf"{name}: .*({message}).*save the model again$"):
        files_of_run(folder)
