"""`benchmarks/gpu.py` gets one short loan of a GPU: whatever a part does, the others go on, and readings are kept."""

from __future__ import annotations

import json
import sys

import pytest
from house_files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu
import report

READING = report.Reading("x/y", 2.0, 1.0, 1.5, "tokens/s")
SCRIPTS = {
    "good.py": f"print('said'); print('''{json.dumps([READING.entry()])}''')",
    "dies.py": "import sys; print('[]'); sys.exit('first line\\nlast line')",
    "hangs.py": "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])",
    "odd.py": "print('{\"a\": 1}')",
    "silent.py": "pass",
}


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("good.py", ""),
        ("dies.py", "dies.py: last line"),
        ("hangs.py", "hangs.py: stopped after 2 s"),
        ("odd.py", "odd.py: its last line is no list of readings"),
        ("silent.py", "silent.py: its last line is no list of readings"),
    ],
)
def test_a_part_that_fails_is_named(tmp_path, monkeypatch, capfd, script, failure):
    (tmp_path / script).write_text(SCRIPTS[script])
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    found, said = gpu.run(gpu.Part("steps", (script,)), 60.0 if script != "hangs.py" else 2.0)
    assert said == failure
    assert found == ([READING] if not failure else [])
    if script == "dies.py":
        assert "first line\nlast line" in capfd.readouterr().out


def test_an_odd_error_of_a_check_costs_that_check_alone(tmp_path, monkeypatch, capfd):
    def broken():
        raise KeyError("an odd one")

    monkeypatch.setattr(gpu, "checks", lambda device: [("first", broken), ("second", lambda: [READING])])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--only", "checks", "--out", str(tmp_path / "out.json")])
    with pytest.raises(SystemExit, match="FAILED first: 'an odd one'"):
        gpu.main()
    kept = json.loads((tmp_path / "out.json").read_text())
    assert kept == {"readings": [READING.entry()], "failed": ["first: 'an odd one'"]}
    assert json.loads(capfd.readouterr().out.strip().splitlines()[-1]) == [READING.entry()]
