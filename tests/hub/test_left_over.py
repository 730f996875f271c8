"""Temporary folders of killed processes go; those of living ones, of this one and of other machines stay."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from rexbert_hf.hub import left_over
from rexbert_hf.hub.left_over import remove_temporary_left, temporary_folder
from rexbert_hf.settings.sole_run import sole_run

WAITS = """
import sys, time
from pathlib import Path
from rexbert_hf.hub.left_over import temporary_folder
folder = temporary_folder(*sys.argv[1:])
Path(folder.name, "weights").write_bytes(b"x" * 1000)
print(folder.name, flush=True)
time.sleep(600)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def waiting(*arguments):
    """Another process, with a folder that it made with these arguments."""
    with subprocess.Popen([sys.executable, "-c", WAITS, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield SimpleNamespace(process=process, folder=Path(process.stdout.readline().strip()))
        finally:
            process.kill()


@pytest.fixture
def other(place):
    """Another process, with a folder in the same place."""
    with waiting() as found:
        assert found.folder.parent == place
        yield found


def kill(other) -> None:
    other.process.send_signal(signal.SIGKILL)
    other.process.wait()
    assert other.folder.exists()


def test_a_living_process_keeps_its_folder_and_a_killed_one_does_not(other):
    with temporary_folder() as own:
        assert other.folder.exists()
        kill(other)
        remove_temporary_left()
        assert not other.folder.exists()
        assert Path(own).exists()


def test_the_next_run_in_any_folder_removes_it(other, tmp_path):
    kill(other)
    sole_run()(lambda settings: None)(SimpleNamespace(output_dir=tmp_path / "out"))
    assert not other.folder.exists()


def test_a_killed_run_may_have_had_the_number_of_this_one(place, monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(left_over, "_START", "0" * 8)
        left = Path(tempfile.mkdtemp(prefix=Path(temporary_folder().name).name))
    assert left.exists()
    remove_temporary_left()
    assert not left.exists()


def test_folders_of_others_stay(place, monkeypatch):
    monkeypatch.setattr(left_over.socket, "gethostname", lambda: "node")
    names = ("rexbert-node-0-999999999-0a1b2c3d-xyz", "rexbert-node-fuzz", "rexbert-fuzz-999999999", "rexbert-node-1-2")
    for name in names:
        (place / name).mkdir()
    (place / "rexbert-node-999999999-0a1b2c3d-xyz").mkdir()
    remove_temporary_left()
    assert sorted(path.name for path in place.iterdir()) == sorted(names)


def test_a_folder_of_a_run_takes_its_prefix(tmp_path):
    with temporary_folder(tmp_path, ".rows-") as own:
        assert Path(own).parent == tmp_path
        assert Path(own).name.startswith(".rows-")


def test_a_prefix_in_the_temporary_folder_would_keep_it_from_being_found(place):
    with temporary_folder(None, ".rows-") as own:
        assert Path(own).name.startswith("rexbert-")


def test_the_next_folder_of_a_prefix_removes_that_of_a_killed_process_alone(tmp_path):
    with waiting(str(tmp_path), ".rows-") as killed, waiting(str(tmp_path), ".rows-") as living:
        kill(killed)
        with temporary_folder(tmp_path, ".rows-") as own:
            assert {path.name for path in tmp_path.iterdir()} == {living.folder.name, Path(own).name}
