"""Which night counted what, so that no image is counted in two: by its unit, and, once that is gone, by itself.

``OUT/audited.parquet`` names the units of each night, with the ``claim`` of the audit that took them; they are that
night's where ``OUT/history.parquet`` has its row with the same claim. The first is written before the second, so that
an audit that was cut short has counted nothing, whatever it claimed.

``OUT/retired/<source>.parquet`` holds the images that a night counted and whose unit is gone, since their source
changed: each once, written before the unit goes. An image is told by its id in its source and the digest of its bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from regrad import storage, table
from regrad.ledger import commit
from regrad.ledger.rows import Rows

AUDITED_SCHEMA = pa.schema([("night", pa.string()), ("unit", pa.string()), ("claim", pa.string())])
_CLAIM_SCHEMA = pa.schema([("night", pa.string()), ("claim", pa.string())])
_RETIRED_SCHEMA = pa.schema(
    [
        ("night", pa.string()),
        ("source", pa.string()),
        ("name", pa.string()),
        ("digest", pa.string()),
        ("scored", pa.bool_()),
    ]
)
FOLDER = "retired"
_THREADS = 8
_OF_IMAGES = ("source", "row", "id", "digest")


def audited_uri(output: str) -> str:
    """Where the units of each night are."""
    return storage.join(output, "audited.parquet")


def history_uri(output: str) -> str:
    """Where the row of each night is."""
    return storage.join(output, "history.parquet")


def claim_of(units: Iterable[str]) -> str:
    """What an audit writes beside its units and in its night's row."""
    return hashlib.sha256("\n".join(sorted(units)).encode()).hexdigest()[:32]


def nights_of(audited: pa.Table, history: pa.Table) -> dict[str, str]:
    """Unit -> night, of the units that a night has counted; both tables have ``night`` and ``claim``."""
    claims = dict(zip(history["night"].to_pylist(), history["claim"].to_pylist(), strict=True))
    named = zip(*(audited[name].to_pylist() for name in ("night", "unit", "claim")), strict=True)
    # Versions before claims wrote none: theirs are good for every night that has a row.
    return {unit: night for night, unit, claim in named if night in claims and claim in (None, claims[night])}


@dataclass(frozen=True, slots=True)
class Image:
    """A row of a unit, as it is recognised in another.

    Attributes:
        reason: stage and reason, of one that was not scored.
    """

    source: str
    row: int | None
    id: str | None
    digest: str | None
    reason: tuple[str, str] | None = None

    @property
    def scored(self) -> bool:
        """Or refused."""
        return self.reason is None

    @property
    def name(self) -> str:
        """Its id; without the row number in it, which says where the image was and not which, where the digest says
        that."""
        if self.id is None or self.digest is None:
            return f"(row {self.row})" if self.id is None else self.id
        return "" if self.id == str(self.row) else self.id.removesuffix(f"(row {self.row})").rstrip()


def images(ledger: commit.Ledger, units: Iterable[str]) -> dict[str, list[Image]]:
    """Every row of these ``units`` of ``ledger``, as far as their files can be read, in their order.

    Raises:
        RegradError: the storage refused or failed.
    """
    rows_read: dict[str, list[Image]] = {unit: [] for unit in units}
    for kind, more in (("scores", []), ("quarantine", ["stage", "reason"])) if rows_read else ():
        placed = Rows(ledger.output, kind, rows_read.keys(), ledger.held)
        for place, unit in placed.by_unit([*_OF_IMAGES, *more]):
            if not isinstance(unit, Exception):  # `regrad check` tells of what cannot be read
                columns = [unit.rows[name].to_pylist() for name in (*_OF_IMAGES, *more)]
                reasons = [zip(*columns[len(_OF_IMAGES) :], strict=True)] if more else []
                rows_read[place.unit] += map(Image, *columns[: len(_OF_IMAGES)], *reasons)
    for rows in rows_read.values():
        rows.sort(key=lambda image: (image.row is None, image.row or 0, not image.scored))
    return rows_read


class Known:
    """Images of one source that were counted; each is recognised once.

    A row that was refused for want of bytes has no digest, nor has a row of earlier versions. Such are recognised by
    their names alone, among those that were scored, or refused, as they were.
    """

    def __init__(self) -> None:
        self._left: dict[str, list[tuple[str | None, bool]]] = {}

    def __bool__(self) -> bool:
        return bool(self._left)

    def add(self, name: str, digest: str | None, scored: bool) -> None:
        """One more."""
        self._left.setdefault(name or f"\0{digest}", []).append((digest, scored))

    def take(self, image: Image) -> bool:
        """Whether ``image`` is one of them, which from now on is not there any more."""
        if image.row is None:  # it stands for the rest of a source, which is another each time
            return False
        names = [image.name, image.id or "", f"\0{image.digest}", "" if image.name else str(image.row)]
        for name in filter(None, names):
            left = self._left.get(name, [])
            for place, (digest, scored) in enumerate(left):
                same = digest == image.digest if digest and image.digest else scored == image.scored
                if same:
                    del left[place]
                    return True
        return False


def sources_of_retired(output: str) -> list[str]:
    """The digits of the sources that :class:`Retired` knows images of."""
    return [name.removesuffix(".parquet") for name in storage.list_files(storage.join(output, FOLDER), ".parquet")]


class Retired:
    """The images that nights have counted in units that are gone, of sources whose keys begin with ``digits``.

    Raises:
        RegradError: the storage refused or failed, or the file is damaged.
    """

    def __init__(self, output: str, digits: str):
        self._uri = storage.join(output, FOLDER, f"{digits}.parquet")
        self._rows = table.read_file(self._uri, _RETIRED_SCHEMA)

    def known(self, source: str, wanted: Callable[[str], bool]) -> Known:
        """Those of ``source`` and of the nights that are ``wanted``."""
        known = Known()
        for night, place, *image in zip(*(column.to_pylist() for column in self._rows.columns), strict=True):
            if place == source and wanted(night):
                known.add(*image)
        return known

    def add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        """Write ``rows`` to them: night, source, name, digest, whether scored."""
        if rows:
            columns = zip(zip(*rows, strict=True), _RETIRED_SCHEMA, strict=True)
            new = pa.table([pa.array(column, kind.type) for column, kind in columns], schema=_RETIRED_SCHEMA)
            self._rows = pa.concat_tables([self._rows, new])
            table.write_file(self._uri, self._rows)


def keep(output: str, keys: Iterable[str], lost: Callable[[str], None]) -> None:
    """Write down the images of those of the units ``keys`` that a night has counted, since they are about to go.

    Again changes nothing. For an output without nights it is one look.

    Args:
        lost: is told the key of a unit of which not every row can be read.

    Raises:
        RegradError: the storage refused or failed.
    """
    keys = set(keys)
    audited = table.read_file(audited_uri(output), AUDITED_SCHEMA) if keys else AUDITED_SCHEMA.empty_table()
    if not len(audited):
        return
    history = table.read_file(history_uri(output), _CLAIM_SCHEMA)
    nights = nights_of(audited, history)
    by_source: dict[str, dict[str, list[str]]] = {}
    for key in sorted(keys & nights.keys()):
        by_source.setdefault(key[: commit.SOURCE_DIGITS], {}).setdefault(nights[key], []).append(key)
    there = set(history["night"].to_pylist())
    with ThreadPoolExecutor(_THREADS, "regrad-retired") as pool:
        ledger = commit.Ledger.read(output)
        list(pool.map(lambda digits: _keep(ledger, digits, by_source[digits], there, lost), by_source))


def _keep(
    ledger: commit.Ledger,
    digits: str,
    keys: Mapping[str, Sequence[str]],
    nights: Container[str],
    lost: Callable[[str], None],
) -> None:
    """Add the images of units of one source, night -> keys, to its file; what is there already is not added again."""
    retired = Retired(ledger.output, digits)
    new: list[tuple[Any, ...]] = []
    for night, units in keys.items():
        by_name: dict[str, list[dict[str, Any]]] = {}
        for record in ledger.records(units):
            by_name.setdefault(record["source"], []).append(record)
        for source, records in by_name.items():
            # What another night had counted, this one did not; what it counted is there where this was cut short.
            there = retired.known(source, lambda name: name in nights)
            held = images(ledger, [record["unit"] for record in records])
            for record in records:
                if len(held[record["unit"]]) < record["rows_in"]:
                    lost(record["unit"])
                counted = (image for image in held[record["unit"]] if image.row is not None and not there.take(image))
                new += [(night, source, image.name, image.digest, image.scored) for image in counted]
    retired.add(new)
