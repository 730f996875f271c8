"""Computing the loss of a stopped step again, and finding the document that is at fault.

With the weights that the step began with the loss is that of the run, bit for bit on the same machine, because dropout
is seeded by the step. Documents are then computed one by one, without dropout. If all are bad, the weights are, not the
data.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from rexbert_hf.hub.loading import loading
from rexbert_hf.training.adaptive import inputs_of
from rexbert_hf.training.checkpoint import last_complete_checkpoint
from rexbert_hf.training.faulty_step import FaultyStep
from rexbert_hf.training.masked_loss import forward_with_loss
from rexbert_hf.training.neighbors import TRIPLETS
from rexbert_hf.training.padded_parts import PARTS, parts_of
from rexbert_hf.training.reproducing import seed_generators

IGNORED = -100
_FORWARD = {"input_ids", "labels", "position_ids", "attention_mask", "cu_seq_lens_q", "cu_seq_lens_k"}
_FORWARD |= {"max_length_q", "max_length_k", "phrase_input_ids", "phrase_labels", TRIPLETS, "content_mask", PARTS}
_OTHER_WEIGHTS = "give other weights with --model"


@dataclass
class DocumentLoss:
    """One document of a step by itself, without dropout.

    Attributes:
        micro: its micro-batch.
        number: its place there, from 0.
        mode: "word" or "phrase".
        loss: sum over its labelled tokens.
        input_ids: int64 `[N]`, as masked.
        labels: int64 `[N]`.
    """

    micro: int
    number: int
    mode: str
    loss: float
    input_ids: torch.Tensor
    labels: torch.Tensor

    @property
    def num_labels(self) -> int:
        """Labelled tokens."""
        return int((self.labels != IGNORED).sum())

    @property
    def mean(self) -> float:
        """Loss of a labelled token."""
        return self.loss / max(1, self.num_labels)

    @property
    def severity(self) -> float:
        """What to sort by: not a number comes first."""
        return self.mean if math.isfinite(self.mean) else math.inf


@dataclass
class Replay:
    """What computing a step again showed.

    Attributes:
        step: what was read.
        weights: folder of the weights that were taken.
        exact: whether they are those that the step began with.
        loss: of the step, over the micro-batches at hand.
        parts: its parts: mlm, mlm_phrase, npr.
        gradient_norm: of the whole step.
        bad_weights: parameters that hold a value that is no number.
        documents: worst first.
        missing_ranks: whose files were not there.
    """

    step: FaultyStep
    weights: Path
    exact: bool
    loss: float
    parts: dict[str, float]
    gradient_norm: float
    bad_weights: list[str]
    documents: list[DocumentLoss]
    missing_ranks: list[int]

    def verdict(self) -> str:
        """One line: where to look."""
        if self.bad_weights:
            return f"the weights hold values that are no numbers ({self.bad_weights[0]}): the batch is not at fault"
        bad = [document for document in self.documents if not math.isfinite(document.loss)]
        if bad and len(bad) == len(self.documents):
            return "every document gives a loss that is no number: the weights have diverged, the batch is not at fault"
        if bad:
            return f"{len(bad)} of {len(self.documents)} documents give a loss that is no number: they are at fault"
        if not self.documents:
            return "documents of this model cannot be computed one by one"
        worst, means = self.documents[0], sorted(document.mean for document in self.documents)
        median = means[len(means) // 2]
        place = f"document {worst.number} of micro-batch {worst.micro}"
        return f"{place} has the highest loss, {worst.mean:.4g} a token; half of the documents are below {median:.4g}"


def replay(path: str | Path, model_folder: str | Path | None = None, device: str = "cpu") -> Replay:
    """Compute the loss of a stopped step again, as a whole and document by document.

    Args:
        path: the file that the run named; those of other ranks are taken from beside it.
        model_folder: weights to take; by default those of the step, else of the last checkpoint before it.
        device: where to compute.

    Raises:
        FileNotFoundError: if there is no such file, or no weights.
        ValueError: if the file is damaged or another.
    """
    path = Path(path)
    first = FaultyStep.load(path)
    steps, missing = _all_ranks(path, first)
    weights, exact = find_weights(path, first, model_folder)
    model = load_model(weights).to(device)
    bad = [name for name, value in model.named_parameters() if not bool(torch.isfinite(value).all())]
    parts: Counter[str] = Counter()
    loss = 0.0
    for step in steps:
        loss += _add_step(model, step, device, parts)
    norms = [value.grad.norm() for value in model.parameters() if value.grad is not None]
    norm = float(torch.stack(norms).norm()) if norms else 0.0
    model.eval()
    documents = [found for step in steps for found in document_losses(model, step, device)]
    documents.sort(key=lambda document: -document.severity)
    return Replay(first, weights, exact, loss, dict(parts), norm, bad, documents, missing)


def load_model(folder: Path) -> nn.Module:
    """The model of a folder, of the class that its config names; no code of the folder is run.

    Args:
        folder: of a checkpoint.

    Raises:
        ValueError: if the config names a class that neither this package nor transformers has.
    """
    import transformers

    from rexbert_hf.models import modeling_rexbert

    with loading("model", folder, _OTHER_WEIGHTS):
        names = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False).architectures or []
    for name in names:
        found = getattr(modeling_rexbert, name, None) or getattr(transformers, name, None)
        if found is not None:
            with loading("model", folder, _OTHER_WEIGHTS):
                model: nn.Module = found.from_pretrained(folder, dtype="auto")
            return model
    raise ValueError(f"{folder}/config.json: no known model class in 'architectures' ({', '.join(names) or 'empty'})")


def _all_ranks(path: Path, first: FaultyStep) -> tuple[list[FaultyStep], list[int]]:
    """The steps of all ranks whose files lie beside this one, and the ranks that have none."""
    steps, missing = [first], []
    for rank in range(first.ranks):
        if rank != first.rank:
            other = path.with_name(path.name.replace(f"-rank-{first.rank}.", f"-rank-{rank}."))
            if other.is_file():
                steps.append(FaultyStep.load(other))
            else:
                missing.append(rank)
    return steps, missing


class Stopped(Protocol):
    """A step that stopped a run."""

    step: int

    @property
    def model_name(self) -> str:
        """Of the folder with its weights, beside the file."""


def find_weights(path: Path, step: Stopped, given: str | Path | None) -> tuple[Path, bool]:
    """The folder of the weights to take, and whether they are those that the step began with.

    Args:
        path: of the step's file.
        step: what was read.
        given: the user's choice; None for those beside the file, else of the last checkpoint.

    Raises:
        FileNotFoundError: if there are none.
    """
    if given is not None:
        return Path(given), Path(given).name == step.model_name
    own = path.with_name(step.model_name)
    if own.is_dir():
        return own, True
    last = last_complete_checkpoint(path.parent)
    if last is None:
        raise FileNotFoundError(f"{path.parent} holds neither {step.model_name} nor a whole checkpoint: give --model")
    return last.path, last.step == step.step


def _autocast(step: FaultyStep, device: str) -> Any:
    return torch.autocast(torch.device(device).type, torch.bfloat16) if step.bf16 else nullcontext()


def _add_step(model: nn.Module, step: FaultyStep, device: str, parts: Counter[str]) -> float:
    """The loss of a rank's micro-batches, summed as the trainer does; parts and gradients are added up."""
    model.train()
    summed: torch.Tensor | None = None
    for micro, batch in step.batches.items():
        seed_generators(step.seed, step.step, micro)
        done: Any = 0.0
        for inputs in parts_of(batch):
            moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}
            done = done + _add_inputs(model, step, moved, device, parts)
        summed = done if summed is None else summed + done
    return 0.0 if summed is None else float(summed)


def _add_inputs(
    model: nn.Module, step: FaultyStep, inputs: dict[str, Any], device: str, parts: Counter[str]
) -> torch.Tensor:
    """Forward and backward of what goes through the model at once, in each mode of the step; its loss."""
    total: Any = 0.0
    for mode, weight in step.modes.items():
        name = "mlm" if mode == "word" else "mlm_phrase"
        with _autocast(step, device):
            shares = _shares(model, step, inputs_of(inputs, mode), name)
        for part, value in shares.items():
            parts[part] += weight * float(value.detach())  # type: ignore[assignment]
            total = total + weight * value
    total.backward()
    found: torch.Tensor = total.detach()
    return found


def _shares(model: nn.Module, step: FaultyStep, inputs: dict[str, Any], name: str) -> dict[str, torch.Tensor]:
    count = max(1, step.counts.get(name, step.counts.get("mlm", 1)))
    triplets = inputs.get(TRIPLETS)
    if triplets is not None and not len(triplets):
        inputs = {key: value for key, value in inputs.items() if key not in (TRIPLETS, "content_mask")}
        triplets = None
    outputs, loss = forward_with_loss(model, inputs, torch.tensor(count, device=inputs["input_ids"].device))
    if triplets is None:
        return {name: loss}
    if getattr(outputs, "npr_loss", None) is None:
        raise ValueError(f"{type(model).__name__} has no reconstruction loss: only RexBertForPreTraining is replayed")
    share = len(triplets) / max(1, step.counts.get("npr", 1))
    return {name: outputs.mlm_loss, "npr": model.config.npr_weight * share * outputs.npr_loss}  # type: ignore[union-attr,operator]


@torch.no_grad()
def document_losses(model: nn.Module, step: FaultyStep, device: str = "cpu") -> Iterator[DocumentLoss]:
    """Each document of a step by itself; nothing for batches with inputs that cannot be cut by document.

    Args:
        model: in evaluation mode.
        step: what was read.
        device: of the model.
    """
    for micro, batch in step.batches.items():
        if not set(batch) <= _FORWARD or batch["labels"].dim() != 2:  # [D]: a label for each pair
            continue
        for mode in step.modes:
            documents = (_documents(inputs_of(part, mode)) for part in parts_of(batch))
            for number, (ids, labels) in enumerate(itertools.chain.from_iterable(documents)):
                if not bool((labels != IGNORED).any()):
                    continue
                moved = {"input_ids": ids[None].to(device), "labels": labels[None].to(device)}
                with _autocast(step, device):
                    _, loss = forward_with_loss(model, moved, torch.tensor(1, device=device))
                yield DocumentLoss(micro, number, mode, float(loss), ids, labels)


def token_losses(model: nn.Module, document: DocumentLoss, device: str = "cpu") -> torch.Tensor:
    """Loss of each labelled token of a document, float32 `[M]`.

    Args:
        model: in evaluation mode.
        document: one of the step's.
        device: of the model.
    """
    with torch.no_grad():
        logits = model(input_ids=document.input_ids[None].to(device)).logits[0].float().cpu()
    picked = document.labels != IGNORED
    return nn.functional.cross_entropy(logits[picked], document.labels[picked], reduction="none")


def _documents(inputs: dict[str, Any]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Ids and labels of each document, padding left out."""
    ids, labels = inputs["input_ids"], inputs["labels"]
    if "cu_seq_lens_q" in inputs:
        borders = inputs["cu_seq_lens_q"].tolist()
        for start, stop in itertools.pairwise(borders):
            yield ids[0, start:stop], labels[0, start:stop]
        return
    mask = inputs.get("attention_mask")
    for row in range(len(ids)):
        kept = slice(None) if mask is None else mask[row].bool()
        yield ids[row][kept], labels[row][kept]
