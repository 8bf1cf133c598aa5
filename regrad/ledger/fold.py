"""Ledger records folded into snapshots, see :mod:`regrad.ledger.snapshots`: under the lease, and at no time in doubt.

A snapshot is written whole before anything that it holds is removed, and what it was made of says the same as it does
while both are there: bundles go first, since notes of retirement speak of the units in them too; then these notes,
since they speak of older snapshots; then records; then the snapshots that were merged. Whatever a fold that was cut
short has left is taken in by the next one. The record of a unit whose rows were moved before
(:mod:`regrad.ledger.merge`) says nothing new, and goes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import contents, snapshots
from regrad.storage import at_once

AT_LEAST = 512  # records, of less there is nothing to gain
_AT_ONCE = 50_000  # records in memory
_GROWTH = 2  # a snapshot of at most so many times the rows of what is newer is merged with it


def fold(output: str, allowed: Callable[[], None], at_least: int | None = None) -> int:
    """Fold what is not folded yet, if there is enough of it, and return how much there was.

    A record that is damaged, or that lacks what every record has, stays as it is. The cost is that of the new records,
    and, spread over all folds, a few times that of the whole: snapshots are merged with others of about their size.

    Args:
        allowed: raises where this process may no longer write; asked before each write, and before the first removal.
        at_least: :data:`AT_LEAST` unless told. Less is folded where a unit of a bundle does not count any more: only
            what is in a snapshot can be written again without it.

    Raises:
        RegradError: the storage refused or failed.
    """
    folded = 0
    while True:
        held = contents.look(output)
        keys = sorted(held.loose | held.retired)
        if held.settled and len(held.bundled.union(keys)) < (AT_LEAST if at_least is None else at_least):
            return folded
        if not (taken := _fold_some(output, held, keys[:_AT_ONCE], allowed)):
            return folded
        folded += taken


def _fold_some(output: str, held: contents.Held, keys: list[str], allowed: Callable[[], None]) -> int:
    """Fold all bundles, and what there is of ``keys``."""
    records = _records(output, [key for key in keys if key in held.loose and key not in held.folded])
    spare = [key for key in keys if key in held.loose and key in held.folded]
    retired = [key for key in keys if key in held.retired]
    gone = [key for key in retired if key not in records]
    bundled = snapshots.take(held.rows, [held.folded[key] for key in sorted(held.bundled & held.folded.keys())])
    own = snapshots.live(snapshots.to_table(list(records.values())))
    new = snapshots.newest([snapshots.gone(gone), bundled, own])
    merged = add_snapshot(output, held, new, allowed) if len(new) else []
    allowed()
    notes = [note for key in retired for note in held.notes[key]]
    for names in (held.bundles, notes):
        at_once.perform(storage.remove, (storage.join(output, "ledger", name) for name in names))
    at_once.perform(storage.remove, (contents.record_uri(output, key) for key in [*records, *spare]))
    at_once.perform(storage.remove, merged)
    return len(new) + len(spare)


def add_snapshot(output: str, held: contents.Held, rows: pa.Table, allowed: Callable[[], None]) -> list[str]:
    """Write ``rows`` as what holds of their units from now on, where the ledger held ``held``.

    Returns:
        The snapshots that count no more, which may be removed.
    """
    older = list(held.snapshots)
    merged: list[snapshots.Snapshot] = []
    while older and snapshots.row_count(output, older[-1]) <= _GROWTH * len(rows):
        merged.insert(0, older.pop())
        rows = snapshots.newest([snapshots.read_snapshots(output, [merged[0]]), rows])
    if not older:  # nothing is left that a retired unit could be in
        rows = rows.filter(pc.invert(rows["gone"]))
    number = 1 + max((snapshot.last for snapshot in [*held.snapshots, *held.merged]), default=0)
    allowed()
    snapshots.write_snapshot(output, merged[0].first if merged else number, number, rows)
    return [storage.join(output, "ledger", snapshot.name) for snapshot in [*merged, *held.merged]]


def _records(output: str, keys: list[str]) -> dict[str, Mapping[str, Any]]:
    """The records of those of ``keys`` that can be folded."""

    def one(key: str) -> dict[str, Any] | None:
        with contextlib.suppress(RegradError):  # `regrad check` tells of what cannot be read
            record = contents.read_record(output, key)
            return record if record and record["unit"] == key else None
        return None

    records = [record for record in at_once.answers(one, keys) if record]
    return {record["unit"]: record for record in snapshots.foldable(records)}
