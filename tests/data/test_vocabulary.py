"""Tokenizer training: layout, exact round trips, determinism, atoms and extension."""

from __future__ import annotations

import logging
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import (
    CLASS_TOKENS,
    SPECIAL_TOKENS,
    bytes_per_token,
    surface_counts,
    train_tokenizer,
    with_placeholders,
)
from rexbert_hf.phrases import LexiconGuide, RegexGuide

TEXTS = load_sample("shop_text", size=60)["text"]
ATOMS = ["Zyxwell", "Quorbit Table Lamps", "O'Zed"]


@pytest.fixture(scope="module")
def plain():
    return train_tokenizer(TEXTS, 1024)


@pytest.fixture(scope="module")
def domain():
    return train_tokenizer(TEXTS, 1024, atoms=ATOMS, class_tokens=True)


def pieces(tokenizer, text):
    return [tokenizer.decode(token) for token in tokenizer.encode(text, add_special_tokens=False)]


def test_special_tokens_are_the_last_ids(plain, domain):
    for tokenizer in (plain, domain):
        assert len(tokenizer) == 1024
        assert tokenizer.convert_tokens_to_ids([*SPECIAL_TOKENS, "[unused0]", "[unused82]"]) == [
            *range(1024 - 88, 1024 - 83), 1024 - 83, 1023,
        ]  # fmt: skip
        assert sorted(tokenizer.get_vocab().values()) == list(range(1024))
        assert tokenizer.model_input_names == ["input_ids", "attention_mask"]


def test_the_rule_gives_modernberts_ids_at_its_size():
    tokenizer = train_tokenizer(TEXTS[:5], 50_368)
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == [50280, 50281, 50282, 50283, 50284]
    assert len(tokenizer) == 50_368


def test_template_and_mask(plain):
    cls, sep, mask = plain.cls_token_id, plain.sep_token_id, plain.mask_token_id
    assert plain("")["input_ids"] == [cls, sep]
    one, two = plain.encode("red", add_special_tokens=False), plain.encode("lamp", add_special_tokens=False)
    pair = plain("red", "lamp", return_token_type_ids=True)
    assert pair["input_ids"] == [cls, *one, sep, *two, sep]
    assert pair["token_type_ids"] == [0] * (len(one) + 2) + [1] * (len(two) + 1)
    # The mask takes the space on its left, so it stands for a word with its space.
    assert pieces(plain, "a [MASK], a")[:2] == ["a", "[MASK]"]
    assert plain.encode("a [MASK] b", add_special_tokens=False)[1] == mask


@given(st.text(max_size=60))
def test_every_text_decodes_to_itself(text):
    for tokenizer in (_EXACT, _EXACT_DIGITS):
        ids = tokenizer.encode(text, add_special_tokens=False)
        if not any(token in text for token in ("[", "<")):  # what looks like a special token is one
            assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)
            assert tokenizer.unk_token_id not in ids


_EXACT = train_tokenizer(TEXTS[:200], 512, atoms=ATOMS)
_EXACT_DIGITS = train_tokenizer(TEXTS[:200], 512, split_digits=True)


def test_equal_texts_give_equal_tokenizers(plain):
    again = train_tokenizer(iter(TEXTS), 1024)
    assert again.backend_tokenizer.to_str() == plain.backend_tokenizer.to_str()


def test_loads_with_auto_tokenizer(domain, tmp_path):
    domain.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    assert loaded.model_max_length == 8192
    assert loaded.mask_token_id == domain.mask_token_id
    for text in ("a [MASK] <PRICE> Zyxwell", *TEXTS[:20]):
        assert loaded(text) == domain(text)


def test_atoms_are_single_tokens_and_nothing_else_changes(plain, domain):
    assert pieces(domain, "Zyxwell lamp by Zyxwell") == ["Zyxwell", *pieces(domain, " lamp by"), " Zyxwell"]
    assert pieces(domain, "Quorbit Table Lamps") == ["Quorbit", " Table", " Lamps"]
    assert pieces(domain, "an O'Zed")[-3:] == [" O", "'", "Zed"]
    assert len(pieces(plain, " Zyxwell")) > 2
    assert len(pieces(domain, " Zyxwells")) > 2
    # Texts of pieces that both have learnt, without an atom's words, are cut alike.
    shared = plain.get_vocab().keys() & domain.get_vocab().keys()
    texts = [text for text in TEXTS if "Table" not in text and "Lamps" not in text and " O" not in text]
    compared = [text for text in texts if set(plain.tokenize(text)) <= shared]
    assert len(compared) > 50
    assert [domain.tokenize(text) for text in compared] == [plain.tokenize(text) for text in compared]


def test_an_atom_behind_a_space_is_one_entry_only():
    inner, both = (train_tokenizer(TEXTS, 1024, atoms=[atom]) for atom in (" Zyxwell", "Zyxwell"))
    assert pieces(inner, "a Zyxwell")[-1] == " Zyxwell"
    assert len(pieces(inner, "Zyxwell")) > 1
    assert pieces(both, "Zyxwell a Zyxwell") == ["Zyxwell", " a", " Zyxwell"]


def test_class_tokens(domain):
    text = next(with_placeholders(["Lamp WH-1000XM4, 5 x 6 in, now $5 or 20% off"], RegexGuide()))
    assert text == "Lamp <MODEL>, <DIMENSION>, now <PRICE> or <PERCENT>"
    assert [p for p in pieces(domain, text) if p.startswith("<")] == ["<MODEL>", "<DIMENSION>", "<PRICE>", "<PERCENT>"]
    ids = domain.convert_tokens_to_ids(list(CLASS_TOKENS.values()))
    assert not set(ids) & set(domain.all_special_ids)  # they carry meaning: they are masked like words
    assert list(with_placeholders(["an Acme $5"], LexiconGuide(["acme"], "brand"))) == ["an Acme $5"]


def test_digits(plain):
    split = train_tokenizer(TEXTS, 1024, split_digits=True)
    assert pieces(split, "a 1080p") == ["a", " ", "1", "0", "8", "0", "p"]
    years = train_tokenizer(["in 1080 or 1080"] * 10, 512)
    assert pieces(years, "in 1080") == ["in", " 1080"]


def test_a_short_text_leaves_ids_unused(caplog):
    with caplog.at_level(logging.WARNING):
        tokenizer = train_tokenizer(["lamp"], 384)
    assert "the rest of the ids stays unused" in caplog.text
    assert len(tokenizer) == 384
    assert sorted(tokenizer.get_vocab().values()) == list(range(384))


@pytest.mark.parametrize("size", [0, 100, 320, 1000])
def test_bad_sizes(size):
    with pytest.raises(ValueError, match=f"multiple of 64 and at least 384; got {size}"):
        train_tokenizer(TEXTS, size)


def test_bad_texts_and_too_many_atoms():
    with pytest.raises(ValueError, match="texts are empty"):
        train_tokenizer(["", ""], 384)
    with pytest.raises(ValueError, match="atoms do not fit into 296 entries"):
        train_tokenizer(TEXTS, 384, atoms=[f" Zyx{a}{b}" for a in "abcdefg" for b in "abcdefg"])


def test_atoms_displace_the_pieces_learnt_last():
    full = train_tokenizer(TEXTS, 512)
    with_atoms = train_tokenizer(TEXTS, 512, atoms=[" Zyxwell", " the"])  # " the" is learnt anyway
    learnt = sorted(full.get_vocab(), key=full.get_vocab().__getitem__)[: 512 - 88]
    expected = [*learnt[:-1], "\u0120Zyxwell"]
    assert sorted(with_atoms.get_vocab(), key=with_atoms.get_vocab().__getitem__)[: 512 - 88] == expected


def test_surface_counts_keep_the_writing_and_the_space():
    counts = surface_counts(["ACME and Acme, (acme)", "Acme"], LexiconGuide(["acme"], "brand"))
    assert counts == {"ACME": 1, " Acme": 1, "acme": 1, "Acme": 1}


def test_bytes_per_token(plain):
    text = "caf\u00e9 lamp"
    assert bytes_per_token(plain, [text, text]) == 10 / len(pieces(plain, text))
    with pytest.raises(ValueError, match="needs held-out text"):
        bytes_per_token(plain, [])
