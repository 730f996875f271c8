"""What all runs of a reproduction share, made once: tokenizer, lexicons, phrase pool, tokenised sources."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rexbert_hf.catalog import load_sample, read_records, split_dataset
from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.own_folder import check_own_folder
from rexbert_hf.hub.redaction import redacted_alike
from rexbert_hf.hub.run_file import write_whole
from rexbert_hf.phrases import LexiconGuide, PhrasePool
from rexbert_hf.pretraining import PretrainSettings
from rexbert_hf.pretraining.corpora import prepare
from rexbert_hf.pretraining.encoder import load_tokenizer, made_before
from rexbert_hf.pretraining.sources import read_source, working_folder
from rexbert_hf.reproduction.downstream import kind_of, without_data
from rexbert_hf.reproduction.overrides import with_overrides
from rexbert_hf.reproduction.plan import PLAN_FILE, identity
from rexbert_hf.reproduction.settings import LexiconSettings, PhraseSettings, ReproductionSettings
from rexbert_hf.reproduction.stages import Stage
from rexbert_hf.settings import from_dict
from rexbert_hf.training.checkpoint import replace

logger = logging.getLogger(__name__)

SHARED_GUIDES = ("brands", "types", "phrases")
"""Guides that are made here; a stage that writes one of them itself keeps its own."""

SHARED_FILE = "shared.json"
TOKENIZER, PHRASES, PAIRS = "tokenizer", "phrases", "pairs.parquet"
CALIBRATION = "calibration"
"""Folder of the runs that measure speed, which goes before and after them."""
_OWN = (TOKENIZER, PHRASES, PAIRS, CALIBRATION, "brands.txt", "types.txt", "table.md")
"""What a reproduction writes over, and may do so in its own folder only."""


def with_data(settings: ReproductionSettings) -> ReproductionSettings:
    """The settings, with their `without_data` where the real data is not there.

    Args:
        settings: as written.
    """
    folder = settings.base.data_dir
    if folder is None or Path(folder).is_dir() or not settings.without_data:
        return settings
    logger.warning("no folder %s: the reproduction runs on the built-in sample, which shows little", folder)
    base = with_overrides(settings.base, {"data_dir": "null", **settings.without_data}, "without_data")
    phrases = settings.phrases and dataclasses.replace(settings.phrases, positives=None)
    recipes = {name: without_data(recipe) for name, recipe in settings.recipes.items()}
    measures = [dataclasses.replace(item, options=item.options | item.without_data) for item in settings.measures]
    changes: dict[str, Any] = {"lexicons": None, "phrases": phrases, "recipes": recipes, "measures": measures}
    return dataclasses.replace(settings, base=base, **changes)


def drop_others(settings: ReproductionSettings) -> None:
    """Remove tokenizer, phrase pool and judged pairs that a start with other settings left before there was a plan.

    With a plan nothing is removed: `load_plan` refuses other settings then. First of all the folder is looked at.

    Args:
        settings: the reproduction, before `with_pairs`.

    Raises:
        ValueError: if the folder holds another run or a model; if its `shared.json` is damaged; if that is missing, and
            what is there under a name of a reproduction's was made by something else.
    """
    folder, path = settings.output_dir, settings.output_dir / SHARED_FILE
    check_own_folder(folder, "claims")
    if (folder / PLAN_FILE).exists():
        return
    decisive = ("base", "lexicons", "phrases", "pairs", "recipes")
    wanted = {key: value for key, value in identity(settings).items() if key.partition(".")[0] in decisive}
    there = ", ".join(name for name in _OWN if (folder / name).exists())
    way_out = "choose another output_dir, or delete it" + (f" with {there}" if there else "")
    if path.exists():
        was, now = redacted_alike(read_json_object(path, way_out, ("for",))["for"], wanted)
        if was == now:
            return
    elif there:  # it is written before anything is made
        raise ValueError(f"{folder} holds {there} of something else: choose another output_dir, or delete them")
    made = [folder / name for name in (TOKENIZER, PHRASES, PAIRS) if (folder / name).exists()]
    if made:
        logger.warning("%s: made for other settings, and made again", ", ".join(map(str, made)))
    for place in made:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    write_whole(path, json.dumps({"for": wanted}, indent=2).encode())


def prepare_shared(settings: ReproductionSettings) -> PretrainSettings:
    """The base recipe with one cache, one tokenizer, the lexicons, the phrase pool, and tokenised sources.

    Args:
        settings: the reproduction.
    """
    cache = Path(settings.base.cache_dir or settings.output_dir / "cache")
    base = dataclasses.replace(settings.base, cache_dir=str(cache))
    guides: dict[str, Any] = {}
    if settings.lexicons:
        guides |= write_lexicons(settings, settings.lexicons)
    if settings.phrases:
        guides["phrases"] = mine_pool(settings, settings.phrases)
    base = dataclasses.replace(base, guides=dataclasses.replace(base.guides, **guides))
    folder = settings.output_dir / TOKENIZER
    if made_before(folder) is None:
        made = load_tokenizer(base, cache)
        replace(folder, made.save_pretrained)
    base = dataclasses.replace(base, tokenizer=dataclasses.replace(base.tokenizer, path=str(folder)))
    prepare(base, load_tokenizer(base, cache), cache, also_trained=base.sources)  # as rows are measured
    return base


def with_pairs(settings: ReproductionSettings) -> ReproductionSettings:
    """The settings, with the judged pairs of training queries written to a file that one of the sources reads.

    They come from the very data that a recipe of search fine-tunes on, so that no query that chooses or tests a model
    is seen before.

    Args:
        settings: the reproduction.
    """
    wanted = settings.pairs
    if wanted is None:
        return settings
    from rexbert_hf.retrieval.training.search_data import TRAIN, load_search_data

    path = settings.output_dir / PAIRS
    if not path.exists():
        step = settings.recipes[wanted.recipe]
        chosen: Any = from_dict(kind_of(step, "pairs").settings, step.settings, f"recipe '{wanted.recipe}'").data
        data = load_search_data(dataclasses.replace(chosen, data_dir=settings.base.data_dir))
        queries, products, grades = data.pairs(data.of(TRAIN, with_relevant=False))
        kept = [(q, p, float(g >= data.relevant)) for q, p, g in zip(queries, products, grades, strict=True)]
        rows = [{"query": data.queries[q], "title": data.texts[p], "relevance": g} for q, p, g in kept if data.texts[p]]
        staged = path.with_suffix(".partial")
        pq.write_table(pa.Table.from_pylist(rows), staged)
        staged.rename(path)
        share = sum(row["relevance"] for row in rows) / max(len(rows), 1)
        logger.info("pairs: %d of training queries, %.0f %% of them relevant", len(rows), 100 * share)
    source = dataclasses.replace(settings.base.sources[wanted.source], path=str(path.resolve()), sample=None)
    base = dataclasses.replace(settings.base, sources={**settings.base.sources, wanted.source: source})
    return dataclasses.replace(settings, base=base)


def stage_guides(stage: Stage, recipe: PretrainSettings, shared: PretrainSettings) -> Any:
    """The guides of a stage: those made here, unless the stage writes its own (null for none).

    Args:
        stage: which.
        recipe: of the stage, as written.
        shared: what `prepare_shared` returned.
    """
    made = [name for name in SHARED_GUIDES if f"guides.{name}" not in stage.settings]
    return dataclasses.replace(recipe.guides, **{name: getattr(shared.guides, name) for name in made})


def write_lexicons(settings: ReproductionSettings, wanted: LexiconSettings) -> dict[str, str]:
    """Write brands and types of a catalogue as term files; returns the paths by kind, of those with a term.

    Args:
        settings: the reproduction.
        wanted: where the terms come from.
    """
    found: dict[str, str] = {}
    for kind, terms in lexicon_terms(settings, wanted).items():
        path = settings.output_dir / f"{kind}.txt"
        if terms:
            write_whole(path, "\n".join(terms).encode())
            found[kind] = str(path.resolve())
    return found


def lexicon_terms(settings: ReproductionSettings, wanted: LexiconSettings) -> dict[str, list[str]]:
    """Brands and product types of a catalogue.

    Args:
        settings: the reproduction.
        wanted: where they come from.
    """
    columns: dict[str, str | list[str]] = {"category_path": wanted.category_path}
    if wanted.brand is not None:
        columns["brand"] = wanted.brand
    rows = read_records(str(Path(settings.base.data_dir or "") / wanted.path), columns, format=wanted.format)
    guides = LexiconGuide.from_products(({"brand": None, **row} for row in rows), max_types=wanted.max_types)
    return {
        kind: [term for term in guide.terms if term not in wanted.exclude]
        for kind, guide in zip(("brands", "types"), guides, strict=True)
    }


def mine_pool(settings: ReproductionSettings, wanted: PhraseSettings) -> str:
    """Mine a phrase pool from the training documents of some sources, once; returns its folder.

    Held-out documents are not read: rows are measured on phrases that were found without them.

    Args:
        settings: the reproduction.
        wanted: how.
    """
    folder = settings.output_dir / PHRASES
    if not (folder / "README.md").exists():  # written last
        base = settings.base
        texts: list[str] = []
        with working_folder(settings.output_dir / "mining") as work:
            for name in wanted.sources:
                documents = read_source(base.sources[name], base.data_dir, work_dir=work)
                texts += list(split_dataset(documents, held_out=base.evaluation.held_out)["train"]["text"])
        pool = PhrasePool.mine(list(dict.fromkeys(texts)), _positives(settings, wanted), **wanted.options)
        if wanted.max_size is not None:
            pool = pool.filter(max_size=wanted.max_size)
        pool.save(folder)
        logger.info("phrases: %d of %d texts, scores from %.2f", len(pool), len(texts), float(min(pool.scores)))
    return str(folder.resolve())


def _positives(settings: ReproductionSettings, wanted: PhraseSettings) -> list[str]:
    if wanted.positives is not None:
        return [term for terms in lexicon_terms(settings, wanted.positives).values() for term in terms]
    products = load_sample("products")
    return [*products["brand"], *(level for path in products["category_path"] for level in path)]
