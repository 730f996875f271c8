"""Two process-wide settings without which training on CPU loses a tenth of its speed, and more on some batches."""

from __future__ import annotations

import ctypes
import sys

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def tune_cpu() -> bool:
    """Flush denormal numbers to zero, and keep freed memory in the process.

    Decayed moments of rare tokens become denormal, and a product with one takes ten times as long. And by default
    glibc gives every freed activation back to the system, whose pages it then has to clear again at the next one: with
    activations of some megabytes a step spends a tenth of its time there. Other C libraries keep their ways.

    Returns:
        Whether the allocator could be told.

    Example:
        >>> tune_cpu() in (True, False)
        True
    """
    torch.set_flush_denormal(True)
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # 32 MiB is the largest threshold that glibc takes; larger blocks are mapped as before.
    wanted = ((_M_MMAP_THRESHOLD, 32 << 20), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    told = [mallopt(option, value) for option, value in wanted]
    return all(told)
