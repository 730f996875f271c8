"""Pushing a finished run, or a dataset: whole, in one commit, or with one line that says what to do next.

What goes up is a list of what a model needs, not everything but a list of what it does not: checkpoints, optimizer
states, logs and whatever else lies in a run's folder stay here. One commit holds all of it, so that nobody ever pulls
half a model. The Hub's passing troubles (429, 5xx, lost connections) are waited out.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from .card import card_of_run
from .module_folders import module_folders
from .push_files import push_files, remote_readme
from .readme import merge_card, split_card
from .redaction import redact
from .run_file import RUN_FILE, portable, read_run
from .trouble import explain, with_retries

CONFIGURATION = (
    *("config.json", "generation_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json"),
    *("vocab.txt", "merges.txt", "chat_template.jinja"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "router_config.json"),
)
"""Files that decide, beside the weights, what a model computes; loaders read those that are there."""

ROOT_FILES = (
    *(*CONFIGURATION, "*.py", "*.spm", "*.model", "model.safetensors.index.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "adapter_model.safetensors"),
    *("README.md", RUN_FILE, "results.json", "evaluation.json", "LICENSE", "NOTICE", "*.png", "*.svg"),
)
"""What is pushed of a run's folder itself; weights by name, since steps that stopped it are safetensors too."""

MODULE_FILES = (*CONFIGURATION, "*.py", "*.spm", "*.model", "*.safetensors", "*.json")
"""What is pushed of the folder of a sentence-transformers module."""

SUB_FOLDERS = {
    "modernbert": ROOT_FILES,
    "plots": ("*.png", "*.svg"),
    "onnx": ("*.onnx", "*.onnx_data", "*.json", "onnx_encoder.py"),
}
"""What is pushed of its sub-folders: the stock form, plots, exports. Those of modules are `module_folders`."""

LOADED_FIRST = (
    *("model*.safetensors", "model.safetensors.index.json"),
    *("pytorch_model*.bin", "pytorch_model.bin.index.json"),
)
"""Weight files that a loader picks up by their name."""

ONNX_ENCODER = "onnx/encoder.json"
"""What our own export writes beside its graphs, and no other."""

_MODULES = ("[0-9]_[A-Z]*", "query_[0-9]_[A-Z]*", "document_[0-9]_[A-Z]*")
"""Folders of modules as sentence-transformers names them."""

_MODEL_FOLDERS = ("", *(f"{part}/" for part in ("modernbert", *_MODULES, *(f"modernbert/{name}" for name in _MODULES))))

STALE = (
    *(f"{folder}{pattern}" for folder in _MODEL_FOLDERS for pattern in (*LOADED_FIRST, *CONFIGURATION)),
    *("onnx/*.onnx", "onnx/*.onnx_data", "onnx/encoder.json", "onnx/tokenizer.json", "onnx/onnx_encoder.py"),
)
"""What an earlier push left and a loader would read beside this one's files. Code, figures, pictures and whatever
else lies in a repository stay: they may be somebody's own."""


def push_run(
    output_dir: str | os.PathLike[str],
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    endpoint: str | None = None,
    revision: str | None = None,
    tag: str | None = None,
) -> str:
    """Push the model, tokenizer, card and run file of a finished run, in one commit.

    The card is rendered anew with the repository's name; text that somebody wrote into the README here or on the Hub
    is kept (`merge_card`); where the two differ, the Hub's stays and one line says so. Weights, configuration,
    tokenizer files, modules and ONNX graphs that an earlier push left on the Hub and this one does not have are
    removed in the same commit, because loaders would read them (`STALE`). Graphs that somebody else made of the very
    same weights stay.

    Args:
        output_dir: the run's folder.
        repo_id: "user/name"; made when missing.
        token: a write token; by default the one that `hf auth login` or HF_TOKEN gave. Never logged, never written.
        private: whether a new repository is private; None leaves it to the account's default.
        commit_message: the title of the commit.
        endpoint: another Hub's address.
        revision: the branch to push to; made when missing.
        tag: a name for the pushed commit. One that exists is an error: tags don't move.

    Returns:
        The repository's address.

    Raises:
        FileNotFoundError: when the folder holds no finished model.
        ValueError: for a damaged weight file, index or configuration, a bad repository name, an existing tag, a card
            that cannot be read.
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable or in trouble; the message holds the command to try again.
    """
    folder = Path(output_dir)
    found = files_of_run(folder)
    _check_weights(folder, found)
    _check_code(found)
    files: dict[str, Path | bytes] = {name: path for name, path in found.items() if name != "README.md"}
    if RUN_FILE in files:
        run = portable(redact(read_run(folder / RUN_FILE)), folder)
        files[RUN_FILE] = (json.dumps(run, indent=2, ensure_ascii=False) + "\n").encode("utf-8")
    command = f"python -m rexbert_hf.hub push {shlex.quote(str(output_dir))} {shlex.quote(repo_id)}"
    command += "".join(f" --{k} {shlex.quote(v)}" for k, v in (("revision", revision), ("tag", tag)) if v)
    command += " --private" if private else ""
    return push_files(
        files,
        repo_id,
        card=card_of_run(folder, repo_id),
        stale=partial(_stale, files, revision),
        token=token,
        private=private,
        commit_message=commit_message,
        endpoint=endpoint,
        revision=revision,
        tag=tag,
        advice=f"the model is safe in {output_dir}; to try again: {command}",
    )


def files_of_run(folder: Path) -> dict[str, Path]:
    """What `push_run` pushes of a folder: path in the repository -> file here, sorted.

    Args:
        folder: the run's folder. Links that lead out of it are left out.

    Raises:
        FileNotFoundError: when there is no finished model.
        ValueError: when `modules.json` or `router_config.json` cannot be read, or names a folder outside.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> names = ["config.json", "model.safetensors", "optimizer.pt", "trainer_state.json"]
        >>> _ = [(folder / name).touch() for name in names]
        >>> list(files_of_run(folder))
        ['config.json', 'model.safetensors']
    """
    places = {"": ROOT_FILES, **SUB_FOLDERS}
    for root in ("", "modernbert/"):
        places |= {f"{root}{name}": MODULE_FILES for name in module_folders(folder / root)}
    lying = [(path, patterns) for name, patterns in places.items() for path in (folder / name).glob("*")]
    found = {
        path.relative_to(folder).as_posix(): path
        for path, patterns in sorted(lying)
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns)
        and path.is_file()
        and path.resolve().is_relative_to(folder.resolve())
    }
    # Sentence-transformers' modules may have folders of their own, with no model in the root.
    modular = "modules.json" in found
    missing = [] if modular or "config.json" in found else ["config.json"]
    missing += [] if any(p.endswith(".safetensors") and (modular or "/" not in p) for p in found) else ["*.safetensors"]
    if missing:
        raise FileNotFoundError(f"{folder} holds no finished model ({' and '.join(missing)} missing): nothing to push")
    return found


def _stale(
    files: Mapping[str, Path | bytes], revision: str | None, api: HfApi, repo_id: str, there: Collection[str]
) -> Sequence[str]:
    """`STALE`, but without the graphs where others made them of the weights that are pushed."""
    if ONNX_ENCODER in there or not any(name.startswith("onnx/") for name in there):
        return STALE
    names = {name: path for name, path in files.items() if name.endswith(".safetensors") and isinstance(path, Path)}
    known = {one.path: one for one in api.get_paths_info(repo_id, [*names], revision=revision)}
    for name, path in names.items():
        lfs = getattr(known.get(name), "lfs", None)
        if lfs is None or lfs.size != path.stat().st_size:
            return STALE
        with path.open("rb") as file:
            if lfs.sha256 != hashlib.file_digest(file, "sha256").hexdigest():
                return STALE
    return [pattern for pattern in STALE if not pattern.startswith("onnx/")]


def _check_weights(folder: Path, files: dict[str, Path]) -> None:
    """No half-written weights leave this machine."""
    from safetensors import SafetensorError, safe_open

    for name, path in files.items():
        if name.endswith(".safetensors"):
            try:
                with safe_open(path, framework="numpy"):
                    pass
            except SafetensorError as error:
                raise ValueError(f"{path} is damaged ({error}): save the model again, then push") from None
        elif name.endswith(".safetensors.index.json"):
            shards = {str(shard) for shard in _part_of(path, "weight_map").values()}
            if lost := sorted(shard for shard in shards if name.removesuffix(path.name) + shard not in files):
                raise FileNotFoundError(f"{path} names {', '.join(lost)}, no weight file there: save the model again")


def _part_of(path: Path, key: str) -> dict[str, Any]:
    """An object in the object of a JSON file; empty where there is none of the name."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        part = found.get(key) or {}
        return dict(part.items())
    except (ValueError, AttributeError, RecursionError) as error:
        what = str(error) if isinstance(error, ValueError) else f"it, or its {key}, is no JSON object"
        raise ValueError(f"{path} is damaged ({what}): save the model again, then push") from None


def _check_code(files: dict[str, Path]) -> None:
    """Whoever pulls without this package needs the modules that `auto_map` names."""
    for name, path in files.items():
        if path.name != "config.json":
            continue
        targets = [str(target) for target in _part_of(path, "auto_map").values()]
        modules = {f"{target.split('.')[0]}.py" for target in targets if "--" not in target}  # else: elsewhere
        folder = name.removesuffix("config.json")
        if lost := sorted(module for module in modules if folder + module not in files):
            raise FileNotFoundError(f"{path} names {', '.join(lost)}, not there: save the model with save_pretrained")


def push_dataset(
    dataset: Any,
    repo_id: str,
    config_name: str = "default",
    *,
    card: str | None = None,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    revision: str | None = None,
    **options: Any,
) -> str:
    """Push a dataset as Parquet and bring its card along, without touching what somebody wrote into the README.

    Args:
        dataset: a `datasets` Dataset, DatasetDict or IterableDataset.
        repo_id: "user/name"; made when missing.
        config_name: the configuration (subset) to write; others stay.
        card: a rendered card (`render_dataset_card`). The metadata that `datasets` wrote (features, sizes, files) is
            kept beside it.
        token: a write token; by default the one of this machine. Never logged, never written.
        private: whether a new repository is private.
        commit_message: the title of the data's commit.
        revision: the branch to push to.
        options: further arguments of the dataset's own `push_to_hub` (`split`, `max_shard_size`, `num_proc`, ...).

    Returns:
        The repository's address.

    Raises:
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable or in trouble.
        ValueError: for a card or an existing README whose metadata cannot be read.
    """
    api = HfApi(token=token)  # datasets has no endpoint argument: both go where HF_ENDPOINT points
    if card is not None:
        split_card(card)

    def push_data() -> None:
        dataset.push_to_hub(
            repo_id,
            config_name,
            token=token,
            private=private,
            commit_message=commit_message,
            revision=revision,
            **options,
        )

    def push_card() -> None:
        there = remote_readme(api, repo_id, "dataset", revision)
        merged = merge_card(there, card or "")
        if merged != there:
            operation = CommitOperationAdd("README.md", merged.encode("utf-8"))
            message = "Update the card"
            api.create_commit(repo_id, [operation], commit_message=message, repo_type="dataset", revision=revision)

    try:
        with_retries(push_data, f"pushing to {repo_id}")
        if card is not None:
            with_retries(push_card, f"pushing the card of {repo_id}")
    except Exception as error:
        explained = explain(error, f"dataset {repo_id} was not pushed to {api.endpoint}", "push it again")
        if explained is None:
            raise
        raise explained from None
    return str(redact(f"{api.endpoint}/datasets/{repo_id}"))
