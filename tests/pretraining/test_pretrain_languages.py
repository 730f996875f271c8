"""Languages in the pre-training recipe: how sources come to them, what is recorded, what is refused."""

from __future__ import annotations

import json
import logging
import shutil

import pytest
from pretraining_cases import assert_same_weights, settings
from test_pretrain_phrases import TINY_RUN

from rexbert_hf.catalog import load_sample
from rexbert_hf.hub import read_run
from rexbert_hf.pretraining import pretrain
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer

SOURCES = (
    "{shop: {sample: shop_text, max_documents: 200, language: en},"
    " others: {sample: multilingual_text, sample_size: 200, columns: {text: text, language: language}}}"
)
PHASES = (
    "[{name: adapt, mixture: {shop: 1, others: 1}, languages: {temperature: [0.7, 0.3]}, max_tokens: 6k,"
    " seq_length: 64, batch_tokens: 1024}]"
)
LANGUAGES = {"de", "en", "es", "id", "zh"}


def recipe(folder, **changes):
    return settings(folder, base={**TINY_RUN, "sources": SOURCES, "phases": PHASES}, **changes)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_source(folder, path, options, **changes):
    """A recipe with one file of the given options."""
    sources = f"{{many: {{path: {path}, {options}}}}}"
    phases = "[{name: only, mixture: {many: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 1024}]"
    base = {**TINY_RUN, "sources": sources, "phases": phases, "evaluation.held_out": "0.2"}
    return settings(folder, base=base, cache_dir=folder / "cache", **changes)


def prepared(chosen, folder):
    return prepare(chosen, load_tokenizer(chosen, folder), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("languages") / "run"
    pretrain(recipe(folder))
    return folder


def test_the_run_records_tokens_by_language(run):
    found = read_run(run)
    by_phase = found["results"]["phases"][0]["languages"]
    assert set(by_phase) == LANGUAGES
    assert sum(of["tokens"] for of in by_phase.values()) == pytest.approx(6000, abs=5)
    sizes = {code: of["available_tokens"] for code, of in by_phase.items()}
    for end, temperature in (("share_start", 0.7), ("share_end", 0.3)):
        total = sum(size**temperature for size in sizes.values())
        for code, size in sizes.items():
            assert by_phase[code][end] == pytest.approx(size**temperature / total, abs=1e-4)
    totals = {of["language"]: of for of in found["results"]["languages"]}
    assert set(totals) == LANGUAGES
    assert all(totals[code]["tokens"] == of["tokens"] for code, of in by_phase.items())
    assert totals["en"]["epochs"] == pytest.approx(totals["en"]["tokens"] / totals["en"]["available_tokens"], abs=1e-4)
    assert {source["name"] for source in found["data"]} == {"shop", *(f"others.{c}" for c in LANGUAGES - {"en"})}
    phase = found["results"]["phases"][0]
    assert all(f"masked_accuracy_after_others.{code}" in phase for code in LANGUAGES - {"en"})


def test_the_card_shows_them(run):
    card = (run / "README.md").read_text()
    assert "| language | documents | tokens trained on | share | times read |" in card
    for of in read_run(run)["results"]["languages"]:
        assert f"| {of['language']} | {of['documents']:,} | {of['tokens']:,} |" in card


def test_stopped_and_started_again_it_ends_the_same(tmp_path, run):
    pretrain(recipe(tmp_path / "stopped", trainer__save_steps=2))
    for name in ("run.json", "model.safetensors", "checkpoint-6", "checkpoint-5"):
        found = tmp_path / "stopped" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink(missing_ok=True)
    pretrain(recipe(tmp_path / "stopped", trainer__save_steps=2))
    assert read_run(tmp_path / "stopped")["resumed_from_step"] in (2, 4)
    assert_same_weights(tmp_path / "stopped", run)


def test_a_source_without_temperature_is_seen_in_proportion(tmp_path):
    phases = "[{name: plain, mixture: {others: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 1024}]"
    base = {**TINY_RUN, "sources": SOURCES, "phases": phases}
    pretrain(settings(tmp_path, base=base))
    seen = read_run(tmp_path)["results"]["phases"][0]["languages"]
    assert set(seen) == LANGUAGES - {"en"}
    assert len({round(of["epochs"], 3) for of in seen.values()}) == 1


def test_rows_without_a_language_are_kept_and_counted(tmp_path, caplog):
    rows = [{"t": f"red lamp number {i}", "lang": "en" if i % 3 else ""} for i in range(90)]
    chosen = one_source(
        tmp_path, write(tmp_path / "a.jsonl", rows), "columns: {text: t, language: lang}", evaluation__held_out="0"
    )
    corpora = prepared(chosen, tmp_path / "cache")
    assert set(corpora) == {"many.en", "many.und"}
    assert "does not say its language (30 documents) counts as 'und'" in caplog.text
    assert {name: corpus.report["documents"] for name, corpus in corpora.items()} == {"many.en": 60, "many.und": 30}
    assert corpora["many.en"].train.metadata["language"] == "en"
    again = prepared(chosen, tmp_path / "cache")
    assert [c.report for c in again.values()] == [c.report for c in corpora.values()]


def test_languages_are_told_from_the_text(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    texts = load_sample("multilingual_text", size=600)
    rows = [{"text": row["text"]} for row in texts if row["language"] in ("zh", "de") and len(row["text"]) > 40]
    rows += [{"text": f"Das ist das Haus und der Garten {i}"} for i in range(30)]
    rows += [{"text": f"the dog and the cat are in the house {i}"} for i in range(5)]  # too few to be a language
    chosen = one_source(tmp_path, write(tmp_path / "a.jsonl", rows), "language: detect", evaluation__held_out="0")
    corpora = prepared(chosen, tmp_path / "cache")
    found = {name: corpus.report["documents"] for name, corpus in corpora.items()}
    assert set(found) >= {"many.de", "many.zh"}
    assert "many.en" not in found
    zh = sum(row["language"] == "zh" and len(row["text"]) > 40 for row in texts)
    assert found["many.zh"] == pytest.approx(zh, abs=2)


def test_products_keep_their_language(tmp_path):
    rows = [{"id": str(i), "name": f"lamp {i} red", "lang": ("en", "id")[i % 2]} for i in range(80)]
    columns = "columns: {product_id: id, title: name, language: lang}, products: {fields: [title]}"
    chosen = one_source(tmp_path, write(tmp_path / "a.jsonl", rows), columns)
    corpora = prepared(chosen, tmp_path / "cache")
    assert set(corpora) == {"many.en", "many.id"}


def test_a_row_that_names_no_language_is_named(tmp_path):
    rows = [{"t": f"lamp {i}", "lang": "en" if i != 7 else "some English"} for i in range(20)]
    chosen = one_source(tmp_path, write(tmp_path / "a.jsonl", rows), "columns: {text: t, language: lang}")
    with pytest.raises(ValueError, match="source 'many', row 7: column 'language': 'some English' is no language"):
        prepared(chosen, tmp_path / "cache")


def test_a_language_with_no_text_is_named(tmp_path):
    rows = [{"t": f"lamp number {i}", "lang": "en"} for i in range(40)] + [{"t": ".", "lang": "th"}]
    path = write(tmp_path / "a.jsonl", rows)
    chosen = one_source(tmp_path, path, "columns: {text: t, language: lang}", evaluation__held_out="0")
    corpora = prepared(chosen, tmp_path / "cache")
    assert set(corpora) == {"many.en", "many.th"}
    write(path, [*rows[:-1], {"t": " ", "lang": "th"}])
    with pytest.raises(ValueError, match=r"source 'many\.th': no document to train on"):
        prepared(chosen, tmp_path / "cache")
    phases = PHASES.replace("temperature: [0.7, 0.3]", "temperature: 0.5, only: [en, th]")
    with pytest.raises(ValueError, match=r"phase 'adapt': languages\.only names 'th', of which .* de, en, es, id, zh"):
        pretrain(recipe(tmp_path / "out", phases=phases))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{sample: shop_text, language: English text}", "'English text' is no language: give a code"),
        (
            "{sample: multilingual_text, columns: {text: text, language: language}, language: en}",
            "columns.language for each: drop one",
        ),
    ],
)
def test_contradictions_are_refused(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        recipe(tmp_path, sources=f"{{shop: {source}, others: {{sample: shop_text}}}}")
    with pytest.raises(ValueError, match="train makes a tokenizer, path names one"):
        recipe(tmp_path, tokenizer__train="true", tokenizer__path="somewhere")


def test_joined_documents_have_one_language(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"t": f"lamp {i}", "lang": "en"} for i in range(20)])
    chosen = one_source(tmp_path, path, "columns: {text: t, language: lang}, join_words: 20")
    with pytest.raises(ValueError, match="one document of several languages"):
        prepared(chosen, tmp_path / "cache")


def test_escapes_are_read_as_characters(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": rf"caf\xc3\xa9 lamp {i}"} for i in range(40)])
    chosen = one_source(tmp_path, path, "unescape: true, language: id")
    tokenizer = load_tokenizer(chosen, tmp_path / "cache")
    store = prepare(chosen, tokenizer, tmp_path / "cache")["many"].train
    assert store.metadata["language"] == "id"
    assert "caf\u00e9 lamp" in tokenizer.decode(store[0]["input_ids"])
