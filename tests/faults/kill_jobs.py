"""The recipes that are killed: command lines small enough for tests, where they are killed, and what must come out."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))
sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

import pyarrow.parquet as pq
from killing import Job, Place, Process, python, temporary_of
from pretraining_cases import CONFIGS, MODEL, TINY, words
from process_tree import is_of

from rexbert_hf.phrases import PhrasePool
from rexbert_hf.retrieval.serving.index import ProductIndex

UNEQUAL = re.compile(
    r"^key$|^outputs$|second|date|git_commit|hardware|_at\b|resumed|output_dir|cache_dir|path|bytes\b|url"
)
"""Keys of `run.json` that differ from run to run."""


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def measured(value: Any) -> Any:
    """What a run measured, without times and places."""
    if isinstance(value, dict):
        return {key: measured(item) for key, item in value.items() if not UNEQUAL.search(key)}
    return [measured(item) for item in value] if isinstance(value, list) else value


def results(folder: Path) -> Any:
    return measured(json.loads((folder / "run.json").read_text())["results"])


def weights_and_results(folder: Path) -> dict[str, Any]:
    """Digests of all weights and of the tokenizer, and what was measured on the way."""
    names = ("model.safetensors", "modernbert/model.safetensors", "tokenizer.json")
    found: dict[str, Any] = {name: digest(folder / name) for name in names if (folder / name).exists()}
    return found | {"phases": results(folder).get("phases"), "last checkpoint": last_weights(folder)}


def last_weights(folder: Path) -> str:
    last = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return f"{last.name} {digest(last / 'model.safetensors')}"


def at_work(process: Process) -> bool:
    """Whether this process, or one that it started, holds the folder, and not the one before it."""
    try:
        holder = re.match(r"process (\d+) on", (process.folder / ".lock").read_text())
    except OSError:
        return False
    return holder is not None and is_of(int(holder[1]), process.process.pid)


def exists(pattern: str):
    """Whether the process is at work and a file of the folder matches."""

    def reached(process: Process) -> bool:
        with contextlib.suppress(FileNotFoundError):  # folders come and go while it looks
            return at_work(process) and any(process.folder.glob(pattern))
        return False

    return reached


def in_temporary(pattern: str):
    """Whether something in the process' $TMPDIR matches."""
    return lambda process: any(temporary_of(process.folder).glob(pattern))


def said(pattern: str):
    return lambda process: process.said(pattern)


# Pre-training: the quickstart's three phases, about 15 steps each.

LONGER = {
    "phases__general__max_tokens": "16k",
    "phases__extension__max_tokens": "12k",
    "phases__anneal__max_tokens": "16k",
    "trainer__save_steps": "5",
}


def pretraining(folder: Path) -> list[str]:
    return python("recipes/pretrain.py", *words(folder, cache_dir=folder / "cache", **LONGER))


def writes_a_checkpoint(process: Process) -> bool:
    """A staging folder after the first few steps, so that it is one of the training's."""
    return process.step >= 3 and exists(".staging-*")(process)


PLACES = {
    "tokenizer": Place("tokenizer", at_work),
    "tokens": Place("tokens", exists("cache/*/tokenised-*")),
    "general": Place("general", said(r"^step \d+/\d+ general")),
    "extension": Place("extension", said(r"^step \d+/\d+ extension")),
    "anneal": Place("anneal", said(r"^step \d+/\d+ anneal")),
    "staging": Place("staging", writes_a_checkpoint, 0.06),
    "result": Place("result", exists("model.safetensors"), 0.5),
}


def pretraining_job(name: str, *places: str) -> Job:
    found = tuple(PLACES[place] for place in places)
    return Job(name, pretraining, found, weights_and_results, whole="pretraining", steps=True)


# Curation: what is kept, with its split and domain.

CURATION = {"sources.0.sample_size": "700", "audit.labeller.ready.sample_size": "700", "workers": "1"}
STAGES = ("select", "sample", "label", "audit", "distil", "filter", "corpus")


def curation(folder: Path) -> list[str]:
    pairs = [word for key, value in CURATION.items() for word in (f"--{key}", value)]
    return python("recipes/curate.py", str(CONFIGS / "curate_sample.yaml"), *pairs, "--output_dir", str(folder))


def documents(folder: Path) -> dict[str, int]:
    """How often each document is there, by split, domain, id and text."""
    found: Counter[str] = Counter()
    for path in sorted((folder / "corpus").glob("*/*.parquet")):
        for row in pq.read_table(path).to_pylist():
            text = hashlib.sha1(row["text"].encode()).hexdigest()[:12]
            found[f"{path.name.partition('-')[0]} {row['domain']} {row['id']} {text}"] += 1
    assert found
    return found


def stage_reports(folder: Path) -> dict[str, Any]:
    return {path.parent.name: measured(json.loads(path.read_text())) for path in folder.glob("*/report.json")}


# Mining: phrases with their scores.

MINING = ["--mining.trees", "30", "--card.noun_phrase_texts", "300", "--texts.1.limit", "4000", "--max_size", "400"]


def mining(folder: Path) -> list[str]:
    return python("recipes/mine_phrases.py", "--output_dir", str(folder), *MINING)


def phrases(folder: Path) -> dict[str, int]:
    pool = PhrasePool.load(folder)
    return Counter(f"{phrase} {score!r}" for phrase, score in pool)


def pool_is_whole_or_not_there(folder: Path) -> None:
    if any(folder.glob("data/*.parquet")):
        PhrasePool.load(folder)


# An index: the products in it, and answers.

INDEX = ["--products.sample_size", "1500", "--index.kind", "hnsw", "--index.lexical", "true"]


def indexing(folder: Path) -> list[str]:
    return python("recipes/build_index.py", "--output_dir", str(folder), *INDEX)


def products(folder: Path) -> dict[str, int]:
    index = ProductIndex.load(folder, verify=True)
    return Counter(index.ids())


def answers(folder: Path) -> dict[str, Any]:
    index = ProductIndex.load(folder)
    return {query: [name for name, _ in index.search(query, 10)[0]] for query in ("red lamp", "dog food", "kettle")}


def index_is_whole_or_not_there(folder: Path) -> None:
    """A reader at this moment sees a whole index or none."""
    if (folder / "CURRENT").exists():
        assert len(ProductIndex.load(folder, verify=True)) == 1500


# Pairs from a click log.

PAIRS = ["--products.sample_size", "150", "--events.sample_size", "400", "--audit.judgements.sample_size", "150"]


def pairing(folder: Path) -> list[str]:
    return python("recipes/build_pairs.py", "--output_dir", str(folder), *PAIRS)


def pairs(folder: Path) -> dict[str, int]:
    found: Counter[str] = Counter()
    for path in sorted(folder.rglob("*.parquet")):
        place = path.relative_to(folder).as_posix()
        found.update(
            f"{place} {json.dumps(row, sort_keys=True, default=str)}" for row in pq.read_table(path).to_pylist()
        )
    return found


# Query-product pre-finetuning, and the bi-encoder of search.

QPI = {
    **TINY,
    "model.overrides": MODEL,
    "sources.pairs.sample_size": "60",
    "sources.pairs.pairs.max_query_tokens": "16",
    "sources.pairs.pairs.max_tokens": "64",
    "phases.pairs.max_tokens": "20k",
    "phases.pairs.seq_length": "64",
    "phases.pairs.batch_tokens": "512",
    "phases.pairs.schedule.warmup_tokens": "1k",
    "early_stopping.every_steps": "8",
}
SEARCH = {
    "data.sample_size": "150",
    "model.vocab_size": "512",
    "model.max_tokens": "16",
    "rows.batch_size": "16",
    "trainer.epochs": "4",
    "trainer.save_epochs": "0.5",
    "trainer.bf16": "false",
    "trainer.cpu_threads": "1",
    "trainer.use_cpu": "true",
    "trainer.logging_steps": "1",
}


def prefinetuning(folder: Path) -> list[str]:
    found = {"output_dir": str(folder), "cache_dir": str(folder / "cache"), **QPI}
    return python("recipes/qpi.py", *(word for key, value in found.items() for word in (f"--{key}", value)))


def search_training(folder: Path) -> list[str]:
    found = {"output_dir": str(folder), **SEARCH}
    return python("recipes/finetune_search.py", *(word for key, value in found.items() for word in (f"--{key}", value)))


def search_weights(folder: Path) -> dict[str, Any]:
    found = {path.name: digest(path) for path in folder.glob("*.safetensors")}
    figures = {name: results(folder).get(name) for name in ("test", "validation")}
    return found | figures | {"last checkpoint": last_weights(folder)}


JOBS = (
    pretraining_job("tokenising", "tokenizer", "tokens"),
    pretraining_job("phase general", "general"),
    pretraining_job("phase extension", "extension"),
    pretraining_job("phase anneal", "anneal"),
    pretraining_job("checkpoint writing", "staging"),
    pretraining_job("writing the result", "result"),
    Job(
        "curation",
        curation,
        (*(Place(stage, exists(stage)) for stage in STAGES), Place("classifier", in_temporary("rexbert-*"), 0.05)),
        stage_reports,
        documents,
    ),
    Job(
        "mining",
        mining,
        (Place("reading", exists(".rows-*")), Place("counting", exists(".rows-*/rexbert-*")),
         Place("saving", exists("data"), 0.3)),
        results,
        phrases,
        check=pool_is_whole_or_not_there,
    ),
    Job(
        "index building",
        indexing,
        (Place("encoding", at_work), Place("saving", exists("versions/.staging-*"), 0.1)),
        answers,
        products,
        check=index_is_whole_or_not_there,
        files=((r"versions/v\d+", "version"),),
    ),
    Job(
        "pairs",
        pairing,
        (Place("reading", exists(".rows-*")), Place("writing", exists(".rows-*/built/pairs"))),
        results,
        pairs,
    ),
    Job("pre-finetuning", prefinetuning, (Place("pairs", said(r"^step \d+/")),), weights_and_results, steps=True),
    Job("search training", search_training, (Place("training", exists("checkpoint-*")),), search_weights, steps=True),
)  # fmt: skip
"""Pushing is in `push_jobs.py`: it needs a Hub."""


def places_of(job: Job, jobs: tuple[Job, ...] = JOBS) -> tuple[Place, ...]:
    """Of all jobs that share its run without kills."""
    shared = [other for other in jobs if (other.whole or other.name) == (job.whole or job.name)]
    return tuple(dict.fromkeys(place for other in shared for place in other.places))
