"""Which tests run in which process of ``pytest --numprocesses 3``: those that start Ray in two, the rest file by file.

Three on two cores, since those with Ray, stores and kills wait as often as they work. Tests that share a Ray of their
process are together, and so are those that start clusters or kill what they started; a file keeps together what its
fixtures share.
"""

from __future__ import annotations

from functools import cache

from xdist.scheduler import LoadScopeScheduling

from tests.data import ROOT

RAY = {"a cluster": ("ray_cluster", "tests.faults.kills"), "Ray": ("ray_session", "start_local", "own_run")}
LONG = (
    *("tests/commands/clone/test_reproduce.py", "tests/commands/test_demo.py"),
    "tests/gradients/sketching/test_sketch.py",
    *("tests/faults/test_nights.py", "tests/test_real_images.py", "tests/test_scorer.py"),
    *("tests/experiments/sweep/test_trial.py", "tests/models/test_hubs.py", "tests/report/test_browser.py"),
)


@cache
def group(file: str) -> str:
    """What a test file is run together with; a file that names Ray's fixtures starts Ray, or asks for one."""
    text = (ROOT / file).read_text()
    return next((name for name, words in RAY.items() if any(word in text for word in words)), file)


def rank(file: str) -> int:
    """The longest begin first: what a process is left with at the end, the others wait for."""
    return 0 if group(file) in RAY else 1 if file in LONG else 2


class SideBySide(LoadScopeScheduling):
    """Groups of files, each in one process."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid.partition("::")[0])
