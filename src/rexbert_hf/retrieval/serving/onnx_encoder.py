"""`OnnxEncoder`: an exported sentence encoder that runs with onnxruntime, tokenizers and numpy alone.

This file is copied into every export, beside the graph and the tokenizer, so that a server needs neither torch nor
this package:

    from onnx_encoder import OnnxEncoder
    OnnxEncoder("folder").encode(["usb c cable"])
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

ENCODER_FILE = "encoder.json"
TOKENIZER_FILE = "tokenizer.json"
PRECISIONS = ("int8", "fp32")
_TRIALS = 20
"""Times that a folder is read again whose export is replaced meanwhile."""
_LEAST = {"dim": 1, "max_length": 1, "pad_id": 0}
_ROLES = {"query": ("query",), "document": ("document", "passage", "corpus")}


class OnnxEncoder:
    """Texts to vectors through an exported graph; pooling and normalisation are in the graph.

    Args:
        folder: of the export.
        precision: "int8" or "fp32"; by default int8 where there is one.
        threads: of the session; one is right for single queries, several for encoding a catalogue.

    Attributes:
        dim: width of the vectors.
        fingerprint: of the model that was exported: an index built with either serves both.
        role: "query" or "document" for an export of one of a model's two encoders; None where they are one.

    Raises:
        FileNotFoundError: if the folder holds no export, or not in this precision.
        ValueError: if a file is damaged, or the graph gives vectors of another width than `encoder.json` says.
        ImportError: if onnxruntime is not installed.
    """

    def __init__(self, folder: str | Path, precision: str | None = None, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise ImportError("OnnxEncoder needs onnxruntime: pip install rexbert-hf[onnx]") from None

        self.folder = Path(folder)
        for trials_left in reversed(range(_TRIALS)):
            facts = read_export(self.folder)
            try:
                self._open(onnxruntime, facts, precision, threads)
            except (ValueError, FileNotFoundError):
                if not trials_left or read_export(self.folder) == facts:
                    raise
                continue
            if not trials_left or read_export(self.folder) == facts:  # else a new export came while this was read
                return

    def _open(self, onnxruntime: Any, facts: dict[str, Any], precision: str | None, threads: int) -> None:
        """Load what `encoder.json` says."""
        from tokenizers import Tokenizer

        self.precision = precision or next(name for name in PRECISIONS if name in facts["graphs"])
        if self.precision not in facts["graphs"]:
            raise FileNotFoundError(
                f"{self.folder} holds no {self.precision} graph: it has {', '.join(facts['graphs'])}"
            )
        self.name, self.fingerprint = str(facts["source"]), str(facts["fingerprint"])
        self.dim, self.max_length, self.pad_id = int(facts["dim"]), int(facts["max_length"]), int(facts["pad_id"])
        self.prompts: dict[str, str] = dict(facts["prompts"])
        self.default_prompt = str(facts.get("default_prompt") or "")
        self.role: str | None = facts.get("role")  # exports of earlier versions do not say it
        graph = self.folder / facts["graphs"][self.precision]
        words = self.folder / facts.get("tokenizer", TOKENIZER_FILE)
        for path in (graph, words):
            wanted = facts.get("crc32", {}).get(path.name)  # exports of earlier versions say nothing
            if wanted is not None and path.is_file() and file_checksum(path) != wanted:
                raise ValueError(f"{path} is damaged (its contents changed): export the model again, or copy it again")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(
                str(graph),
                options,
                providers=["CPUExecutionProvider"],
                # A sum and its norm take longer in one kernel than in two.
                disabled_optimizers=["SkipLayerNormFusion"],
            )
        except Exception as error:  # onnxruntime's errors share no class
            reason = " ".join(str(error).split())[:160]
            raise ValueError(f"{graph} cannot be loaded ({reason}): export the model again") from None
        width = self.session.get_outputs()[0].shape[-1]  # a name in place of a number: it depends on the input
        if isinstance(width, int) and width != self.dim:
            raise ValueError(
                f"{self.folder / ENCODER_FILE} does not belong to {graph.name}: it says {self.dim} dimensions, the"
                f" graph gives {width}: export the model again"
            )
        try:
            self.tokenizer: Any = Tokenizer.from_file(str(words))
        except Exception as error:  # tokenizers raises plain Exception
            raise ValueError(f"{words} cannot be read ({str(error)[:160]}): export the model again") from None
        self.tokenizer.no_padding()
        side = str(facts.get("truncation_side", "right"))  # exports of earlier versions do not say it
        self.tokenizer.enable_truncation(self.max_length, direction=side)

    @classmethod
    def from_pretrained(cls, folder_or_repo: str | Path, revision: str | None = None, **options: Any) -> OnnxEncoder:
        """Open an export in a folder (or in its sub-folder `onnx`), or pull one from the Hub.

        Beside an export, without this package, a pull is not tried again, and of the graph alone the sum is checked.

        Args:
            folder_or_repo: a folder or "user/name".
            revision: of the repository.
            options: of the class.

        Raises:
            FileNotFoundError: if there is no such folder or repository, or it holds no export.
            OSError: if the Hub is in trouble, or what arrived does not have the hash that the Hub promised.
        """
        folder = Path(folder_or_repo)
        if not folder.is_dir():
            wanted = ["*.onnx", "*.onnx_data", "tokenizer.json", ENCODER_FILE]
            wanted += [f"onnx/{name}" for name in wanted]
            folder = _pull(str(folder_or_repo), revision, wanted)
        return cls(folder if (folder / ENCODER_FILE).is_file() else folder / "onnx", **options)

    def encode(self, texts: str | Sequence[str], batch_size: int = 32, prompt: str | None = None) -> np.ndarray:
        """Vectors of texts, float32 `[N, D]`; of one text `[D]`. Texts longer than the model takes are cut.

        Halves of surrogate pairs, which JSON can hold and no tokenizer takes, are read as question marks.

        Args:
            texts: any number.
            batch_size: texts a run; they are sorted by length first.
            prompt: put before each text; by default the model's own.

        Raises:
            TypeError: for what is no text.
        """
        if isinstance(texts, str):
            one: np.ndarray = self.encode([texts], 1, prompt)[0]
            return one
        prompt = self.default_prompt if prompt is None else prompt
        wrong = [text for text in texts if not isinstance(text, str)]
        if wrong:
            raise TypeError(f"encode takes texts, not {type(wrong[0]).__name__}: {str(wrong[0])[:40]}")
        valid = [(prompt + text).encode("utf-8", "replace").decode("utf-8") for text in texts]
        rows = [encoding.ids for encoding in self.tokenizer.encode_batch(valid)]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        vectors = np.empty((len(rows), self.dim), dtype=np.float32)
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            vectors[batch] = self._run([rows[i] for i in batch])
        return vectors

    def encode_query(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of queries, with the model's prompt for them.

        Args:
            texts: any number.
            batch_size: texts a run.

        Raises:
            ValueError: if this is the encoder of documents alone.
        """
        return self.encode(texts, batch_size, self._prompt("query"))

    def encode_document(self, texts: str | Sequence[str], batch_size: int = 32) -> np.ndarray:
        """Vectors of documents, with the model's prompt for them.

        Args:
            texts: any number.
            batch_size: texts a run.

        Raises:
            ValueError: if this is the encoder of queries alone.
        """
        return self.encode(texts, batch_size, self._prompt("document"))

    def _prompt(self, role: str) -> str | None:
        if self.role not in (None, role):
            raise ValueError(
                f"{self.folder} holds {self.name}'s encoder for role '{self.role}' alone: export role '{role}' too, or"
                " use the whole model"
            )
        # As sentence-transformers: the first name that is there counts, even with an empty text.
        return next((self.prompts[name] for name in _ROLES[role] if name in self.prompts), None)

    def _run(self, rows: list[list[int]]) -> np.ndarray:
        longest = max(len(rows[0]), 1)  # rows are sorted
        ids = np.full((len(rows), longest), self.pad_id, dtype=np.int64)
        mask = np.zeros((len(rows), longest), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, 1
        vectors: np.ndarray = self.session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return vectors


def file_checksum(path: Path) -> int:
    """CRC-32 of a file, read in pieces.

    Args:
        path: the file.
    """
    value = 0
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def read_export(folder: Path) -> dict[str, Any]:
    """What `encoder.json` says of an export.

    Args:
        folder: of the export.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    path = folder / ENCODER_FILE
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        missing = {"graphs", "source", "fingerprint", "dim", "max_length", "pad_id", "prompts"} - facts.keys()
    except FileNotFoundError:
        raise FileNotFoundError(f"{folder} holds no exported encoder ({ENCODER_FILE} missing): export one") from None
    except (ValueError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: export the model again") from None
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: export the model again")
    if wrong := _wrong_in(facts):
        raise ValueError(f"{path} is damaged ({wrong}): export the model again")
    return facts


def _wrong_in(facts: dict[str, Any]) -> str:
    """What cannot be in `encoder.json`; empty if nothing is wrong."""
    graphs = facts["graphs"]
    if not isinstance(graphs, dict) or not any(isinstance(graphs.get(name), str) for name in PRECISIONS):
        return f"graphs names none in {' or '.join(PRECISIONS)}"
    for key, name in [*(("graphs", name) for name in graphs.values()), ("tokenizer", facts.get("tokenizer", "x"))]:
        if not isinstance(name, str) or name in ("", "..") or "\0" in name or Path(name).name != name:
            return f"{key} names {name!r:.60}, which is no file of the folder"
    for name, least in _LEAST.items():
        if type(facts[name]) is not int or not least <= facts[name] < 1 << 31:  # True is an int too
            return f"{name} is {facts[name]!r:.40}, a whole number from {least} on is due"
    if not isinstance(facts["prompts"], dict) or not all(isinstance(text, str) for text in facts["prompts"].values()):
        return "prompts is no table of names and texts"
    if not isinstance(facts.get("crc32", {}), dict):
        return "crc32 is no table of files and sums"
    if facts.get("truncation_side", "right") not in ("left", "right"):
        return f"truncation_side is {facts['truncation_side']!r:.40}, left or right is due"
    return ""


def _pull(repo: str, revision: str | None, wanted: list[str]) -> Path:
    if __name__.startswith("rexbert_hf."):
        from rexbert_hf.hub.pull import resolve

        return resolve(repo, revision, wanted)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted))
