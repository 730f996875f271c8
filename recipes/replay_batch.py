"""Compute the loss of a stopped step again, and show which document, or which row of search training, is at fault.

    python recipes/replay_batch.py OUTPUT_DIR/nonfinite-step-12-rank-0.safetensors [--model FOLDER] [--documents 5]
    python recipes/replay_batch.py OUTPUT_DIR/nonfinite-step-12-rank-0.parquet

A run that stops on a loss that is no number, or on a spike (`trainer.spike_factor`), names the file. It holds no
pickle, and the weights beside it are safetensors: opening them runs no code. Without the weights of the step the last
checkpoint is taken.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from rexbert_hf.hub.redaction import RedactedParser
from rexbert_hf.settings import run_recipe
from rexbert_hf.training.cpu import tune_cpu
from rexbert_hf.training.replay import DocumentLoss, Replay, load_model, replay, token_losses

SHOWN_TOKENS = 6
SHOWN_CHARACTERS = 300


def main() -> None:
    """Parse, compute, print."""
    parser = RedactedParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("batch", type=Path, help="the file that the run named when it stopped")
    parser.add_argument("--model", type=Path, help="weights (default: those of the step, or the last checkpoint)")
    parser.add_argument("--documents", type=int, default=5, help="documents or rows to show")
    parser.add_argument("--device", type=usable_device, default="cpu", help="as torch names it (default: cpu)")
    options = parser.parse_args()
    disable_progress_bar()
    tune_cpu()
    if options.batch.suffix == ".parquet":
        rows(options)
    else:
        documents(options)


def usable_device(name: str) -> str:
    """A device that torch can put a tensor on."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise argparse.ArgumentTypeError(f"'{name}' cannot be used ({reason}): choose cpu, or cuda on a GPU") from error
    return name


def documents(options: argparse.Namespace) -> None:
    """A step of pre-training."""
    found = replay(options.batch, options.model, options.device)
    report(found)
    model = load_model(found.weights).to(options.device).eval()
    try:
        tokenizer = AutoTokenizer.from_pretrained(found.weights, trust_remote_code=False)
    except Exception:  # of many kinds; it only makes ids readable
        tokenizer = None
    for document in found.documents[: options.documents]:
        show(document, tokenizer, model, options.device)
    print(found.verdict())


def rows(options: argparse.Namespace) -> None:
    """A step of search training."""
    from rexbert_hf.retrieval.training.faulty_rows import replay_rows

    found = replay_rows(options.batch, options.model, options.device)
    step = found.step
    print(f"step {step.step + 1}: the run stopped on a {step.what} of {step.value:.6g}")
    print(f"weights: {found.weights} ({'the step began with' if found.exact else 'of another step'})")
    for row in found.rows[: options.documents]:
        scores = ", ".join(f"{score:.4g}" for score in row.scores)
        print(f"\nrow {row.number}, label {row.label}: score {scores}; gradient norm {row.gradient_norm:.4g}")
        for name, text in row.texts.items():
            print(f"  {name}: {text[:SHOWN_CHARACTERS]!r}")
    print(found.verdict())


def report(found: Replay) -> None:
    """Print the step and its loss, then and now."""
    step = found.step
    print(f"step {step.step + 1}, phase '{step.phase}': the run stopped on a {step.what} of {step.value:.6g}")
    kind = "the step began with" if found.exact else "of an earlier step: the loss is not the run's"
    print(f"weights: {found.weights} ({kind})")
    if found.missing_ranks:
        ranks = ", ".join(map(str, found.missing_ranks))
        print(f"no file of rank {ranks}: the loss is a part of the step's")
    parts = ", ".join(f"{name} {value:.6g}" for name, value in found.parts.items())
    print(f"loss now {found.loss:.6g} ({parts}), then {step.loss:.6g}; gradient norm now {found.gradient_norm:.6g}")


def show(document: DocumentLoss, tokenizer: PreTrainedTokenizerBase | None, model: object, device: str) -> None:
    """Print a document with the labels that cost most."""
    labels = document.labels[document.labels != -100]
    head = f"\nmicro-batch {document.micro}, document {document.number} ({document.mode}): "
    print(f"{head}loss {document.mean:.4g} a token, {len(labels)} of {len(document.input_ids)} tokens masked")
    if tokenizer is not None:
        print(f"  {tokenizer.decode(document.input_ids)[:SHOWN_CHARACTERS]}")
    losses = token_losses(model, document, device)  # type: ignore[arg-type]
    order = sorted(range(len(labels)), key=lambda i: -losses[i] if math.isfinite(losses[i]) else -math.inf)
    words = [
        f"{tokenizer.decode([int(labels[i])]).strip() if tokenizer else int(labels[i])!r} {losses[i]:.2f}"
        for i in order[:SHOWN_TOKENS]
    ]
    print(f"  worst labels: {', '.join(words)}")


if __name__ == "__main__":
    run_recipe(main)
