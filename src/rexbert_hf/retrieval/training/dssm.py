"""DSSM, the paper's baseline: one shared embedding table, batch norm, averaged tokens (section 3.1; Nigam et al. 2019).

A module of sentence-transformers, so that the same recipes train it, and saved as safetensors and JSON. In evaluation
batch norm is affine, so it can be folded into the table: a finished DSSM is sentence-transformers' own
`StaticEmbedding`, which loads everywhere without this package.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule, Router
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from rexbert_hf.hub import resolve


class DSSM(InputModule):
    """Average of batch-normalised token embeddings.

    Args:
        tokenizer: a tokenizer of its own, trained on queries and titles.
        dimensions: of the embedding; 256 in the paper.
        max_tokens: texts are cut there.

    Example:
        >>> from rexbert_hf.data.vocabulary import train_tokenizer
        >>> module = DSSM(train_tokenizer(["red mug", "blue plate"] * 2, 384), dimensions=8)
        >>> features = module.preprocess(["red mug", ""])
        >>> module(features)["sentence_embedding"].shape
        torch.Size([2, 8])
    """

    config_keys = ["dimensions", "max_tokens"]
    config_file_name = "dssm_config.json"
    save_in_root = True
    tokenizer: PreTrainedTokenizerBase

    def __init__(self, tokenizer: PreTrainedTokenizerBase, dimensions: int = 256, max_tokens: int = 64) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.dimensions, self.max_tokens = dimensions, max_tokens
        self.embedding = nn.Embedding(len(tokenizer), dimensions)
        nn.init.normal_(self.embedding.weight, std=dimensions**-0.5)
        self.norm = nn.BatchNorm1d(dimensions)

    def preprocess(self, inputs: Any, prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """Tokenise texts; a text without tokens gets one padding token, which counts.

        Args:
            inputs: texts.
            prompt: put before each.
            **kwargs: of other modules.
        """
        texts = [f"{prompt or ''}{text}" for text in inputs]
        features = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            add_special_tokens=False,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        ids, mask = features["input_ids"].long(), features["attention_mask"].long()
        if ids.shape[1] == 0:
            ids = torch.full((len(texts), 1), int(self.tokenizer.pad_token_id or 0))
            mask = torch.zeros_like(ids)
        mask[mask.sum(dim=1) == 0, 0] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Add `sentence_embedding` `[B, D]`.

        Args:
            features: with `input_ids` and `attention_mask`, both `[B, S]`.
            **kwargs: of other modules.
        """
        ids, mask = features["input_ids"], features["attention_mask"].bool()
        real = self.embedding(ids[mask])
        # One token has no variance to train on; it is normalised by the running statistics.
        training = self.norm.training and len(real) > 1
        real = self.norm(real) if training == self.norm.training else self._running(real)
        rows = torch.repeat_interleave(torch.arange(len(ids), device=ids.device), mask.sum(dim=1))
        total = real.new_zeros(len(ids), self.dimensions).index_add_(0, rows, real)
        return {**features, "sentence_embedding": total / mask.sum(dim=1, keepdim=True)}

    def _running(self, values: Tensor) -> Tensor:
        norm = self.norm
        return nn.functional.batch_norm(
            values, norm.running_mean, norm.running_var, norm.weight, norm.bias, False, 0.0, norm.eps
        )

    def get_embedding_dimension(self) -> int:
        """Dimensions of an embedding."""
        return self.dimensions

    @property
    def max_seq_length(self) -> int:
        """Tokens after which a text is cut."""
        return self.max_tokens

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write weights, configuration and tokenizer.

        Args:
            output_path: a folder.
            *args: ignored.
            safe_serialization: must stay true: nothing here writes pickles.
            **kwargs: ignored.
        """
        self.save_torch_weights(output_path, safe_serialization=True)
        self.save_config(output_path)
        self.tokenizer.save_pretrained(output_path)

    @torch.no_grad()
    def folded(self) -> StaticEmbedding:
        """The same embeddings from a table alone; an empty text has the zero vector there."""
        table = self._running(self.embedding.weight)
        tokenizer = copy.deepcopy(self.tokenizer.backend_tokenizer)
        tokenizer.enable_truncation(self.max_tokens)
        return StaticEmbedding(tokenizer, embedding_weights=table.clone())

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> DSSM:  # type: ignore[override]
        """Read what `save` wrote.

        Args:
            model_name_or_path: a folder or repository.
            subfolder: of it.
            **kwargs: of the Hub (`revision`, `token`, ...).
        """
        folder = resolve(model_name_or_path, revision=kwargs.get("revision")) / subfolder
        module = cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False), **cls.load_config(str(folder)))
        cls.load_torch_weights(str(folder), model=module)
        return module


def fold_dssm(model: SentenceTransformer) -> SentenceTransformer:
    """The model with every `DSSM` folded; itself where there is none.

    Args:
        model: a bi-encoder.
    """
    if not any(isinstance(module, DSSM) for module in model.modules()):
        return model
    modules: list[nn.Module] = []
    for module in model.children():
        if isinstance(module, Router):
            routes: dict[str, Any] = {}
            for name, route in module.sub_modules.items():
                routes[name] = [_folded(part) for part in route.children()]
            modules.append(Router.for_query_document(routes["query"], routes["document"]))
        else:
            modules.append(_folded(module))
    return SentenceTransformer(modules=modules, similarity_fn_name="cosine")


def _folded(module: nn.Module) -> nn.Module:
    return module.folded() if isinstance(module, DSSM) else module
