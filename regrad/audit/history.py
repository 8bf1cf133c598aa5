"""The nights of an output: which units belong to which, one row for each in ``history.parquet``, and what is kept.

A night is audited when ``history.parquet`` has its row; that write, whole or not at all and under the output's lease,
is the commit. A row is keyed by the night's name, so the same audit run again replaces it and never doubles it. Units
belong to a night by ``audited.parquet``, which is written before and counts only with that row (see
:mod:`regrad.ledger.audited`): what an audit that was cut short claimed is audited by the next.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pyarrow as pa

from regrad import storage, table
from regrad.audit.gates import COUNT, METRICS
from regrad.errors import RegradError, UsageError
from regrad.ledger import audited

HISTORY_SCHEMA = pa.schema(
    [
        ("night", pa.string()),
        ("finished", pa.string()),
        ("model", pa.string()),
        ("baseline", pa.string()),
        ("score", pa.string()),
        ("threshold", pa.float64()),
        ("units", pa.int64()),
        *((name, pa.int64() if metric.kind == COUNT else pa.float64()) for name, metric in METRICS.items()),
        ("failed_gates", pa.list_(pa.string())),
        ("exit_code", pa.int32()),
        ("claim", pa.string()),
    ]
)
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
        rows = table.read_file(audited.history_uri(output), HISTORY_SCHEMA)
        self.rows: list[dict[str, Any]] = rows.to_pylist()
        self._audited = table.read_file(audited.audited_uri(output), audited.AUDITED_SCHEMA)
        self._nights = audited.nights_of(self._audited, rows)

    def before(self, night: str, count: int) -> list[dict[str, Any]]:
        """The rows of the last ``count`` nights before this one."""
        return [row for row in self.rows if row["night"] < night][-count:] if count else []

    def units_of(self, night: str, committed: Collection[str]) -> list[str]:
        """Those of the ``committed`` units that no other night has audited, sorted: this night's."""
        return sorted(key for key in committed if self._nights.get(key, night) == night)

    def units_gone(self, night: str, committed: Collection[str]) -> list[str]:
        """The units that this night has audited and that are not ``committed`` any more, sorted."""
        return sorted(key for key, own in self._nights.items() if own == night and key not in committed)

    def commit(self, row: dict[str, Any], units: Sequence[str], allowed: Callable[[], None]) -> None:
        """Take the night's ``row`` and units into the history; a row of the same night is replaced.

        A unit stays with its night for good: where it went, and comes back under its name, it is not new.

        Args:
            allowed: raises where this process may no longer write; asked before each write.

        Raises:
            RegradError: the storage refused or failed.
        """
        night, claim = row["night"], audited.claim_of(units)
        named = zip(*(column.to_pylist() for column in self._audited.columns), strict=True)
        # What the night's row says now is good until it is replaced; a claim without a row never was.
        held = [item for item in named if self._nights.get(item[1]) == item[0]]
        claims = dict.fromkeys([*held, *((night, unit, claim) for unit in units)])
        columns = list(zip(*claims, strict=True)) or [()] * len(audited.AUDITED_SCHEMA)
        rows = [*(old for old in self.rows if old["night"] != night), row | {"claim": claim}]
        rows.sort(key=lambda item: item["night"])
        history = pa.Table.from_pylist(rows, HISTORY_SCHEMA)
        allowed()
        self._audited = pa.table([pa.array(column, pa.string()) for column in columns], schema=audited.AUDITED_SCHEMA)
        table.write_file(audited.audited_uri(self._output), self._audited)
        allowed()
        table.write_file(audited.history_uri(self._output), history)
        self.rows, self._nights = rows, audited.nights_of(self._audited, history)

    def details(self, night: str) -> dict[str, Any] | None:
        """``audit.json`` of a night; None where it was not kept."""
        try:
            audit: dict[str, Any] = json.loads(
                storage.read_bytes(storage.join(folder(self._output, night), "audit.json"))
            )
        except FileNotFoundError:
            return None
        except ValueError as error:
            where = storage.mask(folder(self._output, night))
            raise RegradError(f"{where}/audit.json: not valid JSON; delete it, or audit that night again") from error
        return audit

    def forget(self, keep: int) -> list[str]:
        """Remove the files of all nights but the last ``keep``; their rows stay. Returns the nights that had any."""
        old = [row["night"] for row in self.rows[:-keep]]
        there = [night for night in old if storage.list_files(folder(self._output, night))]
        for night in there:
            storage.remove_folder(folder(self._output, night))
        return there
