"""What a method costs in plain forward passes: the clock is made up here, the work is done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from regrad.experiments.material import models
from regrad.experiments.measured import runtime
from regrad.experiments.measured.scoring import Study
from tests.experiments.digits import write_packs


def test_medians_of_rounds_over_the_fastest_plain_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    seconds = {"plain": [2.0, 1.0, 3.0], "A": [5.0, 7.0, 3.0], "B": [1.0, 1.0, 1.0]}
    clock = {name: iter(values * 5) for name, values in seconds.items()}

    def entrant(name: str) -> Callable[[], object]:
        def work() -> None:
            ran.append(name)

        work.__name__ = name
        return work

    monkeypatch.setattr(runtime, "_entrants", lambda *_: ({"A": entrant("A"), "B": entrant("B")}, entrant("plain")))
    monkeypatch.setattr(runtime, "_seconds", lambda work: next(clock[work.__name__]))
    monkeypatch.setattr(runtime, "ROUNDS", 3)
    a, b = runtime.runtime(Study("data", "out"), ["mnist-cnn"])
    assert ran == ["plain", "A", "B"]  # once, to warm up; the made-up clock runs nothing
    assert (a.row, a.mean, a.low, a.high, a.runs) == ("A", 5.0, 3.0, 7.0, 3)  # 5/1, 7/1, 3/1
    assert (b.mean, b.low, b.high, b.runs_of) == (1.0, 1.0, 1.0, "rounds")


def test_every_row_runs_on_its_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packs(tmp_path / "data", mnist_train=slice(0, 120))
    recipe = models.Recipe("mnist-train.parquet", epochs=1, limit=60)
    small = models.Model("small", "regrad.networks:mnist_cnn", "mnist-train.parquet", recipe=recipe)
    monkeypatch.setitem(models.MODELS, "small", small)
    monkeypatch.setattr(runtime, "ROUNDS", 1)
    monkeypatch.setattr(runtime, "BATCH", 2)
    rows = {name: runtime.ROWS[name] for name in ("REGrad*", "LA", "Entropy")}
    monkeypatch.setattr(runtime, "ROWS", rows)
    told = runtime.runtime(Study(str(tmp_path / "data"), str(tmp_path / "out")), ["small"])
    assert [result.row for result in told] == list(rows)
    assert all(result.mean is not None and result.mean > 0 for result in told)
    assert {result.group for result in told} == {"small"}


def test_without_computing_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_entrants", lambda *_: pytest.fail("timed"))
    told = runtime.runtime(Study("data", "out", compute=False), ["mnist-cnn"])
    assert [(result.row, result.mean) for result in told] == [(row, None) for row in runtime.ROWS]
