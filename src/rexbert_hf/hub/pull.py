"""From "a folder or a name on the Hub" to a folder, with the bytes checked.

huggingface_hub checks the length of what it downloads; here the hash is checked too, once for each file of the cache: a
flipped bit in a weight file would otherwise go unnoticed for ever. A small file beside the blobs says of each that it
was checked, so that a call that fails or is killed between a download and its check leaves that to the next one.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HFValidationError, RevisionNotFoundError

from .redaction import redact
from .run_file import KEPT_STEPS
from .trouble import chain, explain, is_passing, is_unknown_host, patience, with_retries

logger = logging.getLogger(__name__)

MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")
"""Weights, configurations and tokenizers."""
TOKENIZER_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""Tokenizers and configurations, without weights."""
OTHER_FORMS = ("onnx/*", "openvino/*", "modernbert/*")
"""Sub-folders that hold the same weights again."""
CHECKED = ".checked"
"""Folder beside the blobs, with a mark for each blob whose hash was found right."""


def resolve(
    path_or_repo: str | os.PathLike[str],
    revision: str | None = None,
    allow_patterns: str | Sequence[str] | None = None,
    *,
    ignore_patterns: Sequence[str] | None = None,
    repo_type: str = "model",
    token: str | None = None,
    endpoint: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Path:
    """Return a local folder for a folder or for a repository on the Hub.

    Args:
        path_or_repo: a folder, returned as it is, or "user/name".
        revision: a branch, tag or commit of the repository.
        allow_patterns: download only files that match.
        ignore_patterns: of those, leave out what matches.
        repo_type: "model" or "dataset".
        token: a read token; by default the one of this machine.
        endpoint: another Hub's address.
        cache_dir: where downloads are kept; huggingface_hub's cache by default.

    Raises:
        FileNotFoundError: no such folder, repository or revision; no such folder in one here, and no host of the Hub.
        NotADirectoryError: the path is a file.
        ValueError: a revision of a local folder, a name that the Hub does not allow.
        PermissionError: private or gated.
        ConnectionError: offline or the Hub is in trouble, and nothing complete is in the cache.
        OSError: a downloaded file does not have the hash that the Hub promised; it has been removed.

    Example:
        >>> import tempfile
        >>> resolve(tempfile.gettempdir()) == Path(tempfile.gettempdir())
        True
    """
    path = _with_home(path_or_repo)
    if path.is_dir():
        if revision is not None:
            raise ValueError(f"{path} is a local folder and has no revision {revision}: leave the revision out")
        return path
    if path.exists():
        raise NotADirectoryError(f"{path} is a file: give its folder")
    name, near = os.fspath(path_or_repo), _near(path)
    meant = f"; did you mean {near}?" if near else ""
    if name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name:
        raise FileNotFoundError(f"{path} does not exist{meant}")
    if near:  # a Hub that cannot be reached is asked for a minute
        logger.warning("there is no folder %s, so the Hub is asked for it%s", name, meant)
    cache, hub = Path(cache_dir or constants.HF_HUB_CACHE), endpoint or constants.ENDPOINT
    folder = cache / f"{repo_type}s--{name.replace('/', '--')}"
    known = _blobs(folder)
    patterns = [allow_patterns] if isinstance(allow_patterns, str) else allow_patterns

    def download() -> str:
        return snapshot_download(
            name,
            repo_type=repo_type,
            revision=revision,
            allow_patterns=list(patterns) if patterns is not None else None,
            ignore_patterns=None if ignore_patterns is None else list(ignore_patterns),
            token=token,
            endpoint=endpoint,
            cache_dir=cache,
        )

    try:
        found = with_retries(download, f"pulling {name}", lambda e: is_passing(e) and not _no_say(e, path, folder, hub))
    except Exception as error:
        if why := _no_say(error, path, folder, hub):
            raise FileNotFoundError(f"{path} does not exist, {why}: check the path{meant}") from None
        _remove_damaged(folder, _blobs(folder) - known, name)
        wanted = f"{repo_type} {name}{f' at {revision}' if revision else ''}"
        what = f"cannot get {wanted} from {hub}"
        explained = explain(error, what, _remedy(error, HfApi(endpoint=endpoint, token=token), name, repo_type))
        if explained is None:
            raise
        raise type(explained)(f"{explained}{meant}") from None
    _check_hashes(folder, _blobs_of(Path(found)), name)
    return Path(found)


def resolve_model(
    path_or_repo: str | os.PathLike[str], revision: str | None = None, *, modules: bool = False, **options: Any
) -> Path:
    """Return a local folder with what torch loads of a model; copies for other frameworks stay where they are.

    Args:
        path_or_repo: a folder, returned as it is, or "user/name".
        revision: a branch, tag or commit of the repository.
        modules: take the sub-folders of a sentence-transformers model too.
        options: `token`, `endpoint` and `cache_dir` of `resolve`.

    Raises:
        OSError: and others, as `resolve`.
    """
    wanted = [*MODEL_FILES, "*/pytorch_model.bin"] if modules else [*MODEL_FILES]
    options["ignore_patterns"] = (KEPT_STEPS, *(OTHER_FORMS if modules else ("*/*",)))
    folder = resolve(path_or_repo, revision, wanted, **options)
    if any(folder.glob("*.safetensors")):
        return folder
    return resolve(path_or_repo, revision, [*wanted, "pytorch_model*.bin"], **options)


def _with_home(path: str | os.PathLike[str]) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{path}: no such user here; write the folder out") from None


def _near(path: Path) -> Path | None:
    """A folder beside, of nearly this name."""
    try:
        beside = [other.name for other in path.parent.iterdir() if other.is_dir()]
    except OSError:  # there is none, or it may not be read
        return None
    found = difflib.get_close_matches(path.name, beside, 1, 0.7)
    return path.with_name(found[0]) if found else None


def _no_say(error: BaseException, path: Path, cached: Path, hub: str) -> str:
    """Why the Hub has no say in a name whose parent is a folder here; "" where it has, or has had before."""
    if len(path.parts) < 2 or not path.parent.is_dir() or cached.exists():
        return ""
    if any(isinstance(cause, HFValidationError) for cause in chain(error)):
        return "and is no name that the Hub allows"
    return f"and the host of the Hub ({redact(hub)}), or its proxy's, is unknown" if is_unknown_host(error) else ""


def _remedy(error: Exception, api: HfApi, name: str, repo_type: str) -> str:
    if not any(isinstance(cause, RevisionNotFoundError) for cause in chain(error)):
        return "check the name (there is no folder of that name either), or log in if it is private"
    with patience():
        refs = api.list_repo_refs(name, repo_type=repo_type)
    return f"it has {', '.join(ref.name for ref in [*refs.branches, *refs.tags])}"


def _blobs(folder: Path) -> set[str]:
    blobs = folder / "blobs"
    return {path.name for path in blobs.iterdir()} if blobs.is_dir() else set()


def _blobs_of(snapshot: Path) -> set[str]:
    """The blobs that a snapshot's links name; what was copied into it, where there are no links, has no hash."""
    return {Path(os.readlink(path)).name for path in snapshot.rglob("*") if path.is_symlink()}


def _check_hashes(folder: Path, names: set[str], repo: str) -> None:
    """Check the blobs without a mark, and remove those that are damaged; the error names them all.

    In the cache a blob is named by its hash: sha256 for large files, git's for the others.
    """
    if not os.access(folder, os.W_OK):  # nothing arrives in a cache that nobody may write to, and no mark would stay
        return
    damaged = []
    for name in sorted(names):
        path = folder / "blobs" / name
        if not re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", name) or not path.exists() or _is_marked(path):
            continue
        state = _state(path)
        found = _digest(path, large=len(name) == 64)
        if found == name:
            _mark(path, state)
            continue
        links = [
            link for link in folder.glob("snapshots/**/*") if link.is_symlink() and link.resolve() == path.resolve()
        ]
        for bad in [*links, path.resolve(), path]:
            bad.unlink(missing_ok=True)
        files = ", ".join(sorted({link.name for link in links})) or name
        damaged.append(f"{files} of {repo} arrived damaged (hash {found[:12]}, not {name[:12]})")
    if damaged:
        raise OSError(f"{'; '.join(damaged)}; try again")


def _remove_damaged(folder: Path, names: set[str], repo: str) -> None:
    """Check what arrived of a download that failed, since others read this cache too; damage is only told of."""
    try:
        _check_hashes(folder, names, repo)
    except OSError as damage:
        logger.warning("%s", damage)


def _digest(path: Path, large: bool) -> str:
    digest = hashlib.sha256() if large else hashlib.sha1(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as handle:
        while block := handle.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _state(blob: Path) -> str:
    """Changes with every new file of the name."""
    facts = blob.stat()
    return f"{facts.st_size} {facts.st_mtime_ns}\n"


def _is_marked(blob: Path) -> bool:
    try:
        return (blob.parents[1] / CHECKED / blob.name).read_text(encoding="utf-8") == _state(blob)
    except (OSError, ValueError):
        return False


def _mark(blob: Path, state: str) -> None:
    """Half a mark is none, and one that cannot be written costs another check."""
    mark = blob.parents[1] / CHECKED / blob.name
    with contextlib.suppress(OSError):
        mark.parent.mkdir(exist_ok=True)
        mark.write_text(state, encoding="utf-8")
