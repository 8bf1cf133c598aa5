"""`regrad calibrate` as it is called, and what scoring does with the file: the whole road, on digits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.__main__ import main
from regrad.calibration import Calibration
from tests.runs.test_calibrate import run


def test_it_writes_one_file_and_says_what_came_of_it(
    write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held, file = run(write_run).output, str(tmp_path / "deep/calibration.json")
    assert main(["calibrate", held, "--output", file]) == 0
    made = json.loads(Path(file).read_text())
    assert made["fitted_on"]["output"] == held
    assert made["model"] == {"spec": "tests:network", "network": "f" * 64, "fingerprint": None, "classes": 10}
    first, before, after, place = capsys.readouterr().out.splitlines()
    assert first.startswith(f"temperature {made['temperature']:.4g}, of 300 images; of the other 300 it would be ")
    assert [line[:11] for line in (before, after)] == ["before NLL ", "after  NLL "]
    assert place == file
    assert Calibration.read(file).temperature == made["temperature"]
    assert [path.name for path in Path(file).parent.iterdir()] == ["calibration.json"]


def test_it_refuses_with_one_line(write_run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unlabelled = write_run("plain", {"entropy": np.ones(9)})
    for arguments, message in (
        ([unlabelled, "--output", str(tmp_path / "c.json")], "the run kept no logits"),
        ([unlabelled, "--output", str(tmp_path / "c.txt")], "a file whose name ends in .json"),
        ([str(tmp_path / "nowhere"), "--output", str(tmp_path / "c.json")], "no run.json here"),
    ):
        assert main(["calibrate", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
    assert not list(tmp_path.glob("c.*"))
