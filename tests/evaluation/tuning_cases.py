"""Tiny encoders that can learn, and rows to learn from, shared by the tests of fine-tuned tasks."""

from __future__ import annotations

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from rexbert_hf import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.fine_tuning_rows import Row

COLOURS = ["red", "blue", "green", "white"]
THINGS = {"mug": "cup", "cup": "cup", "desk": "table", "table": "table", "lamp": "light", "bulb": "light"}
TEXTS = [f"{colour} {thing} for the kitchen, how good is the {thing}?" for colour in COLOURS for thing in THINGS]


def save_tiny(folder, kind="rexbert", seed=0, **fields):
    """A tiny encoder with a tokenizer of TEXTS in `folder`; returns the folder as text."""
    torch.manual_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    if kind == "rexbert":
        tokenizer = train_tokenizer(TEXTS, vocab_size=448)
        special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        config = RexBertConfig(vocab_size=448, max_position_embeddings=256, **{**sizes, **special, **fields})
        model = RexBertForMaskedLM(config)
    else:
        tokenizer = word_tokenizer()
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
        # The usual spread gives nearly uniform attention at this width, and [CLS] learns nothing in a few steps.
        sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "initializer_range": 0.2}
        config = BertConfig(**{**sizes, **fields})
        model = BertForMaskedLM(config)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def word_tokenizer():
    """A WordPiece tokenizer with segments, as BERT's."""
    words = sorted({word.strip(",?") for text in TEXTS for word in text.split()})
    pieces = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        ",",
        "?",
        *words,
        *(f"##{c}" for c in "abcdeszy"),
        *"abcdesz",
    ]
    vocab = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=inputs, **names)


def class_rows(count=48, seed=0):
    """Titles and the class of their thing."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(count):
        colour, thing = rng.choice(COLOURS), rng.choice(sorted(THINGS))
        extra = " for the kitchen" * int(rng.integers(0, 4))
        rows.append(Row(f"{colour} {thing}{extra}", label=THINGS[thing]))
    return rows


def tag_rows(count=48, seed=0):
    """Titles as words, colours tagged."""
    return [
        Row(words := row.text.split(), label=["B-COLOUR" if word in COLOURS else "O" for word in words])
        for row in class_rows(count, seed)
    ]


def answer_rows(count=48, seed=0, none_every=0):
    """What colour is it? The answer lies in the context; of every `none_every`-th row it does not."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        colour, thing = str(rng.choice(COLOURS)), str(rng.choice(sorted(THINGS)))
        start = " for the kitchen" * int(rng.integers(0, 3))
        if none_every and i % none_every == 0:
            rows.append(Row("how red is it?", f"the {thing}{start} is good", None))
            continue
        context = f"the {thing}{start} is {colour} good"
        at = context.index(f" {colour} good") + 1
        rows.append(Row("how red is it?", context, (at, at + len(colour))))
    return rows
