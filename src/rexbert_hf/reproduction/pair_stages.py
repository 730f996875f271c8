"""Stages over query-product pairs: QPI pre-finetuning, and relevance classification in its place (the paper's FT*).

Both train for the tokens that the plan gives them and stop at their end: the paper stops early, but rows with equal
tokens do not.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Literal

from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.reproduction.jobs import Job, Ran, run_pretrain
from rexbert_hf.retrieval.training.qpi import run_qpi
from rexbert_hf.retrieval.training.qpi_settings import EarlyStopping, QPISettings


def run_qpi_stage(job: Job) -> Ran:
    """Mask spans on one side of each pair.

    Args:
        job: whose phases train on pairs.
    """
    return _run(job, "span")


def run_relevance_stage(job: Job) -> Ran:
    """Classify the same pairs, irrelevant ones too, as relevant or not.

    Args:
        job: whose phases train on pairs.
    """
    return _run(job, "relevance")


def _run(job: Job, objective: Literal["span", "relevance"]) -> Ran:
    return run_pretrain(dataclasses.replace(job, recipe=pair_recipe(job.recipe, objective)), run_qpi)


def pair_recipe(recipe: PretrainSettings, objective: Literal["span", "relevance"]) -> QPISettings:
    """A pre-training recipe as one of stage 2, with only the sources that its phases mix.

    Args:
        recipe: of a stage.
        objective: of the pairs.
    """
    recipe = copy.deepcopy(recipe)  # the other objective changes sources and phases in place
    used = {name for phase in recipe.phases for name in phase.mixture}
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    fields["sources"] = {name: source for name, source in recipe.sources.items() if name in used}
    return QPISettings(**fields, objective=objective, early_stopping=EarlyStopping(every_steps=0))
