"""Several runs in a row from one recipe: each stage starts from the folder of the one before (m3BERT's three stages).

What stands beside `stages` belongs to all of them; a stage is laid over it like a file over the one that it extends,
and the command line over both. A stage is a whole run, with a tokenizer of its own if it wants one, which a phase
cannot have. The last one writes into `output_dir` itself, the others into `output_dir`/stages/NAME; starting again goes
on where it was interrupted.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rexbert_hf.pretraining.chosen_sources import without_null_sources
from rexbert_hf.pretraining.encoder import positions_for
from rexbert_hf.pretraining.run import pretrain
from rexbert_hf.pretraining.settings import ModelSettings, PretrainSettings
from rexbert_hf.pretraining.source_settings import SourceSettings
from rexbert_hf.pretraining.stage_checks import check_stages
from rexbert_hf.pretraining.started import description_in
from rexbert_hf.settings import hold_folder
from rexbert_hf.settings.convert import structured
from rexbert_hf.settings.tree import COMMAND_LINE, Node, item_name, merge
from rexbert_hf.training.phases import Phase

logger = logging.getLogger(__name__)

STAGES = "stages"
"""Folder below `output_dir` that holds the stages before the last one."""
_NAME = re.compile(r"[\w-]+")
_OF_THE_FIRST = ("size", "revision", "grow_from", "overrides")
"""Keys of a model that only the stage which makes it reads."""


@dataclass
class Stage(PretrainSettings):
    """One stage: any key of a pre-training recipe, and its name.

    Attributes:
        name: of its folder and results.
    """

    name: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"a stage needs a name of letters, digits, - and _; got '{self.name}'")
        super().__post_init__()

    def settings(self, **changes: Any) -> PretrainSettings:
        """The stage as a recipe of its own."""
        fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(PretrainSettings)}
        return PretrainSettings(**fields | changes)


@dataclass
class StagedSettings(PretrainSettings):
    """A pre-training run, or several in a row.

    Attributes:
        stages: runs that each start from the folder of the one before; every other key is then their common part.
    """

    sources: dict[str, SourceSettings] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.stages:
            for name in ("sources", "phases"):
                if not getattr(self, name):
                    raise ValueError(f"{name} is required, but not set")
            super().__post_init__()
            return
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages need different names; got {', '.join(names)}")
        first, last = self.stages[0], self.stages[-1]
        for stage in self.stages[:-1]:
            if stage.push_to_hub not in (None, last.push_to_hub):
                raise ValueError(
                    f"stage '{stage.name}' has a push_to_hub of its own, and only the last stage is pushed: set it"
                    " beside 'stages', or push the folder of the stage with python -m rexbert_hf.hub push"
                )
        for stage in self.stages[1:]:
            if stage.model.init_from is not None and stage.model.init_from != self.stages[0].model.init_from:
                raise ValueError(f"stage '{stage.name}' starts from the stage before it: drop its model.init_from")
            if stage.output_dir != first.output_dir:
                raise ValueError(f"stage '{stage.name}' has an output_dir of its own: set it beside 'stages', for all")
            for name in _OF_THE_FIRST:
                if getattr(stage.model, name) != getattr(first.model, name):
                    raise ValueError(
                        f"stage '{stage.name}' goes on with the model of the stage before it: drop its model.{name}, or"
                        f" set it for the first stage, '{first.name}'"
                    )

    @staticmethod
    def arrange_tree(root: Node) -> Node:
        """Lay each stage over what stands beside `stages`, before types are looked at; sources that are null go.

        Args:
            root: the configuration as written.
        """
        assert isinstance(root.value, dict)
        stages = structured(root.value[STAGES]) if STAGES in root.value else None
        if stages is None or not isinstance(stages.value, list) or not stages.value:
            return without_null_sources([root])[0]
        common = Node({key: node for key, node in root.value.items() if key != STAGES}, root.origin)
        merged = [_laid_over(common, stage) if isinstance(stage.value, dict) else stage for stage in stages.value]
        return Node({STAGES: Node([*without_null_sources(merged)], stages.origin)}, root.origin)

    def runs(self) -> list[tuple[str, PretrainSettings]]:
        """Name and recipe of each run, in order: one without a name where there are no stages."""
        if not self.stages:
            fields = {item.name: getattr(self, item.name) for item in dataclasses.fields(PretrainSettings)}
            return [("", PretrainSettings(**fields))]
        found: list[tuple[str, PretrainSettings]] = []
        output = Path(self.stages[0].output_dir).expanduser()
        for stage in self.stages:
            last = stage is self.stages[-1]
            changes: dict[str, Any] = {
                "output_dir": str(output if last else output / STAGES / stage.name),
                "cache_dir": stage.cache_dir or str(output / "cache"),
                "push_to_hub": stage.push_to_hub if last else None,
            }
            if found:
                changes["model"] = _after(stage.model, found[-1][1].output_dir)
            elif not last:
                changes["model"] = _long_enough(stage, self.stages[1:], output / STAGES / stage.name)
            found.append((stage.name, stage.settings(**changes)))
        return found


def _laid_over(common: Node, stage: Node) -> Node:
    """A stage over what all share; the command line comes last, where it names the stage after where it does not."""
    return _typed_over(_typed_over(merge(common, stage), common), stage)


def _typed_over(node: Node, source: Node) -> Node:
    """Lay over a configuration what the command line wrote in another one, but below a part that it does not have.

    What a key of the command line names is taken whole; what stands inside its value, as a stage of `--stages`, is laid
    over like a file.
    """
    typed, inside = _is_typed(source), source.origin == COMMAND_LINE
    if typed and not inside:
        return source
    if isinstance(node.value, dict) and isinstance(source.value, dict):
        items = dict(node.value)
        for key, child in source.value.items():
            if key in items:
                items[key] = _typed_over(items[key], child)
            elif _is_typed(child):
                items[key] = child
        return dataclasses.replace(node, value=items)
    if isinstance(node.value, list) and isinstance(source.value, list):
        named = {name: item for item in source.value if (name := item_name(item)) is not None}
        if named or not typed:
            return dataclasses.replace(
                node, value=[_typed_over(item, named.get(item_name(item) or "", item)) for item in node.value]
            )
    return source if typed else node


def _is_typed(node: Node) -> bool:
    return node.origin.startswith(COMMAND_LINE)


def _after(model: ModelSettings, folder: str) -> ModelSettings:
    """The model of a stage that starts from the folder of another one, which knows its size and shape."""
    return ModelSettings(
        size=None, init_from=folder, attn_implementation=model.attn_implementation, matryoshka=model.matryoshka
    )


def _long_enough(first: Stage, later: Sequence[Stage], folder: Path) -> ModelSettings:
    """The model of the first stage, with positions for the longest phase of all where it is a new one.

    One that its folder holds keeps those that it was made with: the check of lengths says which stage is beyond them.
    """
    longest = max(phase.seq_length for stage in later for phase in stage.phases)
    if first.model.init_from is not None or longest <= positions_for(first):
        return first.model
    positions, started = {"max_position_embeddings": longest}, description_in(folder)
    if started is not None:
        made = started[1].get("model.overrides") or {}
        positions = {name: made[name] for name in positions if name in made}
    return dataclasses.replace(first.model, overrides=positions | first.model.overrides)


def pretrain_stages(runs: Sequence[tuple[str, PretrainSettings]]) -> dict[str, Any]:
    """Run the stages one after the other; those that are finished are left as they are.

    Before the first one trains, the others are looked at and their data prepared (`stage_checks`). The folder of the
    last one is held all the while: a second run would prepare the same data, and train another stage.

    Args:
        runs: of `StagedSettings.runs`.

    Returns:
        The results of the last one; where there are several, `stage` is its name and `stages` holds the names and
        results of those before it, also in its `run.json`.

    Raises:
        ValueError: as `pretrain`.
        OSError: as `pretrain`.
    """
    with hold_folder(runs[-1][1].output_dir):
        if len(runs) > 1:
            check_stages(runs)
        return _in_a_row(runs)


def _in_a_row(runs: Sequence[tuple[str, PretrainSettings]]) -> dict[str, Any]:
    earlier: list[dict[str, Any]] = []
    results: dict[str, Any] = {}
    for number, (name, settings) in enumerate(runs, 1):
        if len(runs) > 1:
            logger.info("stage %d of %d: %s, in %s", number, len(runs), name, settings.output_dir)
        chain = {"stage": name, "stages": list(earlier)} if number == len(runs) > 1 else {}
        results = pretrain(settings, further=chain)
        earlier.append({"name": name, **results})
    return results
