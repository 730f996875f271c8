"""What `--help` prints: every dotted key with its type, default and description.

A description is the field's line under `Attributes:` in the class docstring.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from rexbert_hf.settings.convert import join, to_dict
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


def _attribute_lines(cls: type) -> dict[str, str]:
    _, found, section = inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")
    section = re.split(r"\n\S", section)[0] if found else ""
    entries = re.findall(r"^    (\w+)(?: \([^)]*\))?: (.*(?:\n {8,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


def descriptions(cls: type) -> dict[str, str]:
    """Description of each field of a dataclass that has one, inherited ones included.

    >>> @dataclasses.dataclass
    ... class Run:
    ...     '''A run.
    ...
    ...     Attributes:
    ...         seed: seed of everything random
    ...     '''
    ...     seed: int = 0
    >>> descriptions(Run)
    {'seed': 'seed of everything random'}
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__[:-1]):
        if dataclasses.is_dataclass(base):
            found |= _attribute_lines(base)
    return found


def all_keys(cls: type, prefix: str = "", base: Any = None, seen: tuple[type, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield (dotted key, type, default, description) of every key; `N` stands for a list index, `NAME` for a dict key.

    >>> @dataclasses.dataclass
    ... class Run:
    ...     seed: int = 0
    >>> list(all_keys(Run))[0][:3]
    ('seed', 'int', '0')
    """
    helps = descriptions(cls)
    for name, kind in field_types(cls).items():
        key, default = join(prefix, name), field_default(cls, name, base)
        below = None
        for member in members(kind):
            args = get_args(member)
            if is_record(member):
                below = (member, key, default)
            elif is_list(member) and args and is_record(args[0]):
                below = (args[0], join(key, "N"), None)
            elif is_mapping(member) and args and is_record(args[1]):
                below = (args[1], join(key, "NAME"), None)
        if below is not None and _are_akin(below[0], cls):
            yield join(key, "N"), "the keys of the whole recipe", "none", helps.get(name, "")
        elif below is None or below[0] in seen:
            text = "required" if default is MISSING else str(to_dict(default))
            yield key, type_name(kind), text, helps.get(name, "")
        else:
            yield from all_keys(*below, (*seen, cls))


def _are_akin(inner: type, outer: type) -> bool:
    """Whether two records share a record as their base, so that the keys of one are those of the other again."""
    return any(dataclasses.is_dataclass(base) for base in set(inner.__mro__) & set(outer.__mro__) - {inner})


def help_text(cls: type, program: Path, default_config: Path | None) -> str:
    """Render the help page of a recipe."""
    title = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
    lines = [f"usage: python {program} [CONFIG.yaml] [--dotted.key value ...]"]
    if default_config is not None:
        lines.append(f"default configuration: {default_config}")
    lines += ["", title if not title.startswith(f"{cls.__name__}(") else "keys and their defaults", ""]
    for key, kind, default, description in all_keys(cls):
        lines.append(
            f"  --{key}  {kind} (default: {default})" if default != "required" else f"  --{key}  {kind} (required)"
        )
        lines += textwrap.wrap(description, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", "Counts may be written 1e6, 1_000_000, 35M, 250B or 1.7T. List items: by index or by name."]
    return "\n".join(lines) + "\n"
