"""`benchmarks/gpu.py` gets one short loan of a GPU: whatever a part does, the others go on, and readings are kept."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from house_files import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import gpu
import gpu_checks
import product_text
import report
import train_step
from rexbert_hf.catalog import SAMPLE_SIZE, load_sample

READING = report.Reading("x/y", 2.0, 1.0, 1.5, "tokens/s")
MISSED = report.Reading("x/low", 0.5, None, 0.99, "cosine", "ours")
WORKER = (
    "import pathlib, subprocess, sys; w = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); "
)
WORKER += (
    "pathlib.Path(__file__ + '.new').write_text(str(w.pid)); pathlib.Path(__file__ + '.new').rename(__file__ + '.pid')"
)
SCRIPTS = {
    "good.py": f"print('said'); print('''{json.dumps([READING.entry()])}''')",
    "misses.py": f"print('''{json.dumps([MISSED.entry(), report.Reading('x/nan', math.nan, 2.0).entry()])}''')",
    "dies.py": "import sys; print('[]'); sys.exit('first line\\nlast line')",
    "hangs.py": f"{WORKER}; print('so far', flush=True); w.wait()",
    "odd.py": "print('{\"a\": 1}')",
    "silent.py": "pass",
}
BARE = """
import importlib.machinery
import importlib.metadata

ABSENT = {"datasets", "evaluate", "faiss", "faiss-cpu", "fasttext", "fasttext-numpy2"}
found, known = importlib.machinery.PathFinder.find_spec, importlib.metadata.Distribution.from_name

def find(name, path=None, target=None):
    return None if name.split(".")[0] in ABSENT else found(name, path, target)

def distribution(name):
    if name in ABSENT:
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)

importlib.machinery.PathFinder.find_spec = staticmethod(find)
importlib.metadata.Distribution.from_name = staticmethod(distribution)
"""
"""A sitecustomize.py: these packages are absent, for imports and for whoever asks for their versions."""


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A folder of small scripts in place of the benchmarks'."""
    for name, code in SCRIPTS.items():
        (tmp_path / name).write_text(code)
    monkeypatch.setattr(gpu, "HERE", tmp_path)
    return tmp_path


def called(monkeypatch, folder, *parts, options=()):
    """Exit status, kept JSON, of `gpu.py` with these parts."""
    monkeypatch.setattr(gpu, "parts", lambda *args: [gpu.Part(kind, (script,)) for kind, script in parts])
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--out", str(folder / "out.json"), *options])
    code = 0
    try:
        gpu.main()
    except SystemExit as ended:
        code = ended.code
    return code, json.loads((folder / "out.json").read_text())


def gone(pid):
    """Whether a process is gone within seconds; one that nobody has asked how it ended does not run either."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return False


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
def test_a_part_that_fails_is_named(scripts, capfd, script, failure):
    found, said = gpu.run(gpu.Part("steps", (script,)), 60.0 if script != "hangs.py" else 2.0)
    assert said == failure
    assert found == ([READING] if not failure else [])
    if script == "dies.py":
        assert "first line\nlast line" in capfd.readouterr().out
    if script == "hangs.py":
        assert "so far" in capfd.readouterr().out
        assert gone(int((scripts / "hangs.py.pid").read_text()))


def test_what_a_check_does_costs_that_check_alone(scripts, monkeypatch, capfd):
    code, kept = called(monkeypatch, scripts, ("checks", "dies.py"), ("checks", "good.py"), ("encode", "good.py"))
    assert code == "FAILED dies.py: last line"
    assert kept == {"readings": [READING.entry()] * 2, "failed": ["dies.py: last line"]}
    assert json.loads(capfd.readouterr().out.strip().splitlines()[-1]) == [READING.entry()] * 2


def test_a_check_that_misses_its_goal_is_a_failure_and_a_rate_that_does_is_none(scripts, monkeypatch, capfd):
    assert called(monkeypatch, scripts, ("checks", "good.py"), ("steps", "misses.py"))[0] == 0
    code, kept = called(monkeypatch, scripts, ("checks", "misses.py"))
    assert code == "FAILED x/low: misses its goal"
    assert [entry["name"] for entry in kept["readings"]] == ["x/low", "x/nan"]
    assert "MISSED" in capfd.readouterr().out


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_a_figure_that_is_not_finite_has_its_line_in_the_table(capfd, value):
    readings = [report.Reading("x/odd", value, 2.0, 1.0), report.Reading("x/peer", 2.0, value, 1.0)]
    report.finish(readings)
    assert [(entry["name"], entry["ratio"]) for entry in json.loads(capfd.readouterr().out.splitlines()[-1])] == [
        ("x/odd", None),
        ("x/peer", 0.0 if value == math.inf else None),
    ]


def test_what_finds_no_time_is_named(scripts, monkeypatch, capfd):
    options = ("--seconds", "60", "--total", "4")
    todo = ("checks", "good.py"), ("steps", "hangs.py"), ("text", "silent.py"), ("encode", "silent.py")
    code, kept = called(monkeypatch, scripts, *todo, options=options)
    assert kept["readings"] == [READING.entry()]
    assert [line.split(": ")[0] for line in kept["failed"]] == ["hangs.py", "silent.py", "silent.py"]
    assert "hangs.py: stopped after 3 s" in code
    code, kept = called(monkeypatch, scripts, *todo, options=("--total", "0"))
    assert code.splitlines()[0] == "FAILED good.py: not begun, no time was left"
    assert (kept["readings"], len(kept["failed"])) == ([], 4)
    assert capfd.readouterr().out.endswith("goal\n[]\n")


def test_each_kind_that_is_to_come_keeps_a_share_of_the_time(monkeypatch):
    monkeypatch.setattr(time, "monotonic", lambda: 1_000.0)
    waiting = [gpu.Part(kind, ()) for kind in ("checks", "steps", "steps", "long")]
    assert gpu.Clock(150.0, 540.0, 1_000.0).share(waiting) == 150.0
    assert gpu.Clock(900.0, 540.0, 1_000.0).share(waiting) == 540 - 2 * 45
    assert gpu.Clock(900.0, 540.0, 1_000.0).share(waiting[3:]) == 540.0
    assert gpu.Clock(900.0, 540.0, 1_000.0 - 490).share(waiting[1:]) == 0.0
    assert gpu.Clock(900.0, 540.0, 1_000.0 - 490).share(waiting[3:]) == 50.0


def test_a_signal_ends_all_and_the_table_stands(scripts):
    driver = f"import sys; sys.path.insert(0, {str(ROOT / 'benchmarks')!r}); import gpu, pathlib; "
    driver += f"gpu.HERE = pathlib.Path({str(scripts)!r}); one = gpu.Part; gpu.parts = lambda *args: "
    driver += "[one('checks', ('good.py',)), one('steps', ('hangs.py',)), one('text', ('good.py',))]; gpu.main()"
    out = scripts / "out.json"
    running = subprocess.Popen(
        [sys.executable, "-c", driver, "--cpu", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    pid, end = scripts / "hangs.py.pid", time.monotonic() + 100
    while not pid.exists() and running.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    running.send_signal(signal.SIGTERM)
    said, complaint = running.communicate(timeout=100)
    assert running.returncode == 1
    assert json.loads(said.splitlines()[-1]) == [READING.entry()]
    failed = ["hangs.py: stopped by SIGTERM", "good.py: not begun"]
    assert complaint.splitlines()[-2:] == [f"FAILED {line}" for line in failed]
    assert json.loads(out.read_text()) == {"readings": [READING.entry()], "failed": failed}
    assert gone(int(pid.read_text()))


def test_what_cannot_be_is_said_before_the_first_part(scripts, monkeypatch):
    options = ("--out", str(scripts / "none" / "out.json"))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", *options])
    with pytest.raises(SystemExit, match=r"error: --out .*out.json: No such file"):
        gpu.main()
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--cpu", "--data_dir", str(scripts)])
    with pytest.raises(SystemExit, match=r"error: --data_dir .* has no text/shop"):
        gpu.main()


@pytest.mark.parametrize("check", ["gradients", "fused"])
def test_the_checks_of_gradients_hold_at_toy_sizes(check):
    readings = gpu_checks.CHECKS[check]("cpu")
    assert len(readings) == 2
    assert all(reading.holds for reading in readings)


def test_every_check_has_a_part():
    assert {*gpu.CHECKS, "tests"} == set(gpu_checks.CHECKS)
    for cpu in (True, False):
        parts = list(gpu.parts(cpu, False, None, Path("texts")))
        assert list(dict.fromkeys(part.name for part in parts)) == list(gpu.KINDS)
        for part in parts:
            assert (ROOT / "benchmarks" / part.command[0]).exists()
            assert (part.name == "checks") != ("--data_dir" in part.command)


def test_the_order_of_steps_warms_up_each_batch_where_its_shape_is_its_own():
    assert train_step.turns(5, "cpu") == ([0, 1, 2, 3, 4], train_step.WARM_UP)
    assert train_step.turns(5, "cuda") == ([0, 1, 2, 3, 4, 2, 3, 4], 5)


def test_the_sample_shop_has_the_same_texts_without_datasets():
    assert product_text.SAMPLE_SIZE == SAMPLE_SIZE
    assert product_text.sample_texts(3, 30) == list(load_sample("shop_text", seed=3, size=30)["text"])


def environment(*folders):
    """This process's, with the package and these folders before it to import from."""
    paths = [*map(str, folders), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_a_bare_machine_is_enough(tmp_path):
    """Without datasets, evaluate, faiss, fasttext and a folder of texts; the checks of gradients are tried above."""
    benchmarks, block = tmp_path / "checkout" / "benchmarks", tmp_path / "block"
    shutil.copytree(ROOT / "benchmarks", benchmarks, ignore=shutil.ignore_patterns("results", "__pycache__"))
    block.mkdir()
    (block / "sitecustomize.py").write_text(BARE)
    driver = f"import sys; sys.path.insert(0, {str(benchmarks)!r}); import gpu; gpu.CHECKS = ('trainer',); gpu.main()"
    done = subprocess.run(
        [sys.executable, "-c", driver, "--cpu", "--only", "checks", "text", "encode"],
        capture_output=True, text=True, env=environment(block), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "built-in sample shop" in done.stdout
    names = [entry["name"] for entry in json.loads(done.stdout.splitlines()[-1])]
    assert {"gpu/check/resume", "train_step/micro/padded", "encode/mixed"} <= set(names)
    without = subprocess.run([sys.executable, "-c", "import datasets"], capture_output=True, env=environment(block))
    assert without.returncode, "the import was not blocked: the test says nothing"
