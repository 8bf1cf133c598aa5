"""SIGKILL at random, seeded moments: whatever dies, running the same command again gives every row exactly once."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from regrad import table
from regrad.benchmarks.clusters import free_port
from regrad.ledger import contents
from regrad.ledger.rows import Rows
from regrad.reading.tars import survey
from tests.data import data_path
from tests.faults.kills import Job, Run, assert_sound, undisturbed
from tests.services import S3Server
from tests.shards import digits, write_parquet, write_tar

SCORED = ["--model", "tests.shards:build", "--scores", "regrad,entropy", "--samples", "2", "--embeddings"]
UNITS = 15 + 60 + 30
Capture = Callable[[], str]


@pytest.fixture
def capture(capsys: pytest.CaptureFixture[str]) -> Capture:
    return lambda: "".join(capsys.readouterr())


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[tuple[str, int], dict[str, float]]]:
    """720 digits and their scores: 15 units of twelve, 60 shards of three, four of which are committed together, and a
    tar of which 30 units of twelve are made, or one."""
    folder = tmp_path_factory.mktemp("few")
    rows = digits(720)
    tiny = [write_parquet(folder / f"in/a{start}.parquet", rows[start : start + 3]) for start in range(0, 180, 3)]
    sources = [*tiny, write_parquet(folder / "in/b.parquet", rows[180:360]), write_tar(folder / "in/c.tar", rows[360:])]
    return folder / "in", undisturbed([*sources, *SCORED, "--unit-rows", "12"], str(folder / "undisturbed"))


@pytest.fixture(autouse=True)
def small_tars_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process too, which checks; but not where the scores to compare with come from."""
    monkeypatch.setattr(survey, "SMALL_BYTES", 0)
    monkeypatch.setattr(survey, "MARK_ROWS", 12)


@contextlib.contextmanager
def running(run: Run) -> Iterator[Run]:
    """Nothing of it is left after the context."""
    try:
        yield run
    finally:
        run.stop()


def killed_until_done(
    job: Job, harm: Callable[[Run, random.Random], bool], seed: int, kills: int, capture: Capture
) -> None:
    """Run ``job`` again and again, with harm done at random moments until there were ``kills``; then let it end.

    Args:
        harm: True while the run may go on, False when it was killed as a whole.
    """
    dice = random.Random(seed)
    while len(job.kills) < kills:
        alive = True
        with running(job.start()) as run:
            while alive and len(job.kills) < kills and run.moment(dice):
                alive = harm(run, dice)
            if alive:
                run.end()
                assert_sound(job, capture)
                if len(job.kills) < kills:
                    job.forget()
    with running(job.start()) as last:
        last.end()
    assert_sound(job, capture)
    print(f"{job.output}: survived {Counter(job.kills)}")


def driver_or_worker(run: Run, dice: random.Random) -> bool:
    """True while the run may go on."""
    if dice.random() < 0.5 and run.kill_worker(dice):
        return True
    run.kill_driver()
    return False


def test_killed_and_stopped_runs_lose_and_double_nothing(
    few: tuple[Path, dict[tuple[str, int], dict[str, float]]], tmp_path: Path, capture: Capture
) -> None:
    """SIGKILL of a worker and of the driver; SIGTERM of the same command, which is quiet; and its end, without Ray."""
    source, scores = few
    settings = [str(source), "--model", "tests.shards:build_leisurely", *SCORED[2:], "--unit-rows", "12"]
    output = tmp_path / "out"
    job = Job(str(output), output / "ledger", settings, scores)
    with running(job.start("--num-workers", "2")) as run:
        assert run.wait_for_units(3)
        assert run.kill_worker(random.Random(0))
        assert run.wait_for_units(6)  # the others go on, and another takes its place
        run.kill_driver()
    done = job.units()
    rows = sum(record["rows_scored"] for record in contents.read_records(job.output, contents.committed(job.output)))
    assert 0 < done < UNITS
    assert job.kills == ["worker", "driver"]

    with running(job.start("--num-workers", "1")) as run:
        run.wait_for_workers()  # a dead holder's lease is nobody's
        assert run.wait_for_units(1)
        run.process.send_signal(signal.SIGTERM)
        *progress, last = run.end(143).splitlines()
    assert all(" of " in line and " images, " in line for line in progress), progress
    said = re.fullmatch(
        r"stopped by SIGTERM: .* holds (\d+) scores and 0 quarantined rows in \d+ units; .* to go on", last
    )
    assert said, last
    content = table.read_run(job.output)
    assert (content["status"], content["exit_code"]) == ("interrupted", 143)
    # By the ledger: a plain reader may find what was about to be committed, too.
    held = [
        key
        for some in Rows(job.output).tables(["source", "row"])
        for key in zip(*some.to_pydict().values(), strict=True)
    ]
    assert rows < content["counts"]["rows_scored"] == len(held) == len(set(held)) == int(said[1]) < 720

    with running(job.start("--ray-address", "none")) as run:
        assert "another run" not in run.end()
    assert len(contents.committed(job.output)) == UNITS
    assert_sound(job, capture)


def test_a_killed_store_that_comes_back_costs_retries(
    tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    with S3Server(folder, free_port()).running() as server, server.bucket(monkeypatch) as bucket:
        source = bucket.put(write_parquet(tmp_path / "digits.parquet", digits(240)), "digits.parquet")
        settings = (*SCORED, "--unit-rows", "8")
        scores = undisturbed([source, *settings], str(tmp_path / "undisturbed"))
        # Without Ray, whose workers tests/faults/test_storage.py has: it is the process that is to live through it.
        arguments = [source, *settings, "--ray-address", "none"]
        job = Job(f"{bucket.uri}/out", bucket.folder / "out/ledger", arguments, scores)
        with running(job.start()) as run:
            assert run.wait_for_units(3)
            server.kill()
            time.sleep(1)
            server.start()
            printed = run.end()
        assert "retries" in printed
        assert_sound(job, capture)


# -- the long form: fifty kills ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[tuple[str, int], dict[str, float]]]:
    """5,000 real images in fifty units, and their scores."""
    model = ["--model", "regrad.networks:mnist_cnn", "--weights", str(tmp_path_factory.mktemp("w") / "w.safetensors")]
    _save_random_weights(Path(model[-1]))
    more = ["--scores", "entropy,max_probability", "--num-workers", "2", "--unit-rows", "100", "--limit", "5000"]
    arguments = [*model, *more]
    source = str(data_path("mnist-test.parquet"))
    return arguments, undisturbed([source, *arguments], str(tmp_path_factory.mktemp("many") / "undisturbed"))


def _save_random_weights(path: Path) -> None:
    import safetensors.torch
    import torch

    from regrad.networks import mnist_cnn

    torch.manual_seed(0)
    made: Any = mnist_cnn()
    network = made[0] if isinstance(made, tuple) else made
    safetensors.torch.save_file(network.state_dict(), path)


@pytest.mark.long
@pytest.mark.data
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [1, 2])
def test_ten_kills_of_drivers_and_workers(many: Any, tmp_path: Path, capture: Capture, seed: int) -> None:
    arguments, scores = many
    output = tmp_path / "out"
    job = Job(str(output), output / "ledger", [str(data_path("mnist-test.parquet")), *arguments], scores)
    killed_until_done(job, driver_or_worker, seed, kills=10, capture=capture)


@pytest.mark.long
@pytest.mark.data
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("seed", [3, 4])
def test_ten_kills_of_the_store_drivers_and_workers(
    many: Any, tmp_path: Path, capture: Capture, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    arguments, scores = many
    folder = tmp_path / "s3"
    folder.mkdir()
    with S3Server(folder, free_port()).running() as server, server.bucket(monkeypatch) as bucket:
        source = bucket.put(str(data_path("mnist-test.parquet")), "mnist-test.parquet")
        job = Job(f"{bucket.uri}/out", bucket.folder / "out/ledger", [source, *arguments], scores)

        def harm(run: Run, dice: random.Random) -> bool:
            if dice.random() < 0.5:
                server.kill()
                job.kills.append("store")
                time.sleep(dice.uniform(0, 3))
                server.start()
                return True
            return driver_or_worker(run, dice)

        killed_until_done(job, harm, seed, kills=10, capture=capture)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head that does not score and a node that does; deaths are noticed within seconds."""
    from ray.cluster_utils import Cluster

    settings = {"period_ms": "1000", "timeout_ms": "2000", "failure_threshold": "3"}
    for name, value in settings.items():
        monkeypatch.setenv(f"RAY_health_check_{name}", value)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    made.add_node(num_cpus=2)
    yield made
    made.shutdown()


@pytest.mark.long
@pytest.mark.data
@pytest.mark.timeout(3000)
def test_ten_kills_of_a_node_and_its_workers(many: Any, tmp_path: Path, capture: Capture, cluster: Any) -> None:
    arguments, scores = many
    output = tmp_path / "out"
    inputs = [str(data_path("mnist-test.parquet")), *arguments, "--ray-address", cluster.address]
    job = Job(str(output), output / "ledger", inputs, scores)

    def harm(run: Run, dice: random.Random) -> bool:
        (node,) = cluster.worker_nodes
        raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
        if dice.random() < 0.3 and run.kill_worker(dice, [raylet]):
            return True
        raylet.kill()
        job.kills.append("node")
        with contextlib.suppress(Exception):
            cluster.remove_node(node, allow_graceful=False)
        cluster.add_node(num_cpus=2)
        return True

    killed_until_done(job, harm, 5, kills=10, capture=capture)
