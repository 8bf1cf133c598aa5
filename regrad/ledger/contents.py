"""What the ledger of an output holds: one look at its names and snapshots, and the records of units.

A unit is committed when its ledger record exists, be it a file of its own (it is *loose*), or a row of a snapshot or of
a bundle. Where its rows are, its row there says too (:data:`regrad.ledger.snapshots.PLACES`).
"""

from __future__ import annotations

import functools
import itertools
import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import snapshots
from regrad.ledger.snapshots import Snapshot
from regrad.storage import at_once

_LOOKS = 8  # at a ledger that is folded while it is read
ONCE = ("scores", "quarantine")  # every row that was read is in one of them
KINDS = (*ONCE, "embeddings")
#: What a record calls its rows of a kind.
COUNTED = {"scores": "rows_scored", "quarantine": "rows_quarantined", "embeddings": "rows_scored"}


def kinds_kept(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The kinds of rows of an output of this configuration: a scored image has an embedding, or none of them has."""
    return KINDS if config.get("embeddings") else ONCE


def part_uri(output: str, kind: str, key: str) -> str:
    """Where unit ``key`` has its rows of this ``kind``, one of :data:`KINDS`, unless they were merged into a file."""
    return storage.join(output, kind, f"part-{key}.parquet")


def record_uri(output: str, key: str) -> str:
    """Where unit ``key`` has its ledger record."""
    return storage.join(output, "ledger", f"{key}.json")


def retirement_uri(output: str, key: str) -> str:
    """Where it says that unit ``key`` is no more, under a new name each time: a fold that took in an earlier note
    removes that one alone."""
    return storage.join(output, "ledger", f"{key}.{uuid.uuid4().hex[:8]}.gone")


@dataclass(frozen=True, eq=False)
class Held:
    """What a ledger held at one time.

    Attributes:
        loose: the units that have a record of their own.
        notes: the names of the notes of retirement, by the units that are no more, unless they are ``loose`` again.
        snapshots, merged: those that count, oldest first, and those that do not.
        rows: what the snapshots and bundles say, see :data:`regrad.ledger.snapshots.SCHEMA`.
        bundles: the names of those, and the units in each.
    """

    loose: frozenset[str]
    notes: Mapping[str, Sequence[str]]
    snapshots: Sequence[Snapshot]
    merged: Sequence[Snapshot]
    rows: pa.Table
    bundles: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def retired(self) -> Set[str]:
        """The units with a note of retirement."""
        return self.notes.keys()

    @functools.cached_property
    def bundled(self) -> frozenset[str]:
        """The units in bundles, those that are retired among them."""
        return frozenset(itertools.chain(*self.bundles.values()))

    @property
    def settled(self) -> bool:
        """Whether every unit in a bundle counts by it: if not, the file of their rows has some that do not count."""
        told = sum(map(len, self.bundles.values()))
        return told == len(self.bundled) and self.bundled.isdisjoint(self.retired)

    @functools.cached_property
    def folded(self) -> dict[str, int]:
        """The units that are committed by a snapshot or a bundle alone, and the place of their rows.

        Among them are those that have a record of their own too where a file has their rows among others': they were
        committed once more, with the same rows under the same name, by a worker that did not know. Their part may be
        gone already, and counts no more. Where they were retired first, it is their record that counts.
        """
        units, gone, placed = (column.to_pylist() for column in (self.rows["unit"], self.rows["gone"], self._placed()))
        newer = self.loose | self.retired
        return {
            unit: place
            for place, (unit, left, there) in enumerate(zip(units, gone, placed, strict=True))
            if not left and (unit not in newer or (there and unit not in self.retired))
        }

    @functools.cached_property
    def movable(self) -> dict[str, int]:
        """Those of :attr:`folded` of which a snapshot has the last word: another one can say where their rows are."""
        return {unit: place for unit, place in self.folded.items() if unit not in self.bundled}

    def moved(self, kind: str, units: Iterable[str] | None = None) -> dict[str, str]:
        """Of the committed units among ``units`` (of all, unless told), the merged file that has their rows of this
        kind, where one has."""
        there = [*self.folded] if units is None else [unit for unit in units if unit in self.folded]
        column = self.rows.select([snapshots.place_columns(kind)[0]])
        files = snapshots.values_of(snapshots.take(column, [self.folded[unit] for unit in there])[0])
        return {unit: file for unit, file in zip(there, files, strict=True) if file}

    def without(self, kind: str, units: Iterable[str]) -> set[str]:
        """Those of ``units`` that are :attr:`folded` and have no rows of this kind."""
        there = [unit for unit in units if unit in self.folded]
        counts = snapshots.take(self.rows.select([COUNTED[kind]]), [self.folded[unit] for unit in there])[0]
        return {unit for unit, count in zip(there, counts.to_pylist(), strict=True) if count == 0}

    def _placed(self) -> pa.ChunkedArray:
        """Of each row, whether a file has rows of its unit together with others'."""
        files = (pc.is_valid(self.rows[snapshots.place_columns(kind)[0]]) for kind in KINDS)
        return functools.reduce(pc.or_, files)


def look(output: str) -> Held:
    """What the ledger holds now: one listing, and the snapshots that this process has not read yet."""
    for _ in range(_LOOKS):
        names = storage.list_files(storage.join(output, "ledger"))
        counting, merged = snapshots.named(names)
        together = snapshots.bundles(names)
        try:
            bundled = snapshots.read_bundles(output, together)
            rows = snapshots.read_snapshots(output, counting, bundled)
        except FileNotFoundError:  # another process has merged or folded it
            continue
        loose = frozenset(name.removesuffix(".json") for name in names if name.endswith(".json"))
        bundles = {name: some["unit"].to_pylist() for name, some in zip(together, bundled, strict=True)}
        return Held(loose, _notes(names), counting, merged, rows, bundles)
    raise RegradError(f"{storage.mask(output)}: its ledger is rewritten all the time; try again when it is at rest")


def _notes(names: Iterable[str]) -> dict[str, list[str]]:
    """Of the names in a ledger the notes of retirement, by the units that are no more."""
    notes: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".gone"):
            notes.setdefault(name.partition(".")[0], []).append(name)
    return notes


def noted(output: str) -> Set[str]:
    """The units with a note of retirement: by one listing, without reading anything."""
    return _notes(storage.list_files(storage.join(output, "ledger"))).keys()


def committed(output: str) -> set[str]:
    """The keys of the committed units."""
    held = look(output)
    return {*held.loose, *held.folded}


def read_records(output: str, keys: Iterable[str], held: Held | None = None) -> list[dict[str, Any]]:
    """The ledger records of ``keys``.

    Args:
        held: what the ledger held a moment ago, if the caller knows.

    Raises:
        RegradError: a record is missing or damaged.
    """
    keys = list(keys)
    if not keys:
        return []
    held = held or look(output)
    apart = [key for key in keys if key not in held.folded]
    own = _read_own(output, apart)
    records = {key: record for key, record in zip(apart, own, strict=True) if record is not None}
    if len(records) < len(apart):  # folded since, or gone
        held = look(output)
    folded = [key for key in keys if key not in records]
    for key in folded:
        if key not in held.folded:
            raise _unreadable(record_uri(output, key), FileNotFoundError("no such file"))
    rows = _rows_of(held, folded).select(snapshots.COLUMNS.names)
    records |= zip(folded, snapshots.to_records(rows), strict=True)
    return [records[key] for key in keys]


def read_table(output: str, keys: Collection[str] | None = None, held: Held | None = None) -> pa.Table:
    """The records of the units ``keys`` (of all, unless told) that are still there, in the order of their names, and
    where their rows are: as rows of :data:`regrad.ledger.snapshots.SCHEMA`.

    A million take less than a second where they are in snapshots.

    Args:
        held: what the ledger held a moment ago, if the caller knows.

    Raises:
        RegradError: a record is damaged, or the storage refused or failed.
    """
    held = held or look(output)
    keys = {*held.loose, *held.folded} if keys is None else keys
    apart = sorted(key for key in keys if key not in held.folded)
    read = _read_own(output, apart)
    own = [record for record in read if record is not None]
    rows = [_rows_of(held, (key for key in keys if key in held.folded))]
    if len(own) < len(apart):  # folded since, or gone
        since = look(output)
        left = (key for key, record in zip(apart, read, strict=True) if record is None)
        rows.append(_rows_of(since, (key for key in left if key in since.folded)))
    try:
        rows.append(snapshots.live(snapshots.to_table(own)))
    except pa.ArrowException:
        for record in own:
            _check_types(output, record)
        raise
    return snapshots.by_name(pa.concat_tables(rows))


def _rows_of(held: Held, keys: Iterable[str]) -> pa.Table:
    return snapshots.take(held.rows, [held.folded[key] for key in keys])


def _read_own(output: str, keys: Sequence[str]) -> list[dict[str, Any] | None]:
    """The records of their own that ``keys`` have."""
    return list(at_once.answers(lambda key: read_record(output, key), keys))


def read_record(output: str, key: str) -> dict[str, Any] | None:
    """The record of its own that unit ``key`` has; None where there is none.

    Raises:
        RegradError: it is damaged, or the storage refused or failed.
    """
    uri = record_uri(output, key)
    try:
        record = json.loads(storage.read_bytes(uri))
        return {**record, "unit": str(record["unit"])}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise _unreadable(uri, error) from error


def _check_types(output: str, record: dict[str, Any]) -> None:
    try:
        snapshots.to_table([record])
    except pa.ArrowException as error:
        raise _unreadable(record_uri(output, record["unit"]), error) from error


def _unreadable(uri: str, error: Exception) -> RegradError:
    return RegradError(
        f"{storage.mask(uri)}: not a readable ledger record ({storage.reason(error)}); delete it to score its "
        "unit again"
    )
