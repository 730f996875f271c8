"""A curated corpus as a source of the pre-training recipe, by the name of its folder."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pretraining_cases import run, settings, whole_run
from transformers import AutoTokenizer

from rexbert_hf.catalog import split_of
from rexbert_hf.corpus.build import BuildSettings, build
from rexbert_hf.hub import read_run
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.settings import SourceSettings
from rexbert_hf.pretraining.sources import source_key
from rexbert_hf.settings import SettingsError

DOMAINS = ("hobby", "news")
TEXTS = [f"page number {i} sells a lamp of {i % 9} watts" for i in range(400)]


@pytest.fixture
def corpus(tmp_path):
    rows = [{"id": str(i), "text": t, "url": "", "domain": DOMAINS[i % 2]} for i, t in enumerate(TEXTS)]
    (tmp_path / "kept").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "kept" / "a.parquet")
    build(BuildSettings(held_out=0.2), tmp_path / "kept", {}, tmp_path / "corpus")
    return tmp_path / "corpus"


PHASES = "[{name: anneal, mixture: {ecomniverse: 1}, max_tokens: 4k, seq_length: 64, batch_tokens: 512}]"


def of_corpus(tmp_path, corpus, **changes):
    base = {"tokenizer.vocab_size": "384", "phases": PHASES, "evaluation.held_out": "0.01"}
    source = {"sources": f"{{ecomniverse: {{corpus: {corpus}}}}}"}
    return settings(tmp_path / "out", "quickstart", {**base, **source}, **changes)


def prepared(made, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(whole_run())
    return prepare(made, tokenizer, tmp_path / "tokens")["ecomniverse"]


def test_what_the_corpus_holds_out_is_evaluated_and_never_trained_on(corpus, tmp_path):
    found = prepared(of_corpus(tmp_path, corpus), tmp_path)
    sides = [split_of(text, 0.2) for text in TEXTS]
    assert found.report["documents"] <= sides.count("train")
    assert found.report["held_out_documents"] >= sides.count("validation") > 20
    kept_back = [text for text in TEXTS if split_of(text, 0.2) == "train" and split_of(text, 0.01) != "train"]
    assert found.report["documents"] == sides.count("train") - len(kept_back)


def test_a_larger_share_of_the_recipe_comes_on_top(corpus, tmp_path):
    found = prepared(of_corpus(tmp_path, corpus, evaluation__held_out="0.5"), tmp_path)
    sides = [split_of(text, 0.5) for text in TEXTS]
    assert found.report["documents"] == sides.count("train")
    assert found.report["held_out_documents"] == sides.count("validation")


def test_domains_are_chosen(corpus, tmp_path):
    found = prepared(of_corpus(tmp_path, corpus, sources__ecomniverse__domains="[news]"), tmp_path)
    assert found.report["documents"] < 200


def test_a_corpus_built_anew_is_prepared_anew(corpus, tmp_path):
    source = SourceSettings(corpus=str(corpus))
    before = source_key(source, None)
    assert source_key(SourceSettings(corpus="corpus"), str(corpus.parent)) != before, "the place is part of it"
    build(BuildSettings(held_out=0.3), tmp_path / "kept", {}, corpus)
    assert source_key(source, None) != before


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{corpus: sample, path: a.txt}", "has both 'path' and 'corpus'"),
        ("{sample: shop_text, domains: [news]}", "domains belong to a corpus"),
        ("{corpus: sample, columns: {text: body}}", "a corpus has its own columns"),
    ],
)
def test_contradictions_are_refused(source, message, tmp_path):
    with pytest.raises(SettingsError, match=message):
        of_corpus(tmp_path, "sample", sources=f"{{ecomniverse: {source}}}")


def test_a_run_on_a_corpus(corpus, tmp_path):
    changes = {"sources__ecomniverse": f"{{corpus: {corpus}}}", "phases__anneal__mixture": "{ecomniverse: 1}"}
    run(tmp_path / "out", **changes)
    done = read_run(tmp_path / "out")
    assert done["results"]["phases"][-1]["masked_accuracy_after"] is not None
    assert {source["name"] for source in done["data"]} == {"general", "long", "shop", "ecomniverse"}
