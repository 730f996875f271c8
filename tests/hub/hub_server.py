"""A local Hub server over real HTTP, for tests: stdlib only, in a thread or as a process of its own.

It answers what huggingface_hub, transformers, datasets and sentence-transformers ask for with the Xet protocol
switched off (HF_HUB_DISABLE_XET=1), sends large files through LFS with a redirect as the Hub does, and breaks on
demand: status codes, cut transfers, corrupt bytes, silence.

    with HubServer(folder) as hub:                      # in this process
        subprocess.run([...], env=hub.environment())
    python tests/hub/hub_server.py FOLDER [--port N]    # prints its address, serves until it is killed

The process form takes faults by `POST /__faults__` with the JSON of a `Fault`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import threading
import traceback
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from hub_pages import ROUTES, Pages
from hub_store import HubError, Store

TOKEN = "hf_localServerWriteToken0123456789"
USER = "tester"


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match.

    kind: "status" (answer `status` with `headers`), "slow" (answer after `seconds`), "hang" (no answer for `seconds`,
    then a closed connection), "cut" (half of the body is read or sent, then the connection closes), "lost" (the work is
    done, the answer is not sent), "corrupt" (one byte of the answer differs).
    """

    kind: str
    times: int = 1
    method: str | None = None
    path: str = ""
    status: int = 503
    seconds: float = 3600.0
    headers: dict[str, str] = field(default_factory=dict)

    def takes(self, method: str, path: str) -> bool:
        """Whether this request is one of those."""
        return self.times > 0 and self.method in (None, method) and re.search(self.path, path) is not None


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a connection that finds no room is tried again after a second


class HubServer:
    """The server in threads of this process; a context manager.

    Attributes:
        endpoint: its address, for `endpoint=` or HF_ENDPOINT.
        requests: (method, path, status) of every request answered so far.
        faults: see `Fault`; `fail()` appends.
    """

    def __init__(self, root: str | os.PathLike[str], port: int = 0):
        self.store = Store(Path(root))
        self.tokens = {TOKEN: USER}
        self.requests: list[tuple[str, str, int]] = []
        self.faults: list[Fault] = []
        self.announced: set[str] = set()
        self.stopping = threading.Event()
        self.connections: set[socket.socket] = set()
        self._http = _Server(("127.0.0.1", port), _Handler)
        self._http.daemon_threads = True
        self._http.hub = self  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
        # Large files come from another host, as on the Hub: clients drop their token on the way.
        self.cdn = f"http://localhost:{self._http.server_port}"

    def __enter__(self) -> HubServer:
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop: open connections are cut, new ones are refused from now on."""
        if self.stopping.is_set():
            return
        self.stopping.set()
        self._http.shutdown()
        self._http.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def fail(self, kind: str = "status", **options: Any) -> Fault:
        """Let the next matching requests go wrong (fields of `Fault`)."""
        self.faults.append(Fault(kind, **options))
        return self.faults[-1]

    def environment(self, home: str | os.PathLike[str] | None = None, token: str | None = TOKEN) -> dict[str, str]:
        """The environment of a client process: this server, no Xet, no telemetry, its own cache in `home`."""
        keep = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        keep |= {"HF_ENDPOINT": self.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        keep |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1"}
        keep |= {"HF_HOME": str(home)} if home else {}
        return keep | ({"HF_TOKEN": token} if token else {})

    def files(self, repo_id: str, kind: str = "model", revision: str = "main") -> dict[str, bytes]:
        """The content of a repository, as the tests want to look at it."""
        commit = self.store.repos[kind, repo_id].commit_at(revision)
        return {path: self.store.blob(entry.sha256).read_bytes() for path, entry in commit.files.items()}


class _Handler(Pages, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fault: Fault | None = None

    @property
    def hub(self) -> HubServer:
        return self.server.hub  # type: ignore[attr-defined]

    def setup(self) -> None:
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self) -> None:
        self.hub.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.answer(self.command)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def answer(self, method: str) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        with self.hub.store.lock:
            self.fault = next((f for f in self.hub.faults if f.takes(method, self.path)), None)
            if self.fault:
                self.fault.times -= 1
        if self.fault and self.fault.kind == "hang":
            self.hub.stopping.wait(self.fault.seconds)
            return self.drop()
        if self.fault and self.fault.kind == "slow":
            self.hub.stopping.wait(self.fault.seconds)
        if self.fault and self.fault.kind == "cut" and (length := int(self.headers.get("Content-Length") or 0)):
            self.rfile.read(length // 2)
            return self.drop()
        self.body = self.read_body()
        try:
            if self.fault and self.fault.kind == "status":
                raise HubError(self.fault.status, "Injected", "this is a test", self.fault.headers)
            self.dispatch("GET" if method == "HEAD" else method, url.path)
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error), **error.headers}
            self.send_json({"error": str(error)}, error.status, headers)
        except (BrokenPipeError, ConnectionResetError):
            self.drop()
        except Exception as error:  # a defect of this server: say so instead of leaving the client in silence
            traceback.print_exc()
            self.send_json({"error": f"{type(error).__name__}: {error}"}, 500)

    def dispatch(self, method: str, path: str) -> None:
        for verb, pattern, name in ROUTES:
            if verb == method and (match := re.fullmatch(pattern, path)):
                groups = [unquote(group) if group is not None else None for group in match.groups()]
                return getattr(self, name)(*groups)
        raise HubError(404, "NotFound", f"no such page: {method} {path}")

    def drop(self) -> None:
        self.hub.requests.append((self.command, self.path, 0))
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send_json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_bytes(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send_bytes(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        if self.fault and self.fault.kind == "lost":
            return self.drop()
        self.hub.requests.append((self.command, self.path, status))
        if self.fault and self.fault.kind == "corrupt" and data:
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.kind == "cut":
            self.wfile.write(data[: len(data) // 2])
            return self.drop()
        self.wfile.write(data)


def main() -> NoReturn:
    """Serve a folder until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with HubServer(options.root, options.port) as hub:
        print(hub.endpoint, flush=True)
        threading.Event().wait()
    raise SystemExit


if __name__ == "__main__":
    main()
