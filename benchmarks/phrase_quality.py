"""How good are mined phrases: recall of terms that people marked, beside gensim's Phrases at equal pool size.

    python benchmarks/phrase_quality.py [--quick] [--lists DIR] [--judged FILE]

Terms: multi-word aspect terms of the SemEval 2014 laptop reviews, and OA-Mine's attribute values without digits and
sizes, of each those that occur at least 10 times in the mined text. The mined text (recipes/configs/
mine_phrases_real.yaml) holds neither file; texts that equal one of theirs are left out. Intervals: 2,000 bootstrap
samples of the terms, 95 %. `--lists` writes the best 200 of both and a blind list; `--judged` reads that list back,
with y or n in its second column, and counts; or a finished one, as in results/, whose columns tell the ranks too.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from phrase_lists import count_judged, write_lists
from phrase_peer import gensim_phrases, opened, real_run
from report import Reading, finish, header, parser
from rexbert_hf.catalog import normalize_text
from rexbert_hf.phrases import PhrasePool
from rexbert_hf.phrases.spool import Spool
from rexbert_hf.phrases.words import normalise

DATA_DIR = Path(__file__).resolve().parents[1].parent / "shared" / "data"
SIZES = (5_000, 20_000, 50_000)
GOALS = {"semeval laptop": 0.60, "oa-mine": 0.50}
GOAL_POINTS, MIN_COUNT, LISTED = 15.0, 10, 200


def semeval(folder: Path) -> tuple[set[str], set[str]]:
    """Aspect terms and sentences of the laptop reviews."""
    terms, texts = set(), set()
    for file in sorted((folder / "semeval14_laptop" / "ae").glob("*.json")):
        for row in json.loads(file.read_text(encoding="utf-8")).values():
            texts.add(" ".join(row["sentence"]))
            term: list[str] = []
            for word, label in [*zip(row["sentence"], row["label"], strict=True), ("", "O")]:
                if label != "I" and term:
                    terms.add(" ".join(term))
                    term = []
                if label != "O":
                    term.append(word)
    return terms, texts


def oa_mine(folder: Path) -> tuple[set[str], set[str]]:
    """Attribute values and titles; no sizes, no digits."""
    terms, texts = set(), set()
    for name in ("train", "test"):
        for line in (folder / "oa_mine" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            texts.add(row["input"])
            for attribute, values in row["target_scores"].items():
                if "size" not in attribute.lower():
                    terms.update(value for value in values if not re.search(r"\d", value))
    return terms, texts


def read_gold(folder: Path) -> tuple[dict[str, set[str]], set[str]]:
    """Normalised terms of two words or more by name, and all texts they come from."""
    found = {"semeval laptop": semeval(folder), "oa-mine": oa_mine(folder)}
    terms = {name: {term for raw in part if " " in (term := normalise(raw))} for name, (part, _) in found.items()}
    return terms, {normalize_text(text) for _, texts in found.values() for text in texts}


class WithoutGold:
    """Texts without those that equal a text of the gold files."""

    def __init__(self, texts: object, gold: set[str], limit: int | None) -> None:
        self.texts, self.gold, self.limit = texts, gold, limit
        self.dropped = 0

    def __iter__(self) -> Iterator[dict[str, str | None]]:
        self.dropped, characters = 0, 0
        for row in self.texts:  # type: ignore[attr-defined]
            if normalize_text(row["text"]) in self.gold:
                self.dropped += 1
                continue
            yield row
            characters += len(row["text"])
            if self.limit is not None and characters > self.limit:
                return


def occurring(terms: set[str], spool: Spool) -> list[str]:
    """Terms that occur often enough in the text, counted word by word in runs without punctuation."""
    known = {word: row for row, word in enumerate(spool.vocabulary.spellings)}
    rows = [[known.get(word, -1) for word in term.split(" ")] for term in terms]
    wanted = {tuple(row): 0 for row in rows if min(row) >= 0}
    sizes = sorted({len(term) for term in wanted})
    for index in range(len(spool)):
        ids = spool.load("ids", index)
        for size in sizes:
            table = {term for term in wanted if len(term) == size}
            first = np.isin(ids[: len(ids) - size + 1], [term[0] for term in table])
            second = np.isin(ids[1 : len(ids) - size + 2], [term[1] for term in table])
            for at in np.flatnonzero(first & second).tolist():
                found = tuple(ids[at : at + size].tolist())
                if found in table:
                    wanted[found] += 1
    words = spool.vocabulary.spellings
    return sorted(" ".join(words[i] for i in term) for term, count in wanted.items() if count >= MIN_COUNT)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of a mean."""
    draws = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def compare(terms: dict[str, list[str]], ours: Sequence[str], peers: dict[str, list[str]]) -> list[Reading]:
    """Recall at each size, ours and the better of gensim's, with intervals."""
    rank = {phrase: place for place, phrase in enumerate(ours)}
    ranks = {scorer: {phrase: place for place, phrase in enumerate(found)} for scorer, found in peers.items()}
    readings = []
    for name, members in terms.items():
        print(f"\n{name}: n = {len(members)} terms of two words or more that occur at least {MIN_COUNT} times")
        for size in SIZES:
            hit = np.array([rank.get(term, size) < size for term in members], dtype=float)
            theirs = {
                scorer: np.array([places.get(term, size) < size for term in members], dtype=float)
                for scorer, places in ranks.items()
            }
            best = max(theirs, key=lambda scorer: theirs[scorer].mean())
            points = 100 * (hit - theirs[best])
            spread = ", ".join(f"{scorer} {100 * found.mean():.1f}" for scorer, found in theirs.items())
            print(
                f"  {size:6,}: ours {100 * hit.mean():5.1f} % [{_shown(interval(100 * hit))}], gensim {spread}; "
                f"{points.mean():+.1f} points [{_shown(interval(points))}] over {best}"
            )
            goal = GOALS[name] if size == 20_000 else None
            key = f"phrase_quality/{name}/{size}"
            readings.append(
                Reading(f"{key}/recall", float(hit.mean()), float(theirs[best].mean()), goal, "share", "ours")
            )
            readings.append(
                Reading(f"{key}/points", float(points.mean()), None, GOAL_POINTS if goal else None, "points", "ours")
            )
        missed = sorted((rank.get(term, 10**9), term) for term in members)[::-1][:25]
        print(f"  furthest from the top: {', '.join(term for _, term in missed)}")
    return readings


def _shown(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.1f}, {bounds[1]:.1f}"


def main() -> None:
    """Mine, compare, write."""
    arguments: argparse.ArgumentParser = parser(__doc__, "10 M characters of the text, 100 trees")
    arguments.add_argument("--lists", type=Path, help="folder for the lists that people judge")
    arguments.add_argument("--judged", type=Path, help="the blind list with judgements: count them, and nothing else")
    args = arguments.parse_args()
    if args.judged:
        finish(count_judged(args.judged))
        return
    if not (DATA_DIR / "oa_mine").is_dir():
        print(f"{DATA_DIR} is not there: nothing to measure")
        finish([])
        return
    header("phrase_quality", "text of mine_phrases_real.yaml", ["numpy", "scikit-learn", "gensim"])
    gold, gold_texts = read_gold(DATA_DIR)
    with opened(real_run()) as (all_texts, names):
        texts = WithoutGold(all_texts, gold_texts, 10_000_000 if args.quick else None)
        pool = PhrasePool.mine(texts, names, min_count=MIN_COUNT, min_score=0.0, trees=100 if args.quick else 400)
        facts = pool.facts
        print(
            f"{facts['texts']:,} texts, {facts['characters'] / 1e6:.1f} M characters; {texts.dropped} texts of the "
            f"gold files left out; {facts['candidates']:,} candidates, {facts['known_candidates']} of them known; "
            f"{(pool.scores >= 0.5).sum():,} phrases with a score of at least .5; seconds {facts['seconds']}"
        )
        with Spool() as spool:
            spool.write(texts)
            peers = gensim_phrases(spool, MIN_COUNT)
            terms = {name: occurring(members, spool) for name, members in gold.items()}
    readings = compare(terms, pool.phrases, peers)
    if args.lists:
        write_lists(args.lists, {"ours": pool.phrases[:LISTED], "gensim": peers["default"][:LISTED]})
    finish(readings)


if __name__ == "__main__":
    main()
