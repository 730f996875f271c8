"""The end of a run: what was measured, the finished folder, the push; and whether a folder is finished already."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rexbert_hf.data.languages import UNKNOWN
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.hub import loss_plot, push_run, write_card, write_run
from rexbert_hf.hub.finished import run_of_finished, weights_are_whole
from rexbert_hf.hub.redaction import redact, redacted_alike
from rexbert_hf.hub.run_file import plain, portable
from rexbert_hf.models.matryoshka_rexbert import Grid
from rexbert_hf.models.modeling_rexbert import RexBertForMaskedLM, RexBertPreTrainedModel
from rexbert_hf.pretraining.baselines import count_baselines
from rexbert_hf.pretraining.corpora import PRODUCT_ROWS, Corpus
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.settings import to_dict
from rexbert_hf.training import CurriculumTrainer, Plan
from rexbert_hf.training.cell_accuracy import evaluate_cells
from rexbert_hf.training.languages import tokens_by_language
from rexbert_hf.training.plan import PhasePlan, flatten, listed_differences
from rexbert_hf.training.resumable import older_version

logger = logging.getLogger(__name__)

_NO_RESULT = ("push_to_hub", "private", "cache_dir", "trainer")
"""Settings that a finished run may be started again with and still is finished; the plan's check sees the rest."""
_ELSEWHERE = ("push_to_hub", "private", "cache_dir", "output_dir", "data_dir")
"""Settings that differ where the folder of a run was moved, or came from the Hub."""


def finished_results(settings: PretrainSettings, trainer: CurriculumTrainer) -> dict[str, Any] | None:
    """The results of a run that `output_dir` holds finished, with these settings; else None.

    A card that is gone is written again: it is a person's file too, and says nothing of the weights.

    Args:
        settings: the recipe.
        trainer: before training.

    Raises:
        ValueError: if the folder holds a run with another plan, or a finished one of another recipe that has no
            checkpoint left.
    """
    output = Path(settings.output_dir)
    needed = [output / name for name in ("run.json", "config.json", "tokenizer_config.json")]
    done = 0
    run: dict[str, Any] | None = None
    if all(path.exists() for path in needed) and weights_are_whole(output):
        run = run_of_finished(output)
    if run is not None:
        found = trainer.find_checkpoint(None)
        if found is None:
            _check_recipe(run, settings, trainer)
            done = 1
        else:
            configs = redacted_alike(run["config"], redact(plain(to_dict(settings))))
            was, now = (_without(config, _NO_RESULT) for config in configs)
            done = int(was == now and trainer.is_finished(found))
    everywhere = int(trainer.sum_over_ranks([float(done)])[0]) == trainer.args.world_size
    if not everywhere or run is None:
        return None
    if trainer.is_world_process_zero() and not (output / "README.md").exists():
        write_card(output)
    return run["results"]


def _check_recipe(run: Mapping[str, Any], settings: PretrainSettings, trainer: CurriculumTrainer) -> None:
    """Refuse to train over a finished model of another recipe, of which no checkpoint is left to compare with."""
    output, plan = Path(settings.output_dir), run.get("plan")
    # The plan says what of `trainer` decides the weights; runs of older versions did not write it.
    apart = (*_ELSEWHERE, *_NO_RESULT) if plan else _ELSEWHERE
    was, now = ({"config": _without(config, apart)} for config in (run["config"], to_dict(settings)))
    if plan:
        was, now = was | {"plan": plan}, now | {"plan": trainer.description()}
    was, now = redacted_alike(*(portable(redact(plain(known)), output) for known in (was, now)))
    was, now = flatten(was), flatten(now)
    if changed := listed_differences(was, now):
        hint = older_version(plan, trainer.description()) if plan else ""
        raise ValueError(
            f"{output} holds a finished run of another recipe ({changed}), and no checkpoint of it: undo the"
            f" change{hint}, choose another output_dir, or delete it"
        )


def _without(config: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


def measure(
    settings: PretrainSettings,
    trainer: CurriculumTrainer,
    plan: Plan,
    corpora: Mapping[str, Corpus],
    tokenizer: PreTrainedTokenizerBase,
) -> dict[str, Any]:
    """The `results` of `run.json`; every rank must call it.

    Args:
        settings: the recipe.
        trainer: after training.
        plan: of the run.
        corpora: what it was trained on.
        tokenizer: of the run.
    """
    results: dict[str, Any] = {"phases": [_phase(trainer, plan, index) for index in range(len(plan.phases))]}
    if any(phase.languages for phase in plan.phases):
        results["languages"] = _languages(results["phases"], [corpora[name].report for name in plan.sources])
    held_out = {name: corpus.held_out for name, corpus in corpora.items() if corpus.held_out is not None}
    if held_out and settings.evaluation.baselines and trainer.is_world_process_zero():
        results["baselines"] = count_baselines(
            [corpora[name].train for name in plan.sources],  # counts of what the model saw
            held_out,
            tokenizer,
            trainer.args.eval_mlm_probability,
            settings.evaluation.baseline_tokens,
            settings.evaluation.max_tokens,
        )
    if held_out and trainer.args.evaluate_phases and trainer.is_world_process_zero():
        results |= _cells(trainer, plan, list(held_out.values()), tokenizer)
    return results


def _cells(
    trainer: CurriculumTrainer, plan: Plan, stores: list[TokenisedDataset], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Any]:
    """Masked accuracy of each cell of a grid over all held-out sets by tokens; the whole one's is the last phase's."""
    model, args = trainer.accelerator.unwrap_model(trainer.model), trainer.args
    grid = Grid.of(model.config) if isinstance(model, RexBertForMaskedLM) else None
    if grid is None:
        return {}
    longest = args.eval_seq_length or plan.phases[-1].phase.seq_length
    share, batch, most = args.eval_mlm_probability, args.eval_batch_tokens, args.eval_max_tokens
    with trainer.accelerator.autocast():  # as the phases' own figures; flash-attn takes nothing else
        found = evaluate_cells(
            model, stores, tokenizer, grid.cells, share, batch_tokens=batch, seq_length=longest, max_tokens=most
        )
    named = {f"{layers}x{dim}": accuracy for (layers, dim), accuracy in sorted(found.items())}
    told = ", ".join(f"{name} {accuracy:.2%}" for name, accuracy in named.items())
    logger.info("masked accuracy of the sub-models (layers x dimensions): %s", told)
    return {"cells": named}


def _section_of_cells(results: Mapping[str, Any]) -> list[dict[str, str]]:
    """A section of the card with the figures of `_cells`, a line for each number of layers; none for a plain model."""
    if "cells" not in results:
        return []
    cells = {tuple(map(int, name.split("x"))): accuracy for name, accuracy in results["cells"].items()}
    layers, dims = (sorted({cell[place] for cell in cells}) for place in (0, 1))
    lines = [["layers", *(f"{dim} dimensions" for dim in dims)], ["---"] * (len(dims) + 1)]
    for depth in layers:
        shown = (f"{cells[depth, dim]:.2%}" if (depth, dim) in cells else "" for dim in dims)
        lines.append([str(depth), *shown])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    text = (
        "Trained over a grid of layers x dimensions (m3BERT): `from_pretrained(..., num_hidden_layers=L,"
        f" truncate_dim=D)` cuts a sub-model out. Held-out masked accuracy of each:\n\n{table}"
    )
    return [{"title": "Every size in one model", "text": text}]


def _phase(trainer: CurriculumTrainer, plan: Plan, index: int) -> dict[str, Any]:
    phase = plan.phases[index]
    logs = [entry for entry in trainer.state.log_history if entry.get("phase") == index and "loss" in entry]
    report = phase.order.report(range(min(phase.order.num_groups, 8)))
    found: dict[str, Any] = {
        "name": phase.name,
        "tokens": phase.max_tokens,
        "steps": phase.num_steps,
        "fill": round(report.fill, 5),
        "dropped_share": round(report.dropped_share, 6),
    }
    if phase.languages:
        found["languages"] = tokens_by_language(phase.order, phase.languages)
    speeds = [entry["tokens_per_second"] for entry in logs if "tokens_per_second" in entry]
    shares = [entry["mfu"] for entry in logs if "mfu" in entry]
    if logs:
        found |= {name: logs[-1][name] for name in ("loss", "loss_mlm", "loss_npr") if name in logs[-1]}
    if speeds:
        found["tokens_per_second"] = round(sum(speeds) / len(speeds), 1)
    if shares:
        found["mfu"] = round(sum(shares) / len(shares), 4)
    for reading in trainer.held_out_results():
        if reading["phase"] == phase.name:
            found |= _accuracies(reading, reading["when"]) | _measured_otherwise(trainer, phase, reading)
            if reading["when"] == "after":
                found |= _by_position(reading)
    if not {"evaluated_before", "evaluated_after"} & found.keys():
        found |= _other_documents([reading for reading in trainer.held_out_results() if reading["phase"] == phase.name])
    return found


def _other_documents(readings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens behind the two readings of a phase where they differ: an earlier version held out other documents."""
    counts = {
        reading["when"]: {key: count for key, count in reading.items() if key.endswith("_masked_tokens")}
        for reading in readings
    }
    before, after = counts.get("before", {}), counts.get("after", {})
    if before == after or not before or not after:
        return {}
    sums = {"masked_tokens_before": sum(before.values()), "masked_tokens_after": sum(after.values())}
    logger.warning(
        "phase '%s': held-out accuracy before and after are not of the same documents (%d and %d masked tokens), as"
        " where an earlier version held out others: do not compare them",
        readings[0]["phase"],
        *sums.values(),
    )
    return sums


def _measured_otherwise(trainer: CurriculumTrainer, phase: PhasePlan, reading: Mapping[str, Any]) -> dict[str, Any]:
    """What a reading was measured on, where `evaluation` says something else by now; checkpoints keep the reading."""
    now, when = trainer.evaluated_on(phase), reading["when"]
    was = {name: reading[name] for name in now if name in reading}  # earlier versions did not say
    if was in ({}, now):
        return {}
    logger.warning("phase '%s': held-out accuracy %s was measured with %s, not %s", phase.name, when, was, now)
    return {f"evaluated_{when}": {name.removeprefix("eval_"): value for name, value in was.items()}}


def _languages(phases: Sequence[Mapping[str, Any]], reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the run saw of each language: tokens of all phases, and how often its text was read (above 1 it repeats)."""
    seen: dict[str, int] = {}
    for phase in phases:
        for code, of in phase.get("languages", {}).items():
            seen[code] = seen.get(code, 0) + of["tokens"]
    found = []
    for code, tokens in sorted(seen.items(), key=lambda item: -item[1]):
        mine = [report for report in reports if report.get("language", UNKNOWN) == code]
        documents, available = (sum(report[key] for report in mine) for key in ("documents", "tokens"))
        found.append(
            {
                "language": code,
                "documents": documents,
                "available_tokens": available,
                "tokens": tokens,
                "share": round(tokens / max(sum(seen.values()), 1), 5),
                "epochs": round(tokens / max(available, 1), 4),
            }
        )
    return found


def _by_position(reading: Mapping[str, Any]) -> dict[str, Any]:
    """Masked accuracy of each held-out set between the position edges, as `masked_accuracy_SET_LOW_HIGH`."""
    found = {}
    for key, value in reading.items():
        match = re.fullmatch(r"eval_(.+)_accuracy_(\d+)_(\d+)", key)
        if match:
            found["masked_accuracy_{}_{}_{}".format(*match.groups())] = value
    return found


def _accuracies(reading: Mapping[str, Any], when: str) -> dict[str, Any]:
    """Masked accuracy (also within the top 3 and 5) at one moment: over all held-out sets by tokens, and of each."""
    names = [key[len("eval_") : -len("_masked_tokens")] for key in reading if key.endswith("_masked_tokens")]
    counts = {name: reading[f"eval_{name}_masked_tokens"] for name in names}
    found = {}
    for depth in ("", "@3", "@5"):
        values = {name: reading.get(f"eval_{name}_accuracy{depth}") for name in names}
        if None in values.values():  # logged by an older version, which the run goes on from
            continue
        right = sum(values[name] * count for name, count in counts.items())
        found[f"masked_accuracy_{when}{depth}"] = right / max(sum(counts.values()), 1)
        found |= {f"masked_accuracy_{when}_{name}{depth}": value for name, value in values.items()}
    return found


def finish(
    settings: PretrainSettings,
    trainer: CurriculumTrainer,
    tokenizer: PreTrainedTokenizerBase,
    corpora: Mapping[str, Corpus],
    results: dict[str, Any],
) -> None:
    """Write the finished folder: model, tokenizer, loss plot, `run.json`, card.

    Args:
        settings: the recipe.
        trainer: after training.
        tokenizer: of the run.
        corpora: what it was trained on.
        results: measured.

    Raises:
        OSError: if the folder cannot be written; the last checkpoint holds the weights.
    """
    output = Path(settings.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model)
    try:
        save_model(model, tokenizer, output)
    except Exception as error:  # safetensors has an exception of its own for a full disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise OSError(
            f"the model could not be written to {output} ({reason}); checkpoint-{trainer.state.global_step} holds its"
            " weights: make room, then start again"
        ) from error
    phases = [{"name": phase["name"], "steps": phase["steps"]} for phase in results["phases"]]
    inner = ("stores", PRODUCT_ROWS)  # of the cache, which nobody else has
    data = [{key: value for key, value in corpus.report.items() if key not in inner} for corpus in corpora.values()]
    try:
        loss_plot(_history(trainer), output / "loss.png", phases)
        write_run(
            output,
            config=to_dict(settings),
            results=results,
            resumed_from_step=trainer.resumed_from_step,
            data=data,
            plan=trainer.description(),
            num_parameters=model.num_parameters(),
            card={**_architecture(model), **settings.card_fields(), "sections": _section_of_cells(results)},
        )
        write_card(output)
    except OSError as error:
        raise OSError(
            f"the model is in {output}, its results could not be written ({error}): make room, then start again"
            " (nothing is trained again)"
        ) from error


def _architecture(model: PreTrainedModel) -> dict[str, Any]:
    """Fields of the card of a model that is no RexBERT; none for one."""
    if isinstance(model, RexBertPreTrainedModel):
        return {}
    kind = model.config.model_type
    summary = f"A masked language model of the architecture {kind}, trained on with rexbert_hf (see Training)."
    return {"tags": [kind, "e-commerce"], "summary": summary}


def push(settings: PretrainSettings, results: dict[str, Any]) -> None:
    """Push the finished folder where the recipe says so; `results` gets the address.

    Args:
        settings: the recipe.
        results: of the run.
    """
    if settings.push_to_hub:
        results["url"] = push_run(Path(settings.output_dir), settings.push_to_hub, private=settings.private)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Save the model and its tokenizer; a RexBERT also in the stock form, in `modernbert/`.

    Args:
        model: the model.
        tokenizer: its tokenizer.
        output: the folder.
    """
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    if isinstance(model, RexBertPreTrainedModel) and model.config.apply_final_norm:
        model.save_modernbert(output / "modernbert")
        tokenizer.save_pretrained(output / "modernbert")


def _history(trainer: CurriculumTrainer) -> list[dict[str, Any]]:
    """Log records with a held-out masked accuracy over all sets, for the plot."""
    records = []
    for entry in trainer.state.log_history:
        if "loss" in entry:
            records.append({"step": entry["step"], "loss": entry["loss"]})
        elif "eval_phase" in entry:
            accuracy = _accuracies(entry, "now")["masked_accuracy_now"]
            records.append({"step": entry["step"], "eval_masked_accuracy": accuracy})
    return records
