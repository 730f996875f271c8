"""A classifier pushed to a Hub with its card, and read from it again."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "hub"))

from filter_cases import labelled_texts, tiny_classifier
from hub_server import TOKEN, HubServer
from huggingface_hub import HfApi, ModelCard, constants

from rexbert_hf.corpus.classifier_hub import classifier_card
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.hub import trouble

pytest.importorskip("fasttext")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(trouble, "WAIT_SECONDS", 0.01)
    with HubServer(tmp_path / "hub") as server:
        yield {"endpoint": server.endpoint, "token": TOKEN}


def test_pushed_twice_it_is_the_newer_one_and_text_of_people_stays(hub):
    api = HfApi(**hub)
    tiny_classifier().push_to_hub("tester/shop", license="mit", **hub)
    readme = api.hf_hub_download("tester/shop", "README.md")
    assert ModelCard.load(readme).data.license == "mit"
    text = Path(readme).read_text() + "\nMine.\n"
    api.upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id="tester/shop")
    texts, labels = labelled_texts(60, seed=4)
    second = FastTextClassifier.train(texts, labels, ["shop"])
    second.threshold = 0.75
    second.push_to_hub("tester/shop", **hub)
    names = api.list_repo_files("tester/shop")
    assert sum(name.startswith("model-") for name in names) == 1
    pulled = FastTextClassifier.load("tester/shop", **hub)
    assert pulled.threshold == 0.75
    assert (pulled.scores(texts) == second.scores(texts)).all()
    card = Path(api.hf_hub_download("tester/shop", "README.md")).read_text()
    assert "Mine." in card
    assert "0.750" in card


def test_the_card_says_what_was_measured_and_how_to_use_it():
    classifier = tiny_classifier()
    figures = {"documents": 1234, "positives": 600, "precision": 0.91, "recall": 0.82, "f1": 0.863}
    classifier.facts.update(
        test=figures | {"precision_interval": [0.9, 0.92]}, description="Shop pages.", chosen="best F1"
    )
    card = classifier_card(classifier, "me/shop", language="en", sources=["a crawl"])
    for part in ("1,234", "0.910 | 0.900 to 0.920", "0.863", 'load("me/shop")', "Shop pages.", "best F1", "a crawl"):
        assert part in card
    assert ModelCard(card).data.language == "en"
    for part in ("## Intended use and limits", "Not measured: cost, energy and carbon", "## Licence\n\nNot stated"):
        assert part in card
    assert "mit, as whoever trained it says" in classifier_card(classifier, license="mit")
    assert "What it reaches" not in classifier_card(tiny_classifier())
