"""Table 2 from scores made up here: rAULC as the metrics have it, runs that compare, and the interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from regrad import metrics
from regrad.experiments.material import methods
from regrad.experiments.material.experiments import SEPARATION
from regrad.experiments.measured import calibration
from regrad.experiments.measured.scoring import Columns, Study

IMAGES = 150
STUDY = Study("data", "out", seeds=3)
SCORES = tuple((methods.PAPER | methods.OURS).values())


def columns(seed: int, images: int = IMAGES, errors: float = 0.2) -> Columns:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, images).astype(float)
    predictions = np.where(rng.random(images) < errors, (labels + 1) % 10, labels)
    values = {name: rng.normal(0, 1, images) + (predictions != labels) for name in SCORES}
    return {**values, "label": labels, "prediction": predictions}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Columns]:
    """Three trainings of MNIST's network; the last was stopped early. Nothing of any other."""
    made = [columns(0), columns(1), columns(2, images=40)]

    def scored(study: Study, model: str, seed: int, sets: Any, setting: Any) -> dict[str, Columns]:
        return {sets[0]: made[seed]} if model == "mnist-cnn" else {}

    monkeypatch.setattr(calibration, "scored", scored)
    return made


def test_each_network_is_measured_once_by_the_runs_that_are_complete(runs: list[Columns]) -> None:
    results = calibration.calibration(STUDY, SEPARATION)
    ours = {result.row: result for result in results if result.mean is not None}
    assert len(ours) == len(SCORES)  # however many unknown sets there are
    for row, score in (methods.PAPER | methods.OURS).items():
        values = [metrics.raulc(run[score], run["prediction"] == run["label"]) for run in runs[:2]]
        result = ours[row]
        assert result.mean == pytest.approx(np.mean(values))
        assert result.deviation == pytest.approx(np.std(values, ddof=1))
        assert (result.runs, result.images, result.runs_of) == (2, IMAGES, "training")
        assert result.low is not None
        assert result.high is not None
        assert result.low < result.mean < result.high
    missing = [result for result in results if result.mean is None]
    assert missing
    assert all((result.runs, result.images, result.low) == (0, 0, None) for result in missing)


def test_the_interval_is_that_of_a_plain_bootstrap(runs: list[Columns]) -> None:
    run = runs[0]
    right = calibration.right(run)
    assert right.tolist() == (run["prediction"] == run["label"]).astype(float).tolist()
    ends = calibration.interval([(run["entropy"], right)])
    assert ends is not None
    rng, values = np.random.default_rng(5), []
    for _ in range(600):
        rows = rng.integers(IMAGES, size=IMAGES)
        values.append(metrics.raulc(run["entropy"][rows], right[rows]))
    whole = metrics.raulc(run["entropy"], right)
    expected = np.quantile(values, [0.025, 0.975]) - whole
    assert ends == pytest.approx(tuple(expected), abs=0.15 * (expected[1] - expected[0]))


def test_a_network_without_an_error_has_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "scored", lambda *given: {given[3][0]: columns(0, errors=0.0)})
    results = calibration.calibration(STUDY, SEPARATION[:1])
    assert {result.mean for result in results} == {None}
    assert {result.low for result in results} == {None}
