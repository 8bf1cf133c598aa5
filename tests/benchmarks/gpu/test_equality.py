"""Every score and engine beside the CPU's, in the tiny form."""

from __future__ import annotations

import math

import pytest

from regrad.benchmarks.gpu import equality, speed
from regrad.benchmarks.gpu.bench import Bench
from regrad.scores import SCORES

BENCH = Bench("cpu", True, "")


def test_every_score_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "TINY_CASES", speed.TINY_CASES[:1])
    pieces = [*equality.compared(BENCH)]
    assert [piece["engine"] for piece in pieces] == ["exact", "sketch", "reference"]
    assert {*pieces[0]["differences"]} == set(SCORES)
    assert {name for name in SCORES if SCORES[name].norms} == set(pieces[1]["differences"])
    for piece in pieces:
        assert piece["same_prediction"] == 1.0
        assert equality.worst(piece["differences"])[1] < 1e-6
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert {*next(equality.compared(BENCH))["differences"]} == {*SCORES} - {"laplace"}
    assert equality.worst({"a": 0.1, "b": math.nan, "c": 0.2})[0] == "b"
    assert equality.worst({"negrad": 1.0, "a": 0.1}) == ("a", 0.1)
