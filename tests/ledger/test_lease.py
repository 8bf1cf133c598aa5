"""One run at a time on an output: who may, who must wait, and who has lost the right to write."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from regrad import storage, table
from regrad.errors import RegradError, UsageError
from regrad.ledger import lease
from regrad.pipeline import options
from regrad.pipeline.prepare import prepare
from regrad.pipeline.run import execute, score_here
from tests.services import Bucket
from tests.shards import digits, write_parquet

SECONDS = 1.5  # how long a lease of these tests lasts
HOLD = """
import sys, time
from regrad.ledger import lease
with lease.hold(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def leave(output: Path, **changes: Any) -> lease.Holder:
    """A lease that nobody renews."""
    holder = replace(lease.Holder.this_process(SECONDS), **changes)
    (output / "lease").mkdir(parents=True, exist_ok=True)
    (output / "lease/1.json").write_text(json.dumps(asdict(holder)))
    return holder


def refuse(line: str) -> None:
    raise RegradError(line)


def job(output: Path, tmp_path: Path, *more: str) -> Any:
    source = write_parquet(tmp_path / "in.parquet", digits(20))
    arguments = [source, "--model", "tests.shards:build", "--scores", "entropy", "--output", str(output)]
    return prepare(options.parse([*arguments, "--unit-rows", "5", *more], "score", None))


def test_it_is_held_renewed_and_given_back(tmp_path: Path) -> None:
    with lease.hold(str(tmp_path), seconds=SECONDS) as held:
        first = json.loads((tmp_path / "lease/1.json").read_text())
        assert first["pid"] == os.getpid()
        held.check()
        end = time.monotonic() + 10
        while json.loads((tmp_path / "lease/1.json").read_text())["beat"] < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        held.check()
    assert list((tmp_path / "lease").iterdir()) == []


def test_a_second_run_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    wanted = rf"{tmp_path}: another run is at work on it \(process {os.getpid()} on .*; wait for its end"
    with lease.hold(str(tmp_path), seconds=SECONDS) as held:
        with pytest.raises(UsageError, match=wanted), lease.hold(str(tmp_path), said.append):
            pass
        held.check()
    assert len(said) == 1
    assert "waiting up to 2 s" in said[0]


def test_that_of_a_killed_process_is_taken_over_without_waiting(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.send_signal(signal.SIGKILL)
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)  # nobody has waited for it yet: its number is still taken
    said: list[str] = []
    with lease.hold(str(tmp_path), said.append) as held:
        assert held.generation == 2
        assert os.listdir(tmp_path / "lease") == ["2.json"]
    process.wait()
    assert said == []


def test_one_that_this_process_could_not_give_back_does_not_make_it_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken, lease.hold(str(tmp_path)):
        broken.setattr("regrad.storage.remove", refuse)
    assert list((tmp_path / "lease").iterdir())
    with lease.hold(str(tmp_path), refuse):
        pass


def test_a_number_that_another_process_has_now_holds_nothing(tmp_path: Path) -> None:
    leave(tmp_path, started=time.time() - 1e6)
    said: list[str] = []
    with lease.hold(str(tmp_path), said.append):
        pass
    assert said == []


def test_that_of_another_machine_is_taken_over_when_its_time_is_up(tmp_path: Path) -> None:
    leave(tmp_path, host="elsewhere", pid=1)
    said: list[str] = []
    with lease.hold(str(tmp_path), said.append) as held:
        assert held.generation == 2
    assert "process 1 on elsewhere" in said[0]


def test_that_of_a_stopped_process_is_taken_over_and_it_finds_out(tmp_path: Path) -> None:
    leave(tmp_path, name="stopped")  # this process: it lives, but does not renew
    old = lease.Lease(str(tmp_path / "lease"), 1, "stopped")
    old.check()
    wanted = r"did not renew its lease in time, and another took over \(process"
    with lease.hold(str(tmp_path), lambda line: None), pytest.raises(lease.LeaseLost, match=wanted):
        old.check()
    with pytest.raises(lease.LeaseLost, match="another run took over; what was committed stays"):
        old.check()


def test_of_many_contenders_one_wins(tmp_path: Path) -> None:
    leave(tmp_path, started=0.0)  # to be taken over by all of them
    won, refused, ended = [], [], threading.Event()

    def contend() -> None:
        try:
            with lease.hold(str(tmp_path), lambda line: None, SECONDS) as held:
                won.append(held)
                ended.wait()
                held.check()
        except UsageError as error:
            refused.append(error)
            if len(refused) == 7:
                ended.set()

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(won), len(refused)) == (1, 7)


def test_on_s3_too(bucket: Bucket) -> None:
    output = f"{bucket.uri}/out"
    with lease.hold(output, seconds=SECONDS) as held:
        with pytest.raises(UsageError, match="another run is at work"), lease.hold(output, lambda line: None):
            pass
        held.check()
    assert storage.list_files(f"{output}/lease") == []


def test_a_run_holds_it_and_what_others_did_meanwhile_is_seen(tmp_path: Path) -> None:
    output = tmp_path / "out"
    late = job(output, tmp_path)
    execute(job(output, tmp_path, "--limit", "10"), score_here)

    def watched(now: Any) -> Any:
        assert os.listdir(output / "lease") == ["1.json"]
        assert len(now.plan.pending) == 2  # the others are done
        yield from score_here(now)

    outcome = execute(late, watched)
    assert outcome.counts["rows_scored"] == 20
    assert outcome.this_run["rows_scored"] == 10


def test_a_run_that_lost_it_commits_nothing_more_and_leaves_run_json_alone(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def interrupted(now: Any) -> Any:
        results = score_here(now)
        yield next(results)
        other = replace(lease.Holder.this_process(SECONDS), name="other")
        (output / "lease/2.json").write_text(json.dumps(asdict(other)))
        (output / "run.json").write_text("the other's")
        before = set(os.listdir(output / "ledger"))
        try:
            yield from results
        finally:
            assert len(set(os.listdir(output / "ledger")) - before) <= 1  # at most the one that was being written

    with pytest.raises(lease.LeaseLost, match="another took over"):
        execute(job(output, tmp_path), interrupted)
    assert (output / "run.json").read_text() == "the other's"
    assert (output / "lease/2.json").exists()


def test_units_that_vanish_or_appear_behind_its_back_fail_the_run(tmp_path: Path) -> None:
    output = tmp_path / "out"

    def meddled(now: Any) -> Any:
        yield from score_here(now)
        next((output / "ledger").iterdir()).unlink()

    with pytest.raises(Exception, match=r"the ledger holds 3 units where 4 were committed .*regrad check"):
        execute(job(output, tmp_path), meddled)
    assert json.loads((output / "run.json").read_text())["status"] == "failed"


def test_what_a_kill_left_behind_is_swept_away(tmp_path: Path) -> None:
    output = tmp_path / "out"
    left = [output / name for name in ("_tmp-1-run.json", "scores/_tmp-2-part-x.parquet", "ledger/_tmp-3-x.json")]
    left += [output / "quarantine/part-0123.parquet", output / "lease/_tmp-4-1.json"]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    execute(job(output, tmp_path), score_here)
    assert [path for path in left if path.exists()] == []
    assert table.read(str(output)).num_rows == 20
