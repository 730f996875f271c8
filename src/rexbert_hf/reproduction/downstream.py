"""Steps after pre-training: fine-tuning, distillation, and whatever a paper measures only behind them.

A downstream step is a stage like any other (`ReproductionSettings.stages`): it starts from another stage's folder, is
trained once a seed, resumes, is calibrated, and may be a row of the table. In place of `phases` it names a recipe:

    recipes:
      search: {run: finetune_search, settings: {model: {base: "{after}"}, trainer: {max_steps: 300}}}
    stages:
      - {name: teacher, after: qpi, recipe: search, settings: {model.shared: false}}
      - {name: student, after: small, recipe: distil, needs: [teacher], settings: {teacher: "{teacher}"}}

`run` is one of `KINDS`: which settings the recipe has, the function that runs them, and the key of its budget, which
the plan scales as it scales tokens. A stage's `settings` are dotted keys over the recipe's. In any text "{after}" is
the folder of the stage that it starts from, "{NAME}" that of a stage that it `needs`, "{tokenizer}" the tokenizer that
all stages share, "{output}" the reproduction's own folder; in `data.pair_columns` and `data.product_columns` braces are
templates of columns.

The same step after every row is a branch: it adds values to that row in place of making rows of its own.

    branches:
      - {name: five_layers, recipe: search, settings: {...}}                # one more stage after each row
    measures:
      - {name: short, kind: search, branch: five_layers}                    # short.recall@100 in the line of that row

Measures are what they were: `register_measure(name, function)`; one without `branch` is taken on rows, on all of them
or on those of `rows`. `job.folder` is the model's folder; `job.downstream` the settings that trained it, None for a
pre-trained model; `job.recipe` the pre-training recipe, which knows the data folder, the seed and the device.

Another kind of step needs a settings class with a seed, an output folder and a budget, and a function that trains into
that folder, resumes there, and returns at least `steps` and `steps_per_second`: `register_kind`.
"""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from rexbert_hf.reproduction.overrides import with_overrides
from rexbert_hf.reproduction.stages import Recipe, Stage
from rexbert_hf.settings import SettingsError, from_dict, to_dict

if TYPE_CHECKING:
    from rexbert_hf.pretraining import PretrainSettings

_INHERITED = {"data.data_dir": "data_dir", "trainer.use_cpu": "trainer.use_cpu"}


@dataclass(frozen=True)
class Kind:
    """One kind of downstream step.

    Attributes:
        settings: dataclass of its recipe, with `seed` and `output_dir`.
        run: trains into `output_dir`, goes on there after an interruption, leaves a finished folder as it is; returns
            `steps` and `steps_per_second`, and `num_parameters` if it knows them.
        budget: dotted key of the number of steps, which must be set and is scaled to the minutes.
        inherits: its dotted keys that are taken from the pre-training recipe's.
    """

    settings: type
    run: Callable[[Any], Mapping[str, Any]]
    budget: str = "trainer.max_steps"
    inherits: Mapping[str, str] = field(default_factory=lambda: _INHERITED)


@cache
def _finetune_search() -> Kind:
    from rexbert_hf.retrieval.training.finetune import finetune_search
    from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings

    return Kind(FinetuneSettings, finetune_search)


@cache
def _distil_search() -> Kind:
    from rexbert_hf.retrieval.training.distil import distil_search
    from rexbert_hf.retrieval.training.distil_settings import DistilSettings

    return Kind(DistilSettings, distil_search)


KINDS: dict[str, Callable[[], Kind]] = {"finetune_search": _finetune_search, "distil_search": _distil_search}
"""Kinds by name; made on first use, because their packages are optional and slow to import."""


def register_kind(name: str, kind: Kind) -> None:
    """Make a kind of downstream step available to `recipes.NAME.run`.

    Args:
        name: its name.
        kind: what it is.
    """
    KINDS[name] = lambda: kind


def kind_of(recipe: Recipe, where: str) -> Kind:
    """The kind that a recipe names.

    Args:
        recipe: as written.
        where: named in errors.

    Raises:
        SettingsError: if there is none of that name.
    """
    if recipe.run not in KINDS:
        raise SettingsError(f"{where}: no kind of step '{recipe.run}': use one of {', '.join(KINDS)}")
    return KINDS[recipe.run]()


def step_settings(recipe: Recipe, stage: Stage) -> Any:
    """The settings of a downstream stage as written: its own keys over the recipe's; folders are still names.

    Args:
        recipe: the one that it names.
        stage: the stage.

    Raises:
        SettingsError: for an unknown kind, key or value, or a recipe without a budget.
    """
    kind = kind_of(recipe, f"recipe '{stage.recipe}'")
    written: Any = from_dict(kind.settings, recipe.settings, f"recipe '{stage.recipe}'")
    found = with_overrides(written, stage.settings, f"stage '{stage.name}'")
    if not attrgetter(kind.budget)(found):
        raise SettingsError(f"stage '{stage.name}': its recipe needs {kind.budget}, which the budget scales")
    return found


def written_steps(recipe: Recipe, settings: Any) -> int:
    """Steps of a downstream stage before scaling.

    Args:
        recipe: the one that it names.
        settings: what `step_settings` gave.
    """
    return int(attrgetter(kind_of(recipe, "recipe").budget)(settings))


def place_step(
    recipe: Recipe,
    settings: Any,
    steps: int,
    seed: int,
    output_dir: str,
    folders: Mapping[str, str],
    base: PretrainSettings,
) -> Any:
    """The settings of one run of a downstream stage.

    Args:
        recipe: the one that it names.
        settings: what `step_settings` gave.
        steps: its budget.
        seed: of the run.
        output_dir: of the run.
        folders: by the names that may stand in braces.
        base: pre-training recipe, which knows the data folder and the device.

    Raises:
        SettingsError: for a name in braces that is no folder of this stage.
    """
    kind = kind_of(recipe, "recipe")
    changes: dict[str, Any] = {"seed": seed, "output_dir": output_dir, kind.budget: steps}
    changes |= {own: attrgetter(theirs)(base) for own, theirs in kind.inherits.items()}
    placed = with_overrides(settings, changes, output_dir)
    return from_dict(kind.settings, _filled(to_dict(placed), folders), output_dir)


_TEMPLATES = ("pair_columns", "product_columns")
"""Keys of mappings of columns, in whose texts names in braces are columns."""


def _filled(value: Any, folders: Mapping[str, str]) -> Any:
    """The value with folders in place of names in braces; templates of columns stay.

    Raises:
        SettingsError: for an unknown name.
    """
    if isinstance(value, Mapping):
        return {key: child if key in _TEMPLATES else _filled(child, folders) for key, child in value.items()}
    if isinstance(value, list):
        return [_filled(child, folders) for child in value]
    if not isinstance(value, str):
        return value

    def folder(match: re.Match[str]) -> str:
        if match[1] not in folders:
            raise SettingsError(f"'{value}': no folder '{match[1]}' here: there is {', '.join(folders)}; see 'needs'")
        return folders[match[1]]

    return re.sub(r"\{(\w+)\}", folder, value)


def run_step(recipe: Recipe, settings: Any) -> tuple[Mapping[str, Any], float]:
    """Run a downstream stage; its results and the seconds that it took.

    Args:
        recipe: the one that the stage names.
        settings: what `place_step` gave.
    """
    start = time.perf_counter()
    results = kind_of(recipe, "recipe").run(settings)
    return results, time.perf_counter() - start


def without_data(recipe: Recipe) -> Recipe:
    """The recipe where the real data is not there.

    Args:
        recipe: as written.
    """
    if not recipe.without_data:
        return recipe
    kind = kind_of(recipe, "recipe")
    found: Any = with_overrides(from_dict(kind.settings, recipe.settings), recipe.without_data, "without_data")
    return dataclasses.replace(recipe, settings=to_dict(found))
