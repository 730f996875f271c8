"""The package as it is installed: what the wheel holds, what importing costs, that the lazy names exist."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from house_files import PACKAGE, ROOT
from wheel_check import HEAVY

import rexbert_hf


def setuptools_version() -> tuple[int, ...]:
    try:
        from importlib.metadata import version

        return tuple(int(part) for part in version("setuptools").split(".")[:1])
    except ImportError:
        return (0,)


@pytest.mark.skipif(setuptools_version() < (77,), reason="the build backend, setuptools >= 77, is not installed")
def test_wheel(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(tmp_path), str(source)]
    done = subprocess.run([sys.executable, "-m", "pip", *build], capture_output=True, text=True)
    if "No module named pip" in done.stderr:
        pytest.skip("this environment has no pip")
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(PACKAGE.parent).as_posix() for path in files} <= names
    assert "rexbert_hf/py.typed" in names
    assert any(name.startswith("rexbert_hf/hub/templates/") and name.endswith(".md") for name in names)
    assert not [name for name in names if name.split("/")[0] not in ("rexbert_hf",) and ".dist-info" not in name]


def loaded_by(statement: str) -> tuple[set[str], list[str]]:
    """Heavy packages, and rooms of this one, that a statement loads in a fresh process."""
    code = f"""import sys
{statement}
print(*[name for name in {HEAVY} if name in sys.modules])
print(*sorted(name for name in sys.modules if name.startswith("rexbert_hf.") and name.count(".") == 1))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, rooms = done.stdout.split("\n")[:2]
    return set(heavy.split()), rooms.split()


def test_import_is_light():
    """`import rexbert_hf` loads the models, and no package that a stock model class does not load too."""
    heavy, rooms = loaded_by("import rexbert_hf")
    assert rooms == ["rexbert_hf.models"]
    if heavy:  # transformers 5.17 loads scikit-learn for every model, 5.23 does not
        stock, _ = loaded_by("from transformers import AutoModelForMaskedLM, ModernBertForMaskedLM")
        assert heavy <= stock
    assert heavy <= {"sklearn", "pandas"}


def test_what_a_gpu_measures_needs_no_datasets():
    """A borrowed machine has torch and transformers, and may lack the data sets' package."""
    code = """import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] == "datasets" else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
import rexbert_hf.masking, rexbert_hf.data, rexbert_hf.training.compiling, rexbert_hf.retrieval.serving.encoding
from rexbert_hf.training import CurriculumTrainer, FlopCounter
assert "datasets" not in sys.modules"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", rexbert_hf.__all__)
def test_public_names_exist(name):
    assert getattr(rexbert_hf, name) is not None


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Reranker'"):
        rexbert_hf.Reranker  # noqa: B018


def bounds(names: str, pattern: str) -> dict[str, tuple[int, ...]]:
    """Package names and versions, as numbers without trailing zeros, that a pattern finds in a text."""
    found = re.findall(pattern, names, flags=re.MULTILINE)
    numbers = {name: [int(part) for part in version.split(".")] for name, version in found}
    return {name: tuple(parts[: max((i + 1 for i, part in enumerate(parts) if part), default=0)])
            for name, parts in numbers.items()}  # fmt: skip


MIN_EXTRAS = ("dev", "corpus", "search", "onnx")
"""What `make test-min` installs beside the requirements."""


def test_lower_bounds_are_the_tested_ones():
    """What `make test-min` installs is what setup.cfg allows at least."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    declared = config["options"]["install_requires"] + "".join(extras[name] for name in MIN_EXTRAS)
    lowest = bounds(declared, r"^([\w-]+)>=([\d.]+)(?!.*python_version >=)")
    tested = bounds((ROOT / "constraints-min.txt").read_text(), r"^([\w-]+)==([\d.]+)$")
    tools = {"ruff", "mypy"}  # not part of the tests
    assert {name: tested.get(name) for name in lowest if name not in tools} == {
        name: version for name, version in lowest.items() if name not in tools
    }
