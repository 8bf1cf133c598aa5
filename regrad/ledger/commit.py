"""What an output holds: units, each one part and one ledger record, whole or not at all.

A unit is committed when its ledger record exists; the record is written last and removed first. A part without a
record is the rest of an attempt that was cut short: it is overwritten by the next attempt or swept away.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage, table
from regrad.errors import RegradError

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


def committed(output: str) -> set[str]:
    """The keys of the committed units, from the names in the ledger alone."""
    return {name.removesuffix(".json") for name in storage.list_files(storage.join(output, "ledger"), ".json")}


def read_records(output: str, keys: Iterable[str]) -> list[dict[str, Any]]:
    """The ledger records of ``keys``.

    Raises:
        RegradError: a record is missing or damaged.
    """
    with ThreadPoolExecutor(_THREADS, "regrad-ledger") as pool:
        return list(pool.map(lambda key: _read_record(record_uri(output, key)), keys))


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
    """

    output: str
    keys: Collection[str]

    def records(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """See :func:`read_records`."""
        return read_records(self.output, keys)

    def ids(self, records: Sequence[Mapping[str, Any]]) -> list[list[str] | None]:
        """See :func:`read_ids`."""
        return read_ids(self.output, records)


def _read_record(uri: str) -> dict[str, Any]:
    try:
        record = json.loads(storage.read_bytes(uri))
        return {**record, "unit": str(record["unit"])}
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise RegradError(
            f"{storage.mask(uri)}: not a readable ledger record ({storage.reason(error)}); delete it to score its "
            "unit again"
        ) from error


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
    with ThreadPoolExecutor(_THREADS, "regrad-retire") as pool:
        list(pool.map(storage.remove, [record_uri(output, key) for key in keys]))
        list(pool.map(storage.remove, [part_uri(output, kind, key) for kind in KINDS for key in keys]))


def left_over(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> list[str]:
    """What attempts that were cut short left: temporary files in ``folders``, and parts of units not in ``keep``."""
    places = [storage.join(output, name) if name else output for name in folders]
    temporary = [storage.join(place, name) for place in places for name in storage.list_temporaries(place)]
    return temporary + [
        storage.join(output, kind, name)
        for kind in KINDS
        for name in storage.list_files(storage.join(output, kind), ".parquet")
        if name.removeprefix("part-").removesuffix(".parquet") not in keep
    ]


def sweep(output: str, keep: Collection[str], folders: Sequence[str] = FOLDERS) -> int:
    """Remove what is :func:`left_over`, where ``keep`` are the committed and the planned units; returns how many."""
    stray = left_over(output, keep, folders)
    with ThreadPoolExecutor(_THREADS, "regrad-sweep") as pool:
        list(pool.map(storage.remove, stray))
    return len(stray)
