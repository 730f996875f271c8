"""The heads that `fine_tune` knows: how rows become features, what is learnt, how logits become answers.

Each is a stock `AutoModelFor...` class, so that a fitted model is saved as a checkpoint that transformers' pipelines
open, and our models keep the prediction head that pre-training left them.

Words are joined by spaces and tokenised as running text, then matched by characters. For byte-level BPE that gives
every word the space in front that it had in pre-training, which `is_split_into_words` does not without
`add_prefix_space` (five points of F1 on CoNLL), and it needs no option of the tokenizer.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerBase,
)

from rexbert_hf.evaluation.fine_tuning_batches import Feature, tags
from rexbert_hf.evaluation.fine_tuning_rows import HeadName, Row
from rexbert_hf.evaluation.fine_tuning_spans import answers_of, overlap, span_features

logger = logging.getLogger(__name__)


class SequenceHead:
    """A classification head: one class a text or pair of texts.

    Args:
        labels: classes.
    """

    name: HeadName = "sequence"
    auto: Any = AutoModelForSequenceClassification
    flat = True
    settles = False

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = list(labels)
        self.number = {label: i for i, label in enumerate(self.labels)}

    def config(self) -> dict[str, Any]:
        """Fields of the model's configuration."""
        names = {"id2label": dict(enumerate(self.labels)), "label2id": self.number}
        return {"problem_type": "single_label_classification", **names}

    def begin(self, model: nn.Module, rows: Sequence[Row]) -> None:
        """Set what the new layer begins with; drawn weights and a bias of zero, unless the head knows better.

        Args:
            model: with the new layer.
            rows: to learn from.
        """

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, learn: bool
    ) -> list[Feature]:
        """Tokenise rows.

        Args:
            tokenizer: of the model.
            rows: to encode.
            max_length: longer texts are cut, the longer of a pair first.
            learn: set the targets.
        """
        if any((row.pair is None) != (rows[0].pair is None) for row in rows):
            raise ValueError("some rows have a second text and some have none: give all or none one")
        texts = [row.text for row in rows]
        pairs = None if rows[0].pair is None else [row.pair for row in rows]
        found = tokenizer(texts, pairs, truncation=True, max_length=max_length, **wanted(tokenizer))
        types = found.get("token_type_ids", [None] * len(rows))
        targets = [self.target(row) if learn else None for row in rows]
        columns = zip(found["input_ids"], types, targets, strict=True)
        return [Feature(i, ids, kinds, target) for i, (ids, kinds, target) in enumerate(columns)]

    def target(self, row: Row) -> Any:
        """What is learnt from a row.

        Args:
            row: with its label.
        """
        return self.number[row.label]

    def inputs(self, features: Sequence[Feature], is_flat: bool) -> dict[str, Tensor]:
        """Targets of a batch under the names that the model gives them.

        Args:
            features: of one batch.
            is_flat: whether the inputs are a flat batch.
        """
        return {"labels": torch.tensor([one.target for one in features])}

    def outputs(self, output: Any, features: Sequence[Feature], is_flat: bool) -> list[np.ndarray]:
        """Logits of each feature.

        Args:
            output: of the model.
            features: of the batch.
            is_flat: whether the inputs were a flat batch.
        """
        return list(output.logits.float().cpu().numpy())

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """Answers in the order of the rows: class numbers, int64 `[N]`.

        Args:
            logits: of `outputs`, in the order of the features.
            features: all.
            rows: that they come from.
        """
        return np.argmax(np.stack(logits), axis=1)

    def settle(self, logits: Sequence[np.ndarray], rows: Sequence[Row]) -> None:
        """Set what the dev split decides beside the epoch; nothing for most heads.

        Args:
            logits: of the dev rows.
            rows: with their labels.
        """

    def finish(self, model: nn.Module) -> None:
        """Put what the head knows beside them into the weights, so that the saved checkpoint answers alike.

        Args:
            model: that was chosen.
        """

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """Figure by which the dev split chooses where the caller brings none: accuracy.

        Args:
            answers: of `answers`.
            rows: with their labels.
        """
        return float(np.mean(answers == np.array([self.number[row.label] for row in rows])))


def last_layer(model: nn.Module, outputs: int) -> nn.Linear | None:
    """The layer that gives a head's logits, where it has a bias.

    Args:
        model: with the head.
        outputs: logits of a row.
    """
    found = [one for one in model.modules() if isinstance(one, nn.Linear) and one.out_features == outputs]
    return found[-1] if found and found[-1].bias is not None else None


class RegressionHead(SequenceHead):
    """A number a text or pair; targets are standardised while training and scaled back in the answers."""

    name = "regression"

    def __init__(self, labels: Sequence[str] = ()) -> None:
        super().__init__(["value"])
        self.centre, self.spread = 0.0, 1.0

    def config(self) -> dict[str, Any]:
        """One output, mean squared error."""
        return {**super().config(), "problem_type": "regression"}

    def fit_scale(self, rows: Sequence[Row]) -> None:
        """Take centre and spread of the training rows."""
        values = np.array([float(row.label) for row in rows])
        self.centre, self.spread = float(values.mean()), float(values.std()) or 1.0

    def target(self, row: Row) -> float:
        """The standardised number."""
        return (float(row.label) - self.centre) / self.spread

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """Numbers, float64 `[N]`."""
        return np.stack(logits)[:, 0].astype(np.float64) * self.spread + self.centre

    @torch.no_grad()
    def finish(self, model: nn.Module) -> None:
        """Put centre and spread into the last layer: then its output is the number itself."""
        last = last_layer(model, 1)
        if last is not None:
            last.weight *= self.spread
            last.bias.mul_(self.spread).add_(self.centre)
            self.centre, self.spread = 0.0, 1.0

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """Less the mean squared error."""
        return -float(np.mean((answers - np.array([float(row.label) for row in rows])) ** 2))


class MultiLabelHead(SequenceHead):
    """Any number of classes a text."""

    name = "multi_label"

    def config(self) -> dict[str, Any]:
        """One sigmoid a class."""
        return {**super().config(), "problem_type": "multi_label_classification"}

    def target(self, row: Row) -> np.ndarray:
        """Zeros and ones, `[C]`."""
        found = np.zeros(len(self.labels), dtype=np.float32)
        found[[self.number[one] for one in row.label]] = 1.0
        return found

    @torch.no_grad()
    def begin(self, model: nn.Module, rows: Sequence[Row]) -> None:
        """Biases begin at the log odds of each class.

        From zero, hundreds of steps would teach no more than that most of many classes are rare, and all of them would
        push the encoder the same way (with 170 classes it gave the same answer for every text afterwards).
        """
        last = last_layer(model, len(self.labels))
        if last is not None:
            least = 0.5 / len(rows)
            shares = np.clip(np.mean([self.target(row) for row in rows], axis=0, dtype=np.float64), least, 1 - least)
            last.bias.copy_(torch.from_numpy(np.log(shares) - np.log1p(-shares)))

    def inputs(self, features: Sequence[Feature], is_flat: bool) -> dict[str, Tensor]:
        """Targets, `[B, C]`."""
        return {"labels": torch.from_numpy(np.stack([one.target for one in features]))}

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """Probabilities, float64 `[N, C]`; .5 is the natural threshold."""
        return 1.0 / (1.0 + np.exp(-np.stack(logits).astype(np.float64)))

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """Micro-F1 at .5."""
        gold, said = np.stack([self.target(row) for row in rows]) > 0, answers > 0.5
        return float(2 * (gold & said).sum() / max(1, gold.sum() + said.sum()))


class TokenHead(SequenceHead):
    """A tag for each word, learnt and read at the first token of the word."""

    name = "token"
    auto = AutoModelForTokenClassification
    warned = False

    def config(self) -> dict[str, Any]:
        """The tags."""
        return {"id2label": dict(enumerate(self.labels)), "label2id": self.number}

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, learn: bool
    ) -> list[Feature]:
        """Tokenise the words as running text; see the module's docstring."""
        texts = [" ".join(row.text) for row in rows]
        options = {"return_offsets_mapping": True, "return_special_tokens_mask": True, **wanted(tokenizer)}
        found = tokenizer(texts, truncation=True, max_length=max_length, **options)
        types = found.get("token_type_ids", [None] * len(rows))
        features = []
        columns = zip(found["input_ids"], types, found["offset_mapping"], found["special_tokens_mask"], strict=True)
        for i, (ids, kinds, offsets, special) in enumerate(columns):
            places = word_tokens(rows[i].text, np.array(offsets), np.array(special))
            target = None
            if learn:
                target = np.full(len(ids), -100, dtype=np.int64)
                numbers = np.array([self.number[tag] for tag in rows[i].label])
                target[places[places >= 0]] = numbers[places >= 0]
            features.append(Feature(i, ids, kinds, target, places))
        return features

    def inputs(self, features: Sequence[Feature], is_flat: bool) -> dict[str, Tensor]:
        """Tags in the shape of the inputs."""
        return {"labels": tags(features, is_flat)}

    def outputs(self, output: Any, features: Sequence[Feature], is_flat: bool) -> list[np.ndarray]:
        """Logits of the words of each text, `[W, C]`; NaN for a word without a token."""
        logits = output.logits.float().cpu().numpy()
        if is_flat:
            borders = np.cumsum([0, *(len(one.ids) for one in features)])
            logits = [logits[0, start:end] for start, end in pairwise(borders)]
        return [
            np.where(one.places[:, None] >= 0, row[np.maximum(one.places, 0)], np.nan)
            for one, row in zip(features, logits, strict=True)
        ]

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """Tags of the words, a list for each row; a word without a token (cut off) gets "O" where there is one."""
        default = self.number.get("O", 0)
        lost = sum(int((one.places < 0).sum()) for one in features)
        if lost and not self.warned:
            self.warned = True
            total = sum(len(one.places) for one in features)
            logger.warning("%d of %d words have no token within max_length: %s", lost, total, self.labels[default])
        found = []
        for row in logits:
            best = np.where(np.isnan(row[:, 0]), default, np.argmax(np.nan_to_num(row), axis=1))
            found.append([self.labels[i] for i in best])
        return found

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """Share of the words with the right tag."""
        right = [a == b for said, row in zip(answers, rows, strict=True) for a, b in zip(said, row.label, strict=True)]
        return float(np.mean(right))


class SpanHead(SequenceHead):
    """An answer in a context, or none where training rows without an answer were seen."""

    name = "span"
    auto = AutoModelForQuestionAnswering
    flat = False

    def __init__(self, labels: Sequence[str] = ()) -> None:
        super().__init__(["start", "end"])
        self.may_be_none = False

    def config(self) -> dict[str, Any]:
        """Start and end."""
        return {"num_labels": 2}

    def encode(
        self, tokenizer: PreTrainedTokenizerBase, rows: Sequence[Row], max_length: int, learn: bool
    ) -> list[Feature]:
        """Windows over the context, half overlapping."""
        return span_features(tokenizer, rows, max_length, wanted(tokenizer), learn)

    def inputs(self, features: Sequence[Feature], is_flat: bool) -> dict[str, Tensor]:
        """First and last token of each answer, 0 for none in this window."""
        starts, ends = zip(*(one.target for one in features), strict=True)
        return {"start_positions": torch.tensor(starts), "end_positions": torch.tensor(ends)}

    def outputs(self, output: Any, features: Sequence[Feature], is_flat: bool) -> list[np.ndarray]:
        """Start and end logits of each window, `[2, tokens]`."""
        both = torch.stack([output.start_logits, output.end_logits], dim=1).float().cpu().numpy()
        return [row[:, : len(one.ids)] for one, row in zip(features, both, strict=True)]

    def answers(self, logits: Sequence[np.ndarray], features: Sequence[Feature], rows: Sequence[Row]) -> Any:
        """(first character, one past the last) or None, a list."""
        return answers_of(logits, features, rows, self.may_be_none)

    def score(self, answers: Any, rows: Sequence[Row]) -> float:
        """F1 of the characters of the answer."""
        return float(np.mean([overlap(said, row.label) for said, row in zip(answers, rows, strict=True)]))


def wanted(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Options of every tokenizer call: no padding, no mask, segments where the model reads them.

    Args:
        tokenizer: any.
    """
    types = "token_type_ids" in tokenizer.model_input_names
    return {"padding": False, "return_attention_mask": False, "return_token_type_ids": types}


def word_tokens(words: Sequence[str], offsets: np.ndarray, special: np.ndarray) -> np.ndarray:
    """The first token of each word of a text that was joined by spaces, -1 where a word has none.

    Args:
        words: of the text.
        offsets: characters of each token, `[T, 2]`; a space in front may belong to a token.
        special: 1 on special tokens.

    Example:
        >>> offsets = np.array([[0, 0], [0, 3], [3, 5], [5, 8], [0, 0]])
        >>> word_tokens(["red", "mugs", "big"], offsets, np.array([1, 0, 0, 0, 1])).tolist()
        [1, 2, -1]
    """
    lengths = np.array([len(word) for word in words])
    starts = np.cumsum(lengths + 1) - lengths - 1
    real = np.flatnonzero(special == 0)
    if not len(real):
        return np.full(len(words), -1)
    at = np.searchsorted(offsets[real, 1], starts, side="right")
    inside = at < len(real)
    at = np.minimum(at, len(real) - 1)
    inside &= offsets[real[at], 0] < starts + lengths
    return np.where(inside, real[at], -1)
