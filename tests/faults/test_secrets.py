"""A canary in HF_TOKEN: after runs and pushes it is in no file, no log and on no page of the Hub.

`make faults` also mines and pushes a pool, pre-trains and pushes a model, and has a push refused. Keys of an LLM
endpoint and of a Qdrant server are looked for in the same way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
sys.path.insert(0, str(Path(__file__).parents[1] / "corpus"))
sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

from chat_server import ChatServer
from hub_server import USER, HubServer
from pretraining_cases import words as pretraining_words

ROOT = Path(__file__).parents[2]
ALL = bool(int(os.environ.get("REXBERT_FAULTS", "0")))
CANARY = "hf_canaryCanaryCanaryCanary012345678"
PLAIN_CANARY = "a plain canary"
SMALL = {
    "build_index": ["--products.sample_size", "60"],
    "mine_phrases": ["--texts.1.limit", "1500", "--mining.trees", "10", "--card.noun_phrase_texts", "50"],
}


def command(name: str, folder: Path) -> list[str]:
    """The recipe's command line, at a size for tests."""
    script = [sys.executable, str(ROOT / "recipes" / f"{name}.py")]
    if name == "pretrain":
        return [*script, *pretraining_words(folder, cache_dir=folder / "cache")]
    return [*script, "--output_dir", str(folder), *SMALL[name]]


def holders(root: Path, canary: str) -> list[str]:
    """Files whose name or content holds the canary."""
    found = []
    for path in root.rglob("*"):
        if canary in path.name or (path.is_file() and canary.encode() in path.read_bytes()):
            found.append(str(path))
    return found


def test_the_search_would_find_it(tmp_path):
    (tmp_path / "log.bin").write_bytes(b"\0\1" + CANARY.encode() + b"\2")
    assert holders(tmp_path, CANARY) == [str(tmp_path / "log.bin")]


def test_recipes_that_push_keep_the_token_to_themselves(tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        hub.tokens[CANARY] = USER
        environment = hub.environment(tmp_path / "home", token=CANARY)
        for name in [*SMALL, "pretrain"] if ALL else ["build_index"]:
            pushed = ["--push_to_hub", f"tester/{name.replace('_', '-')}"]
            words = [*command(name, tmp_path / name), *pushed]
            done = subprocess.run(words, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            assert f"pushed to {hub.endpoint}" in done.stdout
            assert CANARY not in done.stdout + done.stderr
            assert (tmp_path / name / "run.json").exists()
        # Trouble is where tokens are printed: headers and addresses in messages.
        hub.fail(status=401, times=100)
        words = [sys.executable, "-m", "rexbert_hf.hub", "push", str(tmp_path / "build_index"), "tester/other"]
        if ALL:
            refused = subprocess.run(words, env=environment, capture_output=True, text=True)
            assert refused.returncode == 1
            assert CANARY not in refused.stdout + refused.stderr
    assert not holders(tmp_path, CANARY)


def test_the_key_of_an_endpoint_is_sent_there_and_kept_nowhere(tmp_path):
    """Curation labels with it; one document is refused with an error that repeats it and is written down."""
    pages = [{"text": f"page {i} {'has a price' if i % 3 else 'is a story'}", "domain": "news"} for i in range(12)]
    pages.append({"text": "another price | 413", "domain": "news"})
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps(page) + "\n" for page in pages))
    with ChatServer() as server:
        settings = {
            "sources": f"[{{path: {tmp_path / 'pages.jsonl'}}}]",
            "label.kind": "llm",
            "label.endpoint": f"{{base_url: {server.url}, model: tiny, timeout: 5, api_key_env: LABELLER_KEY}}",
            "label.max_failed_share": "0.5",
            "stages": "[select, sample, label]",
            "output_dir": str(tmp_path / "out"),
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        recipe = [sys.executable, str(ROOT / "recipes" / "curate.py"), str(ROOT / "recipes/configs/curate_sample.yaml")]
        environment = os.environ | {"LABELLER_KEY": PLAIN_CANARY, "HF_HUB_OFFLINE": "0"}
        done = subprocess.run([*recipe, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert server.tokens == {f"Bearer {PLAIN_CANARY}"}
    assert PLAIN_CANARY not in done.stdout + done.stderr
    assert not holders(tmp_path, PLAIN_CANARY)


MISPLACED = {
    "the name of a variable": (
        "curate",
        "label.endpoint",
        "{base_url: 'http://localhost:9', model: m, api_key_env: X}",
    ),
    "an address": ("pretrain", "sources.x.path", "https://me:X@host.invalid/x.csv"),
    "a model": ("pretrain", "model.init_from", "X"),
    "a mistyped key": ("build_index", "X", "1"),
    "a mistyped list item": ("pretrain", "sources.X.path", "x.csv"),
    "a number": ("build_index", "products.sample_size", "X"),
    "a file": ("build_index", "products.path", "/none/X.csv"),
    "a data set": ("mine_phrases", "texts.0.dataset", "tester/X"),
    "an encoder": ("finetune_search", "model.base", "https://me:X@host.invalid/model"),
    "a config": ("evaluate", "", "X.yaml"),
}


@pytest.mark.parametrize("what", list(MISPLACED) if ALL else list(MISPLACED)[:4])
def test_a_token_in_a_wrong_place_is_not_repeated(tmp_path, what):
    """Neither by the error nor by what is logged on the way to it, nor with REXBERT_DEBUG in the traceback."""
    recipe, key, value = MISPLACED[what]
    extra = ["--label.kind", "llm"] if recipe == "curate" else []
    key, value = key.replace("X", CANARY), value.replace("X", CANARY)
    words = [str(ROOT / "recipes" / f"{recipe}.py"), *([f"--{key}", value] if key else [value]), *extra]
    for debug in ("0", "1") if ALL else ("0",):
        environment = os.environ | {"HF_HUB_OFFLINE": "1", "REXBERT_DEBUG": debug}
        done = subprocess.run(
            [sys.executable, *words, "--output_dir", str(tmp_path / "out")],
            env=environment, cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode in (1, 2), done.stderr[-3000:]
        assert debug == "1" or "error: " in done.stderr.splitlines()[-1], done.stderr[-3000:]
        assert CANARY not in done.stdout + done.stderr
        assert not holders(tmp_path, CANARY)


def test_an_evaluation_that_goes_on_without_what_is_misplaced_does_not_write_it(tmp_path):
    """A model that cannot be had is left out and a task without data fails: both are told in the results."""
    words = ["--models", CANARY, "random", "--tasks", "product_search", "--output_dir", "out"]
    words += ["--datasets.product_search", f"https://me:{CANARY}@host.invalid/x"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "evaluate.py"), *words],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert list(results["skipped"]) == ["model <redacted>"]
    assert list(results["failed"]) == ["product_search"]
    assert "skipped: model <redacted>: " in done.stdout
    assert CANARY not in done.stdout + done.stderr
    assert not holders(tmp_path, CANARY)


def test_a_token_given_as_a_setting_is_not_written(tmp_path):
    """Even where it does not belong."""
    from rexbert_hf.hub import write_card, write_run

    config = {"sources": [{"url": f"https://user:{CANARY}@host/x"}], "note": f"use {CANARY}", "hub_token": CANARY}
    secret = "Zq7Xw9Lm2Kp4Rt6Vb8Nc"
    others = [f"ghp_{secret}", f"github_pat_{secret}_{secret}", f"glpat-{secret}", f"sk-{secret}", f"HF_TOKEN={secret}"]
    others += [f"Authorization: Bearer {secret}", f"https://u:p/{secret}@host", f"--api_key -{secret}"]
    config |= {"others": others, f"hf_{secret}": 1, f"sk-{secret}": 2}
    write_run(tmp_path, config=config, results={"command": f"--token {CANARY}", "told": dict.fromkeys(others, 1)})
    (tmp_path / "config.json").write_text("{}")  # of a model
    write_card(tmp_path)
    assert not holders(tmp_path, CANARY)
    assert not holders(tmp_path, secret)


class _Qdrant(BaseHTTPRequestHandler):
    """A server that keeps what it is sent."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers}")
        self.send_error(403)

    def log_message(self, *args: object) -> None:
        pass


def test_a_server_that_a_file_names_gets_no_key(tmp_path, monkeypatch):
    """Only the address that the caller gives gets QDRANT_API_KEY."""
    pytest.importorskip("qdrant_client")
    from rexbert_hf.retrieval import ProductIndex
    from rexbert_hf.retrieval.serving.hashing_encoder import HashingEncoder
    from rexbert_hf.retrieval.serving.qdrant_points import connect

    monkeypatch.setenv("QDRANT_API_KEY", CANARY)
    model, products = HashingEncoder(), [{"product_id": "p1", "title": "lamp"}]
    with ThreadingHTTPServer(("127.0.0.1", 0), _Qdrant) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        index = ProductIndex.build(products, model, "flat", backend="qdrant")
        index.place = url
        index.save(tmp_path)
        assert not holders(tmp_path, CANARY)
        index.client, index.place = connect(url.replace("://", f"://me:{CANARY}@") + f"/?api_key={CANARY}")
        index.save(tmp_path / "named")
        assert not holders(tmp_path, CANARY)
        assert CANARY not in repr(index)
        for given, environment, keys in (({}, "", 0), ({"url": url}, "", 1), ({}, url, 1)):
            monkeypatch.setenv("QDRANT_URL", environment)
            _Qdrant.seen.clear()
            with pytest.raises(ConnectionError, match="the key goes only where you say"):
                ProductIndex.load(tmp_path, model, **given)
            assert len(_Qdrant.seen) == 1
            assert sum(CANARY in text for text in _Qdrant.seen) == keys
        server.shutdown()
