"""What is held out of one source and trained on in another: the same texts, near copies, joined documents."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil

import pytest
from pretraining_cases import one_source, tokenizer, whole_run

from rexbert_hf.catalog import split_of
from rexbert_hf.pretraining import AssociationSettings, corpora, held_out
from rexbert_hf.pretraining.corpora import prepare, tokenizer_key
from rexbert_hf.pretraining.settings import SourceSettings
from rexbert_hf.pretraining.sources import source_key
from rexbert_hf.training import checkpoint as ckpt
from rexbert_hf.training.phases import Phase

TEXTS = [f"text number {i} of a lamp that stands on table {i % 7}" for i in range(300)]


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


def test_a_source_without_evaluation_that_is_all_held_out_says_why(tmp_path):
    own = unlike_texts(100)
    (first, *_) = [text for text in own if split_of(text, 0.2) == "validation"]
    made = several(tmp_path, a=own, C=[first])
    for source in (made, with_joined(made, "C")):
        with pytest.raises(corpora.NothingToTrainOnError, match=r"'C': .*'evaluate: false' too.*: lower"):
            prepare(source, tokenizer(), tmp_path / "cache")


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


def test_products_that_are_drawn_as_neighbours_are_training_text(tmp_path, caplog):
    """They come from every source of products, whether a phase mixes it or not."""
    own = unlike_texts(200)
    made = several(tmp_path, a=own, b=[f"{text} again" for text in own], c=unlike_texts(10))
    rows = [{"text": f"{text} again", "id": str(i)} for i, text in enumerate(own)]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    products = SourceSettings(path=str(tmp_path / "b.jsonl"), columns={"text": "text", "product_id": "id"})
    made = dataclasses.replace(
        made, sources={**made.sources, "b": products}, associations=AssociationSettings(sample=True)
    )
    held = {text for text in own if split_of(text, 0.2) == "validation"}
    for objectives, named in ((["mlm"], "b, c"), (["mlm", "npr"], "c")):
        phase = dataclasses.replace(phase_of("a"), objectives=objectives)
        with caplog.at_level("INFO", "rexbert_hf"):
            found = prepare(dataclasses.replace(made, phases=[phase]), tokenizer(), tmp_path / "cache")["a"]
        assert (texts_in(found.held_out) < held) == ("npr" in objectives)
        assert f"no phase trains on {named}: evaluated only" in caplog.text


def test_training_text_is_signed_once_whatever_is_added(tmp_path, monkeypatch):
    own = unlike_texts(200)
    added = {"b": [f"{text} again" for text in own[:100]], "d": [f"{text} anew" for text in own[100:]]}
    made = several(tmp_path, a=own, **added)
    first = {name: made.sources[name] for name in "ab"}
    prepare(dataclasses.replace(made, sources=first, phases=[phase_of("a", "b")]), tokenizer(), tmp_path / "cache")
    signed, write = [], held_out._write_keys
    monkeypatch.setattr(held_out, "_write_keys", lambda path, *rest: signed.append(path.name) or write(path, *rest))
    found = prepare(made, tokenizer(), tmp_path / "cache")
    assert signed == ["d"]
    for keys in (tmp_path / "cache").glob("keys-*.npy"):
        keys.write_bytes(keys.read_bytes()[:-4])
    for place in (tmp_path / "cache").glob("held-out-*"):
        shutil.rmtree(place)
    again = prepare(made, tokenizer(), tmp_path / "cache")
    assert signed == ["d", "a", "b", "d"], "damaged ones are made again"
    monkeypatch.setattr(held_out, "_sharing", lambda keys, signed: None)  # compare with every document
    compared = prepare(made, tokenizer(), tmp_path / "other")
    for name in "abd":
        assert found[name].report["held_out_near_copies"] > 0
        assert found[name].report == again[name].report == compared[name].report
        assert texts_in(found[name].held_out) == texts_in(compared[name].held_out)


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
