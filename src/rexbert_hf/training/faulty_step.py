"""A step that stopped a run, as a file: its micro-batches and all that its loss depends on beside the weights.

One safetensors file a rank: tensors are named `micro{number}.{name}`, everything else is JSON in the file's header. It
holds no pickle, so a batch that somebody sends may be opened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

_HEADER = "faulty_step"


class LossSpikeError(FloatingPointError):
    """The loss of a step is far above those before it; the weights were not changed by it."""


@dataclass
class FaultyStep:
    """What a step's loss depends on, weights left out.

    Attributes:
        kind: "nonfinite" or "spike".
        what: "loss" or "gradient norm".
        value: of it.
        loss: of the step, over all ranks.
        step: global step, from 0.
        phase: name of its phase.
        seed: of the run.
        ranks: processes of the run; the file holds the micro-batches of one.
        rank: which one.
        bf16: whether the forward pass ran under bfloat16 autocast.
        counts: what each loss part is divided by: labelled tokens, triplets.
        modes: weight of each masking mode that the step ran.
        batches: by number of the micro-batch in the step, the inputs of the model.
    """

    kind: str
    what: str
    value: float
    loss: float
    step: int
    phase: str
    seed: int
    ranks: int = 1
    rank: int = 0
    bf16: bool = False
    counts: dict[str, int] = field(default_factory=dict)
    modes: dict[str, float] = field(default_factory=lambda: {"word": 1.0})
    batches: dict[int, dict[str, Any]] = field(default_factory=dict)

    @property
    def file_name(self) -> str:
        """Of the file in the run's folder."""
        return f"{self.kind}-step-{self.step + 1}-rank-{self.rank}.safetensors"

    @property
    def model_name(self) -> str:
        """Of the folder with the weights that the step began with, beside the file."""
        return f"{self.kind}-step-{self.step + 1}-model"

    def save(self, path: Path) -> None:
        """Write the file.

        Args:
            path: its folder is made if needed.

        Raises:
            OSError: if it cannot be written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        tensors, numbers = {}, {}
        for micro, batch in self.batches.items():
            for name, value in batch.items():
                if isinstance(value, torch.Tensor):
                    tensors[f"micro{micro}.{name}"] = value.contiguous().cpu().clone()
                else:
                    numbers[f"micro{micro}.{name}"] = value
        header = {name: value for name, value in asdict(_without_batches(self)).items() if name != "batches"}
        # NaN is no JSON: text keeps the header readable to everybody.
        header |= {name: repr(float(header[name])) for name in ("value", "loss")}
        try:
            save_file(tensors, path, metadata={_HEADER: json.dumps(header | {"numbers": numbers}), "format": "pt"})
        except SafetensorError as error:
            path.unlink(missing_ok=True)
            raise OSError(str(error)) from error

    @classmethod
    def load(cls, path: str | Path) -> FaultyStep:
        """Read a file that `save` wrote.

        Args:
            path: the file.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if it is another file, or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"{path}: no such file: a stopped run names its own (nonfinite-step-*, spike-step-*)"
            )
        try:
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {})[_HEADER])
                numbers = header.pop("numbers")
                values: dict[str, Any] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header |= {name: float(header[name]) for name in ("value", "loss")}
            known = {item.name for item in fields(cls)}
            found = cls(**{name: value for name, value in header.items() if name in known})
            for key, value in (values | numbers).items():
                micro, _, name = key.partition(".")
                found.batches.setdefault(int(micro.removeprefix("micro")), {})[name] = value
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path}: not the batch of a stopped step, or damaged ({type(error).__name__}): take the file that the "
                "run named when it stopped"
            ) from None
        return found


def _without_batches(step: FaultyStep) -> FaultyStep:
    shallow: Mapping[str, Any] = {item.name: getattr(step, item.name) for item in fields(step)}
    return FaultyStep(**{**shallow, "batches": {}})
