"""Parts one after another: limits, failures, and results that are written as they come."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from regrad.benchmarks.gpu import parts
from regrad.benchmarks.gpu.bench import Bench
from regrad.benchmarks.gpu.parts import Measurement, measure_all

HERE = "tests.benchmarks.gpu.test_parts"


def first(bench: Bench) -> Iterator[dict[str, Any]]:
    yield {"weights": "trained"}


def slow(bench: Bench) -> Iterator[dict[str, Any]]:
    yield {"number": 1}
    time.sleep(60)


def failing(bench: Bench) -> Iterator[dict[str, Any]]:
    yield {"number": 2}
    raise ValueError("no such kernel")


def dying(bench: Bench) -> Iterator[dict[str, Any]]:
    yield {"number": 3}
    time.sleep(0.2)
    os._exit(9)


def last(bench: Bench) -> Iterator[dict[str, Any]]:
    held = json.loads(Path(bench.folder, parts.RESULTS).read_text())["parts"]
    yield {"weights before": bench.weights, "held": list(held), "seconds": bench.seconds}


def test_a_part_that_ends_badly_keeps_its_results_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_LEAST_SECONDS", 2.0)
    names = ("first", "slow", "failing", "dying", "last")
    table = {name: Measurement(f"the {name}", 0.01 if name == "slow" else 0.25, f"{HERE}:{name}") for name in names}
    said: list[str] = []
    found = measure_all(Bench("cpu", True, str(tmp_path)), 1.0, said.append, table)["parts"]
    assert {name: part["ended"] for name, part in found.items()} == {
        "first": "whole",
        "slow": "stopped after 2 s",
        "failing": "failed: ValueError: no such kernel",
        "dying": "failed: its process ended with 9",
        "last": "whole",
    }
    assert [part["pieces"][0].get("number") for part in found.values()] == [None, 1, 2, 3, None]
    (piece,) = found["last"]["pieces"]
    assert piece["weights before"] == str(tmp_path / "trained")
    assert piece["held"] == [*names[:-1]]
    assert piece["seconds"] > 0.25 * 60  # what others left
    assert json.loads((tmp_path / parts.RESULTS).read_text())["parts"] == found
    assert said[-1].startswith("last: whole, 1 results in ")


def test_what_is_whole_is_not_run_again(tmp_path: Path) -> None:
    table = {name: Measurement(f"the {name}", 0.5, f"{HERE}:{name}") for name in ("first", "failing")}
    bench, said = Bench("cpu", True, str(tmp_path)), list[str]()
    earlier = measure_all(bench, 1.0, said.append, table)["parts"]
    table = {**table, "failing": Measurement("mended", 0.5, f"{HERE}:last")}
    parts_again = measure_all(bench, 1.0, said.append, table)["parts"]
    assert parts_again["first"] == earlier["first"]
    assert said[-3] == f"first: whole since {earlier['first']['date']}"
    (piece,) = parts_again["failing"]["pieces"]
    assert piece["weights before"] == str(tmp_path / "trained")
    assert piece["seconds"] == pytest.approx(60, abs=1)  # all of it
    other_form = measure_all(Bench("cpu", False, str(tmp_path)), 1.0, said.append, {"first": table["first"]})["parts"]
    assert other_form["first"]["does"] == "the first"
    assert said[-1].startswith("first: whole, 1 results in ")


def test_shares_are_of_the_whole() -> None:
    assert sum(part.share for part in parts.PARTS.values()) == pytest.approx(1)
