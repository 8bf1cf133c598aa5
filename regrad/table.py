"""The score table: one Parquet part per unit of work, one row per image, provenance in every file.

``OUT/scores/part-<unit>.parquet`` holds ``id, source, row, label, prediction, confidence, nll, digest`` and one float64
column per score; ``nll`` is -log p of the label, null where there is none or it is no class of the model, ``digest``
the 128-bit BLAKE2b of the encoded image in hexadecimal. ``OUT/quarantine/part-<unit>.parquet`` holds the images that
could not be scored, with the reason, and their ``digest`` where there were bytes.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.settings.columns import FIXED

SCHEMA_VERSION = 2
PROVENANCE_KEY = b"regrad"
_TYPES = (
    *(pa.string(), pa.string(), pa.int64()),  # id, source, row
    *(pa.int32(), pa.int32(), pa.float32(), pa.float64(), pa.string()),  # label to digest
)
FIXED_COLUMNS = tuple(zip(FIXED, _TYPES, strict=True))
QUARANTINE_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("row", pa.int64()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("digest", pa.string()),
    ]
)
LATER_COLUMNS = (pa.field("digest", pa.string()),)  # parts of earlier versions have none, which is read as null


def score_schema(scores: Sequence[str]) -> pa.Schema:
    """The Arrow schema of ``scores/`` for these score names."""
    return pa.schema([*FIXED_COLUMNS, *((name, pa.float64()) for name in scores)])


def to_parquet(table: pa.Table, provenance: dict[str, Any]) -> bytes:
    """``table`` as Parquet with a checksum a page, and with ``provenance`` as JSON under its key ``regrad``."""
    metadata = {PROVENANCE_KEY: json.dumps(provenance, sort_keys=True).encode()}
    sink = io.BytesIO()
    pa.parquet.write_table(table.replace_schema_metadata(metadata), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read_run(output: str) -> dict[str, Any]:
    """``OUT/run.json`` of the run at ``output``.

    Raises:
        UsageError: ``output`` holds no run, or one of another schema version.
    """
    try:
        run = json.loads(storage.read_bytes(storage.join(output, "run.json")))
    except FileNotFoundError as error:
        raise UsageError(
            f"{storage.mask(output)}: no run.json here; give the --output of a regrad score run"
        ) from error
    except ValueError as error:
        raise RegradError(
            f"{storage.mask(output)}/run.json: not valid JSON ({error}); score into a new output"
        ) from error
    if run.get("schema_version") != SCHEMA_VERSION:
        raise UsageError(
            f"{storage.mask(output)}: holds a run of schema version {run.get('schema_version')}, this regrad reads "
            f"{SCHEMA_VERSION}; use another --output, or the regrad version that wrote it ({run.get('regrad_version')})"
        )
    return run


def read_file(uri: str, schema: pa.Schema) -> pa.Table:
    """The Parquet file at ``uri`` with the columns of ``schema``, null where it lacks one; no row if there is none.

    Raises:
        RegradError: the storage refused or failed, or the file is damaged.
    """
    try:
        stored = pa.parquet.ParquetFile(pa.BufferReader(storage.read_bytes(uri))).read()
    except FileNotFoundError:
        return schema.empty_table()
    except pa.ArrowException as error:
        raise RegradError(
            f"{storage.mask(uri)}: not readable as Parquet ({storage.reason(error)}); move it away to begin anew"
        ) from error
    columns = [
        stored[field.name].cast(field.type) if field.name in stored.column_names else pa.nulls(len(stored), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def write_file(uri: str, rows: pa.Table) -> None:
    """Write ``rows`` as one Parquet file, whole or not at all."""
    sink = io.BytesIO()
    pa.parquet.write_table(rows, sink, compression="zstd")
    storage.write_atomically(uri, sink.getvalue())


def read(output: str, columns: Sequence[str] | None = None, kind: str = "scores") -> pa.Table:
    """All rows of the run at ``output``, only ``columns`` when given, as any reader of Parquet finds them.

    That is right while nothing is at work on the output; :class:`regrad.ledger.rows.Rows` reads by the ledger.

    Raises:
        UsageError: there are no rows, or a column is missing (the columns there are, are named).
    """
    from pyarrow import dataset  # brings pandas with it, which what only looks at a run need not wait for

    names = storage.list_files(storage.join(output, kind), ".parquet")
    if not names:
        raise UsageError(f"{storage.mask(output)}: no rows under {kind}/; has the scoring run finished?")
    fs, path = storage.filesystem(storage.join(output, kind))
    parts = dataset.dataset([f"{path}/{name}" for name in names], format="parquet", filesystem=fs)
    later = [field for field in LATER_COLUMNS if field.name not in parts.schema.names]
    parts = parts.replace_schema(functools.reduce(pa.Schema.append, later, parts.schema))
    missing = sorted(set(columns or ()) - set(parts.schema.names))
    if missing:
        raise UsageError(
            f"{storage.mask(output)}: no column {', '.join(missing)}; the columns are {', '.join(parts.schema.names)}"
        )
    return parts.to_table(columns=list(columns) if columns is not None else None)
