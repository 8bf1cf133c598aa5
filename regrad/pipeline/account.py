"""The rows of one unit: each that was read ends among the scored or in quarantine, and the ledger says how many."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from regrad import storage, table
from regrad.formatting import now
from regrad.pipeline.plan import Unit
from regrad.reading.formats import Format, open_reader
from regrad.reading.samples import Columns, Sample, as_text
from regrad.settings.columns import FIXED, SEVERAL

_REASONS = 5  # of quarantined rows that a ledger record names; the others are counted together
_REASON_CHARACTERS = 100
OTHER = "other"
_SMALL_BYTES, _AT_ONCE = 2**20, 16  # of shards in a store that are read side by side, and how many


@dataclass
class Account:
    """The rows of one unit while it is scored: every row read ends in exactly one of the two lists.

    Attributes:
        schema: of the scored rows, see :func:`regrad.table.score_schema`.
        embedding_schema: of their embeddings, see :func:`regrad.table.embedding_schema`; None where none are kept.
        node: the machine that scores it.
    """

    unit: Unit
    schema: pa.Schema
    num_classes: int
    embedding_schema: pa.Schema | None = None
    node: str = ""
    rows_in: int = 0
    scored: list[tuple[Any, ...]] = field(default_factory=list)
    embedded: list[tuple[Any, ...]] = field(default_factory=list)
    quarantined: list[tuple[Any, ...]] = field(default_factory=list)
    complete: bool = False
    reader: Format | None = None
    no_class: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    changed: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def finished(self) -> bool:
        """Whether the whole unit was read and every row of it has its place, or it was given up."""
        return self.changed or (self.complete and self.rows_in == len(self.scored) + len(self.quarantined))

    def add(
        self,
        sample: Sample,
        prediction: int,
        confidence: float,
        nll: float,
        values: Sequence[float],
        several: Sequence[npt.NDArray[Any]] = (),
        embedding: npt.NDArray[np.float16] | None = None,
        looks: Sequence[str | int] = (),
    ) -> bool:
        """Take the scores of one image; False when a value is no number, which puts the row in quarantine.

        Args:
            nll: NaN where the label is no class of the model.
            several: for each column of several numbers a row, those of this one.
            embedding, looks: (d,), and what the picture looks like, where they are kept.
        """
        scores = (name for name in self.schema.names if name not in (*FIXED, *SEVERAL))
        named = zip(("confidence", *scores), (confidence, *values), strict=True)
        bad = [f"{name} is {value}" for name, value in named if not math.isfinite(value)]
        if bad:
            self.reject(sample, "score", f"{', '.join(bad)}: the network's outputs are not finite for this image")
            return False
        known = (sample.id, self.unit.source, sample.row, sample.label, prediction, confidence)
        self.no_class += sample.no_class
        self.scored.append((*known, None if math.isnan(nll) else nll, sample.digest, *values, *several))
        if embedding is not None:
            self.embedded.append((sample.id, self.unit.source, sample.row, sample.digest, *looks, embedding))
        return True

    def reject(self, sample: Sample, stage: str, reason: str) -> None:
        """Put a row in quarantine, with the stage at which it stopped and the reason."""
        self.quarantined.append((sample.id, self.unit.source, sample.row, stage, as_text(reason), sample.digest))

    def tables(self) -> tuple[pa.Table, pa.Table]:
        """The score rows and the quarantine rows."""
        return (
            as_table(sorted(self.scored, key=lambda row: row[2]), self.schema),
            as_table(self.quarantined, table.QUARANTINE_SCHEMA),
        )

    def embeddings(self) -> pa.Table | None:
        """The embeddings of the score rows, in their order; None where none are kept."""
        if self.embedding_schema is None:
            return None
        return as_table(sorted(self.embedded, key=lambda row: row[2]), self.embedding_schema)

    def record(self) -> dict[str, Any]:
        """The unit's ledger record; labels that are no class of the model are counted and left out of the accuracy."""
        labelled = [(label, prediction) for _, _, _, label, prediction, *_ in self.scored if label is not None]
        known = [(label, prediction) for label, prediction in labelled if 0 <= label < self.num_classes]
        unit = self.unit
        return {
            "unit": unit.key,
            "source": unit.source,
            "start": unit.start,
            "stop": unit.stop,
            "identity": unit.identity,
            "rows_in": self.rows_in,
            "rows_scored": len(self.scored),
            "rows_quarantined": len(self.quarantined),
            "labelled": len(known),
            "correct": sum(label == prediction for label, prediction in known),
            "labels_outside": len(labelled) - len(known) + self.no_class,
            "seconds": round(time.monotonic() - self.started, 3),
            "finished": now(),
            "node": self.node,
            "reasons": reasons_of((stage, reason) for _, _, _, stage, reason, _ in self.quarantined),
            "skipped": dict(self.skipped),
            "schema_version": table.ROWS_VERSION,
        }


_Own = tuple[Account, Iterable[Sample]]


class Readers:
    """The readers of the units of a worker: that of the last unit reads on where the next is of the same content.

    So a shard of many tasks is opened, and what there is to find in it is found, once a worker and not once a task.
    """

    def __init__(self, columns: Columns):
        self._columns = columns
        self._last: tuple[tuple[str, str], Format] | None = None

    def new(self, unit: Unit) -> Format:
        """One that has read nothing yet."""
        return open_reader(unit.source, unit.kind, self._columns, unit.files, unit.labels, first=unit.start)

    @contextlib.contextmanager
    def reading(self, unit: Unit) -> Iterator[Format]:
        """The last one or a new one, which is kept unless its reading ends early."""
        last, self._last = self._last, None
        key = (unit.source, unit.identity)
        reader = last[1] if last and last[0] == key and not unit.files else self.new(unit)
        yield reader
        self._last = key, reader


def samples_of(accounts: Sequence[Account], readers: Readers) -> Generator[_Own, None, None]:
    """The samples of each account's unit, in order: as they are read or, of small shards in a store, read ahead."""
    units = Counter(account.unit.source for account in accounts)
    alone = [units[each.unit.source] == 1 and _far_and_small(each) for each in accounts]
    for by_itself, some in itertools.groupby(zip(alone, accounts, strict=True), key=lambda each: each[0]):
        if by_itself:
            yield from _side_by_side([account for _, account in some], readers)
        else:
            yield from ((account, _read_on(account, readers)) for _, account in some)


def _read_on(account: Account, readers: Readers) -> Iterator[Sample]:
    with readers.reading(account.unit) as reader:
        yield from _rows(account, reader)


def _side_by_side(accounts: Sequence[Account], readers: Readers) -> Iterator[_Own]:
    """Several requests one after the other bring a shard: those of others go on meanwhile."""
    with ThreadPoolExecutor(_AT_ONCE, "regrad-shards") as pool:
        ahead: deque[tuple[Account, Future[Iterable[Sample]]]] = deque()
        for account in accounts:
            ahead.append((account, pool.submit(_begun, _rows(account, readers.new(account.unit)))))
            if len(ahead) > _AT_ONCE:
                first, samples = ahead.popleft()
                yield first, _awaited(samples)
        for first, samples in ahead:
            yield first, _awaited(samples)


def _begun(samples: Iterator[Sample]) -> Iterable[Sample]:
    """The same, all of them read already unless they turn out large."""
    read, size = list[Sample](), 0
    for sample in samples:
        read.append(sample)
        size += len(sample.image or b"")
        if size > _SMALL_BYTES:
            break
    return itertools.chain(read, samples)


def _awaited(samples: Future[Iterable[Sample]]) -> Iterator[Sample]:
    yield from samples.result()


def _rows(account: Account, reader: Format) -> Iterator[Sample]:
    unit = account.unit
    reader.skipped, reader.extent = account.skipped, unit.extent
    account.reader, account.started = reader, time.monotonic()
    yield from reader.rows(unit.start, unit.stop)


def _far_and_small(account: Account) -> bool:
    """Whether a unit has few bytes of a shard, and each request for them takes a while."""
    unit = account.unit
    return not unit.files and unit.size <= _SMALL_BYTES and not storage.is_local(storage.filesystem(unit.source)[0])


def reasons_of(rows: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Why rows with these stages and reasons are in quarantine: the most frequent, and how many rows have each."""
    rows_by_reason = Counter(f"{stage}: {reason}"[:_REASON_CHARACTERS] for stage, reason in rows)
    named = dict(rows_by_reason.most_common(_REASONS))
    others = rows_by_reason.total() - sum(named.values())
    return named | ({OTHER: others} if others else {})


def as_table(rows: Sequence[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """``rows``, also none, with the columns and types of ``schema``."""
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.table([_array(column, kind.type) for column, kind in zip(columns, schema, strict=True)], schema=schema)


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Of vectors, without a Python object for each of their numbers; what is below 0 fills up a set, and goes."""
    if pa.types.is_list(kind):
        return pa.array([classes[classes >= 0] for classes in values], kind)
    if not pa.types.is_fixed_size_list(kind) or not values:
        return pa.array(values, kind)
    return pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(values), kind.value_type), type=kind)
