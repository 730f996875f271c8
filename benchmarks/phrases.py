"""The phrase room beside stock ways: matching a pool of half a million phrases, words a second and memory.

    python benchmarks/phrases.py [--quick] [--only_matching]

Then it runs the benchmarks of mining (phrase_mining.py) and of adaptive masking (ahm_collate.py).

Matching: ours is `PhraseMatcher.match`, from texts to lists of (start, end, score); the peer is spaCy's `PhraseMatcher`
over its blank English pipeline with attr="LOWER", from texts to match ids, which builds a `Doc` for each text. Its time
over finished `Doc`s is printed too. The pool holds the most frequent 2- to 4-grams of texts that are not searched, so
nearly every word is in some match: harder than a mined pool. Words are runs of letters and digits, on both sides.
Each matcher is built and timed in a process of its own; memory is the growth of its resident set while building, and
times are processor time in one thread, so that other jobs stay out of them.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np

import report
from product_text import documents
from rexbert_hf.phrases.matcher import PhraseMatcher
from rexbert_hf.phrases.words import KIND_WORD, Words, split_chunks

GOAL_WORDS, GOAL_RATIO, GOAL_MEMORY = 1.5, 3.0, 0.2
REPEATS = 5
OTHERS = ("phrase_mining.py", "ahm_collate.py")


def frequent_ngrams(texts: list[str], count: int) -> list[str]:
    """The `count` most frequent runs of 2 to 4 words."""
    found: dict[int, list[np.ndarray]] = {2: [], 3: [], 4: []}
    chunks = [words for _, words in split_chunks(texts)]
    for words in chunks:
        for length, keys in found.items():
            keys.append(ngram_keys(words, length)[1])
    ranked = []
    for keys in found.values():
        names, counts = np.unique(np.concatenate(keys), return_counts=True)
        ranked.append(np.stack([counts.astype(np.uint64), names], axis=1))
    table = np.concatenate(ranked)
    order = np.lexsort((table[:, 1], -table[:, 0].astype(np.int64)))
    wanted = np.sort(table[order[:count], 1])
    phrases: dict[int, str] = {}
    for words in chunks:
        for length in found:
            first, keys = ngram_keys(words, length)
            place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
            for at in np.flatnonzero(wanted[place] == keys).tolist():
                key = int(keys[at])
                if key not in phrases:
                    phrases[key] = " ".join(words.text(unit) for unit in range(first[at], first[at] + length))
    return [phrases[int(key)] for key in wanted]


def ngram_keys(words: Words, length: int) -> tuple[np.ndarray, np.ndarray]:
    """First units of the runs of `length` words, and a key for each."""
    word = words.kind == KIND_WORD
    first = np.flatnonzero(np.convolve(word, np.ones(length, dtype=int))[length - 1 :] == length)
    key = np.full(len(first), length, dtype=np.uint64)
    for step in range(length):
        key = (key ^ words.hashes[first + step]) * np.uint64(0x9E3779B97F4A7C15)
    return first, key


def memory_mb(name: str) -> float:
    """Resident memory of this process: "VmRSS" now, "VmHWM" at most so far; nan where the system does not say."""
    gc.collect()
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def timed(build: Callable[[], Any], searches: dict[str, Callable[[Any], int]]) -> dict[str, float]:
    """Build a matcher, then time its searches; each returns its number of matches."""
    before, start = memory_mb("VmRSS"), time.process_time()
    matcher = build()
    seconds = time.process_time() - start
    result = {"build": seconds, "memory": memory_mb("VmRSS") - before, "peak": memory_mb("VmHWM") - before}
    for name, search in searches.items():
        hits = 0

        def run(search: Callable[[Any], int] = search) -> None:
            nonlocal hits
            hits = search(matcher)

        result[name] = report.median_seconds(run, REPEATS, time.process_time)
        result[f"{name} hits"] = hits
    return result


def our_times(pool: list[str], texts: list[str], overlaps: Literal["longest", "all"]) -> dict[str, float]:
    """Seconds and memory of ours."""
    scores = np.linspace(1.0, 0.5, len(pool))
    PhraseMatcher(["a"], [1.0]).match(["a\u00e9"])  # Tables of characters belong to no pool.
    searches = {
        "match": lambda matcher: sum(map(len, matcher.match(texts))),
        "columns": lambda matcher: len(matcher.match_flat(texts).text),
    }
    return timed(lambda: PhraseMatcher(pool, scores, overlaps=overlaps), searches)


def spacy_times(pool: list[str], texts: list[str]) -> dict[str, float]:
    """Seconds and memory of spaCy's matcher, which finds every occurrence."""
    import spacy
    from spacy.matcher import PhraseMatcher as Peer

    nlp = spacy.blank("en")
    docs = [nlp.make_doc(text) for text in texts]

    def build() -> Any:
        matcher = Peer(nlp.vocab, attr="LOWER")
        for first in range(0, len(pool), 1000):  # all at once would count what is freed afterwards
            matcher.add("phrase", list(nlp.tokenizer.pipe(pool[first : first + 1000])))
        return matcher

    return timed(
        build,
        {
            "match": lambda matcher: sum(len(matcher(nlp.make_doc(text))) for text in texts),
            "docs": lambda matcher: sum(len(matcher(doc)) for doc in docs),
        },
    )


def alone(work: Callable[..., dict[str, float]], *args: Any) -> dict[str, float]:
    """Run in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:
        return executor.submit(work, *args).result()


def matcher_readings(quick: bool) -> tuple[list[report.Reading], str]:
    """Readings of the matcher, and where the text comes from."""
    size, searched = (50_000, 4_000) if quick else (500_000, 20_000)
    texts, source = documents(searched + (30_000 if quick else 200_000))
    pool = frequent_ngrams(texts[searched:], size)
    texts = texts[:searched]
    million = sum(int((words.kind == KIND_WORD).sum()) for _, words in split_chunks(texts)) / 1e6
    ours, ours_all = (alone(our_times, pool, texts, overlaps) for overlaps in ("longest", "all"))
    has_peer = importlib.util.find_spec("spacy") is not None
    peer = alone(spacy_times, pool, texts) if has_peer else None
    print(f"\n{len(pool)} phrases, {len(texts)} texts, {million:.2f} M words; one thread")
    table = {"ours, longest": ours, "ours, all": ours_all} | ({"spaCy, all": peer} if peer else {})
    for name, row in table.items():
        print(
            f"{name:14s} {million / row['match']:6.2f} M words/s, {row['match hits']:9.0f} matches, "
            f"build {row['build']:5.1f} s, {row['memory']:6.0f} MB (at most {row['peak']:.0f} while building)"
        )
    print(f"ours as columns {million / ours['columns']:.2f} M words/s")
    if peer:
        print(f"spaCy over finished Docs {million / peer['docs']:.2f} M words/s")
    else:
        print("spaCy is not installed: no peer")
    speed = million / peer["match"] if peer else None
    fast = report.Reading("phrases/match", million / ours["match"], speed, GOAL_WORDS, "M words/s", judged="ours")
    readings = [fast]
    if peer:
        pairs = {"longest": ours, "all": ours_all}
        readings += [
            report.Reading(f"phrases/match/{name}", million / row["match"], speed, GOAL_RATIO, "M words/s")
            for name, row in pairs.items()
        ]
        readings.append(report.Reading("phrases/memory", ours["memory"], peer["memory"], GOAL_MEMORY, "MB", lower=True))
    return readings, source


def other_readings(quick: bool) -> list[dict[str, Any]]:
    """What the other benchmarks of phrases say, each run in a process of its own."""
    found: list[dict[str, Any]] = []
    for name in OTHERS:
        command = [sys.executable, str(Path(__file__).with_name(name)), *(["--quick"] if quick else [])]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        print(f"\n{told.rstrip()}")
        found += json.loads(told.rstrip().splitlines()[-1])
    return found


def main() -> None:
    """Measure and print; the last line is the readings as JSON."""
    parser = report.parser(__doc__, "a tenth of the pool and of the text")
    parser.add_argument("--only_matching", action="store_true", help=f"leave out {' and '.join(OTHERS)}")
    args = parser.parse_args()
    readings, source = matcher_readings(args.quick)
    packages = ["numpy"] + (["spacy"] if importlib.util.find_spec("spacy") else [])
    report.header("phrases", source, packages)
    report.finish(readings)
    if not args.only_matching:
        print(json.dumps([reading.entry() for reading in readings] + other_readings(args.quick)))


if __name__ == "__main__":
    main()
