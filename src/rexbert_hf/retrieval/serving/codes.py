"""What is searched first: a HNSW graph over float32, inverted lists of 8- or 4-bit codes, binary codes.

A search gives candidate rows; their scores are computed from the stored vectors afterwards, so codes decide what is
found and never what a score is. Graph and lists are FAISS's, in its own file format: `IndexHNSWFlat`; for 4 bits
`IndexIVFPQFastScan`, which compares 32 rows at once; for 8 bits the same, and `IndexRefine` over it, which sorts its
candidates by 8-bit codes. Codes lie in lists and not in a graph: links would cost as much memory as the codes
themselves, every step of a walk is a cache miss, and coarse codes tear a graph apart where products are nearly equal.
Binary codes are one bit a dimension, above or below the mean, scanned by Hamming distance (numpy where FAISS is not
installed).
"""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rexbert_hf.retrieval.serving.faiss_file import check_faiss_file
from rexbert_hf.retrieval.serving.vector_store import VectorStore

logger = logging.getLogger(__name__)

TRAINING_ROWS = 65_536
"""Vectors that ranges and means of codes are learnt from."""

ADD_ROWS = 16_384
"""Vectors added at a time."""

FAISS_KINDS = ("hnsw", "int8", "int4")
"""Kinds whose codes are FAISS's."""

_BINARY_BLOCK = 65_536
_ROWS_A_LIST = 16  # of the sample: fewer teach k-means nothing, and more lists are worth more than better ones
_EF_A_LIST = 8
_REFINED = 2.0  # candidates by 4 bits for each that 8 bits choose
_LEAST_FOR_FAST_SCAN = 16  # values of a 4-bit code, each learnt from a row
_SYSTEM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EACCES)
"""Errors that say nothing about what is in a file; FAISS's message ends with their text."""


def load_faiss() -> Any:
    """FAISS, or an error that says how to get it.

    Raises:
        ImportError: if it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise ImportError("this kind of index needs faiss: pip install rexbert-hf[search], or kind='flat'") from None
    return faiss


class FaissCodes:
    """A HNSW graph over the vectors, or inverted lists of their codes.

    Args:
        index: FAISS's.
    """

    file_name = "index.faiss"

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, store: VectorStore, kind: str, links: int, ef_construction: int) -> FaissCodes:
        """Learn ranges from a sample, then add all vectors in batches.

        Args:
            store: the vectors.
            kind: "hnsw" (a graph), "int8" or "int4" (lists).
            links: neighbours that a node of the graph keeps on upper levels; twice as many on the lowest.
            ef_construction: candidates looked at for each new node.
        """
        faiss = load_faiss()
        metric = faiss.METRIC_INNER_PRODUCT
        if kind == "hnsw":
            index = faiss.IndexHNSWFlat(store.dim, links, metric)
            index.hnsw.efConstruction = ef_construction
        else:
            lists = max(1, min(int(4 * len(store) ** 0.5), min(len(store), TRAINING_ROWS) // _ROWS_A_LIST))
            centroids, dim = faiss.IndexFlatIP(store.dim), store.dim
            code = faiss.ScalarQuantizer.QT_4bit if kind == "int4" else faiss.ScalarQuantizer.QT_8bit
            fast = len(store) >= _LEAST_FOR_FAST_SCAN
            if fast:
                index = faiss.IndexIVFPQFastScan(centroids, dim, lists, dim, 4, metric)
                index.pq.cp.min_points_per_centroid = 1  # no warning
            else:
                index = faiss.IndexIVFScalarQuantizer(centroids, dim, lists, code, metric)
            index.cp.spherical = True  # long centroids would draw vectors of any direction
            index.cp.min_points_per_centroid = 1  # no warning
            if fast and kind == "int8":
                index = faiss.IndexRefine(index, faiss.IndexScalarQuantizer(dim, code, metric))
        if not index.is_trained:
            index.train(_sample(store))
        codes = cls(index)
        for _, block in store.blocks(ADD_ROWS):
            codes.add(block)
        return codes

    def add(self, vectors: np.ndarray) -> None:
        """Add rows; their numbers follow those that are there.

        Args:
            vectors: float32 `[N, D]`.
        """
        self.index.add(np.ascontiguousarray(vectors, dtype=np.float32))

    def __len__(self) -> int:
        return int(self.index.ntotal)

    def search(
        self, queries: np.ndarray, n: int, ef: int, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores by the codes and candidate rows, both `[Q, n]`, rows -1 where fewer were found.

        Args:
            queries: float32 `[Q, D]`.
            n: rows wanted.
            ef: candidates kept while walking the graph, at least `n`; a list is looked through for every 8 of them.
            mask: bool `[N]`, rows that may be returned.
        """
        faiss = load_faiss()
        refined = isinstance(self.index, faiss.IndexRefine)
        first = faiss.downcast_index(self.index.base_index) if refined else self.index
        if isinstance(first, faiss.IndexIVF):
            params = faiss.SearchParametersIVF(nprobe=min(first.nlist, max(1, -(-ef // _EF_A_LIST))))
        else:
            params = faiss.SearchParametersHNSW(efSearch=max(ef, n))
        if mask is not None:
            bits = np.packbits(mask, bitorder="little")
            params.sel = faiss.IDSelectorBitmap(bits)
        if refined:
            params = faiss.IndexRefineSearchParameters(k_factor=_REFINED, base_index_params=params)
        scores, rows = self.index.search(np.ascontiguousarray(queries), n, params=params)
        return scores, rows

    def save(self, folder: Path) -> None:
        """Write `index.faiss`.

        Raises:
            OSError: if FAISS cannot write it, for which it has another exception.
        """
        path = folder / self.file_name
        try:
            load_faiss().write_index(self.index, str(path))
        except RuntimeError as error:
            reason = str(error).strip().rpartition(" failed: ")[2]
            raise OSError(f"{path} cannot be written: {reason}") from error

    @classmethod
    def load(cls, folder: Path, dim: int, rows: int) -> FaissCodes:
        """Read `index.faiss`.

        Args:
            folder: of the index.
            dim: width of the vectors that it was built from.
            rows: their number.

        Raises:
            ValueError: if it was not built from them, or FAISS cannot make anything of it.
            OSError: if the system cannot read it now.
            MemoryError: if there is no room for it: its sizes are looked through before.
        """
        faiss, path = load_faiss(), folder / cls.file_name
        check_faiss_file(path, dim, rows)
        try:
            return cls(faiss.read_index(str(path)))
        except MemoryError:
            told = f"{path.stat().st_size:,} bytes"
            raise MemoryError(f"{path}: no memory to read its {told}: close what else needs memory") from None
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1][-160:]
            for code in _SYSTEM:
                if os.strerror(code) in reason:
                    raise OSError(code, os.strerror(code), str(path)) from None
            raise ValueError(f"{path} is damaged ({reason}): build the index again") from None


class BinaryCodes:
    """One bit a dimension: above the mean or not.

    Args:
        mean: float32 `[D]`.
        bits: uint8 `[N, D / 8]`.
    """

    file_name = "codes.safetensors"

    def __init__(self, mean: np.ndarray, bits: np.ndarray) -> None:
        self.mean, self.bits = mean, bits

    @classmethod
    def build(cls, store: VectorStore) -> BinaryCodes:
        """Learn the mean from a sample, then code all vectors in batches.

        Args:
            store: the vectors.
        """
        mean = _sample(store).mean(axis=0) if len(store) else np.zeros(store.dim, np.float32)
        codes = cls(mean.astype(np.float32), np.zeros((0, -(-store.dim // 8)), np.uint8))
        codes.bits = np.concatenate([codes.bits, *(codes.encode(block) for _, block in store.blocks(ADD_ROWS))])
        return codes

    def encode(self, vectors: np.ndarray) -> np.ndarray:
        """Bits of vectors, uint8 `[N, D / 8]`.

        Args:
            vectors: float32 `[N, D]`.
        """
        return np.packbits(vectors > self.mean, axis=1)

    def add(self, vectors: np.ndarray) -> None:
        """Add rows; their numbers follow those that are there.

        Args:
            vectors: float32 `[N, D]`.
        """
        self.bits = np.concatenate([self.bits, self.encode(vectors)])

    def __len__(self) -> int:
        return len(self.bits)

    def search(
        self, queries: np.ndarray, n: int, ef: int, mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Equal bits and candidate rows, both `[Q, n]`, rows -1 where fewer pass.

        Args:
            queries: float32 `[Q, D]`.
            n: rows wanted.
            ef: not used, all rows are looked at.
            mask: bool `[N]`, rows that may be returned.
        """
        rows = None if mask is None else np.flatnonzero(mask)
        bits = self.bits if rows is None else self.bits[rows]
        found = np.full((len(queries), n), -1, dtype=np.int64)
        equal = np.full((len(queries), n), -np.inf, dtype=np.float32)
        kept = min(n, len(bits))
        if kept:
            distance, nearest = _hamming(self.encode(queries), bits, kept)
            found[:, :kept] = nearest if rows is None else rows[nearest]
            equal[:, :kept] = len(self.mean) - distance
        return equal, found

    def save(self, folder: Path) -> None:
        """Write `codes.safetensors`."""
        save_file({"mean": self.mean, "bits": np.ascontiguousarray(self.bits)}, folder / self.file_name)

    @classmethod
    def load(cls, folder: Path, dim: int, rows: int) -> BinaryCodes:
        """Read `codes.safetensors`.

        Args:
            folder: of the index.
            dim: width of the vectors that it was built from.
            rows: their number.

        Raises:
            ValueError: if it is damaged, or was not built from them.
            OSError: if the system cannot read it now.
        """
        path = folder / cls.file_name
        try:
            with safe_open(path, framework="numpy") as file:
                mean, bits = file.get_tensor("mean"), file.get_tensor("bits")
        except FileNotFoundError:  # safetensors says so of any file that it cannot open
            with path.open("rb"):
                raise OSError(f"{path} is there and cannot be opened: try again, or raise `ulimit -n`") from None
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged ({error}): build the index again") from None
        found = [(mean.dtype, mean.shape), (bits.dtype, bits.shape)]
        if found != [(np.float32, (dim,)), (np.uint8, (rows, -(-dim // 8)))]:
            raise ValueError(f"{path} holds no codes of {rows:,} vectors of {dim} dimensions: build the index again")
        return cls(mean, bits)


def _hamming(queries: np.ndarray, bits: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows of the n nearest codes, `[Q, n]`."""
    try:
        import faiss
    except ImportError:
        return _hamming_numpy(queries, bits, n)
    distance, rows = faiss.knn_hamming(queries, np.ascontiguousarray(bits), n)
    return distance, rows


def _hamming_numpy(queries: np.ndarray, bits: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    distances, rows = np.empty((len(queries), n), np.int32), np.empty((len(queries), n), np.int64)
    for i, query in enumerate(queries):
        starts = range(0, len(bits), _BINARY_BLOCK)
        blocks = (np.bitwise_count(bits[s : s + _BINARY_BLOCK] ^ query).sum(1, dtype=np.int32) for s in starts)
        distance = np.concatenate(list(blocks))
        rows[i] = np.argsort(distance, kind="stable")[:n]
        distances[i] = distance[rows[i]]
    return distances, rows


def _sample(store: VectorStore) -> np.ndarray:
    if len(store) <= TRAINING_ROWS:
        return np.concatenate([block for _, block in store.blocks(ADD_ROWS)])
    rows = np.random.default_rng(0).choice(len(store), TRAINING_ROWS, replace=False)
    return store.take(np.sort(rows))


Codes = FaissCodes | BinaryCodes


def build_codes(store: VectorStore, kind: str, links: int, ef_construction: int) -> Codes | None:
    """The codes of an index's kind; None for "flat", which has none.

    Args:
        store: the vectors.
        kind: "flat", "hnsw", "int8", "int4" or "binary".
        links: see `FaissCodes.build`.
        ef_construction: likewise.
    """
    if kind == "flat" or not len(store):
        return None
    return BinaryCodes.build(store) if kind == "binary" else FaissCodes.build(store, kind, links, ef_construction)


def load_codes(folder: Path, kind: str, store: VectorStore) -> Codes | None:
    """Read the codes that a folder holds.

    Args:
        folder: of the index.
        kind: of the index.
        store: the vectors that they stand for.

    Raises:
        ValueError: if they are damaged, or those of other vectors.
    """
    codes: type[FaissCodes] | type[BinaryCodes] = BinaryCodes if kind == "binary" else FaissCodes
    if kind == "flat" or not (folder / codes.file_name).is_file():
        return None
    return codes.load(folder, store.dim, len(store))
