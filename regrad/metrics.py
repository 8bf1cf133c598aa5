"""How well a score separates unknown images (OOD) from known ones (ID), and errors from right predictions.

Everywhere a larger score means more uncertain. Arrays in, plain floats out; values are fractions, not percentages.
An infinite score (an overflow) ranks above or below every finite one; a NaN is refused, since it has no rank.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import sklearn.metrics

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]


def auroc(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> float:
    """P(s_ood > s_id) + P(s_ood = s_id) / 2 for one image drawn from each set.

    1 is a perfect separation, 0.5 none, 0 a reversed one. It does not depend on how large the two sets are.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN.

    Source: scikit-learn's ``roc_auc_score``, OOD positive.
    """
    is_ood, scores = _pooled(id_scores, ood_scores)
    return float(sklearn.metrics.roc_auc_score(is_ood, scores))


def aupr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, positive: Literal["ood", "id"] = "ood") -> float:
    """sum_t (R_t - R_{t-1}) P_t over the thresholds t, with P the precision and R the recall: average precision.

    Chance level is the share of positives, so values from sets of different sizes do not compare.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.
        positive: which images are to be found: ``ood`` by large scores, or ``id`` by small ones.

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN; ``positive`` is another word.

    Source: scikit-learn's ``average_precision_score`` (a step function, no interpolation).
    """
    is_ood, scores = _pooled(id_scores, ood_scores)
    if positive == "ood":
        return float(sklearn.metrics.average_precision_score(is_ood, scores))
    if positive == "id":
        return float(sklearn.metrics.average_precision_score(~is_ood, -scores))
    raise ValueError(f"positive must be 'ood' or 'id', not {positive!r}")


def threshold_at_tpr(ood_scores: npt.ArrayLike, tpr: float = 0.95) -> float:
    """max { t : share of OOD images with s >= t is at least tpr }: the highest bar that catches enough of them.

    Args:
        ood_scores: (m,) scores of out-of-distribution images.
        tpr: the share to be caught, in (0, 1].

    Raises:
        ValueError: the array is empty, not one-dimensional, or holds a NaN; ``tpr`` is outside (0, 1].
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], not {tpr}")
    scores = _vector(ood_scores, "ood_scores")
    caught = max(1, math.ceil(round(tpr * scores.size, 9)))  # rounded: 0.95 * n may land a hair above a whole number
    rank = scores.size - caught
    return float(np.partition(scores, rank)[rank])


def fpr_at_tpr(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike, tpr: float = 0.95) -> float:
    """Share of ID images with s >= t, t = threshold_at_tpr: the false alarms that catching ``tpr`` of the OOD costs.

    OOD is the positive class: "FPR95" here is the false alarm rate at 95 % of OOD images caught. Some papers
    take ID as positive instead (OOD images let through while 95 % of the ID images pass); the two differ.

    Args:
        id_scores: (n,) scores of in-distribution images.
        ood_scores: (m,) scores of out-of-distribution images.
        tpr: the share of OOD images to be caught, in (0, 1].

    Raises:
        ValueError: an array is empty, not one-dimensional, or holds a NaN; ``tpr`` is outside (0, 1].

    Source: Liang et al. (ODIN), ICLR 2018, with the classes as stated. A point of scikit-learn's ``roc_curve``.
    """
    threshold = threshold_at_tpr(ood_scores, tpr)
    return float(np.mean(_vector(id_scores, "id_scores") >= threshold))


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


def lift_curve(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> FloatArray:
    """lift(k/n) = (accuracy of the k most certain images) / (accuracy of all n), for k = 1..n.

    Tied images have no order: the curve is the expectation over every order of theirs, so inside a tie of
    m images with c right ones each image counts c/m.

    >>> lift_curve([0.1, 0.2, 0.3, 0.3], [1, 1, 0, 0]).tolist()
    [2.0, 2.0, 1.3333333333333333, 1.0]

    Args:
        uncertainty: (n,) scores, larger = more uncertain.
        correct: (n,) whether the prediction was right.

    Returns:
        (n,) the curve; NaN throughout when no prediction is right.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, or the lengths differ.

    Source: Postels et al., On the Practicality of Deterministic Epistemic Uncertainty, 2021.
    """
    scores = _vector(uncertainty, "uncertainty")
    right = np.asarray(correct, dtype=np.float64)
    if right.shape != scores.shape:
        raise ValueError(f"uncertainty has shape {scores.shape}, correct has {right.shape}")
    order = np.argsort(scores)
    scores, right = scores[order], right[order]
    tie_starts = np.flatnonzero(np.r_[True, scores[1:] != scores[:-1]])
    tie_sizes = np.diff(np.r_[tie_starts, scores.size])
    expected = np.repeat(np.add.reduceat(right, tie_starts) / tie_sizes, tie_sizes)
    mean = right.mean()
    if mean == 0:
        return np.full(scores.size, np.nan)
    lift: FloatArray = np.cumsum(expected) / np.arange(1, scores.size + 1) / mean
    return lift


def aulc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """AULC = 1/n sum_k lift(k/n) - 1: the area between the lift curve and that of a random order.

    Args, errors, ties and source as for :func:`lift_curve`; NaN when no prediction is right.
    """
    return float(lift_curve(uncertainty, correct).mean() - 1)


def raulc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """rAULC = AULC / AULC of the oracle, which puts every right prediction before every wrong one.

    1 is a perfect order, 0 what a random order gives on average, negative a reversed one (which can fall below -1).

    >>> raulc([0.1, 0.2, 0.9], [True, True, False])
    1.0

    Args:
        uncertainty: (n,) scores, larger = more uncertain.
        correct: (n,) whether the prediction was right.

    Returns:
        The ratio; NaN when every prediction is right or every one is wrong, since then no order is better than another.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, or the lengths differ.

    Source: Postels et al., On the Practicality of Deterministic Epistemic Uncertainty, 2021.
    """
    right = np.asarray(correct, dtype=bool)
    area = aulc(uncertainty, right)
    if right.all() or not right.any():
        return math.nan
    best = _oracle_order(int(right.sum()), right.size)
    return area / aulc(np.arange(right.size), best)


def _oracle_order(right: int, total: int) -> BoolArray:
    """(total,) the right ones first. A strict order: as a tie the right ones would read the same, but slower."""
    return np.arange(total) < right


def _pooled(id_scores: npt.ArrayLike, ood_scores: npt.ArrayLike) -> tuple[BoolArray, FloatArray]:
    """(n + m,) whether an image is OOD, and its score."""
    known, unknown = _vector(id_scores, "id_scores"), _vector(ood_scores, "ood_scores")
    return np.r_[np.zeros(known.size, bool), np.ones(unknown.size, bool)], np.r_[known, unknown]


def _vector(values: npt.ArrayLike, name: str) -> FloatArray:
    vector: npt.NDArray[Any] = np.asarray(values, dtype=np.float64)
    if vector.ndim != 1 or vector.size == 0:
        raise ValueError(f"{name} must be one-dimensional with at least one value, not of shape {vector.shape}")
    if np.isnan(vector).any():
        raise ValueError(f"{name} holds {int(np.isnan(vector).sum())} NaN; leave those images out and say how many")
    # Only the order matters here, and scikit-learn refuses infinities.
    return np.clip(vector, -np.finfo(np.float64).max, np.finfo(np.float64).max)
