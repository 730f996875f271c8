"""What a search run measures and what its folder holds are one model: in float32, and as wide as it was cut."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from search_cases import QUERIES, TEXTS, tiny_data, tiny_model
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from test_finetune_search import FROM_LAYERS, ROOT, distil_settings, reranker_of, settings_of
from transformers import BertConfig, BertModel

from rexbert_hf.retrieval.training import finetune as finetune_module
from rexbert_hf.retrieval.training import reranker as reranker_module
from rexbert_hf.retrieval.training.distil import distil_search
from rexbert_hf.retrieval.training.embedding_blocks import cached_loss
from rexbert_hf.retrieval.training.evaluator import validation_queries
from rexbert_hf.retrieval.training.finetune import finetune_search
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder
from rexbert_hf.retrieval.training.reranker import finetune_reranker
from rexbert_hf.retrieval.training.search_data import SearchDataSettings

SHORT = {"trainer__max_steps": "2", "trainer__bf16": "true"}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run in bfloat16, and the vectors that its test figures stand on."""
    output, seen = tmp_path_factory.mktemp("teacher"), {}
    stock = finetune_module._test

    def test(settings, data, model, grid):
        seen["wrapped"], seen["vectors"] = "forward" in vars(model), model.encode(TEXTS)
        return stock(settings, data, model, grid)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune_module, "_test", test)
        finetune_search(settings_of(output, **SHORT))
    return output, seen


def test_test_figures_of_a_run_in_bfloat16_are_those_of_the_model_that_is_served(teacher):
    output, seen = teacher
    assert not seen["wrapped"]
    np.testing.assert_allclose(seen["vectors"], SentenceTransformer(str(output)).encode(TEXTS), atol=1e-6)


def test_a_teacher_is_measured_in_float32(teacher, tmp_path):
    more = {**SHORT, "cache_dir": str(tmp_path / "cache"), "validation__test": "false"}
    settings = distil_settings(tmp_path / "run", teacher[0], **more)
    distil_search(settings)
    (cached,) = (tmp_path / "cache").glob("teacher-*/products.npy")
    model = SentenceTransformer(str(teacher[0]))
    texts = finetune_module.load_search_data(settings.data).texts
    np.testing.assert_allclose(np.load(cached), model.encode_document(texts, normalize_embeddings=True), atol=1e-6)


def test_a_reranker_is_measured_in_float32(teacher, tmp_path, monkeypatch):
    wrapped = []
    stock = reranker_module.judged_order
    monkeypatch.setattr(
        reranker_module,
        "judged_order",
        lambda model, *rest: wrapped.append("forward" in vars(model)) or stock(model, *rest),
    )
    finetune_reranker(reranker_of(tmp_path, teacher[0], **SHORT))
    assert wrapped == [False, False]


def test_a_reranker_is_measured_on_queries_that_are_drawn(tmp_path):
    """Files are often sorted."""

    class Asked:
        def predict(self, pairs, **options):
            asked.append({query for query, _ in pairs})
            return np.zeros(len(pairs))

    data, asked = tiny_data(splits=(2, 2, 2, 2)), []
    for count in range(1, 4):
        reranker_module.judged_order(Asked(), data, reranker_of(tmp_path, tmp_path, test_queries=str(count)))
        assert asked[-1] == {data.queries[i] for i in validation_queries(data, count, 2)}
    assert any(found != set(data.queries[: len(found)]) for found in asked), "not the first ones"


def test_the_gradient_cache_embeds_again_in_the_type_of_the_first_pass():
    """Autocast to float16 is over when gradients are asked for; without a word the second pass was in bfloat16."""
    model, types = tiny_model(preset="dssm", overrides={"dimensions": 32}), []
    columns = [model.preprocess(texts) for texts in (QUERIES, TEXTS[:4])]
    model.register_forward_hook(lambda *_: types.append(torch.get_autocast_dtype("cpu")))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = cached_loss(model, columns, 8, lambda vectors: (vectors[0] * vectors[1]).sum())
    loss.backward()
    assert types == [torch.float16] * 4


@pytest.fixture(scope="module", params=["own", "stock"])
def cut(request, tmp_path_factory):
    """A bi-encoder cut to 16 dimensions, in a folder, and the weight of its last norm."""
    model = tiny_model()
    if request.param == "stock":
        folder = str(tmp_path_factory.mktemp("bert"))
        small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        BertModel(BertConfig(vocab_size=len(model.tokenizer), **small)).save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        model = SentenceTransformer(modules=[Transformer(folder), Pooling(32, "mean")])
    folder = tmp_path_factory.mktemp("cut")
    cut_biencoder(model, 1, 16).save_pretrained(str(folder), create_model_card=False)
    return folder


def last_norm(folder):
    model = SentenceTransformer(str(folder))
    assert model.truncate_dim == 16
    encoder = model[0].auto_model
    return (
        encoder.final_norm.weight
        if hasattr(encoder, "final_norm")
        else encoder.encoder.layer[-1].output.LayerNorm.weight
    )


def fine_tune(output, cut):
    more = {"trainer__max_steps": "2", "model__base": str(cut), "trainer__learning_rate": "0.01"}
    finetune_search(settings_of(output, **more, validation__test="false", model__overrides="{}"))


def distil(output, cut):
    more = {**FROM_LAYERS, "teacher_layers": "[0]", "trainer__learning_rate": "0.01", "student__dropout": "0.1"}
    distil_search(distil_settings(output, cut, **more))


@pytest.mark.parametrize("train", [fine_tune, distil])
def test_what_was_cut_is_trained_in_its_dimensions(cut, tmp_path, train):
    train(tmp_path, cut)
    before, after = last_norm(cut), last_norm(tmp_path)
    assert not torch.equal(before[:16], after[:16])
    # Weight decay leaves norms alone, and no gradient reaches the others.
    assert torch.equal(before[16:], after[16:])


def test_cosent_does_not_go_with_a_cut_base(cut, tmp_path):
    with pytest.raises(ValueError, match=r"the base is cut to 16 dimensions, and loss\.name cosent trains all"):
        finetune_search(settings_of(tmp_path, loss__name="cosent", model__base=str(cut)))


def test_validation_queries_are_drawn_and_not_the_first_ones():
    data = tiny_data(splits=(1, 1, 1, 1))
    assert validation_queries(data, None).tolist() == validation_queries(data, 9).tolist() == [0, 1, 2, 3]
    drawn = validation_queries(data, 2)
    assert drawn.tolist() == sorted(np.random.default_rng(0).permutation(4)[:2].tolist())
    assert len(validation_queries(data, None, split=2)) == 0


def test_a_recipe_prints_no_loss_where_none_was_logged(capsys, tmp_path):
    report = runpy.run_path(str(ROOT / "recipes" / "distil_search.py"))["report"]
    report({"first_loss": None, "last_loss": None, "pairs": 3}, "out")
    assert capsys.readouterr().out == "model, card and run.json in out\n"


def test_a_distillation_prints_judged_shares_and_condensed_lists(capsys):
    report = runpy.run_path(str(ROOT / "recipes" / "distil_search.py"))["report"]
    names = ("recall@10", "recall@100", "ndcg@10")
    test = dict.fromkeys(names, 0.5) | {"judged@10": 0.125, "judged@100": 0.0625}
    test |= {f"condensed_{name}": 0.75 for name in names}
    results = {"first_loss": None, "test": test, "teacher_test": {**test, "recall@100": 0.625}, "ndcg_gain": "2^rel-1"}
    report({**results, "kept_recall@100": 0.8}, "out")
    said = "recall@10 0.5000 (judged@10 0.1250, condensed 0.7500), recall@100 {} (judged@100 0.0625, condensed 0.7500)"
    student, teacher, kept, *_ = capsys.readouterr().out.splitlines()
    assert student.startswith("test, student: " + said.format("0.5000"))
    assert teacher.startswith("test, teacher: " + said.format("0.6250"))
    assert student.endswith("ndcg@10[2^rel-1] 0.5000 (judged@10 0.1250, condensed 0.7500)")
    assert kept.startswith("the student keeps 80.0%")


def test_recipes_find_data_beside_themselves_from_any_folder(tmp_path, monkeypatch):
    (tmp_path / "repository" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for given, found in (("data", tmp_path / "repository" / "data"), ("absent", "absent"), (None, None)):
        settings = SearchDataSettings(data_dir=given)
        settings.look_under(tmp_path / "repository")
        assert settings.data_dir == (found if found is None else str(found))
    Path("data").mkdir()
    settings = SearchDataSettings(data_dir="data")
    settings.look_under(tmp_path / "repository")
    assert settings.data_dir == "data"
