"""A result that takes its place: whoever is stopped between two files leaves nothing that looks finished."""

from __future__ import annotations

from pathlib import Path

import pytest

from rexbert_hf.hub.take_place import take_place


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it."""


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def two_results(folder: Path) -> Path:
    write(folder, **{"run.json": "old", "a": "old", "part__gone": "old", "mine": "kept", "part__mine": "kept"})
    write(folder / ".new", **{"a": "new", "part__b": "new", "c": "new"})
    return folder / ".new"


def test_files_are_replaced_and_what_the_new_result_lacks_goes(tmp_path):
    take_place(two_results(tmp_path), tmp_path, ["a", "part/gone", "part/b"])
    assert contents(tmp_path) == {"a": "new", "part/b": "new", "c": "new", "mine": "kept", "part/mine": "kept"}


@pytest.mark.parametrize("moves", [0, 1, 2])
def test_a_kill_between_two_files_leaves_no_finished_run(tmp_path, monkeypatch, moves):
    staged, real, done = two_results(tmp_path), Path.replace, []

    def replace(path, target):
        if len(done) == moves:
            raise Killed
        done.append(target)
        return real(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(Killed):
        take_place(staged, tmp_path, ["a", "part/gone", "part/b"])
    assert not (tmp_path / "run.json").exists()
    assert (tmp_path / "mine").read_text() == "kept"
