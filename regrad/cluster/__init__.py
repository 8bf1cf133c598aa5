"""All of Ray: sessions, actors, tasks, metrics and the job server; and what is better done without."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from regrad.cli import loading, say, set_for_torch
from regrad.settings.places import NO_CLUSTER

if TYPE_CHECKING:
    from regrad.pipeline.prepare import Job
    from regrad.pipeline.results import UnitResult

set_for_torch()  # in a worker nothing is imported earlier


def score_on_ray(job: Job) -> Iterator[UnitResult]:
    """:func:`regrad.cluster.actors.score_units`, for which a run with nothing to do need not load Ray."""
    with loading():
        from regrad.cluster.actors import score_units

    return score_units(job)


def score_where_it_pays(job: Job) -> Iterator[UnitResult]:
    """On Ray, or in this process where that is sooner, see :func:`regrad.cluster.here.is_meant`."""
    from regrad.cluster import here

    if not here.is_meant(job):
        return score_on_ray(job)
    if job.options.ray_address != NO_CLUSTER:
        say("without Ray: these images take some seconds in this process; `--ray-address local` starts it")
    return here.score_alone(job)
