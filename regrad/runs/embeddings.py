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
from regrad.runs.pairs import Keys, row_keys
from regrad.runs.scored import Ints, Run, integers

#: Of a row of ``OUT/embeddings/``, what tells which image it is, and what it looks like.
KNOWN_BY = ("id", "source", "row", "digest", "pixels", "perceptual_hash")
_ROWS = 2**14  # given at once: 16 MiB of 512 numbers

Vectors = npt.NDArray[np.float16]


@dataclass(frozen=True)
class EmbeddingRows:
    """Some rows of ``OUT/embeddings/``.

    Attributes:
        known_by: ``id, source, row, digest, pixels, perceptual_hash``.
        vectors: (n, d).
    """

    known_by: pa.Table
    vectors: Vectors


@dataclass(frozen=True)
class EmbeddingSample:
    """Some images of a run.

    Attributes:
        vectors: (n, d).
        predictions: (n,) the predicted class of each.
        images: how many the run has.
    """

    vectors: Vectors
    predictions: Ints
    images: int


def keeps_embeddings(run: Run) -> bool:
    """Whether the run was asked to keep embeddings."""
    return bool(run.model.get("embedding_width"))


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
            some = run.without_left_out(rows.slice(start, _ROWS))
            yield EmbeddingRows(some.select(KNOWN_BY), vectors_of(some[table.EMBEDDING], width))


def width_of(run: Run) -> int:
    """How many numbers each of its embeddings has.

    Raises:
        UsageError: the run kept none.
    """
    if not keeps_embeddings(run):
        raise UsageError(
            f"{storage.mask(run.output)}: kept no embeddings; score it with --embeddings, into an output of its own or "
            "with --replace"
        )
    width: int = run.model["embedding_width"]
    return width


def sample_embeddings(run: Run, size: int) -> EmbeddingSample:
    """The ``size`` images with the smallest hashes of (source, row), or all there are, in the order of these hashes.

    As good as drawn at random, and the same whatever the order of the files. Memory: twice ``size`` embeddings.

    Raises:
        UsageError, RegradError: as of :func:`embedding_rows`.
    """
    images = 0
    keys: Keys = np.empty(0, np.uint64)
    vectors: Vectors = np.empty((0, width_of(run)), np.float16)
    for some in embedding_rows(run):
        images += len(some.vectors)
        offered = np.concatenate([keys, row_keys(some.known_by)])
        smallest = np.argsort(offered, kind="stable")[:size]
        keys, vectors = offered[smallest], np.concatenate([vectors, some.vectors])[smallest]
    predictions = np.full(len(keys), -1, np.int64)
    for rows in run.tables(["source", "row", "prediction"]):
        own = row_keys(rows)
        there = np.isin(own, keys)
        predictions[np.searchsorted(keys, own[there])] = integers(rows["prediction"])[there]
    return EmbeddingSample(vectors, predictions, images)


def vectors_of(column: pa.ChunkedArray, width: int) -> Vectors:
    """(n, d) the embeddings of a column."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate([np.empty(0, np.float16), *chunks]).reshape(-1, width)
