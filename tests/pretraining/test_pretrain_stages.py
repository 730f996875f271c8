"""Stages: one command runs them all, each from the folder of the one before; stopped, resumed, and refused."""

from __future__ import annotations

import shutil

import pytest
from pretraining_cases import CONFIGS, TINY, assert_same_weights, error_line, options
from pretraining_cases import recipe as run_recipe

from rexbert_hf.data.vocabulary import train_tokenizer
from rexbert_hf.hub import read_run
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.encoder import open_tokenizer
from rexbert_hf.pretraining.stages import StagedSettings, pretrain_stages
from rexbert_hf.settings import SettingsError, from_dict, load_settings

SMALL = {
    **{key: value for key, value in TINY.items() if not key.startswith("tokenizer")},
    "model.overrides": "{num_hidden_layers: 2, hidden_size: 32, intermediate_size: 32, num_attention_heads: 2}",
    "model.matryoshka": "{layers: [1, 2], dims: [8, 32]}",
    "sources.english.max_documents": "80",
    "stages.monolingual.tokenizer.vocab_size": "384",
    "stages.multilingual.tokenizer.vocab_size": "512",
    "stages.multilingual.sources.others.sample_size": "60",
    "stages.commercial.sources.others.sample_size": "60",
    "stages.commercial.sources.shop.max_documents": "80",
    **{
        f"stages.{stage}.phases.{phase}.{key}": value
        for stage, phase in (("monolingual", "english"), ("multilingual", "adaptation"), ("commercial", "shop"))
        for key, value in {"max_tokens": "3k", "batch_tokens": "1024", "seq_length": "64"}.items()
    },
    "stages.monolingual.phases.english.schedule.warmup_tokens": "1k",
    "stages.multilingual.phases.adaptation.schedule.warmup_tokens": "0",
}
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


def test_a_tokenizer_that_lost_its_mask_between_stages_stops_the_run(tmp_path, whole, capsys, monkeypatch):
    tokenizer = train_tokenizer(["red lamp"] * 3, 384)
    tokenizer.mask_token = None
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    shutil.copytree(whole / "stages" / "monolingual", tmp_path / "run" / "stages" / "monolingual")
    changed = words(
        tmp_path / "run",
        stages__multilingual__tokenizer__train="false",
        stages__multilingual__tokenizer__path=tmp_path / "tokenizer",
    )
    status, _, err = run_recipe(changed, capsys, monkeypatch)
    assert status == 1
    assert "tokenizer has no mask token" in error_line(err)


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
