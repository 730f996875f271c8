"""`make audit`: what is asked, and what each answer of pip-audit becomes. A stub of pip-audit answers."""

from __future__ import annotations

import json

import audit
import pytest
from house_files import ROOT

LISTING = """# a comment
torch==2.9.0+cpu
numpy==2.3.5  # because
uvloop==0.22 ; sys_platform != "win32"
loose>=1

"""
PINS = ["torch==2.9.0", "numpy==2.3.5", "uvloop==0.22"]
WEAK = {"id": "PYSEC-1", "fix_versions": ["2.4", "2.3.9"]}
UNMENDED = {"id": "PYSEC-2", "fix_versions": []}
FOUND = {
    "dependencies": [
        {"name": "torch", "skip_reason": "not there"},
        {"name": "numpy", "version": "2.3.5", "vulns": [WEAK, UNMENDED]},
        {"name": "uvloop", "version": "0.22", "vulns": []},
    ]
}
SAFE = {"dependencies": [{"name": "numpy", "version": "2.3.5", "vulns": []}]}
UNKNOWN = {"dependencies": [{"name": "numpy", "skip_reason": "no such package"}]}


@pytest.fixture
def answer(tmp_path, monkeypatch):
    """Lets a stub of pip-audit say something and end; it keeps the requirements that it was given."""
    folder = tmp_path / "stub"
    folder.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(folder))

    def becomes(said="", complaint="", status=0):
        lines = [
            "import shutil, sys",
            "words = sys.argv[1:]",
            f"shutil.copy(words[words.index('-r') + 1], {str(folder / 'asked')!r})",
            f"print({said!r})",
            f"print({complaint!r}, file=sys.stderr)",
            f"sys.exit({status})",
        ]
        (folder / "pip_audit.py").write_text("\n".join(lines))
        return folder / "asked"

    return becomes


def test_pins_have_no_comments_markers_or_local_versions(tmp_path):
    (tmp_path / "constraints.txt").write_text(LISTING)
    assert audit.pins(tmp_path / "constraints.txt") == PINS


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-min.txt"])
def test_all_our_pins_are_asked(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if line.strip() and not line.startswith("#")]
    pins = audit.pins(ROOT / name)
    assert len(pins) == len(lines)
    assert all(pin.count("==") == 1 and not set(pin) & set(" ;+#") for pin in pins), pins


def test_weaknesses_are_lines_and_status_1(tmp_path, answer, capsys):
    asked = answer(json.dumps(FOUND), "Found 2 known vulnerabilities", 1)
    (tmp_path / "pins.txt").write_text(LISTING)
    assert audit.main([str(tmp_path / "pins.txt")]) == 1
    assert asked.read_text().split() == PINS
    assert capsys.readouterr().out.splitlines() == [
        "could not be looked up: torch",
        "numpy 2.3.5: PYSEC-1 (mended in 2.4, 2.3.9)",
        "numpy 2.3.5: PYSEC-2 (mended in no version yet)",
        f"{tmp_path / 'pins.txt'}: 2 of 3 packages asked, 2 weaknesses",
    ]


def test_no_weakness_is_status_0_and_one_file_is_enough_for_1(tmp_path, answer, monkeypatch, capsys):
    answer(json.dumps(SAFE))
    (tmp_path / "pins.txt").write_text("numpy==2.3.5\n")
    assert audit.main([str(tmp_path / "pins.txt")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'pins.txt'}: 1 of 1 packages asked, 0 weaknesses\n"
    answers = iter([(["weak"], 1, ""), ([], 1, ""), ([], 0, "why")])
    monkeypatch.setattr(audit, "audit", lambda requirements: next(answers))
    assert audit.main([str(tmp_path / "pins.txt")] * 3) == 1


@pytest.mark.parametrize(
    ("said", "complaint", "why"),
    [
        ("", "Traceback\nrequests: Max retries exceeded", "its list of weaknesses cannot be reached (requests: Max"),
        (json.dumps(UNKNOWN), "", "none of the packages could be looked up (no such package)"),
        ('{"dependencies": []}', "", "none of the packages could be looked up (its answer names none)"),
    ],
)
def test_who_cannot_be_asked_is_skipped_with_the_reason(tmp_path, answer, capsys, said, complaint, why):
    answer(said, complaint, 1)
    (tmp_path / "pins.txt").write_text("numpy==2.3.5\n")
    assert audit.main([str(tmp_path / "pins.txt")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'pins.txt'}: skipped: {why}")


def test_without_pip_audit_it_is_said(monkeypatch):
    done = audit.subprocess.CompletedProcess([], 1, "", "python: No module named pip_audit")
    monkeypatch.setattr(audit.subprocess, "run", lambda *_, **options: done)
    assert audit.audit(PINS) == ([], 0, "pip-audit is not installed: pip install pip-audit")


def test_silence_for_ten_minutes_is_no_answer(monkeypatch):
    def silent(command, timeout, **options):
        raise audit.subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(audit.subprocess, "run", silent)
    assert audit.audit(PINS) == ([], 0, "no answer within ten minutes")


@pytest.mark.parametrize("said", ["", "[]", "not JSON"])
def test_another_failure_is_an_error_and_not_a_clean_list(answer, said):
    answer(said, "usage\npip-audit: error: odd option", 2)
    with pytest.raises(SystemExit, match="error: pip-audit failed: pip-audit: error: odd option"):
        audit.audit(PINS)
