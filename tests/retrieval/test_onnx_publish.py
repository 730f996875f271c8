"""An export takes the place of the served one: killed anywhere, the folder holds one of the two, whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx_cases import TEXTS, small_encoder

from rexbert_hf.retrieval.serving import onnx_encoder
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
from rexbert_hf.retrieval.serving.onnx_export import export_onnx
from rexbert_hf.retrieval.serving.onnx_publish import publish_export

NAMES = {"model.onnx", "model_int8.onnx", "tokenizer.json", "encoder.json", "onnx_encoder.py"}


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Two exports whose graphs, tokenizers and vectors differ."""
    places = []
    for number, pooling in enumerate(("mean", "cls")):
        place = tmp_path_factory.mktemp("exports") / str(number)
        export_onnx(small_encoder(pooling), place)
        words = place / "tokenizer.json"
        words.write_text(words.read_text() + " " * number)
        facts = (place / "encoder.json").read_text()
        old = str(onnx_encoder.read_export(place)["crc32"]["tokenizer.json"])
        (place / "encoder.json").write_text(facts.replace(old, str(onnx_encoder.file_checksum(words))))
        places.append(place)
    assert vectors(places[0]).tobytes() != vectors(places[1]).tobytes()
    return places


def vectors(folder):
    return OnnxEncoder(folder).encode(TEXTS[:2])


def publish(export, folder, monkeypatch, operations=None):
    """Whether it came to its end; with a number, it is killed before the operation of that number."""
    staged = shutil.copytree(export, folder / ".export-test")
    done = []

    def counted(stock):
        def operation(*args, **options):
            if len(done) == operations:
                raise Killed
            done.append(args)
            return stock(*args, **options)

        return operation

    try:
        with monkeypatch.context() as patch:
            for name in ("replace", "unlink"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            publish_export(staged, folder)
    except Killed:
        return False
    finally:
        shutil.rmtree(staged)
    return True


def test_the_new_export_has_the_usual_names_and_nothing_else_stays(exports, tmp_path, monkeypatch):
    for export in (exports[0], exports[1], exports[0]):
        assert publish(export, tmp_path, monkeypatch)
        assert {path.name for path in tmp_path.iterdir()} == NAMES
        np.testing.assert_array_equal(vectors(tmp_path), vectors(export))
        assert onnx_encoder.read_export(tmp_path) == onnx_encoder.read_export(export)


def test_a_kill_anywhere_leaves_one_export_whole(exports, tmp_path, monkeypatch):
    wanted = [vectors(export).tobytes() for export in exports]
    found = []
    for operations in range(40):
        folder = shutil.copytree(exports[0], tmp_path / str(operations))
        (folder / "run.json").write_text("of the first export")
        ended = publish(exports[1], folder, monkeypatch, operations)
        for precision in ("fp32", "int8"):
            OnnxEncoder(folder, precision)
        found.append(wanted.index(vectors(folder).tobytes()))
        assert not (found[-1] and (folder / "run.json").exists()), "figures of another export"
        if ended:
            break
        # A second one is killed too, at the same place; then one ends.
        publish(exports[0], folder, monkeypatch, operations)
        assert vectors(folder).tobytes() in wanted
        assert publish(exports[1], folder, monkeypatch)
        assert {path.name for path in folder.iterdir() if path.name[0] != "."} == NAMES
        assert vectors(folder).tobytes() == wanted[1]
    assert found == sorted(found)
    assert {*found} == {0, 1}
    assert 10 < len(found) < 40


def test_a_reader_who_was_caught_by_a_new_export_reads_again(exports, tmp_path, monkeypatch):
    folder = shutil.copytree(exports[0], tmp_path / "served")
    stock, reads = onnx_encoder.read_export, []

    def read(place):
        facts = stock(place)
        reads.append(place)
        if len(reads) == 1:
            assert publish(exports[1], folder, monkeypatch)
        return facts

    monkeypatch.setattr(onnx_encoder, "read_export", read)
    encoder = OnnxEncoder(folder)
    np.testing.assert_array_equal(encoder.encode(TEXTS[:2]), vectors(exports[1]))
    assert encoder.fingerprint == stock(exports[1])["fingerprint"]
