"""The embeddings of a run as a stream: what its network sees in each image, a few thousand rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from regrad import storage, table
from regrad.errors import UsageError
from regrad.ledger.rows import Rows
from regrad.runs.scored import Run

#: Of a row of ``OUT/embeddings/``, what tells which image it is, and what it looks like.
KNOWN_BY = ("id", "source", "row", "digest", "pixels", "perceptual_hash")
_ROWS = 2**14  # given at once: 16 MiB of 512 numbers


@dataclass(frozen=True)
class EmbeddingRows:
    """Some rows of ``OUT/embeddings/``.

    Attributes:
        known_by: ``id, source, row, digest, pixels, perceptual_hash``.
        vectors: (n, d).
    """

    known_by: pa.Table
    vectors: npt.NDArray[np.float16]


def embedding_rows(run: Run) -> Iterator[EmbeddingRows]:
    """All embeddings of ``run`` that count, in the order of its files; memory: a row group of 32,768 rows or so.

    Also while something is at work on the output, see docs/reliability.md.

    Raises:
        UsageError: the run kept none.
        RegradError: the storage refused or failed, a file is damaged, or a unit was replaced meanwhile.
    """
    width = width_of(run)
    for rows in Rows(run.output, "embeddings", run.units).tables([*KNOWN_BY, table.EMBEDDING]):
        for start in range(0, len(rows), _ROWS):
            some = rows.slice(start, _ROWS)
            yield EmbeddingRows(some.select(KNOWN_BY), vectors_of(some[table.EMBEDDING], width))


def width_of(run: Run) -> int:
    """How many numbers each of its embeddings has.

    Raises:
        UsageError: the run kept none.
    """
    width: int = run.model.get("embedding_width") or 0
    if not width:
        raise UsageError(
            f"{storage.mask(run.output)}: kept no embeddings; score it with --embeddings, into an output of its own or "
            "with --replace"
        )
    return width


def vectors_of(column: pa.ChunkedArray, width: int) -> npt.NDArray[np.float16]:
    """(n, d) the embeddings of a column."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float16), *chunks]).reshape(-1, width)
