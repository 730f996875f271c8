"""Draw which words of two products attend to each other, as in E-BERT's figure 8.

    python recipes/plot_attention.py MODEL ["first product" "second product"] [--plot attention.png] [--normalize true]

MODEL is any encoder or masked-LM checkpoint, a folder or a Hub id. Without texts: two products of the sample shop that
are bought together. Each row shows from which words of the other product a word is rebuilt (per cent: the strongest).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from rexbert_hf.catalog import load_sample
from rexbert_hf.hub import resolve
from rexbert_hf.hub.heat_map import HeatMap, heat_maps
from rexbert_hf.hub.loading import loading
from rexbert_hf.hub.redaction import RedactedParser
from rexbert_hf.objectives.cross_attention import cross_attention
from rexbert_hf.settings import SettingsError, run_recipe


def sample_pair() -> list[str]:
    """Titles of two products of the sample shop that are bought together."""
    titles = dict(zip(*(load_sample("products")[name] for name in ("product_id", "title")), strict=True))
    row = next(row for row in load_sample("associations") if row["kind"] == "also_buy")
    return [titles[row["product_a"]], titles[row["product_b"]]]


def main() -> None:
    """Parse, encode, draw, print."""
    parser = RedactedParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a checkpoint: folder or Hub id")
    parser.add_argument("texts", nargs="*", help="two product texts")
    parser.add_argument("--plot", type=Path, default=Path("attention.png"), help="the PNG to write")
    parser.add_argument(
        "--normalize", choices=("true", "false"), help="divide scores by the root of the width (default: as trained)"
    )
    options = parser.parse_args()
    if len(options.texts) not in (0, 2):
        raise SettingsError(f"give two product texts or none; got {len(options.texts)}")
    disable_progress_bar()
    folder = resolve(options.model)
    with loading("masked language model", options.model):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        model = AutoModelForMaskedLM.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False)
    normalize = None if options.normalize is None else options.normalize == "true"
    found = cross_attention(model, tokenizer, *(options.texts or sample_pair()), normalize=normalize)
    panels = [
        HeatMap(found.alpha, found.left, found.right, "first product rebuilt from the second"),
        HeatMap(found.beta, found.right, found.left, "second product rebuilt from the first"),
    ]
    target = heat_maps(panels, options.plot)
    for left, right, weight in found.pairs(8):
        print(f"{left} - {right}: {weight:.2f}")
    print(target)


if __name__ == "__main__":
    run_recipe(main)
