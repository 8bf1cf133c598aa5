"""The nights of an output: which units belong to which, one row for each in ``history.parquet``, and what is kept.

A night is audited when ``history.parquet`` has its row; that write, whole or not at all and under the output's lease,
is the commit. A row is keyed by the night's name, so the same audit run again replaces it and never doubles it. Units
belong to a night by ``audited.parquet``, which is written before and counts only for nights that have their row: what
an audit that was cut short claimed is audited by the next.
"""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from regrad import storage
from regrad.audit.gates import METRICS
from regrad.errors import RegradError, UsageError

_WHOLE = ("images", "flagged", "quarantined_rows", "drifted_classes", "drifted_sources")
HISTORY_SCHEMA = pa.schema(
    [
        ("night", pa.string()),
        ("finished", pa.string()),
        ("model", pa.string()),
        ("baseline", pa.string()),
        ("score", pa.string()),
        ("threshold", pa.float64()),
        ("units", pa.int64()),
        *((name, pa.int64() if name in _WHOLE else pa.float64()) for name in METRICS),
        ("failed_gates", pa.list_(pa.string())),
        ("exit_code", pa.int32()),
    ]
)
_AUDITED_SCHEMA = pa.schema([("night", pa.string()), ("unit", pa.string())])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def tonight() -> str:
    """The date in UTC: what a night is called unless it is told."""
    return time.strftime("%Y-%m-%d", time.gmtime())


def check_name(name: str) -> str:
    """``name``, if a night may be called that: it becomes a folder, and the order of names is that of the nights.

    Raises:
        UsageError: it may not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"--night {name!r}: at most 64 letters, digits, dots, dashes and underscores, such as 2026-11-24; nights "
            "are in the order of their names"
        )
    return name


def folder(output: str, night: str) -> str:
    """Where the files of one night are."""
    return storage.join(output, "nights", night)


class History:
    """The nights of ``output`` that were audited.

    Attributes:
        rows: one dictionary a night, in order.

    Raises:
        RegradError: the storage refused or failed, or a file is damaged.
    """

    def __init__(self, output: str):
        self._output = output
        self.rows: list[dict[str, Any]] = _read(storage.join(output, "history.parquet"), HISTORY_SCHEMA).to_pylist()
        self._audited = _read(storage.join(output, "audited.parquet"), _AUDITED_SCHEMA)

    def before(self, night: str, count: int) -> list[dict[str, Any]]:
        """The rows of the last ``count`` nights before this one."""
        return [row for row in self.rows if row["night"] < night][-count:] if count else []

    def units_of(self, night: str, committed: Collection[str]) -> list[str]:
        """Those of the ``committed`` units that no other night has audited, sorted: this night's."""
        others = [row["night"] for row in self.rows if row["night"] != night]
        taken = self._audited.filter(pc.is_in(self._audited["night"], value_set=pa.array(others, pa.string())))
        return sorted(set(committed) - set(taken["unit"].to_pylist()))

    def commit(
        self, row: dict[str, Any], units: Sequence[str], committed: Collection[str], allowed: Callable[[], None]
    ) -> None:
        """Take the night's ``row`` and units into the history; a row of the same night is replaced.

        Args:
            committed: all units there are: others are forgotten.
            allowed: raises where this process may no longer write; asked before each write.

        Raises:
            RegradError: the storage refused or failed.
        """
        night = row["night"]
        held = self._audited.filter(pc.not_equal(self._audited["night"], night))
        held = held.filter(pc.is_in(held["unit"], value_set=pa.array(list(committed), pa.string())))
        own = pa.table({"night": [night] * len(units), "unit": list(units)}, schema=_AUDITED_SCHEMA)
        rows = sorted([*(old for old in self.rows if old["night"] != night), row], key=lambda item: item["night"])
        allowed()
        _write(storage.join(self._output, "audited.parquet"), pa.concat_tables([held, own]))
        allowed()
        _write(storage.join(self._output, "history.parquet"), pa.Table.from_pylist(rows, HISTORY_SCHEMA))
        self.rows = rows

    def details(self, night: str) -> dict[str, Any] | None:
        """``audit.json`` of a night; None where it was not kept."""
        try:
            found: dict[str, Any] = json.loads(
                storage.read_bytes(storage.join(folder(self._output, night), "audit.json"))
            )
        except FileNotFoundError:
            return None
        except ValueError as error:
            where = storage.mask(folder(self._output, night))
            raise RegradError(f"{where}/audit.json: not valid JSON; delete it, or audit that night again") from error
        return found

    def forget(self, keep: int) -> list[str]:
        """Remove the files of all nights but the last ``keep``; their rows stay. Returns the nights that had any."""
        old = [row["night"] for row in self.rows[:-keep]]
        there = [night for night in old if storage.list_files(folder(self._output, night))]
        for night in there:
            storage.remove_folder(folder(self._output, night))
        return there


def _read(uri: str, schema: pa.Schema) -> pa.Table:
    """The table at ``uri`` with the columns of ``schema``; without rows where there is none."""
    try:
        found = pa.parquet.read_table(pa.BufferReader(storage.read_bytes(uri)))
    except FileNotFoundError:
        return schema.empty_table()
    except pa.ArrowException as error:
        raise RegradError(
            f"{storage.mask(uri)}: not readable as Parquet ({storage.reason(error)}); move it away to begin anew"
        ) from error
    columns = [
        found[field.name].cast(field.type) if field.name in found.column_names else pa.nulls(len(found), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _write(uri: str, rows: pa.Table) -> None:
    sink = io.BytesIO()
    pa.parquet.write_table(rows, sink, compression="zstd")
    storage.write_atomically(uri, sink.getvalue())
