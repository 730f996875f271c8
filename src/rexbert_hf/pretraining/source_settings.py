"""Where the text of a run comes from, in which languages, and which tokenizer reads it: part of a recipe's settings."""

from __future__ import annotations

from dataclasses import dataclass

from rexbert_hf.catalog.report import Tolerance
from rexbert_hf.catalog.sources import FileOptions
from rexbert_hf.data.languages import check_language
from rexbert_hf.pretraining.product_settings import PairSettings, ProductTextSettings
from rexbert_hf.settings.ranges import check_least

DETECT = "detect"
"""Value of `SourceSettings.language` that has the language of each document told from its text."""


@dataclass
class TokenizerSettings:
    """Which tokenizer is used: a given one, the checkpoint's, or a byte-level BPE trained on the sources.

    Attributes:
        path: folder or Hub id of any fast tokenizer; None takes the checkpoint's, or trains one.
        train: train one, also where a checkpoint brings its own: the model's vocabulary is then transferred.
        vocab_size: of a trained one, a multiple of 64.
        max_documents: documents of each source (and language) to train on, spread evenly over it.
        temperature: train it on so much of each language as its characters to this power (1: as they are; 0: all
            equal); None takes the sources one after the other, as they are.
    """

    path: str | None = None
    train: bool = False
    vocab_size: int = 50368
    max_documents: int = 100_000
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.train and self.path is not None:
            raise ValueError("train makes a tokenizer, path names one: drop one of them")
        check_least(self, temperature=0, max_documents=1, vocab_size=1)


@dataclass
class SourceSettings:
    """Where the text of one source comes from; exactly one of `sample`, `path` and `corpus`.

    Attributes:
        sample: a text of the built-in sample shop: general_text, shop_text, long_text or multilingual_text; with
            `columns` also one of its records, as products.
        sample_size: products of the sample shop.
        path: file, folder, glob, a list of them, or a `datasets` name on the Hub.
        corpus: a curated corpus: a folder that recipes/curate.py wrote, its name on the Hub, or sample.
        domains: of the corpus; all if none are named.
        columns: {"text": their column, a list of columns to join, or a template such as "{title} . {description}"}; and
            "product_id", where associations name the products of this source; and "language", where rows say theirs.
        language: of all its documents, a code as en; or detect, which tells each document's from its text.
        format: of the files, where the name does not say it.
        encoding: of text files.
        unescape: texts hold characters as escapes (a backslash with x and bytes, or u and a number): read them as such.
        max_bad_share: the share of a file's rows that may be bad (they are skipped) before the file is refused.
        split: of a Hub dataset.
        max_documents: read so many at most.
        join_words: join neighbouring documents until they have this many words (long documents for long contexts).
        evaluate: keep held-out documents of this source for evaluation; false drops them, since another source may hold
            out the same texts, from within joined documents too.
        products: the rows are products (`sample: products`, or columns named as their fields), joined to texts.
        pairs: the rows are query-product pairs, for masking.kind query_product; they are split by query.
    """

    sample: str | None = None
    sample_size: int | None = None
    path: str | list[str] | None = None
    corpus: str | None = None
    domains: list[str] | None = None
    columns: dict[str, str | list[str]] | None = None
    language: str | None = None
    format: str | None = None
    encoding: str = "utf-8"
    unescape: bool = False
    max_bad_share: float = 0.1
    split: str = "train"
    max_documents: int | None = None
    join_words: int | None = None
    evaluate: bool = True
    products: ProductTextSettings | None = None
    pairs: PairSettings | None = None

    def __post_init__(self) -> None:
        given = [name for name in ("path", "sample", "corpus") if getattr(self, name) is not None]
        if len(given) != 1:
            said = "has both '{}'".format("' and '".join(given)) if given else "has no text"
            raise ValueError(
                f"{said}: set --sources.NAME.path to a file, folder, glob or Hub dataset, .sample to a text of the"
                " sample shop, or .corpus to a curated corpus (one of them; docs/data.md says what can be read)"
            )
        if self.corpus is None and self.domains is not None:
            raise ValueError("domains belong to a corpus, which is not set")
        if self.corpus is not None and self.columns is not None:
            raise ValueError("a corpus has its own columns: drop 'columns', or read its files by 'path'")
        if self.products is not None and self.pairs is not None:
            raise ValueError("rows are products or pairs: set one of the two")
        if self.join_words is not None and (self.products is not None or self.pairs is not None):
            raise ValueError("join_words makes one document of several products: drop it")
        self._check_language()
        FileOptions(self.format, self.encoding)  # of these two it says what is wrong
        Tolerance(max_bad_share=self.max_bad_share)
        check_least(self, sample_size=2, max_documents=1, join_words=1)

    def _check_language(self) -> None:
        if self.language is None:
            if self.splits_languages and self.pairs is not None:
                raise ValueError("pairs are trained without regard to language: drop columns.language")
            return
        if "language" in (self.columns or {}):
            raise ValueError("language says it for all documents, columns.language for each: drop one of them")
        if self.language == DETECT and self.pairs is not None:
            raise ValueError("pairs are trained without regard to language: name one, or drop 'language'")
        if self.language != DETECT:
            check_language(self.language)

    @property
    def splits_languages(self) -> bool:
        """Whether its documents may be in several languages: it is then prepared, weighed and evaluated by language."""
        return self.language == DETECT or "language" in (self.columns or {})
