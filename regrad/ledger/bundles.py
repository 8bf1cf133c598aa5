"""Small units committed together: their rows in one file of each kind, their records in one file of the ledger.

A shard of two images costs as many requests as one of a thousand: a part, a record, and later a fold and a merge. So
neighbours of which a unit of the usual size could be made are committed as one would be: their rows in a merged file
(:mod:`regrad.ledger.files`), then ``OUT/ledger/bundle-<digest>.parquet``, whose one write commits them all
(:mod:`regrad.ledger.snapshots` has its columns). They stay units: each is read, retired and scored again by itself.

A note of retirement does not tell what a unit was committed by. Where one is left that was not folded yet, the unit is
committed by itself, with a record of its own, which is newer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regrad import storage
from regrad.ledger import commit, contents, snapshots
from regrad.ledger.commit import NewUnit
from regrad.ledger.files import NewFile

LEAST, MOST = 8, 256  # units in a bundle


def write_units(output: str, units: Sequence[NewUnit], allowed: Callable[[], None] = lambda: None) -> None:
    """Commit ``units``: together, if they are enough; those that replace others each by itself.

    Args:
        allowed: raises where this process may no longer write; asked before the first and before the last write.

    Raises:
        RegradError: the record of one is not that of its rows (it and those after it are not written), or the storage
            failed.
    """
    alone = [unit for unit in units if unit.replaces]
    together = [unit for unit in units if not unit.replaces]
    if len(together) >= LEAST:
        noted = contents.noted(output)
        alone += [unit for unit in together if unit.key in noted]
        together = [unit for unit in together if unit.key not in noted]
    if len(together) < LEAST:
        alone, together = [*units], []
    for unit in alone:
        commit.write_unit(output, unit, allowed)
    if together:
        _write_together(output, together, allowed)


def _write_together(output: str, units: Sequence[NewUnit], allowed: Callable[[], None]) -> None:
    for unit in units:
        unit.check()
    units = sorted(units, key=lambda unit: unit.key)  # as in every file of many units' rows
    allowed()
    records = snapshots.live(snapshots.to_table([unit.record for unit in units]))
    for kind, rows in units[0].rows.items():
        file = NewFile(rows.schema, units[0].footer)
        starts = [_add(file, unit, kind) for unit in units]
        if file.units:
            name, content = file.content()
            storage.write_atomically(storage.join(output, kind, name), content)
            records = snapshots.moved(records, kind, name, starts)
    allowed()
    snapshots.write_bundle(output, records)


def _add(file: NewFile, unit: NewUnit, kind: str) -> int | None:
    """The first row of ``unit`` in ``file``; None where it has none of this kind."""
    rows = unit.rows[kind]
    if not len(rows):
        return None
    return file.add(unit.key, rows, unit.footer["identity"], unit.footer["provenance"])
