from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from filter_cases import labelled_texts, mixed_crawl, rows_of, tiny_classifier, write_crawl

from rexbert_hf.corpus import filtering
from rexbert_hf.corpus.documents import DocumentSource
from rexbert_hf.corpus.duplicates import KEPT, duplicates_of
from rexbert_hf.corpus.filtering import filter_corpus
from rexbert_hf.corpus.judging import FilterSettings, Judge
from rexbert_hf.corpus.language import LanguageSettings
from rexbert_hf.settings.worker_pool import in_order

pytest.importorskip("fasttext")
SETTINGS = FilterSettings(rows_per_shard=60)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    tiny_classifier().save(folder)
    return folder


@pytest.fixture(scope="module")
def crawl(tmp_path_factory):
    return write_crawl(tmp_path_factory.mktemp("crawl") / "crawl.jsonl", mixed_crawl(500))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("part-*")}


@pytest.fixture(scope="module")
def done(tmp_path_factory, crawl, classifier):
    """A run that was never interrupted, and its report."""
    folder = tmp_path_factory.mktemp("done")
    return folder, filter_corpus(SETTINGS, [crawl], None, classifier, folder)


def test_nothing_is_lost_and_every_reject_has_its_reason(done, crawl):
    folder, report = done
    kept, rejected = rows_of(folder / "kept"), rows_of(folder / "rejected")
    assert report.read == 500 == len(kept) + len(rejected)
    assert (report.lost, report.written) == (0, len(kept))
    assert Counter(row["reason"] for row in rejected) == report.reasons
    assert {"not_in_domain", "exact_duplicate", "near_duplicate", "short"} <= set(report.reasons)
    assert list(kept[0]) == ["id", "text", "url", "domain", "score"]
    assert not list(folder.rglob(".*"))
    assert {path.name for path in folder.iterdir()} == {"kept", "rejected", "report.json"}


def test_what_is_kept_is_what_the_rules_say_one_by_one(done, classifier):
    folder, _ = done
    texts = [text for text, _ in mixed_crawl(500)]
    judge = Judge(SETTINGS, classifier)
    standing = [text for text in texts if not judge([text]).reasons[0]]
    wanted = [text for text, verdict in zip(standing, duplicates_of(standing), strict=True) if verdict == KEPT]
    assert [row["text"] for row in rows_of(folder / "kept")] == wanted


@pytest.mark.parametrize(("workers", "rows"), [(2, 60), (3, 60), (1, 7), (2, 5_000)])
def test_neither_workers_nor_shards_change_the_result(tmp_path, done, crawl, classifier, workers, rows):
    folder, report = done
    again = filter_corpus(FilterSettings(rows_per_shard=rows), [crawl], None, classifier, tmp_path, workers)
    assert (again.written, again.reasons) == (report.written, report.reasons)
    assert rows_of(tmp_path / "kept") == rows_of(folder / "kept")
    if rows == 60:
        assert contents(tmp_path) == contents(folder)


def test_domains_that_were_not_selected_are_counted_and_not_written(tmp_path, crawl, classifier):
    report = filter_corpus(SETTINGS, [crawl], ["news"], classifier, tmp_path)
    outside = sum(domain != "news" for _, domain in mixed_crawl(500))
    assert report.reasons["domain_not_selected"] == outside
    rows = rows_of(tmp_path / "kept") + rows_of(tmp_path / "rejected")
    assert {row["domain"] for row in rows} == {"news"}
    assert report.read == len(rows) + outside
    assert report.lost == 0


def test_domains_of_other_names_than_the_selected_are_an_error(tmp_path, crawl):
    """Those of a data set's classes were their numbers once: nothing would be kept, without a word."""
    told = r"no document is of a selected domain: selected are 0, 1, the documents are of hobby, news: .* `select`"
    with pytest.raises(ValueError, match=told):
        filter_corpus(SETTINGS, [crawl], ["1", "0"], None, tmp_path)


def test_a_finished_stage_is_taken_as_it_is_and_another_input_starts_anew(tmp_path, crawl, classifier):
    first = filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path)
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")}
    assert filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path).key == first.key
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("part-*")} == changed
    strict = FilterSettings(rows_per_shard=5_000, threshold=0.9)
    second = filter_corpus(strict, [crawl], None, classifier, tmp_path)
    assert second.written < first.written
    assert len(list(tmp_path.rglob("part-*"))) == 2  # shards of the first are gone


RUN = """
import time
from rexbert_hf.corpus import filtering
from rexbert_hf.corpus.documents import DocumentSource
judge_shard, split_shard = filtering._Run.judge_shard, filtering._Run.split_shard
def slow(work):
    def run(self, task):
        result = work(self, task)
        time.sleep({pause})
        return result
    return run
filtering._Run.judge_shard, filtering._Run.split_shard = slow(judge_shard), slow(split_shard)
settings, sources = filtering.FilterSettings(rows_per_shard=60), [DocumentSource({crawl!r})]
filtering.filter_corpus(settings, sources, None, {classifier!r}, {output!r}, {workers})
"""


def interrupted(output: Path, crawl: DocumentSource, classifier: Path, workers: int, when: str) -> None:
    """Start a run in a process of its own and kill it as soon as a file of that pattern is there."""
    given = {"crawl": crawl.path, "classifier": str(classifier), "output": str(output), "workers": workers}
    code = RUN.format(pause=0.1, **given)
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not list(output.glob(when)):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("workers", "when"), [(1, "work/00003"), (2, "kept/part-00002.parquet")])
def test_killed_and_started_again_it_ends_as_one_never_killed(
    tmp_path, monkeypatch, done, crawl, classifier, workers, when
):
    interrupted(tmp_path, crawl, classifier, workers, when)
    finished = {int(path.parent.name) for path in tmp_path.glob("work/0*/documents.parquet")}
    assert finished
    (tmp_path / "work" / ".00009.123").mkdir()  # what a killed worker may leave
    (tmp_path / "kept" / ".part-00009.parquet.123").write_bytes(b"half")
    judged = []
    judge_shard = filtering._Run.judge_shard

    def spy(self, shard):
        judged.append(shard[0])
        return judge_shard(self, shard)

    monkeypatch.setattr(filtering._Run, "judge_shard", spy)
    report = filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path)
    folder, whole = done
    assert (report.written, report.reasons, report.lost) == (whole.written, whole.reasons, 0)
    assert contents(tmp_path) == contents(folder)
    assert not list(tmp_path.rglob(".*"))
    assert set(judged).isdisjoint(finished)


def test_a_full_disk_keeps_what_is_finished(tmp_path, monkeypatch, done, crawl, classifier):
    written = 0
    write = pq.ParquetWriter.write_table

    def full(self, table, *args, **kwargs):
        nonlocal written
        written += 1
        if written > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(self, table, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(OSError, match=r"no room in .*: finished shards are kept; make room") as caught:
        filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path)
    assert caught.value.errno == errno.ENOSPC
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "00000",
        "00001",
        "00002",
        "00003",
        "key.json",
    ]
    assert not list(tmp_path.rglob(".*"))
    assert not (tmp_path / "report.json").exists()
    monkeypatch.undo()
    report = filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path)
    assert report.written == done[1].written
    assert contents(tmp_path) == contents(done[0])


def test_a_classifier_that_is_none_stops_before_anything_is_written(tmp_path, crawl):
    folder = tmp_path / "classifier"
    tiny_classifier().save(folder).write_bytes(b"not a model")
    with pytest.raises(ValueError, match="is not the file that was saved"):
        filter_corpus(SETTINGS, [crawl], None, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_version_or_language_model_starts_anew(tmp_path, crawl, monkeypatch):
    settings = FilterSettings(language=LanguageSettings(model=str(tmp_path / "lid.ftz")))
    (tmp_path / "lid.ftz").write_bytes(b"one model")
    keys = [filter_corpus(settings, [crawl], None, None, tmp_path / "out").key]
    assert filter_corpus(settings, [crawl], None, None, tmp_path / "out").key == keys[0]
    (tmp_path / "lid.ftz").write_bytes(b"another model")
    keys.append(filter_corpus(settings, [crawl], None, None, tmp_path / "out").key)
    monkeypatch.setattr(filtering.importlib.metadata, "version", lambda name: "99.0")
    keys.append(filter_corpus(settings, [crawl], None, None, tmp_path / "out").key)
    assert len(set(keys)) == 3


def test_shards_of_other_rules_are_judged_again_and_a_finished_filter_stays(tmp_path, monkeypatch, crawl, classifier):
    judged, judge_shard, split_shard = [], filtering._Run.judge_shard, filtering._Run.split_shard
    monkeypatch.setattr(filtering._Run, "judge_shard", lambda *task: judged.append(0) or judge_shard(*task))

    def stop(*_):
        raise RuntimeError("killed")

    def run(rules, split):
        judged.clear()
        monkeypatch.setattr(filtering, "_RULES", rules)
        monkeypatch.setattr(filtering._Run, "split_shard", split)
        return filter_corpus(SETTINGS, [crawl], None, classifier, tmp_path)

    for rules, again in ((2, True), (2, False), (3, True)):
        with pytest.raises(RuntimeError, match="killed"):
            run(rules, stop)
        assert bool(judged) == again
    report = run(3, split_shard)
    assert run(4, stop) == report
    assert not judged


def test_bad_rows_are_counted_and_the_rest_goes_through(tmp_path, classifier):
    path = tmp_path / "crawl.jsonl"
    good = labelled_texts(6)[0]
    lines = [
        *(f'{{"text": "{text}", "domain": "hobby"}}' for text in good),
        '{"text": ',
        '{"text": ""}',
        '{"text": "  "}',
    ]
    path.write_bytes("\n".join(lines).encode() + b'\n{"text": "\xff\xfe"}\n{"text": "a\\u0000b"}\n{"text": 5}\n')
    source = DocumentSource(str(path), max_bad_share=0.5)
    report = filter_corpus(SETTINGS, [source], None, classifier, tmp_path / "out")
    assert report.read == 12
    assert report.lost == 0
    assert len(rows_of(tmp_path / "out" / "kept")) == report.written == 3


def test_an_empty_source_gives_an_empty_result(tmp_path, classifier):
    path = tmp_path / "crawl.jsonl"
    path.write_text("")
    report = filter_corpus(SETTINGS, [DocumentSource(str(path))], None, classifier, tmp_path / "out")
    assert (report.read, report.written) == (0, 0)
    assert rows_of(tmp_path / "out" / "kept") == []


def test_lines_out_of_the_domain_go_and_short_ones_follow_their_neighbour(classifier):
    shop, general = (labelled_texts(2)[0][i] for i in (0, 1))
    text = f"Menu\n{shop}\nSold out\n{general}\nThe end\n{shop}"
    judge = Judge(FilterSettings(level="line"), classifier)
    verdicts = judge([text, general, shop])
    assert verdicts.texts == [f"Menu\n{shop}\nSold out\n{shop}", general, shop]
    assert verdicts.reasons == ["", "no_line_in_domain", ""]
    assert verdicts.lines == (5, 3)
    both = Judge(FilterSettings(level="both", threshold=0.99, line_threshold=0.5), classifier)
    assert both([general]).reasons == ["not_in_domain"]


def test_the_same_rules_in_datasets(classifier):
    texts, _ = labelled_texts(40)
    judge = Judge(SETTINGS, classifier)
    data = Dataset.from_dict({"text": [*texts, "no"]})
    wanted = [text for text, reason in zip(data["text"], judge(data["text"]).reasons, strict=True) if not reason]
    assert data.filter(judge.keeps, batched=True, input_columns=["text"])["text"][:] == wanted
    marked = data.map(judge.annotate, batched=True)
    assert [row["text"] for row in marked if not row["reason"]] == wanted
    assert np.allclose(marked["score"][:], judge(data["text"]).scores)


def test_without_a_classifier_language_and_quality_are_judged(tmp_path, crawl):
    report = filter_corpus(SETTINGS, [crawl], None, None, tmp_path)
    assert "not_in_domain" not in report.reasons
    assert report.lost == 0
    assert all(np.isnan(row["score"]) for row in rows_of(tmp_path / "kept"))


def die(task: int) -> int:
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_killed_worker_is_an_error_and_no_endless_wait():
    with pytest.raises(OSError, match="a worker process was killed"):
        list(in_order(die, range(8), 2))


def test_tasks_are_read_as_workers_come_free():
    read = []

    def tasks():
        for i in range(50):
            read.append(i)
            yield i

    results = in_order(abs, tasks(), 2)
    assert next(results) == 0
    assert len(read) <= 5
    assert list(results) == list(range(1, 50))


@pytest.mark.parametrize("wrong", [{"threshold": 1.5}, {"line_threshold": -1.0}, {"rows_per_shard": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FilterSettings(**wrong)
