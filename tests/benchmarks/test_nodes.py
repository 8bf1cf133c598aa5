"""Runs on several nodes: what counts of their commits, and what is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from regrad import table
from regrad.benchmarks import nodes
from regrad.benchmarks.nodes import Commit, Shared


def shared(*commits: tuple[float, str, int], seconds: float = 40.0) -> Shared:
    return Shared([Commit(*each) for each in commits], seconds, 0.5, sum(images for *_, images in commits))


def test_only_the_time_in_which_all_work_counts() -> None:
    """The second node begins at 20; the first ends at 30."""
    run = shared((10, "a", 4), (20, "b", 4), (22, "a", 4), (26, "b", 4), (30, "a", 4), (36, "b", 4))
    assert run.together() == (pytest.approx(12 / 10), pytest.approx(4 / 8))
    assert sorted(run.between()) == [6, 8, 10, 12]


def test_one_node_is_the_measure_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one = shared((10, "a", 4), (12, "a", 4), (14, "a", 4), seconds=15)
    two = shared((20, "a", 4), (20, "b", 4), (22, "a", 4), (22, "b", 4), (24, "a", 4), (24, "b", 4), seconds=25)
    rows = nodes._rows({1: [one], 2: [two]})
    assert [(row["nodes"], row["images_per_second"], row["of_linear"], row["evenness"]) for row in rows] == [
        (1, 2.0, 1.0, 1.0),
        (2, 4.0, 1.0, 1.0),
    ]
    assert [row["first"] for row in rows] == [10, 20]
    told = nodes._all({1: [one], 2: [two]})
    assert [(run["nodes"], run["last"], run["unit_seconds"], run["images"]) for run in told] == [
        (1, 14, 2.0, 12),
        (2, 24, 2.0, 24),
    ]


def test_a_ratio_is_of_one_round() -> None:
    """The machine was twice as fast in the second round."""

    def run(count: int, seconds: float) -> Shared:
        return shared(*((step * seconds, name, 4) for step in range(3) for name in "abcd"[:count]))

    rows = nodes._rows({1: [run(1, 2), run(1, 1), run(1, 2)], 2: [run(2, 2), run(2, 1), run(2, 1)]})
    assert [(row["images_per_second"], row["of_linear"]) for row in rows] == [(2, 1), (8, 1)]


def test_what_is_done_once_for_an_output_is_done_before(tmp_path: Path) -> None:
    flags = [nodes.write_noise(12, tmp_path), "--model", "tests.shards:build", "--scores", "regrad", "--samples", "1"]
    nodes._begin(flags, tmp_path / "begun")
    assert table.read(str(tmp_path / "begun")).num_rows == nodes.UNIT_ROWS
    assert table.read_run(str(tmp_path / "begun"))["measured"]["images"] == nodes.UNIT_ROWS


def test_what_is_told() -> None:
    row = {"nodes": 2, "images_per_second": 9.5, "of_linear": 0.97, "evenness": 0.92, "first": 20.4, "seconds": 81.0}
    event: dict[str, Any] = {"event": "joins", "at": 30.2, "rows": 96, "images_by_node": {"127.0.0.3": 60}}
    measured = {"images": 96, "nodes": [row], "events": [event | {"first_after": 17.0}, event | {"first_after": None}]}
    text = nodes.nodes_as_markdown(measured)
    assert "| 2 | 9.50 | 0.97 | 0.92 | 20 | 81 |" in text
    line = "A node joins after 30 s: 96 of 96 images have one row, committed by 127.0.0.3 60"
    assert text.splitlines()[-3:] == [f"{line}; its first unit came 17 s later.", "", f"{line}."]
