"""The table of cached texts against a dict of Python's, and what it takes of memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from rexbert_hf.retrieval.serving import key_table
from rexbert_hf.retrieval.serving.key_table import KEY_BYTES, KeyTable


@pytest.mark.parametrize("least", [0, 5, 40, 10_000])
def test_it_is_a_dict_in_which_the_first_place_counts(monkeypatch, least):
    """Keys that differ in any byte, and end with zeros, which numpy's texts do not show."""
    monkeypatch.setattr(key_table, "LEAST_LATEST", least)
    rng = np.random.default_rng(least)
    known = [bytes(KEY_BYTES), b"\xff" * KEY_BYTES]
    while len(known) < 300:
        key = bytearray(known[rng.integers(len(known))])
        key[rng.integers(KEY_BYTES)] = rng.choice([0, 1, 127, 128, 255])
        known.append(bytes(key))
    table, expected = KeyTable(), {}
    for file in range(80):
        some = [known[i] for i in rng.integers(0, 300, rng.integers(0, 12))]
        table.add(some, file)
        for row, key in enumerate(some):
            expected.setdefault(key, (file, row))
        gone = [known[i] for i in rng.integers(0, 300, rng.integers(0, 5))]
        table.forget(gone)
        for key in gone:
            expected.pop(key, None)
        assert table.find(known) == [expected.get(key) for key in known]


def test_a_key_takes_a_fraction_of_what_it_takes_in_a_dict(monkeypatch):
    monkeypatch.setattr(key_table, "LEAST_LATEST", 1_000)
    data = np.random.default_rng(0).bytes(40_000 * KEY_BYTES)
    tracemalloc.start()
    table = KeyTable()
    for file, start in enumerate(range(0, len(data), 500 * KEY_BYTES)):
        part = data[start : start + 500 * KEY_BYTES]
        table.add([part[i : i + KEY_BYTES] for i in range(0, len(part), KEY_BYTES)], file)
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert table.find([data[-KEY_BYTES:], data[:KEY_BYTES]]) == [(79, 499), (0, 0)]
    assert size / 40_000 < 60  # 24 in the arrays; an eighth of 184 in the dict
