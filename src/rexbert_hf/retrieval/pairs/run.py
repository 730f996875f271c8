"""What `recipes/build_pairs.py` does: read, count, draw, label, audit, write, push."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict

from rexbert_hf.catalog import PRODUCT_FIELDS, SPLITS, product_text
from rexbert_hf.hub import push_dataset, render_dataset_card, write_run
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.run_file import RUN_FILE, write_whole
from rexbert_hf.hub.take_place import take_place
from rexbert_hf.retrieval.pairs.draw import PairReport, Ratio, draw_pairs
from rexbert_hf.retrieval.pairs.events import CONTEXT, EventCounts, QueryGroup, count_events
from rexbert_hf.retrieval.pairs.files import PAIRS, QPI, PairWriter, load_pairs
from rexbert_hf.retrieval.pairs.graded import GradedPair, graded_groups, read_grades
from rexbert_hf.retrieval.pairs.readme import merge_pairs_card, read_readme
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.pairs.weak import (
    Audit,
    AuditSample,
    Judge,
    audit_pairs,
    csv_judge,
    graded_judge,
    label_weakly,
    read_audit_sample,
    thin_out,
    write_audit_sample,
)
from rexbert_hf.settings import sole_run, to_dict

logger = logging.getLogger(__name__)

STAGED = "built"
"""Where a run's files lie until all of them are written, in its folder of rows."""
_OWNED = ("products.parquet", *(f"{kind}/{split}.parquet" for kind in ("pairs", "qpi") for split in SPLITS))
_SAMPLE = "audit_sample.csv"


@sole_run(".rows-*")
def build_pairs(run: BuildPairsRun) -> dict[str, Any]:
    """Build the pairs of a run; the `results` of run.json.

    Args:
        run: the settings.

    Raises:
        ValueError: if a column is missing, log or judgements and products have nothing in common, or the folder holds
            another run, a model, what is read, or a README or an audit sample that cannot be read.
        FileExistsError: if the folder holds a `products.parquet` or pairs that this recipe did not make.
        FileNotFoundError: for a missing file.
    """
    _check_place(run)
    run.output_dir.mkdir(parents=True, exist_ok=True)
    # Read first: what is wrong in a person's file must not be told after a whole log was counted.
    judge = csv_judge(run.audit.csv) if run.audit.csv is not None and run.events is not None else None
    with tempfile.TemporaryDirectory(dir=run.output_dir, prefix=".rows-") as folder:
        cache, built = Path(folder), Path(folder) / STAGED
        products, read = read_products(run, cache)
        built.mkdir()
        products.to_parquet(str(built / "products.parquet"))
        ids: list[str] = products["product_id"][:]
        if run.events is not None:
            events = run.events.read("events", ("query", "shown", "clicked", "bought"), cache)
            try:
                counts = count_events(events, ids, run.split.resolved(), run.max_query_words)
            except ValueError as error:
                raise ValueError(f"{run.events.name}: {error}") from None
            results: dict[str, Any] = {**read, "log": counts.report, "count_bytes": counts.nbytes}
            groups: Any = counts.groups()
            known = _graded_judge(run, cache)
            sample = AuditSample(run.audit.size, run.seed, known)
            results["qpi"] = _write_weak(run, counts, ids, built, sample)
        else:
            assert run.graded is not None
            rows = run.graded.read("query_products", ("query", "product_id"), cache)
            graded, report = read_grades(_rows(rows), ids, run.grades, run.split.resolved(), run.max_query_words)
            results = {**read, "judgements": report}
            groups = graded_groups(graded)
            results["qpi"] = _write_graded(graded, ids, built)
        results["pairs"] = _write_pairs(run, groups, ids, built)
        if run.events is not None and run.audit.size:
            results["audit"] = asdict(_audit(run, sample, products, cache, known or judge))
        card = merge_pairs_card(run.output_dir, _card(run, results, built))
        take_place(built, run.output_dir, _OWNED)
    write_whole(run.output_dir / "README.md", card.encode("utf-8"))
    data = _data(run)
    write_run(run.output_dir, config=to_dict(run), results=results, data=data)  # before the push, which may fail
    if run.push_to_hub:
        results["url"] = _push(run, _card(run, results, run.output_dir, on_hub=True))
        write_run(run.output_dir, config=to_dict(run), results=results, data=data)
    return results


def _check_place(run: BuildPairsRun) -> None:
    """Refuse a folder in which the result would replace what this recipe did not make.

    A start that was stopped between two files leaves pairs without a `run.json`; their columns say whose they are.
    """
    folder = run.output_dir
    check_own_folder(folder, "ratio")
    read_readme(folder)  # what a person wrote there stays, so it must be readable
    if run.events is not None and run.audit.size and run.audit.judgements is None and run.audit.csv is None:
        read_audit_sample(folder / _SAMPLE)
    ours = [folder / name for name in _OWNED if (folder / name).is_file()]
    for source in (run.products, run.events, run.graded, run.audit.judgements):
        for file in source.files() if source is not None and ours else ():
            if same := [one for one in ours if one.samefile(file)]:
                raise ValueError(f"{same[0]} is read, and the result would replace it: choose another output_dir")
    if not ours or (folder / RUN_FILE).is_file():
        return
    pairs = [path for path in ours if path.parent != folder]
    for file in pairs or ours:
        if not pairs or not _has_pairs(file):
            raise FileExistsError(f"{file} was not made by this recipe: choose another output_dir, or move it")


def _has_pairs(path: Path) -> bool:
    try:
        said = "label" if path.parent.name == "pairs" else "relevance"
        return {"query", "product_id", said} <= set(pq.read_schema(path).names)  # others came with versions
    except (pa.ArrowException, OSError):
        return True  # damaged, under our name


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    for batch in dataset.with_format("arrow").iter(batch_size=1000):
        yield from batch.to_pylist()


def read_products(run: BuildPairsRun, cache_dir: Path) -> tuple[Dataset, dict[str, int]]:
    """The catalogue, each product once and with some text.

    A product without a title is kept when another field says something; one without any text cannot be trained on.

    Args:
        run: the settings.
        cache_dir: where rows are kept while the run lasts.

    Raises:
        ValueError: if no product is left.
    """
    products = run.products.read("products", ("product_id",), cache_dir)
    seen: set[str] = set()
    kept, report = [], {"product_rows": len(products), "repeated_products": 0, "products_without_text": 0}
    report["products_without_title"] = 0
    for number, row in enumerate(_rows(products)):
        identity = row["product_id"]
        if not identity or identity in seen:
            report["repeated_products"] += 1
        elif not product_text(row):
            report["products_without_text"] += 1
        else:
            kept.append(number)
            report["products_without_title"] += not product_text(row, ("title",))
            seen.add(identity)
    if not kept:
        raise ValueError(f"{run.products.name}: no product with an id and a text: map {', '.join(PRODUCT_FIELDS)}")
    if report["products_without_text"]:
        logger.warning("%d products without any text are left out", report["products_without_text"])
    return products.select(kept), {**report, "products": len(kept)}


def _write_pairs(run: BuildPairsRun, groups: Iterator[QueryGroup], ids: list[str], built: Path) -> dict[str, Any]:
    report = PairReport()
    with PairWriter(built / "pairs", PAIRS) as writer:
        for pairs in draw_pairs(groups, len(ids), Ratio.parse(run.ratio), run.seed, report):
            product_ids = [ids[index] for index in pairs.product.tolist()]
            query = [pairs.query] * len(product_ids)
            writer.add(pairs.split, {"query": query, "product_id": product_ids, "label": pairs.label.tolist()})
    found = report.as_dict()
    short = {split: counts for split, counts in found.items() if counts.get("queries_short_of_hard_negatives")}
    for split, counts in short.items():
        logger.info(
            "%s: %d of %d queries have fewer hard negatives than %s wants; the ratio reached is %s",
            *(split, counts["queries_short_of_hard_negatives"], counts["queries"], run.ratio, counts["ratio"]),
        )
    if not any(counts.get("positives") for counts in found.values()):
        logger.warning("no query has a positive (a purchase): there are no pairs for stage 3")
    return found


def _write_weak(
    run: BuildPairsRun, counts: EventCounts, ids: list[str], built: Path, sample: AuditSample
) -> dict[str, Any]:
    label = label_weakly(counts, run.weak.relevant, run.weak.irrelevant)
    if run.weak.irrelevant_share is not None:
        label = thin_out(counts, label, run.weak.irrelevant_share, run.seed)
    tally = {split: {"relevant": 0, "irrelevant": 0} for split in SPLITS}
    with PairWriter(built / "qpi", QPI) as writer:
        for query, at in counts.ranges():
            keep = np.flatnonzero(label[at] >= 0) + at.start
            if not len(keep):
                continue
            split, text = SPLITS[counts.splits[query]], counts.queries[query]
            relevance = label[keep].astype(float)
            columns = {name: getattr(counts, name)[keep].tolist() for name in ("shown", "clicks", "purchases")}
            named = {"query": [text] * len(keep), "product_id": [ids[i] for i in counts.product[keep].tolist()]}
            named |= {name: [value] * len(keep) for name, value in zip(CONTEXT, counts.contexts[query], strict=True)}
            writer.add(split, {**named, "relevance": relevance.tolist(), **columns})
            tally[split]["relevant"] += int(relevance.sum())
            tally[split]["irrelevant"] += int((1 - relevance).sum())
            for index in counts.product[keep][relevance == 1].tolist():
                sample.add(text, ids[index], index)
    if not sample.passed:
        logger.warning("no pair matches a rule of weak.relevant: there are no pairs for stage 2")
    return {split: numbers for split, numbers in tally.items() if any(numbers.values())}


def _write_graded(graded: list[GradedPair], ids: list[str], built: Path) -> dict[str, Any]:
    tally = {split: {"relevant": 0, "irrelevant": 0} for split in SPLITS}
    with PairWriter(built / "qpi", QPI) as writer:
        for pair in graded:
            zeros: dict[str, list[Any]] = {name: [0] for name in ("shown", "clicks", "purchases")}
            zeros |= {name: [None] for name in CONTEXT}
            named: dict[str, list[Any]] = {
                "query": [pair.query],
                "product_id": [ids[pair.product]],
                "relevance": [float(pair.relevant)],
            }
            writer.add(pair.split, {**named, **zeros})
            tally[pair.split]["relevant" if pair.relevant else "irrelevant"] += 1
    return {split: numbers for split, numbers in tally.items() if any(numbers.values())}


def _graded_judge(run: BuildPairsRun, cache_dir: Path) -> Judge | None:
    """Graded judgements of the audit, which takes its sample of the pairs that have one; None where there are none."""
    if run.audit.judgements is None or not run.audit.size:
        return None
    rows = run.audit.judgements.read("query_products", ("query", "product_id"), cache_dir)
    return graded_judge(_rows(rows), run.grades.is_relevant)


def _audit(run: BuildPairsRun, drawn: AuditSample, products: Dataset, cache_dir: Path, judge: Judge | None) -> Audit:
    """Judge a sample by graded judgements or a person's file; without either, write it for a person."""
    sample = [(query, product) for query, product, _ in drawn.pairs]
    if judge is None:
        texts = (product_text(products[number], ("title", "brand", "description")) for *_, number in drawn.pairs)
        titles = [text[:200] for text in texts]
        write_audit_sample(cache_dir / STAGED / _SAMPLE, sample, titles, earlier=run.output_dir / _SAMPLE)
        return Audit(len(sample), 0, 0, None, None, None)
    return audit_pairs(sample, judge, run.audit.least)


def _data(run: BuildPairsRun) -> list[dict[str, str]]:
    sources = {"products": run.products, "events": run.events, "judgements": run.graded}
    return [{"name": kind, "source": source.name} for kind, source in sources.items() if source is not None]


def _files(folder: Path) -> dict[str, dict[str, Path]]:
    """Files of each configuration by split; the products have one split."""
    found = {kind: {split: folder / kind / f"{split}.parquet" for split in SPLITS} for kind in ("pairs", "qpi")}
    found["products"] = {SPLITS[0]: folder / "products.parquet"}
    there = {kind: {split: path for split, path in of.items() if path.is_file()} for kind, of in found.items()}
    return {kind: of for kind, of in there.items() if of}


def _card(run: BuildPairsRun, results: dict[str, Any], folder: Path, on_hub: bool = False) -> str:
    """The card of the files in a folder; on the Hub `datasets` writes by itself which files are whose."""
    files = _files(folder)
    data_files = [
        {
            "config_name": kind,
            "data_files": [{"split": split, "path": path.relative_to(folder).as_posix()} for split, path in of.items()],
        }
        for kind, of in files.items()
    ]
    audit = results.get("audit") or {}
    said = "The relevant share was not audited."
    if audit.get("share") is not None:
        said = (
            f"Of {audit['judged']} judged pairs labelled relevant, {audit['share']:.1%} are"
            f" (95 % interval {audit['low']:.1%} to {audit['high']:.1%})."
        )
    lines = ["| split | queries | positives | ratio reached |", "| --- | ---: | ---: | --- |"]
    for split, counts in results["pairs"].items():
        if counts.get("positives"):
            lines.append(f"| {split} | {counts['queries']:,} | {counts['positives']:,} | {counts['ratio']} |")
    return render_dataset_card(
        repo_id=run.push_to_hub,
        folder=run.output_dir,
        dataset_name=(run.push_to_hub or "Query-product pairs").split("/")[-1],
        summary="Query-product pairs for product search: stage 2 (qpi), stage 3 (pairs), and the products.",
        license=run.card.license,
        language=run.card.language,
        config=to_dict(run),
        configs=[
            {"name": kind, "rows": sum(pq.read_metadata(path).num_rows for path in of.values())}
            for kind, of in files.items()
        ],
        data_files=() if on_hub else data_files,
        sections=[
            {"title": f"Pairs at {run.ratio}", "text": "\n".join([*lines, "", _LABELS])},
            {"title": "Weak labels", "text": said},
        ],
    )


_LABELS = (
    "Labels: 1 positive, 0 hard negative, -1 drawn at random, -2 neither (clicked and not bought, touched outside the"
    " query's period only, or judged so): nothing is trained or measured on these, and none of them is ever a negative."
)


def _push(run: BuildPairsRun, card: str) -> str:
    """Push the three configurations, the card with the first."""
    assert run.push_to_hub is not None
    url = ""
    for kind in ("pairs", "qpi", "products"):
        splits = SPLITS if kind != "products" else SPLITS[:1]
        paths = {s: run.output_dir / kind / f"{s}.parquet" for s in splits if kind != "products"}
        found = [s for s in splits if kind == "products" or paths[s].is_file()]
        parts = {split: load_pairs(run.output_dir, kind, split) for split in found}
        if parts:
            url = push_dataset(DatasetDict(parts), run.push_to_hub, kind, card=card, private=run.private)
    return url
