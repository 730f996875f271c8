"""Judges of search results that nobody judged: a language model behind an endpoint, or a cross-encoder.

Few products of a catalogue are judged for a query, and a new system finds others. A judge gives those a grade on the
scale of the data; its figures stand beside the official ones under names of their own, and never replace them. Every
answer is kept under the hash of its question, so a pair is paid for once, whichever system found it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rexbert_hf.corpus.answer_cache import AnswerCache, RawAnswer, question_key
from rexbert_hf.corpus.llm_client import Endpoint, EndpointError, EndpointSettings
from rexbert_hf.evaluation.fine_tuning_model import load_as, read_config
from rexbert_hf.evaluation.judge_settings import JudgeSettings
from rexbert_hf.evaluation.models import model_key
from rexbert_hf.evaluation.search_data import SearchProtocol
from rexbert_hf.evaluation.task import content_hash
from rexbert_hf.hub.loading import loading
from rexbert_hf.metrics import Judgements, grades_of, label_shares
from rexbert_hf.retrieval.training.biencoder import find_base

Pair = tuple[str, str]
LABELS = ("E", "S", "C", "I")
SHARES = {"E": 1.0, "S": 0.66, "C": 0.33, "I": 0.0}
"""Where a label lies between the lowest grade of a scale and its highest."""
_NO_LABEL = "no_label"

_TASK = (
    "You judge search results of an online shop. Say how well a product answers a shopper's query. Labels: E (exact: "
    "all that the query asks for), S (substitute: fails in some respect, could stand in for it), C (complement: goes "
    'with what was asked for), I (irrelevant). Answer with JSON: {"label": "E"}, {"label": "S"}, {"label": "C"} or '
    '{"label": "I"}.'
)
_SCHEMA = {
    "type": "object",
    "properties": {"label": {"type": "string", "enum": list(LABELS)}},
    "required": ["label"],
    "additionalProperties": False,
}


class Judge(Protocol):
    """Says where a product lies between irrelevant (0) and exact (1)."""

    name: str

    @property
    def lost(self) -> int:
        """Pairs that could not be asked about: another time they may have an answer."""

    def shares(self, pairs: Sequence[Pair]) -> np.ndarray:
        """One number in [0, 1] a pair, NaN where there is no answer; float64 `[N]`.

        Args:
            pairs: (query, product text).
        """


class EndpointJudge:
    """A language model that names one of the labels E, S, C, I.

    Args:
        settings: of the endpoint.
        cache: file of the answers.

    Raises:
        ValueError: if the settings name no endpoint or model.
    """

    def __init__(self, settings: EndpointSettings, cache: Path) -> None:
        self.settings, self.cache_path, self.name = settings, cache, settings.model
        self.endpoint = Endpoint(settings)
        self.failures: dict[str, int] = {}

    @property
    def lost(self) -> int:
        """Pairs that failed by an error of the endpoint; an answer without a label is an answer, and stays one."""
        return sum(count for reason, count in self.failures.items() if reason != _NO_LABEL)

    def shares(self, pairs: Sequence[Pair]) -> np.ndarray:
        """As `Judge.shares`; equal pairs are asked once.

        Raises:
            ConnectionError: if nobody is there at the first question that has no answer yet, or goes on the way.
            OSError: if an answer cannot be kept, or another run uses the cache.
        """
        distinct = list(dict.fromkeys(pairs))
        with AnswerCache(self.cache_path) as cache:
            if any(self._key(pair, 0) not in cache for pair in distinct):
                self.endpoint.probe()
            with ThreadPoolExecutor(self.settings.concurrency, thread_name_prefix="judge") as pool:
                found = dict(zip(distinct, pool.map(lambda pair: self._ask(pair, cache), distinct), strict=True))
        if self.endpoint.patience.gone:  # figures of half the answers must not be kept as those of all
            raise ConnectionError(
                f"the judge is gone: {self.endpoint.patience.gone}; its answers are kept, start again"
            )
        return np.array([found[pair] for pair in pairs], dtype=np.float64)

    def _ask(self, pair: Pair, cache: AnswerCache) -> float:
        reason = "not_asked"
        for attempt in range(self.settings.attempts):
            key = self._key(pair, attempt)
            raw = cache.get(key)
            if raw is None:
                try:
                    raw = self.endpoint.ask(self._messages(pair), _SCHEMA, attempt)
                except EndpointError as error:
                    reason = error.reason
                    break
                cache.put(key, raw)
            label = label_in(raw.content)
            if label is not None:
                return SHARES[label]
            reason = _NO_LABEL
        self.failures[reason] = self.failures.get(reason, 0) + 1
        return float("nan")

    def _messages(self, pair: Pair) -> list[dict[str, str]]:
        query, product = (text[: self.settings.max_chars] for text in pair)
        asked = f"Query: {query}\nProduct: {product}"
        return [{"role": "system", "content": _TASK}, {"role": "user", "content": asked}]

    def _key(self, pair: Pair, attempt: int) -> str:
        sampling = self.settings.sampling(attempt)
        return question_key(messages=self._messages(pair), schema=_SCHEMA, attempt=attempt, **sampling)


def label_in(text: str) -> str | None:
    """The label that an answer names: as JSON, or alone; None if there is none.

    Args:
        text: of the answer.

    Example:
        >>> label_in('{"label": "S"}'), label_in(" e."), label_in("Excellent")
        ('S', 'E', None)
    """
    start, end = text.find("{"), text.rfind("}")
    if 0 <= start < end:
        try:
            named = json.loads(text[start : end + 1]).get("label")
        except (ValueError, AttributeError, RecursionError):
            named = None
        return named if named in LABELS else None
    alone = text.strip().strip(".\"'").upper()
    return alone if alone in LABELS else None


class CrossEncoderJudge:
    """A cross-encoder; its score of a pair, through its own activation, is taken for the nearest label's share.

    A sigmoid never reaches 1, and "exact" begins there on a scale of labels.

    Args:
        model: folder or Hub name of a sentence-transformers cross-encoder with one output.
        cache: file of the answers.
        batch_size: pairs of one forward pass.

    Raises:
        ValueError: if the model has more than one output, or no weights of the head that gives it.
    """

    def __init__(self, model: str, cache: Path, batch_size: int = 64) -> None:
        from sentence_transformers.cross_encoder import CrossEncoder
        from transformers import AutoModelForSequenceClassification

        folder = find_base(model)
        self.name, self.cache_path, self.batch_size = Path(model).name, cache, batch_size
        self.lost = 0
        self._key = model_key(folder)
        with loading("cross-encoder", model):
            self.model = CrossEncoder(str(folder))
        if self.model.num_labels != 1:
            raise ValueError(f"{model} has {self.model.num_labels} outputs: a judge has one score a pair")
        if type(self.model.model).__name__.endswith("ForSequenceClassification"):  # others score by what they generate
            _, report = load_as(AutoModelForSequenceClassification, folder, read_config(folder))
            if missing := sorted(report["missing_keys"]):
                raise ValueError(f"{model} is no cross-encoder ({missing[0]} is missing): its grades would be drawn")

    def shares(self, pairs: Sequence[Pair]) -> np.ndarray:
        """As `Judge.shares`; a score that is no number is no answer, and is not kept.

        Raises:
            ValueError: if a score lies outside 0 to 1.
            OSError: if an answer cannot be kept, or another run uses the cache.
        """
        with AnswerCache(self.cache_path) as cache:
            keys = {pair: question_key(model=self._key, pair=list(pair)) for pair in dict.fromkeys(pairs)}
            found = {pair: _score_in(cache.get(key)) for pair, key in keys.items()}
            new = [pair for pair, score in found.items() if np.isnan(score)]
            if new:
                scores = self.model.predict(new, batch_size=self.batch_size, show_progress_bar=False)
                for pair, score in zip(new, np.asarray(scores, dtype=np.float64).ravel().tolist(), strict=True):
                    found[pair] = score
                    if not np.isnan(score):
                        cache.put(keys[pair], RawAnswer(repr(score)))
        self.lost += sum(1 for score in found.values() if np.isnan(score))
        shares = np.array([found[pair] for pair in pairs], dtype=np.float64)
        if ((shares < 0) | (shares > 1)).any():
            raise ValueError(f"{self.name} gives scores outside 0 to 1: a judge needs a sigmoid, as re-rankers have")
        labels = np.array(list(SHARES.values()))
        nearest = labels[np.abs(shares[:, None] - labels).argmin(axis=1)]
        return np.where(np.isnan(shares), np.nan, nearest)


def _score_in(kept: RawAnswer | None) -> float:
    """The score of an answer that was kept; NaN, as for none, where an older version kept that."""
    return float("nan") if kept is None else float(kept.content)


def judge_key(settings: JudgeSettings) -> dict[str, Any]:
    """What decides a judge's grades, and which results get one.

    Args:
        settings: of the judge.
    """
    if settings.endpoint is not None:
        judge: Any = settings.endpoint.question
    else:
        assert settings.cross_encoder is not None
        judge = model_key(find_base(settings.cross_encoder))
    # How scores and queries are taken is part of the key: figures of older ways must not come from a cache.
    read = {} if settings.endpoint is not None else {"read": "nearest label, none of NaN"}
    drawn = {} if settings.max_queries is None else {"queries": "drawn"}
    return {"judge": judge, "depth": settings.depth, "max_queries": settings.max_queries, **read, **drawn}


def make_judge(settings: JudgeSettings, folder: Path) -> Judge:
    """The judge that settings name.

    Args:
        settings: of the judge.
        folder: for its answers.
    """
    asked = judge_key(settings)["judge"] if settings.endpoint is None else settings.endpoint.model
    path = folder / f"answers-{content_hash(asked)[:12]}.jsonl"  # one of a language model: its answers have keys
    if settings.endpoint is not None:
        return EndpointJudge(settings.endpoint, path)
    assert settings.cross_encoder is not None
    return CrossEncoderJudge(settings.cross_encoder, path)


def fill_judgements(
    ranked: np.ndarray, judged: Judgements, pairs_of: Any, judge: Judge, depth: int, low: float, high: float
) -> tuple[Judgements, dict[str, int]]:
    """The judgements with a grade for every result of the first `depth` that nobody had judged.

    Args:
        ranked: product numbers, `[Q, K]`.
        judged: of the same queries.
        pairs_of: (query number, product number) -> (query, product text).
        judge: who is asked.
        depth: results of each query.
        low: grade of the irrelevant on the data's scale.
        high: grade of the exact.

    Returns:
        The judgements, and how many pairs were asked for and how many have no answer.
    """
    top = np.asarray(ranked)[:, :depth]
    missing = np.isnan(grades_of(top, judged)) & (top >= 0)
    rows, places = np.nonzero(missing)
    products = top[rows, places]
    shares = judge.shares([pairs_of(int(q), int(p)) for q, p in zip(rows, products, strict=True)])
    answered = ~np.isnan(shares)
    known = np.repeat(np.arange(len(judged)), np.diff(judged.offsets))
    filled = Judgements.from_pairs(
        np.concatenate([known, rows[answered]]),
        np.concatenate([judged.products, products[answered]]),
        np.concatenate([judged.grades, low + (high - low) * shares[answered]]),
        len(judged),
    )
    return filled, {"asked": len(rows), "unanswered": int((~answered).sum())}


def drawn_queries(count: int, most: int | None) -> np.ndarray:
    """Numbers of the queries whose results are judged: rising, the same ones in every run; fewer are among more.

    The first ones of a file would be no sample: files are often sorted.

    Args:
        count: queries that there are.
        most: how many are judged; None for all.

    Example:
        >>> drawn_queries(4, None).tolist(), set(drawn_queries(9, 3)) < set(drawn_queries(9, 5))
        ([0, 1, 2, 3], True)
    """
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def judged_figures(
    ranked: np.ndarray, data: SearchProtocol, settings: JudgeSettings, cache_dir: Path | None
) -> tuple[dict[str, float], int]:
    """E, S, O and E+S among the first results once a judge has filled the gaps; names say "by_judge".

    Args:
        ranked: product numbers, `[Q, K]`.
        data: queries and judgements.
        settings: of the judge.
        cache_dir: for its answers.

    Returns:
        The figures, and how many pairs could not be asked about.

    Raises:
        ConnectionError: if the judge cannot be reached.
    """
    chosen = drawn_queries(len(data.queries), settings.max_queries)
    ranked, judged = ranked[chosen], data.judged.select(chosen)
    judge = make_judge(settings, (cache_dir or Path("cache")) / "judge")
    queries, texts = [data.data.queries[i] for i in data.queries[chosen]], data.product_texts
    low, high = (1.0, 3.0) if data.scale.exact > 1 else (0.0, 1.0)
    filled, counts = fill_judgements(
        ranked, judged, lambda q, p: (queries[q], texts[p]), judge, settings.depth, low, high
    )
    k = settings.depth
    grades = grades_of(ranked[:, :k], filled)
    shares = label_shares(grades, ranked, k, data.scale.exact, data.scale.substitute, judged_only=True)
    there = {name: value for name, value in shares.items() if not np.isnan(value).all()}
    found = {f"{name}@{k}_by_judge": float(np.nanmean(value)) for name, value in there.items()}
    total = max(1, counts["asked"])
    return {**found, f"answered_by_judge@{k}": 1.0 - counts["unanswered"] / total}, judge.lost
