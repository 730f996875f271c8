"""Dotted keys laid over a settings object, checked like a command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from rexbert_hf.settings import SettingsError, to_dict
from rexbert_hf.settings.command_line import override
from rexbert_hf.settings.convert import build
from rexbert_hf.settings.tree import from_value

T = TypeVar("T")


def with_overrides(base: T, overrides: Mapping[str, Any], where: str) -> T:
    """Lay dotted keys over settings, such as a pre-training recipe.

    Args:
        base: the settings.
        overrides: dotted keys and values; a mapping or list replaces what was there.
        where: named in errors.

    Raises:
        SettingsError: for an unknown key or a value of the wrong type.

    Example:
        >>> from rexbert_hf.pretraining import ModelSettings
        >>> with_overrides(ModelSettings(), {"size": "mini"}, "here").size
        'mini'
    """
    root = from_value(to_dict(base), where)
    cls = type(base)
    try:
        for key, value in overrides.items():
            override(root, cls, key, value if isinstance(value, str) else json.dumps(value))
        found: T = build(cls, root)
        return found
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}".replace("command line --", "").replace("--", "")) from None
