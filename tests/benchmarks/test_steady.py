"""A job beside its engine's loop, in a small form."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from PIL import Image

from regrad.benchmarks import steady
from regrad.benchmarks.steady import Work
from regrad.commands.clone import benchmark
from regrad.pipeline.run import score_here
from tests.shards import digits, write_parquet

TINY = Work("tiny", "tests.shards:build", "entropy", 0, 48, batch=16)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steady, "UNIT_ROWS", 16)
    monkeypatch.setattr(steady, "WAYS", {"in this process": (score_here, ())})
    monkeypatch.setattr(steady, "WORKS", {"tiny": TINY})


def test_the_loop_and_the_job_score_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    scored: list[int] = []
    real = steady._loop
    monkeypatch.setattr(steady, "_loop", lambda job: (scored.append(job.options.limit), real(job))[1])
    arguments = ["job", "--images", source, "--rounds", "2", "--output", str(tmp_path / "out")]
    assert benchmark.main(arguments) == 0
    assert scored == [48, 48]
    (measured,) = json.loads((tmp_path / "out/job.json").read_text())
    loop, job = measured["rows"]
    assert (loop["way"], loop["share"], job["way"]) == ("loop", 1.0, "in this process")
    assert min(loop["images_per_second"], job["images_per_second"], job["share"]) > 0
    assert {"reading", "decoding", "scoring", "committing"} <= job["worker_seconds"].keys()
    table = (tmp_path / "out/job.md").read_text()
    assert "| tiny, 48 images | loop |" in table
    assert "scoring " in table.splitlines()[-1]


def test_shares_are_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([100.0, 90.0, 50.0, 47.0, 10.0, 9.6])  # a machine that becomes slower and slower
    monkeypatch.setattr(steady, "_loop", lambda job: next(speeds))
    monkeypatch.setattr(steady, "_steady", lambda job, score_units: (next(speeds), {"scoring": 1.0}))
    found = steady.measure_job(TINY, 3, lambda line: None)
    assert found["rows"][1]["share"] == pytest.approx(0.94)
    assert found["rows"][1]["images_per_second"] == 47.0


def test_without_pictures_there_are_jpegs(tmp_path: Path) -> None:
    rows = pyarrow.parquet.read_table(steady.write_jpegs(TINY, tmp_path))
    assert rows.num_rows == 48
    (tmp_path / "one.jpg").write_bytes(rows["image"][0].as_py())
    with Image.open(tmp_path / "one.jpg") as picture:
        assert (picture.format, picture.size) == ("JPEG", (256, 256))


def test_another_case_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main(["job", "--cases", "resnet18"]) == 2
    assert "no case resnet18; those of job are tiny" in capsys.readouterr().err
