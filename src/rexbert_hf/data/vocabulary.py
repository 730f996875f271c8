"""Train a byte-level BPE tokenizer for product text, with the words of a shop as tokens of their own.

The layout is ModernBERT's: learnt pieces first, [UNK] [CLS] [SEP] [PAD] [MASK] and 83 unused tokens as the last 88
ids. With 50,368 entries [UNK] is therefore 50280 and [MASK] 50284, the ids of ModernBERT and RexBERT; with other sizes
they differ. [MASK] takes the space on its left, so that "a [MASK]" predicts " lamp". Every text decodes to itself
(after NFC). OLMo's long runs of spaces are not entries: byte-level BPE learns those that occur.

A domain atom is a word that is always one token. The RexBERT authors' script writes whole brands and types as symbols
into the text; here the words of a brand or type become entries that a whole word is looked up in before any merge, so
encoding needs no rewriting, decoding stays exact, and whole-word masks and spans keep their meaning. Class tokens
(`<PRICE>` ...) are only seen where `with_placeholders` rewrites a text, as that script does.

Digits: runs of digits are learnt like words ("1080" may be one piece), as in ModernBERT; `split_digits` makes each
digit a piece of its own, which costs length and never splits a number in an unlearnt way.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

logger = logging.getLogger(__name__)

SPECIAL_TOKENS = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
NUM_UNUSED = 83
"""Unused entries, [unused0] to [unused82], for users who need a token later."""
CLASS_TOKENS = {kind: f"<{kind.upper()}>" for kind in ("price", "percent", "size", "dimension", "model", "sku")}
"""Placeholder of each regular-expression class."""

_TAIL = len(SPECIAL_TOKENS) + NUM_UNUSED
_Guide = Callable[[Sequence[str]], list[list[tuple[int, int, float, str]]]]


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int = 50_368,
    atoms: Iterable[str] = (),
    class_tokens: bool = False,
    split_digits: bool = False,
    min_frequency: int = 2,
    model_max_length: int = 8192,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer; equal texts in equal order give an equal tokenizer.

    Args:
        texts: any iterable of texts; read once.
        vocab_size: entries in all, a multiple of 64.
        atoms: brands, product types: each of their words becomes one token, as it is written here. " Sony" is the
            word behind a space alone, "Sony" also the word at the start of a text (an entry of its own).
        class_tokens: add the six class tokens.
        split_digits: make each digit a token.
        min_frequency: pairs that are rarer are not merged.
        model_max_length: longest input of the model, in tokens.

    Raises:
        ValueError: if the size is no multiple of 64 or too small, or there is no text.

    Example:
        >>> tokenizer = train_tokenizer(["red lamp", "blue lamp"] * 2, vocab_size=384, atoms=["Zyx"])
        >>> [tokenizer.decode(token) for token in tokenizer.encode("Zyx lamp")], len(tokenizer), tokenizer.mask_token_id
        (['[CLS]', 'Zyx', ' lamp', '[SEP]'], 384, 300)
    """
    extra = list(CLASS_TOKENS.values()) if class_tokens else []
    room = vocab_size - _TAIL - len(extra)
    if vocab_size % 64 or room < 256:
        raise ValueError(f"vocab_size must be a multiple of 64 and at least 384; got {vocab_size}")
    backend = _backend(split_digits)
    trainer = trainers.BpeTrainer(
        vocab_size=room,
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    counted = _Counted(texts)
    backend.train_from_iterator(counted, trainer)
    if not counted.characters:
        raise ValueError("there is no text to train a tokenizer on: the texts are empty, or all of them are held out")
    words = _atom_pieces(backend, atoms)
    pieces, merges = _learnt(backend)
    kept = _fit(pieces, words, room)
    entries = pieces[:kept]
    known = set(entries)
    entries += [word for word in words if word not in known]
    if len(entries) < room:
        logger.warning("the text gives only %d entries of %d: the rest of the ids stays unused", len(entries), room)
    entries += [f"[unused{NUM_UNUSED + i}]" for i in range(room - len(entries))]
    entries += [*extra, *SPECIAL_TOKENS, *(f"[unused{i}]" for i in range(NUM_UNUSED))]
    whole = set(pieces[:kept])
    merges = [(left, right) for left, right in merges if {left, right, left + right} <= whole]
    vocab = {entry: index for index, entry in enumerate(entries)}
    backend.model = models.BPE(vocab=vocab, merges=merges, ignore_merges=bool(words), unk_token="[UNK]")
    return _wrapped(backend, vocab, extra, model_max_length)


class _Counted:
    """Texts on their way to the trainer, with their characters counted."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts, self.characters = texts, 0

    def __iter__(self) -> Iterator[str]:
        for text in self.texts:
            self.characters += len(text)
            yield text


def _backend(split_digits: bool) -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level]) if split_digits else byte_level
    backend.decoder = decoders.ByteLevel()
    return backend


def _learnt(backend: Tokenizer) -> tuple[list[str], list[tuple[str, str]]]:
    """Pieces in the order they were learnt, and the merges."""
    model = json.loads(backend.to_str())["model"]
    merges = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    return sorted(model["vocab"], key=model["vocab"].__getitem__), merges


def _atom_pieces(backend: Tokenizer, atoms: Iterable[str]) -> list[str]:
    """Byte-level words of the atoms, at the start of a text and behind a space, each once, in order."""
    found: dict[str, None] = {}
    for atom in atoms:
        for text in (atom,) if atom.startswith(" ") else (atom, f" {atom}"):
            if backend.normalizer is not None:
                text = backend.normalizer.normalize_str(text)
            for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text):
                if any(c.isalnum() for c in piece):
                    found[piece] = None
    return list(found)


def _fit(pieces: list[str], words: list[str], room: int) -> int:
    """How many learnt pieces fit beside the words that are not among them.

    Raises:
        ValueError: if not even the bytes fit.
    """
    rank = {piece: index for index, piece in enumerate(pieces)}
    kept = len(pieces)
    missing = sum(rank.get(word, kept) >= kept for word in words)
    by_rank = Counter(rank[word] for word in words if word in rank)
    while kept + missing > room:
        kept -= 1
        missing += by_rank[kept]
        if kept < 256:
            raise ValueError(
                f"{len(words)} atoms do not fit into {room} entries: use fewer atoms or a larger vocab_size"
            )
    return kept


def _wrapped(backend: Tokenizer, vocab: dict[str, int], extra: list[str], length: int) -> PreTrainedTokenizerFast:
    special = [AddedToken(token, special=True, normalized=False, lstrip=token == "[MASK]") for token in SPECIAL_TOKENS]
    backend.add_special_tokens(special)
    unused = sorted((entry for entry in vocab if entry.startswith("[unused")), key=vocab.__getitem__)
    backend.add_tokens([AddedToken(token, normalized=False) for token in [*extra, *unused]])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocab[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token=special[-1],
        model_max_length=length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def surface_counts(texts: Iterable[str], guide: _Guide) -> Counter[str]:
    """Count the terms that a guide marks, as they are written in the texts: the atoms worth having.

    A term behind a space is counted with the space: the two forms are different tokens.

    Args:
        texts: any iterable of texts.
        guide: a lexicon of brands or product types.

    >>> surface_counts(["an Acme"], lambda texts: [[(3, 7, 1.0, "brand")]])
    Counter({' Acme': 1})
    """
    counts: Counter[str] = Counter()
    for text in texts:
        for start, end, _, _ in guide([text])[0]:
            counts[text[start - (start > 0 and text[start - 1] == " ") : end]] += 1
    return counts


def with_placeholders(texts: Iterable[str], guide: _Guide) -> Iterator[str]:
    """Replace what a guide marks by class tokens ("$5" by `<PRICE>`), the form the authors' script trains on.

    Args:
        texts: any iterable of texts.
        guide: spans without overlaps; kinds without a class token are left as they are.

    >>> list(with_placeholders(["now $5!"], lambda texts: [[(4, 6, 1.0, "price")]]))
    ['now <PRICE>!']
    """
    for text in texts:
        parts, end = [], 0
        for start, stop, _, kind in guide([text])[0]:
            if kind in CLASS_TOKENS:
                parts += [text[end:start], CLASS_TOKENS[kind]]
                end = stop
        yield "".join([*parts, text[end:]])


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """The ids that a new model's configuration takes from its tokenizer.

    A tokenizer with [CLS] and [SEP] has no tokens for the beginning and the end of a text: those stand for them, or the
    configuration would keep the ids of ModernBERT's vocabulary, which a smaller one does not have.

    Args:
        tokenizer: of the model.

    Example:
        >>> tokenizer = train_tokenizer(["red mug", "blue plate"] * 2, vocab_size=384)
        >>> ids = special_ids(tokenizer)
        >>> ids["bos_token_id"] == ids["cls_token_id"] == tokenizer.cls_token_id
        True
    """
    names = ("pad", "cls", "sep", "bos", "eos")
    ids: dict[str, int | None] = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names}
    for edge, stands_for in (("bos", "cls"), ("eos", "sep")):
        if ids[f"{edge}_token_id"] is None:
            ids[f"{edge}_token_id"] = ids[f"{stands_for}_token_id"]
    return ids


def bytes_per_token(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts a token, special tokens not counted; the higher, the shorter the inputs.

    Args:
        tokenizer: any tokenizer.
        texts: held-out texts.

    Raises:
        ValueError: if there is no text.

    >>> bytes_per_token(train_tokenizer(["lamp lamp lamp"], vocab_size=384), ["lamp lamp"])
    4.5
    """
    ids = tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
    count = sum(map(len, ids))
    if not count:
        raise ValueError("bytes per token needs held-out text; the texts are empty")
    return sum(len(text.encode("utf-8")) for text in texts) / count
