"""Seconds that `import rexbert_hf` takes in a fresh process, beside importing stock ModernBERT's class.

    python benchmarks/import_time.py [--quick]

Processes take turns, and processor time counts (user and system), so that other jobs of the machine stay out of it. The
files are in the system's cache: a warm-up of each comes first.
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys

import report

OURS = "import rexbert_hf; rexbert_hf.RexBertForMaskedLM"
STOCK = "from transformers import ModernBertForMaskedLM"
FLOOR = "import torch, transformers"
GOAL = 1.1


def seconds(statement: str) -> float:
    """Processor seconds of a fresh process that runs a statement."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", statement], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "three processes each instead of eleven").parse_args()
    report.header("import_time")
    times: dict[str, list[float]] = {OURS: [], STOCK: [], FLOOR: []}
    for statement in times:
        seconds(statement)
    for _ in range(3 if args.quick else 11):
        for statement, found in times.items():
            found.append(seconds(statement))
    ours, stock, floor = (statistics.median(found) for found in times.values())
    print(f"torch and transformers alone: {floor:.2f} s")
    report.finish([report.Reading("import_time", ours, stock, GOAL, "seconds of processor time", lower=True)])


if __name__ == "__main__":
    main()
