"""Data sets of the Hub, held to one commit by all stages of a curation, however many days it takes."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import HfApi

from ..hub.trouble import patience
from .documents import DocumentSource
from .manifest import read_json
from .stages import write_json

logger = logging.getLogger(__name__)

REVISIONS = "revisions.json"
"""Commit of each data set, in the output folder; without the file the newest ones are taken."""


def held_sources(sources: Sequence[DocumentSource], record: Path) -> list[DocumentSource]:
    """The sources with the commits that their revisions meant when the record was made, for data sets of the Hub.

    Without an answer from the Hub a source is read as it is; a warning says so.

    Args:
        sources: where documents are.
        record: a `revisions.json`; completed here.

    Raises:
        OSError: if the record cannot be written.
    """
    known = dict(read_json(record) or {})
    before, held = len(known), []
    for source in sources:
        if source.dataset and not Path(source.dataset).exists():
            name = f"{source.dataset}@{source.revision or 'main'}"
            try:
                with patience():
                    known[name] = known.get(name) or HfApi().dataset_info(source.dataset, revision=source.revision).sha
                source = dataclasses.replace(source, revision=known[name])
            except Exception as error:  # reading says what is wrong, if anything is
                logger.warning("the commit of %s is unknown (%s): stages may see different ones", name, error)
        held.append(source)
    if len(known) > before:
        write_json(record, known)
    return held
