"""What the fuzzer does with folders that are saved and loaded: one file is replaced, and the folder is opened and used.

Mutated bytes are seldom JSON any more, so the seeds of a manifest are the manifest with each of its values replaced by
odd ones in turn.
"""

from __future__ import annotations

import copy
import hashlib
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOMS = Path(__file__).parents[1]
ODD_VALUES = [None, -1, 1e308, 10**30, "x", "../x", True, [], {}, [None], {"a": 1}]
Job = tuple[Callable[[bytes], object], list[bytes]]
"""What is done with a file's new content, and contents to begin with."""


def at_hand(room: str) -> None:
    """Let the cases of another room's tests be imported."""
    if str(ROOMS / room) not in sys.path:
        sys.path.insert(0, str(ROOMS / room))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in nested JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def variants(facts: Any) -> list[bytes]:
    """A manifest, with each of its values replaced by odd ones and each key left out."""
    found = [facts]
    for path in places(facts):
        for value in ODD_VALUES if path else []:
            found.append(copy.deepcopy(facts))
            inner = found[-1]
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        if path and isinstance(path[-1], str):
            found.append(json.loads(json.dumps(found[-1])))
            inner = found[-1]
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
    return [json.dumps(one).encode() for one in [*found, *ODD_VALUES]]


def index_file(name: str, folder: Path) -> Job:
    """A file of an index, whose checksum follows it; all kinds of searches."""
    for module in ("faiss", "bm25s", "rapidfuzz"):
        pytest.importorskip(module)
    at_hand("retrieval")
    from index_cases import HashModel, make_products

    from rexbert_hf.retrieval.serving.index import ProductIndex
    from rexbert_hf.retrieval.serving.index_folder import current_version

    shutil.rmtree(folder, ignore_errors=True)
    products, kind = make_products(20), "hnsw" if name == "index.faiss" else "binary"
    ProductIndex.build(products, HashModel(), kind, lexical=True, spelling=True, storage="int8").save(folder / "saved")
    version = current_version(folder / "saved").rename(folder / "version")
    sealed = json.loads((version / "index.json").read_text())
    sealed.pop("crc32")
    (version / "index.json").write_text(json.dumps(sealed))
    whole = (version / name).read_bytes()

    def use(data: bytes) -> None:
        (version / name).write_bytes(data)
        if name != "index.json":
            sealed["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (version / "index.json").write_text(json.dumps(sealed))
        index = ProductIndex.load(version, HashModel())
        for mode in ("dense", "lexical", "hybrid"):
            index.search(["thing number 3", "thinq"], 3, mode=mode, filter={"price": (None, 20)})
        index.texts(["p1"]), index.facts(["p1"])
        index.upsert([{"product_id": "new", "title": "a new thing"}])
        index.search(["thing"], 3)

    if name.endswith(".json"):
        return use, variants(json.loads(whole))
    if name.endswith(".safetensors"):
        return use, header_variants(whole)
    return use, [whole]


def header_variants(whole: bytes) -> list[bytes]:
    """A safetensors file under odd headers."""
    length = int.from_bytes(whole[:8], "little")
    headers = variants(json.loads(whole[8 : 8 + length]))
    return [whole, *(len(one).to_bytes(8, "little") + one + whole[8 + length :] for one in headers)]


def pool(folder: Path) -> Job:
    """The Parquet file of a phrase pool; matching."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rexbert_hf.phrases import PhrasePool

    PhrasePool(["tea pot", "red mug"], [0.5, 0.7], [3, 4], ["home", None]).save(folder)
    (path,) = (folder / "data").glob("*.parquet")

    def written(columns: dict[str, list[Any]]) -> bytes:
        buffer = io.BytesIO()
        pq.write_table(pa.table(columns), buffer)
        return buffer.getvalue()

    odd = [[None], ["x"], [5], [[0.5]], [b"x"], [True], [float("nan")], []]
    seeds = [path.read_bytes(), *(written({"phrase": a, "score": b}) for a in odd for b in odd if len(a) == len(b))]
    seeds += [written({"phrase": ["a b"], "score": [0.5], name: a}) for name in ("count", "category") for a in odd[:-1]]

    def use(data: bytes) -> None:
        path.write_bytes(data)
        PhrasePool.load(folder).match(["a red mug"])

    return use, seeds


def tokenised(folder: Path) -> Job:
    """The manifest of tokenised rows; a row."""
    from rexbert_hf.data.manifest import MANIFEST
    from rexbert_hf.data.store import TokenisedDataset

    shutil.rmtree(folder, ignore_errors=True)
    TokenisedDataset.from_rows([{"input_ids": [1, 5, 2], "word_ids": [-1, 0, -1]}] * 3).save(folder)
    facts = json.loads((folder / MANIFEST).read_text())
    facts.pop("manifest_crc32")

    def use(data: bytes) -> None:
        (folder / MANIFEST).write_bytes(data)
        store = TokenisedDataset.load(folder)
        store.take([0, len(store) - 1])

    return use, variants(facts)


def classifier(folder: Path) -> Job:
    """`classifier.json`; scores."""
    pytest.importorskip("fasttext")
    at_hand("corpus")
    from filter_cases import tiny_classifier

    from rexbert_hf.corpus.fasttext_model import METADATA, FastTextClassifier

    tiny_classifier().save(folder)

    def use(data: bytes) -> None:
        (folder / METADATA).write_bytes(data)
        FastTextClassifier.load(folder).scores(["buy 3 lamps"])

    return use, variants(json.loads((folder / METADATA).read_text()))


def export(folder: Path) -> Job:
    """`encoder.json` of an exported encoder; vectors."""
    at_hand("faults")
    from test_damaged_files import onnx_folder

    from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder

    shutil.rmtree(folder, ignore_errors=True)
    onnx_folder(folder)

    def use(data: bytes) -> None:
        (folder / "encoder.json").write_bytes(data)
        OnnxEncoder(folder).encode(["w1 w2", ""])

    return use, variants(json.loads((folder / "encoder.json").read_text()))
