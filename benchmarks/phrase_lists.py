"""Lists of the best phrases that people judge: written blind, and read back with their marks.

Apart from phrase_quality.py, so that marks are counted without the peers that the lists come from.
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from report import Reading

GOAL_REAL = 0.70
JUDGED = "phrase_lists_blind.tsv"
KEY = "phrase_lists_key.json"


def write_lists(folder: Path, lists: dict[str, Sequence[str]]) -> None:
    """The best phrases of each, one list with all of them in random order, and the key to it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, phrases in lists.items():
        (folder / f"phrase_list_{name}.txt").write_text("\n".join(phrases) + "\n", encoding="utf-8")
    mixed = sorted({phrase for phrases in lists.values() for phrase in phrases})
    random.Random(20).shuffle(mixed)
    (folder / JUDGED).write_text("".join(f"{phrase}\t\n" for phrase in mixed), encoding="utf-8")
    (folder / KEY).write_text(json.dumps({name: list(phrases) for name, phrases in lists.items()}), encoding="utf-8")
    print(f"\nlists in {folder}; mark {JUDGED} with y or n in its second column, then --judged")


def count_judged(path: Path) -> list[Reading]:
    """Share of each list that the marked blind list calls real product phrases."""
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t", quotechar=None) if row]
    ranked = rows[0][2:]  # "rank in ours", "rank in gensim" of a finished list; a blind one has neither these nor names
    if ranked:
        lists = {
            name.removeprefix("rank in "): [row[0] for row in rows[1:] if row[column]]
            for column, name in enumerate(ranked, 2)
        }
    else:
        lists = json.loads(path.with_name(KEY).read_text(encoding="utf-8"))
    marks = {row[0]: row[1].strip().lower() for row in rows[bool(ranked) :]}
    if bad := sorted(phrase for phrase, mark in marks.items() if mark not in ("y", "n")):
        raise SystemExit(f"{path}: {len(bad)} phrases have neither y nor n, such as {bad[0]!r}")
    share = {name: float(np.mean([marks[phrase] == "y" for phrase in phrases])) for name, phrases in lists.items()}
    peer = max(value for name, value in share.items() if name != "ours")
    return [Reading("phrase_quality/real among the best 200", share["ours"], peer, GOAL_REAL, "share", "ours")]
