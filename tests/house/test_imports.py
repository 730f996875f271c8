"""Imports point up the page: which room may import which, and what travels to the Hub stands alone."""

from __future__ import annotations

import ast
import sys

import pytest
from house_files import PACKAGE, ROOT, imported_modules, name_of, python_files, tree

from rexbert_hf.models.modeling_rexbert import REMOTE_FILES

# From the top of the page down: a room imports rooms of earlier lines only, never of its own.
ORDER = (
    {"hub", "catalog", "metrics", "models"},
    {"settings"},
    {"phrases", "corpus", "data"},
    {"masking", "objectives"},
    {"training"},
    {"pretraining"},
    {"retrieval"},
    {"evaluation"},
    {"reproduction"},
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}
REMOTE_PACKAGES = {"torch", "transformers", "huggingface_hub"}
OPTIONAL_REMOTE_PACKAGES = {"flash_attn", "flash_attn_interface"}


def room_of(module: str) -> str | None:
    """Room of a dotted name; "" for the package itself, None for anything else."""
    parts = module.split(".")
    if parts[0] != "rexbert_hf":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LEVEL else ""


def test_every_room_has_a_place():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert rooms <= set(LEVEL), f"give {sorted(rooms - set(LEVEL))} a line in ORDER and in docs/architecture.md"


@pytest.mark.parametrize("path", python_files("src"), ids=name_of)
def test_imports_point_up(path):
    own = path.relative_to(PACKAGE).parts[0] if path.parent != PACKAGE else None
    for line, module in imported_modules(path):
        room = room_of(module)
        if room is None or room == own or own is None:
            continue
        assert room != "", f"{name_of(path)}:{line}: a room does not import the package itself ({module})"
        assert LEVEL[room] < LEVEL[own], f"{name_of(path)}:{line}: {own} may not import {room}"


def test_the_package_itself_imports_models_only():
    rooms = {room_of(module) for _, module in imported_modules(PACKAGE / "__init__.py")}
    assert rooms - {None} == {"models"}


@pytest.mark.parametrize("name", REMOTE_FILES)
def test_remote_files_stand_alone(name):
    """What is pushed as remote code imports siblings relatively, and nothing else but torch and transformers."""
    path = PACKAGE / "models" / name
    guarded = {
        id(node)
        for attempt in ast.walk(tree(path))
        if isinstance(attempt, ast.Try)
        for statement in attempt.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.level:
            assert (node.level, bool(node.module)) == (1, True), f"{name}:{node.lineno}: import from siblings only"
            assert f"{node.module}.py" in REMOTE_FILES, f"{name}:{node.lineno}: {node.module}.py does not travel"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            for top in (module.partition(".")[0] for module in modules):
                known = top in sys.stdlib_module_names or top in REMOTE_PACKAGES
                optional = top in OPTIONAL_REMOTE_PACKAGES and id(node) in guarded
                assert known or optional, f"{name}:{node.lineno}: {top} (optional packages inside try/except only)"


@pytest.mark.parametrize("path", python_files("src", "recipes", "benchmarks", "tests"), ids=name_of)
def test_nothing_imports_recipes(path):
    found = [(line, module) for line, module in imported_modules(path) if module.partition(".")[0] == "recipes"]
    if path.parent == ROOT / "recipes":
        siblings = {other.stem for other in path.parent.glob("*.py")}
        found += [item for item in imported_modules(path) if item[1].partition(".")[0] in siblings]
    assert not found, f"{name_of(path)} imports a recipe: {found}"


@pytest.mark.parametrize("path", python_files("src", "recipes", "benchmarks"), ids=name_of)
def test_modules_say_what_they_hold(path):
    assert path.stem not in {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not {"utils", "helpers", "common", "misc"} & set(path.relative_to(ROOT).parts)
