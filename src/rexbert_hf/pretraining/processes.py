"""Did this run get the processes and the hardware that it was asked to use?"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import torch
import yaml

CPU_INFO = Path("/proc/cpuinfo")
_FAST_BF16 = frozenset({"amx_bf16", "avx512_bf16"})
"""Instructions of a CPU that multiply bfloat16 (without AMX a step of micro was 2.06 times as fast)."""


def asked_processes() -> int | None:
    """Processes that the launcher was asked for: its environment, or the command line of `accelerate launch`.

    `accelerate launch --cpu --num_processes 2` starts one process and says nothing; its children can only see it in
    the parent's command line, or in the configuration file that it names. None where nothing tells.
    """
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    try:
        arguments = Path(f"/proc/{os.getppid()}/cmdline").read_text(errors="replace").split("\0")
    except OSError:
        return None
    if not any(Path(argument).name.startswith("accelerate") for argument in arguments[:3]):
        return None
    return launched_with(arguments)


def launched_with(arguments: list[str]) -> int | None:
    """Processes that the words of an `accelerate launch` ask for.

    Args:
        arguments: the words of the command line.

    Example:
        >>> launched_with(["accelerate", "launch", "--cpu", "--num_processes=2", "train.py"])
        2
    """
    words = [
        word for argument in arguments for word in (argument.split("=", 1) if argument[:2] == "--" else [argument])
    ]
    options = {name.replace("-", "_").lstrip("_"): value for name, value in pairwise(words) if name.startswith("--")}
    if options.get("num_processes", "").isdigit():
        return int(options["num_processes"])
    try:
        found = yaml.safe_load(Path(options["config_file"]).read_text(encoding="utf-8"))["num_processes"]
    except (KeyError, TypeError, OSError, yaml.YAMLError):
        return None
    return found if isinstance(found, int) else None


def check_launcher() -> None:
    """Stop where a launcher set only part of what processes need to find each other.

    Raises:
        ValueError: if `WORLD_SIZE` says more than one process, and another variable is missing.
    """
    if not os.environ.get("WORLD_SIZE", "1").isdigit() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ValueError(
                f"asked for {os.environ['WORLD_SIZE']} processes (WORLD_SIZE), but {', '.join(missing)} is not set:"
                " start with torchrun or accelerate launch, or unset WORLD_SIZE"
            )


def one_process(what: str) -> None:
    """Stop where several processes were started, or asked for, for what runs in one.

    `accelerate launch --cpu` starts one process, however many it was asked for.

    Args:
        what: named in the message.

    Raises:
        ValueError: if so.
    """
    asked = asked_processes()
    if asked not in (None, 1):
        raise ValueError(f"{what} runs in one process, and {asked} were asked for: start it with plain python")


def check_processes(running: int, wanted: int | None) -> None:
    """Stop a run that did not get its processes.

    Args:
        running: processes that really run.
        wanted: the recipe's own demand; None asks the launcher.

    Raises:
        ValueError: if the numbers differ.
    """
    wanted = asked_processes() if wanted is None else wanted
    if wanted is not None and wanted != running:
        raise ValueError(
            f"asked for {wanted} processes, but {running} run: on CPU (where accelerate launch starts only one) use"
            f" 'torchrun --nproc_per_node {wanted} ... --trainer.use_cpu true'"
        )


def fast_bfloat16(use_cpu: bool) -> bool:
    """Whether bfloat16 multiplies faster than float32 here: recent GPUs, and CPUs with AMX or AVX-512's bfloat16."""
    if torch.cuda.is_available() and not use_cpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        about = CPU_INFO.read_text()
    except OSError:
        return False
    flags = next((line.split() for line in about.splitlines() if line.startswith("flags")), [])
    return not _FAST_BF16.isdisjoint(flags)
