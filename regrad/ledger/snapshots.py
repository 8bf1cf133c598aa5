"""Ledger records in Parquet, so that a million units are a few objects to list and to read.

``OUT/ledger/snapshot-<first>-<last>-<digest>.parquet`` holds what the folds of these numbers took in: a row for a
unit that was committed, and one, marked ``gone``, for a unit of an earlier snapshot that was retired. A snapshot never
changes (its name has the digest of its content); one whose numbers another covers has been merged into it and counts
no more. Of the rows of one unit, that of the highest number holds; it says too which file has the unit's images
(:data:`PLACES`), so that writing a snapshot is what moves them. What is not folded yet is newer than every snapshot:
``OUT/ledger/<key>.json`` is the record of a unit, ``OUT/ledger/<key>.*.gone`` retires one. A unit that has both was
committed again, and is there. ``OUT/ledger/bundle-<digest>.parquet`` has the same columns as a snapshot, and the units
that were committed together by writing it (:mod:`regrad.ledger.bundles`); a note of retirement counts for them too.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
import pyarrow.parquet

from regrad import storage, table
from regrad.errors import RegradError
from regrad.storage import at_once

_NUMBERS = ("start", "stop", "rows_in", "rows_scored", "rows_quarantined", "labelled", "correct", "labels_outside")
_TEXTS = ("unit", "source", "identity", "finished")
#: A column for each value that all records have; what else a record holds is JSON in ``rest``.
COLUMNS = pa.schema(
    [
        *((name, pa.string()) for name in _TEXTS),
        *((name, pa.int64()) for name in _NUMBERS),
        ("schema_version", pa.int64()),
        ("seconds", pa.float64()),
        ("rest", pa.string()),
    ]
)
_PLACES = {kind: (f"{kind}_file", f"{kind}_row") for kind in ("scores", "quarantine", "embeddings")}
#: Of each kind of rows, the file below ``OUT/<kind>/`` that has those of the unit among others', and the first of them
#: in it. Null where the unit has a part of its own, or none.
PLACES = pa.schema(
    [field for file, row in _PLACES.values() for field in (pa.field(file, pa.string()), pa.field(row, pa.int64()))]
)
SCHEMA = pa.schema([*COLUMNS, pa.field("gone", pa.bool_()), *PLACES])
_VALUES = [name for name in COLUMNS.names if name != "rest"]
_NAME = re.compile(r"snapshot-(\d{8})-(\d{8})-[0-9a-f]{16}\.parquet")
_BUNDLE = re.compile(r"bundle-[0-9a-f]{16}\.parquet")


@dataclass(frozen=True, order=True)
class Snapshot:
    """The name of one: the numbers of the folds it holds."""

    first: int
    last: int
    name: str

    def covers(self, other: Snapshot) -> bool:
        """Whether it holds all that ``other`` does, and more."""
        numbers, others = (self.first, self.last), (other.first, other.last)
        return self.first <= other.first and other.last <= self.last and numbers != others


def named(names: Iterable[str]) -> tuple[list[Snapshot], list[Snapshot]]:
    """Of the names in a ledger, the snapshots that count, oldest first, and those that were merged into another.

    >>> [len(part) for part in named(["snapshot-00000001-00000001-0123456789abcdef.parquet", "0a.json"])]
    [1, 0]
    """
    matches = filter(None, map(_NAME.fullmatch, names))
    all_of_them = sorted(Snapshot(int(match[1]), int(match[2]), match[0]) for match in matches)
    merged = [one for one in all_of_them if any(other.covers(one) for other in all_of_them)]
    return [one for one in all_of_them if one not in merged], merged


def bundles(names: Iterable[str]) -> list[str]:
    """Of the names in a ledger, those of units that were committed together, in their order.

    >>> bundles(["bundle-0123456789abcdef.parquet", "0a.json"])
    ['bundle-0123456789abcdef.parquet']
    """
    return sorted(filter(_BUNDLE.fullmatch, names))


def read_snapshots(output: str, snapshots: Sequence[Snapshot], later: Sequence[pa.Table] = ()) -> pa.Table:
    """The rows that hold, ``gone`` ones among them, with the columns of :data:`SCHEMA`.

    Args:
        later: rows that are newer than any snapshot.

    Raises:
        FileNotFoundError: one has been merged into another meanwhile.
        RegradError: one is damaged, or the storage failed.
    """
    tables = [_read(storage.join(output, "ledger", snapshot.name)) for snapshot in snapshots]
    return newest([*tables, *later])


def read_bundles(output: str, names: Sequence[str]) -> list[pa.Table]:
    """Of each of these bundles the rows.

    Raises:
        FileNotFoundError: one was folded meanwhile.
        RegradError: one is damaged, or the storage failed.
    """
    return list(at_once.answers(lambda name: _read_bundle(storage.join(output, "ledger", name)), names))


def row_count(output: str, snapshot: Snapshot) -> int:
    """How many rows it has."""
    return len(_read(storage.join(output, "ledger", snapshot.name)))


def newest(tables: Sequence[pa.Table]) -> pa.Table:
    """One row a unit, the one of the last of ``tables`` that has it."""
    rows = pa.concat_tables([pa.Table.from_batches([], schema=SCHEMA), *tables])
    if pc.count_distinct(rows["unit"]).as_py() == len(rows):
        return rows
    units = rows["unit"].combine_chunks().dictionary_encode()
    last = np.empty(len(units.dictionary), np.int64)
    last[units.indices.to_numpy()] = np.arange(len(rows))  # of several, the last is kept
    return take(rows, np.sort(last))


def _load(uri: str) -> pa.Table:
    content = storage.read_bytes(uri)
    try:
        if _digest(content) not in uri.rpartition("/")[2]:
            raise ValueError("its content is not that of its name")
        rows = pa.parquet.ParquetFile(table.in_memory(content)).read()
        for field in PLACES:  # which earlier versions did not write
            if field.name not in rows.column_names:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        return rows.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise RegradError(
            f"{storage.mask(uri)}: not a readable ledger snapshot ({storage.reason(error)}); delete it to score its "
            "units again"
        ) from error


# The names have the digests of the contents. Bundles are small, and many until the next fold.
_read = functools.lru_cache(maxsize=16)(_load)
_read_bundle = functools.lru_cache(maxsize=1024)(_load)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def by_name(rows: pa.Table) -> pa.Table:
    """``rows`` by the names of their units. (``Table.sort_by`` imports pandas.)"""
    return rows.take(pc.array_sort_indices(rows["unit"].combine_chunks()))


def write_snapshot(output: str, first: int, last: int, rows: pa.Table) -> Snapshot:
    """Write ``rows`` as the snapshot of these numbers."""
    content = _content(rows)
    snapshot = Snapshot(first, last, f"snapshot-{first:08}-{last:08}-{_digest(content)}.parquet")
    storage.write_atomically(storage.join(output, "ledger", snapshot.name), content)
    return snapshot


def write_bundle(output: str, rows: pa.Table) -> str:
    """Write ``rows`` as units that are committed by it, and return its name."""
    content = _content(rows)
    name = f"bundle-{_digest(content)}.parquet"
    storage.write_atomically(storage.join(output, "ledger", name), content)
    return name


def _content(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pa.parquet.write_table(by_name(rows), sink, compression="zstd")
    return sink.getvalue()


def foldable(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those that have every value that has a column, of the column's type, and come back as they are."""
    complete = [record for record in records if all(name in record for name in _VALUES)]
    try:
        if to_records(to_table(complete)) == complete:
            return complete
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    if len(complete) == 1:
        return []
    middle = len(complete) // 2
    return foldable(complete[:middle]) + foldable(complete[middle:])


def to_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Records as rows of :data:`COLUMNS`; null where an earlier version did not write a value.

    Raises:
        pa.ArrowException: a value is not of its column's type.
    """
    if not records:
        return pa.Table.from_batches([], schema=COLUMNS)
    lines = []
    for record in records:
        rest = {name: value for name, value in record.items() if name not in _VALUES}
        own = {name: value for name, value in record.items() if name in _VALUES}
        lines.append(json.dumps(own | {"rest": json.dumps(rest, sort_keys=True)}).encode())
    # Arrow's own arrays of Python values import pandas, which `regrad status` should not wait for.
    reading = pyarrow.json.ReadOptions(block_size=max(2**20, 2 * max(map(len, lines))))
    parsing = pyarrow.json.ParseOptions(explicit_schema=COLUMNS, unexpected_field_behavior="error")
    return pyarrow.json.read_json(table.in_memory(b"\n".join(lines)), reading, parsing).select(COLUMNS.names)


def take(rows: pa.Table, places: Sequence[int] | np.ndarray[Any, Any]) -> pa.Table:
    """The rows at these places."""
    numbers = np.asarray(places, np.int64)
    return rows.take(pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)]))


def values_of(column: pa.ChunkedArray) -> list[str | None]:
    """The values of ``column``, equal ones one object: a million names of a few files take little memory."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    return [None if place is None else values[place] for place in encoded.indices.to_pylist()]


def to_records(rows: pa.Table) -> list[dict[str, Any]]:
    """The inverse of :func:`to_table`."""
    return [
        {name: value for name, value in row.items() if name in _VALUES} | json.loads(row["rest"])
        for row in rows.to_pylist()
    ]


def gone(keys: Sequence[str]) -> pa.Table:
    """A row of :data:`SCHEMA` for each unit that was retired."""
    return _rows({"unit": pa.array(keys, pa.string()), "gone": pa.array([True] * len(keys), pa.bool_())}, len(keys))


def live(rows: pa.Table) -> pa.Table:
    """Rows of :data:`COLUMNS` as committed units, each with its own part."""
    given = dict(zip(rows.column_names, rows.columns, strict=True))
    none = pa.Array.from_buffers(pa.bool_(), len(rows), [None, pa.py_buffer(bytes(len(rows) // 8 + 1))])
    return _rows(given | {"gone": none}, len(rows))


def _rows(columns: Mapping[str, Any], count: int) -> pa.Table:
    whole = [columns[field.name] if field.name in columns else pa.nulls(count, field.type) for field in SCHEMA]
    return pa.table(whole, schema=SCHEMA)


def place_columns(kind: str) -> tuple[str, str]:
    """The columns of :data:`PLACES` of this kind of rows: file, and first row."""
    return _PLACES[kind]


def moved(rows: pa.Table, kind: str, file: str, starts: Sequence[int | None]) -> pa.Table:
    """``rows`` of units whose rows of this kind are now in ``file``, from these on; None where a unit has none."""
    files = [None if start is None else file for start in starts]
    for name, values in zip(place_columns(kind), (files, starts), strict=True):
        field = SCHEMA.field(name)
        rows = rows.set_column(SCHEMA.get_field_index(name), field, pa.array(values, field.type))
    return rows
