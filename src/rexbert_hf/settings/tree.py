"""Configuration files as a tree of nodes that remember where each value was written.

Scalars stay text until a dataclass says what they should be. So YAML's own guesses (`1e6` is a string, `no` is false,
`010` is eight, `1.10` is a float) never happen, and every later error can name the file and line or the flag.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEFAULTS = "defaults"
"""Origin of what nobody wrote."""
COMMAND_LINE = "command line"
"""Begins the origin of what the command line says."""
_MOST_NODES = 100_000
"""Values of a file, aliases written out: a small file may hold aliases of aliases that fill the memory."""


class SettingsError(ValueError):
    """A configuration that cannot be used; the message is one line and says where the value came from."""


@dataclass(slots=True)
class Node:
    """One value of a configuration, not yet converted.

    Attributes:
        value: a mapping or list of nodes, the text of a scalar, or None for null.
        origin: where it was written, such as `quickstart.yaml:12` or `command line`.
        quoted: the scalar is a string for certain (written in quotes).
        raw: a command-line text; it is read as YAML only if its type is a list or a mapping.
        replaces: a list or mapping tagged `!replace`: it does not merge with the one it extends.
        laid_over: it took the place of a value that was written before, so its key is no misspelling.
    """

    value: dict[str, Node] | list[Node] | str | None
    origin: str
    quoted: bool = False
    raw: bool = False
    replaces: bool = False
    laid_over: bool = False


def closest(name: str, options: Iterable[str]) -> str | None:
    """Return the option nearest to a mistyped name, or None when nothing is near.

    >>> closest("max_token", ["name", "max_tokens"])
    'max_tokens'
    """
    found = difflib.get_close_matches(name, list(options), 1, 0.6)
    return found[0] if found else None


def one_line(error: BaseException | str) -> str:
    r"""Collapse a message to one line.

    >>> one_line("a\n   b")
    'a b'
    """
    return " ".join(str(error).split())


def from_value(value: Any, origin: str) -> Node:
    """Wrap a plain Python value (what JSON or YAML can hold) in nodes.

    >>> from_value({"a": [1, None]}, "here").value["a"].value[0].value
    '1'
    """
    if value is None:
        return Node(None, origin)
    if isinstance(value, Mapping):
        return Node({str(key): from_value(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, list | tuple):
        return Node([from_value(item, origin) for item in value], origin)
    if isinstance(value, bool):
        return Node(str(value).lower(), origin)
    return Node(str(value), origin, quoted=not isinstance(value, int | float))


def _refuse_duplicates(node: yaml.Node, name: str, known: set[int]) -> None:
    """Refuse a key that a mapping has twice, as written: a merge key adds, in place, what the mapping overrides."""
    if id(node) in known or not isinstance(node, yaml.CollectionNode):
        return
    known.add(id(node))
    seen: set[str] = set()
    for item in node.value:
        key, child = item if isinstance(node, yaml.MappingNode) else (None, item)
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise SettingsError(f"{name}:{key.start_mark.line + 1}: '{key.value}' is given twice")
            seen.add(key.value)
        _refuse_duplicates(child, name, known)


def _from_yaml(
    loader: yaml.SafeLoader, node: yaml.Node, name: str, open_nodes: tuple[int, ...], number: Iterator[int]
) -> Node:
    origin = f"{name}:{node.start_mark.line + 1}" if name else COMMAND_LINE
    if next(number) > _MOST_NODES:
        raise SettingsError(f"{origin}: more than {_MOST_NODES:,} values: aliases of aliases? Write fewer of them")
    if id(node) in open_nodes:
        raise SettingsError(f"{origin}: a YAML alias points into itself")
    open_nodes = (*open_nodes, id(node))
    replaces = node.tag == "!replace"
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # resolves `<<` merge keys
        items: dict[str, Node] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise SettingsError(f"{origin}: a key must be a plain word")
            items[key.value] = _from_yaml(loader, child, name, open_nodes, number)
        return Node(items, origin, replaces=replaces)
    if isinstance(node, yaml.SequenceNode):
        items_of = [_from_yaml(loader, child, name, open_nodes, number) for child in node.value]
        return Node(items_of, origin, replaces=replaces)
    null = node.tag == "tag:yaml.org,2002:null"
    return Node(None if null else node.value, origin, quoted=getattr(node, "style", None) is not None)


def read_text(text: str, name: str = "") -> Node:
    """Read YAML text into nodes; an empty text is an empty mapping.

    Args:
        text: one YAML document.
        name: the file, for messages; empty for a command-line value.

    Raises:
        SettingsError: if the text is not YAML; the message names the line.

    >>> read_text("a: 1e6", "x.yaml").value["a"].origin
    'x.yaml:1'
    """
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return Node({}, name)
        _refuse_duplicates(node, name, set())
        return _from_yaml(loader, node, name, (), itertools.count())
    except RecursionError:
        raise SettingsError(f"{name or repr(text[:40])}: nested too deeply: write it flatter") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = repr(text) if not name else f"{name}:{mark.line + 1}" if mark is not None else name
        problem = getattr(error, "problem", None) or one_line(error)
        raise SettingsError(f"{where}: not valid YAML: {one_line(problem)}") from None
    finally:
        if loader is not None:
            loader.dispose()


def item_name(node: Node) -> str | None:
    """The `name` of a list's item, by which lists merge; None if it has none.

    >>> item_name(read_text("{name: anneal, seq_length: 64}"))
    'anneal'
    """
    name = node.value.get("name") if isinstance(node.value, dict) else None
    return name.value if name is not None and isinstance(name.value, str) else None


def _merge_lists(base: list[Node], over: Node) -> Node:
    assert isinstance(over.value, list)
    names = [item_name(item) for item in base]
    if not base or any(item_name(item) is None for item in over.value) or None in names:
        return over
    items = list(base)
    for item in over.value:
        name = item_name(item)
        if name in names:
            items[names.index(name)] = merge(items[names.index(name)], item)
        else:
            items.append(item)
    return Node(items, over.origin)


def merge(base: Node, over: Node) -> Node:
    """Lay one configuration over another: mappings merge, lists of named items merge by `name`, the rest replaces.

    A list or mapping tagged `!replace` never merges.

    >>> low, high = read_text("{a: 1, l: [{name: x, v: 1}]}"), read_text("{b: 2, l: [{name: x, v: 3}]}")
    >>> sorted(merge(low, high).value), merge(low, high).value["l"].value[0].value["v"].value
    (['a', 'b', 'l'], '3')
    """
    if over.replaces:
        return over
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        items = dict(base.value)
        for key, child in over.value.items():
            items[key] = merge(items[key], child) if key in items else child
        return Node(items, over.origin)
    if isinstance(base.value, list) and isinstance(over.value, list):
        return _merge_lists(base.value, over)
    return dataclasses.replace(over, laid_over=True)


def read_file(path: Path, chain: tuple[Path, ...] = ()) -> Node:
    """Read a YAML file and the files it `extends` (a path, or a list of paths, relative to the file).

    Args:
        path: the YAML file.
        chain: the files that led here, to find cycles.

    Raises:
        SettingsError: if a file cannot be read, is not a mapping, or extends itself.
    """
    resolved = path.resolve()
    if resolved in chain:
        cycle = " -> ".join(item.name for item in (*chain[chain.index(resolved) :], resolved))
        raise SettingsError(f"{path}: 'extends' goes round in a circle: {cycle}")
    try:
        node = read_text(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not isinstance(node.value, dict):
        raise SettingsError(f"{path}: expected 'key: value' lines at the top level")
    extends = node.value.pop("extends", None)
    if extends is None:
        return node
    base = Node({}, path.name)
    for item in extends.value if isinstance(extends.value, list) else [extends]:
        if not isinstance(item.value, str):
            raise SettingsError(f"{item.origin}: 'extends' must be a file name or a list of them")
        parent = path.parent / item.value
        if not parent.is_file():
            raise SettingsError(f"{item.origin}: extends '{item.value}', but {parent} does not exist")
        base = merge(base, read_file(parent, (*chain, resolved)))
    return merge(base, node)
