"""What may stand in `index.faiss`: FAISS follows whatever such a file says, so its structure is looked through first.

One decision worth knowing. FAISS makes any of its classes of a file. One of them, lists on disk, maps another file,
which is named inside by an absolute path, and writes to it when vectors are added: an index of a stranger could open
and overwrite any file of whoever loads it. Nothing in FAISS forbids that: `IO_FLAG_ONDISK_SAME_DIR` still opens files,
`IO_FLAG_SKIP_IVF_DATA` leaves out the lists that are wanted, and the class of what was read is known too late. To look
for the four letters of such lists anywhere in the file would refuse codes that happen to spell them. So the few forms
that `FaissCodes.build` makes are walked through here, part by part, and all else is refused before FAISS sees it. Sizes
and row numbers are compared on the way, because FAISS reads memory wherever they point.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_INNER_PRODUCT = 0  # METRIC_INNER_PRODUCT
_CODE_BITS = {0: 8, 1: 4}  # QT_8bit, QT_4bit
_FAST_SCAN_BITS = 4
_UNKNOWN = 2**64 - 1  # FAISS's size of a code where codes lie in blocks


def check_faiss_file(path: Path, dim: int, rows: int) -> None:
    """Whether a file holds what `FaissCodes.build` makes of so many vectors, and nothing else.

    Args:
        path: of FAISS's file.
        dim: width of the vectors.
        rows: their number.

    Raises:
        ValueError: if it is damaged or holds something else.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "index.faiss"
        >>> _ = path.write_bytes(b"IwFl" + bytes(200))
        >>> try:
        ...     check_faiss_file(path, 8, 10)
        ... except ValueError as error:
        ...     print(str(error).partition("(")[2][:14])
        'IwFl' where '
    """
    try:
        with path.open("rb") as file:
            data: Any = b""
            if path.stat().st_size:
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        walk = _Walk(data, dim)
        walk.index(rows, "IHNf", "IHNs", "IwPf", "IwSq", "IxRF")
        _due(walk.place == len(data), "it goes on where it should end")
    except (_OddError, struct.error) as error:
        told = "it is cut off" if isinstance(error, struct.error) else str(error)
        raise ValueError(f"{path} is damaged or of another kind ({told}): build the index again") from None


class _OddError(Exception):
    """Something that `FaissCodes.build` does not make."""


def _due(holds: Any, otherwise: str) -> None:
    if not holds:
        raise _OddError(otherwise)


class _Walk:
    """A place in a file, and steps over the parts that FAISS writes there."""

    def __init__(self, data: Any, dim: int) -> None:
        self.data, self.dim, self.place = data, dim, 0
        self._bodies: dict[str, Callable[[int], None]] = {
            "IHNf": lambda rows: self._graph(rows, "IxFI"),
            "IHNs": lambda rows: self._graph(rows, "IxSQ"),  # earlier versions' 8-bit codes
            "IwPf": self._fast_lists,
            "IwSq": self._plain_lists,
            "IxRF": self._refined,
            "IxFI": self._flat,
            "IxSQ": self._scalar,
        }

    def index(self, rows: int, *allowed: str) -> None:
        """One of some indexes, of so many rows."""
        self._bodies[self._name(*allowed)](rows)

    # What all indexes have

    def _name(self, *allowed: str) -> str:
        (name,) = self._take("4s")
        told = repr(name)[1:]
        _due(name in map(str.encode, allowed), f"{told} where {' or '.join(map(repr, allowed))} is due")
        return str(name.decode())

    def _head(self, rows: int) -> None:
        dim, count, _, _, trained, metric = self._take("iqqqBi")
        _due(dim == self.dim, f"{dim} dimensions, the vectors have {self.dim}")
        _due(count == rows, f"{count} rows where {rows} are due")
        _due(trained == 1 and metric == _INNER_PRODUCT, "no inner products of a finished index")

    def _take(self, form: str) -> tuple[Any, ...]:
        found = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(f"<{form}")
        return found

    def _numbers(self, form: str, count: int) -> np.ndarray:
        kind = np.dtype(form)
        _due(count * kind.itemsize <= len(self.data) - self.place, "it is cut off")
        found = np.frombuffer(self.data, kind, count, self.place)
        self.place += found.nbytes
        return found

    def _vector(self, form: str) -> np.ndarray:
        return self._numbers(form, *self._take("Q"))

    # Indexes

    def _flat(self, rows: int) -> None:
        self._head(rows)
        _due(len(self._vector("<f4")) == rows * self.dim, "its vectors do not fit it")

    def _scalar(self, rows: int) -> None:
        self._head(rows)
        size = self._ranges()
        _due(len(self._vector("u1")) == rows * size, "its codes do not fit it")

    def _ranges(self) -> int:
        """Ranges of scalar codes; bytes of a code."""
        kind, _, _, dim, size = self._take("iifQQ")
        ranges = self._vector("<f4")
        fits = kind in _CODE_BITS and dim == self.dim and size == -(-dim * _CODE_BITS[kind] // 8)
        _due(fits and len(ranges) == 2 * dim, "its ranges do not fit it")
        return int(size)

    def _refined(self, rows: int) -> None:
        self._head(rows)
        self.index(rows, "IwPf", "IwSq")
        self.index(rows, "IxSQ")
        (factor,) = self._take("f")
        _due(1 <= factor <= 1000, "its candidates do not fit it")

    def _graph(self, rows: int, storage: str) -> None:
        self._head(rows)
        shares, before = self._vector("<f8"), self._vector("<i4")  # `before`: links of a row below each level
        levels, offsets, links = self._vector("<i4"), self._vector("<u8"), self._vector("<i4")
        entry, top, *_ = self._take("5i")
        sizes = len(levels) == rows > 0 and len(offsets) == rows + 1 and len(before) == len(shares) + 1 > 1
        _due(sizes and before[0] == 0 and (np.diff(before) >= 0).all(), "its graph does not fit it")
        _due(levels.min() >= 1 and levels.max() < len(before), "its graph does not fit it")
        _due(offsets[0] == 0 and offsets[-1] == len(links), "its graph does not fit it")
        _due((np.diff(offsets.astype(np.int64)) == before[levels]).all(), "its graph does not fit it")
        _due(0 <= entry < rows and 0 <= top < levels[entry], "its graph leads nowhere")
        _due(not len(links) or (links.min() >= -1 and links.max() < rows), "its graph leads nowhere")
        for level in range(1, int(levels.max())):  # a row that has no such level has no room for its links either
            high = np.flatnonzero(levels > level)
            places = offsets[high].astype(np.int64)[:, None] + np.arange(before[level], before[level + 1])
            linked = links[places]
            _due((levels[linked[linked >= 0]] > level).all(), "its graph leads nowhere")
        self.index(rows, storage)

    def _lists_head(self, rows: int) -> int:
        """What all inverted lists begin with; how many there are."""
        self._head(rows)
        lists, _ = self._take("QQ")
        _due(0 < lists <= len(self.data), "its lists do not fit it")
        self.index(lists, "IxFI")
        map_kind, mapped = self._take("BQ")
        _due(map_kind == mapped == 0, "a map of rows, which is never made")
        return int(lists)

    def _plain_lists(self, rows: int) -> None:
        lists, size = self._lists_head(rows), self._ranges()
        again, _ = self._take("QB")
        self._name("ilar")
        count, width = self._take("QQ")
        full = self._name("full", "sprs") == "full"
        sizes = self._vector("<u8")
        _due(again == width == size and count == lists and (not full or len(sizes) == lists), "its lists do not fit it")
        _due(full or (len(sizes) % 2 == 0 and (sizes[::2] < lists).all()), "its lists do not fit it")
        found = 0
        for each in (sizes if full else sizes[1::2]).tolist():
            self._numbers("u1", each * size)
            found += self._rows(self._numbers("<i8", each), rows)
        _due(found == rows, "its lists do not fit it")

    def _fast_lists(self, rows: int) -> None:
        lists = self._lists_head(rows)
        residual, _, block, width, way, _ = self._take("BQiQiQ")
        dim, parts, bits = self._take("QQQ")
        centroids = self._vector("<f4")
        fits = bits == _FAST_SCAN_BITS and dim == self.dim and 0 < parts <= dim and dim % parts == 0
        _due(fits and len(centroids) == dim << bits, "its centroids do not fit it")
        self._name("ilbl")
        count, size, a_block, block_bytes = self._take("QQQQ")
        fits = (
            not residual
            and not way
            and count == lists
            and width == parts + parts % 2
            and size in (_UNKNOWN, -(-parts // 2))
        )
        fits = fits and block > 0 and block % 32 == 0 and a_block == block and block_bytes == block * width // 2
        _due(fits, "its lists do not fit it")
        found = 0
        for _ in range(lists):
            numbers = self._vector("<i8")
            _due(len(self._vector("u1")) == -(-len(numbers) // block) * block_bytes, "its lists do not fit it")
            found += self._rows(numbers, rows)
        _due(found == rows, "its lists do not fit it")

    def _rows(self, numbers: np.ndarray, rows: int) -> int:
        inside = not len(numbers) or (numbers.min() >= 0 and numbers.max() < rows)
        _due(inside, "its lists name rows that are not there")
        return len(numbers)
