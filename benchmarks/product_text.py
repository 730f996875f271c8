"""Text and tokenizer that the benchmarks share: mixed titles, descriptions and reviews."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

from transformers import PreTrainedTokenizerFast

DATA_DIR = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def documents(count: int, data_dir: Path = DATA_DIR, seed: int = 0) -> tuple[list[str], str]:
    """`count` documents, the same share of each file of `text/shop`, shuffled; and where they come from.

    Without the folder they come from the built-in sample shop.
    """
    rng = random.Random(seed)
    files = sorted((data_dir / "text" / "shop").glob("*.txt.gz"))
    if not files:
        try:
            from rexbert_hf.catalog import load_sample
        except ModuleNotFoundError as error:
            raise SystemExit(
                f"error: no texts in {data_dir}/text/shop, and the sample shop needs {error.name}"
            ) from None
        texts = list(load_sample("shop_text")["text"])
        rng.shuffle(texts)
        return (texts * (count // len(texts) + 1))[:count], "built-in sample shop"
    share = -(-count // len(files))
    texts = []
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as stream:
            lines = [line.strip() for line in stream]
        texts += rng.sample(lines, min(share, len(lines)))
    rng.shuffle(texts)
    return texts[:count], f"{len(files)} files of text/shop"


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `vocab_size` tokens, trained on `texts`, with the ModernBERT special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )
