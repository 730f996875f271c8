"""What the multilingual stage of m3BERT gains in other languages, and what it costs in English.

    python benchmarks/multilingual.py [--budget 60] [--seeds 3] [--keep_tokenizer] [--quick]

The first two stages of recipes/configs/m3bert_real.yaml are run for each seed (without the data beside the repository,
those of m3bert.yaml on the sample shop), scaled to the minutes that there are, with the loss over the grid. After
each stage the same held-out texts are measured: whole words hidden, in scripts without spaces single characters, right
if all their tokens are guessed, by bytes. So a tokenizer that changes between the stages cannot move the figure by
cutting words differently; `--keep_tokenizer` trains the multilingual one first and changes nothing in between, so that
the usual masked tokens (15 %) can be compared too. A classifier of Chinese reviews by kind of product is fine-tuned
from both stages, on the same rows.

Goals: Chinese and Indonesian rise, in each seed; English falls by at most a point; the classifier rises. A table in
Markdown comes before the JSON line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import report
from rexbert_hf.catalog import load_sample, read_records, split_dataset, split_of
from rexbert_hf.corpus.leaks import near_copies
from rexbert_hf.data import tokenise
from rexbert_hf.evaluation.fine_tuning import fine_tune
from rexbert_hf.evaluation.fine_tuning_rows import Row
from rexbert_hf.evaluation.task import Tuning
from rexbert_hf.models import RexBertForMaskedLM
from rexbert_hf.pretraining import PretrainSettings, pretrain
from rexbert_hf.pretraining.encoder import load_tokenizer, open_tokenizer
from rexbert_hf.pretraining.languages import split_languages
from rexbert_hf.pretraining.sources import read_source, texts_of
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.settings import load_settings, start_logging
from rexbert_hf.training import evaluate_masked
from rexbert_hf.training.word_accuracy import cut_bytes, evaluate_words

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "recipes" / "configs"
DATA_DIR = ROOT.parent / "shared" / "data"
STAGES = ("monolingual", "multilingual")
SMALL = {
    "overrides": "{num_hidden_layers: 4, hidden_size: 192, intermediate_size: 288, num_attention_heads: 6}",
    "matryoshka": "{layers: [2, 3, 4], dims: [32, 64, 192], sample: 3}",
}
"""A model that leaves the plateau of the most frequent tokens within an hour on two cores."""
SMALL_STAGES = {
    "monolingual": {"tokenizer.vocab_size": "8192", "phases.english.learning_rate": "2e-3"},
    "multilingual": {"tokenizer.vocab_size": "16384", "phases.adaptation.learning_rate": "2e-3"},
}
WORST_ENGLISH = -0.01
LEAST_RISE = 1e-6
"""None is no rise."""
CALIBRATION_TOKENS = 60_000
MASKS = 3
"""How often words are drawn from each text."""
SPARE, TRAINING_SHARE = 0.92, 0.7
"""Of the minutes what is planned, and of that what trains: the rest measures and fine-tunes."""
Pair = tuple[float, float]
"""A figure after the first stage and after the second."""


@dataclasses.dataclass
class Plan:
    """What is run and measured.

    Attributes:
        runs: recipes of the two stages.
        texts: held-out texts by name.
        train, test: rows of the classifier.
        real: whether the data are the real ones.
    """

    runs: list[PretrainSettings]
    texts: dict[str, list[str]]
    train: list[Row]
    test: list[Row]
    real: bool


def make_plan(args: argparse.Namespace, work: Path) -> Plan:
    """Recipes, texts and rows; the recipes are not scaled yet."""
    real = DATA_DIR.is_dir() and not args.quick and not args.sample
    overrides = [("output_dir", str(work)), ("cache_dir", str(work / "cache"))]
    overrides += [("data_dir", str(DATA_DIR))] if real else []
    if args.quick:
        overrides += [("model.overrides.num_hidden_layers", "2"), ("model.matryoshka.layers", "[1, 2]")]
    if real and args.size == "small":
        overrides += [(f"model.{key}", value) for key, value in SMALL.items()]
        for stage, chosen in SMALL_STAGES.items():
            overrides += [(f"stages.{stage}.{key}", value) for key, value in chosen.items()]
    config = CONFIGS / ("m3bert_real.yaml" if real else "m3bert.yaml")
    runs = [run for _, run in load_settings(StagedSettings, config, overrides).runs()[:2]]
    for run in runs:
        for source in run.sources.values():
            source.max_documents = args.documents or source.max_documents
    if args.keep_tokenizer:
        load_tokenizer(runs[1], work / "cache").save_pretrained(work / "tokenizer")
        tokenizer = dataclasses.replace(runs[1].tokenizer, path=str(work / "tokenizer"), train=False)
        runs = [dataclasses.replace(run, tokenizer=tokenizer) for run in runs]
    measured = ("english", "chinese_reviews", "shopee") if real else tuple(runs[1].sources)
    texts = held_out_texts(runs[1], measured, 20 if args.quick else args.bytes // 240)
    train, test = review_rows(runs[1], real, args.rows)
    return Plan(runs, texts, train, test, real)


def held_out_texts(run: PretrainSettings, names: Sequence[str], most: int) -> dict[str, list[str]]:
    """Texts of some of a recipe's sources that no run of it trains on, nor on a near copy of them, by language."""
    found: dict[str, list[str]] = {}
    for name in names:
        source = run.sources[name]
        dataset = read_source(source, run.data_dir)
        parts = split_languages(name, source, dataset) if source.splits_languages else {source.language: dataset}
        for code, part in parts.items():
            sides = split_dataset(part, "text", run.evaluation.held_out)
            held_out = list(dict.fromkeys(text for side in ("validation", "test") for text in texts_of(sides[side])))
            copies = near_copies(held_out, [list(texts_of(sides["train"]))])
            held_out = [text for text, copied in zip(held_out, copies, strict=True) if not copied]
            title = {"en": "English", "zh": "Chinese", "id": "Indonesian"}.get(str(code), str(code))
            found[title] = held_out[:most]
    return found


def review_rows(run: PretrainSettings, real: bool, most: int) -> tuple[list[Row], list[Row]]:
    """Chinese reviews with their kind of product: rows to train on, and rows that pre-training never saw."""
    if real:
        columns = {"text": "review", "category": "cat"}
        dataset = read_records(DATA_DIR / "chinese_reviews" / "online_shopping_10_cats.zip", columns)
    else:
        dataset = load_sample("chinese_reviews")
    held_out = run.evaluation.held_out
    rows: dict[bool, list[Row]] = {True: [], False: []}
    for text, category in zip(dataset["text"], dataset["category"], strict=True):
        if text and category:
            rows[split_of(text, held_out) == "train"].append(Row(text[:200], label=category))
    for part in rows.values():  # files are sorted by kind
        random.Random(0).shuffle(part)
    return rows[True][:most], rows[False][:most]


def with_scale(runs: Sequence[PretrainSettings], scale: float, seed: int, folder: Path) -> list[PretrainSettings]:
    """The stages with a seed, in a folder of their own."""
    first = dataclasses.replace(runs[0], scale=scale, seed=seed, output_dir=str(folder / STAGES[0]))
    model = dataclasses.replace(runs[1].model, init_from=first.output_dir)
    second = dataclasses.replace(runs[1], scale=scale, seed=seed, output_dir=str(folder / STAGES[1]), model=model)
    return [first, second]


def tokens_of(run: PretrainSettings) -> int:
    """Written budget of a recipe."""
    return sum(phase.max_tokens or 0 for phase in run.phases)


def calibrate(plan: Plan, args: argparse.Namespace, work: Path) -> float:
    """Seconds of all tokens as written, both stages; the data are prepared on the way."""
    scale = CALIBRATION_TOKENS / tokens_of(plan.runs[0])
    seconds = 0.0
    for run in with_scale(plan.runs, min(1.0, args.max_scale, scale), 0, work / "calibration"):
        extra = {**run.trainer.extra, "evaluate_phases": False}
        run = dataclasses.replace(run, trainer=dataclasses.replace(run.trainer, logging_steps=5, extra=extra))
        results = pretrain(run)
        seconds += tokens_of(run) / results["phases"][0]["tokens_per_second"]
    shutil.rmtree(work / "calibration")
    return seconds


def measure(plan: Plan, folder: Path, args: argparse.Namespace, seed: int) -> dict[str, float]:
    """Figures of one model."""
    model, tokenizer = RexBertForMaskedLM.from_pretrained(folder), open_tokenizer(str(folder))
    found = {}
    for name, texts in plan.texts.items():
        drawn = [evaluate_words(model, texts, tokenizer, seed=number) for number in range(MASKS)]
        sizes = [one["bytes"] for one in drawn]
        for title, key in ((name, "accuracy"), (f"{name}, bits a byte", "bits_per_byte")):
            found[title] = statistics.fmean([one[key] for one in drawn], sizes)
        if args.keep_tokenizer:
            store = tokenise([cut_bytes(text, 240) for text in texts], tokenizer)
            found[f"{name}, tokens"] = evaluate_masked(model, store, tokenizer)["accuracy"]
    cut = max(1, len(plan.train) // 10)
    tuning = Tuning(learning_rates=(args.rate,), epochs=(args.epochs,))
    labels = sorted({row.label for row in [*plan.train, *plan.test]})
    train, dev = plan.train[cut:], plan.train[:cut]
    fitted = fine_tune(folder, "sequence", train, dev, labels=labels, tuning=tuning, seed=seed, max_length=128)
    guessed = [fitted.labels[number] for number in fitted.predict(plan.test)]
    right = [answer == row.label for answer, row in zip(guessed, plan.test, strict=True)]
    return found | {"Chinese classifier": statistics.fmean(right)}


def run_seeds(plan: Plan, args: argparse.Namespace, work: Path, started: float) -> dict[str, list[Pair]]:
    """Figures of both stages for each seed; what `work` holds of an earlier start is not done again."""
    file = work / "figures.json"
    state = (
        json.loads(file.read_text()) if file.exists() else {"scale": 0.0, "kept": args.keep_tokenizer, "figures": {}}
    )
    if state.get("kept", False) != args.keep_tokenizer:
        raise SystemExit(f"error: {work} holds a run {'without' if args.keep_tokenizer else 'with'} --keep_tokenizer")
    if not state["scale"]:
        full = calibrate(plan, args, work)
        left = args.budget * 60 * SPARE - (time.perf_counter() - started)
        state["scale"] = min(args.max_scale, left / args.seeds / full * TRAINING_SHARE)
        if state["scale"] <= 0:
            raise SystemExit("error: the data alone took the budget: give it more minutes")
        file.write_text(json.dumps(state))
    tokens = sum(round(tokens_of(run) * state["scale"]) for run in plan.runs)
    print(f"\n{tokens:,} tokens a seed in two stages ({state['scale']:.3g} of the recipe)", flush=True)
    found: dict[str, list[Pair]] = {}
    for seed in range(args.seeds):
        for stage, run in zip(STAGES, with_scale(plan.runs, state["scale"], seed, work / f"seed-{seed}"), strict=True):
            if f"{stage} {seed}" not in state["figures"]:
                pretrain(run)
                state["figures"][f"{stage} {seed}"] = measure(plan, Path(run.output_dir), args, seed)
                file.write_text(json.dumps(state, indent=1))
        before, after = (state["figures"][f"{stage} {seed}"] for stage in STAGES)
        for name in before:
            found.setdefault(name, []).append((before[name], after[name]))
        told = (f"{name} {pairs[-1][0]:.3f} -> {pairs[-1][1]:.3f}" for name, pairs in found.items())
        print(f"seed {seed}: {', '.join(told)}", flush=True)
    return found


def table(found: Mapping[str, Sequence[Pair]]) -> str:
    """Means over the seeds, and the differences seed by seed, as Markdown."""
    lines = ["| held-out | monolingual | multilingual | difference | by seed |", "| --- | ---: | ---: | ---: | --- |"]
    for name, pairs in found.items():
        before, after = (statistics.fmean(side) for side in zip(*pairs, strict=True))
        scale = 1 if "bits" in name else 100
        parts = ", ".join(f"{scale * (b - a):+.2f}" for a, b in pairs)
        cells = [f"{scale * before:.2f}", f"{scale * after:.2f}", f"{scale * (after - before):+.2f}", parts]
        lines.append(f"| {name if 'bits' in name else f'{name}, %'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def readings(found: Mapping[str, Sequence[Pair]], judged: bool) -> list[report.Reading]:
    """The smallest gain of any seed, against 0; of English the mean, against a point less."""
    result = []
    for name, pairs in found.items():
        gains = [after - before for before, after in pairs]
        if "bits" in name:
            continue
        language = name.removesuffix(", tokens")
        english = language == "English"
        figure, goal = (statistics.fmean(gains), WORST_ENGLISH) if english else (min(gains), LEAST_RISE)
        counts = english or language in ("Chinese", "Indonesian", "Chinese classifier")
        what = "mean change" if english else "smallest gain of a seed"
        goal_of = goal if judged and counts else None
        result.append(report.Reading(f"multilingual/{name}/{what}", figure, goal=goal_of, unit="share", judged="ours"))
    return result


def main() -> None:
    """Calibrate, run, print."""
    parser = report.parser(__doc__, "the sample shop, two layers, a few steps: figures mean nothing")
    parser.add_argument("--budget", type=float, default=60, help="minutes for everything")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--keep_tokenizer", action="store_true", help="one tokenizer for both stages")
    parser.add_argument("--size", choices=["small", "micro"], default="small", help="micro: the recipe's own")
    parser.add_argument("--sample", action="store_true", help="the sample shop, though the data are there")
    parser.add_argument("--documents", type=int, help="most documents of each source (default: all)")
    parser.add_argument("--max_scale", type=float, default=20, help="most of the recipe's tokens that are trained")
    parser.add_argument("--bytes", type=int, default=300_000, help="most of each held-out text")
    parser.add_argument("--rows", type=int, default=1200, help="rows of the classifier, to train on and to test")
    parser.add_argument("--rate", type=float, default=3e-4, help="of the classifier")
    parser.add_argument("--epochs", type=int, default=3, help="of the classifier")
    parser.add_argument("--output", type=Path, help="keep models and figures here; started again, it goes on")
    args = parser.parse_args()
    if args.quick:
        args.budget, args.seeds, args.rows, args.epochs, args.max_scale = 1.0, 1, 60, 1, 0.02
    started = time.perf_counter()
    start_logging(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        work = args.output or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        plan = make_plan(args, work)
        report.header("multilingual", "real text" if plan.real else "the sample shop (no data beside the repository)")
        shape = plan.runs[0].model
        print(f"model: {shape.size} with {shape.overrides or 'no overrides'}, grid {shape.matryoshka}")
        found = run_seeds(plan, args, work, started)
    print(f"\n{table(found)}\n\n{(time.perf_counter() - started) / 60:.1f} minutes")
    report.finish(readings(found, plan.real))


if __name__ == "__main__":
    main()
