"""A few hundred inputs a target of `make fuzz`, the odd ones by hand, and archives with paths that lead out."""

from __future__ import annotations

import os
import shutil
import signal
import zipfile

import fuzz
import pytest

from rexbert_hf.catalog import read_records
from rexbert_hf.settings import SettingsError, load_settings

DEEP = 1_500
BY_HAND = {
    "deep list": b'{"text": ' + b"[" * DEEP,
    "deep mapping": b'{"a":' * DEEP,
    "deep flow": b"a: " + b"[" * DEEP,
    "long number": b'{"text": "a", "n": ' + b"9" * 6000 + b"}",
    "large number": b'{"text": "a", "n": 123456789012345678901234567890}',
    "infinity": b'{"text": "a", "n": 1e999}\n{"text": "b", "n": NaN}',
    "lone surrogate": b'{"text": "\\ud800"}',
    "long word": b"text\n" + b"x" * (1 << 20),
    "long column": b"x" * (1 << 20) + b"\n1\n",
    "all of unicode": b"text\n" + "".join(map(chr, range(32, 0xD800, 7))).encode(),
    "right to left": "text\n\u202e\u0645\u0631\u062d\u0628\u0627\u200f\u0301\u0301\n".encode(),
    "zeros": b"\0" * 5000,
    "bomb of anchors": b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
        b"%c: &%c [%s]\n" % (98 + i, 98 + i, b",".join([b"*%c" % (97 + i)] * 9)) for i in range(8)
    ),
    "line break in a column": b'a,"b\nc"\n1,2\n',
    "merge key": b"<<: [a, b]\n",
    "python object": b"!!python/object/apply:os.system ['true']",
    "empty": b"",
    "blank": b" \n\t\n",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _scratch(monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "SCRATCH", tmp_path)
    monkeypatch.setenv("FUZZ_KEEP", str(tmp_path / "kept"))
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_a_few_hundred_inputs(name):
    assert fuzz.with_hypothesis(fuzz.TARGETS[name](), name, seconds=0.3, examples=20) >= 20


def test_what_fails_late_is_kept_and_fails_again(tmp_path):
    """The time is over at the second input already, and hypothesis repeats what fails to make it smaller."""
    seen = []

    def fails_late(data):
        seen.append(data)
        if len(seen) > 30 and len(data) > 3:
            raise KeyError(f"{len(data)} bytes")

    with pytest.raises(KeyError):
        fuzz.with_hypothesis(fuzz.Target(fails_late, [b"seed"]), "odd", seconds=0.0, examples=100)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.name.startswith("fuzz-odd-KeyError-")
    assert len(kept.read_bytes()) == 4, "the smallest that fails"


def test_what_ends_a_process_is_told():
    with pytest.raises(AssertionError, match=r"ended by signal 9"):
        fuzz.in_a_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(AssertionError, match=r"ZeroDivisionError"):
        fuzz.in_a_child(lambda: 1 // 0)
    fuzz.in_a_child(lambda: int("no number"))


def test_a_seed_that_fails_is_kept_too(tmp_path):
    def fails(data):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fuzz.with_hypothesis(fuzz.Target(fails, [b"seed"]), "odd", seconds=0.0)
    (kept,) = (tmp_path / "kept").iterdir()
    assert kept.read_bytes() == b"seed"


RUNS = {
    "csv": fuzz.reader("a.csv"),
    "jsonl": fuzz.reader("a.jsonl"),
    "text": fuzz.reader("a.txt"),
    "parquet": fuzz.reader("a.parquet"),
    "card": fuzz.card,
    "yaml": fuzz.yaml_settings,
    "fasttext": fuzz.fasttext,
    "run_file": fuzz.run_file,
}


def test_a_zip_of_a_later_version(tmp_path):
    """Found by atheris, as were the line break above and sizes beyond 63 bits in a fastText file."""
    data = bytearray(fuzz.zipped(b"text\na\n"))
    central = data.index(b"PK\x01\x02")
    data[central + 6] = 117  # version needed: 11.7
    fuzz.reader("a.zip")(bytes(data))


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("what", BY_HAND)
def test_by_hand(name, what):
    data = BY_HAND[what]
    if name == "card":
        data = b"---\n" + data + b"\n---\n"
    RUNS[name](data)


def test_a_zip_writes_nothing_anywhere(tmp_path):
    """Members are read from the archive; their names lead nowhere."""
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "a.zip", "w") as archive:
        archive.writestr("../evil.csv", "text\na lamp\n")
        archive.writestr("/tmp/../evil2.csv", "text\na mug\n")
    before = {path.name for path in tmp_path.iterdir()}
    assert read_records(inside / "a.zip")["text"][:] == ["a lamp", "a mug"]
    assert {path.name for path in tmp_path.iterdir()} == before
    assert [path.name for path in inside.iterdir()] == ["a.zip"]


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("output_dir: !!python/object/apply:os.mkdir [" + str(tmp_path / "made") + "]\n")
    from rexbert_hf.pretraining import PretrainSettings

    with pytest.raises(SettingsError):
        load_settings(PretrainSettings, path)
    assert not (tmp_path / "made").exists()
