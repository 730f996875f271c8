"""Neighbour product reconstruction in a run: what is in a batch, what is counted, and that nothing else changes it."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from neighbor_cases import (
    make_contents,
    make_neighbor_trainer,
    make_phases,
    make_pretraining_model,
    make_shop,
)
from training_cases import make_store, make_tokenizer, weights_of
from transformers import BertConfig, BertForMaskedLM

from rexbert_hf.objectives import AssociationGraph, ContentGraph, TripletSampler, neighbor_reconstruction_loss
from rexbert_hf.training import Curriculum, NeighborConfig, NeighborDataset, Phase, PhaseCollator, resolve
from rexbert_hf.training.collation import STATS
from rexbert_hf.training.plan import differences

READINGS = [
    {},
    {"contents": "clean"},
    {"negatives": "batch"},
    {"contents": "clean", "negatives": "batch", "token_share": 0.6},
    {"negatives": "degree", "token_share": 0.3},
    {"negatives": "length"},
]


def case(world_size=1, **options):
    stores = {"general": make_store(0, documents=40), "shop": make_shop()}
    plan = resolve(make_phases(**options), stores, world_size)
    return stores, plan, NeighborDataset(plan, stores, make_contents())


def documents(ids, borders):
    return [tuple(ids[a:b].tolist()) for a, b in pairwise(borders)]


# Batches


@pytest.mark.parametrize("options", READINGS, ids=str)
def test_triplets_are_products_neighbours_and_strangers(options):
    """Every triplet is right in the graph, each content is encoded once, and the room is kept."""
    stores, plan, dataset = case(**options)
    contents, shop = make_contents(), stores["shop"]
    of = {tuple(shop[int(row)]["input_ids"].tolist()): content for content, row in enumerate(contents.row)}
    phase, triplets, tokens, left_out = plan.phases[1], 0, 0, 0
    for step in range(phase.first_step, phase.last_step + 1):
        for micro in range(plan.micro_batches):
            batch = dataset[step, micro]
            rows = documents(batch.input_ids, batch.offsets)
            extra = [] if batch.clean is None else documents(batch.clean.input_ids, batch.clean.offsets)
            assert len(batch.input_ids) + sum(map(len, extra)) <= phase.micro_capacity(step) <= 256
            assert (batch.clean is not None) == (options.get("contents") == "clean" and len(extra) > 0)
            drawn = [[of[(rows + extra)[d]] for d in triplet] for triplet in batch.triplets]
            anchors = [a for a, _, _ in drawn]
            assert len(set(anchors)) == len(anchors)
            for a, b, c in drawn:
                near = set(contents.graph.neighbors_at(a).tolist())
                assert b in near
                assert c not in near | {a}
            used = {(rows + extra)[d] for d in batch.triplets.ravel()}
            own = sum(len(draw.indices) for draw in plan.orders[1].micro(step - phase.first_step, micro))
            further = extra + rows[own:]
            assert len(set(further)) == len(further), "each is encoded once"
            if options.get("contents") != "clean":
                assert not set(rows[:own]) & set(further), "a row that is there already serves as it is"
                assert set(further) <= used
            else:
                assert all((d >= len(rows)) for d in batch.triplets.ravel())
                assert used == set(extra), "nothing is encoded for nothing"
            triplets += len(drawn)
            left_out += batch.left_out
            tokens += len(batch.input_ids) + sum(map(len, extra))
    assert triplets > 10
    assert 0.6 * phase.max_tokens < tokens <= 1.02 * phase.max_tokens
    if "token_share" not in options:
        assert left_out < 0.5 * triplets, "the share of tokens is meant to be enough for most rows"


def lengths_of_strangers(negatives, lengths, pairs, anchor=None):
    """Lengths of neighbours and of the strangers drawn beside them."""
    graph = AssociationGraph.from_pairs(pairs, range(len(lengths)))
    zeros, rows = np.zeros(len(lengths), dtype=np.int64), np.arange(len(lengths))
    store = SimpleNamespace(lengths=np.array(lengths))
    sampler = TripletSampler(ContentGraph(graph, ("shop",), zeros, rows), {"shop": store}, 64, negatives=negatives)
    rng, found = np.random.default_rng(0), []
    for a in [anchor] * 200 if anchor is not None else range(len(lengths)):
        neighbor, stranger = sampler._draw(a, rng)
        assert neighbor in graph.neighbors_at(a)
        assert stranger not in [*graph.neighbors_at(a), a]
        found.append((lengths[neighbor], lengths[stranger]))
    return np.array(found)


def test_strangers_of_the_neighbours_length():
    """A window of 32 of 600 contents with lengths 4 to 63 spans about 3 tokens to each side."""
    lengths = np.random.default_rng(1).integers(4, 64, size=600).tolist()
    pairs = [(i, (7 * i + 1) % 600) for i in range(600) if i != (7 * i + 1) % 600]
    near = np.abs(np.diff(lengths_of_strangers("length", lengths, pairs), axis=1))
    far = np.abs(np.diff(lengths_of_strangers("uniform", lengths, pairs), axis=1))
    assert near.max() <= 4
    assert far.mean() > 15


def test_strangers_where_all_of_the_length_are_related():
    """Forty contents of length 9 are all neighbours of the first: the stranger is one of the others, of length 50."""
    lengths = [9] * 41 + [50] * 10
    found = lengths_of_strangers("length", lengths, [(0, i) for i in range(1, 41)], anchor=0)
    assert (found == [9, 50]).all()


def test_phases_without_the_objective_are_as_they_were():
    from rexbert_hf.data.loader import CurriculumDataset

    stores, plan, dataset = case()
    plain = CurriculumDataset(plan.orders, stores)
    for step in range(plan.phases[0].num_steps):
        one, two = dataset[step, 0], plain[step, 0]
        assert type(one) is type(two)
        assert np.array_equal(one.input_ids, two.input_ids)


def test_rows_of_the_order_are_all_there_and_masked_as_without_triplets():
    stores, plan, dataset = case(contents="clean")
    step = plan.phases[1].first_step
    rows = [
        tuple(row["input_ids"].tolist())
        for draw in plan.orders[1].micro(0, 0)
        for row in stores[draw.source].take(draw.indices, draw.starts, draw.stops)
    ]
    batch = dataset[step, 0]
    assert documents(batch.input_ids, batch.offsets) == rows


@pytest.mark.parametrize("kind", ["mlm", "ahm"])
@pytest.mark.parametrize("contents", ["masked", "clean"])
def test_flat_and_padded_inputs_agree(kind, contents):
    """The same ids, labels and content tokens, document by document; clean contents have neither mask nor label."""
    _, plan, dataset = case(kind=kind, contents=contents)
    batch = dataset[plan.phases[1].first_step, 0]
    tokenizer = make_tokenizer()
    flat = PhaseCollator(plan, tokenizer, flat=True)(batch)
    padded = PhaseCollator(plan, tokenizer, flat=False)(batch)
    assert torch.equal(flat["triplets"], padded["triplets"])
    borders = flat["cu_seq_lens_q"].tolist()
    clean = 0 if batch.clean is None else len(batch.clean)
    assert borders == flat["cu_seq_lens_k"].tolist()
    assert len(borders) - 1 == len(batch) + clean == len(padded["input_ids"])
    assert flat["max_length_q"] == max(b - a for a, b in pairwise(borders))
    names = ["input_ids", "labels", "content_mask"] + (["phrase_input_ids", "phrase_labels"] if kind == "ahm" else [])
    for name in names:
        assert torch.equal(flat[name][0], padded[name][padded["attention_mask"].bool()]), name
    assert not padded["content_mask"][~padded["attention_mask"].bool()].any()
    assert (flat["position_ids"][0, borders[:-1]] == 0).all()
    original = np.concatenate([batch.input_ids, batch.clean.input_ids if clean else np.zeros(0, int)])
    mask = flat["content_mask"][0].numpy()
    assert not np.isin(original[mask], [0, 1, 2]).any(), "special tokens take no part"
    document = np.repeat(np.arange(len(borders) - 1), np.diff(borders))
    in_triplets = np.isin(document, batch.triplets)
    assert np.array_equal(mask, in_triplets & ~np.isin(original, [0, 1, 2])), "masked tokens do, all others of it too"
    first_clean = borders[len(batch)]
    assert torch.equal(flat["input_ids"][0, first_clean:], torch.from_numpy(original[first_clean:]).long())
    assert (flat["labels"][0, first_clean:] == -100).all()
    assert (flat["labels"][0, :first_clean] != -100).any()
    assert flat[STATS]["tokens"] == len(original)
    assert flat[STATS]["documents"] == len(borders) - 1


# Budgets


@pytest.mark.parametrize(
    ("settings", "share"),
    [({}, 1 / 3), ({"contents": "clean"}, 1 / 4), ({"negatives": "batch"}, 1 / 2), ({"token_share": 0.2}, 0.8)],
)
def test_budgets_count_every_encoding(settings, share):
    stores = {"shop": np.full(600, 16)}
    options = {"seq_length": 32, "batch_tokens": 1920, "objectives": ["mlm", "npr"]}
    options["neighbors"] = NeighborConfig(**settings)
    budget = resolve(
        Curriculum([Phase("a", {"shop": 1.0}, max_tokens=96_000, **options)], micro_batch_tokens=960), stores
    )
    phase = budget.phases[0]
    assert phase.max_tokens == 96_000
    assert phase.num_steps == pytest.approx(50, abs=3)  # rows of 16 tokens do not fill every share
    assert phase.micro_capacity(0) == pytest.approx(960, abs=4)
    assert phase.order.micro_capacity(0) == pytest.approx(960 * share, abs=1)
    assert phase.tokens_before(phase.num_steps) == pytest.approx(96_000, rel=1e-3)
    epochs = resolve(Curriculum([Phase("a", {"shop": 1.0}, epochs=2, **options)], micro_batch_tokens=960), stores)
    assert epochs.phases[0].order.max_tokens == 2 * 9600, "an epoch is a pass of the rows"
    assert epochs.phases[0].max_tokens == pytest.approx(2 * 9600 / share, rel=1e-3)
    assert epochs.phases[0].steps_for(9600 / share) == pytest.approx(epochs.phases[0].num_steps / 2, abs=1)


def test_a_row_must_fit_beside_the_further_encodings():
    stores = {"shop": np.full(600, 16)}
    phase = Phase("a", {"shop": 1.0}, max_tokens=9_600, seq_length=200, batch_tokens=480, objectives=["mlm", "npr"])
    with pytest.raises(
        ValueError, match=r"160 tokens beside what its objective 'npr' encodes: raise batch_tokens to 600"
    ):
        resolve(Curriculum([phase], micro_batch_tokens=960), stores)


# Training


def test_both_losses_are_trained_and_logged(tmp_path):
    trainer = make_neighbor_trainer(tmp_path, make_phases(steps=40))
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    joint = [entry for entry in logs if entry["phase"] == 1]
    assert not any("loss_npr" in entry for entry in logs if entry["phase"] == 0)
    assert all(entry["triplets"] > 0 for entry in joint)
    for entry in joint:
        assert entry["loss"] == pytest.approx(entry["loss_mlm"] + entry["loss_npr"], rel=1e-3)
    first, last = (np.mean([entry["loss_npr"] for entry in part]) for part in (joint[:8], joint[-8:]))
    assert last < 0.8 * first
    assert trainer.model.config.npr_normalize is True


def test_triplets_of_both_modes_are_counted_once(tmp_path):
    curriculum = make_phases(kind="ahm", first=False)
    curriculum.phases[0].masking.options["mode"] = "weighted"
    trainer = make_neighbor_trainer(tmp_path, curriculum)
    counts = []
    finish = trainer.finish_step

    def counted(control):
        counts.append(trainer._counts["loss.npr"])
        finish(control)

    trainer.finish_step = counted
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["triplets"] for entry in logs] == counts
    assert min(counts) > 0
    assert all(entry["loss_npr"] > 0 for entry in logs)


def test_the_loss_is_that_of_the_equations_over_the_whole_step(tmp_path):
    """Masked LM over the step's labels plus weight times the mean over the step's triplets, from hidden states."""
    curriculum = make_phases(steps=1, first=False, weight=0.25, margin=2.0)
    model = make_pretraining_model(dropout=0.0)
    reference = copy.deepcopy(model).eval()
    trainer = make_neighbor_trainer(tmp_path, curriculum, model)
    assert trainer.args.gradient_accumulation_steps == 3
    trainer.train()
    entry = next(entry for entry in trainer.state.log_history if "loss" in entry)
    collator = PhaseCollator(trainer.plan, make_tokenizer(), flat=True)
    mlm, labels, hinges = 0.0, 0, []
    for micro in range(3):
        batch = collator(trainer.train_dataset[0, micro])
        borders = batch["cu_seq_lens_q"].tolist()
        for d, (a, b) in enumerate(pairwise(borders)):
            ids, own = batch["input_ids"][:, a:b], batch["labels"][0, a:b]
            with torch.no_grad():
                logits = reference(ids).logits[0]
            picked = own != -100
            mlm += (
                float(torch.nn.functional.cross_entropy(logits[picked], own[picked], reduction="sum"))
                if picked.any()
                else 0
            )
            labels += int(picked.sum())
            if d in batch["triplets"]:
                with torch.no_grad():
                    hidden = reference.model(ids).last_hidden_state
                batch[d] = hidden, batch["content_mask"][:, a:b]
        for triplet in batch["triplets"].tolist():
            states, masks = zip(*(batch[d] for d in triplet), strict=True)
            hinges.append(float(neighbor_reconstruction_loss(*states, *masks, margin=2.0, normalize=True)))
    assert entry["loss_mlm"] == pytest.approx(mlm / labels, rel=1e-4)
    assert entry["loss_npr"] == pytest.approx(np.mean(hinges), rel=1e-4)
    assert entry["triplets"] == len(hinges)
    assert entry["loss"] == pytest.approx(mlm / labels + 0.25 * np.mean(hinges), rel=1e-4)


@pytest.mark.parametrize("contents", ["masked", "clean"])
def test_losses_do_not_depend_on_workers(tmp_path, contents):
    found = []
    for workers in (0, 2):
        curriculum = make_phases(steps=3, contents=contents, first=False)
        trainer = make_neighbor_trainer(tmp_path / str(workers), curriculum, dataloader_num_workers=workers)
        trainer.train()
        found.append(weights_of(trainer.model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("kind", ["mlm", "ahm"])
def test_stopped_and_resumed_is_never_stopped(tmp_path, kind):
    whole = make_neighbor_trainer(tmp_path / "whole", make_phases(steps=5, kind=kind))
    whole.train()
    for stop in (1, 4, whole.state.max_steps):
        part = make_neighbor_trainer(tmp_path / "part", make_phases(steps=5, kind=kind), max_steps=stop)
        part.train()
    assert part.resumed_from_step == 4
    expected = weights_of(whole.model)
    assert all(torch.equal(value, expected[name]) for name, value in weights_of(part.model).items())
    other = make_neighbor_trainer(tmp_path / "other", make_phases(steps=5, kind=kind, negatives="degree"))
    assert differences(part.description(), other.description()) == [
        "phases.1.neighbors.negatives: uniform -> degree"
    ], "another way to train is another plan"


def test_any_masked_lm_model_can_be_trained(tmp_path):
    """A stock BERT on padded batches: hidden states and logits give the same sums as the built-in model's path."""
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = BertForMaskedLM(BertConfig(vocab_size=64, max_position_embeddings=64, pad_token_id=0, **shape))
    trainer = make_neighbor_trainer(tmp_path, make_phases(steps=30), model)
    trainer.train()
    joint = [entry for entry in trainer.state.log_history if "loss_npr" in entry]
    assert np.mean([e["loss_npr"] for e in joint[-6:]]) < 0.9 * np.mean([e["loss_npr"] for e in joint[:6]])
    assert all(e["loss"] == pytest.approx(e["loss_mlm"] + e["loss_npr"], rel=1e-3) for e in joint)


def test_states_and_built_in_model_give_the_same_losses(tmp_path, monkeypatch):
    """The path of any model, taken by the model that also has its own."""
    from rexbert_hf.training import neighbors

    found = []
    for built_in in (True, False):
        if not built_in:
            monkeypatch.setattr(neighbors, "RexBertForPreTraining", type(None))
        trainer = make_neighbor_trainer(
            tmp_path / str(built_in), make_phases(steps=2, first=False), make_pretraining_model(dropout=0.0)
        )
        padded = PhaseCollator(trainer.plan, make_tokenizer(), flat=False)
        trainer.data_collator = padded
        trainer.train()
        found.append(
            [entry[key] for entry in trainer.state.log_history if "loss" in entry for key in ("loss_mlm", "loss_npr")]
        )
    assert found[0] == pytest.approx(found[1], rel=1e-4)


def test_what_is_missing_is_an_error(tmp_path):
    trainer = make_neighbor_trainer(tmp_path, make_phases(steps=1, first=False), dataset="plain")
    with pytest.raises(ValueError, match="phase 'joint' trains 'npr', but its batches hold no triplets"):
        trainer.train()
    stores = {"general": make_store(0), "shop": make_shop()}
    curriculum = make_phases(steps=1, first=False)
    curriculum.phases[0].mixture = {"general": 1.0}
    with pytest.raises(ValueError, match=r"phase 'joint': none of its sources \(general\) holds a product with"):
        NeighborDataset(resolve(curriculum, stores), stores, make_contents())


@pytest.mark.parametrize("values", [{"weight": 0}, {"margin": -1.0}, {"token_share": 1.0}, {"token_share": 0}])
def test_settings_out_of_range(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        NeighborConfig(**values)


def test_two_ranks_equal_accumulation(tmp_path):
    """Micro-batches dealt to two processes give the losses and gradients of one that goes through them in turn."""
    options = {"steps": 3, "contents": "clean", "logging_steps": 1}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc_per_node", "2", str(Path(__file__).with_name("neighbor_cases.py"))]
    done = subprocess.run(
        [*command, str(tmp_path / "two"), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=280,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    trainer = make_neighbor_trainer(tmp_path / "one", make_phases(steps=3, contents="clean", micro_batch_tokens=192))
    assert trainer.args.gradient_accumulation_steps == 4
    trainer.train()
    for key in ("loss", "loss_npr", "loss_mlm", "grad_norm", "triplets"):
        found = [entry[key] for entry in trainer.state.log_history if key in entry]
        assert result[key] == pytest.approx(found, rel=2e-4), key
