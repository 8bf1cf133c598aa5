"""How often drift is found: by hand, of draws that are kept, and of digits that a small network sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regrad.experiments.material import models
from regrad.experiments.material.shifts import SHIFTS, Nights, Shift, draws_file, keep_draws, kept_draws
from regrad.experiments.measured import drift
from regrad.experiments.measured.results import Result
from regrad.experiments.measured.scoring import Study
from regrad.experiments.power import TESTS
from tests.experiments.digits import write_packs

NIGHTS = Nights(40, "mnist", 100, unchanged=3, changed=2)
DIGITS = {"nothing": SHIFTS["nothing"], "c100-10": Shift("others", "fmnist"), "a-class": SHIFTS["a-class"]}
Cells = dict[tuple[str, str, str], Result]


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setitem(models.MODELS, drift.MODEL, models.Model("Small", "tests.shards:build", "no-pack.parquet"))
    return Study(str(tmp_path / "data"), str(tmp_path / "out"), images=40, seeds=1)


def cells(results: list[Result]) -> Cells:
    return {(result.experiment, result.row, result.metric): result for result in results}


def test_shares_are_those_by_hand(study: Study) -> None:
    classifier, mmd, *others = TESTS
    ps = {classifier: [0.01, 0.2, 0.05, 0.9], mmd: [0.3, 0.01, 0.9, 0.005]} | {name: [1.0] * 4 for name in others}
    draws = [[*(ps[name][row] for name in TESTS), 0.5 + 0.1 * row] for row in range(4)]
    nights = Nights(40, "mnist", 100, unchanged=4, changed=9)
    about = {**nights.about, "permutations": drift.PERMUTATIONS, "score": drift.SCORE}
    for name in ("nothing", "a-class"):
        keep_draws(draws_file(study.output, 40, name, drift.OURS), about, draws)
    asked = [{"ratio": True}, {"ratio": False, "distance": True}, {"ratio": True}]
    keep_draws(draws_file(study.output, 40, "nothing", drift.OTHER), nights.about, asked)
    held = Study(study.data, study.output, compute=False)
    found = cells(drift.found_drift(held, [nights], DIGITS))
    told = {(row, metric): cell.mean for (name, row, metric), cell in found.items() if name == "nothing"}
    assert told[classifier, "at 0.05"] == 50
    assert told[classifier, "at 0.01"] == 25
    assert told[mmd, "at 0.05"] == 50
    assert told[drift.EITHER, "at 0.05"] == 75  # 0.02, 0.02, 0.1 and 0.01
    assert told[drift.EITHER, "at 0.01"] == 25
    assert told[classifier, "AUROC"] == pytest.approx(0.65)
    assert {told[name, "at 0.05"] for name in others} == {0}
    assert told["Evidently: ratio", "at 0.05"] == pytest.approx(200 / 3)
    assert told["Evidently: distance", "at 0.05"] == 100
    assert found["nothing", "Evidently: ratio", "at 0.05"].runs == 3
    cell = found["nothing", classifier, "at 0.05"]
    assert (cell.runs, cell.runs_of, cell.images) == (4, "draws", 40)
    assert (cell.low, cell.high) == pytest.approx((15.0, 85.0), abs=0.05)  # Wilson's of 2 of 4
    assert found["a class missing", mmd, "at 0.05"].runs == 4  # fewer than wanted are told as they are
    assert found["others", mmd, "at 0.05"].mean is None
    less = drift.found_drift(held, [Nights(40, "mnist", 100, unchanged=2, changed=2)], DIGITS)
    assert cells(less)["nothing", classifier, "at 0.05"].mean == 50  # of the first two draws
    assert {each.mean for each in drift.found_drift(held, [Nights(40, "mnist", 99, 4, 4)], DIGITS)} == {None}


def test_what_is_drawn_is_kept_and_more_goes_on(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packs(Path(study.data), mnist_test=slice(0, 150), fmnist_test=slice(200, 350))
    asked: list[tuple[str, ...]] = []
    tests_of = drift.tests_of

    def counted(*arguments: Any) -> list[float]:
        asked.append(tuple(arguments[1].ids))
        return tests_of(*arguments)

    monkeypatch.setattr(drift, "tests_of", counted)
    monkeypatch.setattr(drift, "PERMUTATIONS", 19)
    found = drift.found_drift(study, [NIGHTS], DIGITS)
    assert len(asked) == 3 + 2 + 2
    assert {name.partition("/")[0] for ids in asked[3:5] for name in ids} == {"fmnist-test"}
    assert drift.found_drift(study, [NIGHTS], DIGITS) == found
    assert len(asked) == 7
    more = drift.found_drift(study, [Nights(40, "mnist", 100, unchanged=4, changed=2)], DIGITS)
    assert len(asked) == 8
    runs = {cell.experiment: cell.runs for cell in more}
    assert runs == {"nothing": 4, "others": 2, "a class missing": 2}
    about = {**NIGHTS.about, "permutations": 19, "score": drift.SCORE}
    kept = np.array(kept_draws(draws_file(study.output, 40, "nothing", drift.OURS), about))
    assert kept.shape == (4, len(TESTS) + 1)
    assert ((kept > 0) & (kept <= 1)).all()
    drift.found_drift(study, [Nights(41, "mnist", 100, 3, 2)], DIGITS)  # more images than were asked for
    assert len(asked) == 8


def test_without_images_of_the_shift_the_others_are_told(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    write_packs(Path(study.data), mnist_test=slice(0, 150))
    monkeypatch.setattr(drift, "PERMUTATIONS", 19)
    found = cells(drift.found_drift(study, [NIGHTS], DIGITS))
    assert {name for (name, _, _), cell in found.items() if cell.mean is None} == {"others"}
