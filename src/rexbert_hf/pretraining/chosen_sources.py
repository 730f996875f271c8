"""Sources of a recipe that the user leaves out or replaces: what of the sample shop goes with them, and what stays."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from rexbert_hf.catalog.mixed_sample import warn_of_sample
from rexbert_hf.pretraining.settings import PretrainSettings
from rexbert_hf.pretraining.source_settings import SourceSettings
from rexbert_hf.settings.convert import NULL_WORDS, structured
from rexbert_hf.settings.kinds import parse_number
from rexbert_hf.settings.tree import Node, SettingsError, closest

_SAMPLE = "sample"
_ENDS = (0, "start"), (-1, "end")
"""Of a phase: index into a weight [start, end], and its name."""


def without_null_sources(runs: Sequence[Node]) -> list[Node]:
    """Take sources that are null out of recipes as written, and out of the mixtures of their phases.

    Args:
        runs: each a mapping with `sources` and `phases`.

    Raises:
        SettingsError: if a phase mixes nothing else at its start or its end, or a null names no source but one like it.
    """
    known = {name for run in runs for mixture in _mixtures(run) for name in mixture}
    # A stage's null may be of a source that is only evaluated, and that another stage still has.
    known |= {name for run in runs for name, node in _part(run, "sources").items() if not _is_null(node)}
    return [_without_null(run, known) for run in runs]


def _without_null(run: Node, known: set[str]) -> Node:
    sources = _part(run, "sources")
    out = {name: node for name, node in sources.items() if _is_null(node)}
    for name, node in out.items():
        near = closest(name, known)
        if name not in known and not node.laid_over and near:
            raise SettingsError(f"unknown key 'sources.{name}' (from {node.origin}); did you mean 'sources.{near}'?")
    if not out:
        return run
    assert isinstance(run.value, dict)
    kept = Node({name: node for name, node in sources.items() if name not in out}, run.value["sources"].origin)
    changed = {**run.value, "sources": kept}
    if "phases" in run.value and isinstance((phases := structured(run.value["phases"])).value, list):
        changed["phases"] = dataclasses.replace(phases, value=[_unmixed(phase, out) for phase in phases.value])
    return dataclasses.replace(run, value=changed)


def _unmixed(phase: Node, out: dict[str, Node]) -> Node:
    mixture = _part(phase, "mixture")
    gone = [name for name in mixture if name in out]
    if not gone:
        return phase
    assert isinstance(phase.value, dict)
    left = {name: node for name, node in mixture.items() if name not in out}
    for end, where in _ENDS:
        needed = [name for name in gone if not left or _weighs(mixture[name], end)]
        if needed and not any(_weighs(node, end) for node in left.values()):
            name, at = getattr(phase.value.get("name"), "value", ""), f" at its {where}" if left else ""
            raise SettingsError(
                f"sources.{needed[0]}: phase '{name}' mixes nothing but {', '.join(needed)}{at}, which cannot be taken"
                f" out then: give another text in its place, or another mixture (from {out[needed[0]].origin})"
            )
    return dataclasses.replace(phase, value={**phase.value, "mixture": Node(left, phase.value["mixture"].origin)})


def _weighs(node: Node, end: int) -> bool:
    """Whether a weight, or a [start, end] of weights, is above zero at an end; what is none is refused later."""
    value = structured(node, commas=True).value
    weight = value[end].value if isinstance(value, list) and value else value
    number = parse_number(weight) if isinstance(weight, str) else None
    return number is None or number > 0


def _mixtures(run: Node) -> Iterator[Iterable[str]]:
    phases = structured(run.value["phases"]).value if isinstance(run.value, dict) and "phases" in run.value else None
    for phase in phases if isinstance(phases, list) else []:
        yield _part(phase, "mixture")


def _part(node: Node, key: str) -> dict[str, Node]:
    """The mapping of a key; empty where there is none, which the types are checked for later."""
    found = node.value.get(key) if isinstance(node.value, dict) else None
    value = None if found is None else structured(found).value
    return value if isinstance(value, dict) else {}


def _is_null(node: Node) -> bool:
    return node.value is None or (node.raw and node.value in NULL_WORDS)


def warn_of_sample_sources(runs: Iterable[PretrainSettings]) -> None:
    """Say which sources of a recipe, or of its stages, are still the sample shop's beside the user's own.

    Args:
        runs: the recipe, or its stages.
    """
    runs = list(runs)
    sources: dict[str, SourceSettings] = {name: source for run in runs for name, source in run.sources.items()}
    sample = [name for name, one in sources.items() if one.sample is not None or one.corpus == _SAMPLE]
    own = [name for name in sources if name not in sample]
    if sample and own:
        free = [name for name in sample if not any(_needs(run, name) for run in runs)]
        name = (free or sample)[0]
        leave_out = f", or leave it out by --sources.{name} null" if free else ""
        way_out = f"give --sources.{name} '{{path: ...}}'{leave_out}"
        warn_of_sample(f"texts of sources.{', '.join(sample)}", f"those of sources.{', '.join(own)}", way_out)


def _needs(run: PretrainSettings, name: str) -> bool:
    """Whether a phase has no other source at its start or at its end."""
    others = [[pair for other, pair in phase.weights().items() if other != name] for phase in run.phases]
    return any(not any(pair[end] > 0 for pair in pairs) for pairs in others for end, _ in _ENDS)
