"""What other rooms read of the Hub comes down as `resolve` brings it: tried again, and with its hash checked."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import TOKEN
from huggingface_hub import HfApi, constants
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.corpus.build import BuildSettings, build
from rexbert_hf.hub import trouble
from rexbert_hf.retrieval.serving.onnx_encoder import ENCODER_FILE, OnnxEncoder


def words(folder):
    backend = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(folder)


def export(folder):
    """Enough to be pulled; opened it says what it lacks, or it opens."""
    folder.mkdir(parents=True)
    (folder / ENCODER_FILE).write_text(json.dumps({"dim": 0}))
    (folder / "model_int8.onnx").write_bytes(b"graph")


def count(folder):
    kept = folder / "kept"
    kept.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": ["1"], "text": ["a a"], "url": [""], "domain": ["home"]}), kept / "part.parquet")
    report = build(BuildSettings(tokenizer="tester/m"), kept, {}, folder / "corpus")
    assert report.details["domains"]["home"]["tokens"] == 3


def encode(folder):
    """The Hub has been read once the export itself is found wanting."""
    with pytest.raises(ValueError, match=f"{ENCODER_FILE}.*lacks"):
        OnnxEncoder.from_pretrained("tester/m")


@pytest.fixture(params=[(words, count, "tokenizer.json"), (export, encode, ENCODER_FILE)], ids=["tokenizer", "onnx"])
def reader(request, hub, tmp_path, monkeypatch):
    """A call that reads a repository of the Hub, and the file that it cannot do without."""
    write, read, file = request.param
    monkeypatch.setattr(trouble, "RETRIES", 1)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    write(tmp_path / "made")
    api.create_repo("tester/m")
    api.upload_folder(folder_path=tmp_path / "made", repo_id="tester/m")
    return lambda: read(tmp_path), file


def test_a_hub_in_trouble_is_asked_again_and_then_named(hub, reader):
    read, _ = reader
    hub.fail(status=503, times=2, path="/api/models/")
    with pytest.raises(ConnectionError, match=r"cannot get model tester/m .*answered 503"):
        read()
    hub.fail(status=503, path="/api/models/")
    read()


def test_damaged_bytes_are_found_and_removed(hub, reader):
    read, file = reader
    hub.fail("corrupt", method="GET", path=f"resolve/.*/{file}")
    with pytest.raises(OSError, match=rf"{file} of tester/m arrived damaged .*try again"):
        read()
    read()
