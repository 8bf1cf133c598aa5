"""The simulated run: where it can be said beforehand how long it takes, and that nothing is lost or counted twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regrad.benchmarks.fleet import (
    CHANGES,
    Fleet,
    beside_real_runs,
    fleet_as_markdown,
    measure_fleet,
    plot_of_fleet,
    simulate,
)

#: A hundred units of ten seconds, and nothing that takes time besides.
PLAIN = Fleet(
    images=1000, gpus=1, unit_images=10, shard_images=100, speed=1.0, spread=0.0, slow=0.0, begin=0.0, plan=0.0,
    load=0.0, handing=0.0, asking=0.0, answer=0.0, store_writes=1e9, store_reads=1e9, kept=0.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({}, 1000),
        ({"gpus": 4}, 280),  # tasks of up to 6: one GPU has 28 units
        ({"gpus": 3}, 360),
        ({"begin": 7.0, "plan": 0.5, "load": 3.0}, 1000 + 7 + 10 * 0.5 + 3),
        ({"handing": 2.0, "gpus": 100}, 10 + 100 * 2),  # one after the other
        ({"store_writes": 1.0, "writes": 3, "gpus": 100}, 10 + 100 * 3),
        ({"asking": 1.0}, 1000 + 13),  # thirteen tasks of up to eight
        ({"answer": 1.0, "writes": 2, "reads": 1}, 1000 + 13 * 3),  # a task's last commit; the others go on beside
        ({"answer": 10.0, "writes": 2, "reads": 1}, 12 * (10 + 8 * 30) + 10 + 4 * 30),  # one commit after another
        ({"kept": 0.1}, 1000 + 10),
        ({"slow": 1.0, "slow_times": 2.0}, 2000),
    ],
)
def test_what_can_be_said_beforehand(changes: dict[str, Any], seconds: float) -> None:
    fleet = replace(PLAIN, **changes)
    simulated = simulate(fleet)
    assert simulated.seconds == pytest.approx(seconds, abs=1e-3)
    assert len(simulated.commits) == 100
    assert simulated.efficiency == pytest.approx(1000 / (fleet.gpus * seconds), rel=1e-5)
    assert simulated.redone == 0


def test_a_spread_leaves_the_mean_and_is_seeded() -> None:
    fleet = replace(PLAIN, images=100_000, spread=0.5)
    assert simulate(fleet).seconds == pytest.approx(100_000, rel=0.02)
    assert simulate(fleet, seed=1).seconds == simulate(fleet, seed=1).seconds != simulate(fleet).seconds


@pytest.mark.parametrize("seed", range(5))
def test_lost_gpus_cost_time_and_no_unit(seed: int) -> None:
    fleet = replace(PLAIN, gpus=4, lost=60.0, boot=20.0)  # one a minute
    simulated = simulate(fleet, seed)
    assert len(simulated.commits) == 100
    assert simulated.redone > 0
    assert simulated.seconds > 250


def test_a_run_is_paid_by_the_hour_and_by_the_request() -> None:
    fleet = replace(PLAIN, gpus=2, writes=4, reads=6, prices=(3.0, 1.0, 5.0, 0.5))
    simulated = simulate(fleet)
    hours = simulated.seconds / 3600
    assert simulated.cost == pytest.approx(2 * hours * 3 + hours * 1 + (400 * 5 + 600 * 0.5) / 1000)


def test_real_runs_are_compared_with_simulated_ones_that_know_one_node() -> None:
    def run(nodes: int, first: float, last: float) -> dict[str, Any]:
        return {"nodes": nodes, "first": first, "last": last, "unit_seconds": 2.0, "images": 512}

    runs = [run(1, 12.0, 12 + 2 * 127), run(2, 14.0, 14 + 2 * 63), run(4, 20.0, 20 + 2 * 40)]
    rows = beside_real_runs({"unit_images": 4, "driver_seconds_a_unit": 0.0, "runs": runs})
    assert [row["nodes"] for row in rows] == [1, 2, 4]
    assert [row["off"] for row in rows[:2]] == pytest.approx([0.0, 0.0], abs=1e-3)
    assert rows[2]["simulated"] == pytest.approx(20 + 2 * 31, abs=0.1)
    assert rows[2]["off"] == pytest.approx(82 / 100 - 1, abs=1e-3)


def test_tables_and_a_plot() -> None:
    said: list[str] = []
    fleet = Fleet(images=100_000)
    measured = measure_fleet(fleet, None, (10_000, 100_000), (1, 4), said.append)
    assert len(said) == 4 + len(CHANGES)
    times = {(row["images"], row["gpus"]): row["seconds"] for row in measured["rows"]}
    assert times[100_000, 4] < times[100_000, 1] < 10 * times[10_000, 1]
    assert [row["change"] for row in measured["knees"]] == [*CHANGES]
    text = fleet_as_markdown(measured)
    assert text.startswith("| images | 1 GPU | 4 GPUs |")
    assert "| as it is |" in text
    assert text.count("\n\n") == 1  # nothing was compared
    assert b"<svg" in plot_of_fleet(measured)
