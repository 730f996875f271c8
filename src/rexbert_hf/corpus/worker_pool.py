"""Work on a stream of tasks in several processes, with few tasks in memory, and results in the order of tasks.

One decision worth knowing: workers are forked where the system can, so that they neither import torch again nor hold
their own copy of what the parent loaded, and each watches its parent: a parent that was killed leaves no worker behind.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")

_AHEAD = 2
_WATCH_SECONDS = 0.5


def in_order(work: Callable[[Task], Result], tasks: Iterable[Task], workers: int) -> Iterator[Result]:
    """Apply `work` to each task.

    Args:
        work: a function, or a method of an object that pickles.
        tasks: read as workers come free, two for each of them ahead.
        workers: processes; 1 works in this one.

    Raises:
        RuntimeError: if a worker was killed.

    Example:
        >>> list(in_order(abs, iter([-1, 2]), 1))
        [1, 2]
    """
    if workers < 1:
        raise ValueError(f"workers is at least 1, got {workers}")
    if workers == 1:
        yield from map(work, tasks)
        return
    # Linux only forks by default up to Python 3.13.
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn"
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context(method), initializer=_start, initargs=(os.getpid(), work)
    )
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_call, task))  # type: ignore[arg-type]
            while len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise RuntimeError(
            "a worker was killed, perhaps for want of memory: what is finished is kept; run again, with fewer workers"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_WORK: list[Callable[..., object]] = []


def _start(parent: int, work: Callable[..., object]) -> None:
    """In a new worker: what it works on (inherited, not pickled, where it was forked), and an eye on the parent."""
    _WORK[:] = [work]

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()


def _call(task: object) -> object:
    return _WORK[0](task)
