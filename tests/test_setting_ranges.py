"""Numbers out of range: one line that names the key and the file, before any data is read."""

from __future__ import annotations

import math
import re

import pytest

from rexbert_hf.corpus.settings import CurateSettings
from rexbert_hf.evaluation.settings import EvaluateSettings, FinetuneTaskSettings
from rexbert_hf.phrases.mining_run import MineRun
from rexbert_hf.pretraining.stages import StagedSettings
from rexbert_hf.pretraining.tokenizer_run import TokenizerRun
from rexbert_hf.reproduction.settings import ReproductionSettings
from rexbert_hf.retrieval.pairs.settings import BuildPairsRun
from rexbert_hf.retrieval.serving.index_recipe import BuildIndexRun
from rexbert_hf.retrieval.serving.onnx_recipe import ExportOnnxRun
from rexbert_hf.retrieval.serving.page_settings import PageSettings
from rexbert_hf.retrieval.training.distil_settings import DistilSettings
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_choice import ChooseRun
from rexbert_hf.retrieval.training.qpi_settings import QPISettings
from rexbert_hf.retrieval.training.reranker import RerankerSettings
from rexbert_hf.settings import SettingsError, from_dict, load_settings

PRETRAIN = {
    "sources": {"shop": {"sample": "shop_text"}},
    "phases": [{"name": "one", "mixture": {"shop": 1}, "max_tokens": 1000}],
}
SHOP = {"sample": "shop_text"}
QPI = {
    "sources": {"shop": {"sample": "query_products", "pairs": {}}},
    "phases": [{"name": "one", "mixture": {"shop": 1}, "epochs": 1, "masking": {"kind": "query_product"}}],
}
MINED = {"texts": [SHOP], "positives": [SHOP]}
PAIRS = {"products": {"sample": "products"}, "graded": {"sample": "query_products"}}
RERANKER, DISTIL = {"base": "bert"}, {"teacher": "teacher"}
REPRODUCTION = {"paper": "one", "base": PRETRAIN, "stages": [{"name": "plain", "phases": ["one"]}]}
CURATE = {"sources": [{"sample": "crawl"}]}
EVALUATE = {"models": ["bm25"], "tasks": ["product_search"]}
"""The least that each class needs beside the number."""

NUMBERS = [
    (StagedSettings, PRETRAIN, "phases.0.batch_tokens", [0, -1024]),
    (StagedSettings, PRETRAIN, "phases.0.batch_warmup_tokens", [-1]),
    (StagedSettings, PRETRAIN, "phases.0.learning_rate", [0, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.global_rope_theta", [0, -1]),
    (StagedSettings, PRETRAIN, "phases.0.mixture.shop", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.schedule.alpha_f", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.masking.guidance_tokens", [-1]),
    (StagedSettings, PRETRAIN, "phases.0.masking.guidance_start", [-0.5, 2]),
    (StagedSettings, PRETRAIN, "phases.0.languages.temperature", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.neighbors.weight", [0, math.inf]),
    (StagedSettings, PRETRAIN, "phases.0.neighbors.margin", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "trainer.max_grad_norm", [-1, math.nan]),
    (StagedSettings, PRETRAIN, "tokenizer.vocab_size", [0, -64, 320, 1000]),
    (StagedSettings, PRETRAIN, "micro_batch_tokens", [0, -1]),
    (StagedSettings, PRETRAIN, "scale", [0, -1, math.inf, 1e306]),
    (StagedSettings, PRETRAIN, "tokenizer.max_documents", [0, -1]),
    (StagedSettings, PRETRAIN, "tokenizer.temperature", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "seed", [-1, 2**32]),
    (StagedSettings, PRETRAIN, "sources.shop.sample_size", [-1, 0, 1]),
    (StagedSettings, PRETRAIN, "sources.shop.max_documents", [-1, 0]),
    (StagedSettings, PRETRAIN, "sources.shop.join_words", [-1, 0]),
    (StagedSettings, PRETRAIN, "sources.shop.products.seed", [-1, 2**32]),
    (StagedSettings, PRETRAIN, "trainer.cpu_threads", [-1, 0]),
    (StagedSettings, PRETRAIN, "trainer.spike_factor", [-1, 1]),
    (StagedSettings, PRETRAIN, "trainer.spike_window", [-1, 0]),
    (StagedSettings, PRETRAIN, "trainer.save_total_limit", [-1]),
    (StagedSettings, PRETRAIN, "trainer.weight_decay", [-1, math.inf]),
    (StagedSettings, PRETRAIN, "evaluation.max_tokens", [-1, 0]),
    (StagedSettings, PRETRAIN, "evaluation.seq_length", [-1, 0]),
    (StagedSettings, PRETRAIN, "evaluation.baseline_tokens", [-1, 0]),
    (StagedSettings, PRETRAIN, "evaluation.position_edges", [[-1, 5]]),
    (StagedSettings, {**PRETRAIN, "associations": {"sample": True}}, "associations.sample_size", [-1, 0]),
    (QPISettings, QPI, "sources.shop.pairs.max_query_tokens", [-1, 0]),
    (QPISettings, QPI, "sources.shop.pairs.max_tokens", [-1, 0]),
    (QPISettings, QPI, "early_stopping.min_gain", [-1, math.inf]),
    (TokenizerRun, {"texts": [SHOP]}, "min_frequency", [-1]),
    (TokenizerRun, {"texts": [SHOP]}, "vocab_size", [0, 320, 1000]),
    (TokenizerRun, {"texts": [SHOP]}, "temperature", [-1, math.inf]),
    (TokenizerRun, {"texts": [SHOP]}, "model_max_length", [-1, 0]),
    (TokenizerRun, {"texts": [SHOP]}, "held_out_documents", [-1, 0]),
    (TokenizerRun, {"texts": [SHOP]}, "texts.0.limit", [-1, 0]),
    (TokenizerRun, {"texts": [SHOP]}, "atoms.max_brands", [-1]),
    (TokenizerRun, {"texts": [SHOP]}, "atoms.max_types", [-1]),
    (FinetuneSettings, {}, "seed", [-1, 2**32]),
    (FinetuneSettings, {}, "trainer.cpu_threads", [-1, 0]),
    (FinetuneSettings, {}, "trainer.max_steps", [-1, 0]),
    (FinetuneSettings, {}, "trainer.logging_steps", [-1, 0]),
    (FinetuneSettings, {}, "trainer.learning_rate", [0, math.inf]),
    (FinetuneSettings, {}, "trainer.epochs", [-1, 0, math.inf]),
    (FinetuneSettings, {}, "trainer.max_minutes", [0, math.inf]),
    (FinetuneSettings, {}, "trainer.final", [-1, math.inf]),
    (FinetuneSettings, {}, "loss.scale", [-1, 0, math.inf]),
    (FinetuneSettings, {}, "loss.symmetric", [-1]),
    (FinetuneSettings, {}, "validation.every_epochs", [0, math.inf]),
    (FinetuneSettings, {}, "validation.max_products", [-1, 0]),
    (FinetuneSettings, {}, "validation.max_queries", [-1, 0]),
    (FinetuneSettings, {}, "validation.patience", [-1, 0]),
    (FinetuneSettings, {}, "rows.hard", [-1, math.inf]),
    (FinetuneSettings, {}, "rows.random", [-1, math.inf]),
    (FinetuneSettings, {}, "data.sample_size", [-1, 0, 1]),
    (FinetuneSettings, {}, "data.limit", [-1, 0]),
    (FinetuneSettings, {"model": {"base": "bert"}}, "model.num_hidden_layers", [-1, 0]),
    (FinetuneSettings, {"model": {"base": "bert"}}, "model.truncate_dim", [-1, 0]),
    (FinetuneSettings, {}, "model.dropout", [-1, 2]),
    (FinetuneSettings, {}, "model.vocab_size", [0, 320, 1000]),
    (DistilSettings, DISTIL, "seed", [-1]),
    (DistilSettings, DISTIL, "block_size", [-1, 0]),
    (DistilSettings, DISTIL, "rows.made_up", [math.inf]),
    (RerankerSettings, RERANKER, "seed", [-1]),
    (RerankerSettings, RERANKER, "random", [-1, math.inf]),
    (RerankerSettings, RERANKER, "test_queries", [-1, 0]),
    (ChooseRun, {}, "max_queries", [-1, 0]),
    (ChooseRun, {}, "max_products", [-1, 0]),
    (ChooseRun, {}, "batch_size", [-1, 0]),
    (BuildPairsRun, PAIRS, "seed", [-1, 2**32]),
    (BuildPairsRun, PAIRS, "ratio", ["1:inf:1", "inf:1:1"]),
    (BuildPairsRun, PAIRS, "max_query_words", [-1, 0]),
    (BuildPairsRun, PAIRS, "audit.size", [-1]),
    (BuildPairsRun, PAIRS, "audit.least", [-1, 2]),
    (BuildPairsRun, PAIRS, "products.limit", [-1, 0]),
    (BuildPairsRun, PAIRS, "products.sample_size", [-1, 0]),
    (BuildIndexRun, {}, "k", [-1, 0]),
    (BuildIndexRun, {}, "products.limit", [-1, 0]),
    (BuildIndexRun, {}, "products.sample_size", [-1, 0]),
    (ExportOnnxRun, {}, "max_queries", [-1, 0]),
    (ExportOnnxRun, {}, "max_products", [-1, 0]),
    (ExportOnnxRun, {}, "latency.repeats", [-1, 0]),
    (PageSettings, {}, "port", [-1, 2**16]),
    (MineRun, MINED, "mining.seed", [-1]),
    (MineRun, MINED, "max_size", [-1, 0]),
    (MineRun, MINED, "texts.0.limit", [-1, 0]),
    (MineRun, MINED, "card.noun_phrase_texts", [-1]),
    (CurateSettings, CURATE, "select.seed", [-1]),
    (CurateSettings, CURATE, "select.confidence", [0, 1, 2]),
    (CurateSettings, CURATE, "audit.confidence", [0, 1]),
    (CurateSettings, CURATE, "sources.0.limit", [-1]),
    (CurateSettings, CURATE, "sources.0.sample_size", [-1]),
    (CurateSettings, CURATE, "distil.max_words", [-1, 0]),
    (CurateSettings, CURATE, "distil.strength", [0, math.inf]),
    (CurateSettings, CURATE, "filter.language.min_share", [-1, 2]),
    (CurateSettings, CURATE, "filter.min_line_words", [-1]),
    (CurateSettings, CURATE, "label.max_failed_share", [-1, 2]),
    (CurateSettings, CURATE, "label.endpoint.retries", [-1]),
    (CurateSettings, CURATE, "label.endpoint.timeout", [0, math.inf]),
    (CurateSettings, CURATE, "label.ready.sample_size", [-1]),
    (EvaluateSettings, EVALUATE, "seeds", [-1, 0]),
    (FinetuneTaskSettings, {}, "seed", [-1, 2**32]),
    (ReproductionSettings, REPRODUCTION, "seeds", [[0, -1], [2**32]]),
    (ReproductionSettings, REPRODUCTION, "min_steps", [-1, 0]),
    (ReproductionSettings, REPRODUCTION, "budget", [0, math.inf]),
    (ReproductionSettings, REPRODUCTION, "base.phases.0.batch_tokens", [0]),
    (ReproductionSettings, REPRODUCTION, "base.seed", [-1]),
    (ReproductionSettings, {**REPRODUCTION, "phrases": {"sources": ["shop"]}}, "phrases.max_size", [-1, 0]),
    (ReproductionSettings, {**REPRODUCTION, "lexicons": {"path": "x.csv"}}, "lexicons.max_types", [-1]),
]


def with_key(values, dotted, value):
    """A copy of plain values with one dotted key set."""
    first, _, rest = dotted.partition(".")
    if isinstance(values, list):
        return [with_key(item, rest, value) if str(at) == first else item for at, item in enumerate(values)]
    return {**values, first: with_key(values.get(first, {}), rest, value) if rest else value}


@pytest.mark.parametrize(
    ("cls", "least", "key", "value"),
    [(cls, least, key, value) for cls, least, key, values in NUMBERS for value in values],
    ids=lambda part: part.__name__ if isinstance(part, type) else "" if isinstance(part, dict) else str(part),
)
def test_a_number_out_of_range_is_one_line(cls, least, key, value):
    from_dict(cls, least)  # nothing else is wrong with it
    with pytest.raises(SettingsError) as refused:
        from_dict(cls, with_key(least, key, value), "run.yaml")
    said = str(refused.value)
    assert re.search(rf"\b{key.rpartition('.')[2]}\b", said), said
    assert "run.yaml" in said, said
    assert "\n" not in said, said


def test_the_line_names_the_flag_too(tmp_path):
    config = tmp_path / "tiny.yaml"
    config.write_text(
        "sources: {shop: {sample: shop_text}}\nphases: [{name: one, mixture: {shop: 1}, max_tokens: 1000}]\n"
    )
    with pytest.raises(SettingsError) as refused:
        load_settings(StagedSettings, config, [("micro_batch_tokens", "0")])
    said = str(refused.value)
    assert "micro_batch_tokens must be at least 1; got 0" in said
    assert "command line --micro_batch_tokens" in said
