"""Tokenising: ids, word ids and spans against the tokenizer's own answers; the cache; what bad input gets."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.data.manifest import MANIFEST
from rexbert_hf.data.rows import SPAN_KINDS
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.data.tokenise import tokenise

tokenise_module = importlib.import_module("rexbert_hf.data.tokenise")  # the room names the function so, too

TEXTS = [
    "Nike Air Max-90's men's shoe, 1,299.99 USD (size 9.5)",
    "Red lamp 16GB caf\u00e9  two  spaces",
    "\u65e5\u672c\u8a9e and emoji \U0001f600 lamp",
    "lamp",
    "Acme 12 in. x 8 in. desk lamp; red, with 2 USB-C ports. " * 8,
]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
KINDS = ["bpe", "wordpiece", "unigram", "no pre-tokenizer"]


def _wrapped(backend: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    cls, sep = backend.token_to_id("[CLS]"), backend.token_to_id("[SEP]")
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "mask_token": "[MASK]", **names}
    return PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]", **names)


def _trained(kind: str) -> PreTrainedTokenizerFast:
    if kind == "bpe":
        backend = Tokenizer(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=380, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
        )
    elif kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        backend.normalizer = normalizers.BertNormalizer(lowercase=True)
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=SPECIALS, show_progress=False)
    else:
        backend = Tokenizer(models.Unigram())
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=SPECIALS, unk_token="[UNK]", show_progress=False
        )
    backend.train_from_iterator(TEXTS, trainer)
    if kind == "no pre-tokenizer":
        backend.pre_tokenizer = None
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    return _wrapped(backend)


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, PreTrainedTokenizerFast]:
    return {kind: _trained(kind) for kind in KINDS}


class Marks:
    """A guide that marks every occurrence of some words."""

    def __init__(self, words: list[str], kind: str = "phrase", score: float = 0.5, fingerprint: str = "1") -> None:
        self.words, self.kind, self.score, self.fingerprint = words, kind, score, fingerprint
        self.calls = 0

    def __call__(self, texts: list[str]) -> list[list[tuple[int, int, float, str]]]:
        self.calls += 1
        return [
            [(i, i + len(w), self.score, self.kind) for w in self.words for i in range(len(t)) if t.startswith(w, i)]
            for t in texts
        ]


@pytest.mark.parametrize("kind", KINDS[:3])
def test_ids_and_word_ids_are_the_tokenizers_own(tokenizers, kind: str) -> None:
    tokenizer = tokenizers[kind]
    store = tokenise(TEXTS, tokenizer, batch_size=2)
    assert (store.num_prefix, store.num_suffix) == (1, 1)
    for text, row in zip(TEXTS, store.take(range(len(TEXTS))), strict=True):
        expected = tokenizer(text)
        assert row["input_ids"].tolist() == expected["input_ids"]
        special = set(tokenizer.all_special_ids)
        words = [
            -1 if word is None or token in special else word
            for token, word in zip(expected["input_ids"], expected.word_ids(), strict=True)
        ]
        assert row["word_ids"].tolist() == words


def _words(tokenizer: PreTrainedTokenizerFast, text: str) -> list[str]:
    """Surface of each word by the stored word ids."""
    row = tokenise([text], tokenizer, min_tokens=0)[0]
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
    spans: dict[int, list[int]] = {}
    for word, (start, end) in zip(row["word_ids"].tolist(), offsets, strict=True):
        if word >= 0:
            spans[word] = [min(spans.get(word, [start])[0], start), end]
    return [text[start:end].strip() for start, end in spans.values()]


def test_words_are_sane(tokenizers) -> None:
    text = "red lamp, 16GB (USB)"
    assert _words(tokenizers["bpe"], text) == ["red", "lamp", ",", "16", "GB", "(", "USB", ")"]
    assert _words(tokenizers["wordpiece"], text) == ["red", "lamp", ",", "16gb".upper(), "(", "USB", ")"]
    assert _words(tokenizers["unigram"], text) == ["red", "lamp,", "16GB", "(USB)"]
    # Without a pre-tokenizer the tokenizer calls the whole text one word; white space decides instead.
    assert set(tokenizers["no pre-tokenizer"](text).word_ids()) == {0, None}
    assert _words(tokenizers["no pre-tokenizer"], text) == ["red", "lamp,", "16GB", "(USB)"]


@pytest.mark.parametrize("kind", KINDS)
def test_spans_cover_every_token_they_touch(tokenizers, kind: str) -> None:
    tokenizer = tokenizers[kind]
    guides = [Marks(["lamp", "ed l", "6G"], score=0.25), Marks(["Nike Air", "\u672c\u8a9e", "\u00e9"], "brand", 1.0)]
    store = tokenise(TEXTS, tokenizer, guides=guides, batch_size=3)
    found = 0
    for text, row in zip(TEXTS, store.take(range(len(TEXTS))), strict=True):
        encoded = tokenizer(text, return_offsets_mapping=True)
        real = [sequence is not None for sequence in encoded.sequence_ids()]
        expected = []
        for guide in guides:
            for begin, end, score, name in guide([text])[0]:
                touched = [i for i, (a, b) in enumerate(encoded["offset_mapping"]) if real[i] and a < end and b > begin]
                if touched:
                    expected.append((touched[0], touched[-1] + 1, score, SPAN_KINDS.index(name)))
        columns = ("span_start", "span_end", "span_score", "span_kind")
        got = list(zip(*(row[name].tolist() for name in columns), strict=True))
        assert sorted(got) == sorted(expected)
        assert [span[:2] for span in got] == sorted(span[:2] for span in got)
        found += len(got)
    assert found == 16


def test_prefix_and_suffix_counts_come_from_the_tokenizer(tokenizers) -> None:
    tokenizer = _trained("bpe")
    backend = tokenizer.backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] [MASK] $A", special_tokens=[("[CLS]", 2), ("[MASK]", 4)]
    )
    store = tokenise(["lamp lamp"], tokenizer, guides=[Marks(["lamp"])])
    assert (store.num_prefix, store.num_suffix) == (2, 0)
    assert store[0]["word_ids"].tolist()[:3] == [-1, -1, 0]
    assert store[0]["span_start"].min() == 2


def test_truncation_and_padding_settings_are_ignored(tokenizers) -> None:
    tokenizer = _trained("bpe")
    expected = tokenizer(TEXTS[4])["input_ids"]
    tokenizer(TEXTS, truncation=True, max_length=8, padding=True)  # leaves its settings in the tokenizer
    assert tokenise(TEXTS, tokenizer).take([4]).input_ids.tolist() == expected
    assert len(expected) > 8


def test_special_tokens_within_a_text_have_no_word(tokenizers) -> None:
    tokenizer = tokenizers["bpe"]
    row = tokenise(["lamp [SEP] red"], tokenizer)[0]
    inside = row["input_ids"].tolist()[1:-1].index(tokenizer.sep_token_id) + 1
    assert row["word_ids"][inside] == -1


def test_skipped_rows_are_counted(tokenizers, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["red lamp", "", "  \n", None, 7, "red", "\ud800 lamp", "\x00 red lamp"]
    store = tokenise(texts, tokenizers["wordpiece"], min_tokens=4)
    assert store.metadata["skipped"] == {"empty": 2, "not text": 2, "too short": 1}
    assert len(store) == 3
    assert "skipped 5 of 8 texts: 2 empty, 2 not text, 1 too short" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_huge_word_does_no_harm(tokenizers, kind: str) -> None:
    store = tokenise(["x" * 1_000_000, "red lamp"], tokenizers[kind])
    assert len(store) == 2
    assert store[1]["input_ids"].tolist() == tokenizers[kind]("red lamp")["input_ids"]


def _texts(n: int) -> list[str]:
    rng = np.random.default_rng(0)
    words = np.array(["red", "lamp", "Acme", "16GB", "desk", "the", "with"])
    return [" ".join(rng.choice(words, rng.integers(1, 30))) for _ in range(n)]


def _content(store: TokenisedDataset) -> list[list]:
    batch = store.take(range(len(store)))
    names = ("input_ids", "word_ids", "offsets", "span_start", "span_end", "span_score", "span_kind")
    return [getattr(batch, name).tolist() for name in names if getattr(batch, name) is not None]


def test_processes_change_nothing(tokenizers, tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"body": _texts(500)})
    stores = []
    for num_proc in (1, 2):
        stores.append(
            tokenise(
                dataset,
                tokenizers["bpe"],
                tmp_path / str(num_proc),
                text_column="body",
                guides=[Marks(["lamp"])],
                num_proc=num_proc,
                batch_size=37,
            )
        )
    assert _content(stores[0]) == _content(stores[1])
    files = [sorted(path.relative_to(tmp_path / n) for path in (tmp_path / n).rglob("*.arrow")) for n in ("1", "2")]
    assert files[0] == files[1]
    assert stores[0].path.joinpath("data-00000.arrow").read_bytes() == (
        stores[1].path.joinpath("data-00000.arrow").read_bytes()
    )


def test_shards_and_record_batches_follow_the_source_order(
    tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("rexbert_hf.data.tokenise")  # the package has a function of that name
    monkeypatch.setattr(module, "_SHARD_TOKENS", 1500)
    monkeypatch.setattr(module, "_BATCH_TOKENS", 400)
    monkeypatch.setattr(module, "_TASK_CHARS", 900)
    texts = _texts(300)
    store = tokenise(texts, tokenizers["bpe"], tmp_path)
    assert len(list(store.path.glob("*.arrow"))) >= 5
    assert _content(store) == _content(tokenise(texts, tokenizers["bpe"]))


def test_cache_is_found_again_and_keyed_by_everything(tokenizers, tmp_path: Path) -> None:
    texts, guide = _texts(50), Marks(["lamp"])
    first = tokenise(texts, tokenizers["bpe"], tmp_path, guides=[guide])
    assert guide.calls == 1
    again = tokenise(texts, tokenizers["bpe"], tmp_path, guides=[guide])
    assert guide.calls == 1
    assert again.path == first.path
    other = [
        tokenise(texts[:-1], tokenizers["bpe"], tmp_path, guides=[guide]),
        tokenise(texts, tokenizers["wordpiece"], tmp_path, guides=[guide]),
        tokenise(texts, tokenizers["bpe"], tmp_path, guides=[Marks(["lamp"], fingerprint="2")]),
        tokenise(texts, tokenizers["bpe"], tmp_path),
        tokenise(texts, tokenizers["bpe"], tmp_path, guides=[guide], min_tokens=5),
        tokenise(Dataset.from_dict({"text": texts}), tokenizers["bpe"], tmp_path, guides=[guide]),
    ]
    assert len({store.path for store in [first, *other]}) == 7


class DiesLater(Marks):
    """Kills the process at its third call, with no chance to clean up."""

    def __call__(self, texts: list[str]) -> list[list[tuple[int, int, float, str]]]:
        if self.calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(texts)


def test_a_killed_run_leaves_nothing_that_loads(tokenizers, tmp_path: Path, monkeypatch) -> None:
    texts = _texts(200)
    dies = DiesLater(["lamp"])
    process = multiprocessing.get_context("fork").Process(
        target=tokenise,
        args=(texts, tokenizers["wordpiece"], tmp_path),
        kwargs={"guides": [dies], "batch_size": 20},
    )
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    left = list(tmp_path.iterdir())
    assert len(left) == 1  # the staging folder
    with pytest.raises(FileNotFoundError, match="not a finished"):
        TokenisedDataset.load(left[0])
    store = tokenise(texts, tokenizers["wordpiece"], tmp_path, guides=[Marks(["lamp"])], batch_size=20)
    assert len(store) == 200
    assert list(tmp_path.iterdir()) == [store.path]


WATCHED = """
import os, sys, time
from rexbert_hf.data.tokenise import _one_thread, in_order
class Slow:
    num_prefix = num_suffix = 0
    def encode(self, texts):
        os.write(1, b"%d\\n" % os.getpid())  # one call: an unbuffered print is two, and those of two workers mix
        time.sleep(60)
list(in_order(Slow().encode, iter([["a"]] * 9), 2, _one_thread))
"""


def test_workers_of_a_killed_parent_end_by_themselves() -> None:
    process = subprocess.Popen([sys.executable, "-c", WATCHED], stdout=subprocess.PIPE, text=True)
    workers = [int(process.stdout.readline()) for _ in range(2)]
    process.kill()
    process.wait()
    end = time.monotonic() + 10
    while (alive := [pid for pid in workers if is_running(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    assert not alive


def is_running(pid: int) -> bool:
    """Not gone, and not dead with nobody to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_worker_is_one_line(tokenizers, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"a worker process was killed.*start again"):
        tokenise(_texts(200), tokenizers["bpe"], tmp_path, guides=[DiesLater(["lamp"])], batch_size=10, num_proc=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["tokenised.json", "data-00000.arrow"])
def test_a_damaged_folder_is_made_anew(tokenizers, tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    store = tokenise(_texts(5), tokenizers["bpe"], tmp_path)
    rows = store.take(range(5)).input_ids.tolist()
    (store.path / name).write_bytes(b"{")
    again = tokenise(_texts(5), tokenizers["bpe"], tmp_path)
    assert again.take(range(5)).input_ids.tolist() == rows
    assert "is damaged" in caplog.text
    assert list(tmp_path.iterdir()) == [store.path]


@pytest.mark.parametrize("damaged", [False, True])
def test_what_another_run_put_there_in_the_last_moment_stays(
    tokenizers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    """Two runs share a cache: between the look for a manifest and what follows, the other one finishes."""
    elsewhere = tokenise(_texts(5), tokenizers["bpe"], tmp_path / "other").path
    target = tmp_path / "cache" / elsewhere.name
    if damaged:
        target.mkdir(parents=True)
        (target / "data-00000.arrow").write_bytes(b"{")
    seen, real, written = [], Path.exists, tokenise_module._write_shards

    def late(path: Path) -> bool:
        found = real(path)
        if path == target / MANIFEST and seen == ["written"]:
            seen.append("finished")
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(elsewhere, target)
            (target / "read by the other run").touch()
        return found

    def write(*arguments: Any) -> None:
        written(*arguments)
        seen.append("written")
        if not damaged:
            late(target / MANIFEST)

    monkeypatch.setattr(tokenise_module, "_write_shards", write)
    monkeypatch.setattr(Path, "exists", late)
    store = tokenise(_texts(5), tokenizers["bpe"], tmp_path / "cache")
    assert (seen, len(store)) == (["written", "finished"], 5)
    assert (target / "read by the other run").exists()
    assert list((tmp_path / "cache").iterdir()) == [target]


def test_a_failing_run_cleans_up(tokenizers, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown kind 'colour'; known are phrase"):
        tokenise(_texts(5), tokenizers["bpe"], tmp_path, guides=[Marks(["lamp"], kind="colour")])
    with pytest.raises(ValueError, match=r"score in \[0, 1\]"):
        tokenise(_texts(5), tokenizers["bpe"], tmp_path, guides=[Marks(["lamp"], score=1.5)])
    with pytest.raises(ValueError, match=r"no text left to tokenise \(skipped: 2 empty\)"):
        tokenise(["", " "], tokenizers["bpe"], tmp_path)
    with pytest.raises(ValueError, match=r"skipped: 2 not text\): give texts, or a data set with a column of them$"):
        tokenise([{"text": "a lamp"}] * 2, tokenizers["bpe"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_arguments_are_named(tokenizers, tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"title": ["a b"], "price": [1]})
    with pytest.raises(ValueError, match=r"no column 'text' among \['title', 'price'\]: set text_column"):
        tokenise(dataset, tokenizers["bpe"])
    with pytest.raises(ValueError, match=r"skipped: 1 not text"):
        tokenise(dataset, tokenizers["bpe"], text_column="price")

    class Slow:
        is_fast = False

    with pytest.raises(ValueError, match=r"Slow is a slow \(Python\) tokenizer"):
        tokenise(["a"], Slow())
    with pytest.raises(ValueError, match="no 'fingerprint'"):
        tokenise(["a b"], tokenizers["bpe"], tmp_path, guides=[lambda texts: [[] for _ in texts]])
    with pytest.raises(ValueError, match="pass fingerprint="):
        tokenise(dataset.to_iterable_dataset(), tokenizers["bpe"], tmp_path, text_column="title")
    with pytest.raises(ValueError, match="num_proc"):
        tokenise(["a"], tokenizers["bpe"], num_proc=0)


def test_streaming_data_and_stock_datasets_both_ways(tokenizers, tmp_path: Path) -> None:
    dataset = Dataset.from_dict({"text": _texts(40)})
    stream = dataset.to_iterable_dataset()
    store = tokenise(stream, tokenizers["bpe"], tmp_path, fingerprint="mine", batch_size=7)
    assert _content(store) == _content(tokenise(dataset, tokenizers["bpe"]))
    stock = load_from_disk(str(store.path))
    assert stock[3]["input_ids"] == store[3]["input_ids"].tolist()
    wrapped = TokenisedDataset(stock.data.table, store.num_prefix, store.num_suffix)
    assert _content(wrapped) == _content(store)
