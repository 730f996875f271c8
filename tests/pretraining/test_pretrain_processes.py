"""What a launcher was asked for, trackers, compiling: the small decisions before a run."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from pretraining_cases import settings, whole_run

from rexbert_hf import RexBertForMaskedLM
from rexbert_hf.models import fused_rexbert
from rexbert_hf.models.fused_rexbert import fuse
from rexbert_hf.pretraining import make_arguments, processes
from rexbert_hf.pretraining.processes import (
    asked_processes,
    check_launcher,
    check_processes,
    fast_bfloat16,
    launched_with,
)
from rexbert_hf.retrieval.training.finetune import uses_bf16
from rexbert_hf.retrieval.training.finetune_settings import SearchTrainerSettings
from rexbert_hf.training.compiling import compile_layers, prepare_layers


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["python", "/bin/accelerate", "launch", "--cpu", "--num_processes", "2", "train.py"], 2),
        (["accelerate", "launch", "--num_processes=3", "train.py"], 3),
        (["accelerate", "launch", "--num-processes", "4", "train.py"], 4),
        (["accelerate", "launch", "train.py", "--trainer.num_processes", "2"], None),
        (["accelerate", "launch", "train.py"], None),
    ],
)
def test_words_of_accelerate(words, asked):
    assert launched_with(words) == asked


def test_the_configuration_file_of_accelerate(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("compute_environment: LOCAL_MACHINE\nnum_processes: 2\n")
    assert launched_with(["accelerate", "launch", "--config_file", str(path), "train.py"]) == 2
    assert launched_with(["accelerate", "launch", "--config_file", str(path), "--num_processes", "1", "t.py"]) == 1


def test_without_a_launcher_nothing_is_asked(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert asked_processes() is None
    check_processes(1, None)
    check_launcher()


def test_the_command_line_of_the_parent_may_be_no_utf_8(monkeypatch, tmp_path):
    line = tmp_path / "cmdline"
    line.write_bytes(b"python\0accelerate\0launch\0caf\xe9.sh\0--num_processes\0002")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setattr(processes, "Path", lambda name: line if str(name).startswith("/proc/") else Path(name))
    assert asked_processes() == 2


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("{betas: 0.9}", r"trainer\.extra\.betas must be a list of 2 numbers, as \[0\.9, 0\.98\]; got 0\.9"),
        ("{betas: [0.9, x]}", "must be a list of 2 numbers"),
        ("{adam_epsilon: small}", r"trainer\.extra\.adam_epsilon must be a number, as 1e-06; got 'small'"),
        ("{eval_steps: ten}", r"trainer\.extra\.eval_steps must be a number; got 'ten'"),
    ],
)
def test_an_argument_that_is_no_number_is_refused(tmp_path, extra, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(settings(tmp_path, trainer__extra=extra))
    assert make_arguments(settings(tmp_path, trainer__extra="{betas: [0.8, 0.9]}")).betas == [0.8, 0.9]


def test_the_recipe_s_own_demand_counts(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_processes(2, None)
    with pytest.raises(ValueError, match="asked for 4 processes, but 2 run"):
        check_processes(2, 4)


@pytest.mark.parametrize(
    ("about", "fast"),
    [
        ("processor: 0\nflags\t\t: fpu avx2 amx_tile amx_bf16\nbugs\t: none\n", True),
        ("flags\t\t: fpu avx512f avx512_bf16 avx512_vnni\n", True),
        ("flags\t\t: fpu avx2 avx512f\nmodel name\t: not avx512_bf16 \n", False),
        ("Features\t: fp asimd bf16\n", False),
        ("", False),
        (None, False),
    ],
)
def test_cpus_with_fast_bfloat16(monkeypatch, tmp_path, about, fast):
    path = tmp_path / "cpuinfo"
    if about is not None:
        path.write_text(about)
    monkeypatch.setattr(processes, "CPU_INFO", path)
    assert fast_bfloat16(use_cpu=True) is fast


def test_the_launcher_s_precision(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("rexbert_hf.pretraining.arguments.fast_bfloat16", lambda use_cpu: False)
    assert not make_arguments(settings(tmp_path, trainer__bf16="auto")).bf16
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with caplog.at_level(logging.INFO):
        assert make_arguments(settings(tmp_path, trainer__bf16="auto")).bf16
    assert "takes the launcher's mixed_precision" in caplog.text
    message = "'bf16' .ACCELERATE_MIXED_PRECISION. would override bf16, which is off: set bf16 to true"
    with pytest.raises(ValueError, match=message):
        make_arguments(settings(tmp_path, trainer__bf16="false"))
    with pytest.raises(ValueError, match=message):
        uses_bf16(SearchTrainerSettings(use_cpu=True, bf16=False))


def test_half_a_launcher(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="LOCAL_RANK, MASTER_ADDR is not set"):
        check_launcher()


def test_extra_arguments_reach_the_trainer(tmp_path):
    args = make_arguments(settings(tmp_path, trainer__extra="{adam_epsilon: 1e-7, ddp_timeout: 77}"))
    assert (args.adam_epsilon, args.ddp_timeout) == (1e-7, 77)
    assert make_arguments(settings(tmp_path)).ddp_timeout > 24 * 3600  # ranks wait for the data
    refused = {"save_steps": "has its own key", "max_steps": "set phases", "sav_steps": "no such field"}
    refused |= {"optim": "always StableAdamW", "optim_args": "trainer.extra", "adam_beta1": "trainer.extra.betas"}
    refused |= {"adam_beta2": "trainer.extra.betas", "average_tokens_across_devices": "mean over the tokens"}
    refused |= {"torch_compile_backend": "set trainer.torch_compile", "torch_compile_mode": "set trainer.torch_compile"}
    refused |= {"activation_checkpointing": "set trainer.gradient_checkpointing", "data_seed": "set seed"}
    refused |= {"lr_scheduler_kwargs": "set phases.NAME.schedule", "optim_target_modules": "always StableAdamW"}
    refused |= {"dataloader_drop_last": "what is left", "train_sampling_strategy": "seed, phase and step"}
    refused |= {"remove_unused_columns": "the collator", "bf16_full_eval": "precision of training"}
    refused |= {"fp16_full_eval": "precision of training", "prediction_loss_only": "masked accuracy"}
    refused |= {"metric_for_best_model": "last phase", "greater_is_better": "last phase"}
    refused |= {"include_num_input_tokens_seen": "always counts"}
    for name, said in refused.items():
        with pytest.raises(ValueError, match=said):
            make_arguments(settings(tmp_path, trainer__extra=f"{{{name}: 1}}"))


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ("{save_strategy: no}", r"^trainer\.extra\.save_strategy: False is not .*the text 'no' is written in quotes"),
        ("{torch_empty_cache_steps: 0, full_determinism: false}", r"^trainer\.extra\.torch_empty_cache_steps: "),
        ("{fp16: true}", r"^trainer\.extra.*fp16"),
        ("{save_strategy: never, eval_strategy: never}", r"^trainer\.extra: never is not a valid"),
    ],
)
def test_an_error_of_transformers_names_the_key(tmp_path, extra, message):
    with pytest.raises(ValueError, match=message):
        make_arguments(settings(tmp_path, trainer__extra=extra))


def test_an_error_that_extra_arguments_do_not_make_keeps_its_words(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR")
    with pytest.raises(ValueError, match=r"^the launcher's dynamo_backend 'inductor' .* --dynamo_backend no;"):
        make_arguments(settings(tmp_path))
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")  # what accelerate launch sets where nothing was asked for
    make_arguments(settings(tmp_path))


def test_a_run_is_not_compiled_because_one_before_it_was():
    model = RexBertForMaskedLM.from_pretrained(whole_run())
    fuse(backend="aot_eager")
    assert fused_rexbert._COMPILED
    assert not prepare_layers(model, torch.device("cpu"), False)
    assert not fused_rexbert._COMPILED


def test_blocks_that_cannot_be_compiled_stay_as_they_are(monkeypatch, caplog):
    model = RexBertForMaskedLM.from_pretrained(whole_run())

    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found\nand more")

    monkeypatch.setattr(torch, "compile", broken)
    caplog.clear()  # of the run that made the model, if it was made here
    with caplog.at_level(logging.WARNING):
        assert compile_layers(model, torch.device("cpu")) is False
    assert [record.message for record in caplog.records] == [
        "torch_compile: nothing can be compiled here (No working C++ compiler found): goes on without"
    ]
    assert all(layer.mlp._compiled_call_impl is None for layer in model.model.layers)


def test_blocks_are_compiled_in_place(monkeypatch):
    model = RexBertForMaskedLM.from_pretrained(whole_run())
    names = list(model.state_dict())
    calls = []
    monkeypatch.setattr(torch, "compile", lambda function, **options: calls.append(options) or function)
    assert compile_layers(model, torch.device("cpu")) is True
    assert list(model.state_dict()) == names
    assert all(layer.mlp._compiled_call_impl is not None for layer in model.model.layers)
    assert calls[1:] == [{"dynamic": True}] * len(model.model.layers)
