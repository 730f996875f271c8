"""Data sets of the Hub: passing trouble is waited out, a silent Hub too, and what stays is one line."""

from __future__ import annotations

import datasets
import pytest
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi, constants

from rexbert_hf.corpus import load_corpus
from rexbert_hf.corpus.documents import DocumentSource, read_documents
from rexbert_hf.corpus.stages import StageReport
from rexbert_hf.evaluation.task import DataMissing
from rexbert_hf.evaluation.task_splits import _loaded
from rexbert_hf.hub import trouble
from rexbert_hf.pretraining.source_settings import SourceSettings
from rexbert_hf.pretraining.sources import read_source

ROWS = b'{"text": "a lamp"}\n{"text": "a mug"}\n'


def curated(name):
    return [document.text for document in read_documents([DocumentSource(dataset=name)], StageReport("select", "k"))]


READERS = {
    "pre-training": lambda name: read_source(SourceSettings(path=name), None)["text"][:],
    "curation": curated,
    "corpus": lambda name: load_corpus(name)["text"][:],
    "evaluation": lambda name: _loaded(name, "")["train"]["text"][:],
}


@pytest.fixture
def name(hub: HubServer, tmp_path, monkeypatch) -> str:
    """A data set on this test's Hub, as if HF_ENDPOINT had named it: `datasets` takes no endpoint."""
    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", hub.endpoint)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(trouble, "REQUEST_TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(trouble, "RETRIES", 1)
    api = HfApi(endpoint=hub.endpoint, token=TOKEN)
    api.create_repo("tester/d", repo_type="dataset")
    api.upload_file(path_or_fileobj=ROWS, path_in_repo="train.jsonl", repo_id="tester/d", repo_type="dataset")
    return "tester/d"


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", READERS)
def test_passing_trouble_and_silence_are_waited_out(hub, name, reader):
    hub.fail(status=503, path="/api/datasets/tester/d$")
    assert READERS[reader](name) == ["a lamp", "a mug"]
    assert [status for _, path, status in hub.requests if path.endswith("/datasets/tester/d")][:2] == [503, 200]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("reader", READERS)
def test_a_silent_hub_is_asked_again(hub, name, reader):
    fault = hub.fail("hang", path="/api/datasets/tester/d/tree/")
    assert READERS[reader](name) == ["a lamp", "a mug"]
    assert fault.times == 0


@pytest.mark.parametrize("reader", READERS)
def test_trouble_that_stays_is_one_line(hub, name, reader):
    hub.fail(status=503, times=99, path="/api/datasets/tester/d$")
    with pytest.raises((ConnectionError, DataMissing), match="answered 503") as told:
        READERS[reader](name)
    assert "\n" not in str(told.value)
    assert "check" not in str(told.value), "it is not the name that is wrong"
