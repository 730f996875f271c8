"""Two runs in one folder: the second one says so and leaves; a dead run keeps nobody out."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from disks import file_limit
from safetensors.numpy import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from rexbert_hf.settings import FolderInUseError, hold_folder, run_recipe, sole_run

HOLDER = """
import importlib.util, os, sys, time
spec = importlib.util.spec_from_file_location("sole_run", sys.argv[2])
module = importlib.util.module_from_spec(spec)
sys.modules["sole_run"] = module
spec.loader.exec_module(module)
with module.hold_folder(sys.argv[1]):
    child = os.fork() if "fork" in sys.argv else 1
    if child == 0:
        time.sleep(60)
    print(child, flush=True)
    time.sleep(60)
"""
MODULE = Path(__file__).parents[2] / "src" / "rexbert_hf" / "settings" / "sole_run.py"


def holder(folder, *words):
    command = [sys.executable, "-c", HOLDER, str(folder), str(MODULE), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def test_the_second_run_is_told_who_is_there(tmp_path):
    process, _ = holder(tmp_path / "out")
    with pytest.raises(FolderInUseError) as caught, hold_folder(tmp_path / "out"):
        pytest.fail("two runs at once")
    process.kill()
    process.wait()
    said = str(caught.value)
    assert "\n" not in said
    assert str(tmp_path / "out") in said
    assert f"process {process.pid} on " in said
    assert "choose another output_dir" in said


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_keeps_nobody_out_even_if_its_workers_live_on(tmp_path, signum):
    process, child = holder(tmp_path / "out", "fork")
    process.send_signal(signum)
    process.wait()
    os.kill(child, 0)  # lives
    with hold_folder(tmp_path / "out"):
        assert (tmp_path / "out" / ".lock").exists()
    os.kill(child, signal.SIGKILL)
    folder = tmp_path / "out"
    assert not folder.exists() or not list(folder.iterdir())


def test_many_at_once_never_two(tmp_path):
    """Each writes into a file while it holds the folder; entries of two never interleave."""
    script = HOLDER.split("with module")[0] + (
        "turns = 0\n"
        "while turns < 10:\n"
        "    try:\n"
        "        with module.hold_folder(sys.argv[1]):\n"
        "            with open(sys.argv[3], 'a') as f: f.write(f'in {os.getpid()}\\n')\n"
        "            time.sleep(0.001)\n"
        "            with open(sys.argv[3], 'a') as f: f.write(f'out {os.getpid()}\\n')\n"
        "        turns += 1\n"
        "    except module.FolderInUseError:\n"
        "        time.sleep(0.001)\n"
    )
    log = tmp_path / "log"
    command = [sys.executable, "-c", script, str(tmp_path / "out"), str(MODULE), str(log)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    lines = log.read_text().splitlines()
    assert len(lines) == 4 * 10 * 2
    for first, second in zip(lines[::2], lines[1::2], strict=True):
        assert first.startswith("in ")
        assert second == first.replace("in", "out")
    assert not (tmp_path / "out" / ".lock").exists()


@dataclass
class Settings:
    output_dir: Path


def test_a_run_within_a_run_and_what_a_killed_one_left(tmp_path, caplog):
    (tmp_path / ".rows-abc").mkdir()
    (tmp_path / ".rows-abc" / "file").write_text("x")
    (tmp_path / ".run.json.xyz").write_text("half")
    (tmp_path / ".mine").write_text("stays")

    @sole_run(".rows-*")
    def outer(settings):
        assert not list(settings.output_dir.glob(".r*"))
        (settings.output_dir / ".rows-new").mkdir()
        return inner(settings)

    @sole_run(".rows-*")
    def inner(settings):
        assert (settings.output_dir / ".rows-new").exists()  # the outer one's: not left by a dead run
        return 5

    assert outer(Settings(tmp_path)) == 5
    assert {path.name for path in tmp_path.iterdir()} == {".mine", ".rows-new"}
    assert "removed what an interrupted run left: .rows-abc, .run.json.xyz" in caplog.text


class LibraryError(Exception):
    """As safetensors and tokenizers have their own."""


@sole_run()
def failing(settings, error):
    raise error


@pytest.mark.parametrize("kind", [lambda text: OSError(errno.ENOSPC, text), LibraryError], ids=["system", "library"])
def test_a_full_disk_is_named(kind, tmp_path):
    with pytest.raises(OSError, match="no room left") as caught:
        failing(Settings(tmp_path / "out"), kind("No space left on device (os error 28)"))
    assert str(tmp_path / "out") in str(caught.value)
    assert "make room, then start again" in str(caught.value)


def test_a_disk_that_was_full_before_the_run(tmp_path):
    (tmp_path / "out").mkdir()
    with file_limit(0), pytest.raises(OSError, match="no room left") as caught, hold_folder(tmp_path / "out"):
        pass
    assert str(tmp_path / "out") in str(caught.value)
    assert "make room, then start again" in str(caught.value)
    assert not list((tmp_path / "out").iterdir())
    with hold_folder(tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    "write",
    [
        lambda path: np.save(path, np.zeros(5000)),
        lambda path: save_file({"a": np.zeros(5000)}, path),
        lambda path: pq.write_table(pa.table({"a": np.arange(5000.0)}), path),
        lambda path: Tokenizer(WordLevel({str(i): i for i in range(1000)}, unk_token="0")).save(str(path)),
    ],
    ids=["numpy", "safetensors", "arrow", "tokenizers"],
)  # fmt: skip
def test_libraries_that_find_no_room_are_understood(write, tmp_path):
    """Their words for a limit or a quota differ from those for a full disk; numpy gives no reason at all."""

    @sole_run()
    def run(settings):
        with file_limit(1000):
            write(tmp_path / "file")

    with pytest.raises(OSError, match="no room left") as caught:
        run(Settings(tmp_path / "out"))
    assert str(tmp_path / "out") in str(caught.value)


def test_what_is_told_already_and_other_errors_stay_as_they_are(tmp_path):
    told = OSError(errno.ENOSPC, f"cannot write {tmp_path / 'out' / 'x'}")
    for error in (told, ValueError("something else"), OSError(errno.ENOENT, "no such file")):
        with pytest.raises(type(error)) as caught:
            failing(Settings(tmp_path / "out"), error)
        assert caught.value is error


def test_an_empty_folder_that_was_made_for_nothing_goes(tmp_path):
    with pytest.raises(ZeroDivisionError), hold_folder(tmp_path / "out"):
        _ = 1 / 0
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be made") as caught, hold_folder(tmp_path / "file" / "out"):
        pass
    assert "set another one" in str(caught.value)


def test_sigterm_unwinds_a_recipe(tmp_path, capsys):
    """Temporary folders go, the status is 143, and nobody else's handler is lost."""
    before = signal.getsignal(signal.SIGTERM)

    def main():
        with hold_folder(tmp_path / "out"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with pytest.raises(SystemExit) as caught:
        run_recipe(main)
    assert caught.value.code == 143
    assert capsys.readouterr().err == "error: terminated: start again to go on\n"
    assert not (tmp_path / "out").exists()
    assert signal.getsignal(signal.SIGTERM) == before


@dataclass
class _Settings:
    output_dir: Path = Path("output/none")


@dataclass
class _TextSettings:
    output_dir: str = "output/none"


def test_a_folder_named_in_text_becomes_the_path_that_the_settings_declare(tmp_path):
    @sole_run()
    def work(settings):
        return settings.output_dir

    given = _Settings(str(tmp_path))  # type: ignore[arg-type]
    assert (work(given), given.output_dir) == (tmp_path, str(tmp_path))
    assert work(_Settings(tmp_path)) == tmp_path
    assert work(_TextSettings(str(tmp_path))) == str(tmp_path)


FINALIZING = """
import os, signal, sys, tempfile, time, weakref
from rexbert_hf.settings import run_recipe

class Named:
    pass

def called(reference):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.2)

class Deleted:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)

class Folder(tempfile.TemporaryDirectory):
    @classmethod
    def _rmtree(cls, name, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        os.rmdir(name)

def main():
    made = {"del": Deleted, "finalize": Folder, "callback": Named}[sys.argv[1]]()
    reference = weakref.ref(made, called) if sys.argv[1] == "callback" else None
    del made
    time.sleep(20)

run_recipe(main)
"""


@pytest.mark.parametrize("kind", ["del", "finalize", "callback"])
def test_a_signal_while_an_object_is_finalized_ends_the_recipe_all_the_same(kind):
    """Python swallows what is raised there, and the recipe would go on to its end."""
    command = [sys.executable, "-W", "ignore", "-c", FINALIZING, kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 128 + signal.SIGTERM
    assert done.stderr == "error: terminated: start again to go on\n"


IMPORTING = """
import os, signal, sys, time
from rexbert_hf.settings import run_recipe

def main():
    try:
        import slow
    except BaseException as error:  # as extension modules do that import others
        raise ImportError(f"{error!r} while importing")
    assert slow.done
    time.sleep(20)

sys.path.insert(0, sys.argv[1])
run_recipe(main)
"""


def test_a_signal_while_a_module_is_imported_comes_after_it(tmp_path):
    """An extension module may make an ImportError of it, and a package that is there look like one that is missing."""
    (tmp_path / "slow.py").write_text(
        "import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(0.23)\ndone = True\n"
        "os.write(1, b'imported\\n')\n"  # still inside, where the signal waits: between two prints it could come first
    )
    command = [sys.executable, "-c", IMPORTING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "imported\n")
    assert done.stderr == "error: terminated: start again to go on\n"
