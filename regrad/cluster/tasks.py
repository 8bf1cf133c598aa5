"""One function over many items on Ray, a bounded number at a time; a worker that dies costs its item another try."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray

from regrad import storage
from regrad.cluster.handover import WorkerFailure, settle_in, surroundings
from regrad.cluster.sessions import connected
from regrad.errors import RegradError
from regrad.settings.places import NO_CLUSTER

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
    done a part, since a worker may die. An item says what it is about by its ``source``.

    Args:
        address: of the cluster, see :func:`regrad.cluster.sessions.connected`; ``none``: one item after the other, in
            this process.
        workers: how many items are worked on at the same time; None: as many as there are CPUs to spare.

    Raises:
        RegradError: what ``function`` raised for the first item that failed, or the cluster failed.
    """
    if address == NO_CLUSTER:
        yield from map(function, items)
        return
    queue = iter(items)
    first = list(itertools.islice(queue, 1))
    if not first:
        return  # without starting Ray
    queue = itertools.chain(first, queue)
    with connected(address, workers, verbose) as cluster:
        most = workers or max(1, cluster.cpus - _SPARE_CPUS)
        call = ray.remote(num_cpus=1, max_retries=_TRIES)(_call)
        around = surroundings()
        running = {call.remote(function, item, *around): item for item in itertools.islice(queue, most)}
        try:
            while running:
                (ended,), _ = ray.wait(list(running), num_returns=1)
                result = _result(ended, running.pop(ended))
                running |= {call.remote(function, item, *around): item for item in itertools.islice(queue, 1)}
                if isinstance(result, WorkerFailure):
                    result.throw()
                yield result
        finally:
            for task in running:
                ray.cancel(task, force=True)


def _result(ended: Any, item: Item) -> Item | WorkerFailure:
    try:
        result: Item | WorkerFailure = ray.get(ended)
        return result
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        raise RegradError(
            f"{storage.mask(item['source'])}: {_TRIES + 1} workers died over it: it may be more than memory can hold, "
            "or crash a library; leave each more memory (--num-workers 1), or leave it out"
        ) from error
    except ray.exceptions.RayError as error:
        raise RegradError(f"Ray failed: {storage.reason(error)}") from error


def _call(
    function: Callable[[Item], Item], item: Item, environment: dict[str, str], paths: Sequence[str]
) -> Item | WorkerFailure:
    settle_in(environment, paths)
    try:
        return function(item)
    except Exception as error:
        return WorkerFailure.of(error)
