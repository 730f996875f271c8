"""Judges: an endpoint and a cross-encoder, what they are asked, what is kept, and what a gap filled in changes."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from rexbert_hf.corpus.answer_cache import AnswerCache, RawAnswer, question_key
from rexbert_hf.corpus.llm_client import Endpoint, EndpointError, EndpointSettings
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.evaluate import evaluate
from rexbert_hf.evaluation.judge import (
    CrossEncoderJudge,
    EndpointJudge,
    drawn_queries,
    fill_judgements,
    judge_key,
    judged_figures,
    label_in,
    make_judge,
)
from rexbert_hf.evaluation.judge_settings import JudgeSettings
from rexbert_hf.evaluation.product_search import ProductSearch
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import TaskOptions, TaskSource
from rexbert_hf.metrics import Judgements


class Handler(BaseHTTPRequestHandler):
    """Says E where the product holds the query, S where it says so, nonsense for "odd", and I else."""

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.reply({"data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = body["messages"][-1]["content"]
        query, _, product = asked.removeprefix("Query: ").partition("\nProduct: ")
        with self.server.lock:
            self.server.asked[query, product] += 1
        label = "E" if query in product else "S" if "substitute" in product else "I"
        content = "hm" if "odd" in product else json.dumps({"label": label})
        message = {"role": "assistant", "content": content}
        self.reply({"id": "x", "created": 0, "model": "m", "object": "chat.completion", "system_fingerprint": "",
                    "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
                    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}})  # fmt: skip

    def reply(self, body):
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.asked, made.lock = Counter(), threading.Lock()
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def endpoint(server, **more):
    address = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return EndpointSettings(base_url=address, model="m", attempts=2, retries=0, **more)


def test_labels_become_shares_and_nothing_is_asked_twice(server, tmp_path):
    pairs = [("lamp", "red lamp"), ("lamp", "a substitute"), ("lamp", "nail"), ("lamp", "odd"), ("lamp", "red lamp")]
    judge = EndpointJudge(endpoint(server), tmp_path / "answers.jsonl")
    shares = judge.shares(pairs)
    np.testing.assert_array_equal(shares, [1.0, 0.66, 0.0, np.nan, 1.0])
    assert server.asked == {pairs[0]: 1, pairs[1]: 1, pairs[2]: 1, pairs[3]: 2}  # the odd one: two attempts
    assert judge.failures == {"no_label": 1}
    server.asked.clear()
    again = EndpointJudge(endpoint(server), tmp_path / "answers.jsonl").shares(pairs[:4])
    np.testing.assert_array_equal(again, shares[:4])
    assert not server.asked
    EndpointJudge(endpoint(server, temperature=0.5), tmp_path / "answers.jsonl").shares(pairs[:1])
    assert sum(server.asked.values()) == 1


def test_more_attempts_ask_only_for_what_has_no_label_yet(server, tmp_path):
    pairs = [("lamp", "red lamp"), ("lamp", "nail"), ("lamp", "odd")]
    first = JudgeSettings(endpoint=endpoint(server))
    make_judge(first, tmp_path).shares(pairs)
    server.asked.clear()
    more = JudgeSettings(endpoint=replace(first.endpoint, attempts=4))
    make_judge(more, tmp_path).shares(pairs)
    assert server.asked == {pairs[2]: 2}, "two attempts more for the one without a label"
    assert judge_key(more) != judge_key(first), "but other figures may come of it"
    server.asked.clear()
    warmer = JudgeSettings(endpoint=replace(first.endpoint, retry_temperature=1.0))
    make_judge(warmer, tmp_path).shares(pairs)
    assert server.asked == {pairs[2]: 1}, "the first answers are those of the temperature, not of the retries'"
    make_judge(JudgeSettings(endpoint=replace(first.endpoint, model="n")), tmp_path).shares(pairs[:1])
    assert server.asked[pairs[0]] == 1, "another model is asked again"


@pytest.mark.parametrize(
    ("text", "label"),
    [('{"label": "S"}', "S"), ('```json\n{"label": "C"}\n```', "C"), ("I", "I"), (' "e" ', "E"), ("E or S", None),
     ('{"label": "X"}', None), ('{"label": ["E"]}', None), ("", None), ("{", None), ('{"a": {"label": "E"}}', None)],
)  # fmt: skip
def test_label_in(text, label):
    assert label_in(text) == label


class ByNumber:
    """Product n is worth n / 10."""

    name = "by number"
    lost = 0

    def shares(self, pairs):
        self.pairs = list(pairs)
        return np.array([float("nan") if product == "8" else int(product) / 10 for _, product in pairs])


def test_only_unjudged_results_of_the_first_places_are_judged():
    judged = Judgements.from_pairs([0, 0, 1], [3, 4, 2], [3.0, 1.0, 2.0], 2)
    ranked = np.array([[3, 5, 8, 9], [6, -1, -1, -1]])
    judge = ByNumber()
    filled, counts = fill_judgements(ranked, judged, lambda q, p: (str(q), str(p)), judge, 3, 1.0, 3.0)
    assert judge.pairs == [("0", "5"), ("0", "8"), ("1", "6")]
    assert counts == {"asked": 3, "unanswered": 1}
    assert filled.products.tolist() == [3, 4, 5, 2, 6]
    assert filled.grades.tolist() == pytest.approx([3.0, 1.0, 2.0, 2.0, 2.2])


def test_the_judged_queries_are_drawn_and_not_the_first(monkeypatch, tmp_path):
    """Files are often sorted."""
    shop = ProductSearch().load(TaskSource(sample=True))
    missing = np.setdiff1d(np.arange(len(shop.products)), shop.judged.products)
    ranked = np.tile(missing[:1], (len(shop.queries), 1))
    judge = ByNumber()
    judge.shares = lambda pairs: asked.append([query for query, _ in pairs]) or np.ones(len(pairs))
    monkeypatch.setattr("rexbert_hf.evaluation.judge.make_judge", lambda *_: judge)
    asked: list[list[str]] = []
    settings = [JudgeSettings(cross_encoder="x", depth=1, max_queries=most) for most in (6, 6, 9, None)]
    for one in settings:
        judged_figures(ranked, shop, one, tmp_path)
    few, again, more, everything = asked
    assert few == again, "one draw for all models and runs"
    assert (len(few), set(few) <= set(more)) == (6, True)
    assert everything == shop.query_texts
    assert few not in (everything[:6], everything[-6:])


def test_grades_go_to_the_queries_that_were_drawn(monkeypatch, tmp_path):
    shop = ProductSearch().load(TaskSource(sample=True))
    first = np.array([[shop.judged.products[at]] for at in shop.judged.offsets[:-1]])  # each has a grade: none is asked
    judge = ByNumber()
    monkeypatch.setattr("rexbert_hf.evaluation.judge.make_judge", lambda *_: judge)
    chosen = drawn_queries(len(shop.queries), 5)
    figures, _ = judged_figures(first, shop, JudgeSettings(cross_encoder="x", depth=1, max_queries=5), tmp_path)
    grades = shop.judged.grades[shop.judged.offsets[:-1]][chosen]
    assert judge.pairs == []
    assert figures["E@1_by_judge"] == pytest.approx(np.mean(grades >= shop.scale.exact))


def test_a_cached_result_of_the_first_queries_is_not_one_of_drawn_queries(server):
    few, every = (JudgeSettings(endpoint=endpoint(server), max_queries=most) for most in (5, None))
    assert judge_key(few)["queries"] == "drawn"
    assert "queries" not in judge_key(every), "all queries are what they were"


def test_product_search_shows_the_judges_figures_under_names_of_their_own(server, tmp_path):
    pytest.importorskip("bm25s")
    task = ProductSearch()
    shop = task.load(TaskSource(sample=True))
    plain = task.run("bm25", shop, 0, TaskOptions())
    judge = JudgeSettings(endpoint=endpoint(server), depth=5, max_queries=6)
    options = TaskOptions(judge=judge, cache_dir=tmp_path)
    found = task.run("bm25", shop, 0, options)
    assert {name: value for name, value in found.metrics.items() if "by_judge" not in name} == plain.metrics
    assert found.metrics["answered_by_judge@5"] == 1.0
    shares = [found.metrics[f"{name}@5_by_judge"] for name in ("E", "S", "O")]
    assert sum(shares) == pytest.approx(1)
    assert task.config(options) != task.config(TaskOptions())
    asked = sum(server.asked.values())
    assert 0 < asked <= 30
    task.run("bm25", shop, 0, options)
    assert sum(server.asked.values()) == asked


def save_cross_encoder(folder, outputs=1):
    tokenizer = train_tokenizer(["red lamp", "blue nail"] * 20, 384)
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, num_labels=outputs, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_cross_encoder_is_a_judge(tmp_path, outputs, monkeypatch):
    save_cross_encoder(tmp_path, outputs)
    if outputs == 3:
        with pytest.raises(ValueError, match="3 outputs"):
            CrossEncoderJudge(str(tmp_path), tmp_path / "answers.jsonl")
        return
    judge = CrossEncoderJudge(str(tmp_path), tmp_path / "answers.jsonl")
    pairs = [("lamp", name) for name in ("a", "b", "c", "d", "a")]
    said = {"a": 0.98, "b": 0.84, "c": 0.34, "d": 0.02}
    monkeypatch.setattr(judge.model, "predict", lambda new, **_: [said[product] for _, product in new])
    shares = judge.shares(pairs)
    np.testing.assert_array_equal(shares, [1.0, 1.0, 0.33, 0.0, 1.0])
    monkeypatch.setattr(judge.model, "predict", None)
    np.testing.assert_array_equal(judge.shares(pairs), shares)


def test_a_score_that_is_no_number_is_no_answer_and_not_kept(tmp_path, monkeypatch):
    """The nearest label of NaN would be the first one, which is "exact"."""
    save_cross_encoder(tmp_path)
    judge = CrossEncoderJudge(str(tmp_path), tmp_path / "answers.jsonl")
    pairs = [("lamp", name) for name in ("a", "b", "a")]
    monkeypatch.setattr(judge.model, "predict", lambda new, **_: np.array([np.nan, 0.3])[: len(new)])
    np.testing.assert_array_equal(judge.shares(pairs), [np.nan, 0.33, np.nan])
    assert judge.lost == 1, "so the result is not final"
    with AnswerCache(tmp_path / "answers.jsonl") as cache:
        assert len(cache) == 1
        cache.put(question_key(model=judge._key, pair=["lamp", "a"]), RawAnswer("nan"))  # as older versions kept it
    monkeypatch.setattr(judge.model, "predict", lambda new, **_: [0.9 for _ in new])
    np.testing.assert_array_equal(judge.shares(pairs), [1.0, 0.33, 1.0])


def test_a_judge_without_any_number_gives_no_figure(tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    save_cross_encoder(tmp_path / "judge")
    nothing = np.float32("nan")
    monkeypatch.setattr("sentence_transformers.CrossEncoder.predict", lambda self, new, **_: [nothing] * len(new))
    task, judge = ProductSearch(), JudgeSettings(cross_encoder=str(tmp_path / "judge"), depth=1)
    shop = task.load(TaskSource(sample=True))
    ranked = np.full((len(shop.queries), 1), np.setdiff1d(np.arange(len(shop.products)), shop.judged.products)[0])
    figures, lost = judged_figures(ranked, shop, judge, tmp_path)
    assert figures == {"answered_by_judge@1": 0.0}
    assert lost == len(shop.queries)


def test_a_model_without_the_head_is_no_judge(tmp_path):
    tokenizer = train_tokenizer(["red lamp", "blue nail"] * 20, 384)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    BertModel(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"is no cross-encoder \(classifier.bias is missing\): its grades would"):
        CrossEncoderJudge(str(tmp_path), tmp_path / "answers.jsonl")


def test_a_cross_encoder_can_say_exact_on_the_sample_shop(tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    tokenizer = train_tokenizer(["red lamp", "blue nail"] * 20, 384)
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, num_labels=1, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
    model = BertForSequenceClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    torch.nn.init.constant_(model.classifier.bias, 4.0)  # a sigmoid of .98 for every pair
    model.save_pretrained(tmp_path / "judge")
    tokenizer.save_pretrained(tmp_path / "judge")
    task, judge = ProductSearch(), JudgeSettings(cross_encoder=str(tmp_path / "judge"), depth=100, max_queries=3)
    shop = task.load(TaskSource(sample=True))
    found = task.run("bm25", shop, 0, TaskOptions(judge=judge, cache_dir=tmp_path))
    assert found.metrics["E@100_by_judge"] > 0.5
    assert found.final


def test_what_the_endpoint_failed_on_is_not_kept(server, tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    ask, trouble = Endpoint.ask, EndpointError("http_500", "HTTP 500")

    def failing(self, messages, schema, attempt):
        if trouble is None:
            return ask(self, messages, schema, attempt)
        raise trouble

    monkeypatch.setattr(Endpoint, "ask", failing)
    judge = JudgeSettings(endpoint=endpoint(server), depth=2, max_queries=2)
    chosen = EvaluateSettings(models=["bm25"], tasks=["product_search"], resamples=100, judge=judge,
                              output_dir=str(tmp_path / "out"))  # fmt: skip
    (cell,) = evaluate(chosen)["cells"]
    assert cell["metrics"]["answered_by_judge@2"] < 1
    assert any("the next run asks again" in note for note in cell["notes"])
    trouble = None
    (cell,) = evaluate(chosen)["cells"]
    assert (cell["metrics"]["answered_by_judge@2"], cell["cached"]) == (1.0, False)
    (cell,) = evaluate(chosen)["cells"]
    assert cell["cached"]


def test_a_judge_that_goes_on_the_way_leaves_no_figure(server, tmp_path):
    judge = EndpointJudge(endpoint(server), tmp_path / "answers.jsonl")
    judge.shares([("lamp", "red lamp")])
    judge.endpoint.patience.give_up("HTTP 402: no money left")
    with pytest.raises(ConnectionError, match="no money left"):
        judge.shares([("lamp", "red lamp"), ("lamp", "nail")])


def test_answers_serve_other_depths(server, tmp_path):
    paths = {
        make_judge(JudgeSettings(endpoint=endpoint(server), depth=depth), tmp_path).cache_path for depth in (5, 10)
    }
    assert len(paths) == 1


def test_settings_name_one_judge(server):
    with pytest.raises(ValueError, match="either cross_encoder or endpoint"):
        JudgeSettings()
    with pytest.raises(ValueError, match="either cross_encoder or endpoint"):
        JudgeSettings(cross_encoder="x", endpoint=endpoint(server))
    for name in ("depth", "max_queries"):
        with pytest.raises(ValueError, match=f"judge.{name} must be at least 1; got 0"):
            JudgeSettings(cross_encoder="x", **{name: 0})


def test_an_answer_nested_without_end_names_no_label():
    assert label_in('{"a":' * 5_000 + "}") is None
