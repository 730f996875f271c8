"""The harness itself: it finds what is lost, what is there twice, what is left over, and what differs."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter

import numpy as np
import pytest
from killing import Job, Place, Process, table, torment
from process_tree import alive_in

GOOD = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
folder.mkdir(exist_ok=True)
for number in range(20):
    time.sleep(0.01)
    done = folder / f"{number}.txt"
    if not done.exists():
        staged = folder / f".{number}.partial"
        staged.write_text(str(number) * 50)
        time.sleep(0.005)
        staged.replace(done)
(folder / "all.txt").write_text("".join(path.read_text() for path in sorted(folder.glob("[0-9]*.txt"))))
"""
TWICE = GOOD.replace("if not done.exists():", "(folder / 'log').open('a').write(f'{number}\\n')\n    if True:")
ORPHANS = GOOD.replace('f".{number}.partial"', 'f".{number}.{os.getpid()}"')
ORPHANS = ORPHANS.replace("0.01)", "0.001)").replace("0.005", "0.03")  # most kills meet it with a file half-written
LOST = GOOD.replace("done = ", "(folder / 'began').touch()\n    done = ")
LOST = LOST.replace("if not done.exists():", "if not done.exists() and (number != 15 or first):")
LOST = LOST.replace(
    "for number in range(20):", "first = not folder.joinpath('began').exists()\nfor number in range(20):"
)


def job_of(script):
    def rows(folder):
        log = folder / "log"
        lines = log.read_text().split() if log.exists() else [p.stem for p in folder.glob("[0-9]*.txt")]
        return Counter(lines)

    return Job(
        "toy",
        lambda folder: [sys.executable, "-c", script, str(folder)],
        tuple(Place(name, lambda p, name=name: (p.folder / name).exists()) for name in ("2.txt", "9.txt")),
        result=lambda folder: {"all": (folder / "all.txt").read_text()},
        rows=rows,
    )


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.setattr("killing._whole", {})


def test_a_job_that_is_safe_passes_and_is_counted(tmp_path):
    job = job_of(GOOD)
    kills = torment(job, tmp_path, 4, np.random.default_rng(0), job.places)
    assert len(kills) == 4
    signals = [kill.signal for kill in kills]
    assert signals in (["SIGKILL", "SIGTERM"] * 2, ["SIGTERM", "SIGKILL"] * 2)
    lines = table([json.loads(json.dumps(vars(kill))) for kill in kills])
    assert lines[-1].split()[:3] == ["all", "4", "kills"]


def test_a_worker_that_outlives_its_parent_is_found_and_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("killing.ORPHAN_SECONDS", 0.5)
    script = "import os, sys, time; os.fork(); print('here', file=sys.stderr, flush=True); time.sleep(60)"
    process = Process([sys.executable, "-c", script], tmp_path, {})
    while len(process.lines) < 2:
        time.sleep(0.01)
    with pytest.raises(AssertionError, match="workers that outlive their parent"):
        process.kill(signal.SIGKILL)
    end = time.monotonic() + 5
    while alive_in([process.process.pid]) and time.monotonic() < end:
        time.sleep(0.01)
    assert not alive_in([process.process.pid])


@pytest.mark.parametrize(
    ("script", "message"),
    [(TWICE, "there twice"), (ORPHANS, "does not leave"), (LOST, r"missing files \['15.txt'\]")],
)
def test_a_job_that_is_not_safe_is_found(tmp_path, script, message):
    job = job_of(script)
    with pytest.raises(AssertionError, match=message):
        torment(job, tmp_path, 6, np.random.default_rng(1), job.places)


def test_what_stays_in_the_temporary_folder_is_found(tmp_path):
    """Of a killed run, and of one that nothing stopped."""
    left = GOOD.replace("folder.mkdir", "import tempfile\nfound = tempfile.mkdtemp(prefix='left-')\nfolder.mkdir")
    for name in ("always", "killed"):
        (tmp_path / name).mkdir()
    with pytest.raises(AssertionError, match=r"nothing stopped it, and it left \['\$TMPDIR/left-"):
        torment(job_of(left), tmp_path / "always", 2, np.random.default_rng(1), job_of(left).places)
    left += "os.rmdir(found)\n"
    with pytest.raises(AssertionError, match=r"does not leave: \['\$TMPDIR/left-"):
        torment(job_of(left), tmp_path / "killed", 2, np.random.default_rng(1), job_of(left).places)
