"""Full and read-only disks under every recipe: one line, nothing half-written, and it goes on when there is room.

`make test` takes the two quick ones; `make faults` all, at several sizes. Where no disk can be mounted, limits stand in
for it (`disks.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from disks import file_limit, run, small_disk
from kill_jobs import JOBS, places_of
from killing import files_of, whole_run

from rexbert_hf.corpus import Document, Vertical
from rexbert_hf.corpus.audit_sheet import write_sheet
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.retrieval.pairs.weak import write_audit_sample
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun, ProductSource, run_build_index

ALL = bool(int(os.environ.get("REXBERT_FAULTS", "0")))
BY_NAME = {job.name: job for job in JOBS}
NAMES = ("curation", "mining", "index building", "pairs", "search training", "tokenising")
SHARES = (0.1, 0.7)
"""Room as a share of what the result takes: not enough early, and not enough late in the work."""
LEAST, PLENTY = 8192, 500 << 20


def one_error_line(err: str, folder: Path) -> str:
    """The last line, which is the error; it names a place in the folder."""
    assert "Traceback" not in err, err[-3000:]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert errors == err.strip().splitlines()[-1:], err[-3000:]
    assert str(folder) in errors[0], errors[0]
    return errors[0]


def test_an_index_on_a_full_disk_leaves_the_one_that_is_there(tmp_path):
    make = {"output_dir": tmp_path / "index", "index": IndexOptions(kind="flat")}
    run_build_index(BuildIndexRun(products=ProductSource(sample_size=60), **make))
    before = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()}
    with file_limit(20_000), pytest.raises(OSError):  # noqa: PT011 - the system's own words
        run_build_index(BuildIndexRun(products=ProductSource(sample_size=400), **make))
    after = {path: path.read_bytes() for path in (tmp_path / "index").rglob("*") if path.is_file()}
    assert after == before
    assert run_build_index(BuildIndexRun(products=ProductSource(sample_size=400), **make))["products"] == 400


def test_a_pool_on_a_full_disk_leaves_the_one_that_is_there(tmp_path):
    PhrasePool(["tea pot"], [0.5]).save(tmp_path)
    large = PhrasePool([f"tea pot {i * 7919}" for i in range(20_000)], [0.5] * 20_000)
    with file_limit(10_000), pytest.raises(OSError):  # noqa: PT011
        large.save(tmp_path)
    assert PhrasePool.load(tmp_path).phrases == ["tea pot"]
    large.save(tmp_path)
    assert len(PhrasePool.load(tmp_path)) == 20_000
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["train-00000-of-00001.parquet"]


def sheet(path):
    documents = [Document(str(number), "a recipe for soup " * 20) for number in range(50)]
    write_sheet(
        path, documents, Vertical("food", "Recipes.", {"recipe": "how to", "other": "rest"}, ["recipe"], "other")
    )


def sample(path):
    write_audit_sample(path, [(f"query {number}", "p") for number in range(500)], ["title"] * 500)


@pytest.mark.parametrize("write", [sheet, sample])
def test_what_a_person_fills_in_leaves_no_half_on_a_full_disk(write, tmp_path):
    path = tmp_path / "sheet.csv"
    with file_limit(2_000), pytest.raises(OSError):  # noqa: PT011
        write(path)
    assert {found.name for found in tmp_path.iterdir()} <= {"sheet.txt"}
    write(path)
    assert {found.name for found in tmp_path.iterdir()} <= {"sheet.txt", "sheet.csv"}
    assert path.stat().st_size > 2_000


@pytest.mark.skipif(not ALL, reason="make faults")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up(name, tmp_path, tmp_path_factory):
    job = BY_NAME[name]
    whole = whole_run(job, tmp_path_factory.mktemp("whole"), places_of(job))
    with small_disk(tmp_path / "disk", LEAST, 0) as disk:
        folder = disk.folder / "out"
        disk.fill()
        status, err = disk.run(job.command(folder))
        assert status == 1, f"without room: status {status}\n{err[-2000:]}"
        assert "make room" in one_error_line(err, disk.folder)
        assert not (folder / ".lock").exists()
        for share in SHARES:
            size, file_size = max(LEAST, int(share * whole.size)), int(share * whole.largest)
            disk.grow(size, file_size)
            status, err = disk.run(job.command(folder))
            assert status == 1, f"with {size} bytes, {file_size} a file: status {status}\n{err[-2000:]}"
            one_error_line(err, disk.folder)
            job.check(folder)
        disk.grow(PLENTY, PLENTY)
        status, err = disk.run(job.command(folder))
        assert status == 0, err[-3000:]
        assert job.result(folder) == whole.result
        assert job.rows(folder) == whole.rows
        assert files_of(folder, job) == whole.files


@pytest.mark.skipif(not ALL, reason="make faults")
@pytest.mark.parametrize("name", [*NAMES, "pre-finetuning"])
def test_a_disk_that_may_not_be_written(name, tmp_path):
    with small_disk(tmp_path / "disk", PLENTY, PLENTY) as disk:
        (disk.folder / "out").mkdir()
        disk.read_only()
        status, err = disk.run(BY_NAME[name].command(disk.folder / "out"))
        assert status == 1
        assert "cannot be written" in one_error_line(err, disk.folder)
        assert "set another one" in err


@pytest.mark.skipif(not ALL, reason="make faults")
def test_two_at_once_and_the_second_is_told(tmp_path):
    """The recipe itself, started twice; the first one is held up while the second one starts."""
    first = subprocess.Popen(BY_NAME["search training"].command(tmp_path / "out"), stderr=subprocess.DEVNULL)
    lock = tmp_path / "out" / ".lock"
    while not (lock.exists() and lock.read_bytes()):  # it is there a moment before it says whose it is
        assert first.poll() is None
    first.send_signal(signal.SIGSTOP)
    status, err = run(BY_NAME["search training"].command(tmp_path / "out"))
    first.send_signal(signal.SIGCONT)
    assert status == 1
    line = one_error_line(err, tmp_path / "out")
    assert f"process {first.pid} on" in line
    assert first.wait(timeout=240) == 0
    assert (tmp_path / "out" / "run.json").exists()


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OSError, match="cannot be made") as caught:
        run_build_index(BuildIndexRun(output_dir=tmp_path / "out" / "index"))
    assert str(tmp_path / "out" / "index") in str(caught.value)
