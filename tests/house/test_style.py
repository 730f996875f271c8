"""Sizes, docstrings, types, and what no file of the project may hold."""

from __future__ import annotations

import ast
import re
import statistics
from collections.abc import Iterator

import pytest
from house_files import PACKAGE, ROOT, name_of, project_files, python_files, tree

FILE_LINES = 400
FUNCTION_LINES = 80
# Aims, of all files and functions of src together.
MEDIAN_FILE_LINES, MEDIAN_FUNCTION_LINES = 200, 14
# The heads, whose long forward signatures transformers reads from each class; it may only shrink.
LONG_FILES = {
    "src/rexbert_hf/models/modeling_rexbert.py": 600,
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path) -> Iterator[Function]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, Function))


def lines_of(path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def length(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


SOURCES = python_files("src", "recipes", "benchmarks")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_and_functions_are_short(path):
    limit = LONG_FILES.get(name_of(path), FILE_LINES)
    assert lines_of(path) <= limit, f"{name_of(path)} has {lines_of(path)} lines, at most {limit}"
    too_long = {node.name: length(node) for node in functions(path) if length(node) > FUNCTION_LINES}
    assert not too_long, f"{name_of(path)}: functions over {FUNCTION_LINES} lines: {too_long}"


def test_exceptions_are_still_needed():
    for name, limit in LONG_FILES.items():
        assert lines_of(ROOT / name) > FILE_LINES, f"{name} is short now: take it off LONG_FILES"
        assert lines_of(ROOT / name) > limit - 150, f"{name} has shrunk: lower its limit of {limit}"


def test_typical_sizes():
    paths = python_files("src")
    assert statistics.median(lines_of(path) for path in paths) <= MEDIAN_FILE_LINES
    lengths = [length(node) for path in paths for node in functions(path)]
    assert statistics.median(lengths) <= MEDIAN_FUNCTION_LINES


def undocumented(node: ast.AST, prefix: str = "") -> Iterator[str]:
    """Public classes and functions without a docstring; `forward` of a layer is told by its class."""
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, Function | ast.ClassDef) or child.name.startswith("_"):
            continue
        overload = any("overload" in ast.unparse(decorator) for decorator in child.decorator_list)
        by_class = child.name == "forward" and isinstance(node, ast.ClassDef)
        if not (ast.get_docstring(child) or overload or by_class):
            yield f"{prefix}{child.name} (line {child.lineno})"
        if isinstance(child, ast.ClassDef):
            yield from undocumented(child, f"{prefix}{child.name}.")


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_public_code_has_docstrings(path):
    assert ast.get_docstring(tree(path)), f"{name_of(path)}: no module docstring"
    assert not list(undocumented(tree(path)))


def untyped(node: Function) -> list[str]:
    arguments = node.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra is not None]
    missing = [item.arg for item in named if item.annotation is None and item.arg not in ("self", "cls")]
    return missing + (["return"] if node.returns is None else [])


@pytest.mark.parametrize("path", python_files("src", "recipes"), ids=name_of)
def test_all_functions_are_typed(path):
    missing = {f"{node.name} (line {node.lineno})": untyped(node) for node in functions(path) if untyped(node)}
    assert not missing


@pytest.mark.parametrize("path", python_files("src"), ids=name_of)
def test_the_package_does_not_print(path):
    calls = [node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)]
    assert not [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]


@pytest.mark.parametrize("path", python_files("src", "recipes", "benchmarks", "tests"), ids=name_of)
def test_annotations_are_not_evaluated(path):
    imports = [node.module for node in tree(path).body if isinstance(node, ast.ImportFrom)]
    assert "__future__" in imports or not tree(path).body


# Written in pieces, so that this file does not hold them.
UNFINISHED = re.compile("|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")))
MACHINE = re.compile(r"(?<!\w)(?:" + "|".join(("/wo" + "rk/", "/ro" + r"ot/", "/op" + "t/", "/Us" + r"ers/\w")) + ")")
REGISTRY = re.compile(
    "|".join(("py" + r"pi\.org", "pythonh" + "osted", r"download\.py" + "torch", "/py" + "pi/simple"))
)


@pytest.mark.parametrize("pattern", [UNFINISHED, MACHINE, REGISTRY], ids=["unfinished", "machine", "registry"])
def test_no_file_holds(pattern):
    found = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}: {match[0]}" for match in pattern.finditer(text)]
    assert not found


def test_the_package_is_ascii():
    odd = {name_of(path) for path in python_files("src") if not path.read_text(encoding="utf-8").isascii()}
    allowed = {name_of(path) for path in PACKAGE.rglob("*.py") if "catalog" in path.parts or "regex" in path.stem}
    assert odd <= allowed, "plain ASCII outside word lists and patterns of real text"
