from __future__ import annotations

import logging
import os
import resource
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from training_cases import (
    make_bert,
    make_curriculum,
    make_model,
    make_padded_curriculum,
    make_stock_model,
    make_store,
    make_trainer,
    weights_of,
)
from transformers import RobertaConfig, RobertaForMaskedLM, TrainerCallback

from rexbert_hf.training import (
    CheckpointError,
    CurriculumTrainer,
    NonFiniteLossError,
    TrainingInterrupted,
    last_complete_checkpoint,
    masked_loss,
)
from rexbert_hf.training.arguments import stay_on_one_gpu
from rexbert_hf.training.callbacks import progress_line
from rexbert_hf.training.padded_parts import parts_of


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def gradients(trainer):
    """Gradients of the first step, as the optimizer would see them without clipping."""

    class Catch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            trainer.caught = [p.grad.clone() for p in trainer.model.parameters()]
            raise KeyboardInterrupt

    trainer.add_callback(Catch())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    return trainer.caught


def global_batch_gradients(trainer, model):
    """Mean cross entropy over all labelled tokens of step 0, one backward pass over the joined micro-batches."""
    model.train()
    micros = [trainer.data_collator(trainer.train_dataset[0, i]) for i in range(trainer.plan.micro_batches)]
    count = sum(int((batch["labels"] != -100).sum()) for batch in micros)
    total = 0.0
    for batch in (dict(part) for micro in micros for part in parts_of(micro)):
        batch.pop("batch_stats")
        labels = batch.pop("labels")
        logits = model(**batch).logits
        logits, labels = logits.flatten(0, 1), labels.flatten()
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    (total / count).backward()
    return [p.grad for p in model.parameters()]


@pytest.mark.parametrize("micro_batch_tokens", [512, 64])
@pytest.mark.parametrize("make", [lambda: make_model(dropout=0.0), make_bert, make_stock_model])
def test_the_loss_is_the_mean_over_the_labelled_tokens_of_the_step(tmp_path, micro_batch_tokens, make):
    """Micro-batches have unequal numbers of labels: a mean of means would differ; whatever the model itself returns."""
    curriculum = make_padded_curriculum(micro_batch_tokens=micro_batch_tokens)
    trainer = make_trainer(tmp_path, curriculum, without_dropout(make()), max_grad_norm=0.0)
    assert trainer.args.gradient_accumulation_steps == 512 // micro_batch_tokens
    for got, expected in zip(gradients(trainer), global_batch_gradients(trainer, without_dropout(make())), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)


def test_the_logged_loss_does_not_grow_with_the_micro_batches(tmp_path):
    losses = []
    for micro_batch_tokens in (512, 64):
        curriculum = make_padded_curriculum(steps=(1, 1), micro_batch_tokens=micro_batch_tokens)
        trainer = make_trainer(tmp_path / str(micro_batch_tokens), curriculum, make_bert())
        trainer.train()
        losses.append(trainer.state.log_history[0]["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=0.05)  # other masks: log(64) in both, not eight times that
    assert losses[0] == pytest.approx(np.log(64), rel=0.05)


def test_stock_models_train_on_padded_batches(tmp_path):
    trainer = make_trainer(tmp_path, make_padded_curriculum(steps=(2, 2)), make_stock_model())
    before = weights_of(trainer.model)
    trainer.train()
    assert any(not torch.equal(value, before[name]) for name, value in weights_of(trainer.model).items())
    batch = trainer.data_collator(trainer.train_dataset[0, 0])
    assert "attention_mask" in batch
    assert "cu_seq_lens_q" not in batch


def test_a_run_learns_logs_and_saves_each_phase(tmp_path):
    curriculum = make_curriculum(steps=(40, 6))
    trainer = make_trainer(tmp_path, curriculum, held_out=True, save_steps=100, measure_mfu=True)
    trainer.train()
    results = trainer.held_out_results()
    assert [(r["phase"], r["when"]) for r in results] == [
        ("general", "before"),
        ("general", "after"),
        ("shop", "before"),
        ("shop", "after"),
    ]
    assert results[1]["eval_loss"] < results[0]["eval_loss"] - 0.1
    assert results[1]["step"] == results[2]["step"] == trainer.plan.phases[1].first_step
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in logs] == list(range(1, trainer.plan.total_steps + 1))
    assert [entry["phase"] for entry in logs] == [0] * 40 + [1] * 6
    rates = [trainer.plan.learning_rate(step) for step in range(trainer.plan.total_steps)]
    assert [entry["learning_rate"] for entry in logs] == pytest.approx(rates)
    for entry in logs:
        assert 0 <= entry["masked_accuracy"] <= 1
        assert 0.5 < entry["fill"] <= 1
        assert entry["tokens_per_second"] > 0
        assert 0 < entry["mfu"] < 1
    assert trainer.model.config.rope_parameters["full_attention"]["rope_theta"] == 160_000
    ends = sorted(path.name for path in tmp_path.iterdir())
    assert ends == ["checkpoint-40", "checkpoint-46"]
    assert not list(tmp_path.rglob("training_args.bin"))


def test_tokens_seen_are_the_real_ones(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(2, 2)))
    trainer.train()
    real = sum(
        int((trainer.train_dataset[step, micro].word_ids >= 0).sum())
        for step in range(trainer.plan.total_steps)
        for micro in range(trainer.plan.micro_batches)
    )
    assert trainer.state.num_input_tokens_seen == real


def test_workers_change_nothing(tmp_path):
    alone = make_trainer(tmp_path / "alone", make_curriculum(steps=(3, 3)))
    alone.train()
    helped = make_trainer(
        tmp_path / "helped",
        make_curriculum(steps=(3, 3)),
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
        dataloader_prefetch_factor=3,
    )
    helped.train()
    for name, value in weights_of(alone.model).items():
        assert torch.equal(value, helped.model.state_dict()[name]), name


def test_a_finished_run_started_again_does_nothing(tmp_path):
    make_trainer(tmp_path, make_curriculum(steps=(2, 2))).train()
    again = make_trainer(tmp_path, make_curriculum(steps=(2, 2)))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again.train()
    assert again.resumed_from_step == again.state.global_step == 4
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_another_plan_in_the_folder_stops_with_the_keys(tmp_path):
    make_trainer(tmp_path, make_curriculum(steps=(2, 2)), description={"data": "a"}).train()
    other = make_curriculum(steps=(2, 2))
    other.phases[1].learning_rate = 5e-4
    with pytest.raises(ValueError, match="another plan") as caught:
        make_trainer(tmp_path, other, description={"data": "b"}, weight_decay=0.5).train()
    message = str(caught.value)
    assert "phases.1.learning_rate: 0.001 -> 0.0005" in message
    assert "optimizer.weight_decay: 1e-05 -> 0.5" in message
    assert "data: a -> b" in message
    assert "\n" not in message
    with pytest.raises(ValueError, match="holds a run"):
        make_trainer(tmp_path, make_curriculum(steps=(2, 2)), description={"data": "a"}).train(False)


@pytest.mark.parametrize("step", [2, None])
def test_ranks_that_see_different_checkpoints_stop(tmp_path, step):
    """The other rank sees step 4 of the same run, as with an output_dir on local disks."""
    trainer = make_trainer(tmp_path, make_curriculum(steps=(2, 2)), save_steps=2)
    if step:
        make_trainer(tmp_path, make_curriculum(steps=(2, 2)), save_steps=2, max_steps=step).train()
    trainer.sum_over_ranks = lambda values: [a + b for a, b in zip(values, [1.0, 4.0, 16.0], strict=True)]
    with pytest.raises(ValueError, match=r"different checkpoints .*a folder that all of them share") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)


def test_nan_loss_stops_before_the_weights_and_keeps_the_batch(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(6, 2)), save_steps=2)
    forward = trainer.model.forward

    def poisoned(*args, **kwargs):
        output = forward(*args, **kwargs)
        if trainer.state.global_step == 4 and trainer._micro == 2:
            output.loss = output.loss * float("nan")
        return output

    trainer.model.forward = poisoned
    with pytest.raises(NonFiniteLossError, match=r"the loss is nan at step 5 \(phase 'general'\)") as caught:
        trainer.train()
    assert "\n" not in str(caught.value)
    kept = last_complete_checkpoint(tmp_path)
    assert kept.step == 4
    with safe_open(kept.path / "model.safetensors", "pt") as saved:
        for name in saved.keys():  # noqa: SIM118 - not a dict
            assert torch.equal(saved.get_tensor(name), trainer.model.state_dict()[name])
    with safe_open(tmp_path / "nonfinite-step-5-rank-0.safetensors", "pt") as batch:
        expected = trainer.data_collator(trainer.train_dataset[4, 1])
        assert torch.equal(batch.get_tensor("micro1.input_ids"), expected["input_ids"])
        assert torch.equal(batch.get_tensor("micro1.labels"), expected["labels"])


def test_an_infinite_gradient_stops_too(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(2, 2)))
    trainer.model.head.dense.weight.register_hook(lambda grad: grad * float("inf"))
    with pytest.raises(NonFiniteLossError, match=r"the gradient norm is \w+ at step 1"):
        trainer.train()


def test_a_full_disk_is_one_line_and_earlier_checkpoints_stay(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(6, 2)), save_steps=2)

    class FillDisk(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # every larger write fails

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    trainer.add_callback(FillDisk())
    try:
        with pytest.raises(CheckpointError, match="checkpoint-4 could not be written") as caught:
            trainer.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "checkpoint-2 is complete" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_leaves_with_its_status_then_resumes(tmp_path, signum):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(4, 2)), save_steps=100)
    before = signal.getsignal(signum)

    class Send(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            if state.global_step == 2:
                os.kill(os.getpid(), signum)

    trainer.add_callback(Send())
    with pytest.raises(TrainingInterrupted) as caught:
        trainer.train()
    assert caught.value.code == 128 + signum
    assert caught.value.step == last_complete_checkpoint(tmp_path).step == 3
    assert signal.getsignal(signum) == before
    resumed = make_trainer(tmp_path, make_curriculum(steps=(4, 2)), save_steps=100)
    resumed.train()
    assert resumed.resumed_from_step == 3
    assert resumed.state.global_step == 6


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_other_ranks_got_keeps_its_number(tmp_path, signum):
    """Three ranks got it: 3 x 15 would be no signal, and another status."""
    trainer = make_trainer(tmp_path)
    trainer.sum_over_ranks = lambda values: [*values[:-2], 3.0 * (signum == signal.SIGTERM), 3.0]
    if signum == signal.SIGINT:
        assert trainer._stopping == 0
    trainer._count_step()
    assert trainer._stopping == signum


def test_a_signal_in_the_last_step_is_no_interruption(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(1, 1)))

    class Send(TrainerCallback):
        def on_substep_end(self, args, state, control, **kwargs):
            if state.global_step == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    trainer.add_callback(Send())
    trainer.train()
    assert trainer.state.global_step == 2


def test_loss_parts_are_divided_by_their_own_counts(tmp_path):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(1, 1)), make_model(dropout=0.0))
    forward = trainer.model.forward

    def with_parts(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.loss_parts = {
            "mlm": (output.loss * kwargs["num_items_in_batch"], 0),
            "pairs": (output.loss * 0 + 3.0, 2),
        }
        return output

    trainer.model.forward = with_parts
    trainer.model.loss_weights = {"pairs": 0.5}
    counts = trainer.loss_counts
    trainer.loss_counts = lambda batch: {**counts(batch), "pairs": 2}
    trainer.train()
    plain = make_trainer(tmp_path / "plain", make_curriculum(steps=(1, 1)), make_model(dropout=0.0))
    plain.train()
    first, plain_first = (t.state.log_history[0]["loss"] for t in (trainer, plain))
    assert first == pytest.approx(plain_first + 0.5 * (3.0 + 3.0) / (2 + 2))


def test_a_part_without_a_count_is_an_error(tmp_path):
    trainer = make_trainer(tmp_path)
    forward = trainer.model.forward

    def with_parts(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.loss_parts = {"other": (output.loss, 1)}
        return output

    trainer.model.forward = with_parts
    with pytest.raises(ValueError, match="loss parts without a count: other"):
        trainer.train()


def test_positions_behind_a_padding_id_are_counted_from_there(tmp_path):
    """RoBERTa's 64 rows with the padding id 3 are 60 positions: what the error names trains."""
    tiny = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = RobertaConfig(vocab_size=64, max_position_embeddings=64, pad_token_id=3, **tiny)
    curriculum = make_padded_curriculum(steps=(1, 1))
    with pytest.raises(ValueError, match=r"phase 'shop': seq_length=64 is beyond the 60 positions that Rob.*: lower"):
        make_trainer(tmp_path, curriculum, RobertaForMaskedLM(config))
    curriculum.phases[1].seq_length = 60
    with pytest.raises(ValueError, match=r"evaluation\.seq_length=61 is beyond the 60 positions"):
        make_trainer(tmp_path, curriculum, RobertaForMaskedLM(config), eval_seq_length=61)
    model = make_trainer(tmp_path, curriculum, RobertaForMaskedLM(config), eval_seq_length=60).model
    assert model(torch.full((1, 60), 9)).logits.shape == (1, 60, 64)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, 61), 9))


def test_what_a_model_cannot_do_is_refused_at_the_start(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="ModernBertForMaskedLM cannot change its RoPE theta"):
        make_trainer(tmp_path, model=make_stock_model())
    curriculum = make_curriculum(micro_batch_tokens=512)
    curriculum.phases[1].seq_length = 128
    with pytest.raises(ValueError, match="seq_length=128 is beyond the model's max_position_embeddings=64"):
        make_trainer(tmp_path, curriculum)
    with pytest.raises(ValueError, match=r"evaluation\.seq_length=128 is beyond the model's max_position_emb.*=64"):
        make_trainer(tmp_path, eval_seq_length=128)
    curriculum = make_curriculum()
    curriculum.phases[0].masking.kind = "random"
    with pytest.raises(ValueError, match="unknown masking 'random': use one of mlm, guided"):
        make_trainer(tmp_path, curriculum)
    curriculum = make_curriculum()
    curriculum.phases[1].objectives = ["mlm", "npr"]
    monkeypatch.setattr("rexbert_hf.training.CurriculumTrainer.trained_objectives", ("mlm", "ahm"))
    with pytest.raises(ValueError, match="phase 'shop': this trainer does not train the objective 'npr'"):
        make_trainer(tmp_path, curriculum)


@pytest.mark.parametrize(
    "arguments",
    [
        {"push_to_hub": True},
        {"ignore_data_skip": True},
        {"num_train_epochs": 2},
        {"save_only_model": True},
        {"fp16": True},
        {"label_smoothing_factor": 0.1},
        {"include_num_input_tokens_seen": "non_padding"},
    ],
)
def test_arguments_that_a_curriculum_cannot_honour(tmp_path, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        make_trainer(tmp_path, **arguments)


def test_noise_on_embeddings_is_part_of_the_plan(tmp_path):
    plain = make_trainer(tmp_path).description()
    assert not [name for name in plain if name.startswith("arguments.")]  # runs from before go on
    noisy = make_trainer(tmp_path, neftune_noise_alpha=5.0).description()
    assert noisy == plain | {"arguments.neftune_noise_alpha": 5.0}


def test_a_run_taken_over_is_evaluated_in_the_precision_of_training(tmp_path, monkeypatch):
    trainer = make_trainer(tmp_path, held_out=True, bf16=True, max_steps=4, evaluate_phases=False)
    trainer.train()
    expected = trainer.evaluate()
    monkeypatch.setattr(CurriculumTrainer, "is_finished", lambda *_: True)
    again = make_trainer(tmp_path, held_out=True, bf16=True, evaluate_phases=False)
    again.train()
    assert again.state.global_step == 4
    assert again.evaluate() == expected


def test_one_process_stays_on_one_gpu(caplog):
    args = SimpleNamespace(n_gpu=2, _n_gpu=2)
    stay_on_one_gpu(args)
    assert args._n_gpu == 1
    assert "on one of 2 GPUs" in caplog.text


def test_what_a_launcher_may_not_ask_for(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="fp16 is not supported"):
        make_trainer(tmp_path)
    for launched in ("bf16", "fp8"):  # accelerate would take it where bf16 is off
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
        with pytest.raises(ValueError, match=f"the launcher's mixed_precision '{launched}' .*--mixed_precision no$"):
            make_trainer(tmp_path)
        trainer = make_trainer(tmp_path, bf16=True)
        assert trainer.accelerator.mixed_precision == trainer.description()["precision"] == "bf16"
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION")
    create = CurriculumTrainer.create_accelerator_and_postprocess
    for name, shown in (("is_fsdp_enabled", "FSDP"), ("is_deepspeed_enabled", "DeepSpeed")):

        def with_strategy(self, name=name):
            create(self)
            setattr(self, name, True)

        monkeypatch.setattr(CurriculumTrainer, "create_accelerator_and_postprocess", with_strategy)
        with pytest.raises(ValueError, match=f"{shown} is not supported"):
            make_trainer(tmp_path)


def test_evaluation_every_few_steps(tmp_path):
    trainer = make_trainer(
        tmp_path,
        make_curriculum(steps=(4, 2)),
        held_out=True,
        eval_strategy="steps",
        eval_steps=3,
        evaluate_phases=False,
    )
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in entries] == [3, 6]
    assert trainer.held_out_results() == []


@pytest.mark.parametrize("source", ["", " shop"])
def test_progress_without_a_terminal_is_a_line_a_record(tmp_path, capsys, source):
    trainer = make_trainer(tmp_path, make_curriculum(steps=(2, 1)), held_out=True, disable_tqdm=False)
    if source:  # as recipes give it
        trainer.eval_dataset = {source.strip(): trainer.eval_dataset}
    trainer.train()
    shown = capsys.readouterr()
    assert "step 1/3 general | loss " in shown.err
    assert "step 3/3 shop | loss " in shown.err
    assert f"step 0/3 held-out{source}: loss " in shown.err
    assert not shown.out
    assert progress_line({"masked_accuracy": 0.5}, "one") == "one | accuracy 50.0%"


def test_a_checkpoint_holds_no_pickle_that_runs_code(tmp_path):
    make_trainer(tmp_path, make_curriculum(steps=(1, 1))).train()
    loaded = []
    for path in last_complete_checkpoint(tmp_path).path.rglob("*"):
        if path.suffix in (".pt", ".pth", ".bin"):
            torch.load(path, weights_only=True)
            loaded.append(path.name)
    assert "optimizer.pt" in loaded


class Saved(TrainerCallback):
    """Step of the last complete checkpoint after each save."""

    def __init__(self, saved):
        self.saved = saved

    def on_save(self, args, state, control, **kwargs):
        found = last_complete_checkpoint(args.output_dir)
        self.saved[state.global_step] = found.step if found else None


def test_resume_reports_a_damaged_checkpoint_and_takes_the_one_before(tmp_path, caplog):
    whole = make_trainer(tmp_path / "whole", make_curriculum(steps=(4, 2)), save_steps=2)
    whole.train()
    broken = make_trainer(tmp_path / "broken", make_curriculum(steps=(4, 2)), save_steps=2, save_total_limit=9)
    broken.train()
    for step in (4, 6):
        model = tmp_path / "broken" / f"checkpoint-{step}" / "model.safetensors"
        model.write_bytes(b"X" + model.read_bytes()[1:])  # its size is right
    saved = {}
    with caplog.at_level(logging.WARNING):
        options = {"save_steps": 2, "save_total_limit": 1, "keep_phase_checkpoints": False}
        again = make_trainer(tmp_path / "broken", make_curriculum(steps=(4, 2)), **options)
        again.add_callback(Saved(saved))
        again.train()
    assert again.resumed_from_step == 2
    assert saved[4] == 4, "the damaged later one took the place of the one just written"
    assert "checkpoint passed over" in caplog.text
    for name, value in weights_of(whole.model).items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert last_complete_checkpoint(tmp_path / "broken").step == 6


def test_held_out_documents_are_not_needed(tmp_path):
    assert make_store(0).num_tokens > 0
    trainer = make_trainer(tmp_path, make_curriculum(steps=(1, 1)))
    trainer.train()
    assert trainer.held_out_results() == []


@pytest.mark.parametrize("pinned", [True, False])
def test_pinned_batches_do_not_wait_for_their_copy(tmp_path, monkeypatch, pinned):
    trainer, copies = make_trainer(tmp_path), []
    monkeypatch.setattr(type(trainer.args), "device", torch.device("cuda"))
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *args, **options: copies.append(options) or self)
    batch = trainer._prepare_inputs({"input_ids": torch.ones(1, 3, dtype=torch.int64), "max_length_q": 3})
    assert batch["max_length_q"] == 3
    assert [options.get("non_blocking", False) for options in copies] == [pinned]


def test_a_model_on_an_accelerator_is_told_its_number_of_labels(tmp_path, monkeypatch):
    """Counted on the host, so that the device need not be waited for; nothing else changes."""
    found = []
    for told in (False, True):
        monkeypatch.setattr(masked_loss, "_waits", lambda model, told=told: told)
        trainer, seen = make_trainer(tmp_path / str(told), make_curriculum(steps=(2, 1))), []

        def see(module, args, options, seen=seen):
            seen.append((options.get("num_targets"), int((options["labels"] != -100).sum())))

        trainer.model.register_forward_pre_hook(see, with_kwargs=True)
        trainer.train()
        assert seen
        assert all(given == (count if told else None) for given, count in seen)
        found.append(trainer.model.state_dict())
    assert all(torch.equal(found[0][name], weight) for name, weight in found[1].items())


@pytest.mark.parametrize(
    ("model", "batch"),
    [
        (make_bert, {"labels": torch.tensor([[-100, 5]])}),
        (make_model, {"labels": torch.tensor([[-100, 5]]), "phrase_labels": torch.tensor([[4, 5]])}),
        (make_model, {"input_ids": torch.tensor([[4, 5]])}),
    ],
    ids=["takes_no_number", "two_maskings", "no_labels"],
)
def test_who_is_told_no_number_of_labels(monkeypatch, model, batch):
    monkeypatch.setattr(masked_loss, "_waits", lambda model: True)
    assert masked_loss.with_label_count(model(), batch) == batch
