"""The collection behind an alias: its name says whose vectors it holds and when it was begun.

`{alias}-{print of the model}-{seconds}{random}`: whoever opens the alias sees without asking for a point whether
another process has built it again with another model, and a later build knows what a killed one left.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import uuid
from typing import Any

from rexbert_hf.hub.left_over import LEFT_SECONDS
from rexbert_hf.retrieval.serving.query_model import ModelIdentity

_NO_MODEL = "0" * 16


def new_name(alias: str, identity: ModelIdentity | None) -> str:
    """A name for a collection that is about to be filled.

    Args:
        alias: that will point to it.
        identity: of the model that encodes its products; None for given vectors.
    """
    return f"{alias}-{_print_of(identity)}-{int(time.time()):08x}{uuid.uuid4().hex[:8]}"


def collection_of(client: Any, alias: str) -> str | None:
    """The collection that an alias points to, or that has this very name; None if there is neither.

    Args:
        client: of qdrant-client.
        alias: the name that searches use.
    """
    behind: str | None = _aliases(client).get(alias)
    return behind or (alias if client.collection_exists(alias) else None)


def look_behind(client: Any, alias: str, identity: ModelIdentity | None, place: str) -> str:
    """The collection that an alias points to, if the model that asks has filled it.

    Args:
        client: of qdrant-client.
        alias: the name that searches use.
        identity: of the model that asks.
        place: of the server, for messages.

    Raises:
        FileNotFoundError: if it points to none.
        ValueError: if it holds vectors of another model.
    """
    name = collection_of(client, alias)
    if name is None:
        raise FileNotFoundError(f"Qdrant at {place} has no collection '{alias}': build it again")
    check_model(name, alias, identity, place)
    return name


def check_model(name: str, alias: str, identity: ModelIdentity | None, place: str) -> None:
    """Refuse a collection that another model has filled. Names that earlier versions gave do not say which.

    Args:
        name: of the collection.
        alias: that points to it.
        identity: of the model that asks.
        place: of the server, for the message.

    Raises:
        ValueError: if it holds vectors of another model.

    Example:
        >>> mine = ModelIdentity("mine", None, "a", [])
        >>> check_model(new_name("shop", mine), "shop", mine, "here")
    """
    parts = _parts(name, alias)
    if identity is None or parts is None or parts[1] in (_NO_MODEL, _print_of(identity)):
        return
    raise ValueError(
        f"'{alias}' in Qdrant at {place} was built again with another model than {identity.name}: open the newer"
        " index, or build this one again"
    )


def point_to(client: Any, alias: str, name: str) -> None:
    """Let an alias point to a collection, in one step for every reader, and remove the one before.

    Args:
        client: of qdrant-client.
        alias: made when missing.
        name: of the collection.
    """
    from qdrant_client import models

    old = _aliases(client).get(alias)
    drop = models.DeleteAlias(alias_name=alias)
    changes: list[Any] = [models.DeleteAliasOperation(delete_alias=drop)] if old else []
    create = models.CreateAlias(collection_name=name, alias_name=alias)
    changes.append(models.CreateAliasOperation(create_alias=create))
    client.update_collection_aliases(change_aliases_operations=changes)
    if old:
        client.delete_collection(old)


def drop_unless_used(client: Any, name: str) -> None:
    """Remove the collection of a build that failed, unless the server did move an alias to it.

    Args:
        client: of qdrant-client.
        name: of the collection.
    """
    with contextlib.suppress(Exception):  # what made the build fail may do so here: a later build removes it
        if name not in _aliases(client).values():
            client.delete_collection(name)


def drop_left(client: Any, alias: str) -> None:
    """Remove collections that killed builds of an alias left a day ago or earlier.

    Args:
        client: of qdrant-client.
        alias: of the builds.
    """
    used = set(_aliases(client).values())
    for name in (found.name for found in client.get_collections().collections):
        parts = _parts(name, alias)
        if parts is not None and name not in used and time.time() - int(parts[2], 16) > LEFT_SECONDS:
            client.delete_collection(name)


def is_gone(error: Exception) -> bool:
    """Whether an error of the client says that the collection is not there.

    Args:
        error: of a server, or of the client that keeps its points in memory.
    """
    in_memory = type(error) is ValueError and re.search(r"^Collection \S+ not found", str(error)) is not None
    return in_memory or getattr(error, "status_code", None) == 404


def _aliases(client: Any) -> dict[str, str]:
    return {alias.alias_name: alias.collection_name for alias in client.get_aliases().aliases}


def _parts(name: str, alias: str) -> re.Match[str] | None:
    return re.fullmatch(rf"{re.escape(alias)}-([0-9a-f]{{16}})-([0-9a-f]{{8}})[0-9a-f]{{8}}", name)


def _print_of(identity: ModelIdentity | None) -> str:
    """A fingerprint may be any text, and a name may not."""
    return _NO_MODEL if identity is None else hashlib.sha256(identity.fingerprint.encode()).hexdigest()[:16]
