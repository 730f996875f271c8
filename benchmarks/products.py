"""Linear layers in float32 on CPU: ours beside `torch.nn.functional.linear`, alone and in an encoder that is not ours.

    python benchmarks/products.py [--quick]

Products of RexBERT's sizes at several numbers of rows (tokens), forward and with both gradients, the two ways in turns;
through a part of a weight; then an encoder of MiniLM's shape, stock and after `use_onednn`. Where torch's own is
taken (Zen 4, Intel's processors, no AVX-512) both ways are the same, and the ratios are 1. Products of fewer rows than
`FEWEST_ROWS` are always torch's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from transformers import BertConfig, BertModel

import report
from rexbert_hf.models import SIZES, use_onednn
from rexbert_hf.models.products_rexbert import FEWEST_ROWS, linear, prefers_onednn

ROWS = (FEWEST_ROWS, 512, 8192)
GOAL = 0.9
"""Nothing may get slower, but for what two cores' readings differ by."""
GOAL_ONEDNN = 1.5
"""Of many rows, where the other library is taken."""
ENCODER = BertConfig(
    vocab_size=30_522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
)


def products(size: str, rows: int, repeats: int) -> list[report.Reading]:
    """Both ways through the two layers of a gated unit, a forward pass and a step."""
    shape = SIZES[size]
    width, half = shape["hidden_size"], shape["intermediate_size"]
    torch.manual_seed(0)
    x = torch.randn(rows, width, requires_grad=True)
    wide, narrow = (torch.randn(*one, requires_grad=True) for one in ((2 * half, width), (width, half)))

    def forward(multiply: Callable[..., torch.Tensor]) -> None:
        with torch.inference_mode():
            multiply(multiply(x, wide)[:, :half].contiguous(), narrow)

    def step(multiply: Callable[..., torch.Tensor]) -> None:
        multiply(multiply(x, wide)[:, :half].contiguous(), narrow).sum().backward()
        x.grad = wide.grad = narrow.grad = None

    found = []
    for name, run in (("forward", forward), ("step", step)):
        ours, peer = report.in_turns([lambda run=run: run(linear), lambda run=run: run(F.linear)], repeats)
        goal = GOAL_ONEDNN if prefers_onednn() and rows > FEWEST_ROWS else GOAL
        found.append(report.Reading(f"products/{size}/{rows} rows/{name}", 1 / ours, 1 / peer, goal, "a second"))
    return found


def part(size: str, rows: int, repeats: int) -> report.Reading:
    """Both ways through a part of the vocabulary's weight, as a grid of sizes has it: half the columns, with gaps."""
    width = SIZES[size]["hidden_size"] // 2
    torch.manual_seed(0)
    x, weight = torch.randn(rows, width), torch.randn(4096, 2 * width)[:, :width]

    def forward(multiply: Callable[..., torch.Tensor]) -> None:
        with torch.inference_mode():
            multiply(x, weight)

    ours, peer = report.in_turns([lambda: forward(linear), lambda: forward(F.linear)], repeats)
    goal = GOAL_ONEDNN if prefers_onednn() else GOAL
    return report.Reading(f"products/{size}/{rows} rows/a part's columns", 1 / ours, 1 / peer, goal, "a second")


def encoder(repeats: int) -> list[report.Reading]:
    """An encoder of MiniLM's shape over 32 texts of 32 tokens, forward and a step, stock and changed."""
    torch.manual_seed(0)
    stock = BertModel(ENCODER).eval()
    changed = copy.deepcopy(stock)
    print(f"{use_onednn(changed)} linear layers of the encoder were changed")
    ids = torch.randint(0, ENCODER.vocab_size, (32, 32))

    def forward(model: torch.nn.Module) -> None:
        with torch.inference_mode():
            model(ids)

    def step(model: torch.nn.Module) -> None:
        model(ids).last_hidden_state.sum().backward()
        model.zero_grad()

    found = []
    for name, run in (("forward", forward), ("step", step)):
        ours, peer = report.in_turns([lambda run=run: run(changed), lambda run=run: run(stock)], repeats)
        reading = report.Reading(f"products/encoder of MiniLM's shape/{name}", 1 / ours, 1 / peer, GOAL, "a second")
        found.append(reading)
    return found


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "five repeats instead of fifteen").parse_args()
    report.header("products")
    print("oneDNN" if prefers_onednn() else "torch's own choice", "multiplies float32 here")
    repeats = 5 if args.quick else 15
    readings = [one for size in ("micro", "base") for rows in ROWS for one in products(size, rows, repeats)]
    readings += [part(size, ROWS[-1], repeats) for size in ("micro", "base")]
    report.finish(readings + encoder(repeats))


if __name__ == "__main__":
    main()
