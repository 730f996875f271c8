"""`EcomNiverse`: a built corpus as a `datasets` builder: all of it, a domain, or the built-in sample; streaming or not.

`datasets` runs no loading scripts any more, so the builder lives in the package, and the Hub gets Parquet (`publish`).
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq

from ..catalog import load_sample, split_of
from ..catalog.sample.prose import DOMAINS
from .manifest import ALL, SAMPLE, Manifest, known_domains

FEATURES = datasets.Features({name: datasets.Value("string") for name in ("id", "text", "url", "domain")})
"""Columns of every configuration; files may have more."""
_ROWS = 500
_VERSION = datasets.Version(importlib.metadata.version("rexbert-hf"))


@dataclass
class CorpusConfig(datasets.BuilderConfig):
    """One configuration of a corpus: `default` (all domains), `sample`, or the name of a domain.

    Attributes:
        domains: some domains, in place of those that the name stands for.
    """

    domains: list[str] | None = None

    def create_config_id(self, config_kwargs: dict[str, Any], custom_features: Any = None) -> str:
        """Name of the configuration's cache: a corpus that was built anew in the same folder is another one."""
        made_of = {**config_kwargs, "built": Manifest.read(self.data_dir).facts["key"] if self.data_dir else "sample"}
        return str(super().create_config_id(made_of, custom_features))


class EcomNiverse(datasets.GeneratorBasedBuilder):
    """A corpus that `recipes/curate.py` built, of any vertical, or the sample web's shop pages.

    Args:
        config_name: `default`, `sample`, or a domain of the corpus.
        data_dir: folder of the corpus; not for `sample`.
        domains: some domains only.
        options: further arguments of a `datasets` builder, such as `cache_dir`.

    Raises:
        FileNotFoundError: if the folder holds no finished corpus.
        ValueError: if a domain is not in it.

    Example:
        >>> pages = EcomNiverse(config_name="sample", domains=["hobby"]).as_streaming_dataset(split="train")
        >>> next(iter(pages))["domain"]
        'hobby'
    """

    VERSION = _VERSION
    BUILDER_CONFIG_CLASS = CorpusConfig
    DEFAULT_CONFIG_NAME = ALL
    BUILDER_CONFIGS = [
        CorpusConfig(name=ALL, version=_VERSION, description="all domains"),
        CorpusConfig(name=SAMPLE, version=_VERSION, description="shop pages of the built-in sample web"),
        *(CorpusConfig(name=domain, version=_VERSION, description=f"the domain {domain}") for domain in DOMAINS),
    ]

    def __init__(
        self,
        config_name: str = ALL,
        data_dir: str | Path | None = None,
        domains: list[str] | None = None,
        **options: Any,
    ) -> None:
        # A folder brings domains of its own: with none listed, `datasets` makes the configuration from its name.
        if data_dir is not None:
            self.BUILDER_CONFIGS = []
        super().__init__(
            config_name=config_name,
            data_dir=None if data_dir is None else str(Path(data_dir).resolve()),
            domains=domains,
            **{"dataset_name": "ecom_niverse", **options},
        )

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(description="A corpus curated from web text, by domain.", features=FEATURES)

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        """Local files only: nothing is downloaded."""
        config = self.config
        if config.name == SAMPLE:
            wanted = known_domains(list(config.domains or DOMAINS), list(DOMAINS), "the sample")
            splits: dict[str, dict[str, Any]] = {
                split: {"files": None, "sample": (split, wanted)} for split in ("train", "validation", "test")
            }
        else:
            if config.data_dir is None:
                raise ValueError(
                    f"configuration '{config.name}' needs data_dir, a folder that recipes/curate.py built; without one"
                    f" there is '{SAMPLE}'"
                )
            manifest = Manifest.read(config.data_dir)
            wanted = config.domains or (manifest.domains if config.name == ALL else [config.name])
            wanted = known_domains(list(wanted), manifest.domains, str(config.data_dir))
            found = {split: [str(path) for path in manifest.files(split, wanted)] for split in manifest.splits}
            splits = {split: {"files": files, "sample": None} for split, files in found.items() if files}
        return [datasets.SplitGenerator(name=split, gen_kwargs=kwargs) for split, kwargs in splits.items()]

    def _generate_examples(
        self, files: list[str] | None, sample: tuple[str, list[str]] | None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        if sample is not None:
            yield from _sample_pages(*sample)
            return
        for file in files or ():
            place = "/".join(Path(file).parts[-2:])
            number = 0
            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches(batch_size=_ROWS, columns=list(FEATURES)):
                    for row in batch.to_pylist():
                        yield f"{place}:{number}", row
                        number += 1


def _sample_pages(split: str, domains: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for i, page in enumerate(load_sample("web")):
        if page["label"] == "shop" and page["domain"] in domains and split_of(page["text"]) == split:
            yield f"sample:{i}", {**{name: page[name] for name in ("text", "url", "domain")}, "id": str(i)}
