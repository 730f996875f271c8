"""The configurations: the published numbers, and that each really trains, made small, on text that is at hand."""

from __future__ import annotations

import json
import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pretraining_cases import CONFIGS, MODEL, TINY, options, run, settings, whole_run
from transformers import AutoModelForMaskedLM, BertConfig, BertForMaskedLM, ModernBertConfig, ModernBertForMaskedLM

from rexbert_hf.hub import read_run, render_model_card
from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.settings import SettingsError, load_settings, parse_args

SIZES = {
    "micro": (3e-3, 3e-4, 4e9, 125e9, 1.5e-3),
    "mini": (3e-3, 3e-4, 3e9, 75e9, 1.5e-3),
    "base": (8e-4, 1e-5, 3e9, 50e9, 4e-4),
    "large": (5e-4, 1e-5, 2e9, 10e9, 2.5e-4),
}
"""Peak rate, weight decay, tokens of the warm-up of rate and batch, rate of the last phase: Ettin's, by shape."""

SMALL = {
    **TINY,
    "sources.general": "{sample: general_text, max_documents: 60}",
    "sources.long": "{sample: long_text, max_documents: 5}",
    "sources.domain": "{sample: shop_text, max_documents: 60}",
    "scale": "1e-8",
    "trainer.num_workers": "0",
    **{f"phases.{name}.batch_tokens": "1024" for name in ("general", "extension", "anneal")},
    **{f"phases.{name}.seq_length": "128" for name in ("general", "extension", "anneal")},
}


@pytest.mark.parametrize("size", SIZES)
def test_the_published_numbers(size):
    paths = [("sources.general.path", "web"), ("sources.long.path", "books")]
    found = load_settings(PretrainSettings, CONFIGS / f"{size}.yaml", paths)
    rate, decay, warmup, batch_warmup, last_rate = SIZES[size]
    assert found.model.size == size
    assert found.model.overrides == {"attention_output_dropout": 0.1}
    assert found.trainer.weight_decay == decay
    general, extension, anneal = found.phases
    assert [phase.max_tokens for phase in found.phases] == [1.7e12, 250e9, 350e9]
    assert [phase.seq_length for phase in found.phases] == [1024, 8192, 8192]
    assert [phase.batch_tokens for phase in found.phases] == [4608 * 1024] * 3
    assert [phase.learning_rate for phase in found.phases] == [rate, rate, last_rate]
    assert [phase.masking.mlm_probability for phase in found.phases] == [0.30, 0.30, 0.15]
    assert [phase.masking.kind for phase in found.phases] == ["mlm", "mlm", "guided"]
    assert [phase.global_rope_theta for phase in found.phases] == [10_000, 160_000, 160_000]
    assert [phase.local_rope_theta for phase in found.phases] == [10_000] * 3
    assert (general.schedule.name, general.schedule.warmup_tokens) == ("warmup_stable_decay", warmup)
    assert general.schedule.decay_tokens == 0
    assert general.batch_warmup_tokens == batch_warmup
    assert (extension.schedule.name, extension.schedule.alpha_f) == ("one_minus_sqrt", 0.5)
    assert (anneal.schedule.name, anneal.schedule.alpha_f) == ("one_minus_sqrt", 0.04)
    assert extension.batch_warmup_tokens == anneal.batch_warmup_tokens == anneal.schedule.warmup_tokens == 0
    ends = anneal.weights()
    assert ends["domain"][1] == 1
    assert ends["general"] == (0.5, 0)


@pytest.mark.parametrize("size", SIZES)
def test_each_size_trains_when_made_small(tmp_path, size):
    tokenizer = {"tokenizer.path": str(whole_run())}
    shape = dict(part.split(": ") for part in MODEL.strip("{}").split(", "))
    overrides = {f"model.overrides.{name}": value for name, value in shape.items()}
    results = run(tmp_path / size, size, {**SMALL, **tokenizer, **overrides})
    assert [phase["tokens"] for phase in results["phases"]] == [17_000, 2_500, 3_500]
    assert all(phase["steps"] > 1 and phase["loss"] > 0 for phase in results["phases"])
    saved = json.loads((tmp_path / size / "config.json").read_text())
    assert (saved["hidden_size"], saved["attention_output_dropout"]) == (32, 0.1)
    assert AutoModelForMaskedLM.from_pretrained(tmp_path / size / "modernbert")


def test_large_can_start_from_a_smaller_one(tmp_path):
    pytest.importorskip("rexbert_hf.models.growth")
    shape = {"num_hidden_layers": 3, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4}
    overrides = {f"model.overrides.{name}": str(value) for name, value in shape.items()}
    grow = {"model.grow_from": str(whole_run()), "tokenizer.path": "null"}
    run(tmp_path / "large", "large", {**SMALL, **overrides, **grow})
    saved = json.loads((tmp_path / "large" / "config.json").read_text())
    assert (saved["hidden_size"], saved["num_hidden_layers"]) == (64, 3)


def test_help_lists_every_key(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_args(PretrainSettings, ["--help"], default_config=CONFIGS / "quickstart.yaml")
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for key in ("--model.init_from", "--sources.NAME.path", "--scale", "--trainer.torch_compile", "--push_to_hub"):
        assert key in out or key.replace("NAME", "<name>") in out, key


# Continued pre-training

CONTINUE = {
    **TINY,
    "phases.continue.batch_tokens": "512",
    "phases.continue.seq_length": "64",
    "phases.continue.epochs": "1",
    "phases.continue.learning_rate": "1e-3",
}
ROWS = [{"id": i, "name": f"red steel lamp {i}", "body": f"a bright lamp for the desk {i}, 30 cm"} for i in range(80)]


def catalogue(folder, kind):
    """A catalogue in one of the formats, and the flags that read it."""
    path = folder / f"catalogue.{kind}"
    columns = "{text: [name, body]}"
    if kind == "csv":
        path.write_text("id,name,body\n" + "".join(f'{r["id"]},{r["name"]},"{r["body"]}"\n' for r in ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        columns = '{text: "{name}: {body}"}'
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text("".join(f"{row['name']} {row['body']}\n" for row in ROWS))
        columns = "null"
    return {"sources.catalog.path": str(path), "sources.catalog.columns": columns}


def stock(folder, kind):
    """A stock checkpoint with the tokenizer of the tiny run."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(whole_run())
    shape = {"vocab_size": len(tokenizer), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    names = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    if kind == "bert":
        config = BertConfig(
            **shape, intermediate_size=64, max_position_embeddings=64, pad_token_id=names["pad_token_id"]
        )
        model = BertForMaskedLM(config)
    else:
        names |= {"bos_token_id": names["cls_token_id"], "eos_token_id": names["sep_token_id"]}
        model = ModernBertForMaskedLM(ModernBertConfig(**shape, intermediate_size=48, **names))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    ("checkpoint", "kind"), [("bert", "csv"), ("modernbert", "jsonl"), ("rexbert", "parquet"), ("rexbert", "txt")]
)
def test_continues_any_checkpoint_on_any_file(tmp_path, checkpoint, kind):
    source = whole_run() if checkpoint == "rexbert" else tmp_path / "start"
    if checkpoint != "rexbert":
        stock(source, checkpoint)
    base = {**CONTINUE, "model.init_from": str(source), **catalogue(tmp_path, kind)}
    results = run(tmp_path / "out", "continue", base)
    assert results["phases"][0]["steps"] > 1
    assert (
        read_run(tmp_path / "out")["data"][0]["documents"] + read_run(tmp_path / "out")["data"][0]["held_out_documents"]
        > 60
    )
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert saved["model_type"] == ("bert" if checkpoint == "bert" else "rexbert")
    assert (tmp_path / "out" / "modernbert").exists() == (checkpoint != "bert")
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out")
    start = AutoModelForMaskedLM.from_pretrained(source)
    moved = (model.get_input_embeddings().weight - start.get_input_embeddings().weight).abs().max()
    assert 0 < moved < 0.1  # it trained, and from there
    card = (tmp_path / "out" / "README.md").read_text()
    assert ("RexBERT" not in card.partition("<details>")[0]) == (checkpoint == "bert")
    recorded = read_run(tmp_path / "out")
    assert recorded["config"]["model"]["init_from"] == str(source)
    assert "base_model" not in recorded["card"]  # a folder here is nobody's repository
    assert ("of the architecture bert" in card) == (checkpoint == "bert")
    assert "base_model: me/shop-bert" in render_model_card({"card": {"base_model": "me/shop-bert"}})


def test_half_precision_checkpoints_are_trained_in_float32(tmp_path):
    import torch

    model = stock(tmp_path / "start", "modernbert")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "start")
    run(
        tmp_path / "out",
        "continue",
        {**CONTINUE, "model.init_from": str(tmp_path / "start"), **catalogue(tmp_path, "txt")},
    )
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("size", SIZES)
def test_the_sizes_say_what_they_need(size):
    """Before anything is looked up: a placeholder would be taken for a data set on the Hub."""
    wanted = r"sources\.general: .*--sources\.NAME\.path .*docs/data\.md.*rexbert\.yaml:\d"
    with pytest.raises(SettingsError, match=wanted):
        load_settings(PretrainSettings, CONFIGS / f"{size}.yaml")
    with pytest.raises(SettingsError, match=r"sources\.long: has no text"):
        load_settings(PretrainSettings, CONFIGS / f"{size}.yaml", [("sources.general.path", "web")])


def test_continue_says_what_it_needs():
    with pytest.raises(SettingsError, match=r"set --model\.init_from"):
        load_settings(PretrainSettings, CONFIGS / "continue.yaml", [("sources.catalog.path", "x.csv")])
    with pytest.raises(SettingsError, match=r"sources\.catalog: .* set --sources\.NAME\.path"):
        load_settings(PretrainSettings, CONFIGS / "continue.yaml", [("model.init_from", "x")])


def test_warming_up_a_decayed_checkpoint_warns_once(tmp_path, caplog):
    base = {**CONTINUE, "model.init_from": str(whole_run()), **catalogue(tmp_path, "txt")}
    with caplog.at_level(logging.WARNING):
        run(tmp_path / "cold", "continue", base)
        assert not [record for record in caplog.records if "warms up" in record.message]
        run(tmp_path / "warm", "continue", {**base, "phases.continue.schedule.warmup_tokens": "500"})
    warnings = [record.message for record in caplog.records if "warms up" in record.message]
    assert len(warnings) == 1
    assert "6e-05" in warnings[0]  # 1.5e-3 decayed to 4 %


def test_settings_survive_run_json(tmp_path):
    """The configuration of run.json is one that can be run again."""
    from rexbert_hf.settings import from_dict, to_dict

    made = settings(tmp_path, "quickstart")
    assert from_dict(PretrainSettings, to_dict(made)) == made
    assert options(tmp_path, {})[0] == ("output_dir", str(tmp_path))
