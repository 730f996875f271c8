"""What the client of Qdrant needs said its way: addresses, collections, ids, filters, errors."""

from __future__ import annotations

import math
import os
import re
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from rexbert_hf.catalog.nested import PATH_SEPARATOR
from rexbert_hf.retrieval.serving.filter_columns import Column
from rexbert_hf.retrieval.serving.filters import Condition
from rexbert_hf.retrieval.serving.index_options import IndexOptions
from rexbert_hf.retrieval.serving.product_rows import Batch

POINTS = 256
"""Products sent at a time."""

_NAMES = uuid.UUID("c1b0a5a6-2f53-5f0e-9a1c-6e1f7d0b9e42")  # any fixed one does


@contextmanager
def explained(place: str) -> Iterator[None]:
    """One line for whatever the client raises.

    Args:
        place: URL or ":memory:", for the message.

    Raises:
        ConnectionError: in place of the client's own errors.
    """
    from qdrant_client.http.exceptions import ApiException

    try:
        yield
    except (ApiException, ConnectionError, TimeoutError) as error:
        source = getattr(error, "source", error)
        reason = " ".join(str(source).split())[:200] or type(source).__name__
        hint = "is it running, and is the address right?"
        if getattr(error, "status_code", None) in (401, 403):
            hint = "set QDRANT_API_KEY and give url=, for the key goes only where you say"
        raise ConnectionError(f"Qdrant at {place}: {reason}; {hint}") from None


def connect(url: str | None, api_key: str | None = None) -> tuple[Any, str]:
    """A client, and what to call the place.

    A folder of the embedded Qdrant is not offered: it keeps its points as pickles, and runs them when it is opened.

    Args:
        url: of a server, as the caller gave it; without it the points lie in memory.
        api_key: of the server; by default QDRANT_API_KEY.

    Raises:
        ImportError: if qdrant-client is not installed.
        ConnectionError: if the client refuses the address.
    """
    return _client(url, api_key or (os.environ.get("QDRANT_API_KEY") if url is not None else None))


def connect_described(named: str, url: str | None, api_key: str | None, pulled: bool) -> tuple[Any, str]:
    """`connect` for an index whose description names a place: nobody's key goes there unless he gave the address.

    Args:
        named: the place, as the description has it.
        url: as the caller gave it; by default QDRANT_URL.
        api_key: of the server.
        pulled: whether the description came from the Hub: then what it names is not asked at all.

    Raises:
        ImportError, ConnectionError: as `connect`.
        ValueError: if the address has to come from the caller.
    """
    url = url or os.environ.get("QDRANT_URL") or None
    if url is not None:
        return connect(url, api_key)
    if pulled:
        raise ValueError(f"this index lies in Qdrant at {named}, says its repository: give url= to ask a server")
    if "://" not in named:
        raise ValueError(f"this index lies in Qdrant at {named}, which is no server: build it again or give url=")
    return _client(named, api_key)


def _client(url: str | None, key: str | None) -> tuple[Any, str]:
    try:
        from qdrant_client import QdrantClient
    except ImportError:
        raise ImportError("backend 'qdrant' needs qdrant-client: pip install rexbert-hf[search]") from None
    if url is None:
        return QdrantClient(location=":memory:"), ":memory:"
    place = _place_of(url)
    with explained(place):
        return QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False), place


def _place_of(url: str) -> str:
    """An address without login and query, for it is shown and saved; the client does not send them either.

    Example:
        >>> _place_of("https://me:word@host:6333/path?api_key=abc")
        'https://host:6333/path'
    """
    return re.sub(r"(?<=://)[^/?#]*@|[?#].*$", "", url)


def saved_columns(columns: Any) -> dict[str, bool]:
    """Of each filter column, whether it holds texts, as `index.json` says; earlier versions listed the names alone.

    Args:
        columns: of the file.
    """
    named = {str(name): name not in ("price", "in_stock") for name in columns}
    return {**named, **columns} if isinstance(columns, Mapping) else named


def collection_settings(options: IndexOptions, dim: int) -> dict[str, Any]:
    """Distance, graph and codes of a collection, as `create_collection` takes them.

    Args:
        options: of the index.
        dim: width of the vectors.
    """
    from qdrant_client import models

    quantisation: Any = None
    if options.kind == "int8":
        int8 = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        quantisation = models.ScalarQuantization(scalar=int8)
    elif options.kind == "binary":
        quantisation = models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True))
    distance = models.Distance.COSINE if options.metric == "cosine" else models.Distance.DOT
    graph = models.HnswConfigDiff(m=options.graph_links, ef_construct=options.ef_construction)
    return {
        "vectors_config": models.VectorParams(size=dim, distance=distance, on_disk=quantisation is not None),
        "hnsw_config": None if options.kind == "flat" else graph,
        "quantization_config": quantisation,
    }


def index_columns(client: Any, name: str, columns: Mapping[str, bool]) -> None:
    """Let a server index the filter columns of a collection.

    Args:
        client: of qdrant-client.
        name: of the collection.
        columns: of each, whether it holds texts.
    """
    for column, texts in columns.items():
        schema = "bool" if column == "in_stock" else "keyword" if texts else "float"
        client.create_payload_index(name, field_name=column, field_schema=schema)


def point_id(product_id: str) -> str:
    """The UUID of a product: Qdrant takes no other texts as ids.

    Args:
        product_id: any text.
    """
    return str(uuid.uuid5(_NAMES, product_id))


def send(
    client: Any, name: str, points: Sequence[str], vectors: np.ndarray, payloads: Sequence[Mapping[str, Any]]
) -> None:
    """Write points into a collection.

    Args:
        client: of qdrant-client.
        name: of the collection.
        points: their ids.
        vectors: `[N, D]`.
        payloads: what is kept beside each.
    """
    from qdrant_client import models

    for start in range(0, len(points), POINTS):
        structs = [
            models.PointStruct(id=points[i], vector=vectors[i].tolist(), payload=dict(payloads[i]))
            for i in range(start, min(start + POINTS, len(points)))
        ]
        client.upsert(name, points=structs, wait=True)


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


def facts_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Filter columns of a point as an index in FAISS has them.

    Args:
        payload: its filter columns.

    Example:
        >>> facts_of({"category_path": ["Home", "Lamps", "Home > Lamps"], "price": 5})
        {'category_path': 'Home > Lamps', 'price': 5}
    """
    path = payload.get("category_path")  # its longest beginning is the path itself
    return {**payload, "category_path": max(path, key=len)} if path else dict(payload)


def condition_of(name: str, wanted: Condition) -> Any:
    """A condition in Qdrant's words.

    Args:
        name: of the column.
        wanted: see `parse_filter`.
    """
    from qdrant_client import models

    if name == "in_stock":  # a truth value in the payload, which ranges do not see
        passing = [value for value in (False, True) if _passes(float(value), wanted)]
        either: list[Any] = [models.FieldCondition(key=name, match=models.MatchValue(value=v)) for v in passing]
        return models.Filter(should=either or [_never(name)])
    if wanted.choices is None:
        # Infinite borders are no JSON; a product without the number passes neither way.
        low, high = (None if math.isinf(end) else end for end in (wanted.low, wanted.high))
        if (low, high) == (None, None):
            low = -sys.float_info.max
        return models.FieldCondition(key=name, range=models.Range(gte=low, lte=high))
    if wanted.choices and isinstance(wanted.choices[0], str):
        return models.FieldCondition(key=name, match=models.MatchAny(any=list(wanted.choices)))
    numbers = [float(choice) for choice in wanted.choices]
    equal: list[Any] = [models.FieldCondition(key=name, range=models.Range(gte=v, lte=v)) for v in numbers]
    return models.Filter(should=equal or [_never(name)])


def _passes(value: float, wanted: Condition) -> bool:
    return wanted.low <= value <= wanted.high if wanted.choices is None else value in wanted.choices


def _never(name: str) -> Any:
    from qdrant_client import models

    return models.FieldCondition(key=name, range=models.Range(gt=sys.float_info.max))


def payload_of(batch: Batch, place: int, digest: str, texts: dict[str, bool]) -> dict[str, Any]:
    """What is kept beside a product's vector: id, text, digest, and the filter columns that it has.

    Args:
        batch: of products.
        place: of the product in it.
        digest: of its text.
        texts: of each filter column that there is, whether it holds texts; new ones are added.

    Raises:
        ValueError: for a text where a column holds numbers, or the other way round; the product is named.
    """
    payload: dict[str, Any] = {"product_id": batch.ids[place], "text": batch.texts[place], "digest": digest}
    for name, value in batch.values[place].items():
        column = Column.like(value, 0) if name not in texts else Column(np.zeros(0), [] if texts[name] else None)
        code = column.code(value, name, batch.ids[place])
        texts.setdefault(name, column.texts is not None)
        if name == "category_path":
            payload[name] = path_terms(value)
        elif not math.isnan(code):  # of a price that cannot be read
            payload[name] = value if name == "in_stock" or isinstance(value, str) else code
    return payload
