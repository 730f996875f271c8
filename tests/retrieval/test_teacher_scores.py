"""The teacher's scores are computed once, by any number of runs that share a cache, and a killed one leaves nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from rexbert_hf.retrieval.training.teacher_scores import teacher_scores

QUERIES, PRODUCTS = ["red", "blue lamp"], ["red lamp", "a", "blue"]


class Teacher:
    """A text's vector is made of its length; `before` is called at each encoding."""

    device = torch.device("cpu")

    def __init__(self, before=lambda: None):
        self.before, self.asked = before, 0

    def eval(self):
        return self

    def get_embedding_dimension(self):
        return 2

    def encode_query(self, texts, **options):
        self.asked += 1
        self.before()
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    encode_document = encode_query


def scores_of(teacher, cache, products=PRODUCTS):
    return teacher_scores(lambda: teacher, "f", QUERIES, products, cache)


def names(cache):
    return sorted(path.name for path in cache.iterdir())


def test_they_are_computed_once(tmp_path):
    cache, teacher = tmp_path / "cache", Teacher()
    scores_of(teacher, cache)
    scores = scores_of(None, cache)
    assert teacher.asked == 2
    assert scores.matrix(torch.tensor([1]), torch.tensor([0, 2])).tolist() == [[9.0 * 8 + 1, 9.0 * 4 + 1]]
    assert len(names(cache)) == 1
    assert names(cache)[0].startswith("teacher-")


def test_scores_that_were_cut_are_computed_again(tmp_path, caplog):
    teacher = Teacher()
    whole = np.array(scores_of(teacher, tmp_path).products)  # not the mapped file, which is cut below
    (place,) = tmp_path.glob("teacher-*/products.npy")
    data = place.read_bytes()
    for damaged in (b"", data[:40], data[:-8]):
        place.write_bytes(damaged)
        assert np.array_equal(scores_of(teacher, tmp_path).products, whole)
        assert place.read_bytes() == data
    place.unlink()
    assert np.array_equal(scores_of(teacher, tmp_path).products, whole)
    assert teacher.asked == 10
    assert caplog.text.count("the teacher is asked again") == 4


def test_another_run_may_be_faster(tmp_path):
    """It comes to its end while this one is at the products."""
    other = Teacher()
    this = Teacher(before=lambda: this.asked == 2 and run_other())

    def run_other():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            scores_of(other, tmp_path)
        (folder,) = tmp_path.glob("teacher-*")
        (folder / "mark").touch()

    scores = scores_of(this, tmp_path)
    assert (this.asked, other.asked) == (2, 2)
    np.testing.assert_array_equal(scores.queries, [[3, 1], [9, 1]])
    assert len(names(tmp_path)) == 1
    assert next(tmp_path.glob("teacher-*/mark")).exists()


def test_what_dead_runs_left_goes_and_what_a_living_one_writes_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    for pid in (ended.pid, os.getpid(), os.getppid()):
        (tmp_path / f".staging-teacher-{host}-{pid}").mkdir()
    living = [f".staging-teacher-{host}-{os.getppid()}"]
    for products in (PRODUCTS, [*PRODUCTS, "another"]):
        scores_of(Teacher(), tmp_path, products)
    assert [name for name in names(tmp_path) if name.startswith(".")] == living


def test_a_teacher_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError):
        scores_of(Teacher(before=lambda: 1 / 0), tmp_path)
    assert names(tmp_path) == []
