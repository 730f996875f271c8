"""Which model a name means: a folder, a snapshot of the Hub, the MiniLM distribution, or a baseline by word.

Results are cached by what a model is, not by what it is called: the commit of a snapshot, or the hash of the files that
a loader reads. Checkpoints, cards and figures in a folder do not count.

A name with "{seed}" in it, such as "runs/seed-{seed}/domain", is one model trained several times: seed s of every task
is measured on its own folder, so that the spread over seeds is that of pre-training too.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rexbert_hf.retrieval.training.biencoder import find_base

BASELINES = ("random", "bm25", "dssm")
"""Words that name no model; each task says which of them it understands."""

_READ = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.py", "*.model", "*.spm", "*.jinja")
_NOT_READ = (
    *("run.json", "results.json", "evaluation.json", "trainer_state.json", "report.json"),
    *("optimizer*.bin", "training_args.bin", "requirements.txt"),
)
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
    """

    name: str
    path: str
    key: str
    by_seed: tuple[ModelUnderTest, ...] = field(default=(), repr=False)

    @property
    def is_word(self) -> bool:
        """Whether it is a baseline by word."""
        return self.name in BASELINES

    def at(self, seed: int) -> ModelUnderTest:
        """The model that a seed is measured on.

        Args:
            seed: of the run.
        """
        return self.by_seed[seed] if self.by_seed else self


def find_model(name: str, seeds: int = 0) -> ModelUnderTest:
    """The model that a name means; a baseline's word wins over a folder of that name (write ./bm25 for the folder).

    Args:
        name: folder, Hub name, the MiniLM distribution, or a word of `BASELINES`.
        seeds: that a name with "{seed}" must have a model for, from 0; 0 where a name is one model.

    Raises:
        FileNotFoundError: if there is none, or the folder holds no model.
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
    folder = find_base(name)
    if not any((folder / file).is_file() for file in ("config.json", "modules.json")):
        raise FileNotFoundError(f"{name}: {folder} holds no model (no config.json or modules.json)")
    return ModelUnderTest(name, str(folder), model_key(folder))


def labels(models: Sequence[ModelUnderTest]) -> dict[str, str]:
    """What reports call each model: a local folder by as many of its last parts as tell it from the others.

    Args:
        models: all of a report.

    Example:
        >>> a, b = (ModelUnderTest(name, name, "") for name in ("runs/a/best", "runs/b/best"))
        >>> labels([a, b, ModelUnderTest("user/name", "snapshots/1", "")])
        {'runs/a/best': 'a/best', 'runs/b/best': 'b/best', 'user/name': 'user/name'}
    """
    local = {model.name: Path(model.name).absolute().parts for model in models if Path(model.name) == Path(model.path)}
    found = {model.name: model.name for model in models}
    for name, parts in local.items():
        others = [other for key, other in local.items() if key != name]
        count = next((n for n in range(1, len(parts)) if all(o[-n:] != parts[-n:] for o in others)), len(parts))
        found[name] = "/".join(parts[-count:])
    return found


def model_key(folder: Path) -> str:
    """Commit of a snapshot of the Hub, else a hash of the files that decide what a model computes.

    Args:
        folder: of the model.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> before = model_key(folder)
        >>> _ = (folder / "run.json").write_text("{}")
        >>> model_key(folder) == before
        True
    """
    if folder.parent.name == "snapshots" and _SNAPSHOT.fullmatch(folder.name):
        return folder.name
    digest = hashlib.sha1(usedforsecurity=False)
    for path in _model_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _model_files(folder: Path) -> list[Path]:
    """Of the folder and of its sentence-transformers modules (1_Pooling, query_0_Transformer, ...)."""
    inside = [path for path in folder.iterdir() if path.is_dir() and re.match(r"(query_|document_)?\d+_", path.name)]
    files = [path for place in (folder, *inside) for path in place.iterdir() if path.is_file()]
    return sorted(
        path
        for path in files
        if any(fnmatch.fnmatch(path.name, pattern) for pattern in _READ)
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in _NOT_READ)
    )
