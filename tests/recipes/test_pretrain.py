"""The recipe as a program: what bad input gets is one line that names the place and the way out, and a status."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "pretraining"))

import pytest
from pretraining_cases import CONFIGS, RECIPE, ROOT, THREE_PHASES, TINY, error_line, recipe, start, whole_run, words
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from rexbert_hf.hub import read_run
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.settings import load_settings

SENTENCES = [f"a red steel lamp number {i} for the kitchen table" for i in range(120)]
ONE_PHASE = {
    **TINY,
    "phases": "[{name: only, mixture: {shop: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 512}]",
    "model.overrides": THREE_PHASES["model.overrides"],
}


def commands():
    """Words behind the recipe's name of each command in its docstring; what is optional too."""
    text = ast.get_docstring(ast.parse(RECIPE.read_text())) or ""
    block = text.split("\n\n")[1]
    return [
        shlex.split(re.sub(r" \.\.\.|[\[\]]", "", line))[1:]
        for line in block.replace("\n", " ").split("accelerate launch ")[1:]
    ]


@pytest.mark.parametrize("given", commands())
def test_commands_of_the_docstring_are_accepted(given):
    assert given[1::2], "keys behind the configuration"
    pairs = [(key.removeprefix("--"), value) for key, value in zip(given[1::2], given[2::2], strict=True)]
    assert load_settings(StagedSettings, ROOT / given[0], pairs).runs()


@pytest.fixture
def fail(tmp_path, capsys, monkeypatch):
    """Run the recipe on one source and return (status, the error line)."""

    def start(source, **changes):
        base = {**ONE_PHASE, "tokenizer.path": str(whole_run()), "sources": f"{{shop: {source}}}"}
        status, out, err = recipe(words(tmp_path / "out", "quickstart", base, **changes), capsys, monkeypatch)
        assert out == ""
        return status, error_line(err)

    return start


@pytest.fixture
def succeed(tmp_path, capsys, monkeypatch):
    """Run the recipe on one source and return (what it logged, the entry of the source in run.json)."""

    def start(source, caplog, **changes):
        base = {**ONE_PHASE, "tokenizer.path": str(whole_run()), "sources": f"{{shop: {source}}}"}
        with caplog.at_level("INFO"):
            status, _, err = recipe(words(tmp_path / "out", "quickstart", base, **changes), capsys, monkeypatch)
        assert status == 0, err
        return caplog.text, read_run(tmp_path / "out")["data"][0]

    return start


def write(path, lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines))
    return path


# The settings: status 2, nothing is read and nothing is written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"trainer__lerning_rate": "1"}, "trainer.lerning_rate"),
        ({"phases__only__mixture": "{shop: 1, shoppe: 1}"}, "mixture names the source 'shoppe'"),
        ({"phases__only__masking__kind": "gided"}, "unknown masking.kind 'gided'"),
        ({"evaluation__held_out": "2"}, "held_out is a share"),
        ({"push_to_hub": "a/b/c"}, "a/b/c"),
        ({"model__size": "null"}, "--model.init_from"),
        ({"model__revision": "main"}, "revision belongs to init_from"),
        ({"scale": "0"}, "scale must be positive"),
        ({"trainer__cpu_threads": "0"}, "trainer: cpu_threads must be at least 1"),
    ],
)
def test_settings_that_cannot_be(fail, tmp_path, changes, said):
    status, line = fail("{sample: shop_text}", **changes)
    assert status == 2
    assert said in line
    assert not (tmp_path / "out").exists()


def test_an_unknown_key_in_the_file_names_the_line(tmp_path, capsys, monkeypatch):
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {CONFIGS / 'quickstart.yaml'}\nmodel:\n  sise: micro\n")
    status, out, err = recipe([str(path)], capsys, monkeypatch)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "mine.yaml:3" in err
    assert "did you mean 'model.size'?" in err


def test_training_arguments_that_the_recipe_decides(fail):
    status, line = fail("{sample: shop_text}", trainer__extra="{learning_rate: 1}")
    assert status == 1
    assert "set phases.NAME.learning_rate" in line


@pytest.mark.parametrize(("name", "said"), [("tensorbord", "unknown tracker 'tensorbord'"), ("wandb", "pip install")])
def test_trackers_that_are_not_there(fail, monkeypatch, name, said):
    from rexbert_hf.pretraining import arguments

    monkeypatch.setattr(arguments, "get_available_reporting_integrations", list)
    status, line = fail("{sample: shop_text}", trainer__report_to=name)
    assert status == 1
    assert said in line


def test_processes_that_did_not_come(fail, monkeypatch):
    status, line = fail("{sample: shop_text}", trainer__num_processes="2")
    assert status == 1
    assert "asked for 2 processes, but 1 run" in line
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, line = fail("{sample: shop_text}")
    assert status == 1
    assert "asked for 2 processes (WORLD_SIZE), but RANK, LOCAL_RANK, MASTER_ADDR is not set" in line


# The data: status 1


def test_a_missing_column(fail, tmp_path):
    path = write(tmp_path / "t.csv", ["title,note", *(f"{text},x" for text in SENTENCES)])
    status, line = fail(f"{{path: {path}, columns: {{text: body}}}}")
    assert status == 1
    assert "body" in line
    assert "t.csv" in line
    status, line = fail(f"{{path: {path}}}")
    assert status == 1
    assert "columns.text" in line


def test_an_empty_file(fail, tmp_path):
    path = write(tmp_path / "empty.jsonl", [])
    status, line = fail(f"{{path: {path}}}")
    assert status == 1
    assert "empty.jsonl" in line


def test_a_file_that_is_not_there(fail, tmp_path):
    status, line = fail(f"{{path: {tmp_path / 'nowhere.csv'}}}")
    assert status == 1
    assert "nowhere.csv: no such file" in line


def test_bad_lines_are_skipped_counted_and_reported(succeed, tmp_path, caplog):
    lines = [json.dumps({"text": text}) for text in SENTENCES]
    lines[3] = b'{"text": "caf\xe9 lamp"}\n'  # not UTF-8
    lines[7] = '{"text": "cut of'  # truncated
    path = write(tmp_path / "t.jsonl", lines)
    log, source = succeed(f"{{path: {path}}}", caplog)
    assert source["bad_rows"] == 2
    assert f"{path}:4" in log
    assert f"{path}:8" in log


def test_long_documents_are_cut_and_reported(succeed, tmp_path, caplog):
    path = write(tmp_path / "t.txt", [*SENTENCES, " ".join(SENTENCES)])
    log, _ = succeed(f"{{path: {path}}}", caplog, evaluation__held_out="0")
    assert "phase only: 1 of 121 documents of shop are longer than 64 tokens and are cut into pieces" in log
    assert "no document is held out: no masked accuracy will be measured" in log


def test_documents_without_a_word_are_skipped_and_counted(succeed, tmp_path, caplog):
    path = write(tmp_path / "t.jsonl", [json.dumps({"text": text}) for text in [*SENTENCES, "", " ", "\t"]])
    _, source = succeed(f"{{path: {path}}}", caplog, evaluation__held_out="0")
    assert source["documents"] == len(SENTENCES)
    assert source["empty_rows"] + sum(source["skipped_documents"].values()) + source["repeated_documents"] == 3


def test_nothing_but_empty_documents(fail, tmp_path):
    path = write(tmp_path / "t.txt", [" "] * 5)
    status, line = fail(f"{{path: {path}}}")
    assert status == 1
    assert "t.txt" in line or "source 'shop'" in line


def test_an_empty_held_out_set_is_said_and_trains(succeed, tmp_path, caplog):
    path = write(tmp_path / "t.txt", SENTENCES[:40])
    log, source = succeed(f"{{path: {path}}}", caplog, evaluation__held_out="1e-6")
    assert source["held_out_documents"] == 0
    assert "source 'shop': none of its 40 documents is held out" in log
    assert "raise evaluation.held_out" in log


# Models and tokenizers: status 1


def bert(folder, vocabulary=None, tokenizer=None):
    tokenizer = tokenizer or AutoTokenizer.from_pretrained(whole_run())
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertForMaskedLM(BertConfig(vocab_size=vocabulary or len(tokenizer), **shape)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_without_mask_token(fail, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(whole_run())
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    status, line = fail("{sample: shop_text}", tokenizer__path=tmp_path / "tokenizer")
    assert status == 1
    assert "has no mask token" in line
    assert str(tmp_path / "tokenizer") in line


def test_a_vocabulary_larger_than_the_embedding(fail, tmp_path):
    folder = bert(tmp_path / "bert", vocabulary=100)
    status, line = fail("{sample: shop_text}", **{"model__overrides": "{}", "model__init_from": folder})
    assert status == 1
    assert "the tokenizer has 384 tokens" in line
    assert "100 rows" in line


@pytest.mark.parametrize("damage", ["cut", "no_weights", "bad_config", "no_folder"])
def test_a_model_that_does_not_load(fail, tmp_path, damage):
    folder = bert(tmp_path / "bert")
    if damage == "cut":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[: len(data) // 2])
    elif damage == "no_weights":
        (folder / "model.safetensors").unlink()
    elif damage == "bad_config":
        (folder / "config.json").write_text('{"model_type": "be')
    else:
        folder = tmp_path / "a" / "b" / "nowhere"
    status, line = fail("{sample: shop_text}", **{"model__overrides": "{}", "model__init_from": folder})
    assert status == 1
    assert str(folder) in line


def test_a_folder_without_a_tokenizer(fail, tmp_path):
    (tmp_path / "empty").mkdir()
    status, line = fail("{sample: shop_text}", tokenizer__path=tmp_path / "empty")
    assert status == 1
    assert "set tokenizer.path" in line


def test_a_model_shorter_than_a_phase(fail, tmp_path):
    """The limit of the checkpoint is known before any text is read."""
    folder = bert(tmp_path / "bert")
    changes = {"model__overrides": "{}", "model__init_from": folder, "micro_batch_tokens": "1024"}
    phases = "[{name: only, mixture: {shop: 1}, max_tokens: 2k, seq_length: 1024, batch_tokens: 1024}]"
    status, line = fail("{sample: shop_text, max_documents: 50}", phases=phases, **changes)
    assert status == 1
    assert "max_position_embeddings=512" in line


def test_a_model_field_that_does_not_exist(fail):
    status, line = fail("{sample: shop_text}", model__overrides="{hidden_size: 33, num_attention_heads: 2}")
    assert status == 1
    assert "33" in line


def test_a_mistyped_model_field(fail):
    status, line = fail("{sample: shop_text}", model__overrides="{hidden_sise: 32}")
    assert status == 1
    assert "model.overrides.hidden_sise" in line
    assert "did you mean 'hidden_size'?" in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("{path: t.xls, format: xls}", "unknown format 'xls': choose one of csv"),
        ("{path: t.csv, encoding: utf9}", "unknown encoding 'utf9'"),
        ("{path: t.csv, max_bad_share: 2}", "max_bad_share is a share"),
        ("{}", "sources.shop: has no text: set --sources.NAME.path"),
        ("{path: t.csv, sample: shop_text}", "sources.shop: has both 'path' and 'sample'"),
    ],
)
def test_sources_that_cannot_be(fail, tmp_path, source, said):
    status, line = fail(source)
    assert status == 2
    assert said in line
    assert "sources.shop" in line
    assert not (tmp_path / "out").exists()


def test_too_many_bad_rows_and_the_way_out(fail, succeed, tmp_path, caplog):
    path = write(tmp_path / "t.txt", [*SENTENCES[:60], *[b"caf\xe9 lamp\n"] * 20])
    status, line = fail(f"{{path: {path}}}")
    assert status == 1
    assert "20 of 80 rows do not decode" in line
    assert "encoding='cp1252'" in line
    assert "t.txt:61 is not utf-8" in line
    assert "raise max_bad_share=0.1" in line
    _, source = succeed(f"{{path: {path}, max_bad_share: 0.5}}", caplog)
    assert source["bad_rows"] == 20


def test_lexicons_name_their_key(fail, tmp_path):
    status, line = fail("{sample: shop_text}", guides__always="true", guides__brands=tmp_path / "nowhere.txt")
    assert status == 1
    assert "guides.brands: " in line
    assert "nowhere.txt: no such file" in line


def test_shards_of_another_library(fail, tmp_path):
    """Their index is a .json file, which would else be taken for the text."""
    (tmp_path / "mds").mkdir()
    (tmp_path / "mds" / "index.json").write_text('{"shards": [], "version": 2}')
    (tmp_path / "mds" / "shard.00000.mds.zstd").write_bytes(b"x")
    status, line = fail(f"{{path: {tmp_path / 'mds'}}}")
    assert status == 1
    assert "mds: holds MDS shards" in line
    assert "docs/data.md" in line


def test_an_output_folder_that_cannot_be(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("x")
    base = {**ONE_PHASE, "tokenizer.path": str(whole_run()), "sources": "{shop: {sample: shop_text}}"}
    for place in ("file", "file/below"):
        status, _, err = recipe(words(tmp_path / place, "quickstart", base), capsys, monkeypatch)
        assert status == 1
        assert f"output_dir {tmp_path / place} cannot be made" in error_line(err)


def test_as_a_program_of_its_own(tmp_path):
    """Nothing of what this process has loaded or logged: the last line of stderr is the error."""
    path = write(tmp_path / "t.csv", ["title,note", "lamp,x"])
    base = {**ONE_PHASE, "tokenizer.path": str(whole_run()), "sources": f"{{shop: {{path: {path}}}}}"}
    process = start(words(tmp_path / "out", "quickstart", base))
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out) == (1, "")
    assert "t.csv: no column 'text' among title, note: set the source's columns.text" in error_line(err)
