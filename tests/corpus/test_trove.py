"""The filter as datatrove blocks: the local executor really runs, Slurm and Ray are put together."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filter_cases import mixed_crawl, rows_of, tiny_classifier, write_crawl

pytest.importorskip("fasttext")
pytest.importorskip("datatrove")

import dill
from datasets import ClassLabel, Dataset, Features, Value
from datatrove.data import Document
from datatrove.utils.logging import logger

from rexbert_hf.corpus.documents import DocumentSource, read_documents
from rexbert_hf.corpus.filtering import filter_corpus
from rexbert_hf.corpus.judging import FilterSettings, Judge
from rexbert_hf.corpus.near_duplicates import NearDuplicateSettings
from rexbert_hf.corpus.quality import QualitySettings
from rexbert_hf.corpus.stages import StageReport
from rexbert_hf.corpus.trove import ClusterSettings, DomainFilter, TroveJob, executors, minhash_config, pipeline

WITHOUT_DUPLICATES = FilterSettings(exact_duplicates=False, near_duplicates=NearDuplicateSettings(enabled=False))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("classifier")
    tiny_classifier().save(folder)
    return str(folder)


@pytest.fixture
def job(tmp_path, classifier):
    (tmp_path / "in").mkdir()
    rows = mixed_crawl(120)
    for i in range(2):
        write_crawl(tmp_path / "in" / f"{i}.jsonl", rows[i::2])
    cluster = ClusterSettings(tasks=2, workers=1)
    return TroveJob(str(tmp_path / "in"), str(tmp_path / "out"), classifier, WITHOUT_DUPLICATES, cluster=cluster)


def rejects(folder):
    return [json.loads(line) for path in sorted(folder.glob("*.gz")) for line in gzip.open(path, "rt")]


def test_the_local_executor_keeps_and_rejects_what_the_judge_does(job, tmp_path, classifier):
    executors(job)[-1].run()
    texts = [text for text, _ in mixed_crawl(120)]
    reasons = Judge(WITHOUT_DUPLICATES, classifier)(texts).reasons
    kept = rows_of(tmp_path / "out" / "kept")
    assert Counter(row["text"] for row in kept) == Counter(t for t, r in zip(texts, reasons, strict=True) if not r)
    assert list(kept[0]) == ["id", "text", "url", "domain", "score"]
    gone = rejects(tmp_path / "out" / "rejected")
    assert Counter(row["metadata"]["filter_reason"] for row in gone) == Counter(filter(None, reasons))
    # Finished shares are not done again.
    for path in (tmp_path / "out" / "kept").glob("*.parquet"):
        path.unlink()
    executors(job)[-1].run()
    assert not list((tmp_path / "out" / "kept").glob("*.parquet"))


def test_its_minhash_keeps_documents_that_differ_in_digits(tmp_path, classifier):
    words = " ".join(f"{a}{b}" for a in ["basket", "price", "order", "delivery"] for b in "abcdefghij")
    texts = [f"product basket price {n} {words.replace('a', str(n))}" for n in (12, 13)]
    texts += [texts[0], texts[0] + " x"]
    write_crawl(tmp_path / "in.jsonl", [(text, "hobby") for text in texts])
    settings = FilterSettings(threshold=0.0, near_duplicates=NearDuplicateSettings(bands=4, rows=2))
    job = TroveJob(str(tmp_path), str(tmp_path / "out"), classifier, settings, glob_pattern="in.jsonl")
    stages = executors(job)
    assert [stage.world_size for stage in stages] == [1, 1, 4, 1, 1]
    for stage in stages:
        stage.workers = 1
    stages[-1].run()
    kept = [row["text"] for row in rows_of(tmp_path / "out" / "kept")]
    assert {text.split()[3] for text in kept} == {"12", "13"}
    assert len(kept) == 2
    assert not minhash_config(settings).norm_config.norm_numbers


def test_one_document_is_judged_as_in_a_batch(classifier):
    texts = [text for text, _ in mixed_crawl(30)]
    block = DomainFilter(FilterSettings(), classifier)
    together = block.filter_batch([Document(text, str(i)) for i, text in enumerate(texts)])
    assert [block.filter(Document(text, "0")) for text in texts] == together
    document = Document(texts[0], "0")
    block.filter(document)
    assert 0 <= document.metadata["score"] <= 1


def test_selected_domains_come_before_the_classifier(job):
    chosen = TroveJob(job.input_folder, job.output_folder, None, domains=("hobby",))
    block = pipeline(chosen)[1]
    assert block.filter(Document("a mug", "1", metadata={"domain": "hobby"})) is True
    assert block.filter(Document("a mug", "1", metadata={"domain": "news"})) == (False, "domain_not_selected")


def rows_in(folder, kind, rows):
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), folder / "1.parquet")
    else:
        (folder / "1.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"domain_field": "topic", "url_field": "link"}, {"domain_from_folder": False}, {"domain": "shop"}],
    ids=str,
)
def test_a_document_has_the_domain_that_it_has_on_one_machine(tmp_path, kind, fields):
    """FineFineWeb names the domain by the folder only: all of it was not selected."""
    crawl = tmp_path / "crawl"
    row = {"text": "a mug", "topic": "science", "link": "http://a/1", "url": "http://a/2", "domain": None}
    rows_in(crawl / "hobby", kind, [row, {**row, "text": "a lamp", "topic": None}])
    rows_in(crawl / "deep" / "news", kind, [{**row, "domain": "sports"}])
    rows_in(crawl, kind, [{**row, "text": "a shoe", "topic": ""}])
    report = StageReport("sample", key="")
    alone = [(d.text, d.domain, d.url) for d in read_documents([DocumentSource(str(crawl), **fields)], report)]
    job = TroveJob(str(crawl), str(tmp_path / "out"), None, glob_pattern=f"**/*.{kind}", **fields)
    reader = dill.loads(dill.dumps(pipeline(job)[0]))  # as the jobs of a cluster get it
    found = [(d.text, d.metadata["domain"], d.metadata["url"]) for d in reader.run()]
    assert sorted(found) == sorted(alone)
    assert len(found) == 4


def test_classes_of_parquet_have_their_names_as_on_one_machine(tmp_path):
    """Their numbers are no domain that anybody selects."""
    sites = ClassLabel(names=["shop.example", "news.example"])
    features = Features({"text": Value("string"), "id": sites, "site": sites, "url": sites})
    rows = {"text": ["a mug", "a lamp", "a pan"], "id": [1, 0, 0], "site": [0, 1, -1], "url": [1, -1, None]}
    (tmp_path / "in").mkdir()
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "in" / "1.parquet")
    pq.write_table(pa.Table.from_pylist([{"text": "a cup", "id": "4", "site": "0"}]), tmp_path / "in" / "2.parquet")
    source = DocumentSource(str(tmp_path / "in"), domain_field="site", id_field="id")
    alone = [(d.text, d.domain, d.url) for d in read_documents([source], StageReport("sample", key=""))]
    made = {"glob_pattern": "**/*.parquet", "domain_field": "site"}
    reader, select, *_ = pipeline(
        TroveJob(str(tmp_path / "in"), str(tmp_path / "out"), None, domains=("shop.example",), **made)
    )
    found = list(dill.loads(dill.dumps(reader)).run())
    assert [(d.text, d.metadata["domain"], d.metadata["url"]) for d in found] == alone
    assert [d.metadata["domain"] for d in found] == ["shop.example", "news.example", "in", "0"]
    assert [d.id for d in found] == ["news.example", "shop.example", "shop.example", "4"]
    assert [d.text for d in select.run(found)] == ["a mug"]


def test_a_share_without_a_selected_domain_warns(job):
    """The whole crawl would be lost without a word; a share alone may well hold other domains only."""
    told: list[str] = []
    sink = logger.add(lambda line: told.append(line.record["message"]), level="WARNING")
    try:
        for domains in (("hobby", "0"), ("1", "0")):
            select = dill.loads(dill.dumps(pipeline(replace(job, domains=domains))[1]))
            for names in (["hobby", "news", "hobby"], []):
                list(select.run((Document("a mug", "1", metadata={"domain": name}) for name in names), 3, 8))
    finally:
        logger.remove(sink)
    (line,) = told
    assert "share 3 of 8 keeps nothing, no document is of a selected domain: selected are 0, 1, the doc" in line
    assert "the documents are of hobby, news: " in line
    assert "\n" not in line


def test_selected_folders_are_kept_as_on_one_machine(tmp_path, classifier):
    crawl = tmp_path / "crawl"
    for domain in ("hobby", "news"):
        rows_in(crawl / domain, "jsonl", [{"text": f"{text} {domain}"} for text, _ in mixed_crawl(40)])
    filter_corpus(WITHOUT_DUPLICATES, [DocumentSource(str(crawl))], ["hobby"], classifier, tmp_path / "alone")
    job = TroveJob(
        str(crawl),
        str(tmp_path / "out"),
        classifier,
        WITHOUT_DUPLICATES,
        ("hobby",),
        cluster=ClusterSettings(workers=1),
    )
    executors(job)[-1].run()
    alone, kept = rows_of(tmp_path / "alone" / "kept"), rows_of(tmp_path / "out" / "kept")
    assert sorted((row["text"], row["domain"]) for row in kept) == sorted((row["text"], row["domain"]) for row in alone)
    assert {row["domain"] for row in kept} == {"hobby"}


def test_a_field_that_datatrove_wrote_into_metadata_is_found(tmp_path):
    rows_in(tmp_path / "in", "jsonl", [{"text": "a mug", "metadata": {"domain": "hobby", "url": "http://a"}}])
    (document,) = pipeline(TroveJob(str(tmp_path / "in"), str(tmp_path / "out"), None))[0].run()
    assert (document.metadata["domain"], document.metadata["url"]) == ("hobby", "http://a")


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": replace(WITHOUT_DUPLICATES, quality=QualitySettings(min_words=15))},
        {"domains": ("hobby",)},
        {"glob_pattern": "*0.jsonl"},
        {"text_field": "body"},
        {"classifier": None},
        {"cluster": ClusterSettings(tasks=1, workers=1)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_finished_shares_are_not_taken_for_another_jobs(job, changes):
    executors(job)  # nothing has run: the folder is free
    executors(replace(job, **changes))
    executors(job)[-1].run()
    with pytest.raises(ValueError, match=r"holds another job .*: choose another output_folder or delete it"):
        executors(replace(job, **changes))
    executors(replace(job, cluster=replace(job.cluster, workers=2)))  # where it runs decides nothing


def test_a_folder_from_before_jobs_had_a_file_says_so(job, tmp_path):
    executors(job)
    (tmp_path / "out" / "job.json").unlink()
    (tmp_path / "out" / "logs").mkdir()
    with pytest.raises(ValueError, match=r"without a job\.json .*made by an earlier version: choose another") as told:
        executors(job)
    assert "other settings" not in str(told.value)


def test_another_input_or_classifier_at_the_same_place_is_another_job(job, tmp_path):
    shutil.copytree(job.classifier, tmp_path / "classifier")
    job = replace(job, classifier=str(tmp_path / "classifier"))
    executors(job)[-1].run()
    executors(job)
    one = tmp_path / "in" / "0.jsonl"
    before = one.read_text()
    one.write_text(before + before)
    with pytest.raises(ValueError, match="holds another job"):
        executors(job)
    one.write_text(before)
    executors(job)
    other = tiny_classifier()
    other.threshold = 0.9
    other.save(job.classifier)
    with pytest.raises(ValueError, match="holds another job"):
        executors(job)
    shutil.rmtree(job.output_folder)
    executors(job)


def test_slurm_and_ray_get_the_same_blocks(job):
    for kind, name in (("slurm", "SlurmPipelineExecutor"), ("ray", "RayPipelineExecutor")):
        cluster = ClusterSettings(kind, tasks=8, workers=4, partition="cpu", time="01:00:00", setup="true")
        stages = executors(TroveJob(job.input_folder, job.output_folder, job.classifier, cluster=cluster))
        assert [type(stage).__name__ for stage in stages] == [name] * 5
        assert [stage.world_size for stage in stages] == [8, 8, 20, 1, 8]
        assert [stage.depends for stage in stages] == [None, *stages[:-1]]
    assert stages[0].workers == 4


@pytest.mark.parametrize("near", [{"enabled": False}, {"threshold": 0.7}, {"numbers": "shingles"}])
def test_rules_for_duplicates_that_datatrove_lacks_are_refused(near):
    """They would be ignored without a word."""
    with pytest.raises(ValueError, match=r"exact_duplicates|is not datatrove's"):
        TroveJob("in", "out", None, FilterSettings(near_duplicates=NearDuplicateSettings(**near)))


def test_slurm_without_a_partition_is_refused():
    with pytest.raises(ValueError, match="partition is needed"):
        ClusterSettings("slurm")
