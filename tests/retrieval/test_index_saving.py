"""A save that fails at its very end, or that others overtake: nothing is left behind, and nothing is half changed."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from index_cases import HashModel, make_products

from rexbert_hf.retrieval.serving import index_folder, text_column
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.parquet_file import whole


@pytest.fixture
def model() -> HashModel:
    return HashModel()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    ProductIndex.build(make_products(300), model, "flat").save(tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("name", ["sync", "write_whole"])
def test_a_save_that_fails_at_its_end_leaves_no_version(saved, model, monkeypatch, name):
    """Each such try left one more whole index on a disk that was full."""
    index, before = ProductIndex.load(saved, model), current_version(saved)
    real = getattr(index_folder, name)

    def full(path, *rest):
        if path in (saved / "versions", saved / "CURRENT"):
            raise OSError(28, "No space left on device")
        real(path, *rest)

    with monkeypatch.context() as disk:
        disk.setattr(index_folder, name, full)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                index.save(saved)
    assert [path.name for path in (saved / "versions").iterdir()] == [before.name]
    assert index.texts(["p5"]) == ["thing number 5"]
    assert index.save(saved) == current_version(saved)


def test_a_save_is_no_error_though_others_save_at_once(saved, model, monkeypatch):
    """Their second one removes the version, whose files were opened after that."""
    ours, theirs = ProductIndex.load(saved, model), ProductIndex.load(saved, model)
    ours.upsert(make_products(5, first=1000))
    real = index_folder.write_version

    def followed(*args):
        version = real(*args)
        monkeypatch.undo()
        for _ in range(2):
            theirs.save(saved)
        return version

    monkeypatch.setattr("rexbert_hf.retrieval.serving.index.write_version", followed)
    assert not ours.save(saved).exists()
    assert ours.texts(["p5", "p1003"]) == ["thing number 5", "thing number 1003"]
    assert ours.search("thing number 1003", 1)[0][0][0] == "p1003"
    assert ours.refresh()


def test_a_save_whose_files_cannot_be_opened_changes_nothing(saved, model, monkeypatch):
    index, before = ProductIndex.load(saved, model), current_version(saved)
    index.upsert(make_products(5, first=1000))

    def refuse(path):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as short:
        short.setattr(text_column, "opened", refuse)
        with pytest.raises(OSError, match="Too many open files"):
            index.save(saved)
    assert [path.name for path in (saved / "versions").iterdir()] == [before.name]
    assert index.texts(["p5", "p1003"]) == ["thing number 5", "thing number 1003"]
    index.save(saved)
    assert len(ProductIndex.load(saved, model)) == 305


@pytest.mark.parametrize("reason", ["", "malloc of size 64 failed\nhere"])
def test_a_want_of_memory_stays_one(reason, tmp_path):
    """Python's own says nothing."""
    with (
        pytest.raises(
            MemoryError, match=rf"texts: {reason.split(chr(10))[0] or 'out of memory'}: close what else needs"
        ),
        whole(tmp_path / "texts"),
    ):
        raise MemoryError(*filter(None, [reason]))
