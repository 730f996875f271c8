"""A re-ranker: a cross-encoder over judged pairs, through sentence-transformers' own trainer.

It reads query and product together, so it orders better than a bi-encoder and is too slow for a catalogue: it sorts
what the index found. Grades become targets between 0 and 1; random products of the catalogue are added as zeros.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from huggingface_hub.utils import validate_repo_id
from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from rexbert_hf.hub import push_run, write_card, write_run
from rexbert_hf.metrics import Judgements
from rexbert_hf.pretraining.arguments import trackers
from rexbert_hf.retrieval.training.biencoder import find_base
from rexbert_hf.retrieval.training.evaluator import gain_name, search_metrics
from rexbert_hf.retrieval.training.finetune import prepare_device, uses_bf16
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings, card_fields
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchData, SearchDataSettings, load_search_data
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.training.optimizer import StableAdamW


@dataclass
class RerankerSettings:
    """A whole re-ranker run.

    Attributes:
        base: encoder to start from: folder, Hub id or the MiniLM distribution.
        output_dir: the run's folder.
        data: queries, products, judgements.
        random: random products for each judged pair.
        batch_size: pairs of a step.
        max_tokens: longer pairs are cut.
        test_queries: test queries whose judged products are re-ranked at the end.
        trainer: how training runs; `max_minutes` and `save_epochs` are the bi-encoder's only.
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
        if self.trainer.max_minutes is not None:
            raise ValueError("trainer.max_minutes is not known to the re-ranker: set epochs or max_steps")
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)


@sole_run()
def finetune_reranker(settings: RerankerSettings) -> dict[str, Any]:
    """Train a re-ranker and measure how it orders the judged products of test queries.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`.

    Raises:
        ValueError: for data without training pairs.
        FileNotFoundError: for a missing file or model.
    """
    start, output = time.perf_counter(), Path(settings.output_dir)
    prepare_device(settings.trainer)
    data = load_search_data(settings.data)
    model = CrossEncoder(str(find_base(settings.base)), num_labels=1, max_length=settings.max_tokens)
    rows = reranker_rows(data, settings.random, settings.seed)
    before = judged_order(model, data, settings)
    trainer = CrossEncoderTrainer(
        model=model,
        args=_arguments(settings, len(rows)),
        train_dataset=rows,
        loss=BinaryCrossEntropyLoss(model),
        optimizer_cls_and_kwargs=(StableAdamW, {"lr": settings.trainer.learning_rate}),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    results = {
        "steps": trainer.state.global_step,
        "pairs": len(rows),
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "ndcg@10_of_judged_before": before,
        "ndcg@10_of_judged": judged_order(model, data, settings),
        "ndcg_gain": gain_name(data.judged),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.perf_counter() - start, 1),
    }
    if trainer.is_world_process_zero():
        model.save_pretrained(str(output), create_model_card=False)
        card = {**card_fields(settings.base), "template": "reranker_card.md", "pipeline_tag": "text-ranking"}
        write_run(output, config=to_dict(settings), results=results, card=card)
        write_card(output)
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def reranker_rows(data: SearchData, random: float, seed: int) -> Dataset:
    """Judged pairs of training queries with targets, and random pairs with the target 0.

    Args:
        data: catalogue, queries, judgements.
        random: random products for each judged pair.
        seed: of the draws.

    Raises:
        ValueError: if no training query has a judged product.
    """
    queries, products, grades = data.pairs(data.of(TRAIN, with_relevant=False))
    if not len(queries):
        raise ValueError("no training query has a judged product: change the split")
    low, high = min(0.0, float(grades.min())), float(grades.max())
    low = float(grades.min()) if high > 1 else low
    targets = (grades - low) / max(high - low, 1e-9)
    rng = np.random.default_rng([seed, 4])
    extra = rng.integers(len(queries), size=round(random * len(queries)))
    drawn = rng.integers(len(data.texts), size=len(extra))
    return Dataset.from_dict(
        {
            "query": [data.queries[i] for i in [*queries, *queries[extra]]],
            "product": [data.texts[i] for i in [*products, *drawn]],
            "label": [*targets.tolist(), *[0.0] * len(extra)],
        }
    ).shuffle(seed=seed)


def judged_order(model: CrossEncoder, data: SearchData, settings: RerankerSettings) -> float:
    """nDCG@10 of the judged products of test queries, in the model's order.

    Args:
        model: the re-ranker.
        data: catalogue, queries, judgements.
        settings: the recipe.
    """
    queries = data.of(TEST)[: settings.test_queries]
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


def _arguments(settings: RerankerSettings, num_rows: int) -> CrossEncoderTrainingArguments:
    chosen = settings.trainer
    steps = max(1, round(chosen.epochs * num_rows / settings.batch_size))
    return CrossEncoderTrainingArguments(
        output_dir=settings.output_dir,
        max_steps=steps if chosen.max_steps is None else min(steps, chosen.max_steps),
        per_device_train_batch_size=settings.batch_size,
        learning_rate=chosen.learning_rate,
        warmup_steps=round(chosen.warmup * steps),
        max_grad_norm=chosen.max_grad_norm,
        bf16=uses_bf16(chosen),
        logging_steps=chosen.logging_steps,
        save_strategy="no",
        report_to=trackers(chosen.report_to),
        use_cpu=chosen.use_cpu or not torch.cuda.is_available(),
        seed=settings.seed,
        disable_tqdm=True,
    )
