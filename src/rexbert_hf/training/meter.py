"""Throughput and quality of training between two log lines: real tokens a second, MFU, fill, masked accuracy.

Only the time between a step's first batch and its optimizer step counts; evaluation and checkpoints do not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

import torch

from rexbert_hf.training.flops import FlopCounter


class StepMeter:
    """Accumulate counts and time over steps.

    Args:
        flops: FLOP formula of the model; None leaves MFU out.
        peak: FLOP/s of all ranks together; 0 leaves MFU out.

    Example:
        >>> meter = StepMeter()
        >>> meter.start()
        >>> meter.stop({"tokens": 90, "real_tokens": 80, "slots": 100, "loss.mlm": 12})
        >>> window = meter.drain()
        >>> window["fill"], window["tokens_per_second"] > 0, meter.drain()
        (0.9, True, {})
    """

    def __init__(self, flops: FlopCounter | None = None, peak: float = 0.0) -> None:
        self.flops = flops
        self.peak = peak
        self.counts: Counter[str] = Counter()
        self.seconds = 0.0
        self._started: float | None = None
        self._correct: torch.Tensor | None = None

    def start(self) -> None:
        """Begin a step."""
        self._started = time.perf_counter()

    def stop(self, counts: Mapping[str, int]) -> None:
        """End a step with its counts over all ranks."""
        if self._started is not None:
            self.seconds += time.perf_counter() - self._started
            self._started = None
            self.counts.update(counts)

    def add_correct(self, correct: torch.Tensor) -> None:
        """Add this rank's correctly predicted tokens; stays on the device until a log line is due."""
        correct = correct.detach().to(torch.float64 if correct.device.type != "mps" else torch.float32)
        self._correct = correct if self._correct is None else self._correct + correct

    def take_correct(self) -> torch.Tensor | None:
        """This rank's correct predictions since the last call."""
        correct, self._correct = self._correct, None
        return correct

    def drain(self, correct: float | None = None) -> dict[str, float]:
        """Figures since the last drain, then start over; empty when no step passed.

        Args:
            correct: correct predictions of all ranks in the window, if known.
        """
        counts, seconds = self.counts, self.seconds
        self.counts, self.seconds = Counter(), 0.0
        if not counts["tokens"] or seconds <= 0:
            return {}
        out = {
            "tokens_per_second": counts["real_tokens"] / seconds,
            "fill": counts["tokens"] / counts["slots"] if counts["slots"] else 0.0,
        }
        labels = counts["loss.mlm"] + counts["loss.mlm_phrase"]
        if self.flops is not None and self.peak > 0:
            used = self.flops.step(counts["tokens"], counts["global_pairs"], counts["local_pairs"], labels)
            out["mfu"] = used / seconds / self.peak
        if correct is not None and labels:
            out["masked_accuracy"] = correct / labels
        return out
