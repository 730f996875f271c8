"""What the local Hub server stores: repositories with commits, branches and tags, and blobs by sha256.

Everything lies in one folder (`state.json` and `blobs/`), so that a server process can be killed and started again
on what it had committed. A commit is a full listing of files; nothing is ever a diff.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

LFS_SUFFIXES = (".safetensors", ".parquet", ".bin", ".onnx", ".arrow", ".gz", ".zip", ".ftz", ".npy", ".faiss")
REGULAR_LIMIT_BYTES = 10 * 2**20
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{}\nsize {}\n"


class HubError(Exception):
    """An answer with an error status, the Hub's error code and a message."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status, self.code, self.headers = status, code, headers or {}


@dataclass
class Entry:
    """One file of one commit."""

    sha256: str
    size: int
    lfs: bool
    git_oid: str


@dataclass
class Commit:
    """A full listing of files under an id."""

    oid: str
    parent: str | None
    title: str
    message: str
    date: str
    files: dict[str, Entry]


@dataclass
class Repo:
    """Commits and the names that point at them."""

    kind: str
    id: str
    private: bool
    created: str
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def commit_at(self, revision: str) -> Commit:
        """The commit of a branch, a tag, or a (shortened) commit id."""
        oid = self.branches.get(revision) or self.tags.get(revision)
        if oid is None and len(revision) >= 7:
            oid = next((known for known in self.commits if known.startswith(revision)), None)
        if oid is None:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return self.commits[oid]


def git_oid(data: bytes) -> str:
    """The id that git gives to a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub would ask for this file through LFS."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > REGULAR_LIMIT_BYTES)


def now() -> str:
    """The time as the Hub writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())


class Store:
    """Repositories and blobs below one folder; every change is on disk before it is answered."""

    def __init__(self, root: Path):
        self.root = root
        self.lock = threading.RLock()
        self.repos: dict[tuple[str, str], Repo] = {}
        (root / "blobs").mkdir(parents=True, exist_ok=True)
        if (root / "state.json").exists():
            for raw in json.loads((root / "state.json").read_text()):
                commits = {
                    oid: Commit(**{**commit, "files": {p: Entry(**e) for p, e in commit["files"].items()}})
                    for oid, commit in raw["commits"].items()
                }
                self.repos[raw["kind"], raw["id"]] = Repo(**{**raw, "commits": commits})

    def save(self) -> None:
        """Write the state beside the old one and swap them."""
        staged = self.root / "state.json.new"
        staged.write_text(json.dumps([asdict(repo) for repo in self.repos.values()]))
        os.replace(staged, self.root / "state.json")

    def blob(self, sha256: str) -> Path:
        """Where the bytes with this hash lie (or would)."""
        return self.root / "blobs" / sha256

    def put_blob(self, data: bytes) -> str:
        """Keep bytes; returns their sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        staged = self.root / "blobs" / f"{sha256}.{threading.get_ident()}"
        staged.write_bytes(data)
        os.replace(staged, self.blob(sha256))
        return sha256

    def create(self, kind: str, repo_id: str, private: bool) -> Repo:
        """A new repository with the first commit that the Hub makes itself."""
        with self.lock:
            if (kind, repo_id) in self.repos:
                raise HubError(409, "RepoAlreadyExists", "You already created this repo")
            repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, now())
            attributes = "".join(f"*{s} filter=lfs diff=lfs merge=lfs -text\n" for s in LFS_SUFFIXES).encode()
            files = {".gitattributes": self.regular(attributes)}
            self.add_commit(repo, "main", files, "initial commit", "")
            return repo

    def regular(self, data: bytes) -> Entry:
        """The entry of a file whose bytes came with the commit."""
        return Entry(self.put_blob(data), len(data), False, git_oid(data))

    def large(self, sha256: str, size: int) -> Entry:
        """The entry of a file whose bytes were uploaded before."""
        return Entry(sha256, size, True, git_oid(POINTER.format(sha256, size).encode()))

    def add_commit(self, repo: Repo, branch: str, files: dict[str, Entry], title: str, message: str) -> Commit:
        """Append a commit to a branch."""
        parent = repo.branches.get(branch)
        seed = json.dumps([repo.kind, repo.id, parent, title, {p: e.sha256 for p, e in files.items()}, time.time_ns()])
        oid = hashlib.sha1(seed.encode()).hexdigest()
        repo.commits[oid] = Commit(oid, parent, title, message, now(), files)
        repo.branches[branch] = oid
        self.save()
        return repo.commits[oid]

    def get(self, kind: str, repo_id: str, user: str | None) -> Repo:
        """A repository that this user may see."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and user is None):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        return repo
