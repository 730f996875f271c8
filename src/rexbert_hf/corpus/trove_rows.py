"""What jobs on a cluster make of the rows of a crawl: documents as one machine reads them, of selected domains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.readers import ParquetReader
from datatrove.utils.logging import logger

from ..catalog.class_labels import Readers, named_classes, noted_features, with_names
from ..catalog.columns import as_text
from ..hub.redaction import redact
from .raw_rows import folder_of
from .sample import MOST_NAMED, other_domains

UNKNOWN = "unknown"
"""Domain of a document without one."""


class NamedParquetReader(ParquetReader):
    """Datatrove's reader of Parquet, with names in place of the class numbers of `datasets`, as on one machine."""

    _named: Readers = MappingProxyType({})

    def read_file(self, filepath: str) -> Iterator[Document]:
        """Documents of one file, whose schema says what its classes are called.

        Args:
            filepath: in the folder of the input.
        """
        with self.data_folder.open(filepath, "rb") as file:
            _, self._named = named_classes(noted_features(pq.read_schema(file)))
        try:
            yield from super().read_file(filepath)
        finally:
            self._named = {}

    def get_document_from_dict(self, data: dict[str, Any], source_file: str, id_in_file: int | str) -> Document | None:
        """A document of one row; None if it has no text.

        Args:
            data: its fields.
            source_file: in the folder of the input.
            id_in_file: place of the row.
        """
        return super().get_document_from_dict(with_names(data, self._named), source_file, id_in_file)


@dataclass(frozen=True)
class FieldsOfRow:
    """What a reader makes of a row: datatrove's own document, with domain and address as one machine sees them.

    Attributes:
        root: folder of the input, as the job names it.
        domain: of all documents, whatever the fields say.
        domain_field: name of the domain's field.
        domain_from_folder: a file's folder is its domain where the field does not say it.
        url_field: name of the address' field.
    """

    root: str
    domain: str = ""
    domain_field: str = "domain"
    domain_from_folder: bool = True
    url_field: str = "url"

    def __call__(self, reader: Any, row: dict[str, Any], path: str, place: int | str) -> dict[str, Any]:
        """The arguments of a `Document`; a field may also lie in `metadata`, where datatrove's writers put it.

        Args:
            reader: that read the row.
            row: its fields.
            path: of its file, in the folder of the input.
            place: of the row in the file.
        """
        found: dict[str, Any] = reader._default_adapter(dict(row), path, place)
        metadata, root = found["metadata"], PurePosixPath(self.root)
        folder = folder_of(root / path, root) if self.domain_from_folder else ""
        said, url = (as_text(metadata.get(name)).strip() for name in (self.domain_field, self.url_field))
        return {**found, "metadata": {**metadata, "domain": self.domain or said or folder or UNKNOWN, "url": url}}


class SelectDomains(BaseFilter):
    """Keep documents of the selected domains, and warn of a share that keeps none of its documents.

    Args:
        domains: their names, in `metadata["domain"]`.
    """

    name = "select domains"

    def __init__(self, domains: Sequence[str]) -> None:
        super().__init__()
        self.domains = frozenset(domains)
        self._others: dict[str, None] = {}

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        """Whether the document's domain is one of them."""
        domain = doc.metadata.get("domain")
        if domain in self.domains:
            return True
        if len(self._others) < MOST_NAMED:
            self._others[str(domain)] = None
        return False, "domain_not_selected"

    def run(self, data: Iterable[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents of the selected domains of one share.

        No error where there is none, as on one machine: a share may hold other domains only.

        Args:
            data: documents of the share.
            rank: number of the share.
            world_size: how many there are.
        """
        kept, self._others = 0, {}
        for document in super().run(data, rank, world_size):
            kept += 1
            yield document
        if self._others and not kept:
            told = f"share {rank} of {world_size} keeps nothing, no document is of a selected domain"
            way_out = "if so of every share, correct `domains` and choose another output_folder"
            logger.warning(str(redact(f"{told}: {other_domains(self.domains, self._others)}: {way_out}")))
