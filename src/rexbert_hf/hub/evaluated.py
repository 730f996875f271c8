"""Figures that an evaluation measured after a run, kept beside the model for its card: `evaluation.json`.

The file names the model that was measured by the hash of its files, so that figures never outlive a training.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from .module_folders import module_folders
from .run_file import KEPT_STEPS, read_run, write_whole

logger = logging.getLogger(__name__)

EVALUATION_FILE = "evaluation.json"
"""In a model's folder: what an evaluation measured after the run (`recipes/evaluate.py --update_cards`)."""

BESIDE = "beside"
"""In an entry of the file: figures of other models on the same test examples, by the name that the evaluation gave:
`value`, `real` (whether it differs beyond chance; None if not compared), and the `key` of the model."""

_READ = ("*.safetensors", "*.bin", "*.json", "*.txt", "*.py", "*.model", "*.spm", "*.tiktoken", "*.jinja")
_NOT_READ = (
    *("run.json", "results.json", EVALUATION_FILE, "trainer_state.json", "report.json"),
    *("optimizer*.bin", "training_args.bin", "requirements.txt", KEPT_STEPS),
)
_IDENTITY = ("task_type", "dataset_type", "dataset_name", "dataset_split", "metric_type")
_COUNTED = ("budget", "seeds", "seed", "spread_over_seeds", "test_examples")
"""What `metric_args` say that is no change of a task's protocol."""
MEASURED = ("date", "hardware", "versions", "git_commit")
"""What an entry of the file says of its own measurement, beside the fields of `huggingface_hub.EvalResult`."""


def slug(name: str) -> str:
    """A name as the Hub's identifiers are written.

    Args:
        name: of a data set, in words.

    Example:
        >>> slug("test queries of homedepot/train.csv.zip")
        'test-queries-of-homedepot-train-csv-zip'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def model_files(folder: Path) -> list[Path]:
    """The files that decide what a model computes, of sentence-transformers modules (1_Pooling, ...) too.

    Args:
        folder: of the model.

    Raises:
        ValueError: if `modules.json` or `router_config.json` cannot be read, or names a folder outside.
    """
    named = [path for path in folder.iterdir() if path.is_dir() and re.match(r"(\w+_)?\d+_", path.name)]
    places = dict.fromkeys([*named, *(folder / name for name in module_folders(folder))])
    files = {path for place in places for path in place.rglob("*")} | set(folder.iterdir())
    return sorted(
        path
        for path in files
        if path.is_file()
        and any(fnmatch.fnmatch(path.name, pattern) for pattern in _READ)
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in _NOT_READ)
    )


def files_key(folder: Path, names: Collection[str] | None = None) -> str:
    """SHA-1 of `model_files`; cards, figures and checkpoints do not count.

    Args:
        folder: of the model.
        names: count only these of its files, as paths below the folder; None for all.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "config.json").write_text("{}")
        >>> before = files_key(folder)
        >>> _ = (folder / "run.json").write_text("{}")
        >>> files_key(folder) == before
        True
    """
    digest = hashlib.sha1(usedforsecurity=False)
    for path in model_files(folder):
        name = path.relative_to(folder).as_posix()
        if names is not None and name not in names:
            continue
        digest.update(f"{name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def write_evaluation(folder: Path, metrics: Sequence[Mapping[str, Any]], key: str | None = None) -> Path:
    """Put figures beside a model; those of earlier evaluations of the same model stay.

    What they have of other models goes where a name is another model's by now: a card has one column for it.

    Args:
        folder: of the model.
        metrics: fields of `huggingface_hub.EvalResult`, and those of `MEASURED`.
        key: `files_key` of the model as it was measured; None where nothing can have changed it since.

    Raises:
        ValueError: if the file that is there cannot be read, or the folder holds another model by now.
        OSError: if it cannot be written.
    """
    there, told = files_key(folder), {_measurement(metric) for metric in metrics}
    if key is not None and there != key:
        raise ValueError(
            f"{folder} was written anew since it was measured: its figures are another model's; evaluate again"
        )
    before = [one for one in _read(folder / EVALUATION_FILE, there) if _measurement(one) not in told]
    known = {name: told.get("key") for metric in metrics for name, told in (metric.get(BESIDE) or {}).items()}
    before = [_without_others(metric, known) for metric in before]
    text = json.dumps({"model_key": there, "metrics": [*before, *metrics]}, indent=1)
    write_whole(folder / EVALUATION_FILE, f"{text}\n".encode())
    return folder / EVALUATION_FILE


def _without_others(metric: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """An entry without the models whose names mean other ones now, or may: files of version 0.1 name no key."""
    peers = metric.get(BESIDE) or {}
    kept = {name: told for name, told in peers.items() if known.get(name, told.get("key")) == told.get("key")}
    found = {name: value for name, value in metric.items() if name != BESIDE}
    return {**found, BESIDE: kept} if kept else found


def is_of_its_folder(path: Path) -> bool:
    """Whether an `evaluation.json` is of the weights that lie beside it; without weights it is believed.

    Args:
        path: of the file.

    Raises:
        ValueError: if it cannot be read.
    """
    key = _key_of_weights(path.parent)
    return key is None or _record(path).get("model_key") == key


def _key_of_weights(folder: Path) -> str | None:
    weights = any(file.suffix in (".safetensors", ".bin") for file in model_files(folder))
    return files_key(folder) if weights else None


def with_evaluation(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The `run.json` of a folder, with the figures of its `evaluation.json` among the run's own.

    A figure of both is the evaluation's. Figures of another model than the folder's are left out, with a warning; a
    folder of figures alone is believed.

    Args:
        folder: the run's folder.

    Raises:
        ValueError: if one of the files cannot be read.
    """
    run, folder = read_run(folder), Path(folder)
    path = folder / EVALUATION_FILE
    if not path.is_file():
        return run
    later = _read(path, _key_of_weights(folder))
    told = {_figure(metric) for metric in later}
    results = dict(run.get("results") or {})
    own = [m for m in results.get("metrics") or [] if _figure(m) not in told]
    figures = [{key: value for key, value in metric.items() if key not in MEASURED} for metric in later]
    return {**run, "results": {**results, "metrics": own + figures, "evaluated": _told(later)}}


def changes_of(metric: Mapping[str, Any]) -> dict[str, Any]:
    """What of a task's protocol was set by hand for a figure, as its `metric_args` say.

    Args:
        metric: fields of `huggingface_hub.EvalResult`.

    Example:
        >>> changes_of({"metric_args": {"budget": "small", "seeds": 3, "max_length": 64}})
        {'max_length': 64}
    """
    return {name: value for name, value in (metric.get("metric_args") or {}).items() if name not in _COUNTED}


def _figure(metric: Mapping[str, Any]) -> tuple[Any, ...]:
    """With what was set by hand: such a figure is another one, and does not replace the protocol's."""
    changes = json.dumps(changes_of(metric), sort_keys=True, default=str)
    return (*(metric.get(name) for name in _IDENTITY), changes)


def _measurement(metric: Mapping[str, Any]) -> tuple[Any, ...]:
    """With its budget: figures of a small one do not replace those of the full one."""
    return (*_figure(metric), (metric.get("metric_args") or {}).get("budget"))


def _read(path: Path, key: str | None) -> list[dict[str, Any]]:
    """Entries of the file; none if there is no file, or it is of another model than `key` says."""
    if not path.is_file():
        return []
    record = _record(path)
    if key is not None and record.get("model_key") != key:
        logger.warning("%s is of another model than its folder's: left out; evaluate with --update_cards", path)
        return []
    common = {name: record[name] for name in MEASURED if name in record}  # once for all, in files of version 0.1
    return [{**common, **metric} for metric in record["metrics"]]


def _record(path: Path) -> dict[str, Any]:
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
        return {**record, "metrics": [dict(metric) for metric in record["metrics"]]}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({error}); delete it, and evaluate with --update_cards") from None


def _told(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """When, on what and with what the figures were measured: a line for each kind of circumstances."""
    dates: dict[str, list[str]] = {}
    for metric in metrics:
        packages = ", ".join(f"{name} {version}" for name, version in (metric.get("versions") or {}).items())
        commit = f"code: git commit {metric['git_commit']}" if metric.get("git_commit") else ""
        line = "; ".join(part for part in (metric.get("hardware"), packages, commit) if part)
        if line or metric.get("date"):
            dates.setdefault(line, []).extend(_days(metric.get("date")))
    return [" to ".join(dict.fromkeys((min(days), max(days)))) + f"; {line}" if days else line
            for line, days in dates.items()]  # fmt: skip


def _days(date: Any) -> list[str]:
    """Days of a date, or of "first to last"."""
    return [day[:10] for day in str(date).split(" to ")] if date else []
