"""The pulling side of the round trip: a process with stock libraries only. Argument: the folder for what was found."""

from __future__ import annotations

import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import get_dataset_config_names, load_dataset
from huggingface_hub import ModelCard, snapshot_download
from sentence_transformers import SentenceTransformer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

TEXTS = ["wireless headphones", "usb c cable", "red shoe"]


def pull_models() -> dict[str, Any]:
    """Every way into our repository, and stock models and encoders."""
    found: dict[str, Any] = {}
    code = {"trust_remote_code": True}
    batch = AutoTokenizer.from_pretrained("tester/rex")(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        masked = AutoModelForMaskedLM.from_pretrained("tester/rex", **code).eval()
        found["logits"] = masked(**batch).logits
        found["tagged_logits"] = AutoModelForMaskedLM.from_pretrained("tester/rex", revision="v1", **code)(
            **batch
        ).logits
        found["hidden"] = AutoModel.from_pretrained("tester/rex", **code).eval()(**batch).last_hidden_state
        classifier = AutoModelForSequenceClassification.from_pretrained("tester/rex", num_labels=3, **code).eval()
        found["classifier_hidden"] = classifier.base_model(**batch).last_hidden_state
        found["scores"] = classifier(**batch).logits
        pretraining = AutoModelForPreTraining.from_pretrained("tester/rex", **code).eval()
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        found["loss"] = pretraining(**batch, labels=labels, triplets=torch.tensor([[0, 1, 2]])).loss
        stock_form = AutoModelForMaskedLM.from_pretrained("tester/rex", subfolder="modernbert")
        assert type(stock_form).__module__.startswith("transformers.models.modernbert"), type(stock_form)
        found["stock_form_logits"] = stock_form(**batch).logits
        cut = AutoModel.from_pretrained("tester/cut", **code).eval()
        assert (cut.config.num_hidden_layers, cut.config.truncate_dim) == (2, 8), cut.config
        found["cut_hidden"] = cut(**batch).last_hidden_state
        stock = AutoModelForMaskedLM.from_pretrained("tester/stock")
        tokenizer = AutoTokenizer.from_pretrained("tester/stock")
        found["stock_logits"] = stock(**tokenizer(TEXTS, padding=True, return_tensors="pt")).logits
    assert "rexbert_hf" not in sys.modules
    assert "transformers_modules" in type(masked).__module__, type(masked)
    found["vectors"] = SentenceTransformer("tester/encoder", device="cpu").encode(TEXTS)
    found["cut_vectors"] = SentenceTransformer("tester/cut", device="cpu", **code).encode(TEXTS)
    return {name: np.asarray(value) for name, value in found.items()}


def pull_data() -> dict[str, Any]:
    """The datasets, from disk and streamed."""
    rows = load_dataset("tester/rows", split="train")
    stream = load_dataset("tester/rows", split="train", streaming=True)
    return {
        "rows": rows.to_dict(),
        "columns": {name: str(feature.dtype) for name, feature in rows.features.items()},
        "stream": [row["text"] for row in stream],
        "small": load_dataset("tester/rows", "small", split="test").num_rows,
        "streamed": load_dataset("tester/streamed", split="train")["x"][:],
        "configs": sorted(get_dataset_config_names("tester/shop")),
        "hobby": load_dataset("tester/shop", "hobby", split="train").num_rows,
        "news": [row["label"] for row in load_dataset("tester/shop", "news", split="train", streaming=True)],
    }


def run_the_card() -> list[str]:
    """Paste every block of the card that needs this repository alone; returns what they printed."""
    folder = Path(snapshot_download("tester/rex"))
    card = ModelCard.load(folder / "README.md")
    said = []
    for block in re.findall(r"```python\n(.*?)```", card.text, re.DOTALL):
        if "onnx_encoder" in block:  # in the folder of an export: tests/retrieval/test_onnx_export.py
            continue
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(block, {"__name__": "card"})
        said.append(out.getvalue())
    return said


def main(work: Path) -> None:
    """Pull it all."""
    np.savez(work / "found.npz", **pull_models())
    report = {"data": pull_data(), "card": run_the_card()}
    (work / "found.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
