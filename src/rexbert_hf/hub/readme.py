"""Reading and merging README files with a metadata block, as the Hub keeps them.

The text between two marks belongs to the renderer and is replaced by the next rendering; everything outside the
marks, and metadata that the renderer does not know, belongs to whoever wrote it and is kept.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

BEGIN = "<!-- rexbert_hf:begin (rendered from run.json: edits between these marks are overwritten) -->"
END = "<!-- rexbert_hf:end -->"
MASKED = "Masked-token prediction"
"""The task's name in `model-index` of what a pre-training measures itself."""
_BLOCK = re.compile(r"\A\s*---[ \t]*\r?\n(?P<metadata>.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"<!-- rexbert_hf:begin\b.*?<!-- rexbert_hf:end -->", re.DOTALL)


def split_card(text: str) -> tuple[dict[str, Any], str]:
    r"""Metadata and body of a card.

    Args:
        text: the README; without a metadata block all of it is body.

    Raises:
        ValueError: when the block is not a YAML mapping; the line is named.

    Example:
        >>> split_card("---\nlicense: mit\n---\n# Hello\n")
        ({'license': 'mit'}, '# Hello\n')
    """
    found = _BLOCK.match(text.removeprefix("\ufeff"))
    if not found:
        return {}, text
    try:
        metadata = yaml.safe_load(found["metadata"])
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 2}" if mark else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise ValueError(f"README.md{where}: the metadata block is not valid YAML ({problem}); fix it there") from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        # What PyYAML says of values that do not fit their tag, such as a date in month 13.
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ValueError(f"README.md: the metadata block holds a value that is none ({reason}); fix it there") from None
    if metadata is not None and not isinstance(metadata, dict):
        raise ValueError("README.md: the metadata block is not a mapping; write it as 'key: value' lines")
    return metadata or {}, text.removeprefix("\ufeff")[found.end() :]


def merge_card(existing: str | None, rendered: str) -> str:
    r"""Bring a fresh card into a README that somebody may have edited.

    Their text stays: only the marked part is replaced, and a README without marks keeps its whole body, unless the
    card brings text of its own that holds all of theirs and more. A marked part goes only where the card has another.
    Their metadata stays too: lists are joined, keys that they set keep their value, measured results (`model-index`)
    are replaced where task and dataset agree, and go where our part of the old card showed them (and a new part takes
    its place); so does `base_model`.

    Args:
        existing: the README that is there, or None.
        rendered: the new card.

    Raises:
        ValueError: when the existing metadata cannot be read.

    Example:
        >>> print(merge_card("---\nlicense: mit\n---\nMine.\n", "---\nlicense: x\ntags: [a]\n---\nNew.\n"))
        ---
        license: mit
        tags:
        - a
        ---
        Mine.
        <BLANKLINE>
    """
    if existing is None or not existing.strip():
        return rendered
    old, old_body = split_card(existing)
    new, new_body = split_card(rendered)
    block = _GENERATED.search(old_body)
    ours = _GENERATED.search(new_body)
    shown = block[0] if block and ours else ""  # what this rendering takes out of the text
    if "base_model" in old and _shows(shown, old["base_model"]):
        del old["base_model"]
    merged = {**new, **old}
    if "model-index" in old:
        merged["model-index"] = _merge_index(old["model-index"], new.get("model-index"), shown)
        if not merged["model-index"]:
            del merged["model-index"]
    for key in (new.keys() & old.keys()) - {"model-index"}:
        if isinstance(new[key], list) and isinstance(old[key], (list, str)):
            theirs = [old[key]] if isinstance(old[key], str) else old[key]
            merged[key] = theirs + [item for item in new[key] if item not in theirs]
    theirs, mine = _own_text(old_body), _own_text(new_body)
    if (ours or not block) and _holds(mine, theirs) and not _holds(theirs, mine):
        body = new_body
    elif ours and block:
        body = _GENERATED.sub(lambda _: ours[0], old_body, count=1)
    else:
        body = old_body if old_body.strip() else new_body
    metadata = yaml.safe_dump(merged, sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{metadata}---\n{body}"


def overruled(card: str, merged: str) -> list[str]:
    r"""What of a card did not come into the README that it was merged into: metadata keys, and "text".

    Args:
        card: a rendered card, with what people wrote into it.
        merged: the README.

    Example:
        >>> overruled("---\nlicense: mit\ntags: [a]\n---\nMine.\n", "---\nlicense: x\n---\nTheirs.\n")
        ['license', 'text']
    """
    (mine, text), (found, body) = split_card(card), split_card(merged)
    lost = [key for key, value in mine.items() if not isinstance(value, list) and found.get(key) != value]
    return lost + ([] if _holds(_own_text(body), _own_text(text)) else ["text"])


def _own_text(body: str) -> list[str]:
    """What people wrote before and after the marked part of a body."""
    return [part.strip() for part in _GENERATED.split(body, maxsplit=1)]


def _holds(parts: list[str], others: list[str]) -> bool:
    return all(other in "\n".join(parts) for other in others)


def _shows(block: str, base_model: Any) -> bool:
    """Whether our part of a card names all of its base models."""
    names = base_model if isinstance(base_model, list) else [base_model]
    return all(re.search(rf"(?<![\w./-]){re.escape(str(name))}(?![\w/-])", block) for name in names)


def _merge_index(old: Any, new: Any, ours: str) -> Any:
    """Our new results, and those of the old ones that our part of the old card did not show: others wrote them."""
    if not (isinstance(old, list) and old and isinstance(old[0], dict)):
        return new or old
    latest = new[0] if isinstance(new, list) and new else {}

    def where(result: Any) -> str:
        dataset, task = (_part(result, name) for name in ("dataset", "task"))
        return str([task.get("type"), {k: dataset.get(k) for k in ("type", "config", "split")}])

    fresh = {where(result) for result in latest.get("results") or []}
    rows = {_cells(line)[:3] for line in ours.splitlines() if line.startswith("|")}
    found: Any = old[0].get("results")
    theirs = found if isinstance(found, list) else []
    kept = [_not_in(result, rows) for result in theirs if where(result) not in fresh]
    results = (latest.get("results") or []) + [result for result in kept if result is not None]
    return [*([{**old[0], **latest, "results": results}] if results else []), *old[1:]]


def _cells(line: str) -> tuple[str, ...]:
    """Cells of a table's line, without the escapes that the renderer puts in."""
    parts = re.split(r"(?<!\\)\|", line)[1:]
    return tuple(part.strip().replace("\\|", "|").replace("&lt;", "<") for part in parts)


def _part(result: Any, name: str) -> dict[str, Any]:
    found = result.get(name) if isinstance(result, dict) else None
    return found if isinstance(found, dict) else {}


def _not_in(result: Any, rows: set[tuple[str, ...]]) -> Any:
    """A result without the metrics that stand in a table (task, data, metric); None if nothing is left."""
    task, dataset = _part(result, "task"), _part(result, "dataset")
    metrics = result.get("metrics") if isinstance(result, dict) else None
    if not isinstance(metrics, list) or not rows:
        return result
    if task.get("name") == MASKED:
        return None
    names = (str(task.get("name") or task.get("type")), str(dataset.get("name")))
    kept = [one for one in metrics
            if not isinstance(one, dict) or (*names, str(one.get("name") or one.get("type"))) not in rows]  # fmt: skip
    return {**result, "metrics": kept} if kept else None
