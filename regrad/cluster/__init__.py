"""All of Ray: sessions, actors, tasks, metrics and the job server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrad.pipeline.prepare import Job
    from regrad.pipeline.results import UnitResult


def score_on_ray(job: Job) -> Iterator[UnitResult]:
    """:func:`regrad.cluster.actors.score_units`; Ray takes seconds to import, which a run with nothing to do need not
    wait for.
    """
    from regrad.cluster.actors import score_units

    return score_units(job)
