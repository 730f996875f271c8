"""Pairs on disk: one Parquet file a split, written as they come, read as a `datasets.Dataset`.

`OUTPUT/pairs` holds stage 3's pairs (query, product_id, label 1/0/-1/-2, split), `OUTPUT/qpi` stage 2's (query,
product_id, relevance and its evidence), `OUTPUT/products.parquet` the catalogue. On the Hub they are configurations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, load_dataset

from rexbert_hf.catalog import SPLITS
from rexbert_hf.hub.trouble import read_hub

PAIRS = pa.schema([("query", pa.string()), ("product_id", pa.string()), ("label", pa.int8()), ("split", pa.string())])
"""Stage 3: 1 for a positive, 0 for a hard negative, -1 for a random negative, -2 for what is neither."""
QPI = pa.schema(
    [
        ("query", pa.string()),
        ("product_id", pa.string()),
        ("relevance", pa.float32()),  # 1 relevant, 0 irrelevant, by a rule or a judgement
        ("shown", pa.int32()),
        ("clicks", pa.int32()),
        ("purchases", pa.int32()),
        ("language", pa.string()),  # of the query, where all its events agree
        ("country", pa.string()),
        ("split", pa.string()),
    ]
)
"""Stage 2; counts are zero where the pairs come from judgements."""
_ROWS = 1 << 16


class PairWriter:
    """Writes rows into `FOLDER/SPLIT.parquet`; a split without rows has no file.

    Use it as a context manager, in a folder that takes its place when it is whole; earlier files there are removed.

    Args:
        folder: of the files; made if needed.
        schema: `PAIRS` or `QPI`.
    """

    def __init__(self, folder: Path, schema: pa.Schema) -> None:
        self.folder, self.schema = folder, schema
        self.rows = dict.fromkeys(SPLITS, 0)
        self._held: dict[str, dict[str, list[Any]]] = {name: {c: [] for c in schema.names} for name in SPLITS}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._stack = ExitStack()

    def __enter__(self) -> PairWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        for split in SPLITS:
            (self.folder / f"{split}.parquet").unlink(missing_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for split in SPLITS:
                self._flush(split)
        self._stack.close()

    def add(self, split: str, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows.

        Args:
            split: where they belong; it is written into the column of that name.
            columns: the other columns of the schema, of equal length.
        """
        held = self._held[split]
        for name, values in columns.items():
            held[name].extend(values)
        held["split"].extend([split] * len(columns["query"]))
        if len(held["query"]) >= _ROWS:
            self._flush(split)

    def _flush(self, split: str) -> None:
        held = self._held[split]
        batch = pa.record_batch([pa.array(held[f.name], f.type) for f in self.schema], schema=self.schema)
        if not batch.num_rows:
            return
        if split not in self._writers:
            writer = pq.ParquetWriter(self.folder / f"{split}.parquet", self.schema, compression="zstd")
            self._writers[split] = self._stack.enter_context(writer)
        self._writers[split].write_batch(batch)
        self.rows[split] += batch.num_rows
        for column in held.values():
            column.clear()


def load_pairs(place: str | Path, kind: str = "pairs", split: str = "train") -> Dataset:
    """Read pairs or products that `recipes/build_pairs.py` wrote.

    Args:
        place: its output folder, or the repository it was pushed to.
        kind: "pairs", "qpi" or "products".
        split: train, validation or test; products have one, train.

    Raises:
        FileNotFoundError: if the folder has no such file.
    """
    folder = Path(place)
    if not folder.is_dir():
        found: Dataset = read_hub(lambda: load_dataset(str(place), kind, split=split), str(place))
        return found
    path = folder / "products.parquet" if kind == "products" else folder / kind / f"{split}.parquet"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such pairs: recipes/build_pairs.py writes them (or the split is empty)")
    return Dataset.from_parquet(str(path))
