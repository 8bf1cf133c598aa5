"""The rows of an output by its ledger: which file has those of which unit, each unit's once, whatever else is going on.

One look at the ledger tells where the rows are; what it does not name does not count, such as the parts of an attempt
that was cut short, or rows of units that were replaced. Where a file is gone when it is to be read, its units were
moved to another: the ledger is looked at again for the units that were not read yet.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import contents, snapshots
from regrad.ledger.files import DAMAGE, RowFile, UnitRows
from regrad.storage import at_once

_AHEAD, _AHEAD_ROWS = 256, 2**16  # parts that are read before they are wanted, and about their rows


class Place(NamedTuple):
    """Where the rows of a unit are: in its own part (no ``file``), or in one of many units' rows from ``start`` on."""

    unit: str
    rows: int
    file: str | None
    start: int | None


class Rows:
    """The rows of one kind, ``scores``, ``quarantine`` or ``embeddings``, that ``output`` held when this was made.

    Args:
        units: only those of these units, if given.
        held: what the ledger held a moment ago, if the caller knows.
        places: where they are, if another has looked: the ledger is asked for those alone that are not there any more.

    Attributes:
        places: of the units that have rows, in the order of their names.

    Raises:
        RegradError: the storage refused or failed, or the ledger is damaged.
    """

    def __init__(
        self,
        output: str,
        kind: str = "scores",
        units: Collection[str] | None = None,
        held: contents.Held | None = None,
        places: Sequence[Place] | None = None,
    ):
        self.output, self.kind = output, kind
        self.places = self._look(units, held) if places is None else list(places)

    def count(self) -> int:
        """How many there are, by the ledger."""
        return sum(place.rows or 0 for place in self.places)

    def schema(self) -> pa.Schema | None:
        """The columns, by the first file; None where there is no row.

        Raises:
            RegradError: it cannot be read.
        """
        left = _by_file(self.places)
        while left:
            try:
                return self._open(left[0]).schema
            except FileNotFoundError as error:
                left = self._again(left, error)
            except DAMAGE as error:
                raise self._unreadable(error) from error
        return None

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """All rows, file by file, only ``columns`` if given; memory: a row group, or a few hundred parts.

        Raises:
            RegradError: the storage refused or failed, a file is damaged, or a unit was replaced meanwhile.
        """
        for _, rows in self.placed(columns):
            yield rows

    def placed(self, columns: Sequence[str] | None = None) -> Iterator[tuple[list[Place], pa.Table]]:
        """As :meth:`tables`, each with the places of the units whose rows it has, one after the other.

        Raises:
            RegradError: see :meth:`tables`.
        """
        left = _by_file(self.places)
        while left:
            done = 0
            try:
                for places, rows in self._stream(left, columns):
                    done += len(places)
                    yield places, rows
                return
            except FileNotFoundError as error:
                left = self._again(left[done:], error)
            except DAMAGE as error:
                raise self._unreadable(error) from error

    def by_unit(self, columns: Sequence[str] | None = None) -> Iterator[tuple[Place, UnitRows | Exception]]:
        """The rows of each unit, in the order of the units' names, or why they cannot be read.

        Memory: a row group of every merged file that has units of both earlier and later names, and a few hundred
        parts.

        Raises:
            RegradError: the storage refused or failed.
        """
        last = {place.file: place.unit for place in self.places}
        opened: dict[str, RowFile] = {}
        now: dict[str, Place] = {}
        lost: set[str | None] = set()  # files that the ledger names, and that are not there
        for window in _windows(self.places):
            parts = [place for place in window if place.file is None]
            read = dict(zip(parts, at_once.answers(lambda place: self._try(place, columns), parts), strict=True))
            lost.discard(None)  # of a window's parts: all of them were asked for before the ledger
            for place in window:
                unit = read.pop(place, None) or self._try(place, columns, opened)
                while isinstance(unit, FileNotFoundError):  # moved since, or gone
                    if now.get(place.unit, place) == place and place.file not in lost:
                        now = {item.unit: item for item in self._look({item.unit for item in self.places})}
                        last = {item.file: item.unit for item in now.values()}
                        lost.update([place.file] if now.get(place.unit) == place else [None])
                    if now.get(place.unit, place) == place:
                        break
                    place = now[place.unit]
                    unit = self._try(place, columns, opened)
                yield place, unit
                if place.file and last.get(place.file, "") <= place.unit:
                    opened.pop(place.file, None)

    def _look(self, units: Collection[str] | None, held: contents.Held | None = None) -> list[Place]:
        rows = contents.read_table(self.output, units, held)
        file, start = (rows[name] for name in snapshots.place_columns(self.kind))
        counts = rows[contents.COUNTED[self.kind]]
        columns = (rows["unit"].to_pylist(), counts.to_pylist(), snapshots.values_of(file), start.to_pylist())
        places = map(Place, *columns)
        return [place for place in places if place.rows != 0]

    def _again(self, left: Sequence[Place], error: Exception) -> list[Place]:
        """Where the units of ``left`` are now, the first of which was not where it is said to be."""
        now = {place.unit: place for place in self._look({place.unit for place in left})}
        gone = [place.unit for place in left if place.unit not in now]
        if gone:
            raise RegradError(
                f"{storage.mask(self.output)}: unit {gone[0]} was replaced while it was read; run the same command "
                "again"
            ) from error
        if now[left[0].unit] == left[0]:
            raise self._unreadable(error) from error
        return _by_file(now.values())

    def _uri(self, place: Place) -> str:
        if place.file is None:
            return contents.part_uri(self.output, self.kind, place.unit)
        return storage.join(self.output, self.kind, place.file)

    def _open(self, place: Place) -> RowFile:
        return RowFile(self._uri(place), whole=place.file is None)

    def _try(
        self, place: Place, columns: Sequence[str] | None, opened: dict[str, RowFile] | None = None
    ) -> UnitRows | Exception:
        try:
            if place.file is None or place.start is None or opened is None:
                return self._open(place).part(columns)
            if place.file not in opened:
                opened[place.file] = self._open(place)
            return opened[place.file].unit(place.unit, place.start, place.rows, columns)
        except DAMAGE as error:
            return error

    def _stream(self, places: Sequence[Place], columns: Sequence[str] | None) -> Iterator[tuple[list[Place], pa.Table]]:
        """Rows, and of which of the ``places`` they are."""
        for file, some in itertools.groupby(places, key=lambda place: place.file):
            own = list(some)
            if file is not None:
                yield from _live(self._open(own[0]), own, columns)
                continue
            for window in _windows(own):
                read = at_once.answers(lambda place: self._open(place).read(None, columns), window)
                for place, rows in zip(window, read, strict=True):
                    yield [place], rows

    def _unreadable(self, error: Exception) -> RegradError:
        return RegradError(f"{storage.mask(self.output)}/{self.kind}: cannot read: {storage.reason(error)}")


def _by_file(places: Iterable[Place]) -> list[Place]:
    """The merged files first, and in each the rows in their order."""
    return sorted(places, key=lambda place: (place.file is None, place.file or "", place.start or 0, place.unit))


def _windows(places: Iterable[Place]) -> Iterator[list[Place]]:
    window: list[Place] = []
    rows = 0
    for place in places:
        window.append(place)
        rows += 0 if place.file else place.rows
        if len(window) == _AHEAD or rows >= _AHEAD_ROWS:
            yield window
            window, rows = [], 0
    if window:
        yield window


def _live(
    file: RowFile, places: Sequence[Place], columns: Sequence[str] | None
) -> Iterator[tuple[list[Place], pa.Table]]:
    """The rows of ``places``, a row group at a time, and of which of them they are."""
    starts = np.array([place.start for place in places], np.int64)
    counts = np.array([place.rows for place in places], np.int64)
    groups = file.group_of(starts)
    for group in np.unique(groups):
        there = np.flatnonzero(groups == group)
        rows = file.read(int(group), columns)
        if counts[there].sum() < len(rows):
            spans = zip(starts[there] - file.starts[group], counts[there], strict=True)
            rows = pa.concat_tables([rows.slice(start, count) for start, count in spans])
        yield [places[place] for place in there.tolist()], rows


def read_ids(output: str, records: Sequence[Mapping[str, Any]]) -> list[list[str] | None]:
    """The ids of the rows of units with these ledger records, scored or not, in the order of the rows.

    None for a unit of which the files do not hold every row once, each with an id.

    Raises:
        RegradError: the storage refused or failed.
    """
    ids: dict[str, dict[int | None, str | None]] = {record["unit"]: {} for record in records}
    for kind in contents.ONCE:
        for place, unit in Rows(output, kind, ids.keys()).by_unit(["row", "id"]):
            if not isinstance(unit, Exception):
                columns = (unit.rows[name].to_pylist() for name in ("row", "id"))
                ids[place.unit] |= zip(*columns, strict=True)
    return [_in_order(record, ids[record["unit"]]) for record in records]


def _in_order(record: Mapping[str, Any], ids: Mapping[int | None, str | None]) -> list[str] | None:
    ordered = [ids.get(row) for row in range(record["start"], record["stop"])]
    whole = [name for name in ordered if name is not None]
    return whole if len(whole) == len(ordered) == len(ids) else None
