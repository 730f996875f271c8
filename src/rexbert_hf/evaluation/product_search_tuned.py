"""Product search after a short fine-tuning on training queries: the recipe of `finetune_search`, under a budget."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from sentence_transformers import SentenceTransformer
from transformers import set_seed

from rexbert_hf.evaluation.product_search import ProductSearch, search_result
from rexbert_hf.evaluation.search_data import SearchProtocol
from rexbert_hf.evaluation.searchers import BM25, DSSM, DenseSearcher, make_searcher, pooling_note
from rexbert_hf.evaluation.task import RANDOM, TaskOptions, TaskResult, Tuning
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, find_base, load_biencoder
from rexbert_hf.retrieval.training.dssm import fold_dssm
from rexbert_hf.retrieval.training.finetune import prepare_device, train_and_measure, training_texts, uses_bf16
from rexbert_hf.retrieval.training.finetune_settings import (
    FinetuneSettings,
    LossSettings,
    SearchTrainerSettings,
    ValidationSettings,
)
from rexbert_hf.retrieval.training.search_batches import RowSettings
from rexbert_hf.retrieval.training.search_data import VALIDATION, SearchDataSettings

logger = logging.getLogger(__name__)

MAX_TOKENS = 40
SMALL, FULL = Tuning((2e-4,), (2,), 256), Tuning((2e-4,), (10,), 512)
DSSM_SMALL, DSSM_FULL = Tuning((1e-2,), (6,), 256), Tuning((1e-2,), (30,), 512)
SMALL_VALIDATION = 2_000
"""Products searched for each validation with the small budget, and a tenth of it as many queries."""


class ProductSearchTuned(ProductSearch):
    """Retrieval after fine-tuning on the training queries.

    In-batch softmax over batches of 256 (full: 512) with known positives taken out, scale 20, .2 of the loss in the
    direction product to query, .3 of the rows with a query made of the product's words, .1 of the queries misspelt;
    learning rate 2e-4, 2 epochs (full: 10), texts cut at 40 tokens; the model of the best validation R@100 is searched.
    Of few training queries a batch is an eighth, which a note says, unless its size was said.
    Data and figures are those of zero-shot search. `dssm` trains the paper's baseline from scratch, three times as many
    epochs at 1e-2, because it starts from nothing.
    """

    name: ClassVar[str] = "product_search_tuned"
    title: ClassVar[str] = "Product search, fine-tuned"
    trains: ClassVar[bool] = True
    version: ClassVar[int] = 2
    baselines: ClassVar[tuple[str, ...]] = (RANDOM, BM25, DSSM)

    def config(self, options: TaskOptions) -> dict[str, Any]:
        """As `Task.config`, with the precision; what the user leaves open of a grid is this task's own."""
        more: dict[str, Any] = {"bf16": trains_in_bf16(options)}
        if options.tuning is None:
            return {**super().config(options), **more}
        if _says_batch(options):  # which an earlier version cut without a word
            more["batch"] = "as said"
        own, dssm = (replace(options, tuning=_tuning(options, model)) for model in ("", DSSM))
        return {**super().config(own), "dssm": dssm.config()["tuning"], **more}

    def run(self, model: str, data: SearchProtocol, seed: int, options: TaskOptions) -> TaskResult:
        """As `Task.run`."""
        if model in (RANDOM, BM25):
            searcher, notes = make_searcher(model, data.product_texts, seed, options)
            return search_result(searcher, data, options, notes)
        tuned, notes = self.fit(model, data, seed, options)
        if options.keep is not None:
            fold_dssm(tuned).save_pretrained(str(options.keep), create_model_card=False)
        notes += () if model == DSSM else pooling_note(model, options)
        return search_result(DenseSearcher(tuned, data.product_texts, options.batch_size), data, options, notes)

    def fit(
        self, model: str, data: SearchProtocol, seed: int, options: TaskOptions
    ) -> tuple[SentenceTransformer, tuple[str, ...]]:
        """Fine-tune with each cell of the grid; the one with the best validation R@100, and notes on it.

        Args:
            model: folder, Hub name or "dssm".
            data: with training and validation queries.
            seed: of everything.
            options: with the grid.
        """
        tuning = _tuning(options, model)
        has_dev = len(data.data.of(VALIDATION)) > 0
        if len(tuning.cells()) > 1 and not has_dev:
            raise ValueError("a tuning grid needs validation queries with a relevant product: give a single cell")
        best: tuple[float, SentenceTransformer, tuple[float, int]] | None = None
        for rate, epochs in tuning.cells():
            tuned, figure = self._fit_one(model, data, seed, options, Tuning((rate,), (epochs,), tuning.batch_size))
            logger.info("%s: learning rate %g, %d epochs: validation R@100 %.4f", model, rate, epochs, figure)
            if best is None or figure > best[0]:
                best = (figure, tuned, (rate, epochs))
        assert best is not None
        grid = len(tuning.cells()) > 1
        notes: tuple[str, ...] = (
            (f"chosen on validation: learning rate {best[2][0]:g}, {best[2][1]} epochs",) if grid else ()
        )
        pairs = data.counts.get("train_queries", 0)
        if (batch := _batch_size(options, tuning, pairs)) != tuning.batch_size:
            notes += (f"batches of {batch} in place of {tuning.batch_size}: there are {pairs} training queries",)
        return best[1], notes

    def _fit_one(
        self, model: str, data: SearchProtocol, seed: int, options: TaskOptions, tuning: Tuning
    ) -> tuple[SentenceTransformer, float]:
        with _folder(options) as folder:
            settings = search_settings(model, data, seed, options, tuning, Path(folder))
            prepare_device(settings.trainer)
            set_seed(seed)
            made = load_biencoder(settings.model, training_texts(data.data))
            if options.device is not None:
                made = made.to(options.device)
            results = train_and_measure(settings, data.data, made)
        history: list[dict[str, Any]] = results.get("validation") or [{"recall@100": 0.0}]
        return made, max(entry["recall@100"] for entry in history)


def trains_in_bf16(options: TaskOptions) -> bool:
    """Whether fine-tuning takes bfloat16. Some CPUs have it and some do not, so the device's kind does not say it.

    Args:
        options: of the run.
    """
    return uses_bf16(SearchTrainerSettings(use_cpu=options.device == "cpu"))


def _tuning(options: TaskOptions, model: str) -> Tuning:
    small, full = (DSSM_SMALL, DSSM_FULL) if model == DSSM else (SMALL, FULL)
    return options.tuned(small if options.small else full)


def _says_batch(options: TaskOptions) -> bool:
    return options.tuning is not None and options.tuning.batch_size is not None


def _batch_size(options: TaskOptions, tuning: Tuning, pairs: int) -> int:
    """Rows of a step: as said, else fewer than the task's own, so that a small shop takes a few steps an epoch."""
    return tuning.batch_size if _says_batch(options) else max(8, min(tuning.batch_size, pairs // 8))


def _folder(options: TaskOptions) -> AbstractContextManager[str]:
    """Where checkpoints lie while training."""
    if options.cache_dir is None:
        return temporary_folder()
    options.cache_dir.mkdir(parents=True, exist_ok=True)
    return temporary_folder(options.cache_dir, ".training-")


def search_settings(
    model: str, data: SearchProtocol, seed: int, options: TaskOptions, tuning: Tuning, folder: Path
) -> FinetuneSettings:
    """The recipe of one fine-tuning.

    Args:
        model: folder, Hub name or "dssm".
        data: with training queries.
        seed: of everything.
        options: of the run.
        tuning: one cell.
        folder: for checkpoints.

    Raises:
        ValueError: if there is no training query with a relevant product.
    """
    (rate, epochs), dssm = tuning.cells()[0], model == DSSM
    pairs = data.counts.get("train_queries", 0)
    if not pairs:
        raise ValueError("no training query has a relevant product: fine-tuning has nothing to learn from")
    fields: dict[str, Any] = {"max_tokens": options.max_length or MAX_TOKENS}
    if dssm:
        fields["preset"] = "dssm"
    else:
        fields |= {"base": str(find_base(model)), "pooling": options.pooling, "shared": None, "attention_dropout": 0.0}
    small: dict[str, Any] = {"max_products": SMALL_VALIDATION, "max_queries": SMALL_VALIDATION // 10}
    checks: dict[str, Any] = {"every_epochs": max(1.0, epochs / 5), "patience": None, "test": False}
    return FinetuneSettings(
        output_dir=str(folder),
        data=SearchDataSettings(relevant=data.data.relevant),
        model=BiEncoderSettings(**fields),
        loss=LossSettings(name="ranking", scale=20.0, symmetric=0.2, block_size=128),
        rows=RowSettings(batch_size=_batch_size(options, tuning, pairs), made_up=0.3, typos=0.1),
        validation=ValidationSettings(**checks, **(small if options.small else {})),
        trainer=SearchTrainerSettings(
            epochs=epochs,
            learning_rate=rate,
            save_epochs=epochs,
            logging_steps=50,
            bf16=trains_in_bf16(options),
            use_cpu=options.device == "cpu",
        ),
        seed=seed,
    )
