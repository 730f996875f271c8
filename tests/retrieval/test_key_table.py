"""The table of cached texts against a dict of Python's, and what it takes of memory."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from index_cases import HashModel

from rexbert_hf.retrieval.serving import key_table
from rexbert_hf.retrieval.serving.embedding_cache import EmbeddingCache
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


class Meanwhile:
    """Runs something in another thread, until it is done or waits for a lock that this thread holds."""

    def __init__(self, work):
        self.found, self.stopped = [], threading.Event()
        self.thread = threading.Thread(target=self._run, args=(work,))

    def _run(self, work):
        self.found.append(work())
        self.stopped.set()

    def start(self):
        self.thread.start()
        assert self.stopped.wait(60)

    def lock(self):
        meanwhile, own = self, threading.Lock()

        class Watched:
            def __enter__(self):
                if threading.current_thread() is meanwhile.thread:
                    meanwhile.stopped.set()
                own.acquire()

            def __exit__(self, *error):
                own.release()

        return Watched()


def test_a_thread_finds_the_right_places_while_another_sorts(monkeypatch):
    """Keys were sorted in before their places: vectors of other texts, without an error."""
    monkeypatch.setattr(key_table, "LEAST_LATEST", 1)
    keys = [bytes([first]) * KEY_BYTES for first in (9, 8, 7, 1, 2, 3)]
    table = KeyTable()
    table.add(keys[:3], 0)
    meanwhile = Meanwhile(lambda: table.find(keys[:3]))
    table._changing = meanwhile.lock()
    insert, calls = np.insert, []

    def slow(*args, **options):
        calls.append(args)
        if len(calls) == 2:  # the keys are sorted in, their places not yet
            meanwhile.start()
        return insert(*args, **options)

    monkeypatch.setattr(np, "insert", slow)
    table.add(keys[3:], 1)
    meanwhile.thread.join()
    assert len(calls) == 2
    assert meanwhile.found == [[(0, 0), (0, 1), (0, 2)]]


def test_threads_that_write_at_the_same_time_number_their_files_apart(tmp_path):
    model = HashModel()
    cache = EmbeddingCache(tmp_path, model)
    meanwhile = Meanwhile(lambda: cache.encode(["b", "c"]))
    cache._counting = meanwhile.lock()

    class Files(list):
        def __len__(self):
            size = super().__len__()
            if not meanwhile.thread.ident:
                meanwhile.start()
            return size

    cache._shards = Files()
    cache.encode(["a", "x"])
    meanwhile.thread.join()
    np.testing.assert_array_equal(cache.encode(["a", "b", "c", "x"]), model.encode(["a", "b", "c", "x"]))
    assert (cache.encoded, cache.served) == (4, 4)
