"""Encoding a catalogue: `encode_flat` on a RexBERT beside sentence-transformers' own `encode` on stock ModernBERT.

Both have the same weights and the same texts: titles, descriptions and reviews of up to 512 tokens, mixed, and titles
alone. The stock side sorts by characters and pads batches of 32 (its default; `--batch_sizes` tries others, the best
counts). Beside it stands what the RexBERT does when sentence-transformers itself encodes with it. On CPU in float32 and
one thread, on CUDA in bfloat16.

    python benchmarks/encode.py [--quick] [--size mini] [--texts 2000] [--rounds 5]
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import product_text
import report
from rexbert_hf.models import RexBertConfig, RexBertModel
from rexbert_hf.retrieval.serving.encoding import encode_flat, takes_flat_batches

VOCABULARY, MAX_TOKENS = 16_384, 512
GOAL_CPU, GOAL_GPU = 1.5, 2.0
SAME = 2e-4
"""Largest difference of any element of two vectors that are the same, in float32."""


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "160 texts")
    parser.add_argument("--size", help="of the model: mini on CPU, base on CUDA")
    parser.add_argument("--texts", type=int)
    parser.add_argument("--rounds", type=int, help="in which each way takes its turn: 5, or 1 with --quick")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data_dir", type=Path, default=product_text.DATA_DIR)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cuda = torch.cuda.is_available()
    size = args.size or ("base" if cuda else "mini")
    count = args.texts or (160 if args.quick else 20_000 if cuda else 500)
    texts, source = product_text.documents(count, args.data_dir)
    titles = [text[:80] for text in texts if text.strip()]
    report.header("encode", f"{source}, {size}, {count} texts", ("torch", "transformers", "sentence-transformers"))
    with tempfile.TemporaryDirectory() as folder:
        ours, stock = models(size, texts, Path(folder), cuda)
        goal = GOAL_GPU if cuda else GOAL_CPU
        rounds = args.rounds or (1 if args.quick else 5)
        found = measure("encode/mixed", ours, stock, texts, args.batch_sizes, rounds, goal)
        found += measure("encode/titles", ours, stock, titles, args.batch_sizes, rounds, None)
    report.finish(found)


def models(size: str, texts: list[str], folder: Path, cuda: bool) -> tuple[Any, Any]:
    """The same weights in both forms, as SentenceTransformers."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    tokenizer = product_text.train_tokenizer(texts[:4_000], VOCABULARY)
    tokenizer.model_max_length = MAX_TOKENS
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    ids |= {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    torch.manual_seed(0)
    config = RexBertConfig.from_size(size, vocab_size=VOCABULARY, **ids)
    model = RexBertModel(config).eval()
    model.save_pretrained(folder / "rexbert")
    model.save_modernbert(folder / "modernbert")
    result = []
    for name in ("rexbert", "modernbert"):
        tokenizer.save_pretrained(folder / name)
        kwargs = {"dtype": torch.bfloat16} if cuda else {}
        encoder = Transformer(str(folder / name), max_seq_length=MAX_TOKENS, model_kwargs=kwargs)
        modules = [encoder, Pooling(encoder.get_embedding_dimension(), "mean"), Normalize()]
        result.append(SentenceTransformer(modules=modules, device="cuda" if cuda else "cpu"))
    assert takes_flat_batches(result[0])
    return result[0], result[1]


def measure(
    name: str, ours: Any, stock: Any, texts: list[str], batch_sizes: list[int], rounds: int, goal: float | None
) -> list[report.Reading]:
    """Texts a second: medians of rounds in which all take their turn; the vectors of all are compared."""
    ways: dict[str, Callable[[list[str]], np.ndarray]] = {
        "encode_flat": lambda texts: encode_flat(ours, texts),
        "encode": lambda texts: ours.encode(texts, show_progress_bar=False),
    }
    peers = [f"stock, batches of {size}" for size in batch_sizes]
    for peer, size in zip(peers, batch_sizes, strict=True):
        ways[peer] = lambda texts, size=size: stock.encode(texts, batch_size=size, show_progress_bar=False)
    for way in ways.values():
        way(texts[:32])
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    vectors: dict[str, np.ndarray] = {}
    for number in range(rounds):
        for way in sorted(ways, reverse=number % 2 > 0):
            start = time.perf_counter()
            vectors[way] = ways[way](texts)
            seconds[way].append(time.perf_counter() - start)
    for way, found in vectors.items():
        far = float(np.abs(found - vectors["encode_flat"]).max())
        if ours.device.type == "cpu" and far > SAME:
            raise RuntimeError(f"{name}: the vectors of {way} differ by {far:.2g}: nothing was measured")
        passes = ", ".join(f"{len(texts) / one:.1f}" for one in seconds[way])
        print(f"{name}: {way}: {passes} texts/s; largest difference {far:.2g}")
    speed = {way: len(texts) / statistics.median(found) for way, found in seconds.items()}
    best = max(speed[peer] for peer in peers)
    return [
        report.Reading(name, speed["encode_flat"], best, goal, "texts/s"),
        report.Reading(f"{name}/through encode", speed["encode"], best, None, "texts/s"),
    ]


if __name__ == "__main__":
    main()
