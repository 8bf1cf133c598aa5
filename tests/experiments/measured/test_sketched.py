"""The sketch beside the exact engine: measures by hand, both engines on a small network, and what stays without."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.experiments.material import image_sets, models
from regrad.experiments.material.experiments import Experiment
from regrad.experiments.measured import runtime, sketched
from regrad.experiments.measured.results import Result, with_days
from regrad.experiments.measured.scoring import Columns, Setting, Study
from tests.experiments.digits import write_packs

PAIR = Experiment("small", "mnist", "fmnist")
Cells = dict[tuple[str, str], Result]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.MODELS, "small", models.Model("Small", "tests.shards:build", "no-pack.parquet"))


def by_place(results: list[Result]) -> Cells:
    return {(result.row, result.experiment): result for result in results}


def columns(values: list[float], errors: list[float]) -> Columns:
    score = sketched.SCORE
    return {"label": np.zeros(len(values)), score: np.asarray(values), f"{score}_se": np.asarray(errors)}


def test_measures_are_those_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = {"mnist": columns([10.0, 20.0], [0.0, 0.0]), "fmnist": columns([40.0, 50.0, 9.0], [0.0] * 3)}
    one = {"mnist": columns([11.0, 45.0], [1.0, 10.0]), "fmnist": columns([42.0, 49.5, 1.0], [1.5, 0.1, 1.0])}
    asked: list[tuple[str, int]] = []

    def scored(study: Study, model: str, seed: int, sets: Any, setting: Setting) -> dict[str, Columns]:
        asked.append((setting.name, seed))
        return exact if setting.name == "exact" or seed else one

    monkeypatch.setattr(sketched, "scored", scored)
    cells = by_place(sketched.sketched(Study("data", "out", seeds=2, compute=False), [PAIR]))
    assert asked[0] == ("exact", 0)
    assert asked[1:] == [(f"{k}-directions", seed) for k in (4, 8, 16, 32, 64) for seed in (0, 1)]
    # Of the first seed, images 10, 20 and 40, 50 are off by 1, 25, 2 and 0.5; the third unknown one has no partner.
    # The second seed is exact, with standard errors of 0.
    of_seeds = {
        "AUROC": (75.0, 100.0),
        "rank correlation": (0.8, 1.0),  # 1 - 6 * (1 + 1) / (4 * 15)
        "error, median %": (7.5, 0.0),  # 10, 125, 5 and 1
        "error, largest %": (125.0, 0.0),
        "standard error, median %": (6.875, 0.0),  # 10, 50, 3.75 and 0.2
        "within 1, %": (25.0, 100.0),  # 1, 2.5, 1.3 and 5 standard errors
        "within 2, %": (50.0, 100.0),
    }
    for name, values in of_seeds.items():
        cell = cells["8 directions", name]
        assert cell.mean == pytest.approx(np.mean(values)), name
        assert cell.deviation == pytest.approx(np.std(values, ddof=1)), name
        assert (cell.runs, cell.images, cell.group) == (2, 2, "Small, MNIST→FMNIST")
    assert [key[1] for key, cell in cells.items() if key[0] == "exact" and cell.mean is not None] == ["AUROC"]
    assert (cells["exact", "AUROC"].mean, cells["exact", "AUROC"].deviation) == (100, 0)


def test_both_engines_on_a_small_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_sets, "SHARD_ROWS", 20)
    monkeypatch.setattr(runtime, "ROUNDS", 1)
    few = {row: engine for row, engine in sketched.ENGINES.items() if row in ("exact", "4 directions", "64 directions")}
    monkeypatch.setattr(sketched, "ENGINES", few)
    write_packs(tmp_path / "data", mnist_test=slice(0, 40), fmnist_test=slice(40, 80))
    study = Study(str(tmp_path / "data"), str(tmp_path / "out"), images=20, seeds=2)
    results = sketched.sketched(study, [PAIR])
    cells = by_place(results)
    for name, factor in (("error, median %", 2.0), ("standard error, median %", 2.0)):  # 4 were they independent
        assert float(cells["4 directions", name].mean or 0) > factor * float(cells["64 directions", name].mean or 9)
    assert float(cells["64 directions", "rank correlation"].mean or 0) > 0.99
    assert {cells[row, sketched.COST].runs_of for row in few} == {"rounds"}
    assert all(float(cells[row, sketched.COST].mean or 0) > 0 for row in few)

    held = [replace(result, device="Abacus", date="2026-01-02") for result in results]
    without = sketched.sketched(replace(study, compute=False), [PAIR])
    assert by_place(with_days(without, held, "another", "2026-03-04")) == by_place(
        held
    )  # times too, which no score tells


def test_without_images_nothing_is_timed(tmp_path: Path) -> None:
    results = sketched.sketched(Study(str(tmp_path), str(tmp_path / "out"), seeds=1), [PAIR])
    assert results
    assert {(result.mean, result.runs) for result in results} == {(None, 0)}
