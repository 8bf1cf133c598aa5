"""The rows of several runs in temporary files, numbered, in a memory that grows by eight bytes a row."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.ipc

from regrad.runs.embeddings import KNOWN_BY, embedding_rows
from regrad.runs.pairs import Keys
from regrad.runs.scored import Bools, Ints, Run

_DIGITS = 16  # of a digest, in hexadecimal, that make a key
_KNOWN = pa.schema([("id", pa.string()), ("source", pa.string()), ("row", pa.int64()), ("digest", pa.string())])
NO_DIGEST = np.uint64(0)

Halves = npt.NDArray[np.float16]


@dataclass
class Gathered:
    """All rows of ``runs``, numbered from 0 on over all of them in their order, as a context: leaving it removes the
    temporary files, which have about 150 bytes a row, and two for each number of its embedding.

    Args:
        width: of an embedding, where all of them are wanted; 0: none is.

    Attributes:
        bounds: (runs + 1,) the number at which each run begins, and how many rows there are.
        keys: (n,) the first half of each row's digest, :data:`NO_DIGEST` where it has none.

    Raises:
        UsageError: embeddings are wanted, and a run kept none.
        RegradError: the storage refused or failed.
    """

    runs: Sequence[Run]
    width: int = 0
    bounds: Ints = field(init=False)
    keys: Keys = field(init=False)

    def __enter__(self) -> Gathered:
        self._folder = tempfile.TemporaryDirectory(prefix="regrad-duplicates-")
        try:
            self._gather()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._known.close()
        self._folder.cleanup()

    def known_by(self, rows: Ints) -> pa.Table:
        """``id, source, row, digest`` of the rows of these numbers."""
        return self._table.take(pa.array(rows))

    def run_of(self, rows: Ints) -> Ints:
        """(n,) the places of the runs that the rows of these numbers are of."""
        places: Ints = np.searchsorted(self.bounds, rows, side="right") - 1
        return places

    def ranks(self, rows: Ints) -> Ints:
        """(n,) their places in the order of runs, sources and rows, which does not depend on the files they are in."""
        known = self.known_by(rows)
        sources = np.unique(known["source"].to_numpy(), return_inverse=True)[1]
        order = np.lexsort((known["row"].to_numpy(), sources, self.run_of(rows)))
        return np.argsort(order)

    @property
    def vectors(self) -> Halves:
        """(n, d) all embeddings, which lie on the disk."""
        shape = (int(self.bounds[-1]), self.width)
        if not shape[0] or not self.width:
            return np.empty(shape, np.float16)
        return np.memmap(self._path("vectors"), np.float16, "r", shape=shape)

    def _gather(self) -> None:
        counts, keys = [], [np.empty(0, np.uint64)]
        with (
            pa.OSFile(self._path("rows"), "wb") as sink,
            pa.ipc.new_file(sink, _KNOWN) as writer,
            open(self._path("vectors"), "wb") as vectors,
        ):
            for run in self.runs:
                counts.append(0)
                for known, several in self._rows(run):
                    writer.write_table(known)
                    keys.append(keys_of(known["digest"]))
                    counts[-1] += len(known)
                    if several is not None:
                        several.tofile(vectors)
        self.bounds = np.cumsum([0, *counts], dtype=np.int64)
        self.keys = np.concatenate(keys)
        self._known = pa.memory_map(self._path("rows"))
        self._table = pa.ipc.open_file(self._known).read_all()

    def _rows(self, run: Run) -> Iterator[tuple[pa.Table, Halves | None]]:
        if self.width:
            for some in embedding_rows(run):
                yield some.known_by.cast(_KNOWN), some.vectors
        else:
            for rows in run.tables(KNOWN_BY):
                yield rows.cast(_KNOWN), None

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)


def keys_of(digests: pa.ChunkedArray) -> Keys:
    """(n,) the first 64 bits of digests in hexadecimal; :data:`NO_DIGEST` for a null.

    >>> keys_of(pa.chunked_array([["00000000000000ff" * 2, None]])).tolist()
    [255, 0]
    """
    texts: list[Any] = digests.to_pylist()
    first = "".join((text or "0" * _DIGITS)[:_DIGITS] for text in texts)
    return np.frombuffer(bytes.fromhex(first), ">u8").astype(np.uint64)


def alike(first: pa.Table, second: pa.Table) -> Bools:
    """(n,) whether the rows of two tables have the same digest, place by place."""
    equal: Bools = np.array(first["digest"].to_pylist()) == np.array(second["digest"].to_pylist())
    return equal
