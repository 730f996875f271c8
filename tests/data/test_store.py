"""Gathering equals slicing Python lists, whatever the Arrow layout; pieces and spans at the borders by hand."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, load_from_disk

from rexbert_hf.data.manifest import MANIFEST
from rexbert_hf.data.store import SPAN_COLUMNS, TokenisedDataset


def _rows(n: int = 50, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        body = int(rng.integers(0, 30))
        places = sorted(rng.integers(1, body + 1, rng.integers(0, 4)).tolist()) if body else []
        spans = [(s, s + int(rng.integers(1, 4))) for s in places]
        spans = [(s, min(e, body + 1)) for s, e in spans]
        rows.append(
            {
                "input_ids": [1, *rng.integers(10, 1000, body).tolist(), 2],
                "word_ids": [-1, *np.arange(body).tolist(), -1],
                "span_start": [s for s, _ in spans],
                "span_end": [e for _, e in spans],
                "span_score": rng.integers(0, 5, len(spans)).astype(float).tolist(),
                "span_kind": rng.integers(0, 10, len(spans)).tolist(),
            }
        )
    return rows


TYPES = {"input_ids": pa.int32(), "word_ids": pa.int32(), "span_start": pa.int32(), "span_end": pa.int32()}
TYPES |= {"span_score": pa.float32(), "span_kind": pa.int8()}


def _table(rows: list[dict], list_type=pa.list_, types=TYPES) -> pa.Table:
    return pa.table({n: pa.array([r[n] for r in rows], type=list_type(t)) for n, t in types.items()})


def _layout(name: str, tmp_path) -> TokenisedDataset:
    rows = _rows()
    whole = _table(rows)
    if name == "one chunk":
        return TokenisedDataset(whole)
    if name == "chunks":
        return TokenisedDataset(pa.concat_tables([_table(rows[i : i + 7]) for i in range(0, 50, 7)]))
    if name == "more chunks than rows asked":
        return TokenisedDataset(pa.concat_tables([_table([row]) for row in rows]))
    if name == "slices":
        padded = _table([*_rows(9, seed=5), *rows, *_rows(4, seed=6)])
        return TokenisedDataset(pa.concat_tables([padded.slice(9, 20), padded.slice(29, 0), padded.slice(29, 30)]))
    if name == "large lists":
        return TokenisedDataset(_table(rows, pa.large_list))
    if name == "wide integers":
        wide = dict.fromkeys(TYPES, pa.int64()) | {"span_score": pa.float64()}
        return TokenisedDataset(_table(rows, types=wide))
    if name == "folder":
        TokenisedDataset(whole).save(tmp_path / "folder")
        return TokenisedDataset.load(tmp_path / "folder")
    Dataset(whole).save_to_disk(tmp_path / "hf", num_shards=3)
    return TokenisedDataset(load_from_disk(tmp_path / "hf").data.table)


LAYOUTS = ["one chunk", "chunks", "more chunks than rows asked", "slices", "large lists", "wide integers", "folder"]
LAYOUTS += ["datasets on disk"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_take_equals_python_slicing(layout: str, tmp_path) -> None:
    store, rows = _layout(layout, tmp_path), _rows()
    assert store.lengths.tolist() == [len(row["input_ids"]) for row in rows]
    assert store.num_tokens == sum(len(row["input_ids"]) for row in rows)
    for indices in ([3, 49, 0, 3, 17, 22, 30, 8], [12], list(range(50))[::-1] * 12, []):
        batch = store.take(indices, step=5, micro=1, phase=2)
        assert (len(batch), batch.step, batch.micro, batch.phase) == (len(indices), 5, 1, 2)
        for got, index in zip(batch, indices, strict=True):
            for name in TYPES:
                assert got[name].tolist() == rows[index][name], (name, index)
        assert batch.input_ids.dtype == batch.word_ids.dtype == np.int32
        for name, dtype in SPAN_COLUMNS.items():
            assert getattr(batch, name).dtype == dtype


@pytest.mark.parametrize("layout", ["one chunk", "chunks", "slices"])
def test_pieces_equal_python_slicing(layout: str, tmp_path) -> None:
    store, rows = _layout(layout, tmp_path), _rows()
    rng = np.random.default_rng(1)
    indices = rng.integers(0, 50, 300)
    bodies = store.lengths[indices] - 2
    starts = (rng.random(300) * (bodies + 1)).astype(int)
    stops = starts + (rng.random(300) * (bodies - starts + 1)).astype(int)
    for got, index, start, stop in zip(store.take(indices, starts, stops), indices, starts, stops, strict=True):
        row = rows[index]
        for name in ("input_ids", "word_ids"):
            assert got[name].tolist() == [row[name][0], *row[name][1:-1][start:stop], row[name][-1]]
        spans = zip(*(row[name] for name in SPAN_COLUMNS), strict=True)
        cut = [(max(s, start + 1) - start, min(e, stop + 1) - start, x, k) for s, e, x, k in spans]
        expected = [span for span in cut if span[0] < span[1]]
        assert list(zip(*(got[name].tolist() for name in SPAN_COLUMNS), strict=True)) == expected


def test_spans_at_the_borders_of_a_piece_by_hand() -> None:
    # Body tokens 0..5 are 10..15; positions in the row are one more.
    row = {"input_ids": [1, 10, 11, 12, 13, 14, 15, 2], "word_ids": [-1, 0, 0, 1, 1, 2, 3, -1]}
    row |= {"span_start": [1, 2, 3, 5], "span_end": [3, 4, 7, 6], "span_score": [0.1, 0.2, 0.3, 0.4]}
    row |= {"span_kind": [0, 1, 2, 3]}
    batch = TokenisedDataset.from_rows([row]).take([0, 0, 0], starts=[0, 2, 4], stops=[2, 4, 99])
    first, second, third = batch
    assert first["input_ids"].tolist() == [1, 10, 11, 2]
    assert second["input_ids"].tolist() == [1, 12, 13, 2]
    assert third["input_ids"].tolist() == [1, 14, 15, 2]
    assert second["word_ids"].tolist() == [-1, 1, 1, -1]
    # Span 0 covers 10 11, span 1 covers 11 12, span 2 covers 12..15, span 3 covers 14.
    assert (first["span_start"].tolist(), first["span_end"].tolist()) == ([1, 2], [3, 3])
    assert (second["span_start"].tolist(), second["span_end"].tolist()) == ([1, 1], [2, 3])
    assert second["span_kind"].tolist() == [1, 2]
    assert (third["span_start"].tolist(), third["span_end"].tolist()) == ([1, 1], [3, 2])


def test_prefix_and_suffix_of_other_sizes() -> None:
    row = {"input_ids": [7, 8, 10, 11, 12, 9]}
    store = TokenisedDataset.from_rows([row], num_prefix=2, num_suffix=1)
    assert store.take([0], [1], [2]).input_ids.tolist() == [7, 8, 11, 9]
    bare = TokenisedDataset.from_rows([row], num_prefix=0, num_suffix=0)
    assert bare.take([0, 0], [0, 3], [3, 6]).input_ids.tolist() == row["input_ids"]


def test_bad_requests_are_named() -> None:
    store = TokenisedDataset.from_rows([{"input_ids": [1, 5, 2]}])
    with pytest.raises(IndexError, match="rows 0 to 1 asked of a data set of 1 rows"):
        store.take([0, 1])
    with pytest.raises(IndexError):
        store.take([-1])
    with pytest.raises(ValueError, match="both starts and stops"):
        store.take([0], starts=[0])
    with pytest.raises(ValueError, match="piece 2:1 of row 0"):
        store.take([0], [2], [1])


def test_bad_tables_are_named() -> None:
    with pytest.raises(ValueError, match="no column 'input_ids'"):
        TokenisedDataset(pa.table({"text": ["a"]}))
    with pytest.raises(ValueError, match="'input_ids' is int64; a tokenised column must be a list"):
        TokenisedDataset(pa.table({"input_ids": [1]}))
    with pytest.raises(ValueError, match="1 null rows"):
        TokenisedDataset(pa.table({"input_ids": pa.array([[1], None], type=pa.list_(pa.int32()))}))
    with pytest.raises(ValueError, match="span columns need all of"):
        TokenisedDataset(pa.table({"input_ids": [[1]], "span_start": [[0]]}))
    uneven = TokenisedDataset(pa.table({"input_ids": [[1, 2], [3, 4]], "word_ids": [[0, 1], [0]]}))
    with pytest.raises(ValueError, match="row 1: 'word_ids' has 1 entries where 2 are due"):
        uneven.take([0, 1])


def test_load_refuses_what_is_not_whole(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match=r"has no tokenised\.json"):
        TokenisedDataset.load(tmp_path)
    store = TokenisedDataset(_table(_rows()))
    store.save(tmp_path / "a", tokenizer="x")
    shard = tmp_path / "a" / "data-00000.arrow"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"data-00000.arrow is damaged.*tokenise again"):
        TokenisedDataset.load(tmp_path / "a")
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=r"data-00000.arrow is missing"):
        TokenisedDataset.load(tmp_path / "a")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"format_version": 1}', b'{"shards": 3}'])
def test_a_damaged_manifest_is_named(tmp_path, content: bytes) -> None:
    TokenisedDataset(_table(_rows())).save(tmp_path)
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenised\.json is damaged .*: tokenise again"):
        TokenisedDataset.load(tmp_path)


def test_a_changed_number_in_the_manifest_is_noticed(tmp_path) -> None:
    TokenisedDataset(_table(_rows())).save(tmp_path, skipped={"empty": 3})
    text = (tmp_path / MANIFEST).read_text()
    (tmp_path / MANIFEST).write_text(text.replace('"num_prefix": 1', '"num_prefix": 0'))
    with pytest.raises(ValueError, match="contents changed"):
        TokenisedDataset.load(tmp_path)


def test_a_store_is_saved_into_its_own_folder_and_a_failed_save_changes_nothing(tmp_path, monkeypatch) -> None:
    TokenisedDataset(_table(_rows())).save(tmp_path, tokenizer="old")
    mapped = TokenisedDataset.load(tmp_path)
    monkeypatch.setattr("rexbert_hf.data.store.write_manifest", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mapped.save(tmp_path)
    monkeypatch.undo()
    assert TokenisedDataset.load(tmp_path).metadata["tokenizer"] == "old"
    mapped.save(tmp_path, tokenizer="new")
    again = TokenisedDataset.load(tmp_path)
    assert again.metadata["tokenizer"] == "new"
    tokens = [token for row in _rows() for token in row["input_ids"]]
    assert mapped.take(range(50)).input_ids.tolist() == again.take(range(50)).input_ids.tolist() == tokens
    assert len(list(tmp_path.iterdir())) == 4, "one shard, the manifest, and two files for `datasets`"


def test_datasets_maps_a_folder_anew_when_its_rows_have_changed(tmp_path) -> None:
    lengths = []
    for rows in (_rows(), _rows()[::-1], _rows()[::-1]):
        TokenisedDataset(_table(rows)).save(tmp_path)
        opened = load_from_disk(str(tmp_path))
        mapped = opened.map(lambda row: {"length": len(row["input_ids"])}, remove_columns=opened.column_names)
        lengths.append(mapped["length"][:])
    assert lengths == [[len(row["input_ids"]) for row in rows] for rows in (_rows(), _rows()[::-1], _rows()[::-1])]


@pytest.mark.parametrize("ours_first", [False, True])
def test_what_datasets_saved_is_not_overwritten(tmp_path, ours_first: bool) -> None:
    store = TokenisedDataset(_table(_rows()))
    if ours_first:
        store.save(tmp_path)
    Dataset.from_dict({"text": ["red mug"]}).save_to_disk(tmp_path)
    with pytest.raises(FileExistsError, match=r"state.json is of another data set: choose another folder"):
        store.save(tmp_path)
    assert load_from_disk(str(tmp_path))["text"][:] == ["red mug"]


def test_a_dataset_info_of_others_is_not_overwritten(tmp_path) -> None:
    (tmp_path / "dataset_info.json").write_text('{"shop": {"file_name": "shop.json"}}')
    with pytest.raises(FileExistsError, match=r"dataset_info.json is of another data set"):
        TokenisedDataset(_table(_rows())).save(tmp_path)
    assert "shop.json" in (tmp_path / "dataset_info.json").read_text()


def test_shards_go_and_other_arrow_files_stay(tmp_path) -> None:
    (tmp_path / "data-of-mine.arrow").write_bytes(b"mine")
    TokenisedDataset(_table(_rows())).save(tmp_path)
    (tmp_path / "state.json").write_text("{")  # damaged, beside a manifest: ours
    TokenisedDataset(_table(_rows()[:3])).save(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.arrow")) == ["data-00001.arrow", "data-of-mine.arrow"]
    assert len(TokenisedDataset.load(tmp_path)) == len(load_from_disk(str(tmp_path))) == 3


def test_a_store_travels_to_another_process(tmp_path) -> None:
    store = TokenisedDataset(_table(_rows()), num_prefix=1, num_suffix=1)
    store.save(tmp_path / "a")
    mapped = TokenisedDataset.load(tmp_path / "a")
    sent = pickle.dumps(mapped)
    assert len(sent) < 1000  # the path travels, not the tokens
    for copy in (pickle.loads(sent), pickle.loads(pickle.dumps(store))):
        assert copy.take([4, 2]).input_ids.tolist() == store.take([4, 2]).input_ids.tolist()
        assert (copy.num_prefix, copy.num_suffix) == (1, 1)
