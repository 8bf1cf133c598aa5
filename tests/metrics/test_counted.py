"""From counts the metrics come out as from the images themselves, also for many resamples at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from regrad import metrics
from regrad.metrics import counted

SEEDS = range(6)


def sets(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts per cell of two sets, some cells empty, and the cells' values."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, 30), rng.integers(0, 4, 30), np.sort(rng.normal(size=30))


@pytest.mark.parametrize("seed", SEEDS)
def test_separation(seed: int) -> None:
    known, unknown, values = sets(seed)
    id_scores, ood_scores = np.repeat(values, known), np.repeat(values, unknown)
    assert counted.auroc(known, unknown) == pytest.approx(metrics.auroc(id_scores, ood_scores), abs=1e-12)
    for positive in ("ood", "id"):
        expected = metrics.aupr(id_scores, ood_scores, positive)
        assert counted.aupr(known, unknown, positive) == pytest.approx(expected, abs=1e-12)
    for tpr in (0.5, 0.8, 0.95, 1.0):
        threshold = metrics.threshold_at_tpr(ood_scores, tpr)
        assert values[counted.cell_at_tpr(unknown, tpr)] == threshold
        expected = metrics.fpr_at_tpr(id_scores, ood_scores, tpr)
        assert counted.fpr_at_tpr(known, unknown, tpr) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_right_and_wrong(seed: int) -> None:
    right, wrong, values = sets(seed)
    uncertainty = np.r_[np.repeat(values, right), np.repeat(values, wrong)]
    correct = np.arange(uncertainty.size) < right.sum()
    for ours, of_images in (
        (counted.aurc, lambda u, c: 1 - (metrics.lift_curve(u, c) * c.mean()).mean()),
        (counted.raulc, lambda u, c: oracle_ratio(u, c)),
        (counted.augrc, metrics.augrc),
        (counted.auroc, metrics.error_auroc),
    ):
        assert ours(right, wrong) == pytest.approx(of_images(uncertainty, correct), abs=1e-12)


def oracle_ratio(uncertainty: np.ndarray, correct: np.ndarray) -> float:
    """rAULC by its definition: the area under the lift curve less 1, over that of the best order."""
    best = metrics.lift_curve(np.arange(correct.size), np.sort(correct)[::-1])
    return float((metrics.lift_curve(uncertainty, correct).mean() - 1) / (best.mean() - 1))


def test_resamples_are_computed_one_by_one() -> None:
    pairs = [sets(seed)[:2] for seed in SEEDS]
    first, second = (np.stack(column) for column in zip(*pairs, strict=True))
    for metric in (counted.auroc, counted.aupr, counted.fpr_at_tpr, counted.aurc, counted.raulc, counted.augrc):
        assert metric(first, second) == pytest.approx([float(metric(*pair)) for pair in pairs], abs=1e-12)


def test_metrics_without_images_of_a_kind_are_nan() -> None:
    some, none = np.array([1, 2]), np.array([0, 0])
    for metric in (counted.auroc, counted.aupr):
        assert math.isnan(metric(some, none))
        assert math.isnan(metric(none, some))
    assert math.isnan(counted.raulc(some, none))
    assert math.isnan(counted.raulc(none, some))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_error_of_merged_cells_is_bounded(seed: int) -> None:
    known, unknown, _ = sets(seed)
    merged = [counts.reshape(6, 5).sum(1) for counts in (known, unknown)]
    difference = abs(counted.auroc(*merged) - counted.auroc(known, unknown))
    assert difference <= counted.auroc_error(*merged)


def test_spread_cells_interpolate_the_false_alarms() -> None:
    rng = np.random.default_rng(0)
    known, unknown = np.histogram(rng.normal(0, 1, 10**6), 6000, (-5, 7))[0], None
    unknown = np.histogram(rng.normal(1, 1, 10**6), 6000, (-5, 7))[0]
    merged = [counts.reshape(200, 30).sum(1) for counts in (known, unknown)]
    exact = counted.fpr_at_tpr(known, unknown)
    assert counted.fpr_at_tpr(*merged, spread=True) == pytest.approx(exact, abs=1e-3)
    assert counted.fpr_at_tpr(*merged) >= exact


def test_quantile_leaves_at_most_the_rest() -> None:
    images = np.array([90, 5, 4, 1])
    assert counted.quantile(images, 0.95) == 1  # 5 of 100 lie in the last two cells
    assert counted.quantile(images, 0.96) == 2
    assert counted.quantile(images, 0.999) == 3
    assert counted.quantile(np.array([100]), 0.5) == 0


@pytest.mark.parametrize("seed", SEEDS)
def test_thresholded_accuracy_is_the_share_above_the_cell_that_the_errors_fill(seed: int) -> None:
    right, wrong, values = sets(seed)
    new = np.random.default_rng(seed + 100).integers(0, 6, 30)
    confidence = np.sort(np.repeat(values, right + wrong))
    errors, total = int(wrong.sum()), 0.0
    t = confidence[errors]  # as many images lie before it as there are errors; of its ties, some do
    tied = confidence == t
    share = (tied & (np.arange(confidence.size) >= errors)).sum() / tied.sum()
    for value, count in zip(values, new, strict=True):
        total += count * (1.0 if value > t else share if value == t else 0.0)
    assert counted.thresholded_accuracy(wrong, right, new) == pytest.approx(total / new.sum(), abs=1e-12)
    assert counted.thresholded_accuracy(wrong, right, wrong + right) == pytest.approx(
        right.sum() / (wrong + right).sum()
    )
    stacked = counted.thresholded_accuracy(*(np.stack([each, each[::-1]]) for each in (wrong, right, new)))
    assert stacked.shape == (2,)
    assert stacked[0] == pytest.approx(total / new.sum())
