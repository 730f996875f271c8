"""Stages: one command runs them all, each from the folder of the one before; stopped, resumed, and refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest
from pretraining_cases import CONFIGS, MODEL, assert_same_weights, error_line, options, whole_run
from pretraining_cases import THREE_STAGES as SMALL
from pretraining_cases import recipe as run_recipe
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, RobertaConfig, RobertaForMaskedLM

from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.hub import read_run
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.pretraining import PretrainSettings, corpora, pretrain
from rexbert_hf.pretraining.encoder import open_tokenizer
from rexbert_hf.pretraining.stage_checks import check_stages
from rexbert_hf.pretraining.stages import StagedSettings, pretrain_stages
from rexbert_hf.settings import SettingsError, from_dict, load_settings
from rexbert_hf.training import checkpoint as ckpt

WITH_IDS = "{sample: products, language: en, columns: {text: title, product_id: product_id}}"
TRAINED = {"train": True, "vocab_size": 512}
EARLIER = ("monolingual", "multilingual")


def staged(folder, **changes):
    return load_settings(StagedSettings, CONFIGS / "m3bert.yaml", options(folder, SMALL, **changes))


def words(folder, **changes):
    pairs = options(folder, SMALL, **changes)
    return [str(CONFIGS / "m3bert.yaml"), *(word for name, value in pairs for word in (f"--{name}", value))]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages") / "run"
    pretrain_stages(staged(folder).runs())
    return folder


def copied(whole, folder):
    """A copy of the finished stages whose files name its own place, as if it had been made there."""
    shutil.copytree(whole, folder)
    for path in folder.rglob("run.json"):
        path.write_text(path.read_text().replace(str(whole), str(folder)))
    for path in folder.rglob("checkpoint-*"):
        found = ckpt.verify(path)
        ckpt.seal(path, found.step, json.loads(json.dumps(found.info).replace(str(whole), str(folder))))
    return folder


def test_each_stage_starts_from_the_one_before(whole):
    last = read_run(whole)
    assert last["config"]["model"]["init_from"] == str(whole / "stages" / "multilingual")
    assert [stage["name"] for stage in last["results"]["stages"]] == list(EARLIER)
    assert last["results"]["stage"] == "commercial"
    vocabularies = {}
    for name in EARLIER:
        folder = whole / "stages" / name
        model = RexBertForMaskedLM.from_pretrained(folder)
        assert model.config.matryoshka_grid() == [(1, 8), (1, 32), (2, 8), (2, 32)]
        vocabularies[name] = model.config.vocab_size
        assert read_run(folder)["results"]["phases"][0]["loss"] > 0
    final = RexBertForMaskedLM.from_pretrained(whole)
    assert vocabularies == {"monolingual": 384, "multilingual": 512}
    assert (final.config.vocab_size, final.config.matryoshka_layers) == (512, [1, 2])
    assert from_dict(PretrainSettings, last["config"]).model.init_from


def test_the_card_shows_the_phases_of_all_stages(whole):
    card = (whole / "README.md").read_text()
    assert "| monolingual: english |" in card
    assert "| multilingual: adaptation |" in card


def test_english_is_measured_in_every_stage(whole):
    results = read_run(whole)["results"]
    for stage in [*results["stages"], results]:
        assert 0 <= stage["phases"][0]["masked_accuracy_after_english"] <= 1


def test_stopped_between_stages_it_goes_on_there(tmp_path, whole):
    """Started again, the finished stage is left as it is and the others end as if nothing had happened."""
    runs = staged(tmp_path / "run").runs()
    pretrain_stages(runs[:1])
    weights = tmp_path / "run" / "stages" / "monolingual" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    results = pretrain_stages(runs)
    assert weights.stat().st_mtime_ns == written
    assert [stage["name"] for stage in results["stages"]] == list(EARLIER)
    assert_same_weights(tmp_path / "run", whole)


def test_a_second_run_is_kept_out_from_the_first_stage_on(tmp_path, monkeypatch):
    """Before it prepares data that the first one is preparing."""

    def second(runs):
        code = "import sys; from rexbert_hf.settings import hold_folder\nwith hold_folder(sys.argv[1]): pass"
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], capture_output=True, text=True)
        assert f"process {os.getpid()} on" in done.stderr
        raise ValueError("seen")

    monkeypatch.setattr("rexbert_hf.pretraining.stages.check_stages", second)
    with pytest.raises(ValueError, match="seen"):
        pretrain_stages(staged(tmp_path / "run").runs())
    assert not (tmp_path / "run").exists()


def test_the_recipe_runs_them_and_prints_each(tmp_path, whole, capsys, monkeypatch):
    """Finished already: only what it prints is new."""
    status, out, _ = run_recipe(words(whole), capsys, monkeypatch)
    assert status == 0
    assert "monolingual: english: held-out masked accuracy" in out
    assert "multilingual: adaptation: held-out" in out
    assert "commercial: shop: held-out" in out
    assert "zh: " in out


def test_a_stage_is_laid_over_what_all_share(tmp_path):
    runs = dict(staged(tmp_path, trainer__save_steps=7, stages__commercial__trainer__logging_steps=3).runs())
    assert [run.trainer.save_steps for run in runs.values()] == [7, 7, 7]
    assert [run.trainer.logging_steps for run in runs.values()] == [1, 1, 3]
    assert list(runs["commercial"].sources) == ["english", "others", "shop"]
    assert [str(tmp_path / "stages" / name) for name in EARLIER] == [runs[name].output_dir for name in EARLIER]
    assert runs["commercial"].output_dir == str(tmp_path)


def test_only_the_last_stage_is_pushed(tmp_path):
    pushes = [run.push_to_hub for _, run in staged(tmp_path, push_to_hub="me/m3").runs()]
    assert pushes == [None, None, "me/m3"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__multilingual__tokenizer__sise": "3"}, "unknown key"),
        ({"stages__bilingual__seed": "3"}, "none is 'bilingual'; did you mean 'multilingual'"),
        ({"stages__commercial__output_dir": "x"}, "stage 'commercial' has an output_dir of its own"),
        (
            {"stages__commercial__model__init_from": "x", "model__overrides": "{}"},
            "stage 'commercial' starts from the stage before it",
        ),
        ({"stages__multilingual__name": "commercial"}, "stages need different names"),
        ({"stages__multilingual__name": "../x"}, "a stage needs a name"),
        ({"stages__multilingual__phases__adaptation__mixture": "{web: 1}"}, "names the source 'web'"),
    ],
)
def test_stages_that_cannot_be_are_one_line(tmp_path, changes, message):
    with pytest.raises(SettingsError, match=message) as caught:
        staged(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages__commercial__model__matryoshka": "{layers: [1, 3]}"}, "cell of 3 layers x 32 dimensions"),
        ({"stages__multilingual__model__matryoshka": "{layers: [1]}"}, "the whole model, 2 layers x 32 dimensions"),
        (
            {"stages__commercial__phases__shop__languages": "{only: [en, sw]}"},
            "phase 'shop': languages.only names 'sw', of which its sources have no text",
        ),
        ({"stages__commercial__sources__shop": "{path: nowhere.csv}"}, "nowhere.csv: no such file or folder"),
        ({"stages__commercial__trainer__extra": "{no_such_field: 1}"}, "TrainingArguments has no such field"),
        ({"stages__commercial__phases__shop__schedule__warmup_tokens": "1B"}, "do not fit its 3000 tokens"),
        (
            {"stages__commercial__phases__shop__masking__options": "{bost: 3}"},
            "phase 'shop': masking.options: .*unexpected keyword argument 'bost'",
        ),
        (
            {"stages__commercial__phases__shop__masking": "{kind: span, mlm_probability: 0.9}"},
            "phase 'shop': masking: .*0.9",
        ),
        (
            {
                "stages__commercial__phases__shop__seq_length": "128",
                "model__overrides": MODEL.replace("}", ", max_position_embeddings: 64}"),
            },
            "phase 'shop': seq_length=128 is beyond the model's max_position_embeddings=64: lower it",
        ),
        (
            {
                "stages__commercial__phases__shop__objectives": "[mlm, npr]",
                "stages__commercial__associations": "{path: none.csv}",
                "stages__commercial__sources__shop": WITH_IDS,
            },
            "none.csv",
        ),
    ],
)
def test_what_stops_a_later_stage_stops_the_first_one(tmp_path, changes, message, monkeypatch):
    """Days of training would be behind it."""
    started = []
    monkeypatch.setattr("rexbert_hf.pretraining.stages.pretrain", lambda settings, **_: started.append(settings))
    stage = next(iter(changes)).split("__")[1]
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        pretrain_stages(staged(tmp_path, **changes).runs())
    assert str(caught.value).startswith(f"stage '{stage}': ")
    assert not started


def test_a_new_model_has_positions_for_the_longest_phase_of_all_stages(tmp_path):
    short, long = ("model__overrides", MODEL), ("stages__commercial__phases__shop__seq_length", "16384")
    first = staged(tmp_path, **dict([short, long])).runs()[0][1]
    assert first.model.overrides["max_position_embeddings"] == 16384
    assert first.model.overrides["num_hidden_layers"] == 2
    assert "max_position_embeddings" not in staged(tmp_path).runs()[0][1].model.overrides  # as earlier versions


@pytest.mark.parametrize("checkpoints", ["kept", "removed"])
def test_a_first_stage_that_was_made_shorter_is_not_another_run(tmp_path, whole, monkeypatch, checkpoints):
    """What is wrong is the stage that is longer now."""
    folder = copied(whole, tmp_path / "run")
    for path in folder.rglob("checkpoint-*") if checkpoints == "removed" else ():
        shutil.rmtree(path)
    runs = staged(folder, stages__commercial__phases__shop__seq_length="16384").runs()
    assert runs[0][1].model == staged(folder).runs()[0][1].model
    monkeypatch.setattr("rexbert_hf.pretraining.stages.pretrain", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(
        ValueError, match=r"^stage 'commercial': phase 'shop': seq_length=16384 is beyond the model's max"
    ):
        pretrain_stages(runs)


def test_masking_that_cannot_be_stops_a_run_before_its_text_is_read(tmp_path, monkeypatch):
    tokenizer = str(whole_run())
    monkeypatch.setattr(corpora, "read_source", None)
    made = dict(laid(tmp_path, ("tokenizer.path", tokenizer), ("phases.only.masking.options", "{bost: 3}")))["second"]
    with pytest.raises(ValueError, match=r"phase 'only': masking\.options: .*'bost'"):
        pretrain(dataclasses.replace(made, output_dir=str(tmp_path / "out")))


def test_a_later_tokenizer_without_a_mask_stops_the_first_stage(tmp_path, capsys, monkeypatch):
    tokenizer = train_tokenizer(["red lamp"] * 3, 384)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    changes = {"train": "false", "path": tmp_path / "tokenizer"}
    changes = {f"stages__multilingual__tokenizer__{name}": value for name, value in changes.items()}
    status, _, err = run_recipe(words(tmp_path / "run", **changes), capsys, monkeypatch)
    assert status == 1
    assert error_line(err).startswith("error: stage 'multilingual': the tokenizer")
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.parametrize(
    ("rows", "second", "message"),
    [
        (130, {"tokenizer": TRAINED}, r"tokenizer\.path: its padding token has the id \d+"),
        (514, {"length": 514}, r"phase 'b': seq_length=514 is beyond the 512 positions that RobertaForMaskedLM has"),
        (514, {"tokenizer": TRAINED, "length": 300}, r"phase 'b': seq_length=300 is beyond the \d+ positions that Rob"),
    ],
)
def test_what_a_roberta_cannot_take_stops_the_first_stage(tmp_path, monkeypatch, rows, second, message):
    """Its positions begin behind the padding id, and another tokenizer moves them."""
    tokenizer = train_tokenizer(["red lamp"] * 3, 384)
    tokenizer.save_pretrained(tmp_path / "base")
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=rows, **tiny)
    RobertaForMaskedLM(config).save_pretrained(tmp_path / "base")
    phase = {"mixture": {"shop": 1}, "max_tokens": 2000, "batch_tokens": 1024, "seq_length": 64}
    second, length = dict(second), second.get("length", 64)
    second.pop("length", None)
    recipe = {
        "output_dir": str(tmp_path / "run"),
        "model": {"init_from": str(tmp_path / "base")},
        "trainer": {"use_cpu": True, "bf16": False},
        "micro_batch_tokens": 1024,
        "sources": {"shop": {"sample": "shop_text", "sample_size": 60}},
        "stages": [
            {"name": "one", "phases": [{"name": "a", **phase}]},
            {"name": "two", **second, "phases": [{"name": "b", **phase, "seq_length": length}]},
        ],
    }
    (tmp_path / "run.yaml").write_text(json.dumps(recipe))  # which is YAML too
    monkeypatch.setattr("rexbert_hf.pretraining.stages.pretrain", lambda *_, **__: pytest.fail("it has begun"))
    with pytest.raises(ValueError, match=f"^stage 'two': {message}"):
        pretrain_stages(load_settings(StagedSettings, tmp_path / "run.yaml").runs())


def test_a_tokenizer_without_padding_stops_a_padded_model_before_the_data(tmp_path, monkeypatch):
    tokenizer = train_tokenizer(["red lamp"] * 3, 384)
    tiny = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **tiny)).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    tokenizer.pad_token = None
    tokenizer.save_pretrained(tmp_path / "later")
    phase = {"name": "a", "mixture": {"shop": 1}, "max_tokens": 2000, "batch_tokens": 1024, "seq_length": 64}
    recipe = {
        "model": {"init_from": str(tmp_path / "base")},
        "trainer": {"use_cpu": True, "bf16": False},
        "micro_batch_tokens": 1024,
        "sources": {"shop": {"sample": "shop_text", "sample_size": 60}},
        "phases": [phase],
    }
    recipe |= {"tokenizer": {"path": str(tmp_path / "later")}, "output_dir": str(tmp_path / "run")}
    settings = from_dict(PretrainSettings, recipe)
    for module in ("run", "stage_checks"):
        monkeypatch.setattr(f"rexbert_hf.pretraining.{module}.prepare", lambda *_, **__: pytest.fail("tokenised"))
    with pytest.raises(ValueError, match=r"^phase 'a': masking: the tokenizer has no pad token"):
        pretrain(settings)
    with pytest.raises(ValueError, match=r"^stage 'two': phase 'a': masking: the tokenizer has no pad token"):
        check_stages([("two", settings)])


def test_what_was_prepared_for_the_checks_is_what_is_trained_on(tmp_path, monkeypatch):
    """The data of a stage whose tokenizer is that of the stage before are found again: nothing is done twice."""
    made, prepare = [], corpora._prepare
    monkeypatch.setattr(corpora, "_prepare", lambda name, *rest: made.append((name, rest[5])) or prepare(name, *rest))
    pretrain_stages(staged(tmp_path, cache_dir=tmp_path / "cache").runs())
    assert made
    assert len(set(made)) == len(made)
    assert len(made) == len(list((tmp_path / "cache").glob("*/prepared.json")))


def test_a_recipe_without_stages_needs_sources_and_phases():
    with pytest.raises(SettingsError, match="sources is required"):
        load_settings(StagedSettings, None, [])
    with pytest.raises(SettingsError, match="phases is required"):
        load_settings(StagedSettings, None, [("sources", "{shop: {sample: shop_text}}")])


def test_the_tokenizer_of_a_stage_is_trained_on_its_own_languages(whole):
    first, second = (open_tokenizer(str(whole / "stages" / name)) for name in EARLIER)
    chinese = "\u6211\u4eec\u6bcf\u5929"  # what the grammar of the sample often says
    assert len(second.tokenize(chinese)) < len(first.tokenize(chinese))


def test_the_real_recipe_is_one_too():
    runs = load_settings(StagedSettings, CONFIGS / "m3bert_real.yaml").runs()
    assert [name for name, _ in runs] == ["monolingual", "multilingual", "commercial"]
    for _, run in runs:
        assert run.sources["english"].path[0].endswith("gen_novels.txt.gz")
        assert run.sources["english"].sample is None
    assert runs[0][1].model.overrides == {}
    assert set(runs[1][1].sources) < set(runs[2][1].sources)


def test_a_stage_whose_start_was_made_again_is_not_taken_for_finished(tmp_path, whole):
    """The folder of the stage before keeps its name; what lies in it is another model."""
    folder = copied(whole, tmp_path / "run")
    weights = folder / "stages" / "multilingual" / "model.safetensors"
    tensors = load_file(weights)
    tensors["head.norm.weight"] += 1
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"another plan \(model\.starting_weights: \w+ -> \w+\)"):
        pretrain_stages(staged(folder).runs())


def test_a_checkpoint_from_before_starts_were_compared_goes_on(tmp_path, whole):
    folder = copied(whole, tmp_path / "run")
    last = ckpt.last_complete_checkpoint(folder)
    description = dict(last.info["description"])
    assert description.pop("model.starting_weights")
    ckpt.seal(last.path, last.step, {**last.info, "description": description})
    assert pretrain_stages(staged(folder).runs())["stage"] == "commercial"
    assert_same_weights(folder, whole)


@pytest.mark.parametrize("checkpoints", ["kept", "removed"])
def test_a_stage_added_after_the_last_one_stops_before_anything_trains(tmp_path, whole, monkeypatch, checkpoints):
    """The last stage wrote into `output_dir` itself, which the added one would need: nothing may be trained before."""
    folder = copied(whole, tmp_path / "run")
    if checkpoints == "removed":
        for path in folder.rglob("checkpoint-*"):
            shutil.rmtree(path)
    started = []
    monkeypatch.setattr("rexbert_hf.pretraining.stages.pretrain", lambda settings, **_: started.append(settings) or {})
    runs = staged(folder).runs()
    pretrain_stages(runs)
    assert len(started) == 3
    last = runs[-1][1]
    moved = dataclasses.replace(last, output_dir=str(folder / "stages" / "commercial"))
    added = dataclasses.replace(
        last, seed=7, model=dataclasses.replace(last.model, init_from=str(folder / "stages" / "commercial"))
    )
    started.clear()
    with pytest.raises(ValueError, match=r"stage 'added': .* another plan \(.*seed: 0 -> 7.*output_dir") as caught:
        pretrain_stages([*runs[:-1], ("commercial", moved), ("added", added)])
    assert "\n" not in str(caught.value)
    assert not started
    assert not (folder / "stages" / "commercial" / "model.safetensors").exists()


@pytest.mark.parametrize("change", [{}, {"seed": 7}], ids=["same", "another seed"])
def test_what_an_earlier_version_hid_in_a_stages_run_file_makes_no_run_another_one(tmp_path, whole, change):
    """It hid shares of a mixture under a source's name, such as `victorias_secret`."""
    folder = copied(whole, tmp_path / "run")
    for path in folder.rglob("checkpoint-*"):
        shutil.rmtree(path)
    written = json.loads((folder / "run.json").read_text())
    hidden = {key: "<redacted>" for key in written["plan"] if ".mixture." in key}
    assert hidden
    (folder / "run.json").write_text(json.dumps({**written, "plan": written["plan"] | hidden}))
    runs = [(name, dataclasses.replace(settings, **change)) for name, settings in staged(folder).runs()[-1:]]
    with pytest.raises(ValueError, match="seed: 0 -> 7") if change else contextlib.nullcontext():
        check_stages(runs)


LAID = """
output_dir: out
sources: {shop: {sample: shop_text}, general: {sample: general_text}}
phases: [{name: only, mixture: {shop: 1}, max_tokens: 2k, seq_length: 64, batch_tokens: 1024}]
stages:
  - name: first
    seed: 1
    trainer: {save_steps: 10}
  - name: second
    seed: 2
    sources: !replace {shop: {sample: shop_text, max_documents: 50}}
    phases: [{name: only, max_tokens: 4k}]
"""


def laid(tmp_path, *pairs, text=LAID):
    (tmp_path / "laid.yaml").write_text(text)
    return dict(load_settings(StagedSettings, tmp_path / "laid.yaml", pairs).runs())


def test_the_command_line_comes_after_the_keys_of_a_stage(tmp_path):
    runs = laid(
        tmp_path,
        ("seed", "7"),
        ("trainer.save_steps", "3"),
        ("phases.only.max_tokens", "6k"),
        ("stages.second.seed", "8"),
        ("sources.shop.max_documents", "60"),
        ("sources.general.max_documents", "70"),
    )
    assert [run.seed for run in runs.values()] == [7, 8]
    assert [run.trainer.save_steps for run in runs.values()] == [3, 3]
    assert [run.phases[0].max_tokens for run in runs.values()] == [6000, 6000]
    assert [run.sources["shop"].max_documents for run in runs.values()] == [60, 60]
    assert runs["first"].sources["general"].max_documents == 70
    assert set(runs["second"].sources) == {"shop"}  # a source that the stage does not have stays away


def test_without_a_command_line_a_stage_keeps_its_own_keys(tmp_path):
    runs = laid(tmp_path)
    assert [run.seed for run in runs.values()] == [1, 2]
    assert [run.phases[0].max_tokens for run in runs.values()] == [2000, 4000]


def test_stages_that_the_command_line_writes_are_laid_over_what_all_share(tmp_path):
    text = LAID.partition("stages:")[0] + "seed: 4\ntrainer: {save_steps: 10, logging_steps: 2}\n"
    typed = "[{name: a}, {name: b, seed: 2, trainer: {save_steps: 5}, phases: [{name: only, max_tokens: 4k}]}]"
    further = [("trainer.logging_steps", "3"), ("seed", "7"), ("stages.a.trainer.save_steps", "6")]
    runs = laid(tmp_path, ("stages", typed), *further, text=text)
    assert [run.seed for run in runs.values()] == [7, 2]
    assert [run.trainer.save_steps for run in runs.values()] == [6, 5]
    assert [run.trainer.logging_steps for run in runs.values()] == [3, 3]
    assert [run.phases[0].max_tokens for run in runs.values()] == [2000, 4000]
    assert [run.phases[0].seq_length for run in runs.values()] == [64, 64]
    assert [list(run.sources) for run in runs.values()] == [["shop", "general"]] * 2
    over_a_file = laid(tmp_path, ("stages", "[{name: only}]"))
    assert [(name, run.seed, len(run.sources)) for name, run in over_a_file.items()] == [("only", 0, 2)]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("model.size", "mini", "stage 'second' goes on with the model of the stage before it: drop its model.size"),
        ("model.grow_from", "x", "drop its model.grow_from, or set it for the first stage, 'first'"),
        ("model.overrides", "{num_hidden_layers: 2}", "drop its model.overrides"),
    ],
)
def test_a_key_that_a_later_stage_would_not_read_is_refused(tmp_path, key, value, message):
    with pytest.raises(SettingsError, match=message) as caught:
        laid(tmp_path, (f"stages.second.{key}", value))
    assert "\n" not in str(caught.value)
    assert laid(tmp_path, (key, value))  # of all: the first one reads it


def test_a_push_of_an_earlier_stage_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="stage 'first' has a push_to_hub of its own"):
        laid(tmp_path, ("stages.first.push_to_hub", "me/one"))
    assert laid(tmp_path, ("stages.second.push_to_hub", "me/two"))["second"].push_to_hub == "me/two"
