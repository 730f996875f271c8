"""From a recipe's sources to tokenised stores: read, deduplicate, hold out, tokenise; each source once.

What is held out is the same share of every source, by the hash of the text: one without evaluation drops it, since
another source may be measured on the same texts, and drops it before it joins documents too. Pairs go by their query,
and one that is evaluated by the joined document.

The result of a source lies in a folder named by everything that decides it, and is found again in milliseconds: a
resumed run reads no text. The manifest is written last, so what a killed run left is never taken for a result. A source
in several languages becomes a corpus for each, called SOURCE.LANGUAGE, in a folder of its own below the source's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog import deduplicate, split_dataset, split_queries
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.corpus.leaks import near_copies
from rexbert_hf.data import TokenisedDataset
from rexbert_hf.data.encode_pairs import PairEncoder
from rexbert_hf.data.tokenise import NoTextLeftError, tokenise
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.phrases import Guide
from rexbert_hf.pretraining.associations import check_product_rows, has_products, save_product_rows
from rexbert_hf.pretraining.baselines import batches_of
from rexbert_hf.pretraining.curated import with_held_out
from rexbert_hf.pretraining.guides import make_guides
from rexbert_hf.pretraining.held_out import without_copies
from rexbert_hf.pretraining.languages import split_languages
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.pretraining.source_settings import DETECT, SourceSettings
from rexbert_hf.pretraining.sources import PRODUCT_ID, pinned, read_source, room, source_key, working_folder
from rexbert_hf.pretraining.started import description_in

logger = logging.getLogger(__name__)

PRODUCT_ROWS = "product_rows"
"""Key of a report: what tells the file of a source's products."""
_PART = "part.json"
"""Report of one language, in its folder."""
_HELD_OUT_RULE = "no near copy of a training document"
_JOINED_RULE = "no held-out document within a joined one"
"""Parts of what names a prepared source."""
_NONE_LEFT = "all documents are held out: lower evaluation.held_out"
_NONE_LEFT_WITHOUT_EVALUATION = (
    "all its documents are on the side that is held out of every source, of one with 'evaluate: false' too, since"
    " another may be measured on them: lower evaluation.held_out, or give it more documents"
)


class NothingToTrainOnError(ValueError):
    """A source, or one language of it, has no document on the training side."""


@dataclass(frozen=True)
class Corpus:
    """One source, or one language of a source, ready to train on.

    Attributes:
        train: documents to train on.
        held_out: documents never trained on; None if there are none.
        report: what was read, dropped and kept; `fingerprint` names the tokens to train on, wherever they came from.
    """

    train: TokenisedDataset
    held_out: TokenisedDataset | None
    report: dict[str, Any]


def prepare(
    settings: PretrainSettings,
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    num_proc: int = 1,
    also_trained: Collection[str] = (),
) -> dict[str, Corpus]:
    """Prepare all sources of a recipe; those in several languages by language, as SOURCE.LANGUAGE.

    Args:
        settings: the recipe.
        tokenizer: of the run.
        cache_dir: where prepared sources are kept.
        num_proc: processes that tokenise.
        also_trained: names of sources that another run may train on: nothing is held out that they nearly repeat.

    Raises:
        FileNotFoundError: if a path does not exist.
        ValueError: if a source, or a language that it names, holds no text.
        OSError: if there is no room for the tokens.
    """
    guides = make_guides(settings.guides, settings.data_dir) if settings.needs_guides else []
    corpora: dict[str, Corpus] = {}
    for name, source in settings.sources.items():
        parts = (tokenizer_key(tokenizer), [guide.fingerprint for guide in guides])
        rules: list[tuple[Any, ...]] = [(settings.held_out, _HELD_OUT_RULE)]
        if not source.evaluate:  # before the rule of today those of earlier versions
            rules.append((0.0, _HELD_OUT_RULE))
            if _drops_within(source) and settings.held_out:
                rules.insert(0, (settings.held_out, _HELD_OUT_RULE, _JOINED_RULE))
        key, *older = (source_key(source, settings.data_dir, *parts, *rule) for rule in rules)
        folder, *earlier = (cache_dir / f"{name}-{of}" for of in (key, *older))
        corpora |= _found(name, folder, earlier, Path(settings.output_dir)) or _prepare(
            name, source, settings.data_dir, settings.held_out, tokenizer, guides, folder, key, num_proc
        )
    return _without_copies_of_others(settings, corpora, tokenizer, cache_dir, also_trained)


def tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """Name of a tokenizer's content."""
    backend = tokenizer.backend_tokenizer
    identity = [backend.to_str(), tokenizer.mask_token_id, sorted(tokenizer.all_special_ids)]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _prepared(name: str, folder: Path) -> dict[str, Corpus]:
    """What an earlier run prepared, nothing if there is none; a folder that cannot be used is removed."""
    manifest = folder / "prepared.json"
    if not manifest.exists():
        return {}
    try:
        report = json.loads(manifest.read_text(encoding="utf-8"))
        if "languages" in report:
            places = {f"{name}.{code}": folder / code for code in report["languages"]}
            return {part: _opened(place, json.loads((place / _PART).read_text())) for part, place in places.items()}
        return {name: _opened(folder, report)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s cannot be used (%s): preparing the source again", folder, error)
        shutil.rmtree(folder)
        return {}


def _found(name: str, folder: Path, earlier: Sequence[Path], output: Path) -> dict[str, Corpus]:
    """What is prepared of a source: as it is read now, but for a run that was started on what an earlier version read.

    Others may have prepared it as it is read now since, in the same cache: only the run's folder tells which it needs.
    """
    found = _prepared(name, folder)
    started = description_in(output) if any((place / "prepared.json").exists() for place in earlier) else None
    if started is None or _trained_on(found, started[1]):
        return found
    for place in earlier:
        before = _prepared(name, place)
        if _trained_on(before, started[1]):
            logger.warning(
                "source '%s': %s was started on it as an earlier version read it, and goes on so: documents that"
                " another source holds out may be among it",
                name,
                output,
            )
            return before
    return found


def _drops_within(source: SourceSettings) -> bool:
    """Whether what is held out of other sources is dropped from within joined documents, since none is evaluated."""
    return source.join_words is not None and not source.evaluate


def _trained_on(corpora: Mapping[str, Corpus], description: Mapping[str, Any]) -> bool:
    """Whether these are what the run of a description is trained on."""
    told = [description.get(f"data.{name}") == of.report["fingerprint"] for name, of in corpora.items()]
    return bool(told) and all(told)


def _without_copies_of_others(
    settings: PretrainSettings,
    corpora: dict[str, Corpus],
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
    also_trained: Collection[str],
) -> dict[str, Corpus]:
    """The corpora, without held-out documents that are near copies of what another one trains on.

    Pairs are split by query: the same products stand on both sides.
    """
    pairs = {name for name, source in settings.sources.items() if source.pairs is not None}
    held = {name: of.held_out for name, of in corpora.items() if of.held_out is not None and name not in pairs}
    trained = _trained(settings, corpora, also_trained)
    training = {name: of.train for name, of in corpora.items() if of.report.get("source", name) in trained}
    found = without_copies(training, held, tokenizer, cache_dir)
    for name, (left, lost) in found.items():
        said = "it is not evaluated" if left is None else f"{len(left)} are left"
        logger.log(
            logging.WARNING if left is None else logging.INFO,
            "source '%s': %d held-out documents are near copies of what other sources train on: %s",
            name,
            lost,
            said,
        )
        report = corpora[name].report
        counts = {
            "held_out_documents": 0 if left is None else len(left),
            "held_out_near_copies": report.get("held_out_near_copies", 0) + lost,
        }
        corpora[name] = dataclasses.replace(corpora[name], held_out=left, report=report | counts)
    return corpora


def _trained(settings: PretrainSettings, corpora: Mapping[str, Corpus], also_trained: Collection[str]) -> set[str]:
    """Names of the sources that are training text: not of those that are only evaluated."""
    trained = {name for phase in settings.phases for name in phase.mixture} | set(also_trained)
    if settings.needs_associations:  # neighbours come from all sources of products, whatever is mixed
        trained |= {of.report.get("source", name) for name, of in corpora.items() if has_products(of.train)}
    if unused := sorted(set(settings.sources) - trained):
        logger.info("no phase trains on %s: evaluated only", ", ".join(unused))
    if settings.model.init_from is not None or settings.model.grow_from is not None:
        return set(settings.sources)  # what the model starts from, as the stage before, may have been trained on any
    return trained


def _opened(folder: Path, report: dict[str, Any]) -> Corpus:
    """The stores of one corpus, which know their language and source."""
    check_product_rows(folder, report.get(PRODUCT_ROWS))
    found = {part: TokenisedDataset.load(folder / place) for part, place in report["stores"].items()}
    for store in found.values():
        store.metadata |= {key: report[key] for key in ("language", "source") if key in report}
    return Corpus(found["train"], found.get("validation"), report)


def _prepare(
    name: str,
    source: SourceSettings,
    data_dir: str | None,
    held_out: float,
    tokenizer: PreTrainedTokenizerBase,
    guides: Sequence[Guide],
    folder: Path,
    key: str,
    num_proc: int,
) -> dict[str, Corpus]:
    reading = ReadReport()
    source, revision = pinned(source, data_dir)

    def write(name: str, dataset: Dataset, folder: Path, work: Path) -> dict[str, Any]:
        """Hold out, tokenise and report one set of documents."""
        unique, repeated = deduplicate(dataset)
        share = 0.0 if _drops_within(source) else held_out
        parts = split_dataset(unique, "text", share) if source.pairs is None else split_queries(unique, share)
        if source.corpus is not None and source.evaluate and not source.splits_languages:
            parts = with_held_out(source, data_dir, work, parts)
        if not source.evaluate:
            parts["validation"] = parts["validation"].select([])
        parts, copies = _without_near_copies(parts) if source.pairs is None else (parts, 0)
        stores = _stores(name, source, parts, tokenizer, folder, guides, num_proc, key)
        if held_out and source.evaluate and "validation" not in stores:
            logger.warning(
                "source '%s': none of its %d documents is held out (evaluation.held_out=%g, near copies of training "
                "documents left out: %d): it is not evaluated",
                name,
                len(unique),
                held_out,
                copies,
            )
        products = {}
        if PRODUCT_ID in dataset.column_names and source.pairs is None:
            products = {PRODUCT_ROWS: save_product_rows(dataset, parts["train"], stores["train"], tokenizer, folder)}
        report = _report(name, stores, bool(guides) or source.pairs is not None)
        return report | {"repeated_documents": repeated, "held_out_near_copies": copies, **revision, **products}

    with room(f"source '{name}': no room for its tokens", folder.parent), working_folder(folder) as work:
        documents = read_source(source, data_dir, reading, work, held_out if _drops_within(source) else 0.0)
        read = {"bad_rows": reading.bad, "empty_rows": reading.empty}
        if not source.splits_languages:
            report = write(name, documents, folder, work) | read
            if source.language is not None:
                report["language"] = source.language
        else:
            languages = split_languages(name, source, documents)
            for code, part in list(languages.items()):
                try:
                    found = write(f"{name}.{code}", part, folder / code, work) | {"language": code, "source": name}
                except NothingToTrainOnError as error:
                    if source.language != DETECT or len(languages) == 1:
                        raise
                    logger.warning("%s: its %d documents are left out", error, len(part))
                    del languages[code]
                    continue
                write_whole(folder / code / _PART, json.dumps(found | read, indent=2).encode())
                read = {"bad_rows": 0, "empty_rows": 0}  # of the whole source: told once
            report = {"name": name, "languages": list(languages)}
        write_whole(folder / "prepared.json", json.dumps(report, indent=2).encode())
    corpora = _prepared(name, folder)
    for part, corpus in corpora.items():
        logger.info("source %s: %d documents, %d tokens", part, corpus.report["documents"], corpus.report["tokens"])
    return corpora


def _without_near_copies(parts: DatasetDict) -> tuple[DatasetDict, int]:
    """Leave out held-out documents that nearly repeat a training document; how many there were."""
    held, training = parts["validation"], parts["train"].select_columns(["text"]).with_format("arrow")
    copies = near_copies(held["text"][:], (batch["text"].to_pylist() for batch in training.iter(batch_size=1_000)))
    if not copies.any():
        return parts, 0
    return DatasetDict({**parts, "validation": held.select(np.flatnonzero(~copies))}), int(copies.sum())


def _report(name: str, stores: Mapping[str, TokenisedDataset], with_spans: bool) -> dict[str, Any]:
    skipped: Counter[str] = Counter()
    for store in stores.values():
        skipped.update(store.metadata.get("skipped", {}))
    return {
        "name": name,
        "fingerprint": content_fingerprint(stores["train"]),
        "documents": len(stores["train"]),
        "tokens": stores["train"].num_tokens,
        "held_out_documents": len(stores["validation"]) if "validation" in stores else 0,
        "skipped_documents": dict(skipped),
        **({"spans": _spans_of(stores)} if with_spans else {}),
        "stores": {part: store.path.name for part, store in stores.items() if store.path is not None},
    }


def _stores(
    name: str,
    source: SourceSettings,
    parts: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    guides: Sequence[Guide],
    num_proc: int,
    key: str,
) -> dict[str, TokenisedDataset]:
    """The tokens of both sides of the split; where nothing is held out, of one."""
    stores = {}
    for part in ("train", "validation"):
        store = _tokenised(name, source, part, parts[part], tokenizer, folder, guides, num_proc, f"{key}-{part}")
        if store is not None:
            stores[part] = store
    return stores


def _spans_of(stores: Mapping[str, TokenisedDataset]) -> dict[str, Any]:
    return {part: store.metadata["spans"] for part, store in stores.items()}


def _tokenised(
    name: str,
    source: SourceSettings,
    part: str,
    texts: Dataset,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    guides: Sequence[Guide],
    num_proc: int,
    fingerprint: str,
) -> TokenisedDataset | None:
    """The tokens of one side of the split; None where nothing is held out."""
    try:
        if not len(texts):
            raise NoTextLeftError(_NONE_LEFT if source.evaluate else _NONE_LEFT_WITHOUT_EVALUATION)
        options: dict[str, Any] = {"num_proc": num_proc, "fingerprint": fingerprint}
        if source.pairs is None:
            return tokenise(texts, tokenizer, folder, guides=guides, **options)
        encoder = PairEncoder.of_pairs(tokenizer, source.pairs.max_query_tokens, source.pairs.max_tokens)
        return tokenise(texts, tokenizer, folder, text_column="pair", encoder=encoder, **options)
    except NoTextLeftError as error:
        if part == "validation":
            return None
        raise NothingToTrainOnError(f"source '{name}': no document to train on: {error}") from error


def content_fingerprint(store: TokenisedDataset) -> str:
    """Name of the tokens, words and spans of a store, in their order.

    A file that was moved or touched keeps it, so its run is still resumed.

    Args:
        store: any store.

    Example:
        >>> one, two = (TokenisedDataset.from_rows([{"input_ids": [1, n, 2]}]) for n in (7, 8))
        >>> content_fingerprint(one) == content_fingerprint(one), content_fingerprint(one) == content_fingerprint(two)
        (True, False)
    """
    digest = hashlib.blake2b(digest_size=8)
    for batch in batches_of(store):
        spans = (batch.span_start, batch.span_end, batch.span_score, batch.span_kind)
        for array in (batch.input_ids, batch.lengths, batch.word_ids, *spans):
            digest.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
