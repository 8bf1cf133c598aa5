"""What a process that decodes and scores may use, and what it sets for all of itself: by whoever starts it, not by what
is built in it."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path

from regrad.reading import images

CGROUPS = Path("/sys/fs/cgroup")


def set_up(threads: int) -> None:
    """Before a process scores its first image, as a worker or for a command.

    torch gets ``threads`` threads; what is wrong with an image is told in its row, and not by warnings of Pillow's; and
    the limit of an image's pixels is the one that the user set, not Pillow's.
    """
    import torch  # not by those who ask for the cores alone

    torch.set_num_threads(threads)
    warnings.filterwarnings("ignore", module=r"PIL\.")
    images.lift_limit()


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
