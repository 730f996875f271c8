"""What the client of Qdrant needs said its way: addresses, ids, filters, errors."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.retrieval.serving.filters import PATH_SEPARATOR

_NAMES = uuid.UUID("c1b0a5a6-2f53-5f0e-9a1c-6e1f7d0b9e42")  # any fixed one does


@contextmanager
def explained(place: str) -> Iterator[None]:
    """One line for whatever the client raises.

    Args:
        place: URL or folder, for the message.

    Raises:
        ConnectionError: in place of the client's own errors.
    """
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, ConnectionError, TimeoutError) as error:
        source = getattr(error, "source", error)
        reason = " ".join(str(source).split())[:200] or type(source).__name__
        hint = "is it running, and is the address right?" if "://" in place else "close whoever has it open"
        raise ConnectionError(f"Qdrant at {place}: {reason}; {hint}") from None


def connect(url: str | None, path: str | Path | None, api_key: str | None = None) -> tuple[Any, str]:
    """A client, and what to call the place.

    Args:
        url: of a server.
        path: of an embedded one; without either it lies in memory.
        api_key: of the server; by default QDRANT_API_KEY.

    Raises:
        ImportError: if qdrant-client is not installed.
        ConnectionError: if the folder is in use.
    """
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ImportError("backend 'qdrant' needs qdrant-client: pip install rexbert-hf[search]") from None
    if url is not None and path is not None:
        raise ValueError("give url or path of Qdrant, not both")
    place = url or (str(path) if path is not None else ":memory:")
    with explained(place):
        if url is not None:
            key = api_key or os.environ.get("QDRANT_API_KEY")
            return QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False), place
        try:
            return (QdrantClient(path=place) if path is not None else QdrantClient(location=":memory:")), place
        except RuntimeError as error:  # another process, or another client of this one, has the folder
            raise ConnectionError(str(error)) from None


def point_id(product_id: str) -> str:
    """The UUID of a product: Qdrant takes no other texts as ids.

    Args:
        product_id: any text.
    """
    return str(uuid.uuid5(_NAMES, product_id))


def path_terms(path: str) -> list[str]:
    """What a category path is found by: each level, and each beginning.

    Args:
        path: levels joined by " > ".

    Example:
        >>> path_terms("Home > Lamps")
        ['Home', 'Lamps', 'Home > Lamps']
    """
    levels = path.split(PATH_SEPARATOR)
    beginnings = [PATH_SEPARATOR.join(levels[:n]) for n in range(2, len(levels) + 1)]
    return list(dict.fromkeys([*levels, *beginnings]))


def condition_of(name: str, wanted: Any) -> Any:
    """A condition of `filters.py` in Qdrant's words.

    Args:
        name: of the column.
        wanted: a value, a list of values, or a range (low, high).

    Raises:
        ValueError: if it is none of these.
    """
    from qdrant_client import models

    if isinstance(wanted, Mapping):
        wanted = (wanted.get("min"), wanted.get("max"))
    if isinstance(wanted, tuple):
        if len(wanted) != 2:
            raise ValueError(f"filter {name}: a range is (low, high), not {wanted!r}")
        return models.FieldCondition(key=name, range=models.Range(gte=wanted[0], lte=wanted[1]))
    choices = list(wanted) if isinstance(wanted, (list, set, frozenset, np.ndarray)) else [wanted]
    if choices and all(isinstance(choice, str) for choice in choices):
        return models.FieldCondition(key=name, match=models.MatchAny(any=choices))
    equal: list[Any] = [
        models.FieldCondition(key=name, match=models.MatchValue(value=choice))
        if isinstance(choice, bool)
        else models.FieldCondition(key=name, range=models.Range(gte=choice, lte=choice))
        for choice in choices
    ]
    never = models.FieldCondition(key=name, range=models.Range(gt=math.inf))
    return models.Filter(should=equal or [never])
