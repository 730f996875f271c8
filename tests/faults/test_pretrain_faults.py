"""Full disks, damaged files and diverging losses in the recipe: one line, and nothing that was complete is lost."""

from __future__ import annotations

import errno
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import pytest
from disks import file_limit as full_disk
from disks import small_disk
from pretraining_cases import assert_same_weights, copy_of_whole_run, error_line, recipe, run, scratch, whole_run, words

from rexbert_hf.hub import read_run
from rexbert_hf.pretraining import finish
from rexbert_hf.training import last_complete_checkpoint


def steps_of(folder):
    return sorted(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*"))


def unfinished(folder, checkpoints=None):
    """A copy of the whole run that lacks its end: the result, and the checkpoints after the first `checkpoints`."""
    copy_of_whole_run(folder)
    for name in ("run.json", "model.safetensors", "README.md"):
        (folder / name).unlink()
    for step in steps_of(folder)[checkpoints:] if checkpoints else []:
        shutil.rmtree(folder / f"checkpoint-{step}")
    return folder


def test_full_disk_while_tokenising(tmp_path, capsys, monkeypatch):
    changes = {"cache_dir": tmp_path / "cache", "tokenizer__path": whole_run()}
    with full_disk(8 << 10):
        status, _, err = recipe(words(tmp_path / "out", **changes), capsys, monkeypatch)
    assert status == 1
    line = error_line(err)
    assert "source 'general': no room for its tokens in" in line
    assert "make room or set cache_dir" in line
    assert not list((tmp_path / "cache").rglob("prepared.json"))
    assert not list((tmp_path / "cache").rglob("*.arrow"))
    run(tmp_path / "out", **{**changes, "tokenizer__path": "None"})  # the rest of the settings as in the whole run
    assert_same_weights(tmp_path / "out", whole_run())


def test_full_disk_while_text_is_read(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"{i} lines of a text that is long enough to fill the disk\n" for i in range(2000)))
    source = {"sources__general": f"{{path: {text}}}", "cache_dir": tmp_path / "cache", "tokenizer__path": whole_run()}
    command = [word for word in words(tmp_path / "out", **source) if word]
    with full_disk(8 << 10):
        status, _, err = recipe(command, capsys, monkeypatch)
    assert status == 1
    assert "source 'general': no room" in error_line(err)
    assert not list((tmp_path / "cache").rglob("*.arrow"))


@pytest.mark.parametrize(("size", "file_size"), [(8 << 10, 256), (16 << 10, 4 << 10)])
def test_full_disk_while_the_tokenizer_is_written(tmp_path, capsys, monkeypatch, size, file_size):
    """Python's files and those of `tokenizers`, which has an exception of its own."""
    text = tmp_path / "text.txt"
    text.write_text("".join(f"lamp number {i} stands\n" for i in range(40)))
    with small_disk(tmp_path / "disk", size, file_size) as disk:
        cache = disk.folder / "cache"
        command = words(tmp_path / "out", cache_dir=cache, sources__general=f"{{path: {text}}}")
        with disk.here():
            status, _, err = recipe(command, capsys, monkeypatch)
        left = [path for path in disk.folder.rglob("*") if path.is_file()]
    assert status == 1
    line = error_line(err)
    assert f"no room for the tokenizer and its text in {cache}" in line
    assert "make room or set cache_dir" in line
    assert not left


def test_full_disk_while_a_checkpoint_is_written(tmp_path, capsys, monkeypatch):
    folder = unfinished(tmp_path / "out", checkpoints=1)
    first = steps_of(folder)[0]
    with full_disk(64 << 10):
        status, _, err = recipe(words(folder), capsys, monkeypatch)
    assert status == 1
    line = error_line(err)
    assert "could not be written" in line
    assert f"checkpoint-{first} is complete and will be resumed" in line
    assert steps_of(folder) == [first]
    assert not list(folder.glob(".staging-*"))
    run(folder)
    assert read_run(folder)["resumed_from_step"] == first
    assert_same_weights(folder, whole_run())


def test_full_disk_while_the_result_is_written(tmp_path, capsys, monkeypatch):
    folder = unfinished(tmp_path / "out")
    last = steps_of(folder)[-1]
    with full_disk(64 << 10):
        status, _, err = recipe(words(folder), capsys, monkeypatch)
    assert status == 1
    line = error_line(err)
    assert f"checkpoint-{last} holds its weights: make room, then start again" in line
    assert not (folder / "run.json").exists()
    run(folder)
    assert read_run(folder)["resumed_from_step"] == last
    assert_same_weights(folder, whole_run())


def test_full_disk_while_the_results_are_written(tmp_path, capsys, monkeypatch):
    folder = unfinished(tmp_path / "out")

    def full(*_):
        raise OSError(errno.ENOSPC, "cannot write README.md: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(finish, "write_card", full)
        status, _, err = recipe(words(folder), capsys, patch)
    assert status == 1
    line = error_line(err)
    assert f"the model is in {folder}, its results could not be written" in line
    assert "README.md" in line
    run(folder)
    assert read_run(folder)["resumed_from_step"] == steps_of(folder)[-1]
    assert_same_weights(folder, whole_run())


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_damaged_weights_of_a_finished_run_are_written_again(tmp_path, caplog, damage):
    folder = copy_of_whole_run(tmp_path / "out")
    for weights in (folder / "model.safetensors", folder / "modernbert" / "model.safetensors"):
        if damage == "cut":
            weights.write_bytes(weights.read_bytes()[:-100])
        else:
            weights.unlink()
    run(folder)
    assert not [record for record in caplog.records if "nothing to train" in record.message]
    assert_same_weights(folder, whole_run())
    assert (folder / "modernbert" / "model.safetensors").exists()


@pytest.mark.parametrize("damage", ["cut", "flipped", "no_marker", "no_file"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, caplog, damage):
    folder = unfinished(tmp_path / "out")
    steps = steps_of(folder)
    last = folder / f"checkpoint-{steps[-1]}"
    data = (last / "optimizer.pt").read_bytes()
    if damage == "cut":
        (last / "optimizer.pt").write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        (last / "optimizer.pt").write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif damage == "no_marker":
        (last / "checkpoint_complete.json").unlink()
    else:
        (last / "model.safetensors").unlink()
    run(folder)
    assert [record for record in caplog.records if f"checkpoint-{steps[-1]}" in record.message]
    assert read_run(folder)["resumed_from_step"] == steps[-2]
    assert last_complete_checkpoint(folder).step == steps[-1]
    assert_same_weights(folder, whole_run())


def test_a_diverging_loss_stops_the_run(tmp_path, capsys, monkeypatch):
    changes = {"phases__general__learning_rate": "1e30", "trainer__save_steps": "1"}
    status, out, err = recipe(words(tmp_path / "out", **changes), capsys, monkeypatch)
    assert status == 1
    assert out == ""
    line = error_line(err)
    assert "phase 'general'" in line
    assert "lower the learning rate" in line
    batch = next((tmp_path / "out").glob("nonfinite-step-*.safetensors"))
    assert str(batch) in line
    assert not (tmp_path / "out" / "run.json").exists()


def test_a_diverging_loss_on_a_full_disk_is_still_named(tmp_path, capsys, monkeypatch):
    changes = {"phases__general__learning_rate": "1e30", "trainer__save_steps": "50", "tokenizer__path": whole_run()}
    cached()  # nothing but the batch is written
    command = words(tmp_path / "out", **changes)
    recipe(command, capsys, monkeypatch)
    shutil.rmtree(tmp_path / "out")
    with full_disk(1 << 10):
        status, _, err = recipe(command, capsys, monkeypatch)
    assert status == 1
    line = error_line(err)
    assert "the loss is nan at step 2 (phase 'general')" in line
    assert "its batch could not be written" in line


@pytest.mark.parametrize("damage", ["manifest", "store", "cut"])
def test_a_damaged_cache_is_prepared_again(tmp_path, caplog, damage):
    cache = Path(shutil.copytree(cached(), tmp_path / "cache"))
    for manifest in cache.glob("shop-*/prepared.json"):  # other tests may have prepared the shop too
        folder = manifest.parent
        if damage == "manifest":
            manifest.write_text('{"name": "sh')
        elif damage == "store":
            shutil.rmtree(next(folder.glob("tokenised-*")))
        else:
            data = max(folder.rglob("*.arrow"), key=lambda path: path.stat().st_size)
            data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    run(tmp_path / "out", cache_dir=cache)
    assert [record for record in caplog.records if "preparing the source again" in record.message]
    assert_same_weights(tmp_path / "out", whole_run())


def cached():
    """The prepared data of the whole run."""
    whole_run()
    return scratch() / "cache"
