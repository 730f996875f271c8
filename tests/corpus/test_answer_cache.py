"""Paid answers survive kills, torn lines and rubbish; one process at a time."""

from __future__ import annotations

import os
import threading

import pytest

from rexbert_hf.corpus.answer_cache import AnswerCache, RawAnswer, question_key

ANSWER = RawAnswer("caf\u00e9 \ud800 {", "stop", 12, 3)


def test_answers_come_back(tmp_path):
    path = tmp_path / "deep/answers.jsonl"
    with AnswerCache(path) as cache:
        for i in range(50):
            cache.put(f"k{i}", RawAnswer(f"{ANSWER.content} {i}", "stop", None, i))
        assert cache.get("k7") == RawAnswer(f"{ANSWER.content} 7", "stop", None, 7)
    with AnswerCache(path) as cache:
        assert len(cache) == 50
        assert [cache.get(f"k{i}").completion_tokens for i in range(50)] == list(range(50))
        assert cache.get("k50") is None
        assert "k49" in cache


@pytest.mark.parametrize("torn", [1, 20, 10_000])
def test_a_torn_last_line_is_dropped_and_written_again(tmp_path, torn):
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
        whole = path.stat().st_size
        cache.put("b", RawAnswer("x" * 20_000))
    with path.open("r+b") as file:
        file.truncate(whole + torn)
    with AnswerCache(path) as cache:
        assert cache.get("a") == ANSWER
        assert cache.get("b") is None
        cache.put("b", ANSWER)
        cache.put("c", ANSWER)
    with AnswerCache(path) as cache:
        assert [cache.get(key) for key in "abc"] == [ANSWER] * 3


def test_rubbish_in_the_middle_costs_only_itself(tmp_path, caplog):
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
    with path.open("ab") as file:
        file.write(b'\xff\xfe rubbish\n{"key": "b", "content": "x", "surprise": 1}\n[]\n')
    with AnswerCache(path) as cache:
        cache.put("c", ANSWER)
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (ANSWER, None, ANSWER)
    assert "holds 3 lines that are no answers" in caplog.text


def test_a_full_disk_leaves_whole_lines(tmp_path, monkeypatch):
    path = tmp_path / "answers.jsonl"
    with AnswerCache(path) as cache:
        cache.put("a", ANSWER)
        write = os.write
        monkeypatch.setattr(os, "write", lambda file, data: write(file, data[: len(data) // 2]))
        with pytest.raises(OSError, match="is the disk full"):
            cache.put("b", ANSWER)
        monkeypatch.undo()
        cache.put("c", ANSWER)
        assert (cache.get("a"), cache.get("b"), cache.get("c")) == (ANSWER, None, ANSWER)
    assert len(path.read_bytes().splitlines()) == 2


def test_threads(tmp_path):
    with AnswerCache(tmp_path / "answers.jsonl") as cache:

        def work(start: int) -> None:
            for i in range(start, start + 200):
                cache.put(f"k{i}", RawAnswer(str(i)))
                assert cache.get(f"k{i}").content == str(i)

        threads = [threading.Thread(target=work, args=(1000 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    with AnswerCache(tmp_path / "answers.jsonl") as cache:
        assert len(cache) == 1200
        assert all(cache.get(f"k{1000 * n + i}").content == str(1000 * n + i) for n in range(6) for i in range(200))


def test_two_runs_do_not_share_a_file(tmp_path):
    pytest.importorskip("fcntl")
    with AnswerCache(tmp_path / "answers.jsonl"), pytest.raises(OSError, match="another run is using these answers"):
        AnswerCache(tmp_path / "answers.jsonl")
    AnswerCache(tmp_path / "answers.jsonl").close()


def test_the_key_is_made_of_all_that_is_asked():
    parts = {"model": "m", "messages": [{"role": "user", "content": "x"}], "schema": {"a": 1}, "attempt": 0}
    keys = {question_key(**parts)}
    for name, other in (("model", "n"), ("messages", []), ("schema", {}), ("attempt", 1)):
        keys.add(question_key(**{**parts, name: other}))
    assert len(keys) == 5
