"""The wheel in an environment without the repository: what is in it, what it brings, and what it does not."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from regrad import __version__
from tests.data import ROOT
from tests.installed import Installed
from tests.shards import digits, write_tar

# What every user has: a module beside the images, by the name of a command.
TRAIN = """
from torch import nn


def build():
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    return network, {"image_size": 8, "channels": 1}
"""

CLONED = ("regrad/experiments/", "regrad/benchmarks/")


def test_it_holds_the_package_and_nothing_else(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {str(path.relative_to(ROOT)) for path in (ROOT / "regrad").rglob("*") if path.is_file()}
    wanted = {path for path in kept if "__pycache__" not in path and not path.startswith(CLONED)}
    assert held == wanted
    assert {"regrad/py.typed", "regrad/report/page.html", "regrad/report/page.js", "regrad/pages/page.css"} <= held


def test_its_command(installed: Installed, tmp_path: Path) -> None:
    said = installed.run("regrad", "--version", cwd=tmp_path)
    assert (said.returncode, said.stdout, said.stderr) == (0, f"regrad {__version__}\n", "")
    where = installed.run("python", "-c", "import regrad; print(regrad.__file__)", cwd=tmp_path)
    assert Path(where.stdout).is_relative_to(installed.folder), where
    helped = installed.run("python", "-m", "regrad", "--help", cwd=tmp_path)
    assert helped.stdout.startswith("usage: regrad COMMAND")


def test_scoring_up_to_the_first_batch(installed: Installed, tmp_path: Path) -> None:
    """tests/commands/test_demo.py has the rest, on Ray: scores and report."""
    write_tar(tmp_path / "in.tar", digits(20))
    (tmp_path / "train.py").write_text(TRAIN)
    command = ("regrad", "score", "in.tar", "--model", "train:build", "--output", "out", "--dry-run")
    said = installed.run(*command, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert "images     20 to score" in said.stdout


def test_the_pages_find_their_parts(installed: Installed, tmp_path: Path, write_run: Any) -> None:
    known, unknown = (write_run(name, {"regrad": [float(row) for row in range(30)]}) for name in ("known", "unknown"))
    command = ("regrad", "report", "--id", known, "--ood", f"unknown={unknown}", "--output", "report", "--top", "3")
    said = installed.run(*command, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    html = (tmp_path / "report/report.html").read_text()
    assert html.count("data:image/webp;base64,") == 6
    assert (ROOT / "regrad/pages/page.css").read_text().strip().splitlines()[-1] in html
    numbers = json.loads((tmp_path / "report/report.json").read_text())
    assert numbers["scores"]["regrad"]["ood"]["unknown"]["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("command", ["reproduce", "benchmark"])
def test_the_experiments_are_in_the_repository(command: str, installed: Installed, tmp_path: Path) -> None:
    for arguments in ([], ["--help"], ["ood"]):
        said = installed.run("regrad", command, *arguments, cwd=tmp_path)
        assert said.returncode == 2
        assert said.stderr == (
            f"error: regrad {command}: the experiments are not installed with regrad; in a clone of its repository, "
            f"`python -m regrad {command}` has them\n"
        )
    completion = installed.run("regrad", "--print-completion", "bash", cwd=tmp_path)
    assert completion.returncode == 0, completion.stderr
    assert command not in completion.stdout
