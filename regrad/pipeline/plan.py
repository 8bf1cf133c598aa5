"""From sources to units of work: what is committed already, what is to do, and what is out of date."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from regrad.reading.formats import Source

_SOURCE_DIGITS = 12  # a key begins with its source's hash: the ledger's names alone tell which units a source has
DEFAULT_UNIT_ROWS = 1024


@dataclass(frozen=True)
class Unit:
    """A range of rows of one source, scored and committed as one.

    Attributes:
        stop: the first row that is not in it; None: to the end.
        key: its name in the output: a hash of content, range, model and configuration.
        rows: how many there are; None where only reading tells.
        size: its share of the source's bytes, for estimates.
        files, labels: of a listing (a folder), those in the range.
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
    replaces: tuple[str, ...] = ()

    def to_json(self) -> str:
        """As Ray carries it."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Unit:
        """The inverse of :meth:`to_json`."""
        values = json.loads(text)
        return cls(**values | {name: tuple(values[name]) for name in ("files", "labels", "replaces")})

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
    """

    pending: tuple[Unit, ...]
    done: frozenset[str]
    obsolete: tuple[str, ...]

    def without(self, keys: Collection[str]) -> Plan:
        """The same, except that the units ``keys`` are left alone."""
        return dataclasses.replace(self, pending=tuple(unit for unit in self.pending if unit.key not in keys))


def make_unit(source: Source, start: int, stop: int | None, salt: str) -> Unit:
    """The unit of these rows; ``salt`` stands for everything but the content (model, configuration, schema)."""
    identity = source.identity_of(start, stop)
    key = unit_key(source.uri, identity, start, stop, salt)
    rows = None if source.rows is None else (source.rows if stop is None else stop) - start
    size = source.size if not rows or not source.rows else source.size * rows // source.rows
    files, labels = source.files[start:stop], source.labels[start:stop]
    return Unit(source.uri, source.kind, start, stop, identity, key, rows, size, files, labels)


def unit_key(source: str, identity: str, start: int, stop: int | None, salt: str) -> str:
    """The name of a unit: 32 hexadecimal digits, the first of which stand for the source."""
    content = json.dumps([source, identity, start, stop, salt])
    return _digest(source)[:_SOURCE_DIGITS] + _digest(content)[: 32 - _SOURCE_DIGITS]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def cut(source: Source, unit_rows: int, salt: str) -> Iterator[Unit]:
    """The units of a whole source: ranges of ``unit_rows`` rows, or one where only reading tells how many there are."""
    if source.rows is None:
        yield make_unit(source, 0, None, salt)
        return
    for start in range(0, source.rows, unit_rows):
        yield make_unit(source, start, min(start + unit_rows, source.rows), salt)


def make_plan(
    sources: Sequence[Source],
    unit_rows: int,
    salt: str,
    committed: Collection[str],
    read_records: Callable[[list[str]], list[dict[str, Any]]],
    limit: int | None = None,
) -> Plan:
    """The plan for ``sources`` on an output whose committed units are ``committed``.

    Assumptions: every committed unit was made with this ``salt`` (``run.json`` guards that). Units of sources that
    are not among ``sources`` stay as they are. Ledger records are read only where a name does not tell enough.

    Args:
        limit: score at most this many images, from the first source on; the rows of a source that does not say how many
            it has (a tar) are then counted.
    """
    whole = {source.uri: list(cut(source, unit_rows, salt)) for source in sources}
    wanted = _limited(sources, whole, salt, limit)
    by_source: dict[str, list[str]] = defaultdict(list)
    for key in committed:
        by_source[key[:_SOURCE_DIGITS]].append(key)
    records: dict[str, list[dict[str, Any]]] = defaultdict(list)
    grid = {unit.key for units in whole.values() for unit in units}
    names = [key for uri in whole for key in by_source[_digest(uri)[:_SOURCE_DIGITS]] if key not in grid]
    for record in read_records(names):
        records[record["source"]].append(record)
    pending: list[Unit] = []
    done: set[str] = set()
    obsolete: list[str] = []
    for source in sources:
        full = [unit for unit in whole[source.uri] if unit.key in committed]
        done |= {unit.key for unit in full}
        partial: list[dict[str, Any]] = []
        for record in records[source.uri]:
            current = make_unit(source, record["start"], record["stop"], salt).key == record["unit"]
            partial.append(record) if current else obsolete.append(record["unit"])
        ranges = [(record["start"], record["stop"]) for record in partial]
        cut_ranges = ranges + [(unit.start, unit.stop) for unit in full]  # one of the grid is never inside another
        todo = [
            _replacing(unit, partial)
            for unit in wanted[source.uri]
            if unit.key not in committed
            and not any(unit.within(*bounds) for bounds in (ranges if unit.key in grid else cut_ranges))
        ]
        replaced = {key for unit in todo for key in unit.replaces}
        done |= {record["unit"] for record in partial} - replaced
        pending += todo
    return Plan(tuple(pending), frozenset(done), tuple(obsolete))


def _replacing(unit: Unit, partial: Iterable[dict[str, Any]]) -> Unit:
    overlapped = tuple(record["unit"] for record in partial if unit.overlaps(record["start"], record["stop"]))
    return dataclasses.replace(unit, replaces=overlapped)


def _limited(
    sources: Sequence[Source], whole: dict[str, list[Unit]], salt: str, limit: int | None
) -> dict[str, list[Unit]]:
    if limit is None:
        return whole
    wanted: dict[str, list[Unit]] = {source.uri: [] for source in sources}
    left = limit
    for source in sources:
        for unit in whole[source.uri]:
            if left <= 0:
                return wanted
            rows = unit.rows
            if rows is None:
                rows = source.open().count(at_most=left + 1)[0]
            if rows > left:
                unit = make_unit(source, unit.start, unit.start + left, salt)
            wanted[source.uri].append(unit)
            left -= rows
    return wanted
