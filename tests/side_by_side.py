"""Which tests run in which process of ``pytest --numprocesses 2``: those that start Ray in one, the rest file by file.

Two Rays at once would wait for each other's processes, and a file keeps together what its fixtures share.
"""

from __future__ import annotations

from functools import cache

from xdist.scheduler import LoadScopeScheduling

from tests.data import ROOT

RAY = ("ray_session", "ray_cluster", "start_local", "tests.faults.kills")


@cache
def group(file: str) -> str:
    """What a test file is run together with; a file that names Ray's fixtures starts Ray, or asks for one."""
    text = (ROOT / file).read_text()
    return "ray" if any(name in text for name in RAY) else file


class SideBySide(LoadScopeScheduling):
    """Groups of files, each in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])
