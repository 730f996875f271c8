"""One engine for everything that is fine-tuned here: classes, numbers, sets of classes, word tags, answers.

A plain loop and not the Trainer: rows are short and models small, so what counts is that no time goes into padding,
and that nothing but (model, rows, grid, seed) decides the figures. AdamW with linear warm-up and decay; after every
epoch the dev split is scored, and the best epoch of the best cell of the grid is what comes out.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from rexbert_hf.evaluation.fine_tuning_batches import Feature, bucketed, by_length, flat, padded
from rexbert_hf.evaluation.fine_tuning_heads import (
    MultiLabelHead,
    RegressionHead,
    SequenceHead,
    SpanHead,
    TokenHead,
)
from rexbert_hf.evaluation.fine_tuning_match import MatchHead
from rexbert_hf.evaluation.fine_tuning_model import load_head_model, load_tokenizer
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row, check_rows, labels_of
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.evaluation.training_steps import TrainingSteps
from rexbert_hf.models.padded_positions import longest_text
from rexbert_hf.retrieval.training.biencoder import find_base
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.heldout import accepts_flat

logger = logging.getLogger(__name__)

UNDEFINED = -1.0
"""Stands for a dev figure that is no number: a correlation with a constant."""

HEADS: dict[str, type[SequenceHead]] = {
    head.name: head for head in (SequenceHead, MatchHead, RegressionHead, MultiLabelHead, TokenHead, SpanHead)
}
"""The heads by name."""

Metric = Callable[[Any, Sequence[Row]], float]
"""Figure of answers (as `FineTuned.predict` gives them) to rows; higher is better."""


@dataclass(frozen=True)
class Trial:
    """One cell of the grid.

    Attributes:
        learning_rate: peak rate.
        epochs: passes over the training rows.
        scores: the dev figure after each epoch; it ends early where the loss was no number any more.
    """

    learning_rate: float
    epochs: int
    scores: tuple[float, ...]

    @property
    def best(self) -> float:
        """The highest figure; minus infinity where there is none."""
        return max(self.scores, default=-np.inf)


@dataclass
class FineTuned:
    """A fitted model.

    Attributes:
        model: a stock `AutoModelFor...`, in evaluation mode.
        tokenizer: of it.
        head: its head.
        max_length: longest input in tokens.
        batch_size: texts of one forward pass.
        trials: all cells of the grid; the best one is what `model` holds.
        notes: what a reader of its figures must know.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    head: SequenceHead
    max_length: int
    batch_size: int = 64
    trials: list[Trial] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def labels(self) -> list[str]:
        """Classes or tags, in the order of their numbers."""
        return self.head.labels

    def predict(self, rows: Sequence[Row]) -> Any:
        """Answers to rows, in their order.

        "sequence" and "match": class numbers, int64 `[N]`; "regression": float64 `[N]`; "multi_label": probabilities,
        float64 `[N, C]`; "token": a list of tags for each row; "span": (first character, one past the last) or None
        each.

        Args:
            rows: their labels are not read.
        """
        if not len(rows):
            raise ValueError("there is no row to predict")
        return self._answers(rows, settle=False)

    def settle(self, rows: Sequence[Row]) -> Any:
        """Let the dev split decide what the head leaves to it, and return the answers to it.

        Args:
            rows: of the dev split.
        """
        return self._answers(rows, settle=True)

    def finish(self, rows: Sequence[Row]) -> None:
        """Put what the dev split decides into the weights: the last epoch that was tried need not be the best one.

        Args:
            rows: of the dev split.
        """
        if self.head.settles:
            self.settle(rows)
            self.head.finish(self.model)

    def _answers(self, rows: Sequence[Row], settle: bool) -> Any:
        features = self.head.encode(self.tokenizer, rows, self.max_length, learn=False)
        logits = self.logits(features)
        if settle:
            self.head.settle(logits, rows)
        return self.head.answers(logits, features, rows)

    @torch.no_grad()
    def logits(self, features: Sequence[Feature]) -> list[np.ndarray]:
        """Logits of encoded rows, in their order.

        Args:
            features: of `head.encode`.
        """
        lengths = np.array([len(one.ids) for one in features])
        found: list[np.ndarray] = [np.zeros(0)] * len(features)
        self.model.eval()
        for batch in by_length(lengths, self.batch_size):
            chosen = [features[i] for i in batch]
            for i, row in zip(batch, _forward(self, chosen, learn=False)[1], strict=True):
                found[i] = row
        return found

    def save(self, folder: str | Path) -> None:
        """Save model and tokenizer as a checkpoint that transformers' Auto classes and pipelines open.

        Args:
            folder: where to.
        """
        self.head.finish(self.model)
        self.model.save_pretrained(folder)  # type: ignore[operator]
        self.tokenizer.save_pretrained(folder)


def fine_tune(
    model: str | Path,
    head: HeadName,
    train: Sequence[Row],
    dev: Sequence[Row],
    *,
    labels: Sequence[str] | None = None,
    tuning: Tuning | None = None,
    seed: int = 0,
    max_length: int = 128,
    metric: Metric | None = None,
    pooling: str | None = None,
    device: str | None = None,
    warmup: float = 0.1,
    weight_decay: float = 0.01,
) -> FineTuned:
    """Fine-tune a model with a head, and choose epoch, rate and number of epochs on the dev split.

    Args:
        model: folder, Hub id, or the distribution that carries MiniLM.
        head: what is predicted.
        train: rows to learn from.
        dev: rows to choose by.
        labels: classes or tags that exist; those of the training rows by default.
        tuning: the grid; by default one cell.
        seed: of drawn weights, order and dropout.
        max_length: longest input in tokens; a longer context of "span" is read in windows.
        metric: by which the dev split chooses; the head's own by default.
        pooling: "cls" or "mean", for architectures that leave the choice; None keeps the model's.
        device: where to train; a GPU where there is one.
        warmup: share of the steps with a rising rate.
        weight_decay: of matrices, as in AdamW.

    Raises:
        ValueError: if a split is empty, a label is outside the set, the training rows have one class only, the model
            has no such head, or no cell of the grid gave a finite loss.

    Example:
        >>> import tempfile
        >>> from rexbert_hf.data.vocabulary import train_tokenizer
        >>> from rexbert_hf.models import RexBertConfig, RexBertModel
        >>> folder = tempfile.mkdtemp()
        >>> tokenizer = train_tokenizer(["red mug", "oak desk"] * 2, vocab_size=384)
        >>> tokenizer.save_pretrained(folder) and None
        >>> config = RexBertConfig(vocab_size=384, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        ...     num_attention_heads=1, pad_token_id=tokenizer.pad_token_id)
        >>> RexBertModel(config).save_pretrained(folder)
        >>> rows = [Row("red mug", label="cup"), Row("oak desk", label="table")] * 8
        >>> fitted = fine_tune(folder, "sequence", rows, rows[:2], tuning=Tuning((3e-3,), (4,), batch_size=4))
        >>> [fitted.labels[i] for i in fitted.predict(rows[:2])]
        ['cup', 'table']
    """
    tuning = tuning or Tuning()
    made = _head_for(head, train, dev, labels)
    folder = find_base(str(model))
    tokenizer = load_tokenizer(folder)
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if place.type == "cpu":
        tune_cpu()
    best: FineTuned | None = None
    trials: list[Trial] = []
    features: list[Feature] = []
    for rate, epochs in tuning.cells():
        with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
            torch.manual_seed(seed)
            found, notes = load_head_model(folder, made, tokenizer, pooling)
            made.begin(found.to(place), train)
            limit = length_limit(found, tokenizer, max_length)
            features = features or made.encode(tokenizer, train, limit, learn=True)
            fitted = FineTuned(found, tokenizer, made, limit, 2 * tuning.batch_size, notes=notes)
            loop = _Loop(fitted, features, dev, metric or made.score, warmup, weight_decay)
            trials.append(loop.run(rate, epochs, tuning.batch_size, np.random.default_rng(seed)))
        if best is None or trials[-1].best > max(trial.best for trial in trials[:-1]):
            best = fitted
    assert best is not None
    if max(trial.best for trial in trials) == -np.inf:
        raise ValueError(f"{model}: the loss was no number in any of {len(trials)} runs: lower the learning rates")
    best.trials = trials
    best.finish(dev)
    return best


def _head_for(head: HeadName, train: Sequence[Row], dev: Sequence[Row], labels: Sequence[str] | None) -> SequenceHead:
    """The head, with all that it takes from the rows."""
    known = list(labels_of(head, train) if labels is None else labels)
    check_rows(head, train, known, "training")
    check_rows(head, dev, known, "dev", several=HEADS[head].settles)
    made = HEADS[head](known)
    if isinstance(made, RegressionHead):
        made.fit_scale(train)
    if isinstance(made, SpanHead):
        made.may_be_none = any(row.label is None for row in train)
    return made


def length_limit(model: nn.Module, tokenizer: PreTrainedTokenizerBase, wanted: int) -> int:
    """The longest input that all of model, tokenizer and caller allow.

    Args:
        model: has so many positions.
        tokenizer: may say less.
        wanted: by the caller.
    """
    positions = longest_text(model)
    return min(wanted, tokenizer.model_max_length, wanted if positions is None else positions)


def _forward(fitted: FineTuned, features: Sequence[Feature], learn: bool) -> tuple[torch.Tensor | None, Any]:
    """Loss and, where nothing is learnt, the logits of each feature."""
    is_flat = fitted.head.flat and accepts_flat(fitted.model)
    pad_id: Any = fitted.tokenizer.pad_token_id
    inputs = flat(features) if is_flat else padded(features, pad_id)
    if learn:
        inputs |= fitted.head.inputs(features, is_flat)
    device = next(fitted.model.parameters()).device
    moved = {name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in inputs.items()}
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        output = fitted.model(**moved)
    return (output.loss, None) if learn else (None, fitted.head.outputs(output, features, is_flat))


@dataclass
class _Loop:
    """Training of one cell."""

    fitted: FineTuned
    features: list[Feature]
    dev: Sequence[Row]
    metric: Metric
    warmup: float
    weight_decay: float

    def run(self, rate: float, epochs: int, batch_size: int, rng: np.random.Generator) -> Trial:
        """Train, and leave the model as it was after its best epoch."""
        model = self.fitted.model
        lengths = np.array([len(one.ids) for one in self.features])
        passes = [bucketed(lengths, batch_size, rng) for _ in range(epochs)]
        steps = TrainingSteps(model, rate, sum(map(len, passes)), self.warmup, self.weight_decay)
        scores: list[float] = []
        kept = None
        for batches in passes:
            model.train()
            for batch in batches:
                loss, _ = _forward(self.fitted, [self.features[i] for i in batch], learn=True)
                assert loss is not None
                if not steps.take(loss):
                    logger.warning("rate %g: the loss of step %d is no number; this run ends here", rate, steps.done)
                    return self._end(rate, epochs, scores, kept)
            score = float(self.metric(self.fitted.settle(self.dev), self.dev))
            scores.append(score if np.isfinite(score) else UNDEFINED)
            if scores[-1] > max(scores[:-1], default=-np.inf) and len(scores) < epochs:
                kept = copy.deepcopy(model.state_dict())
        last = scores[-1] > max(scores[:-1], default=-np.inf)
        return self._end(rate, epochs, scores, None if last else kept)

    def _end(self, rate: float, epochs: int, scores: list[float], kept: dict[str, torch.Tensor] | None) -> Trial:
        if kept is not None:
            self.fitted.model.load_state_dict(kept)
        logger.info("rate %g, %d epochs: %s", rate, epochs, ", ".join(f"{score:.4f}" for score in scores))
        return Trial(rate, epochs, tuple(scores))
