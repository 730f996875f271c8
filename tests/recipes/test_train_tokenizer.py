"""The tokenizer recipe: exit status, the folder it leaves, its one-line errors."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rexbert_hf.catalog import load_sample
from rexbert_hf.pretraining import tokenizer_run
from rexbert_hf.pretraining.tokenizer_run import Atoms, TextSource, TokenizerRun, find_atoms, make_tokenizer

RECIPE = Path(__file__).parents[2] / "recipes" / "train_tokenizer.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the recipe as `python recipes/train_tokenizer.py WORDS` does; exit status, stdout, stderr."""

    def start(*words):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


def test_trains_on_the_sample_shop(run, tmp_path):
    words = ["--output_dir", str(tmp_path), "--vocab_size", "1024", "--texts.0.limit", "2000", "--class_tokens"]
    status, out, _ = run(*words)
    assert status == 0
    assert "bytes per token, held out:" in out
    done = json.loads((tmp_path / "run.json").read_text())
    assert done["config"]["vocab_size"] == done["results"]["vocab_size"] == 1024
    assert done["results"]["bytes_per_token"] > 1
    assert done["results"]["brands"] > 0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer) == 1024
    assert "<PRICE>" in tokenizer.get_vocab()


def test_a_wrong_key_is_status_two(run):
    status, out, err = run("--vocab_sise", "1024")
    assert (status, out) == (2, "")
    assert err.startswith("error: unknown key 'vocab_sise'")
    assert err.count("\n") == 1


def test_a_missing_column_is_status_one(run, tmp_path):
    (tmp_path / "t.csv").write_text("title\nred lamp\n")
    status, _, err = run("--texts", f"[{{path: {tmp_path / 't.csv'}}}]", "--output_dir", str(tmp_path / "out"))
    assert status == 1
    assert "no column 'text' among title: set the source's columns.text" in err
    assert not (tmp_path / "out").exists()


def test_own_texts_with_names_of_the_sample_are_told(tmp_path, caplog):
    (tmp_path / "own.txt").write_text("\n".join(f"a red lamp of {i} watts" for i in range(600)))
    own, shop = TextSource(path=str(tmp_path / "own.txt")), TextSource(sample="products", limit=50)
    for texts, products, told in (
        ([own], shop, True),
        ([own], None, False),
        ([TextSource(sample="shop_text", limit=600)], shop, False),
    ):
        caplog.clear()
        make_tokenizer(TokenizerRun(texts, products=products, output_dir=tmp_path / "out", vocab_size=384))
        said = "brands and types are those of the sample shop, and texts your own: set --products to your own catalogue"
        assert (said in caplog.text) == told


def test_a_source_is_a_sample_or_a_path(run):
    status, _, err = run("--texts.0.path", "x.csv")
    assert status == 2
    assert "texts.0: give either 'sample' or 'path'" in err


MULTILINGUAL = (
    "[{sample: shop_text, language: en, limit: 800},"
    " {sample: multilingual_text, columns: {text: text, language: language}, limit: 1500}]"
)


def test_a_temperature_gives_small_languages_more_of_the_vocabulary(run, tmp_path):
    found = {}
    for temperature in ("1.0", "0.0"):
        words = ["--texts", MULTILINGUAL, "--products", "null", "--vocab_size", "768", "--temperature", temperature]
        status, out, _ = run(*words, "--output_dir", str(tmp_path / temperature))
        assert status == 0
        found[temperature] = json.loads((tmp_path / temperature / "run.json").read_text())["results"]["languages"]
        assert "language  tokens/character" in out
    assert set(found["0.0"]) == {"de", "en", "es", "id", "zh"}
    for code in ("zh", "id"):
        assert found["0.0"][code]["tokens_per_character"] < found["1.0"][code]["tokens_per_character"]
    assert found["0.0"]["en"]["tokens_per_character"] > found["1.0"]["en"]["tokens_per_character"]
    assert found["0.0"]["zh"]["tokens_per_word"] is None


def unigram(folder, mask=True):
    """A SentencePiece tokenizer as XLM-R's: Unigram, <s> </s> <pad> <unk> <mask>, metaspace."""
    texts = [text for kind in ("multilingual_text", "shop_text") for text in load_sample(kind, size=120)["text"]]
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", *(["<mask>"] if mask else [])]
    trainer = trainers.UnigramTrainer(vocab_size=700, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "pad_token": "<pad>"}
    names |= {"unk_token": "<unk>"} | ({"mask_token": "<mask>"} if mask else {})
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(folder)
    return folder


def test_a_tokenizer_of_another_kind_is_measured_and_saved(run, tmp_path):
    folder = unigram(tmp_path / "xlmr")
    words = [
        "--texts",
        MULTILINGUAL,
        "--products",
        "null",
        "--path",
        str(folder),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    status, out, _ = run(*words)
    assert status == 0
    assert "zh " in out
    saved, given = AutoTokenizer.from_pretrained(tmp_path / "out"), AutoTokenizer.from_pretrained(folder)
    assert saved.get_vocab() == given.get_vocab()
    assert saved.mask_token == "<mask>"
    done = json.loads((tmp_path / "out" / "run.json").read_text())["results"]
    assert done["vocab_size"] == len(given)


def test_one_without_a_mask_is_refused(run, tmp_path):
    folder = unigram(tmp_path / "xlmr", mask=False)
    words = [
        "--texts",
        MULTILINGUAL,
        "--products",
        "null",
        "--path",
        str(folder),
        "--output_dir",
        str(tmp_path / "out"),
    ]
    status, _, err = run(*words)
    assert status == 1
    assert "has no mask token" in err
    assert not (tmp_path / "out").exists()


def test_a_language_with_no_held_out_text_is_named(run, tmp_path, caplog):
    (tmp_path / "t.jsonl").write_text('{"text": "one lamp"}\n')
    texts = f"[{{sample: shop_text, language: en, limit: 500}}, {{path: {tmp_path / 't.jsonl'}, language: th}}]"
    status, _, err = run("--texts", texts, "--products", "null", "--output_dir", str(tmp_path / "out"))
    assert status == 0, err
    assert "none of the 1 texts in 'th' is held out: it is not measured" in caplog.text
    assert [*json.loads((tmp_path / "out" / "run.json").read_text())["results"]["languages"]] == ["en"]


@pytest.mark.parametrize("path", ["Home > Table lamps", '"[""Home"", ""Table lamps""]"'])
def test_atoms_come_from_a_catalogue_with_a_brand_and_a_category(tmp_path, path):
    (tmp_path / "shop.csv").write_text(f"product_id,brand,category_path\n1,Acme,{path}\n2,Acme,{path}\n")
    products = TextSource(path=str(tmp_path / "shop.csv"))
    run = TokenizerRun(texts=[TextSource(sample="shop_text")], products=products, atoms=Atoms(min_count=1))
    assert find_atoms(run, ["An Acme table lamp", "Acme"]) == ([" Acme", "Acme"], [" table lamp"])
    (tmp_path / "shop.csv").write_text("product_id,brand\n1,Acme\n")
    with pytest.raises(ValueError, match=r"shop\.csv: no column 'category_path'"):
        find_atoms(run, ["Acme"])


def test_a_finished_tokenizer_stays_whole_until_the_new_one_is(tmp_path, monkeypatch):
    """Killed at any file, it leaves the old tokenizer with its figures, or no run.json."""

    class Killed(BaseException):
        pass

    def killed(*args, **options):
        raise Killed

    def make(size):
        texts = [TextSource(sample="shop_text", limit=800)]
        return make_tokenizer(TokenizerRun(texts, output_dir=tmp_path, vocab_size=size))

    def files():
        return {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.name[0] != "."}

    make(512)
    before = files()
    for place in ("take_place", "write_run"):
        with monkeypatch.context() as patch:
            patch.setattr(tokenizer_run, place, killed)
            with pytest.raises(Killed):
                make(768)
        if place == "take_place":
            assert files() == before
            if place == "write_run":
                with pytest.raises(Killed):  # a start that is stopped too knows whose files they are, and so on
                    make(768)
    assert files().keys() == before.keys() - {"run.json"}
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 768
    make(768)
    assert files().keys() == before.keys()
    assert [path.name for path in tmp_path.iterdir() if path.name[0] == "."] == []
