"""A stranger's `index.faiss`: FAISS opens what it names, so only what the package writes is handed to FAISS."""

from __future__ import annotations

import hashlib
import shutil
import struct

import numpy as np
import pytest
from index_cases import DIM, HashModel, make_products, rewrite_facts

from rexbert_hf.retrieval.serving.codes import FaissCodes, build_codes, load_codes
from rexbert_hf.retrieval.serving.faiss_file import check_faiss_file
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.index_folder import current_version
from rexbert_hf.retrieval.serving.vector_store import VectorStore

faiss = pytest.importorskip("faiss")
IP = faiss.METRIC_INNER_PRODUCT


def vectors(count, dim=DIM):
    return np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)


def store_of(count, dim=DIM):
    store = VectorStore(dim)
    store.append(vectors(count, dim))
    return store


def with_codes(folder, index):
    """A saved index whose codes are others', sealed as if they had been there from the start."""
    ProductIndex.build(make_products(60), HashModel(), "hnsw").save(folder / "mine")
    version = folder / "stranger"
    shutil.copytree(current_version(folder / "mine"), version)
    faiss.write_index(index, str(version / "index.faiss"))
    data = (version / "index.faiss").read_bytes()
    sealed = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite_facts(version / "index.json", lambda facts: facts["files"].update({"index.faiss": sealed}))
    return version


def refused(folder, index, match):
    with pytest.raises(ValueError, match=match) as error:
        ProductIndex.load(with_codes(folder, index), HashModel())
    assert "\n" not in str(error.value)
    assert "build the index again" in str(error.value)


def on_disk(path, index=None):
    index = index or faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, 2, IP)
    index.train(vectors(60))
    index.add(vectors(60))
    lists = faiss.OnDiskInvertedLists(2, index.code_size, str(path))
    lists.merge_from_1(index.invlists)
    lists.this.disown()  # they are the index's from now on
    index.replace_invlists(lists, True)
    return index


def test_lists_in_another_file_are_not_opened(tmp_path):
    """The file is named by its absolute path: FAISS maps it, and writes to it when products are added."""
    thesis = tmp_path / "elsewhere" / "thesis.txt"
    thesis.parent.mkdir()
    index = on_disk(thesis)
    thesis.unlink()  # had FAISS read the index, it would say that this file is missing
    refused(tmp_path, index, r"index\.faiss is damaged or of another kind \('IwFl' where ")


def test_lists_in_another_file_inside_what_the_package_writes(tmp_path):
    code = faiss.ScalarQuantizer.QT_8bit
    index = on_disk(tmp_path / "thesis", faiss.IndexIVFScalarQuantizer(faiss.IndexFlatIP(DIM), DIM, 2, code, IP, False))
    refused(tmp_path, index, "'ilod' where 'ilar' is due")


def test_lists_in_another_file_below_a_graph_and_beside_lists(tmp_path):
    inner = on_disk(tmp_path / "thesis")
    graph = faiss.IndexHNSWFlat(DIM, 8, IP)
    graph.add(vectors(60))
    graph.own_fields, graph.storage = False, inner
    refused(tmp_path / "a", graph, "'IwFl' where 'IxFI' is due")
    flat = faiss.IndexFlatIP(DIM)
    flat.add(vectors(60))
    refined = faiss.IndexRefine(inner, flat)
    refused(tmp_path / "b", refined, "'IwFl' where 'IwPf' or 'IwSq' is due")


@pytest.mark.parametrize("kind", ["hnsw", "int8", "int4"])
@pytest.mark.parametrize("count", [1, 5, 15, 16, 70, 900])
@pytest.mark.parametrize("dim", [7, DIM])
def test_what_the_package_writes_is_read(kind, count, dim, tmp_path):
    """And read again after rows were added; the four letters among codes are no reason to refuse."""
    store = store_of(count, dim)
    codes = build_codes(store, kind, 8, 20)
    for total in (count, 2 * count):
        codes.save(tmp_path)
        codes = load_codes(tmp_path, kind, store)
        assert len(codes) == total
        store.append(vectors(count, dim))
        codes.add(vectors(count, dim))


def test_graphs_of_earlier_versions_are_read(tmp_path):
    """They kept 8-bit codes in a graph."""
    index = faiss.IndexHNSWSQ(DIM, faiss.ScalarQuantizer.QT_8bit, 8, IP)
    index.train(vectors(60))
    index.add(vectors(60))
    FaissCodes(index).save(tmp_path)
    assert len(load_codes(tmp_path, "int8", store_of(60))) == 60


def test_the_four_letters_among_vectors_are_no_lists(tmp_path):
    store = VectorStore(4)
    store.append(np.frombuffer(b"ilodIwFl" * 60, dtype="<f4").reshape(-1, 4))
    build_codes(store, "hnsw", 4, 10).save(tmp_path)
    assert len(load_codes(tmp_path, "hnsw", store)) == len(store)


def test_codes_of_other_vectors_are_refused(tmp_path):
    flat = faiss.IndexHNSWFlat(DIM // 2, 8, IP)
    flat.add(vectors(60, DIM // 2))
    refused(tmp_path / "a", flat, "16 dimensions, the vectors have 32")
    fewer = faiss.IndexHNSWFlat(DIM, 8, IP)
    fewer.add(vectors(59))
    refused(tmp_path / "b", fewer, "59 rows where 60 are due")
    other = faiss.IndexHNSWFlat(DIM, 8, faiss.METRIC_L2)
    other.add(vectors(60))
    refused(tmp_path / "c", other, "no inner products")


@pytest.mark.parametrize("kind", ["hnsw", "int8", "int4"])
@pytest.mark.parametrize("share", [0, 0.001, 0.1, 0.5, 0.99])
def test_a_file_that_ends_early_or_late(kind, share, tmp_path):
    build_codes(store_of(70), kind, 8, 20).save(tmp_path)
    path = tmp_path / "index.faiss"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=r"index\.faiss is damaged"):
        check_faiss_file(path, DIM, 70)
    path.write_bytes(data + b"\0")
    with pytest.raises(ValueError, match="goes on"):
        check_faiss_file(path, DIM, 70)


def test_links_that_lead_out_of_the_graph(tmp_path):
    """FAISS reads memory at whatever row a link names."""
    build_codes(store_of(70), "hnsw", 8, 20).save(tmp_path)
    path = tmp_path / "index.faiss"
    data = path.read_bytes()
    links = data.rindex(b"\xff\xff\xff\xff", 0, data.rindex(b"IxFI"))
    for row in (70, -2, 1 << 30):
        path.write_bytes(data[:links] + struct.pack("<i", row) + data[links + 4 :])
        with pytest.raises(ValueError, match="its graph leads nowhere"):
            check_faiss_file(path, DIM, 70)


def test_rows_of_lists_that_are_not_there(tmp_path):
    build_codes(store_of(70), "int4", 8, 20).save(tmp_path)
    path = tmp_path / "index.faiss"
    data = bytearray(path.read_bytes())
    lists = data.index(b"ilbl") + 4 + 32
    while not struct.unpack_from("<Q", data, lists)[0]:
        lists += 16
    struct.pack_into("<q", data, lists + 8, 70)
    path.write_bytes(data)
    with pytest.raises(ValueError, match="its lists name rows that are not there"):
        check_faiss_file(path, DIM, 70)
