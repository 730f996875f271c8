"""A run with neighbour product reconstruction, small enough for tests. Also run as a script."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from training_cases import SPECIAL, WORDS, make_model, make_store, make_tokenizer, weights_of

from rexbert_hf.data.loader import CurriculumDataset
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.models.modeling_rexbert import RexBertForPreTraining
from rexbert_hf.objectives import AssociationGraph, ContentGraph
from rexbert_hf.settings import run_recipe
from rexbert_hf.training import (
    Curriculum,
    CurriculumArguments,
    CurriculumTrainer,
    MaskingConfig,
    NeighborConfig,
    NeighborDataset,
    Phase,
    resolve,
)

FAMILIES, MEMBERS = 8, 9


def make_shop() -> TokenisedDataset:
    """Products of eight families; the words of a product are mostly those of its family."""
    rng = np.random.default_rng(5)
    rows = []
    for i in range(FAMILIES * MEMBERS):
        words = len(SPECIAL) + 6 * (i % FAMILIES) + rng.integers(0, 6, rng.integers(4, 12))
        body = np.where(rng.random(len(words)) < 0.8, words, rng.integers(len(SPECIAL), WORDS, len(words)))
        word_ids = np.concatenate([[-1], np.arange(len(body)), [-1]])
        rows.append({"input_ids": np.concatenate([[1], body, [2]]).astype(np.int32), "word_ids": word_ids})
    return TokenisedDataset.from_rows(rows)


def make_contents() -> ContentGraph:
    """Products of a family are neighbours; the last family has none."""
    rng = np.random.default_rng(6)
    pairs = [
        (f"p{i}", f"p{j}")
        for i in range(FAMILIES * MEMBERS)
        for j in range(i)
        if i % FAMILIES == j % FAMILIES != FAMILIES - 1 and rng.random() < 0.5
    ]
    graph = AssociationGraph.from_pairs(pairs, [f"p{i}" for i in range(FAMILIES * MEMBERS)])
    return ContentGraph.build(graph, {"shop": {f"p{i}": i for i in range(FAMILIES * MEMBERS)}})


def make_phases(
    steps: int = 6, micro_batch_tokens: int = 256, kind: str = "mlm", first: bool = True, **neighbors
) -> Curriculum:
    size = 768
    options = {"seq_length": 32, "batch_tokens": size, "learning_rate": 3e-3}
    masking = MaskingConfig("ahm", 0.15, options={"initial_steps": 2}) if kind == "ahm" else MaskingConfig()
    plain = Phase("plain", {"general": 1.0}, max_tokens=2 * size, **options)
    joint = Phase(
        "joint",
        {"general": 0.3, "shop": 0.7},
        max_tokens=steps * size,
        objectives=[kind, "npr"],
        masking=masking,
        neighbors=NeighborConfig(**{"normalize": True, **neighbors}),
        **options,
    )
    return Curriculum([plain, joint] if first else [joint], seed=3, micro_batch_tokens=micro_batch_tokens)


def make_pretraining_model(dropout: float = 0.1) -> RexBertForPreTraining:
    plain = make_model(dropout)
    model = RexBertForPreTraining(plain.config)
    model.load_state_dict(plain.state_dict())
    return model


def make_neighbor_trainer(output_dir, curriculum=None, model=None, dataset=None, **arguments) -> CurriculumTrainer:
    options = {"use_cpu": True, "disable_tqdm": True, "measure_mfu": False, "logging_steps": 1, "save_steps": 4}
    args = CurriculumArguments(output_dir=str(output_dir), **{**options, **arguments})
    stores = {"general": make_store(0, documents=40), "shop": make_shop()}
    plan = resolve(curriculum or make_phases(), stores, world_size=args.world_size)
    data = NeighborDataset(plan, stores, make_contents()) if dataset is None else CurriculumDataset(plan.orders, stores)
    model = make_pretraining_model() if model is None else model
    return CurriculumTrainer(model, args, plan, data, make_tokenizer())


def main(output_dir: str, options: str) -> None:
    """`python neighbor_cases.py OUTPUT '{"steps": 3, ...}'` trains and leaves `final.pt` in OUTPUT."""
    torch.set_num_threads(1)
    chosen = json.loads(options)
    curriculum = make_phases(**{name: chosen.pop(name) for name in ("steps", "contents", "kind") if name in chosen})
    trainer = make_neighbor_trainer(output_dir, curriculum, **chosen)
    trainer.train()
    if trainer.args.process_index == 0:
        keys = ("loss", "loss_npr", "loss_mlm", "grad_norm", "triplets")
        logs = {key: [entry[key] for entry in trainer.state.log_history if key in entry] for key in keys}
        torch.save({"weights": weights_of(trainer.model), **logs}, Path(output_dir) / "final.pt")


if __name__ == "__main__":
    run_recipe(lambda: main(*sys.argv[1:]))
