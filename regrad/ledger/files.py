"""Files of rows: a unit's own part, or one that has the rows of many units, each in one row group.

``OUT/scores/merged-<rows>-<bytes>-<digest>.parquet`` (and likewise in ``quarantine/``) never changes: its name has how
much is in it and the digest of its content. The footer says of every unit in it which rows are its, and where they
come from. Which of them count, the ledger says.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from regrad import storage, table

#: What reading a damaged file raises.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
_GROUP_ROWS = 2**15  # after which a row group is ended; it has whole units
_NAME = re.compile(r"merged-(\d{10})-(\d{12})-[0-9a-f]{16}\.parquet")


class Size(NamedTuple):
    """What the name of a merged file says."""

    rows: int
    bytes: int


def size_of(name: str) -> Size | None:
    """Of a merged file; None for another's name.

    >>> size_of("merged-0000000012-000000004096-0123456789abcdef.parquet")
    Size(rows=12, bytes=4096)
    """
    match = _NAME.fullmatch(name)
    return Size(int(match[1]), int(match[2])) if match else None


def name_for(rows: int, content: bytes | memoryview) -> str:
    """The name of a merged file of this content."""
    return f"merged-{rows:010}-{len(content):012}-{hashlib.sha256(content).hexdigest()[:16]}.parquet"


@dataclass(frozen=True)
class UnitRows:
    """The rows of one unit.

    Attributes:
        said: what the footer says of the unit: ``unit``, ``identity`` and ``provenance``, a name or all there is.
    """

    rows: pa.Table
    said: Mapping[str, Any]


class RowFile:
    """A file of rows, open for reading; every page's checksum is compared.

    Raises:
        FileNotFoundError: it is not there any more.
        RegradError: the storage refused or failed.
        One of :data:`DAMAGE`: it is damaged.
    """

    def __init__(self, uri: str, whole: bool):
        try:
            source = table.in_memory(storage.read_bytes(uri)) if whole else storage.open_file(uri)
        except storage.Changed as error:
            raise FileNotFoundError(str(error)) from error
        # A file of Python's is read by this thread alone: see table.in_memory.
        self._file = pa.parquet.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
        self._own = self._file.schema_arrow
        groups = self._file.metadata
        self.starts = np.cumsum([0, *(groups.row_group(place).num_rows for place in range(groups.num_row_groups))])
        self._last: tuple[Any, pa.Table] | None = None

    @property
    def schema(self) -> pa.Schema:
        """Its columns, those that came later among them."""
        return table.with_later(self._own.remove_metadata())

    @functools.cached_property
    def footer(self) -> dict[str, Any]:
        """What it says of itself."""
        said: dict[str, Any] = json.loads((self._file.metadata.metadata or {})[table.PROVENANCE_KEY])
        return said

    @functools.cached_property
    def _units(self) -> dict[str, tuple[int, int, str, str]]:
        """Unit -> first row, rows, identity, provenance."""
        start, units = 0, {}
        for unit, identity, rows, provenance in self.footer["units"]:
            units[unit] = (start, rows, identity, self.footer["provenance"][provenance])
            start += rows
        return units

    @functools.cached_property
    def _about(self) -> dict[str, Any]:
        return {name: self.footer[name] for name in table.ABOUT if name in self.footer}

    def group_of(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n,) the row groups of these rows."""
        groups: npt.NDArray[np.int64] = np.searchsorted(self.starts, rows, side="right") - 1
        if len(groups) and (groups.max() >= len(self.starts) - 1 or groups.min() < 0):
            raise ValueError("it has fewer rows than the ledger says")
        return groups

    def read(self, group: int | None = None, columns: Sequence[str] | None = None) -> pa.Table:
        """A row group, or all: only ``columns``, if given, null where an earlier version did not write one."""
        wanted = list(self.schema.names if columns is None else columns)
        if self._last and self._last[0] == (group, wanted):
            return self._last[1]
        own = self._own.names
        there = [name for name in wanted if name in own]
        try:
            if group is None:
                rows = self._file.read(there, use_threads=False)
            else:
                rows = self._file.read_row_group(group, there, use_threads=False)
        except storage.Changed as error:
            raise FileNotFoundError(str(error)) from error
        for field in table.LATER_COLUMNS:
            if field.name in wanted and field.name not in there:
                rows = rows.append_column(field, pa.nulls(len(rows), field.type))
        rows = rows.select(wanted).replace_schema_metadata(None)
        self._last = ((group, wanted), rows)
        return rows

    def part(self, columns: Sequence[str] | None = None) -> UnitRows:
        """All, of a unit's own part."""
        return UnitRows(self.read(None, columns), self.footer)

    def unit(self, unit: str, start: int, rows: int, columns: Sequence[str] | None = None) -> UnitRows:
        """The rows of ``unit``, which the ledger says are these."""
        own = self._units.get(unit)
        if own is None or own[:2] != (start, rows):
            raise ValueError("its footer names other rows")
        (group,) = self.group_of(np.array([start]))
        said = {**self._about, "unit": unit, "identity": own[2], "provenance": own[3]}
        return UnitRows(self.read(int(group), columns).slice(start - self.starts[group], rows), said)


class NewFile:
    """A file of many units' rows in the making: in memory, since its name has its size and digest.

    Args:
        about: what the footer says of all of it, see :data:`regrad.table.ABOUT`.

    Attributes:
        units, rows, size: how many are in it, and its bytes but for what waits for the end of a row group.
    """

    def __init__(self, schema: pa.Schema, about: Mapping[str, Any]):
        self.rows = 0
        self._about = {name: about[name] for name in table.ABOUT if name in about}
        self._sink = io.BytesIO()
        self._writer = table.writer(self._sink, schema)
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._units: list[tuple[str, str, int, int]] = []
        self._names: dict[str, int] = {}

    @property
    def units(self) -> int:
        """See the class."""
        return len(self._units)

    @property
    def size(self) -> int:
        """See the class."""
        return self._sink.tell()

    def add(self, unit: str, rows: pa.Table, identity: str, provenance: str) -> int:
        """Add the rows of a unit, which come from what has this name; returns the first of them in the file."""
        start = self.rows
        self._units.append((unit, identity, len(rows), self._names.setdefault(provenance, len(self._names))))
        self._waiting.append(rows)
        self.rows += len(rows)
        self._waiting_rows += len(rows)
        if self._waiting_rows >= _GROUP_ROWS:
            self._end_group()
        return start

    def _end_group(self) -> None:
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._writer.write_table(rows, row_group_size=len(rows))
        self._waiting, self._waiting_rows = [], 0

    def content(self) -> tuple[str, bytes]:
        """The name and all bytes of the file, which is ended by that."""
        if self._waiting:
            self._end_group()
        said = {**self._about, "provenance": list(self._names), "units": self._units}
        self._writer.add_key_value_metadata(table.metadata(said))
        self._writer.close()
        content = self._sink.getvalue()
        return name_for(self.rows, content), content
