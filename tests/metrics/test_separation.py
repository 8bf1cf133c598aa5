"""ID against OOD: every metric against scikit-learn's curves, or against counting pairs."""

from __future__ import annotations

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


def test_infinite_scores_rank_beyond_every_finite_one() -> None:
    assert metrics.auroc([1.0, -math.inf], [math.inf, 5.0]) == 1.0


@pytest.mark.parametrize(
    ("bad", "message"),
    [([], "at least one value"), ([[1.0, 2.0]], "one-dimensional"), ([1.0, math.nan], "1 NaN")],
)
def test_bad_arrays_are_refused(bad: list[float], message: str) -> None:
    for call in (
        lambda: metrics.auroc([0.0, 1.0], bad),
        lambda: metrics.aupr(bad, [0.0, 1.0]),
        lambda: metrics.fpr_at_tpr(bad, [1.0]),
    ):
        with pytest.raises(ValueError, match=message):
            call()
