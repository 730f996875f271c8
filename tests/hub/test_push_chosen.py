"""Which files a push takes along and which it removes: a model's own, and nobody else's."""

from __future__ import annotations

from pathlib import Path

from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi

from rexbert_hf.hub import push_run
from rexbert_hf.hub.push import STALE
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
    left = {"model-00001-of-00002.safetensors", "pytorch_model.bin", "onnx/model.onnx", "1_Pooling/config.json"}
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
