"""Two runs joined by (source, id), in a memory that does not grow with the rows: a hash-partitioned join on disk.

Both runs are read once and their rows written to temporary files by a hash of (source, id), a few hundred thousand
rows a file; files of the same hashes are then joined in memory, exactly, by the texts themselves. What is joined lies
in temporary files too, and is read from there as often as it is needed, a few columns at a time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet

from regrad import storage
from regrad.errors import UsageError
from regrad.runs.scored import Run, codes, integers, judged

SIDES = ("a", "b")
ROWS_A_FILE = 2**19  # of each run, about
MOST_FILES = 256  # open at once while a run is read
SLICE = 2**15  # rows that are hashed at once

FACTOR = np.uint64(0x9E3779B97F4A7C15)

Keys = npt.NDArray[np.uint64]


def column(side: str, name: str) -> str:
    """What the joined table calls column ``name`` of run ``side``."""
    return f"{side}.{name}"


@dataclass
class Pairs:
    """The images that both of two runs scored, as a context: leaving it removes the temporary files.

    The joined columns are ``id``, ``source``, ``row`` and ``label`` (of ``a`` where it has one), ``key`` (a 64-bit hash
    of source and id), ``judged`` (whether both runs have a label that their model could have predicted), and for each
    run, under the names of :func:`column`, ``right``, ``prediction``, ``confidence``, ``nll`` and the scores.

    Attributes:
        paired: images in both runs.
        only: images in one run alone, of either run.
        repeated: rows of either run whose (source, id) is not unique in it: they are paired with nothing.
        labels_differ: judged pairs of which the two runs hold different labels.

    Raises:
        UsageError: a run has no row, or the two have no image in common.
        RegradError: the storage refused or failed.
    """

    a: Run
    b: Run
    scores: Sequence[str]
    paired: int = 0
    labels_differ: int = 0
    only: list[int] = field(default_factory=lambda: [0, 0])
    repeated: list[int] = field(default_factory=lambda: [0, 0])

    def __enter__(self) -> Pairs:
        self._folder = tempfile.TemporaryDirectory(prefix="regrad-pairs-")
        self._files: list[str] = []
        try:
            self._join()
        except BaseException:
            self._folder.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._folder.cleanup()

    def tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The pairs, only ``columns``, some hundred thousand at a time."""
        for path in self._files:
            yield pa.parquet.ParquetFile(path).read(columns=list(columns))

    def sample(self, columns: Sequence[str], size: int) -> pa.Table:
        """The ``size`` pairs with the smallest keys, or all there are: as good as drawn at random, and repeatable."""
        best: pa.Table | None = None
        for rows in self.tables(["key", *columns]):
            joined = rows if best is None else pa.concat_tables([best, rows])
            best = joined.take(pa.array(np.argsort(joined["key"].to_numpy(), kind="stable")[:size]))
        assert best is not None
        return best.drop_columns("key")

    def _join(self) -> None:
        sizes = [run.count_rows() for run in (self.a, self.b)]
        for run, size in zip((self.a, self.b), sizes, strict=True):
            if not size:
                output = storage.mask(run.output)
                raise UsageError(f"{output}: the run scored no image; see {output}/quarantine")
        files = min(MOST_FILES, max(sizes) // ROWS_A_FILE + 1)
        for side, run in zip(SIDES, (self.a, self.b), strict=True):
            _spool(run, self.scores, self._path(side), files)
        for number in range(files):
            rows = self._joined(number)
            if len(rows):
                path = self._path(f"pairs-{number}")
                pa.parquet.write_table(rows, path, compression="lz4", use_dictionary=["source"])
                self._files.append(path)
                self.paired += len(rows)
        if not self.paired:
            raise UsageError(
                f"{storage.mask(self.a.output)} and {storage.mask(self.b.output)}: no image is in both; rows are "
                "paired by source and id, so compare runs on the same shards"
            )

    def _joined(self, number: int) -> pa.Table:
        """The pairs of which the keys fall into file ``number``."""
        (a, keys_a), (b, keys_b) = (
            self._unique(place, _take(f"{self._path(SIDES[place])}-{number}")) for place in (0, 1)
        )
        places = pc.index_in(keys_a, value_set=keys_b)
        in_both = pc.is_valid(places)
        a, b = a.filter(in_both), b.take(places.drop_null())
        self.only[0] += len(keys_a) - len(a)
        self.only[1] += len(keys_b) - len(b)
        known = [judged(rows, run.model["classes"]) for rows, run in ((a, self.a), (b, self.b))]
        both = known[0][0] & known[1][0]
        self.labels_differ += int((both & (integers(a["label"]) != integers(b["label"]))).sum())
        pairs = a.select(["id", "source", "row", "key"])
        pairs = pairs.append_column("label", pc.coalesce(a["label"], b["label"]))
        pairs = pairs.append_column("judged", pa.array(both))
        for side, rows, (_, right) in zip(SIDES, (a, b), known, strict=True):
            pairs = pairs.append_column(column(side, "right"), pa.array(right))
            for name in ("prediction", "confidence", "nll", *self.scores):
                pairs = pairs.append_column(column(side, name), rows[name])
        return pairs

    def _unique(self, place: int, rows: pa.Table) -> tuple[pa.Table, pa.ChunkedArray]:
        """The rows whose (source, id) occurs once, and their (source, id) as one text."""
        source, name = (pc.fill_null(rows[key], "").cast(pa.large_string()) for key in ("source", "id"))
        # With the length in front, no two pairs of texts make the same text.
        keys = pc.binary_join_element_wise(
            pc.binary_length(source).cast(pa.large_string()), source, name, pa.scalar(":", pa.large_string())
        )
        if len(pc.unique(keys)) < len(keys):
            counted = pc.value_counts(keys)
            again = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
            once = pc.invert(pc.is_in(keys, value_set=again))
            self.repeated[place] += len(rows) - pc.sum(once).as_py()
            rows, keys = rows.filter(once), keys.filter(once)
        return rows, keys

    def _path(self, name: str) -> str:
        return os.path.join(self._folder.name, name)


def _spool(run: Run, scores: Sequence[str], path: str, files: int) -> None:
    """Write the rows of ``run`` to ``files`` files, by their keys."""
    columns = ["id", "source", "row", "label", "prediction", "confidence", "nll", *scores]
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with contextlib.ExitStack() as opened:
        writers: list[Any] = []
        for rows in run.tables(columns):
            keys = hashes(rows["source"], rows["id"])
            rows = rows.append_column("key", pa.array(keys)).replace_schema_metadata(None)
            if not writers:
                for number in range(files):
                    sink = opened.enter_context(pa.OSFile(f"{path}-{number}", "wb"))
                    writers.append(opened.enter_context(pa.ipc.new_stream(sink, rows.schema, options=options)))
            place = (keys & np.uint64(0xFFFFFFFF)) % np.uint64(files)
            order = np.argsort(place, kind="stable")
            rows, bounds = rows.take(pa.array(order)), np.searchsorted(place[order], np.arange(files + 1))
            for writer, start, stop in zip(writers, bounds, bounds[1:], strict=False):
                if start < stop:
                    writer.write_table(rows.slice(start, stop - start))


def _take(path: str) -> pa.Table:
    """The rows of a file that :func:`_spool` wrote; the file is removed."""
    with pa.OSFile(path) as file, pa.ipc.open_stream(file) as stream:
        rows = stream.read_all()
    os.remove(path)
    return rows


def hashes(source: pa.ChunkedArray, name: pa.ChunkedArray) -> Keys:
    """(n,) 64-bit hashes of the texts of both columns; what it spreads is exact, so that a collision costs nothing.

    sum_i byte_i M^i mod 2^64 of the name, plus a hash of the source, with the last mixing of SplitMix64.
    """
    parts = [_polynomial(name.slice(start, SLICE)) for start in range(0, len(name), SLICE)]
    return mixed(np.concatenate([np.empty(0, np.uint64), *parts]) + _of_sources(source))


def row_keys(rows: pa.Table) -> Keys:
    """(n,) 64-bit hashes of the ``source`` and ``row`` of each, which tell it in its run."""
    return mixed(_of_sources(rows["source"]) + integers(rows["row"]).astype(np.uint64) * FACTOR)


def _of_sources(source: pa.ChunkedArray) -> Keys:
    place, sources = codes(source)
    own = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") for text in sources]
    return np.array(own, np.uint64)[place]


def mixed(x: Keys) -> Keys:
    """(n,) the last mixing of SplitMix64: neighbouring numbers lie far apart, and no two become one."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _polynomial(texts: pa.ChunkedArray) -> Keys:
    array = pc.fill_null(texts, "").cast(pa.large_string()).combine_chunks()
    array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
    offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    first, lengths = offsets[0], np.diff(offsets)
    content = np.frombuffer(array.buffers()[2] or b"", np.uint8)[first : offsets[-1]]
    powers = np.multiply.accumulate(np.full(lengths.max(initial=0), FACTOR, np.uint64))
    weighed = powers[np.arange(content.size) - np.repeat(offsets[:-1] - first, lengths)] * (content + np.uint64(1))
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(weighed, dtype=np.uint64)])
    return sums[offsets[1:] - first] - sums[offsets[:-1] - first]
