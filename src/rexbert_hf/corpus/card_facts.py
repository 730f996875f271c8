"""From the stages' reports to what a card shows; a figure that a report lacks is None or empty, never guessed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Details = Mapping[str, Any]


def stage_rows(stages: Mapping[str, Details]) -> list[dict[str, Any]]:
    """One row a stage: read, written, and why not.

    Example:
        >>> stage_rows({"filter": {"read": 5, "written": 3, "reasons": {"language": 2}}})
        [{'name': 'filter', 'read': 5, 'written': 3, 'why': 'language 2'}]
    """
    return [
        {"name": name, "read": stage["read"], "written": stage["written"], "why": reasons_line(stage["reasons"])}
        for name, stage in stages.items()
    ]


def reasons_line(reasons: Mapping[str, int]) -> str:
    """Reasons with their counts, the most frequent first.

    Example:
        >>> reasons_line({"empty": 1, "near_duplicate": 1200})
        'near duplicate 1,200, empty 1'
    """
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in ordered if count)


def label_cost(details: Mapping[str, Details]) -> str | None:
    """What the labels and their audit cost; None where no answer had a price.

    The selection's answers are left out: the labels may have used the same ones.

    Args:
        details: of the stages, by name.

    Example:
        >>> label_cost({"label": {"currency": "USD", "used": {"cost": 1.5}}, "audit": {}})
        'Labels and their audit: 1.50 USD'
    """
    costs: dict[str, float] = {}
    for stage in (details.get("label") or {}, details.get("audit") or {}):
        if paid := (stage.get("used") or {}).get("cost"):
            costs[stage["currency"]] = costs.get(stage["currency"], 0.0) + paid
    told = ", ".join(f"{cost:,.2f} {currency}" for currency, cost in costs.items())
    return f"Labels and their audit: {told}" if told else None


def select_facts(details: Details) -> list[dict[str, Any]]:
    """Domains with their shares, the largest first."""
    rows = [row for row in details.get("domains") or [] if row.get("labelled")]
    rows.sort(key=lambda row: (-row["share"], row["domain"]))
    return [
        {"domain": row["domain"], "sampled": row["labelled"], "taken": row["picked"]}
        | {name: row[name] for name in ("share", "low", "high")}
        for row in rows
    ]


def label_facts(details: Details, vertical: Details) -> list[dict[str, Any]]:
    """Documents by label, the most frequent first, with what the vertical says about each.

    Example:
        >>> vertical = {"labels": {"shop": "sells"}, "in_domain": ["shop"]}
        >>> label_facts({"labels": {"shop": 5}}, vertical)
        [{'label': 'shop', 'documents': 5, 'wanted': 'yes', 'meaning': 'sells'}]
    """
    counts = sorted((details.get("labels") or {}).items(), key=lambda item: (-item[1], item[0]))
    meanings, wanted = vertical.get("labels") or {}, vertical.get("in_domain") or []
    return [
        {
            "label": label,
            "documents": count,
            "wanted": ("yes" if label in wanted else "no") if label in meanings else "",
            "meaning": meanings.get(label, ""),
        }
        for label, count in counts
    ]


def audit_facts(details: Details) -> dict[str, Any] | None:
    """Agreement of the second opinion, in all and by domain."""
    audit = details.get("audit")
    if not audit or not audit.get("all"):
        return None
    whole = audit["all"]
    asked = "on whether a document belongs" if audit.get("compare") == "in_domain" else "on the label"
    sentence = (
        f"A second labeller ({_who(details.get('second'))}) looked again at {audit['pairs']:,} documents of the first"
        f" ({_who(details.get('first'))}), drawn evenly from domains and labels and weighted by their sizes. They agree"
        f" {asked} in {_percent(whole['agreement'])}; Cohen's kappa is {_number(whole['kappa'])}."
    )
    rows = [
        {
            "domain": domain,
            "documents": found["pairs"],
            **{new: found["agreement"][old] for new, old in _AGREEMENT.items()},
            "kappa": _number(found["kappa"]),
        }
        for domain, found in (audit.get("by_domain") or {}).items()
    ]
    return {"sentence": sentence, "domains": rows}


def _who(labeller: str | None) -> str:
    return {"ready": "ready labels", None: "unnamed"}.get(labeller, str(labeller))


_AGREEMENT = {"agreement": "value", "low": "low", "high": "high"}


def _percent(interval: Details) -> str:
    return (
        f"{100 * interval['value']:.1f} % (95 % interval {100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
    )


def _number(interval: Details) -> str:
    """A figure with its interval; "undefined" where it has no value."""
    if interval.get("value") is None:
        return "undefined"
    bounds = [interval.get("low"), interval.get("high")]
    shown = f" ({bounds[0]:.3f} to {bounds[1]:.3f})" if None not in bounds else ""
    return f"{interval['value']:.3f}{shown}"


def classifier_facts(details: Details) -> list[dict[str, str]]:
    """What the classifier reached on the documents that neither training nor the threshold saw.

    Example:
        >>> test = {"documents": 40, "positives": 9, "precision": 0.9, "precision_interval": [0.7, 0.97]}
        >>> classifier_facts({"threshold": 0.42, "test": test})[1]
        {'name': 'precision', 'value': '0.900', 'interval': '0.700 to 0.970'}
    """
    test = details.get("test") or {}
    rows = []
    if details.get("threshold") is not None:
        rows.append({"name": "threshold", "value": f"{details['threshold']:.2f}", "interval": ""})
    for name in ("precision", "recall", "f1"):
        if test.get(name) is not None:
            low, high = test.get(f"{name}_interval") or (None, None)
            shown = "" if low is None else f"{low:.3f} to {high:.3f}"
            rows.append({"name": name.replace("f1", "F1"), "value": f"{test[name]:.3f}", "interval": shown})
    counts = {"test documents": test.get("documents"), "of them in domain": test.get("positives")}
    rows += [{"name": name, "value": f"{count:,}", "interval": ""} for name, count in counts.items() if count]
    return rows
