"""What a training step sees: rows of query and product texts, as a pure function of (seed, step).

Three kinds of rows. "ranking": a query, one of its positives, and hard negatives where some were mined. "hinge": a
query, a product, and 1, 0 or -1, at the paper's 1:10:11 or any ratio; random negatives are drawn anew in every epoch.
"graded": all judged pairs with their grades.

Made-up queries: a share of the ranking rows has words of a product's own title as the query, some misspelt. They cover
the whole catalogue, not only what somebody judged, and cost no labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from rexbert_hf.retrieval.training.search_data import SearchData
from rexbert_hf.settings.ranges import check_least

RowKind = Literal["ranking", "hinge", "graded"]


@dataclass
class RowSettings:
    """Which rows a step holds.

    Attributes:
        batch_size: rows of a step (on one device).
        hard: hard negatives for one positive, for the kind "hinge".
        random: random negatives for one positive, likewise.
        made_up: share of ranking rows whose query is made of words of the product's title.
        typos: share of all queries that are misspelt.
        mined: hard negatives of each ranking row, from the index.
    """

    batch_size: int = 256
    hard: float = 10.0
    random: float = 11.0
    made_up: float = 0.0
    typos: float = 0.0
    mined: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2; got {self.batch_size}")
        if not (0 <= self.made_up < 1 and 0 <= self.typos <= 1):
            raise ValueError(f"made_up must lie in [0, 1) and typos in [0, 1]; got {self.made_up}, {self.typos}")
        if min(self.hard, self.random, self.mined) < 0:
            raise ValueError("hard, random and mined must not be negative")
        if round(self.batch_size * self.made_up) == self.batch_size:
            raise ValueError(
                f"made_up {self.made_up} of a batch_size of {self.batch_size} leaves no row for a judged pair: lower it"
            )
        check_least(self, hard=0, random=0)


@dataclass
class Rows:
    """The rows of one step.

    Attributes:
        columns: texts by column: query, product, negative_1, ...
        label: what the loss wants: numbers `[B, columns]`, roles `[B]` or grades `[B]`.
    """

    columns: dict[str, list[str]]
    label: np.ndarray


class Shuffled:
    """An endless sequence of shuffled passes over the numbers below `size`; any part of it at once.

    Args:
        size: of a pass.
        seed: of the passes.
        stream: tells apart sequences of one seed.

    Example:
        >>> order = Shuffled(3, seed=0)
        >>> sorted(order.take(3, 3).tolist()), order.take(4, 1).tolist() == order.take(3, 3)[1:2].tolist()
        ([0, 1, 2], True)
    """

    def __init__(self, size: int, seed: int, stream: int = 0) -> None:
        self.size, self.seed, self.stream = size, seed, stream
        self._passes: dict[int, np.ndarray] = {}

    def take(self, start: int, count: int) -> np.ndarray:
        """`count` numbers from a place on, int64.

        Args:
            start: the place.
            count: how many.
        """
        places = np.arange(start, start + count)
        found = np.empty(count, dtype=np.int64)
        for number in np.unique(places // self.size).tolist():
            if number not in self._passes:
                self._passes = {old: order for old, order in self._passes.items() if old == number - 1}
                rng = np.random.default_rng([self.seed, 2, self.stream, number])
                self._passes[number] = rng.permutation(self.size)
            chosen = places // self.size == number
            found[chosen] = self._passes[number][places[chosen] % self.size]
        return found


class SearchBatches(Dataset[Rows]):
    """Training steps by number; `batches[step]` needs no state but the mined negatives.

    Args:
        data: with training queries.
        kind: of the rows.
        settings: what they hold.
        num_steps: how many there are.
        seed: of everything random.

    Raises:
        ValueError: if no training query has a positive.

    Example:
        >>> from rexbert_hf.retrieval.training.search_data import SearchDataSettings, load_search_data
        >>> data = load_search_data(SearchDataSettings(sample_size=60))
        >>> batches = SearchBatches(data, "ranking", RowSettings(batch_size=4), num_steps=10)
        >>> rows = batches[3]
        >>> list(rows.columns), rows.label.shape, batches[3].columns == rows.columns
        (['query', 'product'], (4, 2), True)
    """

    def __init__(self, data: SearchData, kind: RowKind, settings: RowSettings, num_steps: int, seed: int = 0) -> None:
        self.data, self.kind, self.settings, self.seed, self.num_steps = data, kind, settings, seed, num_steps
        queries, products, grades = data.pairs(data.of(0, with_relevant=False))
        kept = data.described[products]
        self.queries, self.products, self.grades = queries[kept], products[kept], grades[kept]
        self.positives = np.flatnonzero(self.grades >= data.relevant)
        if not len(self.positives):
            raise ValueError("no training query has a relevant product: change the split or data.relevant")
        self.described = np.flatnonzero(data.described)
        self._tables: dict[int, np.ndarray] = {}
        self._hard = self._hard_negatives()
        self._hard_queries = self.queries[self._hard]
        pool = len(self.grades if kind == "graded" else self.positives)
        self._pairs, self._described = Shuffled(pool, seed), Shuffled(len(self.described), seed, stream=1)

    def _hard_negatives(self) -> np.ndarray:
        """Judged pairs below `relevant`, without those whose text is that of a positive of the query, or of neither."""
        size = int(self.data.groups.max()) + 1
        keys = self.queries * size + self.data.groups[self.products]
        hard = (self.grades < self.data.relevant) & (self.grades >= 0)
        neither = self.data.neither[:, 0] * size + self.data.groups[self.data.neither[:, 1]]
        return np.flatnonzero(hard & ~np.isin(keys, np.concatenate([keys[self.positives], neither])))

    @property
    def epoch_steps(self) -> int:
        """Steps in which every positive (graded: every pair) comes once."""
        settings, pairs = self.settings, len(self.grades if self.kind == "graded" else self.positives)
        rows = settings.batch_size
        if self.kind == "ranking":
            rows = rows - round(rows * settings.made_up)
        elif self.kind == "hinge":
            rows = self._positives_a_step()
        return max(1, -(-pairs // rows))

    def __len__(self) -> int:
        return self.num_steps

    def set_negatives(self, table: np.ndarray, from_step: int) -> None:
        """Take mined negatives from a step on; the two newest tables are kept, as a batch may be fetched ahead.

        Args:
            table: product numbers of each query, `[Q, N]`, and -1 after them where there are fewer.
            from_step: first step that sees it.
        """
        newest = sorted([*self._tables, from_step])[-2:]
        self._tables = {step: old for step, old in self._tables.items() if step in newest} | {from_step: table}

    def negatives(self, step: int) -> np.ndarray | None:
        """The mined negatives that a step sees.

        Args:
            step: its number.
        """
        known = [start for start in self._tables if start <= step]
        return self._tables[max(known)] if known else None

    def __getitem__(self, step: int) -> Rows:
        rng = np.random.default_rng([self.seed, 1, step])
        if self.kind == "ranking":
            return self._ranking(step, rng)
        return self._hinge(step, rng) if self.kind == "hinge" else self._graded(step, rng)

    def _ranking(self, step: int, rng: np.random.Generator) -> Rows:
        size = self.settings.batch_size
        made_up = round(size * self.settings.made_up)
        pairs = self.positives[self._pairs.take(step * (size - made_up), size - made_up)]
        own = self.described[self._described.take(step * made_up, made_up)]
        texts = [self.data.queries[i] for i in self.queries[pairs]]
        texts += [made_up_query(self.data.titles[i], rng) for i in own]
        numbers = np.concatenate([self.queries[pairs], own + len(self.data.queries)])
        products = np.concatenate([self.products[pairs], own])
        columns = {"query": self._misspell(texts, rng), "product": self._texts(products)}
        label = [numbers, products]
        table = self.negatives(step)
        for i in range(self.settings.mined if table is not None else 0):
            assert table is not None
            negatives = self._mined(table, numbers, rng)
            columns[f"negative_{i + 1}"] = self._texts(negatives)
            label.append(negatives)
        return Rows(columns, np.stack(label, axis=1))

    def _mined(self, table: np.ndarray, numbers: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One of the mined products of each query; a random one for a query without any."""
        random = self.described[rng.integers(len(self.described), size=len(numbers))]
        known = numbers < len(table)
        mined = table[np.where(known, numbers, 0)]
        counts = (mined >= 0).sum(axis=1)  # they stand first
        found = mined[np.arange(len(numbers)), rng.integers(np.maximum(counts, 1))]
        return np.where(known & (counts > 0), found, random)

    def _positives_a_step(self) -> int:
        return max(1, round(self.settings.batch_size / (1 + self.settings.hard + self.settings.random)))

    def _hinge(self, step: int, rng: np.random.Generator) -> Rows:
        """Positives, and for each the wanted negatives of the same query; one that lacks hard ones has fewer."""
        count = self._positives_a_step()
        positive = self.positives[self._pairs.take(step * count, count)]
        queries, products = [self.queries[positive]], [self.products[positive]]
        roles = [np.ones(count, dtype=np.int64)]
        for query in self.queries[positive]:
            hard = self._drawn_hard(int(query), self.negatives(step), rng)
            random = self.described[rng.integers(len(self.described), size=_rounded(self.settings.random, rng))]
            random = random[~self._is_known(int(query), random)]
            products += [hard, random]
            queries.append(np.full(len(hard) + len(random), query))
            roles.append(np.repeat([0, -1], [len(hard), len(random)]))
        texts = [self.data.queries[i] for i in np.concatenate(queries)]
        columns = {"query": self._misspell(texts, rng), "product": self._texts(np.concatenate(products))}
        return Rows(columns, np.concatenate(roles))

    def _drawn_hard(self, query: int, table: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
        wanted = _rounded(self.settings.hard, rng)
        pool = self._hard[slice(*np.searchsorted(self._hard_queries, [query, query + 1]))]
        found = self.products[rng.permutation(pool)[:wanted]]
        if table is not None and query < len(table) and len(found) < wanted:
            mined = table[query][table[query] >= 0]
            found = np.concatenate([found, rng.permutation(np.setdiff1d(mined, found))[: wanted - len(found)]])
        return found

    def _is_known(self, query: int, products: np.ndarray) -> np.ndarray:
        """Whether each product, or one with the same text, is judged for the query or neither right nor wrong."""
        return np.isin(self.data.groups[products], self.data.groups[self.data.known(query)])

    def _graded(self, step: int, rng: np.random.Generator) -> Rows:
        size = self.settings.batch_size
        pairs = self._pairs.take(step * size, size)
        texts = [self.data.queries[i] for i in self.queries[pairs]]
        columns = {"query": self._misspell(texts, rng), "product": self._texts(self.products[pairs])}
        return Rows(columns, self.grades[pairs].astype(np.float32))

    def _texts(self, products: np.ndarray) -> list[str]:
        return [self.data.texts[i] for i in products]

    def _misspell(self, texts: Sequence[str], rng: np.random.Generator) -> list[str]:
        chosen = rng.random(len(texts)) < self.settings.typos
        return [misspelt(text, rng) if wrong else text for text, wrong in zip(texts, chosen, strict=True)]


def _rounded(number: float, rng: np.random.Generator) -> int:
    whole = int(number)
    return whole + int(number > whole and rng.random() < number - whole)


_WORD = re.compile(r"[^\W_]+(?:[./'-][^\W_]+)*")
_TAIL = re.compile(r"\s(?:with|in|for|by|from|-)\s|[,;|(\[]")
_FILLERS = frozenset(
    _WORD.findall("a an and by for from in of on or per the to w with x ft lb oz mm cm sq gal pack piece set")
)
"""Words that nobody searches for on their own."""
_HEAD_SHARE = 0.7


def made_up_query(title: str, rng: np.random.Generator) -> str:
    """Two to five words of a title, as somebody would type them: lower case, in order, mostly with what the thing is.

    A title's first part, up to a bracket, a comma or a preposition, ends with the kind of product in English and its
    relatives: "12 in. Steel Frying Pan with Lid". In other languages it is a word like the others.

    Args:
        title: of a product.
        rng: the generator.

    Example:
        >>> made_up_query("Blue Mug", np.random.default_rng(0))
        'blue mug'
        >>> made_up_query("Ostwick Blue Mug with Lid", np.random.default_rng(0)).split()[-1] in ("mug", "lid", "blue")
        True
    """
    text = title.lower()
    words = _WORD.findall(text) or text.split()
    if len(words) <= 2:
        return " ".join(words)
    cut = _TAIL.search(text)
    head = max(len(_WORD.findall(text[: cut.start()])) - 1, 0) if cut else len(words) - 1
    others = [i for i, word in enumerate(words) if i != head and word not in _FILLERS] or list(range(len(words)))
    count = min(2 + int(rng.binomial(3, 0.4)), len(words) - 1)
    chosen = {head} if rng.random() < _HEAD_SHARE else set()
    wanted = count - len(chosen)
    if rng.random() < 0.4:  # neighbours, as "frying pan"
        start = int(rng.integers(max(len(others) - wanted, 0) + 1))
        chosen |= set(others[start : start + wanted])
    else:
        chosen |= {others[i] for i in rng.permutation(len(others))[:wanted]}
    return " ".join(words[i] for i in sorted(chosen))


def misspelt(text: str, rng: np.random.Generator) -> str:
    """One slip of the fingers: a letter left out, doubled or swapped with its neighbour, or two words written as one.

    Args:
        text: a query.
        rng: the generator.

    Example:
        >>> sorted({misspelt("ab", np.random.default_rng(i)) for i in range(40)})
        ['a', 'aab', 'abb', 'b', 'ba']
    """
    spaces = [i for i, letter in enumerate(text) if letter == " "]
    if spaces and rng.random() < 0.2:
        i = spaces[int(rng.integers(len(spaces)))]
        return text[:i] + text[i + 1 :]
    letters = [i for i, letter in enumerate(text) if letter.isalpha()]
    if len(letters) < 2:
        return text
    i, slip = letters[int(rng.integers(len(letters)))], int(rng.integers(3))
    if slip == 0:
        return text[:i] + text[i + 1 :]
    if slip == 1:
        return text[: i + 1] + text[i:]
    i = min(i, len(text) - 2)
    return text[:i] + text[i + 1] + text[i] + text[i + 2 :]


def prompt_of(model: Any, task: str) -> str | None:
    """What a model puts before the texts of a task: as its `encode_query` and `encode_document` do.

    Args:
        model: a `SentenceTransformer`.
        task: query or document.
    """
    names = {"query": ("query",), "document": ("document", "passage", "corpus")}[task]
    name = next((name for name in names if name in model.prompts), model.default_prompt_name)
    return model.prompts.get(name) or None


class SearchCollator:
    """Tokenise the rows of a step, with the names that sentence-transformers' trainers and losses expect.

    Args:
        model: the bi-encoder.
    """

    valid_label_columns = ("label",)

    def __init__(self, model: Any) -> None:
        self.model = model

    def __call__(self, steps: Sequence[Rows]) -> dict[str, Any]:
        """Features by column, and the label.

        Args:
            steps: one.
        """
        import torch

        (rows,) = steps
        batch: dict[str, Any] = {"label": torch.from_numpy(rows.label)}
        for column, texts in rows.columns.items():
            task = "query" if column == "query" else "document"
            features = self.model.preprocess(texts, prompt=prompt_of(self.model, task), task=task)
            batch |= {f"{column}_{name}": value for name, value in features.items()}
            batch[f"{column}_task"] = task
        return batch
