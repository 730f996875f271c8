"""A re-ranker: a cross-encoder over judged pairs, through sentence-transformers' own trainer.

It reads query and product together, so it orders better than a bi-encoder and is too slow for a catalogue: it sorts
what the index found. Grades become targets between 0 and 1; random products of the catalogue that nobody judged for the
query are added as zeros.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.utils import validate_repo_id
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss
from torch.utils.data import Dataset as TorchDataset
from transformers import set_seed

from rexbert_hf.hub import push_run, write_card, write_run
from rexbert_hf.hub.loading import loading
from rexbert_hf.metrics import Judgements
from rexbert_hf.pretraining.arguments import trackers
from rexbert_hf.pretraining.processes import one_process
from rexbert_hf.retrieval.training.biencoder import find_base
from rexbert_hf.retrieval.training.evaluator import gain_name, search_metrics, validation_queries
from rexbert_hf.retrieval.training.finetune import prepare_device, uses_bf16
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings, card_fields
from rexbert_hf.retrieval.training.learned_pairs import warn_of_sample_pairs
from rexbert_hf.retrieval.training.search_batches import Shuffled
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchData, SearchDataSettings, load_search_data
from rexbert_hf.retrieval.training.search_finish import check_folder, description, finished_results, made_of
from rexbert_hf.retrieval.training.search_trainer import StepTrainer
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least


@dataclass
class RerankerSettings:
    """A whole re-ranker run.

    Attributes:
        base: encoder to start from: folder, Hub id or the MiniLM distribution.
        output_dir: the run's folder; starting again on it resumes the run.
        data: queries, products, judgements.
        random: random products for each judged pair.
        batch_size: pairs of a step.
        max_tokens: longer pairs are cut.
        test_queries: test queries, drawn, whose judged products are re-ranked at the end; None for all.
        trainer: how training runs.
        seed: of everything.
        push_to_hub: "user/name" to push the finished run to.
        private: whether a new repository is private.
    """

    base: str
    output_dir: str = "output/reranker"
    data: SearchDataSettings = field(default_factory=SearchDataSettings)
    random: float = 1.0
    batch_size: int = 64
    max_tokens: int = 64
    test_queries: int | None = None
    trainer: SearchTrainerSettings = field(default_factory=SearchTrainerSettings)
    seed: int = 0
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        if self.random < 0 or self.batch_size < 1 or self.max_tokens < 4:
            raise ValueError("random must not be negative, batch_size at least 1, max_tokens at least 4")
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)
        check_least(self, random=0, test_queries=1)


@sole_run()
def finetune_reranker(settings: RerankerSettings) -> dict[str, Any]:
    """Train a re-ranker, or on from where it stopped, and measure how it orders the judged products of test queries.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`.

    Raises:
        ValueError: for data without training pairs; if the folder holds a run with another plan, or the base.
        FileNotFoundError: for a missing file or model.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start, output = time.perf_counter(), Path(settings.output_dir)
    check_folder(output, "test_queries", settings.base)
    one_process("the re-ranker")
    prepare_device(settings.trainer)
    warn_of_sample_pairs(settings.base, settings.data)
    data = load_search_data(settings.data)
    contents = made_of(data, base=settings.base)
    results = finished_results(output, settings, contents)
    if results is None:
        set_seed(settings.seed)  # the head is new
        folder = find_base(settings.base)
        with loading("encoder", settings.base):
            model = CrossEncoder(str(folder), num_labels=1, max_length=settings.max_tokens)
        before = judged_order(model, data, settings)
        trainer = _trainer(settings, model, reranker_rows(data, settings.random, settings.seed), contents)
        trainer.train()
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        results = {
            "steps": trainer.state.global_step,
            "resumed_from_step": trainer.resumed_from_step,
            "pairs": len(trainer.steps.rows),
            "first_loss": losses[0] if losses else None,
            "last_loss": losses[-1] if losses else None,
            "ndcg@10_of_judged_before": before,
            "ndcg@10_of_judged": judged_order(model, data, settings),
            "ndcg_gain": gain_name(data.judged),
            "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds" if trainer.resumed_from_step is None else "seconds_of_this_start": round(
                time.perf_counter() - start, 1
            ),
            "made_of": contents,
        }
        model.save_pretrained(str(output), create_model_card=False)
        card = {**card_fields(settings.base), "template": "reranker_card.md", "pipeline_tag": "text-ranking"}
        resumed = trainer.resumed_from_step
        write_run(output, config=to_dict(settings), results=results, resumed_from_step=resumed, card=card)
        write_card(output)
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def reranker_rows(data: SearchData, random: float, seed: int) -> Dataset:
    """Judged pairs of training queries with targets, and random pairs with the target 0.

    Products without text are left out, and so is a random product that was judged for the query, or is neither right
    nor wrong for it, or has the text of one.

    Args:
        data: catalogue, queries, judgements.
        random: random products for each judged pair.
        seed: of the draws.

    Raises:
        ValueError: if no training query has a judged product.
    """
    queries, products, grades = data.pairs(data.of(TRAIN, with_relevant=False))
    kept = data.described[products]
    queries, products, grades = queries[kept], products[kept], grades[kept]
    if not len(queries):
        raise ValueError("no training query has a judged product: change the split")
    targets = _targets(grades, data.relevant)
    rng = np.random.default_rng([seed, 4])
    asked = queries[rng.integers(len(queries), size=round(random * len(queries)))]
    drawn = rng.choice(np.flatnonzero(data.described), size=len(asked))
    groups = int(data.groups.max()) + 1
    known = np.concatenate([np.stack([queries, products], axis=1), data.neither])
    new = ~np.isin(asked * groups + data.groups[drawn], known[:, 0] * groups + data.groups[known[:, 1]])
    asked, drawn = asked[new], drawn[new]
    return Dataset.from_dict(
        {
            "query": [data.queries[i] for i in [*queries, *asked]],
            "product": [data.texts[i] for i in [*products, *drawn]],
            "label": [*targets.tolist(), *[0.0] * len(asked)],
        }
    )


def _targets(grades: np.ndarray, relevant: float) -> np.ndarray:
    """Grades between 0, which random products have, and 1.

    A scale such as Home Depot's 1 to 3 has its zero at its lowest grade; where that is relevant, nobody judged a pair
    wrong, and it is far from a random one.
    """
    low, high = float(grades.min()), float(grades.max())
    if high <= 1 or low >= relevant:
        low = min(low, 0.0)
    if low == high:
        return np.full(len(grades), float(high > 0))
    return (grades - low) / (high - low)


class RerankerTrainer(StepTrainer, CrossEncoderTrainer):
    """Train a cross-encoder over steps by number."""

    args: Any  # both bases name theirs


class _Steps(TorchDataset[dict[str, Any]]):
    """Steps of judged pairs in an order that follows from the seed."""

    def __init__(self, rows: Dataset, batch_size: int, num_steps: int, seed: int) -> None:
        self.rows, self.batch_size, self.num_steps = rows, batch_size, num_steps
        self._order = Shuffled(len(rows), seed)

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> dict[str, Any]:
        if not 0 <= step < self.num_steps:
            raise IndexError(step)
        return self.rows[self._order.take(step * self.batch_size, self.batch_size)]


class _Collator:
    """Texts as they are: the loss of a cross-encoder tokenises pairs itself."""

    valid_label_columns = ("label",)

    def __call__(self, steps: list[dict[str, Any]]) -> dict[str, Any]:
        (rows,) = steps
        return {**rows, "label": torch.tensor(rows["label"])}


def _trainer(
    settings: RerankerSettings, model: CrossEncoder, rows: Dataset, contents: Mapping[str, str]
) -> RerankerTrainer:
    chosen = settings.trainer
    args = _arguments(settings, -(-len(rows) // settings.batch_size))
    return RerankerTrainer(
        model, args, _Steps(rows, settings.batch_size, args.max_steps, settings.seed), _Collator(),
        BinaryCrossEntropyLoss(model), warmup=chosen.warmup, final=chosen.final, max_minutes=chosen.max_minutes,
        description=description(settings, ("seed", "random", "batch_size", "max_tokens", "trainer"), contents),
    )  # fmt: skip


def judged_order(model: CrossEncoder, data: SearchData, settings: RerankerSettings) -> float:
    """nDCG@10 of the judged products of test queries, in the model's order.

    Args:
        model: the re-ranker.
        data: catalogue, queries, judgements.
        settings: the recipe.
    """
    queries = validation_queries(data, settings.test_queries, TEST)
    judged: Judgements = data.judged.select(queries)
    rows = np.repeat(np.arange(len(queries)), np.diff(judged.offsets))
    pairs = [(data.queries[queries[i]], data.texts[j]) for i, j in zip(rows, judged.products, strict=True)]
    if not pairs:
        return float("nan")
    scores = np.asarray(model.predict(pairs, batch_size=settings.batch_size, show_progress_bar=False))
    order = np.lexsort((-scores, rows))
    ranked = np.full((len(queries), int(np.diff(judged.offsets).max())), -1, dtype=np.int64)
    ranked[rows[order], np.arange(len(order)) - judged.offsets[rows[order]]] = judged.products[order]
    return float(np.nanmean(search_metrics(ranked, judged, data.relevant)["ndcg@10"]))


def _arguments(settings: RerankerSettings, epoch_steps: int) -> CrossEncoderTrainingArguments:
    chosen = settings.trainer
    steps = max(1, round(chosen.epochs * epoch_steps))
    return CrossEncoderTrainingArguments(
        output_dir=settings.output_dir,
        max_steps=steps if chosen.max_steps is None else min(steps, chosen.max_steps),
        per_device_train_batch_size=settings.batch_size,
        learning_rate=chosen.learning_rate,
        weight_decay=chosen.weight_decay,
        max_grad_norm=chosen.max_grad_norm,
        bf16=uses_bf16(chosen),
        logging_steps=chosen.logging_steps,
        save_strategy="steps",
        save_steps=max(1, round(chosen.save_epochs * epoch_steps)),
        save_total_limit=chosen.save_total_limit,
        report_to=trackers(chosen.report_to),
        use_cpu=chosen.use_cpu or not torch.cuda.is_available(),
        seed=settings.seed,
        disable_tqdm=True,
        accelerator_config={"dispatch_batches": False, "split_batches": False},
    )
