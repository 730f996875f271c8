"""Where rows come from: files, folders, globs and zip members, each with its format.

Zip members are read as streams and never unpacked, so their names cannot lead anywhere.
"""

from __future__ import annotations

import glob
import gzip
import io
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from rexbert_hf.catalog.escapes import listed

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "json",
    ".ndjson": "json",
    ".json": "json",
    ".txt": "text",
    ".text": "text",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Format of a file by its suffix, looked up below those of `COMPRESSED` and inside .zip."""

COMPRESSED = (".gz", ".zst")

MDS_ADVICE = "which cannot be read here: make Parquet of them (docs/data.md) and name that folder"


@dataclass(frozen=True, slots=True)
class FileOptions:
    """How to read files; None means what the format usually does.

    Attributes:
        format: one of the values of `FORMATS`, for files whose suffix does not say it.
        encoding: of text formats; a byte order mark is dropped.
        delimiter: of CSV and TSV.
        quotechar: "" for none. CSV has the double quote; TSV has none, as the format is defined.
        header: names of the columns of a CSV or TSV that has no header line.
    """

    format: str | None = None
    encoding: str = "utf-8"
    delimiter: str | None = None
    quotechar: str | None = None
    header: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS.values():
            raise ValueError(
                f"unknown format '{self.format}': choose one of {', '.join(sorted(set(FORMATS.values())))}"
            )
        for name, mark in (("delimiter", self.delimiter), ("quotechar", self.quotechar or None)):
            if mark is not None and len(mark) != 1:
                raise ValueError(f"{name} is one character, got {mark!r}")
        try:
            "".encode(self.encoding)
        except LookupError:
            raise ValueError(
                f"unknown encoding '{self.encoding}': utf-8, latin-1, cp1252 and utf-16 are common"
            ) from None


@dataclass(frozen=True, slots=True)
class Source:
    """One file, or one member of a zip file."""

    name: str
    format: str
    open: Callable[[], IO[bytes]]


def find_sources(paths: str | Path | Sequence[str | Path], options: FileOptions) -> list[Source]:
    """List what there is to read behind paths, globs and folders, in a fixed order.

    Raises:
        FileNotFoundError: if a path or glob leads nowhere.
        ValueError: if a format is unknown, or a folder or a zip file holds nothing readable.
    """
    if isinstance(paths, (str, Path)):
        paths = [paths]
    return [source for path in paths for file in _expand(path, options) for source in _sources_of(file, options)]


def with_home(path: str | Path) -> Path:
    """A path with `~` written out.

    Args:
        path: any.

    Raises:
        FileNotFoundError: if it begins with the home of a user who is not known here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise FileNotFoundError(f"{path}: no such user here; write the folder out") from None


def _expand(path: str | Path, options: FileOptions) -> list[Path]:
    found = with_home(path)
    if found.is_dir():
        if next(found.rglob("*.mds*"), None) is not None:
            raise ValueError(f"{path}: holds MDS shards, {MDS_ADVICE}")
        files = sorted(file for file in found.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(found)))
        files = [file for file in files if _is_wanted(file.relative_to(found), options)]
        if not files:
            way = "pass format=... for files without a suffix"
            if options.format is not None:
                way = f"name files with another suffix by a pattern, such as {path}/*.dat"
            raise ValueError(
                f"{path}: the folder holds no file to read (wanted {', '.join(FORMATS)}, plain, .gz, .zst or .zip);"
                f" {way}"
            )
        return files
    if found.exists():
        return [found]
    if glob.has_magic(str(path)):
        files = sorted(Path(name) for name in glob.glob(str(found), recursive=True) if Path(name).is_file())
        if files:
            return files
        raise FileNotFoundError(f"{path}: no file matches; check the pattern and the working directory")
    raise FileNotFoundError(f"{path}: no such file or folder; check the path and the working directory")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "__MACOSX")) and part not in (".", "..") for part in path.parts)


def _is_wanted(path: Path, options: FileOptions) -> bool:
    if path.suffix.lower() == ".zip" or _format_of(path.name):
        return True
    # Other tools' files without a suffix (part-00000), but not those beside them (_SUCCESS, _delta_log, README.md).
    name = path.stem if path.suffix.lower() in COMPRESSED else path.name
    return options.format is not None and "." not in name and not any(part.startswith("_") for part in path.parts)


def _format_of(name: str) -> str | None:
    path = Path(name.lower())
    return FORMATS.get(Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix)


def _sources_of(file: Path, options: FileOptions) -> list[Source]:
    if file.suffix.lower() == ".zip":
        return _zip_sources(file, options)
    form = options.format or _format_of(file.name)
    if form is None:
        known = ", ".join(FORMATS)
        raise ValueError(
            f"{file}: cannot tell the format from the name; pass format=..., or rename it to one of {known}"
        )
    return [Source(str(file), form, partial(_open_file, file))]


def _open_file(file: Path) -> IO[bytes]:
    if file.suffix.lower() in COMPRESSED:
        return _unpacked(file.name, str(file))
    return io.FileIO(file)  # unbuffered: `formats` buffers, and looks whether there is a plain file below


def _open_member(file: Path, name: str) -> IO[bytes]:
    return _unpacked(name, zipfile.ZipFile(file).open(name))


def _unpacked(name: str, packed: Any) -> Any:
    """What lies below .gz or .zst, by the name; `packed` is a path or a stream, and the reader closes what it gets."""
    if name.lower().endswith(".gz"):
        return gzip.open(packed, "rb")
    return pa.input_stream(packed, compression="zstd") if name.lower().endswith(".zst") else packed


def _zip_sources(file: Path, options: FileOptions) -> list[Source]:
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, RuntimeError, UnicodeError) as error:  # also of a later version, or with odd names
        raise ValueError(f"{file}: not a readable zip file ({error}); fetch it again") from None
    if "" in names:
        raise ValueError(f"{file}: a file in it has no name: pack it again")
    wanted = [name for name in names if not _is_hidden(Path(name)) and (options.format or _format_of(name))]
    if not wanted:
        raise ValueError(f"{file}: nothing readable inside (it holds {listed(names[:5])}); pass format=...")
    if twice := next((name for name, count in Counter(wanted).items() if count > 1), None):
        raise ValueError(f"{file}: two files in it are named {listed([twice])}: pack it again")

    return [
        Source(f"{file}!{listed([name])}", options.format or _format_of(name) or "", partial(_open_member, file, name))
        for name in wanted
    ]
