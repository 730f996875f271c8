"""Rows of published files that cannot be read: left out, told in the log with file and line, counted in the report."""

from __future__ import annotations

import gzip
import zipfile

import pytest

from rexbert_hf.evaluation.registry import make_task
from rexbert_hf.evaluation.task import TaskSource

STYLES = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
FILES = {
    "product_classification": (
        "fashion_styles/styles.csv.zip",
        [STYLES, *(f"{i},M,Apparel,Top,{('Shirt', 'Coat')[i % 2]},x,y,2011,z,Shirt {i}" for i in range(120))],
        "900,M,Apparel",
    ),
    "offer_classification": (
        "pricerunner/pricerunner_aggregate.csv.gz",
        [f"{i},title {i},1,{i},x,{i % 2},{('CPUs', 'TVs')[i % 2]}" for i in range(120)],
        "900,title",
    ),
    "offer_matching_shopee": (
        "shopee/train.csv.zip",
        ["posting_id,image,image_phash,title,label_group", *(f"{i},x,y,cup {i // 2} {i},{i // 2}" for i in range(400))],
        "900,x,y",
    ),
    "chinese_review_category": (
        "chinese_reviews/online_shopping_10_cats.zip",
        ["cat,label,review", *(f"{('book', 'fruit')[i % 2]},1,review {i}" for i in range(120))],
        "book,1",
    ),
    "esci_similarity": (
        "homedepot/train.csv.zip",
        [
            "id,product_uid,product_title,search_term,relevance",
            *(f"{i},{i},mug {i},q {i},{1 + i % 3}" for i in range(120)),
        ],
        "900,900,mug,q,good",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_what_cannot_be_read_is_counted(name, tmp_path, caplog):
    file, lines, bad = FILES[name]
    path = tmp_path / file
    path.parent.mkdir()

    def load(lines):
        text = "\n".join(lines) + "\n"
        if path.suffix == ".gz":
            path.write_bytes(gzip.compress(text.encode()))
        else:
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("rows.csv", text)
        return make_task(name).load(TaskSource(data_dir=tmp_path, budget="full"))

    whole = load(lines)
    assert not whole.counts.get("left_out")
    less = load([*lines, bad])
    assert less.counts["left_out"] == 1
    assert less.fingerprint() == whole.fingerprint()
    assert f":{len(lines) + 1} " in caplog.text
