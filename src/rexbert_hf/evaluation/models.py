"""Which model a name means: a folder, a snapshot of the Hub, the MiniLM distribution, or a baseline by word.

Results are cached by what a model is, not by what it is called: the commit of a snapshot, or the hash of the files that
a loader reads. Checkpoints, cards and figures in a folder do not count.

A name with "{seed}" in it, such as "runs/seed-{seed}/domain", is one model trained several times: seed s of every task
is measured on its own folder, so that the spread over seeds is that of pre-training too.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rexbert_hf.hub.evaluated import files_key, model_files
from rexbert_hf.retrieval.training.biencoder import MINILM, find_base

BASELINES = ("random", "bm25", "dssm")
"""Words that name no model; each task says which of them it understands."""

SEED = "{seed}"
"""In a name, where the number of a seed goes."""

_SNAPSHOT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class ModelUnderTest:
    """A model and what it is.

    Attributes:
        name: as it was given.
        path: folder to load, or the word of a baseline.
        key: commit, hash of its files, or the word.
        by_seed: of a name with "{seed}", the model of each seed.
        seen: name, size and time of the files that the key was made of.
    """

    name: str
    path: str
    key: str
    by_seed: tuple[ModelUnderTest, ...] = field(default=(), repr=False)
    seen: tuple[tuple[str, int, int], ...] = field(default=(), repr=False, compare=False)

    @property
    def is_word(self) -> bool:
        """Whether it is a baseline by word."""
        return self.name in BASELINES

    @property
    def has_files_key(self) -> bool:
        """Whether its key is the hash of its files, which may change; a word's and a commit's do not."""
        return self.key != Path(self.path).name

    def at(self, seed: int) -> ModelUnderTest:
        """The model that a seed is measured on.

        Args:
            seed: of the run.
        """
        return self.by_seed[seed] if self.by_seed else self

    def check_unchanged(self) -> None:
        """See that the folder still holds the model that the key says: a training may be writing into it.

        Files are hashed only where a size or a time differs.

        Raises:
            ValueError: if it holds another one.
        """
        if self.by_seed or not self.has_files_key:
            return
        folder = Path(self.path)
        if _seen(folder) != self.seen and model_key(folder) != self.key:
            raise ValueError(
                f"{folder} was written anew while it was measured: evaluate again once nothing writes into it"
            )


def find_model(name: str, seeds: int = 0) -> ModelUnderTest:
    """The model that a name means; a baseline's word wins over a folder of that name (write ./bm25 for the folder).

    Args:
        name: folder, Hub name, the MiniLM distribution, or a word of `BASELINES`.
        seeds: that a name with "{seed}" must have a model for, from 0; 0 where a name is one model.

    Raises:
        FileNotFoundError: if there is none, or the folder holds no model.
        ValueError: if it is the word of a baseline in another case.
        ConnectionError: if the Hub cannot be reached.
        ImportError: if the MiniLM distribution is not installed.

    Example:
        >>> find_model("bm25")
        ModelUnderTest(name='bm25', path='bm25', key='bm25')
    """
    if name in BASELINES:
        return ModelUnderTest(name, name, name)
    if seeds and SEED in name:
        members = tuple(find_model(name.replace(SEED, str(seed))) for seed in range(seeds))
        return ModelUnderTest(name, name, " ".join(member.key for member in members), members)
    if name.lower() in BASELINES and not Path(name).exists():  # before the Hub is asked for minutes
        raise ValueError(f"no model {name}; did you mean {name.lower()}?")
    try:
        folder = find_base(name)
    except (FileNotFoundError, ConnectionError) as error:
        near = _near(name)
        raise type(error)(f"{error}; did you mean {near}?") if near else error from None
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        place = "" if str(folder) == name else f"{name}: "
        raise FileNotFoundError(f"{place}{folder} holds no model (no config.json or modules.json)")
    path = str(folder.absolute() if str(folder) in BASELINES else folder)  # tasks take the word for the baseline
    seen = _seen(folder)  # before the hash: what changes under it is seen to differ
    return ModelUnderTest(name, path, model_key(folder), seen=seen)


def _seen(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = {path.relative_to(folder).as_posix(): path.stat() for path in model_files(folder)}
    return tuple((name, found.st_size, found.st_mtime_ns) for name, found in files.items())


def _near(name: str) -> str | None:
    """A baseline or the MiniLM distribution, of nearly this name; folders are named by `resolve`."""
    found = difflib.get_close_matches(name.lower(), (*BASELINES, MINILM), 1, 0.7)
    return found[0] if found else None


def labels(models: Sequence[ModelUnderTest]) -> dict[str, str]:
    """What reports call each model: a local folder by as many of its last parts as tell it from the others.

    Args:
        models: all of a report.

    Raises:
        ValueError: if two are one folder.

    Example:
        >>> a, b = (ModelUnderTest(name, name, "") for name in ("runs/a/best", "runs/b/best"))
        >>> labels([a, b, ModelUnderTest("user/name", "snapshots/1", "")])
        {'runs/a/best': 'a/best', 'runs/b/best': 'b/best', 'user/name': 'user/name'}
    """
    folders = {model.name: Path(model.name).absolute() for model in models if not model.is_word}
    local = {model.name: folders[model.name].parts for model in models
             if folders.get(model.name) == Path(model.path).absolute()}  # fmt: skip
    found = {model.name: model.name for model in models}
    for name, parts in local.items():
        others = [other for key, other in local.items() if key != name]
        others += [tuple(other.split("/")) for other in found if other not in local]
        count = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts))
        found[name] = str(Path(*parts[-count:]))
    called: dict[str, str] = {}
    for name, label in found.items():
        if label in called:
            raise ValueError(f"models names one folder twice: {called[label]} and {name}")
        called[label] = name
    return found


def model_key(folder: Path) -> str:
    """Commit of a snapshot of the Hub, else a hash of the files that decide what a model computes.

    Args:
        folder: of the model.
    """
    if folder.parent.name == "snapshots" and _SNAPSHOT.fullmatch(folder.name):
        return folder.name
    return files_key(folder)
