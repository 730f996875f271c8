"""Masked-token recovery: the authors' blocks and masks, equal bytes for every tokenizer, and models that cannot."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, DataCollatorForLanguageModeling, set_seed
from tuning_cases import TEXTS, save_tiny, word_tokenizer

from rexbert_hf.catalog.split import split_of
from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.evaluation.masked_pieces import cut, drawn_words, mask_pieces
from rexbert_hf.evaluation.masked_recovery import BLOCK, MaskedRecovery, MaskedScorer
from rexbert_hf.evaluation.runner import run_tasks
from rexbert_hf.evaluation.settings import EvaluateSettings
from rexbert_hf.evaluation.task import DataMissing, ModelUnfit, TaskOptions, TaskSource

BPE, WORDS = train_tokenizer(TEXTS, vocab_size=448), word_tokenizer()


class Listener(nn.Module):
    """Knows the labels, or ranks every token by its number; keeps what it was given."""

    def __init__(self, size, knows):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(max_position_embeddings=512)
        self.size, self.knows, self.seen = size, knows, []

    def forward(self, input_ids, attention_mask=None, labels=None):
        self.seen.append((input_ids, labels))
        shape = (*input_ids.shape, self.size)
        logits = -torch.arange(self.size, dtype=torch.float32).expand(shape).clone()
        if self.knows:
            logits.scatter_(2, labels.clamp_min(0)[..., None], 1.0)
        return SimpleNamespace(logits=logits)


def scorer(tokenizer, knows=True):
    return MaskedScorer(Listener(len(tokenizer), knows).eval(), tokenizer)


def reference_batches(tokenizer, texts, batch_size=32):
    """The protocol, written out: tokenise, concatenate, cut, collate with seed 42."""
    line = [token for text in texts for token in tokenizer(text)["input_ids"]]
    blocks = [line[i : i + 128] for i in range(0, len(line) // 128 * 128, 128)]
    set_seed(42)
    collator = DataCollatorForLanguageModeling(tokenizer, mlm=True, mlm_probability=0.15)
    return [
        collator([{"input_ids": ids} for ids in blocks[i : i + batch_size]]) for i in range(0, len(blocks), batch_size)
    ]


@pytest.mark.parametrize("tokenizer", [BPE, WORDS], ids=["bpe", "words"])
def test_blocks_and_masks_are_the_protocols(tokenizer):
    texts = TEXTS * 14
    expected = reference_batches(tokenizer, texts)
    found = scorer(tokenizer, knows=False)
    blocks = found.blocks(texts)
    assert blocks.shape[1] == BLOCK
    assert len(blocks) > 32, "more than one batch is masked"
    state = torch.get_rng_state()
    accuracies = found.accuracies(blocks)
    assert torch.equal(torch.get_rng_state(), state)
    for column, key in enumerate(("input_ids", "labels")):
        seen = torch.cat([one[column] for one in found.model.seen])
        assert torch.equal(seen, torch.cat([batch[key] for batch in expected]))
    labels = torch.cat([batch["labels"] for batch in expected])
    labels = labels[labels != -100].numpy()
    assert accuracies == pytest.approx([np.mean(labels < k) for k in (1, 3, 5)])
    assert scorer(tokenizer).accuracies(blocks) == [1.0, 1.0, 1.0]


def test_every_tokenizer_is_asked_for_the_same_bytes():
    texts = [f"{text} Qux{i} caf\u00e9" for i, text in enumerate(TEXTS)]
    by_bpe, by_words = (mask_pieces(tokenizer, texts, 0.3, 1) for tokenizer in (BPE, WORDS))
    assert [piece.bytes for piece in by_bpe] == [piece.bytes for piece in by_words]
    rows, *_ = scorer(BPE).bytes_recovered(by_bpe)
    np.testing.assert_allclose(rows, rows[:, -1:].repeat(4, axis=1))
    rows, *_ = scorer(WORDS).bytes_recovered(by_words)
    assert (rows[:, 0] <= rows[:, -1] + 1e-9).all()
    assert rows[:, 0].sum() < rows[:, -1].sum(), "words of unknown tokens are not recovered by guessing [UNK]"


def test_masked_tokens_are_those_of_the_drawn_words():
    (piece,) = mask_pieces(BPE, ["red mug for the kitchen"], 1.0, 0)
    assert set(piece.ids[1:-1]) == {BPE.mask_token_id}
    assert BPE.decode(piece.targets) == "red mug for the kitchen"
    assert piece.bytes == len("redmugforthekitchen")


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=60), st.integers(0, 9))
def test_the_bytes_of_words_are_those_of_their_tokens(text, seed):
    if not text.split() or not any(drawn_words(piece, 0.5, seed) for piece in cut(text)):
        return
    pieces = mask_pieces(BPE, [text], 0.5, seed)
    words = [piece[a:b] for piece in cut(text) for a, b in drawn_words(piece, 0.5, seed)]
    assert sum(piece.bytes for piece in pieces) == sum(len(word.encode("utf-8", "surrogatepass")) for word in words)
    for piece in pieces:
        assert piece.weights.sum() <= piece.bytes + 1e-9
        assert (piece.weights > 0).all()
        if text.isascii():
            assert piece.weights.sum() == pytest.approx(piece.bytes)


@given(st.text(st.sampled_from("ab \n\u00e9"), max_size=80), st.integers(1, 20))
def test_pieces_hold_every_word_once(text, most):
    pieces = list(cut(text, most))
    assert " ".join(pieces).split() == text.split()
    assert all(len(piece) <= most or " " not in piece for piece in pieces)


def test_bits_are_the_models_cross_entropy():
    pieces = mask_pieces(BPE, TEXTS, 0.3, 0)
    found = scorer(BPE, knows=False)
    _, bits, scored, beyond = found.bytes_recovered(pieces)
    logits = -np.arange(len(BPE), dtype=np.float64)
    normal = np.log(np.exp(logits).sum())
    targets = np.concatenate([piece.targets for piece in pieces])
    assert bits == pytest.approx((normal - logits[targets]).sum() / np.log(2), rel=1e-5)
    assert beyond == 0
    assert scored == pytest.approx(sum(piece.bytes for piece in pieces))


def test_what_the_model_is_too_short_for_is_lost_and_said():
    pieces = mask_pieces(BPE, TEXTS, 0.3, 0)
    found = scorer(BPE)
    found.model.config.max_position_embeddings = most = max(len(piece.ids) for piece in pieces) - 1
    rows, _, scored, beyond = found.bytes_recovered(pieces)
    assert beyond == sum(len(piece.ids) > most for piece in pieces) > 0
    assert rows[:, 0].sum() < rows[:, -1].sum() == sum(piece.bytes for piece in pieces)
    read = [piece for piece in pieces if len(piece.ids) <= most]
    assert scored == pytest.approx(sum(piece.bytes for piece in read))


def test_what_a_tokenizer_does_not_know_is_not_paid_for():
    pieces = mask_pieces(WORDS, ["mug \u2603\u2603 \u4e86 mug"], 1.0, 0)
    unknown = sum(int((piece.targets == WORDS.unk_token_id).sum()) for piece in pieces)
    assert unknown > 0
    found = scorer(WORDS, knows=False)
    _, bits, scored, _ = found.bytes_recovered(pieces)
    kept = [piece.targets[piece.targets != WORDS.unk_token_id] for piece in pieces]
    logits = -np.arange(len(WORDS), dtype=np.float64)
    wanted = (np.log(np.exp(logits).sum()) - logits[np.concatenate(kept)]).sum() / np.log(2)
    assert bits == pytest.approx(wanted, rel=1e-5)
    assert scored == len("mugmug")


def test_a_run_on_the_sample_shop(tmp_path):
    task = MaskedRecovery()
    texts = task.load(TaskSource(sample=True))
    assert all(split_of(text) != "train" for text in texts)
    folders = [save_tiny(tmp_path / kind, kind) for kind in ("rexbert", "bert")]
    one, other = (task.run(folder, texts[:40], 0, TaskOptions()) for folder in folders)
    assert one.examples.shape == other.examples.shape
    np.testing.assert_array_equal(one.examples[:, -1], other.examples[:, -1])
    assert task.score(one.examples) == pytest.approx(one.metrics["byte_accuracy@1"])
    assert one.metrics["byte_accuracy@1"] <= one.metrics["byte_accuracy@3"] <= one.metrics["byte_accuracy@5"]
    groups = task.groups(texts[:40])
    assert len(groups) == len(one.examples)
    assert set(groups.tolist()) <= set(range(40))
    assert set(one.metrics) >= {"accuracy@1", "accuracy@3", "accuracy@5", "bits_per_byte", "scored_bytes"}


def test_held_out_lines_of_a_folder(tmp_path):
    folder = tmp_path / "text" / "shop"
    folder.mkdir(parents=True)
    lines = [f"mug number {i} is fine" for i in range(3000)]
    (folder / "a.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = MaskedRecovery().load(TaskSource(data_dir=tmp_path))
    assert sorted(found) == sorted(line for line in lines if split_of(line) == "test")
    assert len(found) > 3
    whole = MaskedRecovery().load(TaskSource(data_dir=tmp_path, budget="full"))
    assert whole == [line for line in lines if split_of(line) == "test"], "as many as there are, in their order"
    with pytest.raises(DataMissing, match=r"masked_recovery: no \*.txt.gz in"):
        MaskedRecovery().load(TaskSource(data_dir=tmp_path / "text"))
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"mug" * 99)[:-9])
    with pytest.raises(ValueError, match=r"b.txt.gz: cannot be read \(.+\); fetch it again"):
        MaskedRecovery().load(TaskSource(data_dir=tmp_path))


def test_a_model_without_a_head_is_refused(tmp_path):
    config = BertConfig(vocab_size=len(WORDS), hidden_size=32, intermediate_size=32, num_hidden_layers=1,
                        num_attention_heads=1)  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    WORDS.save_pretrained(tmp_path)
    with pytest.raises(ModelUnfit, match="it has no masked-LM head"):
        MaskedScorer.load(str(tmp_path))
    settings = EvaluateSettings(models=[str(tmp_path)], tasks=["masked_recovery"], output_dir=str(tmp_path / "out"))
    outcome = run_tasks(settings)
    assert not outcome.failed
    (line,) = outcome.skipped.values()
    assert "it has no masked-LM head" in line
