"""Own sources over the configuration of the sample web: neither its card nor its labels go with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rexbert_hf.corpus import pipeline
from rexbert_hf.corpus.audit import AUDIT
from rexbert_hf.corpus.pipeline import curate
from rexbert_hf.corpus.settings import CurateSettings
from rexbert_hf.corpus.stages import StageReport
from rexbert_hf.settings import load_settings

CONFIGS = Path(__file__).parents[2] / "recipes" / "configs"
OWN = ("sources", "[{path: crawl.jsonl, text_field: body}]")
HUB = ("sources", "[{dataset: me/crawl}]")


def settings(config, *changes):
    return load_settings(CurateSettings, CONFIGS / f"{config}.yaml", changes)


@pytest.mark.parametrize("config", ["curate_sample", "curate_recipes"])
@pytest.mark.parametrize("source", [OWN, HUB])
def test_own_sources_leave_the_card_of_the_sample(caplog, config, source):
    card = settings(config, source, ("build.card.license", "cc-by-4.0")).build.card
    assert (card.name, card.summary, card.license, card.language, card.sources) == (
        *("Ecom-niverse", None),
        *("cc-by-4.0", None),
        [],
    )
    (line,) = caplog.messages
    assert line == (
        "name, summary, language, sources of build.card are those of the sample shop, and sources your own:"
        f" left out ({config}.yaml), set --build.card.name, .summary and .sources"
    )


@pytest.mark.parametrize(
    ("config", "changes"),
    [
        ("curate_sample", []),
        ("curate_sample", [("sources.0.sample_size", "700")]),
        ("curate_sample", [("sources", "[{sample: crawl}]")]),
        ("curate_recipes", []),
        ("curate_recipes_real", []),
        ("curate_finefineweb", []),
        ("curate_finefineweb", [OWN]),
    ],
)
def test_every_other_card_stays(caplog, config, changes):
    card = settings(config, *changes).build.card
    assert (card.name, card.language) != ("Ecom-niverse", None)
    assert not caplog.messages


def test_a_card_on_the_command_line_is_the_users(caplog):
    mine = "{name: Mine, sources: [{name: built-in sample web}]}"
    card = settings("curate_sample", OWN, ("build.card.sources", "[{name: shop crawl, license: mit}]")).build.card
    assert ([source.name for source in card.sources], card.name) == (["shop crawl"], "Ecom-niverse")
    assert "name, summary, language of build.card are those of the sample shop" in caplog.text
    assert settings("curate_sample", ("build.card", mine)).build.card.name == "Mine"


def test_labels_of_the_sample_audit_nothing_of_ones_own(tmp_path, monkeypatch):
    """Said before a stage has run, for labels may be paid; an audit that has passed is left alone."""
    monkeypatch.setattr(pipeline, "_Curation", None)
    output = ("output_dir", str(tmp_path / "out"))
    told = r"^audit.labeller: the ready labels are those of the sample \(crawl\), and sources your own: set"
    with pytest.raises(ValueError, match=told) as caught:
        curate(settings("curate_sample", OWN, output))
    assert "\n" not in str(caught.value)
    for changes in (
        [("audit.labeller.kind", "keywords")],
        [("audit.by", "person")],
        [("stages", "[select, sample, label]")],
        [("sources", "[{path: crawl.jsonl}, {sample: crawl}]")],
        [("audit.labeller.ready", "{path: labels.csv}")],
        [("audit.labeller.ready.path", "labels.csv"), ("audit.labeller.ready.sample", "")],
    ):
        with pytest.raises(TypeError):  # it goes on to its stages
            curate(settings("curate_sample", OWN, output, *changes))
    told = r"^audit.labeller.ready has a path \(labels.csv\) and a sample \(crawl\): leave the sample out, --audit"
    with pytest.raises(ValueError, match=told):
        curate(settings("curate_sample", OWN, output, ("audit.labeller.ready.path", "labels.csv")))
    (tmp_path / "out" / "audit").mkdir(parents=True)
    (tmp_path / "out" / "audit" / AUDIT).write_text("{}")
    StageReport("audit", "key").save(tmp_path / "out" / "audit", [AUDIT])
    with pytest.raises(TypeError):
        curate(settings("curate_sample", OWN, output))
