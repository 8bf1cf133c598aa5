"""How far a run is, from run.json, the lease and the ledger, written here by hand. Beside real runs: tests/commands."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrad import storage, table
from regrad.errors import RegradError, UsageError
from regrad.ledger import commit, contents, lease
from regrad.ledger.commit import NewUnit
from regrad.ledger.status import ENDED, status
from tests.ledger.test_commit import unit


def at(seconds: float) -> str:
    """A time so long ago, as the ledger has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - seconds))


def write_run(output: Path, **run: Any) -> None:
    started = {"schema_version": table.SCHEMA_VERSION, "status": "running", "exit_code": None, "started": at(100)}
    (output / "run.json").write_text(json.dumps(started | run))


def write_unit(output: Path, number: int, finished: str, seconds: float = 1.0, **record: Any) -> None:
    told = {"finished": finished, "seconds": seconds, "start": 3 * number, "stop": 3 * number + 3, "reasons": {"x": 1}}
    commit.write_unit(str(output), NewUnit(*unit(f"{number:032}", **(told | record))))


def test_a_run_at_work_tells_its_speed_and_what_is_left(tmp_path: Path) -> None:
    write_run(tmp_path, units={"planned": 9, "done_before": 1})
    write_unit(tmp_path, 0, at(500))  # of an earlier run
    for number in (1, 2, 3):
        write_unit(tmp_path, number, at(50))
    with lease.hold(str(tmp_path)):
        told = status(str(tmp_path))
        assert told.state == "running"
        assert told.holder == str(lease.holder(str(tmp_path)))
    assert (told.units_done, told.units) == (4, 10)
    assert (told.rows_scored, told.rows_quarantined) == (8, 4)
    assert told.images_per_second == pytest.approx(9 / 100, rel=0.05)
    assert told.seconds_left == pytest.approx(6 * 100 / 3, rel=0.05)
    assert told.reasons == {"x": 4}


def test_a_run_whose_units_are_all_committed_has_nothing_left(tmp_path: Path) -> None:
    write_run(tmp_path, units={"planned": 2, "done_before": 0})
    for number in range(3):  # one more than was planned: a source has changed meanwhile
        write_unit(tmp_path, number, at(10))
    with lease.hold(str(tmp_path)):
        told = status(str(tmp_path))
    assert (told.units, told.units_done, told.seconds_left) == (3, 3, 0)


@pytest.mark.parametrize(
    ("run", "state"),
    [({}, ENDED), ({"status": "failed", "exit_code": 1, "finished": "2026-01-01T00:00:00Z"}, "failed")],
)
def test_a_run_without_a_holder_is_over(tmp_path: Path, run: dict[str, Any], state: str) -> None:
    write_run(tmp_path, **run)
    told = status(str(tmp_path))
    assert (told.state, told.holder, told.exit_code) == (state, None, run.get("exit_code"))
    assert (told.images_per_second, told.seconds_left) == (None, None)


def test_a_lease_that_a_dead_process_left_is_no_holder(tmp_path: Path) -> None:
    write_run(tmp_path)
    with lease.hold(str(tmp_path)):
        holder = lease.holder(str(tmp_path))
        assert holder is not None
        dead = replace(holder, pid=2**22 - 1, name="dead")
        storage.write_atomically(str(tmp_path / "lease/9.json"), lease._content(dead))
        assert status(str(tmp_path)).state == ENDED
        storage.remove(str(tmp_path / "lease/9.json"))
        assert status(str(tmp_path)).state == "running"


def test_a_run_that_was_cut_short_was_so_fast_until_its_last_unit(tmp_path: Path) -> None:
    write_run(tmp_path, units={"planned": 5, "done_before": 0})
    for number, ago in enumerate((90, 80)):
        write_unit(tmp_path, number, at(ago))
    told = status(str(tmp_path))
    assert told.images_per_second == pytest.approx(6 / 20, rel=0.1)
    assert told.seconds_left is None


def test_the_slowest_by_the_time_for_a_row_and_reasons_by_rows(tmp_path: Path) -> None:
    write_run(tmp_path)
    for number, (seconds, reasons) in enumerate([(1.0, {"a": 1}), (9.0, {"b": 1}), (3.0, {"b": 1}), (2.0, {"c": 0})]):
        write_unit(tmp_path, number, at(10), seconds, reasons=reasons)
    told = status(str(tmp_path), slowest=2)
    assert [entry["seconds"] for entry in told.slowest] == [9.0, 3.0]
    assert told.slowest[0] == {"source": "a", "start": 3, "stop": 6, "rows": 3, "seconds": 9.0}
    assert list(told.reasons.items()) == [("b", 2), ("a", 1)]
    assert status(str(tmp_path), slowest=0).slowest == []


def test_a_unit_that_is_retired_meanwhile_is_left_out_and_a_damaged_record_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path)
    write_unit(tmp_path, 0, at(10))
    write_unit(tmp_path, 1, at(10))
    before = contents.look(str(tmp_path))
    there = before.loose
    commit.retire(str(tmp_path), [min(there)])
    looks = iter([before])  # first as it was before, then as it is
    real = contents.look
    monkeypatch.setattr(commit, "look", lambda output: next(looks, None) or real(output))
    assert status(str(tmp_path)).rows_scored == 2
    (tmp_path / f"ledger/{max(there)}.json").write_text("{")
    with pytest.raises(RegradError, match="not a readable ledger record"):
        status(str(tmp_path))


def test_no_run_is_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run\.json here"):
        status(str(tmp_path))
