"""The pushing side of the round trip: everything that this package and its neighbours push, to HF_ENDPOINT.

Arguments: the folder of a finished stock run, a folder for our own run and for what the pulling side must find.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, Features, IterableDataset, Value
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModelForMaskedLM, AutoTokenizer

from rexbert_hf import RexBertConfig, RexBertForMaskedLM, RexBertForPreTraining, RexBertModel
from rexbert_hf.hub import loss_plot, push_dataset, push_run, render_dataset_card, write_card, write_run

TEXTS = ["wireless headphones", "usb c cable", "red shoe"]


def make_run(tokenizer_from: Path, folder: Path) -> dict[str, np.ndarray]:
    """A finished run with tiny RexBERT weights; returns what the model says."""
    torch.manual_seed(1)
    special = {"pad_token_id": 0, "cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 4, "num_attention_heads": 2}
    model = RexBertForMaskedLM(RexBertConfig(vocab_size=64, **shape, **special)).eval()
    for parameter in model.parameters():  # the initial values are so small that every logit is alike
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    model.save_modernbert(folder / "modernbert")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    tokenizer.save_pretrained(folder)
    phases = [{"name": "general", "tokens": 100, "steps": 10, "masked_accuracy_after": 0.5}]
    write_run(folder, config={"model": {"size": "tiny"}}, results={"phases": phases})
    loss_plot([{"step": i, "loss": 3 - 0.1 * i} for i in range(1, 11)], folder / "loss.png", phases)
    write_card(folder, license="apache-2.0")
    (folder / "checkpoint-10").mkdir()
    (folder / "checkpoint-10" / "optimizer.pt").write_text("never")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    pretraining = RexBertForPreTraining.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**batch).logits
        hidden = model.model(**batch).last_hidden_state
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = pretraining(**batch, labels=labels, triplets=torch.tensor([[0, 1, 2]])).loss
    return {"logits": logits.numpy(), "hidden": hidden.numpy(), "loss": loss.numpy()}


def push_cut(folder: Path) -> dict[str, np.ndarray]:
    """Push the first two layers and eight dimensions of our run; returns what they say."""
    cut = RexBertModel.from_pretrained(folder, num_hidden_layers=2, truncate_dim=8).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    cut.save_pretrained(folder.parent / "cut", push_to_hub=True, repo_id="tester/cut")
    tokenizer.push_to_hub("tester/cut")
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    with torch.no_grad():
        hidden = cut(**batch).last_hidden_state
    vectors = (hidden * mask).sum(1) / mask.sum(1)
    return {"cut_hidden": hidden.numpy(), "cut_vectors": vectors[:, :8].numpy()}


def main(stock_run: Path, work: Path) -> None:
    """Push it all."""
    expected = make_run(stock_run, work / "rex")
    url = push_run(work / "rex", "tester/rex", tag="v1")
    assert url == os.environ["HF_ENDPOINT"] + "/tester/rex", url
    expected |= push_cut(work / "rex")

    stock = AutoModelForMaskedLM.from_pretrained(stock_run)
    tokenizer = AutoTokenizer.from_pretrained(stock_run)
    stock.push_to_hub("tester/stock")
    tokenizer.push_to_hub("tester/stock")
    with torch.no_grad():
        batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
        expected["stock_logits"] = stock(**batch).logits.numpy()

    rows = Dataset.from_dict({"text": [f"text {i}" for i in range(10)], "label": list(range(10))})
    rows.push_to_hub("tester/rows")
    rows.select(range(3)).push_to_hub("tester/rows", "small", split="test")
    features = Features({"x": Value("int64")})  # datasets 5.0 does not find them out by itself
    IterableDataset.from_generator(lambda: ({"x": i} for i in range(4)), features).push_to_hub("tester/streamed")
    card = render_dataset_card(repo_id="tester/shop", license="odc-by", configs=[{"name": "hobby", "rows": 10}])
    push_dataset(rows, "tester/shop", "hobby", card=card)
    push_dataset(rows.select(range(2)), "tester/shop", "news", card=card)

    transformer = Transformer(str(stock_run))
    encoder = SentenceTransformer(modules=[transformer, Pooling(16)], device="cpu")
    encoder.push_to_hub("tester/encoder")
    expected["vectors"] = encoder.encode(TEXTS)
    np.savez(work / "expected.npz", **expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
