"""What all tests share: one torch thread, no network, no progress bars, no deadlines, no peers of the benchmarks."""

from __future__ import annotations

import os
import sys

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Iterator

import hypothesis
import pytest
import torch

# Only the `bench` extra brings it: a test that needs it shall fail on machines that have it too.
sys.modules["gensim"] = None  # type: ignore[assignment]

torch.set_num_threads(1)
hypothesis.settings.register_profile("random", deadline=None)  # machines may be busy
# The same examples each time: a change shall not fail for what another draw would have found before it.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("project")


@pytest.fixture(autouse=True)
def _keep_denormals() -> Iterator[None]:
    """Training flushes denormals for the whole process; hypothesis draws them and wants them kept."""
    yield
    torch.set_flush_denormal(False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip GPU tests where there is no GPU, and say so."""
    if torch.cuda.is_available():
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
