"""A share of this machine's cores that some processes cannot exceed: a control group of Linux."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PERIOD = 100_000  # microseconds in which a quota is used up
_MOST = {"cpu.weight": 10_000, "cpu.shares": 262_144}  # within its quota it goes before what else runs
_LEFT_WITHIN = 5.0  # seconds after its processes were killed
_numbers = itertools.count()


@contextmanager
def quota(cores: float | None) -> Iterator[Path | None]:
    """A control group, of version 2 or 1, with a quota of ``cores``; None without one. It ends empty.

    Raises:
        OSError: none can be made here.
    """
    if cores is None:
        yield None
        return
    second = (_CGROUP / "cgroup.controllers").exists()
    group = (_CGROUP if second else _CGROUP / "cpu") / f"regrad-benchmark-{os.getpid()}-{next(_numbers)}"
    group.mkdir()
    allowed = str(int(cores * _PERIOD))
    try:
        if second:
            settings = {"cpu.max": f"{allowed} {_PERIOD}", "cpu.weight": _MOST["cpu.weight"]}
        else:
            settings = {"cpu.cfs_period_us": _PERIOD, "cpu.cfs_quota_us": allowed, "cpu.shares": _MOST["cpu.shares"]}
        for name, value in settings.items():
            (group / name).write_text(str(value))
        yield group
    finally:
        _remove(group)


def within(group: Path | None) -> list[str]:
    """What to put before a command, so that its process and all that it starts are in ``group``."""
    return [] if group is None else ["sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec "$@"', str(group)]


def _remove(group: Path) -> None:
    """Once the last of its processes is gone, which a kill does not wait for."""
    end = time.monotonic() + _LEFT_WITHIN
    while (group / "cgroup.procs").exists() and (group / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.05)
    group.rmdir()
