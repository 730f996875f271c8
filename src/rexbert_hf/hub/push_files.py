"""Pushing chosen files in one commit, with a card: what every other push of files stands on."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from .left_over import temporary_folder
from .readme import merge_card, overruled, split_card
from .trouble import explain, with_retries

logger = logging.getLogger(__name__)


def push_files(
    files: Mapping[str, Path | bytes],
    repo_id: str,
    *,
    card: str,
    repo_type: str = "model",
    space_sdk: str | None = None,
    stale: Sequence[str] | Callable[[HfApi, str, Collection[str]], Sequence[str]] = (),
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    endpoint: str | None = None,
    revision: str | None = None,
    tag: str | None = None,
    merge: Callable[[str | None, str], str] = merge_card,
    advice: str = "push it again",
) -> str:
    """Push files and a card in one commit: nobody ever pulls half of them.

    Args:
        files: path in the repository -> file here, or its content.
        repo_id: "user/name"; made when missing.
        card: a rendered card; text that somebody wrote into the README on the Hub is kept. Without text, none.
        repo_type: "model", "dataset" or "space".
        space_sdk: of a Space, such as "gradio".
        stale: patterns (`lies_at`) of files that an earlier push may have left and that are removed, if they are not
            pushed now; or what tells them by the repository's address and files.
        token: a write token; by default the one of this machine. Never logged, never written.
        private: whether a new repository is private.
        commit_message: the title of the commit.
        endpoint: another Hub's address.
        revision: the branch to push to; made when missing.
        tag: a name for the pushed commit. One that exists is an error: tags don't move.
        merge: joins the README of the Hub, None if there is none, and the card.
        advice: what an error's message says to do.

    Returns:
        The repository's address.

    Raises:
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable or in trouble.
        ValueError: for an existing tag, or a card or an existing README whose metadata cannot be read.
    """
    api = HfApi(endpoint=endpoint, token=token)
    split_card(card)
    title = commit_message or f"Push {repo_id.rsplit('/', 1)[-1]} from rexbert_hf"

    def attempt() -> str:
        url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, space_sdk=space_sdk)
        if revision and revision != "main":
            api.create_branch(url.repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        sources: dict[str, str | bytes] = {n: c if isinstance(c, bytes) else str(c) for n, c in files.items()}
        readme = _merged(remote_readme(api, url.repo_id, repo_type, revision), card, merge, repo_id)
        if readme.strip():
            sources["README.md"] = readme.encode("utf-8")
        there = api.list_repo_files(url.repo_id, revision=revision, repo_type=repo_type)
        patterns = stale(api, url.repo_id, there) if callable(stale) else stale
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationAdd(name, source) for name, source in sources.items()),
            *(CommitOperationDelete(name) for name in _left_over(there, sources, patterns)),
        ]
        commit = api.create_commit(
            url.repo_id, operations, commit_message=title, revision=revision, repo_type=repo_type
        )
        if tag:
            api.create_tag(url.repo_id, tag=tag, revision=commit.oid, repo_type=repo_type, exist_ok=True)
        return str(url)

    try:
        if tag:
            with_retries(lambda: _check_tag(api, repo_id, repo_type, tag), "asking for tags")
        url = with_retries(attempt, f"pushing to {repo_id}")
    except Exception as error:
        explained = explain(error, f"{repo_id} was not pushed to {api.endpoint}", advice)
        if explained is None:
            raise
        raise explained from None
    logger.info("pushed %d files to %s", len(files), url)
    return url


def lies_at(name: str, pattern: str) -> bool:
    """Whether a file of a repository is one that a pattern means: `*` stays within a folder.

    What a pattern removes may be somebody's own, so a folder more or less is another file.

    Args:
        name: path in the repository.
        pattern: shell pattern of each part of the path; a last part "**" is whatever lies below.

    Example:
        >>> [lies_at(name, "model*.bin") for name in ("model-1.bin", "models/mine.bin")]
        [True, False]
        >>> [lies_at(name, "package/**") for name in ("package/a.py", "package/b/c.py", "packages/a.py")]
        [True, True, False]
    """
    parts, wanted = name.split("/"), pattern.split("/")
    if wanted[-1] == "**" and len(parts) >= len(wanted):
        parts, wanted = parts[: len(wanted) - 1], wanted[:-1]
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def _left_over(there: Collection[str], pushed: Collection[str], stale: Collection[str]) -> list[str]:
    """Files of an earlier push that this one removes."""
    old = [n for n in there if n not in pushed and any(lies_at(n, pattern) for pattern in stale)]
    if old:
        logger.info("removing what an earlier push left: %s", ", ".join(old))
    return old


def _merged(there: str | None, card: str, merge: Callable[[str | None, str], str], repo_id: str) -> str:
    """The README to push; one line says what of the card did not come into it."""
    readme = merge(there, card)
    if there is not None and (lost := overruled(card, readme)):
        kept = "of %s the README on the Hub keeps its own %s, not what is here: edit it there"
        logger.warning(kept, repo_id, " and ".join(lost))
    return readme


def _check_tag(api: HfApi, repo_id: str, repo_type: str, tag: str) -> None:
    there = api.repo_exists(repo_id, repo_type=repo_type)
    if there and any(ref.name == tag for ref in api.list_repo_refs(repo_id, repo_type=repo_type).tags):
        raise ValueError(f"{repo_id} has a tag {tag} already, and tags don't move: choose another")


def remote_readme(api: HfApi, repo_id: str, repo_type: str, revision: str | None) -> str | None:
    """The README of a repository as it stands; None if it has none.

    Args:
        api: of the Hub.
        repo_id: "user/name".
        repo_type: "model", "dataset" or "space".
        revision: the branch.

    Raises:
        ConnectionError: when the Hub does not answer.
    """
    with temporary_folder() as cache:
        try:
            path = api.hf_hub_download(repo_id, "README.md", repo_type=repo_type, revision=revision, cache_dir=cache)
        except EntryNotFoundError as error:
            if not isinstance(error, HfHubHTTPError):  # "not in the cache": the Hub did not answer
                raise ConnectionError(f"cannot read {repo_id}/README.md") from error
            return None
        return Path(path).read_text(encoding="utf-8")
