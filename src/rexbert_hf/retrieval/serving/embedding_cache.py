"""Vectors of texts that were encoded before, on disk: a catalogue of which 1 % has changed encodes 1 %.

An entry belongs to a model's fingerprint, to its precision where it is an export or runs in bfloat16, and to the text
(its role included): a changed model or text is never served an old vector, nor a model in float32 that of its int8
form. Each batch of new
texts becomes one more safetensors file, written aside and renamed: several processes may share a cache, and one that is
killed leaves nothing behind that could be read. Files are open while they are read only: there may be more of them than
a process may have open at a time. In memory are the keys and where their vectors lie, see `key_table.py`.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rexbert_hf.hub.left_over import remove_left, staged_name
from rexbert_hf.retrieval.serving.encoding import Bfloat16, runs_bfloat16, takes_flat_batches
from rexbert_hf.retrieval.serving.key_table import KEY_BYTES, KeyTable, Place
from rexbert_hf.retrieval.serving.query_model import encode, fingerprint
from rexbert_hf.retrieval.serving.vector_store import read_segment

logger = logging.getLogger(__name__)

_STAGED = ".vectors-"
_OUT_OF = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Errors that say nothing about a file: the process, or the machine, has no more of something."""


class EmbeddingCache:
    """Vectors of one model, by text. Threads may share one, as far as they may share the model.

    Args:
        folder: where caches are kept; each model has a folder of its own inside.
        model: anything with `encode`.
        batch_size: of the model's `encode`.
        bf16: as for `encode`; decided here, for all texts.

    Attributes:
        encoded: texts that had to be encoded so far.
        served: texts that were found.

    Example:
        >>> import tempfile
        >>> class Letters:
        ...     fingerprint = "letters"
        ...     def encode(self, texts):
        ...         return np.array([[text.count("a"), len(text)] for text in texts])
        >>> cache = EmbeddingCache(tempfile.mkdtemp(), Letters())
        >>> cache.encode(["aa", "b"]).tolist(), cache.encode(["b", "c"]).tolist(), cache.encoded
        ([[2.0, 2.0], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]], 3)
    """

    def __init__(self, folder: str | Path, model: Any, batch_size: int = 32, bf16: Bfloat16 = False) -> None:
        self.model, self.batch_size = model, batch_size
        self.bf16 = takes_flat_batches(model) and runs_bfloat16(model, bf16)
        precision = "bfloat16" if self.bf16 else getattr(model, "precision", None)
        own = f"-{precision}" if isinstance(precision, str) else ""
        self.folder = Path(folder) / f"{fingerprint(model)[:32]}{own}"
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_left(self.folder, _STAGED)
        self.encoded = self.served = 0
        self._shards: list[str] = []
        self._known = KeyTable()
        self._read: set[str] = set()
        self._counting = threading.Lock()  # files are numbered, and texts counted, by one thread at a time
        self._look()

    def encode(self, texts: Sequence[str], role: str = "document") -> np.ndarray:
        """Vectors of texts, float32 `[N, D]`; only those not seen before are encoded, each once.

        What is not finite is given back and not kept: whoever asked knows what the text belongs to.

        Args:
            texts: at least one.
            role: "document" or "query".
        """
        keys = [_key(text, role) for text in texts]
        places = self._known.find(keys)
        if None in places and self._look():  # another process may have written them
            places = self._known.find(keys)
        found = self._stored(keys, places)
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}
        if missing:
            vectors = encode(self.model, list(missing.values()), role, self.batch_size, self.bf16)
            found |= dict(zip(missing, vectors, strict=True))
            whole = np.isfinite(vectors).all(axis=1)
            if whole.any():
                self._write([key for key, kept in zip(missing, whole, strict=True) if kept], vectors[whole])
        with self._counting:
            self.encoded += len(missing)
            self.served += len(keys) - len(missing)
        return np.stack([found[key] for key in keys])

    def _stored(self, keys: Sequence[bytes], places: Sequence[Place | None]) -> dict[bytes, np.ndarray]:
        """Vectors of those keys that are known; what a file lost since it was read is forgotten."""
        wanted: dict[int, dict[bytes, int]] = {}
        for key, place in zip(keys, places, strict=True):
            if place is not None:
                shard, row = place
                wanted.setdefault(shard, {})[key] = row
        found: dict[bytes, np.ndarray] = {}
        for shard, rows in wanted.items():
            content = self._read_file(self.folder / self._shards[shard])
            if content is not None and len(content[1]) > max(rows.values()):
                found |= zip(rows, content[1][list(rows.values())], strict=True)
                continue
            self._known.forget(list(rows))
        return found

    def _write(self, keys: list[bytes], vectors: np.ndarray) -> None:
        name = f"vectors-{uuid.uuid4().hex}.safetensors"
        staged = self.folder / staged_name(_STAGED)
        table = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, KEY_BYTES)
        try:
            save_file({"keys": table, "vectors": np.ascontiguousarray(vectors)}, staged)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            staged.replace(self.folder / name)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        with self._counting:
            self._add(name)

    def _look(self) -> bool:
        """Read files that are new in the folder; whether there was one."""
        with self._counting:
            new = [path.name for path in self.folder.glob("vectors-*.safetensors") if path.name not in self._read]
            for name in sorted(new):
                self._add(name)
        return bool(new)

    def _add(self, name: str) -> None:
        if name in self._read:  # by another thread, that looked while it was written
            return
        content = self._read_file(self.folder / name, check=True)
        self._read.add(name)
        if content is None:
            return
        shard = len(self._shards)
        self._shards.append(name)
        self._known.add(content[0].view(f"V{KEY_BYTES}").ravel().tolist(), shard)

    def _read_file(self, path: Path, check: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
        """Keys and vectors of a file, mapped for as long as they are used; None if it is gone or damaged.

        Raises:
            OSError: if the process may open no more files, or finds no memory: the file may be whole.
        """
        try:
            vectors = read_segment(path, in_order=True).data
            keys = _keys_of(path)
            if keys.shape != (len(vectors), KEY_BYTES) or (check and not np.isfinite(vectors).all()):
                raise ValueError("keys and vectors do not fit")
        except (ValueError, KeyError, TypeError, OSError) as error:
            if isinstance(error, OSError) and error.errno in _OUT_OF:
                reason = f"{path} cannot be read now ({error.strerror}): close what else is open, or raise `ulimit -n`"
                raise OSError(error.errno, reason) from None
            logger.warning("%s is left out of the cache, its texts are encoded again (%s)", path, error)
            return None
        return keys, vectors


def _keys_of(path: Path) -> np.ndarray:
    """The tensor `keys`; safetensors' own reader calls a file missing where no more can be opened."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(length))["keys"]["data_offsets"]
        file.seek(8 + length + begin)
        return np.frombuffer(file.read(end - begin), np.uint8).reshape(-1, KEY_BYTES)


def _key(text: str, role: str) -> bytes:
    data = f"{role}\0{text}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()
