"""Classifiers on the Hub: the card, and a push of model, metadata and card in one commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import ModelCardData

from rexbert_hf.hub.push_files import push_files
from rexbert_hf.hub.readme import BEGIN, END

from ..hub.left_over import temporary_folder
from .normalise import Normaliser

_MEASURES = ("precision", "recall", "f1")


class Pushable(Protocol):
    """What is asked of a classifier here, so that the module of classifiers can import this one.

    Attributes:
        facts: what the distil stage wrote of it.
        threshold: from which documents are kept.
        normaliser: of texts.
    """

    facts: dict[str, Any]
    threshold: float
    normaliser: Normaliser

    def save(self, directory: str | Path) -> Any:
        """Write the model and its metadata into a folder."""


_LIMITS = """Meant to tell which documents of a crawl belong to the domain.

- It repeats the errors of those who labelled its training documents, and was tested on documents of the same kind only.
- Another threshold, another source or another language needs a test of its own."""
_NO_LICENCE = "Not stated: it follows from the texts, and whoever trained the classifier on them has to state it."


def classifier_card(
    classifier: Pushable,
    repo_id: str | None = None,
    *,
    license: str | None = None,
    language: str | Sequence[str] | None = None,
    sources: Sequence[str] = (),
    plot: str | None = None,
) -> str:
    """Render the card of a classifier: how to use it, what it reached and how it was made.

    Args:
        classifier: with the `facts` that the distil stage wrote.
        repo_id: what the copy-paste blocks load.
        license: of the model; never assumed.
        language: of the texts.
        sources: where the texts come from, a line each.
        plot: file name of the plot of precision and recall.
    """
    name = repo_id.rpartition("/")[2] if repo_id else "Domain classifier"
    given: dict[str, Any] = {"license": license, "language": language}
    data = ModelCardData(
        library_name="fasttext",
        pipeline_tag="text-classification",
        tags=["fasttext", "rexbert", "data-filtering"],
        **{key: value for key, value in given.items() if value},
    )
    parts = [f"---\n{data.to_yaml()}\n---", BEGIN, f"# {name}", _summary(classifier.facts)]
    parts += ["## How to use", _usage(classifier, repo_id or "path/to/this/folder")]
    if table := _figures(classifier.facts):
        parts += ["## What it reaches", table]
    if plot:
        parts.append(f"![Precision and recall by threshold]({plot})")
    parts += ["## How it was made", _making(classifier, sources), "## Intended use and limits", _LIMITS]
    parts += ["## Licence", f"{license}, as whoever trained it says." if license else _NO_LICENCE, END]
    return "\n\n".join(parts) + "\n"


def _summary(facts: Mapping[str, Any]) -> str:
    described = facts.get("description")
    about = f"\n\nThe domain: {' '.join(str(described).split())}" if described else ""
    return f"A fastText classifier that says how probable it is that a document belongs to a domain.{about}"


def _usage(classifier: Pushable, place: str) -> str:
    return (
        "```python\nfrom rexbert_hf.corpus import FastTextClassifier\n\n"
        f'classifier = FastTextClassifier.load("{place}")\n'
        'classifier.scores(["Add to basket. Free delivery."])\n```\n\n'
        f"The model file opens with `fasttext.load_model` too. Texts must then be normalised as in training: lower "
        f"case, signs as spaces, digits {'kept' if classifier.normaliser.digits == 'keep' else 'as 0'}, one line, the "
        f"first {classifier.normaliser.max_words:,} words."
    )


def _figures(facts: Mapping[str, Any]) -> str:
    test = facts.get("test") or {}
    if not all(name in test for name in _MEASURES):
        return ""
    rows = ["| | test | 95 % interval |", "| --- | --- | --- |"]
    for name in _MEASURES:
        low, high = test.get(f"{name}_interval") or ("", "")
        interval = f"{low:.3f} to {high:.3f}" if low != "" else ""
        rows.append(f"| {name} | {test[name]:.3f} | {interval} |")
    count, inside = test.get("documents", 0), test.get("positives", 0)
    told = f"On {count:,} documents that training did not see, {inside:,} of them in domain."
    return f"{told}\n\n" + "\n".join(rows)


def _making(classifier: Pushable, sources: Sequence[str]) -> str:
    facts = classifier.facts
    lines = [f"- Documents are kept from a probability of {classifier.threshold:.3f}."]
    if chosen := facts.get("chosen"):
        lines.append(f"- The threshold was chosen on development documents: {chosen}.")
    if counts := facts.get("documents"):
        lines.append("- Documents: " + ", ".join(f"{number:,} {name}" for name, number in counts.items()) + ".")
    if options := facts.get("options"):
        lines.append("- Training: " + ", ".join(f"{name} {value}" for name, value in options.items()) + ".")
    if labellers := facts.get("labellers"):
        lines.append(f"- Labels by {', '.join(labellers)}.")
    lines += [f"- Texts: {source}" for source in sources]
    lines.append("- Not measured: cost, energy and carbon.")
    return "\n".join(lines)


def push_classifier(
    classifier: Pushable,
    repo_id: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    token: str | None = None,
    endpoint: str | None = None,
    **card: Any,
) -> str:
    """Push model, metadata and card in one commit; models of earlier pushes go in the same one.

    Args:
        classifier: what to push.
        repo_id: "user/name"; made when missing.
        private: whether a new repository is private.
        revision: the branch to push to.
        token: a write token; by default the one of this machine. Never logged, never written.
        endpoint: another Hub's address.
        card: further fields of `classifier_card`.

    Returns:
        The repository's address.

    Raises:
        PermissionError: when the token may not write there.
        ConnectionError: when the Hub stays unreachable.
    """
    with temporary_folder() as folder:
        classifier.save(folder)
        return push_files(
            {path.name: path for path in Path(folder).iterdir()},
            repo_id,
            card=classifier_card(classifier, repo_id, **card),
            stale=("model-*",),
            token=token,
            private=private,
            commit_message="Push the classifier",
            endpoint=endpoint,
            revision=revision,
        )
