"""Text to tokens to packed flat batches: tokenise once, then read any batch of any step in O(1).

store = tokenise(dataset, tokenizer, "cache")              # Arrow folder, memory-mapped
order = PhaseOrder({"shop": store}, {"shop": 1.0}, seq_length=1024, batch_tokens=65536, micro_batches=4,
                   max_tokens=1e9, seed=0)                  # which pieces are in micro-batch i of step s
loader = DataLoader(CurriculumDataset([order], {"shop": store}), batch_sampler=CurriculumSampler([order]),
                    collate_fn=collator, num_workers=2)
"""

from __future__ import annotations

from rexbert_hf.data.loader import CurriculumDataset, CurriculumSampler
from rexbert_hf.data.mixture import Mixture
from rexbert_hf.data.order import Draw, PhaseOrder, source_tokens
from rexbert_hf.data.pack import PackingReport, pack
from rexbert_hf.data.rows import SPAN_KINDS, RowBatch, offsets_of
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.data.tokenise import tokenise

__all__ = [
    "SPAN_KINDS",
    "CurriculumDataset",
    "CurriculumSampler",
    "Draw",
    "Mixture",
    "PackingReport",
    "PhaseOrder",
    "RowBatch",
    "TokenisedDataset",
    "offsets_of",
    "pack",
    "source_tokens",
    "tokenise",
]
