"""Outputs with embeddings that a test makes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from regrad import table
from regrad.pipeline.account import as_table
from regrad.runs.scored import Run
from tests.outputs import commit_rows

Array = np.ndarray[Any, Any]


def embedded(folder: Path, vectors: Array, hashes: Array | None = None, unit_rows: int = 70) -> Run:
    """A run of an image for each of the (n, d) ``vectors``, of the set hashes where there are any, in several units."""
    shown = np.zeros(len(vectors), np.uint64) if hashes is None else hashes
    for start in range(0, len(vectors), unit_rows):
        rows = range(start, min(start + unit_rows, len(vectors)))
        known = [(f"i{row}", "made up", row, f"{row + 1:032x}") for row in rows]
        scores = [(*name[:3], None, 1, 0.5, None, name[3], 1.0) for name in known]
        marks = [(*name, name[3], int(shown[row]), vectors[row]) for row, name in zip(rows, known, strict=True)]
        commit_rows(
            str(folder),
            f"{start:06}",
            as_table(scores, table.score_schema(["entropy"])),
            embeddings=pa.Table.from_batches([_batch(marks, vectors.shape[1])]),
        )
    model = {"embedding_width": vectors.shape[1], "network": "f" * 64}
    return Run(folder.name, str(folder), {"model": model, "config": {}}, ("entropy",))


def _batch(rows: list[tuple[Any, ...]], width: int) -> pa.RecordBatch:
    schema = table.embedding_schema(width)
    columns = [*zip(*rows, strict=True)]
    numbers = pa.array(np.concatenate(columns[-1]).astype(np.float16))
    known = [pa.array(column, field.type) for column, field in zip(columns[:-1], schema, strict=False)]
    return pa.record_batch([*known, pa.FixedSizeListArray.from_arrays(numbers, width)], schema=schema)
