"""One look at a ledger: which record of a unit counts, its own or that of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import contents, snapshots
from tests.ledger.test_fold import record, write

KEY = record(1)["unit"]
SNAPSHOT, OWN = 1.0, 2.0  # seconds of the records: which of them is told


def snapshot(output: str, **more: Any) -> None:
    """One with the unit, whose rows may be ``moved`` to a file."""
    rows = snapshots.live(snapshots.to_table([record(1, seconds=SNAPSHOT)]))
    if more.get("moved"):
        rows = snapshots.moved(rows, "scores", "merged.parquet", [5])
    snapshots.write_snapshot(output, 1, 1, snapshots.gone([KEY]) if more.get("gone") else rows)


@pytest.mark.parametrize(
    ("made", "loose", "retired", "told"),
    [
        ({}, False, False, SNAPSHOT),
        ({}, True, False, OWN),
        ({}, False, True, None),
        ({}, True, True, OWN),
        ({"gone": True}, False, False, None),
        ({"gone": True}, True, False, OWN),
        # Where the rows were moved, another attempt of the unit says nothing new: its part may be gone already.
        ({"moved": True}, False, False, SNAPSHOT),
        ({"moved": True}, True, False, SNAPSHOT),
        ({"moved": True}, False, True, None),
        ({"moved": True}, True, True, OWN),
    ],
)
def test_whose_record_counts(tmp_path: Path, made: dict[str, bool], loose: bool, retired: bool, told: Any) -> None:
    output = str(tmp_path)
    snapshot(output, **made)
    if loose:
        write(output, record(1, seconds=OWN))
    if retired:
        storage.write_atomically(contents.retirement_uri(output, KEY), b"")
    assert contents.committed(output) == ({KEY} if told else set())
    rows = contents.read_table(output)
    assert rows["seconds"].to_pylist() == [told] * bool(told)
    file = "merged.parquet" if told == SNAPSHOT and made.get("moved") else None
    assert rows["scores_file"].to_pylist() == [file] * bool(told)
    if told:
        assert [one["seconds"] for one in contents.read_records(output, [KEY])] == [told]
    else:
        with pytest.raises(RegradError, match="no such file"):
            contents.read_records(output, [KEY])


def test_units_that_are_asked_for_and_not_there_are_left_out_of_the_table(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        write(str(tmp_path), record(number))
    wanted = [record(number)["unit"] for number in (2, 9)]
    assert contents.read_table(str(tmp_path), wanted)["unit"].to_pylist() == wanted[:1]
