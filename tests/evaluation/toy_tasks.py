"""Tasks that need no data, and count how often they run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from rexbert_hf.evaluation.task import DataMissing, Task, TaskOptions, TaskResult, TaskSource, content_hash

RUNS: Counter[str] = Counter()
STATE: dict[str, Any] = {"data": "first", "stop_at": None}


class Toy(Task):
    """Accuracy that depends on model and seed.

    Second paragraph of the protocol.
    """

    name: ClassVar[str] = "toy"
    title: ClassVar[str] = "A toy"
    paper: ClassVar[str] = "none"
    data: ClassVar[str] = "made up"
    dataset_name: ClassVar[str] = "text, label"
    split: ClassVar[str] = "none"
    metric: ClassVar[str] = "accuracy"
    comparable: ClassVar[str] = "no"
    baselines: ClassVar[tuple[str, ...]] = ("random",)

    def load(self, source: TaskSource) -> Any:
        return STATE["data"]

    def fingerprint(self, data: Any) -> str:
        return content_hash(data)

    def run(self, model: str, data: Any, seed: int, options: TaskOptions) -> TaskResult:
        name = Path(model).name
        if STATE["stop_at"] == (self.name, name, seed):
            raise KeyboardInterrupt
        RUNS[f"{self.name} {name} {seed}"] += 1
        share = 0.2 if name == "random" else json.loads((Path(model) / "config.json").read_text())["share"]
        rng = np.random.default_rng([seed, int(share * 100)])
        examples = (rng.random(200) < share).astype(float)
        return TaskResult({"accuracy": examples.mean(), "double": 2 * examples.mean()}, examples, {"test": 200},
                          {"typos": examples[:50].mean()}, ("made up",))  # fmt: skip


class Median(Toy):
    """A figure that is no function of sums."""

    name: ClassVar[str] = "median"
    title: ClassVar[str] = "A median"
    metric: ClassVar[str] = "median"
    additive: ClassVar[bool] = False
    domain: ClassVar[bool] = False
    trains: ClassVar[bool] = False
    baselines: ClassVar[tuple[str, ...]] = ()

    def run(self, model: str, data: Any, seed: int, options: TaskOptions) -> TaskResult:
        RUNS[f"{self.name} {Path(model).name} {seed}"] += 1
        examples = np.random.default_rng(seed).random((60, 1))
        return TaskResult({"median": self.score(examples)}, examples)

    def score(self, examples: np.ndarray) -> float:
        return float(np.median(examples[:, 0]))


class Missing(Toy):
    """Without data."""

    name: ClassVar[str] = "missing"
    title: ClassVar[str] = "Without data"

    def load(self, source: TaskSource) -> Any:
        raise DataMissing("missing: no missing/train.tsv in the data folder")


class Broken(Toy):
    """Fails while it runs."""

    name: ClassVar[str] = "broken"
    title: ClassVar[str] = "Broken"

    def run(self, model: str, data: Any, seed: int, options: TaskOptions) -> TaskResult:
        raise RuntimeError("out of luck")


class BadRow(Toy):
    """Fails while it reads."""

    name: ClassVar[str] = "bad_row"
    title: ClassVar[str] = "Bad row"

    def load(self, source: TaskSource) -> Any:
        raise ValueError("bad_row/train.tsv, row 3: label 7 is not in the set")


class Liar(Toy):
    """Says another figure than its examples."""

    name: ClassVar[str] = "liar"
    title: ClassVar[str] = "Liar"

    def run(self, model: str, data: Any, seed: int, options: TaskOptions) -> TaskResult:
        return TaskResult({"accuracy": 0.9}, np.array([0.0, 1.0]))


TOYS = {one.name: f"toy_tasks:{one.__name__}" for one in (Toy, Median, Missing, Broken, BadRow, Liar)}


def write_model(folder: Path, share: float) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"share": share}))
    return str(folder)
