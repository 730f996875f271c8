"""A training step of a stock bi-encoder on CPU: as `retrieval/training/cpu_training.py` prepares it, and as it comes.

MiniLM on queries and titles of the sample shop, in-batch softmax, blocks of similar length, bfloat16 autocast, AdamW.
Both take turns, step by step. The peer has stock dropout, dense gradients of embeddings and attention in bfloat16.

    python benchmarks/finetune_step.py [--quick]
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

import report
from rexbert_hf.catalog import load_sample
from rexbert_hf.retrieval.training.biencoder import MINILM, BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.cpu_training import prepare_for_cpu
from rexbert_hf.retrieval.training.embedding_blocks import embed
from rexbert_hf.training.cpu import tune_cpu

ROWS, BLOCK, SCALE = 512, 128, 20.0


class Contender:
    """A model, its optimizer, and the batch that it steps on.

    Args:
        rows: of the batch.
        prepared: whether `prepare_for_cpu` changes it.
    """

    def __init__(self, rows: int, prepared: bool) -> None:
        self.model = load_biencoder(BiEncoderSettings(base=MINILM, max_tokens=40, attention_dropout=0.0, dropout=0.1))
        if prepared:
            prepare_for_cpu(self.model, bf16=True)
        self.model.train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-5)
        pairs = load_sample("query_products", size=rows)
        titles = {row["product_id"]: row["title"] for row in load_sample("products", size=rows)}
        texts = [(row["query"], titles[row["product_id"]]) for row in pairs if row["product_id"] in titles][:rows]
        self.columns: list[Any] = [self.model.preprocess(list(column)) for column in zip(*texts, strict=True)]
        self.rows = len(texts)

    def step(self) -> None:
        """One step."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            queries, products = (embed(self.model, column, BLOCK) for column in self.columns)
            loss = cross_entropy(SCALE * queries @ products.T, torch.arange(self.rows))
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    args = report.parser(__doc__, "a quarter of the rows, three steps").parse_args()
    tune_cpu()
    rows, steps = (ROWS // 4, 3) if args.quick else (ROWS, 9)
    ours, stock = Contender(rows, prepared=True), Contender(rows, prepared=False)
    report.header("finetune_step", f"MiniLM, {ours.rows} rows", ("torch", "transformers", "sentence-transformers"))
    mine, theirs = report.in_turns([ours.step, stock.step], steps)
    name = "finetune_step/minilm"
    report.finish([report.Reading(name, mine, theirs, None, "seconds", lower=True)])


if __name__ == "__main__":
    main()
