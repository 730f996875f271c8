"""The languages of a phase: which stores its sources come to, what each weighs, and what was seen of each language.

A source in several languages is one store a language. Shares with a temperature follow a curve while it moves; the
mixture takes them as lines between points, so that a seek stays one formula and a resume exact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from rexbert_hf.data.languages import UNKNOWN, language_shares
from rexbert_hf.data.order import PhaseOrder, Source, source_tokens
from rexbert_hf.data.store import TokenisedDataset
from rexbert_hf.training.phases import Phase

POINTS = 33
"""Of a curve: between two of them a share is off by less than .001, with tau falling by 1 and sizes of 1 : 1000."""


def language_of(source: Source) -> str | None:
    """Language of a store's text; None where nobody said it.

    Args:
        source: a tokenised data set, or document lengths, which say nothing.
    """
    return source.metadata.get("language") if isinstance(source, TokenisedDataset) else None


def stores_of(name: str, sources: Mapping[str, Source]) -> list[str]:
    """Names of the stores of one source: its own, or one for each of its languages.

    Args:
        name: of the source.
        sources: all stores.

    Example:
        >>> stores = [TokenisedDataset.from_rows([{"input_ids": [1, 5, 2]}]) for _ in range(2)]
        >>> for store, code in zip(stores, ("en", "id")):
        ...     store.metadata |= {"language": code, "source": "shop"}
        >>> stores_of("shop", {"shop.en": stores[0], "shop.id": stores[1]})
        ['shop.en', 'shop.id']
    """
    if name in sources:
        return [name]
    found = {key: store for key, store in sources.items() if isinstance(store, TokenisedDataset)}
    return [key for key, store in found.items() if store.metadata.get("source") == name]


def weigh_stores(phase: Phase, sources: Mapping[str, Source]) -> dict[str, list[float]]:
    """Weight of each store that a phase draws from, at evenly spaced points of the phase.

    Without a temperature a source's weight is shared out among its languages by their tokens. With one, a language has
    a share in proportion to its tokens to that power, and in it each store one in proportion to its tokens; the
    mixture's weights multiply the tokens.

    Args:
        phase: as written.
        sources: every store.

    Raises:
        ValueError: if a source does not exist or says no language where one is needed, or a language has no text.
    """
    written = phase.weights()
    owners = {store: name for name in phase.mixture for store in stores_of(name, sources)}
    for name in phase.mixture:
        if name not in owners.values():
            known = ", ".join(sorted(sources)) or "none"
            raise ValueError(f"phase '{phase.name}': mixture names the source '{name}', but the data has {known}")
    for store in owners:
        if not len(sources[store]):
            raise ValueError(f"phase '{phase.name}': the source '{store}' holds no documents")
    if phase.languages is not None:
        owners = _chosen(phase, owners, sources)
    if phase.languages is None or not phase.languages.ends():
        return _shared_out(written, owners, sources, phase.seq_length)
    sizes = {store: float(source_tokens(sources[store], phase.seq_length)) for store in owners}
    return _with_temperature(phase, owners, sizes, {store: language_of(sources[store]) or "" for store in owners})


def _shared_out(
    written: Mapping[str, tuple[float, float]], owners: Mapping[str, str], sources: Mapping[str, Source], length: int
) -> dict[str, list[float]]:
    """The weights as written, those of sources with several stores divided by tokens."""
    found = {}
    for name in dict.fromkeys(owners.values()):
        stores = [store for store, owner in owners.items() if owner == name]
        sizes = [source_tokens(sources[store], length) if len(stores) > 1 else 1 for store in stores]
        for store, size in zip(stores, sizes, strict=True):
            found[store] = [weight * (size / sum(sizes)) for weight in written[name]]
    return found


def _chosen(phase: Phase, owners: Mapping[str, str], sources: Mapping[str, Source]) -> dict[str, str]:
    """The stores in the languages of the phase."""
    assert phase.languages is not None
    for store, name in owners.items():
        if language_of(sources[store]) is None:
            raise ValueError(
                f"phase '{phase.name}': languages needs the language of the source '{name}': set"
                f" sources.{name}.language to its code (en) or to detect, or map columns.language"
            )
    only = phase.languages.only
    if only is None:
        return dict(owners)
    known = sorted({str(language_of(sources[store])) for store in owners})
    for code in only:
        if code not in known:
            raise ValueError(
                f"phase '{phase.name}': languages.only names '{code}', of which its sources have no text (they have "
                f"{', '.join(known)})"
            )
    return {store: name for store, name in owners.items() if language_of(sources[store]) in only}


def _with_temperature(
    phase: Phase, owners: Mapping[str, str], sizes: Mapping[str, float], languages: Mapping[str, str]
) -> dict[str, list[float]]:
    assert phase.languages is not None
    written, (first, last) = phase.weights(), phase.languages.ends()
    still = first == last and all(low == high for low, high in written.values())
    found: dict[str, list[float]] = {store: [] for store in owners}
    for t in np.linspace(0.0, 1.0, 2 if still else POINTS):
        weighed = {}
        for store, name in owners.items():
            low, high = written[name]
            weighed[store] = sizes[store] * (low + (high - low) * float(t))
        totals = dict.fromkeys(languages.values(), 0.0)
        for store, size in weighed.items():
            totals[languages[store]] += size
        try:
            shares = language_shares(totals, first + (last - first) * float(t))
        except ValueError as error:
            raise ValueError(f"phase '{phase.name}': {error}") from None
        for store, size in weighed.items():
            total = totals[languages[store]]
            found[store].append(shares[languages[store]] * size / total if total else 0.0)
    return found


def tokens_by_language(order: PhaseOrder, languages: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """What a phase sees of each language.

    Args:
        order: of the phase.
        languages: of its stores; those that are missing count as undetermined ("und").

    Returns:
        For each language `tokens` (planned; up to a document a group and store off), `share` at the `start` and `end`
        of the phase, and `epochs`: how often its text is read; above 1 it repeats.
    """
    drawn = order.mixture.integral(1.0) * order.max_tokens
    ends = order.mixture.shares(0.0), order.mixture.shares(1.0)
    sizes = order.source_tokens
    found: dict[str, dict[str, float]] = {}
    for number, name in enumerate(order.names):
        of = found.setdefault(
            languages.get(name, UNKNOWN), {"tokens": 0.0, "share_start": 0.0, "share_end": 0.0, "available": 0.0}
        )
        of["tokens"] += float(drawn[number])
        of["available"] += sizes[name]
        of["share_start"] += float(ends[0][number])
        of["share_end"] += float(ends[1][number])
    return {code: _rounded(of) for code, of in sorted(found.items(), key=lambda item: -item[1]["tokens"])}


def _rounded(of: Mapping[str, float]) -> dict[str, Any]:
    return {
        "tokens": round(of["tokens"]),
        "available_tokens": round(of["available"]),
        "epochs": round(of["tokens"] / of["available"], 4),
        "share_start": round(of["share_start"], 5),
        "share_end": round(of["share_end"], 5),
    }
