"""Data sets that cannot be made: one line with the cause, from every reader."""

from __future__ import annotations

import pytest
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

from rexbert_hf.catalog import read_records
from rexbert_hf.corpus import DocumentSource, StageReport, load_corpus, read_documents
from rexbert_hf.evaluation.task import DataMissing
from rexbert_hf.evaluation.task_splits import dataset_examples


def read_corpus(name):
    load_corpus(name)


def read_web(name):
    list(read_documents([DocumentSource(dataset=name)], StageReport("test", key="")))


def read_task(name):
    dataset_examples(name, lambda row, where: row)


READERS = {
    read_records: "rexbert_hf.catalog.readers.load_dataset",
    read_corpus: "datasets.load_dataset",
    read_web: "datasets.load_dataset",
    read_task: "rexbert_hf.evaluation.task_splits.load_dataset",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("scripted", [True, False])
def test_a_dataset_that_cannot_be_made_is_one_line_with_its_cause(monkeypatch, reader, scripted):
    def load_dataset(*_, **__):
        if scripted:
            raise RuntimeError("Dataset scripts are no longer supported, but found offers.py")
        raise DatasetGenerationError("An error occurred while generating the dataset") from TypeError("no words")

    monkeypatch.setattr(READERS[reader], load_dataset)
    with pytest.raises((FileNotFoundError, ValueError, DataMissing)) as told:
        reader("shop/offers")
    message = str(told.value)
    assert "shop/offers" in message
    assert ("Dataset scripts are no longer supported" if scripted else "(TypeError: no words)") in message
    assert "\n" not in message
    assert "An error occurred" not in message


@pytest.mark.parametrize("reader", [read_records, read_web, read_task])
def test_a_dataset_that_is_not_there_says_so_and_not_what_the_server_said(monkeypatch, reader):
    def load_dataset(*_, **__):
        raise DatasetNotFoundError("Dataset 'shop/offers' is a gated dataset on the Hub.") from OSError("403 Client")

    monkeypatch.setattr(READERS[reader], load_dataset)
    with pytest.raises((FileNotFoundError, DataMissing), match="is a gated dataset on the Hub") as told:
        reader("shop/offers")
    assert "403" not in str(told.value)
