"""The rows of a search training step that stopped a run, as a file, and finding the row that is at fault.

One Parquet file a rank, with the texts by column (query, product, ...), the label and what is known of the step: any
reader of tables opens it. Beside it lie the weights that the step began with. Rows are computed one by one, without
dropout: their vectors, their cosine (of a cross-encoder: its score), and the gradient of that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn

from rexbert_hf.hub.loading import loading
from rexbert_hf.retrieval.training.biencoder import find_base
from rexbert_hf.retrieval.training.search_batches import prompt_of
from rexbert_hf.training.replay import find_weights

_HEADER = b"faulty_rows"


@dataclass
class FaultyRows:
    """A step of search training.

    Attributes:
        columns: texts by column, as the step saw them; the first one holds the queries.
        label: of each row, what the loss was given.
        what: "loss" or "gradient's norm".
        value: of it.
        step: from 0.
        seed: of the run.
        rank: whose rows these are.
        bf16: whether the step ran under bfloat16 autocast.
    """

    columns: dict[str, list[str]]
    label: list[Any]
    what: str
    value: float
    step: int
    seed: int
    rank: int = 0
    bf16: bool = False

    @property
    def file_name(self) -> str:
        """Of the file in the run's folder."""
        return f"nonfinite-step-{self.step + 1}-rank-{self.rank}.parquet"

    @property
    def model_name(self) -> str:
        """Of the folder with the weights that the step began with, beside the file."""
        return f"nonfinite-step-{self.step + 1}-model"

    def save(self, path: Path) -> None:
        """Write the file.

        Args:
            path: its folder is made if needed.

        Raises:
            OSError: if it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        known = {name: value for name, value in asdict(self).items() if name not in ("columns", "label")}
        header = json.dumps({**known, "value": repr(float(self.value))})  # NaN is no JSON
        table = pa.table({**self.columns, "label": self.label})
        pq.write_table(table.replace_schema_metadata({_HEADER: header}), path, write_page_checksum=True)

    @classmethod
    def load(cls, path: str | Path) -> FaultyRows:
        """Read a file that `save` wrote.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is another file, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file: a stopped run names its own (nonfinite-step-*)")
        try:
            table = pq.read_table(path, page_checksum_verification=True)
            header = json.loads((table.schema.metadata or {})[_HEADER])
            columns = table.to_pydict()
            label = columns.pop("label")
            known = {item.name for item in fields(cls)}
            chosen = {name: value for name, value in header.items() if name in known}
            return cls(columns, label, **{**chosen, "value": float(chosen["value"])})
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}: not the rows of a stopped step, or damaged ({type(error).__name__}): take the file that the "
                "run named when it stopped"
            ) from None


@dataclass
class RowFinding:
    """One row of a step by itself, without dropout.

    Attributes:
        number: its place in the file, from 0.
        texts: by column.
        label: what the loss was given.
        scores: cosines of the query with each other column; of a cross-encoder its one score.
        gradient_norm: of the sum of these by the weights.
    """

    number: int
    texts: dict[str, str]
    label: Any
    scores: list[float]
    gradient_norm: float

    @property
    def is_finite(self) -> bool:
        """Whether all of it is numbers."""
        return all(math.isfinite(value) for value in (*self.scores, self.gradient_norm))


@dataclass
class RowReplay:
    """What computing the rows of a step again showed.

    Attributes:
        step: what was read.
        weights: folder of the weights that were taken.
        exact: whether they are those that the step began with.
        bad_weights: parameters that hold a value that is no number.
        rows: those that are no numbers first, then those with the largest gradient.
    """

    step: FaultyRows
    weights: Path
    exact: bool
    bad_weights: list[str]
    rows: list[RowFinding]

    def verdict(self) -> str:
        """One line: where to look."""
        if self.bad_weights:
            return f"the weights hold values that are no numbers ({self.bad_weights[0]}): the batch is not at fault"
        bad = [row.number for row in self.rows if not row.is_finite]
        if bad and len(bad) == len(self.rows):
            return "every row gives values that are no numbers: the weights have diverged, the batch is not at fault"
        if bad:
            shown = ", ".join(map(str, sorted(bad)[:5]))
            return f"{len(bad)} of {len(self.rows)} rows give values that are no numbers: they are at fault ({shown})"
        return "each row by itself gives numbers: lower the learning rate, or train in float32 (trainer.bf16 false)"


def replay_rows(path: str | Path, model_folder: str | Path | None = None, device: str = "cpu") -> RowReplay:
    """Compute the rows of a stopped step one by one.

    Args:
        path: the file that the run named.
        model_folder: weights to take; by default those of the step, else of the last checkpoint before it.
        device: where to compute.

    Raises:
        FileNotFoundError: if there is no such file, or no weights.
        ValueError: if the file is damaged or another.
    """
    path = Path(path)
    step = FaultyRows.load(path)
    weights, exact = find_weights(path, step, model_folder)
    model = _load(weights, device)
    bad = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    model.eval()
    rows = [] if bad else [_finding(model, step, number, device) for number in range(len(step.label))]
    rows.sort(key=lambda row: (row.is_finite, -row.gradient_norm if row.is_finite else row.number))
    return RowReplay(step, weights, exact, bad, rows)


def _load(folder: Path, device: str) -> nn.Module:
    """A cross-encoder where the folder says that it is one, else a bi-encoder."""
    folder = find_base(str(folder))
    about = folder / "config_sentence_transformers.json"
    with loading("encoder", folder, "give other weights with --model"):
        is_cross = about.is_file() and json.loads(about.read_text(encoding="utf-8")).get("model_type") == "CrossEncoder"
        kind: Any = CrossEncoder if is_cross else SentenceTransformer
        model: nn.Module = kind(str(folder), device=device)
    return model


def _finding(model: Any, step: FaultyRows, number: int, device: str) -> RowFinding:
    texts = {name: column[number] for name, column in step.columns.items()}
    model.zero_grad(set_to_none=True)
    autocast = torch.autocast(torch.device(device).type, torch.bfloat16) if step.bf16 else nullcontext()
    with torch.enable_grad():
        with autocast:
            scores = _scores(model, texts, device)
        scores.sum().backward()
    gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
    norm = float(nn.utils.get_total_norm(gradients)) if gradients else 0.0
    return RowFinding(number, texts, step.label[number], scores.detach().tolist(), norm)


def _moved(features: Mapping[str, Any], device: str) -> dict[str, Any]:
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in features.items()}


def _scores(model: Any, texts: Mapping[str, str], device: str) -> torch.Tensor:
    """float32 `[columns - 1]`."""
    query, *others = texts
    if isinstance(model, CrossEncoder):
        pairs = [(texts[query], texts[name]) for name in others]
        logits: torch.Tensor = model(_moved(model.preprocess(pairs), device))["scores"]
        return logits.float().reshape(-1)
    vectors = []
    for name, text in texts.items():
        task = "query" if name == query else "document"
        given = model.preprocess([text], prompt=prompt_of(model, task), task=task)
        vectors.append(model({**_moved(given, device), "task": task})["sentence_embedding"].float())
    return torch.cat([nn.functional.cosine_similarity(vectors[0], vector) for vector in vectors[1:]])
