"""What of the built-in sample web may not go with sources of one's own: its card with its licence, and its labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from ..catalog.mixed_sample import warn_of_sample
from ..settings.convert import structured
from ..settings.tree import Node
from .audit import AuditSettings
from .documents import DocumentSource
from .stages import read_report

_SAMPLE_WEB = "built-in sample web"
"""What the cards of the sample's configurations name as their source, and in their summary."""


def without_sample_card(root: Node) -> Node:
    """Leave out what a file's card says about the sample web, with a warning, where sources are the user's own.

    Args:
        root: the curation as written.
    """
    build = _part(root, "build")
    card = _part(build, "card")
    if build is None or card is None or not isinstance(card.value, dict) or not _has_own(root):
        return root
    files = [_place(node) for node in card.value.values() if _names_sample(structured(node))]
    if not files:
        return root
    gone = [name for name, node in card.value.items() if _place(node) == files[0]]
    way_out = f"left out ({files[0]}), set --build.card.name, .summary and .sources"
    warn_of_sample(f"{', '.join(gone)} of build.card", "sources", way_out)
    kept = dataclasses.replace(card, value={name: node for name, node in card.value.items() if name not in gone})
    return _with(root, "build", _with(build, "card", kept))


def check_audit_labels(settings: AuditSettings, sources: list[DocumentSource], output: Path) -> None:
    """Refuse to audit documents of one's own by the labels of the sample web, before anything is labelled.

    Args:
        settings: of the audit.
        sources: of the documents.
        output: the audit's folder; an audit that has passed there is left alone.

    Raises:
        ValueError: if the second labeller has labels of the sample, and no source is a sample.
    """
    ready = settings.labeller.ready
    asked = settings.labeller.kind == "ready" and settings.by == "labeller" and ready.sample
    if asked and not any(source.sample for source in sources) and read_report(output) is None:
        if ready.path:
            raise ValueError(
                f"audit.labeller.ready has a path ({ready.path}) and a sample ({ready.sample}): leave the sample out,"
                " --audit.labeller.ready.sample ''"
            )
        raise ValueError(
            f"audit.labeller: the ready labels are those of the sample ({ready.sample}), and sources your own: set"
            " --audit.labeller.kind to another labeller than label.kind, --audit.labeller.ready '{path: ...}' to labels"
            " of yours, --audit.by person, or leave audit out of --stages"
        )


def _has_own(root: Node) -> bool:
    node = root.value.get("sources") if isinstance(root.value, dict) else None
    found = structured(node).value if node is not None else None
    items = [structured(item) for item in found] if isinstance(found, list) else []
    return any(isinstance(item.value, dict) and {"path", "dataset"} & item.value.keys() for item in items)


def _part(node: Node | None, key: str) -> Node | None:
    found = node.value.get(key) if node is not None and isinstance(node.value, dict) else None
    return None if found is None else structured(found)


def _with(node: Node, key: str, child: Node) -> Node:
    assert isinstance(node.value, dict)
    return dataclasses.replace(node, value={**node.value, key: child})


def _names_sample(node: Node) -> bool:
    """Whether a summary, or a list of sources, names the sample web."""
    if isinstance(node.value, list):
        return any(_names_sample(name) for item in node.value if (name := _part(item, "name")) is not None)
    return isinstance(node.value, str) and _SAMPLE_WEB in node.value


def _place(node: Node) -> str:
    """The file that a value was written in, or the command line."""
    return node.origin.partition(":")[0]
