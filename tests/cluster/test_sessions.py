"""Where a run computes, and what each worker gets of it."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest
import ray

from regrad.cluster.sessions import Cluster, Workers, connected, share_out
from regrad.errors import RegradError, UsageError
from tests.own_run import OwnRun


@pytest.mark.parametrize(
    ("cluster", "asked", "expected"),
    [
        (Cluster(4, 0, 4, True), (None, None), Workers(1, 2, 0)),  # two cores and Ray's two spare ones
        (Cluster(18, 0, 18, True), (None, None), Workers(4, 4, 0)),
        (Cluster(18, 0, 18, True), (16, None), Workers(16, 1, 0)),
        (Cluster(66, 8, 66, True), (None, 0.5), Workers(16, 4, 0.5)),
        (Cluster(64, 0, 8, False), (None, None), Workers(15, 4, 0)),
        (Cluster(64, 0, 8, False), (2, None), Workers(2, 7, 0)),
        (Cluster(64, 8, 32, False), (None, None), Workers(8, 7, 1.0)),
        (Cluster(1, 0, 1, False), (None, None), Workers(1, 1, 0)),
        (Cluster(0, 0, 0, False), (8, 1.0, 6), Workers(8, 6, 1.0)),  # a head that waits for workers to come
    ],
)
def test_resources_are_shared_out(cluster: Cluster, asked: tuple[Any, ...], expected: Workers) -> None:
    assert share_out(cluster, *asked) == expected


def test_a_ray_of_its_own_listens_to_this_machine_only(own_run: OwnRun) -> None:
    assert {"raylet", "gcs_server"} <= own_run.listening.keys()
    assert set.union(*own_run.listening.values()) == {"127.0.0.1"}


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(UsageError, match="--gpus-per-worker 1: this machine has 0"):
        share_out(Cluster(4, 0, 4, True), None, 1)


def test_an_address_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)  # by other tests of this process
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = time.monotonic()
    with (
        pytest.raises(RegradError, match=rf"no Ray cluster at {address}: ConnectionRefusedError"),
        connected(address, 1),
    ):
        pytest.fail("connected")
    assert time.monotonic() - started < 5


def test_the_address_of_the_environment_counts_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"ray://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(RegradError, match=f"no Ray cluster at {address}"), connected(None, 1):
        pytest.fail("connected")


@pytest.mark.usefixtures("ray_session")
def test_a_session_that_is_there_is_used_and_stays() -> None:
    with connected(None, 3) as cluster:
        assert not cluster.own
        assert cluster.cpus == int(ray.cluster_resources()["CPU"])
    assert ray.is_initialized()
