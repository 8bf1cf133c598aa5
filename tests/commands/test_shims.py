"""The files of jobs/, which `ray job submit -- python jobs/score.py` names: each is a command, and none is a module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regrad import table
from tests.data import ROOT
from tests.shards import digits, write_tar

SHIMS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))
# A user's own module by the name of a shim, which looks at what its process would import.
TRAIN = """
import os
import sys

import select
import tests.shards

assert select.poll().poll(0) == []
assert not [folder for folder in sys.path if os.path.exists(os.path.join(folder, "reproduce.py"))]


def build():
    return tests.shards.build()
"""


def start(script: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return subprocess.run(
        [sys.executable, str(ROOT / "jobs" / f"{script}.py"), *arguments],
        cwd=cwd,
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_has_one() -> None:
    commands = sorted(path.stem for path in (ROOT / "regrad/commands").rglob("[!_]*.py"))
    assert commands == SHIMS
    assert len(SHIMS) == 15


@pytest.mark.parametrize("script", SHIMS)
def test_wrong_usage_is_one_line_and_code_2(script: str, tmp_path: Path) -> None:
    ended = start(script, "--no-such-flag", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_module_by_the_name_of_one_is_the_users(tmp_path: Path) -> None:
    """In the driver and in Ray's workers, to which Ray gives a driver's folder when it is on the path."""
    write_tar(tmp_path / "in.tar", digits(5))
    (tmp_path / "train.py").write_text(TRAIN)
    arguments = ("in.tar", "--model", "train:build", "--scores", "entropy", "--num-workers", "1", "--output", "out")
    ended = start("score", *arguments, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert table.read(str(tmp_path / "out")).num_rows == 5
