"""A phrase pool in the pre-training recipe: how it is named, what its spans are, and what is refused."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pretraining_cases import run, scratch, settings

from rexbert_hf.data.rows import SPAN_KINDS
from rexbert_hf.phrases import NounPhraseGuide, PhraseGuide, PhrasePool
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer
from rexbert_hf.pretraining.guides import load_pool, make_guides
from rexbert_hf.pretraining.settings import GuideSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))
from hub_server import HubServer

PHRASES = ["water bottle", "desk lamp", "stainless steel", "battery life", "free shipping"]
TINY_RUN = {
    "sources": "{shop: {sample: shop_text, max_documents: 80}}",
    "guides.sample_lexicons": "false",
    "tokenizer.vocab_size": "384",
    "micro_batch_tokens": "512",
    "evaluation.held_out": "0.2",
    "evaluation.max_tokens": "500",
    "evaluation.baselines": "false",
    "evaluation.position_edges": "[]",
    "model.overrides": "{num_hidden_layers: 2, hidden_size: 32, intermediate_size: 32, num_attention_heads: 2}",
    "trainer.bf16": "false",
    "trainer.cpu_threads": "1",
    "trainer.use_cpu": "true",
    "trainer.logging_steps": "1",
    "trainer.extra": "{measure_mfu: false}",
}
PHASE = "{name: only, mixture: {shop: 1}, max_tokens: 3k, seq_length: 64, batch_tokens: 1024, masking: {kind: %s}}"


@pytest.fixture
def pool(tmp_path):
    folder = tmp_path / "pool"
    PhrasePool(PHRASES, [0.9, 0.8, 0.8, 0.7, 0.6]).save(folder)
    return folder


def one_phase(tmp_path, kind="ahm", **changes):
    return settings(tmp_path / "out", base={**TINY_RUN, "phases": f"[{PHASE % kind}]"}, **changes)


def test_a_pool_is_a_folder_or_an_autophrase_file(tmp_path, pool):
    (tmp_path / "AutoPhrase.txt").write_text("0.9\twater bottle\n0.1\tof the\n")
    assert load_pool("pool", str(tmp_path)).phrases == load_pool(str(pool)).phrases
    assert load_pool("AutoPhrase.txt", str(tmp_path)).phrases == ["water bottle"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("missing", FileNotFoundError, r"guides\.phrases: no folder, file or data set .* is called missing"),
        ("../missing/", FileNotFoundError, r"guides\.phrases: no folder, file"),
        ("pool/data/train-00000-of-00001.parquet", ValueError, "guides.phrases: .*give the pool's folder"),
        ("words.txt", ValueError, "guides.phrases: .*line 1"),
        ("empty", FileNotFoundError, "guides.phrases: .*holds no phrase pool"),
    ],
)
def test_what_is_no_pool_is_named(tmp_path, pool, name, error, message):
    (tmp_path / "words.txt").write_text("water bottle\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(error, match=message):
        make_guides(GuideSettings(regex=[], phrases=name), str(tmp_path))


CLIENT = """
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.pretraining.guides import load_pool

PhrasePool(["water bottle"], [0.9]).push_to_hub("tester/pool")
assert load_pool("tester/pool", "somewhere").phrases == ["water bottle"]
try:
    load_pool("tester/nothing")
except FileNotFoundError as error:
    assert "tester/nothing" in str(error), error
else:
    raise SystemExit("a pool that is nowhere was loaded")
"""


def test_a_pool_may_be_on_the_hub(tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        environment = hub.environment(tmp_path / "home")
        done = subprocess.run([sys.executable, "-c", CLIENT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_guides_are_those_that_were_asked_for(pool):
    def kinds(**options):
        return [type(guide) for guide in make_guides(GuideSettings(regex=[], **options))]

    assert kinds() == []
    assert kinds(noun_phrases="light") == [NounPhraseGuide]
    (guide,) = make_guides(GuideSettings(regex=[], phrases=str(pool), noun_phrases="light", min_phrases=5))
    assert isinstance(guide, PhraseGuide)
    assert (guide.min_phrases, guide.min_share, guide.lowest_score) == (5, 0.3, 0.6)
    (none,) = make_guides(GuideSettings(regex=[], phrases=str(pool), noun_phrases="none"))
    assert none.finder is None
    assert pickle.loads(pickle.dumps(guide)).fingerprint == guide.fingerprint != none.fingerprint


@pytest.mark.parametrize("kind", ["ahm", "phrase", "noun_phrase"])
def test_phrase_masking_without_phrases_is_refused(tmp_path, kind):
    with pytest.raises(ValueError, match=f"phase 'only': masking.kind '{kind}' needs phrases: set --guides.phrases"):
        one_phase(tmp_path, kind)
    assert one_phase(tmp_path, kind, guides__noun_phrases="light").needs_guides
    assert not one_phase(tmp_path, "span").needs_guides


def test_thresholds_are_checked():
    with pytest.raises(ValueError, match="min_phrases"):
        GuideSettings(min_phrases=-1)
    with pytest.raises(ValueError, match="min_phrase_share"):
        GuideSettings(min_phrase_share=2.0)


def test_spans_arrive_in_the_rows_and_are_reported(tmp_path, pool):
    recipe = one_phase(tmp_path, guides__phrases=pool, guides__regex="[]", guides__noun_phrases="light")
    tokenizer = load_tokenizer(recipe, scratch() / "cache")
    corpus = prepare(recipe, tokenizer, tmp_path / "cache")["shop"]
    found = set()
    for row in corpus.train.take(range(len(corpus.train))):
        for first, end, score, kind in zip(*(row[f"span_{x}"] for x in ("start", "end", "score", "kind")), strict=True):
            text = tokenizer.decode(row["input_ids"][first:end]).strip().lower()
            if SPAN_KINDS[kind] == "phrase":
                found.add(text)
                assert text.replace("-", " ") in PHRASES
            else:
                assert SPAN_KINDS[kind] == "noun_phrase"
                assert round(float(score), 3) == 0.6
    assert found
    counts = corpus.report["spans"]["train"]
    assert counts["rows"]["all"] == len(corpus.train)
    assert counts["spans"]["phrase"] >= len(found)
    assert counts["spans"]["noun_phrase"] > 0
    again = prepare(recipe, tokenizer, tmp_path / "cache")["shop"]
    assert again.train.path == corpus.train.path
    PhrasePool(PHRASES[:4], [0.9, 0.8, 0.8, 0.7]).save(pool)
    other = prepare(recipe, tokenizer, tmp_path / "cache")["shop"]
    assert other.train.path.parent != corpus.train.path.parent, "another pool, another set of rows"


def test_a_run_masks_by_the_pool(tmp_path, pool):
    run(tmp_path / "out", base={**TINY_RUN, "phases": f"[{PHASE % 'ahm'}]", "guides.phrases": str(pool)})
    said = json.loads((tmp_path / "out" / "run.json").read_text())
    assert said["config"]["guides"]["phrases"] == str(pool)
    assert said["data"][0]["spans"]["train"]["spans"]["phrase"] > 0
