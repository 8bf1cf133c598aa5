"""Scores that people use: their means and distances to the best by hand, and what is left out without training data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from regrad.experiments.material.experiments import Experiment, against
from regrad.experiments.measured import in_use
from regrad.experiments.measured.results import Result

CHOSEN = against("mnist-cnn", "mnist", "omniglot", "fmnist")
OTHERS = against("densenet100-cifar10", "cifar10", "tinyimagenet-not-cifar10")


def cells(pairs: Sequence[Experiment], values: Sequence[dict[str, float]]) -> list[Result]:
    """Every row at 50, but for ``values``."""
    return [
        Result("scores", pair.group, pair.name, row, metric, own.get(row, 50.0) + more, images=40)
        for pair, own in zip(pairs, values, strict=True)
        for row in in_use.ROWS
        for metric, more in (("AUROC", 0), ("AUPR", 1))
    ]


def summary(*of: Result) -> dict[tuple[str, str], float | None]:
    return {(result.row, result.experiment): result.mean for result in in_use.over_networks(of, "AUROC")}


def test_means_and_distances_are_those_by_hand() -> None:
    values = [{"Energy": 90.0, "GEN": 92.0}, {"Energy": 80.0, "GEN": 70.0}, {"Energy": 60.0, "k-NN": 99.0}]
    shown = summary(*cells([*CHOSEN, *OTHERS], values))
    assert shown["Energy", "mean, chosen on"] == pytest.approx(85)
    assert shown["GEN", "mean, chosen on"] == pytest.approx(81)
    assert shown["Energy", "most behind the best, chosen on"] == pytest.approx(2)
    assert shown["GEN", "most behind the best, chosen on"] == pytest.approx(10)
    assert shown["k-NN", "mean, others"] == pytest.approx(99)
    assert shown["k-NN", "most behind the best, others"] == pytest.approx(60 - 99)  # of those without training data
    assert shown["Entropy", "most behind the best, others"] == pytest.approx(10)


def test_a_row_that_lacks_a_number_has_no_mean() -> None:
    every = cells([*CHOSEN], [{}, {}])
    lacking = (CHOSEN[0].name, "ViM")
    shown = summary(*(replace(cell, mean=None) if (cell.experiment, cell.row) == lacking else cell for cell in every))
    assert shown["ViM", "mean, chosen on"] is None
    assert shown["Energy", "mean, chosen on"] == 50
    assert shown["Energy", "mean, others"] is None  # nothing was measured there
