"""The tokenizer recipe: exit status, the folder it leaves, its one-line errors."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "train_tokenizer.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the recipe as `python recipes/train_tokenizer.py WORDS` does; exit status, stdout, stderr."""

    def start(*words):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


def test_trains_on_the_sample_shop(run, tmp_path):
    words = ["--output_dir", str(tmp_path), "--vocab_size", "1024", "--texts.0.limit", "2000", "--class_tokens"]
    status, out, _ = run(*words)
    assert status == 0
    assert "bytes per token, held out:" in out
    done = json.loads((tmp_path / "run.json").read_text())
    assert done["config"]["vocab_size"] == done["results"]["vocab_size"] == 1024
    assert done["results"]["bytes_per_token"] > 1
    assert done["results"]["brands"] > 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 1024
    assert "<PRICE>" in tokenizer.get_vocab()


def test_a_wrong_key_is_status_two(run):
    status, out, err = run("--vocab_sise", "1024")
    assert (status, out) == (2, "")
    assert err.startswith("error: unknown key 'vocab_sise'")
    assert err.count("\n") == 1


def test_a_missing_column_is_status_one(run, tmp_path):
    (tmp_path / "t.csv").write_text("title\nred lamp\n")
    status, _, err = run("--texts", f"[{{path: {tmp_path / 't.csv'}}}]", "--output_dir", str(tmp_path / "out"))
    assert status == 1
    assert "no 'text' column in" in err
    assert not (tmp_path / "out").exists()


def test_a_source_is_a_sample_or_a_path(run):
    status, _, err = run("--texts.0.path", "x.csv")
    assert status == 2
    assert "texts.0: give either 'sample' or 'path'" in err
