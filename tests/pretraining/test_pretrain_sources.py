"""What names prepared data, what a killed preparation leaves, and what is read where."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import socket
import subprocess
import sys

import pytest
from pretraining_cases import settings, whole_run
from transformers import AutoTokenizer

from rexbert_hf.catalog import split_of
from rexbert_hf.catalog.report import ReadReport
from rexbert_hf.pretraining import corpora, encoder, sources
from rexbert_hf.pretraining.corpora import prepare, tokenizer_key
from rexbert_hf.pretraining.product_settings import PairSettings, ProductTextSettings
from rexbert_hf.pretraining.settings import PretrainSettings, SourceSettings
from rexbert_hf.pretraining.sources import pinned, read_source, source_key, working_folder
from rexbert_hf.training import checkpoint as ckpt
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


def one_source(tmp_path, path, **changes):
    """Settings of a run on one file."""
    phases = "[{name: only, mixture: {shop: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 512}]"
    base = {"tokenizer.vocab_size": "384", "evaluation.held_out": "0.2", "phases": phases}
    return settings(tmp_path / "out", "quickstart", {**base, "sources": f"{{shop: {{path: {path}}}}}"}, **changes)


def tokenizer():
    return AutoTokenizer.from_pretrained(whole_run())


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


def test_near_copies_of_training_documents_are_not_held_out(tmp_path):
    """Their tokens were trained on, whatever the hash of the whole text says."""
    page = (
        "page {} shows a steel kettle with a wooden handle that holds two litres and is safe to wash at home every day"
    )
    copies = [page.format(i) for i in range(100)]
    (tmp_path / "text.txt").write_text("".join(text + "\n" for text in [*copies, *TEXTS]))
    corpus = prepare(one_source(tmp_path, tmp_path / "text.txt"), tokenizer(), tmp_path / "cache")["shop"]
    count = {name: [split_of(text, 0.2) for text in texts] for name, texts in (("near", copies), ("own", TEXTS))}
    assert count["near"].count("validation") == corpus.report["held_out_near_copies"] > 0
    assert corpus.report["held_out_documents"] == count["own"].count("validation")
    assert corpus.report["documents"] == count["near"].count("train") + count["own"].count("train")


def unlike_texts(count):
    """Texts of words that no two of them have in the same order."""
    words, rng = [a + b for a in ("ka", "lo", "mi", "tu", "re") for b in ("b", "nd", "st", "p")], random.Random(3)
    return [" ".join(rng.choices(words, k=40)) for _ in range(count)]


def phase_of(*names):
    return Phase("only", dict.fromkeys(names, 1.0), max_tokens=2000, seq_length=64, batch_tokens=512)


def several(tmp_path, **files):
    """Settings of a run on sources a, b, ... with these texts; those in capitals are not evaluated."""
    for name, texts in files.items():
        (tmp_path / f"{name}.txt").write_text("".join(text + "\n" for text in texts))
    evaluate = {name: "" if name.islower() else ", evaluate: false" for name in files}
    said = ", ".join(f"{name}: {{path: {tmp_path / name}.txt{evaluate[name]}}}" for name in files)
    phases = f"[{{name: only, mixture: {dict.fromkeys(files, 1)}, max_tokens: 2k, seq_length: 64, batch_tokens: 512}}]"
    return one_source(tmp_path, "unused", sources=f"{{{said}}}", phases=phases)


def texts_in(store):
    return {tokenizer().decode(store.take([i]).input_ids, skip_special_tokens=True) for i in range(len(store))}


def test_what_one_source_holds_out_no_other_trains_on(tmp_path):
    """Neither one without evaluation nor, nearly the same, any other; what is trained on is that of each source."""
    own = unlike_texts(200)
    near = [f"{text} again" for text in own]
    made = several(tmp_path, a=own, b=near[:100] + TEXTS, C=own)
    found = prepare(made, tokenizer(), tmp_path / "cache")
    side = {text: split_of(text, 0.2) for text in [*own, *near]}
    copied = {text for text, copy in zip(own[:100], near, strict=False) if side[copy] == "train"}
    held = {text for text in own if side[text] == "validation"}
    assert held - copied
    assert held & copied
    assert texts_in(found["a"].held_out) == held - copied
    assert found["a"].report["held_out_documents"] == len(found["a"].held_out) == len(held - copied)
    assert found["a"].report["held_out_near_copies"] == len(held & copied)
    assert texts_in(found["C"].train) == texts_in(found["a"].train) == {text for text in own if side[text] == "train"}
    assert found["C"].held_out is None
    again = prepare(made, tokenizer(), tmp_path / "cache")
    assert [again[name].report for name in "abC"] == [found[name].report for name in "abC"]
    only = dataclasses.replace(made, sources={"b": made.sources["b"]}, phases=[phase_of("b")])
    alone = prepare(only, tokenizer(), tmp_path / "cache")["b"]
    assert alone.train.path == found["b"].train.path, "the tokens of a source do not hang on those beside it"


def with_joined(made, name, **changes):
    """The same settings, with joined documents of one source."""
    source = dataclasses.replace(made.sources[name], join_words=90, **changes)
    return dataclasses.replace(made, sources={**made.sources, name: source})


def test_joined_documents_hold_nothing_that_is_held_out(tmp_path):
    """Neither single documents of another source nor the joined ones of one that joins alike."""
    own = unlike_texts(200)
    side = {text: split_of(text, 0.2) for text in own}
    made = with_joined(several(tmp_path, a=own, C=own), "C")
    found = prepare(made, tokenizer(), tmp_path / "cache")
    trained = [text for joined in texts_in(found["C"].train) for text in joined.split("\n")]
    assert texts_in(found["a"].held_out) == {text for text in own if side[text] == "validation"}
    assert {side[text] for text in trained} == {"train"}
    assert len(trained) > 100
    alike = with_joined(with_joined(several(tmp_path, b=own, C=own), "b"), "C")
    found = prepare(alike, tokenizer(), tmp_path / "cache")
    held = {text for joined in texts_in(found["b"].held_out) for text in joined.split("\n")}
    assert held
    assert held.isdisjoint(text for joined in texts_in(found["C"].train) for text in joined.split("\n"))


def test_what_a_source_without_a_phase_repeats_is_still_held_out(tmp_path):
    """Nothing trains on it, unless the model starts from a run that did, as the stage before."""
    own = unlike_texts(200)
    made = several(tmp_path, a=own, b=[f"{text} again" for text in own])
    only = dataclasses.replace(made, phases=[phase_of("a")])
    held = {text for text in own if split_of(text, 0.2) == "validation"}
    assert texts_in(prepare(only, tokenizer(), tmp_path / "cache")["a"].held_out) == held
    model = dataclasses.replace(made.model, size=None, init_from=str(whole_run()))
    later = prepare(dataclasses.replace(only, model=model), tokenizer(), tmp_path / "cache")["a"]
    assert texts_in(later.held_out) < held


def test_damaged_held_out_documents_are_compared_again(tmp_path):
    own = unlike_texts(100)
    made = several(tmp_path, a=own, b=[f"{text} again" for text in own])
    first = prepare(made, tokenizer(), tmp_path / "cache")["a"]
    assert first.report["held_out_near_copies"]
    (place,) = (tmp_path / "cache").glob("held-out-*")
    for damage in ("held_out.json", "a/*.arrow"):
        (file,) = place.glob(damage)
        file.write_bytes(file.read_bytes()[:-8])
        again = prepare(made, tokenizer(), tmp_path / "cache")["a"]
        assert again.report == first.report
        assert texts_in(again.held_out) == texts_in(first.held_out)


def test_a_source_of_which_nothing_is_left_is_not_evaluated(tmp_path, caplog):
    own = [text for text in unlike_texts(200) if split_of(text, 0.2) != "validation"]
    held = [text for text in unlike_texts(200) if split_of(text, 0.2) == "validation"]
    copies = [f"{text} {i}" for text in held for i in range(9)]
    found = prepare(several(tmp_path, a=own + held, B=copies), tokenizer(), tmp_path / "cache")
    assert found["a"].held_out is None
    assert found["a"].report["held_out_documents"] == 0
    assert f"'a': {len(held)} held-out documents are near copies of what other sources train on: it" in caplog.text


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_a_run_of_an_earlier_version_goes_on_with_its_texts(tmp_path, caplog, monkeypatch, share):
    """A source without evaluation was trained on whole; only the run that was started on it goes on so.

    Joined documents were split after they had been joined.
    """
    own = unlike_texts(100)
    made = several(tmp_path, a=own, C=own)
    made = with_joined(made, "C") if share else made
    rule = corpora._HELD_OUT_RULE
    key = source_key(made.sources["C"], made.data_dir, tokenizer_key(tokenizer()), [], share, rule)
    monkeypatch.setattr(corpora, "_drops_within", lambda source: False)
    whole = corpora._prepare(
        "C", made.sources["C"], made.data_dir, share, tokenizer(), [], tmp_path / "cache" / f"C-{key}", key, 1
    )["C"]
    monkeypatch.undo()
    new = prepare(made, tokenizer(), tmp_path / "cache")["C"]
    assert new.train.num_tokens < whole.train.num_tokens
    folder = tmp_path / "out" / "checkpoint-1"
    folder.mkdir(parents=True)
    ckpt.seal(folder, 1, {"description": {"data.C": whole.report["fingerprint"]}})
    assert prepare(made, tokenizer(), tmp_path / "cache")["C"].report == whole.report
    assert "was started on it as an earlier version read it" in caplog.text
    other = dataclasses.replace(made, output_dir=str(tmp_path / "other"))
    assert prepare(other, tokenizer(), tmp_path / "cache")["C"].report == new.report


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
