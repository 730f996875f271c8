"""The build stage: what was kept comes out once, in the one split; restarts, full disks, odd names."""

from __future__ import annotations

import errno
import json
import os
import re
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from transformers import PreTrainedTokenizerFast

from rexbert_hf.catalog import split_of
from rexbert_hf.corpus import build as build_module
from rexbert_hf.corpus.build import BuildSettings, CorpusFacts, build
from rexbert_hf.corpus.figure import domain_figure
from rexbert_hf.corpus.manifest import Manifest
from rexbert_hf.corpus.stages import StageReport

DOMAINS = ("hobby", "news", "fashion")


def documents(count=300, domains=DOMAINS):
    texts = [f"page {i} sells a lamp of {i % 7} watts and ships it" for i in range(count)]
    return [
        {
            "id": f"{domains[i % len(domains)]} {i}",
            "text": text,
            "url": f"https://a.example/{i}",
            "domain": domains[i % len(domains)],
            "score": 0.5,
        }
        for i, text in enumerate(texts)
    ]


def write_kept(folder, rows, files=2):
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(files):
        part = rows[i::files]
        pq.write_table(pa.Table.from_pylist(part), folder / f"part-{i:05d}.parquet")
    return folder


@pytest.fixture
def kept(tmp_path):
    return write_kept(tmp_path / "kept", documents())


def everything(folder):
    manifest = Manifest.read(folder)
    rows = {}
    for split in manifest.splits:
        for path in manifest.files(split):
            for row in pq.read_table(path).to_pylist():
                assert row["id"] not in rows
                rows[row["id"]] = (split, row)
    return rows


def test_each_document_comes_out_once_in_its_split(kept, tmp_path):
    report = build(BuildSettings(held_out=0.2), kept, {}, tmp_path / "corpus")
    rows = everything(tmp_path / "corpus")
    assert {id: row for id, (_, row) in rows.items()} == {row["id"]: row for row in documents()}
    assert all(split == split_of(row["text"], 0.2) for split, row in rows.values())
    assert {split for split, _ in rows.values()} == {"train", "validation", "test"}
    assert (report.read, report.written, report.lost) == (300, 300, 0)
    words = sum(len(row["text"].split()) for _, row in rows.values())
    assert sum(domain["tokens"] for domain in report.details["domains"].values()) == words
    assert report.details["unit"] == "words", "words are not called tokens"


def test_shards_are_bounded_and_named_in_full(tmp_path):
    kept = write_kept(tmp_path / "kept", documents(4500, ("hobby",)))
    build(BuildSettings(shard_mb=0.05, held_out=0.0), kept, {}, tmp_path / "corpus")
    names = sorted(path.name for path in (tmp_path / "corpus" / "hobby").glob("*.parquet"))
    assert names == [f"train-{i:05d}-of-{len(names):05d}.parquet" for i in range(len(names))]
    assert len(names) > 2


def test_the_same_build_is_not_done_again(kept, tmp_path, monkeypatch):
    first = build(BuildSettings(), kept, {}, tmp_path / "corpus")
    monkeypatch.setattr(build_module, "domains_of", None)
    assert build(BuildSettings(), kept, {}, tmp_path / "corpus") == first


def test_a_damaged_domain_is_built_again(kept, tmp_path, caplog):
    build(BuildSettings(), kept, {}, tmp_path / "corpus")
    before = everything(tmp_path / "corpus")
    path = next((tmp_path / "corpus").glob("*/train-*.parquet"))
    path.write_bytes(path.read_bytes()[:-9])
    build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert everything(tmp_path / "corpus") == before
    assert path.name in caplog.text


def test_another_tokenizer_in_the_same_folder_counts_anew(kept, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    def counted(pre_tokenizer):
        backend = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
        backend.pre_tokenizer = pre_tokenizer
        (tmp_path / "tokenizer").mkdir(exist_ok=True)
        PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(tmp_path / "tokenizer")
        report = build(BuildSettings(tokenizer=str(tmp_path / "tokenizer")), kept, {}, tmp_path / "corpus")
        return sum(domain["tokens"] for domain in report.details["domains"].values())

    assert counted(pre_tokenizers.WhitespaceSplit()) < counted(pre_tokenizers.Split("", "isolated"))


def test_a_change_rebuilds_only_what_it_touches(tmp_path, monkeypatch):
    for domain in DOMAINS:
        write_kept(tmp_path / "kept" / domain, documents(30, (domain,)), files=1)
    build(BuildSettings(), tmp_path / "kept", {}, tmp_path / "corpus")
    times = {name: os.stat(tmp_path / "corpus" / name / "domain.json").st_mtime_ns for name in DOMAINS}
    write_kept(tmp_path / "kept" / "news", documents(20, ("news",)), files=1)
    (tmp_path / "kept" / "fashion" / "part-00000.parquet").unlink()
    build(BuildSettings(), tmp_path / "kept", {}, tmp_path / "corpus")
    assert Manifest.read(tmp_path / "corpus").domains == ["hobby", "news"]
    assert not (tmp_path / "corpus" / "fashion").exists()
    assert os.stat(tmp_path / "corpus" / "hobby" / "domain.json").st_mtime_ns == times["hobby"]
    assert len(everything(tmp_path / "corpus")) == 50


def test_a_full_disk_keeps_what_is_finished(kept, tmp_path, monkeypatch):
    def fill(self, table):
        if "news" in str(self.where):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_table(self, table)

    write_table = pq.ParquetWriter.write_table
    monkeypatch.setattr(pq.ParquetWriter, "write_table", fill)
    with pytest.raises(OSError, match=r"no room for news .*2 finished domains are kept") as caught:
        build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert caught.value.errno == errno.ENOSPC
    assert "\n" not in str(caught.value)
    left = sorted(path.name for path in (tmp_path / "corpus").iterdir())
    assert left == ["fashion", "hobby"], "neither a half domain nor a manifest"
    with pytest.raises(FileNotFoundError, match="no finished corpus"):
        Manifest.read(tmp_path / "corpus")
    times = {name: os.stat(tmp_path / "corpus" / name / "domain.json").st_mtime_ns for name in left}
    monkeypatch.undo()
    build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert len(everything(tmp_path / "corpus")) == 300
    assert times == {name: os.stat(tmp_path / "corpus" / name / "domain.json").st_mtime_ns for name in left}


@pytest.mark.parametrize(
    ("domain", "folder"), [("arts & crafts", "arts-crafts"), ("../../etc", "etc"), ("default", "default-domain"),
                           ("", "unknown"), (None, "unknown"), ("...", "unnamed")]
)  # fmt: skip
def test_odd_domains_get_a_folder(domain, folder, tmp_path):
    kept = write_kept(tmp_path / "kept", documents(10, (domain, "hobby")))
    build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert Manifest.read(tmp_path / "corpus").domains == sorted([folder, "hobby"])
    assert len(everything(tmp_path / "corpus")) == 10


def folders_of(domains, folder):
    """Folder of each domain of a built corpus."""
    kept = write_kept(folder / "kept", documents(6 * len(domains), domains))
    build(BuildSettings(), kept, {}, folder / "corpus")
    assert {row["domain"] for _, row in everything(folder / "corpus").values()} == {*domains}
    facts = Manifest.read(folder / "corpus").facts["domains"]
    counts = {one["domain"]: sum(part["documents"] for part in one["splits"].values()) for one in facts.values()}
    assert counts == dict.fromkeys(domains, 6)
    return {one["domain"]: name for name, one in facts.items()}


@pytest.mark.parametrize(
    "domain", ["x" * 300, "家" * 100, "a" * 199 + "é" + "b" * 60, "a " * 150, "." * 300 + "z" * 300]
)
def test_a_domain_with_a_long_name_gets_a_short_folder(domain, tmp_path):
    folders = folders_of((domain, domain + "!", "hobby"), tmp_path)
    assert folders["hobby"] == "hobby"
    assert len({*folders.values()}) == 3
    name = folders[domain]
    assert len(f".{name}.staged".encode()) < 255
    assert re.fullmatch(r"[\w.-]*[^.-]-[0-9a-f]{8}", name), name
    kept = tmp_path / "kept"
    again = build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert again.read == 18


def test_domains_that_would_share_a_folder_get_one_each(tmp_path):
    folders = folders_of(("a b", "a/b", "a-b", "arts & crafts", "default", "default-domain"), tmp_path)
    assert len({*folders.values()}) == 6
    assert folders["a-b"] == "a-b"
    assert folders["default-domain"] == "default-domain"
    assert folders["arts & crafts"] == "arts-crafts"
    assert all(re.fullmatch(r"a-b-[0-9a-f]{8}", folders[name]) for name in ("a b", "a/b"))


@pytest.mark.parametrize("domain", ["x" * 200, "家" * 66, "a.b_c-d", "arts & crafts"])
def test_ordinary_folders_keep_their_names(domain, tmp_path):
    """So a corpus that was built by an earlier version is not built again."""
    assert folders_of((domain, "hobby"), tmp_path)[domain] == domain.replace(" & ", "-")


def test_empty_texts_are_counted(tmp_path):
    rows = documents(20)
    rows[3]["text"], rows[4]["text"] = "  ", None
    report = build(BuildSettings(), write_kept(tmp_path / "kept", rows), {}, tmp_path / "corpus")
    assert (report.read, report.written, report.reasons, report.lost) == (20, 18, {"empty": 2}, 0)


def test_a_domain_without_any_text_is_left_out(tmp_path):
    rows = documents(20)
    for row in rows:
        row["text"] = "" if row["domain"] == "news" else row["text"]
    kept = write_kept(tmp_path / "kept", rows)
    report = build(BuildSettings(), kept, {}, tmp_path / "corpus")
    assert Manifest.read(tmp_path / "corpus").domains == ["fashion", "hobby"]
    assert not (tmp_path / "corpus" / "news").exists()
    assert report.lost == 0
    assert load_dataset(str(tmp_path / "corpus"), cache_dir=str(tmp_path / "cache"))
    write_kept(tmp_path / "kept", [{**row, "text": " "} for row in rows])
    with pytest.raises(ValueError, match="none of 20 kept documents has text"):
        build(BuildSettings(), kept, {}, tmp_path / "corpus")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "no document was kept"),
        ([{"id": "a", "text": "b", "url": ""}], "part-00000.parquet: no column 'domain'; it has id, text, url"),
    ],
)
def test_what_cannot_be_built_is_one_line(rows, message, tmp_path):
    schema = None if rows else pa.schema([(name, pa.string()) for name in ("id", "text", "url", "domain")])
    (tmp_path / "kept").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "kept" / "part-00000.parquet")
    with pytest.raises(ValueError, match=message) as caught:
        build(BuildSettings(), tmp_path / "kept", {}, tmp_path / "corpus")
    assert "\n" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="run the filter stage first"):
        build(BuildSettings(), tmp_path / "nothing", {}, tmp_path / "corpus")


def test_a_broken_kept_file_is_named(kept, tmp_path):
    (kept / "part-00001.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ValueError, match=r"part-00001\.parquet: not a file of kept documents"):
        build(BuildSettings(), kept, {}, tmp_path / "corpus")


def test_plain_datasets_reads_the_folder(kept, tmp_path):
    corpus = tmp_path / "corpus"
    build(BuildSettings(held_out=0.2), kept, {}, corpus)
    cache = str(tmp_path / "cache")
    assert load_dataset(str(corpus), "news", split="train", cache_dir=cache).unique("domain") == ["news"]
    parts = load_dataset(str(corpus), cache_dir=cache)
    assert sum(map(len, parts.values())) == 300


def test_the_card_shows_measured_figures_only(kept, tmp_path):
    corpus = tmp_path / "corpus"
    build(BuildSettings(), kept, {}, corpus)
    text = (corpus / "README.md").read_text()
    for heading in ("Domains", "Labels", "Audit", "Classifier", "From crawl to corpus"):
        assert f"# {heading}" not in text, "no stage measured it"
    assert "license" not in text.split("---")[1], "licences are never assumed"
    facts = CorpusFacts(name="Lamps", license="odc-by", language="en")
    filtered = StageReport("filter", "k", read=900, written=300, reasons={"below_threshold": 590, "language": 10})
    build(BuildSettings(card=facts), kept, {"filter": filtered}, corpus)
    text = (corpus / "README.md").read_text()
    assert "| filter | 900 | 300 | below threshold 590, language 10 |" in text
    assert "license: odc-by" in text
    assert "| hobby | 100 |" in text
    assert text.count("config_name: hobby") == 1, "the list of files is replaced, not joined"
    svg = (corpus / "domains.svg").read_text()
    total = sum(len(row["text"].split()) for row in documents())
    assert f"{total:,} words by domain" in svg


def test_notes_in_the_readme_stay(kept, tmp_path):
    corpus = tmp_path / "corpus"
    build(BuildSettings(), kept, {}, corpus)
    readme = corpus / "README.md"
    readme.write_text(readme.read_text() + "\nMine: ask before use.\n")
    build(BuildSettings(held_out=0.3), kept, {}, corpus)
    assert "Mine: ask before use." in readme.read_text()
    assert json.loads((corpus / "corpus.json").read_text())["held_out"] == 0.3


def test_the_figure_is_ordered_and_holds_any_name():
    counts = {"a < b & c": 5, "hobby": 50, **{f"domain {i}": 1 for i in range(60)}}
    svg = domain_figure(counts, "tokens")
    root = ElementTree.fromstring(svg)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[0] == "115 tokens by domain"
    assert texts[1::2][:2] == ["hobby", "a < b & c"]
    assert texts[-2:] == ["23 others", "23 (20.0 %)"]
    with pytest.raises(ValueError, match="nothing to draw"):
        domain_figure({"hobby": 0}, "tokens")
