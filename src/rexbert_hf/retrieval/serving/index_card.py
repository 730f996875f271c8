"""An index on the Hub: its files as a data set in one commit, and a card that says what it is and how to open it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.hub.push_files import push_files
from rexbert_hf.hub.readme import BEGIN, END
from rexbert_hf.retrieval.serving.hashing_encoder import HASHING
from rexbert_hf.retrieval.serving.index_folder import read_facts, write_version
from rexbert_hf.retrieval.serving.query_model import is_folder

_OURS = ("index.json", "*.parquet", "*.safetensors", "index.faiss", "bm25/*")

_TEXT = """{begin}
# Product search index {name}

{products:,} products, {dim} dimensions, kind `{kind}`, {encoded}.

```python
from rexbert_hf.retrieval import ProductIndex

index = ProductIndex.load("{repo_id}"{load}){remark}
index.search({query}, k=10{filter})
```

{answers} Encoded fields: {fields}.
Filter columns: {columns}.
{end}
"""


def was_folder(model: Mapping[str, Any]) -> bool:
    """Whether the model that an index names was a folder of the machine that built it, which nobody else has.

    Args:
        model: of `index.json`. Earlier versions did not say so: then its name and commit tell.

    Example:
        >>> names = ("my-student", "./student", "user/my-student", "hashing")
        >>> [was_folder({"name": name}) for name in names], was_folder({"name": "output/student", "local": True})
        ([True, True, False, False], True)
        >>> was_folder({"name": "bert-base-uncased", "revision": "86b5e0934494bd15c9632b12f734a8a67f723594"})
        False
    """
    name, local = str(model.get("name")), model.get("local")
    if isinstance(local, bool):
        return local
    if _is_path(name):
        return True
    return name.count("/") == 0 and not model.get("revision") and name not in _ours()


def _is_path(name: str) -> bool:
    return name.startswith((".", "~")) or Path(name).is_absolute() or name.count("/") > 1


def _ours() -> tuple[str, str]:
    """Models that this package finds by their names, and that are no repositories."""
    from rexbert_hf.retrieval.training.biencoder import MINILM

    return HASHING, MINILM


def index_card(facts: dict[str, Any], columns: list[str], repo_id: str) -> str:
    """The card of an index.

    Args:
        facts: of `index.json`.
        columns: filter columns that it has.
        repo_id: where it lies.
    """
    model = facts["model"]
    metadata: dict[str, Any] = {"tags": ["rexbert", "e-commerce", "product-search"], "viewer": False}
    if model is None:
        told = {"encoded": "built from given vectors", "load": "", "query": "vectors", "remark": ""}
        told["answers"] = "No model is known: it answers float32 vectors `[Q, D]` of whatever encoded its products."
    else:
        if not was_folder(model) and model["name"] not in _ours():
            metadata["base_model"] = model["name"]
        revision = f" at {model['revision']}" if model["revision"] else ""
        told = {"encoded": f"encoded with `{model['name']}`{revision}", "load": f', model="{model["name"]}"'}
        told["remark"] = ""
        if was_folder(model):
            told |= {"load": ', model="..."', "remark": "  # push the encoder first and put its name here"}
        told["query"] = '["..."]'
        told["answers"] = f"It answers queries of that model only (fingerprint `{model['fingerprint'][:16]}`)"
        told["answers"] += " and refuses others."
    known = {
        **told,
        "name": repo_id.rsplit("/", 1)[-1],
        "repo_id": repo_id,
        "products": facts["products"],
        "dim": facts["dim"],
        "kind": facts["options"]["kind"],
        "fields": ", ".join(facts["options"]["fields"]),
        "columns": ", ".join(columns) or "none",
        "filter": ', filter={"price": (None, 50)}' if "price" in columns else "",
    }
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False)}---\n{_TEXT.format(begin=BEGIN, end=END, **known)}"


def push_index(write: Callable[[Path], dict[str, Any]], columns: list[str], repo_id: str, **options: Any) -> str:
    """Push an index; see `ProductIndex.push_to_hub`.

    Args:
        write: writes all files but `index.json` into the folder it is given, and returns what `index.json` holds.
        columns: filter columns that the index has.
        repo_id: "user/name".
        options: of `push_files`.
    """
    with temporary_folder() as folder:
        version = write_version(Path(folder), lambda stage: _portable(write(stage)))
        facts = read_facts(version, verify=False)
        files = {path.relative_to(version).as_posix(): path for path in sorted(version.rglob("*")) if path.is_file()}
        card = index_card(facts, columns, repo_id)
        return push_files(files, repo_id, card=card, repo_type="dataset", stale=_OURS, **options)


def _portable(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts without this machine's folders."""
    model = facts["model"]
    if model is None:
        return facts
    unsaid = model.get("local") is None and not model["revision"]
    if was_folder(model) or (unsaid and is_folder(model["name"])):
        place = os.path.abspath(os.path.expanduser(model["name"]))
        facts["model"] = {**model, "name": os.path.basename(place), "local": True}
    return facts
