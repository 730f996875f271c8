"""Secrets go from data, texts and logs, by name and by look; ordinary texts stay as they are."""

from __future__ import annotations

import importlib
import io
import json
import logging
import runpy
import sys
from pathlib import Path

import pytest

from rexbert_hf.hub.redaction import REDACTED, RedactedRecord, looks_secret, redact, redact_logs, redacted_alike

ROOT = Path(__file__).parents[2]
SECRET = "Zq7Xw9Lm2Kp4Rt6Vb8Nc1Dg3Hj5"
TOKENS = [
    f"hf_{SECRET}",
    f"github_pat_11ABCDEFG0{SECRET}_{SECRET}",
    f"ghp_{SECRET}",
    f"gho_{SECRET}",
    "glpat-Zq7Xw9Lm2Kp4Rt6V-_xy",
    f"sk-{SECRET}",
    f"sk-proj-{SECRET}_{SECRET}",
    f"sk-ant-api03-{SECRET}-{SECRET}AA",
    "sk-lf-0a1b2c3d-1234-5678-9abc-0123456789ab",
    "AKIAZQ7XW9LM2KP4RT6V",
    "AIzaSyA-Zq7Xw9Lm2Kp4Rt6Vb8Nc1Dg3Hj5",
    "xoxb-123456789012-Zq7Xw9Lm2Kp4",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N",
]
PLACES = [
    "{}",
    "path {} does not exist",
    "'{}': no such file",
    "{}/products.csv",
    "/data/{}.csv",
    "x_{}",
    "https://host/x%3D{}",
    "{}_suffix, then more",
    "did you mean --model.{}?",
]


@pytest.mark.parametrize("token", TOKENS)
def test_tokens_are_known_by_their_look_wherever_they_stand(token):
    assert looks_secret(token)
    for place in PLACES:
        assert SECRET[:12] not in (found := redact(place.format(token))), found
        assert token not in found
        assert REDACTED in found


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("HF_TOKEN=pw recipes/x.py", "HF_TOKEN=<redacted> recipes/x.py"),
        ("LABELLER_KEY=pw GITLAB_PAT=pw x", "LABELLER_KEY=<redacted> GITLAB_PAT=<redacted> x"),
        ("export OPENAI_API_KEY='p w'; x", "export OPENAI_API_KEY='<redacted>'; x"),
        ("Client(url='a', api_key=\"pw\", timeout=3)", "Client(url='a', api_key=\"<redacted>\", timeout=3)"),
        ("--api_key -pw --lr 3", "--api_key <redacted> --lr 3"),
        ("--lr -v --hub_token pw", "--lr -v --hub_token <redacted>"),
        ("--a --hub-token -pw", "--a --hub-token <redacted>"),
        ("--api_key=pw", "--api_key=<redacted>"),
        ("Authorization: Bearer pw", "Authorization: <redacted>"),
        ("{'authorization': 'Basic pw'}", "{'authorization': '<redacted>'}"),
        (f"-H Authorization:{SECRET}", "-H Authorization:<redacted>"),
        (f"sent Bearer {SECRET}", "sent Bearer <redacted>"),
        ('got {"api_key": "pw", "model": "m"}', 'got {"api_key": "<redacted>", "model": "m"}'),
        ("got '{model: m, api_key: pw}'", "got '{model: m, api_key: <redacted>}'"),
        ("at https://u:p/w@host/x?q=1", "at https://<redacted>@host/x?q=1"),
        ("at https://u:p/w?#@host/x", "at https://<redacted>@host/x"),
        ("at 'postgres://u:p@host:5432/x@y'", "at 'postgres://<redacted>@host:5432/x@y'"),
        ("https://pw@host/a and https://u:pw@host/b", "https://<redacted>@host/a and https://<redacted>@host/b"),
        ("https://h/x?sig=pw&token=pw&page=2", "https://h/x?sig=<redacted>&token=<redacted>&page=2"),
    ],
)
def test_what_stands_under_a_secret_name_in_a_text_goes(text, clean):
    assert redact(text) == clean
    assert redact(clean) == clean


UNCHANGED = """\
byte_accuracy@1 0.53, recall@100 0.91, hits@10
max_tokens=128 --phases.0.max_tokens 1e6 num_tokens=1_000 tokens=12 tokens: 250,000,000
token=42 per_token=0.031 token_id=7 mask_token=[MASK] cls_token='[CLS]' special_tokens={'a': 1} bos_token=None
use_auth_token=False api_key=None add_token=true
step 20/100 words: loss 3.21, 1,024 tokens, masked-token accuracy 0.31, 12,300 tokens/s
org/model@main and answerdotai/ModernBERT-base@8949b909ec900327062f0ebf497f51aef5e6f0c8
/data/org--model@main/model-00001-of-00002.safetensors
hf://datasets/org/name@main/data/train.parquet
mail sales@lamp-shop.example or call; "Anna <anna@example.org>"
http://127.0.0.1:8080/v1/models@main https://host:443/a@b http://[::1]:8080/a@b s3://bucket/x@y git+ssh://git@host/x
https://host/wiki/Category:Lamps@2 https://shop.example/p?id=12&page=2&color=red
Victoria's Secret: lace, 3 pieces; keyless entry; passwordless; a token of love; Token Ring card; secret santa mug
sk-ii-facial-treatment-essence-230ml and sk-ii-face-cream-set sk-hynix-gold-p31-ssd-1tb-nvme
hf_metrics.py, rexbert_hf_core, hf_hub_download, hf_xet ring bearer pillow-with-2-rings AKIA 47 eyJ
endpoint.api_key_env: the environment variable LABELLER_KEY is not set
unknown key --label.api_key; did you mean --label.endpoint.api_key_env?
authorization: dealers only; credentials are checked; password: ask the desk
seed: expected int, got 'abc' (from command line --seed); x.yaml:3: sources.0.path: expected text
Key: blue; key=blue; SORT=price; sort_key=price; keys={'a': 1}; {title: lamp, token_count: 3}
no valid token (status 401); `hf auth login` or HF_TOKEN; log in
a == b, token == word, if token==x: pass
3-way switch -5 dB; a-b --x -1 --y=-2 -lr -0.5
sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 4e16c51d2c8f
""".splitlines()


@pytest.mark.parametrize("text", UNCHANGED)
def test_ordinary_texts_stay(text):
    assert redact(text) == text
    assert redact({"note": [text], text: None}) == {"note": [text], text: None}


def test_figures_under_a_secret_name_stay_and_texts_below_it_go():
    figures = {"masked_accuracy_after_victorias_secret": 0.25, "password": None, "victorias_secret": [1.0, True, 0.5]}
    assert redact(figures) == figures
    source = {"victorias_secret": {"path": "pw", "weight": 2.0, "columns": {"text": ["pw", 3]}, "limit": 3}}
    assert redact(source) == {
        "victorias_secret": {
            "path": REDACTED, "weight": 2.0, "columns": {"text": [REDACTED, REDACTED]}, "limit": 3
        }
    }  # fmt: skip
    assert SECRET not in json.dumps(redact({"secrets": {TOKENS[0]: 1}}))


@pytest.mark.parametrize(
    "name", ["password", "passwords", "credentials", "authorization", "client_secrets", "hub.clientSecret", "apiKeys"]
)
def test_numbers_below_a_name_that_says_secret_and_nothing_else_go(name):
    below = {"alice": 12345678, "pin": 1234.5, "2024": [99887766], "tokens": 3, "in": {"documents": 4}}
    hidden = {"alice": REDACTED, "pin": REDACTED, "2024": [REDACTED], "tokens": REDACTED, "in": {"documents": REDACTED}}
    assert redact({name: below, "limit": 5}) == {name: hidden, "limit": 5}
    assert redact({name: 12345678.5}) == {name: REDACTED}
    assert redact({name: {"neighbours": 0.25, "read": True}}) == {name: {"neighbours": 0.25, "read": True}}


def test_whole_numbers_below_the_name_of_a_source_stay_where_settings_and_results_count():
    assert redact({"secret_lamps": {"alice": 12345678, "max_documents": 7, "held_out_tokens": 8}}) == {
        "secret_lamps": {"alice": REDACTED, "max_documents": 7, "held_out_tokens": 8}
    }


def test_what_one_of_two_configurations_hides_makes_no_difference():
    was = {"sources": {"x_secret": REDACTED, "plain": {"limit": 1}}, "paths": ["a", REDACTED], "lr": 1.0}
    now = {"sources": {"x_secret": {"limit": 2}, "plain": {"limit": 1}}, "paths": ["a", "b"], "lr": 1.0}
    first, second = redacted_alike(was, now)
    assert first == second == redacted_alike(now, was)[0] == was
    for changed in ({"lr": 2.0}, {"paths": ["c", "b"]}, {"paths": ["a", "b", "c"]}, {"more": REDACTED}):
        first, second = redacted_alike(was, {**now, **changed})
        assert first != second


def test_secrets_as_keys_go_and_none_takes_anothers_place():
    one, two = TOKENS[:2]
    found = redact({one: 1, "lr": {two: 2}, two: 3, REDACTED: 4})
    assert SECRET not in json.dumps(found)
    assert sorted(v for v in found.values() if isinstance(v, int)) == [1, 3, 4]
    assert found["lr"] == {REDACTED: 2}


@pytest.fixture
def records():
    factory = logging.getLogRecordFactory()
    redact_logs()
    yield
    logging.setLogRecordFactory(factory)


@pytest.mark.usefixtures("records")
def test_logs_of_any_logger_and_tracebacks_in_them_hold_no_secret():
    stream, token = io.StringIO(), TOKENS[0]
    handler = logging.StreamHandler(stream)  # a library's own, which passes nothing on
    logger = logging.Logger("some.library")
    logger.addHandler(handler)
    logger.warning("retry %s of %s, %d tokens, %s", f"https://me:{token}@host/x", "org/model@main", 12, {"k": token})
    try:
        raise OSError(f"{token} is not a file")
    except OSError:
        logger.exception("reading failed")
    logger.warning("plain %s", "text", stack_info=False)
    told = stream.getvalue()
    assert SECRET not in told
    assert f"retry https://{REDACTED}@host/x of org/model@main, 12 tokens, {{'k': '{REDACTED}'}}\n" in told
    assert f"OSError: {REDACTED} is not a file\n" in told
    assert told.endswith("plain text\n")
    assert isinstance(logging.makeLogRecord({}), RedactedRecord)


@pytest.mark.parametrize("name", ["all", "packing"])
def test_nor_does_that_of_a_benchmark(name, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", [name, "--nothing", TOKENS[0]])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(ROOT / "benchmarks" / f"{name}.py"))["main"]()
    assert ended.value.code == 2
    assert f"unrecognized arguments: --nothing {REDACTED}" in (told := capsys.readouterr().err)
    assert SECRET not in told


@pytest.mark.parametrize("command", ["hub", "evaluation", "plot_attention", "plot_run", "replay_batch"])
def test_a_command_line_that_cannot_be_parsed_prints_no_secret(command, monkeypatch, capsys):
    words = ["push", "X", "me/x"] if command == "hub" else ["tasks", "X"] if command == "evaluation" else ["X"]
    package = command in ("hub", "evaluation")
    monkeypatch.setattr(sys, "argv", [command, *words, "--nothing", TOKENS[0], "--hub_password", "pw"])
    if package:
        start = importlib.import_module(f"rexbert_hf.{command}.__main__").main
    else:
        start = runpy.run_path(str(ROOT / "recipes" / f"{command}.py"))["main"]
    with pytest.raises(SystemExit) as ended:
        start()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"unrecognized arguments: --nothing {REDACTED} --hub_password {REDACTED}" in told
    assert SECRET not in told
