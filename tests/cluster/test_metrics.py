"""What workers tell Prometheus, with recorders in place of Ray's metrics; of a real cluster: test_submit."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import pytest

from regrad.cluster import metrics
from tests.data import ROOT


class Recorder:
    """A counter or histogram that keeps what it was told."""

    made: dict[str, Recorder] = {}

    def __init__(self, name: str, *_: Any) -> None:
        self.told: list[tuple[float, dict[str, str]]] = []
        self.tags: dict[str, str] = {}
        Recorder.made[name] = self

    def set_default_tags(self, tags: dict[str, str]) -> None:
        self.tags = tags

    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0  # Ray refuses others
        self.told.append((value, tags))

    def observe(self, value: float) -> None:
        self.told.append((value, {}))


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        threading.Event().wait()  # the thread that tells is not what is tested


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for name in ("Counter", "Histogram"):
        monkeypatch.setattr(metrics, name, Recorder)
    monkeypatch.setattr(metrics, "time", clock)
    return clock


def test_a_workers_time_is_all_told_by_what_it_did(clock: Clock) -> None:
    worker = metrics.WorkerMetrics("s3://bucket/out")
    for state, seconds in ((metrics.IDLE, 5.0), (metrics.READING, 2.0), (metrics.SCORING, 1.5), (metrics.IDLE, 3.0)):
        clock.now += seconds
        worker.enter(state)
    told = Recorder.made["regrad_worker_seconds"].told
    assert told == [
        (5.0, {"state": metrics.LOADING}),
        (2.0, {"state": metrics.IDLE}),
        (1.5, {"state": metrics.READING}),
        (3.0, {"state": metrics.SCORING}),
    ]
    worker.enter(metrics.IDLE)  # in no time: nothing to tell
    assert len(told) == 4
    assert Recorder.made["regrad_worker_seconds"].tags == {"output": "s3://bucket/out"}


def test_images_and_units_are_counted(clock: Clock) -> None:
    worker = metrics.WorkerMetrics("out")
    worker.images(3, 0)
    worker.images(0, 2)
    worker.unit(12.5)
    assert Recorder.made["regrad_images"].told == [(3, {"outcome": "scored"}), (2, {"outcome": "quarantined"})]
    assert Recorder.made["regrad_unit_seconds"].told == [(12.5, {})]


def test_the_dashboard_asks_for_what_there_is() -> None:
    asked = (ROOT / "infra/monitoring/grafana-dashboard.json").read_text()
    json.loads(asked)
    assert {name for name in metrics.exported() if name in asked} >= {"ray_regrad_images_total"}
    assert set(re.findall(r"ray_regrad_\w+", asked)) <= metrics.exported()


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("output", ["/tmp/plain", "s3://bucket/Ergebnisse für José", "/tmp/結果", "/tmp/caf\udce9"])
def test_ray_takes_an_output_of_any_name(output: str) -> None:
    worker = metrics.WorkerMetrics(output)
    worker.images(1, 2)
    worker.unit(0.5)
    worker.enter(metrics.READING)
