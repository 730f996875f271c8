"""Fine-tuning with an encoder each for queries and products on two processes: one clock, one end, the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from search_cases import tiny_model
from transformers import BertConfig, BertModel

from rexbert_hf.training import last_complete_checkpoint

SCRIPT = Path(__file__).with_name("search_ranks.py")
WORDS = {
    "data.sample_size": 150,
    "rows.batch_size": 16,
    "model.shared": "false",
    "model.max_tokens": 16,
    "model.dropout": 0.1,
    "loss.block_size": 8,
    "trainer.bf16": "false",
    "trainer.cpu_threads": 1,
    "trainer.use_cpu": "true",
    "trainer.max_steps": 6,
    "validation.test": "false",
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A BERT, whose pooler no embedding depends on."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = tiny_model(vocab_size=384).tokenizer
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    BertModel(BertConfig(vocab_size=len(tokenizer), **small)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def two_ranks(output, base, words, **options):
    flat = [f"--{name}={value}" for name, value in {**WORDS, "model.base": base, **words}.items()]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc_per_node", "2", str(SCRIPT), str(output), json.dumps({"words": flat, **options})]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TORCH_GLOO_TIMEOUT": "60"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=False)
    return done, [json.loads((output / f"rank-{rank}.json").read_text()) for rank in (0, 1)]


def test_clocks_that_differ_do_not_part_two_ranks(base, tmp_path):
    done, (first, second) = two_ranks(tmp_path, base, {"trainer.max_minutes": 60}, late=3e6)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (first["step"], second["step"]) == (6, 6)
    assert first["rates"] == second["rates"]
    assert first["sums"] == second["sums"]
    assert done.stdout.count("model, card and run.json in") == 1
    assert not first["group"]
    assert not second["group"]


def test_the_best_weights_stay_until_the_slowest_rank_has_read_them(base, tmp_path):
    done, (first, second) = two_ranks(tmp_path, base, {}, slow_read=6)
    assert done.returncode == 0, done.stderr[-3000:]
    assert first["sums"] == second["sums"]
    assert not (tmp_path / "run" / "best").exists()


def test_a_signal_on_one_rank_stops_both_after_the_same_step(base, tmp_path):
    done, (first, second) = two_ranks(tmp_path, base, {"loss.cached": "true"}, terminate_after=2)
    assert "exitcode  : 143" in done.stderr, done.stderr[-3000:]
    assert (first["step"], second["step"]) == (3, 3)
    assert not first["group"]
    assert not second["group"]
    assert first["sums"] == second["sums"], "the gradient cache sums the gradients of both encoders over the ranks"
    assert last_complete_checkpoint(tmp_path / "run").step == 3
