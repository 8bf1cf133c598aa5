"""Shards that hold only some rows of others: every kept sample as it was, each shard written whole and once.

What a copy holds, the format of the source says. A shard is done when its ledger record exists; shard and record are
named by what they are made of, so whoever makes one again makes the same, and a run that was cut short goes on where it
stopped.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import contents
from regrad.ledger.lease import Lease
from regrad.reading.formats import Format, Part, ReadIds, format_of, open_reader, stem
from regrad.reading.samples import DEFAULT_COLUMNS, Columns

VERSION = 1

Bits = npt.NDArray[np.uint8]


class Kept:
    """Which rows of which source are kept, one bit a row."""

    def __init__(self) -> None:
        self._bits: dict[str, Bits] = {}

    def add(self, source: str, rows: npt.NDArray[np.int64]) -> None:
        """Keep these ``rows`` of ``source`` too."""
        new = np.zeros(int(rows.max()) + 1 if rows.size else 0, bool)
        new[rows] = True
        packed = np.packbits(new)
        held = self._bits.get(source, packed)
        size = max(held.size, packed.size)
        self._bits[source] = np.pad(held, (0, size - held.size)) | np.pad(packed, (0, size - packed.size))

    def items(self) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
        """Each source with its kept rows, ascending."""
        for source, bits in sorted(self._bits.items()):
            yield source, np.flatnonzero(np.unpackbits(bits))


@dataclass(frozen=True)
class Piece:
    """One shard to write: some rows of one source. Plain data, so that it travels.

    Attributes:
        identity: of the source when it was scored; another one now is an error.
        rows: a bit for each row from ``start`` on, packed, compressed, in base 64.
        files, labels: of a listing, its files from row ``start`` on.
        name: of the shard, under ``OUT/shards/``.
        key: of the ledger record.
    """

    source: str
    kind: str
    identity: str
    start: int
    rows: str
    count: int
    name: str
    key: str
    files: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()

    def wanted(self) -> npt.NDArray[np.int64]:
        """The kept rows, ascending."""
        bits = np.frombuffer(zlib.decompress(base64.b64decode(self.rows)), np.uint8)
        return np.flatnonzero(np.unpackbits(bits)) + self.start


def pieces(
    kept: Kept, records: Iterable[Mapping[str, Any]], read_ids: ReadIds, columns: Columns = DEFAULT_COLUMNS
) -> Iterator[Piece]:
    """The shards that hold the rows ``kept``, of sources with these ledger ``records`` that were read by ``columns``.

    Args:
        read_ids: gives the ids of units, where the format needs them.

    Raises:
        RegradError: a source has changed since it was scored, or the storage failed.
    """
    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        by_source.setdefault(record["source"], []).append(record)
    for source, rows in kept.items():
        form = format_of(source)
        with _told(source):
            for part, own in form.parts(source, by_source[source], rows, read_ids, columns):
                if own.size:
                    yield _piece(source, form, part, own)


def _piece(source: str, form: type[Format], part: Part, rows: npt.NDArray[np.int64]) -> Piece:
    bits = np.zeros(int(rows.max()) + 1 - part.start, bool)
    bits[rows - part.start] = True
    packed = base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()
    place = "" if part.stop is None else f"-{part.start // (part.stop - part.start):06}"
    # Shards of one name may come from several folders; the name of one must not depend on which others there are.
    name = f"{stem(source)}-{_digest(source)[:8]}{place}{form.copied_as}"
    key = _digest(json.dumps([VERSION, source, part.identity, part.start, packed]))[:32]
    return Piece(
        source,
        form.kind,
        part.identity,
        part.start,
        packed,
        rows.size,
        name,
        key,
        tuple(part.files),
        tuple(part.labels),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def task(piece: Piece, output: str, columns: Columns, held: Lease) -> dict[str, Any]:
    """What :func:`write` takes, as it travels."""
    around = {"output": output, "columns": [columns.image, columns.label, columns.id], "lease": asdict(held)}
    return {"source": piece.source, "piece": asdict(piece), **around}


def write(item: Mapping[str, Any]) -> dict[str, Any]:
    """Write one shard and its ledger record; returns the record.

    Raises:
        RegradError: the source is not what was scored, the lease is lost, or the storage refused or failed.
    """
    piece, columns, held = Piece(**item["piece"]), Columns(*item["columns"]), Lease(**item["lease"])
    held.check()
    reader = open_reader(piece.source, piece.kind, columns, piece.files, piece.labels, piece.start)
    with storage.writing(storage.join(item["output"], "shards", piece.name)) as file, _told(piece.source):
        try:
            copied = reader.copy(piece.wanted(), file)
        except Exception as error:
            if reader.identity() != piece.identity:  # which may be why
                raise _changed(piece.source) from error
            raise
        if copied != piece.count or reader.identity() != piece.identity:
            raise _changed(piece.source)
        held.check()
    record = {
        "unit": piece.key,
        "shard": piece.name,
        "source": piece.source,
        "identity": piece.identity,
        "rows": piece.count,
    }
    content = json.dumps(record, sort_keys=True).encode()
    storage.write_atomically(contents.record_uri(item["output"], piece.key), content)
    return record


@contextlib.contextmanager
def _told(source: str) -> Iterator[None]:
    """A source that has changed is told as the user needs to know it."""
    try:
        yield
    except storage.Changed as error:
        raise _changed(source) from error


def _changed(source: str) -> RegradError:
    return RegradError(
        f"{storage.mask(source)}: is not what was scored; run the same regrad score command again, then this one"
    )


def settle(output: str, wanted: Sequence[Piece]) -> list[Piece]:
    """Retire the shards that are not ``wanted``, sweep what attempts left, and return the pieces to be written.

    Records go first, so that no shard is taken for done that is not there.
    """
    keys = {piece.key for piece in wanted}
    done = contents.committed(output)
    for key in sorted(done - keys):
        storage.remove(contents.record_uri(output, key))
    names = {piece.name for piece in wanted if piece.key in done}
    folder = storage.join(output, "shards")
    files, temporaries = storage.list_all(folder)
    for name in [*files, *temporaries]:
        if name not in names:
            storage.remove(storage.join(folder, name))
    return [piece for piece in wanted if piece.key not in done]
