"""Downstream measures that cost seconds: linear probes on the frozen encoder.

Fine-tuning is what the papers do (`tasks.py`); a probe of a linear layer needs one pass over the texts and draws
nothing, so it fits behind every row of a table made in minutes, and shows small differences. Figures of the two are not
comparable, differences between rows are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog import load_sample, read_records
from rexbert_hf.catalog.split import text_digests
from rexbert_hf.reproduction.jobs import Job, load_job_model, register_measure

BATCH = 64


class LabelledWords(NamedTuple):
    """Sentences as words with B, I, O labels."""

    words: list[list[str]]
    labels: list[list[str]]


def softmax_regression(features: Tensor, labels: Tensor, classes: int, penalty: float = 1e-3) -> nn.Linear:
    """Fit a linear layer by L-BFGS on cross entropy with an L2 penalty; deterministic.

    Args:
        features: `[N, H]`, standardised.
        labels: `[N]`.
        classes: how many.
        penalty: on the mean squared weights' sum.

    Example:
        >>> x = torch.tensor([[-1.0], [-2.0], [1.0], [2.0]])
        >>> softmax_regression(x, torch.tensor([0, 0, 1, 1]), 2)(x).argmax(1).tolist()
        [0, 0, 1, 1]
    """
    layer = nn.Linear(features.shape[1], classes, device=features.device)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=60, history_size=10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(features), labels) + penalty * layer.weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def probe(train: Tensor, labels: Sequence[int], test: Tensor, classes: int) -> list[int]:
    """Classes of the test features by a layer fitted on the training features, standardised by the latter.

    Args:
        train: `[N, H]`.
        labels: of the training features.
        test: `[M, H]`.
        classes: how many.
    """
    mean, deviation = train.mean(0), train.std(0).clamp_min(1e-6)
    layer = softmax_regression((train - mean) / deviation, torch.tensor(labels, device=train.device), classes)
    with torch.no_grad():
        found: list[int] = layer((test - mean) / deviation).argmax(1).tolist()
    return found


@torch.no_grad()
def _states(model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> Any:
    """Yield (encoding, last hidden states) of batches of texts, in order."""
    device = next(model.parameters()).device
    encoder: Any = model.base_model
    for at in range(0, len(texts), BATCH):
        encoded = tokenizer(
            list(texts[at : at + BATCH]),
            truncation=True,
            max_length=max_length,
            padding=True,
            return_tensors="pt",
            return_offsets_mapping=True,
        )
        inputs = {key: encoded[key].to(device) for key in ("input_ids", "attention_mask")}
        yield encoded, encoder(**inputs).last_hidden_state.float()


def text_features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = 128
) -> Tensor:
    """Mean of the last hidden states of each text, `[N, H]`; padding does not count.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        texts: the texts.
        max_length: tokens of a text that count.
    """
    found = []
    for encoded, states in _states(model, tokenizer, texts, max_length):
        mask = encoded["attention_mask"].to(states.device)[..., None]
        found.append((states * mask).sum(1) / mask.sum(1))
    return torch.cat(found)


def word_features(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, sentences: Sequence[Sequence[str]], max_length: int = 128
) -> tuple[Tensor, list[int]]:
    """Last hidden state at the first token of each word, `[W, H]`, and how many words of each sentence have one.

    Args:
        model: in evaluation mode.
        tokenizer: of the model.
        sentences: words; joined by spaces.
        max_length: tokens of a sentence; words behind them are left out.
    """
    features, counts = [], []
    texts = [" ".join(words) for words in sentences]
    number = 0
    for encoded, states in _states(model, tokenizer, texts, max_length):
        for offsets, row in zip(encoded["offset_mapping"].numpy(), states, strict=True):
            words = sentences[number]
            starts = np.cumsum([0, *(len(word) + 1 for word in words)])[:-1]
            real = np.flatnonzero(offsets[:, 1] > offsets[:, 0])  # special tokens and padding are empty
            at = np.searchsorted(offsets[real, 1], starts, side="right")
            at = real[at[at < len(real)]]
            features.append(row[torch.from_numpy(at).to(row.device)])
            counts.append(len(at))
            number += 1
    return torch.cat(features), counts


def spans_of(labels: Sequence[str]) -> set[tuple[int, int]]:
    """Spans of B, I, O labels as (first, one past the last); an I without a B before it begins one.

    Example:
        >>> sorted(spans_of(["B", "I", "O", "B", "B", "O", "I"]))
        [(0, 2), (3, 4), (4, 5), (6, 7)]
    """
    spans, start = set(), -1
    for i, label in enumerate([*labels, "O"]):
        if start >= 0 and label != "I":
            spans.add((start, i))
            start = -1
        if label == "B" or (label == "I" and start < 0):
            start = i
    return spans


def measure_aspects(
    job: Job, path: str = "semeval14_laptop/ae", max_train: int | None = None, max_test: int | None = None
) -> dict[str, float]:
    """Aspect terms found by a linear layer over word states: precision, recall and F1 of whole terms.

    Args:
        job: a finished run.
        path: folder below `data_dir` with train.json and test.json (`{id: {"sentence": words, "label": BIO}}`). Without
            a `data_dir` the sample shop's reviews are used.
        max_train: sentences to train on.
        max_test: sentences to test on.
    """
    train, test = _aspects(job.recipe.data_dir, path)
    train = LabelledWords(train.words[:max_train], train.labels[:max_train])
    test = LabelledWords(test.words[:max_test], test.labels[:max_test])
    model, tokenizer = load_job_model(job)
    features, counts = word_features(model, tokenizer, train.words)
    names = "OBI"
    targets = [names.index(x) for found, n in zip(train.labels, counts, strict=True) for x in found[:n]]
    test_features, test_counts = word_features(model, tokenizer, test.words)
    guesses = iter(probe(features, targets, test_features, len(names)))
    right = said = there = 0
    for labels, count in zip(test.labels, test_counts, strict=True):
        found = spans_of([names[next(guesses)] for _ in range(count)])
        gold = spans_of(labels)
        right, said, there = right + len(found & gold), said + len(found), there + len(gold)
    precision, recall = right / max(said, 1), right / max(there, 1)
    f1 = 2 * right / max(said + there, 1)
    return {"precision": precision, "recall": recall, "f1": f1, "terms": float(there)}


def _aspects(data_dir: str | None, path: str) -> tuple[LabelledWords, LabelledWords]:
    if data_dir is None:
        found = _sample_aspects()
        half = len(found.words) // 2
        return LabelledWords(found.words[:half], found.labels[:half]), LabelledWords(
            found.words[half:], found.labels[half:]
        )
    parts = []
    for name in ("train", "test"):
        rows = json.loads((Path(data_dir) / path / f"{name}.json").read_text(encoding="utf-8")).values()
        parts.append(LabelledWords([row["sentence"] for row in rows], [row["label"] for row in rows]))
    return parts[0], parts[1]


def _sample_aspects() -> LabelledWords:
    found = LabelledWords([], [])
    for row in load_sample("reviews"):
        words, labels, at = row["text"].split(" "), [], 0
        for word in words:
            inside = [span for span in row["aspects"] if span["start"] < at + len(word) and at < span["end"]]
            labels.append("O" if not inside else "B" if at <= inside[0]["start"] else "I")
            at += len(word) + 1
        found.words.append(words)
        found.labels.append(labels)
    return found


def measure_classes(
    job: Job,
    path: str = "fashion_styles/styles.csv.zip",
    text: str = "productDisplayName",
    label: str = "articleType",
    max_rows: int = 8000,
    seed: int = 0,
) -> dict[str, float]:
    """Product classes by a linear layer over the mean state of a title: accuracy and macro F1 on a fourth.

    Args:
        job: a finished run.
        path: a table below `data_dir`. Without a `data_dir` the sample shop's products are used.
        text: its column of titles.
        label: its column of classes.
        max_rows: rows to use, drawn at random.
        seed: of the draw.
    """
    titles, labels = _titles(job.recipe.data_dir, path, text, label)
    drawn = np.random.default_rng(seed).permutation(len(titles))[:max_rows].tolist()
    chosen = [i for i in drawn if titles[i] and labels[i]]
    names = sorted({labels[i] for i in chosen})
    model, tokenizer = load_job_model(job)
    features = text_features(model, tokenizer, [titles[i] for i in chosen])
    targets = np.array([names.index(labels[i]) for i in chosen])
    is_test = in_test([titles[i] for i in chosen])
    test = torch.from_numpy(is_test)
    guesses = np.array(probe(features[~test], targets[~is_test].tolist(), features[test], len(names)))
    return classification_scores(guesses, targets[is_test])


def in_test(titles: Sequence[str]) -> np.ndarray:
    """Which titles measure, bool: a fourth, by their hash, as shops list a title more than once.

    Example:
        >>> int(in_test([f"mug {i}" for i in range(1000)]).sum()), len(set(in_test(["Red mug", "red  mug"]).tolist()))
        (265, 1)
    """
    return text_digests(titles)[:, 0] % np.uint64(4) == 3


@lru_cache(maxsize=1)  # read once for all rows of a table, and said once what is wrong with it
def _titles(data_dir: str | None, path: str, text: str, label: str) -> tuple[list[str], list[str]]:
    if data_dir is None:
        products = load_sample("products")
        return list(products["title"]), [levels[-1] for levels in products["category_path"]]
    rows = read_records(str(Path(data_dir) / path), {"text": text, "label": label})
    return list(rows["text"]), list(rows["label"])


def classification_scores(guesses: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Accuracy and macro F1 over the classes that occur among the targets.

    Example:
        >>> classification_scores(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 2]))
        {'accuracy': 0.5, 'macro_f1': 0.38888888888888884, 'rows': 4.0}
    """
    scores = []
    for name in np.unique(targets):
        right = np.sum((guesses == name) & (targets == name))
        scores.append(2 * right / (np.sum(guesses == name) + np.sum(targets == name)))
    return {
        "accuracy": float(np.mean(guesses == targets)),
        "macro_f1": float(np.mean(scores)),
        "rows": float(len(targets)),
    }


register_measure("aspects", measure_aspects)
register_measure("classes", measure_classes)
