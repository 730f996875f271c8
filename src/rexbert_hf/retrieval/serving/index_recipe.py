"""What `recipes/build_index.py` does: build an index, or bring the one that is there up to date, and try it."""

from __future__ import annotations

import logging
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset

from rexbert_hf.catalog import load_sample, read_records, record_types
from rexbert_hf.hub import write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.run_file import RUN_FILE
from rexbert_hf.retrieval.serving.hashing_encoder import HASHING
from rexbert_hf.retrieval.serving.index import COMPACT_SHARE, ProductIndex
from rexbert_hf.retrieval.serving.index_folder import DamagedIndexError, current_version, read_facts
from rexbert_hf.retrieval.serving.index_options import MODES, IndexOptions
from rexbert_hf.retrieval.serving.product_rows import text_of
from rexbert_hf.retrieval.serving.query_model import fingerprint, is_folder, open_model
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least

logger = logging.getLogger(__name__)


@dataclass
class ProductSource:
    """A catalogue; without `path`, the built-in sample shop.

    Attributes:
        sample_size: products of the sample shop.
        path: file, folder, glob or Hub data set; several are a list.
        columns: our column names and theirs: product_id, title, and what is encoded or filtered by.
        format: of files whose name does not say it.
        encoding: of text formats.
        delimiter: of CSV and TSV.
        limit: read at most so many rows.
    """

    sample_size: int | None = None
    path: str | list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        check_least(self, sample_size=2, limit=1)

    def read(self, cache_dir: Path | None = None) -> Dataset:
        """Read the products.

        Args:
            cache_dir: where rows are written, so that they need not fit in memory.

        Raises:
            ValueError: if there is no column product_id.
        """
        if self.path is None:
            dataset = load_sample("products", size=self.sample_size)
            return dataset if self.limit is None else dataset.select(range(min(self.limit, len(dataset))))
        options: dict[str, Any] = {"format": self.format, "encoding": self.encoding, "delimiter": self.delimiter}
        types = record_types("products")
        dataset = read_records(self.path, self.columns, types=types, limit=self.limit, cache_dir=cache_dir, **options)
        if "product_id" not in dataset.column_names:
            raise ValueError(f"{self.path}: no column 'product_id': map it with products.columns")
        return dataset


@dataclass
class QdrantSettings:
    """Where an index in Qdrant lies; without url, in memory, for trying it out.

    Attributes:
        url: of a server or cluster; its key is the environment's QDRANT_API_KEY.
        collection: name that searches use.
    """

    url: str | None = None
    collection: str = "products"


@dataclass
class BuildIndexRun:
    """Build an index of a catalogue, or bring the one in `output_dir` up to date.

    Attributes:
        model: folder or Hub id of a sentence encoder, or of its ONNX export; "hashing" knows spelling only and needs
            no model.
        revision: of the model, where it is a Hub id; the index remembers the commit.
        products: the catalogue.
        output_dir: of the index and `run.json`.
        index: how it is built.
        backend: faiss (files in `output_dir`) or qdrant.
        qdrant: where, for that.
        cache_dir: an embedding cache, shared by indexes and kept between runs.
        bf16: run a RexBERT encoder in bfloat16; "auto" on a GPU that multiplies it fast. What an index holds
            already is not encoded again for it.
        update: where `output_dir` holds an index of the same model and settings, encode only what has changed.
        queries: example searches to print.
        modes: of those: dense, lexical, hybrid.
        k: hits of each.
        filter: for the example searches, such as {price: {max: 50}}.
        push_to_hub: "user/name" of a data set.
        private: whether a new repository is private.
    """

    model: str = HASHING
    revision: str | None = None
    products: ProductSource = field(default_factory=ProductSource)
    output_dir: Path = Path("output/index")
    index: IndexOptions = field(default_factory=IndexOptions)
    backend: Literal["faiss", "qdrant"] = "faiss"
    qdrant: QdrantSettings = field(default_factory=QdrantSettings)
    cache_dir: Path | None = None
    bf16: bool | Literal["auto"] = "auto"
    update: bool = True
    queries: list[str] = field(default_factory=list)
    modes: list[str] = field(default_factory=lambda: list(MODES))
    k: int = 3
    filter: dict[str, Any] = field(default_factory=dict)
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if unknown := [mode for mode in self.modes if mode not in MODES]:
            raise ValueError(f"modes: {unknown[0]!r} is unknown; there are {', '.join(MODES)}")
        if self.push_to_hub and self.backend == "qdrant":
            raise ValueError("push_to_hub: an index in Qdrant stays there; push one of backend faiss")
        check_least(self, k=1)


@sole_run(".index-*", ".rows*")
def run_build_index(run: BuildIndexRun) -> dict[str, Any]:
    """Build or update, save, search, push as the settings say; what was measured.

    Args:
        run: the settings.

    Raises:
        ValueError: if the folder holds another run or a model, or the products cannot be used.
    """
    check_own_folder(run.output_dir, "backend")
    run.output_dir.mkdir(parents=True, exist_ok=True)
    model, commit = open_model(run.model, run.revision)
    with tempfile.TemporaryDirectory(dir=run.output_dir, prefix=".rows-") as rows:
        products = run.products.read(Path(rows))
        start = time.perf_counter()
        index, results, version = _updated(run, model, commit, products) or _built(run, model, commit, products)
    (run.output_dir / RUN_FILE).unlink(missing_ok=True)  # of an earlier run: it says what was measured of its index
    seconds = time.perf_counter() - start
    results |= {"products": len(index), "dim": index.dim, "seconds": seconds, "kind": run.index.kind}
    results["bytes"] = {p.name: p.stat().st_size for p in sorted(version.rglob("*")) if p.is_file()}
    results["searches"] = examples(index, run) if run.queries else []
    write_run(run.output_dir, config=to_dict(run), results=results)  # before the push, which may fail
    if isinstance(index, ProductIndex) and run.push_to_hub:
        results["url"] = index.push_to_hub(run.push_to_hub, private=run.private)
        write_run(run.output_dir, config=to_dict(run), results=results)
    if not isinstance(index, ProductIndex):
        index.close()
    return results


def _existing(run: BuildIndexRun, model: Any) -> Any:
    """The index in the folder, if it was built with this model and these settings, in the same place."""
    if not run.update or (run.backend == "qdrant" and run.qdrant.url is None):  # memory forgets
        return None
    try:
        facts = read_facts(current_version(run.output_dir))
    except (FileNotFoundError, ValueError) as error:
        if not isinstance(error, FileNotFoundError):
            logger.warning("%s; it is built anew", error)
        return None
    place: dict[str, Any] = {"backend": run.backend}
    if run.backend == "qdrant":
        place |= {"place": run.qdrant.url, "collection": run.qdrant.collection}
    same = {"backend": "faiss", **facts}.items() >= place.items() and facts.get("options") == asdict(run.index)
    if not same or (facts.get("model") or {}).get("fingerprint") != fingerprint(model):
        logger.info("model or settings have changed: the index is built anew")
        return None
    try:
        server: dict[str, Any] = {"url": run.qdrant.url} if run.backend == "qdrant" else {}
        return ProductIndex.load(run.output_dir, model, **server)
    except FileNotFoundError as error:  # Qdrant has lost the collection
        logger.warning("%s; it is built anew", error)
        return None


Made = tuple[Any, dict[str, Any], Path]
"""An index, what was done, and the folder of the version that was saved."""


def _updated(run: BuildIndexRun, model: Any, commit: str | None, products: Dataset) -> Made | None:
    """The index in the folder, brought up to date and saved; None if there is none to update, or it is damaged."""
    try:
        index = _existing(run, model)
        if index is None:
            return None
        index.bf16 = run.bf16
        index.use_cache(run.cache_dir)
        results = _update(index, products, run.output_dir)
        return index, results, _save(index, run, commit)
    except DamagedIndexError as error:  # found while it was read: a large index is not hashed
        logger.warning("%s; it is built anew", error)
        return None


def _built(run: BuildIndexRun, model: Any, commit: str | None, products: Dataset) -> Made:
    options = asdict(run.index) | (asdict(run.qdrant) if run.backend == "qdrant" else {"work_dir": run.output_dir})
    how: dict[str, Any] = {"backend": run.backend, "cache_dir": run.cache_dir, "bf16": run.bf16}
    index = ProductIndex.build(products, model, **how, **options)
    encoded = len(index) if index.cache is None else index.cache.encoded
    return index, {"updated": False, "encoded": encoded, "deleted": 0}, _save(index, run, commit)


def _save(index: Any, run: BuildIndexRun, commit: str | None) -> Path:
    if index.identity is not None:
        index.identity.name, index.identity.revision, index.identity.local = run.model, commit, is_folder(run.model)
    version: Path = index.save(run.output_dir)
    return version


def _update(index: Any, products: Dataset, work_dir: Path) -> dict[str, Any]:
    if not any(text_of(product, index.options) for product in products):
        raise ValueError("no product of the catalogue has any text: the index stays as it is; check products.path")
    before = set(index.ids())
    encoded = index.upsert(products)
    index.delete(sorted(before - set(products["product_id"])))
    if isinstance(index, ProductIndex) and index.dead_share > COMPACT_SHARE:
        index.compact(work_dir)
    return {"updated": True, "encoded": encoded, "deleted": len(before - set(index.ids()))}


def examples(index: Any, run: BuildIndexRun) -> list[dict[str, Any]]:
    """Example searches: query, what was searched for, mode, milliseconds, and hits with id, score and text.

    Args:
        index: what is searched.
        run: queries, modes, k and filter.
    """
    found = []
    wanted = run.filter or None
    for mode in run.modes:
        index.search(run.queries[:1], run.k, wanted, mode)  # loads what is loaded at the first search
        for query in run.queries:
            start = time.perf_counter()
            (hits,) = index.search(query, run.k, wanted, mode)
            milliseconds = (time.perf_counter() - start) * 1e3
            texts = index.texts([name for name, _ in hits])
            rows = [{"id": name, "score": score, "text": text} for (name, score), text in zip(hits, texts, strict=True)]
            asked = {"query": query, "searched_for": index.corrected(query)}
            found.append({**asked, "mode": mode, "milliseconds": milliseconds, "hits": rows})
    return found
