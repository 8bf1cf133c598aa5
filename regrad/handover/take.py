"""Taking back: which form a file has is told by what is in it, and each is read to one table."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from dataclasses import astuple
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from regrad import storage, table
from regrad.errors import UsageError
from regrad.handover.coco import read_coco
from regrad.handover.cvat import read_cvat
from regrad.handover.fiftyone import read_fiftyone
from regrad.handover.forms import FILE_COLUMNS, Returned, told_in
from regrad.handover.label_studio import read_label_studio
from regrad.reading.naming.classes import in_short

#: A row for each time that a file speaks of an image: see :class:`regrad.handover.forms.Returned`.
RETURNED_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("file", pa.string()),
        ("labelled", pa.bool_()),
        ("label", pa.string()),
        ("predicted", pa.bool_()),
    ]
)
_DOCUMENTS = {"Label Studio": read_label_studio, "COCO": read_coco, "FiftyOne": read_fiftyone}
_LISTS = (".xml", ".json", ".jsonl", ".csv", ".parquet")
_IDS, _SOURCES, _LABELS = ("regrad_id", "id"), ("regrad_source", "source"), ("label",)


def read_returned(uri: str) -> tuple[str, pa.Table]:
    """The form of a file and its rows of :data:`RETURNED_SCHEMA`.

    Label Studio's export (JSON, JSON-MIN or CSV), CVAT's XML, COCO, FiftyOne's labels.json, Hugging Face's metadata, a
    CSV or Parquet file with a column ``id`` or one that names files; or a ``.zip`` with one of these in it. Of a table,
    an image without a value in the column ``label`` has no label; without such a column all that it names are labelled.

    Raises:
        UsageError: it cannot be read, or is none of these.
    """
    try:
        content = _unpacked(uri) if uri.lower().endswith(".zip") else storage.read_bytes(uri)
        begin = content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
        read = next((read for mark, read in _MARKS.items() if begin.startswith(mark)), _of_csv)
        return read(content)
    except FileNotFoundError as error:
        raise UsageError(str(error)) from error
    except storage.Changed as error:
        raise UsageError(f"{storage.mask(uri)}: no such file") from error
    except UsageError as error:
        raise UsageError(f"{storage.mask(uri)}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:  # of objects that lack what their form has
        raise UsageError(f"{storage.mask(uri)}: not an export that is whole: {storage.reason(error)}") from error


def _unpacked(uri: str) -> bytes:
    """The list in an archive that may have images, which are not read."""
    try:
        with storage.open_file(uri) as file, zipfile.ZipFile(file) as archive:
            lists = [name for name in archive.namelist() if name.lower().endswith(_LISTS)]
            if len(lists) != 1:
                raise UsageError(f"{len(lists)} lists in it ({in_short(lists)}): unpack it, and name one")
            return archive.read(lists[0])
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:  # damaged, of a strange kind, encrypted
        raise UsageError(f"not readable as a zip: {storage.reason(error)}") from error


def _of_xml(content: bytes) -> tuple[str, pa.Table]:
    return "CVAT", _of_records(read_cvat(content))


def _of_json(content: bytes) -> tuple[str, pa.Table]:
    try:
        document = json.loads(content)
    except ValueError as error:
        lines = _of_lines(content)
        if lines is None:
            raise UsageError(f"not readable as JSON: {error}") from error
        return "JSON lines", lines
    for name, read in _DOCUMENTS.items():
        returned = read(document)
        if returned is not None:
            return name, _of_records(returned)
    if isinstance(document, dict):
        return "JSON lines", _of_dicts([document])  # a file of one line
    raise UsageError(f"JSON, but no export of {', '.join(_DOCUMENTS)} or Hugging Face")


def _of_lines(content: bytes) -> pa.Table | None:
    """The rows of a file with an object on each line; None where it is none."""
    try:
        records = [json.loads(line) for line in content.splitlines() if line.strip()]
    except ValueError:
        return None
    return _of_dicts(records) if all(isinstance(record, dict) for record in records) else None


def _of_dicts(records: list[dict[str, Any]]) -> pa.Table:
    columns = {name for record in records for name in record}
    _refuse_strange(sorted(columns))
    listed = not any(name in columns for name in _LABELS)
    labels = [record.get(_LABELS[0]) for record in records]
    told = [
        told_in(record, listed or label not in (None, ""), None if label in (None, "") else str(label))
        for record, label in zip(records, labels, strict=True)
    ]
    return _of_records(told)


def _of_records(returned: Iterable[Returned]) -> pa.Table:
    columns = list(zip(*map(astuple, returned), strict=True)) or [()] * len(RETURNED_SCHEMA)
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, RETURNED_SCHEMA, strict=True)],
        schema=RETURNED_SCHEMA,
    )


def _of_parquet(content: bytes) -> tuple[str, pa.Table]:
    try:
        file = pyarrow.parquet.ParquetFile(table.in_memory(content))
        return "Parquet", _of_table(file.read(columns=_wanted(file.schema_arrow.names)))
    except pa.ArrowException as error:
        raise UsageError(f"not readable as Parquet: {storage.reason(error)}") from error


def _of_csv(content: bytes) -> tuple[str, pa.Table]:
    try:
        with pyarrow.csv.open_csv(table.in_memory(content)) as file:
            names = file.schema.names
        wanted = _wanted(names)
        text = dict.fromkeys(wanted, pa.string())  # 0001 is an id, not the number 1
        options = pyarrow.csv.ConvertOptions(column_types=text, include_columns=wanted)
        parsing = pyarrow.csv.ParseOptions(newlines_in_values=True)  # which ids may have
        rows = pyarrow.csv.read_csv(table.in_memory(content), parse_options=parsing, convert_options=options)
        return "CSV", _of_table(rows)
    except pa.ArrowException as error:
        raise UsageError(f"not readable as CSV: {storage.reason(error)}") from error


#: How a file of each kind begins; all others are CSV.
_MARKS = {b"PAR1": _of_parquet, b"<": _of_xml, b"{": _of_json, b"[": _of_json}


def _wanted(names: list[str]) -> list[str]:
    _refuse_strange(names)
    return [name for name in dict.fromkeys((*_IDS, *_SOURCES, *FILE_COLUMNS, *_LABELS)) if name in names]


def _refuse_strange(names: list[str]) -> None:
    if not any(name in names for name in (*_IDS, *FILE_COLUMNS)):
        raise UsageError(f"no column id, and none that names files; the columns are {', '.join(names)}")


def _of_table(rows: pa.Table) -> pa.Table:
    """Columns of one's own names as :data:`RETURNED_SCHEMA`."""
    ids, sources, files, labels = (_first(rows, names) for names in (_IDS, _SOURCES, FILE_COLUMNS, _LABELS))
    empty = pa.nulls(len(rows), pa.string())
    labelled = pa.array([True] * len(rows), pa.bool_()) if labels is None else pc.is_valid(labels)
    file = empty if ids is not None or files is None else files
    columns = [ids, sources, file, labelled, labels, pa.array([False] * len(rows), pa.bool_())]
    return pa.table([empty if column is None else column for column in columns], schema=RETURNED_SCHEMA)


def _first(rows: pa.Table, names: Iterable[str]) -> pa.ChunkedArray | None:
    """The first of the columns that there is; an empty text is none."""
    texts = next((rows[name].cast(pa.string()) for name in names if name in rows.column_names), None)
    return None if texts is None else pc.if_else(pc.equal(texts, ""), None, texts)
