"""The same units through Ray: real actors, real rows."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from regrad import table
from regrad.cluster import actors, progress, score_on_ray
from regrad.cluster.actors import score_units
from regrad.cluster.handover import surroundings
from regrad.errors import RegradError, UsageError
from regrad.pipeline.options import parse
from regrad.pipeline.prepare import Job, prepare
from regrad.pipeline.results import Committed, from_json
from regrad.pipeline.run import execute, score_here
from regrad.pipeline.worker import UnitScorer
from tests.shards import digits, png, records_of, write_parquet

pytestmark = pytest.mark.usefixtures("ray_session")
SCORES = ("regrad", "entropy")


def job(output: Any, *arguments: Any, model: str = "tests.shards:build") -> Job:
    settings = ["--model", model, "--output", output, "--scores", ",".join(SCORES), "--samples", "2"]
    return prepare(parse([*map(str, arguments), *map(str, settings)], "score", None))


def scores(output: Any) -> np.ndarray:
    rows = sorted(table.read(str(output)).to_pylist(), key=lambda row: (row["source"], row["row"]))
    return np.array([[row[name] for name in SCORES] for row in rows])


def sent(made: Job, board: Any) -> list[dict[str, Any]]:
    """The rows that a worker in this process sends for the pending units of ``made``, in one task."""
    worker = actors._Worker(made.task, board, (), *surroundings(), (8, 1))
    units = json.dumps([unit.to_json() for unit in made.plan.pending])
    batches = worker({"units": pa.array([units]), "measure": pa.array([False])})
    return [{name: value for name, (value,) in batch.items()} for batch in batches]


def test_ray_gives_the_scores_of_the_plain_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two workers; tests/cluster/test_here.py has one."""
    monkeypatch.setattr(progress, "_PERIODS", {True: 0.0, False: 0.0})
    source = write_parquet(tmp_path / "in.parquet", digits())
    outcome = execute(job(tmp_path / "ray", source, "--num-workers", 2, "--unit-rows", 7), score_on_ray)
    assert (outcome.exit_code, outcome.this_run["rows_scored"]) == (0, 60)
    assert outcome.this_run["images_by_node"] == {"127.0.0.1": 60}
    printed = capfd.readouterr().err.splitlines()  # the progress, and nothing of Ray's
    assert printed
    assert all(" of 60 images, " in line and line.endswith(" 0 quarantined") for line in printed), printed
    execute(job(tmp_path / "plain", source), score_here)
    np.testing.assert_allclose(scores(tmp_path / "ray"), scores(tmp_path / "plain"), rtol=1e-6)


def test_a_worker_that_cannot_write_is_one_line(tmp_path: Path) -> None:
    """What it sends is read here; the test below has it come by Ray."""
    made = job(tmp_path / "out", write_parquet(tmp_path / "in.parquet", digits()))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/scores").write_text("a file is in the way")
    rows = [pa.Table.from_pylist(sent(made, actors._start_board()))]
    with pytest.raises(RegradError, match=r"out/scores/part-.*: cannot write: ") as caught:
        list(actors._results(SimpleNamespace(iter_batches=lambda **_: (each for each in rows))))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, UsageError)


def test_a_model_that_only_the_driver_can_load_is_one_line(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())
    with pytest.raises(RegradError, match="special_kernels on this node") as caught:
        list(score_units(job(tmp_path / "out", source, model="tests.shards:build_failing")))
    assert "\n" not in str(caught.value)


def test_no_worker_after_a_while_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_parquet(tmp_path / "in.parquet", digits())

    @ray.remote(num_cpus=4)
    class Hog:
        def ready(self) -> bool:
            return True

    hog = Hog.remote()
    assert ray.get(hog.ready.remote())
    results = score_units(job(tmp_path / "out", source), stall_seconds=2.0)
    said = []

    def release() -> None:
        deadline = time.monotonic() + 60
        while not said and time.monotonic() < deadline:
            time.sleep(0.2)
            said.extend(line for line in capfd.readouterr().err.splitlines() if "no worker has started" in line)
        ray.kill(hog)

    watcher = threading.Thread(target=release)
    watcher.start()
    assert sum(record["rows_scored"] for record in records_of(results)) == 60
    watcher.join()
    assert said[0].startswith("still waiting: no worker has started after 2 s; each needs 2 CPUs and 0 GPUs")
    assert "the cluster has 4 CPUs and 0 GPUs, of which 0 and 0 are free" in said[0]


def test_a_file_over_which_every_worker_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regrad.cluster.actors._TRIES", 1)
    good = write_parquet(tmp_path / "a.parquet", digits(20))
    bad = write_parquet(tmp_path / "b.parquet", [*digits(3), ("white", png(np.full((8, 8), 255.0)), 0)])
    execute(job(tmp_path / "out", good, model="tests.shards:build_deadly"), score_here)
    with pytest.raises(RegradError, match=r"1 workers died over \S*b\.parquet from row 0: "):
        execute(job(tmp_path / "out", good, bad, model="tests.shards:build_deadly"), score_on_ray)
    assert table.read(str(tmp_path / "out")).num_rows == 20  # what was committed stays


def test_what_a_worker_committed_before_it_died_is_not_scored_again(tmp_path: Path) -> None:
    made = job(tmp_path / "out", write_parquet(tmp_path / "in.parquet", digits()), "--unit-rows", 20)
    units = made.plan.pending
    (first,) = (each for each in UnitScorer(made.task).score(units[:1]) if isinstance(each, Committed))
    board = actors._start_board()
    ray.get(board.begin.remote(f"over {tmp_path / 'in.parquet'} from row 0"))  # and that was the end of it
    told = [from_json(row["result"]) for row in sent(made, board)]
    records = [each.record for each in told if isinstance(each, Committed)]
    assert [record["unit"] for record in records] == [unit.key for unit in units]
    assert records[0] == first.record
    _, scored, _ = ray.get(board.read.remote())
    assert scored == 40


def test_a_model_that_ends_every_worker_does_not_start_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("regrad.cluster.actors._TRIES", 1)
    source = write_parquet(tmp_path / "a.parquet", digits(3))
    with pytest.raises(RegradError, match="1 workers died loading the model: "):
        execute(job(tmp_path / "out", source, model="tests.shards:build_dying"), score_on_ray)
