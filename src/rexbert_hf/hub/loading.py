"""One line for whatever goes wrong while a model or a tokenizer is read from its files.

The libraries raise what they like: safetensors' error for a file that is cut off and that of tokenizers derive from
Exception alone, so a list of kinds always lacks one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_MOST_CHARACTERS = 300
_AGAIN = "take its files again, or give another"


class LoadingError(ValueError):
    """A model or tokenizer that cannot be loaded; one line that names it and the way out."""


@contextmanager
def loading(what: str, name: str | Path, remedy: str = _AGAIN) -> Iterator[None]:
    r"""Turn every error of the block into one line; what resolves a name on the Hub stays outside, it says it better.

    Args:
        what: what is loaded, as "tokenizer".
        name: what the user named: a folder, or a name on the Hub.
        remedy: the way out.

    Raises:
        LoadingError: for any error but this one, a lack of memory, and a package of an extra that is missing.

    Example:
        >>> with loading("tokenizer", "shop", "set it"):
        ...     raise Exception("EOF while parsing\nat 1:2")
        Traceback (most recent call last):
        rexbert_hf.hub.loading.LoadingError: shop: no tokenizer can be loaded from it (EOF while parsing): set it
    """
    try:
        yield
    except (LoadingError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, ImportError) and "pip install rexbert-hf" in str(error):
            raise
        raise LoadingError(f"{name}: no {what} can be loaded from it ({first_line(error)}): {remedy}") from error


def first_line(error: BaseException) -> str:
    r"""First line of a message, without its end where it is very long; the kind of an error that has none.

    Args:
        error: any.

    Example:
        >>> first_line(ValueError("cut off\nat 12")), first_line(KeyError())
        ('cut off', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0][:_MOST_CHARACTERS] if lines else type(error).__name__
