"""Where a run computes: an existing Ray cluster or one of its own on this machine, and what each worker gets of it."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray._private import services

from regrad import storage
from regrad.errors import RegradError, UsageError
from regrad.pipeline.process import cores
from regrad.settings.places import LOCAL

_OBJECT_STORE_BYTES = 256 * 2**20  # descriptions of units travel through it, and images where others decode
_SPARE_CPUS = 2  # Ray hangs without a word when actors take every CPU
_CORES_PER_WORKER = 4
_KNOCK_SECONDS = 10.0
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Cluster:
    """What there is to compute on; ``own`` when this process started it."""

    cpus: int
    gpus: float
    largest_node_cpus: int
    own: bool

    def without(self, cpus: int) -> Cluster:
        """What is left where so many are taken, from nodes that are not known."""
        return replace(self, cpus=max(0, self.cpus - cpus))

    def __str__(self) -> str:
        return f"{self.cpus} CPUs and {self.gpus:g} GPUs"


@dataclass(frozen=True)
class Workers:
    """How many workers score, and what each reserves."""

    count: int
    cpus: int
    gpus: float


@contextlib.contextmanager
def connected(address: str | None, workers: int | None, verbose: bool = False) -> Iterator[Cluster]:
    """A Ray session: the one this process has, that of ``address`` or ``$RAY_ADDRESS``, or a local one of its own.

    A local one listens on the loopback interface only and ends with the context.

    Raises:
        RegradError: no cluster answers at the address, or none could be started.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield _describe(own=False)
        return
    handler = signal.getsignal(signal.SIGTERM)
    own = not address or address == LOCAL
    try:
        if own:
            start_local(max(cores(), workers or 1) + _SPARE_CPUS, verbose)
        else:
            _knock(str(address))
            _init(verbose, address=address)
    except Exception as error:
        what = "cannot start Ray on this machine" if own else f"no Ray cluster at {storage.mask(str(address))}"
        raise RegradError(f"{what}: {storage.reason(error)}") from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # ray.init() puts its own in place
    try:
        yield _describe(own)
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once where nobody listens: Ray itself would try for minutes, without a word."""
    place = re.fullmatch(r"(?:ray://)?\[?([^\[\]/]+?)\]?:(\d+)", address)
    if place:
        socket.create_connection((place[1], int(place[2])), timeout=_KNOCK_SECONDS).close()


def start_local(cpus: int, verbose: bool = False) -> None:
    """Start Ray on this machine's loopback interface, for work of up to ``cpus`` at a time."""
    # Ray would run workers at nice 15, behind whatever else the machine does; `nice python jobs/...` still can.
    os.environ.setdefault("RAY_worker_niceness", "0")
    with _loopback():
        _init(
            verbose,
            address=LOCAL,
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            _node_ip_address=_LOOPBACK,
        )


@contextlib.contextmanager
def _loopback() -> Iterator[None]:
    """Ray takes an address that others reach in place of 127.0.0.1, and then listens on all.

    A Ray without the function that does so fails here rather than listen to everybody.
    """
    kept = services.resolve_ip_for_localhost
    services.resolve_ip_for_localhost = lambda host: host
    try:
        yield
    finally:
        services.resolve_ip_for_localhost = kept


def _init(verbose: bool, **arguments: Any) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the coming default; without it, a warning
    if verbose:
        ray.init(**arguments, log_to_driver=True, logging_level=logging.WARNING)
        return
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # the core prints to stderr past every Python logger
    with _muted():
        ray.init(**arguments, log_to_driver=False, logging_level=logging.ERROR)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """Nothing reaches stderr meanwhile, not even from Ray's C++ core; failures arrive as exceptions all the same."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _describe(own: bool) -> Cluster:
    resources = ray.cluster_resources()
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return Cluster(int(resources.get("CPU", 0)), resources.get("GPU", 0.0), int(max(nodes, default=0)), own)


def share_out(
    cluster: Cluster, workers: int | None, gpus_per_worker: float | None, cpus_per_worker: int | None = None
) -> Workers:
    """How many workers, with how many CPUs and GPUs each, unless the user says.

    A cluster that grows with what is asked of it has nothing to share out yet: say both.

    >>> share_out(Cluster(cpus=66, gpus=4.0, largest_node_cpus=66, own=True), None, None)
    Workers(count=4, cpus=16, gpus=1.0)

    Raises:
        UsageError: GPUs are asked for where there are none.
    """
    gpus = gpus_per_worker if gpus_per_worker is not None else float(cluster.gpus > 0)
    if cluster.own and gpus > cluster.gpus:
        raise UsageError(f"--gpus-per-worker {gpus:g}: this machine has {cluster.gpus:g}; use 0 to score on the CPU")
    usable = max(1, cluster.cpus - _SPARE_CPUS)
    by_default = int(cluster.gpus / gpus) if gpus else usable // _CORES_PER_WORKER
    count = workers or max(1, by_default)
    # On a cluster of others, one CPU of a node stays free and a worker must fit on a node.
    node = cluster.largest_node_cpus - (_SPARE_CPUS if cluster.own else 1)
    return Workers(count, cpus_per_worker or max(1, min(usable // count, node)), gpus)
