"""How a phase trains neighbour product reconstruction beside masked language modelling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rexbert_hf.settings.ranges import check_above_zero


@dataclass
class NeighborConfig:
    """Settings of the objective "npr" in a phase.

    E-BERT's equation 8 encodes contents as they are, while its joint training feeds pairs to both losses: "clean"
    follows the equation with encodings of NPR's own, "masked" reads the joint training as one encoding for both.

    Attributes:
        weight: of the reconstruction loss beside the masked-LM loss.
        margin: of the triplet loss (equation 12).
        normalize: divide distances by length and width, and attention scores by the root of the width. The paper does
            neither: its distances are in the thousands, so its margin of 1 and its weight of 1 mean next to nothing.
        contents: "masked": the rows of a step are the products, neighbours and unrelated products are further masked
            rows, and each encoding serves both losses; "clean": products, neighbours and unrelated products are encoded
            once more, unmasked.
        negatives: "uniform" draws an unrelated product uniformly, as the paper does; "degree" as often as products are
            neighbours, so that being popular tells nothing; "length" among those of about the neighbour's length,
            for the distance of equation 11 grows with length; "batch" among the other contents of the micro-batch,
            which costs no encoding.
        token_share: share of a micro-batch's tokens for encodings beyond the phase's own rows; None: what a triplet for
            each row takes when all contents have equal length.
    """

    weight: float = 1.0
    margin: float = 1.0
    normalize: bool = False
    contents: Literal["masked", "clean"] = "masked"
    negatives: Literal["uniform", "degree", "batch", "length"] = "uniform"
    token_share: float | None = None

    def __post_init__(self) -> None:
        check_above_zero(self, "weight", "margin")
        if self.token_share is not None and not 0 < self.token_share < 1:
            raise ValueError(f"token_share must lie between 0 and 1; got {self.token_share}")

    @property
    def row_share(self) -> float:
        """Share of a micro-batch's tokens that are rows of the phase's mixture.

        Example:
            >>> NeighborConfig(negatives="batch").row_share, NeighborConfig(contents="clean").row_share
            (0.5, 0.25)
        """
        if self.token_share is not None:
            return 1 - self.token_share
        further = (1 if self.negatives == "batch" else 2) + (1 if self.contents == "clean" else 0)
        return 1 / (1 + further)
