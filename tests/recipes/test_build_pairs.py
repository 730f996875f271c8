from __future__ import annotations

import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from rexbert_hf.catalog import split_of
from rexbert_hf.hub.readme import split_card
from rexbert_hf.retrieval.pairs import run as pairs_run
from rexbert_hf.retrieval.pairs.files import load_pairs
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.settings import SettingsError, load_settings

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "build_pairs.py"
CONFIG = ROOT / "recipes" / "configs" / "build_pairs.yaml"
SMALL = ["--products.sample_size", "150", "--events.sample_size", "150", "--audit.judgements.sample_size", "150"]


@pytest.fixture
def run(monkeypatch, capsys):
    def start(*words):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return start


def rows_of(folder, kind):
    found = []
    for split in ("train", "validation", "test"):
        if (folder / kind / f"{split}.parquet").exists():
            rows = list(load_pairs(folder, kind, split))
            assert {row["split"] for row in rows} == {split}
            found += rows
    return found


def test_a_run_file_says_where_its_pairs_were_pushed_and_is_there_if_the_push_fails(run, tmp_path, monkeypatch):
    def refused(*args, **options):
        raise PermissionError("no token")

    words = ("--output_dir", str(tmp_path), *SMALL, "--push_to_hub", "tester/pairs")
    monkeypatch.setattr(pairs_run, "push_dataset", refused)
    assert run(*words)[0] != 0
    assert "url" not in json.loads((tmp_path / "run.json").read_text())["results"]
    monkeypatch.setattr(pairs_run, "push_dataset", lambda *_, **__: "https://hub/tester/pairs")
    assert run(*words)[0] == 0
    assert json.loads((tmp_path / "run.json").read_text())["results"]["url"] == "https://hub/tester/pairs"


def test_pairs_of_the_sample_shop(run, tmp_path):
    status, out, _ = run("--output_dir", str(tmp_path), *SMALL, "--split.held_out", "0.3")
    assert status == 0
    done = json.loads((tmp_path / "run.json").read_text())["results"]
    pairs, qpi = rows_of(tmp_path, "pairs"), rows_of(tmp_path, "qpi")
    counts = Counter(row["label"] for row in pairs)
    reported = Counter()
    for split in done["pairs"].values():
        for label, name in ((1, "positives"), (0, "hard_negatives"), (-1, "random_negatives"), (-2, "neither")):
            reported[label] += split.get(name, 0)
    assert counts == reported
    assert counts[-1] == 11 * counts[1], "the catalogue is large enough"
    assert 0 < counts[0] <= 10 * counts[1]
    assert counts[-2] > 0, "clicked and not bought"
    assert f"{done['pairs']['train']['neither']:,} that are neither" in out
    for row in pairs + qpi:
        assert row["split"] == split_of(row["query"], 0.3)
    relevant = sum(row["relevance"] == 1 for row in qpi)
    assert relevant == sum(split["relevant"] for split in done["qpi"].values())
    assert all(row["purchases"] >= 1 or row["clicks"] >= 2 for row in qpi if row["relevance"] == 1)
    assert 0.5 < done["audit"]["share"] <= 1
    assert done["audit"]["low"] < done["audit"]["share"] <= done["audit"]["high"]
    assert done["audit"]["judged"] > 10
    assert {row["product_id"] for row in pairs} <= set(load_pairs(tmp_path, "products")["product_id"])
    assert "audit:" in out
    assert {path.name for path in tmp_path.iterdir()} == {"pairs", "qpi", "products.parquet", "run.json", "README.md"}
    card = (tmp_path / "README.md").read_text()
    assert "| train |" in card
    assert "-2 neither" in card
    code = card.partition("```python\n")[2].partition("```")[0].replace("path/to/this/folder", str(tmp_path))
    exec(compile(code, "card", "exec"), {})  # what "How to use" says
    for kind in ("pairs", "qpi", "products"):
        found = load_dataset(str(tmp_path), kind, cache_dir=str(tmp_path.parent / "cache"))
        count = sum(len(part) for part in found.values())
        assert f"| {kind} | {count:,} |" in card
    assert "judged pairs labelled relevant" in card


def test_the_same_seed_gives_the_same_files(run, tmp_path):
    for name in ("one", "two"):
        assert run("--output_dir", str(tmp_path / name), *SMALL)[0] == 0
    assert run("--output_dir", str(tmp_path / "other"), *SMALL, "--seed", "1")[0] == 0
    one, two, other = (rows_of(tmp_path / name, "pairs") for name in ("one", "two", "other"))
    assert one == two != other


def graded(tmp_path):
    path = tmp_path / "graded.csv"
    lines = ["uid,title,term,relevance"]
    for n in range(30):
        lines += [f"{n},Product number {n},term {n % 10},{(3.0, 2.33, 1.5)[n % 3]}"]
    path.write_text("\n".join([*lines, "77,,term 1,3", "0,Product number 0,term 1,1"]))
    config = tmp_path / "graded.yaml"
    config.write_text(
        f"""
products: {{path: {path}, columns: {{product_id: uid, title: title}}}}
graded: {{path: {path}, columns: {{query: term, product_id: uid, relevance: relevance}}}}
ratio: "1:1:2"
split: {{rule: sha1_mod_10}}
output_dir: {tmp_path / "out"}
"""
    )
    return config


def test_a_path_and_a_sample_of_one_place_are_still_an_error():
    for words in ({"sample": "events", "path": "log.csv"}, {"path": "log.csv"}, {"sample": "events"}):
        typed = [("products.sample", "products"), *((f"events.{name}", value) for name, value in words.items())]
        if len(words) == 2:
            with pytest.raises(SettingsError, match="give either 'sample' or 'path'"):
                load_settings(BuildPairsRun, None, typed)
        else:
            assert load_settings(BuildPairsRun, None, typed).events.name


def test_a_typed_sample_takes_the_place_of_a_path(tmp_path):
    config = tmp_path / "own.yaml"
    config.write_text("products: {path: p.csv}\nevents: {path: log.csv}\naudit: {judgements: {path: j.csv}}\n")
    typed = [("products.sample", "products"), ("events.sample", "events")]
    found = load_settings(BuildPairsRun, config, typed)
    assert (found.products.path, found.events.path, found.audit.judgements.path) == (None, None, "j.csv")


def test_graded_files_start_without_a_log(run, tmp_path):
    status, out, err = run(str(graded(tmp_path)))
    assert status == 0, err
    done = json.loads((tmp_path / "out" / "run.json").read_text())["results"]
    assert (done["products"], done["repeated_products"], done["products_without_text"]) == (30, 1, 1)
    assert done["judgements"]["unknown_mentions"] == 1
    pairs = rows_of(tmp_path / "out", "pairs")
    positives = [(row["query"], row["product_id"]) for row in pairs if row["label"] == 1]
    assert len(positives) == 20
    assert all((int(product) % 10, int(product) % 3 != 2) == (int(query[5:]), True) for query, product in positives)
    assert Counter(row["label"] for row in pairs)[-1] == 40
    assert len(rows_of(tmp_path / "out", "qpi")) == 31
    assert "audit" not in done
    assert "train:" in out


def test_a_sample_for_a_person_and_back(run, tmp_path):
    words = ["--output_dir", str(tmp_path / "out"), *SMALL[:4], "--audit.judgements", "null", "--audit.size", "20"]
    status, out, _ = run(*words)
    assert status == 0
    assert "audit: not judged yet" in out
    assert "audit_sample.csv and pass --audit.csv" in out
    sample = tmp_path / "out" / "audit_sample.csv"
    lines = sample.read_text().splitlines()
    assert len(lines) == 21
    judged = tmp_path / "judged.csv"
    judged.write_text("\n".join([lines[0], *(line + str(int(n % 4 > 0)) for n, line in enumerate(lines[1:]))]))
    assert run(*words, "--audit.csv", str(judged))[0] == 0
    audit = json.loads((tmp_path / "out" / "run.json").read_text())["results"]["audit"]
    assert (audit["sampled"], audit["judged"], audit["relevant"]) == (20, 20, 15)


def test_a_file_of_a_person_that_cannot_be_read_is_told_before_the_log(run, tmp_path):
    (tmp_path / "judged.csv").write_bytes("query,product_id,relevant\ncaf\u00e9,a,1\n".encode("cp1252"))
    judged = ["--audit.judgements", "null", "--audit.csv", str(tmp_path / "judged.csv")]
    status, _, err = run("--output_dir", str(tmp_path / "out"), "--events.path", "absent.parquet", *judged)
    assert status == 1
    assert f"error: {tmp_path}/judged.csv is not UTF-8: save it as UTF-8" in err.splitlines()[-1]


def test_a_log_and_a_catalogue_of_ones_own(run, tmp_path):
    """Unknown products, an empty query, a query of 10,000 words, a product without title, one without text."""
    rows = [
        {
            "query": "mug",
            "shown": ["a", "b", "zz"],
            "clicked": ["a"],
            "bought": ["a"],
            "language": "en",
            "country": "US",
        },
        {"query": "MUG", "shown": ["a"], "clicked": [], "bought": [], "language": "en", "country": "CA"},
        {"query": "", "shown": ["a"], "clicked": [], "bought": []},
        {"query": "mug " * 10_000, "shown": ["a"], "clicked": [], "bought": []},
        {"query": "tea", "shown": ["c", "b"], "clicked": [], "bought": []},
    ]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "log.parquet"))
    products = [
        {"product_id": "a", "title": "Mug", "description": None},
        {"product_id": "b", "title": None, "description": "A plate"},
        {"product_id": "c", "title": " "},
    ]
    (tmp_path / "products.jsonl").write_text("\n".join(map(json.dumps, products)))
    # The second line of the recipe's docstring: a path takes the sample's place, and the shop's judgements go with it.
    line = "--events.path log.parquet --products.path catalogue.parquet"
    assert f"python recipes/build_pairs.py {line}\n" in RECIPE.read_text()
    words = line.replace("log.parquet", f"{tmp_path}/log.parquet").split()
    words = [word.replace("catalogue.parquet", f"{tmp_path}/products.jsonl") for word in words]
    status, out, err = run("--output_dir", str(tmp_path / "out"), "--split.held_out", "0", *words)
    assert "audit: not judged yet" in out
    assert status == 0, err
    done = json.loads((tmp_path / "out" / "run.json").read_text())["results"]
    assert (done["products"], done["products_without_title"], done["products_without_text"]) == (2, 1, 1)
    assert done["log"]["unknown_products"] == 2
    assert (done["log"]["events_without_query"], done["log"]["events_too_long"]) == (1, 1)
    pairs = [(row["query"], row["product_id"], row["label"]) for row in rows_of(tmp_path / "out", "pairs")]
    assert pairs == [("mug", "a", 1), ("mug", "b", 0)]
    (row,) = rows_of(tmp_path / "out", "qpi")
    assert (row["language"], row["country"]) == ("en", None), "events of the query name two countries"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--ratio", "1:10"], 2, "write positives:hard negatives:random negatives"),
        (["--events", "null"], 2, "give either 'events' (a click log) or 'graded'"),
        (["--weak.relevant", "[{}]"], 2, "a rule without a condition takes every pair"),
        (["--weak.relevant.0.min_buys", "1"], 2, "unknown key"),
        (["--split.train_until", "soon"], 2, "train_until is an ISO date"),
        (["--events.sample", "reviews"], 1, "sample reviews: no column 'query' for events"),
        (["--products.sample", "web"], 1, "sample web: no column 'product_id' for products"),
        (["--audit.judgements", "null", "--audit.csv", "absent.csv"], 1, "absent.csv: no such audit file"),
    ],
)
def test_bad_settings_and_data_are_one_line(run, tmp_path, words, status, message):
    code, _, err = run("--output_dir", str(tmp_path), *SMALL[:4], *words)
    assert code == status, err
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err


def test_the_home_depot_configuration_can_be_read():
    settings = load_settings(BuildPairsRun, ROOT / "recipes" / "configs" / "build_pairs_homedepot.yaml")
    assert settings.split.resolved().of("angle bracket") in ("train", "validation", "test")


def test_what_the_recipe_did_not_make_stays(run, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    rows = {"product_id": ["a", "b"], "title": ["red mug", "blue mug"], "price": [1.0, 2.0]}
    Dataset.from_dict(rows).to_parquet(own / "products.parquet")
    before = (own / "products.parquet").read_bytes()
    words = ("--output_dir", str(own), "--events.sample_size", "150", "--audit.judgements.sample_size", "150")
    status, _, err = run(*words, "--products.path", str(own / "products.parquet"))
    assert (status, "products.parquet is read, and the result would replace it" in err) == (1, True)
    for path in (str(own), str(own / "*.parquet"), f"[{own}/../own/products.parquet]"):
        status, _, err = run(*words, "--products.path", path)
        assert (status, "products.parquet is read, and the result would replace it" in err) == (1, True), err
    status, _, err = run(*words, "--products.sample_size", "150")
    assert (status, "products.parquet was not made by this recipe: choose another" in err) == (1, True)
    (own / "pairs").mkdir()
    Dataset.from_dict({"query": ["mug"], "price": [1.0]}).to_parquet(own / "pairs" / "train.parquet")
    status, _, err = run(*words, "--products.sample_size", "150")
    assert (status, "train.parquet was not made by this recipe: choose another" in err) == (1, True)
    assert (own / "products.parquet").read_bytes() == before


def test_text_around_the_card_stays_and_a_stopped_folder_goes_on(run, tmp_path):
    (tmp_path / "README.md").write_text("# My shop\n\nWritten by hand.\n")
    words = ("--output_dir", str(tmp_path), *SMALL)
    assert run(*words)[0] == 0
    assert "Written by hand." in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").unlink()
    (tmp_path / "run.json").unlink()  # as a kill between two files leaves it
    assert run(*words)[0] == 0
    with (tmp_path / "README.md").open("a") as file:
        file.write("\nBelow the marks.\n")
    assert run(*words)[0] == 0
    assert "Below the marks." in (tmp_path / "README.md").read_text()


def test_the_card_of_a_rebuild_lists_the_files_that_there_are(run, tmp_path, caplog):
    folder = tmp_path / "out"
    words = ("--output_dir", str(folder), *SMALL, "--split.held_out")
    for count, held_out in enumerate(("0.3", "0", "0.3")):
        status, _, err = run(*words, held_out, "--card.license", ("mit", "mit", "apache-2.0")[count])
        assert status == 0, err
        found = {path.stem for path in (folder / "pairs").iterdir()}
        cache = str(tmp_path / f"cache{count}")
        assert load_dataset(str(folder), "pairs", cache_dir=cache).keys() == found
        configs = [one["config_name"] for one in split_card((folder / "README.md").read_text())[0]["configs"]]
        assert sorted(configs) == ["pairs", "products", "qpi"]
    # As for every card what stands there stays; where it goes against the settings one line says so.
    assert split_card((folder / "README.md").read_text())[0]["license"] == "mit"
    assert f"{folder}/README.md keeps its own license, not what the settings say: edit it there" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("README.md", "caf\u00e9".encode("latin-1"), "README.md is not UTF-8: save it as UTF-8, or move it"),
        ("README.md", b"---\na: b\nc: [\n---\n", ": README.md, line 4: the metadata block is not valid YAML"),
        ("audit_sample.csv", b"query,relevant\n", "audit_sample.csv: an earlier sample that cannot be read"),
    ],
    ids=["not UTF-8", "not YAML", "sample"],
)
def test_a_file_of_a_person_that_cannot_be_kept_is_told_before_the_log(run, tmp_path, name, content, told):
    out = tmp_path / "out"
    words = ("--output_dir", str(out), *SMALL[:4], "--audit.judgements", "null")
    assert run(*words)[0] == 0
    (out / name).write_bytes(content)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    status, _, err = run(*words, "--events.path", "absent.parquet")
    assert (status, told in err.splitlines()[-1], str(out) in err.splitlines()[-1]) == (1, True, True), err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_a_finished_folder_stays_whole_while_new_pairs_are_made(tmp_path, monkeypatch):
    """It writes beside the finished result: one that is killed, here at its last file, leaves the old one."""
    from rexbert_hf.retrieval.pairs import run as module

    class Killed(BaseException):
        pass

    def files():
        found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
        return {name: path.read_bytes() for name, path in found.items() if name[0] != "."}

    def build(events):
        sizes = {"products.sample_size": "150", "events.sample_size": events, "audit.judgements.sample_size": "150"}
        module.build_pairs(load_settings(BuildPairsRun, CONFIG, [("output_dir", str(tmp_path)), *sizes.items()]))

    build("150")
    before, seen = files(), []
    with monkeypatch.context() as patched:

        def killed(*args):
            seen.append(files())
            raise Killed

        patched.setattr(module, "_card", killed)
        with pytest.raises(Killed):
            build("300")
    assert seen == [before], "while it works"
    assert files() == before
    build("300")
    assert files().keys() == before.keys()
    assert files() != before


def test_a_log_without_purchases_ends_with_a_line_that_there_is_nothing_to_train_on(run, tmp_path, caplog):
    rows = [{"query": f"mug {n}", "shown": ["1", "2", "3"], "clicked": ["2"], "bought": ["12.5"]} for n in range(30)]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "shop.csv").write_text("product_id,title\n1,Mug\n2,Red mug\n3,Lamp\n")
    words = ("--events", f"{{path: {tmp_path}/log.jsonl}}", "--products", f"{{path: {tmp_path}/shop.csv}}")
    status, out, err = run(*words, "--audit.size", "0", "--output_dir", str(tmp_path / "out"))
    assert status == 0, err
    assert "such as '12.5' where the catalogue has '1'" in caplog.text
    assert out.splitlines()[-1].startswith("no query has a positive (a purchase of a known product): stage 3 has noth")


def test_a_time_that_is_none_names_the_file(run, tmp_path):
    row = {"query": "mug", "shown": ["1"], "clicked": [], "bought": ["1"], "time": "12/25/2026 10:00"}
    (tmp_path / "log.jsonl").write_text(json.dumps(row))
    (tmp_path / "shop.csv").write_text("product_id,title\n1,Mug\n")
    words = ("--events", f"{{path: {tmp_path}/log.jsonl}}", "--products", f"{{path: {tmp_path}/shop.csv}}")
    status, _, err = run(*words, "--split.train_until", "2026-01-01", "--output_dir", str(tmp_path / "out"))
    assert status == 1
    assert f"{tmp_path}/log.jsonl: event 0: time '12/25/2026 10:00' is no moment: give ISO text" in err
