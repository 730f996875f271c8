"""What the Hub's errors mean: which pass by themselves, and one line for those that don't.

huggingface_hub wraps errors (an upload's in a RuntimeError, a download's in a cache miss), so the whole chain of
causes is looked at.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session

from .redaction import redact

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

RETRIES = 5
WAIT_SECONDS = 2.0
LONGEST_WAIT_SECONDS = 60.0
REQUEST_TIMEOUT_SECONDS = 300.0
PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
REFUSED_STATUS = frozenset({400, 413, 422})
UNKNOWN_HOST_RETRIES = 1
"""A name server that knows no such host seldom changes its mind; one that does not answer is another matter."""
_NO_SUCH_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status behind an error, or None."""
    for cause in chain(error):
        response = getattr(cause, "response", None)
        if isinstance(cause, HTTPError) and response is not None:
            return int(response.status_code)
    return None


def is_passing(error: BaseException) -> bool:
    """Whether trying again may help: 408, 429, 5xx, a lost or refused connection, a timeout.

    Example:
        >>> is_passing(TimeoutError()), is_passing(ValueError())
        (True, False)
    """
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in chain(error)):
        return False
    status = status_of(error)
    if status is not None:
        return status in PASSING_STATUS
    return any(isinstance(cause, (HTTPError, ConnectionError, TimeoutError)) for cause in chain(error))


def is_unknown_host(error: BaseException) -> bool:
    """Whether a name server answered that there is no such host; one that did not answer may do so later.

    Example:
        >>> is_unknown_host(socket.gaierror(socket.EAI_NONAME, "not known")), is_unknown_host(ConnectionRefusedError())
        (True, False)
    """
    return any(isinstance(cause, socket.gaierror) and cause.errno in _NO_SUCH_HOST for cause in chain(error))


def retry_after(error: BaseException) -> float | None:
    """The seconds that the Hub asked to wait, or None."""
    for cause in chain(error):
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            try:
                return max(0.0, float(cause.response.headers["Retry-After"]))
            except (KeyError, ValueError):
                return None
    return None


def explain(error: Exception, what: str, remedy: str) -> Exception | None:
    """A built-in exception with one line for an error of the Hub; None for an error of another kind.

    Args:
        error: what was raised.
        what: what did not happen.
        remedy: what is safe, and what to do.

    Example:
        >>> explain(ConnectionResetError("reset by peer"), "a/b was not pushed", "try again")
        ConnectionError('a/b was not pushed: ConnectionResetError (reset by peer); try again')
        >>> explain(ZeroDivisionError(), "a/b was not pushed", "try again") is None
        True
    """
    what, remedy = redact(what), redact(remedy)  # an address may hold a login
    status = status_of(error)
    causes = list(chain(error))
    invalid = next((cause for cause in causes if isinstance(cause, HFValidationError)), None)
    if invalid is not None:
        return ValueError(f"{what}: {_first_line(invalid)}; {remedy}")
    if any(isinstance(cause, OfflineModeIsEnabled) for cause in causes):
        return ConnectionError(f"{what}: HF_HUB_OFFLINE is set; unset it; {remedy}")
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        return PermissionError(f"{what}: access is gated; ask for it on the repository's page; {remedy}")
    for kind, noun in ((RevisionNotFoundError, "revision"), (RepositoryNotFoundError, "repository")):
        if any(isinstance(cause, kind) for cause in causes):
            return FileNotFoundError(f"{what}: no such {noun}; {remedy}")
    if status == 401:
        return PermissionError(f"{what}: no valid token (status 401); `hf auth login` or HF_TOKEN; {remedy}")
    if status == 403:
        return PermissionError(f"{what}: the token may not do this (status 403); {remedy}")
    if status in REFUSED_STATUS:
        text = redact(" ".join(str(error).split()))[:300]
        return ValueError(f"{what}: the Hub refused it (status {status}: {text}); {remedy}")
    if status is not None:
        return ConnectionError(f"{what}: the Hub answered {status} ({_server_message(causes)}); {remedy}")
    transport = next((c for c in causes if isinstance(c, (HTTPError, ConnectionError, TimeoutError))), None)
    if transport is not None:
        return ConnectionError(f"{what}: {type(transport).__name__} ({_first_line(transport)}); {remedy}")
    return None


def _server_message(causes: list[BaseException]) -> str:
    for cause in causes:
        if isinstance(cause, HfHubHTTPError):
            return redact(cause.server_message) or _first_line(cause)
    return _first_line(causes[0])


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return str(redact(text.splitlines()[0])) if text else "no details"


def with_retries(
    action: Callable[[], Result], what: str, retried: Callable[[BaseException], bool] = is_passing
) -> Result:
    """Call until it works, at most RETRIES times more, waiting twice as long each time (or as the Hub asks).

    Args:
        action: what is called.
        what: it does, for messages.
        retried: the errors after which it is called again; of an unknown host at most UNKNOWN_HOST_RETRIES times.
    """
    for attempt in range(RETRIES + 1):
        try:
            with patience():
                return action()
        except Exception as error:
            most = min(RETRIES, UNKNOWN_HOST_RETRIES) if is_unknown_host(error) else RETRIES
            if attempt >= most or not retried(error):
                raise
            wait = min(LONGEST_WAIT_SECONDS, retry_after(error) or WAIT_SECONDS * 2**attempt)
            logger.warning("%s: %s; trying again in %.0f s", what, type(error).__name__, wait)
            time.sleep(wait)
    raise AssertionError("unreachable")


def read_hub(action: Callable[[], Result], name: str) -> Result:
    """Call what reads a data set, with retries; passing trouble that stays is one line, other errors are as they were.

    Args:
        action: reads it, from the Hub or a folder.
        name: of the data set, for messages.

    Raises:
        ConnectionError: when the Hub stays unreachable or in trouble.

    Example:
        >>> read_hub(lambda: 3, "user/name")
        3
    """
    try:
        return with_retries(action, f"reading {name}")
    except Exception as error:
        explained = explain(error, f"cannot read {name}", "try again later") if is_passing(error) else None
        if explained is None:
            raise
        raise explained from error


@contextmanager
def patience() -> Iterator[None]:
    """No request waits for ever, as many of huggingface_hub's do: a silent Hub would hang a finished job."""
    hooks = get_session().event_hooks["request"]
    hooks.append(_limit)
    try:
        yield
    finally:
        hooks.remove(_limit)


def _limit(request: Any) -> None:
    """Give a request the limits that it lacks; several calls say "none" of their own, so the session's do not count."""
    known = request.extensions.get("timeout") or {}
    given = {name: known.get(name) for name in ("connect", "read", "write", "pool")}
    limits = {name: REQUEST_TIMEOUT_SECONDS if value is None else value for name, value in given.items()}
    request.extensions["timeout"] = limits
