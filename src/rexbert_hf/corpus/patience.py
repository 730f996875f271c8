"""How long all threads together put up with an endpoint: shared waits, and the decision that it is gone.

One decision worth knowing: an endpoint is gone when nothing came back for `seconds` while requests failed, not after
so many failures: with many threads failures come in heaps. A wait that it asks for (Retry-After) does not count.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Patience:
    """Shared by the threads that ask one endpoint.

    Args:
        seconds: without any answer, while requests fail, after which the endpoint counts as gone.
        clock: seconds that only grow.

    Example:
        >>> patience = Patience(10)
        >>> patience.failed("HTTP 500")
        >>> patience.gone is None
        True
        >>> patience.give_up("wrong key")
        >>> patience.gone
        'wrong key'
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._failing_since: float | None = None
        self._held_until = 0.0
        self._gone: str | None = None
        self.answered = False

    @property
    def gone(self) -> str | None:
        """Why nothing more is asked, or None."""
        return self._gone

    def succeeded(self) -> None:
        """The endpoint answered, whatever it said."""
        with self._lock:
            self._failing_since = None
            self.answered = True

    def failed(self, message: str) -> None:
        """A request came to nothing; when that goes on for too long, the endpoint is gone."""
        with self._lock:
            now = self._clock()
            if self._failing_since is None:
                self._failing_since = now
            waited = now - max(self._failing_since, self._held_until)
        if waited > self._seconds:
            self.give_up(f"no answer for {waited:.0f} seconds; the last failure: {message}")

    def hold(self, seconds: float) -> None:
        """Nobody asks for so many seconds: the endpoint said so."""
        with self._lock:
            self._held_until = max(self._held_until, self._clock() + seconds)

    def give_up(self, message: str) -> None:
        """Nothing more is asked; threads that wait stop waiting."""
        with self._lock:
            self._gone = self._gone or message
        self._ended.set()

    def wait(self, seconds: float = 0.0) -> bool:
        """Wait so long, and until nobody is held; False if the endpoint is gone."""
        until = self._clock() + seconds
        while not self._ended.is_set():
            left = max(until, self._held_until) - self._clock()
            if left <= 0:
                return True
            self._ended.wait(left)
        return False
