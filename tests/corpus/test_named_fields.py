"""Fields that a source names and few of its rows have: what is there decides, not where the reading ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import rexbert_hf.corpus.documents as documents_module
from rexbert_hf.corpus import Document, DocumentSource, StageReport, read_documents


def read(file: Path, *rows: object, **settings: object) -> list[Document]:
    """Write a file and read it, or the folder that it completes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = DocumentSource(**{"path": str(file), **settings})
    return list(read_documents([source], StageReport("test", key="")))


@pytest.mark.parametrize("setting", ["domain_field", "url_field", "id_field"])
def test_a_limit_before_the_first_row_with_the_field_is_told(tmp_path, caplog, setting):
    rows = [{"text": "a"}, {"text": "b"}, {"text": "c", "sku": "7"}]
    assert len(read(tmp_path / "a.jsonl", *rows, limit=2, **{setting: "sku"})) == 2
    (line,) = caplog.messages
    assert line.endswith(f"no row has a field 'sku', the first has text: correct or omit {setting} (so far)")
    with pytest.raises(ValueError, match=f"no row has a field 'sku'.*omit {setting}$"):
        read(tmp_path / "b.jsonl", *rows[:2], limit=3, **{setting: "sku"})
    with pytest.raises(ValueError, match=f"no row has a field 'sku'.*omit {setting}$"):
        read(tmp_path / "c.jsonl", {"text": ""}, **{setting: "sku"})  # no document, and no limit either


def test_a_row_without_text_judges_the_text_field_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "_JUDGED_AFTER", 2)
    rows = [{"text": "a"}, {"title": "b"}, {"text": "c", "sku": "7"}]
    assert [document.id for document in read(tmp_path / "a.jsonl", *rows, id_field="sku")][1:] == ["7"]


def test_a_folder_says_the_domain_in_place_of_the_field(tmp_path):
    web = tmp_path / "web"
    read(web / "news" / "a.jsonl", {"text": "a"})
    settings = {"path": str(web), "domain_field": "site"}
    found = read(web / "hobby" / "a.jsonl", {"text": "b"}, **settings)
    assert [document.domain for document in found] == ["hobby", "news"]
    for other in ({"domain_from_folder": False}, {"url_field": "link"}):
        with pytest.raises(ValueError, match=r"no row has a field '(site|link)'"):
            read(web / "hobby" / "a.jsonl", {"text": "b"}, **settings, **other)


def test_a_field_of_rows_without_text_is_there(tmp_path):
    (document,) = read(tmp_path / "a.jsonl", {"text": "a"}, {"title": "b", "site": "shop"}, domain_field="site")
    assert document.domain == "unknown"
