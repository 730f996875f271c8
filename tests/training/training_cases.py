"""A run small enough for tests: 60 words, a two-layer model, two sources, two phases. Also run as a script."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    BertConfig,
    BertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
)

from rexbert_hf.data.loader import CurriculumDataset
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.models.configuration_rexbert import RexBertConfig
from rexbert_hf.models.modeling_rexbert import RexBertForMaskedLM
from rexbert_hf.settings import run_recipe
from rexbert_hf.training import (
    Curriculum,
    CurriculumArguments,
    CurriculumTrainer,
    MaskingConfig,
    Phase,
    ScheduleConfig,
    resolve,
)

WORDS = 60
SPECIAL = {"[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[MASK]": 3, "[UNK]": 4}


def make_tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {**SPECIAL, **{f"w{i}": i for i in range(len(SPECIAL), WORDS)}}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(vocabulary, "[UNK]")),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        unk_token="[UNK]",
    )


def make_store(seed: int, documents: int = 120, longest: int = 40) -> TokenisedDataset:
    """Documents in which each word follows from the one before: something that can be learnt."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(documents):
        length = int(rng.integers(6, longest))
        start = int(rng.integers(0, WORDS - len(SPECIAL)))
        body = (start + (1 + seed % 3) * np.arange(length)) % (WORDS - len(SPECIAL)) + len(SPECIAL)
        words = np.concatenate([[-1], np.arange(length), [-1]])
        rows.append({"input_ids": np.concatenate([[1], body, [2]]).astype(np.int32), "word_ids": words})
    return TokenisedDataset.from_rows([row | phrases_of(row["input_ids"]) for row in rows])


def phrases_of(ids: np.ndarray) -> dict[str, list]:
    """Two or three words from each word whose id divides by 7; documents without one have no phrase."""
    starts = [i for i in range(1, len(ids) - 3) if ids[i] % 7 == 0]
    return {
        "span_start": starts,
        "span_end": [i + 2 + int(ids[i]) % 2 for i in starts],
        "span_score": [0.5 + (int(ids[i]) % 5) / 10 for i in starts],
        "span_kind": [int(ids[i]) % 2 for i in starts],
    }


def make_model(dropout: float = 0.1, **overrides) -> RexBertForMaskedLM:
    torch.manual_seed(7)
    config = RexBertConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        global_attn_every_n_layers=2,
        local_attention=8,
        max_position_embeddings=64,
        embedding_dropout=dropout,
        mlp_dropout=dropout,
        attention_dropout=0.0,
        pad_token_id=0,
        bos_token_id=1,
        cls_token_id=1,
        eos_token_id=2,
        sep_token_id=2,
        mask_token_id=3,
        **overrides,
    )
    return RexBertForMaskedLM(config)


def make_stock_model() -> ModernBertForMaskedLM:
    torch.manual_seed(7)
    config = {key: value for key, value in make_model().config.to_dict().items() if key in ModernBertConfig().to_dict()}
    return ModernBertForMaskedLM(ModernBertConfig(**{**config, "model_type": "modernbert"}))


def make_bert() -> BertForMaskedLM:
    """A model that takes `num_items_in_batch` and returns the mean over its own batch all the same."""
    torch.manual_seed(7)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(vocab_size=64, max_position_embeddings=64, pad_token_id=0, **shape, **dropout)
    return BertForMaskedLM(config)


def make_padded_curriculum(*args, **options):
    """Without what only a RexBERT can do."""
    curriculum = make_curriculum(*args, **options)
    for phase in curriculum.phases:
        phase.global_rope_theta = None
    return curriculum


def make_curriculum(
    steps: tuple[int, int] = (6, 6),
    batch_tokens: int = 512,
    micro_batch_tokens: int = 256,
    adaptive: dict | None = None,
):
    first = Phase(
        "general",
        {"general": 1.0},
        max_tokens=steps[0] * batch_tokens - batch_tokens // 2,
        seq_length=32,
        batch_tokens=batch_tokens,
        learning_rate=3e-3,
        schedule=ScheduleConfig(warmup_tokens=batch_tokens if steps[0] > 1 else 0),
        global_rope_theta=10_000.0,
    )
    second = Phase(
        "shop",
        {"general": [1.0, 0.0], "shop": [0.0, 1.0]},
        max_tokens=steps[1] * batch_tokens - batch_tokens // 2,
        seq_length=64,
        batch_tokens=batch_tokens,
        learning_rate=1e-3,
        schedule=ScheduleConfig("one_minus_sqrt", alpha_f=0.1),
        masking=MaskingConfig("guided" if adaptive is None else "ahm", 0.15, options=adaptive or {}),
        global_rope_theta=160_000.0,
    )
    return Curriculum([first, second], seed=3, micro_batch_tokens=micro_batch_tokens)


def make_trainer(
    output_dir: Path | str,
    curriculum: Curriculum | None = None,
    model: torch.nn.Module | None = None,
    description=None,
    held_out: bool = False,
    **arguments,
) -> CurriculumTrainer:
    options = {"use_cpu": True, "disable_tqdm": True, "measure_mfu": False, "logging_steps": 1, "save_steps": 4}
    args = CurriculumArguments(output_dir=str(output_dir), **{**options, **arguments})
    stores = {"general": make_store(0), "shop": make_store(1)}
    plan = resolve(curriculum or make_curriculum(), stores, world_size=args.world_size)
    return CurriculumTrainer(
        model=model if model is not None else make_model(),
        args=args,
        plan=plan,
        train_dataset=CurriculumDataset(plan.orders, stores),
        processing_class=make_tokenizer(),
        eval_dataset=make_store(2, documents=20) if held_out else None,
        description=description,
    )


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def pause_while_saving(step: int) -> None:
    """Hang in the middle of writing the checkpoint of `step`, so that the parent can kill this process there."""
    from rexbert_hf.training import checkpoint as ckpt

    seal = ckpt.seal

    def slow(folder, at, info=None):
        if at == step:
            print("PAUSED", flush=True)
            time.sleep(600)
        seal(folder, at, info)

    ckpt.seal = slow


def main(output_dir: str, options: str) -> None:
    """`python training_cases.py OUTPUT '{"kill_after": 3, ...}'` trains and leaves `final.pt` in OUTPUT."""
    torch.set_num_threads(1)
    chosen = json.loads(options)
    kill_after, pause_at = chosen.pop("kill_after", None), chosen.pop("pause_at", None)
    terminate = chosen.pop("terminate_rank_1_after", None)
    micro_batch_tokens = chosen.pop("micro_batch_tokens", 256)
    dropout = chosen.pop("dropout", 0.1)
    steps = chosen.pop("steps", [6, 6])
    make = make_curriculum
    adaptive, model = chosen.pop("adaptive", None), make_model(dropout, **chosen.pop("model", {}))
    if chosen.pop("padded", False):
        make, model = make_padded_curriculum, make_bert()
    if pause_at is not None:
        pause_while_saving(pause_at)
    curriculum = make(steps=tuple(steps), micro_batch_tokens=micro_batch_tokens, adaptive=adaptive)
    trainer = make_trainer(output_dir, curriculum, model, **chosen)
    if kill_after is not None:
        inner = trainer.finish_step

        def finish_step(control):
            if trainer.state.global_step == kill_after:
                os.kill(os.getpid(), 9)
            inner(control)

        trainer.finish_step = finish_step
    if terminate is not None and trainer.args.process_index == 1:
        inner = trainer.finish_step

        def finish_step(control):
            inner(control)
            if trainer.state.global_step == terminate:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer.finish_step = finish_step
    trainer.train()
    if trainer.args.process_index == 0:
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        result = {"weights": weights_of(trainer.model), "losses": losses, "resumed": trainer.resumed_from_step}
        result["alphas"] = [entry["alpha"] for entry in trainer.state.log_history if "alpha" in entry]
        result["word_shares"] = [entry["word_share"] for entry in trainer.state.log_history if "alpha" in entry]
        result["norms"] = [entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry]
        torch.save(result, Path(output_dir) / "final.pt")


if __name__ == "__main__":
    try:
        run_recipe(lambda: main(*sys.argv[1:]))
    finally:
        names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]  # none where no /proc is
        Path(f"{sys.argv[1]}-threads-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(names))
