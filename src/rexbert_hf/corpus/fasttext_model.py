"""The one adapter around the module `fasttext`: train, score, save, load and push a classifier of documents.

Several distributions install a module of that name; lists of texts are the form of `predict` that works on all of
them with NumPy 2. A saved classifier carries its normaliser, so what is scored is treated as what was trained on.

One decision worth knowing: the table holds one number a row (`fasttext_file`, `fasttext_train`), so 200,000 buckets are
0.8 MB: small enough for the cache of a core, and for nobody to miss quantising.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rexbert_hf.hub import merge_card, resolve
from rexbert_hf.hub.manifest_names import stays_inside
from rexbert_hf.hub.run_file import write_whole

from ..hub.left_over import temporary_folder
from .classifier_hub import push_classifier
from .fasttext_file import FastTextFile, predict_lines, read_layout
from .fasttext_train import IN_DOMAIN, PREFIX, FastTextOptions, fasttext_module, train_model
from .normalise import Normaliser, normalise_texts
from .stages import write_json

METADATA = "classifier.json"
_FORMAT = 1
_BATCH = 512
"""Texts that are normalised and scored at a time."""
_FIRST = 8
"""A text's first words, among which nearly always one is known: the others are then not even parted."""


@dataclass
class FastTextClassifier:
    """Says how probable it is that a text belongs to the domain.

    Attributes:
        file: layout of the model's file.
        normaliser: what texts go through first.
        in_domain: labels of the model (without prefix) that count as in-domain.
        threshold: texts with at least this probability are kept.
        facts: how it was made and what it reached, as plain values: goes into the metadata and onto the card.
        labels: all labels of the model.

    Raises:
        ValueError: if a label of `in_domain` is not one of the model's.

    Example:
        >>> texts = ["add to basket, free delivery", "the war ended that year"] * 20
        >>> options = FastTextOptions(min_count=1, buckets=1000)
        >>> classifier = FastTextClassifier.train(texts, ["shop", "other"] * 20, ["shop"], options=options)
        >>> classifier.scores(["free basket", "that war", ""]).round().tolist()
        [1.0, 0.0, 0.0]
    """

    file: FastTextFile
    normaliser: Normaliser = field(default_factory=Normaliser)
    in_domain: tuple[str, ...] = (IN_DOMAIN,)
    threshold: float = 0.5
    facts: dict[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = field(init=False)
    _model: Any = field(init=False, repr=False, default=None)
    _temporary: tempfile.TemporaryDirectory[str] | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        known = [label.removeprefix(PREFIX) for label in self.file.labels]
        if missing := [label for label in self.in_domain if label not in known] or (not self.in_domain and ["(none)"]):
            raise ValueError(f"{self.file.path} has no label {', '.join(missing)}; its labels are {', '.join(known)}")
        self.labels = tuple(known)

    def __getstate__(self) -> dict[str, Any]:
        # fastText's object does not pickle; a temporary folder belongs to the process that made it.
        return {**self.__dict__, "_model": None, "_temporary": None}

    @property
    def fingerprint(self) -> str:
        """A short text that changes with the model, its normaliser, its labels or its threshold."""
        parts = [_digest(self.file.path), self.normaliser.as_dict(), self.in_domain, self.threshold]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    # Making

    @classmethod
    def train(
        cls,
        texts: Sequence[str],
        labels: Sequence[str],
        in_domain: Sequence[str],
        normaliser: Normaliser | None = None,
        options: FastTextOptions | None = None,
        weights: Sequence[float] | np.ndarray | None = None,
    ) -> FastTextClassifier:
        """Train a classifier that tells some labels from all others; see `fasttext_train`.

        Args:
            texts: documents, as they are.
            labels: one for each.
            in_domain: the labels that count as in-domain.
            normaliser: what texts go through, here and whenever they are scored.
            options: of training.
            weights: of the texts; equal ones if None.

        Raises:
            ImportError: without scikit-learn.
            ValueError: if lengths differ, all labels are on one side, or no text has a word.
        """
        if len(texts) != len(labels):
            raise ValueError(f"{len(texts)} texts with {len(labels)} labels: one for each is needed")
        inside = [label in set(in_domain) for label in labels]
        if all(inside) or not any(inside):
            found = ", ".join(sorted(set(labels))) or "none"
            raise ValueError(f"both sides are needed, in domain ({', '.join(in_domain)}) and out; labels: {found}")
        normaliser, options = normaliser or Normaliser(), options or FastTextOptions()
        folder = temporary_folder()
        path = Path(folder.name) / "model.bin"
        train_model(texts, inside, normaliser, options, path, weights)
        classifier = cls(read_layout(path), normaliser, facts={"options": asdict(options)})
        classifier._temporary = folder
        return classifier

    @classmethod
    def from_file(
        cls, path: str | Path, in_domain: Sequence[str], normaliser: Normaliser | None = None, threshold: float = 0.5
    ) -> FastTextClassifier:
        """Use any supervised fastText model, .bin or .ftz.

        Args:
            path: the model.
            in_domain: its labels that count, without `__label__`.
            normaliser: how its training text was treated; if it was treated otherwise, scores are worth less.
            threshold: texts with at least this probability are kept.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is not a fastText model, or lacks a label.
        """
        return cls(read_layout(path), normaliser or Normaliser(), tuple(in_domain), threshold)

    # Scoring

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Probability that each text is in the domain; 0 for texts without a known word, as in another script.

        A model with vectors of parts of words knows something of every word: there only texts without words score 0.

        Args:
            texts: documents, as they are.

        Returns:
            float32 `[N]`.

        Raises:
            ValueError: if the model's matrices hold what is no number.
        """
        if self._model is None:
            self._model = fasttext_module().load_model(str(self.file.path))
        result = np.empty(len(texts), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = normalise_texts(texts[start : start + _BATCH], self.normaliser)
            result[start : start + len(batch)] = self._predict(batch)
        return result

    def keeps(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text reaches the threshold, bool `[N]`."""
        return self.scores(texts) >= np.float32(self.threshold)

    def _predict(self, lines: list[str]) -> np.ndarray:
        wanted = {PREFIX + label for label in self.in_domain}
        binary = len(self.labels) == 2 and len(wanted) == 1 and self.file.loss == "softmax"
        # The likelier of two labels tells both probabilities.
        found, values = predict_lines(self._model, self.file.path, lines, 1 if binary else len(self.labels))
        if binary and all(map(len, found)):
            likely = np.concatenate(values)
            inside = np.fromiter((labels[0] in wanted for labels in found), dtype=bool, count=len(lines))
            scores = np.where(inside, likely, 1.0 - likely)
        else:
            scores = np.zeros(len(lines), dtype=np.float32)
            for i, (labels, probabilities) in enumerate(zip(found, values, strict=True)):
                scores[i] = sum(p for label, p in zip(labels, probabilities, strict=True) if label in wanted)
        # fastText adds 1e-5 to every probability.
        scores = np.clip(scores, 0.0, 1.0)
        # What is left of a text of unknown words is fastText's end of text, whose weight says nothing of this text.
        scores[[not self._says_something(line) for line in lines]] = 0.0
        return scores.astype(np.float32)

    def _says_something(self, line: str) -> bool:
        if self.file.longest:
            return bool(line) and not line.isspace()
        # A text in another script repeats its words; a set of the vocabulary would take 100 bytes a word and process.
        first = line.split(None, _FIRST)[:_FIRST]
        return any(map(self._is_known, first)) or any(map(self._is_known, set(line.split())))

    def _is_known(self, word: str) -> bool:
        number: int = self._model.get_word_id(word)
        return 0 <= number < self.file.words  # labels are numbered behind the words

    # Storage

    def save(self, directory: str | Path, card: str | None = None) -> Path:
        """Write the model under a name made of its content, and `classifier.json`, which is written last.

        datatrove copies a model once for each path and never looks again: another model needs another name.

        Args:
            directory: made if needed; an older classifier there is replaced.
            card: a README, merged with the one that lies there.

        Returns:
            The model's file.

        Raises:
            OSError: if it cannot be written.
        """
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        digest = _digest(self.file.path)
        target = folder / f"model-{digest[:16]}{self.file.path.suffix or '.bin'}"
        if not (target.is_file() and _digest(target) == digest):
            staged = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                shutil.copyfile(self.file.path, staged)
                os.replace(staged, target)
            finally:
                staged.unlink(missing_ok=True)
        write_json(folder / METADATA, self._metadata(target.name, digest))
        for old in folder.glob("model-*"):
            if old != target:
                old.unlink()
        if card is not None:
            readme = folder / "README.md"
            there = readme.read_text(encoding="utf-8") if readme.is_file() else None
            write_whole(readme, merge_card(there, card).encode())
        return target

    def _metadata(self, name: str, digest: str) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "file": name,
            "sha256": digest,
            "labels": list(self.labels),
            "in_domain": list(self.in_domain),
            "threshold": self.threshold,
            "normaliser": self.normaliser.as_dict(),
            "facts": self.facts,
        }

    @classmethod
    def load(
        cls,
        directory_or_repo: str | Path,
        revision: str | None = None,
        *,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> FastTextClassifier:
        """Read what `save` wrote or `push_to_hub` pushed.

        Args:
            directory_or_repo: a folder, or a model on the Hub.
            revision: of the repository.
            token: a read token; by default the one of this machine.
            endpoint: another Hub's address.

        Raises:
            FileNotFoundError: if there is no such folder or repository, or a file is missing in it.
            ValueError: if the metadata or the model is not what `save` wrote.
        """
        folder = resolve(directory_or_repo, revision, [METADATA, "model-*"], token=token, endpoint=endpoint)
        about = folder / METADATA
        if not about.is_file():
            raise FileNotFoundError(f"{folder} has no {METADATA}: it holds no classifier; run the distil stage")
        try:
            metadata = json.loads(about.read_text(encoding="utf-8"))
            if metadata["format"] > _FORMAT:
                raise ValueError(f"format {metadata['format']}, at most {_FORMAT} is known: made by a later version")
            if not stays_inside(metadata["file"]):
                raise ValueError(
                    f"it names {metadata['file']!r:.200}, which is no file of the folder: download it again"
                )
            path, normaliser = folder / metadata["file"], Normaliser.from_dict(metadata["normaliser"])
            if path.is_file() and _digest(path) != metadata["sha256"]:
                raise ValueError(f"{path.name} is not the file that was saved: copy or download it again")
            labels, threshold = tuple(metadata["in_domain"]), float(metadata["threshold"])
            if not all(isinstance(label, str) for label in labels):
                raise ValueError("in_domain is no list of labels: copy or download it again")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            told = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{about}: {told}") from None
        return cls(read_layout(path), normaliser, labels, threshold, metadata.get("facts", {}))

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        revision: str | None = None,
        token: str | None = None,
        endpoint: str | None = None,
        **card: Any,
    ) -> str:
        """Push model, metadata and card in one commit.

        Args:
            repo_id: "user/name"; made when missing.
            private: whether a new repository is private.
            revision: the branch to push to.
            token: a write token; by default the one of this machine. Never logged, never written.
            endpoint: another Hub's address.
            card: further fields of the card, see `classifier_card`.

        Returns:
            The repository's address.

        Raises:
            PermissionError: when the token may not write there.
            ConnectionError: when the Hub stays unreachable.
        """
        where = {"token": token, "endpoint": endpoint}
        return push_classifier(self, repo_id, private=private, revision=revision, **where, **card)


def _digest(path: Path) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
