"""What names prepared data, what a killed preparation leaves, and what is read where."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import socket
import subprocess
import sys

import pytest
from datasets import Dataset
from pretraining_cases import one_source, tokenizer

from rexbert_hf.catalog import split_of
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.pretraining import corpora, encoder, sources
from rexbert_hf.pretraining.corpora import prepare, tokenizer_key
from rexbert_hf.pretraining.product_settings import PairSettings, ProductTextSettings
from rexbert_hf.pretraining.settings import PretrainSettings, SourceSettings
from rexbert_hf.pretraining.sources import pinned, read_source, source_key, working_folder
from rexbert_hf.training.phases import Phase

TEXTS = [f"text number {i} of a lamp that stands on table {i % 7}" for i in range(300)]
OTHER = {
    "sample": "shop_text",
    "sample_size": 7,
    "path": "other.txt",
    "corpus": "user/corpus",
    "domains": ["hobby"],
    "columns": {"text": "body"},
    "language": "de",
    "unescape": True,
    "format": "text",
    "max_bad_share": 0.2,
    "encoding": "latin-1",
    "split": "test",
    "max_documents": 5,
    "join_words": 5,
    "evaluate": False,
    "products": ProductTextSettings(permute=True),
    "pairs": PairSettings(),
}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("".join(text + "\n" for text in TEXTS))
    return path


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(SourceSettings)])
def test_every_setting_of_a_source_names_its_content(name, text_file):
    """A field that is added to `SourceSettings` needs a value in `OTHER`."""
    of_sample, of_corpus = SourceSettings(sample="general_text"), SourceSettings(corpus="sample")
    bases = {"sample": of_sample, "sample_size": of_sample, "corpus": of_corpus, "domains": of_corpus}
    base = bases.get(name, SourceSettings(path="text.txt"))
    changed = dataclasses.replace(base, **{name: OTHER[name]})
    keys = {source_key(source, str(text_file.parent)) for source in (base, changed)}
    assert len(keys) == 2


def test_a_changed_file_has_another_key(text_file):
    source = SourceSettings(path=str(text_file))
    before = source_key(source, None)
    assert source_key(source, None) == before
    text_file.write_text(text_file.read_text() + "more\n")
    assert source_key(source, None) != before
    folder = text_file.parent / "folder"
    folder.mkdir()
    (folder / "a.txt").write_text("a")
    before = source_key(SourceSettings(path=str(folder)), None)
    (folder / "b.txt").write_text("b")
    assert source_key(SourceSettings(path=str(folder)), None) != before


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation__held_out": "0.3"},
        {"guides__always": "true"},
        {"guides__always": "true", "guides__regex": "[price]"},
        {"sources__shop__join_words": "40"},
    ],
)
def test_what_decides_the_tokens_decides_the_folder(tmp_path, text_file, changes):
    made = [one_source(tmp_path, text_file), one_source(tmp_path, text_file, **changes)]
    found = [prepare(made[i], tokenizer(), tmp_path / "cache")["shop"] for i in (0, 1)]
    assert found[0].train.path.parent != found[1].train.path.parent


def test_special_tokens_are_part_of_a_tokenizer():
    one, other = tokenizer(), tokenizer()
    other.mask_token = "[UNK]"
    assert tokenizer_key(one) == tokenizer_key(tokenizer())
    assert tokenizer_key(one) != tokenizer_key(other)


def test_held_out_documents_stay_held_out_after_a_kill(tmp_path, text_file):
    """Killed with both sides tokenised and no manifest: the sides must not be told apart by the order of folders."""
    made = one_source(tmp_path, text_file)
    first = prepare(made, tokenizer(), tmp_path / "cache")["shop"]
    wanted = [(c.train.num_tokens, c.held_out.num_tokens) for c in [first]]
    for manifest in (tmp_path / "cache").glob("*/prepared.json"):
        manifest.unlink()
    again = prepare(made, tokenizer(), tmp_path / "cache")["shop"]
    found = prepare(made, tokenizer(), tmp_path / "cache")["shop"]  # through the manifest
    for corpus in (again, found):
        assert [(corpus.train.num_tokens, corpus.held_out.num_tokens)] == wanted
        assert corpus.train.path == first.train.path
    held_out = {text for text in TEXTS if split_of(text, 0.2) == "validation"}
    decoded = {
        tokenizer().decode(first.held_out.take([i]).input_ids, skip_special_tokens=True) for i in range(len(held_out))
    }
    assert decoded == held_out


def test_prepared_data_is_found_without_reading(tmp_path, text_file, monkeypatch):
    made = one_source(tmp_path, text_file)
    first = prepare(made, tokenizer(), tmp_path / "cache")["shop"]
    monkeypatch.setattr(corpora, "read_source", None)
    again = prepare(made, tokenizer(), tmp_path / "cache")["shop"]
    assert again.report == first.report
    assert again.train.num_tokens == first.train.num_tokens


def test_the_tokenizer_sees_no_held_out_text(tmp_path, text_file, monkeypatch):
    from rexbert_hf.data import vocabulary

    seen = []
    train = vocabulary.train_tokenizer

    def spy(texts, *rest):
        seen.extend(texts)
        return train(seen, *rest)

    monkeypatch.setattr(vocabulary, "train_tokenizer", spy)
    encoder.load_tokenizer(one_source(tmp_path, text_file), tmp_path / "cache")
    assert set(seen) == {text for text in TEXTS if split_of(text, 0.2) == "train"}
    assert 0 < len(seen) < len(TEXTS)


def test_documents_for_the_tokenizer_are_chosen_without_a_word_of_datasets(tmp_path, text_file, monkeypatch):
    """It hashes what it selects by, and of what cannot be pickled it warns."""
    chosen, select = [], Dataset.select

    def spy(self, indices, **options):
        chosen.append(pickle.dumps(indices))
        return select(self, indices, **options)

    monkeypatch.setattr(Dataset, "select", spy)
    encoder.load_tokenizer(one_source(tmp_path, text_file), tmp_path / "cache")
    assert chosen


def test_text_is_mapped_and_not_held(tmp_path, text_file):
    source = SourceSettings(path=str(text_file), join_words=30)
    work = tmp_path / "work"
    work.mkdir()
    mapped, held = read_source(source, work_dir=work), read_source(source)
    assert mapped["text"][:] == held["text"][:]
    assert mapped.cache_files
    assert not held.cache_files


def test_joined_documents_hold_all_texts_in_order(text_file):
    joined = read_source(SourceSettings(path=str(text_file), join_words=30))["text"][:]
    assert "\n".join(joined) == "\n".join(TEXTS)
    words = [text.count(" ") + text.count("\n") + 1 for text in joined]
    assert min(words[:-1]) >= 30
    assert max(words) < 30 + max(len(text.split()) for text in TEXTS)


def test_leftovers_of_dead_processes_are_removed(tmp_path):
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    pids = (int(dead.stdout), os.getppid(), f"0-{dead.stdout.strip()}")  # the last is of a machine with a longer name
    names = {pid: tmp_path / f".reading-{socket.gethostname()}-{pid}" for pid in pids}
    for folder in names.values():
        folder.mkdir()
    with working_folder(tmp_path) as work:
        (work / "file").write_text("x")
        assert not names[int(dead.stdout)].exists()
        assert names[os.getppid()].exists()
        assert names[pids[-1]].exists()
    assert not work.exists()


def test_a_hub_that_does_not_answer_is_no_error_here(monkeypatch, caplog):
    class Silent:
        def dataset_info(self, *_, **__):
            raise ConnectionError("no route")

    monkeypatch.setattr(sources, "HfApi", Silent)
    source = SourceSettings(path="some/texts")
    assert pinned(source, None) == (source, {"repo_id": "some/texts"})
    assert "not recorded" in caplog.text


def test_files_are_not_asked_of_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "HfApi", None)
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "texts").mkdir()
    for path in ("some/texts", "some/texts.jsonl", "some/*.txt", str(tmp_path)):
        source = SourceSettings(path=path)
        assert pinned(source, str(tmp_path)) == (source, {})


def test_the_manifest_counts(tmp_path):
    path = tmp_path / "t.jsonl"
    rows = [json.dumps({"text": text}) for text in [*TEXTS[:50], TEXTS[0].upper(), ""]]
    path.write_text("\n".join([*rows, "{not json"]) + "\n")
    report = prepare(one_source(tmp_path, path), tokenizer(), tmp_path / "cache")["shop"].report
    assert (report["bad_rows"], report["repeated_documents"]) == (1, 1)
    assert report["empty_rows"] + sum(report["skipped_documents"].values()) == 1
    test_side = sum(split_of(text, 0.2) == "test" for text in TEXTS[:50])
    assert report["documents"] + report["held_out_documents"] + test_side == 50


def test_a_reading_that_broke_off_is_not_counted_twice(tmp_path, monkeypatch):
    """The Hub gives up half-way and is asked again: rows and bad rows are those of the reading that came to its end."""
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS[:30]) + "{no json\n")
    whole, tries = sources.read_records, []

    def shaky(*args, **options):
        dataset = whole(*args, **options)
        tries.append(len(dataset))
        if len(tries) == 1:
            raise ConnectionError("reset by peer")
        return dataset

    monkeypatch.setattr(sources, "read_records", shaky)
    monkeypatch.setattr("rexbert_hf.hub.trouble.WAIT_SECONDS", 0.0)
    report = ReadReport(rows=2, reasons=["of another source"])
    assert len(read_source(SourceSettings(path=str(path)), report=report)) == 30
    assert tries == [30, 30]
    assert (report.rows, report.bad, report.files, len(report.reasons)) == (32, 1, [str(path)], 2)


@pytest.mark.parametrize("name", ["my/shop", "..", ""])
def test_a_source_is_named_as_a_folder_can_be(name):
    phase = Phase("one", {name: 1.0}, max_tokens=1000, seq_length=64, batch_tokens=512)
    with pytest.raises(ValueError, match=f"sources: '{name}' is the name of a folder .*without '/'"):
        PretrainSettings({name: SourceSettings(sample="shop_text")}, [phase])
