"""A canary in HF_TOKEN: after runs and pushes it is in no file, no log and on no page of the Hub.

`make faults` also mines and pushes a pool, and has a push refused.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from hub_server import USER, HubServer

ROOT = Path(__file__).parents[2]
ALL = bool(int(os.environ.get("REXBERT_FAULTS", "0")))
CANARY = "hf_canaryCanaryCanaryCanary012345678"
SMALL = {
    "build_index": ["--products.sample_size", "60"],
    "mine_phrases": ["--texts.1.limit", "1500", "--mining.trees", "10", "--card.noun_phrase_texts", "50"],
}


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
        for name, words in SMALL.items():
            if name != "build_index" and not ALL:
                continue
            command = [sys.executable, str(ROOT / "recipes" / f"{name}.py"), "--output_dir", str(tmp_path / name)]
            pushed = ["--push_to_hub", f"tester/{name.replace('_', '-')}"]
            done = subprocess.run([*command, *words, *pushed], env=environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-3000:]
            assert f"pushed to {hub.endpoint}" in done.stdout
            assert CANARY not in done.stdout + done.stderr
            assert (tmp_path / name / "run.json").exists()
        # Trouble is where tokens are printed: headers and addresses in messages.
        hub.fail(status=401, times=100)
        command = [sys.executable, "-m", "rexbert_hf.hub", "push", str(tmp_path / "build_index"), "tester/other"]
        if ALL:
            refused = subprocess.run(command, env=environment, capture_output=True, text=True)
            assert refused.returncode == 1
            assert CANARY not in refused.stdout + refused.stderr
    assert not holders(tmp_path, CANARY)


def test_a_token_given_as_a_setting_is_not_written(tmp_path):
    """Even where it does not belong."""
    from rexbert_hf.hub import write_card, write_run

    config = {"sources": [{"url": f"https://user:{CANARY}@host/x"}], "note": f"use {CANARY}", "hub_token": CANARY}
    write_run(tmp_path, config=config, results={"command": f"--token {CANARY}"})
    write_card(tmp_path)
    assert not holders(tmp_path, CANARY)
