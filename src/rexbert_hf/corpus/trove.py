"""The filter as datatrove blocks, for corpora that one machine does not hold: local, Slurm and Ray executors.

The judging is `Judge`'s, the same code as in `filter_corpus`. Duplicates are datatrove's own four MinHash stages, with
digits kept: its defaults make documents that differ in numbers alone the same document.

One decision worth knowing: near duplicates here are datatrove's (any shared bucket, chains included), not those of
`near_duplicates`, which need one pass over all signatures. Their threshold follows from bands and rows, numbers are
words like others, and equal texts are among them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from .fasttext_model import FastTextClassifier
from .filtering import KEPT_SCHEMA
from .judging import FilterSettings, Judge
from .near_duplicates import NearDuplicateSettings
from .stages import files_key, stage_key

try:
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor, RayPipelineExecutor, SlurmPipelineExecutor
    from datatrove.io import get_datafolder
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.readers import JsonlReader, ParquetReader
    from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
    from datatrove.pipeline.writers.disk_base import DiskWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.text import TextNormConfig

    from .trove_rows import UNKNOWN, FieldsOfRow, NamedParquetReader, SelectDomains
except ImportError as error:
    raise ImportError(f"datatrove is needed for these blocks ({error}): pip install rexbert-hf[corpus]") from None

_BATCH = 512
JOB_FILE = "job.json"
_NOT_DECISIVE = ("input_folder", "output_folder", "classifier", "cluster")  # folders may move with what they hold


@dataclass(frozen=True)
class ClusterSettings:
    """Where the pipeline runs.

    Attributes:
        executor: "local" for processes here, "slurm" or "ray" for a cluster.
        tasks: shares of the input; restarts redo whole shares.
        workers: shares at a time; -1 for all.
        partition: of Slurm.
        time: limit of a Slurm job, as "20:00:00".
        memory_gb: for each core.
        setup: shell command before each Slurm job, such as one that activates an environment.
        start_method: of local workers.
    """

    executor: Literal["local", "slurm", "ray"] = "local"
    tasks: int = 1
    workers: int = -1
    partition: str = ""
    time: str = "20:00:00"
    memory_gb: int = 2
    setup: str = ""
    start_method: Literal["forkserver", "fork", "spawn"] = "forkserver"

    def __post_init__(self) -> None:
        if self.tasks < 1:
            raise ValueError(f"tasks is at least 1, got {self.tasks}")
        if self.executor == "slurm" and not self.partition:
            raise ValueError("partition is needed for Slurm: name one that `sinfo` lists")


class DomainFilter(BaseFilter):
    """Keep documents of the domain, in wanted languages and of some quality; metadata gets the `score`.

    Args:
        settings: what is kept.
        classifier: folder of the classifier, or its name on the Hub; each process loads it when it needs it.
        exclusion_writer: where the others go, with `filter_reason` in their metadata.
    """

    name = "domain"
    # DataTrove would ask for a distribution by name, and Python 3.13 has fasttext from another one; the classifier says
    # itself what is missing.
    _requires_dependencies: ClassVar[list[str]] = []

    def __init__(
        self, settings: FilterSettings, classifier: str | Path | None, exclusion_writer: DiskWriter | None = None
    ) -> None:
        super().__init__(exclusion_writer, batch_size=_BATCH)
        self.settings, self.classifier = settings, None if classifier is None else str(classifier)
        self._judge: Judge | None = None

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Judge one document."""
        return self.filter_batch([doc])[0]

    def filter_batch(self, batch: list[Document]) -> list[bool | tuple[bool, str]]:
        """Judge many at a time; texts are cut to their lines in the domain where the settings say so."""
        if self._judge is None:
            self._judge = Judge(self.settings, self.classifier)
        verdicts = self._judge([doc.text for doc in batch])
        for doc, text, score in zip(batch, verdicts.texts, verdicts.scores.tolist(), strict=True):
            doc.text = text
            doc.metadata["score"] = score
        return [(False, reason) if reason else True for reason in verdicts.reasons]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_judge": None}


@dataclass(frozen=True)
class TroveJob:
    """What is filtered, and where it goes.

    Attributes:
        input_folder: of JSON lines or Parquet; a path or any address that fsspec knows.
        output_folder: gets `kept`, `rejected`, `minhash`, `logs` and `job.json`, which says whose they are.
        classifier: folder of the classifier, or its name on the Hub.
        settings: what is kept.
        domains: the selected ones; None for all.
        glob_pattern: files of the input.
        text_field: name of the text's field.
        cluster: where it runs.
        domain_field: name of the domain's field.
        url_field: name of the address' field.
        domain: domain of all documents, whatever the fields say.
        domain_from_folder: a file's folder is its domain where the field does not say it, as in FineFineWeb.

    Raises:
        ValueError: for settings of duplicates that datatrove's MinHash does not have.
    """

    input_folder: str
    output_folder: str
    classifier: str | None
    settings: FilterSettings = field(default_factory=FilterSettings)
    domains: tuple[str, ...] | None = None
    glob_pattern: str = "**/*.jsonl*"
    text_field: str = "text"
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    domain_field: str = "domain"
    url_field: str = "url"
    domain: str = ""
    domain_from_folder: bool = True

    def __post_init__(self) -> None:
        near, usual = self.settings.near_duplicates, NearDuplicateSettings()
        if self.settings.exact_duplicates and not near.enabled:
            raise ValueError("equal texts are found by MinHash here: enable near_duplicates, or unset exact_duplicates")
        for name in ("threshold", "numbers"):
            if getattr(near, name) != getattr(usual, name):
                raise ValueError(f"near_duplicates.{name} is not datatrove's: set bands and rows, which decide there")


def minhash_config(settings: FilterSettings) -> MinhashConfig:
    """The MinHash of datatrove with our bands and shingles, and with digits kept.

    Args:
        settings: of the filter.
    """
    near = settings.near_duplicates
    return MinhashConfig(
        n_grams=near.shingle_words,
        num_buckets=near.bands,
        hashes_per_bucket=near.rows,
        seed=near.seed + 1,
        norm_config=TextNormConfig(norm_numbers=False),
        hash_config=HashConfig(precision=64),
    )


def pipeline(job: TroveJob) -> list[PipelineStep]:
    """Blocks that read, judge and write; rejects go to `rejected` with their reasons.

    Args:
        job: what is filtered.
    """
    reader = NamedParquetReader if job.glob_pattern.endswith(".parquet") else JsonlReader
    adapter = FieldsOfRow(job.input_folder, job.domain, job.domain_field, job.domain_from_folder, job.url_field)
    steps: list[PipelineStep] = [
        reader(
            job.input_folder,
            glob_pattern=job.glob_pattern,
            text_key=job.text_field,
            recursive=True,
            adapter=adapter,
        )
    ]
    if job.domains is not None:
        steps.append(SelectDomains(job.domains))
    rejects = JsonlWriter(f"{job.output_folder}/rejected", output_filename="${rank}.jsonl.gz")
    steps.append(DomainFilter(job.settings, job.classifier, rejects))
    steps.append(_writer(job, "judged" if job.settings.near_duplicates.enabled else "kept"))
    return steps


def executors(job: TroveJob) -> list[Any]:
    """The stages as datatrove executors, each depending on the one before: run the last one.

    Judging, then the four stages of MinHash where near duplicates are looked for. Finished shares are skipped when a
    stage is run again, so the output folder belongs to one job.

    Args:
        job: what is filtered, and where it runs.

    Raises:
        ValueError: if the output folder holds another job, or the classifier cannot be read.
        FileNotFoundError: if the classifier is not there.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> [stage.world_size for stage in executors(TroveJob(folder, f"{folder}/out", None))]
        [1, 1, 20, 1, 1]
    """
    _claim(job)
    stages: list[tuple[str, list[Any], int]] = [("judge", pipeline(job), job.cluster.tasks)]
    if job.settings.near_duplicates.enabled:
        stages += _minhash_stages(job)
    made: list[Any] = []
    for name, steps, tasks in stages:
        made.append(_executor(job, name, steps, tasks, made[-1] if made else None))
    return made


def _claim(job: TroveJob) -> None:
    """Write the job's key into its output folder; datatrove would take another job's finished shares for this one's."""
    folder, content = get_datafolder(job.output_folder), json.dumps({"key": _job_key(job)})
    known = folder.exists(JOB_FILE)
    if known:
        with folder.open(JOB_FILE, "rt") as file:
            if file.read() == content:
                return
    if folder.exists("logs"):
        other = "another job (other settings, input, classifier or tasks)"
        older = f"a job without a {JOB_FILE} that says which: it was made by an earlier version"
        raise ValueError(
            f"{job.output_folder} holds {other if known else older}: choose another output_folder or delete it"
        )
    with folder.open(JOB_FILE, "wt") as file:
        file.write(content)


def _job_key(job: TroveJob) -> str:
    """Of all that decides what a share holds, and which files it reads; not of where it runs."""
    found = get_datafolder(job.input_folder)
    names = found.list_files(recursive=True, glob_pattern=job.glob_pattern)
    sizes = {name: about["size"] for name, about in found.find("", detail=True).items()}
    model = job.settings.language.model
    decisive = {one.name: getattr(job, one.name) for one in fields(job) if one.name not in _NOT_DECISIVE}
    return stage_key(
        "trove",
        decisive,
        job.cluster.tasks,
        [(name, sizes.get(name)) for name in names],
        None if job.classifier is None else FastTextClassifier.load(job.classifier).fingerprint,
        [] if model is None else files_key([Path(model)]),
    )


def _minhash_stages(job: TroveJob) -> list[tuple[str, list[Any], int]]:
    config, folder, tasks = minhash_config(job.settings), f"{job.output_folder}/minhash", job.cluster.tasks
    judged = ParquetReader(f"{job.output_folder}/judged", glob_pattern="*.parquet")
    rejects = JsonlWriter(f"{job.output_folder}/rejected", output_filename="near_duplicates_${rank}.jsonl.gz")
    buckets = f"{folder}/buckets"
    return [
        ("signatures", [judged, MinhashDedupSignature(f"{folder}/signatures", config)], tasks),
        ("buckets", [MinhashDedupBuckets(f"{folder}/signatures", buckets, config=config)], config.num_buckets),
        ("clusters", [MinhashDedupCluster(buckets, f"{folder}/remove", config=config)], 1),
        ("drop", [judged, MinhashDedupFilter(f"{folder}/remove", rejects), _writer(job, "kept")], tasks),
    ]


def _writer(job: TroveJob, kind: str) -> ParquetWriter:
    return ParquetWriter(f"{job.output_folder}/{kind}", adapter=_row, schema=KEPT_SCHEMA)


def _row(_writer: DiskWriter, document: Document) -> dict[str, Any]:
    """The row of a kept document, as `filter_corpus` writes it."""
    found = document.metadata
    row = {"id": document.id, "text": document.text, "url": found.get("url") or ""}
    return {**row, "domain": found.get("domain") or UNKNOWN, "score": found.get("score")}


def _executor(job: TroveJob, name: str, steps: list[Any], tasks: int, depends: Any) -> Any:
    cluster = job.cluster
    given: dict[str, Any] = {
        **{"pipeline": steps, "tasks": tasks, "workers": cluster.workers, "depends": depends},
        **{"logging_dir": f"{job.output_folder}/logs/{name}"},
    }
    if cluster.executor == "local":
        return LocalPipelineExecutor(**given, start_method=cluster.start_method)
    if cluster.executor == "ray":
        return RayPipelineExecutor(**given, mem_per_cpu_gb=cluster.memory_gb)
    return SlurmPipelineExecutor(
        **given,
        time=cluster.time,
        partition=cluster.partition,
        mem_per_cpu_gb=cluster.memory_gb,
        job_name=f"rexbert-{name}",
        env_command=cluster.setup or None,
    )


__all__ = ["ClusterSettings", "DomainFilter", "FieldsOfRow", "SelectDomains", "TroveJob", "executors", "pipeline"]
