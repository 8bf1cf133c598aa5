"""From sources to units of work: what is committed already, what is to do, and what is out of date."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from regrad.ledger.commit import SOURCE_DIGITS, by_source, source_digits
from regrad.reading.folder import locate
from regrad.reading.formats import Extent, Mark, ReadIds, Source

DEFAULT_UNIT_ROWS = 1024
UNIT_BYTES = 2**30  # of a source that is cut at marks: reading takes its time too
_UNITS_PER_TASK = 8  # of the usual size: units that follow each other in one worker are read without a pause
_MOST_PER_TASK = 1024  # however small
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Unit:
    """A range of rows of one source, scored and committed as one.

    Attributes:
        stop: the first row that is not in it; None: to the end.
        key: its name in the output: a hash of content, range, model and configuration.
        rows: how many there are; None where only reading tells.
        size: its share of the source's bytes, for estimates.
        files, labels: of a listing (a folder), those in the range.
        extent: of a source that is read from marks, where its rows lie.
        replaces: committed units that overlap it (from an earlier ``--limit``), to be retired when it commits.
    """

    source: str
    kind: str
    start: int
    stop: int | None
    identity: str
    key: str
    rows: int | None
    size: int
    files: tuple[str, ...] = field(default=(), repr=False)
    labels: tuple[int | None, ...] = field(default=(), repr=False)
    extent: Extent | None = None
    replaces: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The attributes as JSON text, which Ray carries."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """The inverse of :meth:`to_json`."""
        values = json.loads(text)
        values |= {name: tuple(values[name]) for name in ("files", "labels", "replaces")}
        return cls(**values | {"extent": values["extent"] and Extent(*values["extent"])})


class Span(NamedTuple):
    """Some rows of a source that are, or may become, a unit: of a million, few are worth more than this."""

    start: int
    stop: int | None
    key: str

    def overlaps(self, start: int, stop: int | None) -> bool:
        """Whether it shares a row with ``start <= row < stop``."""
        return (stop is None or self.start < stop) and (self.stop is None or start < self.stop)

    def within(self, start: int, stop: int | None) -> bool:
        """Whether all its rows are in ``start <= row < stop``."""
        return start <= self.start and (stop is None or (self.stop is not None and self.stop <= stop))


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        pending: the units to score, in input order.
        done: keys of committed units of these inputs.
        obsolete: keys of units whose source has changed since: retired before scoring.
        held_elsewhere: keys of another output's units of listings, whose files are left to it.
    """

    pending: tuple[Unit, ...]
    done: frozenset[str]
    obsolete: tuple[str, ...]
    held_elsewhere: frozenset[str] = frozenset()


def make_unit(source: Source, start: int, stop: int | None, salt: str, places: Sequence[int] | None = None) -> Unit:
    """The unit of these rows; ``salt`` stands for everything but the content (model, configuration, schema).

    Args:
        places: of a listing, the files of these rows; those of the same numbers unless told.
    """
    if places is None and source.files:
        places = range(len(source.files))[start:stop]
    identity = source.identity if places is None else source.identity_at(places)
    key = unit_key(source.uri, identity, start, stop, salt)
    rows = None if source.rows is None else (source.rows if stop is None else stop) - start
    size = source.size if not rows or not source.rows else source.size * rows // source.rows
    files = tuple(source.files[place] for place in places or ())
    labels = tuple(source.labels[place] for place in places or ())
    extent = source.extent(start, stop)
    return Unit(source.uri, source.kind, start, stop, identity, key, rows, size, files, labels, extent)


def unit_key(source: str, identity: str, start: int, stop: int | None, salt: str) -> str:
    """The name of a unit: 32 hexadecimal digits, the first of which stand for the source."""
    content = json.dumps([source, identity, start, stop, salt]).encode()
    return source_digits(source) + hashlib.sha256(content).hexdigest()[: 32 - SOURCE_DIGITS]


def span(source: Source, start: int, stop: int | None, salt: str) -> Span:
    """These rows, under the name that :func:`make_unit` gives them."""
    return Span(start, stop, unit_key(source.uri, source.identity_of(start, stop), start, stop, salt))


def cut(source: Source, unit_rows: int, salt: str) -> Iterator[Span]:
    """A whole source as ranges of ``unit_rows`` rows, or as one where only reading tells how many there are.

    Where it has marks, ranges begin there, and are shorter or, if these lie further apart, longer.
    """
    if source.rows is None:
        yield span(source, 0, None, salt)
        return
    starts = _at_marks(source, unit_rows) if source.marks else range(0, source.rows, unit_rows)
    for start, stop in itertools.pairwise([*starts, source.rows]):
        yield span(source, start, stop, salt)


def _at_marks(source: Source, unit_rows: int) -> Iterator[int]:
    """The marked rows where units begin: as few as make units of no more than ``unit_rows`` and ``UNIT_BYTES``."""
    first = before = source.marks[0]
    yield first.row
    for mark in (*source.marks[1:], Mark(source.rows or 0, source.size)):
        if before is not first and (mark.row - first.row > unit_rows or mark.byte - first.byte > UNIT_BYTES):
            first = before
            yield first.row
        before = mark


class HeldUnits(Protocol):
    """What a plan must know of an output, see :class:`regrad.ledger.commit.Ledger`."""

    @property
    def keys(self) -> Collection[str]:
        """Of the units it holds."""

    def records(self, keys: list[str]) -> list[dict[str, Any]]:
        """The ledger records of these units."""

    def ids(self, records: Sequence[Mapping[str, Any]]) -> Sequence[Sequence[str] | None]:
        """The ids of the rows of the units with these records."""


class _Held:
    """The units that an output holds of some sources: those whose names are planned, and the records of the others."""

    def __init__(self, ledger: HeldUnits | None, sources: Iterable[str], planned: Collection[str]):
        self.keys: Collection[str] = ledger.keys if ledger else ()
        self.read_ids: ReadIds = ledger.ids if ledger else (lambda records: [])
        self._records: dict[str, list[dict[str, Any]]] = defaultdict(list)
        keys = by_source(self.keys)
        names = [key for uri in sources for key in keys.get(source_digits(uri), ()) if key not in planned]
        for record in ledger.records(names) if ledger and names else ():
            self._records[record["source"]].append(record)

    def records(self, source: Source) -> list[dict[str, Any]]:
        """Of the units of ``source`` that have another name than a planned one, in the order of their rows."""
        return sorted(self._records[source.uri], key=lambda record: (record["start"], record["unit"]))


def make_plan(
    sources: Sequence[Source],
    unit_rows: int,
    salt: str,
    ledger: HeldUnits | None = None,
    limit: int | None = None,
    elsewhere: HeldUnits | None = None,
) -> Plan:
    """The plan for ``sources`` on an output with this ``ledger``, or on a new one.

    Assumptions: every committed unit was made with this ``salt`` (``run.json`` guards that). Units of sources that
    are not among ``sources`` stay as they are. Records, and the ids of listings, are read only where a name does not
    tell enough.

    Args:
        limit: score at most this many images, from the first source on; the rows of a source that does not say how many
            it has (a tar) are then counted.
        elsewhere: what another output holds and need not be scored here, whatever it was cut and scored by.
    """
    whole = {source.uri: list(cut(source, unit_rows, salt)) for source in sources}
    wanted = _limited(sources, whole, salt, limit)
    grid = {unit.key for units in whole.values() for unit in units}
    held, others = (_Held(known, whole, grid) for known in (ledger, elsewhere))
    parts = [
        (_plan_listing if source.files else _plan_shard)(
            source, _Cut(unit_rows, salt, whole[source.uri], wanted[source.uri]), held, others
        )
        for source in sources
    ]
    return Plan(
        tuple(unit for part in parts for unit in part.pending),
        frozenset(key for part in parts for key in part.done),
        tuple(key for part in parts for key in part.obsolete),
        frozenset(key for part in parts for key in part.held_elsewhere),
    )


@dataclass(frozen=True)
class _Cut:
    """How a source is cut: into ``whole`` as it is listed, of which ``wanted`` is what a limit leaves."""

    unit_rows: int
    salt: str
    whole: Sequence[Span]
    wanted: Sequence[Span]

    def unit(self, source: Source, rows: Span, replaces: tuple[str, ...] = ()) -> Unit:
        """The unit of these rows."""
        return dataclasses.replace(make_unit(source, rows.start, rows.stop, self.salt), replaces=replaces)


def _plan_shard(source: Source, cut: _Cut, held: _Held, others: _Held) -> Plan:
    """A source that changes as a whole: its units are ranges of its rows."""
    full = [unit for unit in cut.whole if unit.key in held.keys]
    partial: list[dict[str, Any]] = []
    obsolete: list[str] = []
    for record in held.records(source):
        (partial.append(record) if record["identity"] == source.identity else obsolete.append(record["unit"]))
    ranges = [(record["start"], record["stop"]) for record in partial]
    cut_ranges = ranges + [(unit.start, unit.stop) for unit in full]  # one of the grid is never inside another
    alike = (other for other in others.records(source) if other["identity"] == source.identity)
    known = [(other["start"], other["stop"]) for other in alike]
    grid = {unit.key for unit in cut.whole}

    def overlapped(rows: Span) -> tuple[str, ...]:
        return tuple(record["unit"] for record in partial if rows.overlaps(record["start"], record["stop"]))

    todo = [
        cut.unit(source, rows, overlapped(rows))
        for rows in cut.wanted
        if rows.key not in held.keys
        and rows.key not in others.keys
        and not any(rows.within(*bounds) for bounds in (ranges if rows.key in grid else cut_ranges) + known)
    ]
    replaced = {key for unit in todo for key in unit.replaces}
    done = {unit.key for unit in full} | {record["unit"] for record in partial} - replaced
    return Plan(tuple(todo), frozenset(done), tuple(obsolete))


def _plan_listing(source: Source, cut: _Cut, held: _Held, others: _Held) -> Plan:
    """A source that is a listing, to which files come, and from which they go, in any place.

    A unit whose files are all there as they were stays, wherever in the listing they are now; one of which a file has
    changed keeps its rows. Files of no such unit are cut into new ones, whose rows come after all that there are: a row
    counts files in the order of their arrival. What is left of a unit that has lost a file is not put together with
    what is new, and likely to stay longer.
    """
    full = [unit for unit in cut.whole if unit.key in held.keys]
    left = [unit for unit in cut.whole if unit.key in others.keys]
    done, elsewhere = {unit.key for unit in full}, {unit.key for unit in left}
    records, foreign = held.records(source), others.records(source)
    if not records and not foreign:  # cut as it is listed, up to now
        todo = [cut.unit(source, rows) for rows in cut.wanted if rows.key not in done and rows.key not in elsewhere]
        return Plan(tuple(todo), frozenset(done), (), frozenset(elsewhere))
    covered = {place for unit in full for place in range(unit.start, unit.stop or 0)}
    changed: list[tuple[dict[str, Any], Sequence[int]]] = []
    for record, unit in zip(records, locate(source, records, held.read_ids), strict=True):
        if unit.current and covered.isdisjoint(unit.places):
            covered.update(unit.places)
            done.add(record["unit"])
        else:
            changed.append((record, unit.places))
    covered.update(place for unit in left for place in range(unit.start, unit.stop or 0))
    for record, unit in zip(foreign, locate(source, foreign, others.read_ids), strict=True):
        if unit.current:
            covered.update(unit.places)
            elsewhere.add(record["unit"])
    last = cut.wanted[-1].stop or 0 if cut.wanted else 0
    todo, remains = [], []
    for record, places in changed:
        here = [place for place in dict.fromkeys(places) if place < last and place not in covered]
        covered.update(here)
        if len(here) == record["stop"] - record["start"]:
            todo.append(make_unit(source, record["start"], record["stop"], cut.salt, here))
        else:
            remains += here
    row = max([*(record["stop"] for record in records), *(unit.stop or 0 for unit in full)], default=0)
    for places in (remains, [place for place in range(last) if place not in covered]):
        for start in range(0, len(places), cut.unit_rows):
            some = places[start : start + cut.unit_rows]
            todo.append(make_unit(source, row, row + len(some), cut.salt, some))
            row += len(some)
    obsolete = tuple(record["unit"] for record, _ in changed)
    return Plan(tuple(todo), frozenset(done), obsolete, frozenset(elsewhere))


def group_units(units: Sequence[Unit], workers: int, unit_rows: int = DEFAULT_UNIT_ROWS) -> list[Sequence[Unit]]:
    """``units`` in tasks of neighbours: large enough to read on without a pause, small enough to share out evenly.

    Tasks of more bytes come first, so that none is left to one worker at the end; those alike stay in order.
    """
    sizes = task_sizes([_weight(unit, unit_rows) for unit in units], workers)
    ends = itertools.accumulate(sizes)
    tasks = [units[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    return sorted(tasks, key=lambda task: -sum(unit.size for unit in task).bit_length())


def _weight(unit: Unit, unit_rows: int) -> float:
    """The share of a usual unit that it is; 1 at most, and where only reading tells."""
    return 1.0 if unit.rows is None else min(1.0, max(unit.rows / unit_rows, unit.size / UNIT_BYTES))


def task_sizes(weights: Sequence[float], workers: int) -> list[int]:
    """Of how many units each task is, where units have these weights, see :func:`group_units`."""
    most = min(_UNITS_PER_TASK, math.fsum(weights) / (4 * workers)) + _ROUNDING
    sizes: list[int] = []
    weight = math.inf
    for own in weights:
        if weight + own > most or sizes[-1] == _MOST_PER_TASK:
            sizes.append(0)
            weight = 0.0
        sizes[-1] += 1
        weight += own
    return sizes


def of_sources(sources: Iterable[Source], keys: Iterable[str]) -> set[str]:
    """Those of ``keys`` that are of units of ``sources``."""
    known = by_source(keys)
    return {key for source in sources for key in known.get(source_digits(source.uri), ())}


def _limited(
    sources: Sequence[Source], whole: dict[str, list[Span]], salt: str, limit: int | None
) -> dict[str, list[Span]]:
    if limit is None:
        return whole
    wanted: dict[str, list[Span]] = {source.uri: [] for source in sources}
    left = limit
    for source in sources:
        for rows in whole[source.uri]:
            if left <= 0:
                return wanted
            count = source.open().count(at_most=left + 1)[0] if rows.stop is None else rows.stop - rows.start
            wanted[source.uri].append(span(source, rows.start, rows.start + left, salt) if count > left else rows)
            left -= count
    return wanted
