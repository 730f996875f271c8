"""Documents of a crawl, and the one way in which every stage reads them.

One decision worth knowing: nothing that a single row or file of many does stops a run. What cannot be used is counted
under its reason in the stage's report, with file and line of the first few, and the rest goes through. A source that
lacks its text field altogether, or of which more than `max_bad_share` is broken, is an error, and so is a failing disk.
"""

from __future__ import annotations

import glob
import hashlib
import importlib.metadata
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..catalog import load_sample
from ..catalog.class_labels import named_classes, with_names
from ..catalog.columns import as_text
from ..catalog.dataset_errors import DATASET_ERRORS, reason_of
from ..catalog.escapes import listed
from ..catalog.sources import with_home
from ..hub.trouble import read_hub
from ..settings.ranges import check_least
from .raw_rows import FILE_ERRORS, Flaw, Row, folder_of, format_of, is_of_the_machine, raw_rows, text_flaw, told_rows
from .stages import StageReport, files_key
from .taken_ids import TakenIds

logger = logging.getLogger(__name__)

SHOWN = 5
"""So many places are kept for each reason."""

_JUDGED_AFTER = 10_000
"""A source that lacks its text field in all of so many rows is refused."""

_BROKEN = {**dict.fromkeys(("broken_json", "broken_row", "wrong_encoding", "nul"), "rows"), "broken_file": "files"}
"""Reasons that say that something was spoilt; the others say what a crawl holds."""
_EARLY = 1_000
"""A source with so many broken rows is judged before its end."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document: what all stages hand each other.

    Attributes:
        id: of the source, or the SHA-1 of the text.
        text: never empty, valid Unicode without NUL.
        url: "" if unknown.
        domain: a topic as "hobby".
    """

    id: str
    text: str
    url: str = ""
    domain: str = "unknown"


@dataclass(frozen=True, slots=True)
class DocumentSource:
    """Where documents come from: files here, a dataset by name, or the built-in sample.

    Attributes:
        path: a file, folder or glob of JSON lines, text (a document a line), Parquet, CSV or TSV; plain, .gz or .zst.
        dataset: what `datasets.load_dataset` takes, instead of `path`.
        sample: a kind of sample data, as "crawl" or "food_crawl", instead of both.
        sample_size: products of the sample shop; 0 for the usual number.
        config: configuration of the dataset.
        split: of the dataset.
        revision: of the dataset.
        streaming: read the dataset without a local copy.
        text_field: name of the text's field, or of several that are joined by line breaks.
        domain_field: name of the domain's field; "" if there is none.
        url_field: name of the address' field; "" if there is none.
        id_field: name of the identifier's field; "" makes identifiers of the text.
        domain: domain of all documents, whatever the fields say.
        domain_from_folder: a file's folder is its domain where the field does not say it, as in FineFineWeb; that of a
            single file says nothing.
        missing_domain: domain of documents without one; "" leaves them out.
        max_chars: longer documents are left out.
        limit: stop after so many documents; 0 for all.
        max_bad_share: the share of rows, and of files, that may be broken before the source is refused.

    Raises:
        ValueError: unless exactly one of `path`, `dataset` and `sample` is given.
    """

    path: str = ""
    dataset: str = ""
    sample: str = ""
    sample_size: int = 0
    config: str | None = None
    split: str = "train"
    revision: str | None = None
    streaming: bool = True
    text_field: str | list[str] = "text"
    domain_field: str = "domain"
    url_field: str = "url"
    id_field: str = ""
    domain: str = ""
    domain_from_folder: bool = True
    missing_domain: str = "unknown"
    max_chars: int = 1_000_000
    limit: int = 0
    max_bad_share: float = 0.1

    def __post_init__(self) -> None:
        if sum(map(bool, (self.path, self.dataset, self.sample))) != 1:
            raise ValueError("a document source has either a path, or a dataset's name, or a sample: set one of them")
        if self.max_chars < 1:
            raise ValueError(f"max_chars is at least 1, got {self.max_chars}")
        if not 0.0 <= self.max_bad_share <= 1.0:
            raise ValueError(f"max_bad_share is a share in [0, 1], got {self.max_bad_share}")
        check_least(self, sample_size=0, limit=0)

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.path or (f"sample {self.sample}" if self.sample else f"{self.dataset}[{self.split}]")

    @property
    def text_fields(self) -> list[str]:
        """Names of the fields that make the text."""
        return [self.text_field] if isinstance(self.text_field, str) else list(self.text_field)

    def files(self) -> list[Path]:
        """The files behind the path, in a fixed order; none for a dataset.

        Raises:
            FileNotFoundError: if there is none.
        """
        if not self.path:
            return []
        place = with_home(self.path)
        if place.is_dir():
            found = [file for file in place.rglob("*") if not _is_hidden(file.relative_to(place)) and format_of(file)]
        elif place.exists():
            return [place]
        else:
            found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        files = sorted(file for file in found if file.is_file())
        if not files:
            raise FileNotFoundError(f"{self.path}: no file to read there; check the path and the working directory")
        return files


def text_id(text: str) -> str:
    """Identifier of a text: the hex SHA-1 of its UTF-8 bytes.

    Example:
        >>> text_id("mug")[:8]
        '41eceaf7'
    """
    return hashlib.sha1(text.encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()


def sources_key(sources: Sequence[DocumentSource]) -> list[Any]:
    """What of the sources decides a stage's output, for `stage_key`: settings, and size and time of their files.

    Raises:
        FileNotFoundError: if a path leads nowhere.
    """
    version = importlib.metadata.version("rexbert-hf")
    return [(source, files_key(_all_files(source)), version if source.sample else "") for source in sources]


def _all_files(source: DocumentSource) -> list[Path]:
    """The files that a source is read from; those of a dataset, where it is a folder here."""
    folder = Path(source.dataset)
    if source.dataset and folder.is_dir():
        return [file for file in folder.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(folder))]
    return source.files()


def read_documents(sources: Sequence[DocumentSource], report: StageReport) -> Iterator[Document]:
    r"""Documents of all sources, one after the other, in the order of their files.

    Identifiers are unique for unlike texts: a second text under an identifier gets the SHA-1 of its text instead. That
    costs 32 to 64 bytes a document for sources with an `id_field`, and nothing otherwise.

    Args:
        sources: where to read.
        report: `read` and `reasons` are counted there; `details["rejected"]` gets places of the first few for each
            reason, `details["noted"]` the counts of what went through with a change.

    Raises:
        FileNotFoundError: if a path or dataset is not there; before anything is read.
        ValueError: if no row of a source has a field that it names (of one that ends at its limit only the text field),
            or too much of it is broken.
        OSError: if a disk fails.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "hobby.jsonl"
        >>> _ = path.write_text('{"text": "A mug", "domain": "hobby"}\n{"text": \n{"text": " "}\n')
        >>> report = StageReport("sample", key="")
        >>> [document.text for document in read_documents([DocumentSource(str(path), max_bad_share=0.5)], report)]
        ['A mug']
        >>> report.read, report.reasons
        (3, {'broken_json': 1, 'empty': 1})
    """
    for source in sources:
        source.files()
    return _read_all(sources, report)


def _read_all(sources: Sequence[DocumentSource], report: StageReport) -> Iterator[Document]:
    ids = TakenIds()
    for source in sources:
        yield from _SourceReader(source, report, ids).documents()


class _SourceReader:
    """One source, from rows to documents."""

    def __init__(self, source: DocumentSource, report: StageReport, ids: TakenIds) -> None:
        self.source, self.report, self._ids = source, report, ids
        self._fields: dict[str, None] = {}
        self._absent = _named_fields(source)  # those of them that no row has had so far
        self._rows = self._parsed = self._with_text = self._files = 0
        self._broken = {"rows": 0, "files": 0}
        self._example = ""
        # JSON escapes take six bytes for a character at most.
        self._max_bytes = 6 * source.max_chars + (1 << 20)

    def documents(self) -> Iterator[Document]:
        passed = 0
        for place, folder, row in self._located():
            self.report.read += 1
            document = self._document(row, folder)
            if isinstance(document, Flaw):
                self.reject(document, place)
            else:
                yield document
                passed += 1
                if passed == self.source.limit:
                    break
        self._judge()
        if self._with_text and self._absent:
            if not 0 < passed == self.source.limit:
                raise ValueError(self._absence())
            logger.warning("%s (so far)", self._absence())  # rows behind the limit may have it
        self._judge_breakage()

    def reject(self, flaw: Flaw, place: str) -> None:
        self.report.drop(flaw.reason)
        if flaw.reason in _BROKEN:
            self._example = self._example or f"{place}: {flaw.message}"
            self._broken[_BROKEN[flaw.reason]] += 1
            if self._broken["rows"] >= _EARLY:
                self._judge_breakage()
        shown = self.report.details.setdefault("rejected", {}).setdefault(flaw.reason, [])
        if len(shown) < SHOWN:
            shown.append(f"{place}: {flaw.message}")

    def note(self, what: str) -> None:
        noted = self.report.details.setdefault("noted", {})
        noted[what] = noted.get(what, 0) + 1

    def _located(self) -> Iterator[tuple[str, str, Row]]:
        """Rows with their place and the folder that may name their domain."""
        if not self.source.path:
            for number, fields in told_rows(_dataset_rows(self.source), self.source.name):
                yield f"{self.source.name} row {number}", "", fields
            return
        root = with_home(self.source.path)
        others = [self.source.domain_field, self.source.url_field, self.source.id_field]
        for path in self.source.files():
            folder = folder_of(path, root)
            self._files += 1
            if folder and self.source.domain_from_folder:  # it says what no field has to
                self._absent.pop(self.source.domain_field, None)
            try:
                for number, row in raw_rows(path, self._max_bytes, self.source.text_fields, others):
                    yield f"{path}:{number}", folder, row
            except FILE_ERRORS as error:
                if is_of_the_machine(error):
                    raise
                message = next(iter(str(error).splitlines()), "no details")
                logger.warning("%s cannot be read to its end (%s: %s)", path, type(error).__name__, message)
                yield str(path), folder, Flaw("broken_file", f"{type(error).__name__}: {message}")

    def _document(self, row: Row, folder: str) -> Document | Flaw:
        self._rows += not (isinstance(row, Flaw) and row.reason == "broken_file")
        if isinstance(row, Flaw):
            return row
        self._parsed += 1
        source = self.source
        self._absent = {name: said for name, said in self._absent.items() if name not in row}
        fields = [name for name in source.text_fields if name in row]
        if not fields:
            self._fields.update(dict.fromkeys(row))
            if self._parsed == _JUDGED_AFTER:
                self._judge()
            wanted = "', '".join(source.text_fields)
            return Flaw("no_text_field", f"no field '{wanted}'; it has {', '.join(map(str, row))[:200]}")
        self._with_text += 1
        if self._absent:
            self._fields = self._fields or dict.fromkeys(row)
            if self._with_text == _JUDGED_AFTER and self._absent:
                logger.warning("%s (so far)", self._absence())
        text = row[fields[0]] if len(fields) == 1 else "\n".join(filter(None, (_plain(row[name]) for name in fields)))
        if isinstance(text, bytes):  # Parquet of writers that know no text
            text = as_text(text)
        flaw = text_flaw(text, source.max_chars)
        if flaw is not None:
            return flaw
        domain = source.domain or _plain(row.get(source.domain_field)) or (folder if source.domain_from_folder else "")
        if not domain:
            if not source.missing_domain:
                return Flaw("no_domain", f"no field '{source.domain_field}', and neither `domain` nor a folder says it")
            self.note("domain_missing")
            domain = source.missing_domain
        return Document(self._identifier(row, text), text, _plain(row.get(source.url_field)), domain)

    def _identifier(self, row: dict[str, Any], text: str) -> str:
        given = _plain(row.get(self.source.id_field)) if self.source.id_field else ""
        digest = text_id(text)
        if not given:
            if self.source.id_field:
                self.note("id_missing")
            return digest
        if self._ids.is_taken(given, digest):
            self.note("id_of_another_text")
            return digest
        return given

    def _judge(self) -> None:
        if self._parsed and not self._with_text:
            wanted, there = "', '".join(self.source.text_fields), listed(self._fields)
            raise ValueError(
                f"{self.source.name}: no row has a field '{wanted}'; the fields are {there}: set text_field"
            )

    def _absence(self) -> str:
        name, said = next(iter(self._absent.items()))
        there = listed(self._fields)  # of Parquet only what is read
        return f"{self.source.name}: no row has a field '{name}', the first has {there}: correct or omit {said}"

    def _judge_breakage(self) -> None:
        share = self.source.max_bad_share
        for what, of in (("rows", self._rows), ("files", self._files)):
            if (bad := self._broken[what]) > share * of:
                raise ValueError(
                    f"{self.source.name}: {bad:,} of {of:,} {what} are broken ({self._example}): fetch or write them "
                    f"again (as UTF-8), or raise max_bad_share={share:g}"
                )


def _named_fields(source: DocumentSource) -> dict[str, str]:
    """Fields beside the text's that a source names itself, with the settings that name them."""
    said = ("url_field", "id_field", *(() if source.domain else ("domain_field",)))
    return {name: key for key in said if (name := getattr(source, key)) not in ("", "url", "domain")}


def _plain(value: Any) -> str:
    """A short field as valid text; "" for anything missing."""
    return as_text(value).strip().replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _dataset_rows(source: DocumentSource) -> Iterable[dict[str, Any]]:
    if source.sample:
        return load_sample(source.sample, size=source.sample_size or None)
    from datasets import load_dataset

    def load() -> Any:
        return load_dataset(
            source.dataset, source.config, split=source.split, revision=source.revision, streaming=source.streaming
        )

    try:
        found = read_hub(load, f"dataset '{source.dataset}'")
        _, named = named_classes(found.features or {})  # a stream may not know its types before its first row
        return (with_names(row, named) for row in found) if named else found
    except ConnectionError:
        raise
    except DATASET_ERRORS as error:
        raise FileNotFoundError(
            f"dataset '{source.dataset}', configuration '{source.config}', split '{source.split}' cannot be read "
            f"({reason_of(error)}); check the names and the files"
        ) from error
