"""Every metric against an independent reference: scikit-learn's curves, counting pairs, or every order of the ties."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import sklearn.metrics

from regrad import metrics

# Small integers: about every second image shares its score with another one.
SIZES = [(1, 1), (1, 7), (20, 5), (60, 180), (100, 100)]


def tied_scores(known: int, unknown: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([known, unknown])
    return rng.integers(0, 12, known).astype(float), rng.integers(4, 20, unknown).astype(float)


@pytest.mark.parametrize(("known", "unknown"), SIZES)
def test_auroc_counts_pairs_and_half_the_ties(known: int, unknown: int) -> None:
    id_scores, ood_scores = tied_scores(known, unknown)
    pairs = [1.0 if o > i else 0.5 if o == i else 0.0 for i in id_scores for o in ood_scores]
    assert metrics.auroc(id_scores, ood_scores) == pytest.approx(np.mean(pairs), abs=1e-12)


@pytest.mark.parametrize(("known", "unknown"), SIZES)
@pytest.mark.parametrize("positive", ["ood", "id"])
def test_aupr_sums_precision_over_the_thresholds(known: int, unknown: int, positive: str) -> None:
    id_scores, ood_scores = tied_scores(known, unknown)
    wanted, other = (ood_scores, id_scores) if positive == "ood" else (-id_scores, -ood_scores)
    area, recall = 0.0, 0.0
    for threshold in sorted({*wanted, *other}, reverse=True):
        found, false = (wanted >= threshold).sum(), (other >= threshold).sum()
        area += (found / wanted.size - recall) * found / (found + false)
        recall = found / wanted.size
    assert metrics.aupr(id_scores, ood_scores, positive) == pytest.approx(area, abs=1e-12)


def test_aupr_refuses_another_positive_class() -> None:
    with pytest.raises(ValueError, match="'ood' or 'id'"):
        metrics.aupr([0.0], [1.0], positive="in")  # type: ignore[arg-type]


@pytest.mark.parametrize("unknown", [*range(1, 41), 60, 180, 999, 1000])
@pytest.mark.parametrize("tpr", [0.95, 0.8, 1.0])
def test_fpr_at_tpr_is_the_first_point_of_the_roc_curve_that_catches_enough(unknown: int, tpr: float) -> None:
    id_scores, ood_scores = tied_scores(50, unknown)
    labels = np.r_[np.zeros(50), np.ones(unknown)]
    fpr, caught, thresholds = sklearn.metrics.roc_curve(labels, np.r_[id_scores, ood_scores], drop_intermediate=False)
    first = np.flatnonzero(caught >= tpr)[0]
    assert metrics.fpr_at_tpr(id_scores, ood_scores, tpr) == pytest.approx(fpr[first], abs=1e-12)
    assert metrics.threshold_at_tpr(ood_scores, tpr) == thresholds[first]


def test_fpr95_takes_ood_as_the_positive_class() -> None:
    # 19 of 20 unknown images score 5 or more; 1 of 4 known ones does. With ID positive it would be 0.05 or more.
    assert metrics.fpr_at_tpr([1, 2, 3, 5], [0] + [5] * 19) == 0.25


@pytest.mark.parametrize("tpr", [0.0, -1.0, 1.1, math.nan])
def test_tpr_outside_its_range_is_refused(tpr: float) -> None:
    with pytest.raises(ValueError, match="tpr must be in"):
        metrics.threshold_at_tpr([1.0], tpr)


@pytest.mark.parametrize(
    ("shift", "auroc", "fpr95"), [(100.0, 1.0, 0.0), (-100.0, 0.0, 1.0)], ids=["perfect", "reversed"]
)
def test_separated_sets(shift: float, auroc: float, fpr95: float) -> None:
    id_scores = np.arange(10.0)
    assert metrics.auroc(id_scores, id_scores + shift) == auroc
    assert metrics.fpr_at_tpr(id_scores, id_scores + shift) == fpr95


def test_aupr_of_a_perfect_separation_is_one_from_either_side() -> None:
    id_scores = np.arange(10.0)
    assert metrics.aupr(id_scores, id_scores + 100, "ood") == pytest.approx(1.0)
    assert metrics.aupr(id_scores, id_scores + 100, "id") == pytest.approx(1.0)


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert metrics.accuracy([1, 2, 3, 4], [1, 2, 3, 0]) == 0.75
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy([], [])


def test_lift_curve_by_hand() -> None:
    # Right, wrong, right, right in order of uncertainty: accuracies 1, 1/2, 2/3, 3/4, overall 3/4.
    lift = metrics.lift_curve([0.4, 0.1, 0.3, 0.2], [True, True, True, False])
    assert lift == pytest.approx(np.array([1, 1 / 2, 2 / 3, 3 / 4]) / 0.75)
    assert metrics.aulc([0.4, 0.1, 0.3, 0.2], [True, True, True, False]) == pytest.approx(lift.mean() - 1)


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


def test_infinite_scores_rank_beyond_every_finite_one() -> None:
    assert metrics.auroc([1.0, -math.inf], [math.inf, 5.0]) == 1.0
    assert metrics.raulc([-math.inf, 0.0, math.inf], [True, True, False]) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [([], "at least one value"), ([[1.0, 2.0]], "one-dimensional"), ([1.0, math.nan], "1 NaN")],
)
def test_bad_arrays_are_refused(bad: list[float], message: str) -> None:
    for call in (
        lambda: metrics.auroc([0.0, 1.0], bad),
        lambda: metrics.aupr(bad, [0.0, 1.0]),
        lambda: metrics.fpr_at_tpr(bad, [1.0]),
        lambda: metrics.lift_curve(bad, np.ones(np.shape(bad))),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        metrics.lift_curve([1.0, 2.0], [True, False, True])
