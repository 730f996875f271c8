"""The teacher's scores, computed once: its vectors of all queries and products on disk, whose products are the scores.

A score is the inner product of two normalised vectors, so vectors are the smaller cache: a million products with
256 numbers each, not a number for every pair, and any pair of a batch has its score. The key is made of the teacher's
weights and of the texts: another teacher or another text can never meet old scores.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rexbert_hf.hub.left_over import remove_left_over
from rexbert_hf.retrieval.training.exact_search import encode_to
from rexbert_hf.training import checkpoint as ckpt

logger = logging.getLogger(__name__)


class TeacherScores:
    """Scores of a teacher for pairs of query and product numbers.

    Args:
        queries: normalised vectors, `[Q, D]`.
        products: likewise, `[P, D]`.

    Example:
        >>> scores = TeacherScores(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
        >>> scores.matrix(torch.tensor([0, 1]), torch.tensor([1])).tolist()
        [[0.0], [1.0]]
    """

    def __init__(self, queries: np.ndarray, products: np.ndarray) -> None:
        self.queries, self.products = queries, products

    def matrix(self, queries: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
        """The score of every query with every product, float32 `[B, C]`.

        Args:
            queries: numbers, `[B]`.
            products: numbers, `[C]`.
        """
        left = torch.from_numpy(np.asarray(self.queries[queries.cpu().numpy()], dtype=np.float32))
        right = torch.from_numpy(np.asarray(self.products[products.cpu().numpy()], dtype=np.float32))
        return left @ right.T


def teacher_scores(
    load: Callable[[], Any],
    fingerprint: str,
    queries: Sequence[str],
    products: Sequence[str],
    cache_dir: Path,
    batch_size: int = 64,
) -> TeacherScores:
    """Read the scores from the cache, or ask the teacher and keep them.

    Always in float32: the teacher's test figures come from these vectors too, it is asked only once, and a second pass
    over the catalogue for the test would cost more than bfloat16 saves.

    Args:
        load: gives the teacher; not called when the scores are there.
        fingerprint: of the teacher.
        queries: texts.
        products: texts.
        cache_dir: where `teacher-KEY` folders are kept.
        batch_size: texts of one forward pass.
    """
    # The last entry says float32, as in the keys of older caches.
    digest = hashlib.sha256(json.dumps([fingerprint, list(queries), list(products), False]).encode())
    folder = cache_dir / f"teacher-{digest.hexdigest()[:16]}"
    prefix = f"{ckpt.STAGING}teacher-{socket.gethostname()}-"  # without the key: a killed run's may have been another
    remove_left_over(cache_dir, prefix)
    if folder.is_dir():
        try:
            found = _read(folder, queries, products)
            logger.info("teacher scores from %s", folder)
            return found
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s is damaged (%s): the teacher is asked again", folder, str(error).partition("\n")[0])
            shutil.rmtree(folder)
    _ask(load, queries, products, batch_size, cache_dir / f"{prefix}{os.getpid()}", folder)
    return _read(folder, queries, products)


def _read(folder: Path, queries: Sequence[str], products: Sequence[str]) -> TeacherScores:
    """Vectors that were kept; a cut file is an error."""
    vectors = []
    for name, texts in (("queries", queries), ("products", products)):
        vectors.append(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
        if len(vectors[-1]) != len(texts):
            raise ValueError(f"{name}.npy has {len(vectors[-1])} rows, {len(texts)} are due")
    return TeacherScores(*vectors)


def _ask(
    load: Callable[[], Any],
    queries: Sequence[str],
    products: Sequence[str],
    batch_size: int,
    staged: Path,
    folder: Path,
) -> None:
    """Write the teacher's vectors into a folder of this process, and give it its name when all are there."""
    teacher = load()
    teacher.eval()
    staged.mkdir(parents=True)
    try:
        encode_to(staged / "queries.npy", teacher, queries, "query", batch_size)
        encode_to(staged / "products.npy", teacher, products, "document", batch_size)
        try:
            staged.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another run with this cache was faster, with the same scores
                raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    logger.info("teacher scored %d queries and %d products", len(queries), len(products))
