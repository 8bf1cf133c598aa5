"""Confidence against accuracy: by hand and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from regrad import metrics
from regrad.metrics import calibration


def test_accuracy_is_the_share_of_right_predictions() -> None:
    assert metrics.accuracy([1, 2, 3, 4], [1, 2, 3, 0]) == 0.75
    with pytest.raises(ValueError, match="at least one"):
        metrics.accuracy([], [])


def test_ece_by_hand() -> None:
    # Bins of a tenth: (0.9, 1] holds 1.0 (right) and 0.95 (wrong); 0.9 belongs to (0.8, 0.9].
    gaps = [abs(0.5 - 0.975) * 2, abs(1 - 0.9) * 1, abs(0 - 0.3) * 1]
    assert metrics.ece([1.0, 0.95, 0.9, 0.3], [1, 0, 1, 0], bins=10) == pytest.approx(sum(gaps) / 4)


def test_confidences_that_come_true_have_no_error() -> None:
    assert metrics.ece([0.75] * 4, [True, True, True, False]) == pytest.approx(0.0, abs=1e-12)
    assert metrics.ece([1.0, 0.0], [True, False]) == 0.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("bins", [10, 15])
def test_ece_is_the_weighted_gap_of_scikit_learns_calibration_curve(seed: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    confidence = rng.random(400)
    correct = rng.random(400) < confidence**2
    true, predicted = calibration_curve(correct, confidence, n_bins=bins)
    sizes = np.histogram(confidence, bins, (0, 1))[0]
    expected = (np.abs(true - predicted) * sizes[sizes > 0]).sum() / 400
    assert metrics.ece(confidence, correct, bins) == pytest.approx(expected, abs=1e-12)


def test_bins_are_closed_on_the_right() -> None:
    edges = np.arange(16) / 15
    assert calibration.bin_of(edges).tolist() == [0, *range(15)]
    assert calibration.bin_of(np.nextafter(edges[:-1], 1)).tolist() == list(range(15))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(3,\)"):
        metrics.ece([1.0, 0.5], [True, False, True])
