"""Process-wide CPU settings."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import torch
from rexbert_hf.training.cpu import tune_cpu
tiny = torch.tensor([1e-30])
assert float(tiny * 1e-10) > 0, "denormals are kept before"
done = tune_cpu()
assert float(tiny * 1e-10) == 0, "and flushed after"
print(done)
"""


def test_denormals_are_flushed_and_the_allocator_is_told():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == str(sys.platform.startswith("linux"))
