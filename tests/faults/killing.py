"""Killing real processes at random moments, starting them again, and counting what was lost.

A job is a recipe's command line with places: conditions that say where in its work it is. A process is killed a random
part of a place's usual duration after it got there; the durations come from a run that nothing stops, which is also
what every other run must end as. Each folder's runs have a $TMPDIR of their own, which must end empty.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from process_tree import alive_in, groups_of, ranks_of, signal_all

from rexbert_hf.training import last_complete_checkpoint
from rexbert_hf.training.checkpoint import checkpoint_folders

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.002
TIMEOUT_SECONDS = 240.0
ORPHAN_SECONDS = 12.0
"""Workers may live so long after their parent: those of torch look for it every five seconds."""
SIGNALS = (signal.SIGKILL, signal.SIGTERM)


@dataclass
class Kill:
    """One kill and what came of it; the last three are known when the run has ended.

    Attributes:
        job: kind of work.
        place: where in it.
        signal: its name.
        whom: got it: the process, its whole group, or a rank.
        seconds: after the place was reached.
        again: steps that were done and not in a checkpoint, so have to be done again; None where there are no steps.
        lost: rows of data that were missing at the end.
        twice: rows that were there more often than they should.
        orphans: files that a run without kills does not leave.
    """

    job: str
    place: str
    signal: str
    whom: str
    seconds: float
    again: int | None = None
    lost: int = 0
    twice: int = 0
    orphans: int = 0


class Process:
    """A started job: what it has said so far, and its end."""

    def __init__(self, command: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        clean = {name: value for name, value in os.environ.items() if name not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
        self.folder, self.lines = folder, list[str]()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=ROOT, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
            env=clean | {"OMP_NUM_THREADS": "1", "TMPDIR": str(temporary_of(folder))} | dict(environment),
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)

    def said(self, pattern: str) -> bool:
        """Whether a line on stderr matches."""
        return any(re.search(pattern, line) for line in list(self.lines))

    @property
    def step(self) -> int:
        """The last global step that it logged."""
        found = [int(match[1]) for line in list(self.lines) if (match := re.match(r"step (\d+)/", line))]
        return found[-1] if found else 0

    def reaches(self, place: Place) -> bool:
        """Wait until it is there; False if it ended before."""
        while not place.reached(self):
            if self.process.poll() is not None:
                return place.reached(self)
            if time.monotonic() - self.started > TIMEOUT_SECONDS:
                self.kill(signal.SIGKILL, "group")
                raise AssertionError(f"'{place.name}' was not reached:\n{self.tail()}")
            time.sleep(POLL_SECONDS)
        return True

    def kill(self, signum: int, whom: str = "process") -> bool:
        """Send a signal to the "process", to its "group" (all that it started) or to a "rank N" of a launcher.

        Returns:
            Whether the one who gets it was still alive.
        """
        groups = groups_of(self.process.pid)  # now: what a killed process has started has another parent
        alive = self.process.poll() is None
        if whom == "group":
            signal_all(groups, signum)
        else:
            number = ranks_of(self.process.pid).get(int(whom[5:])) if whom.startswith("rank") else self.process.pid
            try:
                os.kill(number, signum) if number is not None else None
                alive = alive and number is not None
            except ProcessLookupError:
                alive = False
        self.wait()
        if whom != "group":  # its workers end by themselves
            end = time.monotonic() + ORPHAN_SECONDS
            while (left := alive_in(groups)) and time.monotonic() < end:
                time.sleep(0.05)
            signal_all(groups, signal.SIGKILL)  # they must not disturb what follows
            assert not left, f"workers that outlive their parent: {left}\n{self.tail()}"
        return alive

    def wait(self) -> int:
        """Its exit status."""
        try:
            status = self.process.wait(TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            signal_all(groups_of(self.process.pid), signal.SIGKILL)
            raise AssertionError(f"it did not end:\n{self.tail()}") from None
        self._reader.join(10)
        return status

    def tail(self) -> str:
        """The end of what it said."""
        return "".join(self.lines)[-3000:]


@dataclass(frozen=True)
class Place:
    """A part of a job's work.

    Attributes:
        name: in the table.
        reached: whether a process is there, or has been.
        seconds: of its duration, where the time to the next place says nothing.
    """

    name: str
    reached: Callable[[Process], bool]
    seconds: float | None = None


@dataclass(frozen=True)
class Job:
    """A recipe that is killed.

    Attributes:
        name: of the kind of work.
        command: of an output folder.
        places: where it is killed, in the order in which it gets there.
        result: of a finished folder, what must be equal whatever happened on the way, by key.
        rows: how often each row of data is there, by key; empty for what has none.
        whole: which run without kills it is compared with; jobs may share one.
        check: called with the folder after each kill: what others see must be whole.
        environment: further variables.
        steps: whether it logs steps and resumes from a checkpoint.
        files: names of a finished folder's files that may be there or not, or differ in name, as pattern and what it
            becomes.
        prepare: called once for each folder before the first start.
        whom: who may get the signal, see `Process.kill`.
        launched: a launcher starts its processes, and prints a traceback when one of them ends in another way than
            with status 0.
    """

    name: str
    command: Callable[[Path], list[str]]
    places: tuple[Place, ...]
    result: Callable[[Path], Mapping[str, Any]]
    rows: Callable[[Path], Mapping[str, int]] = lambda folder: {}
    whole: str = ""
    check: Callable[[Path], None] = lambda folder: None
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    steps: bool = False
    files: tuple[tuple[str, str], ...] = ()
    prepare: Callable[[Path], None] = lambda folder: None
    whom: tuple[str, ...] = ("process", "group")
    launched: bool = False


@dataclass
class Whole:
    """A run that nothing stopped."""

    result: Mapping[str, Any]
    rows: Mapping[str, int]
    files: set[str]
    places: dict[str, float] = field(default_factory=dict)
    end: float = 0.0
    size: int = 0
    """Bytes of its files."""
    largest: int = 0
    """Bytes of the largest one."""

    def duration(self, place: Place) -> float:
        """Seconds from a place to the next one, or to the end."""
        start = self.places[place.name]
        return min([at for at in [*self.places.values(), self.end] if at > start], default=start + 0.1) - start


_whole: dict[str, Whole] = {}


OF_LIBRARIES = (".ses", "torchelastic_")
"""How the names begin of what libraries leave: onnxruntime's, one for all processes, and torchrun's folder of logs."""
_temporary = tempfile.TemporaryDirectory(prefix="k-")


def temporary_of(folder: Path) -> Path:
    """The $TMPDIR of a folder's runs; not in it: sockets lie there, whose paths are short."""
    digest = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
    path = Path(_temporary.name) / digest
    path.mkdir(exist_ok=True)
    return path


def left_in_temporary(folder: Path) -> list[str]:
    """Names of what the folder's runs left in their $TMPDIR."""
    path = temporary_of(folder)
    names = (found.relative_to(path).as_posix() for found in path.rglob("*"))
    return sorted(f"$TMPDIR/{name}" for name in names if not name.startswith(OF_LIBRARIES))


def files_of(folder: Path, job: Job) -> set[str]:
    """Names of all files below a folder, hidden ones too, as the job's rules write them.

    A signal writes a checkpoint of its own step, which takes the place of an older one: only the last one has a number.
    """
    names = set()
    last = next((path.name for path in checkpoint_folders(folder)), "checkpoint-0")
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            name = re.sub(rf"^checkpoint-(?!{last.removeprefix('checkpoint-')}/)\d+/", "checkpoint-older/", name)
            for pattern, becomes in job.files:
                name = re.sub(pattern, becomes, name)
            names.add(name)
    return names


def whole_run(job: Job, root: Path, places: tuple[Place, ...]) -> Whole:
    """The run of a job that nothing stops, made once a test process for all jobs that share it."""
    key = job.whole or job.name
    if key not in _whole:
        folder = root / f"whole-{key}"
        job.prepare(folder)
        process = Process(job.command(folder), folder, job.environment(folder))
        seen: dict[str, float] = {}
        while process.process.poll() is None:
            for place in places:
                if place.name not in seen and place.reached(process):
                    seen[place.name] = time.monotonic() - process.started
            time.sleep(POLL_SECONDS)
        end = time.monotonic() - process.started
        assert process.wait() == 0, process.tail()
        assert not left_in_temporary(folder), f"{job.name}: nothing stopped it, and it left {left_in_temporary(folder)}"
        missed = [place.name for place in places if place.name not in seen and not place.seconds]
        assert not missed, f"{job.name}: a run that nothing stops was never seen at {missed}"
        long = {place.name: seen[place.name] for place in places if not place.seconds}
        sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
        found = job.result(folder), job.rows(folder), files_of(folder, job)
        _whole[key] = Whole(*found, long, end, sum(sizes), max(sizes, default=0))
    return _whole[key]


def torment(job: Job, root: Path, kills: int, rng: np.random.Generator, places: tuple[Place, ...]) -> list[Kill]:
    """Kill a job so often, over one run or several, and compare each with one that nothing stopped.

    Args:
        job: what is killed.
        root: folders are made in it.
        kills: how many at least.
        rng: draws place, moment, signal, and whether the whole process group gets it.
        places: of all jobs that share the run without kills.
    """
    whole = whole_run(job, root, places)
    found: list[Kill] = []
    first = int(rng.integers(2))  # signals take turns: two kills are one of each
    for attempt in range(kills + 3):
        if len(found) >= kills:
            break
        folder = root / f"{job.name.replace(' ', '-')}-{attempt}"
        job.prepare(folder)
        wanted = np.sort(rng.integers(0, len(job.places), size=min(3, kills - len(found))))
        of_this_run: list[Kill] = []
        for number in wanted:
            signum = SIGNALS[(first + len(found) + len(of_this_run)) % 2]
            kill = _kill_once(job, folder, job.places[number], whole, signum, rng)
            of_this_run += [] if kill is None else [kill]
        _finish(job, folder, whole, of_this_run)
        found += of_this_run
    assert len(found) >= kills, f"{job.name}: only {len(found)} of {kills} kills met it at work"
    return found


def _kill_once(
    job: Job, folder: Path, place: Place, whole: Whole, signum: signal.Signals, rng: np.random.Generator
) -> Kill | None:
    """Start it and kill it at a place; None if it had ended before the signal."""
    whom = job.whom[int(rng.integers(len(job.whom)))]
    if job.launched and whom == "process" and signum == signal.SIGKILL:
        whom = "group"  # nobody is left who could end its ranks, which go on
    seconds = float(rng.uniform(0, place.seconds or whole.duration(place)))
    process = Process(job.command(folder), folder, job.environment(folder))
    if not process.reaches(place):
        assert process.wait() == 0, process.tail()
        return None
    time.sleep(seconds)
    if not process.kill(signum, whom):
        assert process.wait() == 0, process.tail()
        return None
    assert "Traceback" not in process.tail() or signum == signal.SIGKILL or job.launched, process.tail()
    job.check(folder)
    kill = Kill(job.name, place.name, signal.Signals(signum).name, whom, round(seconds, 3))
    if job.steps:
        kept = last_complete_checkpoint(folder)
        kill.again = max(0, process.step - (kept.step if kept else 0))
    return kill


def _finish(job: Job, folder: Path, whole: Whole, kills: list[Kill]) -> None:
    """Run to the end, then compare results, rows and files."""
    process = Process(job.command(folder), folder, job.environment(folder))
    assert process.wait() == 0, process.tail()
    result, rows, files = job.result(folder), job.rows(folder), files_of(folder, job)
    lost = sum(rows.get(key, 0) < count for key, count in whole.rows.items())
    twice = sum(count > whole.rows.get(key, 0) for key, count in rows.items())
    orphans = sorted(files - whole.files) + left_in_temporary(folder)
    for kill in kills:
        kill.lost, kill.twice, kill.orphans = lost, twice, len(orphans)
    what = f"{job.name} after {[asdict(kill) for kill in kills]}"
    assert not orphans, f"{what}: files that a run without kills does not leave: {orphans}"
    assert not whole.files - files, f"{what}: missing files {sorted(whole.files - files)}"
    assert (lost, twice) == (0, 0), f"{what}: {lost} rows lost, {twice} there twice"
    different = [key for key in {*result, *whole.result} if result.get(key) != whole.result.get(key)]
    assert not different, f"{what}: differs in {different[:5]}"


def table(kills: list[dict[str, Any]]) -> list[str]:
    """A line for each place of each job, and the sums."""
    lines = [f"{'job':26}{'place':24}{'KILL':>5}{'TERM':>5}{'steps again':>12}{'lost':>6}{'twice':>6}{'orphans':>8}"]
    keys = dict.fromkeys((kill["job"], kill["place"]) for kill in kills)
    for job, place in keys:
        lines.append(_line(job, place, [kill for kill in kills if (kill["job"], kill["place"]) == (job, place)]))
    return [*lines, _line("all", f"{len(kills)} kills", kills)]


def _line(job: str, place: str, kills: list[dict[str, Any]]) -> str:
    count = [sum(kill["signal"] == name for kill in kills) for name in ("SIGKILL", "SIGTERM")]
    steps = [kill["again"] for kill in kills if kill["again"] is not None]
    again = str(sum(steps)) if steps else "-"
    sums = [sum(kill[key] for kill in kills) for key in ("lost", "twice", "orphans")]
    return f"{job:26}{place:24}{count[0]:>5}{count[1]:>5}{again:>12}{sums[0]:>6}{sums[1]:>6}{sums[2]:>8}"


def python(script: str, *words: str) -> list[str]:
    """The command line of a recipe."""
    return [sys.executable, str(ROOT / script), *words]
