"""The files of jobs/, which `ray job submit -- python jobs/score.py` names: each is a command, and none is a module."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regrad import table
from tests.data import ROOT
from tests.own_run import OwnRun

SHIMS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py"))


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


def test_a_module_by_the_name_of_one_is_the_users(own_run: OwnRun) -> None:
    """In the driver and in Ray's workers, to which Ray gives a driver's folder when it is on the path."""
    assert own_run.code == 4, (own_run.folder / "err").read_text()  # one of its images is none
    assert table.read(str(own_run.objects / "out")).num_rows == 30
