"""Shards that hold only some rows of others: every kept sample as it was, each shard written whole and once.

A tar keeps its members (names, contents, times) in their order, a Parquet file its columns, and a folder of images
becomes tars of its files. A shard is done when its ledger record exists; shard and record are named by what they are
made of, so whoever makes one again makes the same, and a run that was cut short goes on where it stopped.
"""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import io
import itertools
import json
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError
from regrad.ledger import commit
from regrad.ledger.lease import Lease
from regrad.reading.formats import FolderReader, identity_read
from regrad.reading.inputs import list_sources
from regrad.reading.samples import PARQUET_SUFFIXES, TAR_SUFFIXES, BadFile, Columns, Shard, kind_of
from regrad.reading.tar import TarReader

VERSION = 1
FOLDER_ROWS = 4096  # of a folder of images, in one tar
_BATCH_ROWS = 256
_GROUP_BYTES = 128 * 2**20  # of a row group that is written

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
        files: of a folder, its files from row ``start`` on.
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


def pieces(kept: Kept, records: Iterable[Mapping[str, Any]], columns: Columns) -> Iterator[Piece]:
    """The shards that hold the rows ``kept``, of sources with these ledger ``records``.

    Raises:
        RegradError: a folder has changed since it was scored, or the storage failed.
    """
    identities: dict[str, str] = {}
    folders: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        identities[record["source"]] = record["identity"]
        if kind_of(record["source"]) is None:
            folders.setdefault(record["source"], []).append(record)
    for source, rows in kept.items():
        kind = kind_of(source)
        if kind is not None:
            yield _piece(source, kind, identities[source], 0, rows)
        else:
            yield from _of_folder(source, rows, folders[source], columns)


def _of_folder(
    uri: str, rows: npt.NDArray[np.int64], records: Sequence[Mapping[str, Any]], columns: Columns
) -> Iterator[Piece]:
    (source,) = list_sources([uri], columns)
    for record in records:
        if source.kind != "folder" or source.identity_of(record["start"], record["stop"]) != record["identity"]:
            raise _changed(uri)
    for start in range(0, int(rows.max()) + 1 if rows.size else 0, FOLDER_ROWS):
        part = rows[(rows >= start) & (rows < start + FOLDER_ROWS)]
        if part.size:
            cut = slice(start, start + FOLDER_ROWS)
            identity = source.identity_of(cut.start, cut.stop)
            yield _piece(uri, "folder", identity, start, part, source.files[cut], source.labels[cut])


def _piece(
    source: str, kind: str, identity: str, start: int, rows: npt.NDArray[np.int64], files: Any = (), labels: Any = ()
) -> Piece:
    bits = np.zeros(int(rows.max()) + 1 - start, bool)
    bits[rows - start] = True
    packed = base64.b64encode(zlib.compress(np.packbits(bits).tobytes())).decode()
    base = source.rstrip("/").rsplit("/", 1)[-1]
    stem = base[: len(base) - len(_suffix(base))]
    part = f"-{start // FOLDER_ROWS:06}" if kind == "folder" else ""
    ending = ".parquet" if kind == "parquet" else ".tar"
    # Shards of one name may come from several folders; the name of one must not depend on which others there are.
    name = f"{stem}-{_digest(source)[:8]}{part}{ending}"
    key = _digest(json.dumps([VERSION, source, identity, start, packed]))[:32]
    return Piece(source, kind, identity, start, packed, rows.size, name, key, tuple(files), tuple(labels))


def _suffix(name: str) -> str:
    suffixes = (*TAR_SUFFIXES, *PARQUET_SUFFIXES)
    return max((suffix for suffix in suffixes if name.lower().endswith(suffix)), key=len, default="")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def task(piece: Piece, output: str, columns: Columns, held: Lease) -> dict[str, Any]:
    """What :func:`write` takes, as it travels."""
    around = {"output": output, "columns": asdict(columns), "lease": asdict(held)}
    return {"source": piece.source, "piece": asdict(piece), **around}


def write(item: Mapping[str, Any]) -> dict[str, Any]:
    """Write one shard and its ledger record; returns the record.

    Raises:
        RegradError: the source is not what was scored, the lease is lost, or the storage refused or failed.
    """
    piece, columns, held = Piece(**item["piece"]), Columns(**item["columns"]), Lease(**item["lease"])
    held.check()
    with storage.writing(storage.join(item["output"], "shards", piece.name)) as file:
        copied = _COPY[piece.kind](piece, columns, file)
        if copied != piece.count:
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
    storage.write_atomically(commit.record_uri(item["output"], piece.key), content)
    return record


def _changed(source: str) -> RegradError:
    return RegradError(
        f"{storage.mask(source)}: is not what was scored; run the same jobs/score.py command again, then this one"
    )


def _check_identity(piece: Piece) -> None:
    try:
        if storage.identity(piece.source) == piece.identity:
            return
    except FileNotFoundError:
        pass
    raise _changed(piece.source)


@contextlib.contextmanager
def _reading(uri: str) -> Iterator[Shard]:
    """The open shard; what the storage refuses meanwhile is told as such."""
    try:
        with Shard(uri) as shard:
            try:
                yield shard
            except Exception:
                shard.raise_if_storage_failed()
                raise
    except BadFile as error:
        raise RegradError(f"{storage.mask(uri)}: {error}") from error


def _copy_tar(piece: Piece, columns: Columns, file: IO[bytes]) -> int:
    """Every member of the kept samples, header and content as they were; returns the samples."""
    wanted = set(piece.wanted().tolist())
    last, done = max(wanted), set[int]()
    _check_identity(piece)
    with _reading(piece.source) as shard, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as copied:
        members = TarReader(piece.source, columns).members(shard)
        # What comes after the last kept sample may be damaged, and is not asked for.
        for row, _, _, member, archive in itertools.takewhile(lambda found: found[0] <= last, members):
            if row in wanted:
                done.add(row)
                _add(copied, member, archive.extractfile(member) if member.isreg() else None)
    _check_identity(piece)
    return len(done)


def _add(copied: tarfile.TarFile, member: tarfile.TarInfo, content: IO[bytes] | None) -> None:
    info = copy.copy(member)
    if member.issparse():  # written out whole: what a reader gets is the same
        info.type, info.sparse = tarfile.REGTYPE, None
    copied.addfile(info, content)


def _copy_parquet(piece: Piece, columns: Columns, file: IO[bytes]) -> int:
    """The kept rows with every column, a bounded number at a time; returns the rows."""
    wanted = piece.wanted()
    _check_identity(piece)
    rows = 0
    with _reading(piece.source) as shard:
        source = pa.parquet.ParquetFile(shard, pre_buffer=False)
        with pa.parquet.ParquetWriter(file, source.schema_arrow, compression="zstd") as writer:
            waiting: list[pa.RecordBatch] = []
            for begin, batch in _batches(source, wanted, piece.source):
                own = wanted[(wanted >= begin) & (wanted < begin + len(batch))] - begin
                if own.size:
                    waiting.append(batch.take(pa.array(own)))
                    rows += own.size
                if sum(part.nbytes for part in waiting) > _GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(waiting))
                    waiting = []
            if waiting:
                writer.write_table(pa.Table.from_batches(waiting))
    _check_identity(piece)
    return rows


def _batches(
    source: pa.parquet.ParquetFile, wanted: npt.NDArray[np.int64], uri: str
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The row groups that hold ``wanted`` rows, in batches, each with its first row; others may be damaged."""
    begin = 0
    for group in range(source.num_row_groups):
        end = begin + source.metadata.row_group(group).num_rows
        if np.any((wanted >= begin) & (wanted < end)):
            try:
                for batch in source.iter_batches(_BATCH_ROWS, row_groups=[group]):
                    yield begin, batch
                    begin += len(batch)
            except (pa.ArrowException, OSError) as error:
                raise RegradError(
                    f"{storage.mask(uri)}: row group {group} cannot be read from row {begin} on, and has rows to keep: "
                    f"{storage.reason(error)}; mend the file and run the same jobs/score.py command again, then this"
                ) from error
        begin = end


def _copy_folder(piece: Piece, columns: Columns, file: IO[bytes]) -> int:
    """The kept files under their paths in the folder, as a tar; returns the files."""
    wanted, copied_rows = set(piece.wanted().tolist()), 0
    reader = FolderReader(piece.source, piece.files, piece.labels, piece.start)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as copied:
        for name, sample in zip(piece.files, reader.rows(), strict=True):
            if sample.row in wanted and sample.image is not None:
                info = tarfile.TarInfo(name)
                info.size = len(sample.image)
                copied.addfile(info, io.BytesIO(sample.image))
                copied_rows += 1
    if identity_read(reader, piece.source) != piece.identity:
        raise _changed(piece.source)
    return copied_rows


_COPY: dict[str, Callable[[Piece, Columns, IO[bytes]], int]] = {
    "tar": _copy_tar,
    "parquet": _copy_parquet,
    "folder": _copy_folder,
}


def settle(output: str, wanted: Sequence[Piece]) -> list[Piece]:
    """Retire the shards that are not ``wanted``, sweep what attempts left, and return the pieces to be written.

    Records go first, so that no shard is taken for done that is not there.
    """
    keys = {piece.key for piece in wanted}
    done = commit.committed(output)
    for key in sorted(done - keys):
        storage.remove(commit.record_uri(output, key))
    names = {piece.name for piece in wanted if piece.key in done}
    folder = storage.join(output, "shards")
    for name in [*storage.list_files(folder), *storage.list_temporaries(folder)]:
        if name not in names:
            storage.remove(storage.join(folder, name))
    return [piece for piece in wanted if piece.key not in done]
