from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest

from rexbert_hf.training import checkpoint as ckpt


def write(root, step, info=None, text="weights"):
    folder = root / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(text * 10)
    (folder / "sub").mkdir()
    (folder / "sub" / "part").write_text("more")
    ckpt.seal(folder, step, info)
    return folder


def test_the_newest_complete_one_is_found(tmp_path):
    for step in (5, 100, 20):
        write(tmp_path, step, {"phase": "one"})
    found = ckpt.last_complete_checkpoint(tmp_path)
    assert (found.step, found.path.name, found.info) == (100, "checkpoint-100", {"phase": "one"})
    assert ckpt.last_complete_checkpoint(tmp_path / "absent") is None


def damage_marker(folder):
    (folder / ckpt.MARKER).unlink()


def damage_size(folder):
    (folder / "model.safetensors").write_text("short")


def damage_bytes(folder):
    path = folder / "model.safetensors"
    path.write_bytes(b"X" + path.read_bytes()[1:])


def damage_file(folder):
    (folder / "sub" / "part").unlink()


def damage_json(folder):
    (folder / ckpt.MARKER).write_text('{"format_version": 1, "st')


def damage_version(folder):
    marker = json.loads((folder / ckpt.MARKER).read_text())
    (folder / ckpt.MARKER).write_text(json.dumps(marker | {"format_version": 99}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_marker, "it was not finished"),
        (damage_size, "model.safetensors: 5 bytes, 70 were written"),
        (damage_bytes, "CRC-32 differs"),
        (damage_file, "part: missing"),
        (damage_json, "not readable"),
        (damage_version, "format 99"),
    ],
)
def test_damaged_ones_are_reported_and_passed_over(tmp_path, caplog, damage, message):
    write(tmp_path, 5)
    damage(write(tmp_path, 10))
    with caplog.at_level(logging.WARNING):
        assert ckpt.last_complete_checkpoint(tmp_path).step == 5
    assert message in caplog.text
    assert "checkpoint-10" in caplog.text


def test_rotation_keeps_the_newest_and_leaves_no_orphan(tmp_path):
    for step in (5, 10, 15, 20):
        write(tmp_path, step, {"phase_end": step == 5})
    assert ckpt.rotate(tmp_path, None) == []
    assert ckpt.rotate(tmp_path, 2, keep="phase_end") == ["checkpoint-10"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-15", "checkpoint-20", "checkpoint-5"]
    assert ckpt.rotate(tmp_path, 1) == ["checkpoint-15", "checkpoint-5"]


@pytest.mark.parametrize(
    ("limit", "left"),
    [(1, ["checkpoint-25"]), (2, ["checkpoint-20", "checkpoint-25"]), (3, ["checkpoint-10", "checkpoint-20"])],
)
def test_a_damaged_checkpoint_takes_no_whole_ones_place(tmp_path, limit, left):
    for step in (5, 10, 20, 25):
        write(tmp_path, step)
    damage_size(write(tmp_path, 15))
    damage_bytes(write(tmp_path, 100))  # passed over at the start: the run went on before it
    gone = ckpt.rotate(tmp_path, limit, written=25)
    assert gone[-2:] == ["checkpoint-100", "checkpoint-15"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*left, "checkpoint-25"})
    assert ckpt.last_complete_checkpoint(tmp_path).step == 25


def test_rotation_deletes_no_checkpoint_of_another_trainer(tmp_path):
    for step in (500, 1000):
        theirs = tmp_path / f"checkpoint-{step}"
        theirs.mkdir()
        (theirs / "model.safetensors").write_text("theirs")
    damage_json(write(tmp_path, 1))
    for step in (2, 3, 4):
        write(tmp_path, step)
    assert ckpt.rotate(tmp_path, 2, written=4) == ["checkpoint-2", "checkpoint-1"]
    assert ckpt.rotate(tmp_path, 1) == ["checkpoint-3"]
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["checkpoint-1000", "checkpoint-4", "checkpoint-500"]


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path, caplog):
    write(ckpt.staging_folder(tmp_path, 10), 10)
    write(tmp_path, 5).rename(tmp_path / f"{ckpt.DOOMED}checkpoint-5")
    write(tmp_path, 7)
    (tmp_path / ".hidden").mkdir()
    assert ckpt.last_complete_checkpoint(tmp_path).step == 7
    with caplog.at_level(logging.WARNING):
        assert len(ckpt.remove_leftovers(tmp_path)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "checkpoint-7"]


class Killed(BaseException):
    """Nothing catches it, so nothing is tidied up."""


@pytest.mark.parametrize("stop", [Killed, OSError])
@pytest.mark.parametrize("restart", ["remove_leftovers", "replace"])
def test_a_folder_is_replaced_whole_wherever_it_is_stopped(tmp_path, monkeypatch, stop, restart):
    best, seen, places = tmp_path / "best", [], 0
    calls = [(Path, "rename"), (ckpt, "sync"), (shutil, "rmtree")]

    def write(text):
        return lambda folder: (folder / "model.safetensors").write_text(text)

    def replace_until(place):
        """Stop before the call of that number; whether there was one."""
        left = [place]

        def counted(stock):
            def call(*args, **options):
                left[0] -= 1
                if left[0] < 0 and not (stop is OSError and left[0] < -1):  # a full disk fails once
                    raise stop("stopped")
                return stock(*args, **options)

            return call

        with monkeypatch.context() as patch:
            for owner, name in calls:
                patch.setattr(owner, name, counted(getattr(owner, name)))
            try:
                ckpt.replace(best, write("new"))
            except stop:
                return True
        return left[0] < 0

    for place in range(20):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        ckpt.replace(best, write("old"))
        if not replace_until(place):
            break
        places += 1
        if restart == "replace":
            with pytest.raises(ZeroDivisionError):
                ckpt.replace(best, lambda folder: 1 / 0)
        ckpt.remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["best"], place
        seen.append((best / "model.safetensors").read_text())
    assert places > 5
    assert seen == sorted(seen, reverse=True), "old until the new one is whole, then new"
    assert set(seen) == {"old", "new"}
    assert (best / "model.safetensors").read_text() == "new"


def test_publishing_replaces_a_damaged_one_and_keeps_a_complete_one(tmp_path):
    damage_size(write(tmp_path, 10))
    staged = write(ckpt.staging_folder(tmp_path, 10), 10, {"which": "new"})
    ckpt.publish(staged, tmp_path / "checkpoint-10")
    assert ckpt.last_complete_checkpoint(tmp_path).info == {"which": "new"}
    again = write(ckpt.staging_folder(tmp_path, 10), 10, {"which": "newer"})
    ckpt.publish(again, tmp_path / "checkpoint-10")
    assert ckpt.last_complete_checkpoint(tmp_path).info == {"which": "new"}
    assert not again.exists()


def test_the_micro_batches_of_a_run_are_known_without_reading_its_weights(tmp_path):
    assert ckpt.micro_batches_of(tmp_path / "absent") is None
    write(tmp_path, 5, {"description": {"micro_batches": 6}})
    newest = write(tmp_path, 10, {"description": {"micro_batches": 6}})
    damage_json(newest)
    damage_bytes(tmp_path / "checkpoint-5")
    assert ckpt.micro_batches_of(tmp_path) == 6


@pytest.mark.parametrize(
    ("text", "micros"),
    [('{"plan": {"micro_batches": 8}}', 8), ('{"results": {}}', None), ('{"plan": [1]}', None), ('{"pl', None)],
)
def test_the_micro_batches_of_a_finished_run_outlive_its_checkpoints(tmp_path, text, micros):
    (tmp_path / "run.json").write_text(text)
    assert ckpt.micro_batches_of(tmp_path) is None, "somebody removed its weights, to train anew"
    (tmp_path / "model.safetensors").write_text("weights")
    assert ckpt.micro_batches_of(tmp_path) == micros
