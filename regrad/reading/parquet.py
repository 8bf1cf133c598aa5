"""Parquet files to samples."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.formats import Format, register
from regrad.reading.samples import (
    DEFAULT_COLUMNS,
    MAX_IMAGE_BYTES,
    BadFile,
    Columns,
    Sample,
    Shard,
    as_label,
    as_text,
    reading,
)

ROW_NUMBER = "row"  # `--id-column row` asks for row numbers where no column has that name
# A row group's columns are read whole up to so many bytes, and through a buffer beyond: there, a damaged page header
# makes pyarrow allocate the gigabytes that it claims.
_WHOLE_GROUP = 128 * 2**20
_BATCH_ROWS = 64  # rows decoded at a time: bounds the memory of a row group of any size
_COPIED_BYTES = 128 * 2**20  # of a row group that is written


@dataclass(frozen=True)
class ParquetFields:
    """The columns of one Parquet file that are read."""

    image: str
    label: str | None
    id: str | None

    @classmethod
    def choose(cls, schema: pa.Schema, columns: Columns, uri: str) -> ParquetFields:
        """The image, label and id column of ``schema``, as asked for or by default.

        Raises:
            UsageError: a column is missing or has no usable type; the columns there are, are named.
        """
        there = f"the columns are {', '.join(f'{field.name} ({field.type})' for field in schema)}"
        for flag, name in (("image", columns.image), ("label", columns.label), ("id", columns.id)):
            if name is not None and name not in schema.names and not (flag == "id" and name == ROW_NUMBER):
                raise UsageError(f"{storage.mask(uri)}: no column {name!r} for --{flag}-column; {there}")
        for name in (columns.image or "image", columns.label or "label", columns.id or "id"):
            if schema.names.count(name) > 1:
                raise UsageError(f"{storage.mask(uri)}: more than one column {name!r}; {there}")
        image = columns.image or ("image" if "image" in schema.names else None)
        if image is None:
            candidates = [field.name for field in schema if holds_images(field.type)]
            if len(candidates) != 1:
                raise UsageError(
                    f"{storage.mask(uri)}: no image column: {there}; name one that holds encoded images "
                    "with --image-column"
                )
            image = candidates[0]
        if not holds_images(schema.field(image).type):
            raise UsageError(
                f"{storage.mask(uri)}: column {image!r} is {schema.field(image).type}, not encoded images (binary, "
                f"or a struct with a binary field `bytes`); {there}; name another with --image-column"
            )
        label = columns.label or ("label" if "label" in schema.names else None)
        if label is not None and not pa.types.is_integer(schema.field(label).type):
            if columns.label is not None:
                raise UsageError(
                    f"{storage.mask(uri)}: column {label!r} of --label-column is {schema.field(label).type}, not "
                    f"a class index (an integer); {there}"
                )
            label = None
        return cls(image, label, columns.id or ("id" if "id" in schema.names else None))

    def names(self, schema: pa.Schema) -> list[str]:
        """The columns to read: those of the chosen ones that ``schema`` has."""
        return [name for name in (self.image, self.label, self.id) if name is not None and name in schema.names]


def holds_images(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type can hold encoded images."""
    if pa.types.is_dictionary(kind):
        return holds_images(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_images(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


class _BadFooter(Exception):
    """Not a Parquet file, or one whose footer cannot be true."""


def _open(shard: Shard, columns: Columns) -> tuple[Any, ParquetFields]:
    """The open file and the columns to read of it."""
    try:
        file = pa.parquet.ParquetFile(shard, pre_buffer=False)
        schema, claim = file.schema_arrow, _false_claim(file.metadata, shard.size)
    except Exception as error:
        shard.raise_if_storage_failed()
        raise _BadFooter(f"not readable as Parquet: {storage.reason(error)}; write the file again") from error
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


@register
class ParquetReader(Format):
    """Parquet: the needed columns of the row groups that overlap the range, a few rows at a time.

    Ranges that follow each other are read on where the last one ended: a row group much larger than a unit is
    decoded once, not once per unit.
    """

    kind = "parquet"
    suffixes = (".parquet", ".pq")
    copied_as = ".parquet"

    def __init__(self, uri: str, columns: Columns = DEFAULT_COLUMNS, *listing: Any):
        super().__init__(uri, columns, *listing)
        self._position = -1
        self._samples: Iterator[Sample] = iter(())

    def length(self) -> int | None:
        """The number of rows, from the footer; None where that is damaged or the file cannot be opened."""
        try:
            with Shard(self.uri) as shard:
                return _open(shard, self.columns)[0].metadata.num_rows
        except (BadFile, _BadFooter):
            return None

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
        if start != self._position:
            self._samples = self._read(start)
        self._position = -1
        last: Sample | None = None
        for last in itertools.islice(self._samples, None if stop is None else stop - start):
            yield last
        # A file that could not be opened has said so, and is opened again for the next range.
        self._position = -1 if last is None or last.row is None else last.row + 1

    def pick(self, rows: Collection[int]) -> Iterator[Sample]:
        """The samples of these rows, in order, from the row groups that hold them."""
        wanted = frozenset(rows)
        return (sample for sample in self._read(min(wanted), wanted) if sample.row is None or sample.row in wanted)

    def copy(self, rows: Collection[int], file: IO[bytes]) -> int:
        """These rows with every column and the schema's metadata, a bounded number at a time."""
        wanted, copied = np.array(sorted(rows)), 0
        with reading(self.uri) as shard:
            source = pa.parquet.ParquetFile(shard, pre_buffer=False)
            with pa.parquet.ParquetWriter(file, source.schema_arrow, compression="zstd") as writer:
                waiting: list[pa.RecordBatch] = []
                for begin, batch in self._batches(source, wanted):
                    own = wanted[(wanted >= begin) & (wanted < begin + len(batch))] - begin
                    if own.size:
                        waiting.append(batch.take(pa.array(own)))
                        copied += own.size
                    if sum(part.nbytes for part in waiting) > _COPIED_BYTES:
                        writer.write_table(pa.Table.from_batches(waiting))
                        waiting = []
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

    def _read(self, start: int, wanted: Collection[int] | None = None) -> Iterator[Sample]:
        with contextlib.ExitStack() as stack:
            try:
                shard = stack.enter_context(Shard(self.uri))
                file, fields = _open(shard, self.columns)
            except (BadFile, _BadFooter, UsageError) as error:
                why = str(error).removeprefix(f"{storage.mask(self.uri)}: ")
                yield Sample(None, None, error=why, stage="list")
                return
            end = 0
            for group in range(file.metadata.num_row_groups):
                begin, end = end, end + file.metadata.row_group(group).num_rows
                if end > start and (wanted is None or any(begin <= row < end for row in wanted)):
                    yield from self._read_group(shard, file, fields, group, begin, end, start)

    def _read_group(
        self, shard: Shard, file: Any, fields: ParquetFields, group: int, begin: int, end: int, start: int
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
            for offset in range(max(start - row, 0), min(columns.rows, end - row)):
                yield _sample(columns, row + offset, offset)
            row += columns.rows
        why = f"row group {group} cannot be read from row {row} on: {why}"
        yield from (Sample(lost, None, error=why) for lost in range(max(row, start), end))


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
    images = batch.column(batch.schema.get_field_index(fields.image))
    paths: Any = None
    if pa.types.is_struct(images.type):
        # `StructArray.field` ignores the struct's own nulls; `flatten` applies them.
        parts = dict(zip([field.name for field in images.type], images.flatten(), strict=True))
        images, paths = parts["bytes"], parts.get("path")
    names = batch.schema.names
    labels = batch.column(names.index(fields.label)) if fields.label in names else None
    ids = batch.column(names.index(fields.id)) if fields.id in names else None
    return _Columns(batch.num_rows, images, paths, labels, ids, fields.id == ROW_NUMBER and ids is None)


def _sample(columns: _Columns, row: int, offset: int) -> Sample:
    path = _value(columns.paths, offset)
    identifier = _value(columns.ids, offset)
    if columns.ids is None and not columns.numbered:
        identifier = path
    name = str(row) if identifier is None else as_text(identifier)
    try:
        content = columns.images[offset].as_py()
    except Exception as error:
        return Sample(row, name, error=storage.reason(error))
    if content is None:
        followed = f"; its path {as_text(path)!r} is not followed" if path else ""
        return Sample(row, name, error=f"the image is null{followed}")
    if len(content) > MAX_IMAGE_BYTES:
        return Sample(row, name, error=f"the image has {len(content)} bytes, more than {MAX_IMAGE_BYTES}")
    return Sample(row, name, content, as_label(_value(columns.labels, offset)))


def _value(column: Any, offset: int) -> Any:
    """One cell; None where it is null or nothing that Python can hold (a date of the year 20,000)."""
    if column is None:
        return None
    try:
        return column[offset].as_py()
    except UnicodeDecodeError as error:
        return error.object  # the bytes
    except Exception:
        return None
