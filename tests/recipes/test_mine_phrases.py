"""The phrase recipe: exit status, the folder it leaves, sources with patterns, its one-line errors."""

from __future__ import annotations

import dataclasses
import gzip
import json
import runpy
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rexbert_hf.phrases import MiningOptions, PhrasePool
from rexbert_hf.phrases.mining_run import MinedTexts, MineRun, NameSource, TextSource, read_positives, run_mining
from rexbert_hf.settings import load_settings

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "mine_phrases.py"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the recipe as `python recipes/mine_phrases.py WORDS` does; exit status, stdout, stderr."""

    def start(*words):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


def test_mines_the_sample_shop(run, tmp_path):
    words = ["--output_dir", str(tmp_path), "--mining.trees", "30", "--card.noun_phrase_texts", "300"]
    words += ["--texts.1.limit", "4000", "--max_size", "400"]
    status, out, _ = run(*words)
    assert status == 0
    pool = PhrasePool.load(tmp_path)
    done = json.loads((tmp_path / "run.json").read_text())
    assert done["results"]["pool_size"] == len(pool) <= 400
    assert done["results"]["fingerprint"] == pool.fingerprint
    assert done["config"]["mining"]["trees"] == 30
    assert {"dog food", "running shoes"} & set(pool.phrases)
    assert pool.scores.min() >= 0.5
    assert "Electronics" in pool.categories
    card = (tmp_path / "README.md").read_text()
    assert "| Electronics |" in card
    assert f"- Code: git commit `{done['git_commit']}`." in card
    assert f"{done['hardware']}. Energy and carbon were not measured." in card
    assert f"{len(pool):,} phrases in" in out
    assert {path.name for path in tmp_path.iterdir()} == {"data", "README.md", "run.json"}


def test_own_texts_with_the_known_phrases_of_the_sample_are_told(tmp_path, caplog):
    """And nothing is said of their language."""
    lines = [f"a dog food bowl number {i % 9} and running shoes of size {i}" for i in range(60)]
    (tmp_path / "own.txt").write_text("\n".join(lines))
    config = ROOT / "recipes" / "configs" / "mine_phrases.yaml"
    pairs = [("texts", f"[{{path: {tmp_path / 'own.txt'}}}]"), ("output_dir", str(tmp_path / "pool"))]
    mined = load_settings(MineRun, config, [*pairs, ("mining.trees", "5"), ("card.noun_phrase_texts", "0")])
    assert mined.card.language is None
    run_mining(mined)
    assert "positives are those of the sample shop, and texts your own: set --positives" in caplog.text
    assert "language:" not in (tmp_path / "pool" / "README.md").read_text().split("---")[1]
    caplog.clear()
    (tmp_path / "names.txt").write_text("dog food\nrunning shoes\n")
    run_mining(dataclasses.replace(mined, positives=[NameSource(path=str(tmp_path / "names.txt"))]))
    assert "positives are those" not in caplog.text


def test_patterns_categories_and_repeated_texts(tmp_path):
    lines = ["COL a lamp\tCOL Red  Lamp\t0", "COL red lamp\tCOL pot\t1"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines))
    with gzip.open(tmp_path / "offers.csv.gz", "wt") as file:
        file.write("1,Pot,Home > Kitchen\n2,Tea pot,Garden | Seeds\n")
    run = MineRun(
        texts=[
            TextSource(path=str(tmp_path / "pairs.txt"), pattern=r"COL (.*?)(?=\tCOL|\t[01])", category="Light"),
            TextSource(
                path=str(tmp_path / "offers.csv.gz"),
                header=["id", "title", "path"],
                columns={"text": "title", "category": "path"},
            ),
        ],
        positives=[NameSource(path=str(tmp_path / "pairs.txt"), pattern=r"COL (\w+ \w+)")],
    )
    texts = MinedTexts(run, tmp_path)
    rows = [(row["text"], row["category"]) for row in texts]
    assert rows == [("a lamp", "Light"), ("Red  Lamp", "Light"), ("pot", "Light"), ("Tea pot", "Garden")]
    assert texts.dropped == 2
    assert list(texts) == list(texts)
    run.deduplicate = False
    assert len(list(MinedTexts(run, tmp_path))) == 6
    assert read_positives(run, tmp_path) == ["a lamp", "red lamp"]


@pytest.mark.parametrize("wrong", ["work_dir", "data"])
def test_a_folder_that_cannot_be_written_stops_the_run_before_a_text_is_read(run, tmp_path, wrong):
    words, message = ["--output_dir", str(tmp_path / "out"), "--texts", f"[{{path: {tmp_path}/none.txt}}]"], "below"
    if wrong == "work_dir":
        (tmp_path / "file").write_text("")
        words += ["--mining.work_dir", str(tmp_path / "file" / "below")]
    else:
        message = "products.parquet is no file of a phrase pool"
        (tmp_path / "out" / "data").mkdir(parents=True)
        pq.write_table(pa.table({"text": ["red lamp"]}), tmp_path / "out" / "data" / "products.parquet")
    status, _, err = run(*words)
    assert status == 1
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(("values", "kind"), [([1, 2], "int64"), ([["tea pot"], None], "list<.*string>")])
def test_a_column_of_another_type_than_text_is_named(tmp_path, values, kind):
    path = str(tmp_path / "a.parquet")
    pq.write_table(pa.table({"names": values}), path)
    message = rf"a.parquet: the column 'text' is of type {kind}, not text: map one of text with 'columns'$"
    known = NameSource(path=path, columns={"text": "names"})
    with pytest.raises(ValueError, match=message):
        MinedTexts(MineRun(texts=[TextSource(path=path, columns={"text": "names"})], positives=[known]), tmp_path)
    with pytest.raises(ValueError, match=message):
        read_positives(MineRun(texts=[], positives=[known]), tmp_path)


def test_a_push_that_fails_leaves_a_finished_run(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError("the Hub does not answer")

    text = "a red tea pot and table lamp"
    (tmp_path / "texts.txt").write_text("\n".join([text, f"{text}, tea pot, table lamp", f"tea pot, {text}"]))
    (tmp_path / "names.txt").write_text("table lamp")
    run = MineRun(
        texts=[TextSource(path=str(tmp_path / "texts.txt"))],
        positives=[NameSource(path=str(tmp_path / "names.txt"))],
        output_dir=tmp_path / "out",
        mining=MiningOptions(min_count=3, trees=10),
        push_to_hub="me/pool",
    )
    monkeypatch.setattr(PhrasePool, "push_to_hub", refuse)
    with pytest.raises(OSError, match="does not answer"):
        run_mining(run)
    done = json.loads((tmp_path / "out" / "run.json").read_text())
    assert done["results"]["fingerprint"] == PhrasePool.load(tmp_path / "out").fingerprint
    monkeypatch.setattr(PhrasePool, "push_to_hub", lambda *_, **__: "https://hub/me/pool")
    run_mining(run)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["results"]["url"] == "https://hub/me/pool"


def test_the_real_configuration_can_be_read_and_holds_no_gold_file():
    run = load_settings(MineRun, ROOT / "recipes" / "configs" / "mine_phrases_real.yaml")
    paths = [str(source.path) for source in [*run.texts, *run.positives]]
    assert len(run.texts) > 20
    assert not [path for path in paths if any(gold in path for gold in ("semeval", "oa_mine", "review_rc"))]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--minimum_count", "3"], 2, "unknown key 'minimum_count'"),
        (["--mining.max_words", "1"], 2, "max_words must be at least 2; got 1"),
        (["--texts.0.path", "x.csv"], 2, "give either 'sample' or 'path'"),
        (["--texts", "[{path: x.txt, pattern: '('}]"], 2, "is no regular expression"),
        (["--texts", "[{sample: products}]", "--mining.min_count", "100000"], 1, "lower min_count"),
        (["--positives", "[{sample: web, pattern: no such name}]"], 1, "holds no name"),
    ],
)
def test_bad_settings_and_texts_are_one_line(run, tmp_path, words, status, message):
    code, _, err = run("--output_dir", str(tmp_path), *words)
    assert code == status
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_of_several_groups_the_first_is_the_text():
    assert NameSource(path="a", pattern=r"(\w+) (\w+)").texts_of("red mug, tea pot") == ["red", "tea"]
    assert NameSource(path="a", pattern=r"(x)?mug").texts_of("red mug") == [""]
    assert NameSource(path="a", pattern=r"\w+ mug").texts_of("red mug") == ["red mug"]
