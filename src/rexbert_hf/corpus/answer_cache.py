"""Answers that were paid for, on disk: an append-only file that survives a kill at any moment.

One decision worth knowing: every answer is kept, useless ones too, under the digest of all that was asked and the
number of the attempt. A run that starts again goes through the same attempts and pays only for those that were never
answered.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows: there two runs on one cache are not kept apart
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What an endpoint sent back for one question.

    Attributes:
        content: what the model wrote.
        finish_reason: why it stopped.
        prompt_tokens: as the endpoint counts them; None if it does not say.
        completion_tokens: likewise.
    """

    content: str
    finish_reason: str = ""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


def question_key(**parts: Any) -> str:
    """Digest of all that decides an answer: model, messages, schema, sampling, attempt.

    Example:
        >>> question_key(model="m", attempt=0) == question_key(attempt=0, model="m")
        True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class AnswerCache:
    """Answers by question.

    In memory there is one number a question; the answers stay on disk. One process at a time may use a file.

    Args:
        path: the file; made with its folders if it is not there.

    Raises:
        OSError: if it cannot be opened, or another process has it open.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> with AnswerCache(path) as cache:
        ...     cache.put("k", RawAnswer("shop", "stop", 90, 5))
        >>> with AnswerCache(path) as cache:
        ...     print(cache.get("k"), cache.get("other"))
        RawAnswer(content='shop', finish_reason='stop', prompt_tokens=90, completion_tokens=5) None
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()
        self._places: dict[str, int] = {}
        try:
            self._claim()
            self._end = self._index()
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def get(self, key: str) -> RawAnswer | None:
        """The answer to a question, or None."""
        place = self._places.get(key)
        if place is None:
            return None
        with os.fdopen(os.dup(self._file), "rb") as file, self._lock:
            file.seek(place)
            record = json.loads(file.readline())
        return _answer(record)

    def put(self, key: str, answer: RawAnswer) -> None:
        """Keep an answer; when this returns, a kill of the process cannot lose it.

        Raises:
            OSError: if it cannot be written, as on a full disk.
        """
        line = json.dumps({"key": key, **asdict(answer)}, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            written = os.write(self._file, line)
            if written != len(line):  # a full disk takes a part; ending the line keeps the next one apart
                os.ftruncate(self._file, self._end)
                raise OSError(f"{self.path}: only {written} of {len(line)} bytes could be written; is the disk full?")
            self._places[key] = self._end
            self._end += written

    def close(self) -> None:
        """Bring everything to disk and let the file go."""
        with self._lock:
            if self._file >= 0:
                os.fsync(self._file)
                os.close(self._file)
                self._file = -1

    def _claim(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"{self.path}: another run is using these answers; wait for it or stop it") from None

    def _index(self) -> int:
        """Learn where the answers stand; cut off what a kill left half written. The length of the file."""
        place = broken = 0
        with os.fdopen(os.dup(self._file), "rb") as file:
            file.seek(0)
            for line in file:
                if not line.endswith(b"\n"):
                    logger.warning("%s ends in half an answer, which is dropped", self.path)
                    os.ftruncate(self._file, place)
                    break
                key = _key_of(line)
                if key is None:
                    broken += 1
                else:
                    self._places[key] = place
                place += len(line)
        if broken:
            logger.warning("%s holds %d lines that are no answers; they will be asked again", self.path, broken)
        return place


def _key_of(line: bytes) -> str | None:
    try:
        record = json.loads(line)
        _answer(record)
        return str(record["key"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def _answer(record: Mapping[str, Any]) -> RawAnswer:
    return RawAnswer(**{name: value for name, value in record.items() if name != "key"})
