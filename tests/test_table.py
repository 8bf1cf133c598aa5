"""The score table: parts with provenance, read as one; what is no table is named."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from regrad import table
from regrad.errors import RegradError, UsageError

ROWS = [
    ("a", "s3://b/0.tar", 0, 1, 2, 0.5, 0.7, "d0", 1.5),
    ("b", "s3://b/0.tar", 1, None, 2, 0.25, None, None, 2.5),
]


def part(folder: Path, name: str, rows: list[tuple[object, ...]], scores: tuple[str, ...] = ("entropy",)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    columns = zip(*rows, strict=True)
    schema = table.score_schema(scores)
    content = pa.table([pa.array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema)
    (folder / name).write_bytes(table.to_parquet(content, {"unit": name}))


def test_a_part_has_its_columns_checksums_and_provenance(tmp_path: Path) -> None:
    part(tmp_path / "scores", "part-0.parquet", ROWS)
    path = tmp_path / "scores/part-0.parquet"
    file = pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)
    assert json.loads(file.schema_arrow.metadata[table.PROVENANCE_KEY]) == {"unit": "part-0.parquet"}
    assert file.schema_arrow.remove_metadata().equals(table.score_schema(["entropy"]))
    assert file.read().to_pylist()[1] == dict(zip(file.schema_arrow.names, ROWS[1], strict=True))
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    with pytest.raises((OSError, pa.ArrowException)):
        pyarrow.parquet.ParquetFile(path, page_checksum_verification=True).read()


def test_logits_come_back_as_they_were_and_take_little(tmp_path: Path) -> None:
    """A fixed-size list, in less than its plain 4 bytes a number."""
    schema = table.score_schema([], {"logits": True, "seed": 0}, classes=100)
    drawn = np.random.default_rng(0).normal(0, 4, (500, 100)).astype(np.float32)
    none = pa.table([pa.nulls(500, field.type) for field in schema][:-1], schema=pa.schema(list(schema)[:-1]))
    rows = none.append_column("logits", pa.FixedSizeListArray.from_arrays(pa.array(drawn.ravel()), 100)).cast(schema)
    (tmp_path / "a.parquet").write_bytes(table.to_parquet(rows, {}))
    read = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    assert read.schema.field("logits") == schema.field("logits")
    np.testing.assert_array_equal(np.array(read["logits"].to_pylist(), np.float32), drawn)
    assert (tmp_path / "a.parquet").stat().st_size < 0.9 * drawn.nbytes
    assert "logits" not in table.score_schema([], {"logits": False}, classes=100).names


def test_parts_are_one_table(tmp_path: Path) -> None:
    part(tmp_path / "scores", "part-1.parquet", ROWS[1:])
    part(tmp_path / "scores", "part-0.parquet", ROWS[:1])
    (tmp_path / "scores/_tmp-part-2.parquet").write_bytes(b"half")
    assert table.read(str(tmp_path), ["id", "entropy"]).to_pylist() == [
        {"id": "a", "entropy": 1.5},
        {"id": "b", "entropy": 2.5},
    ]
    with pytest.raises(UsageError, match="no rows under quarantine/"):
        table.read(str(tmp_path), kind="quarantine")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows under scores/; has the scoring run finished"):
        table.read(str(tmp_path))
    part(tmp_path / "scores", "part-0.parquet", ROWS)
    with pytest.raises(UsageError, match=r"no column regrad; the columns are id, source, .*, nll, digest, entropy$"):
        table.read(str(tmp_path), ["id", "regrad"])


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        (None, UsageError, "no run.json here"),
        ('{"schema_version": 1, "regrad_version": "0.0.1"}', UsageError, r"schema version 1, .* wrote it \(0\.0\.1\)"),
        ("{}", UsageError, "schema version None"),
        ("{", RegradError, "run.json: not valid JSON"),
    ],
)
def test_a_run_that_cannot_be_read(tmp_path: Path, content: str | None, kind: type[Exception], message: str) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(kind, match=message) as caught:
        table.read_run(str(tmp_path))
    assert type(caught.value) is kind


def test_a_run(tmp_path: Path) -> None:
    run = {"schema_version": table.SCHEMA_VERSION, "status": "done"}
    (tmp_path / "run.json").write_text(json.dumps(run))
    assert table.read_run(str(tmp_path)) == run


def test_what_arrow_reads_in_memory_belongs_to_arrow() -> None:
    """A thread of Arrow's that lets go of Python's bytes while Python ends aborts the process."""
    content = b"some bytes " * 100
    held = sys.getrefcount(content)
    file = table.in_memory(content)
    assert sys.getrefcount(content) == held
    assert file.read() == content
    assert table.in_memory(b"").read() == b""
