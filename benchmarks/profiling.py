"""Where time goes: a piece of work under torch's profiler or Python's, summed by group, as Markdown.

A torch profile gives each operation its own time (without what it calls) and puts it into a group by what it runs in
(the optimizer, attention, the loss) or, outside of these, by what it does. What is left of the clock is Python.
A Python profile gives each function its own time; what is built into Python goes to the group of its caller. Compiled
code that Python's profiler does not see (numpy's operators, Cython) counts for the function that calls it, and small
functions look dearer than they are: each profile says beside it what the same work takes without a profiler, in
processor time, which other jobs of the machine do not change.
"""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report

TOP, LEAST = 12, 0.005
"""Rows of the list below the groups, and the share that a row must have."""

PYTHON = "Python and what torch does not name"
RANGES = {
    "Optimizer.": "optimizer and clipping",
    "CrossEntropy": "head and loss",
    "cross_entropy": "head and loss",
    "ttention": "attention",
    "collate": "collate",
    "tokenise": "tokenise",
}
"""Part of the name of an operation -> group of it and of all that it calls; the outermost counts."""
KINDS = {
    "matrix products": r"(add|badd)?(mm|bmm|mv)_?$|matmul|_?linear(_pointwise)?$|_?mkldnn",
    "optimizer and clipping": r"_foreach_|linalg_vector_norm",
    "embedding and gather": r"embedding|index|gather|scatter|_?sparse|_?coalesce|_?to_dense|_?indices|_?values",
    "copies, casts and fills": r"(_?to_copy|copy|to|clone|contiguous|cat|stack|fill|zero|zeros|ones|full|arange|pad)_?$"
    r"|empty|new_|resize|constant_pad|(zeros|ones|full)_like",
    "random numbers": r"random|bernoulli|uniform|normal_|(native_)?dropout",
    "views": r"(_?unsafe_view|_?reshape_alias|view_as.*|view|reshape|transpose|t|expand|slice|select|unflatten|flatten"
    r"|unsqueeze|squeeze|detach|permute|split|narrow|chunk|unbind|alias|numpy_T|lift_fresh)_?$|as_strided",
    "norms and element by element": "",
}
"""Group -> how the names of its operations begin, without "aten::" or "mkldnn::"; the first that fits counts."""
LIBRARIES = (
    "torch",
    "faiss",
    "fasttext",
    "numpy",
    "onnxruntime",
    "orjson",
    "pyarrow",
    "tokenizers",
    "transformers",
    "datasets",
)


@dataclass(frozen=True)
class Row:
    """An operation or a function, or a group of them.

    Attributes:
        name: as it is shown.
        group: that it belongs to.
        seconds: its own, for one unit of work.
        calls: likewise.
    """

    name: str
    group: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Profile:
    """Where one kind of work spends its time.

    Attributes:
        name: of the path.
        unit: what is done once.
        repeats: how often it was done under the profiler, and without.
        seconds: of a unit under the profiler.
        plain: of a unit without it, processor time on CPU; None where that was not measured.
        rows: operations or functions.
    """

    name: str
    unit: str
    repeats: int
    seconds: float
    plain: float | None
    rows: list[Row]

    def groups(self) -> list[Row]:
        """Sums of the rows by group, the largest first."""
        sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for row in self.rows:
            sums[row.group][0] += row.seconds
            sums[row.group][1] += row.calls
        found = [Row(name, name, seconds, calls) for name, (seconds, calls) in sums.items()]
        return sorted(found, key=lambda row: -row.seconds)

    def share(self, row: Row) -> float:
        """Of the time that the rows have together."""
        return row.seconds / (sum(row.seconds for row in self.rows) or 1.0)

    def markdown(self) -> str:
        """Heading, seconds, the groups, and the rows that take most."""
        plain = "" if self.plain is None else f", {_seconds(self.plain)} (of the processor) without"
        lines = [f"## {self.name}: {self.unit}", ""]
        lines += [f"{_seconds(self.seconds)} under the profiler{plain}; means of {self.repeats}.", ""]
        lines += ["| group | share | seconds | calls |", "| --- | ---: | ---: | ---: |"]
        groups = self.groups()
        shown = [row for row in groups if self.share(row) >= LEAST]
        lines += [f"| {row.name} | {self._cells(row)} |" for row in shown]
        rest = [row for row in groups if self.share(row) < LEAST]
        if rest:
            small = Row("", "", sum(row.seconds for row in rest), sum(row.calls for row in rest))
            lines.append(f"| {len(rest)} smaller ones | {self._cells(small)} |")
        lines += ["", "| most time | of group | share | seconds | calls |", "| --- | --- | ---: | ---: | ---: |"]
        top = sorted(self.rows, key=lambda row: -row.seconds)[:TOP]
        lines += [
            f"| {_cell(row.name)} | {row.group} | {self._cells(row)} |" for row in top if self.share(row) >= LEAST
        ]
        return "\n".join(lines) + "\n"

    def _cells(self, row: Row) -> str:
        return f"{self.share(row):.1%} | {row.seconds:.3g} | {row.calls:,.6g}"

    def readings(self) -> list[report.Reading]:
        """Seconds of a unit, and the share of the largest group."""
        largest = self.groups()[0]
        return [
            report.Reading(f"profiles/{self.name}", self.plain or self.seconds, unit="seconds"),
            report.Reading(f"profiles/{self.name}/{largest.name}", self.share(largest), unit="share of the time"),
        ]


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value >= 0.1 else f"{1e3 * value:.3g} ms"


def _cell(name: str) -> str:
    return "`" + name.replace("|", "/")[:90] + "`"


def timed(work: Callable[[int], object], repeats: int, clock: Callable[[], float] = time.process_time) -> float:
    """Mean seconds of work(0), work(1), ..., after one call that does not count.

    Args:
        work: gets the number of the call.
        repeats: calls that count.
        clock: processor time keeps other jobs of the machine out; profiles are of the wall's clock.
    """
    work(0)
    start = clock()
    for number in range(repeats):
        work(number)
    return (clock() - start) / repeats


# torch


def of_torch(name: str, unit: str, work: Callable[[int], object], repeats: int, device: str = "cpu") -> Profile:
    """Profile torch operations.

    Args:
        name: of the path.
        unit: what a call of `work` does.
        work: gets the number of the call, so that the plain calls and the profiled ones can do the same.
        repeats: calls of either kind.
        device: on "cuda" the time is that of kernels, and `work` waits for them.
    """
    import torch

    plain = timed(work, repeats, time.perf_counter if device == "cuda" else time.process_time)
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else []
    with torch.profiler.profile(activities=activities) as recorder:
        start = time.perf_counter()
        for number in range(repeats):
            work(number)
        seconds = (time.perf_counter() - start) / repeats
    rows = list(_torch_rows(recorder.events(), repeats, device))
    if device == "cpu":
        rows.append(Row(PYTHON, PYTHON, max(0.0, seconds - sum(row.seconds for row in rows)), 1.0))
    return Profile(name, unit, repeats, seconds, plain, rows)


def _torch_rows(events: Iterable[Any], repeats: int, device: str) -> Iterator[Row]:
    """Operations with their own time; on CUDA that of the kernels that they launch."""
    from torch.autograd import DeviceType

    clock = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    kernels = 0.0
    for event in events:
        spent = getattr(event, clock) / 1e6 / repeats
        if event.device_type != DeviceType.CPU:
            kernels += spent
            continue
        if spent > 0:
            of_name = sums[event.name, torch_group(_chain(event))]
            of_name[0] += spent
            of_name[1] += 1
    for (name, group), (seconds, calls) in sums.items():
        yield Row(name, group, seconds, calls / repeats)
    if (lost := kernels - sum(seconds for seconds, _ in sums.values())) > 0:  # compiled ones: no operation has them
        yield Row("kernels of no operation", "compiled kernels", lost, 1.0)


def _chain(event: Any) -> list[str]:
    """Names of an event and of those that it runs in, the innermost first."""
    names = []
    while event is not None:
        names.append(event.name)
        event = event.cpu_parent
    return names


def torch_group(names: list[str]) -> str:
    """Group of an operation.

    Args:
        names: its own and those of the ones that it runs in, the innermost first.
    """
    for name in reversed(names):
        for mark, group in RANGES.items():
            if mark in name:
                return group
    own = names[0].removeprefix("mkldnn::").removeprefix("aten::")
    if own == names[0]:  # ranges of autograd and of the profiler
        return "autograd and ranges"
    return next(group for group, start in KINDS.items() if re.match(start, own))


# Python


def of_python(
    name: str,
    unit: str,
    work: Callable[[int], object],
    repeats: int,
    stages: dict[str, str] | None = None,
) -> Profile:
    """Profile Python functions.

    Args:
        name: of the path.
        unit: what a call of `work` does.
        work: gets the number of the call.
        repeats: calls with the profiler, and without.
        stages: part of a function's shown name -> group; other functions get their file or their library.
    """
    plain = timed(work, repeats)
    recorder = cProfile.Profile()
    start = time.perf_counter()
    recorder.enable()
    for number in range(repeats):
        work(number)
    recorder.disable()
    seconds = (time.perf_counter() - start) / repeats
    found: dict[Any, Any] = pstats.Stats(recorder).stats  # type: ignore[attr-defined]
    rows = []
    for key, (_, calls, own, _, callers) in found.items():
        parts = {key: (own, calls)}
        if callers and python_group(*key, stages) == BUILTINS:  # they work for those that call them
            parts = {caller: (spent[2], spent[1]) for caller, spent in callers.items()}
        by_group: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for caller, (spent, count) in parts.items():
            group = by_group[python_group(*caller, stages)]
            group[0], group[1] = group[0] + spent / repeats, group[1] + count / repeats
        rows += [Row(place(*key), group, *sums) for group, sums in by_group.items()]
    return Profile(name, unit, repeats, seconds, plain, rows)


BUILTINS = "Python's own"


def python_group(file: str, line: int, function: str, stages: dict[str, str] | None = None) -> str:
    """Group of a function: a stage, else its file in the package, else its library.

    Args:
        file: as the profiler names it, like the next two.
        line: of its definition.
        function: its name.
        stages: part of the shown name -> group.
    """
    shown = place(file, line, function)
    stage = next((group for mark, group in (stages or {}).items() if mark in shown), None)
    return stage or library(file, shown)


def place(file: str, line: int, function: str) -> str:
    """A function as it is shown: the file from its package on, without the machine's folders."""
    if file in ("~", ""):
        return function.strip("<>")
    parts = Path(file).parts
    for mark in ("site-packages", "rexbert_hf", "benchmarks"):
        if mark in parts:
            at = len(parts) - 1 - parts[::-1].index(mark)
            return f"{'/'.join(parts[at + (mark == 'site-packages') :])}:{line} {function}"
    return f"{'/'.join(parts[-2:])}:{line} {function}"


def library(file: str, shown: str) -> str:
    """The file of the package, or the library that a function belongs to."""
    if shown.startswith(("rexbert_hf/", "benchmarks/")):
        return shown.split(":")[0]
    return next((name for name in LIBRARIES if name in (file if file != "~" else "") or name in shown), BUILTINS)


# onnxruntime

ONNX_KINDS = {
    "matrix products": ("MatMul", "Gemm"),
    "quantising": ("Quantize",),
    "attention": ("Attention", "Softmax", "RotaryEmbedding"),
    "embedding and gather": ("Gather", "Embed"),
    "norms": ("Normalization",),
    "pooling": ("Reduce",),
}
"""Group -> parts of the types of its nodes."""


def of_onnx(name: str, unit: str, events: Iterable[dict[str, Any]], repeats: int) -> Profile:
    """Profile nodes of a graph, from what a session with `enable_profiling` wrote.

    Args:
        name: of the path.
        unit: what a run does.
        events: of its file.
        repeats: runs in it.
    """
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    whole = 0.0
    for event in events:
        seconds = event.get("dur", 0) / 1e6 / repeats
        if event.get("name") == "model_run":
            whole += seconds
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            kind = event["args"]["op_name"]
            group = next((group for group, parts in ONNX_KINDS.items() if any(part in kind for part in parts)), "other")
            sums[kind, group][0] += seconds
            sums[kind, group][1] += 1
    rows = [Row(kind, group, seconds, calls / repeats) for (kind, group), (seconds, calls) in sums.items()]
    between = max(0.0, whole - sum(row.seconds for row in rows))
    return Profile(name, unit, repeats, whole, None, [*rows, Row("between the nodes", "between the nodes", between, 1)])
