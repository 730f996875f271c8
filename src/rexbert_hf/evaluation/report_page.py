"""`report.md`: one table of tasks and models, then differences, slices, all figures, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_PLOT = "plots/figures.png"


def report_page(results: Mapping[str, Any]) -> str:
    """Render the report.

    Args:
        results: the content of `results.json`.
    """
    parts = ["# Evaluation", _made(results), _main_table(results)]
    if results.get("plot"):
        parts.append(f"![Primary figure of each task and model]({_PLOT})")
    parts += [*_comparisons(results), *_slices(results), *_all_figures(results), *_missing(results), *_notes(results)]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""A Markdown table.

    Args:
        header: of the columns.
        rows: cells; a pipe in one is escaped.

    Example:
        >>> print(table(["a"], [["1|2"]]))
        | a |
        | --- |
        | 1\|2 |
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def figure(mean: float | None, spread: float | None = None, best: bool = False) -> str:
    """A figure as the tables show it.

    Args:
        mean: over seeds; None for no figure.
        spread: over seeds.
        best: in bold.

    Example:
        >>> figure(0.12345, 0.01, best=True)
        '**.123** +- .010'
    """
    if mean is None:
        return ""
    text = _short(mean)
    return (f"**{text}**" if best else text) + ("" if spread is None else f" +- {_short(spread)}")


def _short(value: float) -> str:
    text = f"{value:.3f}"
    return text.replace("0.", ".", 1) if text.startswith(("0.", "-0.")) else text


def _made(results: Mapping[str, Any]) -> str:
    """When, on what and with what the cells were measured: cached ones may be older than the report."""
    told = results.get("measured") or {}
    budget = f"budget {results['config'].get('budget', 'small')}"
    if not told:
        return f"Report of {results['date']}; {budget}; its cells do not say when and where they were measured."
    packages = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    commit = f" Code: git commit `{told['git_commit']}`." if told.get("git_commit") else ""
    silent = sum(not cell["measured"] for cell in results["cells"])
    older = f" {silent} of {len(results['cells'])} cells do not say." if silent else ""
    return f"Measured {told['date']}; {told['hardware']}; {budget}. {packages}.{commit}{older}"


def _models(results: Mapping[str, Any]) -> list[str]:
    return [model["name"] for model in results["models"]]


def _rows(results: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(row["task"], row["model"]): row for row in results["table"]}


def _main_table(results: Mapping[str, Any]) -> str:
    rows, models = _rows(results), _models(results)
    if not rows:
        return "Nothing was measured."
    lines, unlike = [], []
    for name, task in results["tasks"].items():
        there = {model: rows[name, model] for model in models if (name, model) in rows}
        alike = all(row["over"] == next(iter(there.values()))["over"] for row in there.values())
        unlike += [] if alike else [f"`{name}`"]
        best = max((row["mean"] for row in there.values()), default=None) if alike and len(there) > 1 else None
        cells = [
            figure(there[model]["mean"], there[model]["spread"], there[model]["mean"] == best) if model in there else ""
            for model in models
        ]
        lines.append([f"{task['title']} (`{name}`)", task["metric"], task["data"], *cells])
    seeds = sorted({row["seeds"] for row in rows.values()})
    told = (
        f"Mean over seeds, +- their standard deviation ({'/'.join(map(str, seeds))} seeds; one where nothing is drawn"
    )
    told += "). Bold is the best of a row."
    if unlike:
        told += f" {', '.join(unlike)}: models' figures are over other test examples or cells, so none is the best."
    return table(["task", "metric", "data", *models], lines) + f"\n\n{told}"


def _comparisons(results: Mapping[str, Any]) -> list[str]:
    rows = results["comparisons"]
    if not rows:
        return []
    lines = [
        [
            f"{row['first']} - {row['second']}",
            row["task"],
            f"{row['difference']:+.4f}",
            f"{row['low']:+.4f} to {row['high']:+.4f}",
            f"{row['p_value']:.4f}",
            f"{row['adjusted']:.4f}",
            f"{row['drawn']:,}",
            "yes" if row["real"] else "no",
        ]
        for row in rows
    ]
    told = (
        f"Paired bootstrap over test examples, {results['config']['resamples']:,} resamples. P-values are adjusted "
        "over the tasks of a pair (Holm); below .05 a difference counts as real. Spread over seeds is not part of it. "
        "What is drawn are texts, queries or products with all their examples; how many there are stands in the table."
    )
    header = ["pair", "task", "difference", "95 %", "p", "p (Holm)", "drawn", "real"]
    return ["## Differences", told, table(header, lines)]


def _slices(results: Mapping[str, Any]) -> list[str]:
    rows = [row for row in results["table"] if row["slices"]]
    if not rows:
        return []
    names = list(dict.fromkeys(name for row in rows for name in row["slices"]))
    lines = [
        [row["task"], row["model"], figure(row["mean"]), *(figure(row["slices"].get(name)) for name in names)]
        for row in rows
    ]
    told = "The primary figure on changed inputs, beside that on the inputs as they are."
    return ["## Robustness", told, table(["task", "model", "as it is", *names], lines)]


def _all_figures(results: Mapping[str, Any]) -> list[str]:
    parts = []
    for name, task in results["tasks"].items():
        rows = [row for row in results["table"] if row["task"] == name]
        if not rows:
            continue
        names = list(dict.fromkeys(metric for row in rows for metric in row["all"]))
        lines = []
        for metric in names:
            values = [row["all"].get(metric, {}) for row in rows]
            lines.append([metric, *(figure(value.get("mean"), value.get("spread")) for value in values)])
        counts = ", ".join(f"{key} {value:,}" for key, value in task["counts"].items())
        told = f"{task['paper']}; comparable with the paper: {task['comparable']}. {counts}."
        parts += [f"### {task['title']}", told, table(["figure", *(row["model"] for row in rows)], lines)]
    return ["## All figures", *parts] if parts else []


def _missing(results: Mapping[str, Any]) -> list[str]:
    parts = []
    for key, title in (("skipped", "## Skipped"), ("failed", "## Failed")):
        if results[key]:
            parts += [title, "\n".join(f"- {what}: {why}" for what, why in results[key].items())]
    return parts


def _notes(results: Mapping[str, Any]) -> list[str]:
    lines = [f"- {name}: {note}" for name, task in results["tasks"].items() for note in task["notes"]]
    return ["## Notes", "\n".join(lines)] if lines else []
