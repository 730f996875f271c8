"""`benchmarks/all.py`: whatever one benchmark does, the others are measured alone, and the table says so."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path

import pytest
from house_files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import report

bench = importlib.import_module("all")  # the name of a builtin

ENTRIES = [
    report.Reading("x/fast", 30_000.0, 15_000.0, 1.5, "tokens/s").entry(),
    report.Reading("x/slow", 1.0, 1.0, 1.5, "tokens/s").entry(),
    report.Reading("x/plain", 0.25, unit="s").entry(),
]
WORKER = "import subprocess, sys; w = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']{}); "
WORKER += "print(w.pid, file=open(__file__ + '.pid', 'w'), flush=True); "
SCRIPTS = {
    "good": f"import sys; print(sys.argv[1:]); print('''{json.dumps(ENTRIES)}''')",
    "dies": "import sys; print('[]'); sys.exit('first line\\nlast line')",
    "odd": "print('{\"a\": 1}')",
    "silent": "pass",
    "hangs": WORKER.format("") + "w.wait()",
    "leaves": WORKER.format(", stdout=-3, stderr=-3") + "print('[]')",
}
FAILURES = {
    "good": "",
    "dies": "status 1: last line",
    "odd": "its last line is no JSON list",
    "silent": "its last line is no JSON list",
    "hangs": "stopped after 0.2 minutes",
    "leaves": "",
}


def outcome_of(name, folder, full=False):
    script = folder / f"{name}.py"
    script.write_text(SCRIPTS[name])
    return bench.run(script, full, 0.2 if name == "hangs" else 1.0, folder / "table.md")


def ends(pid):
    """Whether a process is gone within seconds; one that nobody has asked how it ended does not run either."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        stat = Path(f"/proc/{pid}/stat")
        try:
            if stat.read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    os.kill(pid, 9)
    return False


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_that_fails_is_named_and_leaves_no_process(tmp_path, capfd, name):
    outcome = outcome_of(name, tmp_path)
    assert (outcome.name, outcome.failure) == (name, FAILURES[name])
    assert outcome.entries == (ENTRIES if name == "good" else [])
    if name in ("hangs", "leaves"):
        assert ends(int((tmp_path / f"{name}.py.pid").read_text()))
    if name == "good":
        assert "['--quick']" in capfd.readouterr().out
        assert outcome_of(name, tmp_path, full=True).failure == ""
        assert "[]\n" in capfd.readouterr().out


def test_the_table_counts_what_misses_and_names_what_failed():
    outcomes = [bench.Outcome("x", ENTRIES, seconds=2.4), bench.Outcome("y", failure="stopped", seconds=60.0)]
    assert bench.table(outcomes).splitlines() == [
        "3 readings, 2 with a goal, 1 hold.",
        "Missed: x/slow.",
        "FAILED: y: stopped",
        "",
        "| what | ours | stock peer | ratio | goal | unit | holds |",
        "| --- | ---: | ---: | ---: | ---: | --- | --- |",
        "| x/fast | 30,000 | 15,000 | 2 | 1.5 | tokens/s | yes |",
        "| x/slow | 1 | 1 | 1 | 1.5 | tokens/s | **no** |",
        "| x/plain | 0.25 |  |  |  | s |  |",
        "",
        "| benchmark | seconds |",
        "| --- | ---: |",
        "| x | 2 |",
        "| y | 60 |",
    ]


def test_the_others_are_measured_and_the_status_tells(tmp_path, monkeypatch):
    for name in ("dies", "good"):
        (tmp_path / f"{name}.py").write_text(SCRIPTS[name])
    monkeypatch.setattr(bench, "scripts", lambda only: [tmp_path / f"{name}.py" for name in ("dies", "good")])
    monkeypatch.setattr(sys, "argv", ["all.py", "--out", str(tmp_path / "table.md")])
    with pytest.raises(SystemExit) as ended:
        bench.main()
    assert ended.value.code == 1
    written = (tmp_path / "table.md").read_text()
    assert "FAILED: dies: status 1: last line" in written
    assert "| x/fast |" in written


def test_every_benchmark_is_run_once():
    phrases = importlib.import_module("phrases")
    assert {f"{name}.py" for name in bench.INSIDE_OTHERS} == set(phrases.OTHERS)
    assert set(bench.INSIDE_OTHERS.values()) == {"phrases"}
    run = {path.stem for path in bench.scripts()}
    assert "phrase_quality" in run
    assert run.isdisjoint({*bench.INSIDE_OTHERS, *bench.ON_GPUS})


def test_the_judged_phrase_list_in_the_results_is_read_back(tmp_path):
    lists = importlib.import_module("phrase_lists")
    (reading,) = lists.count_judged(ROOT / "benchmarks" / "results" / "phrase_lists_2026-11-21.tsv")
    assert (reading.ours, reading.peer) == (0.975, 0.39)
    lists.write_lists(tmp_path, {"ours": ["tea pot", "desk lamp"], "gensim": ["desk lamp", "screen of"]})
    blind = tmp_path / lists.JUDGED
    with pytest.raises(SystemExit, match="3 phrases have neither y nor n, such as 'desk lamp'"):
        lists.count_judged(blind)
    marks = {"tea pot": "y", "desk lamp": "y", "screen of": "n"}
    blind.write_text("".join(f"{phrase}\t{mark}\n" for phrase, mark in marks.items()))
    (reading,) = lists.count_judged(blind)
    assert (reading.ours, reading.peer) == (1.0, 0.5)
