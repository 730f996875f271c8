"""Adaptive masking in the stock Trainer, with a stock model and padded batches."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from training_cases import make_stock_model, make_store, make_tokenizer, weights_of
from transformers import BertConfig, BertForMaskedLM, Trainer, TrainingArguments

from rexbert_hf import AdaptiveHybridMaskingCollator, AdaptiveMaskingMixin
from rexbert_hf.masking import AdaptiveSwitch
from rexbert_hf.training import AdaptiveSettings
from rexbert_hf.training.adaptive import STATE_KEY, mode_draw

SETTINGS = {"alpha_0": 0.4, "initial_steps": 7}


class MyTrainer(AdaptiveMaskingMixin, Trainer):
    """As the documentation writes it."""


class Rows(torch.utils.data.Dataset):
    """Rows with their own number as the step, so that masks do not change with a resume."""

    def __init__(self, documents=96):
        self.rows = list(make_store(0, documents).take(range(documents)))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return {**self.rows[i], "step": i}


def make_bert():
    torch.manual_seed(7)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForMaskedLM(BertConfig(vocab_size=64, max_position_embeddings=64, **shape))


def make_adaptive_trainer(output_dir, model=None, settings=None, **arguments):
    options = {
        "use_cpu": True,
        "report_to": "none",
        "disable_tqdm": True,
        "logging_steps": 1,
        "save_steps": 4,
        "max_steps": 12,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "learning_rate": 3e-3,
        "lr_scheduler_type": "constant",
        "remove_unused_columns": False,
        "seed": 5,
    }
    return MyTrainer(
        model=model if model is not None else make_bert(),
        args=TrainingArguments(str(output_dir), **options | arguments),
        train_dataset=Rows(),
        eval_dataset=Rows(16),
        data_collator=AdaptiveHybridMaskingCollator(make_tokenizer()),
        adaptive=AdaptiveSettings(**settings if settings is not None else SETTINGS),
    )


def records(trainer):
    return [entry for entry in trainer.state.log_history if "alpha" in entry]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    trainer = make_adaptive_trainer(tmp_path_factory.mktemp("stock"))
    trainer.train()
    return trainer


def test_modes_follow_the_losses(trained):
    switch = AdaptiveSwitch(**SETTINGS)
    assert len(records(trained)) == 12
    for step, record in enumerate(records(trained)):
        mode = "word" if mode_draw(5, step) < switch.alpha else "phrase"
        assert record["word_share"] == (mode == "word")
        assert record[f"loss_{mode}"] == pytest.approx(record["loss"], abs=2e-4)  # the stock Trainer rounds
        assert ("texts_without_phrases" in record) == (mode == "phrase")
        switch.update(mode, record[f"loss_{mode}"])
        assert record["alpha"] == switch.alpha
    assert {record["word_share"] for record in records(trained)} == {0.0, 1.0}
    assert sum(record.get("texts_without_phrases", 0) for record in records(trained)) > 0


def test_the_state_is_json_in_the_checkpoint_and_resumes(trained, tmp_path):
    """Stopped once after a checkpoint; workers prepare batches ahead in the second sitting."""
    make_adaptive_trainer(tmp_path, max_steps=8).train()
    state = json.loads((tmp_path / "checkpoint-8" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"][STATE_KEY]["switch"]["steps"] == 8
    resumed = make_adaptive_trainer(tmp_path, dataloader_num_workers=1)
    resumed.train(resume_from_checkpoint=True)
    kept = ("alpha", "eta_w", "eta_p", "word_share")
    assert [[r[k] for k in kept] for r in records(resumed)] == [[r[k] for k in kept] for r in records(trained)]
    for name, value in weights_of(resumed.model).items():
        assert torch.equal(value, weights_of(trained.model)[name]), name


def test_a_checkpoint_without_the_state_starts_again_and_says_so(tmp_path, caplog):
    make_adaptive_trainer(tmp_path, max_steps=4).train()
    path = tmp_path / "checkpoint-4" / "trainer_state.json"
    state = json.loads(path.read_text())
    del state["stateful_callbacks"][STATE_KEY]
    path.write_text(json.dumps(state))
    trainer = make_adaptive_trainer(tmp_path, max_steps=5)
    with caplog.at_level(logging.WARNING):
        trainer.train(resume_from_checkpoint=True)
    assert "the checkpoint of step 4 has no state of adaptive masking" in caplog.text
    assert trainer.adaptive.switch.steps == 1


def test_labels_are_counted_in_the_mode_of_the_step(tmp_path):
    """The stock count divides the loss, so it must see the labels that the model sees."""
    trainer = make_adaptive_trainer(tmp_path, make_stock_model(), {"alpha_0": 0.0, "initial_steps": 99}, max_steps=2)
    inner = trainer.training_step
    seen = []

    def training_step(model, inputs, num_items_in_batch=None):
        seen.append((inputs, num_items_in_batch))
        return inner(model, inputs, num_items_in_batch)

    trainer.training_step = training_step
    trainer.train()
    assert len(seen) == 4
    for first, second in (seen[:2], seen[2:]):
        count = sum(int((inputs["labels"] != -100).sum()) for inputs, _ in (first, second))
        assert int(first[1]) == int(second[1]) == count
        assert set(first[0]) == {"input_ids", "attention_mask", "labels"}


def test_evaluation_runs_in_word_mode(trained):
    metrics = trained.evaluate()
    assert metrics["eval_loss"] > 0


def test_the_initial_stage_in_epochs(tmp_path):
    trainer = make_adaptive_trainer(tmp_path, settings={"initial_epochs": 0.5}, max_steps=1)
    trainer.train()
    assert trainer.adaptive.switch.initial_steps == 3, "96 rows, 16 a step"


def test_what_the_stock_trainer_cannot_do_is_refused(tmp_path):
    for options, problem in [
        ({"settings": {"mode": "weighted"}}, "needs CurriculumTrainer"),
        ({"settings": {"initial_tokens": 100}}, "give T1 as initial_steps or initial_epochs"),
        ({"remove_unused_columns": True}, "set remove_unused_columns=False"),
    ]:
        with pytest.raises(ValueError, match=problem):
            make_adaptive_trainer(tmp_path, **options)


def test_another_collator_is_an_error(tmp_path):
    from rexbert_hf import MLMCollator

    trainer = make_adaptive_trainer(tmp_path)
    trainer.data_collator = MLMCollator(make_tokenizer())
    with pytest.raises(ValueError, match="no 'phrase_input_ids': mask it with AdaptiveHybridMaskingCollator"):
        trainer.train()
