"""The recipe parser: precedence, types, addressing and the one-line errors."""

from __future__ import annotations

import enum
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rexbert_hf.settings import (
    SettingsError,
    from_dict,
    load_settings,
    parse_args,
    parse_number,
    run_recipe,
    sole_run,
    to_dict,
)


class Mode(enum.Enum):
    FAST = "fast"
    SLOW = "slow"


@dataclass
class Optimizer:
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6


@dataclass
class Phase:
    """One phase.

    Attributes:
        name: what it is called.
        max_tokens: how long it runs,
            in tokens.
        rate: one rate or several.
    """

    name: str
    max_tokens: int = 0
    rate: float | list[float] = 0.1
    masking: Literal["mlm", "guided"] = "mlm"
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(learning_rate=5e-4))

    def __post_init__(self) -> None:
        if self.max_tokens < 0:
            raise ValueError("max_tokens must not be negative")


@dataclass
class Push:
    repo: str
    private: bool = False


@dataclass
class Run:
    """A run to test with.

    Attributes:
        seed: seed of everything random.
    """

    output_dir: Path = Path("runs/x")
    seed: int = 0
    steps: int = 0
    resume: bool = True
    note: str = ""
    limit: int | None = None
    push: Push | None = None
    mode: Mode = Mode.FAST
    kinds: list[str] = field(default_factory=list)
    sizes: tuple[int, ...] = ()
    mixture: dict[str, float] = field(default_factory=lambda: {"general": 1.0})
    sources: dict[str, Push] = field(default_factory=dict)
    extra: Any = None
    optimizer: Optimizer = field(default_factory=Optimizer)
    phases: list[Phase] = field(default_factory=lambda: [Phase("general", 100), Phase("anneal", 10)])


@dataclass
class Half:
    bf16: Literal["auto"] | bool | None = "auto"
    seed: int = 0


@dataclass
class Needs:
    path: Path
    push: Push


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def fails(*words: str, cls: type = Run) -> str:
    """The message of a command line that must be refused; always one line."""
    with pytest.raises(SettingsError) as caught:
        parse_args(cls, list(words))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_then_file_then_command_line(tmp_path):
    config = write(tmp_path, "c.yaml", "seed: 3\nnote: file\noptimizer: {eps: 1e-9}\n")
    run = parse_args(Run, [str(config), "--note", "typed", "--optimizer.betas=0.8,0.9"])
    assert (run.seed, run.note, run.limit) == (3, "typed", None)
    assert run.optimizer == Optimizer(1e-3, (0.8, 0.9), 1e-9)


def test_default_config_is_used_only_without_config(tmp_path):
    default, other = write(tmp_path, "d.yaml", "seed: 1"), write(tmp_path, "o.yaml", "note: x")
    assert parse_args(Run, [], default).seed == 1
    assert parse_args(Run, [str(other)], default).seed == 0


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e6", 10**6), ("1_000_000", 10**6), ("1.7T", 17 * 10**11), ("250B", 250 * 10**9), ("35M", 35 * 10**6),
     ("64k", 64_000), ("010", 10), ("-3", -3), ("2.0", 2)],
)  # fmt: skip
def test_counts_as_people_write_them(tmp_path, text, value):
    config = write(tmp_path, "c.yaml", f"limit: {text}\n")
    run = parse_args(Run, [str(config), "--steps", text])
    assert run.steps == value
    assert run.limit == value
    assert type(run.steps) is int


@pytest.mark.parametrize("text", ["1.5", "abc", "1e-3", "true", "1 2", "0.5k5", "", "1e400"])
def test_not_a_count(text):
    message = fails("--optimizer.eps=1", f"--seed={text}")
    assert message == f"seed: expected int, got {text!r} (from command line --seed)"


def test_floats_survive_the_yaml_exponent_trap(tmp_path):
    assert yaml.safe_load("1e-5") == "1e-5"  # the trap: no dot, so YAML 1.1 reads a string
    config = write(tmp_path, "c.yaml", "optimizer: {learning_rate: 1e-5, eps: 3}")
    run = parse_args(Run, [str(config)])
    assert (run.optimizer.learning_rate, run.optimizer.eps) == (1e-5, 3.0)
    assert type(run.optimizer.eps) is float
    assert parse_args(Run, ["--optimizer.eps", "inf"]).optimizer.eps == float("inf")


def test_texts_stay_as_written(tmp_path):
    config = write(tmp_path, "c.yaml", "note: no\nkinds: [1.10, 2026-01-02, yes]\n")
    run = parse_args(Run, [str(config)])
    assert run.note == "no"
    assert run.kinds == ["1.10", "2026-01-02", "yes"]
    assert parse_args(Run, ["--note", "a: [b"]).note == "a: [b"


def test_folders_lie_in_the_home_folder(tmp_path, monkeypatch):
    @dataclass
    class Run:
        output_dir: str = "output"
        cache_dir: str | None = None
        root: Path = Path("data")
        query: str = ""

    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "run.yaml"
    path.write_text("output_dir: ~/runs/a\nquery: ~/a\n")
    found = parse_args(Run, [str(path), "--cache_dir", "~/cache", "--root", "~/data"])
    assert found == Run(f"{tmp_path}/runs/a", f"{tmp_path}/cache", tmp_path / "data", "~/a")
    assert parse_args(Run, ["--cache_dir", "~"]).cache_dir is None  # null, as ever
    with pytest.raises(SettingsError, match=r"^root: expected .* got '~nosuchuser/a'; no such user here: write the"):
        parse_args(Run, ["--root", "~nosuchuser/a"])
    with pytest.raises(SettingsError, match=r"^cache_dir: ~nosuchuser/a: no such user here; write the folder out \("):
        parse_args(Run, ["--cache_dir", "~nosuchuser/a"])


def test_a_run_that_python_starts_lies_in_the_home_folder_whole(tmp_path, monkeypatch):
    @dataclass
    class Run:
        output_dir: str = "output"

    @sole_run()
    def run(settings):
        return settings.output_dir, sorted(tmp_path.glob("runs/**/*"))

    monkeypatch.setenv("HOME", str(tmp_path))
    folder, found = run(Run("~/runs/a"))
    assert folder == f"{tmp_path}/runs/a"
    assert found == [tmp_path / "runs" / "a", tmp_path / "runs" / "a" / ".lock"]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: 9 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
        MemoryError(),
    ],
)
def test_want_of_memory_names_the_keys_that_take_less(tmp_path, monkeypatch, error):
    @dataclass
    class Trainer:
        gradient_checkpointing: bool = False
        num_workers: int = 4

    @dataclass
    class Run:
        output_dir: str
        trainer: Trainer = field(default_factory=Trainer)
        micro_batch_tokens: int = 9

    @sole_run()
    def run(settings, error):
        raise error

    told = "lower micro_batch_tokens or trainer.num_workers, or set trainer.gradient_checkpointing"
    folder = tmp_path / "out"  # a word of the message, too
    with pytest.raises(MemoryError, match=f"^{folder}: out of memory .*: {told}$"):
        run(Run(str(folder)), error)
    (folder / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(MemoryError, match=f"^{folder}: out of memory .*: {told}; the last checkpoint is good$"):
        run(Run(str(folder)), error)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MemoryError, match=f"^out: out of memory .*: {told}; the last checkpoint is good$"):
        run(Run("out"), error)
    for ended in ("(pid 12) is killed by signal: Terminated. ", "(pid(s) 12, 13) exited unexpectedly"):
        with pytest.raises(RuntimeError, match="DataLoader worker"):  # of a stop or a fault, and no want of memory
            run(Run("out"), RuntimeError(f"DataLoader worker {ended}"))


def test_flags():
    assert parse_args(Run, ["--resume", "--seed", "1"]).resume is True
    assert parse_args(Run, ["--resume", "false"]).resume is False
    assert parse_args(Run, ["--resume=no"]).resume is False
    assert "expected true or false, got 'maybe'" in fails("--resume=maybe")


def test_flags_with_further_options(tmp_path):
    config = str(write(tmp_path, "c.yaml", "seed: 3"))
    for words, value in [(["auto"], "auto"), (["no"], False), (["null"], None), ([], True), (["TRUE"], True)]:
        run = parse_args(Half, ["--bf16", *words, config])
        assert (run.bf16, run.seed) == (value, 3)
    assert "no configuration file automatic" in fails("--bf16", "automatic", cls=Half)


@pytest.mark.parametrize("word", ["no", "off", "false", "No"])
def test_free_form_mappings_read_truth_values_as_typed_fields_do(tmp_path, word):
    config = write(tmp_path, "c.yaml", f"extra: {{a: {word}, b: '{word}', c: [yes, on], d: {word}mad}}")
    expected = {"a": False, "b": word, "c": [True, True], "d": f"{word}mad"}
    assert parse_args(Run, [str(config)]).extra == expected
    assert parse_args(Run, ["--extra", f"{{a: {word}}}"]).extra == {"a": False}


def test_a_bare_flag_does_not_swallow_the_config(tmp_path):
    config = write(tmp_path, "c.yaml", "seed: 3\nresume: false")
    run = parse_args(Run, ["--resume", str(config)])
    assert (run.resume, run.seed) == (True, 3)


def test_containers_from_text():
    run = parse_args(
        Run,
        ["--kinds", "a,b", "--sizes=[1k, 2k]", "--mode", "slow", "--limit", "null", "--output_dir", "o",
         "--mixture", "{shop: 1, general: 0.5}", "--extra", "{a: [1, 2.5, x, 1e-3]}"],
    )  # fmt: skip
    assert run.kinds == ["a", "b"]
    assert run.sizes == (1000, 2000)
    assert run.mode is Mode.SLOW
    assert run.mixture == {"shop": 1.0, "general": 0.5}
    assert run.extra == {"a": [1, 2.5, "x", 1e-3]}
    assert run.output_dir == Path("o")


def test_a_list_takes_several_words(tmp_path):
    config = str(write(tmp_path, "c.yaml", "seed: 7"))
    run = parse_args(Run, ["--kinds", "a, b", "c: d", config, "--sizes", "1k", "2", "--output_dir", "o"])
    assert (run.kinds, run.sizes, run.seed) == (["a, b", "c: d"], (1000, 2), 7)
    assert parse_args(Run, ["--kinds", "a,b", config, "--output_dir", "o"]).kinds == ["a", "b"]
    braces = [["runs/seed-{seed}/x", "b"], ["runs/seed-{seed}/x"], ["runs/seed-{seed}/x, b"]]
    found = [parse_args(Run, ["--kinds", *words, "--output_dir", "o"]).kinds for words in braces]
    assert found == [braces[0], braces[1], braces[0]]


def test_unions_take_the_member_that_fits():
    rate = [parse_args(Run, ["--phases.0.rate", text]).phases[0].rate for text in ("1", "[1, 2e-1]", "1,2")]
    assert rate == [1.0, [1.0, 0.2], [1.0, 2.0]]
    assert "phases.0.rate: expected float or list of float, got 'x'" in fails("--phases.0.rate", "x")
    assert "phases.0.rate.1: expected float, got 'x'" in fails("--phases.0.rate", "[1, x]")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{title}. {description}", "{title}. {description}"),
        ("{title}", "{title}"),
        ("[{brand}] {title}", "[{brand}] {title}"),
        ("[title, description]", ["title", "description"]),
        ("title", "title"),
    ],
)
def test_a_text_in_brackets_is_a_text_where_nothing_else_fits(text, value):
    @dataclass
    class Source:
        columns: dict[str, str | list[str]] | None = None

    assert parse_args(Source, ["--columns.text", text]).columns == {"text": value}


def test_list_items_by_index_and_by_name(tmp_path):
    config = write(tmp_path, "c.yaml", "phases: [{name: a}, {name: b, masking: guided}]")
    run = parse_args(Run, [str(config), "--phases.1.max_tokens", "1e6", "--phases.a.optimizer.eps", "1"])
    assert [phase.max_tokens for phase in run.phases] == [0, 10**6]
    assert run.phases[1].masking == "guided"
    # What the mapping leaves out comes from the field's own default instance, not from the class Optimizer.
    assert run.phases[0].optimizer == Optimizer(5e-4, (0.9, 0.98), 1.0)


def test_override_of_default_items_keeps_the_rest():
    run = parse_args(Run, ["--phases.anneal.max_tokens", "7", "--mixture.shop", "0.5"])
    assert [(phase.name, phase.max_tokens) for phase in run.phases] == [("general", 100), ("anneal", 7)]
    assert run.mixture == {"general": 1.0, "shop": 0.5}


def test_optional_and_named_records_are_made_on_demand():
    run = parse_args(Run, ["--push.repo", "me/x", "--sources.shop.repo", "me/y", "--sources.shop.private"])
    assert run.push == Push("me/x")
    assert run.sources == {"shop": Push("me/y", True)}
    assert "push.repo is required (str)" in fails("--push.private")


def test_later_words_win_and_can_go_below_earlier_ones():
    assert parse_args(Run, ["--seed", "1", "--seed", "2"]).seed == 2
    assert parse_args(Run, ["--push", "{repo: a}", "--push.private=true"]).push == Push("a", True)
    assert parse_args(Run, ["--optimizer.learning-rate", "2"]).optimizer.learning_rate == 2.0


def test_required_keys():
    assert "path is required (path)" in fails(cls=Needs)
    assert "push.repo is required (str)" in fails("--path", "x", cls=Needs)


def test_errors_in_a_file_name_file_line_key_and_value(tmp_path):
    config = write(tmp_path, "c.yaml", "seed: 1\nphases:\n  - name: a\n    max_tokens: lots\n")
    assert fails(str(config)) == "phases.0.max_tokens: expected int, got 'lots' (from c.yaml:4)"
    config = write(tmp_path, "c.yaml", "seed: 1\nphases:\n  - name: a\n    max_token: 1\n")
    assert fails(str(config)) == (
        "unknown key 'phases.0.max_token' (from c.yaml:4); did you mean 'phases.0.max_tokens'?"
    )
    config = write(tmp_path, "c.yaml", "seed:\n")
    assert fails(str(config)) == "seed: expected int, got null (from c.yaml:1)"
    config = write(tmp_path, "c.yaml", "kinds: price\n")
    assert fails(str(config)) == "kinds: expected list of str, got 'price' (from c.yaml:1)"
    config = write(tmp_path, "c.yaml", "optimizer: {betas: [1, 2, 3]}\n")
    assert "optimizer.betas: expected (float, float), got a list of 3" in fails(str(config))
    config = write(tmp_path, "c.yaml", "phases: [{name: a, max_tokens: -1}]\n")
    assert fails(str(config)) == "phases.0: max_tokens must not be negative (from c.yaml:1)"
    config = write(tmp_path, "c.yaml", "phases: [{name: a, masking: guide}]\n")
    assert "expected one of mlm, guided, got 'guide'; did you mean 'guided'?" in fails(str(config))


def test_a_check_of_several_values_names_all_places_they_come_from(tmp_path):
    config = write(tmp_path, "c.yaml", "seed: 1\nphases:\n  - name: a\n    max_tokens: 1\n")
    said = "phases.0: max_tokens must not be negative (from c.yaml:3 and command line --phases.a.max_tokens)"
    assert fails(str(config), "--phases.a.max_tokens", "-1") == said


def test_errors_on_the_command_line():
    assert "did you mean 'optimizer.learning_rate'?" in fails("--optimizer.learning_rat", "1")
    assert fails("--max_tokens", "1") == "unknown key --max_tokens; did you mean --phases.N.max_tokens?"
    assert "did you mean 'anneal'?" in fails("--phases.aneal.max_tokens", "1")
    assert "'phases' has 2 items and none is '2'" in fails("--phases.2.max_tokens", "1")
    assert "--seed needs a value (int)" in fails("--seed", "--resume")
    assert "--seed needs a value (int)" in fails("--seed")
    assert "'seed' is int and has no key 'x'" in fails("--seed.x", "1")
    assert "unknown key" in fails("--", "1")
    assert "configuration is" not in fails("seed=1")


def test_two_configs_are_refused(tmp_path):
    config = str(write(tmp_path, "c.yaml", "seed: 1"))
    assert f"unexpected argument '{config}'" in fails(config, config)


def test_a_missing_config_lists_those_beside_the_default(tmp_path):
    default = write(tmp_path, "quickstart.yaml", "")
    write(tmp_path, "base.yaml", "")
    with pytest.raises(SettingsError, match=r"no configuration file nope.yaml; .*: base.yaml, quickstart.yaml"):
        parse_args(Run, ["nope.yaml"], default)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "c.yaml:1: not valid YAML"),
        ("- 1", "expected 'key: value' lines"),
        ("seed: 1\nseed: 2", "c.yaml:2: 'seed' is given twice"),
        ("extra: &a [*a]", "alias points into itself"),
        ("? [a]\n: 1", "must be a plain word"),
        ("a: 1\n\tb: 2", "c.yaml:2: not valid YAML"),
    ],
)
def test_broken_files(tmp_path, text, message):
    assert message in fails(str(write(tmp_path, "c.yaml", text)))


@pytest.mark.parametrize(
    "text",
    [
        "base: &base {eps: 1e-6}\none: &one {<<: *base, eps: 1e-8}\ntwo: *one\n",
        "base: &base {eps: 1e-6}\none: {<<: &two {<<: *base, eps: 1e-8}}\ntwo: *two\n",
    ],
)
def test_an_alias_of_a_mapping_that_merges_another(tmp_path, text):
    @dataclass
    class Run:
        base: Optimizer = field(default_factory=Optimizer)
        one: Optimizer = field(default_factory=Optimizer)
        two: Optimizer = field(default_factory=Optimizer)

    path = tmp_path / "run.yaml"
    path.write_text(text)
    run = load_settings(Run, path)
    assert (run.base.eps, run.one.eps, run.two.eps) == (1e-6, 1e-8, 1e-8)


def test_a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "c.yaml").write_bytes(b"note: caf\xe9\n")
    assert "not UTF-8" in fails(str(tmp_path / "c.yaml"))


def test_extends_merges_named_lists_and_mappings(tmp_path):
    (tmp_path / "sub").mkdir()
    write(
        tmp_path, "base.yaml", "seed: 1\nkinds: [a, b]\nmixture: {x: 1}\nphases: [{name: a, max_tokens: 5}, {name: b}]"
    )
    child = write(
        tmp_path / "sub",
        "child.yaml",
        "extends: ../base.yaml\nkinds: [c]\nmixture: {y: 2}\nphases: [{name: b, max_tokens: 7}, {name: c}]",
    )
    run = parse_args(Run, [str(child)])
    assert (run.seed, run.kinds, run.mixture) == (1, ["c"], {"x": 1.0, "y": 2.0})
    assert [(phase.name, phase.max_tokens) for phase in run.phases] == [("a", 5), ("b", 7), ("c", 0)]
    write(
        tmp_path / "sub", "child.yaml", "extends: ../base.yaml\nphases: !replace [{name: b}]\nmixture: !replace {y: 2}"
    )
    run = parse_args(Run, [str(child)])
    assert ([phase.name for phase in run.phases], run.mixture) == (["b"], {"y": 2.0})


def test_extends_errors(tmp_path):
    a = write(tmp_path, "a.yaml", "extends: b.yaml")
    write(tmp_path, "b.yaml", "extends: a.yaml")
    assert "goes round in a circle: a.yaml -> b.yaml -> a.yaml" in fails(str(a))
    assert "a.yaml:1: extends 'c.yaml', but" in fails(str(write(tmp_path, "a.yaml", "extends: c.yaml")))
    # A value inherited from the base keeps the base's file and line.
    write(tmp_path, "b.yaml", "note: x\nseed: bad")
    assert "(from b.yaml:2)" in fails(str(write(tmp_path, "a.yaml", "extends: b.yaml")))


def test_two_children_of_one_base_do_not_share_values(tmp_path):
    base = write(tmp_path, "base.yaml", "phases: [{name: a}]")
    first = load_settings(Run, base, [("phases.a.max_tokens", "5")])
    second = load_settings(Run, base)
    assert (first.phases[0].max_tokens, second.phases[0].max_tokens) == (5, 0)


def test_to_dict_is_plain_and_comes_back():
    run = parse_args(Run, ["--push.repo", "a", "--sizes", "1,2", "--mode", "slow", "--optimizer.learning_rate", "1e-5"])
    plain = to_dict(run)
    assert from_dict(Run, json.loads(json.dumps(plain))) == run
    assert from_dict(Run, yaml.safe_load(yaml.safe_dump(plain))) == run
    assert plain["mode"] == "slow"
    assert plain["sizes"] == [1, 2]


@given(
    st.builds(
        Optimizer,
        learning_rate=st.floats(allow_nan=False, width=32),
        betas=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    ),
    st.text(),
    st.integers(-(2**62), 2**62),
)
def test_from_dict_inverts_to_dict(optimizer, note, steps):
    run = Run(note=note, steps=steps, optimizer=optimizer)
    assert from_dict(Run, to_dict(run)) == run


@given(st.integers(0, 10**15))
def test_parse_number_reads_integers_exactly(number):
    assert parse_number(str(number)) == number
    assert parse_number(f"{number}k") == number * 1000
    assert parse_number(f"{number:_}") == number


def test_help_names_keys_types_defaults_and_descriptions(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(Run, ["--help"], Path("configs/quickstart.yaml"))
    text = capsys.readouterr().out
    assert caught.value.code == 0
    for line in (
        "--seed  int (default: 0)\n      seed of everything random",
        "--phases.N.max_tokens  int (default: 0)\n      how long it runs, in tokens.",
        "--phases.N.name  str (required)",
        "--push.repo  str (required)",
        "--limit  int or null (default: None)",
        "default configuration: configs/quickstart.yaml",
        "A run to test with.",
    ):
        assert line in text


@pytest.mark.parametrize(
    ("error", "status", "start"),
    [
        (SettingsError("bad\nkey"), 2, "error: bad key"),
        (ValueError("bad row"), 1, "error: bad row"),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left"),
        (MemoryError("output/a: out of memory"), 1, "error: output/a: out of memory"),
        (MemoryError(), 1, "error: MemoryError"),
        (FloatingPointError("the loss is nan"), 1, "error: the loss is nan"),
        (ImportError("faiss is missing: pip install rexbert-hf[search]"), 1, "error: faiss is missing: pip install"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_run_recipe_turns_errors_into_one_line(capsys, monkeypatch, error, status, start):
    monkeypatch.delenv("REXBERT_DEBUG", raising=False)

    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        run_recipe(main)
    text = capsys.readouterr().err
    assert caught.value.code == status
    assert text.startswith(start)
    assert text.count("\n") == 1


def test_run_recipe_status_and_debugging(monkeypatch):
    for result, status in ((None, 0), (0, 0), (3, 3)):
        with pytest.raises(SystemExit) as caught:
            run_recipe(lambda result=result: result)
        assert caught.value.code == status
    monkeypatch.setenv("REXBERT_DEBUG", "1")
    with pytest.raises(ValueError, match="seen"):
        run_recipe(lambda: (_ for _ in ()).throw(ValueError("seen")))
    with pytest.raises(KeyError):
        run_recipe(lambda: {}["a defect"])


@pytest.mark.parametrize("result", [None, SystemExit(143)])
def test_run_recipe_leaves_the_group_of_processes(result):
    def main():
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        if result is not None:
            raise result

    with pytest.raises(SystemExit) as caught:
        run_recipe(main)
    assert caught.value.code == (0 if result is None else 143)
    assert not torch.distributed.is_initialized()


def test_leaving_the_group_does_not_wait_for_a_thread_that_waits_for_it():
    code = (
        "import gc, torch\n"
        "from rexbert_hf.settings.running import leave_group\n"
        "keep = lambda tensor: tensor\n"
        "def train():\n"
        "    distributed = torch.distributed\n"
        "    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)\n"
        "    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))\n"
        "    with torch.autograd.graph.saved_tensors_hooks(keep, keep):  # a thread needs Python's lock to let go\n"
        "        model(torch.ones(1, 4)).sum().backward()\n"
        "    model.cycle = model  # as a trainer and its model: only the collector finds it\n"
        "gc.freeze()\n"
        "for _ in range(200):\n"
        "    train()\n"
        "    leave_group()\n"
        "assert not torch.distributed.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_recipe_process_exits_with_status_two():
    code = (
        "from dataclasses import dataclass\n"
        "from rexbert_hf.settings import parse_args, run_recipe\n"
        "@dataclass\nclass Run:\n    seed: int = 0\n"
        "run_recipe(lambda: parse_args(Run))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, "--sed", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: unknown key 'sed' (from command line --sed); did you mean 'seed'?\n"
