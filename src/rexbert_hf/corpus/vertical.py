"""A vertical: what the corpus shall hold, in one YAML. The pipeline knows nothing else about the domain.

The paper (RexBERT) names its pipeline a blueprint for other verticals, and has published neither prompt nor label
schema: those here are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..settings import load_settings


@dataclass(frozen=True)
class Example:
    """A text with its right label, shown to the language model before it is asked.

    Attributes:
        text: as it would stand on a page.
        label: one of the vertical's.
        reason: one sentence.
    """

    text: str
    label: str
    reason: str = ""


@dataclass(frozen=True)
class Vertical:
    r"""A domain description, a label schema and examples.

    Attributes:
        name: short, as "e-commerce".
        description: what belongs to the domain, in a few sentences; the language model reads it.
        labels: each label with its description. Every document gets exactly one.
        in_domain: the labels whose documents are wanted.
        fallback: the label of documents that no keyword speaks for.
        keywords: for the offline labeller: label -> {keyword: weight}. A keyword is a word or phrase in any case, or
            with "re:" before it a regular expression, which sees lower-cased text (`re:\d+ ?% off`).
        threshold: score that keywords must reach; see `KeywordLabeller`.
        examples: a few, of different labels.

    Raises:
        ValueError: if the parts do not fit each other.

    Example:
        >>> tiny = Vertical("food", "Recipes.", {"recipe": "a recipe", "other": "anything else"}, ["recipe"], "other")
        >>> tiny.is_in_domain("recipe"), tiny.is_in_domain("other")
        (True, False)
    """

    name: str
    description: str
    labels: dict[str, str]
    in_domain: list[str]
    fallback: str
    keywords: dict[str, dict[str, float]] = field(default_factory=dict)
    threshold: float = 1.0
    examples: list[Example] = field(default_factory=list)

    def __post_init__(self) -> None:
        named = [("in_domain", label) for label in self.in_domain] + [("fallback", self.fallback)]
        named += [("keywords", label) for label in self.keywords]
        named += [(f"examples.{i}.label", example.label) for i, example in enumerate(self.examples)]
        for place, label in named:
            if label not in self.labels:
                raise ValueError(f"{place}: '{label}' is not one of the labels {', '.join(self.labels)}")
        if not self.in_domain or set(self.in_domain) == set(self.labels):
            raise ValueError("in_domain names at least one of the labels, and not all of them")
        if self.threshold <= 0:
            raise ValueError(f"threshold is above 0, got {self.threshold}")

    @classmethod
    def load(cls, path: str | Path) -> Vertical:
        """Read a vertical from its YAML.

        Raises:
            SettingsError: if a key is unknown, missing or of the wrong kind; it names the line.
        """
        return load_settings(cls, Path(path))

    def is_in_domain(self, label: str) -> bool:
        """Whether documents with this label are wanted."""
        return label in self.in_domain
