"""What an output holds: units, each one part and one ledger record, whole or not at all.

A unit is committed when its ledger record exists; the record is written last and removed first. A part without a
record is the rest of an attempt that was cut short: it is overwritten by the next attempt or swept away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from regrad import storage, table
from regrad.errors import RegradError

_THREADS = 32  # requests to a store at the same time; they wait far more than they compute
KINDS = ("scores", "quarantine")
WRITTEN = ("", *KINDS, "ledger")  # the folders of an output that a run writes units to
FOLDERS = (*WRITTEN, "lease")


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
