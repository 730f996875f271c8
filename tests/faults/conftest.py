"""The table of kills and losses at the end, gathered from all test processes."""

from __future__ import annotations

import json

from killing import table


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what was killed and what was lost."""
    reports = [report for key in ("passed", "failed") for report in terminalreporter.stats.get(key, [])]
    properties = [item for report in reports for item in getattr(report, "user_properties", [])]
    kills = [json.loads(value) for name, value in properties if name == "kill"]
    if not kills:
        return
    seeds = sorted({value for name, value in properties if name == "seed"})
    terminalreporter.section(f"kills and losses (REXBERT_FAULTS_SEED={', '.join(map(str, seeds))})")
    for line in table(kills):
        terminalreporter.write_line(line)
