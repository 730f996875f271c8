"""A built corpus to the Hub: Parquet, card and manifest in one commit, so that nobody ever pulls half of it.

What goes up is what `corpus.json` lists. Files of an earlier push that are not in it are removed in the same commit.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..catalog.split import SPLITS
from ..hub.push_files import push_files
from .card import FIGURE, corpus_card, merge_corpus_card
from .manifest import MANIFEST, Manifest

_STALE = tuple(f"*/{split}-[0-9]*-of-[0-9]*.parquet" for split in SPLITS)
"""Files of domains as the build names them; other Parquet files of a repository may be somebody's own."""


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
    files = _files(manifest)
    return push_files(
        files,
        repo_id,
        card=corpus_card(manifest, repo_id),
        merge=merge_corpus_card,
        repo_type="dataset",
        stale=_STALE,
        token=token,
        private=private,
        commit_message=commit_message
        or f"Push {len(files):,} files of {manifest.facts['card'].get('name') or 'a corpus'}",
        endpoint=endpoint,
        revision=revision,
        advice=f"the corpus is safe in {folder}",
    )


def _files(manifest: Manifest) -> dict[str, Path]:
    """Path in the repository -> file here."""
    paths = [path for split in manifest.splits for path in manifest.files(split)]
    paths += [path for name in (MANIFEST, FIGURE) if (path := manifest.folder / name).is_file()]
    return {path.relative_to(manifest.folder).as_posix(): path for path in sorted(paths)}
