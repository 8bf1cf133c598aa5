"""Which runs do without Ray, and that they give what runs on Ray give."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from regrad import table
from regrad.cluster import here, progress, score_where_it_pays
from regrad.errors import RegradError
from regrad.pipeline.options import parse
from regrad.pipeline.plan import group_units
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.run import execute
from regrad.pipeline.worker import UnitScorer
from tests.shards import digits, write_parquet

MODEL = ("--model", "tests.shards:build", "--scores", "regrad,entropy", "--samples", "2")


def job(folder: Path, *arguments: Any, name: str = "out") -> Job:
    source = write_parquet(folder / "in.parquet", digits())
    command = [source, *MODEL, "--output", str(folder / name), *map(str, arguments)]
    return prepare(parse(command, "score", None))


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster and no session, whatever ran before."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(here, "_is_in_a_session", lambda: False)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        ([], True),
        (["--ray-address", "none"], True),
        (["--ray-address", "local"], False),
        (["--ray-address", "head:6379"], False),
        (["--num-workers", "1"], False),
        (["--decode-workers", "1"], False),
        (["--gpus-per-worker", "0"], False),
        (["--cpus-per-worker", "1"], False),
    ],
)
def test_what_is_asked_for_is_done(tmp_path: Path, arguments: list[str], meant: bool) -> None:
    assert here.is_meant(job(tmp_path, *arguments)) == meant


@pytest.mark.usefixtures("nowhere")
def test_a_cluster_a_session_or_a_gpu_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = job(tmp_path)
    with monkeypatch.context() as patch:
        patch.setenv("RAY_ADDRESS", "head:6379")
        assert not here.is_meant(few)
    with monkeypatch.context() as patch:
        patch.setattr(here, "_is_in_a_session", lambda: True)
        assert not here.is_meant(few)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        assert not here.is_meant(few)
    assert here.is_meant(few)


@pytest.mark.usefixtures("nowhere")
@pytest.mark.parametrize(
    ("one", "sixteen", "meant", "looks"),
    [
        (0.001, 0.01, True, [1]),
        (0.35, 0.0, False, [1]),  # a batch would take too long to try
        (1.2, 0.0, False, [1]),  # no batch is so much faster
        (0.05, 0.2, True, [1]),
        (0.2, 16 * 0.01, True, [1, 16]),
        (0.09, 16 * 0.01, True, [1, 16]),
        (0.09, 16 * 0.07, False, [1, 16]),
    ],
)
def test_what_takes_no_longer_than_ray_is_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: float, sixteen: float, meant: bool, looks: list[int]
) -> None:
    tried: list[int] = []

    def trial(self: UnitScorer, unit: Any, count: int) -> tuple[int, float]:
        tried.append(count)
        return count, one if count == 1 else sixteen

    monkeypatch.setattr(UnitScorer, "trial", trial)
    monkeypatch.setattr(here, "expected_images", lambda *_: (300, True))
    assert here.is_meant(job(tmp_path)) == meant
    assert tried == looks


def test_the_rows_are_those_of_a_run_on_ray(
    tmp_path: Path, ray_session: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "_PERIODS", {True: 0.0, False: 0.0})
    execute(job(tmp_path, "--unit-rows", 25, "--cpus-per-worker", 1, name="ray"), score_where_it_pays)
    capsys.readouterr()
    threads = torch.get_num_threads()
    alone = job(tmp_path, "--unit-rows", 25, "--ray-address", "none", name="here")
    alone = replace(alone, task=replace(alone.task, threads=1))  # as the worker's
    try:
        outcome = execute(alone, score_where_it_pays)
    finally:
        torch.set_num_threads(threads)
    assert outcome.this_run["rows_scored"] == 60
    assert " of 60 images, " in capsys.readouterr().err
    rows = [table.read(str(tmp_path / name)).sort_by("row") for name in ("here", "ray")]
    assert rows[0].equals(rows[1])  # to the last bit


def test_units_are_scored_in_the_tasks_that_one_worker_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks: list[list[str]] = []
    real = UnitScorer.score

    def noting(self: UnitScorer, units: Any, measure: bool = False) -> Any:
        tasks.append([unit.key for unit in units])
        return real(self, units, measure)

    monkeypatch.setattr(UnitScorer, "score", noting)
    ready = job(tmp_path, "--unit-rows", 6, "--ray-address", "none")
    execute(ready, score_where_it_pays)
    assert tasks == [[unit.key for unit in units] for units in group_units(ready.plan.pending, workers=1)]
    assert [len(task) for task in tasks] == [2] * 5


@pytest.mark.usefixtures("nowhere")
def test_what_was_not_asked_for_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    execute(job(tmp_path), score_where_it_pays)
    assert capsys.readouterr().err.startswith("without Ray: these images take some seconds in this process; ")
    execute(job(tmp_path, "--ray-address", "none", name="asked"), score_where_it_pays)
    assert "without Ray" not in capsys.readouterr().err


@pytest.mark.usefixtures("nowhere")
def test_what_was_committed_stays_when_a_unit_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = job(tmp_path, "--unit-rows", 20, "--batch-size", 20)
    real, calls = UnitScorer._score_batch, iter(range(9))

    def failing(self: UnitScorer, *given: Any) -> None:
        if next(calls) == 4:  # two of the look, two of the run before
            raise RegradError("the network failed")
        real(self, *given)

    monkeypatch.setattr(UnitScorer, "_score_batch", failing)
    with pytest.raises(RegradError, match="the network failed"):
        execute(ready, score_where_it_pays)
    monkeypatch.undo()
    assert execute(job(tmp_path, "--unit-rows", 20, "--ray-address", "none"), score_where_it_pays).exit_code == 0
    assert table.read(str(tmp_path / "out")).num_rows == 60
