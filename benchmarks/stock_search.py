"""MiniLM fine-tuned on Home Depot the stock way: what a user of sentence-transformers alone would run."""

from __future__ import annotations

import tempfile
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.training_args import BatchSamplers

from rexbert_hf.retrieval.training.search_data import TRAIN, SearchData

BATCH, EPOCHS = 128, 1


def train_stock(data: SearchData, base: Path, folder: Path) -> None:
    """Multiple negatives ranking over the relevant pairs of the training queries, with the trainer's own defaults.

    Args:
        data: queries, products and grades.
        base: the model that it starts from.
        folder: where the result goes.
    """
    queries, products, grades = data.pairs(data.of(TRAIN))
    kept = grades >= data.relevant
    rows = {
        "anchor": [data.queries[i] for i in queries[kept]],
        "positive": [data.texts[i] for i in products[kept]],
    }
    model = SentenceTransformer(str(base), device="cpu")
    with tempfile.TemporaryDirectory() as scratch:
        args = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            batch_sampler=BatchSamplers.NO_DUPLICATES,
            warmup_steps=0.1,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        loss = MultipleNegativesRankingLoss(model)
        SentenceTransformerTrainer(model, args, train_dataset=Dataset.from_dict(rows), loss=loss).train()
    model.save_pretrained(str(folder), create_model_card=False)
