"""The end of a search run: whether a folder is finished already, what lies in it, and the figures on its card."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from rexbert_hf.hub import read_run, write_card, write_run
from rexbert_hf.hub.finished import run_of_finished, weights_are_whole
from rexbert_hf.hub.own_folder import check_own_folder, has_own_checkpoint
from rexbert_hf.hub.redaction import redact, redacted_alike
from rexbert_hf.hub.run_file import RUN_FILE, plain, portable
from rexbert_hf.models import RexBertModel, to_modernbert, use_onednn
from rexbert_hf.retrieval.training.best_weights import BEST, is_own
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, find_base, model_fingerprint
from rexbert_hf.retrieval.training.dssm import fold_dssm
from rexbert_hf.retrieval.training.evaluator import gain_name
from rexbert_hf.retrieval.training.in_effect import in_effect
from rexbert_hf.retrieval.training.mining_callback import NEGATIVES
from rexbert_hf.retrieval.training.search_data import SearchData
from rexbert_hf.settings import from_dict, to_dict
from rexbert_hf.training.checkpoint import last_complete_checkpoint
from rexbert_hf.training.plan import flatten, listed_differences

logger = logging.getLogger(__name__)

Measure = Callable[[SentenceTransformer], dict[str, Any]]
"""A model to its test figures."""

STOCK = "modernbert"
"""Folder of the stock form within a run's."""
_LOGGED = ("logging_steps", "report_to", "cpu_threads", "save_epochs", "save_total_limit")
INDIFFERENT = frozenset({"push_to_hub", "private", "validation.test", *(f"trainer.{name}" for name in _LOGGED)})
"""Settings that do not decide the weights: a run may be gone on with under others."""
_ELSEWHERE = ("output_dir", "cache_dir")
"""Settings that differ where the folder of a run was moved, or came from the Hub."""
_BY_CONTENT = ("teacher", "base")
"""Settings, beside those of `data`, that name what `made_of` knows by its content."""


def check_folder(output: Path, key: str, model: str | None) -> None:
    """Refuse a folder where a search run would write over what it did not make, as `check_own_folder` does.

    A model without a `run.json` is a stopped run's own where checkpoints or best weights of this package lie beside it:
    names alone (`checkpoint-500`, `best`) are those of many trainers.

    Args:
        output: the folder of the run.
        key: of the recipe's configuration, which no other recipe has.
        model: folder or Hub id of a model that the recipe reads.

    Raises:
        ValueError: if nothing may be written there.
    """
    best = output / BEST
    begun = has_own_checkpoint(output) or is_own(best)
    check_own_folder(output, key, model=model, makes_model=begun, checkpoints=True)
    if not begun and not (output / RUN_FILE).exists() and best.is_dir() and any(best.iterdir()):
        raise ValueError(
            f"{best} is not of this recipe, or an earlier version began it: choose another output_dir, or move it away"
        )


def made_of(data: SearchData, model: BiEncoderSettings | None = None, **others: str | None) -> dict[str, str]:
    """What decides a run beside its settings: the content behind the names of data and models.

    Args:
        data: that was read.
        model: of the recipe.
        **others: folders or Hub ids of further models, such as the teacher.

    Raises:
        FileNotFoundError: if there is no such model.
    """
    folders = {name: find_base(place) for name, place in others.items() if place is not None}
    if model is not None and model.base is not None:
        folders["base"] = find_base(model.base, model.revision)
    if model is not None and model.tokenizer is not None:
        folders["tokenizer"] = find_base(model.tokenizer)
    return {"data": data.fingerprint, **{name: model_fingerprint(folder) for name, folder in folders.items()}}


def description(settings: Any, parts: Sequence[str], contents: Mapping[str, str]) -> dict[str, Any]:
    """What decides the weights of a run, as dotted keys.

    Args:
        settings: of the recipe.
        parts: its attributes that do.
        contents: what `made_of` gave.
    """
    fields = flatten({name: to_dict(value) if (value := getattr(settings, name)) else None for name in parts})
    deciding = {name: value for name, value in in_effect(fields).items() if name not in INDIFFERENT}
    return {**contents, "relevant": settings.data.relevant, **deciding}


def finished_results(output: Path, settings: Any, contents: Mapping[str, str]) -> dict[str, Any] | None:
    """The results of a run that a folder holds finished, with these settings and contents; else None.

    One whose weights or `run.json` were damaged is not finished: its end is done again. Of a finished one, what only
    the training needs is removed, which a kill at the very end may have left, and a card that is gone is written again.

    Args:
        output: the folder.
        settings: of the recipe.
        contents: what `made_of` gave.

    Raises:
        ValueError: if it holds a finished run with others, and no checkpoint that could say so.
    """
    if not all((output / name).exists() for name in (RUN_FILE, "modules.json")):
        return None
    run = run_of_finished(output) if weights_are_whole(output) else None
    if run is None:
        return None
    was, now = (
        {name: value for name, value in in_effect(flatten(config)).items() if name not in INDIFFERENT}
        for config in redacted_alike(run["config"], redact(plain(to_dict(settings))))
    )
    same = was == now and run["results"].get("made_of") == contents
    if not same and last_complete_checkpoint(output) is None:
        _check_recipe(output, run, settings, contents)
        same = True
    if same:
        logger.info("%s holds this run, finished: nothing to train", output)
        if os.environ.get("RANK", "0") == "0":
            if not (output / "README.md").exists():
                write_card(output)
            remove_working_files(output)
    return run["results"] if same else None


def _check_recipe(output: Path, run: Mapping[str, Any], settings: Any, contents: Mapping[str, str]) -> None:
    """Refuse to train over a finished model of other settings or contents."""
    before, made = run["config"], run["results"].get("made_of") or {}  # the first versions did not write it
    with suppress(ValueError):  # with a value that is refused now it is compared as it is: see `in_effect`
        before = to_dict(from_dict(type(settings), before))  # keys that came later have their defaults

    def decides(name: str) -> bool:
        by_content = name in _BY_CONTENT or (name.startswith("data.") and name != "data.relevant")
        return name not in INDIFFERENT and name not in _ELSEWHERE and not (made and by_content)

    was, now = (
        {name: value for name, value in in_effect(flatten(portable(config, output))).items() if decides(name)}
        for config in redacted_alike(redact(plain(before)), redact(plain(to_dict(settings))))
    )
    known = made.keys() & contents.keys()
    if changed := listed_differences(was | {k: made[k] for k in known}, now | {k: contents[k] for k in known}):
        raise ValueError(
            f"{output} holds a finished run of another recipe ({changed}), and no checkpoint of it: undo the change,"
            " choose another output_dir, or delete it"
        )


def with_test_figures(
    output: Path, settings: Any, data: SearchData, results: dict[str, Any], measure: Measure
) -> dict[str, Any]:
    """The results of a finished run with its test figures, which its own model gives now if it never measured any.

    They go into `run.json` and the card; the rest of both, and the model, stay as they are.

    Args:
        output: the folder of the finished run.
        settings: of the recipe.
        data: with the test queries.
        results: what `finished_results` gave.
        measure: the finished model to its test figures, by their names in `run.json`.
    """
    run = read_run(output)
    tested = run["config"].get("validation", {}).get("test") is not False
    if tested or not settings.validation.test or os.environ.get("RANK", "0") != "0":
        return results
    if "test" not in results:  # else a kill left the rest to be done
        logger.info("%s was finished without test figures: they are measured with its model", output)
        model = SentenceTransformer(str(output), device="cpu" if settings.trainer.use_cpu else None)
        use_onednn(model)
        results = {**results, **measure(model)}
        results["ndcg_gain"] = gain_name(data.judged)
        results["metrics"] = card_metrics(results.get("test", {}), settings.data.name, results["ndcg_gain"])
        write_run(output, **{**run, "results": results})
    write_card(output)
    # Last, as nothing is measured or written again once it says so.
    config = {**run["config"], "validation": {**run["config"]["validation"], "test": True}}
    write_run(output, **{**run, "config": config, "results": results})
    return results


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
    name = settings.data.name
    source = {"name": name, "fingerprint": data.fingerprint, "documents": len(data.judged.products), **shape}
    results["num_parameters"] = sum(parameter.numel() for parameter in model.parameters())
    results["ndcg_gain"] = gain_name(data.judged)
    results["metrics"] = card_metrics(results.get("test", {}), name, results["ndcg_gain"])
    resumed, card = results["resumed_from_step"], settings.card_fields()
    write_run(output, config=to_dict(settings), results=results, resumed_from_step=resumed, data=[source], card=card)
    write_card(output)
    remove_working_files(output)


def remove_working_files(output: Path) -> None:
    """Remove what only the training of a run needs: mined negatives, the copy of the best model.

    Args:
        output: the folder of a finished run, with its card.
    """
    for path in output.glob(NEGATIVES.format("*")):
        path.unlink(missing_ok=True)
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
    shown = ("recall@10", "recall@100", "ndcg@10", "judged@100", "condensed_recall@100", "condensed_ndcg@10")
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
