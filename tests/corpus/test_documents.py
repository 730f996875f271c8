"""Reading a crawl: what is broken is counted with its place, and the rest goes through."""

from __future__ import annotations

import errno
import gzip
import json
import tracemalloc
import zipfile
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HTTPError

import rexbert_hf.corpus.documents as documents_module
import rexbert_hf.corpus.revisions as revisions
from rexbert_hf.corpus import (
    Document,
    DocumentSource,
    StageReport,
    read_documents,
    read_parquet,
    text_id,
    write_documents,
)
from rexbert_hf.corpus.documents import sources_key
from rexbert_hf.corpus.raw_rows import told_rows
from rexbert_hf.corpus.stages import stage_key
from rexbert_hf.corpus.taken_ids import TakenIds


def read(*sources: DocumentSource) -> tuple[list[Document], StageReport]:
    report = StageReport("test", key="")
    documents = list(read_documents(sources, report))
    report.written = len(documents)
    assert report.lost == 0
    return documents, report


def lines(path, *rows: object) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


FAULTS = [
    (b'{"text": "good", "domain": "hobby"}', None),
    (b'{"text": "half', "broken_json"),
    (b"[1, 2]", "broken_json"),
    (b'{"text": "caf\xe9"}', "wrong_encoding"),
    (b'{"text": "a \\ud800 half"}', "wrong_encoding"),
    (b'{"text": "a \\u0000 zero"}', "nul"),
    (b'{"text": "raw \x00 zero"}', "broken_json"),
    (b'{"text": ""}', "empty"),
    (b'{"text": " \\n\\t"}', "empty"),
    (b'{"text": null}', "no_text"),
    (b'{"text": 17}', "no_text"),
    (b'{"title": "no text"}', "no_text_field"),
    (b'{"text": "' + b"x" * 101 + b'"}', "too_long"),
    (b"[" * 100_000, "broken_json"),
    (b"", None),  # an empty line is nothing at all
    (b'{"text": "last", "domain": "hobby"}', None),
]


def test_faults_are_counted_by_reason_with_their_place(tmp_path):
    path = tmp_path / "crawl.jsonl"
    path.write_bytes(b"\n".join(line for line, _ in FAULTS))
    documents, report = read(DocumentSource(str(path), max_chars=100, max_bad_share=1))
    assert [document.text for document in documents] == ["good", "last"]
    expected: dict[str, list[int]] = {}
    for number, (_, reason) in enumerate(FAULTS, 1):
        if reason:
            expected.setdefault(reason, []).append(number)
    assert report.reasons == {reason: len(numbers) for reason, numbers in expected.items()}
    for reason, numbers in expected.items():
        shown = [place.split(": ")[0] for place in report.details["rejected"][reason]]
        assert shown == [f"{path}:{number}" for number in numbers]


def test_only_a_few_places_are_kept(tmp_path):
    path = lines(tmp_path / "a.jsonl", *({"text": ""} for _ in range(50)), {"text": "good"})
    _, report = read(DocumentSource(path))
    assert report.reasons == {"empty": 50}
    assert len(report.details["rejected"]["empty"]) == 5


def test_a_line_of_fifty_megabytes_costs_no_memory(tmp_path):
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(b'{"text": "before"}\n{"text": "')
        for _ in range(50):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"text": "after"}\n')
    tracemalloc.start()
    documents, report = read(DocumentSource(str(path), max_chars=100_000))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [document.text for document in documents] == ["before", "after"]
    assert report.reasons == {"too_long": 1}
    assert "52,428," in report.details["rejected"]["too_long"][0]
    assert peak < 12 << 20  # three megabytes of buffers, not fifty of text


def test_broken_files_do_not_stop_the_others(tmp_path):
    whole = gzip.compress(b"".join(b'{"text": "row %d of a file"}\n' % i for i in range(5000)))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b.parquet").write_bytes(b"this is not Parquet")
    (tmp_path / "c.jsonl.gz").write_bytes(b"this is not gzip")
    (tmp_path / "d.jsonl").write_bytes("\ufeff".encode("utf-16-le") + '{"text": "x"}'.encode("utf-16-le"))
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        archive.writestr("a.csv", "text\n" + "a word\n" * 9)
    packed = bytearray((tmp_path / "d.zip").read_bytes())
    packed[packed.index(b"a word")] ^= 1
    (tmp_path / "d.zip").write_bytes(bytes(packed))
    lines(tmp_path / "e.jsonl", {"text": "good"})
    documents, report = read(DocumentSource(str(tmp_path), max_bad_share=0.9))
    assert documents[0].text == "row 0 of a file"
    assert documents[-1].text == "good"
    assert 100 < len(documents) < 5000  # what came before the cut is kept
    assert report.reasons == {"broken_file": 5}
    assert [place.split(": ")[0] for place in report.details["rejected"]["broken_file"]] == [
        str(tmp_path / name) for name in ("a.jsonl.gz", "b.parquet", "c.jsonl.gz", "d.jsonl", "d.zip")
    ]


def test_a_source_that_is_mostly_broken_is_refused(tmp_path):
    rows = [json.dumps({"text": f"caf\u00e9 {i}" if i % 10 else "tea"}, ensure_ascii=False) for i in range(1_000)]
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(rows).encode("latin-1"))
    with pytest.raises(ValueError, match=r"a.jsonl: 900 of 1,000 rows are broken \(.*a.jsonl:2: not UTF-8.*_share"):
        read(DocumentSource(str(path)))
    path.write_bytes("\n".join(rows * 5).encode("latin-1"))
    with pytest.raises(ValueError, match=r"1,000 of 1,112 rows are broken"):  # not read to its end
        read(DocumentSource(str(path)))
    path.write_text('{"text": "good"}\n' * 9 + "bad\n" + '{"text": ""}\n' * 9)
    assert len(read(DocumentSource(str(path)))[0]) == 9  # what is empty is not broken
    for i in range(3):
        (tmp_path / f"{i}.jsonl.gz").write_bytes(gzip.compress(b'{"text": "row"}\n')[: 9 if i else None])
    with pytest.raises(ValueError, match=r"2 of 4 files are broken \(.*1.jsonl.gz: EOFError"):
        read(DocumentSource(str(tmp_path)))
    with pytest.raises(ValueError, match="max_bad_share is a share"):
        DocumentSource("a", max_bad_share=2)


def test_a_failing_disk_stops_the_reading(tmp_path, monkeypatch):
    """The stage would otherwise count as finished without the rest of the file."""
    for name in "ab":
        lines(tmp_path / f"{name}.jsonl", {"text": name})
    whole = documents_module.raw_rows

    def failing(path, *how):
        yield from whole(path, *how)
        if path.name == "a.jsonl":
            raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(documents_module, "raw_rows", failing)
    with pytest.raises(OSError, match="Input/output error"):
        read(DocumentSource(str(tmp_path), max_bad_share=1))


def test_all_formats_give_the_same_documents(tmp_path):
    texts = [f"page {i} of caf\u00e9 stories" for i in range(600)]
    body = "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()
    (tmp_path / "1.jsonl").write_bytes(b"\xef\xbb\xbf" + body)
    (tmp_path / "2.jsonl.gz").write_bytes(gzip.compress(body))
    with pa.output_stream(str(tmp_path / "3.jsonl.zst"), compression="zstd") as file:
        file.write(body)
    pq.write_table(pa.table({"text": texts}), tmp_path / "4.parquet")
    (tmp_path / "5.json").write_text(json.dumps([{"text": text} for text in texts]))
    (tmp_path / "6.txt").write_text("\n".join(texts), encoding="utf-8")
    (tmp_path / "7.csv").write_text("text\n" + "\n".join(texts), encoding="utf-8")
    for path in sorted(tmp_path.iterdir()):
        documents, report = read(DocumentSource(str(path), domain="food"))
        assert [document.text for document in documents] == texts, path
        assert {document.domain for document in documents} == {"food"}
        assert documents[0].id == text_id(texts[0])
        assert report.reasons == {}
    documents, _ = read(DocumentSource(str(tmp_path / "[12].jsonl*")))
    assert len(documents) == 2 * len(texts)


def test_identifiers_of_floats_and_bytes(tmp_path):
    """pandas stores integers with a gap as floats; labels and documents meet by the identifier."""
    rows = {
        "text": pa.array([b"one", b"two"]),
        "uid": pa.array([12345.0, None]),
        "domain": pa.array([b"hobby", b"food"]),
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    documents, report = read(DocumentSource(str(tmp_path / "a.parquet"), id_field="uid"))
    assert [(document.id, document.domain) for document in documents] == [("12345", "hobby"), (text_id("two"), "food")]
    assert report.details["noted"] == {"id_missing": 1}


def test_where_a_domain_comes_from(tmp_path):
    lines(tmp_path / "web/hobby/a.jsonl", {"text": "1"}, {"text": "2", "domain": "news"}, {"text": "3", "domain": None})
    lines(tmp_path / "web/b.jsonl", {"text": "4"})
    root = str(tmp_path / "web")
    domains = {document.text: document.domain for document in read(DocumentSource(root))[0]}
    assert domains == {"1": "hobby", "2": "news", "3": "hobby", "4": "web"}
    alone = read(DocumentSource(str(tmp_path / "web/b.jsonl")))[0]
    assert [document.domain for document in alone] == ["unknown"]  # whatever folder somebody put it into
    documents, report = read(DocumentSource(root, domain_from_folder=False))
    assert {document.text: document.domain for document in documents}["1"] == "unknown"
    assert report.details["noted"] == {"domain_missing": 3}
    documents, report = read(DocumentSource(root, domain_from_folder=False, missing_domain=""))
    assert [document.text for document in documents] == ["2"]
    assert report.reasons == {"no_domain": 3}
    assert {document.domain for document in read(DocumentSource(root, domain="all"))[0]} == {"all"}


def test_identifiers_belong_to_one_text(tmp_path):
    rows = [{"text": f"text {i}", "key": f"k{i % 3000}"} for i in range(4000)]
    rows += [{"text": "text 7", "key": "k7"}, {"text": "nameless", "key": ""}]
    documents, report = read(DocumentSource(lines(tmp_path / "a.jsonl", *rows), id_field="key", domain="x"))
    assert len(documents) == len(rows)
    owners: dict[str, set[str]] = {}
    for document in documents:
        owners.setdefault(document.id, set()).add(document.text)
    assert all(len(texts) == 1 for texts in owners.values())
    assert documents[7].id == documents[4000].id == "k7"
    assert documents[3007].id == text_id("text 3007")
    assert documents[-1].id == text_id("nameless")
    assert report.details["noted"] == {"id_of_another_text": 1000, "id_missing": 1}


def test_identifiers_take_the_memory_that_is_promised():
    ids, count = TakenIds(), 40_000
    tracemalloc.start()
    assert not any(ids.is_taken(f"id {i}", text_id(f"text {i}")) for i in range(count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # After the last growth 2^17 places of 16 bytes, and while it lasted the old half beside them.
    assert peak < 1.6 * 16 * (1 << 17)
    assert ids.is_taken("id 7", text_id("another"))
    assert not ids.is_taken("id 7", text_id("text 7"))


def test_a_field_with_a_line_break_in_its_name_is_told_on_one_line(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"t\n": 1}, {f"field {i}": 1 for i in range(40)})
    with pytest.raises(ValueError, match=r"'t\\n', field 0, .* and 11 more: set text_field$") as told:
        list(read_documents([DocumentSource(str(path))], StageReport("x", "k")))
    assert "\n" not in str(told.value)


def test_a_wrong_field_name_is_an_error(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"content": "x", "id": 1}, {"content": "y"})
    with pytest.raises(ValueError, match=r"no row has a field 'text'; the fields are content, id: set text_field"):
        read(DocumentSource(path))


def test_what_is_not_there_is_an_error_before_anything_is_read(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"text": "x"})
    with pytest.raises(FileNotFoundError, match=r"nowhere.jsonl: no file to read there"):
        read_documents([DocumentSource(path), DocumentSource(str(tmp_path / "nowhere.jsonl"))], StageReport("t", ""))
    with pytest.raises(ValueError, match="set one of them"):
        DocumentSource()


def test_the_files_of_a_dataset_in_a_folder_decide_the_key(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    sources = [DocumentSource(dataset=str(tmp_path))]
    before = stage_key(sources_key(sources))
    assert stage_key(sources_key(sources)) == before
    (tmp_path / "a.jsonl").write_text('{"text": "another"}\n')
    assert stage_key(sources_key(sources)) != before


def test_a_dataset_by_name_streams(tmp_path):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"text": ["a", "", "c"], "domain": ["x", "x", None]}), tmp_path / "data/train.parquet")
    for streaming in (True, False):
        documents, report = read(DocumentSource(dataset=str(tmp_path / "data"), streaming=streaming))
        assert [(document.text, document.domain) for document in documents] == [("a", "x"), ("c", "unknown")]
        assert report.reasons == {"empty": 1}
    with pytest.raises(FileNotFoundError, match="split 'test' cannot be read"):
        read(DocumentSource(dataset=str(tmp_path / "data"), split="test"))


@pytest.mark.parametrize("streaming", [True, False])
def test_a_dataset_that_breaks_on_the_way_is_one_line(tmp_path, streaming):
    folder = tmp_path / "data"
    folder.mkdir()
    rows = "".join(f'{{"text": "mug {i} {"x" * 300}"}}\n' for i in range(100))
    (folder / "a.jsonl").write_text(rows + '{"text": \n')
    (folder / "b.jsonl").write_text('{"text": \n')
    with pytest.raises(
        (ValueError, FileNotFoundError), match=r"(/data\[train\] row \d+|dataset '.*data').* cannot be read \(\w"
    ) as told:
        read(DocumentSource(dataset=str(folder), streaming=streaming))
    assert "\n" not in str(told.value)
    assert "An error occurred" not in str(told.value)


def of_the_client(name):
    """An error of the Hub's own HTTP client, which is no `OSError`."""
    kinds = [HTTPError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next(kind for kind in kinds if kind.__name__ == name)("lost")


def behind(error):
    """As `datasets` raises it, from what happened."""
    told = DatasetGenerationError("An error occurred while generating the dataset")
    told.__cause__ = error
    return told


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        *((of_the_client(name), ConnectionError, name) for name in ("ConnectError", "ReadTimeout")),
        (of_the_client("RemoteProtocolError"), ConnectionError, "RemoteProtocolError"),
        (ConnectionResetError(errno.ECONNRESET, "reset"), ConnectionError, "ConnectionResetError"),
        (behind(of_the_client("ReadTimeout")), ConnectionError, "ReadTimeout"),
        (behind(KeyError("words")), ValueError, "DatasetGenerationError: KeyError: 'words'"),
        (OSError(errno.EIO, "Input/output error"), OSError, "Input/output error"),
    ],
)
def test_what_a_stream_raises_on_the_way_is_told_with_its_row(error, kind, message):
    def rows():
        yield {"text": "a"}
        raise error

    left = told_rows(rows(), "user/web[train]")
    assert next(left) == (1, {"text": "a"})
    with pytest.raises(kind, match=message) as told:
        next(left)
    assert told.value is error or str(told.value).startswith("user/web[train] row 2 cannot be read")
    assert (told.value is error) == (message == "Input/output error")


def test_a_dataset_that_is_made_by_a_script_is_one_line(tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text("x = 1\n")
    with pytest.raises(FileNotFoundError, match=r"scripted', configuration .* cannot be read \(") as told:
        read(DocumentSource(dataset=str(folder)))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "column",
    [pa.array([3_000_000] * 2, pa.int32()).cast(pa.date32()), pa.array([0, 1], pa.timestamp("us", tz="Mars/Base"))],
    ids=["year 10183", "time zone"],
)
@pytest.mark.parametrize("packed", ["", ".gz", ".zip"])
def test_of_parquet_only_the_fields_of_documents_are_read(tmp_path, column, packed):
    table = pa.table({"seen": column, "topic": ["x", "y"], "body": ["a", "b"], "key": ["1", "2"]})
    plain, path = tmp_path / "a.parquet", tmp_path / f"a.parquet{packed}"
    pq.write_table(table, plain)
    if packed == ".gz":
        path.write_bytes(gzip.compress(plain.read_bytes()))
    elif packed:
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(plain, "a.parquet")
    source = DocumentSource(str(path), text_field="body", domain_field="topic", id_field="key")
    assert read(source)[0] == [Document("1", "a", "", "x"), Document("2", "b", "", "y")]
    with pytest.raises(ValueError, match=r"no row has a field 'text'; the fields are seen, topic, body, key: set"):
        read(DocumentSource(str(path)))
    documents, report = read(DocumentSource(str(path), text_field="seen", max_bad_share=1.0))
    assert (documents, report.reasons) == ([], {"broken_file": 1})


def test_the_folder_of_an_unknown_user_is_one_line():
    with pytest.raises(FileNotFoundError, match=r"^~nosuchuser/x\.jsonl: no such user here"):
        read(DocumentSource("~nosuchuser/x.jsonl"))


def test_a_dataset_is_held_to_the_commit_of_the_first_run(tmp_path, monkeypatch, caplog):
    asked = []

    class Hub:
        def dataset_info(self, name, revision):
            asked.append((name, revision))
            if name == "user/away":
                raise OSError("offline")
            return SimpleNamespace(sha=f"commit{len(asked)}")

    monkeypatch.setattr(revisions, "HfApi", Hub)
    sources = [
        DocumentSource(dataset="user/web"),
        DocumentSource(dataset="user/web", revision="v2"),
        DocumentSource(dataset="user/away"),
        DocumentSource(dataset=str(tmp_path)),
        DocumentSource("a.jsonl"),
    ]
    for _ in range(2):
        held = revisions.held_sources(sources, tmp_path / "out/revisions.json")
        assert [source.revision for source in held] == ["commit1", "commit2", None, None, None]
    assert asked == [("user/web", None), ("user/web", "v2"), ("user/away", None), ("user/away", None)]
    assert "the commit of user/away@main is unknown (offline)" in caplog.text


def test_limit(tmp_path):
    path = lines(tmp_path / "a.jsonl", *({"text": f"t{i}"} for i in range(9)))
    documents, report = read(DocumentSource(path, limit=4))
    assert (len(documents), report.read) == (4, 4)


def test_written_documents_come_back(tmp_path):
    documents = [Document(f"d{i}", f"text {i} \u2028 \u00e9", "http://x.example", "hobby") for i in range(2500)]
    files = write_documents(tmp_path / "parts", iter(documents), rows_per_file=1000)
    assert [file.name for file in files] == [f"part-0000{i}.parquet" for i in range(3)]
    assert [pq.ParquetFile(file).metadata.num_rows for file in files] == [1000, 1000, 500]
    assert list(read_parquet(tmp_path / "parts")) == list(read_parquet(files)) == documents
    write_documents(tmp_path / "stream", (document for document in documents), rows_per_file=1000)
    assert list(read_parquet(tmp_path / "stream")) == documents
    assert (
        write_documents(tmp_path / "even", iter(documents[:2000]), rows_per_file=1000)[-1].name == "part-00001.parquet"
    )
    assert list(read_parquet(write_documents(tmp_path / "none.parquet", []))) == []


def test_a_file_appears_when_it_is_whole(tmp_path):
    def breaks():
        yield from (Document(str(i), "text") for i in range(2500))
        raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_documents(tmp_path, breaks(), rows_per_file=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-00000.parquet", "part-00001.parquet"]
    assert len(list(read_parquet(tmp_path))) == 2000


def test_what_is_not_a_file_of_documents(tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other.parquet: not a file of documents \(no column 'id'"):
        list(read_parquet(tmp_path))
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"other.parquet: not a file of documents"):
        list(read_parquet(tmp_path))
    with pytest.raises(FileNotFoundError, match="no Parquet file of documents"):
        list(read_parquet(tmp_path / "missing"))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("setting", ["domain_field", "url_field", "id_field"])
def test_a_named_field_that_no_row_has_is_refused(tmp_path, suffix, setting):
    path, rows = tmp_path / f"a.{suffix}", [{"text": f"text {n}", "site": "shop"} for n in range(3)]
    if suffix == "jsonl":
        lines(path, *rows)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("text,site\n" + "".join(f"{row['text']},{row['site']}\n" for row in rows))
    with pytest.raises(
        ValueError, match=f"no row has a field 'sitee', the first has text.*: correct or omit {setting}$"
    ):
        read(DocumentSource(str(path), **{setting: "sitee"}))
    assert len(read(DocumentSource(str(path), **{setting: "site"}))[0]) == 3
    assert len(read(DocumentSource(str(path)))[0]) == 3  # the usual names may be missing
    assert len(read(DocumentSource(str(path), domain_field="sitee", domain="x"))[0]) == 3  # nor does anybody look


def test_a_named_field_of_few_rows_is_one_and_its_absence_is_told_early(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(documents_module, "_JUDGED_AFTER", 2)
    path = lines(tmp_path / "a.jsonl", {"text": "a"}, {"text": "b"}, {"text": "c", "site": "shop"})
    documents, _ = read(DocumentSource(path, domain_field="site"))
    assert [document.domain for document in documents] == ["unknown", "unknown", "shop"]
    assert (
        caplog.text.count("no row has a field 'site', the first has text: correct or omit domain_field (so far)") == 1
    )
