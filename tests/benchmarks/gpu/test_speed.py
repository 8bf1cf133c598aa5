"""Speed, memory, equality and profiles in their tiny form: what they tell, on a CPU."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

import pytest
from torch import nn

from regrad.benchmarks.cases import Case
from regrad.benchmarks.gpu import profiling, speed
from regrad.benchmarks.gpu.bench import Bench

BENCH = Bench("cpu", True, "")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.freeze()  # before each time the garbage is collected, which is not to look at all that the tests hold
    monkeypatch.setattr(speed, "TINY_CASES", speed.TINY_CASES[:1])
    monkeypatch.setattr(speed, "_LEAST_SECONDS", 0.05)


def test_every_engine_and_precision_beside_the_definition() -> None:
    (found,) = speed.engines(BENCH)
    rows = {row["name"]: row for row in found["rows"]}
    assert [*rows] == [contender.name for contender in speed.CONTENDERS]
    assert all(row["cannot"] is None for row in rows.values())
    errors = {name: row["error"]["median"] for name, row in rows.items() if row["error"]}
    assert len(errors) == 7
    assert all(0 < error < (0.5 if "sketch" in name else 0.05) for name, error in errors.items()), errors
    definition = rows["reference"]["ratio"] * found["forward_seconds_per_image"]
    assert found["reference_seconds_per_image"] == pytest.approx(definition)


@pytest.mark.parametrize("fails", [False, True])
def test_a_compiled_network_is_measured_last_and_may_fail(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    compiled: list[nn.Module] = []

    def compile_it(network: nn.Module) -> None:
        if fails:
            raise RuntimeError("no compiler")
        compiled.append(network)

    monkeypatch.setattr(nn.Module, "compile", compile_it)
    monkeypatch.setattr(speed, "CASES", speed.TINY_CASES[:1])
    monkeypatch.setattr(speed, "CONTENDERS", speed.CONTENDERS[-1:])
    monkeypatch.setattr(speed, "ROUNDS", 1)
    _, last = speed.engines(replace(BENCH, tiny=False))
    plain, other = last["rows"]
    assert (plain["name"], other["name"]) == ("exact, tf32", "exact, tf32, compiled")
    assert plain["cannot"] is None
    assert other["cannot"] == ("RuntimeError: no compiler" if fails else None)
    assert len(compiled) == (not fails)


def test_batches_have_their_rate_and_the_memory_that_was_planned() -> None:
    pieces = [*speed.batches(BENCH)]
    assert [(piece["engine"], piece["batch"], piece["budget"]) for piece in pieces] == [
        (engine, 2, budget) for engine in ("exact", "sketch") for budget in (None, 1 << 24)
    ]
    for piece in pieces:
        assert piece["images_per_second"] > 1
        assert 0 < piece["planned_mb"] < 1 << 4


def test_a_batch_that_does_not_fit_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(*_: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 99 bytes")

    monkeypatch.setattr(speed, "_measured", measured)
    assert [piece["cannot"] for piece in speed.batches(BENCH)] == ["out of memory"] * 4


def test_the_trained_weights_are_those_of_the_first_case() -> None:
    first, *others = speed.cases(Bench("cpu", False, "", weights="w"))
    assert (first.name, first.weights) == ("ResNet-18, C = 10", "w")
    assert all(isinstance(case, Case) and case.weights is None for case in others)


def test_a_profile_names_what_was_dear() -> None:
    found = {piece["engine"]: piece for piece in profiling.profiles(BENCH)}
    assert [*found] == ["exact", "sketch"]
    for piece in found.values():
        assert piece["operations"] > 100
        assert 0 < piece["busy"] < 60
        dearest = [each["seconds"] for each in piece["dearest"]]
        assert len(dearest) == profiling.SHOWN
        assert dearest == sorted(dearest, reverse=True)
    assert any("convolution" in each["name"] for each in found["exact"]["dearest"])
