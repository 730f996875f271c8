"""Run every benchmark, one process each, and write one dated table: what, ours, stock peer, ratio, goal, holds.

    python benchmarks/all.py [--full] [--minutes 15] [--only train_step packing ...] [--out FILE.md]

Quick readings by default (`--quick` of each benchmark: minutes in all); `--full` takes their own sizes. Figures come
from the last line of each, a JSON list. One that fails, says nothing or takes longer than `--minutes` is listed with
the reason, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import report
from processes import run_group

HERE = Path(__file__).resolve().parent
INSIDE_OTHERS = {"phrase_mining": "phrases", "ahm_collate": "phrases"}
"""Benchmarks that another one runs and reports."""
PLOTTED = ("cost_curves",)
"""Benchmarks that draw their readings with `--plot`; the pictures lie beside the table."""
ON_GPUS = ("gpu", "gpu_checks")
"""What measures nothing without a GPU: `make bench-gpu` runs it there, and others with it."""


@dataclass
class Outcome:
    """What came of one benchmark.

    Attributes:
        name: of the script.
        entries: its readings.
        failure: why there are none; empty otherwise.
        seconds: that it took.
    """

    name: str
    entries: list[dict[str, Any]] = field(default_factory=list)
    failure: str = ""
    seconds: float = 0.0


def scripts(only: Sequence[str] | None = None) -> list[Path]:
    """All benchmarks that can be run by themselves.

    Args:
        only: names of those to take.

    Raises:
        SystemExit: if one of them does not exist.
    """
    found = {
        path.stem: path
        for path in sorted(HERE.glob("*.py"))
        if path != Path(__file__).resolve() and 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
    }
    if only:
        unknown = [name for name in only if name not in found]
        if unknown:
            raise SystemExit(f"error: no benchmark '{unknown[0]}': there are {', '.join(found)}")
        return [found[name] for name in only]
    return [path for name, path in found.items() if name not in INSIDE_OTHERS and name not in ON_GPUS]


def run(path: Path, full: bool, minutes: float, table: Path) -> Outcome:
    """Run one benchmark and read its last line.

    Args:
        path: the script.
        full: without `--quick`.
        minutes: after which it is stopped, its workers too.
        table: the file that the readings go to; a picture gets a name like it.
    """
    command, start = [sys.executable, str(path), *([] if full else ["--quick"])], time.monotonic()
    if path.stem in PLOTTED:
        command += ["--plot", str(table.with_name(f"{table.stem}_{path.stem}.png"))]
    print(f"\n== {path.stem}", flush=True)
    ended = run_group(command, 60 * minutes)
    print(ended.said, end="", flush=True)
    seconds = time.monotonic() - start
    if ended.status is None:
        return Outcome(path.stem, failure=f"stopped after {minutes:g} minutes", seconds=seconds)
    lines = ended.said.strip().splitlines()
    if ended.status:
        said = (ended.complaint.strip() or "no word").splitlines()[-1]
        return Outcome(path.stem, failure=f"status {ended.status}: {said[:200]}", seconds=seconds)
    try:
        entries = json.loads(lines[-1]) if lines else None
    except json.JSONDecodeError:
        entries = None
    if not isinstance(entries, list):
        return Outcome(path.stem, failure="its last line is no JSON list", seconds=seconds)
    return Outcome(path.stem, entries, seconds=seconds)


def table(outcomes: Sequence[Outcome]) -> str:
    """The readings as Markdown, those that miss their goal first counted.

    Args:
        outcomes: of all benchmarks.
    """
    entries = [entry for outcome in outcomes for entry in outcome.entries]
    judged = [entry for entry in entries if entry["holds"] is not None]
    missed = [entry["name"] for entry in judged if not entry["holds"]]
    lines = [f"{len(entries)} readings, {len(judged)} with a goal, {len(judged) - len(missed)} hold."]
    lines += [f"Missed: {', '.join(missed)}."] if missed else []
    for outcome in outcomes:
        if outcome.failure:
            lines.append(f"FAILED: {outcome.name}: {outcome.failure}")
    lines += [
        "",
        "| what | ours | stock peer | ratio | goal | unit | holds |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
    ]
    for entry in entries:
        cells = [_cell(entry[key]) for key in ("ours", "peer", "ratio", "goal")]
        holds = {None: "", True: "yes", False: "**no**"}[entry["holds"]]
        lines.append(f"| {entry['name']} | {' | '.join(cells)} | {entry['unit']} | {holds} |")
    lines += ["", "| benchmark | seconds |", "| --- | ---: |"]
    lines += [f"| {outcome.name} | {outcome.seconds:.0f} |" for outcome in outcomes]
    return "\n".join(lines) + "\n"


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def heading(full: bool) -> str:
    """Title, hardware, versions and the command, as all files of results/ have them."""
    import importlib.metadata

    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "numpy")]
    size = "full sizes" if full else "quick sizes: ratios are rough"
    return (
        f"# All benchmarks, {today}\n\n`python {' '.join(['benchmarks/all.py', *sys.argv[1:]])}` ({size}), commit "
        f"{report.commit()}\n\n{report.hardware()}; {', '.join(versions)}\n\n"
    )


def main() -> None:
    """Run, print, write; status 1 if one failed."""
    parser = report.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="the benchmarks' own sizes: hours")
    parser.add_argument("--minutes", type=float, default=None, help="most for one benchmark (15, or 120 with --full)")
    parser.add_argument("--only", nargs="+", help="run these alone")
    parser.add_argument("--out", type=Path, help="the Markdown file (default: results/all_HARDWARE_DATE.md)")
    args = parser.parse_args()
    minutes = args.minutes or (120.0 if args.full else 15.0)
    machine = f"{os.cpu_count()}cpu"
    out = args.out or HERE / "results" / f"all_{machine}_{datetime.datetime.now(datetime.UTC):%Y-%m-%d}.md"
    outcomes = [run(path, args.full, minutes, out) for path in scripts(args.only)]
    text = table(outcomes)
    out.write_text(heading(args.full) + text, encoding="utf-8")
    print(f"\n{text}\n{out}")
    raise SystemExit(1 if any(outcome.failure for outcome in outcomes) else 0)


if __name__ == "__main__":
    main()
