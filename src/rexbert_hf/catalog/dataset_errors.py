"""What `datasets` raises for a data set that cannot be made, and why in one line.

One decision worth knowing: an error of making a data set says only that something went wrong; what did is its cause.
Others say it themselves, as of a name that is not there or asks for a licence.
"""

from __future__ import annotations

from textwrap import shorten

from datasets.exceptions import DatasetGenerationCastError, DatasetGenerationError, DatasetsError

DATASET_ERRORS = (OSError, ValueError, RuntimeError, DatasetsError)
"""What `load_dataset` raises for names, files and splits that are not there or cannot be read, and for scripts."""


def reason_of(error: Exception) -> str:
    """The first line of an error, or what lies behind one that says only that files could not be read.

    Args:
        error: of `datasets` or any other.

    Example:
        >>> reason_of(ValueError("no such split" + chr(10) + "more")), reason_of(KeyError())
        ('no such split', 'KeyError')
    """
    if isinstance(error, DatasetGenerationCastError):  # files of different columns: its own lines say which
        told = " ".join([line for line in str(error).splitlines() if line.strip()][1:-1])
        if told:
            return told
    behind = error.__cause__ if isinstance(error, DatasetGenerationError) else None
    if behind is not None:
        return shorten(f"{type(behind).__name__}: {behind}", 400, placeholder=" ...")
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
