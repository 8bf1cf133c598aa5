"""How honest the classifier's confidence is, where labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import sklearn.metrics

from regrad.metrics.arrays import FloatArray, vector

BINS = 15


def accuracy(labels: npt.ArrayLike, predictions: npt.ArrayLike) -> float:
    """Share of images with prediction = label.

    Args:
        labels: (n,) integers.
        predictions: (n,) integers.

    Raises:
        ValueError: the arrays are empty or differ in length.

    Source: scikit-learn's ``accuracy_score``.
    """
    if np.size(labels) == 0:
        raise ValueError("accuracy needs at least one labelled image")
    return float(sklearn.metrics.accuracy_score(np.asarray(labels), np.asarray(predictions)))


def ece(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> float:
    """ECE = sum_b n_b / n |accuracy_b - mean confidence_b| over equal-width bins of confidence ((b-1)/B, b/B].

    >>> round(ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 9)  # |1 - 0.9| and |1/2 - 0.6|, two images each
    0.1

    Args:
        confidence: (n,) probability of the predicted class, in [0, 1].
        correct: (n,) whether the prediction was right.
        bins: B.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, or the lengths differ.

    Source: Guo et al., On Calibration of Modern Neural Networks, 2017, with 15 bins.
    """
    values, right = _judged(confidence, correct)
    place = bin_of(values, bins)
    return float(ece_of_bins(np.bincount(place, right, bins), np.bincount(place, values, bins), right.size))


def bin_of(confidence: FloatArray, bins: int = BINS) -> npt.NDArray[np.int64]:
    """ceil(B confidence) - 1, at least 0: the bin ((b-1)/B, b/B] each confidence falls in.

    Args:
        confidence: (n,) in [0, 1].
        bins: B.
    """
    edges = np.arange(1, bins) / bins
    return np.searchsorted(edges, confidence, side="left")


def ece_of_bins(right: npt.ArrayLike, confidence: npt.ArrayLike, images: npt.ArrayLike) -> FloatArray:
    """sum_b |right_b - sum of confidence_b| / n.

    Args:
        right: (..., bins) right predictions per bin.
        confidence: (..., bins) sum of confidences per bin.
        images: (...) n.
    """
    gap: FloatArray = np.abs(np.asarray(right) - np.asarray(confidence)).sum(axis=-1) / np.asarray(images)
    return gap


def _judged(confidence: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    values, right = vector(confidence, "confidence"), np.asarray(correct, dtype=bool)
    if right.shape != values.shape:
        raise ValueError(f"confidence has shape {values.shape}, correct has {right.shape}")
    return values, right
