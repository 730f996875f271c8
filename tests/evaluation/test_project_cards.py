"""The cards in model_cards/ are what the recipe renders, and hold no figure that no run measured."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard

from rexbert_hf.evaluation.project_cards import CardSettings, RenderCardsSettings, render_cards, take_run
from rexbert_hf.hub import render_dataset_card, render_model_card, write_run
from rexbert_hf.hub.evaluated import write_evaluation
from rexbert_hf.settings import load_settings

ROOT = Path(__file__).parents[2]
SETTINGS = load_settings(RenderCardsSettings, ROOT / "recipes" / "configs" / "render_cards.yaml")
CARDS = sorted(path.parent.name for path in (ROOT / "model_cards").glob("*/README.md"))
TEMPLATES = sorted(path.name for path in (ROOT / "src/rexbert_hf/hub/templates").glob("*_card.md"))
TEMPLATES.remove("corpus_card.md")  # the data set's, with a corpus's facts in it
UNMEASURED = "Not measured: cost, energy and carbon."


def sections(text: str) -> dict[str, str]:
    """The text below each heading of the second order; a second one of the same name would hide."""
    parts = re.split(r"^## (.+)\n", text.partition("-->")[2], flags=re.MULTILINE)[1:]
    assert len(set(parts[::2])) == len(parts[::2])
    return {
        title: body.replace("<!-- rexbert_hf:end -->", "").strip()
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def test_committed_cards_are_current(tmp_path):
    folder = tmp_path / "cards"
    for name in SETTINGS.cards:
        (folder / name).mkdir(parents=True)
        for path in (ROOT / "model_cards" / name).iterdir():
            (folder / name / path.name).write_bytes(path.read_bytes())
    for path in render_cards(RenderCardsSettings(str(folder), SETTINGS.cards)):
        committed = ROOT / "model_cards" / path.parent.name / "README.md"
        assert path.read_text() == committed.read_text(), "run: python recipes/render_cards.py"


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize(
    ("name", "part", "picture"),
    [("ecom-niverse", "corpus", "domains.svg"), ("domain-classifier", "distil", "thresholds.png")],
)
def test_the_cards_of_a_curation_are_taken_over(tmp_path, name, part, picture, below):
    run = tmp_path / "my-corpus"
    (run / part).mkdir(parents=True)
    write_run(run, config={}, results={"documents": 3})
    runs = RenderCardsSettings(
        str(tmp_path / "cards"), {name: SETTINGS.cards[name]}, {name: str(run / part if below else run)}
    )
    with pytest.raises(FileNotFoundError, match=f"has neither README.md nor {part}/README.md"):
        render_cards(runs)
    card = render_dataset_card() if part == "corpus" else render_model_card({}, "plain_card.md")
    (run / part / "README.md").write_text(f"{card}\nof 3 documents\n")
    (run / part / picture).write_bytes(b"picture")
    (path,) = render_cards(runs)
    assert "of 3 documents" in path.read_text()
    assert (path.parent / picture).read_bytes() == b"picture"
    assert json.loads((path.parent / "run.json").read_text())["results"] == {"documents": 3}


@pytest.mark.parametrize("name", SETTINGS.cards)
def test_a_card_without_a_run_says_so(tmp_path, name):
    (path,) = render_cards(RenderCardsSettings(str(tmp_path), {name: SETTINGS.cards[name]}))
    text = path.read_text()
    assert "No figures measured." in text
    assert "model-index" not in text
    assert not re.search(r"\d\.\d+ %|\.\d{3}\b", text)
    assert UNMEASURED in text
    kind = SETTINGS.cards[name].kind
    (DatasetCard if kind == "dataset" else ModelCard)(text)
    found = sections(text)
    assert {"How it is made", "Data", "How to use", "Intended use and limits", "Licence"} <= set(found)
    assert found["Data"] == SETTINGS.cards[name].data.strip()
    assert all(found.values())
    if kind in ("model", "search"):
        check_model_blocks(found["How to use"], str(SETTINGS.cards[name].repo_id))


def check_model_blocks(text: str, repo_id: str) -> None:
    python = blocks(text, "python")
    for block in python:
        compile(block, "card", "exec")
    for start in ("AutoModel.from_pretrained", "AutoTokenizer.from_pretrained", "SentenceTransformer"):
        assert any(f'{start}("{repo_id}"' in block for block in python), start
    serving, export = blocks(text, "bash")
    assert f'hf download {repo_id} --include "modernbert/*" --local-dir model' in serving
    assert '"$PWD/model:/data"' in serving
    assert "text-embeddings-inference:cpu-latest" in serving
    assert "--model-id /data/modernbert" in serving
    assert f"recipes/export_onnx.py --model {repo_id} " in export
    assert any("OnnxEncoder(" in block for block in python)


@pytest.mark.parametrize("name", CARDS)
def test_every_card_that_lies_here_has_every_section(name):
    text = (ROOT / "model_cards" / name / "README.md").read_text()
    found = sections(text)
    assert {"How to use", "Intended use and limits", "Licence"} <= set(found)
    assert all(found.values())
    assert "- " in found["Intended use and limits"]
    assert "nergy and carbon" in text
    assert re.search(r"^\| (data|source) \|", text, flags=re.MULTILINE) or found["Data"]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("license", [None, "mit"])
def test_every_template_has_cost_limits_and_licence(template, license):
    if template == "dataset_card.md":
        text, paid = (render_dataset_card(license=license, cost=cost) for cost in (None, "9 USD"))
    else:
        runs: tuple[dict[str, object], ...] = ({}, {"hardware": "9 USD"})
        text, paid = (render_model_card(run, template, license=license) for run in runs)
    found = sections(text)
    assert all(found.values())
    assert "- " in found["Intended use and limits"]
    assert found["Licence"].startswith("Not stated: " if license is None else "mit, as whoever")
    assert UNMEASURED in text
    assert UNMEASURED not in paid
    assert "9 USD. Energy and carbon were not measured." in paid


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


def test_a_card_shows_what_its_run_holds(tmp_path):
    """Parameters and data are the run's, not the size's or the recipe's; a form that is not there has no block."""
    for name, stock in (("shared", True), ("apart", False)):
        run = tmp_path / name
        told = {"template": "search_card.md", "sections": [{"title": "Cells", "text": "Of the run."}]}
        data = [{"name": "shoes", "documents": 7}]
        write_run(run, config={}, results={"phases": [{"tokens": 5}]}, num_parameters=1234, data=data, card=told)
        (run / "model.py").write_text("")
        if stock:
            (run / "modernbert").mkdir()
            (run / "modernbert" / "config.json").write_text("{}")
        for kind in ("model", "search"):
            card = CardSettings(kind, "micro", "Mine", data="The recipe's.", making="Made.", repo_id="me/mine")
            cards = RenderCardsSettings(str(tmp_path / kind), {"mine": card}, {"mine": str(run)})
            text = render_cards(cards)[0].read_text()
            found = sections(text)
            assert "It has 1,234 parameters." in text
            assert "| shoes |" in found["Training"]
            assert "Data" not in found
            assert (found["How it is made"], found["Cells"]) == ("Made.", "Of the run.")
            assert ("--model-id /data/modernbert" in text) == stock
            assert "trust_remote_code=True" in text
            if stock:
                check_model_blocks(found["How to use"], "me/mine")


def test_a_later_run_leaves_nothing_of_the_one_before(tmp_path):
    """An evaluation, a picture or a whole card of the old run, beside the figures of the new one, would be its own."""
    old, new, folder = (tmp_path / name for name in ("old", "new", "card"))
    folder.mkdir()
    for run in (old, new):
        write_run(run, config={}, results={"phases": [{"name": run.name, "tokens": 5}]})
    for name in ("evaluation.json", "loss.png", "grid.svg", "README.md"):
        (old / name).write_text('{"metrics": []}')
    (new / "grid.svg").write_text("new")
    (folder / "notes.txt").write_text("a person's")
    take_run(old, folder, whole_card=True)
    assert {"evaluation.json", "loss.png", "README.md"} <= {path.name for path in folder.iterdir()}
    take_run(new, folder, whole_card=True)
    assert sorted(path.name for path in folder.iterdir()) == ["grid.svg", "notes.txt", "run.json"]
    assert (folder / "grid.svg").read_text() == "new"


@pytest.mark.parametrize("version", ["this", "older", "damaged"])
def test_a_picture_that_no_run_brought_stays(tmp_path, version):
    old, new, folder = (tmp_path / name for name in ("old", "new", "card"))
    folder.mkdir()
    for run in (old, new):
        write_run(run, config={}, results={"phases": [{"name": run.name, "tokens": 5}]})
    (old / "loss.png").write_text("old")
    (folder / "logo.svg").write_text("a person's")
    take_run(old, folder, whole_card=False)
    known = json.loads((folder / "run.json").read_text())
    assert known.pop("pictures") == ["loss.png"]
    if version != "this":
        (folder / "run.json").write_text(json.dumps(known) if version == "older" else "{")
    take_run(new, folder, whole_card=False)
    kept = ["loss.png"] if version == "damaged" else []
    assert sorted(path.name for path in folder.iterdir()) == ["logo.svg", *kept, "run.json"]
    assert (folder / "logo.svg").read_text() == "a person's"


def test_figures_of_other_weights_do_not_reach_a_card(tmp_path, caplog):
    """Beside a card lie no weights to tell them by."""
    run, folder = tmp_path / "run", tmp_path / "card"
    folder.mkdir()
    write_run(run, config={}, results={})
    (run / "model.safetensors").write_bytes(b"first")
    own = {"task_type": "retrieval", "dataset_type": "shop", "dataset_name": "Shop", "metric_type": "recall"}
    write_evaluation(run, [{**own, "metric_value": 0.7}])
    take_run(run, folder, whole_card=False)
    assert (folder / "evaluation.json").read_bytes() == (run / "evaluation.json").read_bytes()
    assert not caplog.records
    (run / "model.safetensors").write_bytes(b"trained on")
    take_run(run, folder, whole_card=False)
    assert not (folder / "evaluation.json").exists()
    assert f"{run}/evaluation.json is of other weights than lie there" in caplog.text
    assert "evaluate with --update_cards" in caplog.text


def test_what_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="runs names mini; there are the cards micro"):
        RenderCardsSettings(cards={"micro": CardSettings()}, runs={"mini": "x"})
    with pytest.raises(FileNotFoundError, match="run's folder"):
        take_run(tmp_path, tmp_path / "card", whole_card=False)
