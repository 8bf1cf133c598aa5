"""How well a score finds the errors of a classifier, where labels are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regrad.metrics import counted, separation
from regrad.metrics.arrays import FloatArray, vector


def error_auroc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """P(s_wrong > s_right) + P(s_wrong = s_right) / 2 for one wrong and one right prediction.

    Args:
        uncertainty: (n,) scores, larger = more uncertain.
        correct: (n,) whether the prediction was right.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, the lengths differ, or no prediction is
            right or none is wrong.

    Source: scikit-learn's ``roc_auc_score``, errors positive.
    """
    scores, right = _judged(uncertainty, correct)
    return separation.auroc(scores[right], scores[~right])


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
    right, wrong = _counts(uncertainty, correct)
    sizes = right + wrong
    if not right.any():
        return np.full(sizes.sum(), np.nan)
    expected = np.repeat(right / sizes, sizes)
    lift: FloatArray = np.cumsum(expected) / np.arange(1, expected.size + 1) / expected.mean()
    return lift


def raulc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """rAULC = AULC / AULC of the oracle, AULC = 1/n sum_k lift(k/n) - 1; the oracle puts errors last.

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
    return float(counted.raulc(*_counts(uncertainty, correct)))


def aurc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """AURC = 1/n sum_k risk(k/n), risk(k/n) = share of errors among the k most certain images; lower is better.

    Ties as for :func:`lift_curve`: the expectation over every order of tied images.

    >>> round(aurc([0.1, 0.2, 0.3], [True, False, True]), 9)  # (0 + 1/2 + 1/3) / 3
    0.277777778

    Args:
        uncertainty: (n,) scores, larger = more uncertain.
        correct: (n,) whether the prediction was right.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, or the lengths differ.

    Source: Geifman & El-Yaniv, Selective Classification for Deep Neural Networks, 2017.
    """
    return float(counted.aurc(*_counts(uncertainty, correct)))


def augrc(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> float:
    """AUGRC = integral over coverage of (errors among the accepted) / n, by the trapezoid rule; lower is better.

    Equals (1 - A) q (1 - q) + q^2 / 2, with q the share of errors and A = :func:`error_auroc`. Unlike AURC, an error
    among the first few accepted images does not weigh more than a later one.

    >>> augrc([0.1, 0.2, 0.3, 0.4], [True, True, True, False])  # only the last of four steps has an area: 1/4 1/4 / 2
    0.03125

    Args:
        uncertainty: (n,) scores, larger = more uncertain.
        correct: (n,) whether the prediction was right.

    Raises:
        ValueError: an array is empty, not one-dimensional, holds a NaN, or the lengths differ.

    Source: Traub et al., Overcoming Common Flaws in the Evaluation of Selective Classification Systems, 2024.
    """
    return float(counted.augrc(*_counts(uncertainty, correct)))


def _judged(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    scores, right = vector(uncertainty, "uncertainty"), np.asarray(correct, dtype=bool)
    if right.shape != scores.shape:
        raise ValueError(f"uncertainty has shape {scores.shape}, correct has {right.shape}")
    return scores, right


def _counts(uncertainty: npt.ArrayLike, correct: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """(k,) right and (k,) wrong predictions per distinct score, in ascending order."""
    scores, right = _judged(uncertainty, correct)
    cells, place = np.unique(scores, return_inverse=True)
    return np.bincount(place[right], minlength=cells.size), np.bincount(place[~right], minlength=cells.size)
