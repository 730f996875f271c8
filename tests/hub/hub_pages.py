"""The pages of the local Hub server: what each request answers, from a `Store`.

A mixin for a request handler that has `hub`, `body`, `query`, `headers`, `send_json` and `send_bytes`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

import yaml
from hub_store import Entry, HubError, Repo, is_lfs

if TYPE_CHECKING:
    from hub_server import HubServer

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
KIND = r"/api/(models|datasets|spaces)"
ID = r"((?:[^/]+/)?[^/]+?)"
PREFIX = r"/(datasets/|spaces/)?"
ROUTES = [
    ("GET", "/api/whoami-v2", "whoami"),
    ("POST", "/api/validate-yaml", "validate_yaml"),
    ("POST", "/api/repos/create", "create_repo"),
    ("DELETE", "/api/repos/delete", "delete_repo"),
    ("GET", "/api/agent-harnesses", "nothing"),
    ("GET", f"{KIND}/{ID}/revision/([^/]+)", "info"),
    ("GET", f"{KIND}/{ID}/tree/([^/]+)(?:/(.+))?", "tree"),
    ("POST", f"{KIND}/{ID}/paths-info/([^/]+)", "paths_info"),
    ("GET", f"{KIND}/{ID}/refs", "refs"),
    ("GET", f"{KIND}/{ID}/commits/([^/]+)", "commits"),
    ("POST", f"{KIND}/{ID}/branch/([^/]+)", "create_branch"),
    ("DELETE", f"{KIND}/{ID}/branch/([^/]+)", "delete_branch"),
    ("POST", f"{KIND}/{ID}/tag/([^/]+)", "create_tag"),
    ("DELETE", f"{KIND}/{ID}/tag/([^/]+)", "delete_tag"),
    ("PUT", f"{KIND}/{ID}/settings", "settings"),
    ("POST", f"{KIND}/{ID}/preupload/([^/]+)", "preupload"),
    ("POST", f"{KIND}/{ID}/commit/([^/]+)", "commit"),
    ("GET", f"{KIND}/{ID}", "info"),
    ("POST", rf"{PREFIX}{ID}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/([0-9a-f]{64})", "lfs_put"),
    ("POST", "/lfs/verify", "lfs_verify"),
    ("GET", f"{PREFIX}{ID}/resolve/([^/]+)/(.+)", "resolve"),
    ("GET", "/cdn/([0-9a-f]{64})/(.+)", "cdn"),
    ("POST", "/__faults__", "add_fault"),
]


def card_data(text: str) -> Any:
    """The metadata block of a card; {} when there is none."""
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(?:\r?\n|$)", text, re.DOTALL)
    return (yaml.safe_load(block.group(1)) or {}) if block else {}


def lfs_of(entry: Entry) -> dict[str, Any] | None:
    """The `lfs` field of a file."""
    return {"oid": entry.sha256, "sha256": entry.sha256, "size": entry.size, "pointerSize": 134} if entry.lfs else None


def file_info(path: str, entry: Entry) -> dict[str, Any]:
    """A file as `tree` and `paths-info` show it."""
    info = {"type": "file", "path": path, "size": entry.size, "oid": entry.git_oid}
    return info | ({"lfs": lfs_of(entry)} if entry.lfs else {})


def folder_oid(path: str) -> str:
    """An id for a folder."""
    return hashlib.sha1(path.encode()).hexdigest()


class Pages:
    """One method for each route."""

    hub: HubServer
    body: bytes
    query: dict[str, list[str]]
    headers: Any
    send_json: Any
    send_bytes: Any

    # who asks, and for what

    @property
    def user(self) -> str | None:
        header = self.headers.get("Authorization", "")
        if not header:
            return None
        user = self.hub.tokens.get(header.removeprefix("Bearer ").strip())
        if user is None:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return user

    def writer(self) -> str:
        if (user := self.user) is None:
            raise HubError(401, "", "Invalid username or password.")
        return user

    def repo(self, kind: str | None, repo_id: str, write: bool = False) -> Repo:
        user = self.writer() if write else self.user
        return self.hub.store.get(KINDS.get((kind or "models").rstrip("/"), "model"), repo_id, user)

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise HubError(400, "", "the body is not JSON") from None

    # pages

    def nothing(self) -> None:
        self.send_json([])

    def add_fault(self) -> None:
        self.hub.fail(**self.json())
        self.send_json({})

    def whoami(self) -> None:
        user = self.writer()
        auth = {"type": "access_token", "accessToken": {"displayName": "local", "role": "write"}}
        self.send_json({"type": "user", "id": "1", "name": user, "fullname": user, "orgs": [], "auth": auth})

    def validate_yaml(self) -> None:
        try:
            data = card_data(self.json()["content"])
            problem = None if isinstance(data, dict) else "metadata should be a mapping"
            if isinstance(data, dict) and not isinstance(data.get("license", ""), (str, list)):
                problem = '"license" must be a string'
        except yaml.YAMLError as error:
            problem = str(error)
        errors = [{"message": problem}] if problem else []
        self.send_json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def create_repo(self) -> None:
        user, spec = self.writer(), self.json()
        kind, repo_id = spec.get("type") or "model", f"{spec.get('organization') or user}/{spec['name']}"
        address = f"{self.hub.endpoint}/{'' if kind == 'model' else kind + 's/'}{repo_id}"
        private = spec.get("visibility") == "private" or bool(spec.get("private"))
        try:
            self.hub.store.create(kind, repo_id, private)
            self.send_json({"url": address, "name": repo_id})
        except HubError as error:
            self.send_json({"error": str(error), "url": address}, error.status, {"X-Error-Code": error.code})

    def delete_repo(self) -> None:
        user, spec = self.writer(), self.json()
        kind, repo_id = spec.get("type") or "model", f"{spec.get('organization') or user}/{spec['name']}"
        self.hub.store.get(kind, repo_id, user)
        with self.hub.store.lock:
            del self.hub.store.repos[kind, repo_id]
            self.hub.store.save()
        self.send_json({})

    def settings(self, kind: str, repo_id: str) -> None:
        repo, spec = self.repo(kind, repo_id, write=True), self.json()
        with self.hub.store.lock:
            repo.private = spec.get("private", spec.get("visibility") == "private")
            self.hub.store.save()
        self.send_json({})

    def info(self, kind: str, repo_id: str, revision: str = "main") -> None:
        repo = self.repo(kind, repo_id)
        commit = repo.commit_at(revision)
        data: Any = {}
        if readme := commit.files.get("README.md"):
            with contextlib.suppress(yaml.YAMLError):
                data = card_data(self.hub.store.blob(readme.sha256).read_text(encoding="utf-8"))
        blobs = "blobs" in self.query
        siblings = [
            {"rfilename": p, **({"size": e.size, "blobId": e.git_oid, "lfs": lfs_of(e)} if blobs else {})}
            for p, e in sorted(commit.files.items())
        ]
        answer = {"id": repo.id, "sha": commit.oid, "author": repo.id.split("/")[0], "private": repo.private}
        answer |= {"gated": False, "disabled": False, "downloads": 0, "likes": 0, "siblings": siblings}
        answer |= {"lastModified": commit.date, "createdAt": repo.created, "cardData": data, "tags": data.get("tags")}
        answer |= {"modelId": repo.id, "pipeline_tag": data.get("pipeline_tag"), "tags": data.get("tags") or []}
        self.send_json(answer)

    def tree(self, kind: str, repo_id: str, revision: str, folder: str | None = None) -> None:
        commit = self.repo(kind, repo_id).commit_at(revision)
        below = f"{folder.strip('/')}/" if folder else ""
        inside = [path for path in sorted(commit.files) if path.startswith(below)]
        if below and not inside:
            raise HubError(404, "EntryNotFound", f"{folder} does not exist", {"X-Repo-Commit": commit.oid})
        recursive = self.query.get("recursive", [""])[0].lower() == "true"
        found: dict[str, dict[str, Any]] = {}
        for path in inside:
            parts = path[len(below) :].split("/")
            for depth in range(1, len(parts) if recursive else min(2, len(parts))):
                parent = below + "/".join(parts[:depth])
                found[parent] = {"type": "directory", "path": parent, "size": 0, "oid": folder_oid(parent)}
            if recursive or len(parts) == 1:
                found[path] = file_info(path, commit.files[path])
        self.send_json(list(found.values()))

    def paths_info(self, kind: str, repo_id: str, revision: str) -> None:
        files = self.repo(kind, repo_id).commit_at(revision).files
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        paths = self.json()["paths"] if is_json else parse_qs(self.body.decode()).get("paths", [])
        answer = []
        for path in paths:
            if path in files:
                answer.append(file_info(path, files[path]))
            elif any(known.startswith(f"{path}/") for known in files):
                answer.append({"type": "directory", "path": path, "size": 0, "oid": folder_oid(path)})
        self.send_json(answer)

    def refs(self, kind: str, repo_id: str) -> None:
        repo = self.repo(kind, repo_id)
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": o} for n, o in repo.branches.items()]
        tags = [{"name": n, "ref": f"refs/tags/{n}", "targetCommit": o} for n, o in repo.tags.items()]
        self.send_json({"branches": branches, "tags": tags, "converts": [], "pullRequests": []})

    def commits(self, kind: str, repo_id: str, revision: str) -> None:
        repo = self.repo(kind, repo_id)
        found, oid = [], repo.commit_at(revision).oid
        while oid:
            commit = repo.commits[oid]
            found.append({"id": oid, "title": commit.title, "message": commit.message, "date": commit.date})
            found[-1]["authors"] = [{"user": repo.id.split("/")[0]}]
            oid = commit.parent or ""
        self.send_json(found)

    def create_branch(self, kind: str, repo_id: str, name: str) -> None:
        start = self.json().get("startingPoint") or "main"
        self.point("branches", kind, repo_id, name, start)

    def create_tag(self, kind: str, repo_id: str, revision: str) -> None:
        self.point("tags", kind, repo_id, self.json()["tag"], revision)

    def point(self, names: str, kind: str, repo_id: str, name: str, revision: str) -> None:
        repo = self.repo(kind, repo_id, write=True)
        with self.hub.store.lock:
            if name in getattr(repo, names):
                raise HubError(409, "", f"Reference already exists: {name}")
            getattr(repo, names)[name] = repo.commit_at(revision).oid
            self.hub.store.save()
        self.send_json({})

    def delete_branch(self, kind: str, repo_id: str, name: str) -> None:
        self.forget("branches", kind, repo_id, name)

    def delete_tag(self, kind: str, repo_id: str, name: str) -> None:
        self.forget("tags", kind, repo_id, name)

    def forget(self, names: str, kind: str, repo_id: str, name: str) -> None:
        repo = self.repo(kind, repo_id, write=True)
        with self.hub.store.lock:
            if getattr(repo, names).pop(name, None) is None:
                raise HubError(404, "RevisionNotFound", f"Reference does not exist: {name}")
            self.hub.store.save()
        self.send_json({})

    # uploads

    def preupload(self, kind: str, repo_id: str, revision: str) -> None:
        known = self.repo(kind, repo_id, write=True).commit_at(revision).files
        answer = []
        for item in self.json()["files"]:
            old = known.get(item["path"])
            mode = "lfs" if is_lfs(item["path"], item["size"]) else "regular"
            oid = (old.sha256 if old.lfs else old.git_oid) if old else None
            answer.append({"path": item["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send_json({"files": answer, "commitOid": "0" * 40})

    def lfs_batch(self, kind: str | None, repo_id: str) -> None:
        self.repo(kind, repo_id, write=True)
        objects = []
        for item in self.json()["objects"]:
            objects.append({"oid": item["oid"], "size": item["size"]})
            if not self.hub.store.blob(item["oid"]).exists():
                self.hub.announced.add(item["oid"])
                upload = {"href": f"{self.hub.endpoint}/lfs/{item['oid']}", "header": {}}
                verify = {"href": f"{self.hub.endpoint}/lfs/verify", "header": {}}
                objects[-1]["actions"] = {"upload": upload, "verify": verify}
        self.send_json({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        # No token here: like a signed link, it works for what a batch call announced and for nothing else.
        if oid not in self.hub.announced:
            raise HubError(403, "", "this object was not announced")
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "the bytes do not have the announced hash")
        self.hub.store.put_blob(self.body)
        self.send_bytes(b"")

    def lfs_verify(self) -> None:
        spec = self.json()
        blob = self.hub.store.blob(spec["oid"])
        if not blob.exists() or blob.stat().st_size != spec["size"]:
            raise HubError(404, "", "object not found")
        self.send_json({})

    def commit(self, kind: str, repo_id: str, branch: str) -> None:
        repo, store = self.repo(kind, repo_id, write=True), self.hub.store
        if "create_pr" in self.query:
            raise HubError(400, "", "this server has no pull requests")
        lines = [json.loads(line) for line in self.body.splitlines() if line.strip()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        with store.lock:
            if branch not in repo.branches:
                raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
            head = repo.commits[repo.branches[branch]]
            if not head.oid.startswith(header.get("parentCommit") or ""):
                raise HubError(412, "", "A commit has happened since. Please refresh and try again.")
            files = dict(head.files)
            for line in lines:
                self.apply(files, line["key"], line["value"])
            made = store.add_commit(repo, branch, files, header["summary"], header.get("description") or "")
        address = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo.id}/commit/{made.oid}"
        self.send_json({"success": True, "commitOid": made.oid, "commitUrl": address, "hookOutput": ""})

    def apply(self, files: dict[str, Entry], key: str, value: dict[str, Any]) -> None:
        path = value.get("path", "")
        if key == "file":
            files[path] = self.hub.store.regular(base64.b64decode(value["content"]))
        elif key == "lfsFile":
            blob = self.hub.store.blob(value["oid"])
            if not blob.exists():
                raise HubError(400, "", f"the LFS object of {path} was never uploaded")
            files[path] = self.hub.store.large(value["oid"], blob.stat().st_size)
        elif key == "deletedFile":
            if files.pop(path, None) is None:
                raise HubError(400, "", f"{path} does not exist")
        elif key == "deletedFolder":
            for inside in [known for known in files if known.startswith(path.rstrip("/") + "/")]:
                del files[inside]
        elif key != "header":
            raise HubError(400, "", f"unknown operation {key}")

    # downloads

    def resolve(self, kind: str | None, repo_id: str, revision: str, path: str) -> None:
        commit = self.repo(kind, repo_id).commit_at(revision)
        headers = {"X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        entry = commit.files.get(path)
        if entry is None:
            raise HubError(404, "EntryNotFound", f"Entry not found: {path}", headers)
        if not entry.lfs:
            return self.send_file(entry.sha256, {**headers, "ETag": f'"{entry.git_oid}"'})
        headers |= {"ETag": f'"{entry.sha256}"', "X-Linked-Etag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size)}
        self.send_bytes(b"", 302, {**headers, "Location": f"{self.hub.cdn}/cdn/{entry.sha256}/{quote(path)}"})

    def cdn(self, sha256: str, _: str) -> None:
        self.send_file(sha256, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})

    def send_file(self, sha256: str, headers: dict[str, str]) -> None:
        data = self.hub.store.blob(sha256).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or wanted.groups() == ("", ""):
            return self.send_bytes(data, 200, headers)
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= end:
            raise HubError(416, "", "range not satisfiable", {"Content-Range": f"bytes */{len(data)}"})
        headers = {**headers, "Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self.send_bytes(data[start:end], 206, headers)
