"""A local OpenAI-compatible endpoint that misbehaves on purpose.

What happens to a document stands in its text behind a bar: "a mug | 429 500 ok" gets HTTP 429, then 500, then an
answer; the last word holds for all further requests. A document with "price" in it is labelled shop, any other general.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HANG_SECONDS = 30.0


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # a connection that finds no room is tried again after a second


class ChatServer:
    """Use as a context manager; `url` is the base url."""

    def __init__(self, structured: tuple[str, ...] = ("json_schema", "json_object"), delay: float = 0.0) -> None:
        self.structured, self.delay = structured, delay
        self.requests: Counter[str] = Counter()  # by document
        self.answers: Counter[tuple[str, int]] = Counter()  # paid for: by document and seed
        self.formats: list[Any] = []
        self.tokens: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.broken = False  # everything is a 500 from now on
        self.lock, self.released = threading.Lock(), threading.Event()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.chat = self  # type: ignore[attr-defined]
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def __enter__(self) -> ChatServer:
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def paid(self) -> int:
        return sum(self.answers.values())


def answer_to(text: str) -> dict[str, Any]:
    label = "shop" if "price" in text else "general"
    return {"reason": f"about {text.partition('|')[0].strip()}", "label": label, "confidence": 0.75}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16  # one packet a reply: two would wait for each other

    @property
    def chat(self) -> ChatServer:
        return self.server.chat  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.reply(200, {"object": "list", "data": [{"id": "tiny"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.chat.lock:
            self.chat.at_once += 1
            self.chat.most_at_once = max(self.chat.most_at_once, self.chat.at_once)
            self.chat.tokens.add(self.headers.get("Authorization", ""))
        try:
            self.behave(body)
        finally:
            with self.chat.lock:
                self.chat.at_once -= 1

    def behave(self, body: dict[str, Any]) -> None:
        text = re.fullmatch(r"<document>(.*)</document>", body["messages"][-1]["content"], re.DOTALL)[1]
        wanted = body.get("response_format")
        with self.chat.lock:
            self.chat.formats.append(wanted)
        if wanted is not None and wanted["type"] not in self.chat.structured:
            self.reply(400, {"error": f"response_format {wanted['type']} is not supported"})
            return
        words = text.partition("|")[2].split() or ["ok"]
        with self.chat.lock:
            turn = self.chat.requests[text]
            self.chat.requests[text] += 1
        time.sleep(self.chat.delay)
        word = "500" if self.chat.broken else words[min(turn, len(words) - 1)]
        getattr(self, f"do_{word}", self.do_status)(word, text, body)

    def do_status(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.reply(int(word), {"error": f"{self.headers['Authorization']}: status {word} on purpose"})

    def do_429(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.reply(429, {"error": "slow down"}, {"Retry-After": "0.05"})

    def do_later(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.reply(503, {"error": "loading"}, {"Retry-After": formatdate(time.time() + 1, usegmt=True)})

    def do_hang(self, word: str, text: str, body: dict[str, Any]) -> None:
        with self.chat.lock:
            self.chat.at_once -= 1  # whoever asked has given up long before this ends
        self.chat.released.wait(HANG_SECONDS)
        with self.chat.lock:
            self.chat.at_once += 1
        self.close_connection = True

    def do_drop(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.close_connection = True  # without a word

    def do_cut(self, word: str, text: str, body: dict[str, Any]) -> None:
        """A body that ends before its announced length."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.wfile.write(b'{"choices": [')
        self.close_connection = True

    def do_odd(self, word: str, text: str, body: dict[str, Any]) -> None:
        """A whole body that is not what was asked for."""
        self.reply(200, {"hello": "there"})

    def do_ok(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.answer(text, body, json.dumps(answer_to(text)))

    def do_half(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.answer(text, body, json.dumps(answer_to(text))[:25], "length")

    def do_schema(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.answer(text, body, json.dumps({**answer_to(text), "label": "banana"}))

    def do_refuse(self, word: str, text: str, body: dict[str, Any]) -> None:
        self.answer(text, body, "I am sorry, but I cannot help with that.")

    def answer(self, text: str, body: dict[str, Any], content: str, finish_reason: str = "stop") -> None:
        with self.chat.lock:
            self.chat.answers[text, body["seed"]] += 1
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "finish_reason": finish_reason, "message": message}
        usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        self.reply(200, {"id": "x", "created": 0, "model": body["model"], "system_fingerprint": "",
                         "object": "chat.completion", "choices": [choice], "usage": usage})  # fmt: skip

    def reply(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        try:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # whoever asked was killed
