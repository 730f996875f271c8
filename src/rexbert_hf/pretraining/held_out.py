"""Held-out documents of one source that the training documents of another nearly repeat: left out of the evaluation.

Equal texts are on the same side in every source, by their hash, but for pairs, which go by their query, for evaluated
sources that join documents, and for the validation part of a curated corpus: there this comparison alone helps. It
finds no document within a longer one, and looks through `MOST_CHARS` of each source. Near copies are looked for in what
the tokens say, so no source is read again; the result lies in the cache under a name made of all corpora that were
compared, and what is prepared of a source stays the same whatever stands beside it.

One decision worth knowing: the keys of all training documents lie in the cache too, 80 bytes each, by source. Where a
source is added or another share held out, only documents that share a key with a held-out one are read again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from rexbert_hf.corpus.leaks import MOST_CHARS, copies_among, signatures_of
from rexbert_hf.corpus.near_duplicates import Signatures, joined_signatures
from rexbert_hf.data import TokenisedDataset
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.pretraining.sources import room, working_folder

logger = logging.getLogger(__name__)

_FOUND = "held_out.json"
"""How many documents each corpus lost; beside the stores of those that lost some."""
_ROWS = 1_000
_ROWS_OF_KEYS = 1 << 20
_PROBE = "a steel kettle with a handle of wood that holds two litres"
"""Its keys tell by which rule keys were made."""


def without_copies(
    training: Mapping[str, TokenisedDataset],
    held_out: Mapping[str, TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
    cache_dir: Path,
) -> dict[str, tuple[TokenisedDataset | None, int]]:
    """Leave out held-out documents that nearly repeat a training document of another corpus.

    Args:
        training: what is trained on, by corpus, from folders.
        held_out: what is not, free of near copies of its own corpus, from folders.
        tokenizer: of both.
        cache_dir: where the result is kept.

    Returns:
        Of each corpus that lost some: what is left (None for nothing) and how many it lost.

    Raises:
        OSError: if there is no room for what is left.
    """
    if not held_out or len(training.keys() | held_out.keys()) < 2:
        return {}
    contents = [{name: _content(store, cache_dir) for name, store in stores.items()} for stores in (training, held_out)]
    key = hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_dir / f"held-out-{key}"
    found = _read(folder)
    if found is None:
        with room("no room for the held-out documents", cache_dir), working_folder(cache_dir) as work:
            compared = {name: store for name, store in training.items() if held_out.keys() - {name}}
            keys = {name: _keys_of(name, store, tokenizer, cache_dir, work) for name, store in compared.items()}
            _write(work / "held-out", compared, keys, held_out, tokenizer)
            try:
                (work / "held-out").rename(folder)
            except OSError:  # another run was faster
                if _read(folder) is None:
                    raise
        found = _read(folder) or {}
    for name, (store, _) in found.items():
        if store is not None:
            kept = ("language", "source")
            store.metadata |= {key: held_out[name].metadata[key] for key in kept if key in held_out[name].metadata}
    return found


def _content(store: TokenisedDataset, cache_dir: Path) -> list[Any]:
    """What names the rows of a store of the cache, wherever the cache lies: its place in it, sizes and checksums."""
    assert store.path is not None
    whole = cache_dir.resolve()
    place = store.path.relative_to(whole) if store.path.is_relative_to(whole) else store.path
    return [str(place), store.metadata.get("files")]


def _read(folder: Path) -> dict[str, tuple[TokenisedDataset | None, int]] | None:
    """What an earlier call found; None if there is nothing, and a folder that cannot be used is removed."""
    if not folder.exists():
        return None
    try:
        lost: dict[str, dict[str, Any]] = json.loads((folder / _FOUND).read_text(encoding="utf-8"))
        return {
            name: (TokenisedDataset.load(folder / name) if of["left"] else None, int(of["lost"]))
            for name, of in lost.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        logger.warning("%s cannot be used (%s): comparing held-out documents again", folder, error)
        shutil.rmtree(folder)
        return None


def _write(
    folder: Path,
    training: Mapping[str, TokenisedDataset],
    keys: Mapping[str, np.ndarray],
    held_out: Mapping[str, TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    lost: dict[str, dict[str, int]] = {}
    folder.mkdir()
    for name, copied in _copies(training, keys, held_out, tokenizer).items():
        if copied.any():
            lost[name] = {"lost": int(copied.sum()), "left": int((~copied).sum())}
            if lost[name]["left"]:
                held_out[name].where(~copied).save(folder / name)
    write_whole(folder / _FOUND, json.dumps(lost, indent=2).encode())


def _copies(
    training: Mapping[str, TokenisedDataset],
    keys: Mapping[str, np.ndarray],
    held_out: Mapping[str, TokenisedDataset],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, np.ndarray]:
    """Which held-out documents of each corpus are near copies, bool `[H]`."""
    signed = {name: signatures_of(_texts(store, tokenizer)) for name, store in held_out.items()}
    copied = {name: np.zeros(len(store), dtype=bool) for name, store in held_out.items()}
    for source, store in training.items():
        others = [name for name in signed if name != source]
        logger.info("comparing what %s holds out with what %s trains on", ", ".join(others), source)
        wanted = joined_signatures([signed[name] for name in others])
        found = copies_among(wanted, _texts(store, tokenizer, _sharing(keys[source], wanted)))
        start = 0
        for name in others:
            copied[name] |= found[start : start + len(copied[name])]
            start += len(copied[name])
    return copied


def _keys_of(
    name: str, store: TokenisedDataset, tokenizer: PreTrainedTokenizerBase, cache_dir: Path, work: Path
) -> np.ndarray:
    """The lower halves of the keys of a store's documents, uint32 `[N, bands]`, mapped; made once, first in `work`."""
    probe = signatures_of([[_PROBE]]).keys
    parts = [_content(store, cache_dir), MOST_CHARS, probe.tolist()]
    path = cache_dir / f"keys-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]}.npy"
    if path.exists():
        try:
            found: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
            return found
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s cannot be used (%s): made again", path, error)
    logger.info("signing what %s trains on, to compare it with what others hold out", name)
    _write_keys(work / name, store, tokenizer, len(probe))
    (work / name).replace(path)
    found = np.load(path, mmap_mode="r", allow_pickle=False)
    return found


def _write_keys(path: Path, store: TokenisedDataset, tokenizer: PreTrainedTokenizerBase, bands: int) -> None:
    """Sign a store's documents; those beyond `MOST_CHARS` have zeros, which are no text's keys."""
    left, shape = MOST_CHARS, (len(store), bands)
    with path.open("wb") as file:  # no mapped writing: a full disk would end the process
        np.lib.format.write_array_header_1_0(file, {"descr": "<u4", "fortran_order": False, "shape": shape})
        start = file.tell()
        for texts in _texts(store, tokenizer):
            file.write(signatures_of([texts]).keys.T.astype("<u4").tobytes())
            left -= sum(map(len, texts))
            if left <= 0:
                break
        file.truncate(start + 4 * len(store) * bands)


def _sharing(keys: np.ndarray, signed: Signatures) -> np.ndarray:
    """Rows of keys of which one is that of a signed text, int64; by chance one in thousands more."""
    wanted, found = signed.keys.astype(np.uint32), [np.zeros(0, dtype=np.int64)]
    for start in range(0, len(keys), _ROWS_OF_KEYS):
        block = np.asarray(keys[start : start + _ROWS_OF_KEYS])
        shared = np.zeros(len(block), dtype=bool)
        for band, known in enumerate(wanted):
            shared |= np.isin(block[:, band], known)
        found.append(start + np.flatnonzero(shared))
    return np.concatenate(found)


def _texts(
    store: TokenisedDataset, tokenizer: PreTrainedTokenizerBase, rows: np.ndarray | None = None
) -> Iterator[list[str]]:
    """Documents of a store, all or some rows, as texts, near enough: on both sides a tokenizer leaves out the same."""
    rows = np.arange(len(store)) if rows is None else rows
    for start in range(0, len(rows), _ROWS):
        batch = store.take(rows[start : start + _ROWS])
        ids = [part.tolist() for part in np.split(batch.input_ids, batch.offsets[1:-1])]
        yield tokenizer.backend_tokenizer.decode_batch(ids, skip_special_tokens=True)
