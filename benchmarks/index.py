"""Search in a million vectors, one query at a time, one thread: our indexes beside FAISS's flat float32 index.

Vectors are embeddings of real titles (MiniLM) and copies of them with noise; queries are embeddings of real search
terms. Each kind searches with the smallest `ef_search` of a ladder that gives recall@100 >= .98 beside the flat index.
Memory is what a process gains between its imports and the end of its searches (resident set), in a process of its own.

    python benchmarks/index.py [--quick] [--count 1000000] [--titles N] [--kinds int8 int4] [--work_dir DIR]

Embeddings are kept in --work_dir between runs (54,667 titles take some minutes the first time).
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import index_data
import report

K, LEAST_RECALL = 100, 0.98
LADDER = (100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400)
GOAL_SPEED, GOAL_MINUTES = 20.0, 30.0
GOAL_MEMORY = {"int8": 0.45, "int4": 0.25}
MEMORY_QUERIES = 200


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "20,000 vectors of 4,000 titles and 100 queries")
    parser.add_argument("--count", type=int)
    parser.add_argument("--queries", type=int)
    parser.add_argument("--titles", type=int, help="that are embedded; the other vectors are copies with noise")
    parser.add_argument("--kinds", nargs="+", default=["int8", "int4"])
    parser.add_argument("--work_dir", type=Path, default=Path(tempfile.gettempdir()) / "rexbert-index-benchmark")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(json.dumps(memory_of(args.memory, args.path)))
        return
    args.count = args.count or (20_000 if args.quick else 1_000_000)
    args.queries = args.queries or (100 if args.quick else 500)
    args.work_dir.mkdir(parents=True, exist_ok=True)
    titles, terms, source = index_data.titles_and_queries(
        args.titles or (4_000 if args.quick else 100_000), args.queries
    )
    base = index_data.embed(titles, "document", args.work_dir / "embeddings")
    queries = index_data.embed(terms, "query", args.work_dir / "embeddings")
    with tempfile.TemporaryDirectory(dir=args.work_dir) as folder:
        place = Path(folder)
        vectors = index_data.write_noisy(place / "vectors.npy", base, args.count)
        np.save(place / "queries.npy", queries)
        del base
        gc.collect()
        text = f"{args.count:,} vectors of {vectors.shape[1]} from {len(titles):,} titles, {len(queries)} queries"
        report.header("index", f"{source}: {text}, noise {index_data.NOISE}", ("numpy", "faiss-cpu", "torch"))
        report.finish(readings(args, place, vectors, queries))


def readings(args: argparse.Namespace, place: Path, vectors: np.ndarray, queries: np.ndarray) -> list[report.Reading]:
    """All readings: the flat index first, then each kind beside it."""
    truth, flat_speed, flat_batched = of_flat(args, place, vectors, queries)
    gc.collect()
    flat_memory = measured("flat", place)["resident"]
    print(f"flat: {flat_speed:.1f} queries/s alone, {flat_batched:.0f} batched, {flat_memory / 2**20:.0f} MiB")
    found = []
    for kind in args.kinds:
        found += of_kind(args, place, kind, vectors, queries, truth, (flat_speed, flat_batched, flat_memory))
    return found


def of_flat(
    args: argparse.Namespace, place: Path, vectors: np.ndarray, queries: np.ndarray
) -> tuple[np.ndarray, float, float]:
    """True rows of each query, and queries a second of FAISS's flat index, alone and batched."""
    import faiss

    flat = faiss.IndexFlatIP(vectors.shape[1])
    flat.add(np.ascontiguousarray(vectors))
    faiss.omp_set_num_threads(1)
    truth = flat.search(queries, K)[1]
    few = queries[: 20 if args.count > 100_000 else 100]
    alone = len(few) / seconds(lambda: [flat.search(query[None], K) for query in few])
    batched = len(queries) / seconds(lambda: flat.search(queries, K), 1)
    faiss.write_index(flat, str(place / "flat.faiss"))
    return truth, alone, batched


def of_kind(
    args: argparse.Namespace,
    place: Path,
    kind: str,
    vectors: np.ndarray,
    queries: np.ndarray,
    truth: np.ndarray,
    flat: tuple[float, float, int],
) -> list[report.Reading]:
    """Readings of one kind of index."""
    import faiss

    from rexbert_hf.retrieval import ProductIndex

    faiss.omp_set_num_threads(os.cpu_count() or 1)
    start = time.perf_counter()
    catalogue = index_data.products(args.count)
    index = ProductIndex.build(catalogue, None, kind, vectors=vectors, work_dir=place, filters=["price", "locale"])
    index.save(place / kind)
    minutes = (time.perf_counter() - start) / 60
    faiss.omp_set_num_threads(1)
    recall = tune(index, queries, truth)
    sample = queries[: min(len(queries), 200)]
    speed = len(sample) / seconds(lambda: [index.search(query[None], K) for query in sample])
    batched = len(queries) / seconds(lambda: index.search(queries, K), 1)
    index.save(place / kind)  # with its ef_search
    print(f"{kind}: recall@{K} {recall:.4f} with ef_search {index.options.ef_search}, built in {minutes:.1f} minutes")
    name, (flat_speed, flat_batched, flat_memory) = f"index/{kind}", flat
    memory = measured(kind, place)
    print(f"{kind}: {memory['resident'] / 2**20:.0f} MiB, {memory['mapped'] / 2**20:.0f} of them mapped vectors")
    quick = args.count < 1_000_000  # too few vectors for the goals to mean anything
    ratio = None if quick else GOAL_SPEED
    result = [
        report.Reading(f"{name}/recall@{K}", recall, None, LEAST_RECALL, "", judged="ours"),
        report.Reading(f"{name}/alone", speed, flat_speed, ratio, "queries/s"),
        report.Reading(f"{name}/batched", batched, flat_batched, None, "queries/s"),
        report.Reading(
            f"{name}/memory",
            memory["resident"] / 2**20,
            flat_memory / 2**20,
            None if quick else GOAL_MEMORY.get(kind),
            "MiB",
            lower=True,
        ),
        report.Reading(f"{name}/build", minutes, None, None if quick else GOAL_MINUTES, "minutes", "ours", lower=True),
    ]
    return result + filtered(name, index, vectors, sample)


def tune(index: Any, queries: np.ndarray, truth: np.ndarray) -> float:
    """Set the smallest `ef_search` of the ladder that reaches the recall; returns the recall."""
    recall = 0.0
    for ef in LADDER:
        index.options.ef_search = ef
        recall = recall_of(index.search(queries, K), truth)
        if recall >= LEAST_RECALL:
            break
    return recall


def filtered(name: str, index: Any, vectors: np.ndarray, queries: np.ndarray) -> list[report.Reading]:
    """Recall and speed where 1 % and 10 % of the products pass."""
    result = []
    for share, locale in ((1, "fr"), (10, "de")):
        wanted = {"locale": locale}
        rows = np.flatnonzero(index.state.rows.columns.mask(wanted))
        scores = queries @ vectors[rows].T
        truth = rows[np.argsort(-scores, axis=1)[:, :K]]
        recall = recall_of(index.search(queries, K, filter=wanted), truth)
        speed = len(queries) / seconds(
            lambda w=wanted: [index.search(query[None], K, filter=w) for query in queries], 1
        )
        print(f"{name}: {share} % pass, recall@{K} {recall:.4f}, {speed:.0f} queries/s")
        result.append(report.Reading(f"{name}/recall@{K} of {share} %", recall, None, None, ""))
    return result


def recall_of(found: list[list[tuple[str, float]]], truth: np.ndarray) -> float:
    """Share of the true rows that were found; ids are "p" and the row."""
    shares = [
        len({int(product[1:]) for product, _ in hits} & set(rows.tolist())) / len(rows)
        for hits, rows in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def seconds(work: Any, repeats: int = 3) -> float:
    """Median wall time of some calls after one that does not count."""
    return report.median_seconds(work, repeats)


def measured(kind: str, place: Path) -> dict[str, int]:
    """Bytes that a process of its own gains by opening an index and searching it."""
    command = [sys.executable, __file__, "--memory", kind, "--path", str(place)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    result: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return result


def memory_of(kind: str, place: Path) -> dict[str, int]:
    """What `measured` asks its process for."""
    import faiss

    from rexbert_hf.retrieval import ProductIndex

    queries = np.load(place / "queries.npy")
    queries = np.concatenate([queries] * (MEMORY_QUERIES // len(queries) + 1))[:MEMORY_QUERIES]
    warm = faiss.IndexFlatIP(queries.shape[1])
    warm.add(queries)
    warm.search(queries, 5)
    ProductIndex.build(index_data.products(50), None, "flat", vectors=queries[:50]).search(queries, 5)
    gc.collect()
    before = resident()
    index: Any = faiss.read_index(str(place / "flat.faiss")) if kind == "flat" else ProductIndex.load(place / kind)
    for query in queries:
        index.search(query[None], K)
    gc.collect()
    return {"resident": resident() - before, "mapped": resident("vectors.safetensors")}


def resident(name: str = "") -> int:
    """Bytes of this process in memory; of one mapped file, if it is named."""
    if not name:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    total, inside = 0, False
    with open("/proc/self/smaps", encoding="utf-8", errors="replace") as file:
        for line in file:
            fields = line.split()
            if not fields[0].endswith(":"):
                inside = line.rstrip().endswith(name)
            elif inside and fields[0] == "Rss:":
                total += int(fields[1]) * 1024
    return total


if __name__ == "__main__":
    main()
