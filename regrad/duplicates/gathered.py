"""The rows of several runs in temporary files, numbered, in a memory that grows by 24 bytes a row."""

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
from regrad.runs.scored import Ints, Run

_DIGITS = 16  # of a digest, in hexadecimal, that make a key
_PLAIN = ("id", "source", "row", "digest")  # which score rows have
_TYPES = {"row": pa.int64(), "perceptual_hash": pa.uint64()}
NO_DIGEST = np.uint64(0)

Halves = npt.NDArray[np.float16]


@dataclass
class Gathered:
    """All rows of ``runs``, numbered from 0 on over all of them in their order, as a context: leaving it removes the
    temporary files, which have about 200 bytes a row, and two for each number of its embedding.

    Args:
        width: of an embedding, where all of them are wanted, and what their pictures look like; 0: none is.

    Attributes:
        bounds: (runs + 1,) the number at which each run begins, and how many rows there are.
        keys: ``digest`` and, with embeddings, ``pixels`` -> (n,) the first half of each row's, :data:`NO_DIGEST` where
            it has none.
        hashes: (n,) of the pictures; empty without embeddings.

    Raises:
        UsageError: embeddings are wanted, and a run kept none.
        RegradError: the storage refused or failed.
    """

    runs: Sequence[Run]
    width: int = 0
    bounds: Ints = field(init=False)
    keys: dict[str, Keys] = field(init=False)
    hashes: Keys = field(init=False)

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
        """``id, source, row, digest`` of the rows of these numbers, and ``pixels, perceptual_hash`` with embeddings."""
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
        counts, hashes = [], [np.empty(0, np.uint64)]
        schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in (KNOWN_BY if self.width else _PLAIN)])
        keys = {name: hashes[:] for name in ("digest", "pixels") if name in schema.names}
        with (
            pa.OSFile(self._path("rows"), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
            open(self._path("vectors"), "wb") as vectors,
        ):
            for run in self.runs:
                counts.append(0)
                for known, several in self._rows(run):
                    writer.write_table(known.cast(schema))
                    for name, of_name in keys.items():
                        of_name.append(keys_of(known[name]))
                    counts[-1] += len(known)
                    if several is not None:
                        hashes.append(known["perceptual_hash"].to_numpy())
                        several.tofile(vectors)
        self.bounds = np.cumsum([0, *counts], dtype=np.int64)
        self.keys = {name: np.concatenate(of_name) for name, of_name in keys.items()}
        self.hashes = np.concatenate(hashes)
        self._known = pa.memory_map(self._path("rows"))
        self._table = pa.ipc.open_file(self._known).read_all()

    def _rows(self, run: Run) -> Iterator[tuple[pa.Table, Halves | None]]:
        if self.width:
            for some in embedding_rows(run):
                yield some.known_by, some.vectors
        else:
            for rows in run.tables(_PLAIN):
                yield rows, None

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
