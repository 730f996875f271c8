"""From a recipe's sources to tokenised stores: read, deduplicate, hold out, tokenise; each source once.

The result of a source lies in a folder named by everything that decides it, and is found again in milliseconds: a
resumed run reads no text.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog import deduplicate, load_sample, read_records, split_dataset
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.data import TokenisedDataset
from rexbert_hf.data.tokenise import tokenise
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.phrases import Guide, LexiconGuide, RegexGuide
from rexbert_hf.pretraining.settings import GuideSettings, PretrainSettings, SourceSettings

logger = logging.getLogger(__name__)

_FORMAT = 1
"""Goes up when prepared sources of an older version must not be used."""


@dataclass(frozen=True)
class Corpus:
    """One source, ready to train on.

    Attributes:
        train: documents to train on.
        held_out: documents never trained on; None if there are none.
        report: what was read, dropped and kept; `fingerprint` names the content.
    """

    train: TokenisedDataset
    held_out: TokenisedDataset | None
    report: dict[str, Any]


def read_source(source: SourceSettings, data_dir: str | None = None, report: ReadReport | None = None) -> Dataset:
    """Read a source into a data set with a `text` column.

    Args:
        source: where it is.
        data_dir: relative paths start here.
        report: filled with counts of bad rows.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if the text column is missing, or nothing is left.
    """
    if source.sample is not None:
        dataset = load_sample(source.sample, size=source.sample_size)
    else:
        dataset = read_records(
            _paths(source, data_dir),
            source.columns,
            format=source.format,
            encoding=source.encoding,
            split=source.split,
            limit=source.max_documents,
            report=report,
        )
    if "text" not in dataset.column_names:
        raise ValueError(
            f"{source.path or source.sample}: no column 'text' among {', '.join(dataset.column_names)}:"
            " set the source's columns.text"
        )
    if source.max_documents is not None and len(dataset) > source.max_documents:
        dataset = dataset.select(range(source.max_documents))
    dataset = dataset.select_columns(["text"])
    return dataset if source.join_words is None else _joined(dataset, source.join_words)


def _paths(source: SourceSettings, data_dir: str | None) -> Any:
    def place(path: str) -> str:
        inside = os.path.join(data_dir, path) if data_dir else path
        return inside if data_dir and (os.path.exists(inside) or glob.glob(inside) or not _may_be_hub(path)) else path

    return [place(path) for path in source.path] if isinstance(source.path, list) else place(str(source.path))


def _may_be_hub(path: str) -> bool:
    return path.count("/") <= 1 and not any(mark in path for mark in "*?") and not Path(path).suffix


def _joined(dataset: Dataset, words: int) -> Dataset:
    """Neighbouring documents joined by line breaks until they have `words` words; the last one may be shorter."""

    def join() -> Iterator[str]:
        held: list[str] = []
        count = 0
        for text in dataset["text"]:
            held.append(text)
            count += text.count(" ") + 1
            if count >= words:
                yield "\n".join(held)
                held, count = [], 0
        if held:
            yield "\n".join(held)

    return Dataset.from_dict({"text": list(join())})


def make_guides(settings: GuideSettings, data_dir: str | None = None) -> list[Guide]:
    """The guides that a recipe asks for.

    Args:
        settings: which.
        data_dir: relative paths of the lexicons start here.

    Raises:
        FileNotFoundError: if a lexicon does not exist.
        ValueError: if a lexicon is empty.
    """
    guides: list[Guide] = []
    if settings.regex:
        guides.append(RegexGuide(tuple(settings.regex)))
    if settings.sample_lexicons:
        guides += LexiconGuide.from_products(load_sample("products"))
    for kind, path in (("brand", settings.brands), ("type", settings.types)):
        if path is None:
            continue
        terms = read_records(os.path.join(data_dir or "", path), format="text")["text"]
        guides.append(LexiconGuide(list(terms), kind))
    return guides


def prepare(
    settings: PretrainSettings, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, num_proc: int = 1
) -> dict[str, Corpus]:
    """Prepare all sources of a recipe.

    Args:
        settings: the recipe.
        tokenizer: of the run.
        cache_dir: where prepared sources are kept.
        num_proc: processes that tokenise.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if a source holds no text.
    """
    guides = make_guides(settings.guides, settings.data_dir) if settings.needs_guides else []
    used = {name for phase in settings.phases for name in phase.mixture}
    unused = sorted(set(settings.sources) - used)
    if unused:
        logger.info("no phase mixes %s: evaluated only", ", ".join(unused))
    return {
        name: _prepare(name, source, settings, tokenizer, guides, cache_dir, num_proc)
        for name, source in settings.sources.items()
    }


def source_key(source: SourceSettings, data_dir: str | None, *parts: Any) -> str:
    """Name of a source's content as far as it can be told without reading it: settings, file sizes and times."""
    identity: list[Any] = [_FORMAT, dataclasses.asdict(source), parts]
    if source.path is not None:
        paths = _paths(source, data_dir)
        for path in sorted(paths if isinstance(paths, list) else [paths]):
            found = sorted(glob.glob(path)) or [path]
            files = [f for p in found for f in (sorted(map(str, Path(p).rglob("*"))) if os.path.isdir(p) else [p])]
            identity += [(f, os.stat(f).st_size, os.stat(f).st_mtime_ns) for f in files if os.path.isfile(f)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True, default=str).encode()).hexdigest()[:16]


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name of a tokenizer's content."""
    backend = tokenizer.backend_tokenizer
    return hashlib.sha256(backend.to_str().encode()).hexdigest()[:16]


def _prepare(
    name: str,
    source: SourceSettings,
    settings: PretrainSettings,
    tokenizer: PreTrainedTokenizerBase,
    guides: Sequence[Guide],
    cache_dir: Path,
    num_proc: int,
) -> Corpus:
    held_out = settings.evaluation.held_out if source.evaluate else 0.0
    marks = [guide.fingerprint for guide in guides]
    key = source_key(source, settings.data_dir, tokenizer_key(tokenizer), marks, held_out)
    folder = cache_dir / f"{name}-{key}"
    manifest = folder / "prepared.json"
    if manifest.exists():
        report = json.loads(manifest.read_text())
        found = {part: TokenisedDataset.load(folder / place) for part, place in report["stores"].items()}
        return Corpus(found["train"], found.get("validation"), report)
    reading = ReadReport()
    dataset, repeated = deduplicate(read_source(source, settings.data_dir, reading))
    parts = split_dataset(dataset, held_out=held_out)
    texts = {"train": parts["train"], "validation": parts["validation"]}
    stores: dict[str, TokenisedDataset] = {}
    places: dict[str, str] = {}
    for part, split in texts.items():
        if len(split):
            mark = f"{key}-{part}"
            stores[part] = tokenise(split, tokenizer, folder, guides=guides, num_proc=num_proc, fingerprint=mark)
            places[part] = next(p.name for p in folder.glob("tokenised-*") if p.name not in places.values())
    if "train" not in stores:
        raise ValueError(f"source '{name}': no document is left to train on ({len(dataset)} read)")
    report = {
        "name": name,
        "fingerprint": key,
        "documents": len(stores["train"]),
        "tokens": stores["train"].num_tokens,
        "held_out_documents": len(stores["validation"]) if "validation" in stores else 0,
        "repeated_documents": repeated,
        "bad_rows": reading.bad,
        "stores": places,
    }
    write_whole(manifest, json.dumps(report, indent=2).encode())
    logger.info("source %s: %d documents, %d tokens", name, report["documents"], report["tokens"])
    return Corpus(stores["train"], stores.get("validation"), report)
