"""Train a byte-level BPE tokenizer on product text, in one language or many, and say what it costs by language.

python recipes/train_tokenizer.py [recipes/configs/tokenizer_sample.yaml] [--vocab_size 50368 ...]
python recipes/train_tokenizer.py recipes/configs/tokenizer_multilingual.yaml [--path xlm-roberta-base]

The words of frequent brands and product types become single tokens; held-out text is never trained on. With `--path` a
tokenizer of the Hub, or a folder, is measured and saved in place of a trained one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rexbert_hf.pretraining.tokenizer_run import TokenizerRun, make_tokenizer
from rexbert_hf.settings import parse_args, run_recipe, start_logging

DEFAULT = Path(__file__).parent / "configs" / "tokenizer_sample.yaml"


def main() -> None:
    """Parse, make, print."""
    start_logging()
    run = parse_args(TokenizerRun, default_config=DEFAULT)
    results = make_tokenizer(run)
    report(results)
    print(f"saved to {run.output_dir}")


def report(results: dict[str, Any]) -> None:
    """Print what was measured."""
    documents, held_out = results["train_documents"], results["held_out_documents"]
    print(f"{documents:,} texts to train on, {held_out:,} held out", end="; ")
    print(f"{results['brands']} brands, {results['types']} types")
    print(f"vocabulary: {results['vocab_size']:,} entries")
    print(
        f"bytes per token, held out: {results['bytes_per_token']:.3f} (plain: {results['bytes_per_token_plain']:.3f})"
    )
    print("language  tokens/character  tokens/word  bytes/token  unknown  documents")
    for code, found in results["languages"].items():
        words = "-" if found["tokens_per_word"] is None else f"{found['tokens_per_word']:.3f}"
        print(f"{code:8}  {found['tokens_per_character']:16.3f}  {words:>11}", end="")
        print(f"  {found['bytes_per_token']:11.3f}  {found['unknown_share']:7.2%}  {found['train_documents']:9,}")


if __name__ == "__main__":
    run_recipe(main)
