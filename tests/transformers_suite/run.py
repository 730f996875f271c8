"""Run transformers' model tests over stock ModernBERT and RexBERT, and print where they differ.

    python tests/transformers_suite/run.py [--only SUBSTRING]

Exit status 0 when RexBERT passes every test that stock passes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from fetch import fetch

SUITE = Path(__file__).resolve().parent / "suite_rexbert.py"
STOCK, OURS, EXTRA = "StockModernBertTest", "RexBertTest", "RexBertForPreTrainingTest"


class Outcomes:
    """A pytest plugin that keeps one outcome and one line of reason a test."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, tuple[str, str]]] = {STOCK: {}, OURS: {}, EXTRA: {}}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        family, test = report.nodeid.split("::")[-2:]
        reason = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            reason = report.longrepr[2]
        elif report.outcome == "failed":
            reason = str(getattr(getattr(report.longrepr, "reprcrash", None), "message", report.longrepr))
        known = self.found[family].get(test)
        if known is None or known[0] != "failed":
            self.found[family][test] = (report.outcome, reason.split("\n")[0][:150])


def table(found: dict[str, dict[str, tuple[str, str]]]) -> tuple[str, list[str]]:
    """The summary, and the tests that stock passes and RexBERT does not."""
    lines = [f"transformers {transformers.__version__}, torch {torch.__version__}, CUDA {torch.cuda.is_available()}"]
    lines.append(f"{'':28s}{'passed':>8s}{'failed':>8s}{'skipped':>8s}")
    for family, tests in found.items():
        counts = Counter(outcome for outcome, _ in tests.values())
        lines.append(f"{family:28s}{counts['passed']:8d}{counts['failed']:8d}{counts['skipped']:8d}")
    stock, ours = found[STOCK], found[OURS]
    missing = ("missing", "")
    different = [t for t in stock if stock[t][0] != ours.get(t, missing)[0]]
    lost = [t for t in different if stock[t][0] == "passed"]
    lines.append(f"outcomes that differ: {len(different)}")
    for test in different:
        outcome, reason = ours.get(test, missing)
        lines.append(f"  {test}: stock {stock[test][0]}, RexBERT {outcome} {reason or stock[test][1]}")
    for family in (OURS, EXTRA):
        failed = [f"  {family}.{t}: {reason}" for t, (outcome, reason) in found[family].items() if outcome == "failed"]
        lines.extend(failed)
    passed = sum(outcome == "passed" for outcome, _ in stock.values())
    lines.append(f"RexBERT passes {passed - len(lost)} of the {passed} tests that stock ModernBERT passes")
    return "\n".join(lines), lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", help="run the tests whose names match (pytest -k)")
    arguments = parser.parse_args()
    fetch()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torch.set_num_threads(1)  # the models are tiny: more threads only wait for each other
    outcomes = Outcomes()
    options = ["-o", "addopts=", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", "--timeout=600"]
    options += ["-k", arguments.only] if arguments.only else []
    pytest.main([str(SUITE), *options], plugins=[outcomes])
    text, lost = table(outcomes.found)
    print(text)
    return 1 if lost or not outcomes.found[STOCK] else 0


if __name__ == "__main__":
    sys.exit(main())
