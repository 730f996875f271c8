"""The end of a search run: whether a folder is finished already, what lies in it, and the figures on its card."""

from __future__ import annotations

import copy
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from rexbert_hf.hub import read_run, write_card, write_run
from rexbert_hf.hub.run_file import plain, redact
from rexbert_hf.models import RexBertModel, to_modernbert
from rexbert_hf.retrieval.training.dssm import fold_dssm
from rexbert_hf.retrieval.training.evaluator import gain_name
from rexbert_hf.retrieval.training.mining_callback import NEGATIVES
from rexbert_hf.retrieval.training.search_data import SearchData
from rexbert_hf.retrieval.training.search_trainer import BEST
from rexbert_hf.settings import to_dict

logger = logging.getLogger(__name__)

STOCK = "modernbert"
"""Folder of the stock form within a run's."""
_NO_RESULT = ("push_to_hub", "private")
"""Settings that a finished run may be started again with and still is finished."""


def finished_results(output: Path, settings: Any) -> dict[str, Any] | None:
    """The results of a run that a folder holds finished, with these settings; else None.

    Args:
        output: the folder.
        settings: of the recipe.
    """
    if not all((output / name).exists() for name in ("run.json", "modules.json", "README.md")):
        return None
    run = read_run(output)
    config = redact(plain(to_dict(settings)))
    same = {**(run.get("config") or {}), **{name: config[name] for name in _NO_RESULT}} == config
    if same:
        logger.info("%s holds this run, finished: nothing to train", output)
    return run["results"] if same else None


def finish(output: Path, settings: Any, model: SentenceTransformer, data: SearchData, results: dict[str, Any]) -> None:
    """Write the model, `run.json` and the card; tables and the copy of the best model go.

    Args:
        output: the run's folder.
        settings: the recipe.
        model: the best one.
        data: what it was trained on.
        results: measured.
    """
    save_biencoder(fold_dssm(model), output)
    shape = {"products": len(data.texts), "queries": len(data.queries), "pairs": len(data.judged.products)}
    name = settings.data.pairs if isinstance(settings.data.pairs, str) else "sample shop"
    source = {"name": name, "fingerprint": data.fingerprint, "documents": len(data.judged.products), **shape}
    results["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    results["ndcg_gain"] = gain_name(data.judged)
    results["metrics"] = card_metrics(results.get("test", {}), str(name), results["ndcg_gain"])
    resumed, card = results["resumed_from_step"], settings.card_fields()
    write_run(output, config=to_dict(settings), results=results, resumed_from_step=resumed, data=[source], card=card)
    write_card(output)
    for path in output.glob(NEGATIVES.format("*")):
        path.unlink()
    shutil.rmtree(output / BEST, ignore_errors=True)
    if (output / "eval").is_dir() and not any((output / "eval").iterdir()):
        (output / "eval").rmdir()


def save_biencoder(model: SentenceTransformer, output: Path) -> None:
    """Write a bi-encoder; around a RexBERT also in the stock form, in `modernbert/`, for servers without this package.

    A model of separate encoders, and one that was cut without its final norm, has no stock form.

    Args:
        model: the bi-encoder.
        output: the folder.
    """
    model.save_pretrained(str(output), create_model_card=False)
    shutil.rmtree(output / STOCK, ignore_errors=True)  # of another model that lay here
    encoder = getattr(model[0], "model", None)
    if isinstance(encoder, RexBertModel) and encoder.config.apply_final_norm:
        stock = copy.deepcopy(model)
        stock[0].model = to_modernbert(encoder)
        stock.save_pretrained(str(output / STOCK), create_model_card=False)


def card_metrics(test: Mapping[str, float], dataset: str, gain: str) -> list[dict[str, Any]]:
    """The test figures as `huggingface_hub.EvalResult` takes them.

    Args:
        test: figures by name.
        dataset: what it was measured on.
        gain: of nDCG (`gain_name`); stands in the metric's name.
    """
    shown = ("recall@10", "recall@100", "ndcg@10", "judged@100", "condensed_ndcg@10")
    return [
        {
            "task_type": "information-retrieval",
            "task_name": "Product search",
            "dataset_type": "held-out",
            "dataset_name": f"test queries of {dataset}",
            "metric_type": name.replace("@", "_at_"),
            "metric_name": f"{name}[{gain}]" if "ndcg" in name else name,
            "metric_value": round(test[name], 4),
        }
        for name in shown
        if name in test
    ]
