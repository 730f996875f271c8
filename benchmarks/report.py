"""What the benchmarks share: the clock, readings beside a stock peer, and their report.

A benchmark parses with `parser`, prints `header`, measures, and ends with `finish(readings)`, which prints the table
and, as its last line, one JSON list of {"name", "ours", "peer", "ratio", "goal", "unit", "judged", "lower", "holds"}.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

DIGITS = 5
"""Figures of a number in the report."""


@dataclass(frozen=True)
class Reading:
    """One measured figure, its peer in the same run, and the goal.

    Attributes:
        name: "benchmark/what/of which".
        ours: our figure; None where a script that printed it had none that is finite.
        peer: the stock way's; None where there is none.
        goal: None where none is set; then `holds` is None too.
        unit: of `ours` and `peer`.
        judged: whether the goal is one for `ours` itself or for the ratio.
        lower: whether less is better: then it holds at the goal or below it.
    """

    name: str
    ours: float | None
    peer: float | None = None
    goal: float | None = None
    unit: str = ""
    judged: Literal["ratio", "ours"] = "ratio"
    lower: bool = False

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's, also where less is better; None where one of them is missing."""
        return self.ours / self.peer if self.peer and self.ours is not None else None

    @property
    def holds(self) -> bool | None:
        """Whether the goal is met; a figure that is missing or not a number does not meet it."""
        if self.goal is None:
            return None
        value = self.ours if self.judged == "ours" else self.ratio
        if value is None or math.isnan(value):
            return False
        return value <= self.goal if self.lower else value >= self.goal

    def entry(self) -> dict[str, Any]:
        """What the JSON line holds of it, rounded after judging; null for what is missing or not finite."""
        figures = {
            key: _short(value) for key, value in (("ours", self.ours), ("peer", self.peer), ("ratio", self.ratio))
        }
        rest = {"goal": self.goal, "unit": self.unit, "judged": self.judged, "lower": self.lower, "holds": self.holds}
        return {"name": self.name, **figures, **rest}


class Parser(argparse.ArgumentParser):
    """A parser of a benchmark's command line whose errors hold no secrets, as those of the package's own parsers."""

    def error(self, message: str) -> NoReturn:
        """Print usage and message to stderr, then exit with status 2.

        Args:
            message: in words.
        """
        from rexbert_hf.hub.redaction import redact  # here: it loads torch, which some benchmarks set up first

        super().error(str(redact(message)))


def parser(description: str | None, quick: str) -> argparse.ArgumentParser:
    """An argument parser with `--quick`.

    Args:
        description: the benchmark's docstring.
        quick: what is left out then.
    """
    result = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("--quick", action="store_true", help=quick)
    return result


def median_seconds(
    work: Callable[[], object], repeats: int = 5, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Median time of `work` after one call that does not count.

    Args:
        work: what is timed.
        repeats: calls that count.
        clock: `time.process_time` keeps other jobs of the machine out, for work in one thread.
    """
    work()
    times = []
    for _ in range(repeats):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def in_turns(works: Sequence[Callable[[], object]], repeats: int = 5) -> list[float]:
    """Median time of each of several works that take turns, after one round that does not count.

    Args:
        works: what is timed.
        repeats: rounds that count.
    """
    times: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, found in zip(works, times, strict=True):
            start = time.perf_counter()
            work()
            if turn:
                found.append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def header(name: str, source: str = "", packages: Sequence[str] = ("numpy", "torch", "transformers")) -> None:
    """Print what the readings depend on: date, commit, hardware, threads, versions, load, and text.

    Args:
        name: of the benchmark.
        source: where the text comes from.
        packages: distributions whose versions matter.
    """
    versions = [f"python {platform.python_version()}"]
    versions += [f"{package} {importlib.metadata.version(package)}" for package in packages]
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{name}  {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC  commit {commit()}")
    print(f"{hardware()}{load}")
    print(", ".join(versions))
    if source:
        print(source)


def hardware() -> str:
    """The GPU where torch has one, the processor, and torch's threads."""
    import torch

    gpu = f"{torch.cuda.get_device_name()}; " if torch.cuda.is_available() else ""
    threads = torch.get_num_threads()
    return f"{gpu}{processor()}, {os.cpu_count()} cores, {threads} thread{'s' if threads > 1 else ''}"


def processor() -> str:
    """Name of the processor as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The checkout's commit, with a + where tracked files differ from it."""
    try:
        told = [
            subprocess.run(
                ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return told[0] + ("+" if told[1] else "")


def finish(readings: Iterable[Reading]) -> None:
    """Print the table of the readings and the JSON line.

    Args:
        readings: of the whole benchmark, in the order to show.
    """
    readings = list(readings)
    width = max([len(reading.name) for reading in readings] + [4])
    print(f"\n{'':{width}}  {'ours':>12} {'peer':>12} {'ratio':>9}  goal")
    for reading in readings:
        print(f"{reading.name:{width}}  {_cells(reading)}  {_goal(reading)}")
    print(json.dumps([reading.entry() for reading in readings]))


def _cells(reading: Reading) -> str:
    ratio = "" if reading.ratio is None else f"{_figure(reading.ratio, 3)}x"
    return f"{_figure(reading.ours):>12} {_figure(reading.peer):>12} {ratio:>9}"


def _goal(reading: Reading) -> str:
    if reading.goal is None:
        return reading.unit
    sign, unit = ("<=" if reading.lower else ">="), ("x" if reading.judged == "ratio" else f" {reading.unit}")
    verdict = "holds" if reading.holds else "MISSED"
    return f"{sign} {_figure(reading.goal)}{unit}: {verdict}" + (f"  ({reading.unit})" if unit == "x" else "")


def _figure(value: float | None, digits: int = DIGITS) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:,.{digits}g}"


def _short(value: float | None) -> float | None:
    """`DIGITS` figures; whole numbers keep all of theirs."""
    if value is None or not math.isfinite(value):
        return None
    return float(value) if float(value).is_integer() else float(f"{value:.{DIGITS}g}")
