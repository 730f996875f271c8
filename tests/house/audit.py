"""`make audit`: known weaknesses of the pinned packages, by pip-audit; skipped with a note where it cannot ask.

    python tests/house/audit.py constraints.txt [constraints-min.txt ...]

Status 1 if a pinned version has a known weakness, 0 if none has or nobody could be asked.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

NO_ANSWER = re.compile(
    r"connection|resolve|timed out|timeout|max retries|proxy|unreachable|service error|certificate", re.I
)


def pins(path: Path) -> list[str]:
    """name==version of each line, without comments and local versions (+cpu), which no list of weaknesses knows."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return [re.sub(r"\+[\w.]+", "", line.partition(";")[0].strip()) for line in lines if "==" in line]


def audit(requirements: list[str]) -> tuple[list[str], int, str]:
    """Weaknesses as lines, how many packages were looked up, and why none was, if so."""
    with tempfile.TemporaryDirectory() as folder:
        listing = Path(folder) / "pins.txt"
        listing.write_text("\n".join(requirements) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip_audit", "-r", str(listing), "--no-deps", "--disable-pip"]
        command += ["--progress-spinner", "off", "-f", "json", "--timeout", "15"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        except subprocess.TimeoutExpired:
            return [], 0, "no answer within ten minutes"
    if "No module named pip_audit" in done.stderr:
        return [], 0, "pip-audit is not installed: pip install pip-audit"
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError, TypeError):
        said = (done.stderr.strip() or "no word").splitlines()[-1]
        if NO_ANSWER.search(done.stderr):
            return [], 0, f"its list of weaknesses cannot be reached ({said[:150]})"
        raise SystemExit(f"error: pip-audit failed: {said}") from None
    found, unknown = [], [package["name"] for package in packages if "skip_reason" in package]
    for package in packages:
        for weakness in package.get("vulns", []):
            fixed = ", ".join(weakness["fix_versions"]) or "no version yet"
            found.append(f"{package['name']} {package['version']}: {weakness['id']} (mended in {fixed})")
    if len(unknown) == len(packages):
        reason = packages[0]["skip_reason"] if packages else "its answer names none"
        return [], 0, f"none of the packages could be looked up ({reason[:120]})"
    if unknown:
        print(f"could not be looked up: {', '.join(unknown)}")
    return found, len(packages) - len(unknown), ""


def main(names: list[str]) -> int:
    """Audit each file."""
    status = 0
    for name in names:
        requirements = pins(Path(name))
        found, asked, why = audit(requirements)
        if why:
            print(f"{name}: skipped: {why}")
            continue
        print("\n".join([*found, f"{name}: {asked} of {len(requirements)} packages asked, {len(found)} weaknesses"]))
        status |= bool(found)
    return status


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:] or ["constraints.txt"]))
