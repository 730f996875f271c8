"""Labels by a language model: many requests at a time, outcomes in the order of documents, nothing paid twice.

One decision worth knowing: threads only ask; what is asked and in which order outcomes leave is decided by the one
thread that iterates. So the outcomes are a function of documents and answers, whatever the timing.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .answer_cache import AnswerCache, RawAnswer, question_key
from .documents import Document
from .labels import Failure, Label
from .llm_client import Endpoint, EndpointError, EndpointSettings
from .prompts import Answer, Misfit, answer_schema, chat_messages, parse_answer
from .vertical import Vertical

_WINDOW = 8
"""Documents under way for each request at a time: one that is slow does not hold up the others."""
_JUDGED_AFTER = 200
"""From so many outcomes on failures are judged: nobody wants to pay to the end for answers of no use."""


class LLMLabeller:
    """Labels documents by a chat model.

    Every answer goes to a cache on disk before it is used. Answers that do not fit the schema are asked again, with
    another seed, up to `attempts` times. When the endpoint is gone (`EndpointSettings.patience`), the remaining
    documents fail at once with the reason `endpoint_gone`, and `trouble` says why.

    Args:
        settings: of the endpoint.
        vertical: what to ask.
        cache: file of the answers, shared by all stages that ask the same endpoint.
        max_failed_share: of documents; labelling stops early when there are clearly more.

    Raises:
        ValueError: if the settings name no endpoint or model.
    """

    def __init__(
        self, settings: EndpointSettings, vertical: Vertical, cache: str | Path, max_failed_share: float = 1.0
    ) -> None:
        self.settings, self.vertical, self.cache_path = settings, vertical, Path(cache)
        self.max_failed_share = max_failed_share
        self.name = settings.model
        self.endpoint = Endpoint(settings)
        self._schema = answer_schema(vertical)
        self._lock = threading.Lock()
        self._paid: Counter[str] = Counter()
        self._used: Counter[str] = Counter()

    @property
    def key(self) -> Any:
        """Model, prompt and sampling; not the address, nor how patient we are."""
        return ("llm", self.settings.question, chat_messages(self.vertical, "", self.settings.max_chars), self._schema)

    @property
    def trouble(self) -> str | None:
        """Why the endpoint counts as gone, or None."""
        return self.endpoint.patience.gone

    def label(self, documents: Iterable[Document]) -> Iterator[Label | Failure]:
        """One outcome a document, in order.

        Raises:
            ConnectionError: if the endpoint cannot be reached at the first question.
            OSError: if an answer cannot be stored, or another run uses the cache.
            ValueError: if far more than `max_failed_share` of 200 documents or more failed.
        """
        failed: Counter[str] = Counter()
        with AnswerCache(self.cache_path) as cache:
            pool = ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="label")
            try:
                for count, outcome in enumerate(self._in_order(documents, cache, pool), 1):
                    yield outcome
                    if isinstance(outcome, Failure):
                        failed[outcome.reason] += 1
                        self._judge(failed, count, outcome)
            except BaseException:
                self.endpoint.patience.give_up("the run was stopped")
                raise
            finally:
                # Waits for requests under way: they are paid for, and their answers still go to the cache.
                pool.shutdown(wait=True, cancel_futures=True)

    def _judge(self, failed: Counter[str], count: int, last: Failure) -> None:
        """Stop when failures are more than chance lets a share of `max_failed_share` be."""
        expected = self.max_failed_share * count
        if self.trouble is None and count >= _JUDGED_AFTER and failed.total() > expected + 3 * math.sqrt(expected):
            reasons = ", ".join(f"{number:,} {reason}" for reason, number in failed.most_common())
            raise ValueError(
                f"{failed.total():,} of the first {count:,} documents got no label from {self.name} ({reasons}; the "
                f"last: {last.message[:200]}): stopped before more is paid for; raise endpoint.max_tokens or attempts, "
                f"correct the vertical's labels, or raise max_failed_share={self.max_failed_share:g}"
            )

    def _in_order(
        self, documents: Iterable[Document], cache: AnswerCache, pool: ThreadPoolExecutor
    ) -> Iterator[Label | Failure]:
        waiting: deque[tuple[str, str, Future[Answer | Misfit]]] = deque()
        pending: dict[str, Future[Answer | Misfit]] = {}  # equal texts are asked once
        probed = False
        for document in documents:
            messages = chat_messages(self.vertical, document.text, self.settings.max_chars)
            key = self._question(messages, 0)
            if not probed and key not in cache:
                self.endpoint.probe()
                probed = True
            if key not in pending:
                pending[key] = pool.submit(self._ask, messages, cache)
            waiting.append((document.id, key, pending[key]))
            if len(waiting) >= _WINDOW * self.settings.concurrency:
                yield self._outcome(waiting, pending)
        while waiting:
            yield self._outcome(waiting, pending)

    def _outcome(
        self,
        waiting: deque[tuple[str, str, Future[Answer | Misfit]]],
        pending: dict[str, Future[Answer | Misfit]],
    ) -> Label | Failure:
        identifier, key, future = waiting.popleft()
        answer = future.result()
        if all(other != key for _, other, _ in waiting):
            pending.pop(key, None)
        if isinstance(answer, Misfit):
            return Failure(identifier, answer.reason, answer.message)
        return Label(identifier, answer.label, answer.confidence, answer.reason, self.name)

    def _question(self, messages: list[dict[str, str]], attempt: int) -> str:
        sampling = self.settings.sampling(attempt)
        return question_key(messages=messages, schema=self._schema, attempt=attempt, **sampling)

    def _ask(self, messages: list[dict[str, str]], cache: AnswerCache) -> Answer | Misfit:
        """In a thread: go through the attempts, from the cache as far as it reaches."""
        misfit = Misfit("not_asked", "no attempt was made")
        for attempt in range(self.settings.attempts):
            key = self._question(messages, attempt)
            raw = cache.get(key)
            if raw is None:
                try:
                    raw = self.endpoint.ask(messages, self._schema, attempt)
                except EndpointError as error:
                    return Misfit(error.reason, str(error))
                cache.put(key, raw)
                self._add(self._paid, raw)
            self._add(self._used, raw)
            found = parse_answer(self.vertical, raw.content, raw.finish_reason)
            if isinstance(found, Answer):
                return found
            misfit = found
        return misfit

    def _add(self, counts: Counter[str], answer: RawAnswer) -> None:
        with self._lock:
            counts["answers"] += 1
            counts["prompt_tokens"] += answer.prompt_tokens or 0
            counts["completion_tokens"] += answer.completion_tokens or 0
            counts["answers_without_usage"] += answer.prompt_tokens is None

    def figures(self) -> dict[str, Any]:
        """Requests, tokens and cost: of all answers that were used, and of those paid for in this run."""
        return {
            "model": self.settings.model,
            "structured": self.endpoint.dialect,
            "currency": self.settings.currency,
            "used": self._bill(self._used),
            "paid_in_this_run": self._bill(self._paid),
            "failed_requests": dict(sorted(self.endpoint.troubles.items())),
        }

    def _bill(self, counts: Counter[str]) -> dict[str, Any]:
        settings = self.settings
        cost = counts["prompt_tokens"] * settings.prompt_price + counts["completion_tokens"] * settings.completion_price
        names = ("answers", "prompt_tokens", "completion_tokens", "answers_without_usage")
        return {**{name: counts[name] for name in names}, "cost": round(cost / 1e6, 6)}
