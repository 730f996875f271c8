"""Product matching: published pairs, pairs from clusters, figures, and wrong files."""

from __future__ import annotations

import gzip
import shutil
import zipfile

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sklearn import metrics as sk

from rexbert_hf.evaluation.matching import PriceRunnerMatching, ProductMatching, ShopeeMatching, pair_example, wdc_pairs
from rexbert_hf.evaluation.matching_pairs import Offer, make_pairs
from rexbert_hf.evaluation.task import DataMissing, TaskSource

OFFERS = [
    Offer(f"{brand} {size} {thing} {copy}", f"{brand}{size}{thing}", thing)
    for brand in ("acme", "zeta", "bolt")
    for size in ("10mm", "20mm", "30mm")
    for thing in ("drill", "saw")
    for copy in ("new", "refurbished", "new")
]


def test_negatives_are_of_another_product_and_alike():
    pairs = make_pairs(OFFERS, negatives=2)
    cluster = {offer.title: offer.cluster for offer in OFFERS}
    category = {offer.title: offer.category for offer in OFFERS}
    positives = [pair for pair in pairs if pair[2]]
    assert len(positives) == 18
    assert len(pairs) == 18 * 3
    for left, right, label in pairs:
        assert left != right
        assert (cluster[left] == cluster[right]) == bool(label)
        assert category[left] == category[right]
        if not label:
            assert len(set(left.split()) & set(right.split())) >= 3, "shares all but the brand or the size"
    assert pairs == make_pairs(OFFERS, negatives=2)


def wdc_line(left, right, label):
    return f"COL title VAL {left} COL brand VAL x\tCOL title VAL {right}\t{label}\n"


def write_wdc(folder, lines):
    for category in ProductMatching.categories:
        (folder / category).mkdir(parents=True)
        for name in ("train.txt.medium.gz", "valid.txt.medium.gz", "test.txt.gz"):
            with gzip.open(folder / category / name, "wt", encoding="utf-8") as handle:
                handle.writelines(lines)


def test_the_published_form_is_read(tmp_path):
    lines = [wdc_line(f' "mug {i}" 16 GB', f"cup {i}", i % 2) for i in range(10)]
    write_wdc(tmp_path / "wdc_products", lines)
    task = ProductMatching()
    data = task.load(TaskSource(data_dir=tmp_path))
    assert [len(part) for part in data.named().values()] == [40, 40, 40]
    row = data.train[1].row
    assert (row.text, row.pair, row.label) == ('"mug 1" 16 GB x', "cup 1", "same")
    with pytest.raises(ValueError, match="resplit would put pairs of one offer on two sides"):
        task.load(TaskSource(data_dir=tmp_path, resplit=True))
    changed = task.perturbed(data.train[1], "units")
    assert changed.row.text == '"mug 1" 16GB x'
    gold = np.array([one.gold for one in data.test])
    said = np.random.default_rng(0).integers(0, 2, len(gold))
    statistics, figures = task.measure(data.test, said, data)
    assert figures["f1"] == pytest.approx(sk.f1_score(gold, said), abs=1e-9)
    assert figures["precision"] == pytest.approx(sk.precision_score(gold, said), abs=1e-9)
    assert figures["recall"] == pytest.approx(sk.recall_score(gold, said), abs=1e-9)
    assert task.score(statistics) == figures["f1"]


def test_wrong_files_are_one_line(tmp_path):
    with pytest.raises(DataMissing, match="product_matching: no folder wdc_products"):
        ProductMatching().load(TaskSource(data_dir=tmp_path))
    write_wdc(tmp_path / "wdc_products", [wdc_line("a", "b", 1), wdc_line("a", "b", 2)])
    with pytest.raises(ValueError, match=r"train.txt.medium.gz, line 2: the label '2' is outside the set \(0, 1\)"):
        ProductMatching().load(TaskSource(data_dir=tmp_path))
    shutil.rmtree(tmp_path / "wdc_products")
    write_wdc(tmp_path / "wdc_products", [wdc_line("a", "b", i % 2) for i in range(4)])
    with gzip.open(tmp_path / "wdc_products" / "shoes" / "test.txt.gz", "wt", encoding="utf-8"):
        pass
    with pytest.raises(ValueError, match=r"shoes/test.txt.gz: no pair, the file is empty"):
        ProductMatching().load(TaskSource(data_dir=tmp_path))
    with gzip.open(tmp_path / "bad.gz", "wt", encoding="utf-8") as handle:
        handle.write("COL title VAL a\t1\n")
    with pytest.raises(ValueError, match="line 1: 2 fields where two offers and a label are wanted"):
        list(wdc_pairs(tmp_path / "bad.gz"))
    for data in (gzip.compress(b"COL title VAL a" * 99)[:-20], b"no archive"):
        (tmp_path / "bad.gz").write_bytes(data)
        with pytest.raises(ValueError, match=r"bad.gz: cannot be unpacked \(.+\); fetch it again$"):
            list(wdc_pairs(tmp_path / "bad.gz"))
    for left, right in (("a", None), (" ", "a")):
        with pytest.raises(ValueError, match="row 4: both titles must be texts that are not empty"):
            pair_example(left, right, 1, "row 4")


def test_clusters_never_stand_on_two_sides(tmp_path):
    folder = tmp_path / "pricerunner"
    folder.mkdir()
    rows = [
        f"{i},{words} {copy},shop,{cluster},label,{cluster % 2},Phones"
        for i, (cluster, copy, words) in enumerate(
            (cluster, copy, f"phone model{cluster} {16 * (cluster % 4)}gb") for cluster in range(300) for copy in "ab"
        )
    ]
    with gzip.open(folder / "pricerunner_aggregate.csv.gz", "wt", encoding="utf-8") as handle:
        handle.write("\n".join(rows) + "\n")
    data = PriceRunnerMatching().load(TaskSource(data_dir=tmp_path, budget="full"))
    sides = [
        {text.split()[1] for one in part for text in (one.row.text, one.row.pair)} for part in data.named().values()
    ]
    assert all(len(side) > 10 for side in sides)
    assert len(set.union(*sides)) == sum(map(len, sides))
    assert 0.2 < np.mean([one.gold for one in data.train]) < 0.5
    again = PriceRunnerMatching().load(TaskSource(data_dir=tmp_path, budget="full", resplit=True))
    assert again.named() == data.named(), "pairs that were divided once more would put one cluster on two sides"
    with gzip.open(folder / "pricerunner_aggregate.csv.gz", "at", encoding="utf-8") as handle:
        handle.write("1,2\n")
    with pytest.raises(ValueError, match="line 601: 2 fields where 7 are wanted"):
        PriceRunnerMatching().load(TaskSource(data_dir=tmp_path))
    with gzip.open(folder / "pricerunner_aggregate.csv.gz", "wt", encoding="utf-8") as handle:
        handle.write("\n".join([*rows, "1, ,shop,1,label,1,Phones"]) + "\n")
    with pytest.raises(ValueError, match=r"csv.gz, line 601: the title or the cluster is empty"):
        PriceRunnerMatching().load(TaskSource(data_dir=tmp_path))
    (folder / "pricerunner_aggregate.csv.gz").write_bytes(gzip.compress(b"1,mug")[:-4])
    with pytest.raises(ValueError, match=r"pricerunner_aggregate.csv.gz: cannot be unpacked"):
        PriceRunnerMatching().load(TaskSource(data_dir=tmp_path))


def test_an_open_quote_names_its_line(tmp_path):
    """Whether what follows is short, or longer than a field may be."""
    folder = tmp_path / "pricerunner"
    folder.mkdir()
    for after in (3, 20_000):
        rows = ["1,mug,shop,1,label,1,Mugs", '2,"mug', 'or cup",shop,1,label,1,Mugs', '3,"lamp,shop,2,label,1,Lamps']
        rows += ["4,desk,shop,3,label,1,Desks"] * after
        with gzip.open(folder / "pricerunner_aggregate.csv.gz", "wt", encoding="utf-8") as handle:
            handle.write("\n".join(rows) + "\n")
        with pytest.raises(ValueError, match=r"aggregate.csv.gz, line 4: no CSV \(.+\); close its quote, or fetch the"):
            PriceRunnerMatching().load(TaskSource(data_dir=tmp_path))


def mirrored_pairs(chains=300):
    """Chains of four offers, each pair also the other way round."""
    pairs = []
    for number in range(chains):
        a, b, c, d = (f"Offer {number}{end}" for end in "abcd")
        pairs += [(a, b, 1), (b.upper(), a, 1), (c, b.upper(), 0), (b, c, 0), (d, c, 1), (c, d, 1)]
    return [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))]


def save_pairs(folder, **splits):
    columns = {name: dict(zip(("left", "right", "label"), zip(*rows, strict=True), strict=True))
               for name, rows in splits.items()}  # fmt: skip
    DatasetDict({name: Dataset.from_dict(rows) for name, rows in columns.items()}).save_to_disk(str(folder))
    return TaskSource(dataset=str(folder), budget="full")


def titles_of(examples):
    return {title.lower() for one in examples for title in (one.row.text, one.row.pair)}


@pytest.mark.parametrize("of_its_own", ["nothing", "test"])
def test_no_title_of_a_data_set_stands_on_two_sides(tmp_path, of_its_own):
    """By the hash of the left title two thirds of the mirrored pairs of the test split were trained on."""
    pairs = mirrored_pairs()
    other = [(f"x{i}", f"y{i}", i % 2) for i in range(20)]
    source = save_pairs(tmp_path / "pairs", train=pairs, **({"test": other} if of_its_own == "test" else {}))
    data = ProductMatching().load(source)
    sides = [titles_of(part) for part in data.named().values()]
    assert len(set.union(*sides)) == sum(map(len, sides))
    divided = [*data.train, *data.dev, *([] if of_its_own == "test" else data.test)]
    assert len(divided) == len(pairs), "none is lost"
    assert len(data.train) / len(divided) == pytest.approx(0.9 if of_its_own == "test" else 0.7, abs=0.06)
    other_order = {"train": pairs[::-1], **({"test": other} if of_its_own == "test" else {})}
    again = ProductMatching().load(save_pairs(tmp_path / "again", **other_order))
    assert {plain(one) for one in again.test} == {plain(one) for one in data.test}


def plain(example):
    return example.row.text, example.row.pair, example.gold, example.key


def test_pairs_that_hang_together_are_not_divided(tmp_path, caplog):
    pairs = [("hub", f"offer {i}", i % 2) for i in range(60)] + [(f"x{i}", f"y{i}", i % 2) for i in range(50)]
    said = r"60 of 110 pairs are one chain of shared titles, which no split may divide: give the data splits of its own"
    with pytest.raises(ValueError, match=said):
        ProductMatching().load(save_pairs(tmp_path / "pairs", train=pairs))
    own = save_pairs(tmp_path / "no_dev", train=pairs, test=pairs[:30])
    parts = ProductMatching().load(own).named()
    assert len(parts["test"]) == 30
    assert len(parts["train"]) + len(parts["dev"]) == 110
    assert min(map(len, parts.values())) > 0
    assert "its validation rows are like some of training" in caplog.text
    own = save_pairs(tmp_path / "own", train=pairs, validation=pairs[40:80], test=pairs[:30])
    assert [len(part) for part in ProductMatching().load(own).named().values()] == [110, 40, 30], (
        "published splits stay"
    )


def test_listings_are_read_with_their_characters(tmp_path):
    folder = tmp_path / "shopee"
    folder.mkdir()
    lines = ["posting_id,image,image_phash,title,label_group"]
    lines += [f"t{i},x,y,caf\\xc3\\xa9 cup {i // 2} {'ab'[i % 2]},{i // 2}" for i in range(400)]

    def load(lines):
        with zipfile.ZipFile(folder / "train.csv.zip", "w") as archive:
            archive.writestr("train.csv", "\n".join(lines) + "\n")
        return ShopeeMatching().load(TaskSource(data_dir=tmp_path))

    assert load(lines).train[0].row.text.startswith("caf\u00e9 cup ")
    for bad in ("t,x,y,,7", "t,x,y,cup,"):
        with pytest.raises(ValueError, match=r"train.csv.zip, row 400: the title or the label_group is empty"):
            load([*lines, bad])


def test_a_dev_split_without_matches_is_refused(tmp_path):
    """The cut of a match is decided there."""
    write_wdc(tmp_path / "wdc_products", [wdc_line(f"mug {i}", "cup", i % 2) for i in range(10)])
    for category in ProductMatching.categories:
        with gzip.open(tmp_path / "wdc_products" / category / "valid.txt.medium.gz", "wt", encoding="utf-8") as handle:
            handle.write(wdc_line("mug", "cup", 0))
    with pytest.raises(ValueError, match="all 4 rows of the dev split have the label 'different'"):
        ProductMatching().load(TaskSource(data_dir=tmp_path))


def test_the_sample_shop_has_both_classes():
    data = ProductMatching().load(TaskSource(sample=True))
    assert data.labels == ("different", "same")
    assert {one.gold for one in data.test} == {0, 1}
    sides = [titles_of(part) for part in data.named().values()]
    assert len(set.union(*sides)) == sum(map(len, sides)), "no offer stands on two sides"
