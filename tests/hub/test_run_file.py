"""run.json: whole or not at all, with what one needs to repeat the run and without secrets."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from rexbert_hf.hub import git_commit, read_run, redact, write_run
from rexbert_hf.hub.redaction import REDACTED
from rexbert_hf.hub.run_file import portable, write_whole

TOKEN = "hf_" + "Ab1" * 10


SECRET_KEYS = """token hub_token HF_TOKEN hubToken access-token use_auth_token client_secret secrets db_password
passwd openai_api_key apiKey AWS_ACCESS_KEY credentials Authorization"""


@pytest.mark.parametrize("key", SECRET_KEYS.split())
def test_secrets_are_known_by_their_key(key: str):
    assert redact({key: "s3cr3t"}) == {key: REDACTED}
    assert "s3cr3t" not in json.dumps(redact({"outer": [{key: ["s3cr3t", "s3cr3t"]}]}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_tokens", 5),
        ("num_tokens", "1e9"),
        ("tokens_per_second", 3.5),
        ("token_budget", 4096),
        ("tokenizer", "answerdotai/ModernBERT-base"),
        ("tokenizer_name", "x"),
        ("mask_token", "[MASK]"),
        ("mask_token_id", 50284),
        ("special_tokens", ["[CLS]"]),
        ("token", None),
        ("push_to_hub", True),
        ("keywords", "api, password"),
    ],
)
def test_what_counts_text_tokens_stays(key: str, value: object):
    assert redact({key: value}) == {key: value}


def test_secrets_are_known_by_their_look_wherever_they_stand():
    run = {"note": f"used {TOKEN} here", "endpoint": "https://user:pw@host/v1", "list": [TOKEN]}
    text = json.dumps(redact(run))
    assert TOKEN not in text
    assert "pw@" not in text
    assert "host/v1" in text


def test_secrets_on_command_lines_are_known_by_their_flag():
    pieces = ["pretrain.py", "--hub_token", "s3cr3t", "--phases.0.max_tokens", "1e6", "--tokenizer", "a/b"]
    clean = ["pretrain.py", "--hub_token", REDACTED, "--phases.0.max_tokens", "1e6", "--tokenizer", "a/b"]
    assert redact({"argv": pieces}) == {"argv": clean}
    assert redact({"command": " ".join(pieces)}) == {"command": " ".join(clean)}
    assert redact(["--hub.token=s3cr3t", "--lr=1e-3"]) == [f"--hub.token={REDACTED}", "--lr=1e-3"]


def test_whole_secret_sections_go():
    assert redact({"secrets": {"hub": "abc", "pins": ["1", "2"]}, "phases": {"secrets": 1}}) == {
        "secrets": {"hub": REDACTED, "pins": [REDACTED, REDACTED]},
        "phases": {"secrets": REDACTED},
    }


def test_a_number_may_be_a_password():
    """YAML makes a number of `password: 12345678`; figures of what is called so stay."""
    assert redact({"password": 12345678, "endpoint": {"api_key": [1, 2]}}) == {
        "password": REDACTED,
        "endpoint": {"api_key": [REDACTED, REDACTED]},
    }
    figures = {"accuracy_victorias_secret": 0.5, "victorias_secret": {"documents": 3, "share": None, "read": True}}
    assert redact(figures) == figures
    assert redact({"victorias_secret": {"password": 12345678}}) == {"victorias_secret": {"password": REDACTED}}


@dataclasses.dataclass
class Settings:
    name: str
    path: Path
    api_key: str


def test_everything_of_a_run_is_read_back(tmp_path: Path):
    config = Settings("micro", Path("a/b"), "zzz")
    results = {"loss": np.float32(2.5), "curve": torch.tensor([1, 2]), "bad": float("nan"), "names": {"b", "a"}}
    path = write_run(tmp_path / "new", config=config, results=results, resumed_from_step=7, data=[{"name": "shop"}])
    run = read_run(tmp_path / "new")
    assert run == read_run(path)
    assert run["config"] == {"name": "micro", "path": "a/b", "api_key": REDACTED}
    assert run["results"] == {"loss": 2.5, "curve": [1, 2], "bad": "nan", "names": ["a", "b"]}
    assert (run["resumed_from_step"], run["data"]) == (7, [{"name": "shop"}])
    assert run["versions"]["torch"] == torch.__version__
    assert {"python", "rexbert_hf", "transformers"} <= set(run["versions"])
    assert f"{os.cpu_count()} cores" in run["hardware"]
    assert run["date"].endswith("Z")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_run(tmp_path, config={"a": 1}, results={})
    before = (tmp_path / "run.json").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"cannot write .*run.json: No space left on device; what was there is unchanged"):
        write_run(tmp_path, config={"a": 2}, results={})
    assert (tmp_path / "run.json").read_bytes() == before
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path):
    path = tmp_path / "f"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_whole(path, b"new bytes")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new bytes"


def test_what_killed_writers_left_goes_with_the_next_write(tmp_path: Path):
    """Of this machine and of the same file; one that still writes keeps its own."""
    process = subprocess.Popen(["true"])
    process.wait()
    here = socket.gethostname()
    dead, recycled, lives, elsewhere, other = (
        tmp_path / name
        for name in (
            f".f.{here}.{process.pid}.0123", f".f.{here}.{os.getpid()}.0123", f".f.{here}.{os.getppid()}.0123",
            f".f.{here}x.{process.pid}.0123", f".g.{here}.{process.pid}.0123",
        )
    )  # fmt: skip
    for path in (dead, recycled, lives, elsewhere, other):
        path.write_bytes(b"half")
    write_whole(tmp_path / "f", b"new bytes")
    assert {path.name for path in tmp_path.iterdir()} == {"f", lives.name, elsewhere.name, other.name}


def test_damaged_files_are_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"run.json does not exist"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text('{\n"a": 1,\n')
    with pytest.raises(ValueError, match=r"run.json, line 3: not JSON"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(ValueError, match=r"not a list"):
        read_run(tmp_path)


def test_the_git_commit_says_whether_files_differ(tmp_path: Path):
    assert git_commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "f").write_text("1")
    for command in (["init", "-q"], ["add", "f"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    clean = git_commit(tmp_path)
    assert clean is not None
    assert len(clean) == 40
    (tmp_path / "f").write_text("2")
    assert git_commit(tmp_path) == f"{clean}-dirty"


def test_own_paths_become_relative(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    run = {"a": ["/data/run", "/data/run/x.png", "/data/runner/y"], "b": "see /home/me/data, /home/melon"}
    assert portable(run, "/data/run") == {"a": [".", "./x.png", "/data/runner/y"], "b": "see ~/data, /home/melon"}


ENDS = (
    "/srv",
    "'/srv'",
    '"/srv"',
    "`/srv`",
    "/srv x",
    "(/srv)",
    "/srv, x",
    "/srv:/lib",
    "in /srv.",
    "/srv\nx",
    "/srv\\x",
)
"""Texts that name the folder itself."""


@pytest.mark.parametrize(
    "other",
    [
        *("s3://bucket/srv/x.csv", "/mnt/srv/x", "../srv", "hdfs://host-1/srv", "abfss://a@b.net/srv", "--in=./srv/x"),
        *("/srv2", "/srv-old/x", "/srv.old", "/srv..x", "/srv_x", "/srv~"),
    ],
)
def test_a_folder_of_the_home_folders_name_elsewhere_stays(other: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/srv")
    assert portable(other) == other
    for text in ("/srv/x", "--in=/srv/x", "file:///srv/x", '"/srv/x"', "a /srv/x", "a:/srv/x", *ENDS):
        assert portable(text) == text.replace("/srv", "~")
    assert portable("/srv/srv/x") == "~/srv/x"


def test_a_repository_whose_name_is_the_runs_folder_keeps_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/srv")
    for text in ("me/rexbert-base", "data/rexbert-base/x", "x/srv"):
        assert portable(text, "/rexbert-base") == text
    assert portable("see /rexbert-base and /srv/a", "/rexbert-base") == "see . and ~/a"


@pytest.mark.parametrize("before", ["-I", "-L", "in", "\u6570", "/data/a,", "\u00e9", "_", "1", "/\u6570"])
def test_a_home_folder_leaves_no_machine_whatever_letter_stands_before_it(before: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert portable(f"{before}/home/me/x") == f"{before}~/x"
    assert portable([f"cc {before}/home/me"]) == [f"cc {before}~"]
