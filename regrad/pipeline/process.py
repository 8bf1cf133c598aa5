"""What a process that decodes and scores may use, and what it sets for all of itself: by whoever starts it, not by what
is built in it."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import warnings
from pathlib import Path

from regrad.reading import images

CGROUPS = Path("/sys/fs/cgroup")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGEST = 32 * 2**20  # that may be kept: glibc takes no more; network/memory.py cuts batches by it
_KEPT = 256 * 2**20  # in all


def set_up(threads: int) -> None:
    """Before a process scores its first image, as a worker or for a command.

    torch gets ``threads`` threads; what is wrong with an image is told in its row, and not by warnings of Pillow's; the
    limit of an image's pixels is the one that the user set, not Pillow's; and what a layer frees, the next one gets.
    """
    import torch  # not by those who ask for the cores alone

    torch.set_num_threads(threads)
    _keep_what_is_freed()
    warnings.filterwarnings("ignore", module=r"PIL\.")
    images.lift_limit()


def _keep_what_is_freed() -> None:
    """Let glibc keep up to :data:`_KEPT` bytes of what is freed, instead of giving it back to the system.

    That would clear the same pages again for every layer's output: up to a fifth of the time of forward passes on a
    CPU. Other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


def cores() -> int:
    """The cores the scheduler may use, or the container's quota: threads beyond it would only be halted in turn."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(allowed, _quota())))


def _quota() -> float:
    """CPU seconds a second that the control group has, of either version; infinite where it has no limit."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((CGROUPS / file).read_text() for file in files).split()
            return float(quota) / float(period) if float(quota) > 0 else math.inf
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return math.inf
