"""Fetch the test mixins of the installed transformers version: they are in its source archive, not in the wheel.

Nothing fetched is committed: everything goes to `tests/_transformers_suite/VERSION/`, which git ignores. Only the
files named here leave the archive.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import transformers

ROOT = Path(__file__).resolve().parents[1] / "_transformers_suite"
PACKAGE = "transformers_mixins"
WANTED = ("test_modeling_common.py", "test_configuration_common.py")
STUBS = {
    "__init__.py": "",
    "exporters/__init__.py": "",
    "exporters/test_export.py": "class ExportTesterMixin:\n    pass\n",
    "generation/__init__.py": "",
    "generation/test_utils.py": "class GenerationTesterMixin:\n    pass\n",
    "utils/__init__.py": "",
    "utils/test_configuration_utils.py": "config_common_kwargs = {}\n",
}
"""What the mixins import and the archive lacks; none of it applies to an encoder."""


def folder(version: str = transformers.__version__) -> Path:
    """Where the mixins of a version lie; holds the package `transformers_mixins`."""
    return ROOT / version


def fetch(version: str = transformers.__version__) -> Path:
    """Download and unpack the mixins of a version, unless they are there; return their folder."""
    package = folder(version) / PACKAGE
    if all((package / name).exists() for name in WANTED):
        return folder(version)
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        subprocess.run([*command, "--no-build-isolation", "--dest", scratch, f"transformers=={version}"], check=True)
        (archive,) = Path(scratch).glob("transformers-*.tar.gz")
        unpack(archive, package)
    return folder(version)


def unpack(archive: Path, package: Path) -> None:
    """Write the wanted files of the archive and the stubs; paths inside the archive decide nothing."""
    package.mkdir(parents=True, exist_ok=True)
    # The normal test run must not collect what lies here.
    (ROOT / "conftest.py").write_text('collect_ignore_glob = ["*"]\n', encoding="utf-8")
    with tarfile.open(archive) as tar:
        members = {Path(m.name).name: m for m in tar if m.isfile() and Path(m.name).parent.name == "tests"}
        for name in WANTED:
            if name not in members:
                raise FileNotFoundError(f"{archive.name} has no tests/{name}: this transformers version moved it")
            content = tar.extractfile(members[name])
            assert content is not None
            (package / name).write_bytes(content.read())
    for name, text in STUBS.items():
        (package / name).parent.mkdir(exist_ok=True)
        (package / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    print(fetch())
