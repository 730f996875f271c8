"""The card of a corpus: tokens by domain, and what each stage measured; what was not measured is left out.

It is rendered from `corpus.json` alone, so it can be rendered again with the name of the repository that it is pushed
to. Its metadata lists the files of each configuration: `load_dataset` reads the folder without this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ..hub import merge_card, render_dataset_card
from ..hub.readme import split_card
from ..hub.run_file import write_whole
from .card_facts import audit_facts, classifier_facts, label_cost, label_facts, select_facts, stage_rows
from .figure import domain_figure
from .manifest import ALL, Manifest, totals

FIGURE = "domains.svg"
OWNED = ("configs", "dataset_info")
"""Metadata that says which files there are: replaced, never merged."""
_MEANINGS = {
    "id": "identifier: the source's, or the SHA-1 of the text",
    "text": "the document, or the lines of it that were kept",
    "url": "where it was found; empty if unknown",
    "domain": "the topic that the source gave it",
}


def write_corpus_card(folder: Path) -> Path:
    """Write `README.md` and `domains.svg` of a built corpus; what people wrote into the README stays.

    Args:
        folder: with its `corpus.json`.

    Raises:
        FileNotFoundError: if the folder holds no finished corpus.
        OSError: if a file cannot be written.
    """
    manifest = Manifest.read(folder)
    counts = {name: totals(facts)["tokens"] for name, facts in manifest.facts["domains"].items()}
    if sum(counts.values()):
        write_whole(folder / FIGURE, domain_figure(counts, manifest.facts["unit"]).encode("utf-8"))
    readme = folder / "README.md"
    there = readme.read_text(encoding="utf-8") if readme.is_file() else None
    write_whole(readme, merge_corpus_card(there, corpus_card(manifest)).encode("utf-8"))
    return readme


def corpus_card(manifest: Manifest, repo_id: str | None = None) -> str:
    """Render the card.

    Args:
        manifest: of a finished corpus.
        repo_id: what the copy-paste block loads.
    """
    facts = manifest.facts
    about: Mapping[str, Any] = facts.get("card") or {}
    stages: Mapping[str, Any] = facts.get("stages") or {}
    details = {name: stage.get("details") or {} for name, stage in stages.items()}
    domains = {name: totals(domain) for name, domain in facts["domains"].items()}
    config: Mapping[str, Any] = facts.get("config") or {}
    vertical = config.get("vertical") or {}
    columns = [{"name": name, "meaning": _MEANINGS.get(name, "")} for name in facts["columns"]]
    measured = {
        "figure": FIGURE if (manifest.folder / FIGURE).is_file() else None,
        "stages": stage_rows(stages),
        "select": select_facts(details.get("select", {})),
        "vertical": vertical.get("description"),
        "labels": label_facts(details.get("label", {}), vertical),
        "labeller": details.get("label", {}).get("labeller"),
        "audit": audit_facts(details.get("audit", {})),
        "classifier": classifier_facts(details.get("distil", {})),
    }
    return render_dataset_card(
        "corpus_card.md",
        repo_id=repo_id,
        dataset_name=about.get("name"),
        summary=about.get("summary"),
        license=about.get("license"),
        language=about.get("language"),
        sources=about.get("sources") or (),
        task_categories=["fill-mask"],
        tags=["rexbert", "curated"],
        configs=[
            _row(ALL, list(domains.values()), facts["key"]),
            *(_row(name, [counts], facts["domains"][name]["key"]) for name, counts in domains.items()),
        ],
        unit=facts["unit"] if not facts.get("tokenizer") else f"tokens of {facts['tokenizer']}",
        data_files=data_files(manifest),
        columns=columns,
        facts=measured,
        cost=label_cost(details),
        **{name: facts.get(name) for name in ("config", "git_commit", "versions", "date")},
        folder=manifest.folder,
    )


def _row(name: str, domains: list[dict[str, int]], key: str) -> dict[str, Any]:
    counts = {new: sum(domain[old] for domain in domains) for new, old in (("rows", "documents"), ("tokens", "tokens"))}
    return {"name": name, **counts, "fingerprint": key}


def data_files(manifest: Manifest) -> list[dict[str, Any]]:
    """What `load_dataset` finds the files of each configuration by: the default one, then a domain each."""
    configs: list[dict[str, Any]] = [{"config_name": ALL, "default": True, "data_files": _files(manifest, None)}]
    for domain in manifest.domains:
        configs.append({"config_name": domain, "data_files": _files(manifest, [domain])})
    return configs


def _files(manifest: Manifest, domains: list[str] | None) -> list[dict[str, Any]]:
    found = []
    for split in manifest.splits:
        folders = dict.fromkeys(path.parent.name for path in manifest.files(split, domains))
        if folders:
            found.append({"split": split, "path": [f"{name}/{split}-*.parquet" for name in folders]})
    return found


def merge_corpus_card(existing: str | None, rendered: str) -> str:
    """Bring a fresh card into a README; its list of files is replaced, the rest is merged as for every card.

    Args:
        existing: the README that is there, or None.
        rendered: the new card.
    """
    if existing is None or not existing.strip():
        return rendered
    metadata, body = split_card(existing)
    kept = {key: value for key, value in metadata.items() if key not in OWNED}
    head = f"---\n{yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)}---\n" if kept else ""
    return merge_card(head + body, rendered)
