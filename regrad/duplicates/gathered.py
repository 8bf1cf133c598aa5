"""The rows of several runs in a temporary file, numbered, in a memory that grows by 24 bytes a row.

Their embeddings stay where they are, and are read in pieces.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from regrad.duplicates.means import Task
from regrad.ledger.rows import Place, Rows
from regrad.runs.embeddings import KNOWN_BY, width_of
from regrad.runs.pairs import Keys
from regrad.runs.scored import Ints, Run

_DIGITS = 16  # of a digest, in hexadecimal, that make a key
_PLAIN = ("id", "source", "row", "digest")  # which score rows have
_TYPES = {"row": pa.int64(), "perceptual_hash": pa.uint64()}
NO_DIGEST = np.uint64(0)
_PIECE_BYTES = 64 * 2**20  # of embeddings that a task reads


@dataclass
class Stretch:
    """Rows whose embeddings one task reads: of units that lie together.

    Attributes:
        run: whose they are.
        start: the number of the first.
        places: of the units, in the order of their rows.
    """

    run: Run
    start: int
    places: list[Place] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many there are."""
        return sum(place.rows for place in self.places)

    def task(self, numbers: Ints) -> Task:
        """Of the rows of these numbers, of which some are in it; see :mod:`regrad.duplicates.spread`."""
        low, high = np.searchsorted(numbers, [self.start, self.start + self.rows])
        return {
            "source": self.run.output,
            "width": width_of(self.run),
            "places": self.places,
            "start": self.start,
            "rows": numbers[low:high],
        }


@dataclass
class Gathered:
    """All rows of ``runs``, numbered from 0 on over all of them in their order, as a context: leaving it removes the
    temporary file, which has about 200 bytes a row.

    Args:
        embedded: whether embeddings are wanted, and what their pictures look like.

    Attributes:
        bounds: (runs + 1,) the number at which each run begins, and how many rows there are.
        keys: ``digest`` and, with embeddings, ``pixels`` -> (n,) the first half of each row's, :data:`NO_DIGEST` where
            it has none.
        hashes: (n,) of the pictures; empty without embeddings.
        pieces: of all rows, in their order; none without embeddings.

    Raises:
        UsageError: embeddings are wanted, and a run kept none.
        RegradError: the storage refused or failed.
    """

    runs: Sequence[Run]
    embedded: bool = False
    bounds: Ints = field(init=False)
    keys: dict[str, Keys] = field(init=False)
    hashes: Keys = field(init=False)
    pieces: list[Stretch] = field(init=False, default_factory=list)

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

    def _gather(self) -> None:
        counts, hashes = [], [np.empty(0, np.uint64)]
        schema = pa.schema([(name, _TYPES.get(name, pa.string())) for name in (KNOWN_BY if self.embedded else _PLAIN)])
        keys = {name: hashes[:] for name in ("digest", "pixels") if name in schema.names}
        with pa.OSFile(self._path, "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            for run in self.runs:
                counts.append(0)
                for known in self._embedded(run, sum(counts)) if self.embedded else run.tables(_PLAIN):
                    writer.write_table(known.cast(schema))
                    for name, of_name in keys.items():
                        of_name.append(keys_of(known[name]))
                    counts[-1] += len(known)
                    if self.embedded:
                        hashes.append(known["perceptual_hash"].to_numpy())
        self.bounds = np.cumsum([0, *counts], dtype=np.int64)
        self.keys = {name: np.concatenate(of_name) for name, of_name in keys.items()}
        self.hashes = np.concatenate(hashes)
        self._known = pa.memory_map(self._path)
        self._table = pa.ipc.open_file(self._known).read_all()

    def _embedded(self, run: Run, start: int) -> Iterator[pa.Table]:
        """The rows of ``run`` that have embeddings, the first of which gets the number ``start``."""
        piece, enough = Stretch(run, start), _PIECE_BYTES // (2 * width_of(run))
        for places, known in Rows(run.output, "embeddings", run.units).placed(KNOWN_BY):
            if piece.rows >= enough:
                self.pieces.append(piece)
                piece = Stretch(run, piece.start + piece.rows)
            piece.places += places
            yield known
        self.pieces.append(piece)

    @property
    def _path(self) -> str:
        return os.path.join(self._folder.name, "rows")


def keys_of(digests: pa.ChunkedArray) -> Keys:
    """(n,) the first 64 bits of digests in hexadecimal; :data:`NO_DIGEST` for a null.

    >>> keys_of(pa.chunked_array([["00000000000000ff" * 2, None]])).tolist()
    [255, 0]
    """
    texts: list[Any] = digests.to_pylist()
    first = "".join((text or "0" * _DIGITS)[:_DIGITS] for text in texts)
    return np.frombuffer(bytes.fromhex(first), ">u8").astype(np.uint64)
