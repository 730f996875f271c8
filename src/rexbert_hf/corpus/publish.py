"""A built corpus to the Hub: Parquet, card and manifest in one commit, so that nobody ever pulls half of it.

What goes up is what `corpus.json` lists. Files of an earlier push that are not in it are removed in the same commit.
"""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from ..hub.trouble import explain, with_retries
from .card import FIGURE, corpus_card, merge_corpus_card
from .manifest import MANIFEST, Manifest

logger = logging.getLogger(__name__)


def push_corpus(
    folder: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    commit_message: str | None = None,
    endpoint: str | None = None,
) -> str:
    """Push a built corpus as a dataset that `load_dataset(repo_id, DOMAIN)` reads, streaming or not.

    Args:
        folder: what the build stage wrote.
        repo_id: "user/name"; made when missing.
        private: whether a new repository is private.
        revision: the branch to push to; made when missing.
        token: a write token; by default the one of this machine.
        commit_message: the title of the commit.
        endpoint: another Hub's address.

    Returns:
        The repository's address.

    Raises:
        FileNotFoundError: if the folder holds no finished corpus.
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable or in trouble.
    """
    manifest = Manifest.read(os.fspath(folder))
    api = HfApi(endpoint=endpoint, token=token)
    files = _files(manifest)
    title = commit_message or f"Push {len(files):,} files of {manifest.facts['card'].get('name') or 'a corpus'}"

    def attempt() -> str:
        url = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
        if revision and revision != "main":
            api.create_branch(url.repo_id, branch=revision, repo_type="dataset", exist_ok=True)
        there = api.list_repo_files(url.repo_id, repo_type="dataset", revision=revision)
        readme = merge_corpus_card(_readme(api, url.repo_id, revision, there), corpus_card(manifest, repo_id))
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, str(path)) for name, path in files.items()
        ]
        operations.append(CommitOperationAdd("README.md", readme.encode("utf-8")))
        stale = [name for name in there if name.endswith(".parquet") and name not in files]
        operations += [CommitOperationDelete(name) for name in stale]
        api.create_commit(url.repo_id, operations, commit_message=title, repo_type="dataset", revision=revision)
        return f"{api.endpoint}/datasets/{url.repo_id}"

    try:
        url = with_retries(attempt, f"pushing to {repo_id}")
    except Exception as error:
        explained = explain(error, f"{repo_id} was not pushed to {api.endpoint}", f"the corpus is safe in {folder}")
        if explained is None:
            raise
        raise explained from None
    logger.info("pushed %d files to %s", len(files), url)
    return url


def _files(manifest: Manifest) -> dict[str, Path]:
    """Path in the repository -> file here."""
    paths = [path for split in manifest.splits for path in manifest.files(split)]
    paths += [path for name in (MANIFEST, FIGURE) if (path := manifest.folder / name).is_file()]
    return {path.relative_to(manifest.folder).as_posix(): path for path in sorted(paths)}


def _readme(api: HfApi, repo_id: str, revision: str | None, there: list[str]) -> str | None:
    if "README.md" not in there:
        return None
    with tempfile.TemporaryDirectory() as cache:
        path = api.hf_hub_download(repo_id, "README.md", repo_type="dataset", revision=revision, cache_dir=cache)
        return Path(path).read_text(encoding="utf-8")
