"""Where a chosen sub-model lies: nobody else's is touched, and a kill leaves a folder that is known for its own."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from rexbert_hf.hub import read_run
from rexbert_hf.retrieval.serving import onnx_publish
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_choice import ChooseRun, choose_submodel
from rexbert_hf.retrieval.training.grid_measure import NoCellFitsError
from rexbert_hf.retrieval.training.grid_settings import GridSettings
from rexbert_hf.retrieval.training.search_data import SearchDataSettings
from rexbert_hf.settings import from_dict

DATA = {"sample_size": 120}
TRAIN = {
    "data": DATA,
    "model": {"preset": "tiny", "vocab_size": 512, "max_tokens": 16, "overrides": {"num_hidden_layers": 2}},
    "rows": {"batch_size": 16},
    "matryoshka": {"layers": [1, 2], "dims": [8, 64]},
    "trainer": {"max_steps": 2, "use_cpu": True, "bf16": False, "cpu_threads": 1},
}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grid") / "run"
    finetune_search(from_dict(FinetuneSettings, {**TRAIN, "output_dir": str(folder)}))
    return str(folder)


@pytest.fixture
def graphs(monkeypatch):
    """Files in place of graphs; queries are encoded with the model itself."""

    def export(model, folder, precisions, texts=None, fused=True):
        Encoder.model = model
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model_int8.onnx").write_bytes(b"graph")
        (Path(folder) / "encoder.json").write_text('{"graphs": {"int8": "model_int8.onnx"}}')

    class Encoder:
        def __init__(self, folder, precision, threads):
            assert (Path(folder) / "model_int8.onnx").exists()

        def encode_query(self, texts):
            return self.model.encode_query(texts)

    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_export.export_onnx", export)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_encoder.OnnxEncoder", Encoder)


def choice(trained, folder, layers, dim, runtime="torch"):
    cells = from_dict(GridSettings, {"cells": [[layers, dim]]})
    data = SearchDataSettings(**DATA)
    return ChooseRun(trained, folder, runtime=runtime, repeats=1, max_queries=5, cells=cells, data=data)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_model_that_was_not_chosen_here_is_not_touched(trained, tmp_path):
    """A snapshot of the Hub has no run.json, and often a graph in `onnx`."""
    for name in ("config.json", "onnx/model.onnx"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("theirs")
    with pytest.raises(ValueError, match=r"did not make \(config.json\): choose another output_dir"):
        choose_submodel(choice(trained, tmp_path, 1, 8))
    assert names(tmp_path) == {"config.json", "onnx/model.onnx"}
    assert {(tmp_path / name).read_text() for name in names(tmp_path)} == {"theirs"}
    (tmp_path / "config.json").unlink()
    choose_submodel(choice(trained, tmp_path, 1, 8))
    assert (tmp_path / "onnx" / "model.onnx").read_text() == "theirs", "no run of this recipe names it"


def test_a_choice_that_an_earlier_version_was_killed_in_is_made_again(trained, tmp_path):
    """It took run.json away first, and wrote the model where it stands."""
    choose_submodel(choice(trained, tmp_path, 2, 64))
    (tmp_path / "run.json").unlink()
    choose_submodel(choice(trained, tmp_path, 1, 8))
    assert SentenceTransformer(str(tmp_path)).get_embedding_dimension() == 8


@pytest.mark.parametrize("moves", [0, 3])
def test_a_choice_that_is_stopped_between_two_files_is_made_again(trained, tmp_path, monkeypatch, graphs, moves):
    choose_submodel(choice(trained, tmp_path, 2, 64, "int8"))
    (tmp_path / "modernbert" / "old.json").write_text("of an earlier choice that wrote another file")
    written = read_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**written, "files": [*written["files"], "modernbert/old.json"]}))
    (tmp_path / "notes.txt").write_text("mine")
    rename, left = Path.replace, [moves]

    def killed(source, target):
        if source.is_relative_to(tmp_path / ".choice"):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
        return rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(Killed):
            choose_submodel(choice(trained, tmp_path, 1, 8))
    assert read_run(tmp_path)["results"] == {}
    with pytest.raises(NoCellFitsError):
        choose_submodel(dataclasses.replace(choice(trained, tmp_path, 1, 8), latency_ms=1e-9))
    choose_submodel(choice(trained, tmp_path, 1, 8))
    assert SentenceTransformer(str(tmp_path)).get_embedding_dimension() == 8
    assert names(tmp_path) == {*read_run(tmp_path)["files"], "run.json", "README.md", "cells.png", "notes.txt"}


def test_an_earlier_choice_is_whole_while_the_new_one_is_measured(trained, tmp_path, monkeypatch, graphs):
    choose_submodel(choice(trained, tmp_path, 2, 64, "int8"))
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("rexbert_hf.retrieval.training.grid_choice._tested", killed)
        with pytest.raises(Killed):
            choose_submodel(choice(trained, tmp_path, 1, 8, "int8"))
    assert before.items() <= {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}.items()
    choose_submodel(choice(trained, tmp_path, 1, 8, "int8"))
    assert names(tmp_path) == before.keys()


def test_an_earlier_graph_is_there_until_the_new_one_takes_its_place(trained, tmp_path, monkeypatch, graphs):
    """`encoder.json` names it until then, and the new one has another name where the precision is another."""

    def export(model, folder, precisions, texts=None, fused=True):
        Path(folder).mkdir(exist_ok=True)
        (Path(folder) / "model.onnx").write_bytes(b"graph")
        (Path(folder) / "encoder.json").write_text('{"graphs": {"fp32": "model.onnx"}}')

    class Encoder:
        def __init__(self, folder, precision, threads):
            pass

        def encode_query(self, texts):
            return np.ones((len(texts), 8), np.float32)

    choose_submodel(choice(trained, tmp_path, 2, 64, "int8"))
    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_export.export_onnx", export)
    monkeypatch.setattr("rexbert_hf.retrieval.serving.onnx_encoder.OnnxEncoder", Encoder)
    publish, seen = onnx_publish.publish_export, []

    def published(staged, folder):
        seen.append({path.name for path in folder.glob("*.onnx")})
        publish(staged, folder)

    monkeypatch.setattr(onnx_publish, "publish_export", published)
    choose_submodel(choice(trained, tmp_path, 1, 8, "fp32"))
    assert seen == [{"model_int8.onnx"}]
    assert {path.name for path in (tmp_path / "onnx").glob("*.onnx")} == {"model.onnx"}


def test_a_choice_of_an_earlier_version_leaves_no_graph_either(trained, tmp_path, graphs):
    """It did not name its files."""
    choose_submodel(choice(trained, tmp_path, 1, 8, "int8"))
    written = read_run(tmp_path)
    del written["files"]
    (tmp_path / "run.json").write_text(json.dumps(written))
    choose_submodel(choice(trained, tmp_path, 1, 8))
    assert not (tmp_path / "onnx").exists()
