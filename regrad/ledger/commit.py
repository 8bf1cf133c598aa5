"""What an output holds: units, each one part and one ledger record, whole or not at all.

A unit is committed when its ledger record exists; the record is written last and removed first. A part without a
record is the rest of an attempt that was cut short: it is overwritten by the next attempt or swept away. Records are
folded into snapshots now and then (:mod:`regrad.ledger.fold`), which keep them under the same names.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage, table
from regrad.errors import RegradError
from regrad.ledger import snapshots
from regrad.ledger.snapshots import Snapshot

_LOOKS = 8  # at a ledger whose snapshots are merged while it is read
_THREADS = 32  # requests to a store at the same time; they wait far more than they compute
KINDS = ("scores", "quarantine")
WRITTEN = ("", *KINDS, "ledger")  # the folders of an output that a run writes units to
FOLDERS = (*WRITTEN, "lease", "retired")
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


def part_uri(output: str, kind: str, key: str) -> str:
    """Where unit ``key`` has its rows of this ``kind`` (scores or quarantine)."""
    return storage.join(output, kind, f"part-{key}.parquet")


def record_uri(output: str, key: str) -> str:
    """Where unit ``key`` has its ledger record."""
    return storage.join(output, "ledger", f"{key}.json")


def retirement_uri(output: str, key: str) -> str:
    """Where it says that unit ``key``, whose record is in a snapshot, is no more."""
    return storage.join(output, "ledger", f"{key}.gone")


@dataclass(frozen=True, eq=False)
class Held:
    """What a ledger held at one time.

    Attributes:
        loose: the units that have a record of their own.
        retired: those of a snapshot that are no more, unless they are ``loose`` again.
        snapshots, merged: those that count, oldest first, and those that do not.
        rows: what the snapshots say, see :data:`regrad.ledger.snapshots.SCHEMA`.
    """

    loose: frozenset[str]
    retired: frozenset[str]
    snapshots: Sequence[Snapshot]
    merged: Sequence[Snapshot]
    rows: pa.Table

    @functools.cached_property
    def folded(self) -> dict[str, int]:
        """The units that are committed by a snapshot alone, and the place of their rows."""
        units, gone = self.rows["unit"].to_pylist(), self.rows["gone"].to_pylist()
        places = enumerate(zip(units, gone, strict=True))
        newer = self.loose | self.retired
        return {unit: place for place, (unit, left) in places if not left and unit not in newer}


def look(output: str) -> Held:
    """What the ledger holds now: one listing, and the snapshots that this process has not read yet."""
    for _ in range(_LOOKS):
        names = storage.list_files(storage.join(output, "ledger"))
        counting, merged = snapshots.named(names)
        try:
            rows = snapshots.read_snapshots(output, counting)
        except FileNotFoundError:  # another process has merged it
            continue
        loose, retired = (
            frozenset(name.removesuffix(suffix) for name in names if name.endswith(suffix))
            for suffix in (".json", ".gone")
        )
        return Held(loose, retired, counting, merged, rows)
    raise RegradError(f"{storage.mask(output)}: its ledger is rewritten all the time; try again when it is at rest")


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
    with ThreadPoolExecutor(_THREADS, "regrad-ledger") as pool:
        own = pool.map(lambda key: read_record(output, key), apart)
        records = {key: record for key, record in zip(apart, own, strict=True) if record is not None}
    if len(records) < len(apart):  # folded since, or gone
        held = look(output)
    folded = [key for key in keys if key not in records]
    for key in folded:
        if key not in held.folded:
            raise _unreadable(record_uri(output, key), FileNotFoundError("no such file"))
    records |= zip(folded, snapshots.to_records(_rows_of(held, folded)), strict=True)
    return [records[key] for key in keys]


def _rows_of(held: Held, keys: Iterable[str]) -> pa.Table:
    return snapshots.take(held.rows.select(snapshots.COLUMNS.names), [held.folded[key] for key in keys])


def read_ids(output: str, records: Sequence[Mapping[str, Any]]) -> list[list[str] | None]:
    """The ids of the rows of units with these ledger records, scored or not, in the order of the rows.

    None for a unit of which the parts do not hold every row once, each with an id.

    Raises:
        RegradError: the storage refused or failed.
    """
    with ThreadPoolExecutor(_THREADS, "regrad-ids") as pool:
        return list(pool.map(lambda record: _read_ids(output, record), records))


def _read_ids(output: str, record: Mapping[str, Any]) -> list[str] | None:
    ids: dict[int | None, str | None] = {}
    for kind in KINDS:
        rows = read_part(output, kind, record, ["row", "id"])
        ids |= {} if rows is None else dict(zip(rows["row"].to_pylist(), rows["id"].to_pylist(), strict=True))
    ordered = [ids.get(row) for row in range(record["start"], record["stop"])]
    whole = [name for name in ordered if name is not None]
    return whole if len(whole) == len(ordered) == len(ids) else None


def read_part(output: str, kind: str, record: Mapping[str, Any], columns: Sequence[str]) -> pa.Table | None:
    """These columns of a unit's rows of this kind, those that earlier versions did not write being null.

    None where there are none, also of a part that is damaged or gone: :mod:`regrad.pipeline.check` tells of those.

    Raises:
        RegradError: the storage refused or failed.
    """
    if not record[f"rows_{'scored' if kind == 'scores' else 'quarantined'}"]:
        return None
    try:
        part = pa.parquet.ParquetFile(pa.BufferReader(storage.read_bytes(part_uri(output, kind, record["unit"]))))
        rows = part.read([name for name in columns if name in part.schema_arrow.names])
        for field in table.LATER_COLUMNS:
            if field.name in columns and field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        return rows.select(list(columns))
    except (FileNotFoundError, pa.ArrowException, KeyError):
        return None


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
        """See :func:`read_records`."""
        return read_records(self.output, keys, self.held)

    def table(self) -> pa.Table:
        """The records of the units that count and are still there, in the order of their names, as rows of
        :data:`regrad.ledger.snapshots.COLUMNS`: a million take less than a second where they are in snapshots.

        Raises:
            RegradError: a record is damaged, or the storage refused or failed.
        """
        held = self.held or look(self.output)
        apart = sorted(key for key in self.keys if key not in held.folded)
        with ThreadPoolExecutor(_THREADS, "regrad-ledger") as pool:
            read = list(pool.map(lambda key: read_record(self.output, key), apart))
        own = [record for record in read if record is not None]
        rows = [_rows_of(held, (key for key in self.keys if key in held.folded))]
        if len(own) < len(apart):  # folded since, or gone
            since = look(self.output)
            left = (key for key, record in zip(apart, read, strict=True) if record is None)
            rows.append(_rows_of(since, (key for key in left if key in since.folded)))
        try:
            rows.append(snapshots.to_table(own))
        except pa.ArrowException:
            for record in own:
                self._check_types(record)
            raise
        return snapshots.by_name(pa.concat_tables(rows))

    def _check_types(self, record: dict[str, Any]) -> None:
        try:
            snapshots.to_table([record])
        except pa.ArrowException as error:
            raise _unreadable(record_uri(self.output, record["unit"]), error) from error

    def ids(self, records: Sequence[Mapping[str, Any]]) -> list[list[str] | None]:
        """See :func:`read_ids`."""
        return read_ids(self.output, records)


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


def _unreadable(uri: str, error: Exception) -> RegradError:
    return RegradError(
        f"{storage.mask(uri)}: not a readable ledger record ({storage.reason(error)}); delete it to score its "
        "unit again"
    )


def write_unit(
    output: str,
    record: dict[str, Any],
    scores: pa.Table,
    quarantine: pa.Table,
    provenance: dict[str, Any],
    replaces: Iterable[str] = (),
    allowed: Callable[[], None] = lambda: None,
) -> None:
    """Commit one unit: retire what it replaces, write its parts, then its record.

    Args:
        allowed: raises where this process may no longer write; asked before the first and before the last write.

    Raises:
        RegradError: rows_in is not rows_scored + rows_quarantined (nothing is written), or the storage failed.
    """
    if not record["rows_in"] == scores.num_rows + quarantine.num_rows == _counted(record):
        raise RegradError(
            f"{storage.mask(record['source'])}: {record['rows_in']} rows read but {scores.num_rows} scored and "
            f"{quarantine.num_rows} quarantined; the unit was not committed, please report this as a bug"
        )
    allowed()
    retire(output, replaces)
    for kind, rows in zip(KINDS, (scores, quarantine), strict=True):
        uri = part_uri(output, kind, record["unit"])
        if rows.num_rows:
            storage.write_atomically(uri, table.to_parquet(rows, provenance))
        else:
            storage.remove(uri)  # an earlier attempt may have left one
    allowed()
    content = json.dumps(record, sort_keys=True).encode()
    storage.write_atomically(record_uri(output, record["unit"]), content)


def _counted(record: dict[str, Any]) -> int:
    return record["rows_scored"] + record["rows_quarantined"]


def retire(output: str, keys: Iterable[str]) -> None:
    """Remove units: every record first, then the parts, so that nothing looks committed without its rows."""
    keys = list(keys)
    if not keys:
        return
    folded = set(look(output).rows["unit"].to_pylist())
    with ThreadPoolExecutor(_THREADS, "regrad-retire") as pool:
        noted = [retirement_uri(output, key) for key in keys if key in folded]
        list(pool.map(lambda uri: storage.write_atomically(uri, b""), noted))
        list(pool.map(storage.remove, [record_uri(output, key) for key in keys]))
        list(pool.map(storage.remove, [part_uri(output, kind, key) for kind in KINDS for key in keys]))


def left_over(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> list[str]:
    """What attempts that were cut short left in ``folders``: temporary files, parts of units that are not in ``keep``,
    and snapshots that were merged.
    """
    stray: list[str] = []
    for folder in folders:
        place = storage.join(output, folder) if folder else output
        files, temporaries = storage.list_all(place)
        if folder in KINDS:
            temporaries += [name for name in files if name.endswith(".parquet") and _unit_of(name) not in keep]
        elif folder == "ledger":
            temporaries += [snapshot.name for snapshot in snapshots.named(files)[1]]
        stray += [storage.join(place, name) for name in temporaries]
    return stray


def _unit_of(part: str) -> str:
    return part.removeprefix("part-").removesuffix(".parquet")


def sweep(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> int:
    """Remove what is :func:`left_over`, where ``keep`` are the committed and the planned units; returns how many."""
    stray = left_over(output, keep, folders)
    with ThreadPoolExecutor(_THREADS, "regrad-sweep") as pool:
        list(pool.map(storage.remove, stray))
    return len(stray)
