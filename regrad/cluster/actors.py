"""Units on Ray: descriptions of units go out to actors, ledger records come back.

An actor reads, decodes, scores and commits its units itself: no pixels travel through Ray, unless others are to decode
(:mod:`regrad.cluster.decoders`).
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
import ray.data

from regrad import storage
from regrad.cluster import decoders
from regrad.cluster.handover import WorkerFailure, settle_in, surroundings
from regrad.cluster.metrics import IDLE, READING, SCORING, WorkerMetrics
from regrad.cluster.progress import Progress
from regrad.cluster.sessions import Cluster, Workers, connected, share_out
from regrad.errors import RegradError
from regrad.pipeline import process
from regrad.pipeline.plan import Unit, group_units
from regrad.pipeline.prepare import Job, expected_images
from regrad.pipeline.results import Committed, UnitResult, from_json, to_json
from regrad.pipeline.worker import Task, UnitScorer
from regrad.reading.decode import How

_REPORT_SECONDS = 0.5
_TRIES = 8  # of work over which workers die: as often as a node may go, but not for ever
STALL_SECONDS = 60.0


def score_units(job: Job, stall_seconds: float = STALL_SECONDS) -> Iterator[UnitResult]:
    """Score the pending units of ``job`` on Ray; gives what :meth:`UnitScorer.score` does, in any order.

    Raises:
        RegradError: a worker could not load the model, read its input or write its output.
    """
    options, units = job.options, job.plan.pending
    progress = Progress(*expected_images(units))
    count = options.decode_workers or 0
    how = How(job.classifier.preprocessing, job.task.max_pixels, looks=options.embeddings)
    with (
        connected(options.ray_address, (options.num_workers or 1) + count, options.verbose) as cluster,
        decoders.started(count, how) as decoding,
    ):
        left = cluster.without(count)
        workers = share_out(left, options.num_workers, options.gpus_per_worker, options.cpus_per_worker)
        task = replace(job.task, threads=workers.cpus)
        board = _start_board()
        groups = group_units(units, workers.count, options.unit_rows)
        dataset = _dataset(task, groups, "measured" not in job.run, workers, board, decoding, options.verbose)
        with _watched(board, progress, lambda: stalled(cluster, workers, stall_seconds), stall_seconds):
            yield from _results(dataset)


@contextlib.contextmanager
def _watched(board: Any, progress: Progress, explain: Callable[[], str], stall_seconds: float) -> Iterator[None]:
    """Progress is shown meanwhile, and what is wrong when no worker starts."""
    ended = threading.Event()

    def watch() -> None:
        waiting_since = time.monotonic()
        while not ended.wait(_REPORT_SECONDS):
            with contextlib.suppress(ray.exceptions.RayError):  # the cluster ends: the results tell of that
                started, scored, quarantined = ray.get(board.read.remote(), timeout=_REPORT_SECONDS)
                progress.update(scored, quarantined)
                if not started and time.monotonic() - waiting_since > stall_seconds:
                    progress.say(explain())
                    waiting_since = time.monotonic()

    thread = threading.Thread(target=watch, name="regrad-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()  # a call to Ray after its end would start it again
        progress.clear()


def _results(dataset: ray.data.Dataset) -> Iterator[UnitResult]:
    # Closed at once when anything is raised: that stops the workers while Ray is still there.
    # Nothing is fetched ahead: a result, or an error, would wait for the next.
    blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    with contextlib.closing(iter(blocks)) as tables:
        try:
            for row in (row for block in tables for row in block.to_pylist()):
                if row["failed"]:
                    WorkerFailure(**json.loads(row["result"])).throw()
                yield from_json(row["result"])
        except ray.exceptions.RayError as error:
            raise RegradError(f"Ray failed: {_cause(error)}") from error


def stalled(cluster: Cluster, workers: Workers, seconds: float) -> str:
    """The line that says why nothing moves."""
    free = ray.available_resources()
    return (
        f"still waiting: no worker has started after {seconds:.0f} s; each needs {workers.cpus} CPUs and "
        f"{workers.gpus:g} GPUs, the cluster has {cluster}, of which {free.get('CPU', 0):g} and {free.get('GPU', 0):g} "
        "are free; lower --num-workers or --gpus-per-worker, or free some"
    )


def _dataset(
    task: Task,
    tasks: Sequence[Sequence[Unit]],
    measure: bool,
    workers: Workers,
    board: Any,
    decoding: Sequence[Any],
    verbose: bool,
) -> ray.data.Dataset:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = verbose
    context.enable_auto_log_stats = False
    context.log_internal_stack_trace = False
    logging.getLogger("ray.data").setLevel(logging.INFO if verbose else logging.CRITICAL)
    rows = [
        {"units": json.dumps([unit.to_json() for unit in units]), "measure": measure and number == 0}
        for number, units in enumerate(tasks)
    ]
    size = min(workers.count, len(tasks))
    return ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Worker,
        batch_size=1,
        batch_format="pyarrow",
        # One worker is enough to go on: Ray Data would wait for all of `min_size`, for ever if they do not fit.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=size, initial_size=size),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
        fn_constructor_args=(task, board, decoding, *surroundings(), (_TRIES, size)),
    )


def _start_board() -> Any:
    """Where workers post their counts, so that a unit of an hour shows progress too."""

    class Board:  # local, so that it travels by value: its process need not import torch to add numbers
        def __init__(self) -> None:
            self.counts: dict[str, tuple[int, int]] = {}
            self.begun: dict[str, int] = {}

        def begin(self, work: str) -> int:
            """How often ``work`` was begun and not ended."""
            self.begun[work] = self.begun.get(work, 0) + 1
            return self.begun[work]

        def end(self, work: str) -> None:
            self.begun.pop(work, None)

        def post(self, worker: str, scored: int, quarantined: int) -> None:
            self.counts[worker] = (scored, quarantined)

        def read(self) -> tuple[int, int, int]:
            """Workers that have started, images scored, images quarantined."""
            scored, quarantined = (sum(column) for column in zip((0, 0), *self.counts.values(), strict=True))
            return len(self.counts), scored, quarantined

    return ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()  # the node it is on may go


class _Worker:
    """A :class:`UnitScorer` in an actor. Errors travel as rows: raised, they would arrive wrapped and retried."""

    def __init__(
        self,
        task: Task,
        board: Any,
        decoding: Sequence[Any],
        environment: dict[str, str],
        paths: Sequence[str],
        tries: tuple[int, int],
    ) -> None:
        settle_in(environment, paths)
        self.board, self.name = board, uuid.uuid4().hex
        self.tries, others = tries
        self.scored = self.quarantined = 0
        self.posted = 0.0
        self.metrics = WorkerMetrics(storage.mask(task.output))
        self._post()
        self.scorer: UnitScorer | None = None
        self.failure: WorkerFailure | None = None
        try:
            # Workers that load at the same time have not died.
            with self._attempt("loading the model", self.tries + others):
                process.set_up(task.threads)
                by_others = decoders.by_decoders(decoding) if decoding else None
                node = ray.util.get_node_ip_address()
                self.scorer = UnitScorer(task, self._count, self._scoring, decoding=by_others, node=node)
        except Exception as error:
            self.failure = WorkerFailure.of(error)
        self.metrics.enter(IDLE)

    def __call__(self, batch: Any) -> Iterator[dict[str, list[Any]]]:
        if self.scorer is None:
            assert self.failure is not None
            yield _row(self.failure)
            return
        units = [Unit.from_json(text) for text in json.loads(batch["units"][0].as_py())]
        files = ", ".join(dict.fromkeys(storage.mask(unit.source) for unit in units))
        self.metrics.enter(READING)
        try:
            with self._attempt(f"over {files} from row {units[0].start}", self.tries) as begun:
                if begun > 1:
                    done = self.scorer.committed(units)  # by the worker that died over them
                    yield from map(_row, done.values())
                    units = [unit for unit in units if unit.key not in done]
                for result in self.scorer.score(units, measure=batch["measure"][0].as_py()):
                    if isinstance(result, Committed):
                        self.metrics.unit(result.record["seconds"])
                    yield _row(result)
        except Exception as error:
            yield _row(WorkerFailure.of(error))
        self.metrics.enter(IDLE)
        self._post()

    @contextlib.contextmanager
    def _attempt(self, work: str, most: int) -> Iterator[int]:
        """Count what was begun and never ended: Ray tries again for ever what ends every process.

        Gives the how manieth time this is.
        """
        begun = 1
        with contextlib.suppress(ray.exceptions.RayError):  # the board's node went: it begins anew elsewhere
            begun = ray.get(self.board.begin.remote(work))
        if begun > most:
            raise RegradError(
                f"{self.tries} workers died {work}: it may be more than memory can hold, or crash a library; "
                "leave each more memory (--num-workers 1, --batch-size 1), or leave it out"
            )
        try:
            yield begun
        finally:
            self.board.end.remote(work)

    def _count(self, scored: int, quarantined: int) -> None:
        self.scored += scored
        self.quarantined += quarantined
        self.metrics.images(scored, quarantined)
        if time.monotonic() - self.posted > _REPORT_SECONDS:
            self._post()

    def _scoring(self, busy: bool) -> None:
        self.metrics.enter(SCORING if busy else READING)

    def _post(self) -> None:
        self.posted = time.monotonic()
        self.board.post.remote(self.name, self.scored, self.quarantined)


def _row(result: UnitResult | WorkerFailure) -> dict[str, list[Any]]:
    """``result`` as a batch of one row."""
    text = json.dumps(asdict(result)) if isinstance(result, WorkerFailure) else to_json(result)
    return {"failed": [isinstance(result, WorkerFailure)], "result": [text]}


def _cause(error: BaseException) -> str:
    while error.__cause__ is not None and str(error.__cause__):  # Ray Data marks its own errors by an empty cause
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return storage.mask(f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__)
