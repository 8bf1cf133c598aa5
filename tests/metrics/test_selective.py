"""Right against wrong predictions: by hand, and against every order of the ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics

from regrad import metrics


def test_lift_curve_by_hand() -> None:
    # Right, wrong, right, right in order of uncertainty: accuracies 1, 1/2, 2/3, 3/4, overall 3/4.
    lift = metrics.lift_curve([0.4, 0.1, 0.3, 0.2], [True, True, True, False])
    assert lift == pytest.approx(np.array([1, 1 / 2, 2 / 3, 3 / 4]) / 0.75)


def test_raulc_by_hand() -> None:
    # Oracle: accuracies 1, 1, 1, 3/4. AULC = mean(accuracies) / (3/4) - 1: 35/36 - 1 here, 5/4 - 1 for the oracle.
    assert metrics.raulc([0.4, 0.1, 0.3, 0.2], [True, True, True, False]) == pytest.approx((35 / 36 - 1) / (5 / 4 - 1))


@pytest.mark.parametrize("right", [1, 5, 30, 59])
def test_raulc_of_perfect_random_and_reversed_orders(right: int) -> None:
    rng = np.random.default_rng(right)
    correct = np.arange(60) < right
    order = np.arange(60.0)
    assert metrics.raulc(order, correct) == pytest.approx(1.0, abs=1e-12)
    assert metrics.raulc(-order, correct) < -0.1
    shuffled = [metrics.raulc(rng.permutation(60), correct) for _ in range(2000)]
    standard_error = np.std(shuffled) / math.sqrt(len(shuffled))
    assert abs(np.mean(shuffled)) < 4 * standard_error


@pytest.mark.parametrize(
    ("uncertainty", "correct"),
    [
        ([1, 1, 1, 1], [1, 0, 0, 1]),
        ([0, 1, 1, 1, 2], [1, 1, 0, 0, 1]),
        ([3, 3, 0, 0, 0, 1], [0, 1, 1, 0, 1, 0]),
        ([2, 1, 2, 1, 2, 1], [0, 0, 1, 1, 1, 0]),
    ],
)
def test_ties_are_the_expectation_over_every_order_of_the_tied_images(
    uncertainty: list[int], correct: list[int]
) -> None:
    values, right = np.array(uncertainty, dtype=float), np.array(correct, dtype=bool)
    curves, ratios = [], []
    for positions in itertools.permutations(range(len(values))):
        breaker = np.array(positions) / 100
        curves.append(metrics.lift_curve(values + breaker, right))
        ratios.append(metrics.raulc(values + breaker, right))
    assert metrics.lift_curve(values, right) == pytest.approx(np.mean(curves, axis=0), abs=1e-12)
    assert metrics.raulc(values, right) == pytest.approx(np.mean(ratios), abs=1e-12)


def test_one_score_for_all_images_is_a_random_order() -> None:
    assert metrics.raulc(np.zeros(50), np.arange(50) % 3 > 0) == pytest.approx(0.0, abs=1e-12)


def test_raulc_does_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    uncertainty, correct = rng.integers(0, 6, 40), rng.random(40) < 0.7
    order = rng.permutation(40)
    expected = metrics.raulc(uncertainty, correct)
    assert metrics.raulc(uncertainty[order], correct[order]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("correct", [[True] * 3, [False] * 3])
def test_raulc_is_undefined_when_no_order_is_better_than_another(correct: list[bool]) -> None:
    assert math.isnan(metrics.raulc([1, 2, 3], correct))


def test_aurc_by_hand() -> None:
    # Right, wrong, right, right in order of uncertainty: errors among the first k are 0, 1/2, 1/3, 1/4.
    assert metrics.aurc([0.4, 0.1, 0.3, 0.2], [True, True, True, False]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4) / 4)


def test_augrc_by_hand() -> None:
    # Errors so far over n at coverages 0, 1/4, ... 1: 0, 0, 1/4, 1/4, 1/4; trapezoids of width 1/4.
    assert metrics.augrc([0.4, 0.1, 0.3, 0.2], [True, True, True, False]) == pytest.approx((1 / 8 + 1 / 4 + 1 / 4) / 4)


@pytest.mark.parametrize(("correct", "area"), [([True] * 3, 0.0), ([False] * 3, 0.5)])
def test_augrc_without_errors_or_without_right_predictions(correct: list[bool], area: float) -> None:
    assert metrics.augrc([1, 2, 3], correct) == area


@pytest.mark.parametrize("seed", range(5))
def test_augrc_is_the_area_under_the_generalised_risk_curve(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uncertainty, correct = rng.permutation(50) / 7, rng.random(50) < 0.7
    errors = np.r_[0, np.cumsum(~correct[np.argsort(uncertainty)])] / 50
    assert metrics.augrc(uncertainty, correct) == pytest.approx(np.trapezoid(errors, dx=1 / 50), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_error_auroc_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    uncertainty, correct = rng.integers(0, 9, 60), rng.random(60) < 0.7
    expected = sklearn.metrics.roc_auc_score(~correct, uncertainty)
    assert metrics.error_auroc(uncertainty, correct) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [metrics.aurc, metrics.augrc])
def test_ties_are_the_expectation_for_the_areas_under_risk_too(metric: object) -> None:
    assert callable(metric)
    values, right = np.array([3.0, 3, 0, 0, 0, 1]), np.array([0, 1, 1, 0, 1, 0], dtype=bool)
    orders = [metric(values + np.array(order) / 100, right) for order in itertools.permutations(range(6))]
    assert metric(values, right) == pytest.approx(np.mean(orders), abs=1e-12)


def test_infinite_scores_rank_beyond_every_finite_one() -> None:
    assert metrics.raulc([-math.inf, 0.0, math.inf], [True, True, False]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [([], "at least one value"), ([[1.0, 2.0]], "one-dimensional"), ([1.0, math.nan], "1 NaN")],
)
@pytest.mark.parametrize("metric", [metrics.lift_curve, metrics.raulc, metrics.aurc, metrics.augrc])
def test_bad_arrays_are_refused(metric: object, bad: list[float], message: str) -> None:
    assert callable(metric)
    with pytest.raises(ValueError, match=message):
        metric(bad, np.ones(np.shape(bad)))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        metrics.lift_curve([1.0, 2.0], [True, False, True])
