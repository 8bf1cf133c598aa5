"""What an output holds: units, each one part and one ledger record, whole or not at all.

A unit is committed when its ledger record exists; the record is written last and removed first. A part without a
record is the rest of an attempt that was cut short: it is overwritten by the next attempt or swept away. Many small
units are committed together (:mod:`regrad.ledger.bundles`). Records are folded into snapshots now and then
(:mod:`regrad.ledger.fold`), which keep them under the same names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import contents, snapshots
from regrad.ledger.contents import KINDS, Held, look, part_uri, record_uri, retirement_uri
from regrad.ledger.rows import read_ids
from regrad.storage import at_once

WRITTEN = ("", *KINDS, "ledger")  # the folders of an output that a run writes units to
FOLDERS = (*WRITTEN, "lease", "retired", "provenance")
SOURCE_DIGITS = 12  # a key begins with its source's hash: the ledger's names alone tell which units a source has


def source_digits(source: str) -> str:
    """What the keys of the units of ``source`` begin with."""
    return hashlib.sha256(source.encode()).hexdigest()[:SOURCE_DIGITS]


def by_source(keys: Iterable[str]) -> dict[str, list[str]]:
    """``keys`` by the :func:`source_digits` they begin with."""
    grouped: dict[str, list[str]] = {}
    for key in keys:
        grouped.setdefault(key[:SOURCE_DIGITS], []).append(key)
    return grouped


@dataclass(frozen=True)
class Ledger:
    """What an output holds, for those who plan: its keys, and what more there is to know of a unit where it is asked.

    Attributes:
        keys: of the units that count.
        held: what the ledger was seen to hold, so that nobody need look again.
    """

    output: str
    keys: Collection[str]
    held: Held | None = field(default=None, repr=False)

    @classmethod
    def read(cls, output: str) -> Ledger:
        """All that ``output`` holds now."""
        held = look(output)
        return cls(output, frozenset([*held.loose, *held.folded]), held)

    def only(self, keys: Collection[str]) -> Ledger:
        """The same, of which these units alone count."""
        return replace(self, keys=keys)

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """See :func:`regrad.ledger.contents.read_records`."""
        return contents.read_records(self.output, keys, self.held)

    def table(self) -> pa.Table:
        """The records of the units that count and are still there, see :func:`regrad.ledger.contents.read_table`."""
        return contents.read_table(self.output, self.keys, self.held).select(snapshots.COLUMNS.names)

    def ids(self, records: Sequence[Mapping[str, Any]]) -> list[list[str] | None]:
        """See :func:`regrad.ledger.rows.read_ids`."""
        return read_ids(self.output, records)


@dataclass(frozen=True)
class NewUnit:
    """A unit to commit.

    Attributes:
        footer: what the parts say of themselves, see :func:`regrad.table.footer`.
        embeddings: a row for each of ``scores``, of an output that keeps them.
        replaces: the units that are retired by it.
    """

    record: dict[str, Any]
    scores: pa.Table
    quarantine: pa.Table
    footer: Mapping[str, Any]
    embeddings: pa.Table | None = None
    replaces: Sequence[str] = ()

    @property
    def key(self) -> str:
        """Its name."""
        return str(self.record["unit"])

    @property
    def rows(self) -> dict[str, pa.Table]:
        """Its rows by their kind."""
        kinds = zip(KINDS, (self.scores, self.quarantine, self.embeddings), strict=True)
        return {kind: rows for kind, rows in kinds if rows is not None}

    def check(self) -> None:
        """Compare its record with its rows.

        Raises:
            RegradError: rows_in is not rows_scored + rows_quarantined, or a scored image has no embedding.
        """
        scored, refused, source = self.scores.num_rows, self.quarantine.num_rows, storage.mask(self.record["source"])
        if not self.record["rows_in"] == scored + refused == _counted(self.record):
            raise RegradError(
                f"{source}: {self.record['rows_in']} rows read but {scored} scored and {refused} quarantined; the unit "
                "was not committed, please report this as a bug"
            )
        if self.embeddings is not None and self.embeddings.num_rows != scored:
            raise RegradError(
                f"{source}: {scored} rows scored but {self.embeddings.num_rows} embeddings; the unit was not "
                "committed, please report this as a bug"
            )


def write_unit(output: str, unit: NewUnit, allowed: Callable[[], None] = lambda: None) -> None:
    """Commit one unit: retire what it replaces, write its parts, then its record.

    Args:
        allowed: raises where this process may no longer write; asked before the first and before the last write.

    Raises:
        RegradError: its record is not that of its rows (nothing is written), or the storage failed.
    """
    unit.check()
    allowed()
    retire(output, unit.replaces)
    for kind, rows in unit.rows.items():
        uri = part_uri(output, kind, unit.key)
        if rows.num_rows:
            storage.write_atomically(uri, table.to_parquet(rows, unit.footer))
        else:
            storage.remove(uri)  # an earlier attempt may have left one
    allowed()
    storage.write_atomically(record_uri(output, unit.key), json.dumps(unit.record, sort_keys=True).encode())


def _counted(record: dict[str, Any]) -> int:
    return record["rows_scored"] + record["rows_quarantined"]


def retire(output: str, keys: Iterable[str]) -> None:
    """Remove units: every record first, then the parts, so that nothing looks committed without its rows.

    Each is noted as retired, since a fold may be taking its record in at this moment. (Of one whose rows were moved, a
    record of its own says nothing, and goes before the note would make it count.) Of a file of many units' rows, what
    is left of them stays until it is merged again; it goes where nothing is left.
    """
    keys = dict.fromkeys(keys)
    if not keys:
        return
    held = look(output)
    emptied = [storage.join(output, kind, file) for kind in KINDS for file in _emptied(held, kind, keys)]
    spare = [record_uri(output, key) for key in keys if key in held.loose and key in held.folded]
    at_once.perform(storage.remove, spare)
    at_once.perform(lambda key: storage.write_atomically(retirement_uri(output, key), b""), keys)
    at_once.perform(storage.remove, (record_uri(output, key) for key in keys))
    at_once.perform(storage.remove, (part_uri(output, kind, key) for kind in KINDS for key in keys))
    at_once.perform(storage.remove, emptied)


def _emptied(held: Held, kind: str, keys: Collection[str]) -> set[str]:
    """The merged files that have rows of these units and of no others that count."""
    own = {*held.moved(kind, keys).values()}
    return own - {*held.moved(kind, held.folded.keys() - keys).values()} if own else own


def left_over(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> list[str]:
    """What attempts that were cut short left in ``folders``: temporary files, parts of units that are not in ``keep``
    or whose rows were moved, merged files that no unit has rows in, and snapshots that were merged.
    """
    listed = {folder: storage.list_all(storage.join(output, folder) if folder else output) for folder in folders}
    held = look(output) if listed.keys() & {*KINDS} else None  # after the folders
    stray: list[str] = []
    for folder, (files, temporaries) in listed.items():
        place = storage.join(output, folder) if folder else output
        if held and folder in KINDS:
            moved = held.moved(folder)
            named = {*moved.values()}
            parts = {name: unit_of(name) for name in files if name.endswith(".parquet") and name not in named}
            elsewhere = moved.keys() | held.without(folder, parts.values())
            temporaries += [name for name, unit in parts.items() if unit not in keep or unit in elsewhere]
        elif folder == "ledger":
            temporaries += [snapshot.name for snapshot in snapshots.named(files)[1]]
        stray += [storage.join(place, name) for name in temporaries]
    return stray


def unit_of(part: str) -> str:
    """The key of the unit whose part has this name."""
    return part.removeprefix("part-").removesuffix(".parquet")


def sweep(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> int:
    """Remove what is :func:`left_over`, where ``keep`` are the committed and the planned units; returns how many."""
    stray = left_over(output, keep, folders)
    at_once.perform(storage.remove, stray)
    return len(stray)
