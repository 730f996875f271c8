"""Where each hot path spends its time, one thread: shares by group, the dearest operations or functions, as Markdown.

    python benchmarks/profiles.py [--quick] [--only encode curate ...] [--out FILE.md]

Each path runs in a process of its own, a minute or two long, without a profiler and under one (`profiling.py` says what
the groups mean). Paths of torch: a pre-training step in float32 and bfloat16, a step of search fine-tuning, the
encoding of a catalogue. Paths of Python: a query on the int8 student (and its graph by node, from onnxruntime's own
profile), text to rows, rows to masked batches, phrase-aware masking, search in 8-bit codes, filtering of a crawl.

`all.py` runs it too: a path gives two readings without peer or goal, its seconds and the share of its largest group.
For frames of compiled code: `py-spy record --native -- python benchmarks/profiles.py --only NAME`.
"""

from __future__ import annotations

import os

if __name__ == "__main__":  # before numpy and torch
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import product_text
import profiling
import report
from processes import run_group
from profiling import Profile

MINUTES = 10.0
"""Most for one path: the machine may be slow."""
QUERY_STAGES = {
    "encode_batch": "tokenise",
    "built-in method run": "onnxruntime",
    "onnxruntime/": "onnxruntime's Python",
    "onnx_encoder.py": "Python around the encoder (padding, order)",
    "faiss": "FAISS",
    "rexbert_hf/": "Python of the index",
}


def train_step_float32(quick: bool, folder: Path) -> list[Profile]:
    """A pre-training step of the micro model."""
    return [_train_step("float32", quick, folder)]


def train_step_bfloat16(quick: bool, folder: Path) -> list[Profile]:
    """The same under bfloat16 autocast."""
    return [_train_step("bfloat16", quick, folder)]


def _train_step(dtype: str, quick: bool, folder: Path) -> Profile:
    import train_step

    args = train_step.arguments(["--dtype", dtype, "--batch", "8" if quick else "64", "--quick"])
    args.rows, _ = train_step.tokenise(args, folder)
    return train_step.profile(args, f"train_step_{dtype}")


def finetune_step(quick: bool, folder: Path) -> list[Profile]:
    """A step of MiniLM on queries and titles, as `prepare_for_cpu` makes it."""
    from finetune_step import ROWS, Contender
    from rexbert_hf.training import StableAdamW, parameter_groups
    from rexbert_hf.training.cpu import tune_cpu

    tune_cpu()
    contender = Contender(ROWS // 8 if quick else ROWS, prepared=True)
    contender.optimizer = StableAdamW(parameter_groups(contender.model, 0.01), lr=1e-5)  # as the trainer has
    unit = f"a step over {contender.rows} queries and titles, MiniLM, bfloat16"
    return [profiling.of_torch("finetune_step", unit, lambda _: contender.step(), 2 if quick else 3)]


def encode(quick: bool, folder: Path) -> list[Profile]:
    """Mixed texts of a catalogue to vectors, `encode_flat` with the mini model."""
    from encode import models
    from rexbert_hf.retrieval.serving import encoding

    texts, _ = product_text.documents(40 if quick else 120)
    cuda = torch.cuda.is_available()
    ours, _ = models("mini", texts, folder, cuda)
    plain = encoding._token_ids

    def marked(*args: Any) -> list[np.ndarray]:
        with torch.profiler.record_function("tokenise"):
            return plain(*args)

    encoding._token_ids = marked  # type: ignore[assignment]
    unit = f"{len(texts)} titles, descriptions and reviews, mini"
    work: Callable[[int], object] = lambda _: encoding.encode_flat(ours, texts)  # noqa: E731
    return [profiling.of_torch("encode", unit, work, 1, "cuda" if cuda else "cpu")]


def query(quick: bool, folder: Path) -> list[Profile]:
    """One search term at a time: to a vector with the int8 student, and to ten products; then the graph alone."""
    import onnxruntime

    import index_data
    from rexbert_hf.retrieval import ProductIndex
    from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder, read_export
    from rexbert_hf.retrieval.serving.onnx_export import export_onnx
    from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder

    count, repeats = (500, 100) if quick else (10_000, 2_000)
    titles, terms, _ = index_data.titles_and_queries(count, 500)
    student = load_biencoder(BiEncoderSettings(preset="student", vocab_size=8192), (titles + terms)[:6_000])
    export_onnx(student, folder)
    encoder = OnnxEncoder(folder, "int8")
    products = [{"product_id": f"p{i}", "title": title} for i, title in enumerate(titles)]
    index = ProductIndex.build(products, encoder, kind="int8")
    unit = f"a search term to ten of {len(titles):,} products, untrained student"
    found = profiling.of_python(
        "query", unit, lambda i: index.search([terms[i % len(terms)]], 10), repeats, QUERY_STAGES
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "graph")
    graph = folder / read_export(folder)["graphs"]["int8"]
    encoder.session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    for i in range(repeats):
        encoder.encode([terms[i % len(terms)]])
    events = json.loads(Path(encoder.session.end_profiling()).read_text(encoding="utf-8"))
    return [found, profiling.of_onnx("query/graph", "the int8 graph over the same terms", events, repeats)]


def tokenise(quick: bool, folder: Path) -> list[Profile]:
    """Text to Arrow rows on disk, one process."""
    from data_path import VOCABULARY
    from rexbert_hf.data import tokenise as to_rows

    texts, _ = product_text.documents(2_000 if quick else 30_000)
    tokenizer = product_text.train_tokenizer(texts[:4_000], VOCABULARY)

    def work(_: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            to_rows(texts, tokenizer, place, num_proc=1, fingerprint="x")

    return [profiling.of_python("tokenise", f"{len(texts):,} documents to rows on disk", work, 1)]


def pack_and_mask(quick: bool, folder: Path) -> list[Profile]:
    """Rows to packed and masked flat batches, as a loader worker makes them."""
    from data_path import MASK, MICRO_TOKENS, SEQ_LENGTH, VOCABULARY
    from rexbert_hf.data import tokenise as to_rows
    from rexbert_hf.data.loader import CurriculumDataset, CurriculumSampler
    from rexbert_hf.data.order import PhaseOrder
    from rexbert_hf.masking import MLMCollator

    texts, _ = product_text.documents(2_000 if quick else 20_000)
    tokenizer = product_text.train_tokenizer(texts[:4_000], VOCABULARY)
    store = to_rows(texts, tokenizer)
    tokens = (2 if quick else 20) * store.num_tokens
    collate = MLMCollator(tokenizer, MASK, flat=True)

    def work(_: int) -> None:
        order = PhaseOrder({"s": store}, None, SEQ_LENGTH, MICRO_TOKENS, 1, tokens)
        dataset = CurriculumDataset([order], {"s": store})
        for keys in CurriculumSampler([order]):
            collate(dataset.__getitems__(keys))

    unit = f"{tokens:,} tokens in batches of {MICRO_TOKENS:,}"
    return [profiling.of_python("pack_and_mask", unit, work, 1 if quick else 2)]


def ahm_collate(quick: bool, folder: Path) -> list[Profile]:
    """Rows with phrases to both selections of adaptive hybrid masking."""
    from ahm_collate import batches_of, phrase_store
    from collate import read_texts
    from rexbert_hf.masking import AdaptiveHybridMaskingCollator

    texts, _ = read_texts(1_000 if quick else 8_000)
    tokenizer = product_text.train_tokenizer(texts, 8_192)
    store = phrase_store(texts, tokenizer)
    batches, collate = batches_of(store), AdaptiveHybridMaskingCollator(tokenizer, flat=True)

    def work(_: int) -> None:
        for step, indices in enumerate(batches):
            collate(store.take(indices, step=step))

    unit = f"{store.num_tokens:,} tokens in {len(batches)} batches, both selections"
    return [profiling.of_python("ahm_collate", unit, work, 1 if quick else 5)]


def index_search(quick: bool, folder: Path) -> list[Profile]:
    """One vector at a time in 8-bit codes, with the `ef_search` that gives recall@100 of .98."""
    import faiss

    import index_data
    from index import K, recall_of, tune
    from rexbert_hf.retrieval import ProductIndex

    faiss.omp_set_num_threads(1)
    count, embedded = (2_000, 200) if quick else (50_000, 2_000)
    titles, terms, _ = index_data.titles_and_queries(embedded, 100)
    base = index_data.embed(titles, "document", folder / "embeddings")
    queries = index_data.embed(terms, "query", folder / "embeddings")
    vectors = index_data.write_noisy(folder / "vectors.npy", base, count)
    truth = np.argsort(-(queries @ vectors.T), axis=1)[:, :K]
    products = index_data.products(count)
    index = ProductIndex.build(products, None, "int8", vectors=vectors, work_dir=folder, filters=["price", "locale"])
    recall = tune(index, queries, truth)
    depth = f"ef_search {index.options.ef_search}, recall {recall:.3f}"
    unit = f"a vector to {K} of {count:,} products, 8-bit codes, {depth}"
    repeats = 100 if quick else 500
    plain = profiling.of_python("index_search", unit, lambda i: index.search(queries[i % 100][None], K), repeats)
    wanted = {"locale": "de"}
    rows = np.flatnonzero(index.state.rows.columns.mask(wanted))
    truth = rows[np.argsort(-(queries @ vectors[rows].T), axis=1)[:, :K]]
    recall = recall_of(index.search(queries, K, filter=wanted), truth)
    unit = f"the same where 10 % pass, recall {recall:.3f}"
    narrow = profiling.of_python(
        "index_search/filtered", unit, lambda i: index.search(queries[i % 100][None], K, filter=wanted), repeats
    )
    return [plain, narrow]


def curate(quick: bool, folder: Path) -> list[Profile]:
    """A crawl through the filter: domain, language, quality, duplicates."""
    from curate import LABELS, WORDS, documents, write_repeated
    from rexbert_hf.corpus.documents import DocumentSource
    from rexbert_hf.corpus.fasttext_model import FastTextClassifier
    from rexbert_hf.corpus.filtering import filter_corpus
    from rexbert_hf.corpus.judging import FilterSettings

    texts, sides, _ = documents(400 if quick else 2_000)
    classifier = FastTextClassifier.train(texts, [LABELS[not side] for side in sides], [LABELS[0]])
    classifier.save(folder / "classifier")
    count = 500 if quick else 8_000
    write_repeated(folder / "crawl.jsonl", texts, count, WORDS)
    source = DocumentSource(str(folder / "crawl.jsonl"))

    def work(_: int) -> None:
        with tempfile.TemporaryDirectory(dir=folder) as place:  # a new one: a finished folder is left as it is
            filter_corpus(FilterSettings(), [source], None, folder / "classifier", place)

    return [profiling.of_python("curate", f"{count:,} documents of {WORDS} words", work, 1)]


PATHS: dict[str, Callable[[bool, Path], list[Profile]]] = {
    path.__name__: path
    for path in (
        train_step_float32,
        train_step_bfloat16,
        finetune_step,
        encode,
        query,
        tokenise,
        pack_and_mask,
        ahm_collate,
        index_search,
        curate,
    )
}


def of_process(name: str, quick: bool) -> tuple[str, list[dict[str, Any]]]:
    """Markdown and readings of one path, from a process of its own.

    Args:
        name: of the path.
        quick: as on the command line.

    Raises:
        SystemExit: if it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "profile.md"
        command = [sys.executable, __file__, "--only", name, "--out", str(out), *(["--quick"] if quick else [])]
        ended = run_group(command, 60 * MINUTES)
        if ended.status != 0:
            said = (ended.complaint.strip() or "no word").splitlines()[-1]
            raise SystemExit(f"error: {name}: {'stopped' if ended.status is None else said}")
        return out.read_text(encoding="utf-8"), json.loads(ended.said.strip().splitlines()[-1])


def main() -> None:
    """Profile and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "small sizes: seconds a path, and shares that mean little")
    parser.add_argument("--only", nargs="+", choices=list(PATHS), help="these paths alone")
    parser.add_argument("--out", type=Path, help="write the Markdown into this file too")
    args: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(1)
    report.header("profiles", "", ("numpy", "torch", "transformers", "onnxruntime", "faiss-cpu", "tokenizers"))
    texts, readings = [], []
    names = args.only or list(PATHS)
    for name in names:
        if len(names) > 1:
            text, found = of_process(name, args.quick)
        else:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
                profiles = PATHS[name](args.quick, Path(folder))
            text = "\n".join(profile.markdown() for profile in profiles)
            found = [reading.entry() for profile in profiles for reading in profile.readings()]
        print(f"\n{text}", flush=True)
        texts.append(text)
        readings += found
    if args.out is not None:
        args.out.write_text("\n".join(texts), encoding="utf-8")
    print(json.dumps(readings))


if __name__ == "__main__":
    main()
