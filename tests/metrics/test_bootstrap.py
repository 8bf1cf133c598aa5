"""Intervals against a bootstrap written out image by image, against theory, and fast enough."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from regrad.metrics import bootstrap, counted


def cells(*samples: np.ndarray) -> list[np.ndarray]:
    """Counts of each sample over their common distinct values."""
    values = np.unique(np.concatenate(samples))
    return [np.bincount(np.searchsorted(values, sample), minlength=values.size) for sample in samples]


def statistic(known: np.ndarray, unknown: np.ndarray) -> dict[str, np.ndarray]:
    return {"auroc": counted.auroc(known, unknown), "fpr95": counted.fpr_at_tpr(known, unknown)}


def test_as_a_bootstrap_image_by_image() -> None:
    rng = np.random.default_rng(0)
    known, unknown = rng.normal(0, 1, 80).round(1), rng.normal(1, 1, 60).round(1)
    drawn = []
    for _ in range(1500):
        scores = np.r_[rng.choice(known, 80), rng.choice(unknown, 60)]
        drawn.append(roc_auc_score([0] * 80 + [1] * 60, scores))
    found = bootstrap.intervals(statistic, cells(known, unknown), resamples=4000)["auroc"]
    assert found == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.006)


def test_the_interval_of_a_share_is_that_of_the_binomial() -> None:
    found = bootstrap.intervals(
        lambda counts: {"share": counts[:, 0] / counts.sum(1)}, [np.array([300, 700])], resamples=4000
    )
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert found["share"] == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = 0.5 * (1 + math.erf(1 / 2))  # P(N(1, 1) > N(0, 1))
    held = 0
    for seed in range(100):
        counts = cells(rng.normal(0, 1, 200), rng.normal(1, 1, 200))
        ends = bootstrap.intervals(statistic, counts, resamples=300, seed=seed)["auroc"]
        assert ends is not None
        held += ends[0] <= truth <= ends[1]
    assert 88 <= held <= 100


def test_the_seed_decides() -> None:
    counts = [np.array([3, 4, 5]), np.array([1, 4, 9])]
    first = bootstrap.intervals(statistic, counts, seed=1)
    assert bootstrap.intervals(statistic, counts, seed=1) == first
    assert bootstrap.intervals(statistic, counts, seed=2) != first


def test_undefined_resamples_are_left_out_and_mostly_undefined_is_none() -> None:
    rare = np.array([[100, 0], [0, 1]])  # one error: e^-1 of the resamples have none

    def error_auroc(counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"auroc": counted.auroc(counts[:, 0], counts[:, 1])}

    assert bootstrap.intervals(error_auroc, [rare])["auroc"] == (1.0, 1.0)
    assert bootstrap.intervals(error_auroc, [np.array([[5, 0], [0, 0]])])["auroc"] is None


def test_pooling_keeps_every_image_and_barely_moves_the_metrics() -> None:
    rng = np.random.default_rng(2)
    counts = cells(rng.normal(0, 1, 30_000), rng.normal(1, 1, 30_000))
    pooled = bootstrap.pool(counts)
    assert [c.sum() for c in pooled] == [30_000, 30_000]
    assert bootstrap.CELLS / 2 < pooled[0].size <= bootstrap.CELLS
    assert counted.auroc(*pooled) == pytest.approx(counted.auroc(*counts), abs=1e-5)
    assert counted.aurc(*pooled) == pytest.approx(counted.aurc(*counts), abs=1e-4)
    assert all(np.array_equal(a, b) for a, b in zip(bootstrap.pool(counts, 10**6), counts, strict=True))


def test_a_thousand_resamples_of_100_000_images_take_seconds() -> None:
    rng = np.random.default_rng(3)
    counts = cells(rng.normal(0, 1, 100_000), rng.normal(1, 1, 100_000))
    begin = time.process_time()
    found = bootstrap.intervals(statistic, bootstrap.pool(counts))
    assert time.process_time() - begin < 20
    assert found["auroc"] is not None
    # Hanley & McNeil's standard error of an AUROC.
    a, n = 0.5 * (1 + math.erf(1 / 2)), 100_000
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)
    error = math.sqrt((a * (1 - a) + (n - 1) * (q1 + q2 - 2 * a * a)) / n / n)
    assert found["auroc"][1] - found["auroc"][0] == pytest.approx(2 * 1.96 * error, rel=0.15)
