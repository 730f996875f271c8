"""Sources that are taken out of a recipe, and those of the sample shop that stay beside the user's own."""

from __future__ import annotations

import pytest
from pretraining_cases import CONFIGS

from rexbert_hf.pretraining.chosen_sources import warn_of_sample_sources
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.settings import SettingsError, load_settings

OWN = ("sources.products", "{path: mine.jsonl, columns: {text: title, product_id: asin}}")
WITHOUT_REVIEWS = ("sources.reviews", "null")


def runs(name, *changes):
    return [run for _, run in load_settings(StagedSettings, CONFIGS / name, changes).runs()]


def test_a_source_that_is_null_goes_and_is_mixed_no_more():
    (run,) = runs("ebert.yaml", OWN, WITHOUT_REVIEWS)
    assert list(run.sources) == ["products"]
    assert [phase.mixture for phase in run.phases] == [{"products": 1.0}] * 2
    (usual,) = runs("ebert.yaml")
    assert usual.phases[0].mixture == {"products": 1.0, "reviews": 1.0}


def test_a_file_may_take_a_source_out(tmp_path):
    (tmp_path / "mine.yaml").write_text(f"extends: {CONFIGS / 'ebert.yaml'}\nsources: {{reviews: null}}\n")
    assert list(load_settings(StagedSettings, tmp_path / "mine.yaml").sources) == ["products"]


def test_a_source_that_is_only_evaluated_goes_too(tmp_path):
    (tmp_path / "more.yaml").write_text(
        f"extends: {CONFIGS / 'ebert.yaml'}\nsources: {{review: {{sample: reviews, columns: {{text: text}}}}}}\n"
    )
    (tmp_path / "less.yaml").write_text("extends: more.yaml\nsources: {review: null}\n")
    for name, changes in (("more.yaml", [("sources.review", "null")]), ("less.yaml", [])):
        assert list(runs(tmp_path / name, *changes)[0].sources) == ["products", "reviews"]


def test_one_stage_does_without_a_source_that_is_only_evaluated():
    added = ("sources.other", "{sample: multilingual_text, columns: {text: text, language: language}}")
    stages = runs("m3bert.yaml", added, ("stages.commercial.sources.other", "null"))
    assert ["other" in run.sources for run in stages] == [True, True, False]


def test_a_null_holds_in_every_stage():
    stages = runs("m3bert.yaml", ("sources.others", "null"))
    assert [list(run.sources) for run in stages] == [["english"], ["english"], ["english", "shop"]]
    assert set(stages[2].phases[0].mixture) == {"english", "shop"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sources.products", "null"), "^sources.products: phase 'neighbors' mixes nothing but products, which cannot"),
        (("sources.reveiws", "null"), "^unknown key 'sources.reveiws' .*did you mean 'sources.reviews'"),
        (("sources", "null"), "sources"),
        (("phases.neighbors.mixture", "null"), "phases.1.mixture: expected"),
    ],
)
def test_nulls_that_cannot_be_are_one_line(change, message):
    with pytest.raises(SettingsError, match=message) as caught:
        runs("ebert.yaml", change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([], "^sources.shop: phase 'anneal' mixes nothing but shop at its end, .*from command line --sources.shop"),
        ([("phases.anneal.mixture.general", "0,1"), ("phases.anneal.mixture.long", "0")],
         "^sources.shop: phase 'anneal' mixes nothing but shop at its start, "),
        ([("phases.anneal.mixture.shop", "0")], "^phases.2: phase 'anneal': mixture needs a source with a positive"),
        ([("phases.anneal.mixture.long", "[0, 0.1]")], ""),
    ],
)  # fmt: skip
def test_a_source_that_a_phase_starts_or_ends_with_alone_stays(changes, message):
    words = [*changes, ("sources.shop", "null")]
    if not message:
        assert list(runs("quickstart.yaml", *words)[0].sources) == ["general", "long"]
        return
    with pytest.raises(SettingsError, match=message):
        runs("quickstart.yaml", *words)


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("ebert.yaml", [OWN], "texts of sources.reviews are those of the sample shop, and those of sources.products"),
        ("ebert.yaml", [OWN, WITHOUT_REVIEWS], ""),
        ("ebert.yaml", [], ""),
        ("m3bert.yaml", [], ""),
        ("m3bert_real.yaml", [], ""),
        ("m3bert.yaml", [("sources.english", "{path: mine.txt, language: en}")], "texts of sources.others, shop are"),
        ("continue.yaml", [("model.init_from", "x"), ("sources.catalog.path", "x.csv")], ""),
    ],
)
def test_what_stays_of_the_sample_is_told_once(caplog, name, changes, said):
    warn_of_sample_sources(runs(name, *changes))
    assert len(caplog.messages) == bool(said)
    assert said in caplog.text


@pytest.mark.parametrize(
    ("name", "own", "advice"),
    [
        ("m3bert.yaml", "shop", "give --sources.others '{path: ...}', or leave it out by --sources.others null"),
        ("quickstart.yaml", "general", "give --sources.long '{path: ...}'"),
    ],
)
def test_only_a_source_that_can_go_is_advised_to_be_left_out(caplog, name, own, advice):
    warn_of_sample_sources(iter(runs(name, (f"sources.{own}", "{path: mine.txt, language: en}"))))
    assert caplog.messages[0].endswith(f": {advice}")
