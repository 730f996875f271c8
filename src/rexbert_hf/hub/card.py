"""Cards from measured numbers: jinja2 templates filled from `run.json`, metadata checked by huggingface_hub.

A number that a run did not measure leaves its line out; nothing is estimated here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, EvalResult, ModelCard, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

from .evaluated import BESIDE, slug, with_evaluation
from .metrics_table import metrics_table
from .readme import BEGIN, END, MASKED, merge_card, split_card
from .redaction import redact
from .run_file import RUN_FILE, plain, portable, read_run, write_whole

LOSS_PLOT = "loss.png"
_HERE = "path/to/this/folder"
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]*[A-Za-z0-9]")

MODEL_FIELDS: dict[str, Any] = {
    "repo_id": None,
    "model_name": None,
    "license": None,
    "language": None,
    "tags": ["rexbert", "e-commerce", "modernbert"],
    "base_model": None,
    "summary": None,
    "loss_plot": None,
    "stock_subfolder": "modernbert",
    "remote_code": True,
    "example": "wireless {mask} headphones",
    "limits": (),
    "sections": (),
    "library_name": "transformers",
    "pipeline_tag": "fill-mask",
    "folder": None,
}
"""What `render_model_card` accepts besides the run, with its default. Licence and language are claims about the
user's data: they are never assumed."""

DATASET_FIELDS: dict[str, Any] = {
    "repo_id": None,
    "dataset_name": None,
    "license": None,
    "language": None,
    "tags": ["rexbert", "e-commerce"],
    "task_categories": (),
    "summary": None,
    "configs": (),
    "unit": "tokens",
    "data_files": (),
    "facts": None,
    "columns": (),
    "sources": (),
    "steps": (),
    "sections": (),
    "cost": None,
    "config": None,
    "git_commit": None,
    "versions": None,
    "date": None,
    "limits": (),
    "folder": None,
}
"""What `render_dataset_card` accepts, with its default."""


def _environment() -> Environment:
    # Markdown, not HTML: escaping would spoil the code blocks; table cells are escaped by the `cell` filter.
    loader = PackageLoader("rexbert_hf.hub", "templates")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": _count, "percent": _percent, "cell": _cell, "fenced": _fenced}
    return environment


def _count(value: Any) -> str:
    return f"{value:,.0f}" if _is_number(value) else ""


def _percent(value: Any) -> str:
    return f"{100 * value:.1f} %" if _is_number(value) else ""


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|").replace("<", "&lt;") if value is not None else ""


def _fenced(text: str, language: str = "") -> str:
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def render_model_card(run: Mapping[str, Any], template: str | None = None, **fields: Any) -> str:
    """Render the card of a trained model from what its run wrote down.

    Args:
        run: the content of `run.json` (`read_run`): `config`, `results` (`phases`, `seconds`, `num_parameters`,
            `metrics` with the fields of `huggingface_hub.EvalResult`), `data`, `versions`, `hardware`, `date`,
            `git_commit`, `resumed_from_step`; any of them may be missing, and `num_parameters` may stand beside
            `results`. `card` holds fields for this very function, and its `template`.
        template: a template of this package; None for the run's own, or that of encoders.
        fields: see `MODEL_FIELDS`; `repo_id` is what the copy-paste blocks load (`{{ repo }}` in the text of a
            section stands for it), `loss_plot` a file name in the
            repository, `folder` the run's folder, whose absolute path the card then does not show.

    Raises:
        ValueError: for an unknown field, or when the metadata is not what the Hub accepts.

    Example:
        >>> card = render_model_card({"results": {"phases": []}}, repo_id="me/shop", license="mit")
        >>> ModelCard(card).data.license, "me/shop" in card
        ('mit', True)
    """
    own = dict(run.get("card") or {})
    theirs = own.pop("template", "model_card.md")
    chosen = theirs if template is None else template
    asked = _with_defaults({**own, **fields}, MODEL_FIELDS, "render_model_card")
    given, run = (portable(redact(plain(told)), asked["folder"]) for told in (asked, run))
    given["repo_id"] = asked["repo_id"]  # what is loaded may be the run's own folder, where the caller says so
    results = run.get("results") or {}
    phases = [phase for phase in results.get("phases") or [] if isinstance(phase, Mapping)]
    metrics = [m for m in results.get("metrics") or [] if isinstance(m, Mapping) and "metric_value" in m]
    unnamed = "RexBERT model" if "rexbert" in given["tags"] else "Model"
    name = given["model_name"] or (given["repo_id"] or unnamed).split("/")[-1]
    values = {
        **given,
        "name": name,
        "repo": given["repo_id"] or _HERE,
        "sections": [_placed(section, given["repo_id"] or _HERE) for section in given["sections"]],
        "begin": BEGIN,
        "end": f"Base model: `{base}`.\n\n{END}" if (base := _base_on_hub(given)) else END,  # see `merge_card`
        "metadata": _model_metadata(run, results, phases, name, given),
        "phase_table": _phase_table([*_earlier_phases(results), *phases]),
        **metrics_table(metrics),
        "evaluated": results.get("evaluated") or [],
        "data": [source for source in run.get("data") or [] if isinstance(source, Mapping)],
        "languages": [found for found in results.get("languages") or [] if isinstance(found, Mapping)],
        "cost": _cost(run, results, phases),
        "num_parameters": results.get("num_parameters") or run.get("num_parameters"),
        "config_yaml": yaml.safe_dump(run["config"], sort_keys=False, allow_unicode=True) if run.get("config") else "",
        **{key: run.get(key) for key in ("date", "git_commit", "resumed_from_step")},
        "versions": run.get("versions") or {},
    }
    text = _environment().get_template(chosen).render(values)
    return _checked(_tidy(text), ModelCard)


def card_of_run(folder: str | os.PathLike[str], repo_id: str | None = None, **fields: Any) -> str:
    """The card of a run's folder: rendered from its `run.json`, merged with the README that lies there.

    Without a `run.json` the README is returned as it is ("" when there is none).

    Args:
        folder: the run's folder; its loss plot, stock form and model code decide what the card shows.
        repo_id: what the copy-paste blocks load.
        fields: see `MODEL_FIELDS`.
    """
    folder = Path(folder)
    readme = folder / "README.md"
    local = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    if not (folder / RUN_FILE).is_file():
        return local
    found = {
        "loss_plot": LOSS_PLOT if (folder / LOSS_PLOT).is_file() else None,
        "stock_subfolder": "modernbert" if (folder / "modernbert" / "config.json").is_file() else None,
        "remote_code": any(folder.glob("*.py")),
        "folder": folder,
    }
    run = with_evaluation(folder)
    said = {**(run.get("card") or {}), **fields}
    written, _ = split_card(local)
    # What was said once stands in the metadata, which the text of a later rendering must not contradict.
    kept = {name: written[name] for name in ("license", "language") if said.get(name) is None and written.get(name)}
    return merge_card(local, render_model_card(run, repo_id=repo_id, **{**found, **fields, **kept}))


def write_card(folder: str | os.PathLike[str], repo_id: str | None = None, **fields: Any) -> Path:
    """Write (or bring up to date) the `README.md` of a run's folder; what people wrote into it stays.

    Args:
        folder: the run's folder, with its `run.json`.
        repo_id: what the copy-paste blocks load.
        fields: see `MODEL_FIELDS`.

    Raises:
        FileNotFoundError: when the folder has no `run.json`.
        ValueError: when it holds no model.
    """
    read_run(folder)
    # Of a data set, an index or an evaluation: as a model's card, what is rendered would not be true.
    if not any((Path(folder) / name).is_file() for name in ("config.json", "modules.json")):
        raise ValueError(
            f"{folder} holds no model (no config.json or modules.json) and gets no model's card: its recipe writes "
            "that of its kind, here or with --push_to_hub USER/NAME"
        )
    path = Path(folder) / "README.md"
    write_whole(path, card_of_run(folder, repo_id, **fields).encode("utf-8"))
    return path


def render_dataset_card(template: str = "dataset_card.md", **fields: Any) -> str:
    """Render the card of a corpus or of any other dataset of this package.

    Args:
        template: a template of this package.
        fields: see `DATASET_FIELDS`. `configs`: mappings with `name`, `rows`, `tokens` (counted in `unit`),
            `fingerprint`; `data_files`: with `config_name` and `data_files`, what `load_dataset` finds its files by;
            `facts`: whatever a template of its own shows; `columns`: with `name`, `meaning`; `sources`: with `name`,
            `revision`, `license`; `steps`: with `name`, `kept`, `dropped`; `sections`: with `title`, `text` (Markdown,
            shown as it is); `cost`: in words, None where it was not measured.

    Raises:
        ValueError: for an unknown field, or when the metadata is not what the Hub accepts.

    Example:
        >>> card = render_dataset_card(repo_id="me/corpus", summary="Shop pages.", license="odc-by")
        >>> DatasetCard(card).data.license
        'odc-by'
    """
    given = portable(redact(plain(_with_defaults(fields, DATASET_FIELDS, "render_dataset_card"))), fields.get("folder"))
    name = given["dataset_name"] or (given["repo_id"] or "Dataset").split("/")[-1]
    keys = ("license", "language", "task_categories", "tags")
    files: dict[str, Any] = {"configs": list(given["data_files"])} if given["data_files"] else {}
    data = DatasetCardData(pretty_name=name, **{key: given[key] for key in keys if given[key]}, **files)
    values = {**given, "name": name, "repo": given["repo_id"] or _HERE, "begin": BEGIN, "end": END}
    values["config_yaml"] = yaml.safe_dump(given["config"], sort_keys=False) if given["config"] else ""
    text = _environment().get_template(template).render({**values, "metadata": data.to_yaml()})
    return _checked(_tidy(text), DatasetCard)


def _with_defaults(fields: Mapping[str, Any], known: Mapping[str, Any], caller: str) -> dict[str, Any]:
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ValueError(f"{caller} does not know {', '.join(unknown)}; it takes {', '.join(known)}")
    return {**known, **fields}


def _base_on_hub(given: Mapping[str, Any]) -> str | None:
    base = given["base_model"]
    return base if isinstance(base, str) and _REPO_ID.fullmatch(base) and not Path(base).exists() else None


def _model_metadata(
    run: Mapping[str, Any], results: Mapping[str, Any], phases: Sequence[Mapping[str, Any]], name: str, given: Any
) -> str:
    sources = [source for source in run.get("data") or [] if isinstance(source, Mapping)]
    optional: dict[str, Any] = {}
    # Only what says that it is on the Hub is linked: "text/shop" may be a folder.
    if on_hub := list(dict.fromkeys(source["repo_id"] for source in sources if source.get("repo_id"))):
        optional["datasets"] = on_hub
    if base := _base_on_hub(given):
        optional["base_model"] = base
    masked = phases if given["pipeline_tag"] == "fill-mask" else []  # else their accuracy is of another task
    if measured := _eval_results(results, masked, sources):
        optional |= {"model_name": name, "eval_results": measured}
    optional |= {key: given[key] for key in ("license", "language") if given[key]}
    data = ModelCardData(
        library_name=given["library_name"],
        pipeline_tag=given["pipeline_tag"],
        tags=list(dict.fromkeys(given["tags"])),
        **optional,
    )
    return str(data.to_yaml())


def _eval_results(
    results: Mapping[str, Any], phases: Sequence[Mapping[str, Any]], sources: Sequence[Mapping[str, Any]]
) -> list[EvalResult]:
    """The `model-index`: the last held-out masked accuracy, and the metrics that the run itself lists."""
    found = []
    measured = [p["masked_accuracy_after"] for p in phases if _is_number(p.get("masked_accuracy_after"))]
    if measured:
        names = ", ".join(dict.fromkeys(str(source["name"]) for source in sources if source.get("name")))
        dataset = f"held-out text of {names}" if names else "held-out training text"
        found.append(
            EvalResult(
                task_type="fill-mask",
                task_name=MASKED,
                dataset_type="held-out",
                dataset_name=dataset,
                metric_type="accuracy",
                metric_name="masked-token accuracy",
                metric_value=measured[-1],
            )
        )
    for metric in results.get("metrics") or []:
        if not _is_number(metric.get("metric_value")):
            continue
        try:
            # The Hub's results are told apart by type and configuration of the data, not by their name.
            named: dict[str, Any] = (
                {} if metric.get("dataset_config") else {"dataset_config": slug(str(metric.get("dataset_name")))}
            )
            found.append(EvalResult(**{key: value for key, value in metric.items() if key != BESIDE}, **named))
        except TypeError as error:
            message = f"results.metrics has an entry that is not a huggingface_hub.EvalResult: {error}"
            raise ValueError(message) from None
    return found


COLUMNS = (
    ("name", "phase", _cell),
    ("tokens", "tokens", _count),
    ("steps", "steps", _count),
    ("masked_accuracy_before", "held-out accuracy before", _percent),
    ("masked_accuracy_after", "held-out accuracy after", _percent),
    ("loss", "training loss", lambda value: f"{value:.3f}" if _is_number(value) else ""),
    ("tokens_per_second", "tokens/s", _count),
)


def _phase_table(phases: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Header and rows; a column in which no phase has a number is left out."""
    columns = [c for c in COLUMNS if any(p.get(c[0]) is not None for p in phases)]
    rows = [[show(phase.get(key)) for key, _, show in columns] for phase in phases]
    return [[title for _, title, _ in columns], *rows] if rows and columns else []


def _earlier_phases(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Phases of the stages before a run, with the names of the stages."""
    stages = [stage for stage in results.get("stages") or [] if isinstance(stage, Mapping)]
    return [
        {**phase, "name": f"{stage.get('name')}: {phase.get('name')}"}
        for stage in stages
        for phase in stage.get("phases") or []
        if isinstance(phase, Mapping)
    ]


def _placed(section: Mapping[str, Any], repo: str) -> dict[str, Any]:
    return {**section, "text": str(section.get("text", "")).replace("{{ repo }}", repo)}


def _total(phases: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [phase.get(key) for phase in phases]
    return sum(values) if values and all(_is_number(value) for value in values) else None  # type: ignore[arg-type]


def _cost(run: Mapping[str, Any], results: Mapping[str, Any], phases: Sequence[Mapping[str, Any]]) -> str:
    """What the training took, of what is known: tokens, time, hardware."""
    tokens, seconds = _total(phases, "tokens"), results.get("seconds")
    seconds = seconds if _is_number(seconds) else _total(phases, "seconds")
    parts = [f"{tokens:,.0f} tokens"] if tokens is not None else []
    parts += [_time(seconds)] if seconds is not None else []
    parts += [str(run["hardware"])] if run.get("hardware") else []
    return "; ".join(parts)


def _tidy(text: str) -> str:
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def _checked(text: str, kind: type[ModelCard] | type[DatasetCard]) -> str:
    """The text, after huggingface_hub has read its metadata back."""
    split_card(text)
    try:
        kind(text)
    except Exception as error:  # YAML, missing keys, wrong types: the parser raises what it likes
        raise ValueError(f"the card's metadata is not valid: {error}") from error
    return text
