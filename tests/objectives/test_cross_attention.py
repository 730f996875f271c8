"""Cross attention between words, its heat map, and the recipe that draws it."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from rexbert_hf.hub.heat_map import HeatMap, heat_maps
from rexbert_hf.models import RexBertConfig, RexBertForMaskedLM
from rexbert_hf.objectives.cross_attention import cross_attention

RECIPE = Path(__file__).parents[2] / "recipes" / "plot_attention.py"
PIECES = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]", "steel", "chop", "##per", "onion", "dice", "##r"]


def tokenizer():
    """WordPiece, so that words are of several tokens."""
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "cls", "sep", "mask", "unk")}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **names)


def model(normalize=False, kind="rexbert"):
    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "pad_token_id": 0}
    if kind == "bert":
        return BertForMaskedLM(BertConfig(**shape, intermediate_size=24)).eval()
    return RexBertForMaskedLM(RexBertConfig(**shape, intermediate_size=24, npr_normalize=normalize)).eval()


@pytest.mark.parametrize("kind", ["rexbert", "bert"])
@pytest.mark.parametrize("normalize", [False, True])
def test_words_attend_as_their_tokens_do(kind, normalize):
    """Against softmaxes written out token by token: sums over the other word's tokens, means over the own ones."""
    encoder, texts = model(kind=kind), ("steel chopper", "dicer onion chop")
    groups = ([[0], [1, 2]], [[0, 1], [2], [3]])  # tokens of each word, special ones not counted
    found = cross_attention(encoder, tokenizer(), *texts, normalize=normalize)
    assert found.left == ["steel", "chopper"]
    assert found.right == ["dicer", "onion", "chop"]
    with torch.no_grad():
        states = [
            encoder(**tokenizer()(text, return_tensors="pt", return_token_type_ids=False), output_hidden_states=True)
            .hidden_states[-1][0, 1:-1]
            .double()
            for text in texts
        ]
    scale = 16**-0.5 if normalize else 1.0
    for matrix, (own, other), (mine, theirs) in (
        (found.alpha, states, groups),
        (found.beta, states[::-1], groups[::-1]),
    ):
        for i, tokens in enumerate(mine):
            weights = torch.stack([(scale * own[t] @ other.T).softmax(0) for t in tokens]).mean(0)
            for j, columns in enumerate(theirs):
                assert matrix[i, j] == pytest.approx(float(weights[columns].sum()), abs=1e-5)
    assert np.allclose(found.alpha.sum(axis=1), 1)
    assert np.allclose(found.beta.sum(axis=1), 1)
    best = found.pairs(2)
    both = (found.alpha + found.beta.T) / 2
    assert best[0][2] == pytest.approx(both.max())
    assert best[0][2] >= best[1][2]


def test_the_default_is_how_the_model_was_trained():
    raw, scaled = (cross_attention(model(flag), tokenizer(), "steel onion", "onion dicer") for flag in (False, True))
    assert not np.allclose(raw.alpha, scaled.alpha)
    assert np.allclose(
        scaled.alpha, cross_attention(model(False), tokenizer(), "steel onion", "onion dicer", normalize=True).alpha
    )


def test_a_text_without_words_is_an_error():
    with pytest.raises(ValueError, match="the text '  ' has no word"):
        cross_attention(model(), tokenizer(), "steel", "  ")


def test_the_strongest_of_each_row_is_the_darkest(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    values = np.array([[0.1, 0.8, 0.1], [0.5, 0.2, 0.3]])
    path = heat_maps([HeatMap(values, ["a", "b"], ["x", "y", "z"], "left")] * 2, tmp_path / "deep" / "map.png", "both")
    image = pyplot.imread(path)
    assert image.shape[2] >= 3
    assert image.shape[1] > image.shape[0]
    dark = image[:, :, :3].sum(axis=2) < 1.0
    columns = np.flatnonzero(dark.any(axis=0))
    assert len(columns) > 10, "dark fields are there, in both panels"
    assert columns.min() < image.shape[1] / 2 < columns.max()


def test_the_recipe_draws_the_sample_and_given_texts(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    model(True).save_pretrained(tmp_path / "model")
    tokenizer().save_pretrained(tmp_path / "model")

    def run(*words):
        monkeypatch.setattr(sys, "argv", [str(RECIPE), *words])
        with pytest.raises(SystemExit) as caught:
            runpy.run_path(str(RECIPE), run_name="__main__")
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    target = tmp_path / "attention.png"
    status, out, err = run(str(tmp_path / "model"), "steel chopper", "onion dicer", "--plot", str(target))
    assert (status or 0) == 0, err
    assert out.splitlines()[-1] == str(target)
    assert " - " in out.splitlines()[0]
    assert target.read_bytes().startswith(b"\x89PNG")
    status, out, _ = run(str(tmp_path / "model"), "--plot", str(tmp_path / "sample.png"))
    assert (status or 0) == 0
    assert (tmp_path / "sample.png").exists()
    status, _, err = run(str(tmp_path / "model"), "one text")
    assert status != 0
    assert "give two product texts or none; got 1" in err
    status, _, err = run(str(tmp_path / "none"))
    assert status != 0
    assert "Traceback" not in err
