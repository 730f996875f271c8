"""The report: a Markdown table of the rows beside the paper's figures, and each claim with its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

from rexbert_hf.hub.run_file import hardware, versions
from rexbert_hf.reproduction.intervals import UNDECIDED, paired_difference, verdict
from rexbert_hf.reproduction.settings import Claim, ReproductionSettings
from rexbert_hf.reproduction.stages import Stage

Rows = Mapping[str, Mapping[int, Mapping[str, Any]]]


def judge(settings: ReproductionSettings, rows: Rows) -> list[dict[str, Any]]:
    """Test the claims whose rows were run.

    Args:
        settings: the reproduction.
        rows: values by row and seed.

    Returns:
        A mapping a claim: `name`, `text`, `seeds`, `differences` (of a relative claim: shares of the other row's
        value), `mean`, `low`, `high`, `at_least`, `verdict`.
    """
    chosen = {row.name for row in settings.chosen_rows()}
    return [_judge(settings, claim, rows) for claim in settings.claims if {claim.row, claim.than} <= chosen]


def _judge(settings: ReproductionSettings, claim: Claim, rows: Rows) -> dict[str, Any]:
    pair = list(zip((rows.get(claim.row, {}), rows.get(claim.than, {})), claim.values, strict=True))
    seeds = [seed for seed in settings.seeds if all(value in found.get(seed, {}) for found, value in pair)]
    found: dict[str, Any] = {"name": claim.name, "text": claim.text, "value": claim.value, "row": claim.row}
    found |= {"than": claim.than, "than_value": claim.values[1], "at_least": claim.at_least, "relative": claim.relative}
    found |= {"paper": claim.paper, "seeds": seeds}
    better, worse = ([found[seed][value] for seed in seeds] for found, value in pair)
    if not seeds or (claim.relative and not all(worse)):
        return found | {"differences": [], "verdict": UNDECIDED}
    if claim.relative:
        better, worse = [a / b for a, b in zip(better, worse, strict=True)], [1.0] * len(worse)
    difference = paired_difference(better, worse, settings.confidence)
    found |= {"differences": list(difference.values), "mean": difference.mean}
    found |= {"low": difference.low, "high": difference.high, "verdict": verdict(difference, claim.at_least)}
    return found


def render(settings: ReproductionSettings, results: Mapping[str, Any]) -> str:
    """The report as Markdown.

    Args:
        settings: the reproduction.
        results: `rows`, `claims`, `tokens_per_row`, `shared_tokens`, `command`.
    """
    rows: Rows = results["rows"]
    seeds = sorted({seed for found in rows.values() for seed in found})
    apart = {row.name for row in settings.chosen_rows() if row.shared}
    tokens = sorted({count for row, count in results["tokens_per_row"].items() if row not in apart and count})
    lines = [f"# {settings.title or settings.paper}", ""]
    lines += [f"- command: `{results['command'] or 'rexbert_hf.reproduction.reproduce'}`"]
    lines += [f"- date: {datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}; hardware: {hardware()}"]
    lines += ["- versions: " + ", ".join(f"{name} {version}" for name, version in versions().items())]
    planned = " to ".join(f"{count:,}" for count in tokens[:: max(1, len(tokens) - 1)])
    lines += [f"- {planned} tokens behind each row; seeds {', '.join(map(str, seeds)) or 'none yet'}"]
    lines += [
        f"- {name}: {count:,} of them, trained once (seed {settings.base.seed}); what comes after it starts from that"
        " one model with every seed; seeds vary what follows: order of the documents, masks, dropout if there is any"
        for name, count in results["shared_tokens"].items()
    ]
    lines += _variants(settings, rows)
    lines += ["", "Shares in %: mean +- standard deviation over seeds [lowest, highest].", ""]
    lines += _rows(settings, rows, settings.columns, whole=True)
    for title, columns in settings.further.items():
        lines += ["", f"{title}:", "", *_rows(settings, rows, columns, whole=False)]
    lines += [
        "",
        "Claims, by paired differences over seeds in points (with %: relative to the other row), with a"
        f" {settings.confidence:.0%} t interval:",
        "",
    ]
    heads = ["claim", "value", "difference", "interval", "by seed", "must exceed", "paper", "verdict"]
    lines += [_line(heads), _line(["---"] * len(heads))]
    lines += [_line(_claim_cells(settings, claim)) for claim in results["claims"]]
    if results["plot"]:
        lines += ["", f"![learning curves]({results['plot']})"]
    lines += ["", *_counts(settings, rows), *(f"- {note}" for note in settings.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _rows(settings: ReproductionSettings, rows: Rows, columns: Mapping[str, str], whole: bool) -> list[str]:
    """The rows, with a heading before each group.

    Args:
        settings: the reproduction.
        rows: values by row and seed.
        columns: what is shown, and its headings.
        whole: show what was trained and the paper's figures too.
    """
    trained = [
        name for name in ("tokens", "steps") if any(name in v for found in rows.values() for v in found.values())
    ]
    trained = [name for name in (trained or ["tokens"]) if whole]
    heads = ["row", "seeds", *trained, *columns.values(), *(["paper"] if whole else [])]
    lines = [_line(heads), _line(["---"] * len(heads))]
    group = ""
    for row in settings.chosen_rows():
        if row.group != group:
            group = row.group
            lines.append(_line([f"**{group}**", *[""] * (len(heads) - 1)]))
        cells = _cells(row, rows.get(row.name, {}), trained, columns)
        paper = ", ".join(f"{columns.get(key, key)} {value:g}" for key, value in row.paper.items())
        lines.append(_line([*cells, *([paper or "unpublished"] if whole else [])]))
    return lines


def _variants(settings: ReproductionSettings, rows: Rows) -> list[str]:
    """What tells the rows apart, where the paper's file says it; weights are counted."""
    chosen = settings.chosen_rows()
    heads = list(dict.fromkeys(head for row in chosen for head in row.facts))
    if not heads:
        return []
    lines = ["", _line(["row", "weights", *heads]), _line(["---"] * (len(heads) + 2))]
    for row in chosen:
        counts = [values["parameters"] for values in rows.get(row.name, {}).values() if "parameters" in values]
        weights = f"{counts[0] / 1e6:.2f}M" if counts else "-"
        lines.append(_line([row.label or row.name, weights, *(row.facts.get(head, "-") for head in heads)]))
    return lines


def _counts(settings: ReproductionSettings, rows: Rows) -> list[str]:
    """How many masked tokens, or queries and products, a measure saw, where it says so."""
    first: dict[str, Any] = {}
    for found in rows.values():
        for values in found.values():
            first = {**values, **first}
    lines = []
    for measure in settings.measures:
        total, guided = first.get(f"{measure.name}.count"), first.get(f"{measure.name}.count_guided")
        queries, products = first.get(f"{measure.name}.queries"), first.get(f"{measure.name}.products")
        if queries and products:
            lines.append(
                f"- {measure.name}: {queries:,.0f} queries over {products:,.0f} products, the same for all rows and"
                " seeds"
            )
        if total:
            lines.append(
                f"- {measure.name}: {total:,.0f} masked tokens, {guided or 0:,.0f} of them in guided spans; the same"
                " documents and masks for all rows and seeds"
            )
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(
    row: Stage, found: Mapping[int, Mapping[str, Any]], trained: list[str], columns: Mapping[str, str]
) -> list[str]:
    number = "shared" if row.shared and found else str(len(found))
    cells = [row.label or row.name, number]
    for name in trained:
        counts = [values[name] for values in found.values() if values.get(name)]
        cells.append(f"{fmean(counts):,.0f}" if counts else "-")
    for column in columns:
        values = [100 * values[column] for values in found.values() if column in values]
        cells.append(spread(values[:1] if row.shared else values))
    return cells


def spread(values: list[float]) -> str:
    """Mean, standard deviation and range of a few values.

    Example:
        >>> spread([10.0, 12.0]), spread([1.0]), spread([])
        ('11.00 +- 1.41 [10.00, 12.00]', '1.00', '-')
    """
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{fmean(values):.2f} +- {stdev(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def _claim_cells(settings: ReproductionSettings, claim: Mapping[str, Any]) -> list[str]:
    labels = {row.name: row.label or row.name for row in settings.stages}
    text = f"{claim['text']} ({labels[claim['row']]} - {labels[claim['than']]})"
    heads = {key: head for columns in (*settings.further.values(), settings.columns) for key, head in columns.items()}
    value, other = (heads.get(claim[key], claim[key]) for key in ("value", "than_value"))
    value = value if other == value else f"{value} - {other}"
    unit = " %" if claim["relative"] else ""
    bound = f"{100 * claim['at_least']:+.1f}{unit}"
    if not claim["differences"]:
        return [text, value, "-", "-", "-", bound, claim["paper"], claim["verdict"]]
    known = math.isfinite(claim["low"])
    interval = f"[{100 * claim['low']:+.2f}, {100 * claim['high']:+.2f}]{unit}" if known else "one seed"
    by_seed = ", ".join(f"{100 * difference:+.2f}" for difference in claim["differences"])
    return [
        text,
        value,
        f"{100 * claim['mean']:+.2f}{unit}",
        interval,
        by_seed,
        bound,
        claim["paper"],
        f"**{claim['verdict']}**",
    ]
