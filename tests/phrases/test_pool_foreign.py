"""Phrase pools of strangers: Parquet of any columns is read, or refused in one line that names the file."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rexbert_hf.phrases import PhrasePool

ODD_COLUMNS = {
    "numbers for phrases": {"phrase": [1, 2], "score": [0.5, 0.5]},
    "no phrase": {"phrase": [None, "tea pot"], "score": [0.5, 0.5]},
    "bytes": {"phrase": [b"tea pot"], "score": [0.5]},
    "lists for phrases": {"phrase": [["tea pot"]], "score": [0.5]},
    "words for scores": {"phrase": ["tea pot"], "score": ["x"]},
    "lists for scores": {"phrase": ["tea pot"], "score": [[0.5]]},
    "no score": {"phrase": ["tea pot"], "score": [None]},
    "score too high": {"phrase": ["tea pot"], "score": [1.5]},
    "words for counts": {"phrase": ["tea pot"], "score": [0.5], "count": ["x"]},
    "no count": {"phrase": ["tea pot", "red mug"], "score": [0.5, 0.5], "count": [None, 1]},
    "count beyond 63 bits": {"phrase": ["tea pot"], "score": [0.5], "count": pa.array([1 << 63], pa.uint64())},
    "numbers for categories": {"phrase": ["tea pot"], "score": [0.5], "category": [3]},
    "no row": {"phrase": pa.array([], pa.string()), "score": pa.array([], pa.float64())},
    "no word": {"phrase": [" "], "score": [0.5]},
}


@pytest.mark.parametrize("what", ODD_COLUMNS)
def test_a_foreign_pool_is_refused_in_one_line(tmp_path, what):
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(ODD_COLUMNS[what]), tmp_path / "data" / "train-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path))) as error:
        PhrasePool.load(tmp_path)
    assert "\n" not in str(error.value)


def test_parts_of_a_pool_that_do_not_fit_each_other(tmp_path):
    (tmp_path / "data").mkdir()
    for part, scores in enumerate(([0.5], ["x"])):
        table = pa.table({"phrase": ["tea pot"], "score": scores})
        pq.write_table(table, tmp_path / "data" / f"train-0000{part}-of-00002.parquet")
    with pytest.raises(ValueError, match=r"train-00001.*'score'") as error:
        PhrasePool.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("column", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_phrases_of_any_text_type_are_read(tmp_path, column):
    (tmp_path / "data").mkdir()
    table = pa.table({"phrase": pa.array(["tea pot"]).cast(column), "score": pa.array([1], pa.int8())})
    pq.write_table(table.append_column("category", pa.nulls(1)), tmp_path / "data" / "a.parquet")
    pool = PhrasePool.load(tmp_path)
    assert (pool.phrases, pool.scores.tolist(), pool.categories) == (["tea pot"], [1.0], None)
