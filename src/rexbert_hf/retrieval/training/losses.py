"""Losses of bi-encoders as sentence-transformers modules: `Loss(model)(features, labels)`.

Labels say which query and product a row is, so that products that answer a query are never its negatives: other
positives of the same query, and the same product under another id (pains of sentence-transformers #2848, #3299).

The paper's three-part hinge loss and the usual in-batch softmax are here; CoSENT over the E/S/C/I grades is
sentence-transformers' own, fed with the grades of `judged_pairs.LABEL_GRADES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn

from rexbert_hf.metrics import Judgements
from rexbert_hf.objectives import three_part_hinge
from rexbert_hf.retrieval.training.embedding_blocks import Features, cached_loss, embed, rows_in

LossOf = Callable[[list[Tensor]], Tensor]
"""The loss of the embeddings of each column, `[B, D]` each."""


class KnownPositives:
    """Which product groups answer which query, or may: what a batch may not use as negatives.

    Query numbers from `num_queries` on are made-up queries of a product: query Q + p is answered by the group of p.

    Args:
        groups: group number of each product, `[P]`.
        judged: graded products of each query.
        relevant: pairs of this grade or above are positives.
        neither: query and product number of further pairs that are no negatives, `[N, 2]`.

    Example:
        >>> judged = Judgements.from_pairs([0, 0], [0, 2], [1.0, 0.0], 1)
        >>> known = KnownPositives(np.array([0, 0, 1]), judged, relevant=1.0)
        >>> known.matrix(torch.tensor([0, 3]), torch.tensor([0, 1, 2])).tolist()
        [[True, True, False], [False, False, True]]
    """

    def __init__(
        self, groups: np.ndarray, judged: Judgements, relevant: float, neither: np.ndarray | None = None
    ) -> None:
        self.num_queries = len(judged)
        self.width = int(groups.max(initial=0)) + 1
        self.groups = torch.from_numpy(np.asarray(groups, dtype=np.int64))
        rows = np.repeat(np.arange(len(judged)), np.diff(judged.offsets))
        kept = judged.grades >= relevant
        keys = rows[kept] * self.width + groups[judged.products[kept]]
        if neither is not None:
            keys = np.concatenate([keys, neither[:, 0] * self.width + groups[neither[:, 1]]])
        self.keys = torch.from_numpy(np.unique(keys))

    def matrix(self, queries: Tensor, products: Tensor) -> Tensor:
        """Whether product j answers query i, or may, bool `[B, C]`.

        Args:
            queries: numbers, `[B]`.
            products: numbers, `[C]`.
        """
        queries, products = queries.cpu(), products.cpu()
        groups = self.groups[products]
        real = queries < self.num_queries
        found = torch.zeros(len(queries), len(products), dtype=torch.bool)
        if len(self.keys):
            wanted = queries[real, None] * self.width + groups
            place = torch.searchsorted(self.keys, wanted).clamp_(max=len(self.keys) - 1)
            found[real] = self.keys[place] == wanted
        found[~real] = self.groups[queries[~real] - self.num_queries, None] == groups
        return found


class ThreePartHingeLoss(nn.Module):
    """The paper's loss (eq. 1) on rows of query, product, and label 1, 0 or -1.

    Args:
        model: the bi-encoder.
        positive: see `three_part_hinge`.
        hard_upper: likewise.
        hard_lower: likewise.
        random_upper: likewise.
        block_size: rows of a forward pass.
        cached: with gradient cache.

    Example:
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> features = [model.preprocess(texts) for texts in (["mug", "mug"], ["red mug", "plate"])]
        >>> ThreePartHingeLoss(model)(features, torch.tensor([1, -1])).ndim
        0
    """

    def __init__(
        self,
        model: SentenceTransformer,
        positive: float = 0.9,
        hard_upper: float = 0.55,
        hard_lower: float = 0.2,
        random_upper: float = 0.2,
        block_size: int = 64,
        cached: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.thresholds = {"positive": positive, "hard_upper": hard_upper}
        self.thresholds |= {"hard_lower": hard_lower, "random_upper": random_upper}
        self.block_size, self.cached = block_size, cached

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        """The mean loss.

        Args:
            sentence_features: of the queries and of the products.
            labels: 1, 0 or -1 of each row.
        """
        columns = list(sentence_features)
        return embedded_loss(self.model, columns, self.block_size, self.cached, self.objective(columns, labels))

    def objective(self, columns: Sequence[Features], labels: Tensor) -> LossOf:
        """What is left to compute once a batch is embedded.

        Args:
            columns: features of the queries and of the products.
            labels: 1, 0 or -1 of each row.
        """
        if len(columns) != 2:
            raise ValueError(f"the three-part hinge loss takes rows of query and product; got {len(columns)} columns")

        def loss_of(vectors: list[Tensor]) -> Tensor:
            return three_part_hinge(cosine(*vectors), labels.view(-1), **self.thresholds)

        return loss_of

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card shows."""
        return {**self.thresholds, "cached": self.cached}


class MaskedRankingLoss(nn.Module):
    """In-batch softmax (multiple negatives ranking) without false negatives.

    Row i holds a query, one of its products, and any number of hard negatives; `labels[i]` their numbers. Candidates
    are all products of the batch; what answers the query is none, but for its own product. (Products of earlier
    batches as they were embedded then, a usual way to more candidates, were tried: the model learns to move away from
    its own past, and recall fell below that of the model it started from.)

    Args:
        model: the bi-encoder.
        known: what answers a query; None masks nothing but equal numbers.
        scale: of the cosines.
        symmetric: weight of the other direction, where queries of the batch are candidates of a product.
        margin: a candidate whose cosine exceeds the positive's by more than this counts as a false negative; None
            keeps all.
        block_size: rows of a forward pass.
        cached: with gradient cache.

    Raises:
        ValueError: if the weights are out of range.

    Example:
        >>> from rexbert_hf.retrieval.training.biencoder import BiEncoderSettings, load_biencoder
        >>> model = load_biencoder(BiEncoderSettings(vocab_size=384), ["red mug", "blue plate"] * 2)
        >>> features = [model.preprocess(texts) for texts in (["mug", "plate"], ["red mug", "blue plate"])]
        >>> MaskedRankingLoss(model)(features, torch.tensor([[0, 0], [1, 1]])).ndim
        0
    """

    def __init__(
        self,
        model: SentenceTransformer,
        known: KnownPositives | None = None,
        scale: float = 20.0,
        symmetric: float = 0.0,
        margin: float | None = None,
        block_size: int = 64,
        cached: bool = False,
    ) -> None:
        super().__init__()
        if scale <= 0 or not 0 <= symmetric < 1:
            raise ValueError(f"scale must be above 0 and symmetric in [0, 1); got {scale} and {symmetric}")
        self.model, self.known = model, known
        self.scale, self.symmetric, self.margin = scale, symmetric, margin
        self.block_size, self.cached = block_size, cached

    def forward(self, sentence_features: Iterable[Features], labels: Tensor) -> Tensor:
        """The mean loss.

        Args:
            sentence_features: of the queries, of their products, and of hard negatives.
            labels: numbers of the query and of each product of a row, int64 `[B, columns]`.
        """
        columns = list(sentence_features)
        return embedded_loss(self.model, columns, self.block_size, self.cached, self.objective(columns, labels))

    def objective(self, columns: Sequence[Features], labels: Tensor) -> LossOf:
        """What is left to compute once a batch is embedded; who answers whom is looked up once.

        Args:
            columns: features of the queries, of their products, and of hard negatives.
            labels: int64 `[B, columns]`.
        """
        if len(columns) < 2 or labels.shape != (rows_in(columns[0]), len(columns)):
            raise ValueError(
                f"{len(columns)} columns need labels [rows, {len(columns)}], the numbers of the query and of each"
                f" product; got {tuple(labels.shape)}"
            )
        numbers = labels[:, 0], labels[:, 1:].T.reshape(-1)
        answers = self.answers(*numbers).to(labels.device)

        def loss_of(vectors: list[Tensor]) -> Tensor:
            unit = [nn.functional.normalize(vector, dim=-1) for vector in vectors]
            return self.of_embeddings(unit[0], torch.cat(unit[1:]), *numbers, answers)

        return loss_of

    def of_embeddings(
        self, queries: Tensor, products: Tensor, query_ids: Tensor, product_ids: Tensor, answers: Tensor | None = None
    ) -> Tensor:
        """The loss of normalised embeddings; row i's own product is candidate i.

        Args:
            queries: `[B, D]`.
            products: of the batch, first the positives: `[C, D]`, C a multiple of B.
            query_ids: `[B]`.
            product_ids: `[C]`.
            answers: what `self.answers` says of them, where it is known already.
        """
        rows = torch.arange(len(queries), device=queries.device)
        cosines = queries @ products.T
        found = self.answers(query_ids, product_ids) if answers is None else answers
        excluded = found.to(queries.device, copy=True)
        own = cosines[rows, rows].detach()
        if self.margin is not None:
            excluded |= cosines.detach() > own[:, None] + self.margin
        excluded[rows, rows] = False
        scores = (cosines * self.scale).masked_fill(excluded, -torch.inf)
        loss = nn.functional.cross_entropy(scores, rows)
        if self.symmetric:
            back = scores[:, : len(rows)].T
            loss = (1 - self.symmetric) * loss + self.symmetric * nn.functional.cross_entropy(back, rows)
        return loss

    def answers(self, queries: Tensor, products: Tensor) -> Tensor:
        """Which candidates answer which query, bool `[B, C]` on the CPU: what was judged so, and equal numbers.

        Args:
            queries: numbers, `[B]`.
            products: numbers, `[C]`, first the positives.
        """
        queries, products = queries.cpu(), products.cpu()
        own = products[: len(queries)]
        same_query = queries[:, None] == queries
        found = torch.zeros(len(queries), len(products), dtype=torch.bool)
        found[:, : len(queries)] = same_query
        groups = self.known.groups[products] if self.known is not None else products
        found |= (self.known.groups[own] if self.known is not None else own)[:, None] == groups
        return found | self.known.matrix(queries, products) if self.known is not None else found

    def get_config_dict(self) -> dict[str, Any]:
        """What the model card shows."""
        names = ("scale", "symmetric", "margin", "cached")
        return {name: getattr(self, name) for name in names}


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Cosine of each row of `left` with the same row of `right`, `[B]`.

    Args:
        left: `[B, D]`.
        right: `[B, D]`.

    Example:
        >>> cosine(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0]])).tolist()
        [1.0]
    """
    return (nn.functional.normalize(left, dim=-1) * nn.functional.normalize(right, dim=-1)).sum(dim=-1)


def embedded_loss(
    model: nn.Module, columns: Sequence[Features], block_size: int, cached: bool, loss_of: LossOf
) -> Tensor:
    """Embed the columns of a batch, at once or with the gradient cache, and take a loss of them.

    Args:
        model: gives `sentence_embedding`.
        columns: features of each column.
        block_size: texts of one forward pass.
        cached: with gradient cache.
        loss_of: of the columns' embeddings.
    """
    if cached:
        return cached_loss(model, columns, block_size, loss_of)
    return loss_of([embed(model, features, block_size) for features in columns])
