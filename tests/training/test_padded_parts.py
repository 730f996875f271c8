"""Other architectures: a micro-batch of long and short documents takes no more memory than its tokens allow."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
import torch
from training_cases import make_bert, make_padded_curriculum, make_store, make_tokenizer, make_trainer, weights_of

from rexbert_hf.data import CurriculumDataset, TokenisedDataset
from rexbert_hf.masking import MLMCollator, QueryProductCollator
from rexbert_hf.training import Curriculum, CurriculumTrainer, MaskingConfig, Phase, PhaseCollator, resolve
from rexbert_hf.training.collation import STATS
from rexbert_hf.training.padded_parts import PARTS, cut_by_length, length_parts, parts_of, slots_of

TITLES, DESCRIPTIONS = (10, 30), (200, 510)


def a_shop(documents: int = 1500) -> TokenisedDataset:
    """Titles, and a long description for one product in twenty."""
    rng = np.random.default_rng(0)
    long = rng.random(documents) < 0.05
    lengths = np.where(long, rng.integers(*DESCRIPTIONS, documents), rng.integers(*TITLES, documents))
    return TokenisedDataset.from_rows([{"input_ids": [1, *([7] * int(n)), 2]} for n in lengths])


def documents_of(batch) -> list[tuple[tuple[int, int], ...]]:
    """(token, label) of each document, sorted."""
    found = []
    for part in parts_of(batch):
        for ids, labels, mask in zip(part["input_ids"], part["labels"], part["attention_mask"].bool(), strict=True):
            found.append(tuple(zip(ids[mask].tolist(), labels[mask].tolist(), strict=True)))
    return sorted(found)


def test_no_forward_pass_has_more_slots_than_a_micro_batch_has_tokens():
    stores = {"shop": a_shop()}
    phase = Phase("p", {"shop": 1.0}, max_tokens=32_768, batch_tokens=16_384, seq_length=512)
    plan = resolve(Curriculum([phase], micro_batch_tokens=4096), stores)
    dataset, collate = CurriculumDataset(plan.orders, stores), PhaseCollator(plan, make_tokenizer(), flat=False)
    for micro in range(plan.micro_batches):
        rows = dataset[0, micro]
        batch = pickle.loads(pickle.dumps(collate(rows)))  # as a loader's worker hands it over
        parts = parts_of(batch)
        sizes = [part["input_ids"].numel() for part in parts]
        assert max(sizes) <= 4096
        whole = MLMCollator(make_tokenizer(), mlm_probability=0.3, flat=False, seed=plan.seed)(rows)
        assert whole["input_ids"].numel() > 4 * 4096, "what it would take in one pass"
        assert documents_of(batch) == documents_of(whole)
        assert batch[STATS]["slots"] == sum(sizes)
        assert len(rows.input_ids) / sum(sizes) > 0.5
        for part in parts:
            lengths = part["attention_mask"].sum(1)
            assert part["input_ids"].shape[1] == int(lengths.max())
            assert (part["labels"][part["attention_mask"] == 0] == -100).all()


def test_parts_are_bounded_filled_by_half_and_hold_each_document_once():
    rng = np.random.default_rng(1)
    for _ in range(50):
        lengths = rng.integers(1, 300, int(rng.integers(1, 60)))
        most = int(rng.integers(1, 1000))
        parts = length_parts(lengths, most)
        assert sorted(itertools.chain.from_iterable(part.tolist() for part in parts)) == list(range(len(lengths)))
        for part in parts:
            slots = len(part) * int(lengths[part].max())
            assert slots <= most or len(part) == 1
            assert 2 * int(lengths[part].sum()) > slots


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_tensor_of_a_row_goes_with_it(side):
    tokenizer = make_tokenizer()
    tokenizer.padding_side = side
    rows = [{"query_ids": [5] * a, "product_ids": [9] * b, "step": 0} for a, b in [(2, 3), (1, 25), (3, 4), (2, 1)]]
    batch = QueryProductCollator(tokenizer, token_type_ids=True, pad_to_multiple_of=4)(rows)
    batch["relevance"] = torch.arange(4)
    cut = cut_by_length(batch, most=24, left=side == "left", multiple=4)
    assert cut[PARTS] == [[1, 32], [2, 12], [1, 8]]
    assert slots_of(cut) == 64
    for part in parts_of(cut):
        assert part["token_type_ids"].shape == part["input_ids"].shape
        for i, row in enumerate(part["relevance"].tolist()):
            for name in ("input_ids", "labels", "token_type_ids"):
                kept = part[name][i][part["attention_mask"][i].bool()]
                assert torch.equal(kept, batch[name][row][batch["attention_mask"][row].bool()])


class InOnePass(CurriculumTrainer):
    """Each micro-batch whole, as padded batches were before."""

    def choose_inputs(self, batches):
        return [self._whole(batch) for batch in super().choose_inputs(batches)]

    @staticmethod
    def _whole(batch):
        fills = {"input_ids": 0, "labels": -100, "attention_mask": 0}
        parts = parts_of(batch)
        width = max(part["input_ids"].shape[1] for part in parts)
        return {
            name: torch.cat(
                [torch.nn.functional.pad(p[name], (0, width - p[name].shape[1]), value=fill) for p in parts]
            )
            for name, fill in fills.items()
        }


def test_a_run_in_parts_is_the_run_in_one_pass(tmp_path, monkeypatch):
    found = []
    for kind in (CurriculumTrainer, InOnePass):
        monkeypatch.setattr("training_cases.CurriculumTrainer", kind)
        trainer = make_trainer(tmp_path / kind.__name__, make_padded_curriculum(), make_bert())
        shapes = [trainer.data_collator(trainer.train_dataset[0, micro]).get(PARTS) for micro in (0, 1)]
        assert all(len(shape) > 1 for shape in shapes)
        trainer.train()
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        found.append(([entry["loss"] for entry in logs], weights_of(trainer.model)))
        assert all(0.5 < entry["fill"] < 1 for entry in logs)
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    for name, value in found[0][1].items():
        torch.testing.assert_close(value, found[1][1][name], rtol=1e-3, atol=1e-4)


class Rebuilt(CurriculumTrainer):
    """Replaces inputs, and loses the shapes of their parts."""

    def choose_inputs(self, batches):
        names = ("input_ids", "attention_mask", "labels")
        return [{name: batch[name] for name in names} for batch in super().choose_inputs(batches)]


def test_documents_that_would_be_read_as_one_are_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("training_cases.CurriculumTrainer", Rebuilt)
    with pytest.raises(ValueError, match=r"^a micro-batch of \d+ documents lost its 'part_shapes'.*: keep that key"):
        make_trainer(tmp_path, make_padded_curriculum(), make_bert()).train()


def test_positions_that_restart_tell_documents_apart():
    """RexBERT takes flat batches by their positions, too; nothing was lost."""
    ids, positions = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 0]])
    assert parts_of({"input_ids": ids, "position_ids": positions}, 2) == [{"input_ids": ids, "position_ids": positions}]
    with pytest.raises(ValueError, match="a micro-batch of 2 documents lost its 'part_shapes'"):
        parts_of({"input_ids": ids}, 2)


def test_stopped_and_resumed_is_never_stopped(tmp_path):
    """With dropout, whose draws go through the parts in turn."""
    models = []
    for stops in ((None,), (5, None)):
        for stop in stops:
            model = make_bert()
            for module in model.modules():
                if isinstance(module, torch.nn.Dropout):
                    module.p = 0.2
            options = {} if stop is None else {"max_steps": stop}
            trainer = make_trainer(tmp_path / str(len(stops)), make_padded_curriculum(), model, **options)
            trainer.train()
        models.append(weights_of(trainer.model))
    assert trainer.resumed_from_step == 5
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_both_adaptive_maskings_are_cut_alike():
    stores = {"general": make_store(0, longest=60)}
    masking = MaskingConfig("ahm", 0.15, options={"alpha_0": 0.7, "initial_steps": 9, "mode": "weighted"})
    phase = Phase("p", {"general": 1.0}, max_tokens=1024, batch_tokens=512, seq_length=64, masking=masking)
    plan = resolve(Curriculum([phase], micro_batch_tokens=256), stores)
    batch = PhaseCollator(plan, make_tokenizer(), flat=False)(CurriculumDataset(plan.orders, stores)[0, 0])
    assert len(batch[PARTS]) > 1
    for part in parts_of(batch):
        same = (part["labels"] == -100) & (part["phrase_labels"] == -100)
        assert part["phrase_input_ids"].shape == part["input_ids"].shape
        assert torch.equal(part["phrase_input_ids"][same], part["input_ids"][same])
