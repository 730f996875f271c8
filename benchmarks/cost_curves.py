"""What work costs as it grows: exponents of time and memory against length, batch, model, corpus and catalogue.

    python benchmarks/cost_curves.py [--quick] [--plot FILE.png] [--only length model ...]

Each curve is measured at sizes that double, each point in a process of its own (for its peak memory, less that of the
process before the work), and a line is fitted through the logarithms: 1 is linear. For sequence length the useful FLOPs
of the same steps are fitted too: attention over whole documents makes a token dearer as they grow, so what can be asked
is the exponent of the FLOPs. Training steps are those of a micro RexBERT in one thread: forward, backward, optimizer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

import report

SLACK = 0.1
"""What an exponent may be above the one it should be: points of one machine scatter."""
VOCABULARY, MASK, BATCH_TOKENS = 8_192, 0.3, 8_192
MODELS = ((2, 128), (4, 192), (6, 256), (8, 384), (12, 512))
"""Layers and width of the models whose cost is compared."""
FIGURES = {
    "seconds": "seconds",
    "bytes": "peak memory gained",
    "tokens_per_second": "tokens a second",
    "plan_seconds": "seconds to plan, 20 steps read",
    "search_seconds": "seconds of a search",
}
"""Name of a figure -> in the legend."""


@dataclass
class Curve:
    """One kind of work over growing sizes.

    Attributes:
        name: what grows.
        sizes: as they are measured.
        measure: of a size: seconds a unit of work, and whatever else is known, by name.
        expected: exponent of each figure that is fitted, None where it is only shown.
        unit: of the sizes, below the plot.
    """

    name: str
    sizes: Sequence[int]
    measure: Callable[[int], dict[str, float]]
    expected: dict[str, float | None]
    unit: str
    points: list[dict[str, float]] = field(default_factory=list)

    def run(self) -> None:
        """Measure each size in a process of its own, and print it."""
        for size in self.sizes:
            self.points.append(in_a_process(self.measure, size))
            shown = ", ".join(f"{name} {value:.4g}" for name, value in self.points[-1].items())
            print(f"{self.name} {size:>9,}: {shown}", flush=True)

    def axis(self) -> Sequence[float]:
        """What the figures are held against."""
        return self.sizes

    def exponent(self, figure: str) -> float:
        """Slope of the logarithms."""
        return slope(self.axis(), [point[figure] for point in self.points])

    def readings(self) -> list[report.Reading]:
        """The exponents, each beside the one it should be."""
        found = []
        for figure, expected in self.expected.items():
            if figure == "tokens_per_second":
                continue  # plotted: its exponent says what that of the seconds does
            if self.name != "model" and "flops" in self.points[0] and figure == "seconds":
                expected = self.exponent("flops")
            goal = None if expected is None else round(expected + SLACK, 2)
            found.append(
                report.Reading(f"cost_curves/{self.name}/{figure}", self.exponent(figure), expected or None, goal,
                               "exponent", "ours", lower=True)
            )  # fmt: skip
        return found


def slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Exponent of a power law through points, by least squares of the logarithms.

    Args:
        sizes: what grows.
        values: above zero.
    """
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-9)), 1)[0])


def in_a_process(measure: Callable[[int], dict[str, float]], size: int) -> dict[str, float]:
    """Run a measurement in a fork; its peak memory above what it started with is added as "bytes"."""
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(measure, size, send))
    process.start()
    send.close()
    try:
        found: dict[str, float] = receive.recv()
    except EOFError:
        raise SystemExit(f"error: the measurement of size {size:,} failed (see above; out of memory?)") from None
    process.join()
    return found


def _measure(measure: Callable[[int], dict[str, float]], size: int, send: Connection) -> None:
    torch.set_num_threads(1)
    before = memory_now()
    found = measure(size)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    send.send(found | {"bytes": max(1.0, peak - before)})


def memory_now() -> float:
    """Bytes that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


# Training


def training_step(lengths: np.ndarray, layers: int | None = None, width: int | None = None) -> dict[str, float]:
    """Seconds and useful FLOPs of a step over a flat batch of documents of these lengths."""
    from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
    from rexbert_hf.training import FlopCounter, StableAdamW, parameter_groups
    from rexbert_hf.training.cpu import tune_cpu
    from rexbert_hf.training.flops import visible_pairs

    tune_cpu()
    torch.manual_seed(0)
    shape: dict[str, Any] = {"vocab_size": VOCABULARY, "max_position_embeddings": 8_192}
    shape |= {f"{name}_token_id": number for number, name in enumerate(("pad", "cls", "bos", "sep", "eos", "mask"))}
    if layers is not None and width is not None:
        shape |= {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": 3 * width // 2}
        shape |= {"num_attention_heads": width // 64}
    model = RexBertForMaskedLM(RexBertConfig.from_size("micro", **shape)).train()
    optimizer = StableAdamW(parameter_groups(model, 1e-5), lr=1e-4)
    tokens = int(lengths.sum())
    ids = torch.randint(5, VOCABULARY, (1, tokens))
    labels = torch.where(torch.rand(1, tokens) < MASK, ids, -100)
    borders = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    places = torch.from_numpy(np.concatenate([np.arange(length) for length in lengths]))[None]
    batch = {"input_ids": ids, "labels": labels, "position_ids": places, "cu_seq_lens_q": borders}
    batch |= {"cu_seq_lens_k": borders, "max_length_q": int(lengths.max()), "max_length_k": int(lengths.max())}
    seconds = []
    for _ in range(4):
        start = time.process_time()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        seconds.append(time.process_time() - start)
    flops = FlopCounter.from_config(model.config)
    pairs = visible_pairs(lengths), visible_pairs(lengths, flops.window)
    useful = float(flops.step(tokens, *pairs, int((labels != -100).sum())))
    step = statistics.median(seconds[1:])
    return {"seconds": step, "flops": useful, "tokens_per_second": tokens / step}


def by_length(length: int) -> dict[str, float]:
    """A step of constant tokens over documents of one length."""
    return training_step(np.full(max(1, BATCH_TOKENS // length), length))


def by_batch(tokens: int) -> dict[str, float]:
    """A step over documents of 256 tokens; its FLOPs grow as its tokens do."""
    return training_step(np.full(tokens // 256, 256))


def by_model(number: int) -> dict[str, float]:
    """A step of one of `MODELS`, per FLOP: what grows is the FLOPs of the step."""
    return training_step(np.full(16, 128), *MODELS[number])


class ModelCurve(Curve):
    """Sizes are numbers of `MODELS`; the axis is the FLOPs of a step."""

    def axis(self) -> Sequence[float]:
        """FLOPs of the steps."""
        return [point["flops"] for point in self.points]


# Data


def by_corpus(count: int) -> dict[str, float]:
    """Tokenise so many texts to disk, plan a phase over them, and fetch batches."""
    from product_text import documents, train_tokenizer
    from rexbert_hf.data import tokenise
    from rexbert_hf.data.loader import CurriculumDataset, CurriculumSampler
    from rexbert_hf.data.order import PhaseOrder

    some, _ = documents(1_000)
    tokenizer = train_tokenizer(some, 4_096)

    def texts() -> Any:
        for number in range(count):
            yield f"{some[number % len(some)]} {number}"

    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        store = tokenise(texts(), tokenizer, folder, num_proc=1, fingerprint="x")
        tokenised = time.process_time()
        order = PhaseOrder({"s": store}, None, 1024, 65_536, 4, store.num_tokens)
        dataset = CurriculumDataset([order], {"s": store})
        for number, keys in enumerate(CurriculumSampler([order])):
            if number == 20:
                break
            dataset.__getitems__(keys)
        done = time.process_time()
    return {"seconds": tokenised - start, "plan_seconds": done - tokenised}


def by_catalogue(count: int) -> dict[str, float]:
    """Build an index of so many products, and search it."""
    from rexbert_hf.catalog import load_sample
    from rexbert_hf.retrieval.serving.index import ProductIndex

    shop = [row["title"] for row in load_sample("products", size=1_000)]
    products = [{"product_id": f"p{i}", "title": f"{shop[i % len(shop)]} {i // len(shop)}"} for i in range(count)]
    start = time.process_time()
    index = ProductIndex.build(products, "hashing", kind="hnsw")
    built = time.process_time() - start
    queries = [title.split()[0] for title in shop[:50]]
    index.search(queries[:2], 10)
    start = time.process_time()
    for query in queries:
        index.search([query], 10)
    return {"seconds": built, "search_seconds": (time.process_time() - start) / len(queries)}


def curves(quick: bool) -> list[Curve]:
    """All curves, with fewer and smaller sizes in a quick run."""
    powers = [128, 1_024, 8_192] if quick else [2**n for n in range(7, 14)]
    return [
        Curve("length", powers, by_length, {"seconds": None, "bytes": 0.0, "tokens_per_second": None},
              "tokens a document, 8,192 a step"),
        Curve("batch", [2_048, 4_096, 8_192] if quick else [2_048, 4_096, 8_192, 16_384, 32_768], by_batch,
              {"seconds": 1.0, "bytes": 1.0, "tokens_per_second": None}, "tokens a step, documents of 256"),
        ModelCurve("model", range(3 if quick else len(MODELS)), by_model,
                   {"seconds": 1.0, "bytes": 1.0, "tokens_per_second": None}, "FLOPs of a step of 2,048 tokens"),
        Curve("corpus", [1_000, 10_000] if quick else [2_000, 20_000, 200_000], by_corpus,
              {"seconds": 1.0, "plan_seconds": 1.0, "bytes": 1.0}, "documents"),
        Curve("catalogue", [500, 2_000] if quick else [1_000, 10_000, 100_000], by_catalogue,
              {"seconds": 1.1, "search_seconds": None if quick else 0.4, "bytes": 1.0}, "products"),
    ]  # fmt: skip


def plot(found: list[Curve], path: Path) -> None:
    """Draw each figure of each curve over its first point, both axes logarithmic.

    Args:
        found: measured.
        path: of the PNG.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    columns = min(3, len(found))
    rows = -(-len(found) // columns)
    figure, axes = pyplot.subplots(
        rows, columns, figsize=(4.2 * columns, 3.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for axis, curve in zip(axes.flat, found, strict=False):
        _draw(axis, curve)
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    figure.savefig(path, dpi=80)
    print(f"plot: {path}")


def _draw(axis: Any, curve: Curve) -> None:
    sizes = curve.axis()
    if curve.name == "length":  # constant tokens: their FLOPs are what can be asked
        useful = [point["flops"] / curve.points[0]["flops"] for point in curve.points]
        axis.loglog(sizes, useful, "--", color="grey", label=f"FLOPs: {curve.exponent('flops'):.2f}")
    else:
        axis.loglog(sizes, [size / sizes[0] for size in sizes], "--", color="grey", label="linear: 1")
    for name in curve.expected:
        values = [point[name] / curve.points[0][name] for point in curve.points]
        axis.loglog(sizes, values, marker="o", markersize=4, label=f"{FIGURES[name]}: {curve.exponent(name):.2f}")
    axis.set(title=curve.name, xlabel=curve.unit, ylabel="times the first point")
    if isinstance(sizes[0], int):  # a decade has one tick: too few for sizes that double
        axis.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=7)
    axis.minorticks_off()
    axis.legend(fontsize=7, title="exponents", title_fontsize=7)
    axis.grid(alpha=0.3)


def main() -> None:
    """Measure, draw, print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "fewer and smaller sizes")
    parser.add_argument("--plot", type=Path, help="draw the curves into this PNG")
    parser.add_argument("--only", nargs="+", help="curves to measure", choices=[c.name for c in curves(True)])
    args: argparse.Namespace = parser.parse_args()
    torch.set_num_threads(1)
    report.header("cost_curves")
    found = [curve for curve in curves(args.quick) if args.only is None or curve.name in args.only]
    for curve in found:
        curve.run()
    if args.plot is not None:
        plot(found, args.plot)
    report.finish([reading for curve in found for reading in curve.readings()])


if __name__ == "__main__":
    main()
