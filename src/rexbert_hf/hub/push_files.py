"""Pushing chosen files in one commit, with a card: what is neither a model's run nor a data set of rows."""

from __future__ import annotations

import fnmatch
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from .push import _remote_readme
from .readme import merge_card, split_card
from .trouble import explain, with_retries

logger = logging.getLogger(__name__)


def push_files(
    files: Mapping[str, Path],
    repo_id: str,
    *,
    card: str,
    repo_type: str = "model",
    space_sdk: str | None = None,
    stale: Sequence[str] = (),
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    endpoint: str | None = None,
    revision: str | None = None,
    tag: str | None = None,
) -> str:
    """Push files and a card in one commit: nobody ever pulls half of them.

    Args:
        files: path in the repository -> file here.
        repo_id: "user/name"; made when missing.
        card: a rendered card; text that somebody wrote into the README on the Hub is kept.
        repo_type: "model", "dataset" or "space".
        space_sdk: of a Space, such as "gradio".
        stale: patterns of files that an earlier push may have left and that are removed, if they are not pushed now.
        token: a write token; by default the one of this machine. Never logged, never written.
        private: whether a new repository is private.
        commit_message: the title of the commit.
        endpoint: another Hub's address.
        revision: the branch to push to; made when missing.
        tag: a name for the pushed commit.

    Returns:
        The repository's address.

    Raises:
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable or in trouble.
        ValueError: for a card or an existing README whose metadata cannot be read.
    """
    api = HfApi(endpoint=endpoint, token=token)
    split_card(card)
    title = commit_message or f"Push {repo_id.rsplit('/', 1)[-1]} from rexbert_hf"

    def attempt() -> str:
        url = api.create_repo(repo_id, private=private, exist_ok=True, repo_type=repo_type, space_sdk=space_sdk)
        if revision and revision != "main":
            api.create_branch(url.repo_id, branch=revision, exist_ok=True, repo_type=repo_type)
        readme = merge_card(_remote_readme(api, url.repo_id, repo_type, revision), card)
        there = api.list_repo_files(url.repo_id, revision=revision, repo_type=repo_type)
        old = [n for n in there if n not in files and any(fnmatch.fnmatchcase(n, pattern) for pattern in stale)]
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd("README.md", readme.encode("utf-8")),
            *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
            *(CommitOperationDelete(name) for name in old),
        ]
        commit = api.create_commit(
            url.repo_id, operations, commit_message=title, revision=revision, repo_type=repo_type
        )
        if tag:
            api.create_tag(url.repo_id, tag=tag, revision=commit.oid, repo_type=repo_type, exist_ok=True)
        return str(url)

    try:
        url = with_retries(attempt, f"pushing to {repo_id}")
    except Exception as error:
        explained = explain(error, f"{repo_id} was not pushed to {api.endpoint}", "push it again")
        if explained is None:
            raise
        raise explained from None
    logger.info("pushed %d files to %s", len(files), url)
    return url
