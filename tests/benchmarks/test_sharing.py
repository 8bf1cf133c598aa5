"""An engine beside other work, in a small form: what is told, and what a machine cannot do."""

from __future__ import annotations

from pathlib import Path

import pytest

from regrad.benchmarks import sharing
from regrad.benchmarks.cases import Case

CASE = Case("tiny", "tests.shards:build", 2, samples=1)


def test_every_load_has_its_seconds_and_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"alone": 0.2, "two busy loops a core": 0.9, "another engine": 0.4}

    def under(load: str, case: Case, cores: int) -> float:
        if load not in seconds:
            raise PermissionError("no such control group")
        return seconds[load]

    monkeypatch.setattr(sharing, "_under", under)
    found = sharing.measure_sharing(CASE, 3, lambda line: None)
    rows = {row["load"]: row for row in found["rows"]}
    assert [*rows] == [*sharing.LOADS]
    assert rows["two busy loops a core"]["ratio"] == pytest.approx(0.9 / (3 * 0.2))
    assert rows["another engine"]["ratio"] == pytest.approx(1.0)
    table = sharing.sharing_as_markdown([found])
    assert "| tiny, 2 images | two busy loops a core | 0.9 | 0.6 | 1.50 |" in table
    assert "| tiny, 2 images | a quota of half a core | cannot: no such control group |  |  |" in table


def test_engines_really_run_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    assert 0 < sharing._under("another engine", CASE, 1, seconds=0.1) < 60
