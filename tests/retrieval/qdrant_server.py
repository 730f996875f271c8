"""A Qdrant over HTTP: requests are read with the client's own schema, answered by its form in memory, and kept."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from qdrant_client import QdrantClient, models


class QdrantServer(ThreadingHTTPServer):
    """Listens on a free port while it is entered; what was asked is in `asked`: method, path, body, API key."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[tuple[str, str, Any, str | None]] = []
        self.points = QdrantClient(location=":memory:")
        self.one = threading.Lock()  # what lies in memory is for one thread

    def __enter__(self) -> QdrantServer:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def bodies(self, method: str, end: str) -> list[Any]:
        """Bodies of the requests whose path has this end, and clear all."""
        found = [body for how, path, body, _ in self.asked if how == method and path.endswith(end)]
        self.asked.clear()
        return found


class Handler(BaseHTTPRequestHandler):
    """Each request is one call of the client in memory."""

    server: QdrantServer
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Read, keep, call, write."""
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path = self.path.partition("?")[0]
        with self.server.one:
            self.server.asked.append((self.command, path, body, self.headers.get("api-key")))
            try:
                status, reply = 200, {"result": called(self.server.points, self.command, path, body), "status": "ok"}
            except ValueError as error:  # as the client in memory says that a collection is not there
                status, reply = 404, {"status": {"error": str(error)}}
        data = json.dumps({**reply, "time": 0.0}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def called(client: QdrantClient, method: str, path: str, body: Any) -> Any:
    """The result of a request; a KeyError for one that Qdrant's REST interface does not have."""
    if (method, path) == ("GET", "/aliases"):
        return client.get_aliases().model_dump()
    if (method, path) == ("GET", "/collections"):
        return client.get_collections().model_dump()
    if (method, path) == ("POST", "/collections/aliases"):
        actions = models.ChangeAliasesOperation(**body).actions
        return client.update_collection_aliases(change_aliases_operations=actions)
    name, _, what = path.removeprefix("/collections/").partition("/")
    return CALLS[method, what](client, name, body)


def created(client: QdrantClient, name: str, body: Any) -> bool:
    """Make a collection as its description says."""
    wanted = models.CreateCollection(**body)
    assert isinstance(wanted.vectors, models.VectorParams)
    return client.create_collection(name, vectors_config=wanted.vectors)


def queried(client: QdrantClient, name: str, body: Any) -> Any:
    """The hits of several queries."""
    return [
        answer.model_dump() for answer in client.query_batch_points(name, models.QueryRequestBatch(**body).searches)
    ]


def scrolled(client: QdrantClient, name: str, body: Any) -> Any:
    """A page of points, and where the next begins."""
    asked = models.ScrollRequest(**body)
    found, after = client.scroll(
        name, asked.filter, asked.limit or 10, offset=asked.offset, with_payload=asked.with_payload
    )
    return {"points": [point.model_dump() for point in found], "next_page_offset": after}


def retrieved(client: QdrantClient, name: str, body: Any) -> Any:
    """Points by their ids."""
    asked = models.PointRequest(**body)
    found = client.retrieve(name, asked.ids, asked.with_payload, bool(asked.with_vector))
    return [point.model_dump() for point in found]


CALLS: dict[tuple[str, str], Callable[[QdrantClient, str, Any], Any]] = {
    ("GET", "exists"): lambda client, name, _: {"exists": client.collection_exists(name)},
    ("PUT", ""): created,
    ("DELETE", ""): lambda client, name, _: client.delete_collection(name),
    ("PUT", "index"): lambda client, name, body: {"operation_id": 0, "status": "completed"},  # in memory there are none
    ("PUT", "points"): lambda client, name, body: client.upsert(name, models.PointsList(**body).points).model_dump(),
    ("POST", "points"): retrieved,
    ("POST", "points/delete"): lambda client, name, body: client.delete(name, models.PointIdsList(**body)).model_dump(),
    ("POST", "points/count"): lambda client, name, _: client.count(name).model_dump(),
    ("POST", "points/scroll"): scrolled,
    ("POST", "points/query/batch"): queried,
    ("POST", "facet"): lambda client, name, body: client.facet(name, body["key"], limit=body["limit"]).model_dump(),
}
