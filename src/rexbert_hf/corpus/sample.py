"""Stage 2: draw documents of each domain, in one pass over a stream of any length.

One decision worth knowing: a domain keeps the documents with the smallest keyed hashes of their identifiers. That is a
uniform sample without replacement, like a reservoir, but it is a function of the seed and the set of documents: it does
not depend on their order, on shards, or on where a run was interrupted.
"""

from __future__ import annotations

import hashlib
import heapq
import json
import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog.escapes import listed
from .document_files import write_documents
from .documents import Document, DocumentSource, read_documents, sources_key
from .stages import StageReport, begin, stage_key

logger = logging.getLogger(__name__)

DOCUMENTS = "documents.parquet"

MOST_NAMED = 100
"""Domains that are kept for the message: of a crawl they may be millions of hosts."""


@dataclass(frozen=True)
class SampleSettings:
    """How many documents are drawn.

    Attributes:
        per_domain: documents of each domain at most; they are held in memory.
        seed: another one gives another sample.
    """

    per_domain: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_domain < 1:
            raise ValueError(f"per_domain is at least 1, got {self.per_domain}")


class StratifiedSample:
    """The `size` documents of each domain with the smallest hashes.

    Args:
        size: documents a domain.
        seed: key of the hash.

    Example:
        >>> sample = StratifiedSample(2, seed=0)
        >>> reasons = [sample.add(Document(str(i), "mug", "", "hobby")) for i in range(4)]
        >>> len(sample.documents()), sample.seen["hobby"]
        (2, 4)
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._key = size, f"sample {seed}".encode()
        # Heaps hold the largest hash on top: what a smaller one puts out.
        self._heaps: dict[str, list[tuple[int, str, Document]]] = {}
        self._held: set[tuple[str, str]] = set()
        self.seen: Counter[str] = Counter()
        self.repeated = 0

    def add(self, document: Document) -> None:
        """Offer a document; one that is held already (same domain and identifier) is only counted."""
        domain = document.domain
        if (domain, document.id) in self._held:
            self.repeated += 1
            return
        self.seen[domain] += 1
        heap = self._heaps.setdefault(domain, [])
        item = (-self._rank(document.id), document.id, document)
        if len(heap) < self._size:
            heapq.heappush(heap, item)
        elif item[:2] > heap[0][:2]:
            self._held.remove((domain, heapq.heapreplace(heap, item)[1]))
        else:
            return
        self._held.add((domain, document.id))

    def documents(self) -> list[Document]:
        """What is held: domains in alphabetical order, and within one in the order of the hashes."""
        return [item[2] for domain in sorted(self._heaps) for item in sorted(self._heaps[domain], reverse=True)]

    def sizes(self) -> dict[str, int]:
        """Documents held of each domain."""
        return {domain: len(heap) for domain, heap in sorted(self._heaps.items())}

    def _rank(self, identifier: str) -> int:
        data = identifier.encode("utf-8", "replace")
        return int.from_bytes(hashlib.blake2b(data, digest_size=8, key=self._key).digest(), "big")


def draw(
    documents: Iterable[Document], report: StageReport, size: int, seed: int, domains: Collection[str] | None = None
) -> StratifiedSample:
    """Sample a stream of documents, and count in the report what is not drawn.

    Args:
        documents: as `read_documents` gives them, with the same report.
        report: `reasons` gets other_domain, repeated and not_drawn.
        size: documents a domain.
        seed: of the sample.
        domains: only these; None for all.

    Raises:
        ValueError: if there are documents, and none is of these domains.
    """
    sample, wanted = StratifiedSample(size, seed), None if domains is None else set(domains)
    others: dict[str, None] = {}
    for document in documents:
        if wanted is not None and document.domain not in wanted:
            report.drop("other_domain")
            if len(others) < MOST_NAMED:
                others[document.domain] = None
        else:
            sample.add(document)
    if wanted is not None and others and not sample.seen:
        raise none_of_these(wanted, others)
    held = sum(sample.sizes().values())
    for reason, count in (("repeated", sample.repeated), ("not_drawn", sum(sample.seen.values()) - held)):
        if count:
            report.drop(reason, count)
    return sample


def none_of_these(domains: Collection[str], others: Collection[str]) -> ValueError:
    """The error where all documents are of other domains, as after those of a source have got other names.

    Args:
        domains: that were picked.
        others: of the documents.
    """
    return ValueError(
        f"no document is of a selected domain: {other_domains(domains, others)}: delete the folder of the stage "
        "`select` and start again, or correct `domains`"
    )


def other_domains(domains: Collection[str], others: Collection[str]) -> str:
    """Words of a message where all documents are of other domains.

    Args:
        domains: that were picked.
        others: of the documents.

    Example:
        >>> other_domains({"hobby"}, ["news", "0"])
        'selected are hobby, the documents are of 0, news'
    """
    return f"selected are {listed(sorted(domains))}, the documents are of {listed(sorted(others))}"


def sample(
    settings: SampleSettings,
    sources: Sequence[DocumentSource],
    domains: Collection[str] | str | Path | None,
    output: str | Path,
) -> StageReport:
    """Draw documents of each domain into `documents.parquet`.

    Args:
        settings: how many, and the seed.
        sources: where documents are.
        domains: names; or the `domains.json` of the stage `select`, whose picked domains are taken; None for all.
        output: folder for the documents and the report.

    Raises:
        FileNotFoundError: if a source or `domains` is not there.
        ValueError: if no document is left to draw from, or none is of these domains.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "hobby.txt").write_text("".join(f"page {i}" + chr(10) for i in range(10)))
        >>> source = DocumentSource(str(folder / "hobby.txt"), domain="hobby")
        >>> report = sample(SampleSettings(per_domain=3), [source], None, folder / "sample")
        >>> report.written, report.reasons, report.details["domains"]
        (3, {'not_drawn': 7}, {'hobby': {'seen': 10, 'drawn': 3}})
    """
    output, started = Path(output), time.monotonic()
    names = picked_domains(domains) if isinstance(domains, (str, Path)) else domains
    key = stage_key("sample", 1, settings, sources_key(sources), None if names is None else sorted(names))
    if (done := begin(output, key)) is not None:
        return done
    report = StageReport("sample", key)
    drawn = draw(read_documents(sources, report), report, settings.per_domain, settings.seed, names)
    documents = drawn.documents()
    if not documents:
        raise ValueError(f"no document to draw from: {report.read:,} were read, {report.reasons or 'none was there'}")
    write_documents(output / DOCUMENTS, documents)
    report.written = len(documents)
    sizes = drawn.sizes()
    report.details["domains"] = {name: {"seen": drawn.seen[name], "drawn": sizes[name]} for name in sizes}
    report.seconds = round(time.monotonic() - started, 3)
    report.save(output, [DOCUMENTS])
    logger.info("sample: %d documents of %d domains from %d read", report.written, len(sizes), report.read)
    return report


def picked_domains(path: str | Path) -> list[str]:
    """The domains that the stage `select` picked.

    Args:
        path: its `domains.json`, or its folder.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is not such a file, or no domain was picked.
    """
    place = Path(path)
    place = place / "domains.json" if place.is_dir() else place
    try:
        rows = json.loads(place.read_text(encoding="utf-8"))["domains"]
        picked = [str(row["domain"]) for row in rows if row["picked"]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{place}: no such file; run the stage `select` first") from None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{place}: not the domains of the stage `select` ({error!r}); run it again") from error
    if not picked:
        raise ValueError(f"{place}: no domain was picked; lower min_share in the stage `select`")
    return picked
