"""One question to an OpenAI-compatible endpoint, asked until there is an answer or a reason to stop.

Two decisions worth knowing. The structured-answer option has several dialects; the first that the endpoint accepts is
kept, down to none at all (the prompt asks for JSON anyway). And the user's Hub token is never sent along unless
`api_key_env` names its variable: `InferenceClient` would send it to any address.
"""

from __future__ import annotations

import logging
import os
import random
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, HTTPError, InferenceTimeoutError, OfflineModeIsEnabled
from huggingface_hub.utils import get_session

from ..hub.redaction import REDACTED, looks_secret, redact
from ..settings.ranges import check_above_zero, check_least
from .answer_cache import RawAnswer
from .patience import Patience

logger = logging.getLogger(__name__)

DIALECTS = ("json_schema", "json_object", "none")
"""How a structured answer is asked for: OpenAI's and vLLM's way, TGI's way, not at all."""

_UNSUPPORTED = {400, 415, 422, 501}
_TRANSIENT = {408, 409, 425, 429, 500, 502, 503, 504, 507, 520, 521, 522, 523, 524, 529}
_HOPELESS = {401, 402, 404}
_LONGEST_HOLD = 600.0


@dataclass(frozen=True)
class EndpointSettings:
    """Which endpoint labels, and how it is treated.

    Attributes:
        base_url: of the API, as "http://localhost:8000/v1" or "https://router.huggingface.co/v1".
        model: name that the endpoint knows.
        api_key_env: environment variable that holds the key (HF_TOKEN for the Hub's router); "" sends none.
        max_tokens: of an answer.
        temperature: of the first attempt.
        retry_temperature: of further attempts after an unusable answer: at 0 the same answer would come again.
        seed: of the first attempt; each further one adds 1.
        attempts: answers that are asked for a document before it fails.
        max_chars: of a document that the model sees.
        structured: the dialect to begin with.
        concurrency: requests at a time, at most 100: what the HTTP client keeps open.
        timeout: seconds until a request counts as failed.
        retries: after 429, 5xx, time-outs and broken connections, for each attempt.
        backoff: seconds before the first of them, doubled each time, with jitter.
        max_backoff: seconds at most between two.
        patience: seconds of nothing but failures after which the endpoint counts as gone.
        prompt_price: of a million tokens.
        completion_price: of a million tokens.
        currency: of the prices.
    """

    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    max_tokens: int = 200
    temperature: float = 0.0
    retry_temperature: float = 0.7
    seed: int = 0
    attempts: int = 3
    max_chars: int = 6_000
    structured: str = "json_schema"
    concurrency: int = 8
    timeout: float = 120.0
    retries: int = 8
    backoff: float = 1.0
    max_backoff: float = 60.0
    patience: float = 300.0
    prompt_price: float = 0.0
    completion_price: float = 0.0
    currency: str = "USD"

    def __post_init__(self) -> None:
        if self.structured not in DIALECTS:
            raise ValueError(f"structured is one of {', '.join(DIALECTS)}, got '{self.structured}'")
        for name in ("max_tokens", "attempts", "max_chars", "concurrency", "timeout"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is above 0, got {getattr(self, name)}")
        if self.concurrency > 100:
            raise ValueError(f"concurrency is at most 100, got {self.concurrency}")
        check_above_zero(self, "timeout")
        check_least(self, temperature=0, retry_temperature=0, retries=0, backoff=0, max_backoff=0)
        check_least(self, prompt_price=0, completion_price=0)

    @property
    def question(self) -> dict[str, Any]:
        """What of it decides what a document or pair gets in the end, after all attempts."""
        names = ("model", "max_tokens", "temperature", "retry_temperature", "seed", "attempts", "max_chars")
        return {name: getattr(self, name) for name in names}

    def sampling(self, attempt: int) -> dict[str, Any]:
        """What of it decides one answer: more attempts, or another temperature of theirs, leave the first as it was.

        Args:
            attempt: 0 for the first.
        """
        return {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "temperature": self.retry_temperature if attempt else self.temperature,
            "seed": self.seed + attempt,
        }


class EndpointError(Exception):
    """A question without an answer: `reason` is a short name for counting, `gone` says that nothing more is asked."""

    def __init__(self, reason: str, message: str, gone: bool = False) -> None:
        super().__init__(message)
        self.reason, self.gone = reason, gone


class _OpenAIFormat(dict[str, Any]):
    """A response format that `InferenceClient` hands on as it is.

    For addresses of one's own it rewrites `json_schema` to TGI's dialect, which vLLM takes for "any JSON".
    """

    def get(self, key: str, default: Any = None) -> Any:
        return default if key == "type" else super().get(key, default)


class Endpoint:
    """Asks one endpoint from many threads.

    Args:
        settings: address, model, patience.

    Raises:
        ValueError: if address, model or the key's variable is missing, or what it holds cannot be sent.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        if not settings.base_url.startswith(("http://", "https://")) or not settings.model:
            raise ValueError("labelling with a language model needs endpoint.base_url (http...) and endpoint.model")
        key = "none"  # a key of our own, or the client would send the Hub token
        if settings.api_key_env:
            key = os.environ.get(settings.api_key_env, "").strip()  # a key read from a file ends with a line break
            if not key:
                raise ValueError(_no_key(settings.api_key_env))
            if not (key.isascii() and key.isprintable()):  # the HTTP library would refuse it, and quote it in clear
                raise ValueError(
                    f"endpoint.api_key_env: what {redact(settings.api_key_env)} holds (not shown) has a character that "
                    "no header can have, such as a line break: export the key alone"
                )
        self.settings, self._key = settings, key
        self.patience = Patience(settings.patience)
        self.troubles: Counter[str] = Counter()
        self._client = InferenceClient(base_url=settings.base_url, api_key=key, timeout=settings.timeout)
        self._lock, self._jitter = threading.Lock(), random.Random()
        self._dialect, self._dialect_works = DIALECTS.index(settings.structured), False

    @property
    def dialect(self) -> str:
        """How structured answers are asked for by now."""
        return DIALECTS[self._dialect]

    def probe(self) -> None:
        """See whether anybody is there, at once and without retries.

        Raises:
            ConnectionError: if not, or if the key is refused.
        """
        address = f"{self.settings.base_url.rstrip('/')}/models"
        headers = {"authorization": f"Bearer {self._key}"}
        try:
            status = get_session().get(address, headers=headers, timeout=min(self.settings.timeout, 20.0)).status_code
        except OfflineModeIsEnabled as error:  # of every address, one on this machine too
            raise ConnectionError(
                f"endpoint {redact(self.settings.base_url)} is not asked while HF_HUB_OFFLINE is set, for the client "
                "is huggingface_hub's: start again with HF_HUB_OFFLINE=0"
            ) from error
        except (HTTPError, OSError) as error:
            raise ConnectionError(
                f"endpoint {redact(self.settings.base_url)} cannot be reached ({self._without_key(_short(error))}): "
                "start it, or correct base_url"
            ) from error
        if status in (401, 403):
            raise ConnectionError(
                f"endpoint {redact(self.settings.base_url)} refuses the key (HTTP {status}): set endpoint.api_key_env"
            )

    def ask(self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], attempt: int) -> RawAnswer:
        """Ask one question, with retries.

        Args:
            messages: the conversation.
            schema: of the answer.
            attempt: 0 for the first; decides seed and temperature.

        Raises:
            EndpointError: if there is no answer.
        """
        reason, message, dialect = "endpoint_gone", "", self._dialect
        tries = delay = 0.0
        while self.patience.wait(delay):
            try:
                answer = self._once(messages, schema, attempt, dialect)
            except _ERRORS as error:
                reason, message, status = _describe(error)
                message = self._without_key(message)
                self._count(reason)
                # A 400 may mean the dialect or the question; a dialect that worked once is not at fault.
                if status in _UNSUPPORTED and not self._dialect_works and dialect + 1 < len(DIALECTS):
                    dialect, delay = dialect + 1, 0.0
                    continue
                self._judge(error, status, message)
                tries += 1
                if not _is_transient(status) or tries > self.settings.retries:
                    break
                delay = self._delay(tries)
            else:
                self.patience.succeeded()
                self._keep(dialect)
                return answer
        gone = self.patience.gone
        raise EndpointError("endpoint_gone" if gone else reason, gone or message, gone is not None)

    def _once(
        self, messages: Sequence[Mapping[str, str]], schema: Mapping[str, Any], attempt: int, dialect: int
    ) -> RawAnswer:
        output = self._client.chat_completion(
            [dict(message) for message in messages],
            **self.settings.sampling(attempt),
            response_format=_response_format(DIALECTS[dialect], schema),
        )
        choice = output.choices[0]
        content = choice.message.content or getattr(choice.message, "refusal", None) or ""
        if not isinstance(content, str):
            raise TypeError(f"the content is {type(content).__name__}")
        usage = getattr(output, "usage", None)
        return RawAnswer(
            content,
            str(choice.finish_reason or ""),
            _count_of(usage, "prompt_tokens"),
            _count_of(usage, "completion_tokens"),
        )

    def _without_key(self, message: str) -> str:
        """A message without the key, whatever it looks like: an endpoint may repeat what it was sent."""
        if self.settings.api_key_env:
            for key in (self._key, " ".join(self._key.split())):  # `_short` squeezes blanks
                message = message.replace(key, REDACTED)
        return message[:200]

    def _keep(self, dialect: int) -> None:
        """A dialect that worked is used from now on."""
        with self._lock:
            if self._dialect_works:
                return
            before, self._dialect, self._dialect_works = self._dialect, dialect, True
        if dialect != before:
            logger.warning(
                "the endpoint refuses structured answers as %s; asking with %s", DIALECTS[before], self.dialect
            )

    def _judge(self, error: Exception, status: int | None, message: str) -> None:
        """Tell the patience what a failure means for all."""
        if status in _HOPELESS or (status == 403 and not self.patience.answered):
            self.patience.give_up(f"{message}; check endpoint.model, the key and the account")
        elif not _is_transient(status):
            self.patience.succeeded()  # it answered: the question is at fault
        else:
            held = _retry_after(error)
            if held is not None:
                self.patience.hold(min(held, _LONGEST_HOLD))
            self.patience.failed(message)

    def _delay(self, tries: float) -> float:
        longest = min(self.settings.max_backoff, self.settings.backoff * 2 ** (tries - 1))
        return longest * self._jitter.uniform(0.5, 1.0)

    def _count(self, reason: str) -> None:
        with self._lock:
            self.troubles[reason] += 1


# What a request can end in: the library's errors, and what it stumbles over in a body that is not what it should be.
_ERRORS = (HTTPError, OSError, InferenceTimeoutError, OfflineModeIsEnabled,
           ValueError, TypeError, KeyError, AttributeError, IndexError)  # fmt: skip


def _response_format(dialect: str, schema: Mapping[str, Any]) -> Any:
    if dialect == "none":
        return None
    if dialect == "json_object":
        return {"type": "json_object", "value": dict(schema)}
    return _OpenAIFormat(type="json_schema", json_schema={"name": "label", "schema": dict(schema), "strict": True})


def _no_key(variable: str) -> str:
    """Why there is no key. What does not read as a variable's name may be the key itself, and is not shown."""
    if re.fullmatch(r"[A-Z][A-Z0-9_]*", variable) and not looks_secret(variable):
        return f"endpoint.api_key_env: the environment variable {variable} is not set"
    return (
        "endpoint.api_key_env takes the name of an environment variable, and what it holds is none that is set (not"
        " shown: it may be the key itself): export the key under a name, such as LABELLER_KEY, and give that name"
    )


def _describe(error: Exception) -> tuple[str, str, int | None]:
    """Short name, one line, and HTTP status if there is one."""
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        return f"http_{status}", f"HTTP {status}: {_short(error)}", status
    # Some versions of the client hand the HTTP library's own time-outs on, which are connection errors by their class.
    if isinstance(error, (InferenceTimeoutError, TimeoutError)) or type(error).__name__.endswith("Timeout"):
        return "timeout", _short(error), None
    if isinstance(error, (HTTPError, OSError)):
        return "connection", f"{type(error).__name__}: {_short(error)}", None
    return "malformed_response", f"a response that cannot be read ({type(error).__name__}: {_short(error)})", None


def _is_transient(status: int | None) -> bool:
    return status is None or status in _TRANSIENT


def _short(error: Exception) -> str:
    return redact(" ".join(str(error).split())) or type(error).__name__


def _retry_after(error: Exception) -> float | None:
    """Seconds that a response asks to wait: a number or a date."""
    if not isinstance(error, HfHubHTTPError) or error.response is None:
        return None
    text = error.response.headers.get("Retry-After", "").strip()
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _count_of(usage: Any, name: str) -> int | None:
    value = getattr(usage, name, None)
    return value if isinstance(value, int) else None
