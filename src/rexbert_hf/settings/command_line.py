"""The command line of every recipe: `python recipes/NAME.py [CONFIG.yaml] [--dotted.key value ...]`.

The order of precedence is: the dataclass's defaults, the files that the YAML extends, the YAML, the command line.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from rexbert_hf.settings.convert import FLAG_WORDS, NULL_WORDS, build, join, structured, to_dict, unknown_key
from rexbert_hf.settings.describe import all_keys, help_text
from rexbert_hf.settings.kinds import (
    MISSING,
    field_default,
    field_types,
    is_list,
    is_mapping,
    is_record,
    members,
    type_name,
)
from rexbert_hf.settings.tree import COMMAND_LINE, DEFAULTS, Node, SettingsError, closest, from_value, read_file

T = TypeVar("T")


def _container(kind: Any) -> Any:
    """Return the member of a union that has keys, or None for a scalar."""
    return next((m for m in members(kind) if is_record(m) or is_list(m) or is_mapping(m)), None)


def _child_kind(kind: Any, part: str, key: str, origin: str) -> tuple[str, Any]:
    """Type of one key below a container, and the key as the container spells it."""
    container = _container(kind)
    if container is None:
        raise SettingsError(f"{origin}: '{key}' is {type_name(kind)} and has no key '{part}'")
    if is_record(container):
        kinds = field_types(container)
        name = part.replace("-", "_")
        if name not in kinds:
            raise unknown_key(key, part, list(kinds), origin)
        return name, kinds[name]
    args = get_args(container)
    if is_mapping(container):
        return part, args[1] if args else Any
    if get_origin(container) is tuple and Ellipsis not in args and part.isdigit() and int(part) < len(args):
        return part, args[int(part)]
    return part, args[0] if args else Any


def _kind_of(cls: type, dotted: str) -> Any:
    """Type of a dotted key; unknown keys name the nearest key anywhere in the recipe."""
    kind: Any = cls
    key, origin = "", f"{COMMAND_LINE} --{dotted}"
    for part in dotted.split("."):
        try:
            name, kind = _child_kind(kind, part, key, origin)
        except SettingsError as error:
            last = dotted.rsplit(".", 1)[-1].replace("-", "_")
            elsewhere = [name for name, *_ in all_keys(cls) if name.rsplit(".", 1)[-1] == last]
            if "did you mean" not in str(error) and elsewhere:
                raise SettingsError(f"unknown key --{dotted}; did you mean --{elsewhere[0]}?") from None
            raise
        key = join(key, name)
    return kind


def _index(items: list[Node], part: str, key: str, origin: str) -> int:
    """Position of a list item given by index or by its `name`."""
    names = [item.value["name"].value if isinstance(item.value, dict) and "name" in item.value else None
             for item in items]  # fmt: skip
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(items):
        return int(part)
    known = [str(name) for name in names if name is not None]
    near = closest(part, known)
    hint = f"did you mean '{near}'?" if near else f"names: {', '.join(known)}" if known else "use an index"
    raise SettingsError(f"{origin}: '{key}' has {len(items)} items and none is '{part}'; {hint}")


def _materialise(node: Node | None, kind: Any, default: Any) -> Node:
    """Return the node to write below: what is there, else the default spelled out."""
    if node is not None and node.value is not None:
        return structured(node)
    container = _container(kind)
    if is_record(container) or default is MISSING or default is None:
        return Node([] if is_list(container) else {}, DEFAULTS)
    return from_value(to_dict(default), DEFAULTS)


def override(root: Node, cls: type, dotted: str, text: str) -> None:
    """Write one command-line value into a configuration tree.

    Args:
        root: the tree; changed in place.
        cls: the dataclass that the tree will become.
        dotted: `optimizer.lr`, `phases.0.max_tokens` or `phases.anneal.max_tokens`.
        text: the value, as typed.

    Raises:
        SettingsError: if there is no such key or list item.
    """
    origin = f"{COMMAND_LINE} --{dotted}"
    _kind_of(cls, dotted)
    node, kind, key, default = root, cls, "", MISSING
    parts = dotted.split(".")
    for depth, part in enumerate(parts):
        name, child_kind = _child_kind(kind, part, key, origin)
        container, slot = _container(kind), name
        if isinstance(node.value, list):
            index = _index(node.value, part, key, origin)
            slot, default = str(index), MISSING
        elif is_record(container):
            default = field_default(container, name, default)
        else:
            default = default.get(name, MISSING) if isinstance(default, Mapping) else MISSING
        if depth == len(parts) - 1:
            child = Node(text, origin, raw=True, laid_over=_get(node, slot) is not None)
        else:
            child = _materialise(_get(node, slot), child_kind, default)
        _put(node, slot, child)
        node, kind, key = child, child_kind, join(key, slot)


def _get(node: Node, slot: str) -> Node | None:
    if isinstance(node.value, list):
        return node.value[int(slot)]
    return node.value.get(slot) if isinstance(node.value, dict) else None


def _put(node: Node, slot: str, child: Node) -> None:
    if isinstance(node.value, list):
        node.value[int(slot)] = child
    elif isinstance(node.value, dict):
        node.value[slot] = child
    else:
        raise SettingsError(f"{child.origin}: the value above it is {node.value!r} (from {node.origin}), not a mapping")


def _split(cls: type, argv: Sequence[str]) -> tuple[Path | None, list[tuple[str, str]]]:
    """Separate the CONFIG from the `--key value` pairs; a bare flag is true."""
    config: Path | None = None
    pairs: list[tuple[str, str]] = []
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if config is not None:
                raise SettingsError(f"unexpected argument '{word}': the configuration is {config}; values need a --key")
            config = Path(word)
            continue
        key, equals, text = word[2:].partition("=")
        if equals:
            pairs.append((key, text))
            continue
        if is_list(_container(_kind_of(cls, key))) and (several := _values(words)):
            pairs.append((key, several))
            continue
        kind = _kind_of(cls, key)
        if bool in members(kind) and not (words and _is_value(words[0], kind)):
            pairs.append((key, "true"))
        elif not words or words[0].startswith("--"):
            raise SettingsError(f"--{key} needs a value ({type_name(kind)})")
        else:
            pairs.append((key, words.pop(0)))
    return config, pairs


def _is_value(word: str, kind: Any) -> bool:
    """Whether the word after a flag is its value, and not the configuration file."""
    alternatives = members(kind)
    options = {str(value) for member in alternatives if get_origin(member) is Literal for value in get_args(member)}
    null = NULL_WORDS if type(None) in alternatives else ()
    return word.lower() in FLAG_WORDS or word in options or word in null


def _values(words: list[str]) -> str | None:
    """Two or more words of a list, taken off the front, as YAML, else None; a configuration file ends them."""
    count = 0
    while count < len(words) and not words[count].startswith("--") and not words[count].endswith((".yaml", ".yml")):
        count += 1
    if count < 2:
        return None
    taken, words[:count] = words[:count], []
    return json.dumps(taken)


def _existing(config: Path, default_config: Path | None) -> Path:
    if config.is_file():
        return config
    folder = default_config.parent if default_config is not None else config.parent
    names = sorted(path.name for path in folder.glob("*.y*ml")) if folder.is_dir() else []
    listing = f"; configurations in {folder}: {', '.join(names)}" if names else ""
    raise SettingsError(f"no configuration file {config}{listing}")


def load_settings(cls: type[T], config: Path | None = None, overrides: Sequence[tuple[str, str]] = ()) -> T:
    """Read a configuration file and lay dotted overrides over it.

    Args:
        cls: the dataclass of the recipe.
        config: YAML file, or None for the defaults of the class.
        overrides: (dotted key, text) pairs.

    Raises:
        SettingsError: for anything that does not fit; one line that names key, value and place.
    """
    root = read_file(config) if config is not None else Node({}, DEFAULTS)
    for dotted, text in overrides:
        override(root, cls, dotted, text)
    # A class whose parts share settings lays them together while it is still known where each was written.
    arrange = getattr(cls, "arrange_tree", None)
    return build(cls, root if arrange is None else arrange(root))


def from_dict(cls: type[T], values: Mapping[str, Any], source: str = "the given mapping") -> T:
    """Build settings from plain values, such as the `config` of a `run.json`.

    Raises:
        SettingsError: as `load_settings`.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Run:
    ...     max_tokens: int = 0
    >>> from_dict(Run, {"max_tokens": "1.5M"})
    Run(max_tokens=1500000)
    """
    return build(cls, from_value(values, source))


def named_config(cls: type, words: Sequence[str]) -> Path | None:
    """The configuration that a recipe's command line names; None without one, and where it asks for help.

    Args:
        cls: the dataclass of the recipe, whose types say which words are values.
        words: after the program's name.

    Raises:
        SettingsError: if there is no such key, a value is missing, or two configurations are named.
    """
    return None if _asks_for_help(words) else _split(cls, words)[0]


def _asks_for_help(words: Sequence[str]) -> bool:
    return "--help" in words or "-h" in words


def parse_args(cls: type[T], argv: Sequence[str] | None = None, default_config: Path | None = None) -> T:
    """Read a recipe's command line into a dataclass.

    `[CONFIG.yaml] [--dotted.key value | --dotted.key=value | --flag] ...`, `--help` prints every key and exits. List
    items are addressed by index or by their `name`; `--key a,b`, `--key a b` and `--key "[a, b]"` are lists; `null` is
    None.

    Args:
        cls: the dataclass of the recipe; its fields may be dataclasses, and lists and dicts of them.
        argv: the words after the program's name; default `sys.argv[1:]`.
        default_config: the YAML file that is used when the command line names none.

    Raises:
        SettingsError: for anything that does not fit; one line that names key, value and place.

    >>> from dataclasses import dataclass, field
    >>> @dataclass
    ... class Run:
    ...     learning_rate: float = 1e-3
    ...     max_tokens: dict[str, int] = field(default_factory=lambda: {"general": 10, "anneal": 5})
    >>> parse_args(Run, ["--learning_rate=8e-4", "--max_tokens.anneal", "350B"])
    Run(learning_rate=0.0008, max_tokens={'general': 10, 'anneal': 350000000000})
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if _asks_for_help(words):
        sys.stdout.write(help_text(cls, Path(sys.argv[0]), default_config))
        raise SystemExit(0)
    config, overrides = _split(cls, words)
    config = config if config is not None else default_config
    return load_settings(cls, None if config is None else _existing(config, default_config), overrides)
