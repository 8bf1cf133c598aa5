"""Parquet files to samples."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.fields import ParquetFields, cell, no_column, split_images, texts
from regrad.reading.formats import Format, register
from regrad.reading.naming.classes import whole_label
from regrad.reading.naming.partitions import LABEL, partition_value
from regrad.reading.samples import (
    DEFAULT_COLUMNS,
    MAX_IMAGE_BYTES,
    BadFile,
    Columns,
    Sample,
    Shard,
    as_text,
    is_row_id,
    labelled,
    reading,
    row_id,
)

# A row group's columns are read whole up to so many bytes, and through a buffer beyond: there, a damaged page header
# makes pyarrow allocate the gigabytes that it claims.
_WHOLE_GROUP = 128 * 2**20
_BATCH_ROWS = 64  # rows decoded at a time: bounds the memory of a row group of any size
_ID_ROWS = 2**16
_SMALL_READS = 2**16  # of a store, to look at ids alone
_COPIED_BYTES = 128 * 2**20  # of a row group that is written


class _BadFooter(Exception):
    """Not a Parquet file, or one whose footer cannot be true."""


def _open(shard: Shard, columns: Columns) -> tuple[Any, ParquetFields]:
    """The open file and the columns to read of it."""
    try:
        file = pa.parquet.ParquetFile(shard, pre_buffer=False)
        schema, claim = file.schema_arrow, _false_claim(file.metadata, shard.size)
    except Exception as error:
        shard.raise_if_storage_failed()
        why = shard.instead() or f"{storage.reason(error)}; write the file again"
        raise _BadFooter(f"not readable as Parquet: {why}") from error
    if claim:
        raise _BadFooter(f"a damaged Parquet footer: {claim}; write the file again")
    fields = ParquetFields.choose(schema, columns, shard.uri)
    if min(shard.size, _largest_group(file.metadata)) > _WHOLE_GROUP:
        file = pa.parquet.ParquetFile(
            shard, metadata=file.metadata, buffer_size=storage.READ_AHEAD_BYTES, pre_buffer=False
        )
    return file, fields


def _largest_group(metadata: Any) -> int:
    """The bytes of the largest row group; to ask for a column's share ends the process where its statistics are odd."""
    return max((metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups)), default=0)


def _false_claim(metadata: Any, size: int) -> str | None:
    """What of a footer cannot be true: planning and reading both believe its numbers of rows."""
    rows = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    if min(rows, default=0) < 0 or sum(rows) != metadata.num_rows:
        return f"{metadata.num_rows} rows in all, but {sum(rows)} in its row groups"
    if metadata.num_rows > size:
        return f"{metadata.num_rows} rows in {size} bytes"
    return None


@dataclass
class _Cursor:
    """The first row that is wanted; moved on between two samples, what lies before it is passed over."""

    start: int


@register
class ParquetReader(Format):
    """Parquet: the needed columns of the row groups that overlap the range, a few rows at a time.

    Ranges in rising order are read on where the last one ended: a row group much larger than a unit is decoded once,
    not once per unit.
    """

    kind = "parquet"
    suffixes = (".parquet", ".pq")
    copied_as = ".parquet"
    labelled_by_path = True

    def __init__(self, uri: str, columns: Columns = DEFAULT_COLUMNS, *listing: Any):
        super().__init__(uri, columns, *listing)
        self._position = -1
        self._cursor = _Cursor(0)
        self._samples: Iterator[Sample] = iter(())
        self._mapping: tuple[int | None, ...] | None = None
        self._of_path = partition_value(uri, columns.label or LABEL)  # the label of all rows, without such a column
        self._shared: frozenset[str] | None = None  # ids that several rows have; None: not looked for

    def length(self) -> int | None:
        """The number of rows, from the footer; None where that is damaged or the file cannot be opened."""
        try:
            with Shard(self.uri) as shard:
                file, fields = _open(shard, self.columns)
        except (BadFile, _BadFooter):
            return None
        self.label_names = fields.label_names
        if self.columns.label is not None and fields.label is None and self._of_path is None:
            self.no_labels = no_column(file.schema_arrow, "label", self.columns.label, self.uri)
        return file.metadata.num_rows

    def count(self, at_most: int | None = None) -> tuple[int, float]:
        """The number of rows, and the bytes of one, from the footer."""
        try:
            with Shard(self.uri) as shard:
                rows = int(_open(shard, self.columns)[0].metadata.num_rows)
                return rows if at_most is None else min(rows, at_most), shard.size / max(rows, 1)
        except (BadFile, _BadFooter, UsageError):
            return 0, 0.0

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``; a row group that cannot be read gives one error per row in it.

        A file that cannot be opened gives one error in all.
        """
        if not 0 <= self._position <= start:
            self._cursor = _Cursor(start)
            self._samples = self._read(self._cursor)
        self._cursor.start, self._position = start, -1
        last: Sample | None = None
        wanted = itertools.dropwhile(lambda sample: sample.row is not None and sample.row < start, self._samples)
        for last in itertools.islice(wanted, None if stop is None else stop - start):
            yield last
        # A file that could not be opened has said so, and is opened again for the next range.
        self._position = -1 if last is None or last.row is None else last.row + 1

    def pick(self, rows: Mapping[int, str]) -> Iterator[Sample]:
        """The samples of these rows, in order, from the row groups that hold them."""
        wanted = frozenset(rows)
        return (
            sample for sample in self._read(_Cursor(min(wanted)), wanted) if sample.row is None or sample.row in wanted
        )

    def copy(self, rows: Collection[int], file: IO[bytes]) -> int:
        """These rows with every column and the schema's metadata, in row groups no larger than those they come from."""
        wanted, copied = np.array(sorted(rows)), 0
        with reading(self.uri) as shard:
            source = pa.parquet.ParquetFile(shard, pre_buffer=False)
            with pa.parquet.ParquetWriter(file, source.schema_arrow, compression="zstd") as writer:
                groups = range(source.num_row_groups)
                most = max((source.metadata.row_group(group).num_rows for group in groups), default=1)
                waiting: list[pa.RecordBatch] = []
                rows_waiting = bytes_waiting = 0
                for begin, batch in self._batches(source, wanted):
                    own = wanted[(wanted >= begin) & (wanted < begin + len(batch))] - begin
                    if own.size == 0:
                        continue
                    if rows_waiting + own.size > most or bytes_waiting > _COPIED_BYTES:
                        writer.write_table(pa.Table.from_batches(waiting))
                        waiting, rows_waiting, bytes_waiting = [], 0, 0
                    waiting.append(_chosen(batch, own))
                    rows_waiting += own.size
                    bytes_waiting += waiting[-1].get_total_buffer_size()
                    copied += own.size
                if waiting:
                    writer.write_table(pa.Table.from_batches(waiting))
        return copied

    def _batches(
        self, source: pa.parquet.ParquetFile, wanted: npt.NDArray[np.int64]
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
                        f"{storage.mask(self.uri)}: row group {group} cannot be read from row {begin} on, and has rows "
                        f"to keep: {storage.reason(error)}; mend the file and run the same regrad score command "
                        "again, then this"
                    ) from error
            begin = end

    def _read(self, cursor: _Cursor, wanted: Collection[int] | None = None) -> Iterator[Sample]:
        with contextlib.ExitStack() as stack:
            try:
                shard = stack.enter_context(Shard(self.uri))
                file, fields = _open(shard, self.columns)
            except (BadFile, _BadFooter, UsageError) as error:
                why = str(error).removeprefix(f"{storage.mask(self.uri)}: ")
                yield Sample(None, None, error=why, stage="list")
                return
            self._mapping = self.columns.classes.mapping(fields.label_names)
            if self._shared is None and wanted is None:  # where rows are picked, their ids are known
                self._shared = self._find_shared(file, fields)
            end = 0
            for group in range(file.metadata.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if end > cursor.start and (wanted is None or any(begin <= row < end for row in wanted)):
                    yield from self._read_group(shard, file, fields, group, begin, end, cursor)

    def _find_shared(self, file: Any, fields: ParquetFields) -> frozenset[str]:
        """The ids that several rows of the file have, from the column of ids alone."""
        if (leaf := fields.id_leaf(file.schema_arrow)) is None:
            return frozenset()
        seen, shared = set[str](), set[str]()
        with Shard(self.uri, _SMALL_READS) as shard:
            ids = pa.parquet.ParquetFile(shard, metadata=file.metadata, pre_buffer=False)
            for group in range(ids.num_row_groups):
                try:
                    for batch in ids.iter_batches(_ID_ROWS, [group], columns=[leaf]):
                        for name in texts(fields.ids(batch)):
                            (shared if name in seen else seen).add(name)
                except Exception:  # rows that cannot be read have no id
                    shard.raise_if_storage_failed()
        return frozenset(shared)

    def _read_group(
        self, shard: Shard, file: Any, fields: ParquetFields, group: int, begin: int, end: int, cursor: _Cursor
    ) -> Iterator[Sample]:
        row = begin
        batches = file.iter_batches(_BATCH_ROWS, [group], columns=fields.names(file.schema_arrow))
        why = "the row group has fewer rows than the footer says"
        while row < end:
            try:
                columns = _columns(next(batches), fields)
            except StopIteration:
                break
            except Exception as error:
                shard.raise_if_storage_failed()
                why = storage.reason(error)
                break
            for offset in range(max(cursor.start - row, 0), min(columns.rows, end - row)):
                yield self._sample(columns, row + offset, offset)
            row += columns.rows
        why = f"row group {group} cannot be read from row {row} on: {why}"
        yield from (Sample(lost, None, error=why) for lost in range(row, end))

    def _sample(self, columns: _Columns, row: int, offset: int) -> Sample:
        name = str(row) if columns.numbered else self._id(cell(columns.ids, offset), row)
        try:
            content = columns.images[offset].as_py()
        except Exception as error:
            return Sample(row, name, error=storage.reason(error))
        if content is None:
            path = cell(columns.paths, offset)
            followed = f"; its path {as_text(path)!r} is not followed" if path else ""
            return Sample(row, name, error=f"the image is null{followed}")
        if len(content) > MAX_IMAGE_BYTES:
            return Sample(row, name, error=f"the image has {len(content)} bytes, more than {MAX_IMAGE_BYTES}")
        return self._labelled(
            Sample(row, name, content), self._of_path if columns.labels is None else cell(columns.labels, offset)
        )

    def _labelled(self, sample: Sample, value: Any) -> Sample:
        """With the class that the label means, by name where the file has names for its numbers."""
        number = None if self._mapping is None else whole_label(value)
        if self._mapping is None or number is None or not 0 <= number < len(self._mapping):
            return labelled(sample, value, self.columns.classes)
        return dataclasses.replace(sample, label=self._mapping[number], no_class=self._mapping[number] is None)

    def _id(self, value: Any, row: int) -> str:
        name = "" if value is None else as_text(value)
        return row_id(name, row) if not name or name in (self._shared or ()) or is_row_id(name) else name


@dataclass(frozen=True)
class _Columns:
    """The columns of some rows, where they are there; ``numbered``: row numbers are the ids that were asked for."""

    rows: int
    images: Any
    paths: Any
    labels: Any
    ids: Any
    numbered: bool


def _columns(batch: pa.RecordBatch, fields: ParquetFields) -> _Columns:
    images, paths = split_images(batch.column(batch.schema.get_field_index(fields.image)))
    names = batch.schema.names
    labels = batch.column(names.index(fields.label)) if fields.label in names else None
    return _Columns(batch.num_rows, images, paths, labels, fields.ids(batch), fields.numbers(batch.schema))


def _chosen(batch: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
    """Some rows of a batch. Arrow's own `take` does not know every type (views), its concatenation does."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    columns = [pa.concat_arrays([column.slice(run[0], len(run)) for run in runs]) for column in batch.columns]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
