"""Filtering a crawl: documents a second, memory, two workers, core-hours, beside datatrove's own fastText filter.

Both classifiers learn from the same documents of 300 words, shop and general, and are timed on others of the same
making. The peer is datatrove's `FastTextClassifierFilter` with a model of fastText's default size (100 wide, 2 million
buckets, pairs of words); ours is `FastTextClassifier.keeps` and the choice of the documents, and the same inside a
datatrove block. Documents are in memory; times are processor time of one process.

    python benchmarks/curate.py [--quick]

Text is that of ../shared/data when it is there, else the sample web.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import report
from curation_text import read_sources
from rexbert_hf.corpus.documents import DocumentSource
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
from rexbert_hf.corpus.filtering import filter_corpus
from rexbert_hf.corpus.judging import FilterSettings
from rexbert_hf.corpus.quality import QualitySettings

WORDS = 300
LABELS = ("in_domain", "out_of_domain")
GOAL_SPEED, GOAL_F1_LOST, GOAL_MEMORY, GOAL_WORKERS, GOAL_FLAT = 3.0, 0.5, 60.0, 1.7, 1.15


def documents(count: int) -> tuple[list[str], list[bool], str]:
    """`count` documents of 300 words, half of a shop, joined of neighbouring texts of one source."""
    pools: dict[bool, list[list[str]]] = {True: [], False: []}
    sources = read_sources(4_000)
    for source in sources:
        pools[source.shop].append(source.texts)
    if not sources:
        from rexbert_hf.catalog import load_sample

        for row in load_sample("web"):
            pools[row["label"] == "shop"].append([row["text"]])
        pools = {side: [[text for texts in group for text in texts]] for side, group in pools.items()}
    rng, texts, sides = random.Random(0), [], []
    for side, groups in pools.items():
        for i in range(count // 2):
            group, words = groups[i % len(groups)], []
            at = rng.randrange(len(group))
            while len(words) < WORDS:
                words += group[at % len(group)].split()
                at += 1
            texts.append(" ".join(words[:WORDS]))
            sides.append(side)
    order = rng.sample(range(len(texts)), len(texts))
    name = f"shared/data, {len(sources)} sources" if sources else "sample web"
    return [texts[i] for i in order], [sides[i] for i in order], name


def train_stock(texts: Sequence[str], sides: Sequence[bool], folder: Path) -> Path:
    """The model that fastText's own trainer makes, under a name made of its content, as datatrove's cache needs.

    It learns from texts as the filter will show them: as they are, on one line.
    """
    import fasttext

    with (folder / "train.txt").open("w", encoding="utf-8") as file:
        file.writelines(f"__label__{LABELS[not side]} {text}\n" for side, text in zip(sides, texts, strict=True))
    model = fasttext.train_supervised(
        str(folder / "train.txt"), dim=100, bucket=2_000_000, wordNgrams=2, epoch=15, lr=0.5, thread=1, verbose=0
    )
    path = folder / "stock.bin"
    model.save_model(str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return path.rename(folder / f"stock-{digest}.bin")


def stock_filter(model: Path) -> Any:
    """Datatrove's filter with a model in memory: its download cache, which wants one package more, is not timed."""
    from datatrove.pipeline.filters import FastTextClassifierFilter
    from fasttext.FastText import _FastText

    block = object.__new__(FastTextClassifierFilter)
    block.__init__(str(model), keep_labels=(LABELS[0], 0.5), newline_replacement=" ")
    block._model = _FastText(str(model))
    return block


def seconds(work: Callable[[list[Any]], object], make: Callable[[], list[Any]], repeats: int) -> float:
    """Median processor time of work on what `make` makes anew, which is not timed."""
    work(make())
    times = []
    for _ in range(repeats):
        items = make()
        start = time.process_time()
        work(items)
        times.append(time.process_time() - start)
    return float(np.median(times))


def f1(kept: np.ndarray, truth: np.ndarray) -> float:
    """F1 of what is kept."""
    return float(2 * (kept & truth).sum() / (kept.sum() + truth.sum()))


def measure_speed(
    texts: list[str], sides: list[bool], classifier: FastTextClassifier, stock: Path, quick: bool
) -> list[report.Reading]:
    """Documents a second and F1, ours beside datatrove's."""
    from datatrove.data import Document

    from rexbert_hf.corpus.trove import DomainFilter

    def trove_documents() -> list[Document]:
        return [Document(text, str(i)) for i, text in enumerate(texts)]

    def run_block(block: Any) -> Callable[[list[Any]], set[int]]:
        return lambda items: {int(document.id) for document in block.run(iter(items))}

    def run_ours(items: list[str]) -> list[str]:
        return [text for text, keep in zip(items, classifier.keeps(items).tolist(), strict=True) if keep]

    peer = run_block(stock_filter(stock))
    with tempfile.TemporaryDirectory() as folder:
        classifier.save(folder)
        block = run_block(DomainFilter(FilterSettings(quality=QualitySettings(enabled=False)), folder))
        repeats = 3 if quick else 7
        speeds = {
            "ours": len(texts) / seconds(run_ours, lambda: texts, repeats),
            "block": len(texts) / seconds(block, trove_documents, repeats),
            "peer": len(texts) / seconds(peer, trove_documents, repeats),
        }
        truth = np.array(sides)
        kept = np.isin(np.arange(len(texts)), list(peer(trove_documents())))
    ours, theirs = 100 * f1(classifier.keeps(texts), truth), 100 * f1(kept, truth)
    print(f"F1 of {len(texts)} documents: ours {ours:.2f}, datatrove's {theirs:.2f}")
    return [
        report.Reading("curate/classify_and_filter", speeds["ours"], speeds["peer"], GOAL_SPEED, "documents/s"),
        report.Reading("curate/datatrove_block", speeds["block"], speeds["peer"], None, "documents/s"),
        report.Reading("curate/f1_lost", theirs - ours, None, GOAL_F1_LOST, "points", judged="ours", lower=True),
    ]


MEMORY = """
import sys
from pathlib import Path
import fasttext
from rexbert_hf.corpus.fasttext_model import FastTextClassifier
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20
kind, path, texts = sys.argv[1], sys.argv[2], Path(sys.argv[3]).read_text().splitlines()
before = resident()
if kind == "ours":
    FastTextClassifier.load(path).scores(texts)
else:
    model = fasttext.load_model(path)
    model.predict(texts, k=-1)
print(resident() - before)
"""


def measure_memory(texts: list[str], classifier: FastTextClassifier, stock: Path, folder: Path) -> report.Reading:
    """MiB that a process grows by when it loads a classifier and uses it; both libraries are there before."""
    (folder / "texts.txt").write_text("\n".join(texts[:500]), encoding="utf-8")
    classifier.save(folder / "ours")

    def grown(kind: str, path: Path) -> float:
        command = [sys.executable, "-c", MEMORY, kind, str(path), str(folder / "texts.txt")]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    ours, peer = grown("ours", folder / "ours"), grown("peer", stock)
    return report.Reading("curate/classifier_memory", ours, peer, GOAL_MEMORY, "MiB", judged="ours", lower=True)


PEAK = """
import json, sys
from pathlib import Path
from rexbert_hf.corpus.documents import DocumentSource
from rexbert_hf.corpus.filtering import filter_corpus
from rexbert_hf.corpus.judging import FilterSettings
found = filter_corpus(FilterSettings(), [DocumentSource(sys.argv[1])], None, sys.argv[2], sys.argv[3])
status = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
print(json.dumps([int(status) / 1024, found.written, found.seconds]))
"""


def write_repeated(path: Path, texts: Sequence[str], count: int, words: int) -> None:
    """`count` documents: texts again and again, each time with some words of others."""
    rng = random.Random(1)
    split = [text.split()[:words] for text in texts]
    with path.open("w", encoding="utf-8") as file:
        for i in range(count):
            chosen = list(split[i % len(split)])
            for _ in range(rng.randrange(words // 2)):
                chosen[rng.randrange(len(chosen))] = rng.choice(split[rng.randrange(len(split))])
            file.write(json.dumps({"text": " ".join(chosen), "domain": "web"}) + "\n")


def measure_flatness(texts: list[str], folder: Path, quick: bool) -> report.Reading:
    """Peak memory of filtering many documents over that of few; with duplicates looked for."""
    peaks = []
    for count in (2_000, 20_000) if quick else (10_000, 1_000_000):
        write_repeated(folder / "many.jsonl", texts, count, 60)
        command = [
            sys.executable,
            "-c",
            PEAK,
            str(folder / "many.jsonl"),
            str(folder / "ours"),
            str(folder / f"{count}"),
        ]
        peak, written, took = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(f"{count:,} documents of 60 words: peak {peak:,.0f} MiB, {written:,} kept, {took:.0f} s")
        peaks.append(peak)
        (folder / "many.jsonl").unlink()
    return report.Reading("curate/memory_many_over_few", peaks[1], peaks[0], GOAL_FLAT, "MiB", lower=True)


def measure_workers(texts: list[str], folder: Path) -> list[report.Reading]:
    """Wall time of the whole filter with one worker over that with two; core-hours for a billion tokens.

    Of one size in a quick run too: a second worker is half a second of start-up, which fewer documents do not repay.
    """
    write_repeated(folder / "crawl.jsonl", texts, 120_000, WORDS)
    source, took, cores = DocumentSource(str(folder / "crawl.jsonl")), {}, 0.0
    for workers in (1, 2):
        start, spent = time.perf_counter(), sum(os.times()[:2])
        settings = replace(FilterSettings(), rows_per_shard=2_500)
        found = filter_corpus(settings, [source], None, folder / "ours", folder / f"workers{workers}", workers)
        took[workers] = time.perf_counter() - start
        if workers == 1:
            cores = (sum(os.times()[:2]) - spent) / 3600
            print(f"one worker: {found.read / took[1]:,.0f} documents/s, {found.written:,} of {found.read:,} kept")
    tokens = found.read * WORDS * tokens_per_word(texts)
    return [
        report.Reading("curate/two_workers", 1 / took[2], 1 / took[1], GOAL_WORKERS, "runs/s"),
        report.Reading("curate/core_hours_per_billion_tokens", cores / tokens * 1e9, None, None, "core-hours"),
    ]


def tokens_per_word(texts: list[str]) -> float:
    """Of a byte-level BPE of 32,768 tokens, trained on these texts."""
    from product_text import train_tokenizer

    tokenizer = train_tokenizer(texts[:2_000], 32_768)
    sample = texts[2_000:2_200] or texts[:200]
    return sum(map(len, tokenizer(sample, add_special_tokens=False)["input_ids"])) / sum(len(t.split()) for t in sample)


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a tenth of the documents").parse_args()
    texts, sides, name = documents(1_200 if args.quick else 8_000)
    half = len(texts) // 2
    report.header("curate", name, ("numpy", "pyarrow", "datatrove", "scikit-learn"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        start = time.process_time()
        labels = [LABELS[not side] for side in sides[:half]]
        classifier = FastTextClassifier.train(texts[:half], labels, [LABELS[0]])
        print(f"ours trained on {half} documents in {time.process_time() - start:.1f} s", end=", ")
        start = time.process_time()
        stock = train_stock(texts[:half], sides[:half], folder)
        print(f"fastText's default in {time.process_time() - start:.1f} s")
        readings = measure_speed(texts[half:], sides[half:], classifier, stock, args.quick)
        readings.append(measure_memory(texts[half:], classifier, stock, folder))
        stock.unlink()
        readings.append(measure_flatness(texts, folder, args.quick))
        readings += measure_workers(texts, folder)
    report.finish(readings)


if __name__ == "__main__":
    main()
