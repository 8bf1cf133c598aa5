"""Snapshots: which count, whose row of a unit holds, records there and back, and damage."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import contents, snapshots
from tests.ledger.test_fold import record


def name(first: int, last: int, digest: str = "0" * 16) -> str:
    return f"snapshot-{first:08}-{last:08}-{digest}.parquet"


@pytest.mark.parametrize(
    ("there", "counting"),
    [
        ([(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 2), (3, 3)]),
        ([(1, 1), (2, 2), (2, 3), (3, 3)], [(1, 1), (2, 3)]),
        ([(1, 4), (2, 2), (3, 4), (5, 5)], [(1, 4), (5, 5)]),
    ],
)
def test_one_that_another_covers_counts_no_more(there: list[tuple[int, int]], counting: list[tuple[int, int]]) -> None:
    names = [name(*numbers) for numbers in there] + [f"{1:032x}.json", f"{2:032x}.gone", "snapshot-1-2.parquet"]
    kept, merged = snapshots.named(reversed(names))
    assert [(one.first, one.last) for one in kept] == counting
    assert sorted(one.name for one in [*kept, *merged]) == [name(*numbers) for numbers in there]


def test_the_last_row_of_a_unit_holds() -> None:
    first = snapshots.live(snapshots.to_table([record(1), record(2), record(3)]))
    second = snapshots.live(snapshots.to_table([record(2, seconds=7.0)]))
    third = snapshots.gone([record(3)["unit"]])
    rows = snapshots.newest([first, second, third])
    told = [(row["unit"], row["seconds"], row["gone"]) for row in rows.sort_by("unit").to_pylist()]
    units = [record(number)["unit"] for number in (1, 2, 3)]
    assert told == list(zip(units, (0.5, 7.0, None), (False, False, True), strict=True))


def test_records_come_back_as_they_were() -> None:
    records = [record(0, stop=None), record(1, later=[1, {"x": None}]), record(2, reasons={}), record(3, source='ü/ "')]
    assert snapshots.to_records(snapshots.to_table(records)) == records
    assert snapshots.foldable(records) == records


@pytest.mark.parametrize("wrong", [{"seconds": "slow"}, {"rows_in": 1.5}, {"start": None, "stop": "9"}])
def test_what_has_no_column_of_its_type_cannot_be_folded(wrong: dict[str, Any]) -> None:
    lacking = {key: value for key, value in record(5).items() if key != "labelled"}
    records = [record(1), record(2, **wrong), record(3), lacking, record(4)]
    assert snapshots.foldable(records) == [record(1), record(3), record(4)]


def test_one_of_an_earlier_version_says_nothing_of_where_rows_are(tmp_path: Path) -> None:
    sink = io.BytesIO()
    rows = snapshots.live(snapshots.to_table([record(1)]))
    pyarrow.parquet.write_table(rows.drop_columns(snapshots.PLACES.names), sink)
    digest = hashlib.sha256(sink.getvalue()).hexdigest()[:16]
    storage.write_atomically(storage.join(str(tmp_path), "ledger", name(1, 1, digest)), sink.getvalue())
    held = contents.look(str(tmp_path))
    assert held.rows.equals(rows)
    assert contents.read_records(str(tmp_path), held.folded) == [record(1)]
    assert held.moved("scores") == {}


@pytest.mark.parametrize("place", [0.1, 0.5, 0.99])
def test_a_damaged_snapshot_is_told(tmp_path: Path, place: float) -> None:
    rows = snapshots.live(snapshots.to_table([record(number) for number in range(50)]))
    written = snapshots.write_snapshot(str(tmp_path), 1, 1, rows)
    assert snapshots.read_snapshots(str(tmp_path), [written]).num_rows == 50
    uri = storage.join(str(tmp_path), "ledger", written.name)
    content = bytearray(storage.read_bytes(uri))
    content[int(len(content) * place)] ^= 1
    storage.write_atomically(uri, bytes(content))
    snapshots._read.cache_clear()
    with pytest.raises(RegradError, match=rf"{written.name}: not a readable ledger snapshot .*; delete it to score"):
        snapshots.read_snapshots(str(tmp_path), [written])
