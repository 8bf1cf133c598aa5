"""`regrad status` beside a run that goes on, after it, and where it was cut short."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regrad.commands.status import main
from regrad.ledger import contents
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.services import Bucket
from tests.shards import digits, write_parquet

ROOT = Path(__file__).parents[2]
MODEL = ["--model", "tests.shards:build", "--scores", "entropy", "--unit-rows", "10"]


def score(source: str, output: str, *more: str) -> None:
    execute(prepare(parse([source, *MODEL, "--output", output, *more], "score", None)), score_here)


def status(output: str, capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    capsys.readouterr()
    assert main([output, *more]) == 0
    out = capsys.readouterr().out
    return json.loads(out) if "--json" in more else out


def test_after_a_run_in_a_bucket(tmp_path: Path, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*digits(23), ("a", b"no image", 1), ("b", b"no image", 1), ("c", None, 1)]
    source = bucket.put(write_parquet(tmp_path / "in.parquet", rows), "in.parquet")
    output = f"{bucket.uri}/out"
    score(source, output, "--max-quarantined", "3")
    found = status(output, capsys, "--json")
    assert (found["state"], found["exit_code"], found["holder"]) == ("done", 0, None)
    assert (found["units_done"], found["units"]) == (3, 3)
    assert (found["rows_scored"], found["rows_quarantined"]) == (23, 3)
    assert list(found["reasons"].values()) == [2, 1]
    assert next(iter(found["reasons"])).startswith("decode: ")
    assert found["seconds_left"] is None
    seconds = [unit["seconds"] / unit["rows"] for unit in found["slowest"]]
    assert seconds == sorted(seconds, reverse=True)
    assert {unit["source"] for unit in found["slowest"]} == {source}
    shown = status(output, capsys)
    assert shown.startswith(f"{output}: done, started 20")
    assert "units      3 of 3 done" in shown
    assert "images     23 scored, 3 quarantined\n         2 decode: " in shown


def test_while_a_run_goes_on_and_after_it_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits(60))
    output = str(tmp_path / "out")
    # A run of this very command that stops for good after its second unit.
    program = (
        "import sys, time\n"
        "from regrad.pipeline.run import execute, score_here\n"
        "from regrad.pipeline.results import Committed\n"
        "from regrad.pipeline.options import parse\n"
        "from regrad.pipeline.prepare import prepare\n"
        "def slow(job):\n"
        "    for result in score_here(job):\n"
        "        yield result\n"
        "        if isinstance(result, Committed) and result.record['start'] >= 10: time.sleep(600)\n"
        "execute(prepare(parse(sys.argv[1:], 'score', None)), slow)\n"
    )
    arguments = [source, *MODEL, "--output", output, "--batch-size", "10"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], cwd=ROOT, env={**os.environ})
    try:
        while len(contents.committed(output)) < 2:
            assert process.poll() is None
            time.sleep(0.1)
        found = status(output, capsys, "--json")
        assert found["state"] == "running"
        assert f"process {process.pid} on " in found["holder"]
        assert 2 <= found["units_done"] <= found["units"] == 6
        time.sleep(1.1)  # times are in whole seconds
        again = status(output, capsys, "--json")
        assert again["images_per_second"] > 0
        assert again["seconds_left"] >= 0
        assert " left" in status(output, capsys)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = status(output, capsys, "--json")
    assert (found["state"], found["holder"], found["exit_code"]) == ("cut short", None, None)


def test_no_run_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "no run.json here" in capsys.readouterr().err
