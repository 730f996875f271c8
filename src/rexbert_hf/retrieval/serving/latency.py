"""How long one query takes: median and 99th percentile, alone or with other clients at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

WARM_UP = 5


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call.

    Attributes:
        p50: median.
        p99: 99th percentile.
        per_second: calls a second, all clients together.
    """

    p50: float
    p99: float
    per_second: float


def measure_latency(
    call: Callable[[Any], object], inputs: Sequence[Any], repeats: int = 100, clients: int = 1
) -> Latency:
    """Time calls with one input each, in the order of the inputs, again and again.

    Args:
        call: such as `lambda text: encoder.encode([text])`.
        inputs: what it is called with.
        repeats: calls of each client.
        clients: threads that call at the same time.

    Example:
        >>> found = measure_latency(len, ["a", "bb"], repeats=10)
        >>> found.p50 <= found.p99
        True
    """
    for i in range(min(WARM_UP, repeats)):
        call(inputs[i % len(inputs)])
    times = np.zeros((clients, repeats))
    barrier = threading.Barrier(clients)

    def client(row: np.ndarray, first: int) -> None:
        barrier.wait()
        for i in range(repeats):
            start = time.perf_counter()
            call(inputs[(first + i) % len(inputs)])
            row[i] = time.perf_counter() - start

    threads = [threading.Thread(target=client, args=(times[i], i)) for i in range(1, clients)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    client(times[0], 0)
    for thread in threads:
        thread.join()
    total = time.perf_counter() - start
    p50, p99 = np.percentile(times * 1e3, [50, 99])
    return Latency(float(p50), float(p99), clients * repeats / total)
