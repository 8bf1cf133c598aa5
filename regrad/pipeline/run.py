"""A prepared job carried out: what is out of date goes, what is pending is scored, ``run.json`` tells how it went."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from regrad import formatting, storage, table
from regrad.cli import say
from regrad.errors import RegradError, UsageError
from regrad.ledger import audited, commit, contents, fold, lease, merge
from regrad.pipeline import manifest, process
from regrad.pipeline.plan import group_units
from regrad.pipeline.prepare import Job, plan_again, prepare
from regrad.pipeline.results import Committed, Measured, Note, Retried, SourceChanged, Spent, UnitResult
from regrad.pipeline.worker import UnitScorer
from regrad.settings.kinds import exceeds
from regrad.storage import retry

_NEW_PLANS = 3  # for sources that change while they are read; then they are not at rest
_COMPACTED_AFTER = 8192  # units that a run commits, so that there are never very many records and parts
_LAST_WORDS_SECONDS = 5.0  # how long a run that failed tries to say so in run.json

ScoreUnits = Callable[[Job], Iterator[UnitResult]]


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended: what it did, the counts of it and of the whole output, the measured error, lines to show."""

    job: Job
    exit_code: int
    this_run: dict[str, Any]
    counts: dict[str, Any]
    measured: dict[str, Any] | None
    notes: list[str]

    @property
    def skipped(self) -> Counter[str]:
        """What the inputs hold that is no row, by reason."""
        return self.job.listing.skipped + Counter(self.counts["skipped"])


def execute(job: Job, score_units: ScoreUnits) -> RunOutcome:
    """Carry out ``job`` under the lease of its output: retire, score what is pending, keep ``run.json`` up to date.

    Where another run has worked on the output since ``job`` was prepared, it is prepared anew. A source that changed
    while it was read is planned again, as the next run would, after the others are done.

    Args:
        score_units: scores and commits the pending units, and gives what ``UnitScorer.score`` does:
            :func:`regrad.cluster.score_on_ray`, or :func:`score_here`.

    Raises:
        UsageError: another run is at work on the output.
        RegradError: the storage, the model or the cluster failed; what was committed stays.
    """
    with lease.hold(job.task.output, say) as held:
        if contents.committed(job.task.output) != job.committed:
            job = prepare(job.options, job.elsewhere)
        return _execute(replace(job, task=replace(job.task, lease=held)), score_units)


def _execute(job: Job, score_units: ScoreUnits) -> RunOutcome:
    output = job.task.output
    tally = RunCounts(job)
    _remember(job)
    # Before run.json speaks of a new configuration, nothing of the old one may be left to be taken for it.
    commit.retire(output, sorted({*job.plan.obsolete, *job.retired}))
    table.write_provenance(output, job.task.provenance)
    job.run["units"] = {"planned": len(job.plan.pending), "done_before": len(job.plan.done)}
    table.write_run(output, job.run)
    job.listing.looked.save()
    commit.sweep(output, tally.committed | {unit.key for unit in job.plan.pending})
    _compact(job, merge.ONLY_WORN)
    try:
        changed = _score(job, tally, score_units)
        for _ in range(_NEW_PLANS):
            if not changed:
                break
            job = _planned_again(job, tally)
            _remember(job)
            commit.retire(output, job.plan.obsolete)
            changed = _score(job, tally, score_units)
        if changed:
            raise RegradError(
                f"{storage.mask(changed[0])}: changed while it was read, {_NEW_PLANS + 1} times; run again when it is "
                "at rest"
            )
        _compact(job)
        if job.plan.pending:  # a worker may have died over a unit; the lease goes on being renewed meanwhile
            commit.sweep(output, tally.committed, commit.WRITTEN)
        return tally.finish()
    except BaseException as error:
        tally.fail(error)
        raise


def _remember(job: Job) -> None:
    """Keep what nights must know of the units that ``job`` is going to retire, or to replace by others."""

    def lost(key: str) -> None:
        say(
            f"warning: {storage.mask(job.task.output)}: not every row of the unit {key}, which is to go, can be read; "
            "what images it had may be counted in another night again"
        )

    replaced = (key for unit in job.plan.pending for key in unit.replaces)
    audited.keep(job.task.output, {*job.plan.obsolete, *job.retired, *replaced}, lost)


def _compact(job: Job, at_least: int | None = None) -> None:
    """Fold the ledger and merge parts, where there is enough of either; the workers go on meanwhile."""
    if job.task.lease:
        fold.fold(job.task.output, job.task.lease.check)
        kinds = contents.kinds_kept(job.run["config"])
        merge.merge(job.task.output, job.task.lease.check, at_least, kinds)


def _score(job: Job, tally: RunCounts, score_units: ScoreUnits) -> list[str]:
    """Score what is pending; returns the sources that changed meanwhile."""
    changed: dict[str, None] = {}
    for result in score_units(job) if job.plan.pending else ():
        if isinstance(result, SourceChanged):
            changed[result.source] = None
        else:
            tally.take(result)
            if isinstance(result, Committed) and tally.this_run["units"] % _COMPACTED_AFTER == 0:
                _compact(job)
    return list(changed)


def _planned_again(job: Job, tally: RunCounts) -> Job:
    try:
        job = plan_again(job, tally.committed)
    except UsageError as error:  # an input is gone: no wrong usage, since this run has begun
        raise RegradError(str(error)) from error
    tally.expect(job)
    return job


def score_here(job: Job, on_progress: Callable[[int, int], None] | None = None) -> Iterator[UnitResult]:
    """Score the pending units in this process, without Ray: a few hundred images are done before it has started.

    In the tasks that one worker would get: what is in a batch together decides a score's last bits.
    """
    process.set_up(job.task.threads)
    scorer = UnitScorer(job.task, on_progress, classifier=job.classifier, scorer=job.scorer)
    for number, units in enumerate(group_units(job.plan.pending, 1, job.options.unit_rows)):
        yield from scorer.score(units, measure=number == 0 and "measured" not in job.run)


class RunCounts:
    """Keeps the counts of the whole output without reading its ledger again.

    Built before anything is retired, since it takes note of what will be.
    """

    def __init__(self, job: Job):
        self._job = job
        self._started = time.monotonic()
        self._replaces: dict[str, tuple[str, ...]] = {}
        self._held: dict[str, dict[str, Any]] = {}
        self.committed = set(job.committed) - job.retired
        self.counts = dict(job.counts)
        self.this_run = manifest.totals([])
        # In order, each once, whichever worker it came from.
        self._notes = dict.fromkeys([*job.classifier.notes, *job.listing.warnings])
        self._retries: Counter[str] = Counter()
        self._spent: dict[str, float] = {}
        self._images_by_node: Counter[str] = Counter()
        self.expect(job)

    def expect(self, job: Job) -> None:
        """Take note of what the plan of ``job`` retires, before it is."""
        self._job, plan = job, job.plan
        self._replaces = {unit.key: unit.replaces for unit in plan.pending}
        going = {*plan.obsolete, *(key for keys in self._replaces.values() for key in keys)}
        read = contents.read_records(self._job.task.output, sorted(going))
        self._held |= {record["unit"]: record for record in read}
        self._remove(set(plan.obsolete))

    def _remove(self, keys: set[str]) -> None:
        gone = manifest.totals(self._held[key] for key in keys & self.committed)
        self.counts = {name: self.counts[name] - gone[name] for name in gone}
        self.committed -= keys

    def take(self, result: Committed | Measured | Retried | Spent | Note) -> None:
        """Take note of what came back from the scoring."""
        match result:
            case Committed(record):
                self.add(record)
            case Measured():
                self._job.run["measured"] = asdict(result)
            case Retried(counts):
                self._retries.update(counts)
            case Spent(seconds):
                self._spent |= {step: self._spent.get(step, 0.0) + more for step, more in seconds.items()}
            case Note(text):
                self._notes[text] = None

    def add(self, record: dict[str, Any]) -> None:
        """Count a committed unit, once, and no longer those that it replaces."""
        if record["unit"] in self.committed:
            return  # a retried task gives its units again
        self._remove(set(self._replaces.get(record["unit"], ())))
        new = manifest.totals([record])
        self.counts = {name: self.counts[name] + new[name] for name in new}
        self.this_run = {name: self.this_run[name] + new[name] for name in new}
        self._images_by_node[record.get("node", "")] += record["rows_in"]
        self.committed.add(record["unit"])

    def finish(self) -> RunOutcome:
        """Write that the run is done, and with which exit code: 4 where too many rows are in quarantine."""
        self._check_ledger()
        limit = self._job.options.max_quarantined
        code = 4 if exceeds(self.counts["rows_quarantined"], self.counts["rows_in"], limit) else 0
        return self._write("done", code)

    def _check_ledger(self) -> None:
        """Fail where the output holds other units than were committed: then the counts are wrong."""
        self._check_lease()
        output = self._job.task.output
        held = contents.committed(output)
        wrong = sorted(held ^ self.committed)
        if wrong:
            raise RegradError(
                f"{storage.mask(output)}: the ledger holds {len(held)} units where {len(self.committed)} were "
                f"committed (the first that differs is {wrong[0]}); `regrad check` tells more"
            )

    def _check_lease(self) -> None:
        if self._job.task.lease:
            self._job.task.lease.check()

    def fail(self, error: BaseException) -> None:
        """Write that the run did not end well; a storage that fails now too is not the news."""
        code = error.exit_code if isinstance(error, RegradError) else 1
        stopped = isinstance(error, KeyboardInterrupt)
        with contextlib.suppress(RegradError), retry.patience(_LAST_WORDS_SECONDS):
            self._check_lease()  # where it is lost, run.json is another's
            late = contents.committed(self._job.task.output) - self.committed
            for record in contents.read_records(self._job.task.output, sorted(late)):
                self.add(record)  # committed, but the news of it did not come through
            self._write("interrupted" if stopped else "failed", getattr(error, "exit_code", 130) if stopped else code)
        held = f"{self.counts['rows_scored']} scores and {self.counts['rows_quarantined']} quarantined rows"
        error.add_note(f"{storage.mask(self._job.task.output)} holds {held} in {self.counts['units']} units")

    def _write(self, status: str, code: int) -> RunOutcome:
        seconds = time.monotonic() - self._started
        speed = self.this_run["rows_in"] / seconds if seconds else 0.0
        self._retries.update(retry.take_counts())  # the driver's own
        this_run = self.this_run | {
            "seconds": round(seconds, 3),
            "images_per_second": round(speed, 3),
            "worker_seconds": {step: round(seconds, 3) for step, seconds in self._spent.items()},
            "storage_retries": dict(self._retries),
            "images_by_node": dict(self._images_by_node.most_common()),
        }
        accuracy = self.counts["correct"] / self.counts["labelled"] if self.counts["labelled"] else None
        counts = self.counts | {"accuracy": accuracy, "ledger": manifest.ledger_digest(self.committed)}
        ended = {"status": status, "exit_code": code, "finished": formatting.now()}
        seen = manifest.seen(self._job.listing, self.counts)
        table.write_run(self._job.task.output, self._job.run | ended | seen | {"this_run": this_run, "counts": counts})
        notes = [*self._notes, *([retry.summary(self._retries)] if self._retries else ())]
        return RunOutcome(self._job, code, this_run, counts, self._job.run.get("measured"), notes)
