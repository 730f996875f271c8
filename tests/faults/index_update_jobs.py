"""A changed catalogue brought into an index that is there, killed: readers see the old index or the new one."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

from datasets import Dataset
from kill_jobs import answers, at_work, exists, products
from killing import Job, Place, Process, python

from rexbert_hf.catalog import load_sample
from rexbert_hf.retrieval.serving.index import ProductIndex

SIZE = 3_000
INDEX = ["--index.kind", "hnsw", "--index.lexical", "true"]


def write_catalogue(path: Path, every: int, changed: bool) -> Path:
    """The sample shop, or what became of it: of `every` products one is renamed, one is gone, and one is new."""
    shop = load_sample("products", size=SIZE + SIZE // every)
    rows = [dict(product) for product in shop]
    if changed:
        for product in rows[:SIZE:every]:
            product["title"] += ", new edition"
        rows = [product for number, product in enumerate(rows) if number >= SIZE or number % every != 1]
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows if changed else rows[:SIZE], features=shop.features).to_parquet(path)
    return path


@cache
def base(root: Path, every: int) -> Path:
    """An index of the old catalogue, with its embedding cache, made once; and the new catalogue beside it."""
    folder = root / f"index-{every}"
    old = write_catalogue(root / f"old-{every}.parquet", every, changed=False)
    write_catalogue(root / f"new-{every}.parquet", every, changed=True)
    process = Process(build(folder, old), folder, {})
    assert process.wait() == 0, process.tail()
    return folder


def build(folder: Path, path: Path) -> list[str]:
    words = ["--products.path", str(path), "--cache_dir", str(folder / "cache"), "--output_dir", str(folder)]
    return python("recipes/build_index.py", *words, *INDEX)


def contents(folder: Path) -> dict[str, str | None]:
    """Text of each product, as a reader sees it."""
    index = ProductIndex.load(folder, verify=True)
    ids = index.ids()
    assert len(set(ids)) == len(ids) == len(index), "a product is there twice"
    return dict(zip(ids, index.texts(ids), strict=True))


def update_job(name: str, every: int) -> Job:
    @cache
    def expected(root: Path) -> list[dict[str, str | None]]:
        """What the index of the old and of the new catalogue hold."""
        return [contents(base(root, every)), contents(root / f"whole-{name}")]

    def prepare(folder: Path) -> None:
        shutil.copytree(base(folder.parent, every), folder)

    def result(folder: Path) -> dict[str, Any]:
        updated = json.loads((folder / "run.json").read_text())["results"]["updated"]
        return {"contents": contents(folder), "updated": updated, **answers(folder)}

    def old_or_new(folder: Path) -> None:
        assert contents(folder) in expected(folder.parent), "neither the old index nor the new one"

    places = (
        Place("reading", at_work), Place("encoding", exists(".rows-*")),
        Place("saving", exists("versions/.staging-*"), 0.1), Place("new version", exists("versions/v000002"), 0.05),
    )  # fmt: skip
    return Job(
        name, lambda folder: build(folder, folder.parent / f"new-{every}.parquet"), places, result, products,
        check=old_or_new, prepare=prepare,
        files=((r"versions/v\d+", "version"), (r"cache/(\w+)/vectors-\w+", r"cache/\1/vectors")),
    )  # fmt: skip


UPDATE_JOBS = (
    update_job("index update", 10),
    update_job("index compaction", 3),  # an update that leaves more dead rows than COMPACT_SHARE
)
