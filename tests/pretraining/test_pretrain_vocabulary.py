"""A checkpoint that goes on with another tokenizer keeps what both know; its own tokenizer changes nothing."""

from __future__ import annotations

import logging

import pytest
import torch
from pretraining_cases import settings
from test_pretrain_phrases import PHASE, TINY_RUN
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from rexbert_hf.catalog import load_sample
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.pretraining import encoder, pretrain
from rexbert_hf.pretraining.encoder import load_model, load_tokenizer

PHASES = f"[{PHASE % 'mlm'}]"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "run"
    pretrain(settings(folder, base={**TINY_RUN, "phases": PHASES}))
    return folder


def continued(folder, checkpoint, **changes):
    base = {key: value for key, value in TINY_RUN.items() if key not in ("model.overrides", "tokenizer.vocab_size")}
    changes = {"model__size": "null", "model__init_from": checkpoint, **changes}
    return settings(folder, base={**base, "phases": PHASES}, **changes)


def test_rows_of_known_tokens_are_kept_and_it_trains(tmp_path, checkpoint, caplog):
    caplog.set_level(logging.INFO)
    train_tokenizer(load_sample("reviews", size=60)["text"], 448).save_pretrained(tmp_path / "tokenizer")
    chosen = continued(tmp_path / "out", checkpoint, tokenizer__path=tmp_path / "tokenizer")
    tokenizer = load_tokenizer(chosen, tmp_path)
    model = load_model(chosen, tokenizer)
    assert "the vocabulary changes from 384 to 448 tokens" in caplog.text
    before, old = (
        RexBertForMaskedLM.from_pretrained(checkpoint),
        load_tokenizer(continued(tmp_path, checkpoint), tmp_path),
    )
    both = set(old.get_vocab()) & set(tokenizer.get_vocab())
    assert len(both) > 300
    for token in both:
        mine, theirs = tokenizer.get_vocab()[token], old.get_vocab()[token]
        assert torch.equal(model.decoder.weight[mine], before.decoder.weight[theirs])
    pretrain(chosen)
    assert RexBertForMaskedLM.from_pretrained(tmp_path / "out").config.vocab_size == 448


def test_a_unigram_tokenizer_as_xlm_r_has_one_takes_over(tmp_path, checkpoint):
    """Other special tokens, other marks of a space: known words keep their rows, and special tokens go by role."""
    texts = [*load_sample("multilingual_text", size=120)["text"], *load_sample("reviews", size=60)["text"]]
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=640, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    roles = {"bos": 0, "cls": 0, "eos": 2, "sep": 2, "pad": 1, "unk": 3, "mask": 4}
    names = {f"{role}_token": special[number] for role, number in roles.items()}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(tmp_path / "tokenizer")
    chosen = continued(tmp_path / "out", checkpoint, tokenizer__path=tmp_path / "tokenizer")
    tokenizer = load_tokenizer(chosen, tmp_path)
    model, before = load_model(chosen, tokenizer), RexBertForMaskedLM.from_pretrained(checkpoint)
    old = load_tokenizer(continued(tmp_path, checkpoint), tmp_path)
    for role in ("cls", "sep", "pad", "mask"):
        mine, theirs = (getattr(one, f"{role}_token_id") for one in (tokenizer, old))
        assert torch.equal(model.decoder.weight[mine], before.decoder.weight[theirs])
    assert model.config.pad_token_id == 1
    same = {token: token.replace("\u2581", "\u0120") for token in tokenizer.get_vocab() if token not in special}
    shared = [token for token, old_token in same.items() if old_token in old.get_vocab() and old_token[1:].isascii()]
    assert len(shared) > 30
    for token in shared:
        mine, theirs = tokenizer.get_vocab()[token], old.get_vocab()[same[token]]
        if token.isascii() or token.startswith("\u2581"):  # not a character that stands for a byte
            assert torch.equal(model.decoder.weight[mine], before.decoder.weight[theirs]), token
    pretrain(chosen)
    assert RexBertForMaskedLM.from_pretrained(tmp_path / "out").config.vocab_size == len(tokenizer)


def test_the_checkpoints_own_tokenizer_by_path_changes_nothing(tmp_path, checkpoint, caplog):
    caplog.set_level(logging.INFO)
    chosen = continued(tmp_path / "out", checkpoint, tokenizer__path=checkpoint)
    model = load_model(chosen, load_tokenizer(chosen, tmp_path))
    assert "vocabulary changes" not in caplog.text
    before = RexBertForMaskedLM.from_pretrained(checkpoint).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_tokenizer_that_lost_its_mask_is_refused(tmp_path, checkpoint):
    tokenizer = train_tokenizer(load_sample("reviews", size=60)["text"], 448)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    chosen = continued(tmp_path / "out", checkpoint, tokenizer__path=tmp_path / "tokenizer")
    with pytest.raises(ValueError, match="has no mask token"):
        load_tokenizer(chosen, tmp_path)


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_tokenizer_in_the_cache_is_made_again(tmp_path, caplog, damage):
    """The one in the cache is nobody's choice, so "set tokenizer.path" would be no way out."""
    chosen = settings(tmp_path / "out", base={**TINY_RUN, "phases": PHASES})
    made = load_tokenizer(chosen, tmp_path)
    (path,) = tmp_path.glob("tokenizer-*/tokenizer.json")
    data = path.read_bytes()
    path.write_bytes({"cut": data[: len(data) // 2], "flipped": b"\x00" + data[1:], "gone": b""}[damage])
    if damage == "gone":
        path.unlink()
    again = load_tokenizer(chosen, tmp_path)
    assert again.get_vocab() == made.get_vocab()
    assert path.read_bytes() == data
    assert "the tokenizer is made again" in caplog.text


def test_a_model_grown_for_another_tokenizer_keeps_the_rows_of_known_tokens(tmp_path, checkpoint):
    """Each row by its token, not by its number: the new tokenizer numbers the same tokens otherwise."""
    train_tokenizer(load_sample("reviews", size=60)["text"], 448).save_pretrained(tmp_path / "tokenizer")
    base = {key: value for key, value in TINY_RUN.items() if key != "tokenizer.vocab_size"}
    changes = {"model__grow_from": checkpoint, "tokenizer__path": tmp_path / "tokenizer"}
    chosen = settings(tmp_path / "out", base={**base, "phases": PHASES}, **changes)
    tokenizer = load_tokenizer(chosen, tmp_path)
    model, before = load_model(chosen, tokenizer), RexBertForMaskedLM.from_pretrained(checkpoint)
    assert model.config.vocab_size == 448
    old = load_tokenizer(continued(tmp_path, checkpoint), tmp_path)
    both = set(old.get_vocab()) & set(tokenizer.get_vocab())
    assert sum(old.get_vocab()[token] != tokenizer.get_vocab()[token] for token in both) > 100
    for token in both:
        mine, theirs = tokenizer.get_vocab()[token], old.get_vocab()[token]
        assert torch.equal(model.decoder.weight[mine], before.decoder.weight[theirs]), token


@pytest.mark.parametrize(("most", "chosen"), [(4, [0, 1, 3, 5]), (3, [0, 2, 4]), (9, list(range(7)))])
def test_a_tokenizer_reads_documents_from_all_over_a_source(tmp_path, most, chosen):
    """Of a source that has up to twice as many as are read, not its first ones."""
    (tmp_path / "text.txt").write_text("".join(f"document {number}\n" for number in range(7)))
    source = {"sources": f"{{shop: {{path: {tmp_path / 'text.txt'}, evaluate: false}}}}"}
    made = settings(tmp_path / "out", base={**TINY_RUN, **source, "phases": PHASES}, tokenizer__max_documents=most)
    assert list(encoder._texts(made, tmp_path)) == [f"document {number}" for number in chosen]
