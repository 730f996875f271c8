"""A tiny catalogue and a tiny bi-encoder that the tests of search training share."""

from __future__ import annotations

import numpy as np
import torch

from rexbert_hf.metrics import Judgements
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.search_data import SearchData, text_groups

TEXTS = ["red mug", "Red  Mug", "blue plate", "green lamp shade", "steel pot with lid", "oak desk"]
QUERIES = ["mug", "plate", "lamp", "pot"]


def tiny_data(splits=(0, 0, 0, 0)):
    """Products 0 and 1 are one group; query 0 is judged for 0 (1.0) and 2 (0.0), query i > 0 for product i + 1."""
    judged = Judgements.from_pairs([0, 0, 1, 2, 3], [0, 2, 2, 3, 4], [1.0, 0.0, 1.0, 1.0, 1.0], 4)
    ids = [f"P{i}" for i in range(len(TEXTS))]
    return SearchData(ids, TEXTS, text_groups(TEXTS), QUERIES, np.array(splits, dtype=np.int8), judged, 1.0)


def tiny_model(seed=0, **settings):
    torch.manual_seed(seed)
    return load_biencoder(BiEncoderSettings(**{"vocab_size": 384, "max_tokens": 16, **settings}), TEXTS + QUERIES)


def features_of(model, *columns):
    tasks = ["query", *["document"] * (len(columns) - 1)]
    return [{**model.preprocess(texts, task=t), "task": t} for texts, t in zip(columns, tasks, strict=True)]


def stock_encoder(kind, folder, tokenizer):
    """A folder of two layers as transformers has them: "bert" (MiniLM's kind) or "xlm-roberta"."""
    from transformers import AutoConfig, AutoModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    pad = tokenizer.pad_token_id
    # XLM-R counts positions from behind the padding's id on, and has one type of tokens only.
    places = {"max_position_embeddings": 64} if kind == "bert" else {"max_position_embeddings": 65 + pad}
    types = {} if kind == "bert" else {"type_vocab_size": 1}
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=pad, initializer_range=0.4, **sizes, **places, **types
    )
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
