"""The launcher's `mixed_precision` beside the recipe's `bf16`: accelerate takes the launcher's where bf16 is off.

Such a run would train under autocast while its checkpoints, its MFU and a replay of its batches count on float32.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Literal

logger = logging.getLogger(__name__)

LAUNCHED = "ACCELERATE_MIXED_PRECISION"
"""Environment variable in which `accelerate launch` hands on its `mixed_precision`."""


def launched_precision() -> str:
    """What the launcher set: "no" where it set nothing."""
    return os.environ.get(LAUNCHED, "").lower() or "no"


def check_launched_precision(bf16: bool) -> None:
    """Refuse a launcher's precision that would take the place of float32; with bf16 the launcher's counts for nothing.

    Args:
        bf16: whether training runs under bfloat16 autocast.

    Raises:
        ValueError: if the launcher set another one.
    """
    launched = launched_precision()
    if not bf16 and launched != "no":
        instead = "set bf16 to true, or " if launched == "bf16" else ""
        raise ValueError(
            f"the launcher's mixed_precision '{launched}' ({LAUNCHED}) would override bf16, which is off: {instead}"
            "start with accelerate launch --mixed_precision no"
        )


def choose_bfloat16(wanted: bool | Literal["auto"], fast: Callable[[], bool]) -> bool:
    """Whether training runs under bfloat16 autocast; "auto" follows a launcher that says bf16.

    Args:
        wanted: what the recipe says.
        fast: whether the device multiplies bfloat16 faster than float32.

    Raises:
        ValueError: if the launcher set another precision.
    """
    if wanted == "auto" and launched_precision() == "bf16":
        logger.info("bf16: auto takes the launcher's mixed_precision (%s): bf16", LAUNCHED)
        return True
    found = fast() if wanted == "auto" else wanted
    check_launched_precision(found)
    return found
