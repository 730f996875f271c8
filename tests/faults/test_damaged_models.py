"""A model or tokenizer that is cut off, as a copy that was interrupted leaves it: one line, whatever reads it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "retrieval"))

from index_cases import make_products
from page_cases import tiny_masked_lm
from search_cases import tiny_model

from rexbert_hf.corpus.build import _counter
from rexbert_hf.evaluation.judge import CrossEncoderJudge
from rexbert_hf.hub.loading import LoadingError, loading
from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.encoder import load_model, load_tokenizer, open_tokenizer
from rexbert_hf.retrieval.serving.fill_mask import FillMask
from rexbert_hf.retrieval.serving.index import ProductIndex
from rexbert_hf.retrieval.serving.query_model import open_model
from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.faulty_rows import _load as load_rows_model
from rexbert_hf.retrieval.training.reranker import RerankerSettings, finetune_reranker
from rexbert_hf.settings import from_dict
from rexbert_hf.training.replay import load_model as load_replayed

RECIPES = Path(__file__).parents[2] / "recipes"
WEIGHTS, TOKENIZER = "model.safetensors", "tokenizer.json"
SMALL = {"data": {"sample_size": 40}, "trainer": {"use_cpu": True, "cpu_threads": 1, "bf16": False, "max_steps": 1}}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Folders of a masked-LM model and of a bi-encoder, both complete."""
    place = tmp_path_factory.mktemp("whole")
    tiny_masked_lm(place / "lm")
    tiny_model().save_pretrained(str(place / "search"), create_model_card=False)
    return place


@pytest.fixture
def cut(whole, tmp_path):
    """Make a copy of one of the folders in which one file ends in its middle."""

    def make(kind, name):
        folder = tmp_path / kind
        shutil.copytree(whole / kind, folder)
        (file,) = folder.rglob(name)
        data = file.read_bytes()
        file.write_bytes(data[: len(data) // 2])
        return folder

    return make


def settings(**model):
    return from_dict(
        PretrainSettings,
        {
            "sources": {"shop": {"sample": "shop_text"}},
            "phases": [{"name": "one", "mixture": {"shop": 1}, "max_tokens": 1000}],
            "model": {"size": "micro", **model},
        },
    )


def grown(folder):
    load_model(settings(grow_from=str(folder)), open_tokenizer(str(folder)))


def continued(folder):
    load_model(settings(size=None, init_from=str(folder)), open_tokenizer(str(folder)))


def reranked(folder):
    finetune_reranker(from_dict(RerankerSettings, {**SMALL, "base": str(folder), "output_dir": f"{folder}-run"}))


def distilled(folder):
    distil_search(from_dict(DistilSettings, {**SMALL, "teacher": str(folder), "output_dir": f"{folder}-run"}))


def judged(folder):
    CrossEncoderJudge(str(folder), folder / "answers.jsonl")


READERS = [
    ("lm", TOKENIZER, lambda folder: open_tokenizer(str(folder))),
    ("lm", TOKENIZER, lambda folder: load_tokenizer(settings(grow_from=str(folder)), folder)),
    ("lm", WEIGHTS, continued),
    ("lm", WEIGHTS, grown),
    ("lm", WEIGHTS, lambda folder: FillMask(str(folder))),
    ("lm", TOKENIZER, lambda folder: FillMask(str(folder))),
    ("lm", WEIGHTS, load_replayed),
    ("lm", "config.json", load_replayed),
    ("lm", TOKENIZER, lambda folder: _counter(str(folder))),
    ("lm", TOKENIZER, lambda folder: load_biencoder(BiEncoderSettings(tokenizer=str(folder)))),
    ("lm", WEIGHTS, judged),
    ("lm", TOKENIZER, judged),
    ("search", WEIGHTS, open_model),
    ("search", TOKENIZER, open_model),
    ("search", WEIGHTS, lambda folder: load_biencoder(BiEncoderSettings(base=str(folder)))),
    ("search", TOKENIZER, lambda folder: load_biencoder(BiEncoderSettings(base=str(folder)))),
    ("search", WEIGHTS, lambda folder: load_rows_model(folder, "cpu")),
    ("search", TOKENIZER, lambda folder: load_rows_model(folder, "cpu")),
    ("lm", WEIGHTS, reranked),
    ("lm", TOKENIZER, reranked),
    ("search", WEIGHTS, distilled),
    ("search", TOKENIZER, distilled),
]


@pytest.mark.parametrize(("kind", "name", "read"), READERS)
def test_a_file_that_is_cut_off_is_one_line(cut, kind, name, read):
    folder = cut(kind, name)
    with pytest.raises(ValueError, match=r"no [\w -]+ can be loaded from it \(.+\): \w+") as refused:
        read(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_vocabulary_is_not_changed_from_a_tokenizer_that_cannot_be_read(whole, cut):
    """Its rows were once taken for those of the new tokenizer, with a warning only."""
    folder = cut("lm", TOKENIZER)
    chosen = settings(size=None, init_from=str(folder))
    chosen.tokenizer.path = str(whole / "lm")
    tokenizer = open_tokenizer(chosen.tokenizer.path)
    with pytest.raises(ValueError, match="no tokenizer can be loaded from it"):
        load_model(chosen, tokenizer)
    for file in folder.glob("*token*"):
        file.unlink()
    load_model(chosen, tokenizer)  # without one of its own they are


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER])
def test_an_index_says_that_its_model_cannot_be_loaded(cut, whole, tmp_path, name):
    pytest.importorskip("faiss")
    place = tmp_path / "search"
    shutil.copytree(whole / "search", place)
    ProductIndex.build(make_products(20), str(place), "flat").save(tmp_path / "index")
    shutil.rmtree(place)
    folder = cut("search", name)
    with pytest.raises(ValueError, match=r"this index's model, cannot be loaded \(.+\): give model=") as refused:
        ProductIndex.load(tmp_path / "index").search("lamp")
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("recipe", "kind", "flag"),
    [("build_index.py", "search", ("--model",)), ("plot_attention.py", "lm", ())],
)
def test_a_recipe_prints_the_line_and_no_traceback(cut, tmp_path, recipe, kind, flag):
    folder = cut(kind, WEIGHTS)
    command = [sys.executable, str(RECIPES / recipe), *flag, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"error: {folder}: no ")


def test_what_says_it_better_is_left_alone():
    said = r"^inner: no model can be loaded from it \(KeyError\): take"
    with pytest.raises(LoadingError, match=said), loading("index", "outer"), loading("model", "inner"):
        raise KeyError
    for kind, text in ((MemoryError, ""), (ImportError, "x is missing: pip install rexbert-hf[x]"), (SystemExit, "")):
        with pytest.raises(kind), loading("model", "shop"):
            raise kind(text)
