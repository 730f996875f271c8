"""SIGKILL and SIGTERM at random moments of every long job: started again, it ends as one that nothing stopped.

`make test` kills the building of an index twice; `make faults` every job twice; `make faults-long` more often
(REXBERT_FAULTS=kills of each job). REXBERT_FAULTS_SEED repeats the draws of a run, which prints it.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from dataclasses import asdict

import numpy as np
import pytest
from index_update_jobs import UPDATE_JOBS
from kill_jobs import JOBS, places_of
from killing import torment
from later_jobs import LATER_JOBS
from pretraining_jobs import PRETRAINING_JOBS
from push_jobs import push_jobs

KILLS = int(os.environ.get("REXBERT_FAULTS", "0"))
SEED = int(os.environ.get("REXBERT_FAULTS_SEED") or (time.time_ns() % 1_000_000 if KILLS else 151))
"""Of the clock in `make faults`; `make test` kills where it killed before."""
SHORT = {"index building": 2}
"""What `make test` does."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("kills")


def run(job, folder, places, record_property):
    kills = KILLS or SHORT.get(job.name, 0)
    if not kills:
        pytest.skip("make faults")
    record_property("seed", SEED)
    print(f"REXBERT_FAULTS_SEED={SEED}")
    rng = np.random.default_rng([SEED, zlib.crc32(job.name.encode())])
    found = torment(job, folder, kills, rng, places)
    for kill in found:
        record_property("kill", json.dumps(asdict(kill)))


def of_one_worker(job):
    """Jobs that share their run without kills belong into one test process."""
    return pytest.param(job, id=job.name.replace(" ", "_"), marks=pytest.mark.xdist_group(job.whole or job.name))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("job", [of_one_worker(job) for job in JOBS])
def test_killed_it_ends_as_one_never_killed(job, folder, record_property):
    run(job, folder, places_of(job), record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("job", [of_one_worker(job) for job in PRETRAINING_JOBS])
def test_two_processes_and_stages_too(job, folder, record_property):
    run(job, folder, places_of(job, PRETRAINING_JOBS), record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("job", [of_one_worker(job) for job in (*LATER_JOBS, *UPDATE_JOBS)])
def test_what_comes_after_pre_training_too(job, folder, record_property):
    run(job, folder, job.places, record_property)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("number", [0, 1], ids=["model", "data_set"])
def test_pushing_killed_at_any_moment(number, folder, record_property):
    if not KILLS:
        pytest.skip("make faults")
    with push_jobs(folder) as jobs:
        run(jobs[number], folder, jobs[number].places, record_property)
