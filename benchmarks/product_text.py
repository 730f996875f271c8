"""Text and tokenizer that the benchmarks share: mixed titles, descriptions and reviews."""

from __future__ import annotations

import gzip
import importlib
import importlib.util
import random
import sys
import types
from pathlib import Path

from transformers import PreTrainedTokenizerFast

DATA_DIR = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SAMPLE = "_sample_shop"
"""Name that the modules of the sample shop are imported under, without the package around them."""
SAMPLE_SIZE = 2_400
"""Products in it."""


def documents(count: int, data_dir: Path = DATA_DIR, seed: int = 0) -> tuple[list[str], str]:
    """`count` documents, the same share of each file of `text/shop`, shuffled; and where they come from.

    Without the folder they come from the built-in sample shop.
    """
    rng = random.Random(seed)
    files = text_files(data_dir)
    if not files:
        texts = sample_texts()
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


def text_files(data_dir: Path) -> list[Path]:
    """The files of texts in a data folder, none if it has none."""
    return sorted((data_dir / "text" / "shop").glob("*.txt.gz"))


def sample_texts(seed: int = 0, size: int = SAMPLE_SIZE) -> list[str]:
    """The column `text` of `load_sample("shop_text", seed, size)`, without `datasets`, which a bare machine lacks.

    The shop's modules import only one another; what needs `datasets` is the package around them, left out here.
    """
    if SAMPLE not in sys.modules:
        (source,) = importlib.util.find_spec("rexbert_hf").submodule_search_locations
        package = types.ModuleType(SAMPLE)
        package.__path__ = [str(Path(source, "catalog", "sample"))]
        sys.modules[SAMPLE] = package
    behaviour, opinions, products, web = (
        importlib.import_module(f"{SAMPLE}.{name}") for name in ("behaviour", "opinions", "products", "web")
    )
    shop = products.make_products(seed, size)
    texts = [product.title for product in shop]
    texts += [product.description for product in shop]
    texts += [row["text"] for row in opinions.make_reviews(seed, shop)]
    texts += [f"{row['question']} {row['context']}" for row in opinions.make_questions(seed, shop)]
    texts += [intent.query for intent in behaviour.make_queries(seed, shop)]
    texts += [page["text"] for page in web.make_pages(seed, shop) if page["label"] == "shop"]
    random.Random(f"shop text {seed}").shuffle(texts)
    return texts


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
