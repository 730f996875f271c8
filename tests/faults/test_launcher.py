"""A launcher that dies alone leaves its ranks at work: nobody else writes into their folder, and nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from kill_jobs import said, weights_and_results
from killing import ROOT, TIMEOUT_SECONDS, Place, Process
from pretraining_jobs import two_ranks
from process_tree import alive_in, groups_of, signal_all

KILLS = int(os.environ.get("REXBERT_FAULTS", "0"))


@pytest.mark.timeout(900)
@pytest.mark.skipif(not KILLS, reason="make faults")
def test_a_launcher_killed_alone(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    unbroken = Process(two_ranks(whole), whole, {})
    assert unbroken.wait() == 0, unbroken.tail()
    process = Process(two_ranks(broken), broken, {})
    assert process.reaches(Place("general", said(r"^step \d+/\d+ general"))), process.tail()
    groups = groups_of(process.process.pid)
    try:
        os.kill(process.process.pid, signal.SIGKILL)
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        second = subprocess.run(
            two_ranks(broken),
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        end = time.monotonic() + TIMEOUT_SECONDS
        while alive_in(groups) and time.monotonic() < end:
            time.sleep(0.2)
        assert not alive_in(groups), "ranks that never end"
    finally:
        signal_all(groups, signal.SIGKILL)
    if second.returncode:
        assert "another run is at work in this folder" in second.stderr, second.stderr[-3000:]
    third = Process(two_ranks(broken), broken, {})
    assert third.wait() == 0, third.tail()
    assert weights_and_results(broken) == weights_and_results(whole)
