"""Labelling against an endpoint that misbehaves: every document ends labelled or failed, once, and is paid for once."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from chat_server import ChatServer, answer_to

from rexbert_hf.corpus import Document, DocumentSource, write_documents
from rexbert_hf.corpus.ecommerce import ECOMMERCE
from rexbert_hf.corpus.label import LabelSettings, label, make_labeller
from rexbert_hf.corpus.llm_client import Endpoint, EndpointSettings
from rexbert_hf.corpus.select import SelectSettings, select
from rexbert_hf.corpus.stages import StageReport

FAST = EndpointSettings(
    model="tiny", timeout=2.0, retries=4, backoff=0.01, max_backoff=0.05, patience=40.0, attempts=3, concurrency=6,
    prompt_price=2.0, completion_price=10.0,
)  # fmt: skip

BEHAVIOURS = {
    "ok": None, "429 ok": None, "429 429 429 ok": None, "later ok": None, "500 ok": None, "503 502 ok": None,
    "drop ok": None, "cut ok": None, "odd ok": None, "hang ok": None, "half ok": None, "schema ok": None,
    "refuse ok": None, "500 half 429 schema drop ok": None,
    "500": "http_500", "429": "http_429", "drop": "connection", "hang": "timeout", "odd": "malformed_response",
    "413": "http_413", "half": "half_json", "schema": "wrong_schema", "refuse": "refusal",
}  # fmt: skip
"""What the endpoint does to a document, and the reason under which it ends as failed."""


def settings_for(server: ChatServer, **changes: object) -> LabelSettings:
    return LabelSettings("llm", endpoint=replace(FAST, base_url=server.url, **changes), max_failed_share=1.0)


def write(folder: Path, texts: list[str]) -> Path:
    documents = [Document(f"d{i:03d}", text, domain="hobby" if i % 2 else "news") for i, text in enumerate(texts)]
    return write_documents(folder / "documents.parquet", documents)[0]


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def misbehaved(tmp_path_factory) -> tuple[Path, list[str], ChatServer, StageReport]:
    """One run over all behaviours, several documents each."""
    folder = tmp_path_factory.mktemp("misbehaved")
    texts = [f"{what} {i} | {words}" for i, what in enumerate(("a price", "a walk")) for words in BEHAVIOURS]
    with ChatServer() as server:
        report = label(settings_for(server), ECOMMERCE, write(folder, texts), folder / "out")
    return folder / "out", texts, server, report


def test_every_document_is_labelled_or_failed_once(misbehaved):
    output, texts, _, report = misbehaved
    labels, failed = rows(output / "labels.jsonl"), rows(output / "failed.jsonl")
    assert sorted(row["id"] for row in labels + failed) == [f"d{i:03d}" for i in range(len(texts))]
    reasons = {row["id"]: row["reason"] for row in failed}
    for i, text in enumerate(texts):
        assert reasons.get(f"d{i:03d}") == BEHAVIOURS[text.partition("| ")[2]], text
    assert (report.read, report.written, report.lost) == (len(texts), len(labels), 0)
    assert report.reasons == {reason: 2 for reason in BEHAVIOURS.values() if reason}
    assert [row["id"] for row in labels] == sorted(row["id"] for row in labels)


def test_labels_are_the_answers(misbehaved):
    output, texts, _, report = misbehaved
    for row in rows(output / "labels.jsonl"):
        text = texts[int(row["id"][1:])]
        assert row == {"id": row["id"], **answer_to(text), "labeller": "tiny"}
    assert report.details["labels"] == {"general": 14, "shop": 14}
    assert report.details["in_domain"] == 14
    assert {domain: sum(counts.values()) for domain, counts in report.details["by_domain"].items()} == {
        domain: sum(1 for row in rows(output / "labels.jsonl") if (int(row["id"][1:]) % 2 == 1) == (domain == "hobby"))
        for domain in ("hobby", "news")
    }


def test_nothing_is_paid_twice_and_the_bill_is_right(misbehaved):
    _, _, server, report = misbehaved
    assert max(server.answers.values()) == 1
    used, paid = report.details["used"], report.details["paid_in_this_run"]
    assert used == paid
    assert paid["answers"] == server.paid
    assert paid["cost"] == pytest.approx(server.paid * (100 * 2.0 + 10 * 10.0) / 1e6)
    assert report.details["failed_requests"]["http_429"] == 2 * (1 + 3 + 1 + 5)
    assert server.most_at_once <= FAST.concurrency


def test_the_hub_token_is_not_sent(misbehaved):
    assert misbehaved[2].tokens == {"Bearer none"}


def test_a_finished_folder_is_not_worked_on_again(misbehaved):
    output, _, server, report = misbehaved
    before = server.paid
    again = label(settings_for(server), ECOMMERCE, output.parent / "documents.parquet", output)
    assert (again.written, again.reasons, server.paid) == (report.written, report.reasons, before)


def test_answers_on_disk_are_used_without_the_endpoint(misbehaved, tmp_path):
    """The endpoint is long gone; what it answered is not: refusals and half answers count as answers too."""
    output, _, server, _ = misbehaved
    cached = replace(settings_for(server, patience=0.2, retries=1), cache=str(output / "answers.jsonl"))
    texts = [f"a price 0 | {words}" for words in ("ok", "half ok", "schema", "refuse", "half ok")]
    report = label(cached, ECOMMERCE, write(tmp_path, texts), tmp_path / "out")
    assert (report.written, report.reasons) == (3, {"wrong_schema": 1, "refusal": 1})
    assert report.details["paid_in_this_run"]["answers"] == 0
    assert report.details["used"]["answers"] == 1 + 2 + 3 + 3


def test_structured_answers_fall_back(tmp_path, caplog):
    """json_schema is refused, TGI's dialect is taken; a document's own 400 changes nothing for the others."""
    for structured, kept in ((("json_schema",), "json_schema"), (("json_object",), "json_object"), ((), "none")):
        texts = ["long | 400", *(f"a price {i}" for i in range(20))]
        folder = tmp_path / kept
        with ChatServer(structured=structured) as server, caplog.at_level(logging.WARNING):
            report = label(settings_for(server, concurrency=1), ECOMMERCE, write(folder, texts), folder / "out")
        assert (report.written, report.reasons) == (20, {"http_400": 1})
        assert report.details["structured"] == kept
        last = server.formats[-1]
        assert last is None if kept == "none" else last["type"] == kept
        if kept == "json_schema":
            assert last["json_schema"]["schema"]["properties"]["label"]["enum"] == list(ECOMMERCE.labels)
    assert sum("refuses structured answers" in record.message for record in caplog.records) == 2


def test_equal_texts_are_asked_once_and_the_end_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    with ChatServer(delay=0.02) as server:
        report = label(settings_for(server), ECOMMERCE, write(tmp_path, ["a price"] * 30), tmp_path / "out")
    assert (report.written, server.paid) == (30, 1)
    assert "tiny: 30 of 30 documents, 0 without a label; paid for 1 answers, 110 tokens, 0.00 USD" in caplog.text


def test_down_at_the_start_is_one_error_at_once(tmp_path):
    with ChatServer() as server:
        pass  # its port is free again
    path, started = write(tmp_path, ["a", "b"]), time.monotonic()
    with pytest.raises(ConnectionError, match=r"endpoint http://127.0.0.1:\d+/v1 cannot be reached .*correct base_url"):
        label(settings_for(server, patience=60.0, backoff=5.0), ECOMMERCE, path, tmp_path / "out")
    assert time.monotonic() - started < 5
    assert not (tmp_path / "out/report.json").exists()
    assert not (tmp_path / "out/labels.jsonl").exists()


def test_offline_mode_is_named_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with ChatServer() as server, pytest.raises(ConnectionError, match="start again with HF_HUB_OFFLINE=0"):
        label(settings_for(server), ECOMMERCE, write(tmp_path, ["a"]), tmp_path / "out")


def test_what_stands_in_the_address_is_not_told(tmp_path):
    with ChatServer() as server:
        address = server.url.replace("http://", "http://me:s3cr3t-word@") + "?api_key=s3cr3t-key&page=2"
    settings = LabelSettings("llm", endpoint=EndpointSettings(base_url=address, model="tiny", timeout=1.0))
    with pytest.raises(ConnectionError, match="cannot be reached") as caught:
        label(settings, ECOMMERCE, write(tmp_path, ["a"]), tmp_path / "out")
    assert "s3cr3t" not in str(caught.value)
    assert "page=2" in str(caught.value)


def test_wrong_key_or_model_stops_at_once(tmp_path):
    with ChatServer() as server, pytest.raises(ConnectionError, match=r"HTTP 404.*check endpoint.model"):
        label(
            settings_for(server, concurrency=2), ECOMMERCE, write(tmp_path, ["a | 404"] + ["b"] * 9), tmp_path / "out"
        )
    with pytest.raises(ValueError, match="environment variable NO_SUCH_KEY is not set"):
        label(
            settings_for(server, api_key_env="NO_SUCH_KEY"), ECOMMERCE, tmp_path / "documents.parquet", tmp_path / "o"
        )
    with pytest.raises(ValueError, match=r"endpoint.api_key_env takes the name .* LABELLER_KEY") as told:
        label(settings_for(server, api_key_env="my-own s3cr3t"), ECOMMERCE, tmp_path / "documents.parquet", tmp_path)
    assert "s3cr3t" not in str(told.value)
    with pytest.raises(ValueError, match=r"needs endpoint.base_url \(http...\) and endpoint.model"):
        label(LabelSettings("llm"), ECOMMERCE, tmp_path / "documents.parquet", tmp_path)


def test_a_key_that_the_endpoint_repeats_is_not_told(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELLER_KEY", "a canary")
    documents = write(tmp_path, ["a | 404"])
    with ChatServer() as server, pytest.raises(ConnectionError, match="Bearer <redacted>") as told:
        label(settings_for(server, api_key_env="LABELLER_KEY"), ECOMMERCE, documents, tmp_path / "out")
    assert server.tokens == {"Bearer a canary"}
    assert "canary" not in str(told.value)


def test_blanks_around_a_key_are_not_sent(tmp_path, monkeypatch):
    monkeypatch.setenv("LABELLER_KEY", " corp-canary\r\n")
    documents = write(tmp_path, ["a price"])
    with ChatServer() as server:
        report = label(settings_for(server, api_key_env="LABELLER_KEY"), ECOMMERCE, documents, tmp_path / "out")
    assert (report.written, server.tokens) == (1, {"Bearer corp-canary"})


@pytest.mark.parametrize("key", ["corp-\ncanary", "corp-\x1bcanary", "canary-é"], ids=ascii)
def test_a_key_that_no_header_can_have_is_refused_and_not_told(tmp_path, monkeypatch, key):
    """The HTTP library would quote the whole header."""
    monkeypatch.setenv("LABELLER_KEY", key)
    with pytest.raises(ValueError, match=r"endpoint.api_key_env: what LABELLER_KEY holds .* export the key") as told:
        Endpoint(replace(FAST, base_url="http://127.0.0.1:1/v1", api_key_env="LABELLER_KEY"))
    assert "canary" not in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("key", ["corp-canary", "corp  canary"])
def test_errors_of_the_http_library_do_not_tell_the_key(monkeypatch, key):
    def refuse(*_, headers, **__):
        raise OSError(f"Illegal header {headers}")

    monkeypatch.setenv("LABELLER_KEY", key)
    monkeypatch.setattr("rexbert_hf.corpus.llm_client.redact", lambda text: text)  # no look gives these keys away
    endpoint = Endpoint(replace(FAST, base_url="http://127.0.0.1:1/v1", api_key_env="LABELLER_KEY"))
    monkeypatch.setattr("rexbert_hf.corpus.llm_client.get_session", lambda: SimpleNamespace(get=refuse))
    with pytest.raises(ConnectionError, match=r"cannot be reached.*Bearer <redacted>") as told:
        endpoint.probe()
    assert "canary" not in str(told.value)


def test_dying_halfway_keeps_what_is_finished_and_goes_on(tmp_path):
    """After some documents everything is a 500: patience is bounded, the rest is listed, a new start goes on."""
    texts = [f"a price {i}" if i != 120 else "a price 120 | 500" for i in range(200)]
    path = write(tmp_path, texts)
    with ChatServer() as server:
        # On a busy machine an answer may take longer than `FAST` waits, and would be paid for twice.
        settings = settings_for(server, patience=0.3, retries=1_000, timeout=30.0)

        def broken_after(count: int) -> None:
            while server.paid < count:
                time.sleep(0.001)
            server.broken = True

        threading.Thread(target=broken_after, args=(60,), daemon=True).start()
        with pytest.raises(ConnectionError, match=r"the endpoint is gone \(no answer for .*start again to go on"):
            label(settings, ECOMMERCE, path, tmp_path / "out")
        kept, failed = (rows(tmp_path / f"out/{name}.partial.jsonl") for name in ("labels", "failed"))
        assert len(kept) >= 50
        assert sorted(row["id"] for row in kept + failed) == [f"d{i:03d}" for i in range(200)]
        assert {row["reason"] for row in failed} == {"endpoint_gone"}
        assert not (tmp_path / "out/report.json").exists()
        server.broken = False
        report = label(
            replace(settings, endpoint=replace(settings.endpoint, retries=1)), ECOMMERCE, path, tmp_path / "out"
        )
    assert (report.written, report.reasons) == (199, {"http_500": 1})
    assert max(server.answers.values()) == 1
    final = {row["id"]: row for row in rows(tmp_path / "out/labels.jsonl")}
    assert all(final[row["id"]] == row for row in kept)


def test_too_many_failures_do_not_finish_the_stage(tmp_path):
    path = write(tmp_path, ["a price", "b | refuse"])
    with ChatServer() as server:
        strict = replace(settings_for(server), max_failed_share=0.2)
        with pytest.raises(ValueError, match=r"1 of 2 documents got no label \(1 refusal\).*failed.partial.jsonl"):
            label(strict, ECOMMERCE, path, tmp_path / "out")
        assert not (tmp_path / "out/report.json").exists()
        assert len(rows(tmp_path / "out/labels.partial.jsonl")) == 1
        lenient = replace(strict, max_failed_share=0.5)
        label(lenient, ECOMMERCE, path, tmp_path / "out")
        finished = (tmp_path / "out/labels.jsonl").read_bytes()
        assert not list((tmp_path / "out").glob("*.partial.jsonl"))
        write(tmp_path, ["a price", "b | refuse", "c | refuse"])
        with pytest.raises(ValueError, match="2 of 3 documents got no label"):
            label(lenient, ECOMMERCE, path, tmp_path / "out")
    assert (tmp_path / "out/labels.jsonl").read_bytes() == finished
    assert not (tmp_path / "out/report.json").exists()


def test_nobody_pays_to_the_end_for_answers_of_no_use(tmp_path):
    """Every answer is cut off by max_tokens: the stage says so after some hundred, and so does the selection."""
    texts = [f"a price {i} | {'half' if i % 4 else 'ok'}" for i in range(1_000)]
    path = write(tmp_path, texts)
    with ChatServer() as server:
        settings = replace(settings_for(server, attempts=1, concurrency=2), max_failed_share=0.05)
        with pytest.raises(ValueError, match=r"150 of the first 20\d documents .*150 half_json.*endpoint.max_tokens"):
            label(settings, ECOMMERCE, path, tmp_path / "out")
        assert server.paid <= 230
        paid = server.paid
        with pytest.raises(ValueError, match="of the first 20"):
            label(settings, ECOMMERCE, path, tmp_path / "out")
        assert server.paid - paid <= 20  # what was on its way when it stopped, at most
        labeller = make_labeller(replace(settings, cache=str(tmp_path / "select.jsonl")), ECOMMERCE, tmp_path)
        source = DocumentSource(str(path))
        with pytest.raises(ValueError, match=r"[23]\d of 40 documents got no label .*max_failed_share=0.05"):
            select(SelectSettings(per_domain=20), ECOMMERCE, [source], labeller, tmp_path / "select")
        assert not (tmp_path / "select/report.json").exists()


CHILD = """
import os, sys
from rexbert_hf.corpus import ECOMMERCE, EndpointSettings, LabelSettings, label
url, documents, output = sys.argv[1:]
endpoint = EndpointSettings(base_url=url, model="tiny", timeout=5.0, retries=4, backoff=0.01, max_backoff=0.05,
                            patience=20.0, concurrency=4)
for _ in range(2):  # forked after the imports, which take longer than the runs
    child = os.fork()
    if child == 0:
        label(LabelSettings("llm", endpoint=endpoint, max_failed_share=1.0), ECOMMERCE, documents, output)
        os._exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


def test_killed_and_started_again_is_as_never_killed(tmp_path):
    words = ["ok", "500 ok", "half ok", "refuse", "schema ok", "429 ok"]
    texts = [f"a {'price' if i % 3 else 'walk'} {i} | {words[i % len(words)]}" for i in range(120)]
    path = write(tmp_path, texts)
    with ChatServer() as server:
        label(settings_for(server, timeout=5.0, patience=20.0, concurrency=4), ECOMMERCE, path, tmp_path / "never")
    with ChatServer(delay=0.005) as server:
        command = [sys.executable, "-c", CHILD, server.url, str(path), str(tmp_path / "killed")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            child = int(process.stdout.readline())
            while server.paid < 50:
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.001)
            os.kill(child, signal.SIGKILL)
            assert int(process.stdout.readline()) == -signal.SIGKILL
            assert not (tmp_path / "killed/report.json").exists()
            process.stdout.readline()
            assert int(process.stdout.readline()) == 0
    for name in ("labels.jsonl", "failed.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "never" / name).read_bytes()
    # Only answers that were on the way when the process died can have been paid for again: one a thread.
    assert sum(count - 1 for count in server.answers.values()) <= 4
    assert len(rows(tmp_path / "killed/labels.jsonl")) == 100
