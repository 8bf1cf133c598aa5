"""`import regrad`: nothing heavy with it, all of it at hand, and no circle through what installed packages add."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import regrad
from tests.data import ROOT

PLUGIN = """
from regrad import Classifier, Scorer
from regrad.scores import SCORES, score


@score()
def second_logit(inputs):
    '''The second largest logit.'''
    return inputs.logits.topk(2).values[:, 1]


assert Scorer.__name__ == "Scorer" and "regrad" in SCORES
"""


def python(program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    command = [sys.executable, "-W", "error::UserWarning", "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_names_are_imported_when_they_are_asked_for(tmp_path: Path) -> None:
    program = (
        "import sys, regrad, regrad.errors\n"
        "assert not {'torch', 'numpy', 'pyarrow', 'fsspec'} & set(sys.modules)\n"
        "assert regrad.UsageError is regrad.errors.UsageError\n"
        "from regrad import *\n"
        "assert Scorer.__module__ == 'regrad.scorer' and Classifier is regrad.Classifier\n"
    )
    ended = python(program, tmp_path)
    assert ended.returncode == 0, ended.stderr
    with pytest.raises(AttributeError, match="module regrad has no attribute Scoerr"):
        regrad.Scoerr  # noqa: B018


# What every part of regrad needs is imported once; each part comes first in a process that is forked from there.
FIRST = """
import importlib, os, sys, traceback
import PIL.Image, fsspec, numpy, pyarrow.dataset, pyarrow.parquet, torch

assert not [name for name in sys.modules if name.split(".")[0] == "regrad"]
codes = {}
for first in sys.argv[1:]:
    child = os.fork()
    if child == 0:
        try:
            importlib.import_module(first)
            from regrad.scores import SCORES, find_scores
            assert "second_logit" in SCORES
            assert find_scores(["second_logit"])[0].description == "The second largest logit."
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    codes[first] = os.waitpid(child, 0)[1]
print(codes)
"""


def test_an_installed_package_of_scores_may_import_all_of_regrad(tmp_path: Path) -> None:
    """Whatever part of regrad is imported before it."""
    (tmp_path / "their_scores.py").write_text(PLUGIN)
    info = tmp_path / "their_scores-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-scores\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[regrad.scores]\ntheirs = their_scores\n")
    parts = ("regrad.scorer", "regrad.scores", "regrad.scores.entropy", "regrad.pipeline.prepare")
    ended = python(FIRST, tmp_path, *parts)
    assert (ended.returncode, ended.stdout) == (0, f"{dict.fromkeys(parts, 0)}\n"), ended.stderr


def test_a_module_of_scores_by_name_may_import_all_of_regrad(tmp_path: Path) -> None:
    (tmp_path / "my_scores.py").write_text(PLUGIN)
    program = "from regrad.__main__ import main; main(['score', '--list-scores', '--score-module', 'my_scores'])"
    ended = python(program, tmp_path)
    assert "second_logit\n    The second largest logit." in ended.stdout, ended.stderr
    assert ended.stderr == ""
