"""One row per night, exactly once, whatever happens between two writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from regrad import storage, table
from regrad.audit.gates import METRICS
from regrad.audit.history import HISTORY_SCHEMA, History, check_name, folder
from regrad.errors import RegradError, UsageError
from regrad.ledger.audited import AUDITED_SCHEMA
from tests.services import Bucket


def row(night: str, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(HISTORY_SCHEMA.names)
    return empty | {"night": night, "images": 5, "failed_gates": [], "exit_code": 0} | more


def commit(output: str, night: str, units: list[str], **more: Any) -> None:
    History(output).commit(row(night, **more), units, lambda: None)


def nights(output: str) -> list[str]:
    return [item["night"] for item in History(output).rows]


@pytest.fixture(params=["folder", "bucket"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path)
    bucket: Bucket = request.getfixturevalue("bucket")
    return f"{bucket.uri}/out"


def test_each_unit_belongs_to_one_night_and_each_night_has_one_row(output: str) -> None:
    assert History(output).units_of("n1", {"a", "b"}) == ["a", "b"]
    commit(output, "n1", ["a", "b"])
    assert History(output).units_of("n2", {"a", "b", "c"}) == ["c"]
    commit(output, "n2", ["c"])
    # The same night again, with what has come in since: the row is replaced.
    assert History(output).units_of("n1", {"a", "b", "c", "d"}) == ["a", "b", "d"]
    commit(output, "n1", ["a", "b", "d"], images=9)
    assert nights(output) == ["n1", "n2"]
    assert [item["images"] for item in History(output).rows] == [9, 5]
    assert History(output).units_of("n3", {"a", "b", "c", "d"}) == []
    # The successor of a unit that was retired is new; the unit itself, should it come back, is not.
    assert History(output).units_of("n3", {"a", "b", "c", "e"}) == ["e"]
    commit(output, "n3", ["e"])
    assert History(output).units_gone("n1", {"b", "c", "e"}) == ["a", "d"]
    assert History(output).units_of("n4", {"a", "b", "c", "d", "e"}) == []


@contextlib.contextmanager
def killed_before_the_row() -> Iterator[None]:
    real = storage.write_atomically

    def dying(uri: str, content: bytes) -> None:
        if uri.endswith("history.parquet"):
            raise RegradError("killed between the two writes")
        real(uri, content)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage, "write_atomically", dying)
        yield


def test_what_an_audit_that_was_cut_short_claimed_is_audited_by_the_next(output: str) -> None:
    commit(output, "n1", ["a"])
    with killed_before_the_row(), pytest.raises(RegradError, match="killed"):
        commit(output, "n2", ["b"])
    assert nights(output) == ["n1"]
    assert History(output).units_of("n2", {"a", "b"}) == ["b"]  # the same night, again
    assert History(output).units_of("n3", {"a", "b", "c"}) == ["b", "c"]  # or the next


def test_a_night_audited_again_and_cut_short_keeps_what_it_had_and_no_more(output: str) -> None:
    commit(output, "n1", ["a"])
    with killed_before_the_row(), pytest.raises(RegradError, match="killed"):
        commit(output, "n1", ["a", "b"])
    assert History(output).units_of("n2", {"a", "b"}) == ["b"]
    commit(output, "n2", ["b"])
    assert History(output).units_of("n1", {"a", "b"}) == ["a"]
    assert History(output).units_of("n3", {"a", "b"}) == []


def test_what_was_written_before_claims_is_good(output: str) -> None:
    commit(output, "n1", ["a"])
    for name, old in (("audited", ["night", "unit"]), ("history", HISTORY_SCHEMA.names[:-1])):
        uri = f"{output}/{name}.parquet"
        table.write_file(uri, table.read_file(uri, HISTORY_SCHEMA if name == "history" else AUDITED_SCHEMA).select(old))
    assert History(output).units_of("n2", {"a", "b"}) == ["b"]
    commit(output, "n2", ["b"])
    assert History(output).units_of("n1", {"a", "b"}) == ["a"]
    assert History(output).units_of("n2", {"a", "b"}) == ["b"]


def test_a_process_without_the_lease_writes_no_row(tmp_path: Path) -> None:
    def lost() -> None:
        raise RegradError("the lease is another's")

    with pytest.raises(RegradError, match="another's"):
        History(str(tmp_path)).commit(row("n1"), ["a"], lost)
    assert list(tmp_path.iterdir()) == []


def test_the_columns_are_the_metrics_and_old_files_are_read(tmp_path: Path) -> None:
    commit(str(tmp_path), "n1", [], psi=0.25)
    written = pyarrow.parquet.read_table(tmp_path / "history.parquet")
    assert set(METRICS) < set(written.column_names)
    pyarrow.parquet.write_table(written.drop_columns(["ks_nights"]), tmp_path / "history.parquet")
    assert History(str(tmp_path)).rows[0]["psi"] == 0.25
    (tmp_path / "history.parquet").write_bytes(b"PAR1")
    with pytest.raises(RegradError, match=r"history\.parquet: not readable as Parquet"):
        History(str(tmp_path))


def test_the_nights_before_are_the_last_ones_by_name(tmp_path: Path) -> None:
    for night in ("n3", "n1", "n2", "n5"):
        commit(str(tmp_path), night, [])
    assert [item["night"] for item in History(str(tmp_path)).before("n4", 2)] == ["n2", "n3"]
    assert History(str(tmp_path)).before("n4", 0) == []


def test_old_nights_go_and_their_rows_stay(output: str) -> None:
    for night in ("n1", "n2", "n3"):
        storage.write_atomically(storage.join(folder(output, night), "flags", "part-0.parquet"), b"x")
        storage.write_atomically(storage.join(folder(output, night), "audit.json"), b'{"images": 1}')
        commit(output, night, [night])
    assert History(output).forget(2) == ["n1"]
    assert History(output).forget(2) == []
    assert History(output).details("n1") is None
    assert History(output).details("n2") == {"images": 1}
    assert nights(output) == ["n1", "n2", "n3"]
    assert History(output).units_of("n4", {"n1", "n2", "n3"}) == []


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 65, "n\n"])
def test_a_night_is_no_path(name: str) -> None:
    with pytest.raises(UsageError, match="--night"):
        check_name(name)
