"""The rows of a card's table of figures: over how many seeds, what is not the full protocol, other models beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .evaluated import BESIDE, changes_of

NOT_COMPARED = "(not compared)"


def metrics_table(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the template `metrics_table.md` shows.

    Args:
        metrics: fields of `huggingface_hub.EvalResult`, with other models' figures where an evaluation put them.

    Example:
        >>> beside = {"a": {"value": 0.2, "real": True}, "b": {"value": 0.3, "real": None}}
        >>> metrics_table([{"metric_value": 0.1, "beside": beside}])["metrics"][0]["of_peers"]
        ['0.2*', '0.3 (not compared)']
    """
    peers = list(dict.fromkeys(peer for metric in metrics for peer in metric.get(BESIDE) or {}))
    told = [(metric.get("metric_args") or {}).get("budget") for metric in metrics]
    budgets = {budget for budget in told if budget is not None} != {"full"}
    rows = [
        {
            **m,
            "over_seeds": _over_seeds(m),
            "protocol": _protocol(m, budgets),
            "of_peers": [_of_peer(m, peer) for peer in peers],
        }
        for m in metrics
    ]
    return {"metrics": rows, "peers": peers, "not_compared": _not_compared(metrics)}


def _over_seeds(metric: Mapping[str, Any]) -> str:
    """Number of seeds, and the standard deviation over them; empty where the metric does not say."""
    told = metric.get("metric_args") or {}
    spread = f", +- {told['spread_over_seeds']}" if "spread_over_seeds" in told else ""
    return f"{told['seeds']}{spread}" if "seeds" in told else ""


def _protocol(metric: Mapping[str, Any], budgets: bool) -> str:
    """The budget, where not all figures have the full one, and what was set by hand."""
    budget = (metric.get("metric_args") or {}).get("budget")
    parts = [f"{budget} budget"] if budgets and budget is not None else []
    parts += [f"{name} {_plain(value)}".removesuffix(" True") for name, value in changes_of(metric).items()]
    return "; ".join(parts)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _of_peer(metric: Mapping[str, Any], peer: str) -> str:
    """Another model's figure, and whether the difference is real; empty where it has none."""
    told = (metric.get(BESIDE) or {}).get(peer)
    if not told:
        return ""
    real = told.get("real")
    return f"{told['value']}{f' {NOT_COMPARED}' if real is None else '*' if real else ''}"


def _not_compared(metrics: Sequence[Mapping[str, Any]]) -> str:
    """The mark of a figure that nothing was said of; empty where each was compared."""
    found = any(told.get("real") is None for metric in metrics for told in (metric.get(BESIDE) or {}).values())
    return NOT_COMPARED if found else ""
