"""Pushing to a slow Hub, killed on the way: the repository holds all of a push or nothing of it, and once only."""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hub_server import HubServer
from kill_jobs import mining
from killing import Job, Place

from rexbert_hf.hub import write_run
from rexbert_hf.phrases import PhrasePool

OWN = {"model": "tester/model", "dataset": "tester/pool"}
DELAY_SECONDS = 0.15


@contextlib.contextmanager
def push_jobs(root: Path) -> Iterator[tuple[Job, Job]]:
    """Pushing a run's folder, and pushing a phrase pool with the recipe that mines it; one Hub for each folder."""
    with contextlib.ExitStack() as stack:
        hubs: dict[Path, HubServer] = {}

        def prepare(folder: Path) -> None:
            hub = stack.enter_context(HubServer(folder.with_name(f"{folder.name}-hub")))
            hub.fail("slow", times=10**6, seconds=DELAY_SECONDS, method="POST")
            hubs[folder] = hub

        def environment(folder: Path) -> dict[str, str]:
            """For the next start, whose requests are the ones to look at."""
            hubs[folder].requests.clear()
            return hubs[folder].environment(folder.with_name(f"{folder.name}-home"))

        def asked(pattern: str) -> Any:
            return lambda process: any(pattern in path for _, path, _ in list(hubs[process.folder].requests))

        def pushed(kind: str) -> Any:
            """Digests of what is on the Hub, the card without its date; and how many commits there are."""

            def read(folder: Path) -> dict[str, Any]:
                hub = hubs[folder]
                files = hub.files(OWN[kind], kind)
                found: dict[str, Any] = {n: hashlib.sha256(d).hexdigest()[:12] for n, d in files.items()}
                found = {name: value for name, value in found.items() if name not in ("README.md", "run.json")}
                if kind == "model":  # a data set and its card are two commits, and each may be there already
                    found["commits"] = len(hub.store.repos[kind, OWN[kind]].commits)
                return found | {"names": sorted(files)}

            return read

        def whole_or_not_there(kind: str) -> Any:
            def check(folder: Path) -> None:
                repo = hubs[folder].store.repos.get((kind, OWN[kind]))
                names = set(hubs[folder].files(OWN[kind], kind)) if repo is not None else set()
                assert names <= {".gitattributes"} or {"README.md"} < names, f"half a push: {sorted(names)}"

            return check

        def model_push(folder: Path) -> list[str]:
            return [sys.executable, "-m", "rexbert_hf.hub", "push", str(folder), OWN["model"]]

        def run_folder(folder: Path) -> None:
            prepare(folder)
            make_run(folder)

        def pool_push(folder: Path) -> list[str]:
            return [*mining(folder), "--push_to_hub", OWN["dataset"]]

        places = (Place("repository", asked("/api/repos/create")), Place("upload", asked("preupload")),
                  Place("commit", asked("/commit/"), 0.3))  # fmt: skip
        yield (
            Job("pushing a model", model_push, places, pushed("model"), check=whole_or_not_there("model"),
                environment=environment, prepare=run_folder),
            Job("pushing a data set", pool_push, places, pushed("dataset"), phrases_there,
                check=whole_or_not_there("dataset"), environment=environment, prepare=prepare),
        )  # fmt: skip


def phrases_there(folder: Path) -> dict[str, int]:
    return {phrase: 1 for phrase, _ in PhrasePool.load(folder)}


def make_run(folder: Path) -> None:
    """A finished run of a tiny model."""
    import torch

    from rexbert_hf import RexBertConfig, RexBertForMaskedLM, load_sample
    from rexbert_hf.data.vocabulary import train_tokenizer

    torch.manual_seed(0)
    tokenizer = train_tokenizer(load_sample("shop_text", size=60)["text"], 512)
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = RexBertForMaskedLM(RexBertConfig(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **size))
    model.save_pretrained(folder)
    model.save_modernbert(folder / "modernbert")
    tokenizer.save_pretrained(folder)
    write_run(folder, config={"max_tokens": 1000}, results={"phases": []})
