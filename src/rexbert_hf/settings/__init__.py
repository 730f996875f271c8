"""The one parser of all recipes: typed dataclasses from YAML files and dotted command-line keys.

    python recipes/NAME.py [CONFIG.yaml] [--dotted.key value ...]

Unknown keys, wrong types and missing files are one-line errors that name the key and the place it was written.
"""

from __future__ import annotations

from rexbert_hf.settings.command_line import from_dict, load_settings, named_config, parse_args
from rexbert_hf.settings.convert import to_dict
from rexbert_hf.settings.kinds import parse_number
from rexbert_hf.settings.running import run_recipe, start_logging
from rexbert_hf.settings.sole_run import FolderInUseError, hold_folder, sole_run
from rexbert_hf.settings.tree import SettingsError

__all__ = [
    "FolderInUseError",
    "SettingsError",
    "from_dict",
    "hold_folder",
    "load_settings",
    "named_config",
    "parse_args",
    "parse_number",
    "run_recipe",
    "sole_run",
    "start_logging",
    "to_dict",
]
