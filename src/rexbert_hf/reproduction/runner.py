"""Run a reproduction: calibrate, plan, train and measure every row with every seed, report. Starting again resumes.

Seeds are the outer loop, so an interrupted reproduction has whole seeds to compare, and the report is rewritten after
each row.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rexbert_hf.hub import redact
from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.run_file import hardware, write_run, write_whole
from rexbert_hf.pretraining import ModelSettings, PretrainSettings
from rexbert_hf.reproduction.budgets import TOKENS, stage_recipe, written_budget
from rexbert_hf.reproduction.curves import (
    draw_curves,
    gather,
    has_curve,
    keep_checkpoints,
    logged_losses,
    measure_curve,
)
from rexbert_hf.reproduction.downstream import place_step
from rexbert_hf.reproduction.inputs import CALIBRATION, drop_others, prepare_shared, stage_guides, with_data, with_pairs
from rexbert_hf.reproduction.jobs import MEASURES, RUNS, Job, Ran, corpora_of, run_job
from rexbert_hf.reproduction.plan import COSTS_FILE, Cost, RunPlan, fit, load_costs, load_plan, save_costs, save_plan
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.reproduction.stages import BranchStage, Stage
from rexbert_hf.reproduction.table import judge, render
from rexbert_hf.settings import SettingsError, sole_run, to_dict
from rexbert_hf.training.checkpoint import checkpoint_folders

logger = logging.getLogger(__name__)

VALUES_FILE = "calibration_values.json"
"""Names of all values that the calibration gave."""
OWN_RESULTS = "results"
"""Kind of measure that takes what a run measured itself."""


@sole_run()
def reproduce(settings: ReproductionSettings, command: str = "") -> dict[str, Any]:
    """Reproduce a paper's effects within a budget of minutes.

    Writes `plan.json`, `results/STAGE-seedN.json`, `table.md`, `curves.png` (where the settings ask for learning
    curves) and `run.json` into `output_dir`; the models stay in
    `seed-N/STAGE`, those that all seeds share in `shared/STAGE`.

    Args:
        settings: the reproduction.
        command: command line, for the table.

    Returns:
        The `results` of `run.json`: rows, values by seed, claims, and `table` as Markdown.

    Raises:
        SettingsError: for settings that do not fit together, a plan that differs from the folder's, a small budget.
        TrainingInterrupted: after a signal, once a checkpoint is written.
    """
    start = time.perf_counter()
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    settings = with_data(settings)
    _check_names(settings)
    drop_others(settings)
    settings = with_pairs(settings)
    recipes = {stage.name: stage_recipe(settings, stage) for stage in settings.needed_stages()}
    budgets = {stage.name: written_budget(settings, stage, recipes[stage.name]) for stage in settings.needed_stages()}
    settings.check_budgets({name: budget.amount for name, budget in budgets.items()})
    shared = prepare_shared(settings)
    plan = load_plan(settings, list(recipes))
    if plan is None:
        costs = load_costs(settings, list(recipes), hardware())
        if costs is None:
            costs = _calibrate(settings, recipes, shared)
            save_costs(costs, settings, hardware())
        _check_values(settings)
        plan = fit(settings, budgets, costs, time.perf_counter() - start)
        settings.check_budgets(plan.amounts)  # stages with a share of their own are scaled apart
        save_plan(plan, settings, hardware())
    for line in plan.lines(settings):
        logger.info("plan: %s", line)
    for stage, seed in _order(settings):
        scale = plan.scales[stage.name] if stage.recipe is None else plan.amounts[stage.name]
        if _finish(settings, _job(settings, stage, seed, recipes[stage.name], shared, scale)):
            _report(settings, plan, command, time.perf_counter() - start)
    return _report(settings, plan, command, time.perf_counter() - start)


def _order(settings: ReproductionSettings) -> list[tuple[Stage, int]]:
    """What is trained, in order: what all seeds share, then seed by seed."""
    stages = settings.needed_stages()
    first = [(stage, settings.base.seed) for stage in stages if stage.shared]
    return first + [(stage, seed) for seed in settings.seeds for stage in stages if not stage.shared]


def _check_names(settings: ReproductionSettings) -> None:
    for stage in settings.stages:
        if stage.recipe is None and stage.run not in RUNS:
            raise SettingsError(f"stage '{stage.name}': no way to run '{stage.run}': use one of {', '.join(RUNS)}")
    for measure in settings.measures:
        if measure.kind not in MEASURES:
            raise SettingsError(f"measure '{measure.name}': no kind '{measure.kind}': use one of {', '.join(MEASURES)}")


def _job(
    settings: ReproductionSettings,
    stage: Stage,
    seed: int,
    recipe: Any,
    shared: PretrainSettings,
    scale: float,
    folder: str | None = None,
) -> Job:
    """A stage with one seed, in its folder.

    Args:
        settings: the reproduction.
        stage: which.
        seed: of the run.
        recipe: what `stage_recipe` gave.
        shared: what `prepare_shared` gave.
        scale: factor on the tokens of its phases; of a downstream stage its steps.
        folder: in place of that of the seed.
    """
    shares = {part.name: part.shared for part in settings.all_stages}

    def place(name: str) -> str:
        return str(settings.output_dir / (folder or ("shared" if shares[name] else f"seed-{seed}")) / name)

    if stage.recipe is not None:
        own = dataclasses.replace(shared, output_dir=place(stage.name), seed=seed)
        folders = {"tokenizer": str(shared.tokenizer.path), "output": str(settings.output_dir)}
        folders |= {"after": place(stage.after)} if stage.after is not None else {}
        folders |= {name: place(name) for name in stage.needs}
        step = settings.recipes[stage.recipe]
        placed = place_step(step, recipe, int(scale), seed, place(stage.name), folders, own)
        return Job(stage, seed, own, shared, placed, step)
    model = recipe.model
    if stage.after is not None:
        model = ModelSettings(  # the rest describes a new model
            init_from=place(stage.after), attn_implementation=model.attn_implementation, matryoshka=model.matryoshka
        )
    recipe = dataclasses.replace(
        recipe,
        output_dir=place(stage.name),
        cache_dir=shared.cache_dir,
        tokenizer=shared.tokenizer,
        guides=stage_guides(stage, recipe, shared),
        model=model,
        scale=scale,
        seed=seed,
    )
    if settings.curves and folder is None and has_curve(settings, stage, seed):
        recipe = keep_checkpoints(recipe, settings.curves.points)
    return Job(stage, seed, recipe, shared)


def _calibrate(settings: ReproductionSettings, recipes: Mapping[str, Any], shared: PretrainSettings) -> dict[str, Cost]:
    """Train each stage for a few full steps, measure each model once."""
    place = settings.output_dir / CALIBRATION
    shutil.rmtree(place, ignore_errors=True)
    costs: dict[str, Cost] = {}
    alike: dict[str, float] = {}
    given: set[str] = set()
    for stage in settings.needed_stages():
        job = _calibration_job(settings, stage, recipes[stage.name], shared)
        ran = run_job(job)
        speed = ran.speed or ran.amount / ran.seconds
        taken = {measure.name: measure for measure in settings.measures if measure.applies(stage)}
        seconds = {name: alike[name] for name in taken if name in alike}
        given |= _measure(settings, job, only=set(taken) - set(seconds), seconds=seconds).keys()
        alike |= {name: seconds[name] for name, measure in taken.items() if measure.alike}
        drawn = settings.curves.measures if settings.curves and not stage.shared and not stage.recipe else set()
        costs[stage.name] = Cost(
            speed,
            overhead=max(0.0, ran.seconds - ran.amount / speed),
            measuring=sum(seconds.values()),
            curve=sum(seconds[name] for name in drawn & set(seconds)),
        )
        cost = costs[stage.name]
        logger.info(
            "calibration: %s at %.4g %s/s, %.0f s + %.0f s", stage.name, speed, ran.unit, cost.overhead, cost.measuring
        )
    shutil.rmtree(place)
    write_whole(settings.output_dir / VALUES_FILE, json.dumps({"values": sorted(given)}, indent=2).encode())
    return costs


def _check_values(settings: ReproductionSettings) -> None:
    """Refuse values of the report that no measure gave in the calibration, now or before.

    What a run measured itself hangs on its row and its length, so a value of it that is missing is only told.

    Raises:
        ValueError: as `ReproductionSettings.check_values`; if the file is damaged.
    """
    path = settings.output_dir / VALUES_FILE
    if not path.exists():  # earlier versions left none
        return
    given = read_json_object(path, f"delete it and {COSTS_FILE} to measure again", ("values",))["values"]
    own = {measure.name for measure in settings.measures if measure.kind == OWN_RESULTS}
    settings.check_values([value for value in given if value.partition(".")[0] not in own])
    for value, place in settings.shown_values().items():
        if value.partition(".")[0] in own and value not in given:
            logger.warning(
                "%s: no row gave %s in the calibration: without a longer run or another row that does, it stays empty",
                place,
                value,
            )


def _calibration_job(settings: ReproductionSettings, stage: Stage, recipe: Any, shared: PretrainSettings) -> Job:
    """A stage that trains `calibration_steps` full steps of each phase."""
    seed, steps = settings.seeds[0], settings.calibration_steps
    if stage.recipe is not None:
        return _job(settings, stage, seed, recipe, shared, steps, folder=CALIBRATION)
    phases = [
        dataclasses.replace(
            phase,
            max_tokens=steps * phase.batch_tokens,
            batch_warmup_tokens=0,
            schedule=dataclasses.replace(phase.schedule, warmup_tokens=0, decay_tokens=0),
        )
        for phase in recipe.phases
    ]
    recipe = dataclasses.replace(recipe, phases=phases, trainer=dataclasses.replace(recipe.trainer, logging_steps=1))
    job = _job(settings, stage, seed, recipe, shared, scale=1.0, folder=CALIBRATION)
    corpora_of(job.recipe)  # what a stage tokenises for itself it tokenises once, not with every seed
    return job


def _measure(
    settings: ReproductionSettings, job: Job, only: set[str] | None = None, seconds: dict[str, float] | None = None
) -> dict[str, float]:
    """Values of a job's model.

    Args:
        settings: the reproduction.
        job: a finished run.
        only: names of the measures; None for all.
        seconds: takes what each measure took.

    Raises:
        ValueError: if a value is no finite number: a broken model has no figures.
    """
    values: dict[str, float] = {}
    for measure in settings.measures:
        if (only is not None and measure.name not in only) or not measure.applies(job.stage):
            continue
        start = time.perf_counter()
        found = MEASURES[measure.kind](job, **measure.options)
        if bad := [key for key, value in found.items() if not math.isfinite(value)]:
            raise ValueError(
                f"{job.stage.name}, seed {job.seed}: {measure.name} is not a finite number ({', '.join(bad)}); did its "
                f"training diverge? {job.folder} has the log"
            )
        values |= {f"{measure.name}.{key}": value for key, value in found.items()}
        if seconds is not None:
            seconds[measure.name] = time.perf_counter() - start
    return values


def _result_file(settings: ReproductionSettings, stage: Stage, seed: int) -> Path:
    return settings.output_dir / "results" / f"{stage.name}-{'shared' if stage.shared else f'seed{seed}'}.json"


def _finish(settings: ReproductionSettings, job: Job) -> bool:
    """Bring a job to its end; says whether that completed a row of the table."""
    path = _result_file(settings, job.stage, job.seed)
    path.parent.mkdir(exist_ok=True)
    found = _read(settings, job.stage, job.seed)
    if found.get("done"):
        logger.info("%s, %s: done before", "all seeds" if job.stage.shared else f"seed {job.seed}", job.stage.name)
        return False
    if not found:
        logger.info("%s, %s", "all seeds" if job.stage.shared else f"seed {job.seed}", job.stage.name)
        ran: Ran = run_job(job)
        found = {"stage": job.stage.name, "seed": job.seed, **dataclasses.asdict(ran), "done": False}
        write_whole(path, json.dumps(found, indent=2).encode())
    if "losses" not in found:
        curves = settings.curves
        found["losses"] = logged_losses(job.folder)
        found["curve"] = []
        if curves and has_curve(settings, job.stage, job.seed):
            found["curve"] = measure_curve(job, lambda at: _measure(settings, at, curves.measures))
        write_whole(path, json.dumps(found, indent=2).encode())
    for checkpoint in checkpoint_folders(job.folder):
        shutil.rmtree(checkpoint)
    found["values"] = _measure(settings, job)
    write_whole(path, json.dumps({**found, "done": True}, indent=2).encode())
    return job.stage.row or isinstance(job.stage, BranchStage)


def _read(settings: ReproductionSettings, stage: Stage, seed: int) -> dict[str, Any]:
    path = _result_file(settings, stage, seed)
    return read_json_object(path, "delete it and start again, which measures anew") if path.exists() else {}


def _amounts(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Tokens of a chain of runs, steps and parameters of its last one where it is a downstream step."""
    found: dict[str, Any] = {"tokens": sum(part["amount"] for part in parts if part["unit"] == TOKENS)}
    last = parts[-1]
    if last["unit"] != TOKENS:
        found |= {"steps": last["amount"]}
    return found | ({"parameters": last["parameters"]} if last["parameters"] else {})


def _draw_maps(settings: ReproductionSettings, rows: Mapping[str, Any]) -> list[str]:
    """Maps of layers x dimensions, for measures that have cells, once every row has a seed."""
    if not all(rows.values()) or not any(measure.kind.endswith("_cells") for measure in settings.measures):
        return []
    from rexbert_hf.reproduction.grid_cells import draw_cell_maps

    return draw_cell_maps(settings, rows, settings.output_dir)


def _report(settings: ReproductionSettings, plan: RunPlan, command: str, seconds: float) -> dict[str, Any]:
    """Gather what is done so far, and write `table.md` and `run.json`."""
    rows: dict[str, dict[int, dict[str, Any]]] = {}
    for stage in settings.chosen_rows():
        rows[stage.name] = {}
        for seed in settings.seeds:
            parts = [_read(settings, part, seed) for part in settings.chain(stage)]
            if all(part.get("done") for part in parts):
                rows[stage.name][seed] = {**_amounts(parts), **parts[-1]["values"]}
                for branch in settings.branches_of(stage):
                    rows[stage.name][seed] |= _read(settings, branch, seed).get("values", {})
    curves = gather(settings, lambda stage, seed: _read(settings, stage, seed))
    drawn = draw_curves(settings, curves, settings.output_dir / "curves.png")
    results: dict[str, Any] = {
        "rows": rows,
        "curves": curves,
        "plot": drawn.name if drawn else None,
        "maps": _draw_maps(settings, rows),
        "claims": judge(settings, rows),
        "tokens_per_row": plan.tokens_behind(settings),
        "shared_tokens": {
            stage.name: plan.amounts[stage.name] for stage in settings.needed_stages() if stage.shared and stage.phases
        },
        "speed": {name: [round(cost.speed, 2), f"{plan.units[name]}/s"] for name, cost in plan.costs.items()},
        "seconds": round(seconds, 1),
        "command": command,
    }
    results["table"] = redact(render(settings, results))  # the command line stands there
    write_whole(settings.output_dir / "table.md", results["table"].encode())
    write_run(settings.output_dir, config=to_dict(settings), results=results)
    return results
