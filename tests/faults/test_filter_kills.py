"""SIGKILL of `regrad filter` and everything it started, at seeded points of its progress; then the same command."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pyarrow.parquet
import pytest

from regrad.ledger import contents
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.data import data_path

ROOT = Path(__file__).parents[2]
SHARDS, ROWS = 100, 20  # enough of them that no run is through before it is killed


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """The driver first, then its Ray."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.send_signal(signal.SIGKILL)
    process.wait()


@pytest.mark.data
@pytest.mark.long
def test_every_kept_image_is_in_one_shard_whatever_was_killed(tmp_path: Path) -> None:
    images = pyarrow.parquet.read_table(data_path("mnist-test.parquet")).slice(0, SHARDS * ROWS)
    (tmp_path / "in").mkdir()
    for number in range(SHARDS):
        pyarrow.parquet.write_table(images.slice(number * ROWS, ROWS), tmp_path / "in" / f"{number:03}.parquet")
    settings = ["--model", "regrad.networks:mnist_cnn", "--scores", "entropy", "--batch-size", "50"]
    execute(prepare(parse([str(tmp_path / "in"), *settings, "--output", str(tmp_path / "run")], "", None)), score_here)
    rules = ["--quantile", "0.7", "--write-shards", "--num-workers", "2"]
    command = [
        sys.executable,
        "-m",
        "regrad",
        "filter",
        str(tmp_path / "run"),
        *rules,
        "--output",
        str(tmp_path / "out"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    generator = random.Random(0)
    kills = 0
    for _ in range(5):
        before = len(contents.committed(str(tmp_path / "out")))
        wanted = before + generator.randint(0, 9)
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(contents.committed(str(tmp_path / "out"))) < wanted:
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 0.05))
        kills += process.poll() is None
        kill_tree(process)
    assert kills >= 4
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    kept = pyarrow.parquet.read_table(tmp_path / "out/keep.parquet")["id"].to_pylist()
    parts = [pyarrow.parquet.read_table(path) for path in sorted((tmp_path / "out/shards").iterdir())]
    found = pyarrow.concat_tables(parts)
    assert sorted(found["id"].to_pylist()) == sorted(kept)
    assert len(kept) == len(set(kept)) == SHARDS * ROWS * 7 // 10
    reference = dict(zip(images["id"].to_pylist(), images["image"].to_pylist(), strict=True))
    assert all(
        reference[name] == image
        for name, image in zip(*(found[key].to_pylist() for key in ("id", "image")), strict=True)
    )
    shutil.rmtree(tmp_path)
