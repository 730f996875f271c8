"""The cards of `model_cards/`: what the project publishes or can make, rendered from measured figures only.

A card's folder holds the `run.json` (and `evaluation.json`) of the run that measured it; without them the card says
that no figures were measured, how to make the thing, and of what data. A corpus, pool or classifier brings the card
that its own recipe rendered.
"""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from rexbert_hf.catalog.sources import with_home
from rexbert_hf.hub import render_dataset_card, render_model_card
from rexbert_hf.hub.card import LOSS_PLOT
from rexbert_hf.hub.evaluated import EVALUATION_FILE, is_of_its_folder, with_evaluation
from rexbert_hf.hub.redaction import redact
from rexbert_hf.hub.run_file import RUN_FILE, portable, read_run, write_whole
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM

logger = logging.getLogger(__name__)

README = "README.md"
PICTURES = ("*.svg", "*.png")
STOCK = "modernbert"
"""Folder of the stock form, within the folder of whatever holds a RexBERT encoder."""
TEMPLATES = {"model": "model_card.md", "search": "search_card.md", "plain": "plain_card.md"}
OWN_CARD = ("dataset", "plain")
"""Kinds whose recipes render the whole card."""
CURATED = {"dataset": "corpus", "plain": "distil"}
"""Part of a curation's folder with the card of each of them."""
TAGS = {
    "model": ["rexbert", "e-commerce", "modernbert"],
    "search": ["sentence-transformers", "product-search", "e-commerce", "rexbert"],
    "plain": ["rexbert", "e-commerce", "data-filtering"],
}


@dataclass
class CardSettings:
    """One card.

    Attributes:
        kind: model (an encoder), search (a bi-encoder), plain (a classifier), or dataset (a corpus, a phrase pool).
        size: of an encoder; its parameters are counted from the configuration.
        title: of the page.
        summary: what it is.
        making: how it is made, in Markdown.
        data: what the recipe reads, in Markdown; left out where a run tells what it read.
        use: how it is used, in Markdown, where the template has no blocks of its own.
        repo_id: what the copy-paste blocks load.
        license: claimed for what was trained; None says that it is not stated.
        language: of the text.
        limits: beside those of the template.
        library_name: metadata; None for the template's own.
        pipeline_tag: likewise.
    """

    kind: Literal["model", "search", "plain", "dataset"] = "model"
    size: str | None = None
    title: str = ""
    summary: str = ""
    making: str = ""
    data: str = ""
    use: str = ""
    repo_id: str | None = None
    license: str | None = None
    language: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    library_name: str | None = None
    pipeline_tag: str | None = None


@dataclass
class RenderCardsSettings:
    """All cards.

    Attributes:
        output_dir: folder of the cards, one sub-folder each.
        cards: by name of their folder.
        runs: name -> folder of a finished run whose figures the card shows from now on.
    """

    output_dir: str = "model_cards"
    cards: dict[str, CardSettings] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.runs) - set(self.cards)):
            raise ValueError(f"runs names {', '.join(unknown)}; there are the cards {', '.join(self.cards)}")


def render_cards(settings: RenderCardsSettings) -> list[Path]:
    """Take over the runs that the settings name, and render every card.

    Args:
        settings: of the recipe.

    Returns:
        The cards, in the settings' order.

    Raises:
        FileNotFoundError: if a run's folder holds no finished run.
        ValueError: if a file cannot be read.
    """
    written = []
    for name, card in settings.cards.items():
        folder = Path(settings.output_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        if name in settings.runs:
            run = with_home(settings.runs[name])
            if card.kind in OWN_CARD:
                run, place = card_place(run, card.kind)
                take_run(run, folder, whole_card=True, place=place)
            else:
                take_run(run, folder, whole_card=False)
        text = card_text(card, folder)
        if text is not None:
            write_whole(folder / README, text.encode("utf-8"))
        written.append(folder / README)
    return written


def card_place(run: Path, kind: str) -> tuple[Path, Path]:
    """Where the record and the card of a corpus, a pool or a classifier lie.

    Args:
        run: folder of a finished run; of a curation also the part of it that the card is about.
        kind: one of `OWN_CARD`.

    Returns:
        The folder with `run.json`, and that with the card, which is a part of it in a curation.

    Raises:
        FileNotFoundError: if there is no finished run, or no card.
    """
    part = CURATED[kind]
    if run.name == part and not (run / RUN_FILE).is_file() and (run.parent / RUN_FILE).is_file():
        run = run.parent
    read_run(run)
    for place in (run / part, run):
        if (place / README).is_file():
            return run, place
    raise FileNotFoundError(
        f"{run} has neither {README} nor {part}/{README}: name the folder of a run that wrote its card"
    )


def take_run(run: Path, folder: Path, whole_card: bool, place: Path | None = None) -> None:
    """Copy what a card is made of: figures, without secrets and without this machine's folders, and pictures.

    Which forms of the model the run's folder holds is written down too: of them the card has blocks. What the card
    has of an earlier run, and this one lacks, is removed. Pictures that the card's `run.json` does not name are
    somebody's own, and stay.

    Args:
        run: folder of a finished run.
        folder: of the card.
        whole_card: take the README that the run rendered.
        place: where it and the pictures lie; None for the run's folder.

    Raises:
        FileNotFoundError: if there is no finished run.
        ValueError: if a file cannot be read.
    """
    record = portable(redact(read_run(run)), run)
    if not whole_card:
        forms = {"stock_subfolder": STOCK if (run / STOCK / "config.json").is_file() else None}
        record["card"] = {**(record.get("card") or {}), **forms, "remote_code": any(run.glob("*.py"))}
    place = run if place is None else place
    before, record["pictures"] = _copied_before(folder), _pictures(place)
    write_whole(folder / RUN_FILE, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))
    names = [EVALUATION_FILE, *([README] if whole_card else [])]
    names += [*record["pictures"], *(name for name in _pictures(folder) if name in before)]
    left = _figures_of_other_weights(run)
    for name in dict.fromkeys(names):
        source = (run if name == EVALUATION_FILE else place) / name
        if source.is_file() and name not in left:
            shutil.copyfile(source, folder / name)
        else:
            (folder / name).unlink(missing_ok=True)


def _pictures(folder: Path) -> list[str]:
    return sorted(path.name for pattern in PICTURES for path in folder.glob(pattern) if path.is_file())


def _copied_before(folder: Path) -> list[str]:
    """Pictures of the run before; others lie beside a card too, such as a person's logo."""
    try:
        return list(read_run(folder).get("pictures", [LOSS_PLOT]))  # earlier versions did not name them
    except (OSError, ValueError, TypeError):
        return []


def _figures_of_other_weights(run: Path) -> list[str]:
    """The file of an evaluation before a later training; beside a card, which has no weights, it would be believed."""
    path = run / EVALUATION_FILE
    if not path.is_file() or is_of_its_folder(path):
        return []
    logger.warning("%s is of other weights than lie there: the card goes without; evaluate with --update_cards", path)
    return [EVALUATION_FILE]


def card_text(card: CardSettings, folder: Path) -> str | None:
    """A card, rendered; None where the run's own card stays.

    Args:
        card: what it says.
        folder: with the figures, if there are any.
    """
    measured = (folder / RUN_FILE).is_file()
    if measured and card.kind in OWN_CARD and (folder / README).is_file():
        return None
    run: dict[str, Any] = with_evaluation(folder) if measured else {}
    use = "With rexbert_hf" if card.kind == "dataset" else "How to use"  # a data set's card has that heading already
    texts = {"How it is made": card.making, "Data": "" if run.get("data") else card.data, use: card.use}
    sections = [{"title": title, "text": text} for title, text in texts.items() if text]
    common: dict[str, Any] = {
        "repo_id": card.repo_id,
        "license": card.license,
        "language": card.language or None,
        "summary": card.summary or None,
        "limits": tuple(card.limits),
        "sections": tuple(sections),
    }
    if card.kind == "dataset":
        said = {"title": "Figures", "text": "No figures measured."}
        return render_dataset_card(**{**common, "sections": (*sections, said)}, dataset_name=card.title or None)
    return _model_card(card, folder, run, common)


def _model_card(card: CardSettings, folder: Path, run: dict[str, Any], common: dict[str, Any]) -> str:
    results, told = run.get("results") or {}, run.get("card") or {}
    if card.size is not None and not (results.get("num_parameters") or run.get("num_parameters")):
        run = {**run, "results": {**results, "num_parameters": parameters_of(card.size)}}
    encoder = card.kind == "model"
    fields: dict[str, Any] = {
        **common,
        "sections": (*common["sections"], *told.get("sections", ())),
        "model_name": card.title or None,
        "remote_code": told.get("remote_code", card.kind != "plain"),
        "tags": TAGS[card.kind],
        "stock_subfolder": told.get("stock_subfolder", None if card.kind == "plain" else STOCK),
        "loss_plot": LOSS_PLOT if (folder / LOSS_PLOT).is_file() else None,
        "library_name": card.library_name or ("transformers" if encoder else "sentence-transformers"),
        "pipeline_tag": card.pipeline_tag or ("fill-mask" if encoder else "sentence-similarity"),
    }
    kept = {key: value for key, value in fields.items() if value is not None or key == "stock_subfolder"}
    return render_model_card(run, TEMPLATES[card.kind], **kept)


def parameters_of(size: str) -> int:
    """Parameters of a published size, masked-LM head included, tied weights once.

    Args:
        size: micro, mini, base or large.

    Example:
        >>> parameters_of("micro")
        16913600
    """
    with torch.device("meta"):
        model = RexBertForMaskedLM(RexBertConfig.from_size(size))
    return sum(parameter.numel() for parameter in model.parameters())
