"""Stage 4: a small student learns the teacher's cosines (eq. 2), from settings to a finished folder.

Pairs need no labels: training queries with what was judged for them and what the teacher itself finds, and made-up
queries over the whole catalogue. The mean squared difference is taken over the listed pairs, and (`in_batch`) over all
other pairs of a batch too, whose scores the cached teacher vectors give for nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import set_seed

from rexbert_hf.hub import push_run
from rexbert_hf.hub.loading import loading
from rexbert_hf.metrics import Judgements
from rexbert_hf.models import use_onednn
from rexbert_hf.pretraining.processes import one_process
from rexbert_hf.retrieval.training.biencoder import find_base, load_biencoder, query_side
from rexbert_hf.retrieval.training.cpu_training import prepare_for_cpu
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.embedding_blocks import Features
from rexbert_hf.retrieval.training.evaluator import DEPTH, SearchEvaluator, search_metrics, validation_queries
from rexbert_hf.retrieval.training.exact_search import exact_top_k
from rexbert_hf.retrieval.training.finetune import prepare_device, training_arguments, training_texts, uses_bf16
from rexbert_hf.retrieval.training.grid_encoder import GridEncoder, shape_of
from rexbert_hf.retrieval.training.grid_settings import leave_cells, own_dim
from rexbert_hf.retrieval.training.grid_submodel import keep_layers
from rexbert_hf.retrieval.training.learned_pairs import warn_of_sample_pairs
from rexbert_hf.retrieval.training.losses import embedded_loss
from rexbert_hf.retrieval.training.search_batches import Rows, SearchCollator, Shuffled, made_up_query
from rexbert_hf.retrieval.training.search_data import TEST, TRAIN, SearchData, load_search_data
from rexbert_hf.retrieval.training.search_finish import (
    check_folder,
    description,
    finish,
    finished_results,
    made_of,
    with_test_figures,
)
from rexbert_hf.retrieval.training.search_trainer import SearchTrainer
from rexbert_hf.retrieval.training.teacher_scores import TeacherScores, teacher_scores
from rexbert_hf.settings import sole_run
from rexbert_hf.training.checkpoint import described

logger = logging.getLogger(__name__)

_DECIDING = ("seed", "student", "teacher_layers", "rows", "trainer", "validation", "block_size", "cached")
"""Settings that decide the weights."""


class DistilLoss(nn.Module):
    """Mean squared difference of the student's and the teacher's cosines (eq. 2).

    Args:
        model: the student.
        scores: of the teacher.
        in_batch: weight of the pairs of a batch that are not listed.
        block_size: texts of one forward pass.
        cached: with gradient cache.

    Example:
        >>> import torch
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> features = [model.preprocess(texts) for texts in (["mug", "plate"], ["red mug", "blue plate"])]
        >>> scores = TeacherScores(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.float32))
        >>> DistilLoss(model, scores)(features, torch.tensor([[0, 0], [1, 1]])).ndim
        0
    """

    def __init__(
        self, model: SentenceTransformer, scores: TeacherScores, in_batch: float = 0.0, block_size: int = 64,
        cached: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.model, self.scores, self.in_batch = model, scores, in_batch
        self.block_size, self.cached = block_size, cached
        # Of a student that was cut, its dimensions alone, before the whole vector is normalised: through its length the
        # others would get gradients of rounding errors. The trainer may put a wrapped model in place of this one.
        self.dim = model.truncate_dim
        self.depth = 0 if self.dim is None else shape_of(model)[0]

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        """The loss.

        Args:
            sentence_features: of the queries and of the products.
            labels: their numbers, int64 `[B, 2]`.
        """
        columns = list(sentence_features)
        wanted = self.scores.matrix(labels[:, 0], labels[:, 1]).to(labels.device)

        def loss_of(vectors: list[Tensor]) -> Tensor:
            kept = (vector[..., : self.dim].flatten(1) for vector in vectors)
            queries, products = (nn.functional.normalize(vector, dim=-1) for vector in kept)
            return squared_difference(queries @ products.T, wanted, self.in_batch)

        encoder = self.model if self.dim is None else GridEncoder(self.model, [self.depth])
        return embedded_loss(encoder, columns, self.block_size, self.cached, loss_of)


def squared_difference(student: Tensor, teacher: Tensor, in_batch: float = 0.0) -> Tensor:
    """Mean over the listed pairs (the diagonal), and over all others with a weight.

    Args:
        student: cosines of all queries with all products of a batch, `[B, B]`.
        teacher: likewise.
        in_batch: weight of the other pairs.

    Example:
        >>> import torch
        >>> squared_difference(torch.eye(2), torch.zeros(2, 2), in_batch=1.0).item()
        1.0
    """
    error = (student - teacher).square()
    listed = error.diagonal().mean()
    size = len(error)
    if not in_batch or size < 2:
        return listed
    return listed + in_batch * (error.sum() - error.diagonal().sum()) / (size * (size - 1))


class ScoredPairs(Dataset[Rows]):
    """Steps of listed pairs, as a pure function of (seed, step).

    Args:
        queries: texts by query number.
        products: texts by product number.
        pairs: query and product numbers, int64 `[N, 2]`.
        batch_size: pairs of a step.
        num_steps: how many there are.
        seed: of the order.
    """

    def __init__(
        self, queries: list[str], products: list[str], pairs: np.ndarray, batch_size: int, num_steps: int, seed: int
    ) -> None:
        self.queries, self.products, self.pairs = queries, products, pairs
        self.batch_size, self.num_steps = batch_size, num_steps
        self._order = Shuffled(len(pairs), seed)

    @property
    def epoch_steps(self) -> int:
        """Steps in which every pair comes once."""
        return max(1, -(-len(self.pairs) // self.batch_size))

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> Rows:
        if not 0 <= step < self.num_steps:
            raise IndexError(step)
        pairs = self.pairs[self._order.take(step * self.batch_size, self.batch_size)]
        columns = {
            "query": [self.queries[i] for i in pairs[:, 0]],
            "product": [self.products[i] for i in pairs[:, 1]],
        }
        return Rows(columns, pairs)


@sole_run()
def distil_search(settings: DistilSettings) -> dict[str, Any]:
    """Run a distillation to its end, or on from where it stopped; a finished run is left as it is.

    Args:
        settings: the recipe.

    Returns:
        The `results` of `run.json`: figures of student and teacher, and the share of the teacher's R@100 that is kept.

    Raises:
        ValueError: for settings that contradict each other or the data; if the folder holds a run with another plan,
            the teacher, or the student's base.
        FileNotFoundError: for a missing file or model.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start, output = time.perf_counter(), Path(settings.output_dir)
    for read in (settings.teacher, settings.student.base):
        check_folder(output, "teacher", read)
    one_process("distillation")
    prepare_device(settings.trainer)
    warn_of_sample_pairs(settings.teacher, settings.data)
    data = load_search_data(settings.data)
    _find_student(settings)
    contents = made_of(data, settings.student, teacher=settings.teacher)
    results = finished_results(output, settings, contents)
    cache = Path(settings.cache_dir) if settings.cache_dir else output / "cache"
    if results is None:
        queries, scores = _scored(settings, data, contents, cache)
        set_seed(settings.seed)  # a new student's weights are drawn
        model = _student(settings, find_base(settings.teacher), data)
        bf16 = uses_bf16(settings.trainer)
        prepare_for_cpu(model, bf16)
        results = _train(settings, data, model, scores, queries, bf16, contents)
        whole = results["resumed_from_step"] is None
        results["seconds" if whole else "seconds_of_this_start"] = round(time.perf_counter() - start, 1)
        results["made_of"] = contents
        finish(output, settings, model, data, results)
    else:
        tests = partial(_test_finished, settings, data, contents, cache)
        results = with_test_figures(output, settings, data, results, tests)
    if settings.cache_dir is None:  # also of a run that was killed when all but this was done
        shutil.rmtree(cache, ignore_errors=True)
    if settings.push_to_hub:
        results["url"] = push_run(output, settings.push_to_hub, private=settings.private)
    return results


def _scored(
    settings: DistilSettings, data: SearchData, contents: Mapping[str, str], cache: Path
) -> tuple[list[str], TeacherScores]:
    """Texts of all queries, and the teacher's scores for them."""
    folder = find_base(settings.teacher)
    if not (folder / "modules.json").exists():
        raise FileNotFoundError(f"{settings.teacher}: no sentence-transformers model (modules.json); fine-tune one")
    queries, products = distil_texts(settings, data)
    scores = teacher_scores(
        lambda: _teacher(settings, folder), contents["teacher"], queries, products, cache, settings.block_size
    )
    return queries, scores


def _teacher(settings: DistilSettings, folder: Path) -> SentenceTransformer:
    with loading("teacher", settings.teacher):
        teacher = SentenceTransformer(str(folder))
    use_onednn(teacher)
    return teacher


def distil_texts(settings: DistilSettings, data: SearchData) -> tuple[list[str], list[str]]:
    """Queries (the data's own first, then made-up ones) and products that the teacher scores.

    Args:
        settings: the recipe.
        data: catalogue and queries.
    """
    rng = np.random.default_rng([settings.seed, 3])
    described = np.flatnonzero(data.described)
    count = round(settings.rows.made_up * len(described))
    owners = np.resize(rng.permutation(described), count)
    return [*data.queries, *(made_up_query(data.titles[i], rng) for i in owners)], list(data.texts)


def distil_pairs(settings: DistilSettings, data: SearchData, scores: TeacherScores, num_queries: int) -> np.ndarray:
    """Listed pairs, int64 `[N, 2]`: judged ones of training queries, and what the teacher finds; no held-out query.

    It finds no product without text, which says nothing that a student could learn.

    Args:
        settings: the recipe.
        data: catalogue, queries, judgements.
        scores: of the teacher.
        num_queries: the data's and made-up ones.
    """
    train = data.of(TRAIN, with_relevant=False)
    made_up = np.arange(len(data.queries), num_queries)
    described = np.flatnonzero(data.described)
    judged = data.pairs(train)
    found = [np.stack(judged[:2], axis=1)]
    for numbers, count in ((train, settings.rows.retrieved), (made_up, 1)):
        if count and len(numbers):
            near = exact_top_k(scores.queries[numbers], np.asarray(scores.products), count, described)[1]
            found.append(np.stack([np.repeat(numbers, near.shape[1]), near.reshape(-1)], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _student(settings: DistilSettings, teacher: Path, data: SearchData) -> SentenceTransformer:
    if settings.teacher_layers is None:
        model = load_biencoder(settings.student, training_texts(data))
    else:
        # A teacher with two encoders is loaded as it is; a shared student is its encoder of queries.
        shared = settings.student.shared
        model = load_biencoder(
            dataclasses.replace(settings.student, base=str(teacher), shared=None if shared else shared)
        )
        model = query_side(model) if shared else model
        keep_layers(model, settings.teacher_layers)
    leave_cells(model)
    model.truncate_dim = own_dim(model)
    return model


def _find_student(settings: DistilSettings) -> None:
    if settings.student.base is None:
        return
    try:
        find_base(settings.student.base, settings.student.revision)
    except OSError as error:
        raise FileNotFoundError(
            f"student.base: {error}. recipes/configs/pretrain_student.yaml and qpi_student.yaml make such a student;"
            " recipes/configs/distil_from_scratch.yaml needs none"
        ) from error


def _train(
    settings: DistilSettings,
    data: SearchData,
    model: SentenceTransformer,
    scores: TeacherScores,
    queries: list[str],
    bf16: bool,
    contents: Mapping[str, str],
) -> dict[str, Any]:
    pairs = distil_pairs(settings, data, scores, len(queries))
    steps = ScoredPairs(queries, data.texts, pairs, settings.rows.batch_size, 0, settings.seed)
    chosen = settings.validation
    validation = validation_queries(data, chosen.max_queries)
    evaluator = None
    if len(validation):
        part = validation, chosen.max_products
        evaluator = SearchEvaluator(data, *part, settings.block_size, bf16, name="validation")
    args = training_arguments(settings, steps.epoch_steps, evaluator is not None, bf16)
    steps.num_steps = args.max_steps
    loss = DistilLoss(model, scores, settings.rows.in_batch, settings.block_size, settings.cached)
    trainer = SearchTrainer(
        model, args, steps, SearchCollator(model), loss, evaluator=evaluator, warmup=settings.trainer.warmup,
        final=settings.trainer.final, max_minutes=settings.trainer.max_minutes,
        patience=chosen.patience, description=description(settings, _DECIDING, contents),
    )  # fmt: skip
    _tell_other_pairs(Path(settings.output_dir), data)
    results = {**trainer.train_to_best(steps.epoch_steps), "pairs": len(pairs)}
    if chosen.test:
        results |= _tests(settings, data, model, scores)
    return results


def _tell_other_pairs(output: Path, data: SearchData) -> None:
    """Warn where a run that an earlier version began goes on: it listed pairs of products without text too."""
    begun = described(output)
    if begun is not None and not data.described.all() and "block_size" not in begun[1]:  # as old as that
        told = "%s is of an earlier version, whose pairs held products without text: it goes on without these"
        logger.warning(told, begun[0])


def _tests(
    settings: DistilSettings, data: SearchData, model: SentenceTransformer, scores: TeacherScores
) -> dict[str, Any]:
    """Test figures of the student, and of the teacher from its cached vectors."""
    queries = data.of(TEST)
    if not len(queries):
        return {}
    evaluator = SearchEvaluator(data, queries, None, settings.block_size)
    student = evaluator(model)
    vectors = np.asarray(scores.queries[queries]), np.asarray(scores.products)
    ranked = exact_top_k(*vectors, DEPTH, evaluator.products)[1]
    judged: Judgements = data.judged.select(queries)
    values = search_metrics(ranked, judged, data.relevant)
    teacher = {name: float(np.nanmean(value)) for name, value in values.items()}
    kept = student["recall@100"] / teacher["recall@100"] if teacher["recall@100"] else float("nan")
    return {"test": student, "teacher_test": teacher, "kept_recall@100": round(kept, 4)}


def _test_finished(
    settings: DistilSettings, data: SearchData, contents: Mapping[str, str], cache: Path, model: SentenceTransformer
) -> dict[str, Any]:
    if not len(data.of(TEST)):  # then the teacher need not be asked
        return {}
    return _tests(settings, data, model, _scored(settings, data, contents, cache)[1])
