"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest
from house_files import PACKAGE, python_files

MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in python_files("src")
    if path.stem != "__main__"
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(import_module(name)).failed == 0, "the captured output says which"


def test_examples_are_found():
    found = sum(bool(test.examples) for name in MODULES for test in doctest.DocTestFinder().find(import_module(name)))
    assert found > 100
