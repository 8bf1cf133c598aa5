"""Memory does not grow with the length of a run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data import ROOT, data_path

PROGRAM = """
import resource, sys
from regrad.pipeline.run import execute, score_here
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare

execute(prepare(parse(sys.argv[1:], "score", None)), score_here)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(*arguments: str) -> int:
    """Kilobytes that a process of its own took at most to read, score and commit."""
    program = [sys.executable, "-c", PROGRAM, *arguments]
    return int(subprocess.run(program, cwd=ROOT, check=True, capture_output=True, text=True).stdout)


@pytest.mark.long
@pytest.mark.data
def test_fifty_thousand_images_take_what_two_thousand_take(tmp_path: Path) -> None:
    source = str(data_path("mnist-train.parquet"))
    settings = (source, "--model", "regrad.networks:mnist_cnn", "--scores", "entropy")
    few = peak(*settings, "--limit", "2000", "--output", str(tmp_path / "few"))
    many = peak(*settings, "--limit", "50000", "--output", str(tmp_path / "many"))
    print(f"{few / 1024:.0f} MB for 2,000 images, {many / 1024:.0f} MB for 50,000")
    assert many < 1.1 * few
