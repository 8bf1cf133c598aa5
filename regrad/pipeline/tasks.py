"""One function over many items on Ray, a bounded number at a time; a worker that dies costs its item another try."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray

from regrad import storage
from regrad.errors import RegradError
from regrad.pipeline.cluster import connected
from regrad.pipeline.run import as_problem, raise_problem, settle_in, surroundings

_TRIES = 8
_SPARE_CPUS = 2

Item = dict[str, Any]


def each(
    function: Callable[[Item], Item],
    items: Iterable[Item],
    address: str | None = None,
    workers: int | None = None,
    verbose: bool = False,
) -> Iterator[Item]:
    """``function(item)`` of every item, in any order.

    Assumptions: ``function`` is importable on the workers, and may be carried out again for an item of which it has
    done a part: a worker may die.

    Args:
        address: of the cluster, see :func:`regrad.pipeline.cluster.connected`.
        workers: how many items are worked on at the same time; None: as many as there are CPUs to spare.

    Raises:
        RegradError: what ``function`` raised for the first item that failed, or the cluster failed.
    """
    queue = iter(items)
    first = list(itertools.islice(queue, 1))
    if not first:
        return  # without starting Ray
    queue = itertools.chain(first, queue)
    with connected(address, workers, verbose) as cluster:
        most = workers or max(1, cluster.cpus - _SPARE_CPUS)
        call = ray.remote(num_cpus=1, max_retries=_TRIES)(_call)
        around = surroundings()
        running = [call.remote(function, item, *around) for item in itertools.islice(queue, most)]
        try:
            while running:
                (ended,), running = ray.wait(running, num_returns=1)
                running += [call.remote(function, item, *around) for item in itertools.islice(queue, 1)]
                result: Item = ray.get(ended)
                raise_problem(result)
                yield result
        except ray.exceptions.RayError as error:
            raise RegradError(f"Ray failed: {storage.reason(error)}") from error
        finally:
            for task in running:
                ray.cancel(task, force=True)


def _call(function: Callable[[Item], Item], item: Item, environment: dict[str, str], paths: Sequence[str]) -> Item:
    settle_in(environment, paths)
    try:
        return function(item)
    except Exception as error:
        return as_problem(error)
