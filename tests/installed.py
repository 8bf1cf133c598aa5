"""regrad as a user has it: built as a wheel and installed where there is no clone of the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import filelock
import pytest

from tests.data import ROOT


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and of the environment of the tests all but regrad itself."""

    wheel: Path
    folder: Path

    def run(self, *command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """A program of the environment, such as ``regrad``, with its output as text."""
        hidden = ("PYTHONPATH", "RAY_ADDRESS", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | variables
        program = [str(self.folder / "bin" / command[0]), *command[1:]]
        return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel of this tree in an environment of its own; nothing is downloaded.

    One for all processes of a session: the first that needs it makes it, and others wait.
    """
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "installed"
    with filelock.FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            install(folder)
            (folder / "whole").touch()
    (wheel,) = (folder / "dist").glob("*.whl")
    return Installed(wheel, folder / "environment")


def install(folder: Path) -> None:
    """Build the wheel in ``folder``/dist and install it in ``folder``/environment.

    The packages that regrad needs are taken from where the tests have them: their folder is on the path. The hook of an
    editable install, which would bring the clone back, is not run for folders that stand on it this way.
    """
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "regrad", folder / "regrad", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    quiet = ("--quiet", "--no-deps", "--no-index")
    check([*pip, "wheel", *quiet, "--no-build-isolation", "--wheel-dir", "dist", "."], folder)
    (wheel,) = (folder / "dist").glob("*.whl")
    check([sys.executable, "-m", "venv", "--without-pip", "environment"], folder)
    environment = folder / "environment"
    check([*pip, "--python", str(environment / "bin/python"), "install", *quiet, str(wheel)], folder)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "of-the-tests.pth").write_text(sysconfig.get_path("purelib"))


def check(command: list[str], folder: Path) -> None:
    """Run ``command``, which must succeed."""
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
