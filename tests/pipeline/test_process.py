"""What a process may use; what holds for all of it is set where it is asked for, and by nothing that is built."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from regrad.network import memory
from regrad.pipeline import process
from tests.data import ROOT
from tests.shards import digits, write_parquet

PROGRAM = """
import sys, warnings
import torch
from PIL import Image
from regrad.pipeline import process
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import describe, prepare
from regrad.pipeline.worker import UnitScorer


def settings():
    return torch.get_num_threads(), Image.MAX_IMAGE_PIXELS, list(warnings.filters)


def pillow_warned():
    with warnings.catch_warnings(record=True) as said:
        warnings.warn_explicit("corrupt data", UserWarning, "file.py", 1, "PIL.TiffImagePlugin")
        warnings.warn_explicit("corrupt data", UserWarning, "file.py", 1, "elsewhere")
    return len(said) == 2


torch.set_num_threads(3)
job = prepare(parse([*sys.argv[1:], "--model", "tests.shards:build", "--scores", "entropy"], "score", None))
before = settings()
UnitScorer(job.task)
assert "estimate" in describe(job)
assert settings() == before and before[0] == 3 and before[1] is not None, before
assert pillow_warned()
process.set_up(threads=2)
assert settings()[:2] == (2, None)
assert not pillow_warned()
"""


def test_only_set_up_changes_the_process(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(3))
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, source, "--output", str(tmp_path / "out")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


FAULTS = """
import ctypes, resource
from regrad.pipeline import process

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def cleared():
    \"\"\"Pages that the system cleared for what is as large as what was freed before.\"\"\"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        held = [ctypes.c_void_p(libc.malloc(24 * 2**20)) for _ in range(5)]
        for place in held:
            libc.memset(place, 1, 24 * 2**20)
        for place in held:
            libc.free(place)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

process.set_up(1)
cleared()
print(cleared())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_what_a_layer_frees_the_next_one_gets() -> None:
    command, environment = [sys.executable, "-c", FAULTS], {**os.environ, "PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 1000  # else 122,880
    assert process._LARGEST == memory.KEPT_BYTES  # by which batches are cut


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "250000 100000\n"}, 3),
        ({"cpu.max": "10000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ],
)
def test_a_containers_share_is_honoured(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(process, "CGROUPS", tmp_path)
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert process.cores() == expected
