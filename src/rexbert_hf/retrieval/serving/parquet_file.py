"""Parquet files of an index: each page has a checksum, and what cannot be read names its file in one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rexbert_hf.retrieval.serving.index_folder import DamagedIndexError

AS_WRITTEN = {"compression": "zstd", "write_page_checksum": True}
"""Options of the writer: a bit that turned is a wrong text or price, and large indexes are not hashed."""


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Name a file in what pyarrow raises of its contents: a plain OSError without a number, or one of its own.

    Args:
        path: the file.

    Raises:
        DamagedIndexError: in place of those.
        OSError: the system's own, with the file's name.
        MemoryError: where there is none for what is read.
    """
    try:
        yield path
    except OSError as error:
        if error.errno is not None:  # the system's, not the file's: it is missing, or may not be read
            raise type(error)(error.errno, os.strerror(error.errno), str(path)) from None
        raise _damaged(path, error) from None
    except MemoryError as error:  # of pyarrow's too, which are of both kinds
        reason = next(iter(str(error).splitlines()), "out of memory")  # Python's own says nothing
        raise MemoryError(f"{path}: {reason}: close what else needs memory") from None
    except (pa.ArrowException, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from None


def opened(path: Path) -> pq.ParquetFile:
    """Open a file; checksums of its pages are compared if it has them, as those of earlier versions have not.

    Args:
        path: the file.
    """
    return pq.ParquetFile(path, page_checksum_verification=True)


def _damaged(path: Path, error: Exception) -> DamagedIndexError:
    return DamagedIndexError(f"{path} is damaged ({str(error).splitlines()[0]}): build the index again")
