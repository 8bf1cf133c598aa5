"""The score table: a row per image in Parquet, each file with its provenance.

``OUT/scores/part-<unit>.parquet`` has the rows of one unit of work, ``OUT/scores/merged-*.parquet`` those of many. They
hold ``id, source, row, label, prediction, confidence, nll, digest``, one float64 column per score, and the columns of
several numbers a row that were asked for: ``logits``, a fixed-size list of float32, one for each class, and
``prediction_set``, a list of int32, classes in the order of their probabilities. ``nll`` is -log p of the label, null
where there is none or it is no class of the model, ``digest`` the 128-bit BLAKE2b of the encoded image in hexadecimal.
``OUT/embeddings/``, if asked for, has ``id, source, row, digest, pixels, perceptual_hash, embedding`` of the scored
images in files of the same kind: what they look like (:mod:`regrad.reading.likeness`), and what the network's last
Linear layer is given, a fixed-size list of float16.
``OUT/quarantine/part-<unit>.parquet`` holds the images that could not be scored, with the
reason, and their ``digest`` where there were bytes. Where rows come from (model, configuration, the engine's plan,
versions) is written once, to ``OUT/provenance/<name>.json``; the footer of each file names it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.settings.columns import FIXED, SEVERAL

ROWS_VERSION = 2  # of the rows and records themselves; the keys of units depend on it
# Of an output; from 3 on, a file may have the rows of many units, from 4 on a file of the ledger may commit them.
SCHEMA_VERSION = 4
_READ_VERSIONS = (2, 3, 4)
PROVENANCE_KEY = b"regrad"
ABOUT = ("schema_version", "regrad_version", "model")  # of the provenance, what each file says too
_TYPES = (
    *(pa.string(), pa.string(), pa.int64()),  # id, source, row
    *(pa.int32(), pa.int32(), pa.float32(), pa.float64(), pa.string()),  # label to digest
)
FIXED_COLUMNS = tuple(zip(FIXED, _TYPES, strict=True))
_SEVERAL_TYPES: dict[str, Callable[[int], pa.DataType]] = {  # by the number of classes
    "logits": lambda classes: pa.list_(pa.float32(), classes),
    "prediction_set": lambda classes: pa.list_(pa.int32()),
}
EMBEDDING = "embedding"
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
_BEFORE_LATER = ("nll", "reason")  # the columns that they come after


def score_schema(scores: Sequence[str], settings: Mapping[str, Any] | None = None, classes: int = 0) -> pa.Schema:
    """The Arrow schema of ``scores/`` for these score names, and the columns of several numbers that ``settings`` (the
    configuration of a run, or the arguments of a scorer) ask for, of a model of so many ``classes``."""
    asked = [name for name, setting in SEVERAL.items() if settings and settings.get(setting)]
    several = ((name, _SEVERAL_TYPES[name](classes)) for name in asked)
    return pa.schema([*FIXED_COLUMNS, *((name, pa.float64()) for name in scores), *several])


def embedding_schema(width: int) -> pa.Schema:
    """The Arrow schema of ``embeddings/``, of a network whose last layer is given so many numbers."""
    known = [(name, kind) for name, kind in FIXED_COLUMNS if name in ("id", "source", "row", "digest")]
    looks = [("pixels", pa.string()), ("perceptual_hash", pa.uint64())]
    return pa.schema([*known, *looks, (EMBEDDING, pa.list_(pa.float16(), width))])


def schema_of(kind: str, run: Mapping[str, Any]) -> pa.Schema:
    """The columns of ``OUT/<kind>/`` of a run of which ``run.json`` says this."""
    config, model = run["config"], run["model"]
    made: dict[str, Callable[[], pa.Schema]] = {
        "scores": lambda: score_schema(config["scores"], config, model["classes"]),
        "quarantine": lambda: QUARANTINE_SCHEMA,
        "embeddings": lambda: embedding_schema(model["embedding_width"]),
    }
    return made[kind]()


def with_later(schema: pa.Schema) -> pa.Schema:
    """``schema`` with the columns that a file of an earlier version lacks."""
    place = 1 + max((schema.names.index(name) for name in _BEFORE_LATER if name in schema.names), default=-1)
    later = [field for field in LATER_COLUMNS if field.name not in schema.names]
    return pa.schema([*list(schema)[:place], *later, *list(schema)[place:]])


def to_parquet(table: pa.Table, said: Mapping[str, Any]) -> bytes:
    """``table`` as Parquet with a checksum a page, and with what it says of itself as JSON under the key ``regrad``."""
    sink = io.BytesIO()
    with writer(sink, table.schema) as file:
        file.write_table(table.replace_schema_metadata(None))
        file.add_key_value_metadata(metadata(said))
    return sink.getvalue()


def writer(sink: IO[bytes], schema: pa.Schema) -> pa.parquet.ParquetWriter:
    """For files of rows.

    Arrow's own copy of the schema takes 2 KB a file, and tells nothing more but that lists are of a fixed size. Their
    numbers repeat so seldom that a dictionary of them only costs, and are smaller byte by byte. (Those of two bytes
    DuckDB does not read that way.)
    """
    plain = schema.remove_metadata()
    vectors = {field.name: field.type.value_type for field in plain if pa.types.is_fixed_size_list(field.type)}
    own: dict[str, Any] = {"store_schema": False}
    if vectors:
        own = {
            "use_dictionary": [field.name for field in plain if not pa.types.is_nested(field.type)],
            "column_encoding": {
                f"{name}.list.element": "PLAIN" if kind == pa.float16() else "BYTE_STREAM_SPLIT"
                for name, kind in vectors.items()
            },
        }
    return pa.parquet.ParquetWriter(sink, plain, compression="zstd", write_page_checksum=True, **own)


def metadata(said: Mapping[str, Any]) -> dict[bytes, bytes]:
    """What a footer says, as Parquet keeps it."""
    return {PROVENANCE_KEY: json.dumps(said, sort_keys=True).encode()}


def footer(provenance: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a file says of itself: ``more``, the model, the versions, and the name of the whole provenance."""
    short = {name: provenance[name] for name in ABOUT if name in provenance}
    return short | {"provenance": _provenance_name(provenance)} | more


def _provenance_name(provenance: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(provenance, sort_keys=True).encode()).hexdigest()[:16]


def write_provenance(output: str, provenance: Mapping[str, Any]) -> str:
    """Write ``OUT/provenance/<name>.json``; returns the name, which stands for the content."""
    name = _provenance_name(provenance)
    content = (json.dumps(provenance, indent=2, sort_keys=True) + "\n").encode()
    storage.write_atomically(storage.join(output, "provenance", f"{name}.json"), content)
    return name


def read_provenance(output: str, name: str) -> dict[str, Any]:
    """What a footer means by ``name``.

    Raises:
        RegradError: it is gone, is not what was written, or the storage refused or failed.
    """
    uri = storage.join(output, "provenance", f"{name}.json")
    try:
        provenance: dict[str, Any] = json.loads(storage.read_bytes(uri))
        if _provenance_name(provenance) != name:
            raise ValueError("its content is not that of its name")
    except (FileNotFoundError, ValueError) as error:
        raise RegradError(
            f"{storage.mask(uri)}: cannot be read ({storage.reason(error)}), so the files that name it do not say "
            "where their rows come from; put it back"
        ) from error
    return provenance


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
    if run.get("schema_version") not in _READ_VERSIONS:
        raise UsageError(
            f"{storage.mask(output)}: holds a run of schema version {run.get('schema_version')}, this regrad reads "
            f"{_READ_VERSIONS[0]} to {_READ_VERSIONS[-1]}; use another --output, or the regrad version that wrote it "
            f"({run.get('regrad_version')})"
        )
    return run


def in_memory(content: bytes) -> pa.BufferReader:
    """``content`` as a file that lies in memory of Arrow's own.

    Arrow's threads may let go of what they read a moment after it was read. Where that belongs to Python they ask for
    the interpreter to free it, and where the process is about to end that aborts it (SIGABRT, exit code 134). So it is
    with a file object of Python's: ``pre_buffer=False`` and ``use_threads=False`` leave the threads out.
    """
    buffer = pa.allocate_buffer(len(content))
    memoryview(buffer).cast("B")[:] = memoryview(content).cast("B")
    return pa.BufferReader(buffer)


def read_file(uri: str, schema: pa.Schema) -> pa.Table:
    """The Parquet file at ``uri`` with the columns of ``schema``, null where it lacks one; no row if there is none.

    Raises:
        RegradError: the storage refused or failed, or the file is damaged.
    """
    try:
        stored = pa.parquet.ParquetFile(in_memory(storage.read_bytes(uri))).read()
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


def write_run(output: str, run: Mapping[str, Any]) -> None:
    """Write ``run`` as ``OUT/run.json``."""
    storage.write_atomically(storage.join(output, "run.json"), (json.dumps(run, indent=2) + "\n").encode())


def write_file(uri: str, rows: pa.Table) -> None:
    """Write ``rows`` as one Parquet file, whole or not at all."""
    sink = io.BytesIO()
    pa.parquet.write_table(rows, sink, compression="zstd")
    storage.write_atomically(uri, sink.getvalue())


def write_list(stem: str, rows: pa.Table) -> tuple[str, str]:
    """Write ``rows`` to ``stem``.csv and ``stem``.parquet; returns the two places.

    Raises:
        RegradError: the storage refused or failed.
    """
    text, binary = io.BytesIO(), io.BytesIO()
    pyarrow.csv.write_csv(rows, text)
    pa.parquet.write_table(rows, binary)
    places = (f"{stem}.csv", f"{stem}.parquet")
    for place, content in zip(places, (text, binary), strict=True):
        storage.write_atomically(place, content.getvalue())
    return places


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
    parts = parts.replace_schema(with_later(parts.schema))
    missing = sorted(set(columns or ()) - set(parts.schema.names))
    if missing:
        raise UsageError(
            f"{storage.mask(output)}: no column {', '.join(missing)}; the columns are {', '.join(parts.schema.names)}"
        )
    return parts.to_table(columns=list(columns) if columns is not None else None)
