"""Without Ray: a run of some seconds, of which Ray's start would be a large part, is done in the command's process."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import torch

from regrad.cluster.progress import Progress
from regrad.pipeline import process
from regrad.pipeline.prepare import Job, expected_images
from regrad.pipeline.results import UnitResult
from regrad.pipeline.run import score_here
from regrad.pipeline.worker import UnitScorer
from regrad.settings.places import NO_CLUSTER

WORTHWHILE_SECONDS = 20.0  # Ray takes about ten to start and end, and saves a run that a broken file would end
_LOOK_SECONDS = 8.0  # what a look at a whole batch may cost, where it may save Ray's start
_BATCH = 16


def is_meant(job: Job) -> bool:
    """Whether the run is to do without Ray: it says so, or it names no cluster and nothing of workers, and what is
    pending takes at most :data:`WORTHWHILE_SECONDS`, by the time of its first images.
    """
    options = job.options
    if options.ray_address == NO_CLUSTER:
        return True
    if options.ray_address or os.environ.get("RAY_ADDRESS") or _is_in_a_session() or torch.cuda.is_available():
        return False
    if options.num_workers or options.gpus_per_worker is not None or options.cpus_per_worker or options.decode_workers:
        return False
    return bool(job.plan.pending) and _seconds(job) <= WORTHWHILE_SECONDS


def _is_in_a_session() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _seconds(job: Job) -> float:
    """About what is pending takes here, by its first image, and by a batch where that costs little."""
    images, _ = expected_images(job.plan.pending, job.task.columns)
    process.set_up(job.task.threads)
    scorer = UnitScorer(job.task, classifier=job.classifier, scorer=job.scorer)
    count, seconds = scorer.trial(job.plan.pending[0], 1)
    in_doubt = WORTHWHILE_SECONDS < images * seconds <= _BATCH * WORTHWHILE_SECONDS  # a batch may be so much faster
    if in_doubt and 2 * _BATCH * seconds < _LOOK_SECONDS:
        count, seconds = scorer.trial(job.plan.pending[0], _BATCH)
    return images * seconds / max(count, 1)


def score_alone(job: Job) -> Iterator[UnitResult]:
    """Score the pending units in this process; gives what :meth:`UnitScorer.score` does.

    Raises:
        RegradError: the storage or the model failed.
    """
    progress = Progress(*expected_images(job.plan.pending))
    done = [0, 0]

    def count(scored: int, quarantined: int) -> None:
        done[0] += scored
        done[1] += quarantined
        progress.update(*done)

    try:
        yield from score_here(job, count)
    finally:
        progress.clear()
