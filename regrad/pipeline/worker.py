"""Units in, committed units out: reading, decoding and scoring overlap, and nothing here knows of Ray."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from regrad import storage, table
from regrad.classifier import Classifier
from regrad.errors import RegradError
from regrad.formatting import Laps
from regrad.ledger import contents
from regrad.ledger.lease import Lease
from regrad.pipeline.account import Account, Readers, samples_of
from regrad.pipeline.commits import Commits
from regrad.pipeline.plan import DEFAULT_UNIT_ROWS, Unit
from regrad.pipeline.results import Committed, Measured, Note, Retried, Spent, UnitResult
from regrad.reading import decode
from regrad.reading.images import DEFAULT_MAX_PIXELS
from regrad.reading.samples import DEFAULT_COLUMNS, Columns, Sample, digest_of
from regrad.scorer import Scorer
from regrad.scores import load_module
from regrad.settings.columns import SEVERAL
from regrad.storage import retry

_BATCH_BYTES = 64 * 2**20  # decoded; together with what is read ahead, four times this is in memory
MEASURED_IMAGES = 4  # of a run, on which the error of its gradients is measured
_ENCODED_BYTES = 256 * 2**20  # read and not yet decoded: images may be as large as samples.MAX_IMAGE_BYTES
_PUT_TIMEOUT = 0.2  # seconds between looks at whether anybody still wants the images that were read ahead


@dataclass(frozen=True)
class Task:
    """All that a worker must know besides its units; plain data, so that it travels.

    Attributes:
        model: arguments of ``Classifier.load``.
        scorer: arguments of ``Scorer``, with the plan that the driver resolved.
        fingerprint: of the driver's classifier; a worker that loads another one refuses to score.
        provenance: what the footer of every Parquet part names.
        score_modules: modules that define scores of the user's own.
        unit_rows: small units of together so many rows are committed together.
        lease: of the output, asked before anything is committed.
    """

    output: str
    model: dict[str, Any]
    scorer: dict[str, Any]
    fingerprint: str
    provenance: dict[str, Any]
    score_modules: tuple[str, ...] = ()
    columns: Columns = DEFAULT_COLUMNS
    max_pixels: int = DEFAULT_MAX_PIXELS
    batch_size: int = 64
    threads: int = 2
    unit_rows: int = DEFAULT_UNIT_ROWS
    lease: Lease | None = None


@dataclass(frozen=True)
class _Read:
    """A row on its way: ``image`` is being decoded; None for a row that has an error instead."""

    account: Account
    sample: Sample
    image: Future[decode.Picture] | None


class UnitScorer:
    """Scores units and commits them: one a worker process (:mod:`regrad.pipeline.process`), used for all of its units.

    A thread reads, a pool decodes a bounded number of images ahead, the calling thread scores, a thread commits. Units
    follow each other without a pause: a batch may hold the end of one and the beginning of the next.

    Args:
        on_progress: called with the images scored and quarantined, batch by batch.
        on_scoring: called with True when a batch goes to the network, and with False when it waits for images again.
        decoding: gives what decodes for this one; None: threads of its own.
        node: what the machine is called where its units are counted; None: its host name.
    """

    def __init__(
        self,
        task: Task,
        on_progress: Callable[[int, int], None] | None = None,
        on_scoring: Callable[[bool], None] | None = None,
        classifier: Classifier | None = None,
        scorer: Scorer | None = None,
        decoding: Callable[[UnitScorer], decode.Decoding] | None = None,
        node: str | None = None,
    ):
        for module in task.score_modules:
            load_module(module)
        self.task = task
        self.on_progress = on_progress or (lambda scored, quarantined: None)
        self.on_scoring = on_scoring or (lambda busy: None)
        self._decoding = decoding
        self._node = node or socket.gethostname()
        self.classifier = classifier or Classifier.load(**task.model)
        if self.classifier.fingerprint != task.fingerprint:
            raise RegradError(
                f"{task.model['spec']}: this worker loaded another network than the driver (fingerprint "
                f"{self.classifier.fingerprint[:12]}, not {task.fingerprint[:12]}): give --weights if the factory "
                "draws its own, and use the same code and library versions on every node"
            )
        self.scorer = scorer or Scorer(self.classifier, **task.scorer)
        self.scores = tuple(self.scorer.names)
        self.schema = table.score_schema(self.scores, task.scorer, self.classifier.num_classes)
        width = self.scorer.embedding_width
        self.embedding_schema = table.embedding_schema(width) if width else None
        self.readers = Readers(task.columns)
        self._notes: list[str] = []
        self._to_measure = 0
        self._measured: Measured | None = None
        self.scorer.warn = self.note
        image_bytes = 4 * self.classifier.channels * self.classifier.image_size[0] * self.classifier.image_size[1]
        self.batch_size = max(1, min(task.batch_size, _BATCH_BYTES // image_bytes))

    def decoding(self) -> decode.Decoding:
        """What decodes the images of some units, to be shut down after them."""
        return self._decoding(self) if self._decoding else self.threads()

    def threads(self) -> decode.Decoding:
        """Threads of this process, that decode."""
        looks = self.embedding_schema is not None
        how = decode.How(self.classifier.preprocessing, self.task.max_pixels, looks)
        return decode.DecodingThreads(how, self.task.threads)

    def note(self, line: str) -> None:
        """Have ``line`` said by whoever reads the results."""
        self._notes.append(line)

    def score(self, units: Sequence[Unit], measure: bool = False) -> Iterator[UnitResult]:
        """Score ``units`` in order, commit each, and give :class:`Committed` or :class:`SourceChanged` of each.

        In between come :class:`Measured`, the error of the gradients on the first images, if ``measure`` asks for it,
        :class:`Retried` and :class:`Note`; :class:`Spent` comes last.

        Raises:
            RegradError: the storage failed, or the network did.
        """
        accounts = [self._account(unit) for unit in units]
        self._to_measure = MEASURED_IMAGES * measure
        waiting = deque(accounts)
        laps = Laps(time.time())
        with self._commits() as commits, _ReadAhead(self, accounts) as rows:
            for batch in _batches(rows, self.batch_size):
                laps.end("reading")
                self._score_batch(batch, laps)
                yield from self._news()
                while waiting and waiting[0].finished:
                    commits.add(waiting.popleft())
                yield from commits.ended()
                laps.end("handing over")
            laps.end("reading")  # that there is no more
            while waiting and waiting[0].finished:
                commits.add(waiting.popleft())
            for committed in commits.rest():
                laps.end("committing")
                yield committed
                laps.end("handing over")
        yield from self._news()
        yield Spent(laps.seconds)
        if waiting:
            lost = waiting[0]
            raise RegradError(f"{storage.mask(lost.unit.source)}: lost rows while scoring; please report this as a bug")

    def committed(self, units: Sequence[Unit]) -> dict[str, Committed]:
        """Those of ``units`` that the ledger has, by their keys."""
        held = contents.look(self.task.output)
        keys = [unit.key for unit in units if unit.key in held.loose or unit.key in held.folded]
        records = contents.read_records(self.task.output, keys, held)
        return {record["unit"]: Committed(record) for record in records}

    def trial(self, unit: Unit, count: int) -> tuple[int, float]:
        """Read and score the first ``count`` images of ``unit`` without committing; returns images and seconds.

        A first pass warms up and is not timed; no images at all gives (0, 0.0).
        """
        for _ in range(2):
            account = self._account(unit)
            started = time.monotonic()
            with _ReadAhead(self, [account]) as rows:
                self._score_batch(next(_batches(rows, count), []), Laps(time.time()))
                seconds = time.monotonic() - started  # without the end of the threads
        return len(account.scored), seconds if account.scored else 0.0

    def _account(self, unit: Unit) -> Account:
        return Account(unit, self.schema, self.classifier.num_classes, self.embedding_schema, self._node)

    def _score_batch(self, batch: Sequence[_Read], laps: Laps) -> None:
        ready = [(row, image) for row in batch if (image := _decoded(row)) is not None]
        laps.end("decoding")
        self.on_scoring(True)
        scored = 0
        if ready:
            images, samples = torch.stack([image.tensor for _, image in ready]), [row.sample for row, _ in ready]
            columns = self._columns(images, samples)
            self._measure(images, samples)
            for (row, image), (numbers, several, embedding) in zip(ready, columns, strict=True):
                prediction, confidence, nll, *values = numbers
                known = (int(prediction), confidence, nll, values, several, embedding, image.looks)
                scored += row.account.add(row.sample, *known)
        laps.end("scoring")
        self.on_scoring(False)
        self.on_progress(scored, len(batch) - scored)

    def _columns(
        self, images: torch.Tensor, samples: Sequence[Sample]
    ) -> Iterator[tuple[tuple[float, ...], list[npt.NDArray[Any]], npt.NDArray[np.float16] | None]]:
        """Of each image ``prediction, confidence, nll`` and its scores, its columns of several numbers, its vector."""
        try:
            labels = [sample.label for sample in samples]
            columns = self.scorer(images, [sample.id or "" for sample in samples], labels)
        except RegradError:
            raise
        except Exception as error:
            raise RegradError(
                f"scoring a batch of {len(images)} images failed (the first is {samples[0].id}): "
                f"{storage.reason(error)}"
            ) from error
        numbers = (columns[name].tolist() for name in ("prediction", "confidence", "nll", *self.scores))
        several = [columns[name].numpy() for name in self.schema.names if name in SEVERAL]
        lists = ([column[row] for column in several] for row in range(len(images)))
        embeddings = columns[table.EMBEDDING].numpy() if self.embedding_schema else [None] * len(images)
        return zip(zip(*numbers, strict=True), lists, embeddings, strict=True)

    def _measure(self, images: torch.Tensor, samples: Sequence[Sample]) -> None:
        count, self._to_measure = self._to_measure, 0
        if count:
            error = self.scorer.measure_error(images[:count], [sample.id or "" for sample in samples[:count]])
            error = error[error.isfinite()] if error is not None else images.new_zeros(0)  # NaN where the network broke
            if len(error):
                self._measured = Measured(len(error), float(error.median()), float(error.max()))

    def _news(self) -> Iterator[Measured | Note | Retried]:
        if self._measured is not None:
            measured, self._measured = self._measured, None
            yield measured
        while self._notes:
            yield Note(self._notes.pop(0))
        if retries := retry.take_counts():
            yield Retried(dict(retries))

    def _commits(self) -> Commits:
        return Commits(self.task.output, self.task.provenance, self.task.unit_rows, self.task.lease)


class _ReadAhead:
    """The rows of some units, read by a thread and decoded by a pool; leaving the context stops both."""

    def __init__(self, scorer: UnitScorer, accounts: Sequence[Account]):
        self._readers = scorer.readers
        self._accounts = accounts
        self._ready: queue.Queue[_Read | BaseException | None] = queue.Queue(3 * scorer.batch_size)
        self._stopped = threading.Event()
        self._encoded: deque[tuple[Future[decode.Picture], int]] = deque()
        self._decoding = scorer.decoding()
        self._thread = threading.Thread(target=self._produce, name="regrad-read", daemon=True)

    def __enter__(self) -> Iterator[_Read]:
        self._thread.start()
        return self._consume()

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._decoding.shutdown()

    def _consume(self) -> Iterator[_Read]:
        while (item := self._ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _put(self, item: _Read | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._ready.put(item, timeout=_PUT_TIMEOUT)
                return True
            except queue.Full:
                continue
        return False

    def _produce(self) -> None:
        try:
            with contextlib.closing(samples_of(self._accounts, self._readers)) as opened:
                for account, samples in opened:
                    seen: dict[str, int | None] = {}
                    try:
                        for sample in samples:
                            account.rows_in += 1
                            if not self._put(self._start(account, sample, seen)):
                                return
                        account.complete = True
                    except storage.Changed:
                        account.changed = True
            self._decoding.flush()
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _start(self, account: Account, sample: Sample, seen: dict[str, int | None]) -> _Read:
        if sample.image is None or sample.id is None:
            return _Read(account, sample, None)
        bare = replace(sample, image=None, digest=digest_of(sample.image))
        if sample.id in seen:
            why = f"row {seen[sample.id]} has the same id; --id-column names another, `row` numbers the rows of Parquet"
            return _Read(account, replace(bare, error=why), None)
        seen[sample.id] = sample.row
        image = self._decoding.submit(sample.image)
        self._encoded.append((image, len(sample.image)))
        while len(self._encoded) > 1 and self._encoded[0][0].done():
            self._encoded.popleft()
        while sum(size for _, size in self._encoded) > _ENCODED_BYTES:
            self._decoding.flush()
            wait([self._encoded.popleft()[0]])
        return _Read(account, bare, image)


def _decoded(row: _Read) -> decode.Picture | None:
    """The image of a row; None when it has none, and is in quarantine now."""
    if row.image is None:
        row.account.reject(row.sample, row.sample.stage, row.sample.error or "unreadable")
        return None
    try:
        return row.image.result()
    except decode.BadImage as error:
        row.account.reject(row.sample, error.stage, error.reason)
        return None


def _batches(rows: Iterator[_Read], size: int) -> Iterator[list[_Read]]:
    batch: list[_Read] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
