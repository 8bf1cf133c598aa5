"""Curves hold what was counted, and no more points than a page can show."""

from __future__ import annotations

import math

import numpy as np
import pytest
import sklearn.metrics

from regrad import metrics
from regrad.runs import curves
from regrad.runs.tally import Tally, join_tallies

RNG = np.random.default_rng(0)


def count(*samples: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    tallies = [Tally() for _ in samples]
    for tally, sample in zip(tallies, samples, strict=True):
        tally.add(np.asarray(sample, dtype=float))
    return join_tallies(tallies)


def test_histogram_shares_are_of_the_same_bins() -> None:
    known, unknown = RNG.normal(0, 1, 1000), RNG.normal(2, 1, 500)
    values, (ours, theirs) = count(known, unknown)
    made = curves.histogram(values, {"known": ours, "ood": theirs}, bins=10)
    edges = np.array(made["edges"])
    assert not made["log"]
    assert np.allclose(np.diff(edges), np.diff(edges)[0])
    assert made["shares"]["known"][1:-1] == pytest.approx(np.histogram(known, edges)[0][1:-1] / 1000)
    assert sum(made["shares"]["known"]) == pytest.approx(1)
    assert sum(made["shares"]["ood"]) == pytest.approx(1)
    assert made["shares"]["ood"][-1] == pytest.approx((unknown >= edges[-2]).mean())


@pytest.mark.parametrize(
    ("sample", "log"),
    [
        (np.geomspace(1e-3, 10, 500), True),
        (np.linspace(1, 10, 500), False),
        (np.linspace(-5, 5, 500), False),
        (np.zeros(5), False),
        (np.r_[np.ones(5), math.inf], False),
    ],
)
def test_histogram_is_logarithmic_only_for_positive_values_over_decades(sample: np.ndarray, log: bool) -> None:
    values, (counts,) = count(sample)
    made = curves.histogram(values, {"known": counts}, bins=8)
    assert made["log"] == log
    assert np.all(np.diff(made["edges"]) > 0)
    assert sum(made["shares"]["known"]) == pytest.approx(1)


@pytest.mark.parametrize("size", [20, 5000])
def test_roc_and_pr_lie_on_scikit_learns(size: int) -> None:
    known, unknown = RNG.normal(0, 1, size).round(2), RNG.normal(1, 1, size).round(2)
    made = curves.separation_curves(*count(known, unknown)[1])
    labels, scores = np.repeat([0, 1], size), np.r_[known, unknown]
    fpr, tpr, _ = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
    every = {(round(float(x), 6), round(float(y), 6)) for x, y in zip(fpr, tpr, strict=True)}
    roc = list(zip(made["roc"]["fpr"], made["roc"]["tpr"], strict=True))
    assert set(roc) <= every
    assert (roc[0], roc[-1]) == ((0, 0), (1, 1))
    assert len(roc) <= curves.POINTS + 2
    # What is left out does not show: the area is the same.
    assert np.trapezoid(made["roc"]["tpr"], made["roc"]["fpr"]) == pytest.approx(
        metrics.auroc(known, unknown), abs=2e-4
    )
    precision, recall, _ = sklearn.metrics.precision_recall_curve(labels, scores)
    points = {(round(float(x), 6), round(float(y), 6)) for x, y in zip(recall, precision, strict=True)}
    assert set(zip(made["pr"]["recall"], made["pr"]["precision"], strict=True)) <= points


def test_lift_and_risk_by_hand() -> None:
    # Right, wrong, right, right in order of uncertainty.
    made = curves.selective_curves(np.array([1, 0, 1, 1]), np.array([0, 1, 0, 0]))
    assert made["coverage"] == [0.25, 0.5, 0.75, 1]
    assert made["risk"] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 4], abs=1e-6)
    assert made["lift"] == pytest.approx([4 / 3, 2 / 3, 8 / 9, 1], abs=1e-5)


def test_values_that_a_set_has_none_of_are_no_points() -> None:
    made = curves.separation_curves(np.array([0, 3, 0, 1, 0]), np.array([0, 0, 0, 2, 0]))
    assert made["roc"] == {"fpr": [0, 0.25, 1], "tpr": [0, 1, 1]}
    assert made["pr"] == {
        "recall": [1, 1],
        "precision": [pytest.approx(2 / 3, abs=1e-6), pytest.approx(1 / 3, abs=1e-6)],
    }
