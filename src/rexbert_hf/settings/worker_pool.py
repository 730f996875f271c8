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


def in_order(
    work: Callable[[Task], Result], tasks: Iterable[Task], workers: int, prepare: Callable[[], None] | None = None
) -> Iterator[Result]:
    """Apply `work` to each task.

    Args:
        work: a function, or a method of an object that pickles.
        tasks: read as workers come free, two for each of them ahead.
        workers: processes; 1 works in this one.
        prepare: called once in each new worker, not where this process works itself.

    Raises:
        OSError: if a worker was killed.
        ValueError: if there is no worker.

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
    context = multiprocessing.get_context(method)
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(os.getpid(), work, prepare))
    waiting: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(_call, task))  # type: ignore[arg-type]
            while len(waiting) >= _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise OSError(
            "a worker process was killed, perhaps for want of memory: start again, with fewer processes"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_WORK: list[Callable[..., object]] = []


def _start(parent: int, work: Callable[..., object], prepare: Callable[[], None] | None) -> None:
    """In a new worker: what it works on (inherited, not pickled, where it was forked), and an eye on the parent."""
    _WORK[:] = [work]

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    threading.Thread(target=wait, daemon=True, name="parent-watch").start()
    if prepare is not None:
        prepare()


def _call(task: object) -> object:
    return _WORK[0](task)
