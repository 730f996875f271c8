"""The distribution over domains as bars (RexBERT's figure 1): an SVG of a few kilobytes, written without a library."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_BAR, _GAP, _LEFT, _WIDTH, _RIGHT, _TOP = 18, 6, 150, 420, 150, 34
_COLOR, _TEXT = "#1f4e79", "#333333"
_MOST = 40


def domain_figure(counts: Mapping[str, int], unit: str) -> str:
    """Draw counts by domain, the largest first; the smallest of many domains are drawn as one.

    Args:
        counts: of each domain.
        unit: what is counted.

    Raises:
        ValueError: if there is nothing to draw.

    Example:
        >>> svg = domain_figure({"hobby": 750_000, "news": 250_000}, "tokens")
        >>> "hobby" in svg, "750,000 (75.0 %)" in svg
        (True, True)
    """
    total = sum(counts.values())
    if total <= 0:
        raise ValueError("no domain has a count above 0: there is nothing to draw")
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if len(rows) > _MOST:
        rest = rows[_MOST - 1 :]
        rows = [*rows[: _MOST - 1], (f"{len(rest)} others", sum(count for _, count in rest))]
    most = max(count for _, count in rows)
    height = _TOP + len(rows) * (_BAR + _GAP) + _GAP
    width = _LEFT + _WIDTH + _RIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
        f' font-family="sans-serif" font-size="12" fill="{_TEXT}">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-size="13">{total:,} {escape(unit)} by domain</text>',
    ]
    for i, (name, count) in enumerate(rows):
        y = _TOP + i * (_BAR + _GAP)
        bar = _WIDTH * count / most
        baseline = y + _BAR - 5
        lines += [
            f'<text x="{_LEFT - 8}" y="{baseline}" text-anchor="end">{escape(_short(name))}</text>',
            f'<rect x="{_LEFT}" y="{y}" width="{bar:.1f}" height="{_BAR}" fill="{_COLOR}"/>',
            f'<text x="{_LEFT + bar + 6:.1f}" y="{baseline}">{count:,} ({100 * count / total:.1f} %)</text>',
        ]
    return "\n".join([*lines, "</svg>", ""])


def _short(name: str) -> str:
    return name if len(name) <= 22 else f"{name[:20]}.."
