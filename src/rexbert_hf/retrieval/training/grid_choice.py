"""Choose a sub-model: measure the cells of a grid-trained bi-encoder on this machine, save the best that fits a budget.

The choice is made on validation queries; the test queries are searched once, with what was chosen, in the runtime that
answers queries: an exported graph's figures are not torch's.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from huggingface_hub.utils import validate_repo_id
from sentence_transformers import SentenceTransformer

from rexbert_hf.hub import push_run, read_run, write_card, write_run
from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.run_file import RUN_FILE, sync
from rexbert_hf.retrieval.serving.query_model import load_model
from rexbert_hf.retrieval.training.evaluator import gain_name, validation_queries
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings, card_fields
from rexbert_hf.retrieval.training.grid_evaluator import Cell, GridEvaluator, means_of, unit
from rexbert_hf.retrieval.training.grid_measure import (
    CellFigures,
    NoCellFitsError,
    Runtime,
    check_metric,
    choose_cell,
    measure_cells,
)
from rexbert_hf.retrieval.training.grid_plot import plot_choice
from rexbert_hf.retrieval.training.grid_settings import GridSettings
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder
from rexbert_hf.retrieval.training.learned_pairs import warn_of_sample_pairs
from rexbert_hf.retrieval.training.search_data import TEST, SearchData, SearchDataSettings, load_search_data
from rexbert_hf.retrieval.training.search_finish import STOCK, card_metrics, save_biencoder
from rexbert_hf.settings import sole_run, to_dict
from rexbert_hf.settings.ranges import check_least

logger = logging.getLogger(__name__)

METRICS = (
    *("recall@10", "recall@100", "ndcg@10", "mrr@10", "judged@10", "judged@100"),
    *("condensed_recall@10", "condensed_recall@100", "condensed_ndcg@10"),
)
"""What `search_metrics` gives without letters of grades."""
_STAGED, _ONNX = ".choice", "onnx"
"""Below the run's folder: the chosen model until it has been measured, and its graph."""


@dataclass
class ChooseRun:
    """Measure the cells of a bi-encoder on this machine and save the best one within a budget.

    Attributes:
        model: folder or Hub id of a bi-encoder that was fine-tuned over a grid (finetune_search.py with `matryoshka`);
            None trains one as `finetune` says.
        output_dir: of the chosen model, `cells.png` and `run.json`.
        latency_ms: most milliseconds of one query, tokenising included; None for any.
        memory_mb: most megabytes of the model and the float32 vectors of the catalogue; None for any.
        metric: what is best: recall@100, recall@10, ndcg@10, mrr@10, condensed_recall@10, ...
        percentile: of the latency.
        runtime: what answers queries: torch, or an exported ONNX graph in fp32 or int8.
        fused: write the graph's attention as onnxruntime's own operators; without it the graph is of standard ones.
        repeats: queries timed for each number of layers.
        threads: of one query.
        cells: what is measured; None takes the cells that the model was trained over.
        data: catalogue, queries, judgements.
        max_queries: validation queries to use; None for all.
        max_products: size of the catalogue's part that is searched; None for all of it.
        batch_size: texts of one forward pass, where latency is not measured.
        finetune: the run that trains a model where none is given; its data and folder are this run's.
        push_to_hub: "user/name" to push what was chosen to.
        private: whether a new repository is private.
    """

    model: str | None = None
    output_dir: Path = Path("output/submodel")
    latency_ms: float | None = None
    memory_mb: float | None = None
    metric: str = "recall@100"
    percentile: Literal["p50", "p99"] = "p50"
    runtime: Runtime = "torch"
    fused: bool = True
    repeats: int = 200
    threads: int = 1
    cells: GridSettings | None = None
    data: SearchDataSettings = field(default_factory=SearchDataSettings)
    max_queries: int | None = 1000
    max_products: int | None = None
    batch_size: int = 64
    finetune: FinetuneSettings = field(default_factory=lambda: FinetuneSettings(matryoshka=GridSettings()))
    push_to_hub: str | None = None
    private: bool | None = None

    def __post_init__(self) -> None:
        check_metric(self.metric, METRICS)
        for name in ("latency_ms", "memory_mb"):
            limit = getattr(self, name)
            if limit is not None and not limit > 0:
                raise ValueError(f"{name} must be above 0; got {limit}")
        if self.repeats < 1 or self.threads < 1:
            raise ValueError("repeats and threads must be at least 1")
        if self.push_to_hub is not None:
            validate_repo_id(self.push_to_hub)
        check_least(self, max_queries=1, max_products=1, batch_size=1)


@sole_run(_STAGED)
def choose_submodel(run: ChooseRun) -> dict[str, Any]:
    """Measure, choose, save, push as the settings say; what was measured.

    Args:
        run: the settings.

    Raises:
        NoCellFitsError: if no cell meets the budget (with the one that is nearest); it has what was measured, which is
            written too, unless the folder holds the model of an earlier choice.
        ValueError: if the model has no grid, or the folder holds another run, the model itself, or one that was not
            chosen here.
        FileNotFoundError: for a missing file or model.
    """
    drawn = (run.output_dir / "cells.png").is_file()  # earlier versions took `run.json` away before they wrote a model
    check_own_folder(run.output_dir, "latency_ms", model=run.model, makes_model=drawn)
    run.output_dir.mkdir(parents=True, exist_ok=True)
    warn_of_sample_pairs(run.model, run.data)
    data = load_search_data(run.data)
    model, source = _model(run)
    cells = list((run.cells or GridSettings()).grid(model).cells)
    queries = _queries(run, data)
    evaluator = GridEvaluator(cells, data, queries, run.max_products, run.batch_size)
    figures = measure_cells(model, cells, evaluator, run.runtime, run.repeats, run.threads, run.fused)
    lengths = [len(ids) for ids in model.tokenizer([data.queries[i] for i in evaluator.queries])["input_ids"]]
    results: dict[str, Any] = {
        "source": source,
        "metric": run.metric,
        "queries": len(evaluator.queries),
        "products": len(evaluator.products),
        "query_tokens": {"median": float(np.median(lengths)), "p99": float(np.percentile(lengths, 99))},
        "cells": {cell.name: {**asdict(cell), "bytes": cell.bytes} for cell in figures},
    }
    limits = {"latency_ms": run.latency_ms, "memory_mb": run.memory_mb}
    try:
        chosen = choose_cell(figures, run.metric, percentile=run.percentile, **limits)
    except NoCellFitsError as error:
        files, whole = _earlier(run.output_dir)
        if whole:
            logger.warning("%s keeps the model of an earlier choice, with its run.json and cells.png", run.output_dir)
        else:
            _write(run, results, figures, None, files)
        error.results = results
        raise
    results["chosen"] = chosen.name
    files = _save(run, model, chosen, data, results)
    _write(run, results, figures, chosen, files)
    if run.push_to_hub:
        results["url"] = push_run(run.output_dir, run.push_to_hub, private=run.private)
    return results


def _model(run: ChooseRun) -> tuple[SentenceTransformer, str]:
    """The model to cut and what it is called; trained here where none is given."""
    name = run.model
    if name is None:
        folder = run.output_dir / "grid"
        finetune_search(dataclasses.replace(run.finetune, output_dir=str(folder), data=run.data))
        name = str(folder)
    model = load_model(name)
    if not isinstance(model, SentenceTransformer):
        raise ValueError(f"{name} is no sentence-transformers model: only such a one has layers to cut")
    return model.eval(), name


def _queries(run: ChooseRun, data: SearchData) -> np.ndarray:
    found = validation_queries(data, run.max_queries)
    if not len(found):
        logger.warning("no validation query has a relevant product: the choice is made on the test queries")
        found = validation_queries(data, run.max_queries, TEST)
    return found


def _save(
    run: ChooseRun, model: SentenceTransformer, chosen: CellFigures, data: SearchData, results: dict[str, Any]
) -> list[str]:
    """Write the chosen model, and its graph where one was measured; measure it on the test queries; its files."""
    cell: Cell = (chosen.layers, chosen.dim)
    cut = cut_biencoder(model, *cell)
    staged = run.output_dir / _STAGED
    staged.mkdir()
    save_biencoder(cut, staged)
    if run.runtime != "torch":
        from rexbert_hf.retrieval.serving import onnx_export

        onnx_export.export_onnx(cut, staged / _ONNX, (run.runtime,), fused=run.fused)
    results["num_parameters"] = sum(parameter.numel() for parameter in cut.parameters())
    if len(data.of(TEST)):
        results["test"], results["test_runtime"] = _tested(run, model, cell, data), run.runtime
        name = run.data.name
        named = name if run.runtime == "torch" else f"{name} (queries: onnx/{run.runtime}, products: torch)"
        results["ndcg_gain"] = gain_name(data.judged)
        results["metrics"] = card_metrics(results["test"], named, results["ndcg_gain"])
    return _place(run, staged)


def _place(run: ChooseRun, staged: Path) -> list[str]:
    """Move a staged choice into the run's folder, in the place of an earlier one; names of its files.

    Before the first file a `run.json` without results says whose they are: a kill in between leaves no choice, and a
    folder that the next start knows for its own.
    """
    output = run.output_dir
    files = sorted(path.relative_to(staged).as_posix() for path in staged.rglob("*") if path.is_file())
    for name in files:
        sync(staged / name)
    earlier, _ = _earlier(output)
    write_run(output, config=to_dict(run), results={}, files=sorted({*earlier, *files}))
    graphs = [name for name in files if name.startswith(f"{_ONNX}/")]
    if graphs:
        from rexbert_hf.retrieval.serving.onnx_publish import publish_export

        (output / _ONNX).mkdir(exist_ok=True)
        publish_export(staged / _ONNX, output / _ONNX)
    elif any(name.startswith(f"{_ONNX}/") for name in earlier):
        shutil.rmtree(output / _ONNX, ignore_errors=True)  # with what a stopped export left: a push would take it along
    for name in {*earlier} - {*files}:  # not before: an earlier graph is served until the new one has its place
        (output / name).unlink(missing_ok=True)
    for name in [name for name in files if name not in graphs]:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).replace(output / name)
    sync(output)
    shutil.rmtree(staged)
    return files


def _earlier(output: Path) -> tuple[list[str], bool]:
    """Files of an earlier choice in the folder, and whether all of it is there; what else lies there is the user's."""
    if not (output / RUN_FILE).is_file():
        return [], False
    try:
        run = read_run(output)
    except ValueError:  # damaged
        return [], False
    files, whole = run.get("files"), "chosen" in run.get("results", {}) and (output / "modules.json").is_file()
    if isinstance(files, list):
        return [name for name in files if stays_inside(name)], whole
    of_graph = [_ONNX] if run.get("config", {}).get("runtime", "torch") != "torch" else []
    folders = [output / name for name in (STOCK, *of_graph)] if whole else []  # earlier versions did not name them
    found = (path for folder in folders for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(output).as_posix() for path in found), whole


def _tested(run: ChooseRun, model: SentenceTransformer, cell: Cell, data: SearchData) -> dict[str, float]:
    """Figures of the test queries, by what is saved to answer them; products are torch's, as an index holds them."""
    evaluator = GridEvaluator([cell], data, data.of(TEST), run.max_products, run.batch_size)
    queries, products = (vectors[:, 0, : cell[1]] for vectors in evaluator.encoded(model))
    if run.runtime != "torch":
        from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder

        encoder = OnnxEncoder(run.output_dir / _STAGED / _ONNX, run.runtime, threads=run.threads)
        queries = encoder.encode_query([data.queries[i] for i in evaluator.queries])
    return means_of(evaluator.figures(unit(queries), unit(products)))


def _write(
    run: ChooseRun, results: dict[str, Any], figures: list[CellFigures], chosen: CellFigures | None, files: list[str]
) -> None:
    """Write plot, `run.json` and, with a chosen model, the card."""
    path = run.output_dir / "cells.png"
    drawn = plot_choice(figures, chosen, path, run.metric, run.percentile, run.latency_ms, run.memory_mb)
    results["plot"] = drawn.name if drawn else None
    card = card_fields(run.model)
    if chosen is not None:
        card["summary"] = (
            f"{chosen.layers} layers and {chosen.dim} dimensions of `{Path(results['source']).name}`, cut out and"
            f" otherwise unchanged: one query took {getattr(chosen, run.percentile):.2f} ms ({run.percentile},"
            f" {run.threads} thread, {run.runtime})."
        )
        if "test" in results and run.runtime != "torch":
            card["summary"] += f" The figures are those of its {run.runtime} graph in `onnx`."
    write_run(run.output_dir, config=to_dict(run), results=results, card=card, files=files)
    if chosen is not None:
        write_card(run.output_dir)
