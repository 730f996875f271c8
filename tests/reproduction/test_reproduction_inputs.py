from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from reproduction_cases import paper, plan_ahead
from transformers import PreTrainedTokenizerBase

from rexbert_hf.catalog import split_of
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.pretraining.encoder import load_tokenizer
from rexbert_hf.reproduction import grid_cells, jobs, reproduce
from rexbert_hf.reproduction.budgets import stage_recipe
from rexbert_hf.reproduction.inputs import (
    SHARED_GUIDES,
    drop_others,
    mine_pool,
    prepare_shared,
    stage_guides,
    with_data,
)
from rexbert_hf.reproduction.settings import LexiconSettings, PhraseSettings
from rexbert_hf.settings import SettingsError

OPTIONS = {"min_count": 3, "trees": 20}


def test_a_pool_is_mined_once_from_training_documents(tmp_path, monkeypatch):
    settings = paper(tmp_path, **{"base.evaluation.held_out": 0.5})
    seen: list[list[str]] = []
    mine = PhrasePool.mine

    def spy(texts, positives, **options):
        seen.append(texts)
        assert "Laptops" in positives, "without a taxonomy the known phrases are the sample shop's"
        return mine(texts, positives, **options)

    monkeypatch.setattr(PhrasePool, "mine", spy)
    folder = mine_pool(settings, PhraseSettings(["shop"], max_size=15, options=OPTIONS))
    pool = PhrasePool.load(folder)
    assert 0 < len(pool) <= 15
    assert mine_pool(settings, PhraseSettings(["shop"], max_size=15, options=OPTIONS)) == folder
    assert len(seen) == 1
    assert len(set(seen[0])) == len(seen[0])
    everything = paper(tmp_path / "all", **{"base.evaluation.held_out": 0.0})
    mine_pool(everything, PhraseSettings(["shop"], options=OPTIONS))
    assert set(seen[0]) < set(seen[1]), "held-out documents are not mined"
    assert 0.3 < len(seen[0]) / len(seen[1]) < 0.7


def test_names_of_a_taxonomy_are_known_phrases(tmp_path, monkeypatch):
    (tmp_path / "tree.txt").write_text("1 - Home > Table Lamps\n2 - Home > Tea Pots\n")
    (tmp_path / "shop.txt").write_text("\n".join(f"a tea pot and a table lamp, number {i}" for i in range(9)))
    changes = {"base.data_dir": str(tmp_path), "base.sources.shop": {"path": "shop.txt"}, "base.evaluation.held_out": 0}
    settings = paper(tmp_path / "out", **changes)
    positives = LexiconSettings("tree.txt", "text", format="text")
    folder = mine_pool(settings, PhraseSettings(["shop"], positives, options={"min_count": 3, "trees": 10}))
    assert {"tea pot", "table lamp"} <= set(PhrasePool.load(folder).phrases)


def test_a_stage_keeps_the_guides_that_it_writes_itself(tmp_path):
    own = {"guides.types": "mine.txt", "guides.phrases": None}
    settings = paper(tmp_path, **{"stages.2.settings": own})
    made = {name: f"made/{name}" for name in SHARED_GUIDES}
    shared = dataclasses.replace(settings.base, guides=dataclasses.replace(settings.base.guides, **made))
    plain, guided = (
        stage_guides(stage, stage_recipe(settings, stage), shared) for stage in (settings.stages[1], settings.stages[2])
    )
    assert (plain.types, plain.brands, plain.phrases) == ("made/types", "made/brands", "made/phrases")
    assert (guided.types, guided.brands, guided.phrases) == ("mine.txt", "made/brands", None)
    assert guided.sample_lexicons == settings.base.guides.sample_lexicons


def test_without_the_data_nothing_is_read_from_it(tmp_path):
    changes = {"base.data_dir": str(tmp_path / "nowhere"), "without_data": {"seed": 3}}
    changes["phrases"] = {"sources": ["shop"], "positives": {"path": "tree.txt"}}
    changes["lexicons"] = {"path": "tree.txt"}
    found = with_data(paper(tmp_path, **changes))
    assert (found.lexicons, found.base.data_dir, found.base.seed) == (None, None, 3)
    assert found.phrases == PhraseSettings(["shop"])
    Path(changes["base.data_dir"]).mkdir()
    assert with_data(paper(tmp_path, **changes)).lexicons is not None


def test_phrases_of_an_unknown_source_are_one_line():
    with pytest.raises(SettingsError, match="'shpo', which does not exist; did you mean 'shop'"):
        paper(phrases={"sources": ["shpo"]})


def test_a_kill_while_the_shared_tokenizer_is_saved_is_started_again(tmp_path, monkeypatch):
    """The tokenizer is there whole or not at all, and half a file of an earlier version is made again."""

    class Killed(BaseException):
        pass

    settings = paper(tmp_path)
    save = PreTrainedTokenizerBase.save_pretrained

    def killed(tokenizer, folder, **options):
        save(tokenizer, folder, **options)
        path = Path(folder) / "tokenizer.json"
        path.write_bytes(path.read_bytes()[:1000])
        raise Killed

    with monkeypatch.context() as patched:
        load = load_tokenizer(settings.base, tmp_path / "cache")  # this one is in the cache, whole
        patched.setattr(PreTrainedTokenizerBase, "save_pretrained", killed)
        with pytest.raises(Killed):
            prepare_shared(settings)
    assert not (tmp_path / "tokenizer").exists()
    prepare_shared(settings)
    path = tmp_path / "tokenizer" / "tokenizer.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    shared = prepare_shared(settings)
    assert path.read_bytes() == whole
    assert load_tokenizer(shared, tmp_path / "cache").get_vocab() == load.get_vocab()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(("kind", "options"), [("spans", {}), ("masked_cells", {"layers": [1], "dims": [8]})])
def test_rows_are_measured_on_nothing_that_any_source_repeats(tmp_path, monkeypatch, kind, options):
    """A row may mix a source that the base recipe does not mix."""
    words, rng = [a + b for a in ("ka", "lo", "mi", "tu", "re") for b in ("b", "nd", "st", "p")], random.Random(3)
    own = [" ".join(rng.choices(words, k=40)) for _ in range(200)]
    files = {"general": words, "shop": own, "extra": [f"{text} again" for text in own[:100]]}
    for name, texts in files.items():
        (tmp_path / f"{name}.txt").write_text("".join(text + "\n" for text in texts))
    changes = {f"base.sources.{name}": {"path": str(tmp_path / f"{name}.txt")} for name in files}
    changes["stages.2.settings"] = {"phases.anneal.mixture": {"extra": 1}}
    settings = paper(tmp_path / "out", **changes)
    recipe = stage_recipe(settings, settings.stages[2])
    shared = prepare_shared(settings)
    kept = sorted(path.name for path in Path(shared.cache_dir).iterdir())
    seen: list[str] = []

    def look(_, held_out, tokenizer, *__):
        seen.extend(tokenizer.decode(held_out.take([i]).input_ids[1:-1]) for i in range(len(held_out)))
        return {}

    shape = {"num_hidden_layers": 1, "hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 1}
    model, tokenizer = RexBertForMaskedLM(RexBertConfig(**shape)), load_tokenizer(shared, tmp_path)
    for module in (jobs, grid_cells):
        monkeypatch.setattr(module, "load_job_model", lambda _: (model, tokenizer))
    monkeypatch.setattr(jobs, "evaluate_spans", look)
    monkeypatch.setattr(grid_cells, "evaluate_cells", look)
    monkeypatch.setattr(grid_cells, "named", dict)
    assert jobs.MEASURES[kind](jobs.Job(settings.stages[2], 0, recipe, shared), **options) == {}
    assert set(seen) == {text for text in own[100:] if split_of(text, 0.1) == "validation"}
    assert sorted(path.name for path in Path(shared.cache_dir).iterdir()) == kept, "compared before rows are measured"


@pytest.mark.parametrize(
    "name",
    ["tokenizer/tokenizer.json", "phrases/README.md", "pairs.parquet", "calibration/x", "brands.txt", "table.md"],
)
def test_what_a_reproduction_did_not_make_is_refused_and_stays(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    for _ in range(2):
        with pytest.raises(
            ValueError, match=rf"holds {name.split('/')[0]} of something else: choose another output_dir"
        ):
            reproduce(paper(tmp_path))
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "shared.json").exists()


def test_what_other_settings_left_before_a_plan_is_made_again(tmp_path, monkeypatch):
    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    def start(**changes):
        with pytest.raises(Stopped):
            reproduce(paper(tmp_path, phrases={"sources": ["shop"], "options": OPTIONS}, **changes))
        for name in ("tokenizer", "phrases"):
            marks.setdefault(name, []).append((tmp_path / name / "MARK").exists())
            (tmp_path / name / "MARK").touch()
        tokenizer = json.loads((tmp_path / "tokenizer" / "tokenizer.json").read_text())
        return len(tokenizer["model"]["vocab"])

    marks: dict[str, list[bool]] = {}
    monkeypatch.setattr("rexbert_hf.reproduction.runner._calibrate", stop)
    small = start()
    assert start(budget=50.0, seeds=[5], title="More") == small, "they are no matter of time"
    assert marks == {"tokenizer": [False, True], "phrases": [False, True]}
    assert start(**{"base.tokenizer": {"vocab_size": 640}}) > small
    assert marks == {"tokenizer": [False, True, False], "phrases": [False, True, False]}


def test_settings_that_an_earlier_version_hid_are_no_others(tmp_path):
    drop_others(paper(tmp_path))
    shared = json.loads((tmp_path / "shared.json").read_text())
    shared["for"]["base.sources.shop.sample"] = "<redacted>"
    (tmp_path / "shared.json").write_text(json.dumps(shared))
    (tmp_path / "tokenizer").mkdir()
    drop_others(paper(tmp_path))
    assert (tmp_path / "tokenizer").is_dir(), "not made again"


def test_a_folder_with_a_plan_keeps_what_its_runs_began_with(tmp_path):
    pairs = tmp_path / "pairs.parquet"
    pairs.touch()
    plan_ahead(paper(tmp_path))
    drop_others(paper(tmp_path, **{"base.tokenizer": {"vocab_size": 640}}))
    assert pairs.exists()
    (tmp_path / "plan.json").unlink()
    with pytest.raises(
        ValueError, match=r"holds pairs\.parquet of something else: choose another output_dir, or delete"
    ):
        drop_others(paper(tmp_path))
    assert pairs.exists(), "nobody knows whose it is"
    (tmp_path / "shared.json").write_text("{")
    with pytest.raises(
        ValueError, match=r"shared\.json, line 1: not JSON .*; choose .*, or delete it with pairs\.parquet$"
    ):
        drop_others(paper(tmp_path))
