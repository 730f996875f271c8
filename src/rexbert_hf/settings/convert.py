"""From nodes to typed dataclasses: each scalar is read as its annotated type, each error names the full dotted key."""

from __future__ import annotations

import dataclasses
import enum
import os
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rexbert_hf.settings.kinds import (
    MISSING,
    field_default,
    field_types,
    is_list,
    is_mapping,
    is_record,
    members,
    parse_number,
    type_name,
)
from rexbert_hf.settings.ranges import MOST_SEED
from rexbert_hf.settings.tree import DEFAULTS, Node, SettingsError, closest, from_value, one_line, read_text

_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}
FLAG_WORDS = _TRUE | _FALSE
"""Ways to write true or false, in any case."""
NULL_WORDS = ("null", "~", "none", "None")
"""Ways to write None on the command line."""


def join(key: str, part: str | int) -> str:
    """Append one part to a dotted key.

    >>> join("", "a"), join("a", 0)
    ('a', 'a.0')
    """
    return f"{key}.{part}" if key else str(part)


def shown(node: Node) -> str:
    """Render a node's value for a message."""
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    return "null" if node.value is None else repr(node.value)


def _wrong(node: Node, kind: Any, key: str, extra: str = "") -> SettingsError:
    return SettingsError(f"{key}: expected {type_name(kind)}, got {shown(node)}{extra} (from {node.origin})")


def unknown_key(key: str, part: str, options: Sequence[str], origin: str) -> SettingsError:
    """Make the error for a key that does not exist, with the nearest valid one."""
    near = closest(part, options)
    hint = f"did you mean '{join(key, near)}'?" if near else f"valid keys here: {', '.join(options) or 'none'}"
    return SettingsError(f"unknown key '{join(key, part)}' (from {origin}); {hint}")


def structured(node: Node, commas: bool = False) -> Node:
    """Read a command-line text as YAML; `a,b` is a list where one is due. Other nodes pass."""
    if not node.raw or not isinstance(node.value, str):
        return node
    text = node.value
    listed = commas and not text.lstrip().startswith(("[", "{"))
    try:
        return dataclasses.replace(read_text(f"[{text}]" if listed else text), origin=node.origin)
    except SettingsError as error:
        if listed:  # "runs/seed-{seed}" is a text, though no YAML within brackets
            return from_value([part.strip() for part in text.split(",")], node.origin)
        raise SettingsError(f"{node.origin}: {error}") from None


def build(cls: type, node: Node, key: str = "", base: Any = None) -> Any:
    """Build a dataclass from a mapping node; keys that are not written keep the default.

    Args:
        cls: the dataclass.
        node: the mapping.
        key: dotted key of the mapping, for messages.
        base: an instance whose values are the defaults, instead of the class's own.

    Raises:
        SettingsError: for unknown and missing keys, wrong types, and what the class's own checks refuse.
    """
    node = structured(node)
    if not isinstance(node.value, dict):
        raise _wrong(node, cls, key)
    kinds = field_types(cls)
    for name, child in node.value.items():
        if name not in kinds:
            raise unknown_key(key, name, list(kinds), child.origin)
    values: dict[str, Any] = {}
    for name, kind in kinds.items():
        default = field_default(cls, name, base)
        if name in node.value:
            values[name] = _at_home(
                convert(node.value[name], kind, join(key, name), default), name, node.value[name], key
            )
            _check_seed(name, values[name], node.value[name], join(key, name))
        elif default is not MISSING:
            values[name] = default
        elif is_record(kind):
            values[name] = build(kind, Node({}, node.origin), join(key, name))
        else:
            raise SettingsError(f"{join(key, name)} is required ({type_name(kind)}) but not set (from {node.origin})")
    try:
        return cls(**values)
    except SettingsError:
        raise
    except (ValueError, TypeError, ArithmeticError) as error:  # of a number that a check computes with
        raise SettingsError(f"{key}: {one_line(error)} (from {_places(node)})".removeprefix(": ")) from error


def _at_home(value: Any, name: str, node: Node, key: str) -> Any:
    """Write out the `~` of a folder that is text, as a `Path`'s: transformers does, and a run would lie in two."""
    if not (name.endswith("_dir") and isinstance(value, str)):
        return value
    if (place := os.path.expanduser(value)).startswith("~"):
        raise SettingsError(f"{join(key, name)}: {value}: no such user here; write the folder out (from {node.origin})")
    return place


def _check_seed(name: str, value: Any, node: Node, key: str) -> None:
    """Refuse a seed that a generator would refuse later; here, so that no class with a seed can forget it."""
    seeds = value if name == "seeds" and isinstance(value, list) else [value] if name == "seed" else []
    for seed in seeds:
        if isinstance(seed, int) and not 0 <= seed <= MOST_SEED:
            raise SettingsError(f"{key}: a seed lies between 0 and {MOST_SEED}, got {seed} (from {node.origin})")


def _places(node: Node) -> str:
    """Where a mapping was written, and where else its values come from; defaults only if there is nothing else."""
    assert isinstance(node.value, dict)
    files = {node.origin.partition(":")[0]: node.origin}
    for child in node.value.values():
        files.setdefault(child.origin.partition(":")[0], child.origin)
    return " and ".join(place for name, place in files.items() if name != DEFAULTS or len(files) == 1)


def convert(node: Node, kind: Any, key: str, default: Any = MISSING) -> Any:
    """Convert one node to an annotated type.

    Args:
        node: what was written.
        kind: the annotation: scalars, `Literal`, enums, `Path`, lists, tuples, dicts, dataclasses and unions of them.
        key: full dotted key, for messages.
        default: the field's default; a dataclass there supplies what a mapping leaves out.

    Raises:
        SettingsError: if the value does not fit the type.

    >>> from rexbert_hf.settings.tree import from_value
    >>> convert(from_value("1e6", "x.yaml:3"), int, "max_tokens")
    1000000
    >>> convert(from_value([1, "2e-3"], "x.yaml:3"), float | list[float], "rate")
    [1.0, 0.002]
    """
    alternatives = members(kind)
    if len(alternatives) > 1:
        return _convert_union(node, kind, alternatives, key, default)
    kind = alternatives[0]
    if is_record(kind):
        return build(kind, node, key, default if isinstance(default, kind) else None)
    if is_list(kind):
        return _convert_list(structured(node, commas=True), kind, key)
    if is_mapping(kind):
        return _convert_mapping(structured(node), kind, key)
    if kind is Any or kind is object:
        return _plain(structured(node))
    if kind is type(None) and _is_null(node):
        return None
    if not isinstance(node.value, str):
        raise _wrong(node, kind, key)
    return _convert_scalar(node, node.value, kind, key)


def _is_null(node: Node) -> bool:
    return node.value is None or (node.raw and node.value in NULL_WORDS)


def _strictness(kind: Any, text: Any) -> int:
    """Order the members of a union: a number is never taken for a text, nor a count for a share."""
    if kind is bool and text in ("0", "1"):
        return 4
    return {bool: 1, int: 2, float: 3, Path: 5, str: 6}.get(kind, 0) if isinstance(kind, type) else 0


def _bracketed(node: Node, present: list[Any]) -> Any:
    """Value of a node; a command-line text in brackets is read as YAML where some member of the union has such a form.

    A text like "{title}. {description}" is a template, where a text is allowed.
    """
    opening = str(node.value).lstrip()[:1]
    if not node.raw or opening not in ("[", "{"):
        return node.value
    has_form = is_list if opening == "[" else lambda member: is_record(member) or is_mapping(member)
    if str in present and not any(has_form(member) or member is Any for member in present):
        return node.value
    try:
        return structured(node).value
    except SettingsError:
        if str not in present:
            raise
        return node.value


def _convert_union(node: Node, kind: Any, alternatives: tuple[Any, ...], key: str, default: Any) -> Any:
    if type(None) in alternatives and _is_null(node):
        return None
    present = [member for member in alternatives if member is not type(None)]
    value = _bracketed(node, present)
    if isinstance(value, dict):
        candidates = [member for member in present if is_record(member) or is_mapping(member) or member is Any]
    elif isinstance(value, list):
        candidates = [member for member in present if is_list(member) or member is Any]
    else:
        candidates = [m for m in present if not (is_record(m) or is_mapping(m) or is_list(m))]
        candidates.sort(key=lambda member: -1 if node.quoted and member is str else _strictness(member, value))
        candidates += [member for member in present if node.raw and is_list(member)]
    for member in candidates:
        try:
            return convert(node, member, key, default)
        except SettingsError:
            # The only member that could fit knows better what is wrong than the union does.
            if len(candidates) == 1 and (len(present) == 1 or isinstance(value, dict | list)):
                raise
    raise _wrong(node, kind, key)


def _convert_list(node: Node, kind: Any, key: str) -> Any:
    if not isinstance(node.value, list):
        raise _wrong(node, kind, key)
    container, args = typing.get_origin(kind) or kind, typing.get_args(kind)
    if container is tuple and args and Ellipsis not in args:
        if len(node.value) != len(args):
            raise _wrong(node, kind, key, f" of {len(node.value)}")
        return tuple(convert(item, args[i], join(key, i)) for i, item in enumerate(node.value))
    items = [convert(item, args[0] if args else Any, join(key, i)) for i, item in enumerate(node.value)]
    return items if container in (list, Sequence) else container(items)


def _convert_mapping(node: Node, kind: Any, key: str) -> dict[Any, Any]:
    if not isinstance(node.value, dict):
        raise _wrong(node, kind, key)
    key_kind, kind = typing.get_args(kind) or (str, Any)
    items = node.value.items()
    return {convert(Node(k, v.origin), key_kind, key): convert(v, kind, join(key, k)) for k, v in items}


def _plain(node: Node) -> Any:
    if isinstance(node.value, dict):
        return {key: _plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [_plain(child) for child in node.value]
    if node.value is None or node.quoted:
        return node.value
    if node.value.lower() in FLAG_WORDS - {"0", "1"}:
        return node.value.lower() in _TRUE
    try:
        return int(node.value)
    except ValueError:
        number = parse_number(node.value) if node.value[-1:].isdigit() else None
        return node.value if number is None else float(number)


def _convert_scalar(node: Node, text: str, kind: Any, key: str) -> Any:
    if kind is str:
        return text
    if isinstance(kind, type) and issubclass(kind, Path):
        try:
            return kind(text).expanduser()
        except RuntimeError:
            raise _wrong(node, kind, key, "; no such user here: write the folder out") from None
    if kind is bool:
        if text.lower() not in FLAG_WORDS:
            raise _wrong(node, kind, key)
        return text.lower() in _TRUE
    if kind is int or kind is float:
        return _convert_number(node, text, kind, key)
    if typing.get_origin(kind) is Literal:
        options = {str(value): value for value in typing.get_args(kind)}
    elif isinstance(kind, type) and issubclass(kind, enum.Enum):
        options = {str(member.value): member for member in kind}
    else:
        raise TypeError(f"{key}: settings cannot hold the type {kind!r}")
    if text not in options:
        near = closest(text, options)
        raise _wrong(node, kind, key, f"; did you mean '{near}'?" if near else "")
    return options[text]


def _convert_number(node: Node, text: str, kind: type, key: str) -> int | float:
    if kind is float and text.strip().lower().lstrip("+-").lstrip(".") in ("inf", "infinity"):
        return float("-inf") if text.strip().startswith("-") else float("inf")
    number = parse_number(text)
    if number is None:
        raise _wrong(node, kind, key)
    if kind is float:
        return float(number)
    if abs(number) > 2**63 or number != int(number):
        raise _wrong(node, kind, key)
    return int(number)


def to_dict(instance: Any) -> Any:
    """Resolve a settings instance to what YAML and JSON can hold.

    Paths become strings, tuples lists, enums their values. `from_dict(cls, to_dict(x)) == x`.

    >>> @dataclasses.dataclass
    ... class Run:
    ...     output_dir: Path = Path("runs")
    ...     betas: tuple[float, float] = (0.9, 0.98)
    >>> to_dict(Run())
    {'output_dir': 'runs', 'betas': [0.9, 0.98]}
    """
    if dataclasses.is_dataclass(instance) and not isinstance(instance, type):
        return {f.name: to_dict(getattr(instance, f.name)) for f in dataclasses.fields(instance) if f.init}
    if isinstance(instance, Mapping):
        return {str(key): to_dict(value) for key, value in instance.items()}
    if isinstance(instance, list | tuple):
        return [to_dict(value) for value in instance]
    if isinstance(instance, set | frozenset):
        return sorted(to_dict(value) for value in instance)
    if isinstance(instance, enum.Enum):
        return instance.value
    if instance is None or isinstance(instance, bool | int | float | str):
        return instance
    return instance.item() if hasattr(instance, "item") else str(instance)
