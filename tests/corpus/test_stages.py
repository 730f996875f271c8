"""A stage's folder is finished when its report is there, whole, and made from the same things."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from rexbert_hf.corpus.manifest import read_json
from rexbert_hf.corpus.stages import REPORT, StageReport, begin, files_key, finished, stage_key, write_json


@dataclass
class Settings:
    """Two keys."""

    threshold: float = 0.5
    folder: Path = Path("x")


def test_a_report_comes_back_and_nothing_is_lost(tmp_path):
    report = StageReport("filter", "abc", read=10, written=7, details={"f1": np.float32(0.5)})
    report.drop("empty")
    report.drop("duplicate", 2)
    assert report.lost == 0
    report.save(tmp_path / "deep")
    again = finished(tmp_path / "deep", "abc")
    assert again is not None
    assert (again.read, again.written, again.reasons) == (10, 7, {"empty": 1, "duplicate": 2})
    assert [path.name for path in (tmp_path / "deep").iterdir()] == [REPORT]


def test_an_unfinished_folder_another_key_or_half_a_report_are_not_finished(tmp_path):
    assert finished(tmp_path, "abc") is None
    StageReport("label", "abc").save(tmp_path)
    assert finished(tmp_path, "other") is None
    (tmp_path / REPORT).write_text((tmp_path / REPORT).read_text()[:20])
    assert finished(tmp_path, "abc") is None
    for text in ('{"a":' * 5_000, "9" * 5_000):
        (tmp_path / REPORT).write_text(text)
        assert finished(tmp_path, "abc") is None
        assert read_json(tmp_path / REPORT) is None


def test_the_key_follows_settings_and_files(tmp_path):
    a = tmp_path / "a.txt"
    a.write_text("1")
    first = stage_key(Settings(), files_key([a]))
    assert first == stage_key(Settings(), files_key([a]))
    assert first != stage_key(Settings(threshold=0.6), files_key([a]))
    a.write_text("22")
    assert first != stage_key(Settings(), files_key([a]))


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    with pytest.raises(TypeError, match="object cannot be part"):
        write_json(tmp_path / "x.json", {"a": object()})
    assert (tmp_path / "x.json").read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("content", [None, b"1", b"12345"])
def test_a_stage_whose_output_is_gone_or_damaged_is_not_finished(tmp_path, caplog, content):
    (tmp_path / "domains.json").write_bytes(b"1234")
    StageReport("select", "abc").save(tmp_path, ["domains.json"])
    assert finished(tmp_path, "abc") is not None
    (tmp_path / "domains.json").unlink()
    if content is not None:
        (tmp_path / "domains.json").write_bytes(content)
    assert begin(tmp_path, "abc") is None
    assert "domains.json is " in caplog.text
    assert not (tmp_path / REPORT).exists()


def test_before_a_stage_changes_its_folder_the_report_of_another_key_goes(tmp_path):
    StageReport("label", "abc").save(tmp_path)
    assert begin(tmp_path, "abc") is not None
    assert begin(tmp_path, "other") is None
    assert not (tmp_path / REPORT).exists()
