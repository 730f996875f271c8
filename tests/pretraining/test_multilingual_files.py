"""The sources of m3bert_real.yaml as their publishers wrote them; skipped where the data is not there."""

from __future__ import annotations

import dataclasses

import pytest
from pretraining_cases import CONFIGS, ROOT

from rexbert_hf.pretraining.languages import split_languages
from rexbert_hf.pretraining.sources import read_source
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.settings import load_settings

DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.real_data


def languages(name, most):
    """Documents of a source by language."""
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the shared data is not on this machine")
    run = load_settings(StagedSettings, CONFIGS / "m3bert_real.yaml").runs()[1][1]
    source = dataclasses.replace(run.sources[name], max_documents=most)
    documents = read_source(source, str(DATA))
    if not source.splits_languages:
        return {source.language: documents["text"][:]}
    return {code: part["text"][:] for code, part in split_languages(name, source, documents).items()}


def test_reviews_in_three_languages_are_told_apart():
    found = languages("counterfactual", None)
    assert set(found) <= {"en", "de", "ja", "und", "zh", "nl"}
    assert all(len(found[code]) > 3_000 for code in ("en", "de", "ja"))
    assert len(found.get("und", ())) < 0.1 * sum(map(len, found.values()))


@pytest.mark.parametrize(
    ("name", "code"), [("chinese_reviews", "zh"), ("shopee", "id"), ("indonesian", "id"), ("vietnamese", "vi")]
)
def test_the_others_are_in_one_language(name, code):
    (found,) = languages(name, 1_000).items()
    assert found[0] == code
    assert len(found[1]) == 1_000
    assert all(text.strip() for text in found[1])


def test_titles_hold_characters_and_no_escapes():
    titles = languages("shopee", 5_000)["id"]
    assert not [title for title in titles if "\\xe2" in title]
    assert any("\u2728" in title or "\u2705" in title for title in titles)
