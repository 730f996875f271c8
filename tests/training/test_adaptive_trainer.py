"""Adaptive masking through the trainer: the mode of a step follows the losses before it, whatever else varies."""

from __future__ import annotations

import logging

import pytest
import torch
from test_exact_resume import assert_same, start
from test_ranks import run_two_ranks
from training_cases import make_curriculum, make_model, make_trainer, weights_of

from rexbert_hf.masking import AdaptiveSwitch
from rexbert_hf.training import MaskingConfig, last_complete_checkpoint
from rexbert_hf.training.adaptive import STATE_KEY, mode_draw

OPTIONS = {"alpha_0": 0.6, "initial_steps": 3}
FIRST, STEPS = 3, 14
"""Steps of the phase before, and of the adaptive one."""


def curriculum(**options):
    return make_curriculum((FIRST, STEPS), adaptive=OPTIONS | options)


def records(trainer):
    return [entry for entry in trainer.state.log_history if "alpha" in entry]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a log record a step."""
    trainer = make_trainer(tmp_path_factory.mktemp("adaptive"), curriculum())
    trainer.train()
    return trainer


def test_each_mode_is_a_function_of_the_losses_before_it(trained):
    """Alphas and modes again, from nothing but the logged losses, the seed and the step numbers."""
    switch = AdaptiveSwitch(**OPTIONS)
    alphas = []
    for record in records(trained):
        mode = "word" if mode_draw(trained.plan.seed, record["step"] - 1) < switch.alpha else "phrase"
        assert record["word_share"] == (mode == "word")
        assert {"word", "phrase"} - {mode} == {m for m in ("word", "phrase") if f"loss_{m}" not in record}
        assert record[f"loss_{mode}"] == pytest.approx(record["loss"], rel=1e-6)
        switch.update(mode, record[f"loss_{mode}"])
        assert (record["alpha"], record["eta_w"], record["eta_p"]) == (
            switch.alpha,
            switch.eta_word,
            switch.eta_phrase,
        )
        alphas.append(switch.alpha)
    assert [record["step"] for record in records(trained)] == list(range(FIRST + 1, FIRST + STEPS + 1))
    assert len({round(alpha, 6) for alpha in alphas}) > 2, "alpha moves in this run"
    assert {record["word_share"] for record in records(trained)} == {0.0, 1.0}, "both modes ran"


def test_texts_without_phrases_are_reported_where_phrases_are_masked(trained):
    for record in records(trained):
        assert ("texts_without_phrases" in record) == (record["word_share"] == 0)
    batches = [trained.train_dataset[record["step"] - 1, i] for record in records(trained) for i in (0, 1)]
    without = [sum("span_start" in row and not len(row["span_start"]) for row in batch) for batch in batches]
    expected = [a + b for a, b in zip(without[::2], without[1::2], strict=True)]
    assert sum(expected) > 0
    for record, count in zip(records(trained), expected, strict=True):
        assert record.get("texts_without_phrases", count) == count


def test_labels_and_accuracy_are_those_of_the_mode(tmp_path):
    trainer = make_trainer(tmp_path, curriculum(alpha_0=0.0, initial_steps=100))
    seen = []
    inner = trainer._count_step

    def count_step():
        inner()
        if trainer.adaptive is not None:
            seen.append((trainer.state.global_step, trainer._counts["loss.mlm"], trainer._batches))

    trainer._count_step = count_step
    trainer.train()
    for step, count, batches in seen:
        fresh = [trainer.data_collator(trainer.train_dataset[step, i]) for i in (0, 1)]
        assert count == sum(int((batch["phrase_labels"] != -100).sum()) for batch in fresh)
        for batch, expected in zip(batches, fresh, strict=True):
            assert torch.equal(batch["labels"], expected["phrase_labels"])
            assert torch.equal(batch["input_ids"], expected["phrase_input_ids"])
            assert not [name for name in batch if name.startswith("phrase_")]
    for record, (_, count, _) in zip(records(trainer), seen, strict=True):
        correct = record["masked_accuracy"] * count
        assert correct == pytest.approx(round(correct), abs=1e-6)


def test_workers_and_resume_change_nothing(tmp_path, trained):
    """Stopped within the adaptive phase, with two loader workers far ahead of the losses."""
    for stop, workers in ((FIRST + 2, 0), (FIRST + 8, 2), (None, 2)):
        trainer = make_trainer(
            tmp_path, curriculum(), save_steps=2, max_steps=stop or -1, dataloader_num_workers=workers
        )
        trainer.train()
    assert trainer.resumed_from_step == FIRST + 8
    assert_same(weights_of(trainer.model), weights_of(trained.model))
    kept = ("alpha", "eta_w", "eta_p", "word_share")
    assert [[r[k] for k in kept] for r in records(trainer)] == [[r[k] for k in kept] for r in records(trained)]


def test_killed_within_the_adaptive_phase(tmp_path, trained):
    options = f'{{"kill_after": {FIRST + 9}, "steps": [{FIRST}, {STEPS}], "adaptive": {{"alpha_0": 0.6, '
    first = start(tmp_path, options + '"initial_steps": 3}}')
    assert first.wait(120) == -9
    assert last_complete_checkpoint(tmp_path).step == 8
    trainer = make_trainer(tmp_path, curriculum())
    trainer.train()
    assert trainer.resumed_from_step == 8
    assert_same(weights_of(trainer.model), weights_of(trained.model))


def test_the_restored_state_matters(tmp_path, trained):
    """The comparisons above would notice a switch that starts again: its alphas differ."""
    make_trainer(tmp_path, curriculum(), max_steps=FIRST + 8).train()
    trainer = make_trainer(tmp_path, curriculum())
    inner = trainer.enter_adaptive

    def forget(phase, step):
        inner(phase, step)
        trainer.adaptive.switch = AdaptiveSwitch(**OPTIONS)

    trainer.enter_adaptive = forget
    trainer.train()
    assert [record["alpha"] for record in records(trainer)] != [record["alpha"] for record in records(trained)]


def test_a_checkpoint_without_the_state_is_refused(tmp_path):
    make_trainer(tmp_path, curriculum(), max_steps=FIRST + 4).train()
    trainer = make_trainer(tmp_path, curriculum())
    inner = trainer.enter_adaptive

    def lose(phase, step):
        del trainer.state.stateful_callbacks[STATE_KEY]
        inner(phase, step)

    trainer.enter_adaptive = lose
    with pytest.raises(ValueError, match=rf"checkpoint of step {FIRST + 4} has no state of adaptive masking"):
        trainer.train()


def test_a_new_phase_starts_a_new_switch(tmp_path):
    """Stopped at the border of two adaptive phases, too: the first one's state is not taken over."""
    plan = make_curriculum((FIRST, 2), adaptive=OPTIONS)
    plan.phases[0].masking = MaskingConfig("ahm", 0.15, options=OPTIONS)
    for stop in (FIRST, None):
        trainer = make_trainer(tmp_path, plan, max_steps=stop or -1)
        trainer.train()
    assert trainer.adaptive.switch.steps == 2
    alphas = [record["alpha"] for record in records(trainer)]
    assert alphas[FIRST : FIRST + 2] == [0.6, 0.6]


def test_two_ranks_agree_with_one(tmp_path):
    """The loss that moves the switch is that of the whole global step."""
    options = '{"steps": [2, 6], "save_steps": 100, "adaptive": {"alpha_0": 0.6, "initial_steps": 2}}'
    done = run_two_ranks(tmp_path / "two", options)
    assert done.returncode == 0, done.stderr[-3000:]
    result = torch.load(tmp_path / "two" / "final.pt", weights_only=True)
    trainer = make_trainer(tmp_path / "one", make_curriculum((2, 6), adaptive=OPTIONS | {"initial_steps": 2}))
    trainer.train()
    assert result["word_shares"] == [record["word_share"] for record in records(trainer)]
    assert len(set(result["word_shares"])) == 2
    expected = torch.tensor([record["alpha"] for record in records(trainer)])
    # Losses agree to 1e-6 or so and differ by some 1e-2 from step to step.
    torch.testing.assert_close(torch.tensor(result["alphas"]), expected, rtol=1e-2, atol=1e-2)
    losses = torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    torch.testing.assert_close(torch.tensor(result["losses"]), losses, rtol=1e-5, atol=1e-6)


def test_weighted_is_equation_7(tmp_path):
    """alpha times the word loss and 1 - alpha times the phrase loss, each a mean over its own labels of the step."""
    plan = make_curriculum((1, 3), adaptive={"alpha_0": 0.7, "initial_steps": 9, "mode": "weighted"})
    plan.phases[1].learning_rate = plan.phases[0].learning_rate = 1e-30
    trainer = make_trainer(tmp_path, plan, make_model(dropout=0.0), max_grad_norm=0.0)
    gradients = []
    inner = trainer.check_finite

    def check_finite():
        inner()
        gradients.append([p.grad.clone() for p in trainer.model.parameters()])

    trainer.check_finite = check_finite
    trainer.train()
    model = make_model(dropout=0.0).train()
    model.set_rope_theta(global_theta=160_000.0)
    micros = [trainer.data_collator(trainer.train_dataset[1, i]) for i in (0, 1)]
    means = {}
    for prefix in ("", "phrase_"):
        total, count = 0.0, 0
        for batch in micros:
            ids, labels = batch[prefix + "input_ids"], batch[prefix + "labels"]
            rest = {name: batch[name] for name in batch if "seq_lens" in name or "max_length" in name}
            logits = model(input_ids=ids, position_ids=batch["position_ids"], **rest).logits
            total = total + torch.nn.functional.cross_entropy(logits[0], labels[0], reduction="sum")
            count += int((labels != -100).sum())
        means[prefix] = total / count
    (0.7 * means[""] + 0.3 * means["phrase_"]).backward()
    for got, expected in zip(gradients[1], (p.grad for p in model.parameters()), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
    record = records(trainer)[0]
    assert record["loss_word"] == pytest.approx(means[""].item(), rel=1e-5)
    assert record["loss_phrase"] == pytest.approx(means["phrase_"].item(), rel=1e-5)
    assert 0.5 < record["fill"] <= 1.0
    tokens = sum(len(batch["input_ids"][0]) for batch in micros)
    assert sum(trainer.computed(batch["batch_stats"])["tokens"] for batch in micros) == 2 * tokens
    assert trainer.adaptive.switch.steps == 3


def test_a_constant_alpha_stays(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum((1, 12), adaptive={"alpha_0": 0.5, "mode": "constant"}))
    trainer.train()
    assert {record["alpha"] for record in records(trainer)} == {0.5}
    assert {record["word_share"] for record in records(trainer)} == {0.0, 1.0}
    assert any(record["eta_w"] > 0 for record in records(trainer)), "the indexes are logged all the same"


def test_evaluation_masks_the_same_whatever_the_phase(tmp_path):
    """Before any step: an adaptive first phase and a plain one give the same held-out loss."""
    losses = []
    for kind in ("mlm", "ahm"):
        plan = make_curriculum((1, 1))
        plan.phases[0].masking = MaskingConfig(kind, 0.15)
        trainer = make_trainer(tmp_path / kind, plan, held_out=True, max_steps=1)
        trainer.train()
        losses.append(trainer.held_out_results()[0]["eval_loss"])
    assert losses[0] == losses[1]


def test_the_initial_stage_in_steps_tokens_and_epochs(tmp_path, caplog):
    def initial(**options):
        trainer = make_trainer(tmp_path / str(options), make_curriculum((1, 30), adaptive=options), max_steps=2)
        trainer.train()
        return trainer.adaptive.switch.initial_steps, trainer.plan.phases[1]

    assert initial(initial_steps=7)[0] == 7
    steps, phase = initial(initial_tokens=2048)
    assert phase.order.tokens_before(steps - 1) < 2048 <= phase.order.tokens_before(steps)
    steps, phase = initial(initial_epochs=0.5)
    half = sum(phase.order.source_tokens.values()) / 2
    assert phase.order.tokens_before(steps - 1) < half <= phase.order.tokens_before(steps)
    assert "alpha stays" not in caplog.text
    with caplog.at_level(logging.WARNING):
        steps, phase = initial(initial_epochs=20)
    assert steps == phase.num_steps
    assert "phase 'shop': its initial stage takes all of its" in caplog.text


def test_the_switch_sees_the_masked_language_part_of_a_loss(tmp_path):
    class Parts(torch.nn.Module):
        """Adds a part of constant 5 to the model's own loss."""

        loss_weights = {"other": 2.0}

        def __init__(self):
            super().__init__()
            self.inner = make_model()
            self.config = self.inner.config
            self.set_rope_theta = self.inner.set_rope_theta

        def forward(self, **batch):
            count = (batch["labels"] != -100).sum()
            out = self.inner(**{key: value for key, value in batch.items() if key != "num_items_in_batch"})
            out.loss_parts = {"mlm": (out.loss * count, count), "other": (out.loss.detach() * 0 + 5.0, 1)}
            return out

    trainer = make_trainer(tmp_path, make_curriculum((1, 2), adaptive=OPTIONS), Parts(), save_steps=100)
    counts = trainer.loss_counts
    trainer.loss_counts = lambda batch: counts(batch) | {"other": 1}
    trainer._save_checkpoint = lambda *args: None
    trainer.data_collator = make_trainer(tmp_path, make_curriculum((1, 2), adaptive=OPTIONS)).data_collator
    trainer.train()
    for record in records(trainer):
        mode = "word" if record["word_share"] else "phrase"
        assert record["loss"] == pytest.approx(record[f"loss_{mode}"] + 2 * 5.0, rel=1e-5)


def test_options_are_checked_with_the_phase(tmp_path):
    for options, problem in [
        ({"alpha_0": 1.5}, "alpha_0 is a probability; got 1.5"),
        ({"mode": "coin"}, "unknown mode 'coin': use one of sampled, weighted, constant"),
        ({"initial_steps": 3, "initial_tokens": 9}, "set at most one of"),
        ({"initial_epochs": -1}, "initial_epochs must not be negative"),
    ]:
        with pytest.raises(ValueError, match=rf"phase 'shop': masking.options: .*{problem}"):
            make_curriculum(adaptive=options)
    with pytest.raises(ValueError, match=r"phase 'shop': masking.options: .*'alpha_zero'"):
        make_trainer(tmp_path, make_curriculum(adaptive={"alpha_zero": 0.6}))
    plan = make_curriculum()
    plan.phases[1].masking = MaskingConfig("span", 0.15, options={"alpha_0": 0.6})
    with pytest.raises(ValueError, match=r"phase 'shop': masking.options: .*'alpha_0'"):
        make_trainer(tmp_path, plan)


def test_a_scaled_curriculum_scales_the_initial_stage():
    halves = [
        make_curriculum(adaptive=options).scaled(0.5).phases[1].masking.options
        for options in ({}, {"initial_steps": 9}, {"initial_tokens": "1000"}, {"initial_epochs": 3})
    ]
    assert halves == [{"initial_epochs": 0.5}, {"initial_steps": 4}, {"initial_tokens": 500}, {"initial_epochs": 1.5}]


@pytest.mark.parametrize("kind", ["phrase", "noun_phrase", "span"])
def test_the_other_rows_of_the_ablation_train(tmp_path, kind):
    plan = make_curriculum((1, 2))
    plan.phases[1].masking = MaskingConfig(kind, 0.15)
    trainer = make_trainer(tmp_path, plan)
    trainer.train()
    assert trainer.state.global_step == 3
    assert records(trainer) == []
