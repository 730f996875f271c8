"""Who judges search results that nobody judged."""

from __future__ import annotations

from dataclasses import dataclass

from rexbert_hf.corpus.llm_client import EndpointSettings


@dataclass
class JudgeSettings:
    """A judge for unjudged results: a cross-encoder, or a language model behind an endpoint.

    Attributes:
        cross_encoder: folder or Hub name; its score of a pair, 0 to 1, becomes the nearest label of E, S, C, I.
        endpoint: OpenAI-compatible endpoint; it names one of the labels E, S, C, I.
        depth: results of each query that get a grade.
        max_queries: judge the results of so many queries at most, drawn, the same ones in every run; None for all.
    """

    cross_encoder: str | None = None
    endpoint: EndpointSettings | None = None
    depth: int = 10
    max_queries: int | None = None

    def __post_init__(self) -> None:
        if (self.cross_encoder is None) == (self.endpoint is None):
            raise ValueError("judge needs either cross_encoder or endpoint")
        if self.depth < 1:
            raise ValueError(f"judge.depth must be at least 1; got {self.depth}")
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"judge.max_queries must be at least 1; got {self.max_queries}")
