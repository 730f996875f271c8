"""A sentence encoder as one ONNX graph: encoder, pooling and normalisation, float32 and int8.

Straight through `torch.onnx` (dynamo): the graph is traced from the stock ModernBERT form of a RexBERT, because
unpadding depends on data and a graph may not, and from any other transformers encoder as it is. int8 is onnxruntime's
dynamic quantisation of the matrix products, weights by output channel.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import ModernBertModel

from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.models.modernbert import STOCK_CLASS, to_modernbert
from rexbert_hf.retrieval.serving.onnx_encoder import ENCODER_FILE, OnnxEncoder, file_checksum
from rexbert_hf.retrieval.serving.onnx_graph import ExportedGraph, FusedModernBert
from rexbert_hf.retrieval.serving.query_model import encode, fingerprint, load_model, normalised

logger = logging.getLogger(__name__)

OPSET = 20
GRAPHS = {"fp32": "model.onnx", "int8": "model_int8.onnx"}
CODE_FILE = "onnx_encoder.py"
FEWEST_COSINE = {"fp32": 0.999, "int8": 0.9}
"""Cosine to torch that a graph is worth keeping from: of the worst text (fp32), or the mean of all (int8)."""

CHECK_TEXTS = (
    "red dress",
    "usb c to hdmi adapter 4k 60hz for laptop",
    "stainless steel tea pot with infuser, 1.2 litre, dishwasher safe " * 3,
    "12v 5ah",
)

CUT_ITEMS = 512
"""Of the text that is to be cut, each two tokens or more: memory grows by their square."""


@dataclass
class Difference:
    """How far a graph is from torch, on given texts.

    Attributes:
        largest: absolute difference of any element of the normalised vectors.
        mean_cosine: of all texts.
        least_cosine: of the worst text.
    """

    largest: float
    mean_cosine: float
    least_cosine: float


def export_onnx(
    model: Any,
    folder: str | Path,
    precisions: tuple[str, ...] = ("fp32", "int8"),
    role: str = "query",
    texts: list[str] | None = None,
    name: str | None = None,
    fused: bool = True,
) -> dict[str, Difference]:
    """Export a sentence encoder, check it against torch, and say how far each precision is.

    The folder then holds the graphs, `tokenizer.json`, `encoder.json` and `onnx_encoder.py`: all that serving needs.

    Args:
        model: a SentenceTransformer, or a folder or repository of one or of an encoder (mean pooling is added).
        folder: made when missing.
        precisions: "fp32", "int8" or both.
        role: of a model with separate encoders, the one to export: "query" or "document".
        texts: what to measure the differences on; a few built-in ones by default. The check also reads a text in upper
            case and one that is cut.
        name: of the model, as the export calls it; by default where it was loaded from.
        fused: write ModernBERT's attention as onnxruntime's own operators, a third of the nodes; without it the graph
            is of standard ones, which other runtimes read too.

    Returns:
        The difference of each precision.

    Raises:
        ValueError: if the model is no transformer with a fast tokenizer, its pooling leaves out a prompt, or a graph is
            too far from torch.
        ImportError: if onnx, onnxscript or onnxruntime are not installed.
    """
    _check_packages()
    source = load_model(model)
    transformer, tail = _modules(source, role)
    _check_pooling(source, tail)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    own, odd = list(texts or CHECK_TEXTS), _odd_texts(transformer)
    # Not in one batch: all of it would be as long as the longest.
    vectors = encode(source, own, role), encode(source, odd, role)
    named = name or model
    facts = _facts(source, transformer, vectors[0].shape[1], role)
    facts["source"] = _name(named) if isinstance(named, (str, Path)) else type(source).__name__
    traceable = _traceable(transformer.model, facts["max_length"] if fused else None)
    facts["fused"] = isinstance(traceable, FusedModernBert)
    _write_graph(ExportedGraph(traceable, tail, source.truncate_dim), transformer, place / GRAPHS["fp32"])
    if "int8" in precisions:
        quantise(place / GRAPHS["fp32"], place / GRAPHS["int8"])
    written = tuple(dict.fromkeys(("fp32", *precisions)))  # int8 is made of fp32, which is checked too
    _write_rest(facts, transformer, place, written)
    differences = {}
    for precision in written:
        encoder = OnnxEncoder(place, precision)
        found = encode(encoder, own, role), encode(encoder, odd, role)
        all_of_them = difference(np.concatenate(vectors), np.concatenate(found))
        _check_difference(all_of_them, precision, facts["source"], place)
        differences[precision] = difference(vectors[0], found[0])
    if "fp32" not in precisions:
        (place / GRAPHS["fp32"]).unlink()
        _write_rest(facts, transformer, place, precisions)
    return {precision: differences[precision] for precision in precisions}


def _odd_texts(transformer: Any) -> list[str]:
    """Where tokenizers differ: a text in upper case, and one that is cut, of which beginning and end are not alike."""
    items = min(int(transformer.max_seq_length or CUT_ITEMS), CUT_ITEMS)
    return ["RED DRESS, SIZE 42", " ".join(f"item {number}" for number in range(items))]


def _check_difference(found: Difference, precision: str, name: str, place: Path) -> None:
    cosine, which = (found.least_cosine, "worst") if precision == "fp32" else (found.mean_cosine, "mean")
    if not cosine >= FEWEST_COSINE[precision]:
        raise ValueError(
            f"the {precision} graph of {name} is not the model: {which} cosine {cosine:.4f} to torch, at least"
            f" {FEWEST_COSINE[precision]} is due; nothing in {place} should be served"
        )


def _check_pooling(source: Any, tail: list[nn.Module]) -> None:
    """A graph does not know which tokens are of a prompt."""
    prompts = [name for name, text in (source.prompts or {}).items() if text]
    if prompts and any(getattr(module, "include_prompt", True) is False for module in tail):
        raise ValueError(
            f"the model's pooling leaves out the tokens of its prompt '{prompts[0]}' (include_prompt=False), which a"
            " graph cannot: export a model whose pooling includes them"
        )


def difference(torch_vectors: np.ndarray, vectors: np.ndarray) -> Difference:
    """Compare vectors of the same texts.

    Args:
        torch_vectors: `[N, D]`.
        vectors: `[N, D]`.

    Example:
        >>> difference(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32) * 2)
        Difference(largest=0.0, mean_cosine=1.0, least_cosine=1.0)
    """
    mine, other = normalised(torch_vectors.astype(np.float32)), normalised(vectors.astype(np.float32))
    cosines = np.where((mine == other).all(axis=1), 1, (mine * other).sum(axis=1))  # zero vectors are equal too
    return Difference(float(np.abs(mine - other).max()), float(cosines.mean()), float(cosines.min()))


def quantise(source: Path, target: Path) -> None:
    """Write the int8 form of a graph: matrix products with constant weights, by output channel.

    Args:
        source: the float32 graph.
        target: the file to write.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step that this graph does not need
    try:
        quantize_dynamic(
            source,
            target,
            op_types_to_quantize=["MatMul", "Gemm"],
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={"MatMulConstBOnly": True},
        )
    finally:
        root.setLevel(level)


def _name(model: str | Path) -> str:
    """A repository as it is, a folder without what lies above it: the export may be pushed."""
    return Path(model).resolve().name if Path(model).exists() else str(model)


def _check_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError:
            raise ImportError(f"ONNX export needs {package}: pip install rexbert-hf[onnx]") from None


def _is_router(source: Any) -> bool:
    """Whether a model has separate encoders."""
    return any(hasattr(module, "sub_modules") for module in source.children())


def _modules(source: Any, role: str) -> tuple[Any, list[nn.Module]]:
    """The transformer module and what follows it, of the encoder for a role."""
    children = [module for _, module in source.named_children()] if hasattr(source, "named_children") else []
    while children and hasattr(children[0], "sub_modules"):  # a router: separate encoders
        routes = children[0].sub_modules
        if role not in routes:
            raise ValueError(f"the model has no encoder for '{role}': it has {', '.join(routes)}")
        children = [*routes[role], *children[1:]]
    if len(children) < 2 or getattr(getattr(children[0], "model", None), "config", None) is None:
        raise ValueError(f"{type(source).__name__} is no transformer with pooling: export a SentenceTransformer")
    if getattr(children[0].tokenizer, "backend_tokenizer", None) is None:
        raise ValueError("the model has no fast tokenizer (tokenizer.json): save one with it")
    return children[0], [copy.deepcopy(module).cpu().float().eval() for module in children[1:]]


def _traceable(encoder: Any, max_length: int | None) -> nn.Module:
    """The encoder in a form that can be traced, in float32 on the CPU; ModernBERT's fused if a length is given."""
    stock = to_modernbert(encoder) if type(encoder).__name__ in STOCK_CLASS else copy.deepcopy(encoder)
    stock = stock.cpu().float().eval()
    return FusedModernBert(stock, max_length) if max_length and type(stock) is ModernBertModel else stock


def _write_graph(graph: ExportedGraph, transformer: Any, path: Path) -> None:
    length = min(16, int(transformer.max_seq_length or 16))
    ids = torch.randint(5, max(6, transformer.model.config.vocab_size), (2, length))
    mask = torch.ones_like(ids)
    mask[1, length // 2 :] = 0
    batch, tokens = torch.export.Dim("batch", min=1), torch.export.Dim("tokens", min=1)
    shapes = {"input_ids": {0: batch, 1: tokens}, "attention_mask": {0: batch, 1: tokens}}
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)  # names torchvision
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph.eval(),
            (ids, mask),
            str(path),
            input_names=["input_ids", "attention_mask"],
            output_names=["sentence_embedding"],
            dynamic_shapes=shapes,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    _strip(path)


def _strip(path: Path) -> None:
    """Take out the notes of the exporter on each node: source lines and folders of this machine, which nothing reads.

    Args:
        path: of the graph.
    """
    import onnx

    model = onnx.load(path)
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output, model.graph):
        del part.metadata_props[:]
        part.doc_string = ""
    for function in model.functions:
        for part in (*function.node, *function.value_info, function):
            del part.metadata_props[:]
            part.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    onnx.save(model, path)


def _facts(source: Any, transformer: Any, dim: int, role: str) -> dict[str, Any]:
    """What `encoder.json` says of the model."""
    tokenizer = transformer.tokenizer
    prompts = {key: text or "" for key, text in (source.prompts or {}).items()}
    return {
        "format": 1,
        "fingerprint": fingerprint(source),
        "role": role if _is_router(source) else None,
        "dim": dim,
        "max_length": int(transformer.max_seq_length or 512),
        "truncation_side": tokenizer.truncation_side,
        "pad_id": int(tokenizer.pad_token_id or 0),
        "prompts": prompts,
        "default_prompt": prompts.get(source.default_prompt_name or "", ""),
    }


def _write_rest(facts: dict[str, Any], transformer: Any, place: Path, precisions: tuple[str, ...]) -> None:
    backend = copy.deepcopy(transformer.tokenizer.backend_tokenizer)
    backend.no_padding()
    backend.no_truncation()
    backend.save(str(place / "tokenizer.json"))
    graphs = {precision: GRAPHS[precision] for precision in precisions}
    sums = {file: file_checksum(place / file) for file in (*graphs.values(), "tokenizer.json")}
    text = json.dumps({**facts, "graphs": graphs, "crc32": sums}, indent=1)
    write_whole(place / ENCODER_FILE, (text + "\n").encode())
    shutil.copyfile(Path(__file__).with_name(CODE_FILE), place / CODE_FILE)
