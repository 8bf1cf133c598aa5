"""Parquet files to samples."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import UsageError
from regrad.pipeline.samples import DEFAULT_COLUMNS, Columns, Sample, Shard, as_label

ROW_NUMBER = "row"  # `--id-column row` asks for row numbers where no column has that name
_BATCH_ROWS = 64  # rows decoded at a time: bounds the memory of a row group of any size


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
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and holds_images(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def parquet_footer(uri: str) -> tuple[int, pa.Schema] | None:
    """The number of rows and the schema of a Parquet file; None where its footer is no Parquet footer."""
    with Shard(uri) as shard:
        try:
            file = pa.parquet.ParquetFile(shard)
            return file.metadata.num_rows, file.schema_arrow
        except Exception:
            shard.raise_if_storage_failed()
            return None


class ParquetReader:
    """Parquet: the needed columns of the row groups that overlap the range, a few rows at a time.

    Ranges that follow each other are read on where the last one ended: a row group much larger than a unit is
    decoded once, not once per unit.
    """

    def __init__(self, uri: str, columns: Columns = DEFAULT_COLUMNS):
        self.uri = uri
        self.columns = columns
        self._position = -1
        self._samples: Iterator[Sample] = iter(())

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Sample]:
        """The samples ``start <= row < stop``; a row group that cannot be read gives one error per row in it."""
        if start != self._position:
            self._samples = self._read(start)
        self._position = -1
        yield from itertools.islice(self._samples, None if stop is None else stop - start)
        self._position = -1 if stop is None else stop

    def pick(self, rows: Sequence[int]) -> Iterator[Sample]:
        """The samples of these rows, in order, from the row groups that hold them."""
        wanted = frozenset(rows)
        return (sample for sample in self._read(min(wanted), wanted) if sample.row in wanted)

    def _read(self, start: int, wanted: Collection[int] | None = None) -> Iterator[Sample]:
        with Shard(self.uri) as shard:
            try:
                file = pa.parquet.ParquetFile(shard, buffer_size=storage.READ_AHEAD_BYTES, pre_buffer=False)
                fields = ParquetFields.choose(file.schema_arrow, self.columns, self.uri)
            except UsageError:
                raise
            except Exception as error:
                shard.raise_if_storage_failed()
                yield Sample(None, None, error=f"not readable as Parquet: {storage.reason(error)}")
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
        try:
            for batch in file.iter_batches(_BATCH_ROWS, [group], columns=fields.names(file.schema_arrow)):
                if row + batch.num_rows > start:
                    yield from _samples(batch, fields, row, max(start - row, 0))
                row += batch.num_rows
        except Exception as error:
            shard.raise_if_storage_failed()
            why = f"row group {group} cannot be read from row {row} on: {storage.reason(error)}"
            yield from (Sample(lost, None, error=why) for lost in range(max(row, start), end))


def _samples(batch: pa.RecordBatch, fields: ParquetFields, first: int, skip: int) -> Iterator[Sample]:
    images = batch.column(batch.schema.get_field_index(fields.image))
    paths: Any = None
    if pa.types.is_struct(images.type):
        # `StructArray.field` ignores the struct's own nulls; `flatten` applies them.
        parts = dict(zip([field.name for field in images.type], images.flatten(), strict=True))
        images, paths = parts["bytes"], parts.get("path")
    names = batch.schema.names
    labels = batch.column(names.index(fields.label)) if fields.label in names else None
    ids = batch.column(names.index(fields.id)) if fields.id in names else None
    numbered = fields.id == ROW_NUMBER and ids is None
    for offset in range(skip, batch.num_rows):
        row = first + offset
        identifier = ids[offset].as_py() if ids is not None else None
        if identifier is None and ids is None and not numbered and paths is not None:
            identifier = paths[offset].as_py()
        name = str(row) if identifier is None else _utf8(identifier)
        content = images[offset].as_py()
        if content is None:
            path = paths[offset].as_py() if paths is not None else None
            why = f"the image is null; its path {path!r} is not followed" if path else "the image is null"
            yield Sample(row, name, error=why)
        else:
            yield Sample(row, name, content, as_label(labels[offset].as_py()) if labels is not None else None)


def _utf8(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
