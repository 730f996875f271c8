"""Speed and memory of phrase mining, beside gensim's Phrases on the same words.

    python benchmarks/phrase_mining.py [--quick] [--threads 2]

Each measurement runs in a process of its own, from texts on disk to scored phrases; peak memory is what comes on top
of the imports. Memory is taken on the text once and four times over, with four times the support and repeated runs
kept: the candidates are the same, so whatever grows is what the corpus costs. gensim learns and exports pairs only,
ours phrases of up to six words. Processor seconds are printed too: they do not suffer from other jobs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from phrase_peer import WordRuns, count_pairs, opened, ranked, real_run
from report import Reading, finish, header, parser
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.phrases.spool import Spool

GOAL_SPEED, GOAL_GROWTH, MIN_COUNT = 20.0, 1.1, 10


class Lines:
    """Texts of a file, one a line, walked over several times in one go."""

    def __init__(self, path: Path, times: int) -> None:
        self.path, self.times = path, times

    def __iter__(self) -> Iterator[str]:
        for _ in range(self.times):
            with self.path.open(encoding="utf-8") as file:
                yield from file


def work(kind: str, folder: Path, times: int, threads: int) -> None:
    """What a process of its own does: mine and print what it took; kind "all" counts repeated runs too."""
    texts = Lines(folder / "texts.txt", times)
    names = (folder / "names.txt").read_text(encoding="utf-8").splitlines()
    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started, before = time.perf_counter(), os.times()
    facts: dict[str, Any] = {}
    if kind != "gensim":
        kept = {"distinct_words": 0} if kind == "all" else {}
        pool = PhrasePool.mine(texts, names, min_count=MIN_COUNT * times, threads=threads, work_dir=folder, **kept)
        facts, count = pool.facts, len(pool)
    else:
        with Spool(folder) as spool:
            spool.write(texts)
            started, before = time.perf_counter(), os.times()
            count = len(ranked(count_pairs(WordRuns(spool), MIN_COUNT * times), "default"))
    after = os.times()
    size = (folder / "texts.txt").stat().st_size * times / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - imported
    seconds = time.perf_counter() - started
    cpu = after.user + after.system - before.user - before.system
    told = {"megabytes": size, "seconds": seconds, "cpu": cpu, "peak": peak, "phrases": count, "facts": facts}
    print(json.dumps(told))


def measured(kind: str, folder: Path, times: int, threads: int) -> dict[str, Any]:
    """Run `work` in a process of its own."""
    command = [sys.executable, __file__, "--work", kind, str(folder), str(times), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{kind:6} x{times}: {told['megabytes']:6.1f} MB in {told['seconds']:6.1f} s (processor {told['cpu']:.1f} s), "
        f"{told['peak']:,.0f} MiB, {told['phrases']:,} phrases; {told['facts'].get('seconds', '')}"
    )
    return told


def write_texts(folder: Path, limit: int | None) -> None:
    """The texts of the real run, each once, one a line; and the known phrases."""
    size = 0
    with opened(real_run()) as (texts, names), (folder / "texts.txt").open("w", encoding="utf-8") as file:
        for row in texts:
            line = " ".join((row["text"] or "").split())
            size += file.write(line + "\n")
            if limit is not None and size >= limit:
                break
        (folder / "names.txt").write_text("\n".join(" ".join(name.split()) for name in names), encoding="utf-8")


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    arguments: argparse.ArgumentParser = parser(__doc__, "10 MB of the text, one run each")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    args = arguments.parse_args()
    if args.work:
        kind, folder, times, threads = args.work
        work(kind, Path(folder), int(times), int(threads))
        return
    header("phrase_mining", "text of mine_phrases_real.yaml", ["numpy", "scikit-learn", "gensim"])
    with tempfile.TemporaryDirectory(prefix="phrases-") as name:
        folder = Path(name)
        write_texts(folder, 10_000_000 if args.quick else None)
        runs = [measured("ours", folder, 1, args.threads) for _ in range(1 if args.quick else 5)]
        peers = [measured("gensim", folder, 1, 1) for _ in range(1 if args.quick else 3)]
        once, grown = (measured("all", folder, times, args.threads) for times in (1, 4))
    ours, peer = runs[0], peers[0]

    def speed(several: list[dict[str, Any]], clock: str) -> float:
        return 60 * several[0]["megabytes"] / statistics.median(told[clock] for told in several)

    finish(
        [
            Reading(
                "phrase_mining/speed", speed(runs, "seconds"), speed(peers, "seconds"), GOAL_SPEED, "MB/min", "ours"
            ),
            Reading("phrase_mining/speed of processor time", speed(runs, "cpu"), speed(peers, "cpu"), None, "MB/min"),
            Reading("phrase_mining/peak memory", ours["peak"], peer["peak"], None, "MiB", lower=True),
            Reading(
                "phrase_mining/peak memory of 4 x the text", grown["peak"], once["peak"], GOAL_GROWTH, "MiB", lower=True
            ),
        ]
    )


if __name__ == "__main__":
    main()
