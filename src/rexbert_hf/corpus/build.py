"""Build: kept documents to Parquet by domain, in the one split, with tokens counted (RexBERT's figure 1).

One decision worth knowing: domains are written one after the other, each in a staging folder that gets its name when it
is complete. So a killed build or a full disk costs the domain at hand and no other, and memory holds some hundred rows.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import logging
import os
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..catalog.split import HELD_OUT, SPLITS, split_of
from ..hub.loading import loading
from ..hub.pull import TOKENIZER_FILES, resolve
from ..hub.redaction import redact
from ..hub.run_file import git_commit, plain, versions
from .card import write_corpus_card
from .manifest import MANIFEST, RESERVED, read_json, totals
from .shards import COLUMNS, ShardWriter, domains_of, rows_of
from .stages import StageReport, begin, files_key, stage_key, write_json

logger = logging.getLogger(__name__)

WORDS = "words"
"""What is counted without a tokenizer: runs of characters between white space."""
_NAME = re.compile(r"[^\w.-]+")
_MOST_BYTES = 200
"""Of a folder's name: file systems take 255, of which staging takes some."""


@dataclass
class SourceFacts:
    """What the card says about one source of documents; none of it is assumed.

    Attributes:
        name: of the source.
        license: of its documents.
        revision: that was read.
    """

    name: str
    license: str | None = None
    revision: str | None = None


@dataclass
class CorpusFacts:
    """What the card says about the corpus; none of it is assumed.

    Attributes:
        name: of the corpus.
        summary: a paragraph about it.
        license: of the corpus.
        language: of its text, as "en".
        sources: where the documents come from.
    """

    name: str = "Ecom-niverse"
    summary: str | None = None
    license: str | None = None
    language: str | None = None
    sources: list[SourceFacts] = field(default_factory=list)


@dataclass
class BuildSettings:
    """How the corpus is written.

    Attributes:
        held_out: share of the documents outside train, half validation and half test.
        shard_mb: megabytes of text in a Parquet file, before compression.
        tokenizer: folder or Hub id of the tokenizer that counts; None counts words.
        kept: folder of kept documents that another job wrote, such as datatrove's; None takes the filter stage's.
        card: what the card says.
    """

    held_out: float = HELD_OUT
    shard_mb: float = 256.0
    tokenizer: str | None = None
    kept: Path | None = None
    card: CorpusFacts = field(default_factory=CorpusFacts)

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share of the documents, at least 0 and below 1; got {self.held_out}")
        if not self.shard_mb > 0:
            raise ValueError(f"shard_mb is above 0; got {self.shard_mb}")


def build(
    settings: BuildSettings,
    kept_folder: Path,
    reports: Mapping[str, StageReport],
    output: Path,
    config: Mapping[str, Any] | None = None,
) -> StageReport:
    """Write the corpus: `DOMAIN/SPLIT-00000-of-0000N.parquet`, `corpus.json`, `README.md`, `domains.svg`.

    Finished domains are not written again. A domain's folder has its name, other characters than letters, digits, ".",
    "_" and "-" replaced. Names that are too long are cut, and end with a hash, as do those that would fall together.

    Args:
        settings: how.
        kept_folder: Parquet files with the columns `COLUMNS`, in the folder or below.
        reports: of the stages before, for the card.
        output: the corpus' folder.
        config: of the whole run, for the card.

    Raises:
        FileNotFoundError: if there is no kept file.
        ValueError: if no document was kept, or a column is missing.
        OSError: if the disk is full; domains that are finished stay.
    """
    started = time.monotonic()
    files = sorted(path for path in kept_folder.rglob("*.parquet") if not path.name.startswith("."))
    if not files:
        raise FileNotFoundError(f"{kept_folder}: no Parquet file of kept documents there; run the filter stage first")
    version = importlib.metadata.version("rexbert-hf")
    counter_key = _counter_key(settings.tokenizer)
    parts = (version, settings, files_key(files), counter_key, {name: one.key for name, one in reports.items()})
    key = stage_key("build", *parts)
    if (done := begin(output, key)) is not None:
        return done
    (output / MANIFEST).unlink(missing_ok=True)  # what is about to change is not finished
    places, rows = domains_of(files)
    if not places:
        raise ValueError(f"{kept_folder}: no document was kept: lower the filter's threshold, or see its rejects")
    names = _folder_names(list(places))
    count = _counter(settings.tokenizer)
    made: dict[str, Any] = {}
    for domain in sorted(places):
        content = asdict(settings) | {"card": None}
        part_key = stage_key(version, content, files_key(places[domain]), counter_key, domain)
        with _room(domain, len(made), output):
            folder = output / names[domain]
            made[names[domain]] = _written(folder, part_key) or _write(
                settings, domain, places[domain], folder, part_key, count
            )
    report = _report(key, rows, made, settings)
    made = {name: facts for name, facts in made.items() if facts["splits"]}
    if not made:
        raise ValueError(f"{kept_folder}: none of {rows} kept documents has text: nothing to build")
    _remove_others(output, set(made))
    with _room("the card", len(made), output):
        write_json(output / MANIFEST, {**_manifest(settings, key, made, reports), **_provenance(config)})
        write_corpus_card(output)
        report.seconds = round(time.monotonic() - started, 3)
        splits = ((name, part) for name, facts in made.items() for part in facts["splits"].values())
        report.save(output, [MANIFEST, *(f"{name}/{file}" for name, part in splits for file in part["files"])])
    return report


def _folder_names(domains: Sequence[str]) -> dict[str, str]:
    """A name for each, and the same one whatever its order among them; a domain that has its own name keeps it."""
    plain = {domain: _plain_name(domain) for domain in domains}
    shared = Counter(plain.values())
    names = {}
    for domain, name in plain.items():
        short = name.encode()[:_MOST_BYTES].decode(errors="ignore")
        if short != name or (shared[name] > 1 and name != domain):
            name = f"{short.rstrip('.-')}-{hashlib.sha256(domain.encode()).hexdigest()[:8]}"
        names[domain] = name
    return names


def _plain_name(domain: str) -> str:
    name = _NAME.sub("-", domain).strip(".-") or "unnamed"
    return f"{name}-domain" if name in RESERVED else name


def _written(folder: Path, key: str) -> dict[str, Any] | None:
    """What an earlier build wrote of a domain; None if it was made from something else, or is not whole."""
    found = read_json(folder / "domain.json")
    if found is None or found.get("key") != key:
        return None
    try:
        for part in found["splits"].values():
            rows = sum(pq.read_metadata(folder / file).num_rows for file in part["files"])
            if rows != part["documents"]:
                raise ValueError(f"{rows} rows where {part['documents']} were written")
    except (OSError, pa.ArrowException, ValueError) as error:
        message = next(iter(str(error).splitlines()), "no details")
        logger.warning("%s is damaged (%s): it is built again", folder, message)
        return None
    return found


def _write(
    settings: BuildSettings,
    domain: str,
    files: Sequence[Path],
    folder: Path,
    key: str,
    count: Callable[[list[str]], list[int]],
) -> dict[str, Any]:
    """Write one domain into a staging folder and give it its name."""
    staged = folder.with_name(f".{folder.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    facts: dict[str, Any] = {"key": key, "domain": domain, "empty": 0}
    writers = {split: ShardWriter(staged, split, int(settings.shard_mb * 1e6)) for split in SPLITS}
    try:
        for table in rows_of(domain, files):
            texts = table["text"].to_pylist()
            tokens = count(texts)
            sides = [split_of(text, settings.held_out) if text.strip() else "empty" for text in texts]
            facts["empty"] += sides.count("empty")
            for split, writer in writers.items():
                if chosen := [i for i, side in enumerate(sides) if side == split]:
                    size = sum(len(texts[i].encode("utf-8", "replace")) for i in chosen)
                    writer.write(table.take(chosen), size, sum(tokens[i] for i in chosen))
        facts["splits"] = {split: found for split, writer in writers.items() if (found := writer.close())}
        write_json(staged / "domain.json", facts)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)
    finally:
        for writer in writers.values():
            writer.abandon()
        shutil.rmtree(staged, ignore_errors=True)
    return facts


def _counter(tokenizer: str | None) -> Callable[[list[str]], list[int]]:
    """How many tokens (or words) each text has."""
    if tokenizer is None:
        return lambda texts: [len(text.split()) for text in texts]
    from transformers import AutoTokenizer

    folder = resolve(tokenizer, None, TOKENIZER_FILES)
    with loading("tokenizer", tokenizer, "set build.tokenizer to one, or leave it out to count words"):
        loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    loaded.model_max_length = 1 << 60  # nothing is cut, and nobody warned
    return lambda texts: [len(ids) for ids in loaded(texts, add_special_tokens=False)["input_ids"]]


def _counter_key(tokenizer: str | None) -> list[Any]:
    """Files of a tokenizer in a folder here: another one may come to lie under the same name."""
    folder = Path(tokenizer or "")
    if tokenizer is None or not folder.is_dir():
        return []
    patterns = ("*token*", "*vocab*", "merges.txt", "*.model")
    return files_key(list({file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}))


@contextmanager
def _room(what: str, kept: int, output: Path) -> Iterator[None]:
    """Say what had no room, and that the rest stays."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise OSError(
            error.errno,
            f"no room for {what} in {output} ({os.strerror(error.errno)}): {kept} finished domains are kept; make room,"
            " then start again",
        ) from error


def _remove_others(output: Path, names: set[str]) -> None:
    """Remove the folders of domains that an earlier build had and this one has not."""
    for place in output.glob("*/domain.json"):
        if place.parent.name not in names:
            shutil.rmtree(place.parent)


def _report(key: str, rows: int, made: Mapping[str, Any], settings: BuildSettings) -> StageReport:
    report = StageReport("build", key, read=rows)
    for facts in made.values():
        report.written += sum(split["documents"] for split in facts["splits"].values())
        if facts["empty"]:
            report.drop("empty", facts["empty"])
    splits = [facts["splits"] for facts in made.values()]
    report.details = {
        "unit": _unit(settings),
        "held_out": settings.held_out,
        "domains": {name: totals(facts) for name, facts in made.items() if facts["splits"]},
        "splits": {split: sum(found.get(split, {}).get("documents", 0) for found in splits) for split in SPLITS},
    }
    return report


def _unit(settings: BuildSettings) -> str:
    return "tokens" if settings.tokenizer else WORDS


def _manifest(
    settings: BuildSettings, key: str, made: Mapping[str, Any], reports: Mapping[str, StageReport]
) -> dict[str, Any]:
    return {
        "key": key,
        "unit": _unit(settings),
        "tokenizer": settings.tokenizer,
        "held_out": settings.held_out,
        "columns": list(COLUMNS),
        "domains": dict(made),
        "card": asdict(settings.card),
        "stages": {name: _public(report) for name, report in reports.items()},
    }


def _public(report: StageReport) -> dict[str, Any]:
    """A report without the places of rejected rows: they are paths of this machine, and the manifest travels."""
    details = {name: value for name, value in report.details.items() if name != "rejected"}
    return asdict(report) | {"details": details}


def _provenance(config: Mapping[str, Any] | None) -> dict[str, Any]:
    date = datetime.now(UTC).strftime("%Y-%m-%d")
    return {"date": date, "git_commit": git_commit(), "versions": versions(), "config": redact(plain(config))}
