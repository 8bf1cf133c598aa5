"""The labels of a folder's images: what a table beside them says, else what the folders that they are in are called.

Such a table is what Hugging Face's ImageFolder reads: a ``metadata.csv``, ``.jsonl`` or ``.parquet`` with a row an
image, whose ``file_name`` is the image's path below the table's own folder.
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.reading.naming.classes import Classes, in_short, is_missing, not_called
from regrad.reading.naming.partitions import LABEL, labels_of_partitions
from regrad.reading.naming.trees import Labels, labels_of
from regrad.reading.samples import BadFile, Columns, as_text, reading

_FILE = "file_name"
_LARGEST = 2**30  # bytes of a table
_ABSENT = object()  # of an image that no row names
_TWICE = object()  # of one that rows of several labels name


class _NoTable(Exception):
    """A table that tells no labels, and why."""


def is_table(name: str) -> bool:
    """Whether a file of a folder is called like a table of its images.

    >>> is_table("train/metadata.jsonl"), is_table("train/metadata.json")
    (True, False)
    """
    return name.rpartition("/")[2] in _READERS


def labels_of_folder(
    uri: str, files: Sequence[str], tables: Sequence[str], columns: Columns, classes: Classes
) -> tuple[Labels, tuple[str, ...]]:
    """The labels of ``files``, paths below the folder ``uri``, for a model of these ``classes``.

    Args:
        tables: those of the folder (:func:`is_table`), by their paths below it.
        columns: which of a table's columns holds labels (``label``), and which file names (``file_name``).

    Returns:
        The labels, and the tables that they come from.

    Raises:
        RegradError: the storage refused or failed.
    """
    if classes.count is None or not files:
        return Labels((None,) * len(files)), ()
    column = columns.label or LABEL
    said: dict[str, Any] = {}
    read, faults = list[str](), list[str]()
    for table in tables:
        try:
            rows = _rows(uri, table, columns.id, column)
        except _NoTable as fault:
            faults.append(f"{as_text(table)} {fault}")
            continue
        read.append(table)
        for name, value in rows:
            path = posixpath.normpath(posixpath.join(posixpath.dirname(table), name.replace("\\", "/")))
            said[path] = value if said.get(path, value) == value else _TWICE
    if read:
        labels = _of_tables(files, said, classes, f"column {column!r} of {in_short(list(map(as_text, read)))}")
    else:
        of_partitions = labels_of_partitions(files, column, classes)
        labels = of_partitions or labels_of(files, classes)
        if columns.label and not faults and not of_partitions:
            faults = [f"no metadata.csv, .jsonl or .parquet beside the images has the column {column!r}"]
    told = "; ".join(filter(None, [labels.told, *faults]))
    return Labels(labels.of_files, told), tuple(read)


def _of_tables(files: Sequence[str], said: Mapping[str, Any], classes: Classes, where: str) -> Labels:
    values = [said.get(as_text(file), _ABSENT) for file in files]
    labels = tuple(map(classes.label, values))  # none of what is no value
    strange = sorted(
        {
            as_text(value)
            for value, label in zip(values, labels, strict=True)
            if label is None and value not in (_ABSENT, _TWICE) and not is_missing(value)
        }
    )
    counted = (("no row there", _ABSENT), ("several labels there, and none here,", _TWICE))
    numbers = {what: sum(value is state for value in values) for what, state in counted}
    told = [
        f"labels are {where}",
        *(f"{what} for {number:,} of {len(files):,} images" for what, number in numbers.items() if number),
    ]
    if strange:
        told.append(not_called(strange))
    return Labels(labels, "; ".join(told))


# ----------------------------------------------------------------------------------------------- reading a table


def _rows(uri: str, table: str, identifier: str | None, label: str) -> list[tuple[str, Any]]:
    """File names and labels of a table's rows; rows without a name are left out.

    The file names are in the column ``identifier``, where the table has it, else in ``file_name``.
    """
    content = _content(storage.join(uri, table))
    try:
        names, rows = _READERS[table.rpartition("/")[2]](content)
        chosen = (identifier if identifier in names else _FILE, label)
        if missing := next((column for column in chosen if column not in names), None):
            there = f" ({in_short(names)})" if names else ""
            raise _NoTable(f"has no column {missing!r}{there}, and tells no labels")
        return [(name, value) for name, value in rows(*chosen) if isinstance(name, str) and name]
    except _NoTable:
        raise
    except Exception as error:  # of whichever library reads it
        raise _NoTable(f"cannot be read: {storage.reason(error)}") from error


def _content(uri: str) -> bytes:
    try:
        with reading(uri) as file:
            if file.size > _LARGEST:
                raise _NoTable(f"has {file.size:,} bytes, and is read up to {_LARGEST:,}")
            return file.read()
    except RegradError as error:  # a name that looks like a signature is refused as a usage
        if isinstance(error, UsageError) or isinstance(error.__cause__, BadFile):
            raise _NoTable(f"cannot be read: {error.__cause__ or error}") from error
        raise


def _of_csv(content: bytes) -> _Table:
    names, *rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))) or [[]]
    return names, lambda *columns: _cells(rows, *map(names.index, columns))


def _cells(rows: Sequence[Sequence[str]], *places: int) -> _Rows:
    return (tuple(row[place] for place in places) for row in rows if len(row) > max(places))


def _of_jsonl(content: bytes) -> _Table:
    lines = enumerate(content.decode("utf-8-sig").split("\n"), 1)
    rows = [_object(line, number) for number, line in lines if line.strip()]
    names = list(dict.fromkeys(key for row in rows for key in row))
    return names, lambda *columns: (tuple(row.get(column) for column in columns) for row in rows)


def _object(line: str, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise _NoTable(f"cannot be read: line {number} is no JSON object")
    return row


def _of_parquet(content: bytes) -> _Table:
    file = pa.parquet.ParquetFile(io.BytesIO(content))

    def rows(*columns: str) -> _Rows:
        return zip(*(column.to_pylist() for column in file.read(list(columns)).select(columns)), strict=True)

    return file.schema_arrow.names, rows


_Rows = Iterable[tuple[Any, ...]]
_Table = tuple[Sequence[str], Callable[..., _Rows]]  # the names of the columns, and what gives some of them
_READERS: dict[str, Callable[[bytes], _Table]] = {
    "metadata.csv": _of_csv,
    "metadata.jsonl": _of_jsonl,
    "metadata.parquet": _of_parquet,
}
