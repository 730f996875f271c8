"""Tokenise a data set once, into a cached, memory-mapped folder.

Work goes to processes in small pieces and is written by one, in the order of the source, so the result does not depend
on their number. The folder is named after everything that decides its content and appears by a rename: what was killed
half way is never loaded.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from rexbert_hf.data.encode import Guide, TextEncoder
from rexbert_hf.data.manifest import FORMAT_VERSION, MANIFEST, write_manifest
from rexbert_hf.data.span_counts import SpanCounts, span_report
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.hub.left_over import remove_left, remove_left_over, staged_name
from rexbert_hf.settings.worker_pool import in_order

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset
    from transformers import PreTrainedTokenizerBase

    Texts: TypeAlias = Dataset | IterableDataset | Sequence[str]

logger = logging.getLogger(__name__)

VERSION = 2
"""Raise it when the same text would give other rows; it is part of the cache key."""
_TASK_CHARS = 4_000_000
_BATCH_TOKENS = 1 << 22
_SHARD_TOKENS = 1 << 28
_DAMAGED = ".damaged-"


class NoTextLeftError(ValueError):
    """There is no text, or all of it was skipped."""


def tokenise(
    texts: Texts,
    tokenizer: PreTrainedTokenizerBase,
    output_dir: str | Path | None = None,
    *,
    text_column: str = "text",
    guides: Sequence[Guide] = (),
    num_proc: int = 1,
    batch_size: int = 1000,
    min_tokens: int = 3,
    fingerprint: str | None = None,
    encoder: TextEncoder | None = None,
) -> TokenisedDataset:
    """Turn texts into a `TokenisedDataset`: documents whole, with word ids and guide spans.

    Empty, non-text and too short rows are skipped, counted in `metadata["skipped"]` and logged. `metadata["spans"]`
    counts spans and rows by kind, rows without a phrase, and spans left out because they cover no token or only
    unknown ones. With `output_dir` the result is kept in a folder below it, named by a hash of source, tokenizer,
    guides and version; a second call with the same opens it at once. Without `output_dir` it stays in memory.

    One process uses the tokenizer's own threads; with several, each runs on one thread (both at once would fight).

    Args:
        texts: a data set with a text column, or texts.
        tokenizer: any fast tokenizer.
        output_dir: where tokenised folders are kept.
        text_column: the column to read.
        guides: callables `guide(texts) -> spans a text`, each span (start_char, end_char, score, kind). A guide with a
            `fingerprint` is known by it in the cache key.
        num_proc: processes.
        batch_size: texts of one call of the tokenizer.
        min_tokens: skip documents with fewer tokens, special tokens included.
        fingerprint: name of the content of `texts`, needed to cache a streaming data set.
        encoder: replaces the one that tokenizer and guides give; a `PairEncoder` reads pairs in place of texts.

    Raises:
        ValueError: if the column is missing, the tokenizer is slow, or a guide has no fingerprint where one is needed.
        NoTextLeftError: if no text is left; it is a `ValueError` too.
        OSError: if a process was killed, or there is no room.

    Example:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> backend = Tokenizer(models.WordLevel({"a": 0, "red": 1, "lamp": 2, "[UNK]": 3}, unk_token="[UNK]"))
        >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
        >>> store = tokenise(["a red lamp", "", "red lamp red"], tokenizer)
        >>> [row["input_ids"].tolist() for row in store.take([0, 1])], store.metadata["skipped"]
        ([[0, 1, 2], [1, 2, 1]], {'empty': 1})
    """
    from datasets import Dataset, IterableDataset

    if num_proc < 1 or batch_size < 1:
        raise ValueError(f"num_proc and batch_size must be at least 1; got {num_proc} and {batch_size}")
    encoder = encoder or TextEncoder.from_tokenizer(tokenizer, guides, min_tokens)
    if isinstance(texts, Dataset | IterableDataset) and text_column not in (texts.column_names or [text_column]):
        raise ValueError(f"no column '{text_column}' among {texts.column_names}: set text_column")
    if not isinstance(texts, Dataset | IterableDataset | Sequence):
        texts = list(texts)
    results = in_order(encoder.encode, _tasks(_batches(texts, text_column, batch_size)), num_proc, _one_thread)
    if output_dir is None:
        return _in_memory(results, encoder)
    key = _cache_key(texts, text_column, encoder, fingerprint)
    target = Path(output_dir) / f"tokenised-{key}"
    store = _kept(target)
    if store is None:
        _write(results, encoder, target)
        store = TokenisedDataset.load(target)
    logger.info("%s: %d documents, %d tokens", target, len(store), store.num_tokens)
    return store


def _batches(texts: Texts, column: str, batch_size: int) -> Iterator[list[Any]]:
    """Texts in lists of `batch_size`."""
    from datasets import Dataset, IterableDataset

    if isinstance(texts, Dataset):
        only = texts.select_columns([column]).with_format(None)
        for first in range(0, len(only), batch_size):
            yield list(only[first : first + batch_size][column])
    elif isinstance(texts, IterableDataset):
        for batch in texts.iter(batch_size):
            if column not in batch:
                raise ValueError(f"no column '{column}' among {sorted(batch)}: set text_column")
            yield list(batch[column])
    else:
        for first in range(0, len(texts), batch_size):
            yield list(texts[first : first + batch_size])


def _tasks(batches: Iterable[list[Any]]) -> Iterator[list[Any]]:
    """Cut batches further where texts are very long: an encoding takes some hundred bytes a token."""
    for batch in batches:
        task: list[Any] = []
        chars = 0
        for text in batch:
            size = len(text) if isinstance(text, str) else 0
            if task and chars + size > _TASK_CHARS:
                yield task
                task, chars = [], 0
            task.append(text)
            chars += size
        if task:
            yield task


Result: TypeAlias = tuple[pa.RecordBatch, "Counter[str]", SpanCounts]


def _one_thread() -> None:
    # A forked child must not touch the parent's thread pool, and processes already use the cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _gather(results: Iterable[Result], skipped: Counter[str], spans: SpanCounts) -> Iterator[pa.RecordBatch]:
    """Results joined to larger record batches, because each costs at opening; adds up `skipped` and `spans`."""
    held: list[pa.RecordBatch] = []
    tokens = 0
    for batch, reasons, marked in results:
        skipped.update(reasons)
        spans.update(marked)
        size = len(batch.column(0).values)
        if held and tokens + size > _BATCH_TOKENS:
            yield pa.concat_batches(held)
            held, tokens = [], 0
        if len(batch):
            held.append(batch)
            tokens += size
    if held:
        yield pa.concat_batches(held)


def _check_and_report(rows: int, skipped: Counter[str], spans: SpanCounts) -> None:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skipped.items()))
    if not rows:
        due = ": give texts, or a data set with a column of them" if set(skipped) == {"not text"} else ""
        raise NoTextLeftError(f"no text left to tokenise (skipped: {reasons or 'none, the source is empty'}){due}")
    if skipped:
        logger.warning("skipped %d of %d texts: %s", skipped.total(), rows + skipped.total(), reasons)
    if unknown := spans["left out", "unknown tokens"]:
        logger.warning("left out %d spans of unknown tokens alone: the tokenizer cannot represent them", unknown)
    if spans["spans", "phrase"] + spans["spans", "noun_phrase"]:
        logger.info("%d of %d texts hold no phrase", spans["rows", "without_phrase"], rows)


def _fields(encoder: TextEncoder, rows: int, tokens: int, skipped: Counter[str], spans: SpanCounts) -> dict[str, Any]:
    return {
        "num_rows": rows,
        "num_tokens": tokens,
        "num_prefix": encoder.num_prefix,
        "num_suffix": encoder.num_suffix,
        "tokenizer": encoder.tokenizer_fingerprint,
        "vocab_size": encoder.backend.get_vocab_size(),
        "skipped": dict(skipped),
        "spans": span_report(spans),
    }


def _in_memory(results: Iterable[Result], encoder: TextEncoder) -> TokenisedDataset:
    skipped: Counter[str] = Counter()
    spans: SpanCounts = Counter()
    table = pa.Table.from_batches(_gather(results, skipped, spans), schema=encoder.schema())
    _check_and_report(len(table), skipped, spans)
    tokens = sum(len(chunk.values) for chunk in table.column("input_ids").chunks)
    fields = _fields(encoder, len(table), tokens, skipped, spans)
    return TokenisedDataset(table, encoder.num_prefix, encoder.num_suffix, metadata=fields)


def _cache_key(texts: Texts, column: str, encoder: TextEncoder, fingerprint: str | None) -> str:
    from datasets import Dataset, IterableDataset

    if fingerprint is None and isinstance(texts, Dataset):
        fingerprint = texts._fingerprint
    elif fingerprint is None and isinstance(texts, IterableDataset):
        raise ValueError("a streaming data set has no fingerprint of its own: pass fingerprint= to cache its tokens")
    digest = hashlib.sha256(repr((FORMAT_VERSION, VERSION, column, encoder.min_tokens)).encode())
    if fingerprint is not None:
        digest.update(b"source " + fingerprint.encode())
    else:
        for text in texts:
            digest.update(hashlib.sha256(repr(text).encode("utf-8", "replace")).digest())
    digest.update(repr((encoder.tokenizer_fingerprint, encoder.special_ids, encoder.unknown_id)).encode())
    digest.update(encoder.options.encode())
    for guide in encoder.guides:
        mark = getattr(guide, "fingerprint", None)
        if mark is None:
            name = getattr(guide, "__name__", type(guide).__name__)
            raise ValueError(f"guide {name} has no 'fingerprint': give it one, or tokenise without output_dir")
        digest.update(f"guide {mark}".encode())
    return digest.hexdigest()[:20]


def _kept(target: Path) -> TokenisedDataset | None:
    """What an earlier call wrote; None if there is nothing, or something damaged."""
    if not (target / MANIFEST).exists():
        return None
    try:
        return TokenisedDataset.load(target)
    except (ValueError, FileNotFoundError) as error:
        logger.warning("%s: that is done now", error)
        (target / MANIFEST).unlink()
        return None


def _write(results: Iterator[Result], encoder: TextEncoder, target: Path) -> None:
    """Write the shards next to `target` and rename them into place when all is there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}.{socket.gethostname()}."
    remove_left_over(target.parent, prefix)
    staging = target.parent / f"{prefix}{os.getpid()}"
    staging.mkdir()
    try:
        _write_shards(results, encoder, staging)
        _put_in_place(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _put_in_place(staging: Path, target: Path) -> None:
    """Rename a whole folder into place, where another process may do so, too: the first one stays.

    What lies there without a manifest is damaged, but may have become whole since one looked: so it is moved aside,
    looked at again, and only then removed.
    """
    remove_left(target.parent, _DAMAGED)
    while True:
        try:
            staging.rename(target)
            return
        except OSError as error:
            if (target / MANIFEST).exists():  # another process was faster with the same content
                return
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        aside = target.parent / staged_name(_DAMAGED)
        with suppress(FileNotFoundError):  # another process moves it, too
            target.rename(aside)
        if (aside / MANIFEST).exists():
            with suppress(OSError):  # a third one was faster
                aside.rename(target)
        shutil.rmtree(aside, ignore_errors=True)


def _write_shards(results: Iterator[Result], encoder: TextEncoder, staging: Path) -> None:
    skipped: Counter[str] = Counter()
    spans: SpanCounts = Counter()
    shards: list[str] = []
    rows = tokens = 0
    batches = _gather(results, skipped, spans)
    batch = next(batches, None)
    while batch is not None:
        name = f"data-{len(shards):05d}.arrow"
        in_shard = 0
        with pa.OSFile(str(staging / name), "wb") as sink, pa.ipc.new_stream(sink, encoder.schema()) as writer:
            while batch is not None and in_shard < _SHARD_TOKENS:
                writer.write_batch(batch)
                in_shard += len(batch.column(0).values)
                rows += len(batch)
                batch = next(batches, None)
        shards.append(name)
        tokens += in_shard
    _check_and_report(rows, skipped, spans)
    write_manifest(staging, shards, **_fields(encoder, rows, tokens, skipped, spans))
