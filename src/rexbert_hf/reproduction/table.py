"""The report: a Markdown table of the rows beside the paper's figures, and each claim with its verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

from rexbert_hf.hub.run_file import hardware, versions
from rexbert_hf.reproduction.intervals import UNDECIDED, paired_difference, verdict
from rexbert_hf.reproduction.settings import Claim, ReproductionSettings, Stage

Rows = Mapping[str, Mapping[int, Mapping[str, Any]]]


def judge(settings: ReproductionSettings, rows: Rows) -> list[dict[str, Any]]:
    """Test the claims whose rows were run.

    Args:
        settings: the reproduction.
        rows: values by row and seed.

    Returns:
        A mapping a claim: `name`, `text`, `seeds`, `differences`, `mean`, `low`, `high`, `at_least`, `verdict`.
    """
    chosen = {row.name for row in settings.chosen_rows()}
    return [_judge(settings, claim, rows) for claim in settings.claims if {claim.row, claim.than} <= chosen]


def _judge(settings: ReproductionSettings, claim: Claim, rows: Rows) -> dict[str, Any]:
    ours, theirs = rows.get(claim.row, {}), rows.get(claim.than, {})
    seeds = [
        seed for seed in settings.seeds if claim.value in ours.get(seed, {}) and claim.value in theirs.get(seed, {})
    ]
    found: dict[str, Any] = {"name": claim.name, "text": claim.text, "value": claim.value, "row": claim.row}
    found |= {"than": claim.than, "at_least": claim.at_least, "paper": claim.paper, "seeds": seeds}
    if not seeds:
        return found | {"differences": [], "verdict": UNDECIDED}
    difference = paired_difference(
        [ours[seed][claim.value] for seed in seeds], [theirs[seed][claim.value] for seed in seeds], settings.confidence
    )
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
    tokens = sorted({count for row, count in results["tokens_per_row"].items() if row not in apart})
    lines = [f"# {settings.title or settings.paper}", ""]
    lines += [f"- command: `{results['command'] or 'rexbert_hf.reproduction.reproduce'}`"]
    lines += [f"- date: {datetime.now(UTC).strftime('%Y-%m-%d %H:%M UTC')}; hardware: {hardware()}"]
    lines += ["- versions: " + ", ".join(f"{name} {version}" for name, version in versions().items())]
    planned = " to ".join(f"{count:,}" for count in tokens)
    lines += [f"- {planned} tokens behind each row; seeds {', '.join(map(str, seeds)) or 'none yet'}"]
    for name, count in results["shared_tokens"].items():
        lines += [
            f"- {name}: {count:,} of them, trained once (seed {settings.base.seed}); every row of every seed starts"
            " from that one model, and seeds vary what follows: order of the documents, masks, dropout if there is any"
        ]
    lines += ["", "Shares in %: mean +- standard deviation over seeds [lowest, highest].", ""]
    heads = ["row", "seeds", "tokens", *settings.columns.values(), "paper"]
    lines += [_line(heads), _line(["---"] * len(heads))]
    lines += [_line(_cells(settings, row, rows.get(row.name, {}))) for row in settings.chosen_rows()]
    lines += [
        "",
        f"Claims, by paired differences over seeds in points, with a {settings.confidence:.0%} t interval:",
        "",
    ]
    heads = ["claim", "value", "difference", "interval", "by seed", "must exceed", "paper", "verdict"]
    lines += [_line(heads), _line(["---"] * len(heads))]
    lines += [_line(_claim_cells(settings, claim)) for claim in results["claims"]]
    if results["plot"]:
        lines += ["", f"![learning curves]({results['plot']})"]
    lines += ["", *_counts(settings, rows), *(f"- {note}" for note in settings.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _counts(settings: ReproductionSettings, rows: Rows) -> list[str]:
    """How many masked tokens a measure saw, where it says so."""
    first: Mapping[str, Any] = next((values for found in rows.values() for values in found.values()), {})
    lines = []
    for measure in settings.measures:
        total, guided = first.get(f"{measure.name}.count"), first.get(f"{measure.name}.count_guided")
        if total:
            lines.append(
                f"- {measure.name}: {total:,.0f} masked tokens, {guided or 0:,.0f} of them in guided spans; the same"
                " documents and masks for all rows and seeds"
            )
    return lines


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(settings: ReproductionSettings, row: Stage, found: Mapping[int, Mapping[str, Any]]) -> list[str]:
    counts = [values["tokens"] for values in found.values()]
    number = "shared" if row.shared and found else str(len(found))
    cells = [row.label or row.name, number, f"{fmean(counts):,.0f}" if counts else "-"]
    for column in settings.columns:
        values = [100 * values[column] for values in found.values() if column in values]
        cells.append(spread(values[:1] if row.shared else values))
    paper = ", ".join(f"{settings.columns.get(key, key)} {value:g}" for key, value in row.paper.items())
    return [*cells, paper or "unpublished"]


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
    value = settings.columns.get(claim["value"], claim["value"])
    bound = f"{100 * claim['at_least']:+.1f}"
    if not claim["differences"]:
        return [text, value, "-", "-", "-", bound, claim["paper"], claim["verdict"]]
    known = math.isfinite(claim["low"])
    interval = f"[{100 * claim['low']:+.2f}, {100 * claim['high']:+.2f}]" if known else "one seed"
    by_seed = ", ".join(f"{100 * difference:+.2f}" for difference in claim["differences"])
    return [
        text,
        value,
        f"{100 * claim['mean']:+.2f}",
        interval,
        by_seed,
        bound,
        claim["paper"],
        f"**{claim['verdict']}**",
    ]
