"""Parts of many units merged into files of a sensible size: under the lease, and at no time in doubt.

A file is whole before a snapshot says that rows are in it; that one write moves them; then what they were in before
goes. Only units of which a snapshot has the last word are moved, each with all its rows of a kind. Sizes grow as those
of snapshots do: what is new is merged with files of about its size, and one of :data:`FULL` bytes is left alone, so
that the cost follows what is new. A file with rows that do not count any more, since their units were retired, is
written again without them. Whatever a merge that was cut short has left is swept away by the next run
(:func:`regrad.ledger.commit.sweep`).
"""

from __future__ import annotations

import itertools
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from regrad import storage, table
from regrad.ledger import contents, files, fold, snapshots
from regrad.ledger.rows import Place, Rows
from regrad.storage import at_once

AT_LEAST = 64  # parts; of less there is nothing to gain
_PARTS = 8  # as many as a file counts for of units that were committed together, and that is still small
FULL = 64 * 2**20  # bytes; such a file is left alone, unless it has rows that do not count any more
_ENDED = 2 * FULL  # bytes after which a file is ended
_UNITS = 2**16  # in a file, whose footer names them
_ALONE = 2**20  # rows of a unit that stays in its own part
_GROWTH = 2  # a file of at most so many times the rows of what is newer is merged with it
_LOOKED_AT, _LOOKED_AT_ROWS = 256, 2**15  # units and about their rows, by which the columns are chosen
ONLY_WORN = sys.maxsize  # parts: so many there never are

Ints = npt.NDArray[np.int64]


def merge(
    output: str,
    allowed: Callable[[], None],
    at_least: int | None = None,
    kinds: Sequence[str] = contents.KINDS,
) -> int:
    """Merge the parts of units that are in snapshots, if there are enough of them; returns how many units were moved.

    What cannot be read, or has other columns than the most, stays as it is.

    Args:
        allowed: raises where this process may no longer write; asked before each write, and before removals.
        at_least: so many parts of a kind, or an eighth as many files of about the same size; :data:`AT_LEAST` unless
            told, :data:`ONLY_WORN` for none. Files with rows that do not count any more are written again all the same.
        kinds: those that the output has, see :func:`regrad.ledger.contents.kinds_kept`.

    Raises:
        RegradError: the storage refused or failed.
    """
    held = contents.look(output)
    least = AT_LEAST if at_least is None else at_least
    wanted = {kind: _wanted(held, kind, least) for kind in kinds}
    return sum(_merge(output, kind, units, allowed) for kind, units in wanted.items() if units)


def _merge(output: str, kind: str, wanted: list[str], allowed: Callable[[], None]) -> int:
    moved = 0
    names = _Names(output, allowed)
    for name, content, places in _files(Rows(output, kind, wanted), names):
        allowed()
        storage.write_atomically(storage.join(output, kind, name), content)
        moved += _move(output, kind, name, places, allowed)
    return moved


def _wanted(held: contents.Held, kind: str, at_least: int) -> list[str]:
    """The units whose rows are to be written to other files: a million are looked at in about a second."""
    names = ("unit", contents.COUNTED[kind], snapshots.place_columns(kind)[0])
    rows = snapshots.take(held.rows.select(names), [*held.movable.values()])
    counts = pc.fill_null(rows[names[1]], 0).to_numpy()
    file = rows[names[2]].combine_chunks().dictionary_encode()
    codes = pc.fill_null(file.indices, -1).to_numpy()
    own = (codes < 0) & (counts > 0) & (counts < _ALONE)
    if own.sum() < at_least:
        own[:] = False
    known = [_Known(name, *totals) for name, *totals in _totals(file.dictionary.to_pylist(), codes, counts)]
    worn = [place for place, one in enumerate(known) if one.rows < one.size.rows]
    new = int(counts[own | np.isin(codes, worn)].sum())
    small = [place for place, one in enumerate(known) if place not in worn and not one.is_full()]
    small.sort(key=lambda place: known[place].rows)
    count = _alike([known[place].rows for place in small], new if own.any() else 0, max(2, at_least // _PARTS))
    units: list[str] = rows["unit"].filter(pa.array(own | np.isin(codes, worn + small[:count]))).to_pylist()
    return units


def _alike(rows: Sequence[int], new: int, at_least: int) -> int:
    """How many of the files with so many ``rows``, in increasing order, are merged.

    With as many rows that are ``new``, those of about their size or smaller; where nothing is, those that are
    ``at_least`` so many of about the same size, and all smaller ones.
    """
    together, number = new, 0
    for place, own in enumerate(rows):
        if own > _GROWTH * together:
            if new or number >= at_least:
                return place
            together = number = 0
        together += own
        number += 1
    return len(rows) if new or number >= at_least else 0


@dataclass(frozen=True)
class _Known:
    """A merged file, with the units and rows of it that count."""

    name: str
    units: int
    rows: int

    @property
    def size(self) -> files.Size:
        """Of the whole file."""
        return files.size_of(self.name) or files.Size(0, 0)

    def is_full(self) -> bool:
        """Whether it is left alone."""
        return self.size.bytes >= FULL or self.units >= _UNITS // 2


def _totals(names: list[str], codes: Ints, counts: Ints) -> Iterator[tuple[str, int, int]]:
    """Of each file its name, units and rows, where unit i has ``counts[i]`` rows in file ``codes[i]``, -1 for none."""
    there = codes >= 0
    units = np.bincount(codes[there], minlength=len(names))
    rows = np.bincount(codes[there], counts[there], minlength=len(names)).astype(np.int64)
    yield from zip(names, units.tolist(), rows.tolist(), strict=True)


class _Names:
    """Names of where rows come from; what has none yet, since an earlier version wrote it, is given one."""

    def __init__(self, output: str, allowed: Callable[[], None]):
        self._output, self._allowed = output, allowed
        self._known: dict[str, str] = {}

    def of(self, said: Mapping[str, Any]) -> str:
        """What the footer of the file calls it, or will call it."""
        if "provenance" in said:
            return str(said["provenance"])
        whole = {name: value for name, value in said.items() if name not in ("unit", "identity")}
        content = json.dumps(whole, sort_keys=True)
        if content not in self._known:
            self._allowed()
            self._known[content] = table.write_provenance(self._output, whole)
        return self._known[content]


def _files(rows: Rows, names: _Names) -> Iterator[tuple[str, bytes, list[Place]]]:
    """Files of these rows, their names, and the units in each, in their order."""
    whole = _whole(rows)
    first = _first(whole)
    if not first:
        return
    ((schema, _),) = Counter(unit.rows.schema for _, unit in first).most_common(1)
    alike = (item for item in itertools.chain(first, whole) if item[1].rows.schema.equals(schema))
    for opening in alike:
        file, places = files.NewFile(schema, opening[1].said), []
        for place, unit in itertools.chain([opening], alike):
            places.append(place)
            file.add(place.unit, unit.rows, unit.said["identity"], names.of(unit.said))
            if file.size >= _ENDED or file.units >= _UNITS:
                break
        yield *file.content(), places


def _first(whole: Iterator[tuple[Place, files.UnitRows]]) -> list[tuple[Place, files.UnitRows]]:
    first = []
    rows = 0
    for place, unit in whole:
        first.append((place, unit))
        rows += place.rows
        if len(first) == _LOOKED_AT or rows >= _LOOKED_AT_ROWS:
            break
    return first


def _whole(rows: Rows) -> Iterator[tuple[Place, files.UnitRows]]:
    """The units that are there as the ledger has it; `regrad check` tells of the others."""
    for place, unit in rows.by_unit():
        if not isinstance(unit, Exception) and unit.said.get("unit") == place.unit and len(unit.rows) == place.rows:
            yield place, unit


def _move(output: str, kind: str, name: str, places: Sequence[Place], allowed: Callable[[], None]) -> int:
    """Let the ledger say that the rows of ``places`` are in the file ``name``, and remove what they were in before."""
    held = contents.look(output)
    starts = itertools.accumulate((place.rows for place in places), initial=0)  # one more than there are places
    # A unit may have been retired meanwhile: its rows in the file count no more, which the next merge finds.
    there = {place.unit: start for place, start in zip(places, starts, strict=False) if place.unit in held.movable}
    if not there:
        return 0
    rows = snapshots.take(held.rows, [held.movable[unit] for unit in there])
    spare = fold.add_snapshot(output, held, snapshots.moved(rows, kind, name, [*there.values()]), allowed)
    allowed()
    at_once.perform(storage.remove, spare)
    at_once.perform(storage.remove, _left_behind(output, kind, places, there))
    return len(there)


def _left_behind(output: str, kind: str, places: Sequence[Place], there: Iterable[str]) -> list[str]:
    """The parts of units that were moved, and the files that have none left."""
    moved = {*there}
    parts = [contents.part_uri(output, kind, place.unit) for place in places if not place.file and place.unit in moved]
    named = {*contents.look(output).moved(kind).values()}
    left = {place.file for place in places if place.file} - named
    return parts + [storage.join(output, kind, file) for file in sorted(left)]
