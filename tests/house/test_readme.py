"""What the documents show works: Python blocks run, commands parse, files exist, figures have a source.

All blocks of a document run in one folder, one after the other, in a fresh process a document. Models that the README
names by their Hub id lie there as tiny ones, and `output/quickstart` comes from the recipe with tiny settings.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml
from house_files import ROOT
from transformers import ModernBertConfig, ModernBertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from rexbert_hf import load_sample
from rexbert_hf.catalog import read_records
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.settings import parse_args

DOCS = tuple(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", *DOCS)
PROSE = ("cd", "git", "export", "hf")
LAUNCHERS = {
    "accelerate": ("launch", {"--num_processes": "number", "--quiet": "flag"}),
    "torchrun": (None, {"--nproc_per_node": "number"}),
}
STREAMING = """
import json, pathlib
class StreamingDataset:
    def __init__(self, local, shuffle, batch_size):
        self.rows = json.loads((pathlib.Path(local) / "index.json").read_text())
    def __iter__(self):
        return iter(self.rows)
"""
"""In place of the library that reads MDS shards."""
TINY_RUN = {
    "output_dir": "output/quickstart",
    "model.overrides": "{num_hidden_layers: 2}",
    "tokenizer.vocab_size": "512",
    "sources.general.sample_size": "60",
    "sources.long.sample_size": "20",
    "sources.shop.sample_size": "60",
    "micro_batch_tokens": "512",
    "evaluation.max_tokens": "2000",
    "evaluation.baselines": "false",
    "trainer.use_cpu": "true",
}
PHASES = ("general", "extension", "anneal")
TINY_PHASE = {"max_tokens": "2048", "seq_length": "128", "batch_tokens": "512", "schedule.warmup_tokens": "0"}


def blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def without_blocks(document: str) -> str:
    text = (ROOT / document).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def documents_with(language: str) -> list[str]:
    return [document for document in DOCUMENTS if blocks(document, language)]


def tiny_words() -> list[str]:
    phases = {f"phases.{name}.{key}": value for name in PHASES for key, value in TINY_PHASE.items()}
    return [word for key, value in {**TINY_RUN, **phases}.items() for word in (f"--{key}", value)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the blocks run: tiny models under the names that the documents use."""
    place = tmp_path_factory.mktemp("readme")
    tokenizer = train_tokenizer(load_sample("shop_text", size=60)["text"], 512, model_max_length=512)
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")
    ids = {name: getattr(tokenizer, name) or 0 for name in names}
    stock = {"vocab_size": 512, "hidden_size": 384, "intermediate_size": 64, "num_hidden_layers": 12, **ids}
    modernbert = ModernBertForMaskedLM(ModernBertConfig(**stock, num_attention_heads=6))
    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    roberta = RobertaForMaskedLM(RobertaConfig(vocab_size=512, max_position_embeddings=1024, **small, **ids))
    for name, model in (("answerdotai/ModernBERT-base", modernbert), ("distilbert/distilroberta-base", roberta)):
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    (place / "streaming.py").write_text(STREAMING, encoding="utf-8")
    for name, row in (("text", {"text": "a lamp"}), ("ids", {"input_ids": tokenizer("a lamp")["input_ids"]})):
        (place / "ettin-mds" / name).mkdir(parents=True)
        (place / "ettin-mds" / name / "index.json").write_text(json.dumps([row] * 3), encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def quickstart(folder):
    """A finished run of the quickstart recipe, tiny."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = ROOT / "recipes" / "configs" / "quickstart.yaml"
        return pretrain(parse_args(PretrainSettings, [str(config), *tiny_words()]))


@pytest.mark.parametrize("document", documents_with("python"))
def test_python_blocks_run(document, folder, quickstart):
    code = "\n".join(f"# block {number}\n{block}" for number, block in enumerate(blocks(document, "python"), 1))
    script = folder / f"{Path(document).stem}.py"
    script.write_text(code, encoding="utf-8")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, script], cwd=folder, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    if document == "docs/data.md":
        assert read_records(folder / "ettin-parquet")["text"] == ["a lamp"] * 6
    if document == "docs/pretraining.md":  # prints what its table says
        rows = re.findall(r"^\| (\w+) \|.*\| ([\d,]{9,}) \|$", (ROOT / document).read_text(), flags=re.MULTILINE)
        assert len(rows) == 4
        assert all(f"{size} {count}\n" in done.stdout for size, count in rows), done.stdout


def commands() -> list[tuple[str, str]]:
    """Document and line of each command: those of bash blocks, and those that stand in the text and its tables."""
    found = []
    for document in DOCUMENTS:
        text = without_blocks(document)
        inline = re.findall(r"`((?:make|pip|accelerate|torchrun|\S*python) [^`\n]+)`", text)
        found += [(document, line) for line in inline if line != "accelerate launch"]
    for document in documents_with("bash"):
        for block in blocks(document, "bash"):
            lines = block.replace("\\\n", " ").splitlines()
            found += [(document, line) for line in lines if shlex.split(line, comments=True)]
    return found


@pytest.mark.parametrize(("document", "line"), commands())
def test_commands_exist_and_parse(document, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("recipes", "benchmarks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for block in blocks(document, "yaml"):
        named = re.match(r"# (\S+\.yaml)\n", block)
        assert named, "the first line of a YAML block says its file name"
        (tmp_path / named[1]).write_text(block, encoding="utf-8")
    check(shlex.split(line, comments=True))


def check(words: list[str]) -> None:
    """Fail unless a command line names things that exist, with options that they have."""
    program, rest = words[0], words[1:]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert set(rest) <= set(targets)
    elif program == "pip":
        check_pip(rest)
    elif program in LAUNCHERS:
        check_launcher(program, rest)
    elif program.endswith("python") and rest[0] == "-m":
        check_module(rest[1], rest[2:])
    elif program.endswith("python"):
        check_script(rest)
    else:
        assert program in PROSE, f"no check for '{program}': add one"


def check_pip(words: list[str]) -> None:
    assert words[0] == "install"
    extras = re.findall(r"\[(\w+)\]", " ".join(words))
    sections = (ROOT / "setup.cfg").read_text()
    assert all(re.search(rf"^{extra} =", sections, flags=re.MULTILINE) for extra in extras)


def check_launcher(program: str, words: list[str]) -> None:
    subcommand, options = LAUNCHERS[program]
    if subcommand:
        assert words.pop(0) == subcommand
    while words[0].startswith("--"):
        option = words.pop(0)
        assert option in options
        assert options[option] == "flag" or words.pop(0).isdigit()
    check_script(words)


def check_module(module: str, words: list[str]) -> None:
    if module == "pytest":
        assert all((ROOT / word).exists() for word in words if not word.startswith("-"))
        return
    place = find_spec(f"{module}.__main__") or find_spec(module)
    assert place is not None
    source = Path(str(place.origin)).read_text(encoding="utf-8")
    assert all(f'"{word}"' in source for word in (words[0], *words) if word == words[0] or word.startswith("--"))


def check_script(words: list[str]) -> None:
    script, rest = Path(words[0]), words[1:]
    source = script.read_text(encoding="utf-8")
    if script.parts[0] != "recipes":
        assert all(f'"{word}"' in source for word in rest if word.startswith("--"))
        return
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    parses = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "parse_args"]
    if not parses:  # it draws a run's folder and has no configuration
        assert all(f'"{word}"' in source for word in rest if word.startswith("--"))
        return
    (parse,) = parses
    default = {keyword.arg: ast.unparse(keyword.value) for keyword in parse.keywords}.get("default_config", "None")
    namespace = load_recipe(script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *rest])
        config = eval(default, {**namespace, "sys": sys})  # the recipe's own expression
    parse_args(namespace[ast.unparse(parse.args[0])], rest, default_config=config)


def load_recipe(script: Path) -> dict[str, Any]:
    """Names of a recipe; it stays in `sys.modules`, where its dataclasses look their types up."""
    spec = spec_from_file_location(f"recipe_{script.stem}", script)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    return vars(module)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_files_exist(document):
    text = without_blocks(document)
    named = re.findall(r"`((?:src|tests|recipes|docs|benchmarks|model_cards)/[\w./-]+)`", text)
    named += re.findall(r"\]\(([\w./-]+)\)", text)
    beside = (ROOT / document).parent  # a link may be relative to its document
    missing = [name for name in named if not (ROOT / name).exists() and not (beside / name).exists()]
    assert not missing


def test_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 220


def numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,]*(?:\.\d+)?", text)


def has_number(text: str, number: str) -> bool:
    """Whether a text holds a number, or one that rounds to it."""
    wanted = number.replace(",", "")
    digits = len(wanted.partition(".")[2])
    found = [float(other.replace(",", "")) for other in numbers(text)]
    return any(f"{value:.{digits}f}" == wanted for value in found)


@pytest.mark.parametrize("document", ["README.md", "docs/measured.md"])
def test_measured_figures_come_from_result_files(document):
    """Invariant 8: a reading names a file of benchmarks/results, and that file holds its figures."""
    text = (ROOT / document).read_text(encoding="utf-8")
    table = re.search(r"<!-- measured.*?-->(.*?)<!-- /measured -->", text, flags=re.DOTALL)
    assert table
    for row in table[1].strip().splitlines()[2:]:
        reading = row.strip().strip("|").split("|")[-1].strip()
        if not reading:
            continue
        named = re.search(r"benchmarks/results/[\w.-]+", reading)
        assert named, f"name the file in benchmarks/results: {row}"
        source = (ROOT / named[0]).read_text(encoding="utf-8")
        figures = numbers(reading.replace(named[0], "").replace(Path(named[0]).name, ""))
        assert all(has_number(source, figure) for figure in figures), f"{named[0]} does not hold all of {figures}"


def test_the_check_of_figures_can_fail():
    assert has_number("5.32 times", "5.3")
    assert has_number("5,320", "5320")
    assert not has_number("5.32 times", "5.4")
    assert not has_number("15.3", "5.3")


@pytest.mark.parametrize(
    "line",
    [
        "make nothing",
        "pip install .[gpu]",
        "python recipes/pretrain.py --optimizer.lr 1",
        "python recipes/none.py",
        "accelerate launch --gpus 2 recipes/pretrain.py",
        "python -m rexbert_hf.hub push --public",
        "sh run.sh",
    ],
)
def test_the_check_of_commands_can_fail(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, ValueError, OSError)):
        check(shlex.split(line))


@pytest.mark.parametrize("document", documents_with("yaml"))
def test_yaml_blocks_are_yaml(document):
    assert all(isinstance(yaml.safe_load(block), dict) for block in blocks(document, "yaml"))
