"""The cards in model_cards/ are what the recipe renders, and hold no figure that no run measured."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from rexbert_hf.evaluation.project_cards import CardSettings, RenderCardsSettings, render_cards, take_run
from rexbert_hf.hub import write_run
from rexbert_hf.settings import load_settings

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(RenderCardsSettings, ROOT / "recipes" / "configs" / "render_cards.yaml")


def test_committed_cards_are_current(tmp_path):
    folder = tmp_path / "cards"
    for name in SETTINGS.cards:
        (folder / name).mkdir(parents=True)
        for path in (ROOT / "model_cards" / name).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    for path in render_cards(RenderCardsSettings(str(folder), SETTINGS.cards)):
        committed = ROOT / "model_cards" / path.parent.name / "README.md"
        assert path.read_text() == committed.read_text(), "run: python recipes/render_cards.py"


@pytest.mark.parametrize("name", SETTINGS.cards)
def test_a_card_without_a_run_says_so(tmp_path, name):
    (path,) = render_cards(RenderCardsSettings(str(tmp_path), {name: SETTINGS.cards[name]}))
    text = path.read_text()
    assert "No figures measured." in text
    assert "model-index" not in text
    assert not re.search(r"\d\.\d+ %|\.\d{3}\b", text)
    kind = SETTINGS.cards[name].kind
    (DatasetCard if kind == "dataset" else ModelCard)(text)
    if kind in ("model", "search"):
        for block in ("AutoModel", "SentenceTransformer", "text-embeddings-inference", "OnnxEncoder"):
            assert block in text, block


def test_a_run_brings_its_figures(tmp_path):
    run = tmp_path / "run"
    phase = {"name": "a", "tokens": 5, "masked_accuracy_after": 0.31}
    write_run(run, config={"output_dir": str(run), "hub_token": "s3cret"}, results={"phases": [phase]})
    (run / "loss.png").write_bytes(b"png")
    cards = {"micro": CardSettings(size="micro", title="Micro")}
    (path,) = render_cards(RenderCardsSettings(str(tmp_path / "cards"), cards, {"micro": str(run)}))
    card = ModelCard(path.read_text())
    assert card.data.eval_results[0].metric_value == 0.31
    assert "No figures measured" not in card.text
    assert "16,913,600 parameters" in card.text
    assert "(loss.png)" in card.text
    kept = (path.parent / "run.json").read_text()
    assert str(tmp_path) not in kept
    assert "s3cret" not in kept


def test_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="runs names mini; there are the cards micro"):
        RenderCardsSettings(cards={"micro": CardSettings()}, runs={"mini": "x"})
    with pytest.raises(FileNotFoundError, match="run's folder"):
        take_run(tmp_path, tmp_path / "card", whole_card=False)
