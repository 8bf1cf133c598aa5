"""What a look into shards has told, kept beside an output so that a shard that has not changed is not opened again.

``OUT/sources.parquet`` has a row for each source that was looked into: its identity then, by which columns, how many
rows it has, and what else :meth:`regrad.reading.formats.Format.length` finds out. It is believed for the same identity,
the same columns and the same version of regrad; without it, or where it is damaged, every shard is opened.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from regrad import storage, table
from regrad.errors import RegradError, UsageError
from regrad.reading.fields import NoImages
from regrad.reading.formats import Mark, Source

#: A source with its rows, or what is wrong with the columns.
Look = tuple[Source, UsageError | None]

_TEXT = pa.dictionary(pa.int32(), pa.string())  # the same for very many sources
SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("identity", pa.string()),
        ("read_by", _TEXT),
        ("rows", pa.int64()),
        ("label_names", _TEXT),
        ("no_labels", pa.string()),
        ("no_images", pa.string()),
        ("marks", pa.list_(pa.int64())),  # rows and bytes in turn
        ("whole", _TEXT),
    ]
)


class Looked:
    """Looks by the name of their source; what is kept is read when it is first asked for.

    Args:
        output: where they are kept; None: nowhere.
        version: of regrad; what another one saw is not believed.

    Raises:
        RegradError: the storage refused or failed.
    """

    def __init__(self, output: str | None = None, version: str = ""):
        self._uri = storage.join(output, "sources.parquet") if output else ""
        self._version = version
        self._names: dict[str, tuple[str, ...]] = {}  # each once, whatever the number of sources
        self._new = False

    @functools.cached_property
    def _rows(self) -> dict[str, tuple[Any, ...]]:
        stored = _stored(self._uri) if self._uri else SCHEMA.empty_table()
        columns = [column.to_pylist() for column in stored.columns]
        return {row[0]: row[1:] for row in zip(*columns, strict=True)}

    def recall(self, source: Source) -> Look | None:
        """What a look into ``source`` would tell now; None where nobody looked, or it may have changed since."""
        identity, read_by, rows, names, no_labels, no_images, places, whole = self._rows.get(source.uri, (None,) * 8)
        if identity != source.identity or read_by != self._read_by(source):
            return None
        if no_images is not None:
            return source, NoImages(no_images)
        labels = names and self._names.setdefault(names, tuple(json.loads(names)))
        lacking = None if no_labels is None else UsageError(no_labels)
        marks = tuple(map(Mark, places[::2], places[1::2])) if places else ()
        told = {"rows": rows, "label_names": labels or (), "no_labels": lacking, "marks": marks, "whole": whole or ""}
        return dataclasses.replace(source, **told), None

    def remember(self, looks: Iterable[Look]) -> None:
        """Take what was found out, but for sources that may change unnoticed, or whose length only reading tells."""
        for source, mistake in looks:
            table_alone = isinstance(mistake, NoImages)
            told = table_alone or source.rows is not None or source.whole
            if storage.tells_change(source.identity) and told:
                row = (
                    source.identity,
                    self._read_by(source),
                    source.rows,
                    json.dumps(source.label_names) if source.label_names else None,
                    None if source.no_labels is None else str(source.no_labels),
                    str(mistake) if table_alone else None,
                    [number for mark in source.marks for number in mark] or None,
                    source.whole or None,
                )
                self._new |= self._rows.get(source.uri) != row
                self._rows[source.uri] = row

    def _read_by(self, source: Source) -> str:
        columns = source.columns
        return json.dumps([self._version, source.kind, columns.image, columns.label, columns.id])

    def save(self) -> None:
        """Write down what is new since the last time, if anything is."""
        if self._new:
            columns = zip(*((uri, *row) for uri, row in sorted(self._rows.items())), strict=True)
            columns_as_arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
            table.write_file(self._uri, pa.table(columns_as_arrays, schema=SCHEMA))
            self._new = False


def _stored(uri: str) -> pa.Table:
    try:
        return table.read_file(uri, SCHEMA)
    except RegradError as error:
        if isinstance(error.__cause__, pa.ArrowException):
            return SCHEMA.empty_table()
        raise
