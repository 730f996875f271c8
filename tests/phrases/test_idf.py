"""Inverse document frequency: the counts and the normalisation, against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rexbert_hf.data.rows import RowBatch
from rexbert_hf.phrases import InverseDocumentFrequency

DOCUMENTS = [[0, 4, 4, 5, 1], [0, 4, 6, 1], [0, 5, 1], [0, 4, 1]]


def test_equals_the_formula_written_out():
    idf = InverseDocumentFrequency.fit(DOCUMENTS, vocab_size=8, special_ids=[0, 1])
    raw = [math.log(5 / (1 + sum(token in document for document in DOCUMENTS))) + 1 for token in range(8)]
    tokens = [token for document in DOCUMENTS for token in document if token > 1]
    mean = sum(raw[token] for token in tokens) / len(tokens)
    expected = [0.0, 0.0] + [weight / mean for weight in raw[2:]]
    np.testing.assert_allclose(idf.table, expected, rtol=1e-6)
    assert idf.table.dtype == np.float32
    assert np.mean(idf.table[tokens]) == pytest.approx(1, rel=1e-6)
    assert idf.table[4] < idf.table[5] < idf.table[6] < idf.table[7]


def test_every_form_of_rows_counts_alike():
    rows = [{"input_ids": document} for document in DOCUMENTS]
    expected = InverseDocumentFrequency.fit(DOCUMENTS, 8)
    for stream in (rows, [RowBatch.from_rows(rows)], [RowBatch.from_rows(rows[:1]), RowBatch.from_rows(rows[1:])]):
        idf = InverseDocumentFrequency.fit(stream, 8)
        np.testing.assert_array_equal(idf.document_counts, expected.document_counts)
        np.testing.assert_array_equal(idf.token_counts, expected.token_counts)
        assert idf.num_documents == 4
    assert expected.document_counts.tolist() == [4, 4, 0, 0, 3, 2, 1, 0]
    assert expected.token_counts.tolist() == [4, 4, 0, 0, 4, 2, 1, 0]


def test_shards_merge():
    whole = InverseDocumentFrequency.fit(DOCUMENTS, 8)
    parts = [InverseDocumentFrequency.fit(DOCUMENTS[:1], 8), InverseDocumentFrequency.fit(DOCUMENTS[1:], 8)]
    np.testing.assert_array_equal(parts[0].merge(parts[1]).table, whole.table)
    with pytest.raises(ValueError, match="8 and 9"):
        whole.merge(InverseDocumentFrequency(9))


def test_nothing_counted_gives_no_preference():
    np.testing.assert_array_equal(InverseDocumentFrequency(4, special_ids=[0]).table, [0, 1, 1, 1])
    np.testing.assert_array_equal(InverseDocumentFrequency.fit([[], [0]], 2, [0]).table[0], 0)


def test_is_an_array_where_one_is_asked_for():
    idf = InverseDocumentFrequency.fit(DOCUMENTS, 8)
    np.testing.assert_array_equal(np.asarray(idf, dtype=np.float32), idf.table)


def test_ids_outside_the_vocabulary():
    with pytest.raises(ValueError, match="token id 9 is outside a vocabulary of 8"):
        InverseDocumentFrequency.fit([[1, 9]], 8)
    with pytest.raises(ValueError, match="token id -1"):
        InverseDocumentFrequency.fit([[-1]], 8)
    with pytest.raises(ValueError, match="at least 1"):
        InverseDocumentFrequency(0)
