"""Another tokenizer for a trained model: which row each token starts from, and what the model makes of it."""

from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    MPNetConfig,
    MPNetForMaskedLM,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)
from transformers.convert_slow_tokenizer import bytes_to_unicode

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.fine_tuning import length_limit
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.models.vocabulary_transfer import row_sources, transfer_vocabulary
from rexbert_hf.retrieval.serving.fill_mask import FillMask

NAMES = {"pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}


def words(vocabulary, first="[PAD] [UNK] [CLS] [SEP] [MASK]", metaspace=False, **names):
    tokens = {token: number for number, token in enumerate([*first.split(), *vocabulary])}
    backend = Tokenizer(models.WordPiece(tokens, unk_token=first.split()[1]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if metaspace:
        backend = Tokenizer(models.Unigram([(token, -1.0) for token in tokens], unk_id=1))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**NAMES, **names})


def model_of(size, **fields):
    torch.manual_seed(0)
    tiny = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = RexBertForMaskedLM(RexBertConfig(vocab_size=size, pad_token_id=0, **tiny, **fields))
    torch.nn.init.normal_(model.decoder.bias)
    return model


def test_rows_are_kept_composed_or_the_mean():
    old = words(["red", "mug", "##s", "table"])
    new = words(["table", "mugs", "red", "\u8336"])
    model = model_of(len(old))
    rows, bias = model.decoder.weight.detach().clone(), model.decoder.bias.detach().clone()
    report = transfer_vocabulary(model, old, new)
    assert (report.kept, report.composed, report.unknown) == (7, 1, 1)
    of, found = old.get_vocab(), new.get_vocab()
    for got, had in ((model.model.embeddings.tok_embeddings.weight, rows), (model.decoder.bias, bias)):
        assert torch.equal(got[found["table"]], had[of["table"]])
        assert torch.equal(got[found["red"]], had[of["red"]])
        torch.testing.assert_close(got[found["mugs"]], (had[of["mug"]] + had[of["##s"]]) / 2)
        torch.testing.assert_close(got[found["\u8336"]], had.mean(0))
        assert torch.equal(got[found["[MASK]"]], had[of["[MASK]"]])
    assert model.decoder.weight is model.model.embeddings.tok_embeddings.weight
    # Nine tokens, and rows that no token has up to the next multiple of 64, which begin as the mean.
    assert len(new) == 9
    assert model.config.vocab_size == model.decoder.out_features == len(model.decoder.bias) == 64
    torch.testing.assert_close(model.decoder.weight[9:], rows.mean(0).expand(55, -1))


def test_special_tokens_go_by_their_roles():
    old = words(["red"])
    other = {
        "pad_token": "<pad>",
        "mask_token": "<mask>",
        "cls_token": "<s>",
        "sep_token": "</s>",
        "unk_token": "<unk>",
    }
    new = words(["red"], first="<s> <unk> <pad> </s> <mask>", **other)
    assert row_sources(old, new) == [[2], [1], [0], [3], [4], [5]]
    model = model_of(len(old))
    transfer_vocabulary(model, old, new)
    assert (model.config.pad_token_id, model.config.cls_token_id, model.config.sep_token_id) == (2, 0, 3)


def test_byte_level_and_sentencepiece_spellings_of_a_text_meet():
    texts = ["a table and a red mug on the table"] * 20
    old = train_tokenizer(texts, 384)
    new = words(["\u2581table", "table", "\u2581zebra"], metaspace=True)
    sources = row_sources(old, new)
    of, found = old.get_vocab(), new.get_vocab()
    assert "\u0120table" in of
    assert sources[found["\u2581table"]] == [of["\u0120table"]]
    assert sources[found["\u2581zebra"]] == old(" zebra", add_special_tokens=False)["input_ids"]


def test_a_token_within_a_word_starts_from_pieces_within_a_word():
    """SentencePiece puts a space before what it is given, which "tables" in the middle of a word has not."""
    old = words(["\u2581", "\u2581table", "table", "s"], metaspace=True)
    new = words(["tables", "\u2581tables"], metaspace=True)
    sources, of, found = row_sources(old, new), old.get_vocab(), new.get_vocab()
    assert sources[found["tables"]] == [of["table"], of["s"]]
    assert sources[found["\u2581tables"]] == [of["\u2581table"], of["s"]]
    pieces = words(["tables", "##tables"])  # WordPiece marks what goes on, not what begins
    sources, found = row_sources(old, pieces), pieces.get_vocab()
    assert sources[found["tables"]] == [of["\u2581table"], of["s"]]
    assert sources[found["##tables"]] == [of["table"], of["s"]]


def bytes_bpe(entries, merges, **names):
    """A byte-level tokenizer of the alphabet, the usual special tokens, and what else is given."""
    tokens = [*NAMES.values(), *sorted(pre_tokenizers.ByteLevel.alphabet()), *entries]
    backend = Tokenizer(models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **{**NAMES, **names})


def spelled(data):
    return "".join(bytes_to_unicode()[byte] for byte in data)


def test_part_of_a_character_starts_from_its_bytes():
    """E4 B8 begins many Chinese characters, and is no text that a tokenizer could read."""
    first, second, third = map(spelled, (b"\xe4", b"\xb8", b"\xad"))
    part, behind_space = first + second, spelled(b" \xe4\xb8")
    old = bytes_bpe([], [])
    new = bytes_bpe([part, behind_space], [(first, second), (spelled(b" "), part)])
    sources, of, found = row_sources(old, new), old.get_vocab(), new.get_vocab()
    assert sources[found[part]] == [of[first], of[second]]
    assert sources[found[behind_space]] == [of[spelled(b" ")], of[first], of[second]]
    knowing = bytes_bpe([part], [(first, second)])  # the largest pieces that it has, as in its own text
    more = bytes_bpe([part, part + third], [(first, second), (part, third)])
    assert row_sources(knowing, new)[found[part]] == [knowing.get_vocab()[part]]
    longer = bytes_bpe([behind_space], [])
    assert row_sources(knowing, longer)[longer.get_vocab()[behind_space]] == [
        knowing.get_vocab()[spelled(b" ")], knowing.get_vocab()[part]
    ]  # fmt: skip
    assert row_sources(knowing, more)[more.get_vocab()[part + third]] == [
        knowing.get_vocab()[part], knowing.get_vocab()[third]
    ]  # fmt: skip


def test_bytes_of_sentencepiece_and_of_byte_level_meet():
    fallback = words([*(f"<0x{byte:02X}>" for byte in range(256)), "mug"], metaspace=True)
    part = spelled(b"\xe4\xb8")
    level = bytes_bpe([part], [tuple(part)])
    of, found = fallback.get_vocab(), level.get_vocab()
    assert row_sources(fallback, level)[found[part]] == [of["<0xE4>"], of["<0xB8>"]]
    assert row_sources(fallback, level)[found[part[0]]] == [of["<0xE4>"]]
    assert row_sources(level, fallback)[of["<0xE4>"]] == [found[part[0]]]
    assert row_sources(words(["mug"]), level)[found[part]] == []  # its tokenizer knows no bytes: the mean of all rows


def test_a_special_token_without_a_role_starts_from_its_spelling_alone():
    old = bytes_bpe([], [])
    new = bytes_bpe(["<ask>"], [], additional_special_tokens=["<ask>"])
    pieces = [old.get_vocab()[character] for character in "<ask>"]
    assert row_sources(old, new)[new.get_vocab()["<ask>"]] == pieces
    same = bytes_bpe(["red", "<ask>"], [], additional_special_tokens=["<ask>"])
    assert row_sources(new, same)[same.get_vocab()["<ask>"]] == [new.get_vocab()["<ask>"]]


def test_the_same_tokenizer_changes_nothing():
    tokenizer = train_tokenizer(load_sample("shop_text", size=60)["text"], 384)
    model = model_of(len(tokenizer)).eval()
    ids = torch.tensor([tokenizer("a red mug")["input_ids"]])
    before = model(ids).logits
    report = transfer_vocabulary(model, tokenizer, tokenizer)
    assert (report.kept, report.composed, report.unknown) == (len(tokenizer), 0, 0)
    assert torch.equal(model(ids).logits, before)


def test_the_text_of_known_words_gives_the_same_states():
    """A model with a larger vocabulary that splits a text into the same pieces computes the same."""
    old, new = words(["red", "mug"]), words(["table", "mug", "red"])
    model = model_of(len(old)).eval()
    before = model.model(torch.tensor([old("red mug")["input_ids"]])).last_hidden_state
    transfer_vocabulary(model, old, new)
    after = model.model(torch.tensor([new("red mug")["input_ids"]])).last_hidden_state
    assert torch.equal(before, after)


def test_other_architectures_and_untied_outputs():
    old, new = words(["red", "mug"]), words(["mug", "red", "redmug"])
    for tied in (True, False):
        torch.manual_seed(0)
        tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
        model = BertForMaskedLM(BertConfig(vocab_size=len(old), tie_word_embeddings=tied, **tiny))
        rows = model.get_output_embeddings().weight.detach().clone()
        transfer_vocabulary(model, old, new)
        assert torch.equal(model.get_output_embeddings().weight[new.get_vocab()["red"]], rows[old.get_vocab()["red"]])
        assert model(torch.tensor([[5, 6, 7]])).logits.shape[-1] == 64


def test_what_cannot_be_transferred_is_refused():
    old = words(["red"])
    with pytest.raises(ValueError, match="no mask token"):
        transfer_vocabulary(model_of(len(old)), old, words(["red"], mask_token=None))
    with pytest.raises(ValueError, match="6 tokens, the model 3 rows"):
        transfer_vocabulary(model_of(3), old, old)


def test_the_old_place_of_padding_learns():
    old = words(["red", "mug"])
    new = words(["red", "mug", "blue"], first="[CLS] [UNK] [PAD] [SEP] [MASK]")
    model = model_of(len(old))
    transfer_vocabulary(model, old, new)
    rows = model.get_input_embeddings()
    (gradient,) = torch.autograd.grad(rows(torch.tensor([0, 2])).sum(), rows.weight)
    assert gradient.abs().sum(1).nonzero().tolist() == [[0]]  # 0 was [PAD], 2 is


ROBERTA = "<s> [UNK] [CLS] [PAD] [SEP] [MASK]"


def roberta(size, kind=RobertaForMaskedLM, pad_token_id=3, rows=20):
    torch.manual_seed(0)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = {RobertaForMaskedLM: RobertaConfig, MPNetForMaskedLM: MPNetConfig}[kind]
    fields = {"pad_token_id": pad_token_id, "max_position_embeddings": rows, "initializer_range": 0.5}
    return kind(config(vocab_size=size, **fields, **tiny)).eval()


def states_of(model, tokenizer):
    batch = tokenizer(["red mug red", "mug"], padding=True, return_tensors="pt")
    states = model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
    return states[batch["attention_mask"].bool()]


@pytest.mark.parametrize("first", ["[PAD] [UNK] [CLS] [SEP] [MASK]", "a b c d e [UNK] [CLS] [SEP] [MASK] f [PAD]"])
def test_positions_that_begin_behind_the_padding_id_move_with_it(first, tmp_path):
    """RoBERTa: the same text has the same states in the new ids, now and after it is loaded again."""
    old = words(["red", "mug"], first=ROBERTA)
    tokens = first.split()
    new = words(["mug", "red"], first=f"{tokens.pop(0)} [UNK] " + " ".join(t for t in tokens if t != "[UNK]"))
    assert new.pad_token_id in (0, 10)
    model = roberta(len(old))
    before = states_of(model, old)
    transfer_vocabulary(model, old, new)
    torch.testing.assert_close(states_of(model, new), before)
    model.save_pretrained(tmp_path)
    again = RobertaForMaskedLM.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(states_of(again, new), before)
    table = model.roberta.embeddings.position_embeddings
    assert table.padding_idx == again.roberta.embeddings.position_embeddings.padding_idx == new.pad_token_id
    longest = torch.full((1, 20 - new.pad_token_id - 1), new.get_vocab()["red"])
    assert torch.equal(again(longest).logits, model(longest).logits)


def test_a_padding_id_that_positions_cannot_begin_behind_is_refused():
    old = words(["red", "mug"], first=ROBERTA)
    far = words(["red"], first="x [UNK] [CLS] [SEP] [MASK] " + " ".join(f"w{i}" for i in range(20)) + " [PAD]")
    model = roberta(len(old))
    rows = model.get_input_embeddings().weight.clone()
    with pytest.raises(ValueError, match=r"^tokenizer\.path: its padding token has the id 25, and Roberta.* 20 rows"):
        transfer_vocabulary(model, old, far)
    assert torch.equal(model.get_input_embeddings().weight, rows)
    model = roberta(len(old), MPNetForMaskedLM, pad_token_id=1)
    with pytest.raises(ValueError, match="id 0, and MPNetForMaskedLM knows no other than 1"):
        transfer_vocabulary(model, old, words(["red", "mug"]))


def test_long_texts_of_moved_positions_are_cut_where_the_table_ends(tmp_path):
    """The lower half of the table is no position; `max_position_embeddings` counts it all the same."""
    old = words(["red", "mug"], first=ROBERTA)
    new = words(["mug", "red"], first="a b c d e [UNK] [CLS] [SEP] [MASK] f [PAD]")
    model = roberta(len(old))
    transfer_vocabulary(model, old, new)
    limit = length_limit(model, new, 512)
    assert limit == 20 - new.pad_token_id - 1
    ids = new(["red " * 50], truncation=True, max_length=limit, return_tensors="pt")["input_ids"]
    assert model(ids).logits.shape[:2] == (1, limit)
    model.save_pretrained(tmp_path)
    new.save_pretrained(tmp_path)
    filled = FillMask(str(tmp_path), words=2)("[MASK] " + "red " * 50)
    assert (filled.problem, len(filled.blanks)) == ("", 1)
